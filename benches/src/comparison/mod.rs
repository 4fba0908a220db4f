//! Which proxies are compared with which, from the start of the servers to the figures.

mod postgres;
mod redis;

use std::process;

use anyhow::Result;

use crate::cases::Case;
use crate::contender::{Contender, Kind};
use crate::environment::{describe, load_average, split_processors};
use crate::idle::{self, Login};
use crate::process::pin;
use crate::results::{IdleResult, Results};
use crate::rivals::Lab;
use crate::runner::Pace;

/// A comparison of proxies for one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Comparison {
    /// PgBouncer and HAProxy.
    Postgres,
    /// twemproxy and HAProxy.
    Redis,
}

impl Comparison {
    /// The subcommand.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// The report's title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Postgres => "Benchmarks",
            Self::Redis => "Benchmarks: Redis",
        }
    }

    /// The report's file.
    #[must_use]
    pub fn report(self) -> &'static str {
        match self {
            Self::Postgres => "BENCHMARKS.md",
            Self::Redis => "BENCHMARKS-REDIS.md",
        }
    }

    /// How it is measured and what is not fair in it, for the report.
    #[must_use]
    pub fn method(self) -> String {
        let (server, load, fairness) = match self {
            Self::Postgres => ("PostgreSQL", "pgbench", postgres::FAIRNESS),
            Self::Redis => ("Redis", "redis-benchmark", redis::FAIRNESS),
        };
        format!(
            "How it is measured: {server}, the proxies and `{load}` run on one machine. Each proxy is pinned to one processor, and everything\n\
             else to the others (`taskset`). Contenders take turns within each round, beginning with another one each time; figures are medians\n\
             over the rounds, with the smallest and the largest in brackets. The cost is the processor time of the proxy's process\n\
             (`/proc/PID/task/*/schedstat`) divided by the operations that `{load}` counted; its split into user and system time is the kernel's,\n\
             from clock ticks (`/proc/PID/stat`), and rough in short runs.\n\n{fairness}"
        )
    }

    /// Starts everything, runs all cases (or those whose names contain one of `only`) and stops everything. `quick` only
    /// shows that they run.
    ///
    /// # Errors
    /// When a program is not installed or does not start.
    pub fn run(self, pace: Pace, quick: bool, only: &[String]) -> Result<Results> {
        let (proxy_cpus, load_cpus) = split_processors()?;
        // What this program starts inherits its processors; only the proxies are told otherwise.
        pin(process::id(), &load_cpus)?;
        let load_before = load_average();
        let lab = Lab::new(proxy_cpus, load_cpus)?;
        let choice = Choice {
            only,
            pace,
            idle_clients: if quick { 100 } else { 10_000 },
        };
        let found = match self {
            Self::Postgres => postgres::run(&lab, choice)?,
            Self::Redis => redis::run(&lab, choice)?,
        };
        Ok(Results {
            comparison: self,
            environment: describe(&lab, found.programs, pace, &load_before)?,
            quick,
            ours_missing: None,
            cases: found.cases,
            idle: found.idle,
            lookup: found.lookup,
        })
    }
}

/// What is asked of a comparison.
#[derive(Clone, Copy)]
struct Choice<'a> {
    /// Names, or parts of them; all cases if empty.
    only: &'a [String],
    pace: Pace,
    idle_clients: u32,
}

impl Choice<'_> {
    fn includes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }

    fn cases(&self, all: Vec<Case>) -> Vec<Case> {
        let chosen = |case: &Case| self.includes(&case.id);
        all.into_iter().filter(chosen).collect()
    }
}

/// What one protocol's part of a comparison gives.
struct Found {
    programs: Vec<(&'static str, String)>,
    cases: Vec<crate::results::CaseResult>,
    idle: Vec<IdleResult>,
    lookup: Option<[f64; 2]>,
}

/// One figure of idle clients: who, how many, with TLS or without.
struct IdleCase<'a> {
    start: &'a dyn Fn() -> Result<Contender>,
    clients: u32,
    tls: bool,
}

/// Each figure is of a proxy that was started for it.
fn idle_memory(
    choice: Choice<'_>,
    cases: &[IdleCase<'_>],
    login: &mut dyn Login,
) -> Vec<IdleResult> {
    let mut found = Vec::new();
    if !choice.includes("idle") {
        return found;
    }
    for case in cases {
        match (case.start)() {
            Ok(contender) => found.push(idle::measure(&contender, case.clients, case.tls, login)),
            Err(error) => eprintln!("no idle figure: {error:#}"),
        }
    }
    found
}

/// Both columns of TenantsDB, in front of the server on `port`.
fn ours(lab: &Lab, comparison: Comparison, port: u16) -> Result<[Contender; 2]> {
    Ok([
        crate::ours::start(lab, comparison, port, Kind::Ours)?,
        crate::ours::start(lab, comparison, port, Kind::OursEpoll)?,
    ])
}
