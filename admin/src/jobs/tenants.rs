//! Tenants.

use control_store::databases::NewDatabase;
use control_store::ids::ProjectId;
use control_store::names::{check_tenant, tenant_database};
use control_store::settings::WorkspaceSettings;
use control_store::snapshot::NativeRoles;
use control_store::states::{Mode, TenantStatus};
use control_store::{DatabaseId, Engine, Entity, ServerId, StoreError};

use super::databases::LIVE;
use super::workspaces::PLACEMENTS;
use super::{Jobs, failure, owned};
use crate::app::failure::{Failure, Outcome};

/// A database that a tenant is to have.
struct Planned {
    blueprint: String,
    engine: Engine,
    name: String,
    version: u32,
    settings: WorkspaceSettings,
    roles: NativeRoles,
    server: ServerId,
}

impl Jobs {
    pub(super) async fn make_tenant(
        &self,
        project: &ProjectId,
        tenant: &str,
        blueprints: &[String],
    ) -> Outcome<()> {
        check_tenant(tenant)?;
        let (of, id) = owned(project, tenant);
        let known = self.store(move |store| match store.tenant(&of, &id) {
            Err(StoreError::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        });
        let known = known.await?;
        let mut planned = Vec::new();
        for blueprint in blueprints {
            planned.push(self.plan(project, tenant, blueprint).await?);
        }
        let ids = match known {
            None => self.add_rows(project, tenant, &mut planned).await?,
            Some(_) => self.add_databases(project, tenant, &mut planned).await?,
        };
        let made = async {
            for (id, planned) in ids.iter().zip(&planned) {
                self.fill(project, *id, planned).await?;
            }
            for id in &ids {
                self.finish_database(*id).await?;
            }
            Ok(())
        };
        if let Err(error) = made.await {
            self.undo_tenant(project, tenant, &ids).await;
            return Err(error);
        }
        let (of, id) = owned(project, tenant);
        self.store(move |store| {
            let from = [TenantStatus::Provisioning, TenantStatus::Ready];
            store.set_tenant_status(&of, &id, &from, TenantStatus::Ready)
        })
        .await?;
        for id in ids {
            self.refresh(id);
        }
        Ok(())
    }

    /// What a database of that blueprint needs; cuts a version if changes are pending, so that it gets the current schema.
    async fn plan(&self, project: &ProjectId, tenant: &str, blueprint: &str) -> Outcome<Planned> {
        let (of, name) = owned(project, blueprint);
        let workspace = self.store(move |store| store.workspace(&of, &name)).await?;
        if workspace.mode == Mode::Control {
            return Err(Failure::bad(format!(
                "blueprint '{blueprint}' belongs to a control mode workspace, which has no tenants"
            )));
        }
        let name = tenant_database(blueprint, tenant)?;
        self.collect(project, blueprint).await?;
        let (of, workspace_name) = owned(project, blueprint);
        let (version, settings) = self
            .store(move |store| {
                let version = store.cut_version(&of, &workspace_name)?;
                Ok((version, store.workspace(&of, &workspace_name)?.settings))
            })
            .await?;
        Ok(Planned {
            blueprint: blueprint.to_owned(),
            engine: workspace.engine,
            server: self.place(workspace.engine, &name).await?,
            roles: self
                .engine(workspace.engine)?
                .new_roles()
                .map_err(failure)?,
            name,
            version,
            settings,
        })
    }

    /// Makes the tenant's row with those of its databases, all or nothing.
    async fn add_rows(
        &self,
        project: &ProjectId,
        tenant: &str,
        planned: &mut [Planned],
    ) -> Outcome<Vec<DatabaseId>> {
        for tries in 1.. {
            let (of, id) = owned(project, tenant);
            let rows: Vec<_> = planned.iter().map(Row::of).collect();
            let made = self
                .store(move |store| {
                    let new: Vec<_> = rows.iter().map(|row| row.new_database(&id)).collect();
                    store.create_tenant(&of, &id, &new)
                })
                .await;
            if !is_taken(&made) || tries >= PLACEMENTS {
                return made;
            }
            // Somebody else took a name on that server meanwhile.
            for planned in planned.iter_mut() {
                planned.server = self.place(planned.engine, &planned.name).await?;
            }
        }
        Err(Failure::Internal("placement did not end".into()))
    }

    /// Adds databases to a tenant that is there.
    async fn add_databases(
        &self,
        project: &ProjectId,
        tenant: &str,
        planned: &mut [Planned],
    ) -> Outcome<Vec<DatabaseId>> {
        let (of, id) = owned(project, tenant);
        let (info, databases) = self
            .store(move |store| Ok((store.tenant(&of, &id)?, store.tenant_databases(&of, &id)?)))
            .await?;
        if info.status == TenantStatus::Deleted {
            return Err(in_trash(tenant));
        }
        let has = |blueprint: &str| databases.iter().any(|it| it.workspace == blueprint);
        if info.status != TenantStatus::Ready || planned.iter().any(|it| has(&it.blueprint)) {
            return Err(StoreError::Taken {
                what: Entity::Tenant,
                name: tenant.to_owned(),
            }
            .into());
        }
        let mut ids = Vec::new();
        for planned in planned {
            let (of, id) = owned(project, tenant);
            let row = Row::of(planned);
            ids.push(
                self.store(move |store| store.add_database(&of, &row.new_database(&id)))
                    .await?,
            );
        }
        Ok(ids)
    }

    /// Makes the physical database and its schema.
    async fn fill(&self, project: &ProjectId, id: DatabaseId, planned: &Planned) -> Outcome<()> {
        self.make_database(id).await?;
        self.bring_to(
            project,
            id,
            &planned.blueprint,
            planned.version,
            &planned.settings,
        )
        .await
    }

    async fn undo_tenant(&self, project: &ProjectId, tenant: &str, ids: &[DatabaseId]) {
        let undone = async {
            for id in ids {
                self.remove_database(*id).await?;
            }
            let (of, id) = owned(project, tenant);
            self.store(move |store| {
                if store.tenant(&of, &id)?.status == TenantStatus::Provisioning {
                    store.remove_tenant(&of, &id)?;
                }
                Ok(())
            })
            .await
        };
        if let Err(error) = undone.await {
            tracing::error!(
                ?error,
                tenant,
                "a half-made tenant could not be removed; the next start tries again"
            );
        }
    }

    pub(super) async fn remove_tenant(
        &self,
        project: &ProjectId,
        tenant: &str,
        hard: bool,
    ) -> Outcome<()> {
        let from: &'static [TenantStatus] = if hard {
            &[
                TenantStatus::Ready,
                TenantStatus::Suspended,
                TenantStatus::Failed,
                TenantStatus::Deleted,
            ]
        } else {
            &[
                TenantStatus::Ready,
                TenantStatus::Suspended,
                TenantStatus::Failed,
            ]
        };
        let databases = self
            .set_status(project, tenant, from, TenantStatus::Deleted)
            .await?;
        for id in &databases {
            self.kill(*id).await;
        }
        if hard {
            for id in databases {
                self.remove_database(id).await?;
            }
            let (of, id) = owned(project, tenant);
            self.store(move |store| store.remove_tenant(&of, &id))
                .await?;
        }
        Ok(())
    }

