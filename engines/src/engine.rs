//! What every engine can do with its servers. All operations may be repeated: a crash in the middle is followed by the same
//! call again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use control_store::Secret;
use control_store::ids::{Engine, ServerId};
use control_store::servers::RedisServer;
use control_store::snapshot::{NativeRoles, RedisDatabase, ServerAddress};
use thiserror::Error;

/// How to reach a server as its administrator.
#[derive(Clone, Debug)]
pub struct ServerAccess {
    /// Its id.
    pub id: ServerId,
    /// Where it is.
    pub address: ServerAddress,
    /// As whom, where the server does not know its administrator by the account that we run as.
    pub login: Option<AdminLogin>,
}

/// As whom the control plane logs in to a server.
#[derive(Clone)]
pub struct AdminLogin {
    /// The user who may do everything.
    pub user: String,
    /// With which password.
    pub password: Secret,
}

impl fmt::Debug for AdminLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminLogin")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What a server that existed before us is to be used for.
#[derive(Clone, Copy)]
pub struct ServerUse<'a> {
    /// Whether databases of many share it.
    pub shared: bool,
    /// How many connections the proxy may open to it.
    pub connections: u32,
    /// PostgreSQL: whether tenants may see the names of others' databases, where nothing can be done about it.
    pub names_visible: bool,
    /// Redis: our own users' secrets.
    pub redis: Option<&'a RedisServer>,
    /// Redis: the numbers of our databases that are there.
    pub numbers: &'a [u32],
}

/// What a look at such a server told, each as a sentence for its operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerReport {
    /// What has to be put right before databases are made there.
    pub problems: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// Redis: how many logical databases it has.
    pub redis_databases: Option<u32>,
}

impl ServerReport {
    pub(crate) fn problem(&mut self, sentence: String) {
        self.problems.push(sentence);
    }

    pub(crate) fn note(&mut self, sentence: String) {
        self.notes.push(sentence);
    }
}

/// What a database is for, which decides what its roles may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseUse {
    /// Its schema becomes a blueprint: DDL passes and is tracked.
    TenantWorkspace,
    /// A database of its own: DDL passes.
    ControlWorkspace,
    /// A tenant's: data only.
    Tenant,
}

/// A database on a server.
#[derive(Clone, Copy)]
pub struct DatabaseSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is for.
    pub usage: DatabaseUse,
    /// The roles that the proxy logs in with.
    pub roles: &'a NativeRoles,
    /// Redis: where its keys are.
    pub redis: Option<&'a RedisDatabase>,
}

/// A schema change that took effect in a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedChange {
    /// Its place in the workspace's record; grows.
    pub position: i64,
    /// The statement.
    pub statement: String,
    /// The search path it ran with.
    pub search_path: String,
    /// When it ran.
    pub created_at: SystemTime,
}

/// A change to be made to a tenant's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its id, unique in its blueprint.
    pub id: i64,
    /// The statement.
    pub statement: String,
    /// The search path to run it with.
    pub search_path: String,
}

/// What a deployment is doing in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyStep {
    /// The change that is being made.
    pub change: i64,
    /// Its place among those that the database lacks, from 1.
    pub number: usize,
    /// How many the database lacks.
    pub of: usize,
    /// How often it has been tried, this time included.
    pub attempt: u32,
}

/// Who is told of each step. Must not block.
#[derive(Clone, Default)]
pub struct StepSink(Option<Arc<dyn Fn(ApplyStep) + Send + Sync>>);

impl StepSink {
    /// Tells `sink`.
    pub fn new(sink: impl Fn(ApplyStep) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(sink)))
    }

    /// A step begins.
    pub fn tell(&self, step: ApplyStep) {
        if let Some(sink) = &self.0 {
            sink(step);
        }
    }
}

impl std::fmt::Debug for StepSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StepSink")
    }
}

/// How patient a deployment is with a busy tenant, and who hears of its steps.
#[derive(Clone, Debug)]
pub struct ApplyOptions {
    /// How long one attempt waits for a lock. The tenant's own statements wait behind it for so long at most.
    pub lock_timeout: Duration,
    /// How often a change is tried.
    pub attempts: u32,
    /// The pause after the first attempt; it doubles, up to 32 times as long.
    pub backoff: Duration,
    /// Who is told of each step.
    pub steps: StepSink,
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(1),
            attempts: 12,
            backoff: Duration::from_millis(200),
            steps: StepSink::default(),
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as people declare it: `SERIAL`, `TEXT`, `VARCHAR(255)`, `BIGINT GENERATED ALWAYS AS IDENTITY`.
    pub data_type: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Its default as an expression; none for what the type implies.
    pub default: Option<String>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name, with its schema unless that is the usual one.
    pub name: String,
    /// In the order of the table.
    pub columns: Vec<Column>,
    /// Names of its indexes.
    pub indexes: Vec<String>,
}

/// Two schemas to be compared, each as the statements that make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaPair {
    /// What the schema should be.
    pub expected: Vec<String>,
    /// What it is.
    pub found: Vec<String>,
}

