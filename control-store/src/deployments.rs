//! Deployments: which version went to which tenant, and how that ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction};

use crate::databases::exists;
use crate::error::{Entity, StoreError};
use crate::ids::{DatabaseId, ProjectId};
use crate::secret::random_hex;
use crate::states::TenantStatus;
use crate::store::{Store, now_us, time};
use crate::tenants::wrong_status;
use crate::workspaces::{cut_version, mark_deployed};

/// Where a deployment, or its part for one tenant, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not begun.
    Pending,
    /// Under way.
    InProgress,
    /// Done.
    Completed,
    /// Failed; what was done before stays, and running it again goes on from there.
    Failed,
}

impl Progress {
    /// The word for it, in the store and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    fn from_stored(word: &str) -> Result<Self, StoreError> {
        Ok(match word {
            "pending" => Self::Pending,
            "in_progress" => Self::InProgress,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            _ => {
                return Err(StoreError::Corrupt {
                    what: "deployment status",
                });
            }
        })
    }
}

/// A deployment to begin.
#[derive(Clone, Copy, Debug)]
pub struct NewDeployment<'a> {
    /// Of which blueprint.
    pub blueprint: &'a str,
    /// Which version; `None` is the newest, with what is pending.
    pub version: Option<u32>,
    /// To which tenants; `None` is all.
    pub tenants: Option<&'a [String]>,
}

/// A deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentInfo {
    /// `dep_` and 6 hex digits.
    pub id: String,
    /// Whose.
    pub project: ProjectId,
    /// Of which blueprint.
    pub blueprint: String,
    /// Which version.
    pub version: u32,
    /// Where it stands.
    pub status: Progress,
    /// Its parts.
    pub results: Vec<DeploymentResult>,
    /// When it was asked for.
    pub created_at: Timestamp,
}

/// A deployment's part for one tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentResult {
    /// Which tenant.
    pub tenant: String,
    /// Its database.
    pub database: DatabaseId,
    /// Where it stands.
    pub status: Progress,
    /// Why it failed.
    pub error: Option<String>,
    /// How long it took, in microseconds.
    pub duration_us: Option<u64>,
}

const DEPLOYMENTS: &str =
    "SELECT id, project, workspace, version, status, created_at FROM deployments";

fn read(conn: &Connection, row: &Row<'_>) -> Result<DeploymentInfo, StoreError> {
    let id: String = row.get(0)?;
    Ok(DeploymentInfo {
        results: results(conn, &id)?,
        project: ProjectId::new(row.get::<_, String>(1)?),
        blueprint: row.get(2)?,
        version: row.get(3)?,
        status: Progress::from_stored(&row.get::<_, String>(4)?)?,
        created_at: time(row.get(5)?)?,
        id,
    })
}

fn results(conn: &Connection, id: &str) -> Result<Vec<DeploymentResult>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT tenant, database, status, error, duration_us FROM deployment_results
         WHERE deployment = ?1 ORDER BY tenant",
    )?;
    let mut rows = statement.query([id])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(DeploymentResult {
            tenant: row.get(0)?,
            database: DatabaseId(row.get(1)?),
            status: Progress::from_stored(&row.get::<_, String>(2)?)?,
            error: row.get(3)?,
            duration_us: row.get(4)?,
        });
    }
    Ok(found)
}

fn select(
    conn: &Connection,
    filter: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<DeploymentInfo>, StoreError> {
    let mut statement = conn.prepare_cached(&format!(
        "{DEPLOYMENTS} WHERE {filter} ORDER BY created_at DESC, id"
    ))?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(conn, row)?);
    }
    Ok(found)
}

impl Store {
    /// Notes a deployment before it begins: makes a version of what is pending, and chooses the databases, those of all
    /// tenants that are in use or suspended. All in one transaction, so that no tenant is made past it.
    ///
    /// # Errors
    /// There is no such blueprint, version or tenant; a tenant is not in use.
    pub fn begin_deployment(
        &self,
        project: &ProjectId,
        wanted: &NewDeployment<'_>,
    ) -> Result<DeploymentInfo, StoreError> {
        self.write(|tx, _| {
            let newest = cut_version(tx, project, wanted.blueprint)?;
            let version = wanted.version.unwrap_or(newest);
            if version > newest || wanted.version == Some(0) {
                return Err(StoreError::not_found(Entity::Version, version));
            }
            let targets = targets(tx, project, wanted)?;
            let id = free_id(tx)?;
            tx.execute(
                "INSERT INTO deployments (id, project, workspace, version, status, created_at)
                 VALUES (?1, ?2, ?3, ?4, 'in_progress', ?5)",
                (&id, project.as_str(), wanted.blueprint, version, now_us()),
            )?;
            for (tenant, database) in targets {
                tx.prepare_cached(
                    "INSERT INTO deployment_results (deployment, tenant, database, status) VALUES (?1, ?2, ?3, 'pending')",
                )?
                .execute((&id, tenant, database.0))?;
            }
            select(tx, "id = ?1", [&id])?
                .pop()
                .ok_or_else(|| StoreError::not_found(Entity::Deployment, id))
        })
    }

