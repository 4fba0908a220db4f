//! From the store to the snapshot: the same readers build it whole at start and entry by entry after a change.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::directory::{self, TenantEntry, TenantKey, WorkspaceKey};
use crate::error::StoreError;
use crate::ids::{BlueprintName, DatabaseId, Engine, KeyId, ProjectId, Role, ServerId, TenantId};
use crate::redis::{self, RedisDatabase, RedisKeySettings, SELECT_USER};
use crate::seal::{Purpose, Sealer};
use crate::secret::{Secret, sha256};
use crate::settings::{WorkspaceSettings, from_json};
use crate::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, PoolMode, Project,
    Scope, ScramKeys, Server, ServerAddress, Snapshot, SnapshotCell, TlsPlace,
};
use crate::states::{DatabaseState, Mode, TenantStatus};
use crate::store::ChangeEvent;
use crate::workspaces::WorkspaceInfo;

/// What a transaction touched and the snapshot must look at again.
#[derive(Default)]
pub(crate) struct Dirty {
    pub(crate) projects: BTreeSet<ProjectId>,
    pub(crate) databases: BTreeSet<DatabaseId>,
    pub(crate) servers: BTreeSet<ServerId>,
    pub(crate) keys: BTreeSet<KeyId>,
    /// Those without a touched database, which tells its workspace by itself.
    pub(crate) workspaces: BTreeSet<WorkspaceKey>,
    /// Hashes of keys that are gone; the row that would tell them is too.
    pub(crate) gone_keys: Vec<KeyHashes>,
}

/// What a key is looked up by.
#[derive(Clone, Copy)]
pub(crate) struct KeyHashes {
    /// SHA-256 of the full API key.
    pub(crate) api_key: [u8; 32],
    /// SHA-256 of the proxy password.
    pub(crate) password: [u8; 32],
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.projects.is_empty()
            && self.databases.is_empty()
            && self.servers.is_empty()
            && self.keys.is_empty()
            && self.workspaces.is_empty()
    }
}

type LoadedProject = (Arc<Project>, Vec<(KeyHashes, Arc<Key>)>);

/// What the touched entries look like now; `None` where one is gone.
pub(crate) struct Fresh {
    projects: Vec<(ProjectId, Option<LoadedProject>)>,
    databases: Vec<(DatabaseId, Option<Arc<Database>>)>,
    servers: Vec<(ServerId, Option<Arc<Server>>)>,
    tenants: Vec<(TenantKey, Option<TenantEntry>)>,
    workspaces: Vec<(WorkspaceKey, Option<Arc<WorkspaceInfo>>)>,
    keys: Vec<KeyId>,
    gone_keys: Vec<KeyHashes>,
    nothing: bool,
}

/// Reads what was touched. `before` is the newest snapshot, which knows to whom databases belonged that are gone.
pub(crate) fn load(
    conn: &Connection,
    sealer: &Sealer,
    dirty: Dirty,
    before: &Snapshot,
) -> Result<Fresh, StoreError> {
    let nothing = dirty.is_empty();
    let databases = each(dirty.databases, |id| load_database(conn, sealer, *id))?;
    let (mut tenants, mut workspaces) = (BTreeSet::new(), dirty.workspaces);
    for (id, fresh) in &databases {
        for database in before.databases.get(id).into_iter().chain(fresh) {
            let of = &database.project;
            workspaces.insert((of.clone(), database.blueprint.clone()));
            tenants.extend(database.tenant().map(|it| (of.clone(), it.clone())));
        }
    }
    Ok(Fresh {
        projects: each(dirty.projects, |id| load_project(conn, sealer, id))?,
        databases,
        servers: each(dirty.servers, |id| load_server(conn, sealer, *id))?,
        tenants: each(tenants, |key| directory::load_tenant(conn, key))?,
        workspaces: each(workspaces, |key| directory::load_workspace(conn, key))?,
        keys: dirty.keys.into_iter().collect(),
        gone_keys: dirty.gone_keys,
        nothing,
    })
}

fn each<I, T>(
    ids: BTreeSet<I>,
    load: impl Fn(&I) -> Result<Option<T>, StoreError>,
) -> Result<Vec<(I, Option<T>)>, StoreError> {
    ids.into_iter()
        .map(|id| load(&id).map(|entry| (id, entry)))
        .collect()
}

