//! Deployments: which version went to which tenant, and how that ended.
//!
//! A deployment has a part for each tenant. Whoever carries it out claims one part after the other, and gets none while it is
//! paused or after it was stopped or cancelled: steering it is a matter of the store alone.

mod list;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::databases::exists;
use crate::error::{Entity, StoreError};
use crate::ids::{DatabaseId, ProjectId};
use crate::page;
use crate::secret::random_hex;
use crate::states::TenantStatus;
use crate::store::{Store, now_us, time};
use crate::tenants::wrong_status;
use crate::workspaces::{cut_version, mark_deployed};

pub use list::{Counts, DeploymentSummary, TenantDeployment};
pub use plan::{DeploymentPlan, PlannedTenant};

/// Where a deployment, or its part for one tenant, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not begun.
    Pending,
    /// Under way.
    InProgress,
    /// Told to wait; parts that had begun go on to their end. Of deployments only.
    Paused,
    /// Done.
    Completed,
    /// Failed; what was done before stays, and running it again goes on from there.
    Failed,
    /// Told not to begin, or not to go on with what has not begun.
    Cancelled,
}

impl Progress {
    const ALL: [Self; 6] = [
        Self::Pending,
        Self::InProgress,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word for it, in the store and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn from_stored(word: &str) -> Result<Self, StoreError> {
        Self::ALL
            .into_iter()
            .find(|it| it.name() == word)
            .ok_or(StoreError::Corrupt {
                what: "deployment status",
            })
    }
}

/// What a tenant's failure means to the tenants after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing.
    #[default]
    Continue,
    /// They are not begun.
    Stop,
}

impl OnFailure {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Continue, Self::Stop];

    /// The word for it, in the store and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Stop => "stop",
        }
    }

    /// Reads a word in any letter case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|it| it.name().eq_ignore_ascii_case(word))
    }
}

/// Which tenants a deployment goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets<'a> {
    /// All that are in use or suspended.
    All,
    /// These.
    Named(&'a [String]),
    /// So many: the first by id, of those that lack something.
    Canary(u32),
}

/// A deployment to begin.
#[derive(Clone, Copy, Debug)]
pub struct NewDeployment<'a> {
    /// Of which blueprint.
    pub blueprint: &'a str,
    /// Which version; `None` is the newest, with what is pending.
    pub version: Option<u32>,
    /// To which tenants.
    pub targets: Targets<'a>,
    /// To how many at the same time; `None`: as many as their servers take.
    pub concurrency: Option<u32>,
    /// What a failure means to those after it.
    pub on_failure: OnFailure,
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
    /// To how many at the same time.
    pub concurrency: Option<u32>,
    /// What a failure means to those after it.
    pub on_failure: OnFailure,
    /// Its parts, by tenant.
    pub results: Vec<DeploymentResult>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
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
    /// When it was begun.
    pub started_at: Option<Timestamp>,
    /// How long it took, in microseconds.
    pub duration_us: Option<u64>,
}

/// What may be done with a deployment that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// Begins no more parts until it is resumed.
    Pause,
    /// Goes on.
    Resume,
    /// Begins no more parts for good.
    Cancel,
    /// Goes on with the parts that failed or were not begun.
    Retry,
}

impl Steer {
    /// Whether it may be done in that state, and the state that it leads to.
    const fn lead(self, from: Progress) -> Option<Progress> {
        match (self, from) {
            (Self::Pause, Progress::Pending | Progress::InProgress) => Some(Progress::Paused),
            (Self::Resume, Progress::Paused)
            | (Self::Retry, Progress::Failed | Progress::Cancelled) => Some(Progress::InProgress),
            (Self::Cancel, Progress::Pending | Progress::InProgress | Progress::Paused) => {
                Some(Progress::Cancelled)
            }
            _ => None,
        }
    }
}

/// What a part that a crash cut off is told to have failed with, where nobody goes on with it.
const CUT_OFF: &str = "interrupted by a restart: retry the deployment";

const DEPLOYMENTS: &str = "SELECT id, project, workspace, version, status, concurrency, on_failure, created_at, finished_at
     FROM deployments";

fn read(conn: &Connection, row: &Row<'_>) -> Result<DeploymentInfo, StoreError> {
    let id: String = row.get(0)?;
    Ok(DeploymentInfo {
        results: results(conn, &id)?,
        project: ProjectId::new(row.get::<_, String>(1)?),
        blueprint: row.get(2)?,
        version: row.get(3)?,
        status: Progress::from_stored(&row.get::<_, String>(4)?)?,
        concurrency: row.get(5)?,
        on_failure: OnFailure::parse(&row.get::<_, String>(6)?).unwrap_or_default(),
        created_at: time(row.get(7)?)?,
        finished_at: row.get::<_, Option<i64>>(8)?.map(time).transpose()?,
        id,
    })
}

const RESULTS: &str =
    "SELECT tenant, database, status, error, started_at, duration_us FROM deployment_results";

