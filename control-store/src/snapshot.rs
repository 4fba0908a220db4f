//! The routing snapshot: everything a login or a statement's routing needs, in memory, read without a lock.
//!
//! A change is durable before the snapshot shows it. The maps are persistent (HAMT), so that a change copies a few
//! nodes and a look-up among 100,000 tenants costs what one among 100 does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::directory::Directory;
use crate::ids::{BlueprintName, DatabaseId, Engine, KeyId, ProjectId, Role, ServerId, TenantId};
pub use crate::redis::{RedisDatabase, RedisIndex, RedisKeyPattern, RedisKeySettings};

/// A persistent hash map.
pub type Map<K, V> =
    imbl::GenericHashMap<K, V, ahash::RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// The cell that holds the newest snapshot. Cheap to clone.
#[derive(Clone)]
pub struct SnapshotCell(Arc<ArcSwap<Snapshot>>);

impl SnapshotCell {
    /// A cell with a first snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(snapshot)))
    }

    /// The newest snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Puts a newer snapshot in place. Only the store calls this, after its change is durable.
    pub fn store(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}

/// One state of the routing data.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Grows by one with each change.
    pub generation: u64,
    /// Projects by id.
    pub projects: Map<ProjectId, Arc<Project>>,
    /// Databases by id.
    pub databases: Map<DatabaseId, Arc<Database>>,
    /// Databases by what a client names.
    pub names: Map<DatabaseName, DatabaseId>,
    /// Servers by id.
    pub servers: Map<ServerId, Arc<Server>>,
    /// Keys by the SHA-256 of the full API key.
    pub api_keys: Map<[u8; 32], Arc<Key>>,
    /// Keys by the SHA-256 of the proxy password, for logins that hand it over in clear.
    pub passwords: Map<[u8; 32], Arc<Key>>,
    /// Redis databases by what their logins name.
    pub redis: RedisIndex,
    /// What the API shows of tenants and workspaces.
    pub directory: Directory,
}

/// What a client names when it connects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DatabaseName {
    /// Whose.
    pub project: ProjectId,
    /// On which port it knocked.
    pub engine: Engine,
    /// `{workspace}_workspace` or `{blueprint}__{tenant}`.
    pub name: Arc<str>,
}

/// A project as logins need it.
pub struct Project {
    /// `tdb_…`, also the clients' user name.
    pub id: ProjectId,
    /// SCRAM-SHA-256 salt shared by all the project's passwords.
    pub scram_salt: [u8; 16],
    /// SCRAM-SHA-256 iterations shared by all the project's passwords.
    pub scram_iterations: u32,
    /// Every key that is in force.
    pub keys: Vec<Arc<Key>>,
}

/// An API key with its proxy password, as logins need it.
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// The project it belongs to.
    pub project: ProjectId,
    /// What it may do.
    pub role: Role,
    /// What it may reach.
    pub scope: Scope,
    /// SCRAM-SHA-256 `StoredKey` of the proxy password.
    pub stored_key: [u8; 32],
    /// SCRAM-SHA-256 `ServerKey` of the proxy password.
    pub server_key: [u8; 32],
}

/// What a key may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything of the project.
    Project,
    /// These workspaces, their blueprints and those blueprints' tenant databases.
    Workspaces(Vec<BlueprintName>),
    /// These tenants.
    Tenants(Vec<TenantId>),
}

impl Scope {
    /// Whether this scope opens that database.
    pub fn allows(&self, database: &Database) -> bool {
        match self {
            Self::Project => true,
            Self::Workspaces(names) => names.contains(&database.blueprint),
            Self::Tenants(ids) => database.tenant().is_some_and(|id| ids.contains(id)),
        }
    }
}

/// A database, and everything needed to route to it.
pub struct Database {
    /// Its id.
    pub id: DatabaseId,
    /// Whose.
    pub project: ProjectId,
    /// Which engine.
    pub engine: Engine,
    /// The name that the client uses, and the server too.
    pub name: Arc<str>,
    /// The workspace or blueprint it belongs to.
    pub blueprint: BlueprintName,
    /// Workspace or tenant.
    pub kind: DatabaseKind,
    /// Where it is.
    pub server: ServerId,
    /// Whether clients may use it.
    pub status: DatabaseStatus,
    /// The roles that the proxy logs in with.
    pub native_roles: NativeRoles,
    /// The settings in force.
    pub settings: Settings,
    /// How backend connections are shared.
    pub pool_mode: PoolMode,
    /// Grows with every schema change that a deployment or import made, so that prepared statements are renewed.
    pub schema_epoch: u64,
    /// What only a Redis database has, and every one of them.
    pub redis: Option<RedisDatabase>,
}