impl Fresh {
    /// Puts a snapshot with these entries in place. The caller holds the writer, so nobody else does so meanwhile.
    pub(crate) fn publish(self, cell: &SnapshotCell) -> Option<ChangeEvent> {
        if self.nothing {
            return None;
        }
        let mut next = Snapshot::clone(&cell.load());
        next.generation += 1;
        let event = ChangeEvent {
            generation: next.generation,
            databases: self.databases.iter().map(|(id, _)| *id).collect(),
            keys: self.keys.clone(),
            servers: self.servers.iter().map(|(id, _)| *id).collect(),
        };
        self.apply(&mut next);
        cell.store(next);
        Some(event)
    }

    fn apply(self, next: &mut Snapshot) {
        for gone in self.gone_keys {
            next.api_keys.remove(&gone.api_key);
            next.passwords.remove(&gone.password);
        }
        for (id, project) in self.projects {
            match project {
                Some(project) => insert_project(next, project),
                None => drop(next.projects.remove(&id)),
            }
        }
        for (id, server) in self.servers {
            match server {
                Some(server) => drop(next.servers.insert(id, server)),
                None => drop(next.servers.remove(&id)),
            }
        }
        for (id, database) in self.databases {
            if let Some(old) = next.databases.remove(&id) {
                next.names.remove(&name_of(&old));
                next.redis.remove(&old);
            }
            if let Some(database) = database {
                insert_database(next, database);
            }
        }
        for (key, tenant) in self.tenants {
            next.set_tenant(key, tenant.as_ref());
        }
        for (key, workspace) in self.workspaces {
            next.directory.set_workspace(key, workspace);
        }
    }
}

fn insert_project(snapshot: &mut Snapshot, (project, keys): LoadedProject) {
    for (hashes, key) in keys {
        snapshot.passwords.insert(hashes.password, Arc::clone(&key));
        snapshot.api_keys.insert(hashes.api_key, key);
    }
    snapshot.projects.insert(project.id.clone(), project);
}

fn insert_database(snapshot: &mut Snapshot, database: Arc<Database>) {
    snapshot.names.insert(name_of(&database), database.id);
    snapshot.redis.insert(&database);
    snapshot.databases.insert(database.id, database);
}

fn name_of(database: &Database) -> DatabaseName {
    DatabaseName {
        project: database.project.clone(),
        engine: database.engine,
        name: database.name.clone(),
    }
}

/// The whole snapshot, from disk.
pub(crate) fn load_all(conn: &Connection, sealer: &Sealer) -> Result<Snapshot, StoreError> {
    let mut snapshot = Snapshot {
        generation: 1,
        ..Snapshot::default()
    };
    let mut projects = conn.prepare("SELECT id FROM projects WHERE deleted_at IS NULL")?;
    for id in projects.query_map([], |r| r.get::<_, String>(0))? {
        if let Some(project) = load_project(conn, sealer, &ProjectId::new(id?))? {
            insert_project(&mut snapshot, project);
        }
    }
    let mut servers = conn.prepare(&format!("{SERVERS} ORDER BY id"))?;
    let mut rows = servers.query([])?;
    while let Some(row) = rows.next()? {
        let server = read_server(row, sealer)?;
        snapshot.servers.insert(server.id, Arc::new(server));
    }
    directory::load_workspaces(conn, &mut snapshot)?;
    let mut databases = conn.prepare(&format!("{DATABASES} ORDER BY d.id"))?;
    let mut rows = databases.query([])?;
    while let Some(row) = rows.next()? {
        let mut database = read_database(row, sealer)?;
        directory::share_texts(&snapshot, &mut database);
        insert_database(&mut snapshot, Arc::new(database));
    }
    directory::load_tenants(conn, &mut snapshot)?;
    Ok(snapshot)
}

