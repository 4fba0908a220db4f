//! Running `pgbench`, and reading what it prints.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cases::{self, Case};
use crate::contender::{Contender, Endpoint};
use crate::process::last_lines;
use crate::runner::{Driver, Outcome};

/// How `pgbench` sends its statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// One `Query` message.
    Simple,
    /// Parse, Bind and Execute of an unnamed statement, each time anew.
    Extended,
    /// Parsed once per connection under a name, then only Bind and Execute.
    Prepared,
}

impl Protocol {
    /// The name that `pgbench -M` knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// What each transaction of a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// pgbench's own `-S`: one row by primary key.
    SelectOnly,
    /// One row of 1 MiB.
    LargeRow,
}

/// What a run asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// How statements are sent.
    pub protocol: Protocol,
    /// What each transaction does.
    pub script: Script,
    /// Whether each transaction opens a connection of its own.
    pub reconnect: bool,
}

/// One run of `pgbench`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it asks.
    pub load: Load,
    /// Connections at a time.
    pub clients: u16,
    /// How long it runs.
    pub duration: Duration,
    /// Where the file of [`Script::LargeRow`] is.
    pub large_row_file: PathBuf,
}

/// The driver of a comparison whose cases are all of this program.
#[derive(Debug)]
pub struct Pgbench {
    /// Where the file of [`Script::LargeRow`] is.
    pub large_row_file: PathBuf,
}

impl Driver for Pgbench {
    fn run(&mut self, contender: &Contender, case: &Case, duration: Duration) -> Result<Outcome> {
        let cases::Load::Pgbench(load) = case.load else {
            bail!("{} is not for pgbench", case.id)
        };
        let job = Run {
            load,
            clients: case.clients,
            duration,
            large_row_file: self.large_row_file.clone(),
        };
        run(&contender.endpoint(case.tls), &job)
    }
}

/// Runs `pgbench` to its end.
///
/// # Errors
/// When it cannot be started, fails, or prints what we cannot read.
pub fn run(endpoint: &Endpoint, run: &Run) -> Result<Outcome> {
    let output = command(endpoint, run)
        .output()
        .context("cannot start pgbench")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "pgbench failed: {}",
        last_lines(&errors, 5)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| {
        format!(
            "unexpected output of pgbench: {text}{}",
            last_lines(&errors, 5)
        )
    })
}

/// A command with the connection settings of `endpoint` in its environment, which keeps the password out of the process list.
#[must_use]
pub fn client_command(program: &str, endpoint: &Endpoint) -> Command {
    let mut command = Command::new(program);
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", endpoint.port.to_string())
        .env("PGUSER", &endpoint.user)
        .env("PGPASSWORD", &endpoint.password)
        .env("PGDATABASE", &endpoint.database)
        .env(
            "PGSSLMODE",
            if endpoint.tls { "require" } else { "disable" },
        )
        .env("PGGSSENCMODE", "disable")
        .env("PGCONNECT_TIMEOUT", "10");
    command
}

fn command(endpoint: &Endpoint, run: &Run) -> Command {
    let mut command = client_command("pgbench", endpoint);
    // No vacuum (`-n`): rivals may run it on a pooled connection, and tenants may not run it at all.
    command.args(["-n", "-M", run.load.protocol.name(), "-j", "1"]);
    command.args([
        "-c",
        &run.clients.to_string(),
        "-T",
        &run.duration.as_secs().max(1).to_string(),
    ]);
    if run.load.reconnect {
        command.arg("-C");
    }
    match run.load.script {
        Script::SelectOnly => command.arg("-S"),
        Script::LargeRow => command.arg("-f").arg(&run.large_row_file),
    };
    command
}

/// Reads the report; `None` unless every transaction succeeded and all figures are there.
fn parse(text: &str) -> Option<Outcome> {
    let failed = text
        .lines()
        .find_map(|line| line.strip_prefix("number of failed transactions: "));
    if failed.is_some_and(|rest| !rest.starts_with("0 ")) {
        return None;
    }
    // Every transaction of our scripts is one statement, one row of 1 MiB, or one connection: one operation of its unit.
    let operations = number(text, "number of transactions actually processed: ")?
        .parse()
        .ok()?;
    let rate = number(text, "tps = ")?.parse().ok()?;
    (operations > 0).then_some(Outcome { operations, rate })
}

/// What stands behind `prefix`, up to the next space or slash.
fn number<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(prefix))?;
    rest.split([' ', '/']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "pgbench (15.14)\ntransaction type: <builtin: select only>\nscaling factor: 10\nquery mode: simple\n\
        number of clients: 32\nnumber of threads: 1\nduration: 5 s\nnumber of transactions actually processed: 105321\n\
        number of failed transactions: 0 (0.000%)\nlatency average = 1.518 ms\ninitial connection time = 120.1 ms\n\
        tps = 21080.25 (without initial connection time)\n";

    #[test]
    fn a_report_of_pgbench_15() {
        let outcome = parse(PLAIN).unwrap();
        assert_eq!(
            outcome,
            Outcome {
                operations: 105_321,
                rate: 21_080.25,
            }
        );
    }

    #[test]
    fn a_report_with_reconnections_and_a_count() {
        let text = "number of transactions actually processed: 10/10\nlatency average = 20.5 ms\n\
            average connection time = 2.2 ms\ntps = 390.1 (including reconnection times)\n";
        assert_eq!(
            parse(text),
            Some(Outcome {
                operations: 10,
                rate: 390.1,
            })
        );
    }

    #[test]
    fn failures_and_gaps_are_no_result() {
        assert_eq!(
            parse(&PLAIN.replace("failed transactions: 0 ", "failed transactions: 3 ")),
            None
        );
        assert_eq!(
            parse(&PLAIN.replace("processed: 105321", "processed: 0")),
            None
        );
        assert_eq!(parse(&PLAIN.replace("tps = ", "tps: ")), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_command_line_holds_no_password() {
        let endpoint = Endpoint {
            port: 1,
            user: "u".into(),
            password: "secret".into(),
            database: "d".into(),
            tls: true,
        };
        let run = Run {
            load: Load {
                protocol: Protocol::Prepared,
                script: Script::SelectOnly,
                reconnect: true,
            },
            clients: 8,
            duration: Duration::from_secs(2),
            large_row_file: PathBuf::new(),
        };
        let command = command(&endpoint, &run);
        let args: Vec<_> = command.get_args().filter_map(|arg| arg.to_str()).collect();
        assert_eq!(
            args,
            [
                "-n", "-M", "prepared", "-j", "1", "-c", "8", "-T", "2", "-C", "-S"
            ]
        );
    }
}
