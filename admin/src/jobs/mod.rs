//! Long work, and everything that touches a database server.
//!
//! The intention is in the store before anything is done to a server: a database row in the state `provisioning` stands for one
//! that is being made, one in the state `removing` for one that is to go. After a crash [`Jobs::resume`] finds these rows and
//! removes what they stand for, and goes on with deployments that had not ended. Every operation on a server may be repeated.
//! What was begun for a caller goes on when the caller stops waiting.

mod databases;
mod deployments;
mod external;
mod tenants;
#[cfg(test)]
mod tests;
mod workspaces;

pub use external::{ConfiguredServer, RegisterError, ServerPlace, ServerTls};

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use control_store::deployments::{DeploymentPlan, Steer};
use control_store::ids::{Engine, ProjectId, ServerId};
use control_store::logs::QueryLogReader;
use control_store::servers::{NewServer, ServerInfo};
use control_store::snapshot::ServerAddress;
use control_store::states::Mode;
use control_store::{DatabaseId, Entity, Fault, Store, StoreError, TrafficControl};
use engines::provisioner::{Health, ProvisionError, Provisioner, RunningServer, ServerSpec};
use engines::{ApplyOptions, ApplyStep, DatabaseEngine, EngineError, SchemaPair, ServerAccess};
use tokio::sync::Semaphore;

use crate::app::failure::{Failure, Outcome};
use crate::app::work;
use crate::audited;

/// How the work is done.
#[derive(Clone, Debug)]
pub struct JobOptions {
    /// Databases of one server that deployments work on at the same time.
    pub parallel_tenants: usize,
    /// How patient deployments are with busy tenants.
    pub apply: ApplyOptions,
    /// Connections that the proxy may open to each server.
    pub connection_budget: u32,
    /// The zone of the shared servers.
    pub region: String,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            parallel_tenants: 8,
            apply: ApplyOptions::default(),
            connection_budget: 300,
            region: "eu-central".into(),
        }
    }
}

/// Does the work. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<Store>,
    engines: HashMap<Engine, Arc<dyn DatabaseEngine>>,
    provisioner: Arc<dyn Provisioner>,
    traffic: Arc<dyn TrafficControl>,
    logs: Arc<dyn QueryLogReader>,
    options: JobOptions,
    /// One piece of work at a time for each database.
    locks: Mutex<HashMap<DatabaseId, Arc<tokio::sync::Mutex<()>>>>,
    /// Places for deployments on each server.
    places: Mutex<HashMap<ServerId, Arc<Semaphore>>>,
    /// What deployments are doing, by deployment and tenant.
    steps: Mutex<HashMap<String, BTreeMap<String, ApplyStep>>>,
    /// One server is started at a time, so that two requests do not start one each.
    starting: tokio::sync::Mutex<()>,
}

/// What the work is done with.
pub struct JobParts {
    /// The durable state.
    pub store: Arc<Store>,
    /// The engines that are built.
    pub engines: Vec<Arc<dyn DatabaseEngine>>,
    /// Starts servers.
    pub provisioner: Arc<dyn Provisioner>,
    /// Steers the proxy.
    pub traffic: Arc<dyn TrafficControl>,
    /// The query log, which forgets what is deleted.
    pub logs: Arc<dyn QueryLogReader>,
    /// How the work is done.
    pub options: JobOptions,
}

