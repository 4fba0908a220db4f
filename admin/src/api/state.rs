//! What every handler shares.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use control_store::accounts::AccountId;
use control_store::guard::Guard;
use control_store::ids::ProjectId;
use control_store::logs::QueryLogReader;
use control_store::{Snapshot, Store, StoreError, TrafficControl};

use super::config::{ApiConfig, Tier};
use super::idempotency::Running;
use super::limits::Limits;
use crate::app::failure::{Failure, Outcome};
use crate::app::work::Work;
use crate::audited;

/// What every handler shares.
pub(super) type AppState = Arc<Shared>;

pub(super) struct Shared {
    pub(super) config: ApiConfig,
    pub(super) store: Arc<Store>,
    pub(super) work: Arc<dyn Work>,
    pub(super) logs: Arc<dyn QueryLogReader>,
    pub(super) traffic: Arc<dyn TrafficControl>,
    pub(super) limits: Limits,
    pub(super) guard: Arc<Guard>,
    pub(super) openapi: Arc<str>,
    pub(super) docs: Arc<str>,
    pub(super) running: Running,
    owners: RwLock<HashMap<ProjectId, Owner>>,
}

/// Whose a project is. An account's tier does not change while the process runs.
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) account: AccountId,
    pub(super) tier: Tier,
}

impl Shared {
    pub(super) fn new(
        config: ApiConfig,
        store: Arc<Store>,
        work: Arc<dyn Work>,
        logs: Arc<dyn QueryLogReader>,
        traffic: Arc<dyn TrafficControl>,
        guard: Arc<Guard>,
        pages: (Arc<str>, Arc<str>),
    ) -> Self {
        Self {
            config,
            store,
            work,
            logs,
            traffic,
            limits: Limits::default(),
            guard,
            openapi: pages.0,
            docs: pages.1,
            running: Running::default(),
            owners: RwLock::default(),
        }
    }

    /// What memory tells of tenants and workspaces: every change that was acknowledged is in it.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.store.snapshot().load()
    }

    /// Runs what blocks for as long as the disk takes, off the async threads.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&Shared) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let shared = Arc::clone(self);
        audited::blocking(move || f(&shared))
            .await
            .unwrap_or_else(|error| Err(Failure::Internal(error.to_string())))
    }

    /// [`Shared::blocking`] for an operation of the store alone.
    pub(super) async fn store<T: Send + 'static>(
        self: &Arc<Self>,
        f: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Outcome<T> {
        self.blocking(move |shared| Ok(f(&shared.store)?)).await
    }

    /// The account and the tier of a project.
    pub(super) async fn owner(self: &Arc<Self>, project: &ProjectId) -> Outcome<Owner> {
        let known = self
            .owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(project)
            .cloned();
        if let Some(owner) = known {
            return Ok(owner);
        }
        let id = project.clone();
        let (account, tier) = self.store(move |store| store.account_of(&id)).await?;
        let Some(tier) = self.config.tiers.get(&tier).cloned() else {
            return Err(Failure::Internal(format!(
                "project {project} has the tier '{tier}', which the configuration lacks"
            )));
        };
        let owner = Owner { account, tier };
        self.owners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(project.clone(), owner.clone());
        Ok(owner)
    }

    /// A project is gone.
    pub(super) fn forget(&self, project: &ProjectId) {
        self.owners
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(project);
        self.limits.forget(project);
    }
}
