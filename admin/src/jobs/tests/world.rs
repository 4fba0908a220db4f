//! Servers, a proxy and a query log made of memory, which fail or stop the process where a test wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use control_store::ids::{Engine, KeyId, ProjectId, ServerId};
use control_store::logs::{
    LogFilter, LogGap, LogLatency, LogPage, LogStats, LogWindow, QueryLogReader,
};
use control_store::snapshot::{NativeRoles, ServerAddress};
use control_store::traffic::HoldBudget;
use control_store::{DatabaseId, Sealer, Store, TrafficControl};
use engines::postgres::PostgresEngine;
use engines::provisioner::{Health, ProvisionError, Provisioner, RunningServer, ServerSpec};
use engines::{
    ApplyOptions, ApplyStep, Change, DatabaseEngine, DatabaseSpec, EngineError, ServerAccess,
    ServerReport, ServerUse, Table, TrackedChange,
};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::app::failure::Outcome;
use crate::jobs::{JobOptions, JobParts, Jobs};

/// A physical database.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Physical {
    pub(super) ledger: Vec<i64>,
    pub(super) tracked: Vec<TrackedChange>,
    pub(super) closed: bool,
}

/// What happens to the process or the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    /// The server answers with an error.
    Fail,
    /// The process ends.
    Crash,
}

/// When it happens: at which effect, and on which side of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) mishap: Mishap,
    pub(super) at: usize,
    pub(super) after: bool,
}

#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) databases: BTreeMap<(ServerId, String), Physical>,
    pub(super) servers: BTreeSet<ServerId>,
    /// Effects so far.
    pub(super) effects: usize,
    pub(super) plan: Option<Plan>,
    /// Databases on which a change fails, and which.
    pub(super) broken: BTreeMap<String, i64>,
    /// Databases whose clients were ended, and those whose log was forgotten.
    pub(super) killed: Vec<DatabaseId>,
    pub(super) forgotten: Vec<DatabaseId>,
    applying: usize,
    pub(super) most_applying: usize,
}

type Interference = Box<dyn FnOnce(&str) + Send>;

/// What outlives the process.
#[derive(Default)]
pub(super) struct World {
    state: Mutex<State>,
    /// Runs once, after the next database is made.
    pub(super) interference: Mutex<Option<Interference>>,
    /// Runs once, in the middle of the next change that a deployment makes.
    pub(super) at_step: Mutex<Option<Interference>>,
    crashed: Notify,
}

impl World {
    pub(super) fn of(state: State) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(state),
            ..Self::default()
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn named(&self, name: &str) -> Physical {
        let state = self.state();
        let mut found = state.databases.iter().filter(|((_, it), _)| it == name);
        found.next().expect("such a database").1.clone()
    }

    /// A change takes effect in a workspace.
    pub(super) fn track(&self, workspace: &str, statement: &str) {
        let name = format!("{workspace}_workspace");
        let mut state = self.state();
        let mut found = state
            .databases
            .iter_mut()
            .filter(|((_, it), _)| *it == name);
        let tracked = &mut found.next().expect("such a workspace").1.tracked;
        tracked.push(TrackedChange {
            position: i64::try_from(tracked.len()).unwrap() + 1,
            statement: statement.into(),
            search_path: "public".into(),
            created_at: SystemTime::now(),
        });
    }

    async fn effect<T>(&self, f: impl FnOnce(&mut State) -> T) -> Result<T, EngineError> {
        let (at, plan) = {
            let mut state = self.state();
            state.effects += 1;
            (state.effects, state.plan)
        };
        let now = |after| plan.filter(|it| (it.at, it.after) == (at, after));
        if let Some(plan) = now(false) {
            self.strike(plan.mishap).await?;
        }
        let value = f(&mut self.state());
        if let Some(plan) = now(true) {
            self.strike(plan.mishap).await?;
        }
        Ok(value)
    }

    async fn strike(&self, mishap: Mishap) -> Result<(), EngineError> {
        match mishap {
            Mishap::Fail => Err(EngineError::Unavailable("it does not answer".into())),
            Mishap::Crash => {
                self.crashed.notify_one();
                pending().await
            }
        }
    }
}

fn of(server: &ServerAccess, name: &str) -> (ServerId, String) {
    (server.id, name.to_owned())
}

pub(super) struct Fake(pub(super) Arc<World>);

#[async_trait]
impl DatabaseEngine for Fake {
    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    fn new_roles(&self) -> Result<NativeRoles, EngineError> {
        PostgresEngine.new_roles()
    }

