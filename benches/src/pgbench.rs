//! Running `pgbench`, and reading what it prints.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

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

/// Where a run connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The login name.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database.
    pub database: String,
    /// Whether the client asks for TLS.
    pub tls: bool,
}

/// One run of `pgbench`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How statements are sent.
    pub protocol: Protocol,
    /// What each transaction does.
    pub script: Script,
    /// Connections at a time.
    pub clients: u16,
    /// Whether each transaction opens a connection of its own.
    pub reconnect: bool,
    /// How long it runs.
    pub duration: Duration,
    /// Where the file of [`Script::LargeRow`] is.
    pub large_row_file: PathBuf,
}

/// What a run achieved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Transactions done; one statement each in our scripts.
    pub transactions: u64,
    /// Transactions a second.
    pub tps: f64,
    /// Mean latency in milliseconds.
    pub latency_ms: f64,
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
    command.args(["-n", "-M", run.protocol.name(), "-j", "1"]);
    command.args([
        "-c",
        &run.clients.to_string(),
        "-T",
        &run.duration.as_secs().max(1).to_string(),
    ]);
    if run.reconnect {
        command.arg("-C");
    }
    match run.script {
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
    let transactions = number(text, "number of transactions actually processed: ")?
        .parse()
        .ok()?;
    let tps = number(text, "tps = ")?.parse().ok()?;
    let latency_ms = number(text, "latency average = ")?.parse().ok()?;
    (transactions > 0).then_some(Outcome {
        transactions,
        tps,
        latency_ms,
    })
}

/// What stands behind `prefix`, up to the next space or slash.
fn number<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(prefix))?;
    rest.split([' ', '/']).next()
}

/// The last `count` lines of a program's complaint, which hold the reason.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
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
                transactions: 105_321,
                tps: 21_080.25,
                latency_ms: 1.518
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
                transactions: 10,
                tps: 390.1,
                latency_ms: 20.5
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
            protocol: Protocol::Prepared,
            script: Script::SelectOnly,
            clients: 8,
            reconnect: true,
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

    #[test]
    fn only_the_end_of_a_long_complaint_is_kept() {
        assert_eq!(last_lines("a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines("a", 5), "a");
    }
}