fn load_project(
    conn: &Connection,
    sealer: &Sealer,
    id: &ProjectId,
) -> Result<Option<LoadedProject>, StoreError> {
    let found = conn
        .prepare_cached("SELECT scram_salt, scram_iterations FROM projects WHERE id = ?1 AND deleted_at IS NULL")?
        .query_row([id.as_str()], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    let Some((scram_salt, scram_iterations)) = found else {
        return Ok(None);
    };
    let mut keys = Vec::new();
    let mut statement = conn.prepare_cached(
        "SELECT id, role, scope_type, scope_values, stored_key, server_key, hash,
             sealed_password FROM api_keys
         WHERE project = ?1 ORDER BY id",
    )?;
    let mut rows = statement.query([id.as_str()])?;
    while let Some(row) = rows.next()? {
        let key = read_key(row, id)?;
        let hashes = key_hashes(sealer, key.id, row.get(6)?, &row.get::<_, Vec<u8>>(7)?)?;
        keys.push((hashes, Arc::new(key)));
    }
    let project = Project {
        id: id.clone(),
        scram_salt,
        scram_iterations,
        keys: keys.iter().map(|(_, key)| Arc::clone(key)).collect(),
    };
    Ok(Some((Arc::new(project), keys)))
}

/// What a key is looked up by. The hash of its password is in no file: 64 random bits are too few to be read from one.
pub(crate) fn key_hashes(
    sealer: &Sealer,
    id: KeyId,
    api_key: [u8; 32],
    sealed_password: &[u8],
) -> Result<KeyHashes, StoreError> {
    let password = sealer.open(Purpose::ProxyPassword, id.0, sealed_password)?;
    Ok(KeyHashes {
        api_key,
        password: sha256(&password),
    })
}

fn read_key(row: &Row<'_>, project: &ProjectId) -> Result<Key, StoreError> {
    Ok(Key {
        id: KeyId(row.get(0)?),
        project: project.clone(),
        role: read_role(&row.get::<_, String>(1)?)?,
        scope: read_scope(&row.get::<_, String>(2)?, &row.get::<_, String>(3)?)?,
        stored_key: row.get(4)?,
        server_key: row.get(5)?,
    })
}

pub(crate) fn read_role(name: &str) -> Result<Role, StoreError> {
    Role::parse(name).ok_or(StoreError::Corrupt { what: "role" })
}

pub(crate) fn read_engine(name: &str) -> Result<Engine, StoreError> {
    Engine::parse(name).ok_or(StoreError::Corrupt { what: "engine" })
}

pub(crate) fn read_scope(kind: &str, values: &str) -> Result<Scope, StoreError> {
    let names: Vec<String> = from_json(values)?;
    match kind {
        "project" => Ok(Scope::Project),
        "workspace" => Ok(Scope::Workspaces(
            names.into_iter().map(BlueprintName::new).collect(),
        )),
        "tenant" => Ok(Scope::Tenants(
            names.into_iter().map(TenantId::new).collect(),
        )),
        _ => Err(StoreError::Corrupt { what: "scope" }),
    }
}

const SERVERS: &str =
    "SELECT id, engine, address, connection_budget, region, sealed_select_password FROM servers";

fn load_server(
    conn: &Connection,
    sealer: &Sealer,
    id: ServerId,
) -> Result<Option<Arc<Server>>, StoreError> {
    let mut statement = conn.prepare_cached(&format!("{SERVERS} WHERE id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?
        .map(|row| read_server(row, sealer))
        .transpose()
        .map(|server| server.map(Arc::new))
}

fn read_server(row: &Row<'_>, sealer: &Sealer) -> Result<Server, StoreError> {
    let id: u64 = row.get(0)?;
    let select: Option<Vec<u8>> = row.get(5)?;
    let select = select.map(|sealed| sealer.open_text(Purpose::SelectPassword, id, &sealed));
    Ok(Server {
        id: ServerId(id),
        engine: read_engine(&row.get::<_, String>(1)?)?,
        address: read_address(&row.get::<_, String>(2)?)?,
        connection_budget: row.get(3)?,
        region: row.get(4)?,
        redis_select: select.transpose()?.map(|it| Arc::new(select_user(&it))),
    })
}

fn select_user(password: &Secret) -> NativeRole {
    NativeRole {
        name: SELECT_USER.into(),
        password: password.expose().into(),
        scram: ScramKeys::default(),
    }
}

pub(crate) fn read_address(text: &str) -> Result<ServerAddress, StoreError> {
    let corrupt = StoreError::Corrupt {
        what: "server address",
    };
    match text.split_once(':') {
        Some(("unix", path)) => Ok(ServerAddress::Unix(PathBuf::from(path))),
        Some(("tcp", address)) => address.parse().map(ServerAddress::Tcp).map_err(|_| corrupt),
        Some(("tls", stored)) => {
            let stored: (SocketAddr, String, Option<PathBuf>, bool) =
                serde_json::from_str(stored).map_err(|_| corrupt)?;
            let (address, host, authority, asks_first) = stored;
            Ok(ServerAddress::Tls(Arc::new(TlsPlace {
                address,
                host: host.into(),
                authority,
                asks_first,
            })))
        }
        _ => Err(corrupt),
    }
}

const DATABASES: &str =
    "SELECT d.id, d.project, d.engine, d.name, d.workspace, d.tenant, d.server, d.state,
        d.sealed_roles, d.settings, d.pool_mode, d.schema_epoch, w.mode, t.status,
        d.redis_number, s.kind
    FROM databases d
    JOIN servers s ON s.id = d.server
    JOIN workspaces w ON w.project = d.project AND w.name = d.workspace
    LEFT JOIN tenants t ON t.project = d.project AND t.id = d.tenant";

fn load_database(
    conn: &Connection,
    sealer: &Sealer,
    id: DatabaseId,
) -> Result<Option<Arc<Database>>, StoreError> {
    let mut statement = conn.prepare_cached(&format!("{DATABASES} WHERE d.id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?
        .map(|row| read_database(row, sealer))
        .transpose()
        .map(|database| database.map(Arc::new))
}

fn read_database(row: &Row<'_>, sealer: &Sealer) -> Result<Database, StoreError> {
    let id: u64 = row.get(0)?;
    let state = DatabaseState::from_stored(&row.get::<_, String>(7)?)?;
    let mode = Mode::from_stored(&row.get::<_, String>(12)?)?;
    let tenant_status = row
        .get::<_, Option<String>>(13)?
        .map(|text| TenantStatus::from_stored(&text))
        .transpose()?;
    let settings: WorkspaceSettings = from_json(&row.get::<_, String>(9)?)?;
    Ok(Database {
        id: DatabaseId(id),
        project: ProjectId::new(row.get::<_, String>(1)?),
        engine: read_engine(&row.get::<_, String>(2)?)?,
        name: row.get(3)?,
        blueprint: BlueprintName::new(row.get::<_, String>(4)?),
        kind: kind_of(mode, row.get::<_, Option<String>>(5)?),
        server: ServerId(row.get(6)?),
        status: status_of(state, tenant_status),
        native_roles: crate::roles::decode(&sealer.open(
            Purpose::NativeRoles,
            id,
            &row.get::<_, Vec<u8>>(8)?,
        )?)?,
        redis: read_redis(row, DatabaseId(id), &settings)?,
        settings: settings.routing(),
        pool_mode: read_pool_mode(&row.get::<_, String>(10)?)?,
        schema_epoch: row.get(11)?,
    })
}

/// On a server of its own, a database's keys are as its clients name them.
fn read_redis(
    row: &Row<'_>,
    id: DatabaseId,
    settings: &WorkspaceSettings,
) -> Result<Option<RedisDatabase>, StoreError> {
    let (Some(number), WorkspaceSettings::Redis(settings)) = (row.get(14)?, settings) else {
        return Ok(None);
    };
    let shared = row.get::<_, String>(15)? == "shared";
    Ok(Some(RedisDatabase {
        number,
        prefix: if shared {
            redis::prefix(id)
        } else {
            Arc::default()
        },
        settings: RedisKeySettings::of(settings),
    }))
}

pub(crate) fn read_pool_mode(name: &str) -> Result<PoolMode, StoreError> {
    match name {
        "transaction" => Ok(PoolMode::Transaction),
        "session" => Ok(PoolMode::Session),
        _ => Err(StoreError::Corrupt { what: "pool mode" }),
    }
}

fn kind_of(mode: Mode, tenant: Option<String>) -> DatabaseKind {
    match (tenant, mode) {
        (Some(tenant), _) => DatabaseKind::Tenant {
            tenant: TenantId::new(tenant),
        },
        (None, Mode::Tenant) => DatabaseKind::TenantWorkspace,
        (None, Mode::Control) => DatabaseKind::ControlWorkspace,
    }
}

/// The tenant's status comes first; where it leaves the question open, the database's own state answers it.
fn status_of(state: DatabaseState, tenant: Option<TenantStatus>) -> DatabaseStatus {
    match tenant {
        Some(TenantStatus::Deleted) => DatabaseStatus::Deleted,
        Some(TenantStatus::Suspended) => DatabaseStatus::Suspended,
        Some(TenantStatus::Restoring | TenantStatus::Recovering) => DatabaseStatus::NotReady,
        None
        | Some(
            TenantStatus::Provisioning
            | TenantStatus::Ready
            | TenantStatus::Syncing
            | TenantStatus::Migrating
            | TenantStatus::Failed,
        ) => match state {
            DatabaseState::Ready => DatabaseStatus::Ready,
            DatabaseState::Provisioning
            | DatabaseState::Removing
            | DatabaseState::Restoring
            | DatabaseState::Failed => DatabaseStatus::NotReady,
        },
    }
}
