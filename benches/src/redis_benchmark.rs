//! Running `redis-benchmark`, and reading what it prints.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::process::Command as Program;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cases::{self, Case};
use crate::contender::{Contender, Endpoint, Kind};
use crate::process::last_lines;
use crate::rivals::redis::Redis;
use crate::runner::{Driver, Outcome};

/// What each request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Reads a value that is there.
    Get,
    /// Writes one.
    Set,
}

impl Command {
    /// Both, in the order of a report.
    pub const ALL: [Self; 2] = [Self::Get, Self::Set];

    /// Its name, as `redis-benchmark` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Set => "SET",
        }
    }
}

/// What a run asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What each request does.
    pub command: Command,
    /// Length of the values in bytes.
    pub value: u32,
    /// Requests that a client sends before it reads replies.
    pub pipeline: u16,
}

impl Load {
    /// How many keys the requests are spread over: all values together are to stay in some 100 MB.
    #[must_use]
    pub fn keys(&self) -> u32 {
        if self.value < 4096 { 100_000 } else { 1_000 }
    }
}

/// The driver of a comparison whose cases are all of this program. It is told a number of requests and not a time, so that the
/// first run of a case with a contender is preceded by a short one that tells how fast that is.
#[derive(Debug)]
pub struct RedisBenchmark<'a> {
    server: &'a Redis,
    rates: HashMap<(Kind, String), f64>,
    filled: Option<u32>,
}

impl<'a> RedisBenchmark<'a> {
    /// For contenders in front of `server`.
    #[must_use]
    pub fn new(server: &'a Redis) -> Self {
        Self {
            server,
            rates: HashMap::new(),
            filled: None,
        }
    }
}

/// What no short run takes, and no other one beyond ten times what it should.
const LIMIT: Duration = Duration::from_secs(60);
/// Requests of the short run, for each one that a client has under way.
const CALIBRATION: u64 = 100;

impl Driver for RedisBenchmark<'_> {
    fn prepare(&mut self, contender: &Contender, case: &Case, _: Duration) -> Result<()> {
        let load = load_of(case)?;
        if self.filled != Some(load.value) {
            self.filled = None;
            self.server.fill(load.keys(), load.value)?;
            self.filled = Some(load.value);
        }
        if let Entry::Vacant(rate) = self.rates.entry((contender.kind, case.id.clone())) {
            let requests = batch(case, load) * CALIBRATION;
            let outcome = run(
                &contender.endpoint(case.tls),
                load,
                case.clients,
                requests,
                LIMIT,
            )?;
            rate.insert(outcome.rate);
        }
        Ok(())
    }

    fn run(&mut self, contender: &Contender, case: &Case, duration: Duration) -> Result<Outcome> {
        let load = load_of(case)?;
        let rate = self
            .rates
            .get(&(contender.kind, case.id.clone()))
            .context("the case was not prepared")?;
        let requests = requests(*rate, duration, batch(case, load));
        let limit = LIMIT + duration * 10;
        run(
            &contender.endpoint(case.tls),
            load,
            case.clients,
            requests,
            limit,
        )
    }
}

fn load_of(case: &Case) -> Result<Load> {
    let cases::Load::RedisBenchmark(load) = case.load else {
        bail!("{} is not for redis-benchmark", case.id)
    };
    Ok(load)
}

/// Requests that all clients together have under way.
fn batch(case: &Case, load: Load) -> u64 {
    u64::from(case.clients) * u64::from(load.pipeline)
}

/// How many requests take about `duration`, in whole batches.
fn requests(rate: f64, duration: Duration, batch: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is not negative, and no machine does 2^64 requests"
    )]
    let wanted = (rate * duration.as_secs_f64()) as u64;
    wanted.div_ceil(batch).max(1) * batch
}

/// Runs `redis-benchmark` to its end.
///
/// # Errors
/// When it cannot be started, fails, meets an error reply, or prints what we cannot read.
pub fn run(
    endpoint: &Endpoint,
    load: Load,
    clients: u16,
    requests: u64,
    limit: Duration,
) -> Result<Outcome> {
    let output = command(endpoint, load, clients, requests, limit)
        .output()
        .context("cannot start redis-benchmark")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && !errors.contains("Error from server"),
        "redis-benchmark failed ({}): {}",
        output.status,
        last_lines(&errors, 5)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = parse(&text, load.command).with_context(|| {
        format!(
            "unexpected output of redis-benchmark: {text}{}",
            last_lines(&errors, 5)
        )
    })?;
    Ok(Outcome {
        operations: requests,
        rate,
    })
}