    async fn create_database(
        &self,
        server: &ServerAccess,
        spec: &DatabaseSpec<'_>,
    ) -> Result<(), EngineError> {
        self.0
            .effect(|state| {
                let made = state.databases.entry(of(server, spec.name)).or_default();
                made.closed = false;
            })
            .await?;
        let interference = self.0.interference.lock().unwrap().take();
        if let Some(interference) = interference {
            interference(spec.name);
        }
        Ok(())
    }

    async fn drop_database(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
    ) -> Result<(), EngineError> {
        self.0
            .effect(|state| drop(state.databases.remove(&of(server, database.name))))
            .await
    }

    async fn set_open(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
        open: bool,
    ) -> Result<(), EngineError> {
        self.0
            .effect(|state| {
                if let Some(it) = state.databases.get_mut(&of(server, database.name)) {
                    it.closed = !open;
                }
            })
            .await
    }

    async fn database_size(
        &self,
        _: &ServerAccess,
        _: &DatabaseSpec<'_>,
    ) -> Result<u64, EngineError> {
        Ok(0)
    }

    async fn ping(&self, _: &ServerAccess) -> Result<String, EngineError> {
        Ok("first life".into())
    }

    async fn prepare_server(
        &self,
        _: &ServerAccess,
        _: &ServerUse<'_>,
    ) -> Result<ServerReport, EngineError> {
        Ok(ServerReport::default())
    }

    async fn tracked_changes(
        &self,
        server: &ServerAccess,
        database: &str,
        after: i64,
    ) -> Result<Vec<TrackedChange>, EngineError> {
        let found = self
            .0
            .effect(|state| state.databases.get(&of(server, database)).cloned())
            .await?;
        let tracked = found.map(|it| it.tracked).unwrap_or_default();
        Ok(tracked
            .into_iter()
            .filter(|it| it.position > after)
            .collect())
    }

    async fn apply(
        &self,
        server: &ServerAccess,
        database: &str,
        _: &NativeRoles,
        changes: &[Change],
        options: &ApplyOptions,
    ) -> Result<Vec<i64>, EngineError> {
        if let Some(first) = changes.first() {
            options.steps.tell(ApplyStep {
                change: first.id,
                number: 1,
                of: changes.len(),
                attempt: 1,
            });
            let at_step = self.0.at_step.lock().unwrap().take();
            if let Some(at_step) = at_step {
                at_step(database);
            }
        }
        {
            let mut state = self.0.state();
            state.applying += 1;
            state.most_applying = state.most_applying.max(state.applying);
        }
        let outcome = self.apply_all(&of(server, database), changes).await;
        self.0.state().applying -= 1;
        outcome
    }

    async fn schema(&self, _: &ServerAccess, _: &str) -> Result<Vec<Table>, EngineError> {
        Ok(Vec::new())
    }
}

impl Fake {
    async fn apply_all(
        &self,
        at: &(ServerId, String),
        changes: &[Change],
    ) -> Result<Vec<i64>, EngineError> {
        for change in changes {
            let broken = self.0.state().broken.get(&at.1) == Some(&change.id);
            if broken {
                return Err(EngineError::Statement {
                    change: Some(change.id),
                    code: "42P07".into(),
                    message: "relation exists".into(),
                });
            }
            tokio::task::yield_now().await;
            self.0
                .effect(|state| {
                    let ledger = &mut state.databases.get_mut(at).expect("a database").ledger;
                    if !ledger.contains(&change.id) {
                        ledger.push(change.id);
                    }
                })
                .await?;
        }
        let state = self.0.state();
        Ok(state.databases.get(at).expect("a database").ledger.clone())
    }
}

#[async_trait]
impl Provisioner for Fake {
    async fn start(&self, server: &ServerSpec) -> Result<ServerAddress, ProvisionError> {
        self.0.state().servers.insert(server.id);
        let socket = format!("/run/{}/socket", server.id);
        Ok(ServerAddress::Unix(socket.into()))
    }

    async fn stop(&self, _: ServerId) {}

    fn health(&self, _: ServerId) -> Health {
        Health::Running
    }

    fn list(&self) -> Vec<RunningServer> {
        Vec::new()
    }
}

impl TrafficControl for Fake {
    fn hold(&self, _: DatabaseId, _: HoldBudget) {}

    fn in_flight(&self, _: DatabaseId) -> u64 {
        0
    }

    fn release(&self, _: DatabaseId) {}

    fn refresh(&self, _: DatabaseId) {}

