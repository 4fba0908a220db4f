//! What can go wrong in the store, split by whose fault it is.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::ids::ServerId;

/// What an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entity {
    /// An account, named by its email address.
    Account,
    /// A project, named by its id or name.
    Project,
    /// An API key, named by its id.
    ApiKey,
    /// A database server, named by its id.
    Server,
    /// A workspace, named by its name.
    Workspace,
    /// A tracked change, named by its id.
    Change,
    /// A blueprint version, named by its number.
    Version,
    /// A tenant, named by its id.
    Tenant,
    /// A database, named by its name or id.
    Database,
    /// A deployment, named by its id.
    Deployment,
    /// A job, named by its id.
    Job,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "Account",
            Self::Project => "Project",
            Self::ApiKey => "API key",
            Self::Server => "Server",
            Self::Workspace => "Workspace",
            Self::Change => "DDL change",
            Self::Version => "Version",
            Self::Tenant => "Tenant",
            Self::Database => "Database",
            Self::Deployment => "Deployment",
            Self::Job => "Job",
        })
    }
}

/// A failure of the store. The first group is the caller's, the second the operator's, the last the machine's or ours.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is none by that name.
    #[error("{what} not found: {name}")]
    NotFound {
        /// What was looked for.
        what: Entity,
        /// By which name.
        name: String,
    },
    /// There is one by that name already.
    #[error("{what} already exists: {name}")]
    Taken {
        /// What exists.
        what: Entity,
        /// Under which name.
        name: String,
    },
    /// Two of the caller's projects have this name.
    #[error("{what} name is ambiguous: {name} could be {}", ids.join(" or "))]
    Ambiguous {
        /// What was looked for.
        what: Entity,
        /// By which name.
        name: String,
        /// All that have it.
        ids: Vec<String>,
    },
    /// The server that was chosen for a database has one by that name already: another server must take it.
    #[error("server {server} already has a database by the name {name}")]
    NameOnServer {
        /// Which server.
        server: ServerId,
        /// Which name.
        name: String,
    },
    /// The server that was chosen for a database has no logical database left: another server must take it.
    #[error("server {server} has as many databases as it can")]
    ServerFull {
        /// Which server.
        server: ServerId,
    },
    /// A version was cut while a tenant was made, which must get it before it can be used.
    #[error("{blueprint} has version {version} by now")]
    NewerVersion {
        /// Which blueprint.
        blueprint: String,
        /// Its newest version.
        version: u32,
    },
    /// It cannot be deleted while something depends on it.
    #[error("{what} is in use: {name}")]
    InUse {
        /// What was to be deleted.
        what: Entity,
        /// Its name.
        name: String,
    },
    /// It is not in a state that allows this.
    #[error("{what} '{name}' is {state}")]
    WrongState {
        /// What was to be changed.
        what: Entity,
        /// Its name.
        name: String,
        /// The state it is in.
        state: &'static str,
    },
    /// A value that the store does not take.
    #[error("invalid {field}: {why}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What it must be.
        why: &'static str,
    },
    /// Wrong email address or password; the two are not told apart.
    #[error("Invalid email or password")]
    LoginFailed,

    /// The file was written by a newer version of this program.
    #[error(
        "the store has schema version {found} and this program knows versions up to {known}: start the newer program"
    )]
    NewerSchema {
        /// The version in the file.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The sealing key is not the one that this store was made with.
    #[error(
        "the sealing key does not belong to this store: put back the key file that was made with it"
    )]
    WrongSealingKey,
    /// The key file cannot be used.
    #[error("key file {}: {why}", path.display())]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },

    /// A sealed value was changed, moved to another row, or sealed with another key.
    #[error("a sealed value in the store cannot be opened")]
    SealBroken,
    /// A stored value makes no sense.
    #[error("the store holds an unreadable {what}")]
    Corrupt {
        /// Which value.
        what: &'static str,
    },
    /// A step of a job's log does not follow from the steps before it.
    #[error(transparent)]
    IllegalEvent(#[from] crate::jobs::IllegalEvent),
    /// The cryptographic library refused; it does so when the system gives no randomness.
    #[error("the cryptographic library failed")]
    Crypto,
    /// SQLite failed.
    #[error("the store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
}
impl StoreError {
    /// Whether another server can take what this one could not.
    pub fn asks_for_another_server(&self) -> bool {
        matches!(self, Self::NameOnServer { .. } | Self::ServerFull { .. })
    }

    pub(crate) fn not_found(what: Entity, name: impl fmt::Display) -> Self {
        Self::NotFound {
            what,
            name: name.to_string(),
        }
    }

    pub(crate) fn taken(what: Entity, name: impl fmt::Display) -> Self {
        Self::Taken {
            what,
            name: name.to_string(),
        }
    }

    /// Names a broken uniqueness rule; any other failure stays as it is.
    pub(crate) fn unique(error: rusqlite::Error, what: Entity, name: impl fmt::Display) -> Self {
        match error.sqlite_error().map(|e| e.extended_code) {
            Some(
                rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
                | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
            ) => Self::taken(what, name),
            _ => Self::Sqlite(error),
        }
    }
}
