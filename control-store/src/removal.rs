//! Removing databases, and with the last one what it belonged to.
//!
//! What is to go is marked `removing` in one transaction, which is the durable intention. A row goes once its physical
//! database is gone. So a crash leaves nothing but rows in that state, whatever was being deleted.

use rusqlite::{OptionalExtension as _, Params, Transaction};

use crate::databases::{self, DatabaseInfo, exists, mark_tenant};
use crate::error::{Entity, StoreError};
use crate::ids::{DatabaseId, ProjectId};
use crate::publish::Dirty;
use crate::states::TenantStatus;
use crate::store::Store;
use crate::tenants::{self, set_status, wrong_status};

impl Store {
    /// Notes that these databases are to go; those that are gone already are passed over.
    ///
    /// # Errors
    /// The store failed.
    pub fn retire_databases(&self, ids: &[DatabaseId]) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            ids.iter()
                .try_for_each(|id| retire(tx, "id = ?1", [id.0], dirty).map(drop))
        })
    }

    /// Notes that a tenant is to go for good; gives its databases.
    ///
    /// # Errors
    /// There is none by that id, or it is in none of the statuses in `from`.
    pub fn retire_tenant(
        &self,
        project: &ProjectId,
        id: &str,
        from: &[TenantStatus],
    ) -> Result<Vec<DatabaseId>, StoreError> {
        self.write(|tx, dirty| {
            let tenant = tenants::find(tx, project, id)?;
            if !from.contains(&tenant.status) {
                return Err(wrong_status(id, tenant.status));
            }
            set_status(tx, project, id, TenantStatus::Deleted)?;
            mark_tenant(tx, project, id, dirty)?;
            let its = (project.as_str(), id);
            retire(tx, "project = ?1 AND tenant = ?2", its, dirty)
        })
    }

    /// Notes that a workspace is to go; gives its database. From now on no tenant can be made of it.
    ///
    /// # Errors
    /// There is none by that name; [`StoreError::InUse`] while tenants have databases of it.
    pub fn retire_workspace(
        &self,
        project: &ProjectId,
        name: &str,
    ) -> Result<DatabaseId, StoreError> {
        self.write(|tx, dirty| {
            let its = (project.as_str(), name);
            let tenants = "SELECT 1 FROM databases WHERE project = ?1 AND workspace = ?2 AND tenant IS NOT NULL";
            if exists(tx, tenants, its)? {
                return Err(StoreError::InUse {
                    what: Entity::Workspace,
                    name: name.into(),
                });
            }
            retire(tx, "project = ?1 AND workspace = ?2", its, dirty)?
                .pop()
                .ok_or_else(|| StoreError::not_found(Entity::Workspace, name))
        })
    }

    /// All databases that are being made or removed.
    ///
    /// # Errors
    /// The store failed.
    pub fn unfinished_databases(&self) -> Result<Vec<DatabaseInfo>, StoreError> {
        self.read(|conn| databases::select(conn, "state IN ('provisioning', 'removing')", []))
    }

    /// Removes the row of a database that is gone. With its last database go a tenant that was new or deleted, a workspace,
    /// and a deleted project.
    ///
    /// # Errors
    /// It was not noted that it is to go. One that is not there is no error.
    pub fn remove_database(&self, id: DatabaseId) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            let Some(database) = databases::select(tx, "id = ?1", [id.0])?.pop() else {
                return Ok(());
            };
            let removed = tx.execute(
                "DELETE FROM databases WHERE id = ?1 AND state = 'removing'",
                [id.0],
            )?;
            if removed == 0 {
                return Err(StoreError::WrongState {
                    what: Entity::Database,
                    name: database.name,
                    state: database.state.name(),
                });
            }
            dirty.databases.insert(id);
            let project = &database.project;
            if let Some(tenant) = &database.tenant {
                tx.execute(
                    "DELETE FROM tenants WHERE project = ?1 AND id = ?2 AND status IN ('provisioning', 'deleted')
                         AND NOT EXISTS (SELECT 1 FROM databases WHERE project = ?1 AND tenant = ?2)",
                    (project.as_str(), tenant),
                )?;
            }
            tx.execute(
                "DELETE FROM workspaces WHERE project = ?1 AND name = ?2
                     AND NOT EXISTS (SELECT 1 FROM databases WHERE project = ?1 AND workspace = ?2)",
                (project.as_str(), &database.workspace),
            )?;
            sweep_project(tx, project)
        })
    }
}

/// Marks the databases that match; gives their ids.
pub(crate) fn retire(
    tx: &Transaction<'_>,
    filter: &str,
    params: impl Params,
    dirty: &mut Dirty,
) -> Result<Vec<DatabaseId>, StoreError> {
    let mut statement = tx.prepare_cached(&format!(
        "UPDATE databases SET state = 'removing' WHERE {filter} RETURNING id"
    ))?;
    let ids = statement.query_map(params, |r| r.get(0).map(DatabaseId))?;
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    dirty.databases.extend(&ids);
    Ok(ids)
}

/// Removes a deleted project's row once it has no databases.
pub(crate) fn sweep_project(tx: &Transaction<'_>, project: &ProjectId) -> Result<(), StoreError> {
    let gone = "SELECT 1 FROM projects p WHERE p.id = ?1 AND p.deleted_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM databases d WHERE d.project = p.id)";
    let found = tx
        .prepare_cached(gone)?
        .query_row([project.as_str()], |_| Ok(()))
        .optional()?;
    if found.is_some() {
        tx.execute("DELETE FROM projects WHERE id = ?1", [project.as_str()])?;
    }
    Ok(())
}
