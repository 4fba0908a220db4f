//! PostgreSQL proxies.

use anyhow::Result;

use super::{Choice, Comparison, Found, IdleCase, idle_memory, ours};
use crate::cases;
use crate::contender::{Contender, Kind};
use crate::idle::postgres::Scram;
use crate::lookup;
use crate::pgbench::Pgbench;
use crate::rivals::pgbouncer::Pooling;
use crate::rivals::postgres::{CONNECTIONS, Postgres, SCALE};
use crate::rivals::{Lab, haproxy, pgbouncer};
use crate::runner::run_all;

pub(super) const FAIRNESS: &str = "\
What is not quite fair: HAProxy only moves bytes and opens a server connection for each client; in the TLS cases it would pass
PostgreSQL's own TLS through, so it has no column there. PgBouncer 1.18 cannot pool prepared statements by transaction, so in that case
it pools by session. TenantsDB keeps its query log and counters on, which the rivals do not have. Direct connections cost no proxy time and
show the throughput that is there to be had.

What a profile shows (`perf record -g`, simple protocol, 32 clients): 94 % of our time is the kernel's. Of the whole, 65 % goes into sending, which on
loopback takes in the receiving side of TCP (42 %) and waking the peer (16 %), 11 % into receiving, 9 % into going to sleep and being woken, 6 % into code
of our own. So what is left to save is turns: on io_uring a busy thread waits for several events before it works (at most 200 µs, `proxy.coalesce_us`), which is what sets its
figures off from epoll's where 32 clients and more, or large rows, keep it busy. With 8 clients, and where connections come one by one, there is nobody to wait for:
there both reactors do the same work, and which of them comes out ahead by one or two per cent is chance.
";

pub(super) fn run(lab: &Lab, choice: Choice<'_>) -> Result<Found> {
    let postgres = Postgres::start(lab)?;
    let mut contenders = start_rivals(lab, &postgres)?;
    contenders.extend(ours(lab, Comparison::Postgres, postgres.port())?);
    let mut driver = Pgbench {
        large_row_file: lab.write("large-row.sql", "SELECT repeat('x', 1048576);\n")?,
    };
    let cases = choice.cases(cases::postgres::all());
    let cases = run_all(&cases, &contenders, choice.pace, &mut driver);
    drop(contenders);
    let pgbouncer = || start_pgbouncer(lab, &postgres, Pooling::Transaction);
    let tenantsdb = || crate::ours::start(lab, Comparison::Postgres, postgres.port(), Kind::Ours);
    let starts: [&dyn Fn() -> Result<Contender>; 2] = [&pgbouncer, &tenantsdb];
    let idle: Vec<IdleCase<'_>> = [false, true]
        .into_iter()
        .flat_map(|tls| {
            starts.map(|start| IdleCase {
                start,
                clients: choice.idle_clients,
                tls,
            })
        })
        .collect();
    Ok(Found {
        programs: programs(lab, &postgres)?,
        cases,
        idle: idle_memory(choice, &idle, &mut Scram::default()),
        lookup: choice.includes("lookup").then(lookup::measure),
    })
}

fn programs(lab: &Lab, postgres: &Postgres) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        (
            "PostgreSQL",
            format!(
                "{}, `pgbench` scale {SCALE}, {CONNECTIONS} connections, fsync on, 256 MB shared buffers",
                postgres.version(lab)?
            ),
        ),
        (
            "PgBouncer",
            format!(
                "{}: 32 backends (transaction), 128 (session)",
                pgbouncer::version()?
            ),
        ),
        (
            "HAProxy",
            format!("{}, TCP mode, one thread", haproxy::version()?),
        ),
    ])
}

/// Starts a PgBouncer column in front of `postgres`.
fn start_pgbouncer(lab: &Lab, postgres: &Postgres, pooling: Pooling) -> Result<Contender> {
    let (process, port) = pgbouncer::start(lab, postgres, pooling)?;
    let endpoint = postgres.endpoint(port, false);
    Ok(Contender {
        kind: Kind::PgBouncer(pooling),
        endpoint,
        process: Some(process),
    })
}

/// Starts the direct column and all rivals.
fn start_rivals(lab: &Lab, postgres: &Postgres) -> Result<Vec<Contender>> {
    let direct = Contender {
        kind: Kind::Direct,
        endpoint: postgres.endpoint(postgres.port(), false),
        process: None,
    };
    let (relay, relay_port) = haproxy::start(lab, postgres.port(), haproxy::Tls::Passed)?;
    let relay = Contender {
        kind: Kind::HaProxy,
        endpoint: postgres.endpoint(relay_port, false),
        process: Some(relay),
    };
    Ok(vec![
        direct,
        start_pgbouncer(lab, postgres, Pooling::Transaction)?,
        start_pgbouncer(lab, postgres, Pooling::Session)?,
        relay,
    ])
}
