//! Redis proxies.

use anyhow::Result;

use super::{Choice, Comparison, Found, IdleCase, idle_memory, ours};
use crate::cases;
use crate::contender::{Contender, Kind};
use crate::idle::redis::Auth;
use crate::redis_benchmark::RedisBenchmark;
use crate::rivals::redis::Redis;
use crate::rivals::{Lab, haproxy, twemproxy};
use crate::runner::run_all;

pub(super) const FAIRNESS: &str = "\
What is not quite fair: HAProxy only moves bytes and opens a server connection for each client. twemproxy has one connection to the server,
which is its default, and no TLS, so that in the TLS cases the measure is HAProxy, which ends it. Neither rewrites keys or knows users:
their clients work in the server's logical database 0. TenantsDB puts the tenant's prefix before each key, and keeps its query log and
counters on. What the 50 clients' connections and logins cost is part of each run. `redis-benchmark` spreads its requests over 100,000 keys, of
64 KB values over 1,000; each key has a value of the case's size before a `GET`. It is told how many requests to make: as many as take about
the time of a run by a short run before the first. Direct connections cost no proxy time and show the throughput that is there to be had.

What a profile shows: with one request at a time nine tenths of our time is the kernel's, most of it sending; on io_uring a busy thread waits for several events
before it works (at most 200 µs, `proxy.coalesce_us`), and what it sends to the server in one turn goes out together. With 16 requests at a time a third is code of our own: some 0.2 µs for a
request's key, prefix, counters, log and reply; the rest is one send and one receive for each client's batch, which no proxy is spared.
";

pub(super) fn run(lab: &Lab, choice: Choice<'_>) -> Result<Found> {
    let redis = Redis::start(lab)?;
    let twemproxy = || {
        let (process, port) = twemproxy::start(lab, redis.port())?;
        Ok(column(&redis, Kind::Twemproxy, process, port))
    };
    let relay = |kind, tls| {
        let (process, port) = haproxy::start(lab, redis.port(), tls)?;
        Ok(column(&redis, kind, process, port))
    };
    let haproxy_tls = || relay(Kind::HaProxyTls, haproxy::Tls::Ended);
    let tenantsdb = || crate::ours::start(lab, Comparison::Redis, redis.port(), Kind::Ours);
    let mut contenders = vec![
        Contender {
            kind: Kind::Direct,
            endpoint: redis.endpoint(redis.port()),
            process: None,
        },
        twemproxy()?,
        relay(Kind::HaProxy, haproxy::Tls::Passed)?,
        haproxy_tls()?,
    ];
    contenders.extend(ours(lab, Comparison::Redis, redis.port())?);
    let mut driver = RedisBenchmark::new(&redis);
    let cases = choice.cases(cases::redis::all());
    let cases = run_all(&cases, &contenders, choice.pace, &mut driver);
    drop(contenders);
    let idle = |start, clients, tls| IdleCase {
        start,
        clients,
        tls,
    };
    // The first clients are not counted and connected all the same.
    let idle_clients = choice.idle_clients;
    let relayed = idle_clients.min(u32::from(haproxy::MAX_CLIENTS) - 100);
    let idle: [IdleCase<'_>; 4] = [
        idle(&twemproxy, idle_clients, false),
        idle(&tenantsdb, idle_clients, false),
        idle(&haproxy_tls, relayed, true),
        idle(&tenantsdb, idle_clients, true),
    ];
    Ok(Found {
        programs: programs(&redis)?,
        cases,
        idle: idle_memory(choice, &idle, &mut Auth),
        lookup: None,
    })
}

fn column(redis: &Redis, kind: Kind, process: crate::process::Process, port: u16) -> Contender {
    Contender {
        kind,
        endpoint: redis.endpoint(port),
        process: Some(process),
    }
}

fn programs(redis: &Redis) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        (
            "Redis",
            format!("{}, nothing kept on disk", redis.version()?),
        ),
        (
            "twemproxy",
            format!("{}, one server connection", twemproxy::version()?),
        ),
        (
            "HAProxy",
            format!("{}, TCP mode, one thread", haproxy::version()?),
        ),
    ])
}
