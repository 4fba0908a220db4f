//! Making and removing databases.

use std::sync::Arc;
use std::time::Duration;

use control_store::databases::DatabaseInfo;
use control_store::snapshot::{DatabaseKind, NativeRoles};
use control_store::states::{DatabaseState, TenantStatus};
use control_store::{DatabaseId, Entity};
use engines::{DatabaseSpec, DatabaseUse};

use super::{Jobs, failure};
use crate::app::failure::{Failure, Outcome};

/// How long connections to a database that is removed may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Jobs {
    /// Makes the physical database that a row stands for.
    pub(super) async fn make_database(&self, id: DatabaseId) -> Outcome<()> {
        let (info, roles, usage) = self.row(id).await?;
        let server = self.access(info.server)?;
        let spec = DatabaseSpec {
            name: &info.name,
            usage,
            roles: &roles,
        };
        self.engine(info.engine)?
            .create_database(&server, &spec)
            .await
            .map_err(failure)
    }

    /// Removes a database for good: its clients, itself, its log, its row. What is gone already is no error.
    pub(super) async fn remove_database(&self, id: DatabaseId) -> Outcome<()> {
        let _turn = self.lock(id).await;
        let (info, roles, _) = self.row(id).await?;
        // From here on a crash leaves a row that the next start removes.
        self.store(move |store| store.set_database_state(id, DatabaseState::Provisioning))
            .await?;
        self.refresh(id);
        self.kill(id).await;
        let server = self.access(info.server)?;
        self.engine(info.engine)?
            .drop_database(&server, &info.name, &roles)
            .await
            .map_err(failure)?;
        self.store(move |store| store.remove_database(id)).await?;
        let logs = Arc::clone(&self.shared.logs);
        // A panic there is not this work's.
        let _ = tokio::task::spawn_blocking(move || logs.forget(id)).await;
        Ok(())
    }

    pub(super) async fn finish_database(&self, id: DatabaseId) -> Outcome<()> {
        self.store(move |store| store.set_database_state(id, DatabaseState::Ready))
            .await?;
        self.refresh(id);
        Ok(())
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

    pub(super) async fn row(
        &self,
        id: DatabaseId,
    ) -> Outcome<(DatabaseInfo, NativeRoles, DatabaseUse)> {
        let info = self.store(move |store| store.database(id)).await?;
        let snapshot = self.shared.store.snapshot().load();
        let routed = snapshot
            .databases
            .get(&id)
            .ok_or_else(|| Failure::not_found(Entity::Database, id))?;
        let usage = match routed.kind {
            DatabaseKind::TenantWorkspace => DatabaseUse::TenantWorkspace,
            DatabaseKind::ControlWorkspace => DatabaseUse::ControlWorkspace,
            DatabaseKind::Tenant { .. } => DatabaseUse::Tenant,
        };
        Ok((info, routed.native_roles.clone(), usage))
    }

    /// Removes what an interrupted life has left half made or half removed.
    pub(super) async fn remove_unfinished(&self) -> Outcome<()> {
        let unfinished = self
            .store(|store| store.databases_in(DatabaseState::Provisioning))
            .await?;
        for database in unfinished {
            tracing::info!(database = database.name, "removing a half-made database");
            self.remove_database(database.id).await?;
            if database.tenant.is_none() {
                let (project, name) = (database.project.clone(), database.workspace.clone());
                self.store(move |store| store.delete_workspace(&project, &name))
                    .await?;
            }
        }
        let tenants = self.store(|store| store.unfinished_tenants()).await?;
        for (project, tenant) in tenants {
            let (of, id) = (project.clone(), tenant.clone());
            let rest = self
                .store(move |store| store.tenant_databases(&of, &id))
                .await?;
            for database in rest {
                self.remove_database(database.id).await?;
            }
            self.store(move |store| store.remove_tenant(&project, &tenant))
                .await?;
        }
        Ok(())
    }
}

/// Statuses in which a tenant's databases can be changed.
pub(super) const LIVE: [TenantStatus; 2] = [TenantStatus::Ready, TenantStatus::Suspended];
