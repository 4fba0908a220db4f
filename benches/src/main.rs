//! The command that compares proxies and writes the report.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use benches::api::Amounts;
use benches::comparison::Comparison;
use benches::ours;
use benches::report::markdown;
use benches::runner::Pace;
use clap::{Parser, Subcommand};
use serde_json::Value;

/// Compares TenantsDB with other proxies by the processor time and memory they cost.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// PostgreSQL proxies: PgBouncer and HAProxy.
    Postgres(Options),
    /// Redis proxies: twemproxy and HAProxy.
    Redis(Options),
    /// The REST API of the whole product.
    Api(ApiOptions),
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
    /// Only the cases whose names contain this (`idle` for the memory of idle clients); may be repeated. The report is
    /// then printed, unless `--report` names a file.
    #[arg(long)]
    only: Vec<String>,
    /// The report; by itself BENCHMARKS.md or BENCHMARKS-REDIS.md.
    #[arg(long)]
    report: Option<PathBuf>,
    /// The same for programs, with every single sample; by itself in benches/results.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct ApiOptions {
    /// Little of everything: shows that all of it runs, not what it reaches.
    #[arg(long)]
    quick: bool,
    /// Tenants of the long list.
    #[arg(long)]
    list_tenants: Option<u32>,
    /// Entries of the large query log.
    #[arg(long)]
    log_entries: Option<u64>,
    /// Tenants of the deployment.
    #[arg(long)]
    deploy_tenants: Option<u32>,
    /// The report.
    #[arg(long, default_value = "BENCHMARKS-API.md")]
    report: PathBuf,
    /// The same for programs.
    #[arg(long, default_value = "benches/results/api.json")]
    json: PathBuf,
}

impl ApiOptions {
    fn amounts(&self) -> Amounts {
        let usual = match self.quick {
            true => Amounts::quick(),
            false => Amounts::full(),
        };
        Amounts {
            list_tenants: self.list_tenants.unwrap_or(usual.list_tenants),
            log_entries: self.log_entries.unwrap_or(usual.log_entries),
            deploy_tenants: self.deploy_tenants.unwrap_or(usual.deploy_tenants),
            ..usual
        }
    }
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
    let (comparison, options) = match Arguments::parse().command {
        Subcommands::Postgres(options) => (Comparison::Postgres, options),
        Subcommands::Redis(options) => (Comparison::Redis, options),
        Subcommands::Api(options) => {
            benches::api::build()?;
            let figures = benches::api::run(&options.amounts(), options.quick)?;
            let text = figures.markdown();
            return write(&options.report, &text, &options.json, &figures.to_json());
        }
        Subcommands::Proxy(arguments) => return ours::be_proxy(&arguments),
    };
    let pace = options.pace();
    let results = comparison.run(pace, options.quick, &options.only)?;
    if !options.only.is_empty() && options.report.is_none() {
        print!("{}", markdown(&results));
        return Ok(());
    }
    let report = options.report.unwrap_or_else(|| comparison.report().into());
    let json = options
        .json
        .unwrap_or_else(|| format!("benches/results/{}.json", comparison.name()).into());
    write(&report, &markdown(&results), &json, &results.to_json())
}

fn write(report: &Path, text: &str, json: &Path, figures: &Value) -> Result<()> {
    if let Some(folder) = json.parent() {
        fs::create_dir_all(folder)?;
    }
    let figures = serde_json::to_string_pretty(figures)?;
    fs::write(json, figures + "\n").with_context(|| json.display().to_string())?;
    fs::write(report, text).with_context(|| report.display().to_string())?;
    eprintln!("wrote {} and {}", report.display(), json.display());
    Ok(())
}
