//! Starting and stopping database servers, and what is known of those that somebody else runs.

pub mod external;
pub mod local;

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use control_store::ids::{Engine, ServerId};
use control_store::servers::RedisServer;
use control_store::snapshot::ServerAddress;

/// A server to be started. It has no `Debug`: it holds secrets.
#[derive(Clone)]
pub struct ServerSpec {
    /// Its id.
    pub id: ServerId,
    /// Its engine.
    pub engine: Engine,
    /// What a Redis server is made with, and needs whenever it is started.
    pub redis: Option<RedisServer>,
}

impl ServerSpec {
    /// A PostgreSQL server.
    pub fn postgres(id: ServerId) -> Self {
        Self {
            id,
            engine: Engine::Postgres,
            redis: None,
        }
    }

    /// A Redis server.
    pub fn redis(id: ServerId, redis: RedisServer) -> Self {
        Self {
            id,
            engine: Engine::Redis,
            redis: Some(redis),
        }
    }
}

/// Starts, stops and watches database servers.
#[async_trait]
pub trait Provisioner: Send + Sync {
    /// Starts a server, creating it first where it does not exist, and waits until it takes connections.
    /// Starting one that runs changes nothing.
    ///
    /// # Errors
    /// When the server cannot be created or does not come up.
    async fn start(&self, server: &ServerSpec) -> Result<ServerAddress, ProvisionError>;

    /// Stops a server cleanly and waits until it is gone. Its data stays. Stopping one that does not run changes
    /// nothing.
    async fn stop(&self, id: ServerId);

    /// How a server is doing.
    fn health(&self, id: ServerId) -> Health;

    /// Every server that was started and not stopped, in the order of their ids.
    fn list(&self) -> Vec<RunningServer>;
}

/// How a server is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not started here, or stopped.
    Stopped,
    /// Starting for the first time, or again after a crash; does not take connections yet.
    Starting,
    /// Takes connections.
    Running,
    /// Its process lives but does not answer.
    Unresponsive,
    /// Somebody else runs it, and it does not answer.
    Unreachable {
        /// Why not.
        reason: String,
    },
    /// Somebody else runs it, and it takes no new databases before this is put right.
    Unfit {
        /// What is wrong, each as a sentence.
        problems: Vec<String>,
    },
    /// It ended by itself and is started again after a pause.
    Restarting {
        /// How it ended.
        reason: String,
    },
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Starting => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Unresponsive => f.write_str("does not answer"),
            Self::Unreachable { reason } => write!(f, "unreachable: {reason}"),
            Self::Unfit { problems } => write!(f, "unfit: {}", problems.join("; ")),
            Self::Restarting { reason } => write!(f, "restarting: {reason}"),
        }
    }
}

/// One server that was started, or that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningServer {
    /// Its id.
    pub id: ServerId,
    /// What the configuration calls one that somebody else runs.
    pub name: Option<String>,
    /// Its engine.
    pub engine: Engine,
    /// Where it takes connections.
    pub address: ServerAddress,
    /// How it is doing.
    pub health: Health,
}

/// A server could not be created or started. Each is one sentence for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The engine's programs are not installed.
    #[error(
        "{program} was not found: install it with `apt-get install {package}`, or put it on the PATH"
    )]
    MissingProgram {
        /// The program that was looked for.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The engine's programs are too old.
    #[error("{} is version {found}: version {needed} or newer is needed", path.display())]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// We run as root, the engine refuses to, and there is nobody else to run it as.
    #[error(
        "database servers refuse to run as root: create a system user with `useradd --system tenantsdb`"
    )]
    NoAccount,
    /// Another process uses the data folder.
    #[error("{} is in use by another tenantsdb process: stop it, or choose another --data-dir", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The account that runs the servers cannot reach the data folder.
    #[error(
        "the user {account} cannot enter {}: run `chmod o+x {}`, or choose another --data-dir such as /var/lib/tenantsdb",
        path.display(), path.display()
    )]
    Unreachable {
        /// The folder above the data that is closed.
        path: PathBuf,
        /// The operating system's account.
        account: String,
    },
    /// A folder where the server's socket would be belongs to somebody else.
    #[error("{} belongs to another user: remove it, or choose a shorter --data-dir", path.display())]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A file or process operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A server's own tool refused.
    #[error("{program} failed: {detail}")]
    ToolFailed {
        /// The program.
        program: &'static str,
        /// The end of what it printed.
        detail: String,
    },
    /// The server did not take connections.
    #[error("server {id} did not start: {detail}")]
    NotStarted {
        /// Which.
        id: ServerId,
        /// The end of what it printed.
        detail: String,
    },
    /// No local servers of this engine are known.
    #[error("local {} servers are not supported", engine.display_name())]
    UnsupportedEngine {
        /// Which.
        engine: Engine,
    },
}

impl ProvisionError {
    /// For `map_err` on file operations.
    fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
