//! Workspaces and projects.

use std::time::UNIX_EPOCH;

use control_store::ids::{Engine, ProjectId};
use control_store::names::{check_workspace, workspace_database};
use control_store::states::{DatabaseState, Mode};
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
        check_workspace(name)?;
        let database = workspace_database(name)?;
        let roles = self.engine(engine)?.new_roles().map_err(failure)?;
        // Before a place is looked for: finding one may mean to start a server.
        let (of, workspace) = owned(project, name);
        self.store(move |store| match store.workspace(&of, &workspace) {
            Ok(_) => Err(StoreError::Taken {
                what: Entity::Workspace,
                name: workspace,
            }),
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        })
        .await?;
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
                Err(Failure::Store(error))
                    if error.asks_for_another_server() && tries < PLACEMENTS => {}
                other => break other?,
            }
        };
        let made = async {
            self.make_database(id).await?;
            let (from, to) = (DatabaseState::Provisioning, DatabaseState::Ready);
            self.store(move |store| store.move_database(id, from, to))
                .await
        };
        if let Err(error) = made.await {
            self.undo(&[id]).await;
            return Err(error);
        }
        self.refresh(id);
        Ok(())
    }

    pub(super) async fn remove_workspace(&self, project: &ProjectId, name: &str) -> Outcome<()> {
        let (of, workspace) = owned(project, name);
        let database = self
            .store(move |store| store.retire_workspace(&of, &workspace))
            .await?;
        self.remove_databases(&[database]).await
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
        let server = self.access(database.server).await?;
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
        let server = self.access(database.server).await?;
        self.engine(database.engine)?
            .schema(&server, &database.name)
            .await
            .map_err(failure)
    }

    pub(super) async fn remove_project(&self, project: &ProjectId) -> Outcome<()> {
        let of = project.clone();
        let databases = self
            .store(move |store| {
                store.delete_project(&of)?;
                store.project_databases(&of)
            })
            .await?;
        let ids: Vec<_> = databases.iter().map(|it| it.id).collect();
        self.remove_databases(&ids).await
    }
}
