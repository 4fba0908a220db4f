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
        return Ok(live
            .map(|(tenant, _, database)| (tenant, database))
            .collect());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::states::Mode;
    use crate::testing::Fixture;

    fn new<'a>(version: Option<u32>, tenants: Option<&'a [String]>) -> NewDeployment<'a> {
        NewDeployment {
            blueprint: "shop",
            version,
            tenants,
        }
    }

    fn with_tenants() -> (Fixture, ProjectId) {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        for tenant in ["acme", "globex", "trash"] {
            f.tenant(&project, tenant, &["shop"]);
        }
        let (from, to) = ([TenantStatus::Ready], TenantStatus::Deleted);
        f.store
            .set_tenant_status(&project, "trash", &from, to)
            .unwrap();
        f.new_tenant(&project, "young", &["shop"]).unwrap();
        f.record(&project, "shop", &[(1, "a")]);
        (f, project)
    }

    fn end(f: &Fixture, deployment: &DeploymentInfo, tenant: &str, status: Progress) {
        let mut result = deployment
            .results
            .iter()
            .find(|it| it.tenant == tenant)
            .unwrap()
            .clone();
        result.status = status;
        result.error = (status == Progress::Failed).then(|| "why".into());
        result.duration_us = Some(5);
        f.store
            .set_deployment_result(&deployment.id, &result)
            .unwrap();
    }

    #[test]
    fn a_deployment_cuts_a_version_for_all_in_use_and_is_open_until_it_ends() {
        let (f, project) = with_tenants();
        let begun = f
            .store
            .begin_deployment(&project, &new(None, None))
            .unwrap();
        assert_eq!((begun.version, begun.status), (1, Progress::InProgress));
        let tenants: Vec<_> = begun.results.iter().map(|it| it.tenant.as_str()).collect();
        assert_eq!(tenants, ["acme", "globex"]);
        end(&f, &begun, "acme", Progress::Completed);
        let f = f.reopened();
        let [open] = &f.store.open_deployments().unwrap()[..] else {
            panic!("one is open")
        };
        assert_eq!(open.results[0].status, Progress::Completed);
        assert_eq!(open.results[1].status, Progress::Pending);
        end(&f, open, "globex", Progress::Failed);
        f.store.finish_deployment(&open.id).unwrap();
        let ended = f.store.deployment(&project, &open.id).unwrap();
        assert_eq!(ended.status, Progress::Failed);
        assert_eq!(ended.results[1].error.as_deref(), Some("why"));
        assert!(f.store.open_deployments().unwrap().is_empty());
        assert!(
            f.store.versions(&project, "shop").unwrap()[0]
                .deployed_at
                .is_some()
        );
        assert!(f.store.deployment(&f.another_project(), &open.id).is_err());
    }

    #[test]
    fn nothing_is_deployed_when_all_failed() {
        let (f, project) = with_tenants();
        let begun = f
            .store
            .begin_deployment(&project, &new(None, None))
            .unwrap();
        for tenant in ["acme", "globex"] {
            end(&f, &begun, tenant, Progress::Failed);
        }
        f.store.finish_deployment(&begun.id).unwrap();
        assert_eq!(
            f.store.versions(&project, "shop").unwrap()[0].deployed_at,
            None
        );
        f.store.finish_deployment("dep_none").unwrap();
    }

    #[test]
    fn tenants_and_versions_are_chosen_by_name() {
        let (f, project) = with_tenants();
        let refuse = |version, tenants: &[&str]| {
            let tenants: Vec<String> = tenants.iter().map(|it| (*it).to_owned()).collect();
            let new = new(version, Some(&tenants));
            f.store
                .begin_deployment(&project, &new)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refuse(Some(2), &[]), "Version not found: 2");
        assert_eq!(refuse(Some(0), &[]), "Version not found: 0");
        assert_eq!(refuse(None, &["acme", "none"]), "Tenant not found: none");
        assert_eq!(refuse(None, &["trash"]), "Tenant 'trash' is deleted");
        assert_eq!(
            f.store.workspace(&project, "shop").unwrap().version,
            0,
            "nothing was cut"
        );
        let twice = ["globex".to_owned(), "globex".to_owned()];
        let begun = f
            .store
            .begin_deployment(&project, &new(None, Some(&twice)))
            .unwrap();
        assert_eq!(begun.results.len(), 1);
        let second = f
            .store
            .begin_deployment(&project, &new(Some(1), None))
            .unwrap();
        let listed = f.store.list_deployments(&project).unwrap();
        assert_eq!(listed.len(), 2);
        let of_acme = f.store.tenant_deployments(&project, "acme").unwrap();
        assert_eq!(
            of_acme.iter().map(|it| &it.id).collect::<Vec<_>>(),
            [&second.id]
        );
    }
}