    fn schema_changed(&self, _: DatabaseId) {}

    fn kill(&self, id: DatabaseId, _: Duration) -> bool {
        self.0.state().killed.push(id);
        true
    }

    fn kill_key(&self, _: KeyId) {}
}

impl QueryLogReader for Fake {
    fn find(&self, _: &LogFilter) -> std::io::Result<LogPage> {
        Ok(LogPage::default())
    }

    fn stats(&self, _: &[DatabaseId]) -> LogStats {
        LogStats::default()
    }

    fn window(&self, _: &[DatabaseId], since: SystemTime) -> std::io::Result<LogWindow> {
        Ok(LogWindow {
            since,
            until: since,
            stats: LogStats::default(),
            latency: LogLatency::default(),
        })
    }

    fn gaps(&self) -> Vec<LogGap> {
        Vec::new()
    }

    fn forget(&self, id: DatabaseId) {
        self.0.state().forgotten.push(id);
    }
}

/// The process, from a start to its end.
pub(super) struct Life {
    pub(super) world: Arc<World>,
    pub(super) store: Arc<Store>,
    pub(super) jobs: Jobs,
    runtime: tokio::runtime::Runtime,
    folder: TempDir,
}

/// What a life leaves to the next.
pub(super) struct Legacy {
    state: State,
    folder: TempDir,
}

impl Legacy {
    /// The same again, so that one beginning serves many tries.
    pub(super) fn copied(&self) -> Self {
        Self {
            state: self.state.clone(),
            folder: copy(self.folder.path()),
        }
    }
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in from.read_dir().unwrap().flatten() {
        // SQLite rebuilds the shared-memory index after a crash.
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
        }
    }
    to
}

impl Life {
    /// The first, with one server.
    pub(super) fn first() -> Self {
        let life = Self::begin(Legacy {
            state: State::default(),
            folder: tempfile::tempdir().unwrap(),
        });
        let (provisioner, options) = (Fake(Arc::clone(&life.world)), options());
        let engines = [Engine::Postgres];
        life.runtime
            .block_on(Jobs::start_servers(
                &life.store,
                &provisioner,
                &engines,
                &options,
            ))
            .unwrap();
        life
    }

    pub(super) fn begin(Legacy { state, folder }: Legacy) -> Self {
        let world = World::of(state);
        let sealer = Sealer::from_key(&[1; 32]).unwrap();
        let store = Arc::new(Store::open(&folder.path().join("store.db"), sealer).unwrap());
        let jobs = Jobs::new(JobParts {
            store: Arc::clone(&store),
            engines: vec![Arc::new(Fake(Arc::clone(&world)))],
            provisioner: Arc::new(Fake(Arc::clone(&world))),
            traffic: Arc::new(Fake(Arc::clone(&world))),
            logs: Arc::new(Fake(Arc::clone(&world))),
            options: options(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            world,
            store,
            jobs,
            runtime,
            folder,
        }
    }

    /// Ends as by `kill -9`: nothing is said to anybody.
    pub(super) fn end(self) -> Legacy {
        // What the store is just writing is waited for, so that its files are copied at one moment.
        self.runtime.shutdown_timeout(Duration::from_secs(60));
        let folder = copy(self.folder.path());
        let mut state = self.world.state().clone();
        state.plan = None;
        state.effects = 0;
        state.applying = 0;
        Legacy { state, folder }
    }

    /// The outcome of that work, or nothing if the process crashed.
    pub(super) fn run<T>(&self, work: impl Future<Output = Outcome<T>>) -> Option<Outcome<T>> {
        self.runtime.block_on(async {
            tokio::select! {
                outcome = work => Some(outcome),
                () = self.world.crashed.notified() => None,
            }
        })
    }

    /// Runs what must go well.
    pub(super) fn done<T>(&self, work: impl Future<Output = Outcome<T>>) -> T {
        self.run(work).expect("no crash").expect("success")
    }

    /// Waits for something that becomes true by itself.
    pub(super) fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        for _ in 0..30_000 {
            if let Some(found) = look() {
                return found;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not come true");
    }

    pub(super) fn project(&self) -> ProjectId {
        let snapshot = self.store.snapshot().load();
        let email = format!("{}@example.com", snapshot.projects.len());
        let made = self.store.sign_up(&email, "correct horse", "Shop", "free");
        made.unwrap().project
    }
}

pub(super) fn options() -> JobOptions {
    JobOptions {
        parallel_tenants: 2,
        ..JobOptions::default()
    }
}
