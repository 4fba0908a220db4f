//! A proxy in front of real servers, with a snapshot made by hand: the data plane without the control plane.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use control_store::ids::{BlueprintName, Engine, ProjectId, Role, ServerId, TenantId};
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    Project, Scope, Server, ServerAddress, Settings, Snapshot, SnapshotCell,
};
use control_store::{DatabaseId, KeyId, TrafficControl, scram};
use engines::provisioner::local::LocalProvisioner;
use engines::provisioner::{Provisioner as _, ServerSpec};
use proxy::query_log::{QueryLog, QueryLogConfig};
use proxy::reactor::ReactorKind;
use proxy::{Config, Proxy};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

pub(crate) const PROJECT: &str = "tdb_0000cafe";
pub(crate) const PASSWORD: &str = "tdb_0123456789abcdef";
pub(crate) const READER_PASSWORD: &str = "tdb_fedcba9876543210";
/// A tenant's database: DDL is refused.
pub(crate) const TENANT: &str = "shop__acme";
/// A workspace's database: DDL passes.
pub(crate) const WORKSPACE: &str = "shop_workspace";
pub(crate) const TENANT_ID: DatabaseId = DatabaseId(1);
pub(crate) const WORKSPACE_ID: DatabaseId = DatabaseId(2);
const SALT: [u8; 16] = [7; 16];
const ITERATIONS: u32 = 4096;

/// Both reactors: every test of the data plane runs on each.
pub(crate) const REACTORS: [ReactorKind; 2] = [ReactorKind::Epoll, ReactorKind::Uring];

/// How a lab differs from the usual one.
pub(crate) struct Options {
    pub(crate) reactor: ReactorKind,
    pub(crate) workers: u16,
    pub(crate) settings: Settings,
    pub(crate) pool_mode: PoolMode,
    pub(crate) pool_size: u32,
    pub(crate) connection_budget: u32,
    pub(crate) pool_wait_timeout: Duration,
}

impl Options {
    pub(crate) fn on(reactor: ReactorKind) -> Self {
        Self {
            reactor,
            workers: 2,
            settings: Settings {
                max_connections: 2000,
                ..Settings::default()
            },
            pool_mode: PoolMode::Transaction,
            pool_size: 20,
            connection_budget: 50,
            pool_wait_timeout: Duration::from_secs(30),
        }
    }
}

/// Servers and a proxy, for one test.
pub(crate) struct Lab {
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    pub(crate) snapshot: SnapshotCell,
    pub(crate) log: Arc<QueryLog>,
    provisioner: LocalProvisioner,
    servers: Vec<(ServerId, ServerAddress)>,
    roles: NativeRoles,
    options: Options,
    _folder: TempDir,
}

impl Lab {
    pub(crate) async fn start(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let provisioner = LocalProvisioner::open(folder.path()).unwrap();
        let id = ServerId(1);
        let address = provisioner.start(&ServerSpec::postgres(id)).await.unwrap();
        let roles = NativeRoles {
            admin: native_role("lab_admin"),
            write: native_role("lab_write"),
            read: native_role("lab_read"),
        };
        let log = QueryLog::open(QueryLogConfig::new(folder.path().join("log"))).unwrap();
        let snapshot = SnapshotCell::new(Snapshot::default());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen_on = socket.local_addr().unwrap();
        let config = Config {
            reactor: Some(options.reactor),
            workers: options.workers,
            postgres: (0..options.workers)
                .map(|_| socket.try_clone().unwrap())
                .collect(),
            plaintext: true,
            pool_size: options.pool_size,
            pool_wait_timeout: options.pool_wait_timeout,
            ..Config::default()
        };
        let proxy = Proxy::start(config, snapshot.clone(), Arc::clone(&log)).unwrap();
        assert_eq!(proxy.reactor(), options.reactor);
        let lab = Self {
            proxy,
            address: listen_on,
            snapshot,
            log,
            provisioner,
            servers: vec![(id, address)],
            roles,
            options,
            _folder: folder,
        };
        lab.create_databases(id).await;
        lab.publish(id, DatabaseStatus::Ready);
        lab
    }

    /// Another server, with the same roles and empty databases.
    pub(crate) async fn add_server(&mut self) -> ServerId {
        let id = ServerId(self.servers.len() as u64 + 1);
        let address = self
            .provisioner
            .start(&ServerSpec::postgres(id))
            .await
            .unwrap();
        self.servers.push((id, address));
        self.create_databases(id).await;
        id
    }

