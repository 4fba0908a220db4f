//! Making and removing databases.

use std::sync::Arc;
use std::time::Duration;

use control_store::databases::DatabaseInfo;
use control_store::snapshot::{Database, DatabaseKind, DatabaseStatus};
use control_store::states::DatabaseState;
use control_store::{DatabaseId, Entity, ServerId, StoreError};
use engines::{DatabaseSpec, DatabaseUse};

use super::{Jobs, failure};
use crate::app::failure::{Failure, Outcome};

/// How long connections to a database that is removed may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The pauses before a removal that failed is tried again; they double.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// A database's row, and what the proxy knows of it.
pub(super) struct Found {
    pub(super) info: DatabaseInfo,
    pub(super) routed: Arc<Database>,
}

impl Found {
    /// What its engine needs to know.
    pub(super) fn spec(&self) -> DatabaseSpec<'_> {
        spec(&self.routed)
    }
}

pub(super) fn spec(database: &Database) -> DatabaseSpec<'_> {
    DatabaseSpec {
        name: &database.name,
        usage: match database.kind {
            DatabaseKind::TenantWorkspace => DatabaseUse::TenantWorkspace,
            DatabaseKind::ControlWorkspace => DatabaseUse::ControlWorkspace,
            DatabaseKind::Tenant { .. } => DatabaseUse::Tenant,
        },
        roles: &database.native_roles,
        redis: database.redis.as_ref(),
    }
}

impl Jobs {
    /// Makes the physical database that a row stands for.
    pub(super) async fn make_database(&self, id: DatabaseId) -> Outcome<()> {
        let _turn = self.lock(id).await;
        let found = self.row(id).await?;
        if found.info.state != DatabaseState::Provisioning {
            return Err(wrong_state(found.info));
        }
        self.shape_database(&found).await
    }

    async fn shape_database(&self, found: &Found) -> Outcome<()> {
        let server = self.access(found.info.server).await?;
        self.engine(found.info.engine)?
            .create_database(&server, &found.spec())
            .await
            .map_err(failure)
    }

    /// Makes a database as it should be once more: open, with its roles' passwords and rights. What a role has done to itself,
    /// which PostgreSQL lets every role do, is undone.
    pub(super) async fn repair_database(&self, id: DatabaseId) -> Outcome<()> {
        let _turn = self.lock(id).await;
        let found = self.row(id).await?;
        self.shape_database(&found).await
    }

    /// Removes databases that are marked so. All are tried; gives the first error. What fails is tried again later.
    pub(super) async fn remove_databases(&self, ids: &[DatabaseId]) -> Outcome<()> {
        let mut outcome = Ok(());
        for id in ids {
            let removed = self.remove_database(*id).await;
            if let Err(error) = &removed {
                tracing::warn!(?error, database = %id, "a database could not be removed; it is tried again");
                self.remove_later(*id);
            }
            outcome = outcome.and(removed);
        }
        outcome
    }

    fn remove_later(&self, id: DatabaseId) {
        let jobs = self.clone();
        tokio::spawn(async move {
            let mut pause = FIRST_RETRY;
            loop {
                tokio::time::sleep(pause).await;
                match jobs.remove_database(id).await {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(?error, database = %id, "it could not be removed"),
                }
                pause = (pause * 2).min(LAST_RETRY);
            }
        });
    }

    /// Takes back what was made so far. Should that fail, it is tried again, here and at the next start.
    pub(super) async fn undo(&self, ids: &[DatabaseId]) {
        let all = ids.to_vec();
        let marked = self.store(move |store| store.retire_databases(&all)).await;
        if let Err(error) = marked {
            tracing::error!(
                ?error,
                "half-made databases could not be marked for removal"
            );
            return;
        }
        // Told in the log already.
        let _ = self.remove_databases(ids).await;
    }