impl Database {
    /// The tenant, if this is a tenant's database.
    pub fn tenant(&self) -> Option<&TenantId> {
        match &self.kind {
            DatabaseKind::Tenant { tenant } => Some(tenant),
            DatabaseKind::TenantWorkspace | DatabaseKind::ControlWorkspace => None,
        }
    }
}

/// What a database is for, which decides whether DDL passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A workspace whose schema becomes a blueprint: DDL passes and is tracked.
    TenantWorkspace,
    /// A workspace of its own: DDL passes.
    ControlWorkspace,
    /// A tenant's database: DDL is refused.
    Tenant {
        /// Whose.
        tenant: TenantId,
    },
}

/// Whether clients may use a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseStatus {
    /// Yes.
    Ready,
    /// Its tenant is suspended.
    Suspended,
    /// Being created, restored, recovered, or failed.
    NotReady,
    /// Its tenant is in the trash: to clients it does not exist.
    Deleted,
}

/// How backend connections are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// A backend is leased for a transaction.
    Transaction,
    /// A backend is leased for as long as the client is connected.
    Session,
}

/// The native roles of one database, one for each role of a key.
#[derive(Clone)]
pub struct NativeRoles {
    /// For `admin` keys: owns the objects on workspaces, DML on tenants.
    pub admin: Arc<NativeRole>,
    /// For `write` keys: DML.
    pub write: Arc<NativeRole>,
    /// For `read` keys: SELECT.
    pub read: Arc<NativeRole>,
}

impl NativeRoles {
    /// The native role for a key's role.
    pub fn for_role(&self, role: Role) -> &Arc<NativeRole> {
        match role {
            Role::Admin => &self.admin,
            Role::Write => &self.write,
            Role::Read => &self.read,
        }
    }
}

/// A login role on a database server. It has no `Debug`: it holds secrets.
pub struct NativeRole {
    /// Its name on the server.
    pub name: Arc<str>,
    /// Its password, for drivers that need the text. Random, 43 characters of base64url.
    pub password: Arc<str>,
    /// SCRAM-SHA-256 keys of that password, so that the proxy never runs PBKDF2. All zero on Redis, which takes passwords only.
    pub scram: ScramKeys,
}

/// What a SCRAM-SHA-256 client derives from a password, computed once when the password is made.
#[derive(Clone, Default)]
pub struct ScramKeys {
    /// The salt in the role's verifier on the server.
    pub salt: [u8; 16],
    /// The iterations in the role's verifier on the server.
    pub iterations: u32,
    /// `HMAC(SaltedPassword, "Client Key")`.
    pub client_key: [u8; 32],
    /// `HMAC(SaltedPassword, "Server Key")`.
    pub server_key: [u8; 32],
}

/// The settings of a database, as the proxy enforces them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds after which a statement is cancelled at the server.
    pub query_timeout_ms: u64,
    /// Rows that one statement may return.
    pub max_rows_per_query: u64,
    /// Client connections to this database.
    pub max_connections: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            query_timeout_ms: 30_000,
            max_rows_per_query: 10_000,
            max_connections: 100,
        }
    }
}

/// A database server.
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Which engine.
    pub engine: Engine,
    /// How to reach it.
    pub address: ServerAddress,
    /// How many connections all our workers together may open to it.
    pub connection_budget: u32,
    /// The zone it is in, see `GET /regions`.
    pub region: Arc<str>,
    /// Redis: who selects the logical database, before the native role logs in; it may do nothing else.
    pub redis_select: Option<Arc<NativeRole>>,
}

/// How to reach a database server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A Unix socket: its full path, for PostgreSQL `<dir>/.s.PGSQL.<port>`.
    Unix(PathBuf),
    /// TCP, without TLS: on this machine or in a network that nobody else is in.
    Tcp(SocketAddr),
    /// TCP with TLS.
    Tls(Arc<TlsPlace>),
}

/// How to reach a database server with TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsPlace {
    /// Where it is.
    pub address: SocketAddr,
    /// What its certificate must be for.
    pub host: Arc<str>,
    /// The file with the authorities that must have issued it. `None`: any certificate will do.
    pub authority: Option<PathBuf>,
    /// PostgreSQL is asked first whether it speaks TLS.
    pub asks_first: bool,
}

impl ServerAddress {
    /// Where it is in the network; `None`: a Unix socket.
    pub fn network(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(address) => Some(*address),
            Self::Tls(place) => Some(place.address),
        }
    }
}
