//! The command that compares proxies and writes the report.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use benches::cases;
use benches::contender::{Contender, Kind, start_pgbouncer, start_rivals};
use benches::environment::{describe, load_average, split_processors};
use benches::process::pin;
use benches::report::markdown;
use benches::results::IdleResult;
use benches::results::Results;
use benches::rivals::Lab;
use benches::rivals::pgbouncer::Pooling;
use benches::rivals::postgres::Postgres;
use benches::runner::{Pace, run_all};
use benches::{idle, ours};
use clap::{Parser, Subcommand};

/// Compares TenantsDB with other proxies by the processor time and memory they cost.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Comparison,
}

#[derive(Subcommand)]
enum Comparison {
    /// PostgreSQL proxies: PgBouncer and HAProxy.
    Postgres(Options),
    /// Be the proxy that is measured; the comparison starts it.
    #[command(hide = true)]
    Proxy(ours::Arguments),
}

#[derive(clap::Args)]
struct Options {
    /// One short round of each case: shows that all cases run, not what they reach.
    #[arg(long)]
    quick: bool,
    /// Rounds of each case; their median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The report.
    #[arg(long, default_value = "BENCHMARKS.md")]
    report: PathBuf,
    /// The same for programs, with every single sample.
    #[arg(long, default_value = "benches/results/postgres.json")]
    json: PathBuf,
}

impl Options {
    fn pace(&self) -> Pace {
        if self.quick {
            return Pace {
                rounds: 1,
                duration: Duration::from_secs(1),
            };
        }
        Pace {
            rounds: self.rounds.into(),
            duration: Duration::from_secs(self.seconds),
        }
    }
}

fn main() -> Result<()> {
    let options = match Arguments::parse().command {
        Comparison::Postgres(options) => options,
        Comparison::Proxy(arguments) => return ours::be_proxy(&arguments),
    };
    let results = compare(&options)?;
    if let Some(folder) = options.json.parent() {
        fs::create_dir_all(folder)?;
    }
    let json = serde_json::to_string_pretty(&results.to_json())?;
    fs::write(&options.json, json + "\n").with_context(|| options.json.display().to_string())?;
    fs::write(&options.report, markdown(&results))
        .with_context(|| options.report.display().to_string())?;
    eprintln!(
        "wrote {} and {}",
        options.report.display(),
        options.json.display()
    );
    Ok(())
}

fn compare(options: &Options) -> Result<Results> {
    let (proxy_cpus, load_cpus) = split_processors()?;
    // What this program starts inherits its processors; only the proxies are told otherwise.
    pin(std::process::id(), &load_cpus)?;
    let load_before = load_average();
    let lab = Lab::new(proxy_cpus, load_cpus)?;
    let postgres = Postgres::start(&lab)?;
    let mut contenders = start_rivals(&lab, &postgres)?;
    contenders.push(ours::start(&lab, &postgres, Kind::Ours)?);
    contenders.push(ours::start(&lab, &postgres, Kind::OursEpoll)?);
    let large_row_file = lab.write("large-row.sql", "SELECT repeat('x', 1048576);\n")?;
    let pace = options.pace();
    let cases = run_all(&cases::all(), &contenders, pace, &large_row_file);
    drop(contenders);
    let idle = idle_memory(&lab, &postgres, options.quick);
    Ok(Results {
        environment: describe(&lab, &postgres, pace, &load_before)?,
        quick: options.quick,
        ours_missing: None,
        cases,
        idle,
    })
}

/// Each figure is of a proxy that was started for it.
fn idle_memory(lab: &Lab, postgres: &Postgres, quick: bool) -> Vec<IdleResult> {
    let clients = if quick { 100 } else { 10_000 };
    let mut found = Vec::new();
    for tls in [false, true] {
        let starts: [&dyn Fn() -> Result<Contender>; 2] = [
            &|| start_pgbouncer(lab, postgres, Pooling::Transaction),
            &|| ours::start(lab, postgres, Kind::Ours),
        ];
        for start in starts {
            match start() {
                Ok(contender) => found.push(idle::measure(&contender, clients, tls)),
                Err(error) => eprintln!("no idle figure: {error:#}"),
            }
        }
    }
    found
}
