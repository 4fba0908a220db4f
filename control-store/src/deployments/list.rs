//! Lists of deployments, without their parts.

use jiff::Timestamp;
use rusqlite::Row;

use super::{DeploymentResult, Progress, read_result};
use crate::error::StoreError;
use crate::ids::ProjectId;
use crate::page::{Part, reach};
use crate::snapshot::Scope;
use crate::store::{Store, time};

/// How many parts stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub total: u64,
    /// Done.
    pub completed: u64,
    /// Failed.
    pub failed: u64,
    /// Not begun for good.
    pub cancelled: u64,
}

impl Counts {
    /// Those of these parts.
    pub fn of(results: &[DeploymentResult]) -> Self {
        let count = |status| results.iter().filter(|it| it.status == status).count() as u64;
        Self {
            total: results.len() as u64,
            completed: count(Progress::Completed),
            failed: count(Progress::Failed),
            cancelled: count(Progress::Cancelled),
        }
    }
}

/// A deployment, without its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentSummary {
    /// `dep_` and 6 hex digits.
    pub id: String,
    /// Of which blueprint.
    pub blueprint: String,
    /// Which version.
    pub version: u32,
    /// Where it stands.
    pub status: Progress,
    /// Its parts.
    pub counts: Counts,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A deployment's part for one tenant, with what it is a part of.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantDeployment {
    /// The deployment.
    pub id: String,
    /// Of which blueprint.
    pub blueprint: String,
    /// Which version.
    pub version: u32,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// The part.
    pub result: DeploymentResult,
}

fn read_summary(row: &Row<'_>) -> Result<DeploymentSummary, StoreError> {
    Ok(DeploymentSummary {
        id: row.get(0)?,
        blueprint: row.get(1)?,
        version: row.get(2)?,
        status: Progress::from_stored(&row.get::<_, String>(3)?)?,
        created_at: time(row.get(4)?)?,
        finished_at: row.get::<_, Option<i64>>(5)?.map(time).transpose()?,
        counts: Counts {
            total: row.get(6)?,
            completed: row.get(7)?,
            failed: row.get(8)?,
            cancelled: row.get(9)?,
        },
    })
}

impl Store {
    /// A project's deployments that a scope reaches, the newest first. Of the parts only those that it reaches are counted.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_deployments(
        &self,
        project: &ProjectId,
        scope: &Scope,
        part: &Part,
    ) -> Result<Vec<DeploymentSummary>, StoreError> {
        let (workspaces, tenants) = reach(scope)?;
        let (at, id) = part.after_descending();
        self.read(|conn| {
            // The counts are a query for each row of the page: as much as the page holds, and no more.
            let mut statement = conn.prepare_cached(
                "WITH page AS MATERIALIZED (
                     SELECT id, workspace, version, status, created_at, finished_at FROM deployments
                     WHERE project = ?1 AND created_at <= ?2 AND (created_at < ?2 OR id > ?3)
                         AND (?4 IS NULL OR workspace IN (SELECT value FROM json_each(?4)))
                         AND (?5 IS NULL OR EXISTS (SELECT 1 FROM deployment_results r, json_each(?5) j
                             WHERE r.deployment = deployments.id AND r.tenant = j.value))
                     ORDER BY created_at DESC, id LIMIT ?6)
                 SELECT p.id, p.workspace, p.version, p.status, p.created_at, p.finished_at, count(r.tenant),
                     count(*) FILTER (WHERE r.status = 'completed'), count(*) FILTER (WHERE r.status = 'failed'),
                     count(*) FILTER (WHERE r.status = 'cancelled')
                 FROM page p LEFT JOIN deployment_results r ON r.deployment = p.id
                     AND (?5 IS NULL OR r.tenant IN (SELECT value FROM json_each(?5)))
                 GROUP BY p.id ORDER BY p.created_at DESC, p.id",
            )?;
            let mut rows = statement.query((
                project.as_str(),
                at,
                id,
                workspaces,
                tenants,
                part.sql_limit(),
            ))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read_summary(row)?);
            }
            Ok(found)
        })
    }

    /// What was deployed to a tenant, of the blueprints that a scope reaches, the newest first.
    ///
    /// # Errors
    /// The store failed.
    pub fn tenant_deployments(
        &self,
        project: &ProjectId,
        tenant: &str,
        scope: &Scope,
        part: &Part,
    ) -> Result<Vec<TenantDeployment>, StoreError> {
        let (workspaces, _) = reach(scope)?;
        let (at, id) = part.after_descending();
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT r.tenant, r.database, r.status, r.error, r.started_at, r.duration_us,
                     d.id, d.workspace, d.version, d.created_at
                 FROM deployment_results r JOIN deployments d ON d.id = r.deployment
                 WHERE r.tenant = ?2 AND d.project = ?1 AND d.created_at <= ?3 AND (d.created_at < ?3 OR d.id > ?4)
                     AND (?5 IS NULL OR d.workspace IN (SELECT value FROM json_each(?5)))
                 ORDER BY d.created_at DESC, d.id LIMIT ?6",
            )?;
            let mut rows = statement.query((
                project.as_str(),
                tenant,
                at,
                id,
                workspaces,
                part.sql_limit(),
            ))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(TenantDeployment {
                    result: read_result(row)?,
                    id: row.get(6)?,
                    blueprint: row.get(7)?,
                    version: row.get(8)?,
                    created_at: time(row.get(9)?)?,
                });
            }
            Ok(found)
        })
    }
}