fn read_result(row: &Row<'_>) -> Result<DeploymentResult, StoreError> {
    Ok(DeploymentResult {
        tenant: row.get(0)?,
        database: DatabaseId(row.get(1)?),
        status: Progress::from_stored(&row.get::<_, String>(2)?)?,
        error: row.get(3)?,
        started_at: row.get::<_, Option<i64>>(4)?.map(time).transpose()?,
        duration_us: row.get(5)?,
    })
}

fn results(conn: &Connection, id: &str) -> Result<Vec<DeploymentResult>, StoreError> {
    let sql = format!("{RESULTS} WHERE deployment = ?1 ORDER BY tenant");
    page::list(conn, &sql, [id], read_result)
}

fn select(
    conn: &Connection,
    filter: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<DeploymentInfo>, StoreError> {
    let sql = format!("{DEPLOYMENTS} WHERE {filter} ORDER BY created_at DESC, id");
    page::list(conn, &sql, params, |row| read(conn, row))
}

fn find(conn: &Connection, project: &ProjectId, id: &str) -> Result<DeploymentInfo, StoreError> {
    select(conn, "project = ?1 AND id = ?2", (project.as_str(), id))?
        .pop()
        .ok_or_else(|| StoreError::not_found(Entity::Deployment, id))
}

fn status_of(conn: &Connection, id: &str) -> Result<Option<Progress>, StoreError> {
    conn.prepare_cached("SELECT status FROM deployments WHERE id = ?1")?
        .query_row([id], |r| r.get::<_, String>(0))
        .optional()?
        .map(|it| Progress::from_stored(&it))
        .transpose()
}

/// Moves all parts that are in one state to another.
fn move_parts(
    tx: &Transaction<'_>,
    id: &str,
    from: Progress,
    to: Progress,
    error: Option<&str>,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE deployment_results SET status = ?3, error = ?4, started_at = NULL, duration_us = NULL
         WHERE deployment = ?1 AND status = ?2",
    )?
    .execute((id, from.name(), to.name(), error))?;
    Ok(())
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
        self.write(|tx, dirty| {
            let newest = cut_version(tx, project, wanted.blueprint, dirty)?;
            let version = wanted.version.unwrap_or(newest);
            if version > newest || wanted.version == Some(0) {
                return Err(StoreError::not_found(Entity::Version, version));
            }
            let targets = targets(tx, project, wanted, version)?;
            let id = free_id(tx)?;
            tx.execute(
                "INSERT INTO deployments (id, project, workspace, version, status, concurrency, on_failure, created_at)
                 VALUES (?1, ?2, ?3, ?4, 'in_progress', ?5, ?6, ?7)",
                (
                    &id,
                    project.as_str(),
                    wanted.blueprint,
                    version,
                    wanted.concurrency,
                    wanted.on_failure.name(),
                    now_us(),
                ),
            )?;
            for target in targets {
                tx.prepare_cached(
                    "INSERT INTO deployment_results (deployment, tenant, database, status) VALUES (?1, ?2, ?3, 'pending')",
                )?
                .execute((&id, target.tenant, target.database.0))?;
            }
            find(tx, project, &id)
        })
    }

    /// The next part to carry out, noted as begun; `None`: there is none, or the deployment is not to go on.
    ///
    /// # Errors
    /// The store failed.
    pub fn claim_part(&self, id: &str) -> Result<Option<DeploymentResult>, StoreError> {
        self.write(|tx, _| {
            if status_of(tx, id)? != Some(Progress::InProgress) {
                return Ok(None);
            }
            let mut statement = tx.prepare_cached(
                "UPDATE deployment_results SET status = 'in_progress', error = NULL, started_at = ?2, duration_us = NULL
                 WHERE deployment = ?1 AND tenant =
                     (SELECT min(tenant) FROM deployment_results WHERE deployment = ?1 AND status = 'pending')
                 RETURNING tenant, database, status, error, started_at, duration_us",
            )?;
            let mut rows = statement.query((id, now_us()))?;
            let claimed = rows.next()?.map(read_result).transpose()?;
            Ok(claimed)
        })
    }

    /// Notes how a deployment's part for one tenant stands. If failures stop the deployment, one ends what has not begun.
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
            let stops = "SELECT 1 FROM deployments WHERE id = ?1 AND on_failure = 'stop'";
            if result.status == Progress::Failed && exists(tx, stops, [id])? {
                move_parts(tx, id, Progress::Pending, Progress::Cancelled, None)?;
            }
            Ok(())
        })
    }

    /// Notes a deployment's end, once none of its parts is left: it failed if one of them did. The version counts as deployed
    /// if a tenant has got it, or there was none.
    ///
    /// # Errors
    /// The store failed.
    pub fn finish_deployment(&self, id: &str) -> Result<(), StoreError> {
        self.write(|tx, _| {
            // It goes with its workspace.
            let Some(found) = select(tx, "id = ?1", [id])?.pop() else {
                return Ok(());
            };
            let any = |status| found.results.iter().any(|it| it.status == status);
            if any(Progress::Pending) || any(Progress::InProgress) {
                return Ok(());
            }
            let status = match found.status {
                Progress::Cancelled => Progress::Cancelled,
                _ if any(Progress::Failed) => Progress::Failed,
                _ => Progress::Completed,
            };
            if found.results.is_empty() || any(Progress::Completed) {
                mark_deployed(tx, &found.project, &found.blueprint, found.version)?;
            }
            tx.execute(
                "UPDATE deployments SET status = ?2, finished_at = ?3 WHERE id = ?1",
                (id, status.name(), now_us()),
            )?;
            Ok(())
        })
    }

    /// Pauses, resumes, cancels or retries a deployment.
    ///
    /// # Errors
    /// There is none by that id, or its state does not allow this.
    pub fn steer_deployment(
        &self,
        project: &ProjectId,
        id: &str,
        steer: Steer,
    ) -> Result<DeploymentInfo, StoreError> {
        self.write(|tx, _| {
            let found = find(tx, project, id)?;
            let to = steer.lead(found.status).ok_or(StoreError::WrongState {
                what: Entity::Deployment,
                name: id.into(),
                state: found.status.name(),
            })?;
            match steer {
                Steer::Pause | Steer::Resume => {}
                Steer::Cancel => move_parts(tx, id, Progress::Pending, Progress::Cancelled, None)?,
                Steer::Retry => {
                    for from in [Progress::Failed, Progress::Cancelled] {
                        move_parts(tx, id, from, Progress::Pending, None)?;
                    }
                }
            }
            let ended = (to == Progress::Cancelled).then(now_us);
            tx.execute(
                "UPDATE deployments SET status = ?2, finished_at = ?3 WHERE id = ?1",
                (id, to.name(), ended),
            )?;
            find(tx, project, id)
        })
    }

    /// A deployment of that project.
    ///
    /// # Errors
    /// There is none by that id.
    pub fn deployment(&self, project: &ProjectId, id: &str) -> Result<DeploymentInfo, StoreError> {
        self.read(|conn| find(conn, project, id))
    }

    /// Deployments to go on with at a start: those that had not ended, with the parts that were cut off as if they had not
    /// begun. Parts of a deployment that nobody goes on with have failed.
    ///
    /// # Errors
    /// The store failed.
    pub fn take_up_deployments(&self) -> Result<Vec<DeploymentInfo>, StoreError> {
        self.write(|tx, _| {
            let begun =
                "id IN (SELECT deployment FROM deployment_results WHERE status = 'in_progress')";
            for cut_off in select(tx, begun, [])? {
                let goes_on = matches!(
                    cut_off.status,
                    Progress::Pending | Progress::InProgress | Progress::Paused
                );
                let (to, error) = if goes_on {
                    (Progress::Pending, None)
                } else {
                    (Progress::Failed, Some(CUT_OFF))
                };
                move_parts(tx, &cut_off.id, Progress::InProgress, to, error)?;
            }
            select(tx, "status IN ('pending', 'in_progress')", [])
        })
    }

    /// Deployments that have not ended and are not paused.
    ///
    /// # Errors
    /// The store failed.
    pub fn open_deployments(&self) -> Result<Vec<DeploymentInfo>, StoreError> {
        self.read(|conn| select(conn, "status IN ('pending', 'in_progress')", []))
    }
}