impl Jobs {
    /// Nothing is done yet.
    pub fn new(parts: JobParts) -> Self {
        let engines = parts.engines.into_iter().map(|it| (it.engine(), it));
        Self {
            shared: Arc::new(Shared {
                store: parts.store,
                engines: engines.collect(),
                provisioner: parts.provisioner,
                traffic: parts.traffic,
                logs: parts.logs,
                options: parts.options,
                locks: Mutex::default(),
                places: Mutex::default(),
                steps: Mutex::default(),
                starting: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// Starts the servers that the store knows as ours, and a first shared one of each engine that has none.
    ///
    /// # Errors
    /// A server does not start.
    pub async fn start_servers(
        store: &Arc<Store>,
        provisioner: &dyn Provisioner,
        engines: &[Engine],
        options: &JobOptions,
    ) -> Result<(), StartError> {
        let known = blocking(store, |store| store.list_servers()).await?;
        for server in known.iter().filter(|it| it.name.is_none()) {
            let spec = known_server(store, server).await?;
            let address = provisioner.start(&spec).await?;
            if address != server.address {
                let id = server.id;
                blocking(store, move |store| store.set_server_address(id, &address)).await?;
            }
        }
        for engine in engines {
            if !known.iter().any(|it| it.engine == *engine && it.shared) {
                add_server(store, provisioner, *engine, options).await?;
            }
        }
        Ok(())
    }

    /// Takes up what a crash or a stop has interrupted: roles get back their rights, half-made databases are removed,
    /// deployments go on.
    ///
    /// # Errors
    /// The store failed.
    pub async fn resume(&self) -> Outcome<()> {
        self.restore_roles().await;
        self.remove_unfinished().await?;
        self.clear_scratch().await;
        self.resume_deployments().await
    }

    async fn store<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Outcome<T> {
        Ok(blocking(&self.shared.store, f).await?)
    }

    fn engine(&self, engine: Engine) -> Outcome<&Arc<dyn DatabaseEngine>> {
        self.shared.engines.get(&engine).ok_or_else(|| {
            Failure::bad(format!(
                "{} is not available on this installation",
                engine.display_name()
            ))
        })
    }

    /// How the control plane reaches a server.
    async fn access(&self, id: ServerId) -> Outcome<ServerAccess> {
        let snapshot = self.shared.store.snapshot().load();
        let server = snapshot
            .servers
            .get(&id)
            .ok_or_else(|| Failure::not_found(Entity::Server, id))?;
        let login = self.login(id).await?;
        Ok(ServerAccess {
            id,
            address: server.address.clone(),
            login,
        })
    }

    /// A shared server that has room for a database of that name. Where there is none another is started, unless the operator
    /// has named the engine's servers.
    async fn place(&self, engine: Engine, name: &str) -> Outcome<ServerId> {
        if let Some(id) = self.free_place(engine, name).await? {
            return Ok(id);
        }
        let _one_at_a_time = self.shared.starting.lock().await;
        if let Some(id) = self.free_place(engine, name).await? {
            return Ok(id);
        }
        self.may_start(engine)?;
        tracing::info!(
            engine = engine.lower_name(),
            database = name,
            "starting another server: on all others the name is taken, or there is no room"
        );
        let shared = &self.shared;
        add_server(&shared.store, &*shared.provisioner, engine, &shared.options)
            .await
            .map_err(|error| Failure::Internal(error.to_string()))
    }

    /// Where the operator has named the engine's servers, those that we started before only keep what they have.
    async fn free_place(&self, engine: Engine, name: &str) -> Outcome<Option<ServerId>> {
        let mut all = self.shared.provisioner.list();
        all.retain(|it| it.engine == engine);
        let named = all.iter().any(|it| it.name.is_some());
        let takes = |it: &RunningServer| match it.name {
            Some(_) => it.health == Health::Running,
            None => !named,
        };
        let closed: Vec<_> = all.iter().filter(|it| !takes(it)).map(|it| it.id).collect();
        let name = name.to_owned();
        self.store(move |store| store.place(engine, &name, &closed))
            .await
    }

    /// Somebody else's servers are not ours to add to.
    fn may_start(&self, engine: Engine) -> Outcome<()> {
        let all = self.shared.provisioner.list();
        let mut theirs = all
            .iter()
            .filter(|it| it.engine == engine && it.name.is_some())
            .peekable();
        if theirs.peek().is_none() {
            return Ok(());
        }
        if theirs.any(|it| it.health != Health::Running) {
            return Err(Fault::BackendUnavailable.into());
        }
        Err(Failure::conflict(format!(
            "No {} server has room for another database: the operator has to add one",
            engine.display_name()
        )))
    }

    /// Waits for its turn to work on a database.
    async fn lock(&self, database: DatabaseId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self
                .shared
                .locks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(database).or_default())
        };
        lock.lock_owned().await
    }
}

/// The servers could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// One does not start.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no random bytes for a new server's passwords.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What a server that the store knows is started with.
async fn known_server(store: &Arc<Store>, server: &ServerInfo) -> Result<ServerSpec, StoreError> {
    let id = server.id;
    let redis = match server.engine {
        Engine::Redis => Some(blocking(store, move |store| store.redis_server(id)).await?),
        Engine::Postgres | Engine::Mysql | Engine::Mongodb => None,
    };
    Ok(ServerSpec {
        id,
        engine: server.engine,
        redis,
    })
}

async fn add_server(
    store: &Arc<Store>,
    provisioner: &dyn Provisioner,
    engine: Engine,
    options: &JobOptions,
) -> Result<ServerId, StartError> {
    let id = blocking(store, |store| store.reserve_server()).await?;
    let redis = match engine {
        Engine::Redis => Some(engines::redis::new_server(true)?),
        Engine::Postgres | Engine::Mysql | Engine::Mongodb => None,
    };
    let spec = ServerSpec { id, engine, redis };
    let address = provisioner.start(&spec).await?;
    let new = NewServer {
        engine,
        shared: true,
        connection_budget: options.connection_budget,
        region: options.region.clone(),
        provisioner: "{\"kind\":\"local\"}".into(),
        redis: spec.redis,
    };
    blocking(store, move |store| store.add_server(id, &new, &address)).await?;
    Ok(id)
}

/// Runs what blocks for as long as the disk takes off the async threads.
async fn blocking<T: Send + 'static>(
    store: &Arc<Store>,
    f: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = Arc::clone(store);
    match audited::blocking(move || f(&store)).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// What an engine's error means to who asked.
fn failure(error: EngineError) -> Failure {
    match error {
        EngineError::Statement {
            change: Some(change),
            code,
            message,
        } => Failure::conflict(format!("change {change} failed: {message} ({code})")),
        EngineError::Busy { .. } | EngineError::NotOurs(_) => Failure::conflict(error.to_string()),
        other => Failure::Internal(other.to_string()),
    }
}

/// A project's thing by name, in owned form for the store's thread.
fn owned(project: &ProjectId, name: &str) -> (ProjectId, String) {
    (project.clone(), name.to_owned())
}

/// Does work to its end, also when the caller stops waiting for it.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Outcome<T>> + Send + 'static,
) -> Outcome<T> {
    match audited::spawn(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Failure::Internal(error.to_string())),
    }
}

