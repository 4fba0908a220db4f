//! The binary: reads configuration, wires the crates, `up` and `serve`.

mod certificates;
mod cli;
mod config;
mod listen;
mod ready;
mod run;
mod server_status;
mod servers;
mod status;
mod story;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging();
    let outcome = match arguments.command {
        Command::Up(options) => config::Config::for_up(&options).and_then(|it| run::run(&it)),
        Command::Serve(options) => {
            config::Config::from_file(&options.config).and_then(|it| run::run(&it))
        }
        Command::Status(options) => status::status(&options),
        Command::Prepare(options) => prepare(&options),
        Command::BackupStore(options) => status::backup_store(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tenantsdb: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what an operator runs beforehand on a server of their own.
fn prepare(options: &cli::Prepare) -> anyhow::Result<()> {
    let text = match options.engine {
        cli::PreparedEngine::Postgresql => engines::postgres::preparation(&options.user),
        cli::PreparedEngine::Redis => engines::redis::preparation(&options.user),
    };
    print!("{text}");
    Ok(())
}

/// Lines for people at a terminal, JSON for everything else.
fn start_logging() {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("TENANTSDB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.with_target(false).init();
    } else {
        logs.json().init();
    }
}