/// A database that a deployment goes to.
struct Target {
    tenant: String,
    database: DatabaseId,
    /// The version that it has.
    version: u32,
}

/// The databases that a deployment of that version goes to.
fn targets(
    conn: &Connection,
    project: &ProjectId,
    wanted: &NewDeployment<'_>,
    version: u32,
) -> Result<Vec<Target>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT t.id, t.status, d.id, d.version FROM databases d
         JOIN tenants t ON t.project = d.project AND t.id = d.tenant
         WHERE d.project = ?1 AND d.workspace = ?2 AND d.state = 'ready' ORDER BY t.id",
    )?;
    let mut rows = statement.query((project.as_str(), wanted.blueprint))?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let target = Target {
            tenant: row.get(0)?,
            database: DatabaseId(row.get(2)?),
            version: row.get(3)?,
        };
        let status = TenantStatus::from_stored(&row.get::<_, String>(1)?)?;
        found.insert(target.tenant.clone(), (status, target));
    }
    let in_use = |status| matches!(status, TenantStatus::Ready | TenantStatus::Suspended);
    let names = match wanted.targets {
        Targets::Named(names) => names,
        Targets::All => {
            let live = found.into_values().filter(|(status, _)| in_use(*status));
            return Ok(live.map(|(_, target)| target).collect());
        }
        Targets::Canary(many) => {
            let lacking = found
                .into_values()
                .filter(|(status, target)| in_use(*status) && target.version < version);
            let few = lacking.map(|(_, target)| target).take(many as usize);
            return Ok(few.collect());
        }
    };
    let mut chosen = BTreeMap::new();
    for name in names {
        match found.remove(name) {
            Some((status, target)) if in_use(status) => {
                chosen.insert(name.clone(), target);
            }
            Some((status, _)) => return Err(wrong_status(name, status)),
            // Named twice.
            None if chosen.contains_key(name) => {}
            None => return Err(StoreError::not_found(Entity::Tenant, name)),
        }
    }
    Ok(chosen.into_values().collect())
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