#[async_trait::async_trait]
impl crate::app::work::Work for Jobs {
    async fn delete_project(&self, project: &ProjectId) -> Outcome<()> {
        let (jobs, project) = (self.clone(), project.clone());
        whole(async move { jobs.remove_project(&project).await }).await
    }

    async fn create_workspace(
        &self,
        project: &ProjectId,
        name: &str,
        engine: Engine,
        mode: Mode,
    ) -> Outcome<()> {
        let (jobs, (project, name)) = (self.clone(), owned(project, name));
        whole(async move { jobs.make_workspace(&project, &name, engine, mode).await }).await
    }

    async fn delete_workspace(&self, project: &ProjectId, name: &str) -> Outcome<()> {
        let (jobs, (project, name)) = (self.clone(), owned(project, name));
        whole(async move { jobs.remove_workspace(&project, &name).await }).await
    }

    async fn collect_changes(&self, project: &ProjectId, workspace: &str) -> Outcome<()> {
        self.collect(project, workspace).await
    }

    async fn schema(&self, project: &ProjectId, workspace: &str) -> Outcome<Vec<work::Table>> {
        let tables = self.tables(project, workspace).await?.into_iter();
        Ok(tables.map(shown).collect())
    }

    async fn read_schema(&self, from: &work::Elsewhere) -> Outcome<Vec<String>> {
        if from.engine != Engine::Postgres {
            return Err(Failure::bad(format!(
                "A schema cannot be imported from a {} database",
                from.engine.display_name()
            )));
        }
        let source = engines::postgres::SchemaSource {
            address: ServerAddress::Tcp(from.address),
            user: from.user.clone(),
            password: from.password.clone(),
            database: from.database.clone(),
            require_tls: from.require_tls,
        };
        source
            .statements()
            .await
            .map_err(|error| Failure::bad(format!("The database cannot be read: {error}")))
    }

    async fn create_tenant(
        &self,
        project: &ProjectId,
        tenant: &str,
        blueprints: &[String],
    ) -> Outcome<()> {
        let (jobs, (project, tenant)) = (self.clone(), owned(project, tenant));
        let blueprints = blueprints.to_vec();
        whole(async move { jobs.make_tenant(&project, &tenant, &blueprints).await }).await
    }

    async fn delete_tenant(&self, project: &ProjectId, tenant: &str, hard: bool) -> Outcome<()> {
        let (jobs, (project, tenant)) = (self.clone(), owned(project, tenant));
        whole(async move { jobs.remove_tenant(&project, &tenant, hard).await }).await
    }

    async fn restore_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        let (jobs, (project, tenant)) = (self.clone(), owned(project, tenant));
        whole(async move { jobs.take_back(&project, &tenant).await }).await
    }

    async fn suspend_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        let (jobs, (project, tenant)) = (self.clone(), owned(project, tenant));
        whole(async move { jobs.block(&project, &tenant).await }).await
    }

    async fn resume_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        let (jobs, (project, tenant)) = (self.clone(), owned(project, tenant));
        whole(async move { jobs.unblock(&project, &tenant).await }).await
    }

    async fn deploy(&self, project: &ProjectId, deploy: &work::Deploy) -> Outcome<String> {
        let (jobs, project, deploy) = (self.clone(), project.clone(), deploy.clone());
        whole(async move { jobs.begin_deployment(&project, &deploy).await }).await
    }

    async fn plan_deployment(
        &self,
        project: &ProjectId,
        deploy: &work::Deploy,
    ) -> Outcome<DeploymentPlan> {
        self.plan_of_deployment(project, deploy).await
    }

    async fn steer_deployment(&self, project: &ProjectId, id: &str, steer: Steer) -> Outcome<()> {
        let (jobs, (project, id)) = (self.clone(), owned(project, id));
        whole(async move { jobs.steer(&project, &id, steer).await }).await
    }

    async fn compare_schemas(&self, database: DatabaseId) -> Outcome<SchemaPair> {
        let jobs = self.clone();
        whole(async move { jobs.compare(database).await }).await
    }

    fn deployment_steps(&self, id: &str) -> BTreeMap<String, ApplyStep> {
        self.steps_of(id)
    }

    fn all_servers_run(&self) -> bool {
        let all = self.shared.provisioner.list();
        all.iter().all(|it| it.health == Health::Running)
    }
}

fn shown(table: engines::Table) -> work::Table {
    let columns = table.columns.into_iter().map(|column| work::Column {
        name: column.name,
        type_name: column.data_type,
        nullable: column.nullable,
    });
    work::Table {
        name: table.name,
        columns: columns.collect(),
        indexes: table.indexes,
    }
}
