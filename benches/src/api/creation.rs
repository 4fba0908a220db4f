//! Creating a tenant, beside what its SQL takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::instance::{Account, Instance, new_tenant};
use super::report::{Section, Target};
use super::{Amounts, millis};
use crate::process::run as run_command;

/// What creating may take of what its SQL takes.
const WANTED: f64 = 1.3;
/// For the server's log collector to write what has been said.
const LOGGED_WITHIN: Duration = Duration::from_secs(2);

pub(super) fn run(instance: &Instance, account: &Account, amounts: &Amounts) -> Result<Section> {
    let count = amounts.creations;
    let server = Server::find(&instance.data())?;
    let mut client = instance.client(Some(&account.key))?;
    // Connections and caches are warm, and the version of the schema has been made.
    client.ok("POST", "/tenants", Some(&new_tenant("first")))?;
    server.log_durations(true)?;
    let before = server.durations()?;
    let mut times = Vec::new();
    for n in 0..count {
        let started = Instant::now();
        client.ok("POST", "/tenants", Some(&new_tenant(&format!("made{n}"))))?;
        times.push(millis(started.elapsed()));
    }
    sleep(LOGGED_WITHIN);
    let sql = server.durations()? - before;
    server.log_durations(false)?;
    ensure!(sql > 0.0, "the server has logged no statements");
    let (made, sql) = (
        times.iter().sum::<f64>() / f64::from(count),
        sql / f64::from(count),
    );
    let row = |what: &str, ms: f64| vec![what.to_owned(), format!("{ms:.1}")];
    Ok(Section {
        title: "Creating a tenant",
        method: format!(
            "`POST /tenants` with one database of a small schema, {count} times one after the other, and the time that the server took for the \
             platform's statements meanwhile, by its own log: means. To the SQL by `psql` would come what it takes to start it and to log in, \
             five times, and the statements of the schema, which run as another role and are not in this log; so the true ratio is smaller."
        ),
        columns: vec!["", "ms"],
        rows: vec![
            row("by the API, until the answer", made),
            row("its SQL, at the server", sql),
        ],
        targets: vec![Target {
            what: "the API's time, of its SQL's alone".into(),
            reached: made / sql,
            wanted: WANTED,
        }],
    })
}

/// The PostgreSQL server that the product has started.
struct Server {
    socket: PathBuf,
    logs: PathBuf,
}

impl Server {
    fn find(data: &Path) -> Result<Self> {
        let servers = fs::read_dir(data.join("servers"))?.map(|it| Ok(it?.path()));
        let servers: Vec<PathBuf> = servers.collect::<Result<_>>()?;
        let is_postgres = |it: &&PathBuf| it.join("data/postmaster.pid").exists();
        let home = servers.iter().find(is_postgres).context("no server")?;
        // Its fifth line is where the socket lies.
        let lines = fs::read_to_string(home.join("data/postmaster.pid"))?;
        let socket = lines.lines().nth(4).context("no socket")?;
        Ok(Self {
            socket: socket.into(),
            logs: home.join("log"),
        })
    }

    fn log_durations(&self, on: bool) -> Result<()> {
        let (least, format) = if on {
            ("0", "jsonlog")
        } else {
            ("-1", "stderr")
        };
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-d", "postgres", "-U", "tenantsdb", "-h"]);
        psql.arg(&self.socket);
        for statement in [
            format!("ALTER SYSTEM SET log_min_duration_statement = {least}"),
            format!("ALTER SYSTEM SET log_destination = '{format}'"),
            // For sessions that begin now, also in databases that say otherwise.
            format!(
                "ALTER ROLE tenantsdb {}",
                if on {
                    "SET log_min_messages = log"
                } else {
                    "RESET log_min_messages"
                }
            ),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            psql.args(["-c", &statement]);
        }
        run_command(&mut psql)?;
        sleep(Duration::from_millis(500));
        Ok(())
    }

    /// Milliseconds of all statements that have been logged.
    fn durations(&self) -> Result<f64> {
        let mut sum = 0.0;
        for file in fs::read_dir(&self.logs)? {
            let path = file?.path();
            if path.extension().is_some_and(|it| it == "json") {
                sum += fs::read_to_string(path)?
                    .lines()
                    .filter_map(duration)
                    .sum::<f64>();
            }
        }
        Ok(sum)
    }
}

/// Milliseconds that a line of the log says that a client's statement took.
fn duration(line: &str) -> Option<f64> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let message = entry["message"].as_str()?.strip_prefix("duration: ")?;
    message.split(' ').next()?.parse().ok()
}
