//! The TenantsDB column: its data plane, with the query log on, in front of the same server as the rivals.
//!
//! The proxy runs in a process of its own, which is this program told to be one, with a routing snapshot made by hand in place
//! of the control plane's.

pub mod postgres;
pub mod redis;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use control_store::ServerId;
use control_store::ids::Engine;
use control_store::snapshot::{NativeRole, Server, ServerAddress, Settings, SnapshotCell};
use proxy::query_log::{QueryLog, QueryLogConfig};
use proxy::reactor::{ReactorKind, TlsStore};
use proxy::{Config, Proxy};

use crate::comparison::Comparison;
use crate::contender::{Contender, Kind};
use crate::process::{Process, RunAs, free_port};
use crate::rivals::Lab;
use crate::rivals::postgres::utf8;

const PROJECT: &str = "tdb_0000be0c";
const PROXY_PASSWORD: &str = "tdb_0123456789abcdef";
/// As many backends as PgBouncer's transaction pool has.
const BACKENDS: u32 = 32;
const SERVER: ServerId = ServerId(1);

/// What the proxy's process is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// What it speaks.
    #[arg(value_enum)]
    comparison: Comparison,
    /// Port to listen on.
    #[arg(long)]
    port: u16,
    /// Port of the server.
    #[arg(long)]
    server: u16,
    /// `uring` or `epoll`.
    #[arg(long)]
    reactor: String,
    /// Certificate.
    #[arg(long)]
    certificate: PathBuf,
    /// Its key.
    #[arg(long)]
    key: PathBuf,
    /// Folder of the query log.
    #[arg(long)]
    log: PathBuf,
}

/// Starts the column of that kind in front of the server on `server_port`.
///
/// # Errors
/// When it does not start.
pub fn start(lab: &Lab, comparison: Comparison, server_port: u16, kind: Kind) -> Result<Contender> {
    let reactor = if kind == Kind::OursEpoll {
        "epoll"
    } else {
        "uring"
    };
    let port = free_port()?;
    let program = std::env::current_exe()?;
    let (listen, server) = (port.to_string(), server_port.to_string());
    let folder = lab.path(&format!("query-log-{reactor}"));
    let line = [
        utf8(&program)?,
        "proxy",
        comparison.name(),
        "--port",
        &listen,
        "--server",
        &server,
        "--reactor",
        reactor,
        "--certificate",
        utf8(&lab.certificate)?,
        "--key",
        utf8(&lab.key)?,
        "--log",
        utf8(&folder)?,
    ];
    let log = lab.path(&format!("tenantsdb-{reactor}.log"));
    let mut process = Process::start(&line, &lab.proxy_cpus, RunAs::Same, "KILL", &log)?;
    process.wait_for_port(port, Duration::from_secs(20))?;
    Ok(Contender {
        kind,
        endpoint: match comparison {
            Comparison::Postgres => postgres::endpoint(port),
            Comparison::Redis => redis::endpoint(port),
        },
        process: Some(process),
    })
}

/// Is the proxy, until it is killed.
///
/// # Errors
/// When it cannot start.
pub fn be_proxy(arguments: &Arguments) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))?;
    let reactor = match arguments.reactor.as_str() {
        "epoll" => ReactorKind::Epoll,
        _ => ReactorKind::Uring,
    };
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.server));
    let (snapshot, postgres, redis) = match arguments.comparison {
        Comparison::Postgres => (postgres::snapshot(server)?, vec![listener], Vec::new()),
        Comparison::Redis => (redis::snapshot(server), Vec::new(), vec![listener]),
    };
    let config = Config {
        reactor: Some(reactor),
        workers: 1,
        postgres,
        redis,
        plaintext: true,
        tls: Some(Arc::new(TlsStore::load(
            &arguments.certificate,
            &arguments.key,
        )?)),
        pool_size: BACKENDS,
        ..Config::default()
    };
    let log = QueryLog::open(QueryLogConfig::new(&arguments.log))?;
    let _proxy = Proxy::start(config, SnapshotCell::new(snapshot), log)?;
    loop {
        std::thread::park();
    }
}

/// The snapshot's one server.
fn server(engine: Engine, address: SocketAddr, redis_select: Option<Arc<NativeRole>>) -> Server {
    Server {
        id: SERVER,
        engine,
        address: ServerAddress::Tcp(address),
        connection_budget: BACKENDS,
        region: "eu-central".into(),
        redis_select,
    }
}

/// Settings that let all idle clients in.
fn settings() -> Settings {
    Settings {
        max_connections: 20_000,
        ..Settings::default()
    }
}
