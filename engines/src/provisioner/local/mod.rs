//! Servers on this machine, as supervised child processes.

mod account;
pub(crate) mod binaries;
mod files;
mod home;
mod memory;
mod postgres;
mod process;
mod redis;
mod redis_settings;
mod server;
mod settings;
mod supervisor;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use control_store::ids::{Engine, ServerId};
use control_store::snapshot::ServerAddress;
use tokio::sync::watch;
use tokio::time::timeout;

use self::account::Account;
use self::home::Home;
use self::postgres::PostgresServer;
use self::redis::RedisProcess;
use self::server::LocalServer;
use self::supervisor::Supervisor;
use super::{Health, ProvisionError, Provisioner, RunningServer, ServerSpec};

/// For a first start, which may have to replay a long log after a crash.
const START_LIMIT: Duration = Duration::from_secs(300);
/// A server that ends by itself this often before it ever answered does not work.
const START_ATTEMPTS: u32 = 3;

/// Whether the programs of that engine's servers are installed here.
///
/// # Errors
/// They are not, or there are no local servers of that engine.
pub fn installed(engine: Engine) -> Result<(), ProvisionError> {
    match engine {
        Engine::Postgres => binaries::PostgresPrograms::find().map(drop),
        Engine::Redis => binaries::redis_server().map(drop),
        Engine::Mysql | Engine::Mongodb => Err(ProvisionError::UnsupportedEngine { engine }),
    }
}

/// Runs servers on this machine, each in its own folder under `<data>/servers`.
///
/// Dropping it ends the servers at once; [`LocalProvisioner::stop_all`] does so cleanly.
pub struct LocalProvisioner {
    account: Account,
    servers: PathBuf,
    /// One start or stop at a time, so that no server is started twice.
    changing: tokio::sync::Mutex<()>,
    running: Mutex<BTreeMap<ServerId, Running>>,
    /// Held for as long as we live, and given up by the kernel should we be killed.
    _lock: File,
}

struct Running {
    engine: Engine,
    address: ServerAddress,
    supervisor: Supervisor,
}

impl LocalProvisioner {
    /// Takes the data folder for this process. Starts nothing yet.
    ///
    /// # Errors
    /// When another process has the folder, or it cannot be used.
    pub fn open(data: &Path) -> Result<Self, ProvisionError> {
        home::passable_folder(data)?;
        let data = fs::canonicalize(data).map_err(ProvisionError::io("find", data))?;
        let servers = data.join("servers");
        home::passable_folder(&servers)?;
        let lock = lock(&servers, &data)?;
        Ok(Self {
            account: Account::choose()?,
            servers,
            changing: tokio::sync::Mutex::new(()),
            running: Mutex::new(BTreeMap::new()),
            _lock: lock,
        })
    }

    /// Stops every server cleanly, all at the same time.
    pub async fn stop_all(&self) {
        let _changing = self.changing.lock().await;
        let running = std::mem::take(&mut *self.running());
        let stops: Vec<_> = running
            .into_values()
            .map(|it| tokio::spawn(it.supervisor.stop()))
            .collect();
        for stop in stops {
            // A stop that panicked has ended its server by its guard.
            let _ = stop.await;
        }
    }

    async fn prepare(&self, spec: &ServerSpec) -> Result<Arc<dyn LocalServer>, ProvisionError> {
        let (id, account) = (spec.id, self.account.clone());
        match (spec.engine, &spec.redis) {
            (Engine::Postgres, _) => {
                let home = self.home(&format!("pg-{id}"), postgres::SOCKET_NAME)?;
                Ok(Arc::new(PostgresServer::prepare(home, account).await?))
            }
            (Engine::Redis, Some(server)) => {
                let home = self.home(&format!("redis-{id}"), redis::SOCKET_NAME)?;
                let prepared = RedisProcess::prepare(home, account, server.clone()).await?;
                Ok(Arc::new(prepared))
            }
            (engine, _) => Err(ProvisionError::UnsupportedEngine { engine }),
        }
    }

    fn home(&self, name: &str, socket_name: &'static str) -> Result<Home, ProvisionError> {
        Home::prepare(&self.servers, name, socket_name, &self.account)
    }

    async fn start_server(&self, spec: &ServerSpec) -> Result<Running, ProvisionError> {
        let (id, engine) = (spec.id, spec.engine);
        let server = self.prepare(spec).await?;
        let address = ServerAddress::Unix(server.home().socket());
        let supervisor = Supervisor::spawn(server);
        let up = timeout(START_LIMIT, wait_up(supervisor.watch())).await;
        match up.unwrap_or_else(|_| Err("it did not answer in time".into())) {
            Ok(()) => Ok(Running {
                engine,
                address,
                supervisor,
            }),
            Err(detail) => {
                supervisor.stop().await;
                Err(ProvisionError::NotStarted { id, detail })
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<ServerId, Running>> {
        // The map is whole between any two statements of those who lock it.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self, id: ServerId) -> Option<ServerAddress> {
        self.running().get(&id).map(|it| it.address.clone())
    }
}

#[async_trait]
impl Provisioner for LocalProvisioner {
    async fn start(&self, server: &ServerSpec) -> Result<ServerAddress, ProvisionError> {
        let _changing = self.changing.lock().await;
        if let Some(address) = self.address(server.id) {
            return Ok(address);
        }
        let running = self.start_server(server).await?;
        let address = running.address.clone();
        self.running().insert(server.id, running);
        Ok(address)
    }

    async fn stop(&self, id: ServerId) {
        let _changing = self.changing.lock().await;
        let running = self.running().remove(&id);
        if let Some(running) = running {
            running.supervisor.stop().await;
        }
    }

    fn health(&self, id: ServerId) -> Health {
        self.running()
            .get(&id)
            .map_or(Health::Stopped, |it| it.supervisor.health())
    }

    fn list(&self) -> Vec<RunningServer> {
        let describe = |(id, it): (&ServerId, &Running)| RunningServer {
            id: *id,
            name: None,
            engine: it.engine,
            address: it.address.clone(),
            health: it.supervisor.health(),
        };
        self.running().iter().map(describe).collect()
    }
}

/// Waits for the first answer, or for as many crashes as tell that none will come.
async fn wait_up(mut health: watch::Receiver<Health>) -> Result<(), String> {
    let mut crashes = 0;
    loop {
        match health.borrow_and_update().clone() {
            Health::Running => return Ok(()),
            Health::Restarting { reason } => {
                crashes += 1;
                if crashes >= START_ATTEMPTS {
                    return Err(reason);
                }
            }
            Health::Starting
            | Health::Stopped
            | Health::Unresponsive
            | Health::Unreachable { .. }
            | Health::Unfit { .. } => {}
        }
        if health.changed().await.is_err() {
            return Err("its supervisor ended".into());
        }
    }
}

fn lock(servers: &Path, data: &Path) -> Result<File, ProvisionError> {
    let path = servers.join("lock");
    let file = File::create(&path).map_err(ProvisionError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ProvisionError::InUse {
            path: data.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(ProvisionError::io("lock", &path)(source)),
    }
}
