//! The work on a real PostgreSQL server.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use control_store::deployments::{NewDeployment, OnFailure, Progress, Targets};
use control_store::ids::{Engine, ProjectId};
use control_store::snapshot::ServerAddress;
use control_store::states::Mode;
use control_store::{Sealer, Store};
use engines::ApplyOptions;
use engines::postgres::PostgresEngine;
use engines::provisioner::local::LocalProvisioner;
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

use super::world::{Fake, World};
use super::{PG, deploy, settle};
use crate::app::work::Work as _;
use crate::jobs::{JobOptions, JobParts, Jobs};

struct Lab {
    store: Arc<Store>,
    provisioner: Arc<LocalProvisioner>,
    jobs: Jobs,
    project: ProjectId,
    _folder: TempDir,
}

impl Lab {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let provisioner = Arc::new(LocalProvisioner::open(folder.path()).unwrap());
        let sealer = Sealer::from_key(&[1; 32]).unwrap();
        let store = Arc::new(Store::open(&folder.path().join("store.db"), sealer).unwrap());
        let options = JobOptions {
            apply: ApplyOptions {
                lock_timeout: Duration::from_millis(50),
                attempts: 10_000,
                backoff: Duration::from_millis(5),
                ..ApplyOptions::default()
            },
            ..JobOptions::default()
        };
        Jobs::start_servers(&store, &*provisioner, &[Engine::Postgres], &options)
            .await
            .unwrap();
        let made = store.sign_up("ann@example.com", "correct horse", "Shop", "free");
        Self {
            jobs: jobs(&store, &provisioner, options),
            project: made.unwrap().project,
            store,
            provisioner,
            _folder: folder,
        }
    }

    /// As the proxy would for a client with an admin key.
    async fn client(&self, database: &str) -> Client {
        let role = {
            let snapshot = self.store.snapshot().load();
            let mut all = snapshot.databases.values();
            let found = all.find(|it| &*it.name == database).unwrap();
            Arc::clone(&found.native_roles.admin)
        };
        self.connect(database, &role.name, Some(&role.password))
            .await
    }

    async fn connect(&self, database: &str, user: &str, password: Option<&str>) -> Client {
        let ServerAddress::Unix(socket) = self.store.list_servers().unwrap()[0].address.clone()
        else {
            panic!("a socket")
        };
        let mut config = Config::new();
        config
            .host_path(socket.parent().unwrap())
            .user(user)
            .dbname(database);
        if let Some(password) = password {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Databases and roles that are ours.
    async fn left(&self) -> Vec<String> {
        let admin = self.connect("postgres", "tenantsdb", None).await;
        let rows = admin
            .query(
                "SELECT datname::text FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'
                 UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'tdb\\_%' ORDER BY 1",
                &[],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn jobs(store: &Arc<Store>, provisioner: &Arc<LocalProvisioner>, options: JobOptions) -> Jobs {
    let world = World::of(super::world::State::default());
    Jobs::new(JobParts {
        store: Arc::clone(store),
        engines: vec![Arc::new(PostgresEngine)],
        provisioner: provisioner.clone(),
        traffic: Arc::new(Fake(Arc::clone(&world))),
        logs: Arc::new(Fake(world)),
        options,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_workspace_to_its_tenants_and_back_to_nothing() {
    let lab = Lab::start().await;
    let (jobs, project) = (&lab.jobs, &lab.project);
    jobs.create_workspace(project, "shop", PG, Mode::Tenant)
        .await
        .unwrap();
    let workspace = lab.client("shop_workspace").await;
    workspace
        .batch_execute(
            "CREATE TABLE users (id serial PRIMARY KEY); CREATE INDEX named ON users (id)",
        )
        .await
        .unwrap();
    for tenant in ["acme", "globex"] {
        jobs.create_tenant(project, tenant, &["shop".to_owned()])
            .await
            .unwrap();
    }
    let mut busy = lab.client("shop__globex").await;
    busy.batch_execute("INSERT INTO users DEFAULT VALUES")
        .await
        .unwrap();
    assert_eq!(lab.store.undeployed_changes(project, "shop").unwrap(), 0);

    // One tenant is in the middle of something that the change must wait for: the others are not.
    let open = busy.transaction().await.unwrap();
    open.batch_execute("UPDATE users SET id = id")
        .await
        .unwrap();
    workspace
        .batch_execute("ALTER TABLE users ADD name text")
        .await
        .unwrap();
    let id = deploy(jobs, project, "shop").await.unwrap();
    loop {
        let found = lab.store.deployment(project, &id).unwrap();
        assert_ne!(found.results[1].status, Progress::Completed);
        if found.results[0].status == Progress::Completed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    open.commit().await.unwrap();
    settle(jobs).await;
    assert_eq!(
        lab.store.deployment(project, &id).unwrap().status,
        Progress::Completed
    );
    busy.batch_execute("UPDATE users SET name = 'x'")
        .await
        .unwrap();

    // A deployment that was noted when the process ended.
    workspace
        .batch_execute("ALTER TABLE users ADD mail text")
        .await
        .unwrap();
    jobs.collect_changes(project, "shop").await.unwrap();
    let new = NewDeployment {
        blueprint: "shop",
        version: None,
        targets: Targets::All,
        concurrency: None,
        on_failure: OnFailure::Continue,
    };
    let noted = lab.store.begin_deployment(project, &new).unwrap();
    let next = self::jobs(&lab.store, &lab.provisioner, JobOptions::default());
    next.resume().await.unwrap();
    settle(&next).await;
    assert_eq!(
        lab.store.deployment(project, &noted.id).unwrap().status,
        Progress::Completed
    );
    let acme = lab.client("shop__acme").await;
    acme.batch_execute("INSERT INTO users (name, mail) VALUES ('a', 'b')")
        .await
        .unwrap();
    assert_eq!(lab.store.workspace(project, "shop").unwrap().version, 3);

    jobs.delete_tenant(project, "acme", false).await.unwrap();
    assert!(
        acme.batch_execute("SELECT 1").await.is_err(),
        "its session has ended"
    );
    jobs.restore_tenant(project, "acme").await.unwrap();
    let acme = lab.client("shop__acme").await;
    let row = acme
        .query_one("SELECT count(*) FROM users", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);

    // A change that builds on one that was removed from the queue: the tenant's making is undone.
    let all = lab.left().await;
    for change in ["CREATE TABLE x ()", "ALTER TABLE x ADD y int"] {
        workspace.batch_execute(change).await.unwrap();
    }
    jobs.collect_changes(project, "shop").await.unwrap();
    let changes = lab.store.changes(project, "shop").unwrap();
    let made = changes
        .iter()
        .find(|it| it.statement == "CREATE TABLE x ()");
    lab.store
        .remove_change(project, "shop", made.unwrap().id)
        .unwrap();
    assert!(
        jobs.create_tenant(project, "initech", &["shop".to_owned()])
            .await
            .is_err()
    );
    assert!(lab.store.tenant(project, "initech").is_err());
    assert_eq!(lab.left().await, all);

    jobs.delete_project(project).await.unwrap();
    assert_eq!(lab.left().await, Vec::<String>::new());
    lab.provisioner.stop_all().await;
}