/// Why an operation failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The server does not take the administrator's connection.
    #[error("the database server is unavailable: {0}")]
    Unavailable(String),
    /// The server refused a statement.
    #[error("{message}")]
    Statement {
        /// Which change of a deployment it was.
        change: Option<i64>,
        /// The engine's error code.
        code: String,
        /// The engine's sentence.
        message: String,
    },
    /// The database stayed busy through all attempts.
    #[error(
        "the database stayed busy: change {change} could not get its locks in {attempts} attempts"
    )]
    Busy {
        /// Which change.
        change: i64,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server has a database of that name that we have not made.
    #[error("the server has a database {0} that is not ours")]
    NotOurs(String),
    /// The system gives no random bytes.
    #[error("the system's random number generator failed")]
    Random,
    /// The engine cannot be reached in this way.
    #[error("{0}")]
    Unsupported(&'static str),
}

/// What the control plane does to the servers of one engine.
#[async_trait]
pub trait DatabaseEngine: Send + Sync {
    /// Which engine.
    fn engine(&self) -> Engine;

    /// Roles for a new database: names and passwords that nobody can guess.
    ///
    /// # Errors
    /// The system gives no random bytes.
    fn new_roles(&self) -> Result<NativeRoles, EngineError>;

    /// Makes a database with its roles.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    async fn create_database(
        &self,
        server: &ServerAccess,
        spec: &DatabaseSpec<'_>,
    ) -> Result<(), EngineError>;

    /// Whether [`Self::restore_roles`] has anything to do.
    fn loses_roles(&self) -> bool {
        false
    }

    /// Gives the roles of databases that are in use what they may do, no more and no less, where a server may have come to
    /// another view of it since: all those of one server, when it was started. An engine whose roles keep their rights as they
    /// were written has nothing to do.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    async fn restore_roles(
        &self,
        _server: &ServerAccess,
        _databases: &[DatabaseSpec<'_>],
    ) -> Result<(), EngineError> {
        Ok(())
    }

    /// Removes a database with its roles, whoever is connected. One that is not there is no error.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    async fn drop_database(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
    ) -> Result<(), EngineError>;

    /// Lets nobody into a database, ending the sessions that are open, and keeps its rows; or lets its roles in again.
    /// [`Self::create_database`] opens it too.
    ///
    /// # Errors
    /// The server cannot be reached, or has no such database.
    async fn set_open(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
        open: bool,
    ) -> Result<(), EngineError>;

    /// The size of a database in bytes: on disk, or in memory where the engine keeps it there.
    ///
    /// # Errors
    /// The server cannot be reached, or has no such database.
    async fn database_size(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
    ) -> Result<u64, EngineError>;

    /// Whether the server takes connections and answers. Gives what is another text after it has been started again.
    ///
    /// # Errors
    /// It does not.
    async fn ping(&self, server: &ServerAccess) -> Result<String, EngineError>;

    /// Makes on a server that existed before us what our databases need there, as far as it is ours to make, and tells what is
    /// missing otherwise. What others have there stays as it is.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    async fn prepare_server(
        &self,
        server: &ServerAccess,
        usage: &ServerUse<'_>,
    ) -> Result<ServerReport, EngineError>;

    /// What a workspace's database has recorded behind that position, in order.
    ///
    /// # Errors
    /// The server cannot be reached.
    async fn tracked_changes(
        &self,
        server: &ServerAccess,
        database: &str,
        after: i64,
    ) -> Result<Vec<TrackedChange>, EngineError>;

    /// Makes those changes that the tenant's ledger lacks, in order, each with its line in the ledger or not at all. Gives the
    /// ids of all that the ledger has afterwards.
    ///
    /// # Errors
    /// A change failed: those before it stay, and a repetition goes on with it.
    async fn apply(
        &self,
        server: &ServerAccess,
        database: &str,
        roles: &NativeRoles,
        changes: &[Change],
        options: &ApplyOptions,
    ) -> Result<Vec<i64>, EngineError>;

    /// The tables of a database, by name, without the platform's own.
    ///
    /// # Errors
    /// The server cannot be reached.
    async fn schema(
        &self,
        server: &ServerAccess,
        database: &str,
    ) -> Result<Vec<Table>, EngineError>;

    /// The schema that a tenant's database has, and the one that these changes make. Nothing else may be done to the
    /// database meanwhile.
    ///
    /// # Errors
    /// The server cannot be reached, or the engine has no schemas.
    async fn schemas(
        &self,
        _server: &ServerAccess,
        _database: &str,
        _roles: &NativeRoles,
        _changes: &[Change],
        _options: &ApplyOptions,
    ) -> Result<SchemaPair, EngineError> {
        Err(EngineError::Unsupported("this engine has no schemas"))
    }

    /// Removes what a crash in the middle of [`Self::schemas`] has left on a server.
    ///
    /// # Errors
    /// The server cannot be reached.
    async fn clear_scratch(&self, _server: &ServerAccess) -> Result<(), EngineError> {
        Ok(())
    }
}
