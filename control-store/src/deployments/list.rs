//! Lists of deployments, without their parts.

use jiff::Timestamp;
use rusqlite::Row;

use super::{DeploymentResult, OnFailure, Progress, RESULTS, read_result};
use crate::error::{Entity, StoreError};
use crate::ids::ProjectId;
use crate::page::{Part, Place, list, reach};
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
    /// To how many at the same time.
    pub concurrency: Option<u32>,
    /// What a failure means to those after it.
    pub on_failure: OnFailure,
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
        concurrency: row.get(10)?,
        on_failure: OnFailure::parse(&row.get::<_, String>(11)?).unwrap_or_default(),
    })
}

/// Deployments of the project ?1, the newest first, with counts of their parts: those of the tenants in ?2, a JSON array, or all.
/// The counts are a query for each row that is chosen: as much as a page holds, and no more.
fn summaries(chosen: &str) -> String {
    format!(
        "WITH page AS MATERIALIZED (
             SELECT id, workspace, version, status, created_at, finished_at, concurrency, on_failure FROM deployments
             WHERE project = ?1 AND {chosen})
         SELECT p.id, p.workspace, p.version, p.status, p.created_at, p.finished_at, count(r.tenant),
             count(*) FILTER (WHERE r.status = 'completed'), count(*) FILTER (WHERE r.status = 'failed'),
             count(*) FILTER (WHERE r.status = 'cancelled'), p.concurrency, p.on_failure
         FROM page p LEFT JOIN deployment_results r ON r.deployment = p.id
             AND (?2 IS NULL OR r.tenant IN (SELECT value FROM json_each(?2)))
         GROUP BY p.id ORDER BY p.created_at DESC, p.id"
    )
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
        part: &Part<Place>,
    ) -> Result<Vec<DeploymentSummary>, StoreError> {
        let (workspaces, tenants) = reach(scope)?;
        let (at, id) = part.after_descending();
        self.read(|conn| {
            let sql = summaries(
                "created_at <= ?3 AND (created_at < ?3 OR id > ?4)
                 AND (?5 IS NULL OR workspace IN (SELECT value FROM json_each(?5)))
                 AND (?2 IS NULL OR EXISTS (SELECT 1 FROM deployment_results r, json_each(?2) j
                     WHERE r.deployment = deployments.id AND r.tenant = j.value))
                 ORDER BY created_at DESC, id LIMIT ?6",
            );
            let limit = part.sql_limit();
            let filters = (project.as_str(), tenants, at, id, workspaces, limit);
            list(conn, &sql, filters, read_summary)
        })
    }

    /// A deployment and its parts that a scope reaches, by tenant; those are counted too.
    ///
    /// # Errors
    /// There is none by that id.
    pub fn deployment_parts(
        &self,
        project: &ProjectId,
        id: &str,
        scope: &Scope,
        part: &Part<String>,
    ) -> Result<(DeploymentSummary, Vec<DeploymentResult>), StoreError> {
        let (_, tenants) = reach(scope)?;
        self.read(|conn| {
            // The counts are of the same moment as the parts.
            let moment = conn.unchecked_transaction()?;
            let which = (project.as_str(), &tenants, id);
            let summary = list(&moment, &summaries("id = ?3"), which, read_summary)?
                .pop()
                .ok_or_else(|| StoreError::not_found(Entity::Deployment, id))?;
            let sql = format!(
                "{RESULTS} WHERE deployment = ?1 AND tenant > ?2
                     AND (?3 IS NULL OR tenant IN (SELECT value FROM json_each(?3)))
                 ORDER BY tenant LIMIT ?4"
            );
            let filters = (id, part.behind(), &tenants, part.sql_limit());
            Ok((summary, list(&moment, &sql, filters, read_result)?))
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
        part: &Part<Place>,
    ) -> Result<Vec<TenantDeployment>, StoreError> {
        let (workspaces, _) = reach(scope)?;
        let (at, id) = part.after_descending();
        self.read(|conn| {
            let sql = "SELECT r.tenant, r.database, r.status, r.error, r.started_at, r.duration_us,
                     d.id, d.workspace, d.version, d.created_at
                 FROM deployment_results r JOIN deployments d ON d.id = r.deployment
                 WHERE r.tenant = ?2 AND d.project = ?1 AND d.created_at <= ?3 AND (d.created_at < ?3 OR d.id > ?4)
                     AND (?5 IS NULL OR d.workspace IN (SELECT value FROM json_each(?5)))
                 ORDER BY d.created_at DESC, d.id LIMIT ?6";
            let limit = part.sql_limit();
            let filters = (project.as_str(), tenant, at, id, workspaces, limit);
            list(conn, sql, filters, |row| {
                Ok(TenantDeployment {
                    result: read_result(row)?,
                    id: row.get(6)?,
                    blueprint: row.get(7)?,
                    version: row.get(8)?,
                    created_at: time(row.get(9)?)?,
                })
            })
        })
    }
}
