//! What the tests of this crate share.

use std::collections::BTreeMap;
use std::sync::Arc;

use tempfile::TempDir;

use crate::databases::NewDatabase;
use crate::error::StoreError;
use crate::ids::{DatabaseId, Engine, ProjectId, ServerId};
use crate::page::Part;
use crate::publish::load_all;
use crate::seal::Sealer;
use crate::secret::Secret;
use crate::secret::hex;
use crate::servers::{NewServer, RedisServer};
use crate::settings::WorkspaceSettings;
use crate::snapshot::{NativeRole, NativeRoles, Scope, ServerAddress, Snapshot};
use crate::states::{DatabaseState, Mode};
use crate::store::Store;
use crate::workspaces::{NewChange, NewWorkspace};

pub(crate) const PASSWORD: &str = "correct horse";

/// A store in a folder of its own.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    folder: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            store: open(&folder),
            folder,
        }
    }

    /// What a crash leaves: the store is opened again beside the old handles, which never close cleanly.
    pub(crate) fn reopened(self) -> Self {
        let Self { store, folder } = self;
        let copy = tempfile::tempdir().expect("a temporary folder");
        for entry in folder.path().read_dir().expect("its entries").flatten() {
            // SQLite rebuilds the shared-memory index after a crash.
            if !entry.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
            }
        }
        drop(store);
        Self {
            store: open(&copy),
            folder: copy,
        }
    }

    pub(crate) fn project(&self) -> ProjectId {
        match self.store.snapshot().load().projects.keys().next() {
            Some(id) => id.clone(),
            None => self.another_project(),
        }
    }

    /// A shared PostgreSQL server.
    pub(crate) fn server(&self) -> ServerId {
        let id = self.store.reserve_server().expect("an id");
        let new = NewServer {
            engine: Engine::Postgres,
            shared: true,
            connection_budget: 300,
            region: "eu-central".into(),
            provisioner: "{}".into(),
            redis: None,
        };
        let address = ServerAddress::Unix("/run/postgres/socket".into());
        self.store.add_server(id, &new, &address).expect("a server");
        id
    }

    /// A shared Redis server with so many logical databases.
    pub(crate) fn redis_server(&self, databases: u32) -> ServerId {
        let id = self.store.reserve_server().expect("an id");
        let new = NewServer {
            engine: Engine::Redis,
            shared: true,
            connection_budget: 300,
            region: "eu-central".into(),
            provisioner: "{}".into(),
            redis: Some(RedisServer {
                databases,
                admin_user: "tenantsdb_admin".into(),
                admin_password: Secret::new("all".into()),
                select_password: Secret::new("select".into()),
            }),
        };
        let address = ServerAddress::Unix("/run/redis/socket".into());
        self.store.add_server(id, &new, &address).expect("a server");
        id
    }

    /// A Redis workspace whose database is there.
    pub(crate) fn redis_workspace(&self, project: &ProjectId, name: &str) -> DatabaseId {
        let server = self.place(Engine::Redis, &format!("{name}_workspace"));
        let id = self
            .new_redis_workspace(project, name, server)
            .expect("a workspace");
        let (from, to) = (DatabaseState::Provisioning, DatabaseState::Ready);
        self.store.move_database(id, from, to).expect("ready");
        id
    }

    pub(crate) fn new_redis_workspace(
        &self,
        project: &ProjectId,
        name: &str,
        server: ServerId,
    ) -> Result<DatabaseId, StoreError> {
        let new = NewWorkspace {
            name,
            engine: Engine::Redis,
            mode: Mode::Tenant,
            database: &format!("{name}_workspace"),
            server,
            roles: &roles(),
        };
        self.store.create_workspace(project, &new)
    }

    /// A workspace whose database is there.
    pub(crate) fn workspace(&self, project: &ProjectId, name: &str, mode: Mode) -> DatabaseId {
        let id = self
            .new_workspace(project, name, mode)
            .expect("a workspace");
        let (from, to) = (DatabaseState::Provisioning, DatabaseState::Ready);
        self.store.move_database(id, from, to).expect("ready");
        id
    }

    pub(crate) fn new_workspace(
        &self,
        project: &ProjectId,
        name: &str,
        mode: Mode,
    ) -> Result<DatabaseId, StoreError> {
        let database = format!("{name}_workspace");
        let new = NewWorkspace {
            name,
            engine: Engine::Postgres,
            mode,
            database: &database,
            server: self.place(Engine::Postgres, &database),
            roles: &roles(),
        };
        self.store.create_workspace(project, &new)
    }

    fn place(&self, engine: Engine, database: &str) -> ServerId {
        let found = self.store.place(engine, database, &[]).expect("a search");
        found.unwrap_or_else(|| match engine {
            Engine::Redis => self.redis_server(64),
            _ => self.server(),
        })
    }

    /// A tenant in use, with a database of each blueprint that has its newest version.
    pub(crate) fn tenant(&self, project: &ProjectId, id: &str, of: &[&str]) -> Vec<DatabaseId> {
        let made = self.new_tenant(project, id, of).expect("a tenant");
        for (database, blueprint) in made.iter().zip(of) {
            self.bring(project, *database, blueprint);
        }
        self.store.finish_tenant(project, id, &made).expect("ready");
        made
    }

    pub(crate) fn workspace_names(&self, project: &ProjectId) -> Vec<String> {
        let found = self
            .store
            .list_workspaces(project, None, &Scope::Project, &Part::ALL);
        let found = found.expect("workspaces");
        found.into_iter().map(|it| it.name).collect()
    }

    /// Notes that a database has its blueprint's newest version.
    pub(crate) fn bring(&self, project: &ProjectId, database: DatabaseId, blueprint: &str) {
        let workspace = self
            .store
            .workspace(project, blueprint)
            .expect("a workspace");
        self.store
            .set_database_version(database, workspace.version, &workspace.settings)
            .expect("a version");
    }

    pub(crate) fn new_tenant(
        &self,
        project: &ProjectId,
        id: &str,
        of: &[&str],
    ) -> Result<Vec<DatabaseId>, StoreError> {
        self.with_databases(project, id, of, |new| {
            self.store.create_tenant(project, id, new)
        })
    }

    pub(crate) fn with_databases<T>(
        &self,
        project: &ProjectId,
        tenant: &str,
        of: &[&str],
        f: impl FnOnce(&[NewDatabase<'_>]) -> T,
    ) -> T {
        let engine = |workspace: &str| match self.store.workspace(project, workspace) {
            Ok(found) => found.engine,
            Err(_) => Engine::Postgres,
        };
        let settings = [Engine::Postgres, Engine::Redis].map(WorkspaceSettings::default_of);
        let roles = roles();
        let names: Vec<_> = of.iter().map(|it| format!("{it}__{tenant}")).collect();
        let new = names.iter().zip(of).map(|(name, workspace)| NewDatabase {
            workspace,
            tenant: Some(tenant),
            engine: engine(workspace),
            name,
            server: self.place(engine(workspace), name),
            roles: &roles,
            settings: &settings[usize::from(engine(workspace) == Engine::Redis)],
        });
        f(&new.collect::<Vec<_>>())
    }

    /// Changes as a workspace's database would have recorded them.
    pub(crate) fn record(&self, project: &ProjectId, workspace: &str, changes: &[(i64, &str)]) {
        let changes: Vec<_> = changes
            .iter()
            .map(|(position, statement)| NewChange {
                position: *position,
                statement: (*statement).into(),
                search_path: "public".into(),
                at_us: 1_000_000 + position,
            })
            .collect();
        self.store
            .record_changes(project, workspace, &changes)
            .expect("recorded");
    }

    pub(crate) fn another_project(&self) -> ProjectId {
        let snapshot = self.store.snapshot().load();
        // The generation begins anew when a store is opened.
        let email = format!(
            "{}-{}@example.com",
            snapshot.projects.len(),
            snapshot.generation
        );
        self.store
            .sign_up(&email, PASSWORD, "Shop", "enterprise")
            .expect("a sign-up")
            .project
    }

    /// The snapshot that grew change by change equals one built from disk.
    pub(crate) fn check(&self) {
        let fresh = self
            .store
            .read(|conn| load_all(conn, &self.store.sealer))
            .expect("a snapshot");
        assert_eq!(describe(&self.store.snapshot().load()), describe(&fresh));
    }
}

pub(crate) fn roles() -> NativeRoles {
    let role = |name: &str| {
        Arc::new(NativeRole {
            name: name.into(),
            password: "secret".into(),
            scram: crate::scram::derive("secret", [3; 16], 2).expect("keys"),
        })
    };
    NativeRoles {
        admin: role("a"),
        write: role("w"),
        read: role("r"),
    }
}

fn open(folder: &TempDir) -> Store {
    let sealer = Sealer::from_key(&[1; 32]).expect("a sealer");
    Store::open(&folder.path().join("store.db"), sealer).expect("a store")
}

/// Everything a snapshot holds but its generation, in a form that compares and prints.
pub(crate) fn describe(s: &Snapshot) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (id, p) in &s.projects {
        let keys: Vec<_> = p.keys.iter().map(|k| k.id).collect();
        all.insert(
            format!("project {id}"),
            format!(
                "{} {} {} {keys:?}",
                p.id,
                hex(&p.scram_salt),
                p.scram_iterations
            ),
        );
    }
    for (hash, k) in &s.api_keys {
        let keys = format!("{} {}", hex(&k.stored_key), hex(&k.server_key));
        all.insert(
            format!("key {}", hex(hash)),
            format!("{} {} {:?} {:?} {keys}", k.id, k.project, k.role, k.scope),
        );
    }
    for (hash, k) in &s.passwords {
        all.insert(format!("password {}", hex(hash)), k.id.to_string());
    }
    all.insert("redis".into(), s.redis.describe());
    for (id, v) in &s.servers {
        let text = format!(
            "{} {:?} {:?} {} {} {:?}",
            v.id,
            v.engine,
            v.address,
            v.connection_budget,
            v.region,
            v.redis_select.as_ref().map(|it| (&it.name, &it.password))
        );
        all.insert(format!("server {id}"), text);
    }
    for (name, id) in &s.names {
        all.insert(format!("name {name:?}"), id.to_string());
    }
    for (id, d) in &s.databases {
        let place = format!(
            "{} {} {:?} {} {} {:?} {}",
            d.id, d.project, d.engine, d.name, d.blueprint, d.kind, d.server
        );
        let rules = format!(
            "{:?} {:?} {:?} {} {:?}",
            d.status, d.settings, d.pool_mode, d.schema_epoch, d.redis
        );
        let roles = hex(&crate::roles::encode(&d.native_roles).expect("roles"));
        all.insert(format!("database {id}"), format!("{place} {rules} {roles}"));
    }
    all.extend(s.directory.describe());
    all
}
