//! Servers that somebody else runs. They are neither started nor stopped here: whoever watches them tells how they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use control_store::ids::{Engine, ServerId};
use control_store::snapshot::ServerAddress;

use super::local::LocalProvisioner;
use super::{Health, ProvisionError, Provisioner, RunningServer, ServerSpec};

/// What is known of servers that somebody else runs.
#[derive(Debug, Default)]
pub struct ExternalServers(Mutex<BTreeMap<ServerId, RunningServer>>);

impl ExternalServers {
    /// A server is to be known, of which nothing has been seen yet.
    pub fn add(&self, id: ServerId, engine: Engine, name: &str, address: ServerAddress) {
        let server = RunningServer {
            id,
            engine,
            name: Some(name.to_owned()),
            address,
            health: Health::Starting,
        };
        self.known().insert(id, server);
    }

    /// It was looked at.
    pub fn seen(&self, id: ServerId, address: ServerAddress, health: Health) {
        if let Some(server) = self.known().get_mut(&id) {
            server.address = address;
            server.health = health;
        }
    }

    /// How a server is, if it is one of these.
    pub fn health(&self, id: ServerId) -> Option<Health> {
        self.known().get(&id).map(|it| it.health.clone())
    }

    /// All of them.
    pub fn list(&self) -> Vec<RunningServer> {
        self.known().values().cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ServerId, RunningServer>> {
        // The map is whole between any two statements of those who lock it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All servers: those that we run, and those that somebody else does.
pub struct Servers {
    local: Arc<LocalProvisioner>,
    external: Arc<ExternalServers>,
}

impl Servers {
    /// Of both kinds.
    pub const fn new(local: Arc<LocalProvisioner>, external: Arc<ExternalServers>) -> Self {
        Self { local, external }
    }
}

#[async_trait]
impl Provisioner for Servers {
    async fn start(&self, server: &ServerSpec) -> Result<ServerAddress, ProvisionError> {
        self.local.start(server).await
    }

    async fn stop(&self, id: ServerId) {
        // One that somebody else runs is none of the local ones.
        self.local.stop(id).await;
    }

    fn health(&self, id: ServerId) -> Health {
        let external = self.external.health(id);
        external.unwrap_or_else(|| self.local.health(id))
    }

    fn list(&self) -> Vec<RunningServer> {
        let mut all = self.local.list();
        all.append(&mut self.external.list());
        all.sort_by_key(|it| it.id);
        all
    }
}