fn command(
    endpoint: &Endpoint,
    load: Load,
    clients: u16,
    requests: u64,
    limit: Duration,
) -> Program {
    // It waits for ever where nobody listens, or where a reply does not come.
    let mut command = Program::new("timeout");
    command.args(["-k", "5", &limit.as_secs().to_string(), "redis-benchmark"]);
    command.args(["-h", "127.0.0.1", "-p", &endpoint.port.to_string()]);
    if !endpoint.user.is_empty() {
        // It takes the password nowhere else; this one guards nothing.
        command.args(["--user", &endpoint.user, "-a", &endpoint.password]);
    }
    if endpoint.tls {
        command.args(["--tls", "--insecure"]);
    }
    command.args(["-t", &load.command.name().to_lowercase(), "--csv"]);
    for (option, value) in [
        ("-c", u64::from(clients)),
        ("-n", requests),
        ("-d", load.value.into()),
        ("-r", load.keys().into()),
        ("-P", load.pipeline.into()),
    ] {
        command.args([option, &value.to_string()]);
    }
    command
}

/// Requests a second, from the line of `command` in its CSV.
fn parse(text: &str, command: Command) -> Option<f64> {
    let mut lines = text.lines();
    let columns = lines.find(|line| line.starts_with("\"test\","))?;
    let at = columns.split(',').position(|column| column == "\"rps\"")?;
    let name = format!("\"{}\"", command.name());
    let line = lines.find(|line| line.split(',').next() == Some(&name))?;
    let rate: f64 = line.split(',').nth(at)?.trim_matches('"').parse().ok()?;
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\"\n\"SET\",\"168000.00\",\"2.936\",\"0.416\"\n\
        \"GET\",\"84000.50\",\"8.247\",\"0.104\"\n";

    #[test]
    fn the_line_of_a_command() {
        assert_eq!(parse(CSV, Command::Get), Some(84_000.5));
        assert_eq!(parse(CSV, Command::Set), Some(168_000.0));
    }

    #[test]
    fn gaps_are_no_result() {
        assert_eq!(parse("", Command::Get), None);
        let header = CSV.lines().next().unwrap();
        assert_eq!(parse(header, Command::Get), None);
        assert_eq!(parse(&CSV.replace("rps", "per_s"), Command::Get), None);
        assert_eq!(parse(&CSV.replace("84000.50", "inf"), Command::Get), None);
        assert_eq!(parse(&CSV.replace("84000.50", "0.00"), Command::Get), None);
    }

    #[test]
    fn a_run_is_whole_batches_and_at_least_one() {
        let second = Duration::from_secs(1);
        assert_eq!(requests(80_001.0, second, 800), 80_800);
        assert_eq!(requests(80_000.0, second * 2, 800), 160_000);
        assert_eq!(requests(3.0, second, 800), 800);
        assert_eq!(requests(0.0, second, 800), 800);
    }

    #[test]
    fn the_command_line() {
        let load = Load {
            command: Command::Set,
            value: 512,
            pipeline: 16,
        };
        let endpoint = Endpoint {
            port: 7,
            user: "acme".into(),
            password: "secret".into(),
            database: String::new(),
            tls: true,
        };
        let line = |endpoint: &Endpoint| {
            let command = command(endpoint, load, 50, 800, LIMIT);
            let args: Vec<_> = command.get_args().filter_map(|arg| arg.to_str()).collect();
            args.join(" ")
        };
        assert_eq!(
            line(&endpoint),
            "-k 5 60 redis-benchmark -h 127.0.0.1 -p 7 --user acme -a secret --tls --insecure -t set --csv -c 50 -n 800 -d 512 -r 100000 -P 16"
        );
        let open = Endpoint {
            user: String::new(),
            tls: false,
            ..endpoint
        };
        assert_eq!(
            line(&open),
            "-k 5 60 redis-benchmark -h 127.0.0.1 -p 7 -t set --csv -c 50 -n 800 -d 512 -r 100000 -P 16"
        );
    }
}