    /// Notes how a deployment's part for one tenant stands.
    ///
    /// # Errors
    /// The store failed.
    pub fn set_deployment_result(
        &self,
        id: &str,
        result: &DeploymentResult,
    ) -> Result<(), StoreError> {
        self.write(|tx, _| {
            tx.execute(
                "UPDATE deployment_results SET status = ?3, error = ?4, duration_us = ?5
                 WHERE deployment = ?1 AND tenant = ?2",
                (
                    id,
                    &result.tenant,
                    result.status.name(),
                    &result.error,
                    result.duration_us,
                ),
            )?;
            Ok(())
        })
    }

    /// Notes a deployment's end: it failed if one of its parts did. The version counts as deployed unless all failed.
    ///
    /// # Errors
    /// The store failed.
    pub fn finish_deployment(&self, id: &str) -> Result<(), StoreError> {
        self.write(|tx, _| {
            // It goes with its workspace.
            let Some(found) = select(tx, "id = ?1", [id])?.pop() else {
                return Ok(());
            };
            let failed = |it: &DeploymentResult| it.status == Progress::Failed;
            let status = if found.results.iter().any(failed) {
                Progress::Failed
            } else {
                Progress::Completed
            };
            if found.results.is_empty() || !found.results.iter().all(failed) {
                mark_deployed(tx, &found.project, &found.blueprint, found.version)?;
            }
            tx.execute(
                "UPDATE deployments SET status = ?2, finished_at = ?3 WHERE id = ?1",
                (id, status.name(), now_us()),
            )?;
            Ok(())
        })
    }

    /// A deployment of that project.
    ///
    /// # Errors
    /// There is none by that id.
    pub fn deployment(&self, project: &ProjectId, id: &str) -> Result<DeploymentInfo, StoreError> {
        self.read(|conn| select(conn, "project = ?1 AND id = ?2", (project.as_str(), id)))?
            .pop()
            .ok_or_else(|| StoreError::not_found(Entity::Deployment, id))
    }

    /// A project's deployments, the newest first.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_deployments(&self, project: &ProjectId) -> Result<Vec<DeploymentInfo>, StoreError> {
        self.read(|conn| select(conn, "project = ?1", [project.as_str()]))
    }

    /// Deployments that had a part for that tenant, the newest first.
    ///
    /// # Errors
    /// The store failed.
    pub fn tenant_deployments(
        &self,
        project: &ProjectId,
        tenant: &str,
    ) -> Result<Vec<DeploymentInfo>, StoreError> {
        self.read(|conn| {
            select(
                conn,
                "project = ?1 AND id IN (SELECT deployment FROM deployment_results WHERE tenant = ?2)",
                (project.as_str(), tenant),
            )
        })
    }

    /// Deployments that have not ended.
    ///
    /// # Errors
    /// The store failed.
    pub fn open_deployments(&self) -> Result<Vec<DeploymentInfo>, StoreError> {
        self.read(|conn| select(conn, "status IN ('pending', 'in_progress')", []))
    }
}

/// The databases that a deployment goes to, with their tenants.
fn targets(
    tx: &Transaction<'_>,
    project: &ProjectId,
    wanted: &NewDeployment<'_>,
) -> Result<Vec<(String, DatabaseId)>, StoreError> {
    let mut statement = tx.prepare_cached(
        "SELECT t.id, t.status, d.id FROM databases d JOIN tenants t ON t.project = d.project AND t.id = d.tenant
         WHERE d.project = ?1 AND d.workspace = ?2 AND d.state = 'ready' ORDER BY t.id",
    )?;
    let mut rows = statement.query((project.as_str(), wanted.blueprint))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let status = TenantStatus::from_stored(&row.get::<_, String>(1)?)?;
        found.push((row.get::<_, String>(0)?, status, DatabaseId(row.get(2)?)));
    }
    let in_use = |status| matches!(status, TenantStatus::Ready | TenantStatus::Suspended);
    let Some(names) = wanted.tenants else {
        let live = found.into_iter().filter(|(_, status, _)| in_use(*status));
        return Ok(live.map(|(tenant, _, database)| (tenant, database)).collect());
    };
    let mut chosen = BTreeMap::new();
    for name in names {
        match found.iter().find(|(tenant, ..)| tenant == name) {
            Some((_, status, database)) if in_use(*status) => {
                chosen.insert(name.clone(), *database);
            }
            Some((_, status, _)) => return Err(wrong_status(name, *status)),
            None => return Err(StoreError::not_found(Entity::Tenant, name)),
        }
    }
    Ok(chosen.into_iter().collect())
}

/// An id of 24 random bits is now and then taken; another is drawn then.
const ID_ATTEMPTS: usize = 64;

fn free_id(tx: &Transaction<'_>) -> Result<String, StoreError> {
    for _ in 0..ID_ATTEMPTS {
        let id = format!("dep_{}", random_hex::<3>()?);
        if !exists(tx, "SELECT 1 FROM deployments WHERE id = ?1", [&id])? {
            return Ok(id);
        }
    }
    Err(StoreError::taken(
        Entity::Deployment,
        "every id that was drawn",
    ))
}