    async fn create_databases(&self, server: ServerId) {
        let admin = self.superuser(server, "postgres").await;
        for role in [&self.roles.admin, &self.roles.write, &self.roles.read] {
            let password = engines_verifier(role);
            admin
                .batch_execute(&format!(
                    "CREATE ROLE {} LOGIN PASSWORD '{password}'",
                    role.name
                ))
                .await
                .unwrap();
        }
        for name in [TENANT, WORKSPACE] {
            admin
                .batch_execute(&format!("CREATE DATABASE {name} OWNER lab_admin"))
                .await
                .unwrap();
            let inside = self.superuser(server, name).await;
            inside
                .batch_execute(
                    "CREATE SCHEMA _tenantsdb;
                     CREATE FUNCTION _tenantsdb.session_locks() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
                     $$ SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() $$;
                     GRANT USAGE ON SCHEMA _tenantsdb TO PUBLIC;
                     CREATE TABLE items (id int PRIMARY KEY, name text);
                     GRANT ALL ON items TO lab_admin, lab_write; GRANT SELECT ON items TO lab_read;
                     GRANT ALL ON SCHEMA public TO lab_admin;
                     INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 100) n",
                )
                .await
                .unwrap();
        }
    }

    /// Shows the proxy both databases on that server.
    pub(crate) fn publish(&self, on: ServerId, status: DatabaseStatus) {
        let mut next = (*self.snapshot.load()).clone();
        next.generation += 1;
        for (id, address) in &self.servers {
            let server = Server {
                id: *id,
                engine: Engine::Postgres,
                address: address.clone(),
                connection_budget: self.options.connection_budget,
                region: "eu-central".into(),
                redis_select: None,
            };
            next.servers.insert(*id, Arc::new(server));
        }
        let project = ProjectId::new(PROJECT);
        let kinds = [
            (
                TENANT_ID,
                TENANT,
                DatabaseKind::Tenant {
                    tenant: TenantId::new("acme"),
                },
            ),
            (WORKSPACE_ID, WORKSPACE, DatabaseKind::TenantWorkspace),
        ];
        for (id, name, kind) in kinds {
            let database = Database {
                id,
                project: project.clone(),
                engine: Engine::Postgres,
                name: name.into(),
                blueprint: BlueprintName::new("shop"),
                kind,
                server: on,
                status,
                native_roles: self.roles.clone(),
                settings: self.options.settings.clone(),
                pool_mode: self.options.pool_mode,
                schema_epoch: 0,
                redis: None,
            };
            next.databases.insert(id, Arc::new(database));
            let name = DatabaseName {
                project: project.clone(),
                engine: Engine::Postgres,
                name: name.into(),
            };
            next.names.insert(name, id);
        }
        let keys = vec![
            key(1, PASSWORD, Role::Admin, &project),
            key(2, READER_PASSWORD, Role::Read, &project),
        ];
        let project_entry = Project {
            id: project.clone(),
            scram_salt: SALT,
            scram_iterations: ITERATIONS,
            keys,
        };
        next.projects.insert(project, Arc::new(project_entry));
        self.snapshot.store(next);
    }

    pub(crate) fn traffic(&self) -> Arc<dyn TrafficControl> {
        self.proxy.traffic()
    }

    /// A connection past the proxy, as the servers' superuser.
    pub(crate) async fn superuser(&self, server: ServerId, database: &str) -> Client {
        let (_, address) = self.servers.iter().find(|(id, _)| *id == server).unwrap();
        let ServerAddress::Unix(socket) = address else {
            panic!("not a socket")
        };
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(socket.parent().unwrap())
            .user("tenantsdb")
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) fn config(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.address.ip().to_string())
            .port(self.address.port())
            .user(PROJECT)
            .password(PASSWORD)
            .dbname(database);
        config
    }

    /// A connection through the proxy.
    pub(crate) async fn connect(&self, database: &str) -> Client {
        let (client, connection) = self.config(database).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs a PostgreSQL program against the proxy.
    pub(crate) async fn program(
        &self,
        program: &str,
        arguments: &[&str],
        database: &str,
    ) -> Output {
        let mut command = tokio::process::Command::new(find_program(program));
        command
            .args(arguments)
            .env("PGHOST", self.address.ip().to_string())
            .env("PGPORT", self.address.port().to_string())
            .env("PGUSER", PROJECT)
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", database)
            .env("PGSSLMODE", "disable")
            .kill_on_drop(true);
        tokio::time::timeout(Duration::from_secs(120), command.output())
            .await
            .expect("the program ends")
            .unwrap()
    }

    /// What psql prints for a script, errors too.
    pub(crate) async fn psql(&self, database: &str, script: &str) -> String {
        let out = self
            .program("psql", &["-X", "-A", "-t", "-q", "-c", script], database)
            .await;
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }

    pub(crate) async fn stop(self) {
        let proxy = self.proxy;
        tokio::task::spawn_blocking(move || proxy.drain(Duration::from_millis(200)))
            .await
            .unwrap();
        self.provisioner.stop_all().await;
    }
}

fn find_program(name: &str) -> std::path::PathBuf {
    let debian = std::path::Path::new("/usr/lib/postgresql/15/bin").join(name);
    if debian.exists() { debian } else { name.into() }
}

fn native_role(name: &str) -> Arc<NativeRole> {
    let password = format!("native-{name}");
    let scram = scram::derive(&password, [9; 16], ITERATIONS).unwrap();
    Arc::new(NativeRole {
        name: name.into(),
        password: password.as_str().into(),
        scram,
    })
}

fn engines_verifier(role: &NativeRole) -> String {
    engines::postgres::scram::verifier(&role.scram)
}

fn key(id: u64, password: &str, role: Role, project: &ProjectId) -> Arc<Key> {
    let keys = scram::derive(password, SALT, ITERATIONS).unwrap();
    Arc::new(Key {
        id: KeyId(id),
        project: project.clone(),
        role,
        scope: Scope::Project,
        stored_key: scram::stored_key(&keys.client_key),
        server_key: keys.server_key,
    })
}
