//! Tenants.

use control_store::databases::{DatabaseInfo, NewDatabase};
use control_store::ids::ProjectId;
use control_store::names::{check_tenant, tenant_database};
use control_store::settings::WorkspaceSettings;
use control_store::snapshot::NativeRoles;
use control_store::states::{DatabaseState, Mode, TenantStatus};
use control_store::{DatabaseId, Engine, Entity, ServerId, StoreError};
use engines::StepSink;

use super::workspaces::PLACEMENTS;
use super::{Jobs, failure, owned};
use crate::app::failure::{Failure, Outcome};

/// How many versions may be cut while a tenant is made before its making gives up.
const NEWER_VERSIONS: usize = 20;

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
        let known = self.known(project, tenant, blueprints).await?;
        for blueprint in blueprints {
            self.check_blueprint(project, tenant, blueprint).await?;
        }
        let mut planned = Vec::new();
        for blueprint in blueprints {
            planned.push(self.plan(project, tenant, blueprint).await?);
        }
        let ids = self.add_rows(project, tenant, known, &mut planned).await?;
        let made = async {
            for (id, planned) in ids.iter().zip(&planned) {
                self.fill(project, *id, planned).await?;
            }
            self.finish(project, tenant, &ids, &planned).await
        };
        if let Err(error) = made.await {
            self.undo(&ids).await;
            return Err(error);
        }
        for id in ids {
            self.refresh(id);
        }
        Ok(())
    }

    /// Whether there is such a tenant that these blueprints can be added to.
    async fn known(
        &self,
        project: &ProjectId,
        tenant: &str,
        blueprints: &[String],
    ) -> Outcome<bool> {
        let (of, id) = owned(project, tenant);
        let found = self
            .store(move |store| match store.tenant(&of, &id) {
                Ok(found) => Ok(Some((found.status, store.tenant_databases(&of, &id)?))),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            })
            .await?;
        let Some((status, databases)) = found else {
            return Ok(false);
        };
        let has = |blueprint: &String| databases.iter().any(|it| it.workspace == *blueprint);
        match status {
            TenantStatus::Deleted => Err(in_trash(tenant)),
            TenantStatus::Ready if !blueprints.iter().any(has) => Ok(true),
            _ => Err(StoreError::Taken {
                what: Entity::Tenant,
                name: tenant.to_owned(),
            }
            .into()),
        }
    }

    /// Whether tenants can be made of it. All are looked at before anything is done for one.
    async fn check_blueprint(
        &self,
        project: &ProjectId,
        tenant: &str,
        blueprint: &str,
    ) -> Outcome<()> {
        tenant_database(blueprint, tenant)?;
        let (of, name) = owned(project, blueprint);
        let workspace = self.store(move |store| store.workspace(&of, &name)).await?;
        if workspace.mode == Mode::Control {
            return Err(Failure::bad(format!(
                "blueprint '{blueprint}' belongs to a control mode workspace, which has no tenants"
            )));
        }
        Ok(())
    }

    /// What a database of that blueprint needs; cuts a version if changes are pending, so that it gets the current schema.
    async fn plan(&self, project: &ProjectId, tenant: &str, blueprint: &str) -> Outcome<Planned> {
        let name = tenant_database(blueprint, tenant)?;
        self.collect(project, blueprint).await?;
        let (of, workspace) = owned(project, blueprint);
        let (engine, version, settings) = self
            .store(move |store| {
                let version = store.cut_version(&of, &workspace)?;
                let settings = store.version_settings(&of, &workspace, version)?;
                Ok((store.workspace(&of, &workspace)?.engine, version, settings))
            })
            .await?;
        Ok(Planned {
            blueprint: blueprint.to_owned(),
            engine,
            server: self.place(engine, &name).await?,
            roles: self.engine(engine)?.new_roles().map_err(failure)?,
            name,
            version,
            settings,
        })
    }

    /// Makes the rows of the databases, with the tenant's unless it is there: all or nothing.
    async fn add_rows(
        &self,
        project: &ProjectId,
        tenant: &str,
        known: bool,
        planned: &mut [Planned],
    ) -> Outcome<Vec<DatabaseId>> {
        let mut tries = 0;
        loop {
            let (of, id) = owned(project, tenant);
            let rows: Vec<_> = planned.iter().map(Row::of).collect();
            let made = self
                .store(move |store| {
                    let new: Vec<_> = rows.iter().map(|row| row.new_database(&id)).collect();
                    if known {
                        store.add_databases(&of, &id, &new)
                    } else {
                        store.create_tenant(&of, &id, &new)
                    }
                })
                .await;
            tries += 1;
            match made {
                // Somebody else took a name on that server meanwhile.
                Err(Failure::Store(error))
                    if error.asks_for_another_server() && tries < PLACEMENTS => {}
                other => return other,
            }
            for planned in planned.iter_mut() {
                planned.server = self.place(planned.engine, &planned.name).await?;
            }
        }
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
            &StepSink::default(),
        )
        .await
    }

    /// Opens the databases, once they have the versions that were cut meanwhile too.
    async fn finish(
        &self,
        project: &ProjectId,
        tenant: &str,
        ids: &[DatabaseId],
        planned: &[Planned],
    ) -> Outcome<()> {
        let mut rounds = 0;
        loop {
            let (of, id) = owned(project, tenant);
            let all = ids.to_vec();
            let finished = self
                .store(move |store| store.finish_tenant(&of, &id, &all))
                .await;
            rounds += 1;
            let (blueprint, version) = match finished {
                Err(Failure::Store(StoreError::NewerVersion { blueprint, version }))
                    if rounds < NEWER_VERSIONS =>
                {
                    (blueprint, version)
                }
                other => return other,
            };
            let (of, name) = owned(project, &blueprint);
            let settings = self
                .store(move |store| store.version_settings(&of, &name, version))
                .await?;
            let stale = ids
                .iter()
                .zip(planned)
                .filter(|(_, it)| it.blueprint == blueprint);
            for (id, _) in stale {
                let unseen = StepSink::default();
                self.bring_to(project, *id, &blueprint, version, &settings, &unseen)
                    .await?;
            }
        }
    }

    pub(super) async fn remove_tenant(
        &self,
        project: &ProjectId,
        tenant: &str,
        hard: bool,
    ) -> Outcome<()> {
        const LIVING: [TenantStatus; 3] = [
            TenantStatus::Ready,
            TenantStatus::Suspended,
            TenantStatus::Failed,
        ];
        const REMOVABLE: [TenantStatus; 4] = [
            TenantStatus::Ready,
            TenantStatus::Suspended,
            TenantStatus::Failed,
            TenantStatus::Deleted,
        ];
        if hard {
            let (of, id) = owned(project, tenant);
            let databases = self
                .store(move |store| store.retire_tenant(&of, &id, &REMOVABLE))
                .await?;
            return self.remove_databases(&databases).await;
        }
        let databases = self
            .set_status(project, tenant, &LIVING, TenantStatus::Deleted)
            .await?;
        for id in databases {
            self.kill(id).await;
            // The proxy lets nobody in any more; this is the second lock on the same door.
            if let Err(error) = self.set_open(id, false).await {
                tracing::warn!(?error, database = %id, "a deleted tenant's database could not be closed");
            }
        }
        Ok(())
    }

    /// Takes a tenant out of the trash.
    pub(super) async fn take_back(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        self.reopen(project, tenant, &[TenantStatus::Deleted]).await
    }

    /// Admits a suspended tenant's queries again.
    pub(super) async fn unblock(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        self.reopen(project, tenant, &[TenantStatus::Suspended])
            .await
    }

    /// Makes a tenant ready again, with databases as they should be.
    async fn reopen(
        &self,
        project: &ProjectId,
        tenant: &str,
        from: &'static [TenantStatus],
    ) -> Outcome<()> {
        let (of, id) = owned(project, tenant);
        let (status, databases) = self
            .store(move |store| {
                Ok((
                    store.tenant(&of, &id)?.status,
                    store.tenant_databases(&of, &id)?,
                ))
            })
            .await?;
        let kept = |it: &DatabaseInfo| it.state == DatabaseState::Ready;
        if from.contains(&status) && databases.iter().all(kept) {
            for database in databases {
                self.repair_database(database.id).await?;
                self.set_open(database.id, true).await?;
            }
        }
        self.set_status(project, tenant, from, TenantStatus::Ready)
            .await
            .map(drop)
    }

    async fn set_open(&self, id: DatabaseId, open: bool) -> Outcome<()> {
        let _turn = self.lock(id).await;
        let found = self.row(id).await?;
        let server = self.access(found.info.server).await?;
        self.engine(found.info.engine)?
            .set_open(&server, &found.spec(), open)
            .await
            .map_err(failure)
    }

    /// Lets nobody query a tenant any more, and ends what runs.
    pub(super) async fn block(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        let (from, to) = (&[TenantStatus::Ready], TenantStatus::Suspended);
        for id in self.set_status(project, tenant, from, to).await? {
            self.kill(id).await;
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

fn in_trash(tenant: &str) -> Failure {
    Failure::conflict(format!(
        "Tenant '{tenant}' is in trash. Use POST /tenants/{tenant}/restore or DELETE /tenants/{tenant}?hard=true"
    ))
}
