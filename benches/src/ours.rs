//! The TenantsDB column: its data plane, with the query log on, in front of the same server as the rivals.
//!
//! The proxy runs in a process of its own, which is this program told to be one, with a routing snapshot made by hand in place
//! of the control plane's.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use control_store::ids::{BlueprintName, Engine, ProjectId, Role};
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    Project, Scope, Server, ServerAddress, Settings, Snapshot, SnapshotCell,
};
use control_store::{DatabaseId, KeyId, ServerId, scram};
use proxy::query_log::{QueryLog, QueryLogConfig};
use proxy::reactor::{ReactorKind, TlsStore};
use proxy::{Config, Proxy};

use crate::contender::{Contender, Kind};
use crate::pgbench::Endpoint;
use crate::process::{Process, RunAs, free_port};
use crate::rivals::Lab;
use crate::rivals::postgres::{DATABASE, PASSWORD, Postgres, SALT, USER, utf8};

const PROJECT: &str = "tdb_0000be0c";
const PROXY_PASSWORD: &str = "tdb_0123456789abcdef";
/// As many backends as PgBouncer's transaction pool has.
const BACKENDS: u32 = 32;

/// What the proxy's process is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
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

/// Starts the column with that reactor.
///
/// # Errors
/// When it does not start.
pub fn start(lab: &Lab, postgres: &Postgres, kind: Kind) -> Result<Contender> {
    let reactor = if kind == Kind::OursEpoll {
        "epoll"
    } else {
        "uring"
    };
    let port = free_port()?;
    let program = std::env::current_exe()?;
    let (listen, server) = (port.to_string(), postgres.port().to_string());
    let folder = lab.path(&format!("query-log-{reactor}"));
    let line = [
        utf8(&program)?,
        "proxy",
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
        endpoint: Endpoint {
            port,
            user: PROJECT.into(),
            password: PROXY_PASSWORD.into(),
            database: DATABASE.into(),
            tls: false,
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
    let config = Config {
        reactor: Some(reactor),
        workers: 1,
        postgres: vec![listener],
        plaintext: true,
        tls: Some(Arc::new(TlsStore::load(
            &arguments.certificate,
            &arguments.key,
        )?)),
        pool_size: BACKENDS,
        ..Config::default()
    };
    let log = QueryLog::open(QueryLogConfig::new(&arguments.log))?;
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.server));
    let _proxy = Proxy::start(config, SnapshotCell::new(snapshot(server)?), log)?;
    loop {
        std::thread::park();
    }
}

fn snapshot(server: SocketAddr) -> Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    let project = ProjectId::new(PROJECT);
    let keys = scram::derive(PROXY_PASSWORD, SALT, scram::ITERATIONS)?;
    let key = Arc::new(Key {
        id: KeyId(1),
        project: project.clone(),
        role: Role::Admin,
        scope: Scope::Project,
        stored_key: scram::stored_key(&keys.client_key),
        server_key: keys.server_key,
    });
    let entry = Project {
        id: project.clone(),
        scram_salt: SALT,
        scram_iterations: scram::ITERATIONS,
        keys: vec![key],
    };
    snapshot.projects.insert(project.clone(), Arc::new(entry));
    let role = Arc::new(NativeRole {
        name: USER.into(),
        password: PASSWORD.into(),
        scram: scram::derive(PASSWORD, SALT, scram::ITERATIONS)?,
    });
    let entry = Server {
        id: ServerId(1),
        engine: Engine::Postgres,
        address: ServerAddress::Tcp(server),
        connection_budget: BACKENDS,
        region: "eu-central".into(),
        redis_select: None,
    };
    snapshot.servers.insert(ServerId(1), Arc::new(entry));
    let database = Database {
        id: DatabaseId(1),
        project: project.clone(),
        engine: Engine::Postgres,
        name: DATABASE.into(),
        blueprint: BlueprintName::new("bench"),
        kind: DatabaseKind::ControlWorkspace,
        server: ServerId(1),
        status: DatabaseStatus::Ready,
        native_roles: NativeRoles {
            admin: Arc::clone(&role),
            write: Arc::clone(&role),
            read: role,
        },
        settings: Settings {
            max_connections: 20_000,
            ..Settings::default()
        },
        pool_mode: PoolMode::Transaction,
        schema_epoch: 0,
        redis: None,
    };
    snapshot.databases.insert(DatabaseId(1), Arc::new(database));
    let name = DatabaseName {
        project,
        engine: Engine::Postgres,
        name: DATABASE.into(),
    };
    snapshot.names.insert(name, DatabaseId(1));
    Ok(snapshot)
}

/// The verifier that gives the server's role the salt which our keys are derived with.
///
/// # Errors
/// When the library refuses.
pub fn server_verifier() -> Result<String> {
    let keys = scram::derive(PASSWORD, SALT, scram::ITERATIONS).context("no keys")?;
    Ok(engines::postgres::scram::verifier(&keys))
}