    /// Moves a tenant to another status and tells the proxy. Gives its databases.
    pub(super) async fn set_status(
        &self,
        project: &ProjectId,
        tenant: &str,
        from: &'static [TenantStatus],
        to: TenantStatus,
    ) -> Outcome<Vec<DatabaseId>> {
        let (of, id) = owned(project, tenant);
        let databases = self
            .store(move |store| {
                store.set_tenant_status(&of, &id, from, to)?;
                store.tenant_databases(&of, &id)
            })
            .await?;
        let ids: Vec<_> = databases.iter().map(|it| it.id).collect();
        for id in &ids {
            self.refresh(*id);
        }
        Ok(ids)
    }

    /// Whether deployments reach the tenant.
    pub(super) fn is_live(status: TenantStatus) -> bool {
        LIVE.contains(&status)
    }
}

/// What a database's row needs, for the store's thread.
struct Row {
    workspace: String,
    engine: Engine,
    name: String,
    server: ServerId,
    roles: NativeRoles,
    settings: WorkspaceSettings,
}

impl Row {
    fn of(planned: &Planned) -> Self {
        Self {
            workspace: planned.blueprint.clone(),
            engine: planned.engine,
            name: planned.name.clone(),
            server: planned.server,
            roles: planned.roles.clone(),
            settings: planned.settings.clone(),
        }
    }

    fn new_database<'a>(&'a self, tenant: &'a str) -> NewDatabase<'a> {
        NewDatabase {
            workspace: &self.workspace,
            tenant: Some(tenant),
            engine: self.engine,
            name: &self.name,
            server: self.server,
            roles: &self.roles,
            settings: &self.settings,
        }
    }
}

fn is_taken<T>(made: &Outcome<T>) -> bool {
    matches!(
        made,
        Err(Failure::Store(StoreError::Taken {
            what: Entity::Database,
            ..
        }))
    )
}

fn in_trash(tenant: &str) -> Failure {
    Failure::conflict(format!(
        "Tenant '{tenant}' is in trash. Use POST /tenants/{tenant}/restore or DELETE /tenants/{tenant}?hard=true"
    ))
}
