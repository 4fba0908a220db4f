//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A database for each of your customers, and one proxy in front of all of them.
#[derive(Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Runs everything on this machine: database servers, proxy and API.
    Up(Box<Up>),
    /// Runs as a configuration file says, for production.
    Serve(Serve),
    /// Tells whether a running instance is healthy.
    Status(Status),
    /// Prints what to run beforehand on a database server of your own, for [[servers]] of the configuration.
    Prepare(Prepare),
    /// Copies the store of a data folder, running or not, into a new file.
    BackupStore(BackupStore),
}

/// Runs everything on this machine: database servers, proxy and API.
#[derive(Args, Clone, Debug)]
pub(crate) struct Up {
    /// Where everything is kept. Made on the first start.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,
    /// Engines to run, separated by commas [default: those of postgresql and redis that are installed].
    #[arg(long, value_name = "LIST")]
    pub(crate) engines: Option<String>,
    /// Address of the REST API [default: 127.0.0.1:8080, or 10000 higher if that is taken].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) api: Option<String>,
    /// Address for PostgreSQL clients [default: 127.0.0.1:5432, or 10000 higher if that is taken].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) postgres: Option<String>,
    /// Address for MySQL clients.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) mysql: Option<String>,
    /// Address for MongoDB clients.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) mongodb: Option<String>,
    /// Address for Redis clients [default: 127.0.0.1:6379, or 10000 higher if that is taken].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) redis: Option<String>,
    /// Address of the Prometheus metrics [default: 127.0.0.1:9090, or 10000 higher if that is taken].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<String>,
    /// Also takes unencrypted database clients from this machine.
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Tier of new accounts.
    #[arg(long, value_name = "TIER", default_value = "enterprise")]
    pub(crate) signup_tier: String,
    /// API requests per second from one address; 0 switches the limit off.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) ip_limit: u32,
    /// Addresses or networks of proxies whose X-Forwarded-For is believed, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) trusted_proxies: Vec<String>,
    /// Trusted proxies begin their connections, to the API and to the engines' ports, with a PROXY header (version 1 or 2).
    #[arg(long)]
    pub(crate) proxy_protocol: bool,
    /// Origins whose pages may call the API from a browser, separated by commas; `*` alone is any.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) cors_origins: Vec<String>,
    /// A TOML file with a table of tiers in place of the built-in one.
    #[arg(long, value_name = "FILE")]
    pub(crate) tier_file: Option<PathBuf>,
    /// How sockets are driven [default: io_uring where the kernel lets us, else epoll].
    #[arg(long, value_enum)]
    pub(crate) reactor: Option<Reactor>,
    /// Proxy threads [default: one for each processor].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=127))]
    pub(crate) workers: Option<u16>,
    /// Seconds that open transactions may take after a stop was asked for.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) drain_seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reactor {
    /// `io_uring`.
    Uring,
    /// `epoll`.
    Epoll,
}

#[derive(Args)]
pub(crate) struct Serve {
    /// The configuration, in TOML; see `tenantsdb.example.toml`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Args)]
pub(crate) struct Prepare {
    /// Of which engine the server is: SQL for psql as a superuser, or commands for redis-cli.
    #[arg(value_enum)]
    pub(crate) engine: PreparedEngine,
    /// The user that the configuration will name.
    #[arg(long, value_name = "NAME", default_value = "tenantsdb")]
    pub(crate) user: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PreparedEngine {
    /// PostgreSQL.
    Postgresql,
    /// Redis or Valkey.
    Redis,
}

#[derive(Args)]
pub(crate) struct Status {
    /// The data folder of the instance.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Args)]
pub(crate) struct BackupStore {
    /// The data folder of the instance.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,
    /// The new file.
    pub(crate) to: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
