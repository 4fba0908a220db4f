//! Tenants.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row};

use crate::databases::{self, NewDatabase, exists, mark_tenant};
use crate::error::{Entity, StoreError};
use crate::ids::{DatabaseId, ProjectId};
use crate::names::check_tenant;
use crate::states::TenantStatus;
use crate::store::{Store, now_us, time};

/// A tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantInfo {
    /// Its id, unique in its project.
    pub id: String,
    /// Where it is in its life.
    pub status: TenantStatus,
    /// When it was made.
    pub created_at: Timestamp,
}

fn read(row: &Row<'_>) -> Result<TenantInfo, StoreError> {
    Ok(TenantInfo {
        id: row.get(0)?,
        status: TenantStatus::from_stored(&row.get::<_, String>(1)?)?,
        created_at: time(row.get(2)?)?,
    })
}

fn find(conn: &Connection, project: &ProjectId, id: &str) -> Result<TenantInfo, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, status, created_at FROM tenants WHERE project = ?1 AND id = ?2",
    )?;
    let mut rows = statement.query((project.as_str(), id))?;
    let row = rows
        .next()?
        .ok_or_else(|| StoreError::not_found(Entity::Tenant, id))?;
    read(row)
}

impl Store {
    /// Makes a tenant in the status `provisioning`, with the rows of its databases.
    ///
    /// # Errors
    /// The id is refused or taken; a database's name is taken.
    pub fn create_tenant(
        &self,
        project: &ProjectId,
        id: &str,
        databases: &[NewDatabase<'_>],
    ) -> Result<Vec<DatabaseId>, StoreError> {
        check_tenant(id)?;
        self.write(|tx, dirty| {
            let known = tx
                .prepare_cached("SELECT status FROM tenants WHERE project = ?1 AND id = ?2")?
                .query_row((project.as_str(), id), |r| r.get::<_, String>(0))
                .optional()?;
            match known.as_deref().map(TenantStatus::from_stored).transpose()? {
                None => {}
                Some(TenantStatus::Deleted) => {
                    return Err(StoreError::WrongState {
                        what: Entity::Tenant,
                        name: id.into(),
                        state: "in trash",
                    });
                }
                Some(_) => return Err(StoreError::taken(Entity::Tenant, id)),
            }
            tx.execute(
                "INSERT INTO tenants (project, id, status, created_at) VALUES (?1, ?2, 'provisioning', ?3)",
                (project.as_str(), id, now_us()),
            )?;
            databases
                .iter()
                .map(|new| databases::insert(tx, &self.sealer, project, new, dirty))
                .collect()
        })
    }

    /// A project's tenants, the oldest first; those in the trash only if asked for.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_tenants(
        &self,
        project: &ProjectId,
        status: Option<TenantStatus>,
    ) -> Result<Vec<TenantInfo>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT id, status, created_at FROM tenants
                 WHERE project = ?1 AND CASE WHEN ?2 IS NULL THEN status <> 'deleted' ELSE status = ?2 END
                 ORDER BY created_at, id",
            )?;
            let mut rows = statement.query((project.as_str(), status.map(TenantStatus::name)))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read(row)?);
            }
            Ok(found)
        })
    }

    /// A tenant.
    ///
    /// # Errors
    /// There is none by that id.
    pub fn tenant(&self, project: &ProjectId, id: &str) -> Result<TenantInfo, StoreError> {
        self.read(|conn| find(conn, project, id))
    }

    /// Moves a tenant from one of the statuses in `from` to `to`.
    ///
    /// # Errors
    /// There is none by that id, or it is in another status.
    pub fn set_tenant_status(
        &self,
        project: &ProjectId,
        id: &str,
        from: &[TenantStatus],
        to: TenantStatus,
    ) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            let tenant = find(tx, project, id)?;
            if !from.contains(&tenant.status) {
                return Err(StoreError::WrongState {
                    what: Entity::Tenant,
                    name: id.into(),
                    state: tenant.status.name(),
                });
            }
            let deleted_at = (to == TenantStatus::Deleted).then(now_us);
            tx.execute(
                "UPDATE tenants SET status = ?3, deleted_at = ?4 WHERE project = ?1 AND id = ?2",
                (project.as_str(), id, to.name(), deleted_at),
            )?;
            mark_tenant(tx, project, id, dirty)
        })
    }

    /// Removes a tenant whose databases are gone.
    ///
    /// # Errors
    /// It still has databases.
    pub fn remove_tenant(&self, project: &ProjectId, id: &str) -> Result<(), StoreError> {
        self.write(|tx, _| {
            let used = "SELECT 1 FROM databases WHERE project = ?1 AND tenant = ?2";
            if exists(tx, used, (project.as_str(), id))? {
                return Err(StoreError::InUse {
                    what: Entity::Tenant,
                    name: id.into(),
                });
            }
            tx.execute(
                "DELETE FROM tenants WHERE project = ?1 AND id = ?2",
                (project.as_str(), id),
            )?;
            Ok(())
        })
    }

    /// All tenants that are still being made.
    ///
    /// # Errors
    /// The store failed.
    pub fn unfinished_tenants(&self) -> Result<Vec<(ProjectId, String)>, StoreError> {
        self.read(|conn| {
            let mut statement = conn
                .prepare_cached("SELECT project, id FROM tenants WHERE status = 'provisioning'")?;
            let found = statement.query_map([], |r| {
                Ok((ProjectId::new(r.get::<_, String>(0)?), r.get(1)?))
            })?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }
}