    /// Removes a database for good: its clients, itself, its log, its row. What is gone already is no error.
    async fn remove_database(&self, id: DatabaseId) -> Outcome<()> {
        let _turn = self.lock(id).await;
        let found = match self.row(id).await {
            Err(Failure::Store(StoreError::NotFound { .. })) => return Ok(()),
            found => found?,
        };
        if found.info.state != DatabaseState::Removing {
            return Err(wrong_state(found.info));
        }
        self.refresh(id);
        self.kill(id).await;
        let server = self.access(found.info.server).await?;
        self.engine(found.info.engine)?
            .drop_database(&server, &found.spec())
            .await
            .map_err(failure)?;
        let logs = Arc::clone(&self.shared.logs);
        // A panic there is not this work's.
        let _ = tokio::task::spawn_blocking(move || logs.forget(id)).await;
        self.store(move |store| store.remove_database(id)).await
    }

    pub(super) fn refresh(&self, id: DatabaseId) {
        self.shared.traffic.refresh(id);
    }

    /// Ends all sessions on a database.
    pub(super) async fn kill(&self, id: DatabaseId) {
        let traffic = Arc::clone(&self.shared.traffic);
        let ended = tokio::task::spawn_blocking(move || traffic.kill(id, KILL_TIMEOUT)).await;
        if !matches!(ended, Ok(true)) {
            tracing::warn!(database = %id, "connections to a database did not end in time");
        }
    }

    pub(super) async fn row(&self, id: DatabaseId) -> Outcome<Found> {
        let info = self.store(move |store| store.database(id)).await?;
        let snapshot = self.shared.store.snapshot().load();
        let Some(routed) = snapshot.databases.get(&id) else {
            return Err(StoreError::NotFound {
                what: Entity::Database,
                name: id.to_string(),
            }
            .into());
        };
        Ok(Found {
            info,
            routed: Arc::clone(routed),
        })
    }

    /// Sees to it, once for each start, that the roles of databases in use may do what they are meant to, on the servers that we
    /// run: others are made ready when they are seen.
    pub(super) async fn restore_roles(&self) {
        let snapshot = self.shared.store.snapshot().load();
        let ours = snapshot.servers.keys().filter(|id| !self.is_external(**id));
        for id in ours {
            if let Err(error) = self.restore_roles_on(*id).await {
                tracing::error!(?error, server = %id, "the roles on a server could not be restored");
            }
        }
    }

    /// Has the roles of databases in use do what they are meant to, on one server. Meanwhile none of them is closed or removed.
    pub(super) async fn restore_roles_on(&self, id: ServerId) -> Outcome<()> {
        let snapshot = self.shared.store.snapshot().load();
        let Some(server) = snapshot.servers.get(&id) else {
            return Ok(());
        };
        let engine = self.engine(server.engine)?;
        if !engine.loses_roles() {
            return Ok(());
        }
        let mut turns = Vec::new();
        for database in snapshot.databases.values().filter(|it| it.server == id) {
            turns.push(self.lock(database.id).await);
        }
        // Those in the trash stay closed, also if they have come there while we waited.
        let snapshot = self.shared.store.snapshot().load();
        let in_use =
            |it: &Database| matches!(it.status, DatabaseStatus::Ready | DatabaseStatus::Suspended);
        let databases = snapshot.databases.values();
        let specs: Vec<_> = databases
            .filter(|it| it.server == id && in_use(it))
            .map(|it| spec(it))
            .collect();
        if specs.is_empty() {
            return Ok(());
        }
        let access = self.access(id).await?;
        engine.restore_roles(&access, &specs).await.map_err(failure)
    }

    /// Whether somebody else runs that server.
    pub(super) fn is_external(&self, id: ServerId) -> bool {
        let all = self.shared.provisioner.list();
        all.iter().any(|it| it.id == id && it.name.is_some())
    }

    /// Removes what an interrupted life has left half made or half removed. What cannot be removed now keeps nothing else
    /// from working.
    pub(super) async fn remove_unfinished(&self) -> Outcome<()> {
        let unfinished = self.store(|store| store.unfinished_databases()).await?;
        for database in &unfinished {
            tracing::info!(
                database = database.name,
                state = database.state.name(),
                "removing what an interruption left"
            );
        }
        let ids: Vec<_> = unfinished.iter().map(|it| it.id).collect();
        self.undo(&ids).await;
        Ok(())
    }
}

fn wrong_state(database: DatabaseInfo) -> Failure {
    StoreError::WrongState {
        what: Entity::Database,
        state: database.state.name(),
        name: database.name,
    }
    .into()
}
