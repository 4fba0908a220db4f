//! Workspaces and projects.

use std::time::UNIX_EPOCH;

use control_store::ids::{Engine, ProjectId};
use control_store::names::workspace_database;
use control_store::states::Mode;
use control_store::workspaces::{NewChange, NewWorkspace};
use control_store::{Entity, StoreError};
use engines::Table;

use super::{Jobs, failure, owned};
use crate::app::failure::{Failure, Outcome};

/// How often a placement is tried again when somebody else took the name on that server meanwhile.
pub(super) const PLACEMENTS: usize = 5;

impl Jobs {
    pub(super) async fn make_workspace(
        &self,
        project: &ProjectId,
        name: &str,
        engine: Engine,
        mode: Mode,
    ) -> Outcome<()> {
        control_store::names::check_workspace(name)?;
        let database = workspace_database(name)?;
        let roles = self.engine(engine)?.new_roles().map_err(failure)?;
        let mut tries = 0;
        let id = loop {
            let server = self.place(engine, &database).await?;
            let (of, workspace) = owned(project, name);
            let (database, roles) = (database.clone(), roles.clone());
            let made = self
                .store(move |store| {
                    let new = NewWorkspace {
                        name: &workspace,
                        engine,
                        mode,
                        database: &database,
                        server,
                        roles: &roles,
                    };
                    store.create_workspace(&of, &new)
                })
                .await;
            tries += 1;
            match made {
                Err(Failure::Store(StoreError::Taken {
                    what: Entity::Database,
                    ..
                })) if tries < PLACEMENTS => {}
                other => break other?,
            }
        };
        let made = async {
            self.make_database(id).await?;
            self.finish_database(id).await
        };
        if let Err(error) = made.await {
            self.undo_workspace(project, name, id).await;
            return Err(error);
        }
        Ok(())
    }

    async fn undo_workspace(&self, project: &ProjectId, name: &str, id: control_store::DatabaseId) {
        let (of, workspace) = owned(project, name);
        let undone = async {
            self.remove_database(id).await?;
            self.store(move |store| store.delete_workspace(&of, &workspace))
                .await
        };
        if let Err(error) = undone.await {
            tracing::error!(
                ?error,
                workspace = name,
                "a half-made workspace could not be removed; the next start tries again"
            );
        }
    }

    pub(super) async fn remove_workspace(&self, project: &ProjectId, name: &str) -> Outcome<()> {
        let (of, workspace) = owned(project, name);
        let database = self
            .store(move |store| store.workspace_database(&of, &workspace))
            .await?;
        self.remove_database(database.id).await?;
        let (of, workspace) = owned(project, name);
        self.store(move |store| store.delete_workspace(&of, &workspace))
            .await
    }

    /// Takes over what a workspace's database has recorded since the last time.
    pub(super) async fn collect(&self, project: &ProjectId, workspace: &str) -> Outcome<()> {
        let (of, name) = owned(project, workspace);
        let (database, after) = self
            .store(move |store| {
                let database = store.workspace_database(&of, &name)?;
                Ok((database, store.taken_position(&of, &name)?))
            })
            .await?;
        let server = self.access(database.server)?;
        let found = self
            .engine(database.engine)?
            .tracked_changes(&server, &database.name, after)
            .await
            .map_err(failure)?;
        let changes: Vec<NewChange> = found
            .into_iter()
            .map(|change| {
                let since = change
                    .created_at
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                NewChange {
                    position: change.position,
                    statement: change.statement,
                    search_path: change.search_path,
                    at_us: i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
                }
            })
            .collect();
        let (of, name) = owned(project, workspace);
        self.store(move |store| store.record_changes(&of, &name, &changes))
            .await
    }

    pub(super) async fn tables(&self, project: &ProjectId, workspace: &str) -> Outcome<Vec<Table>> {
        let (of, name) = owned(project, workspace);
        let database = self
            .store(move |store| store.workspace_database(&of, &name))
            .await?;
        let server = self.access(database.server)?;
        self.engine(database.engine)?
            .schema(&server, &database.name)
            .await
            .map_err(failure)
    }

    pub(super) async fn remove_project(&self, project: &ProjectId) -> Outcome<()> {
        let of = project.clone();
        let databases = self
            .store(move |store| store.project_databases(&of))
            .await?;
        // Tenants first: a workspace's row must outlive those of its blueprint's databases.
        let (tenants, own): (Vec<_>, Vec<_>) =
            databases.into_iter().partition(|it| it.tenant.is_some());
        for database in tenants {
            self.remove_database(database.id).await?;
        }
        for database in own {
            self.remove_workspace(project, &database.workspace).await?;
        }
        let of = project.clone();
        self.store(move |store| store.delete_project(&of)).await
    }
}
