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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Part;
    use crate::snapshot::DatabaseStatus;
    use crate::states::{DatabaseState, Mode};
    use crate::testing::Fixture;

    const ANY: &[TenantStatus] = &[TenantStatus::Ready, TenantStatus::Deleted];

    /// Removes what is unfinished as a start after a crash would, in the order given.
    fn sweep(f: &Fixture, backwards: bool) {
        let mut unfinished = f.store.unfinished_databases().unwrap();
        if backwards {
            unfinished.reverse();
        }
        let ids: Vec<_> = unfinished.iter().map(|it| it.id).collect();
        f.store.retire_databases(&ids).unwrap();
        for id in ids {
            f.store.remove_database(id).unwrap();
            f.store.remove_database(id).unwrap();
            f.check();
        }
    }

    fn with_tenant() -> (Fixture, ProjectId, Vec<DatabaseId>) {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        f.workspace(&project, "blog", Mode::Tenant);
        let ids = f.tenant(&project, "acme", &["shop", "blog"]);
        (f, project, ids)
    }

    #[test]
    fn a_tenant_goes_with_its_last_database_whenever_the_process_ends() {
        let (f, project, ids) = with_tenant();
        assert_eq!(f.store.retire_tenant(&project, "acme", ANY).unwrap(), ids);
        f.check();
        f.store.remove_database(ids[0]).unwrap();
        let f = f.reopened();
        let route = f.store.snapshot().load().databases[&ids[1]].status;
        assert_eq!(route, DatabaseStatus::Deleted);
        let back = f
            .store
            .set_tenant_status(&project, "acme", ANY, TenantStatus::Ready);
        assert!(
            matches!(back, Err(StoreError::WrongState { .. })),
            "half of it is gone"
        );
        assert!(
            f.store.retire_tenant(&project, "acme", ANY).is_ok(),
            "asked for again"
        );
        sweep(&f, false);
        assert!(f.store.tenant(&project, "acme").is_err());
        assert_eq!(f.workspace_names(&project).len(), 2);
        f.tenant(&project, "acme", &["shop"]);
    }

    #[test]
    fn what_was_half_made_goes_and_what_was_there_stays() {
        let (f, project, ids) = with_tenant();
        f.new_workspace(&project, "young", Mode::Tenant).unwrap();
        f.new_tenant(&project, "globex", &["shop", "blog"]).unwrap();
        f.workspace(&project, "news", Mode::Tenant);
        f.with_databases(&project, "acme", &["news"], |new| {
            f.store.add_databases(&project, "acme", new).unwrap();
        });
        let f = f.reopened();
        sweep(&f, true);
        assert!(f.store.tenant(&project, "globex").is_err());
        assert!(f.store.workspace(&project, "young").is_err());
        let left = f.store.tenant_databases(&project, "acme").unwrap();
        assert_eq!(left.iter().map(|it| it.id).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn a_workspace_that_tenants_need_stays() {
        let (f, project, _) = with_tenant();
        let refused = f.store.retire_workspace(&project, "shop");
        assert!(matches!(
            refused,
            Err(StoreError::InUse {
                what: Entity::Workspace,
                ..
            })
        ));
        f.store.retire_tenant(&project, "acme", ANY).unwrap();
        sweep(&f, false);
        let own = f.store.retire_workspace(&project, "shop").unwrap();
        assert!(
            f.new_tenant(&project, "acme", &["shop"]).is_err(),
            "it is on its way out"
        );
        f.store.remove_database(own).unwrap();
        assert!(f.store.workspace(&project, "shop").is_err());
        assert!(f.store.retire_workspace(&project, "shop").is_err());
        f.check();
    }

    #[test]
    fn a_project_is_gone_for_everybody_at_once_and_from_disk_in_the_end() {
        for backwards in [false, true] {
            let (f, project, ids) = with_tenant();
            let account = f.store.account_of(&project).unwrap().0;
            f.store.delete_project(&project).unwrap();
            f.check();
            let f = f.reopened();
            assert!(
                f.store
                    .list_projects(account, &Part::ALL)
                    .unwrap()
                    .is_empty()
            );
            assert!(f.store.delete_project(&project).is_err());
            let snapshot = f.store.snapshot().load();
            assert!(snapshot.projects.is_empty() && snapshot.api_keys.is_empty());
            assert_eq!(snapshot.databases[&ids[0]].status, DatabaseStatus::NotReady);
            assert!(f.new_workspace(&project, "late", Mode::Tenant).is_err());
            assert!(f.new_tenant(&project, "late", &["shop"]).is_err());
            sweep(&f, backwards);
            for table in ["projects", "workspaces", "tenants", "databases", "api_keys"] {
                let count = format!("SELECT count(*) FROM {table}");
                let rows: u64 = f
                    .store
                    .read(|it| Ok(it.query_row(&count, [], |r| r.get(0))?))
                    .unwrap();
                assert_eq!(rows, 0, "{table}");
            }
        }
    }

    #[test]
    fn only_what_is_marked_can_go() {
        let (f, _, ids) = with_tenant();
        let refused = f.store.remove_database(ids[0]);
        assert!(matches!(
            refused,
            Err(StoreError::WrongState { state: "ready", .. })
        ));
        assert_eq!(
            f.store.database(ids[0]).unwrap().state,
            DatabaseState::Ready
        );
        f.check();
    }
}
