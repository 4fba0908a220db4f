//! What a deployment would do, without a trace of having been asked.

use std::collections::HashSet;

use super::{NewDeployment, targets};
use crate::error::{Entity, StoreError};
use crate::ids::ProjectId;
use crate::store::Store;
use crate::workspaces::{ChangeInfo, changes, find};

/// What a deployment would do.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentPlan {
    /// The version, which is yet to be cut if changes are pending.
    pub version: u32,
    /// All changes of the version that a tenant lacks, in order.
    pub changes: Vec<ChangeInfo>,
    /// The tenants that it would go to, by id.
    pub tenants: Vec<PlannedTenant>,
}

/// What a deployment would do to one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedTenant {
    /// Which tenant.
    pub tenant: String,
    /// The version that it has.
    pub version: u32,
    /// Ids of the changes that it lacks, in order.
    pub missing: Vec<i64>,
}

impl Store {
    /// What [`Store::begin_deployment`] of the same would do.
    ///
    /// # Errors
    /// As there.
    pub fn plan_deployment(
        &self,
        project: &ProjectId,
        wanted: &NewDeployment<'_>,
    ) -> Result<DeploymentPlan, StoreError> {
        self.read(|conn| {
            let known = changes(conn, project, wanted.blueprint)?;
            let workspace = find(conn, project, wanted.blueprint)?;
            let cut = workspace.version;
            let pending = workspace.settings_pending || known.iter().any(|it| it.version.is_none());
            let newest = cut + u32::from(pending);
            let version = wanted.version.unwrap_or(newest);
            if version > newest || wanted.version == Some(0) {
                return Err(StoreError::not_found(Entity::Version, version));
            }
            let of = |change: &ChangeInfo| change.version.unwrap_or(cut + 1);
            let mut ledger =
                conn.prepare_cached("SELECT change FROM ledger WHERE database = ?1")?;
            let mut tenants = Vec::new();
            for target in targets(conn, project, wanted, version)? {
                let beyond: HashSet<i64> = ledger
                    .query_map([target.database.0], |row| row.get(0))?
                    .collect::<Result<_, _>>()?;
                let lacks = |it: &&ChangeInfo| {
                    of(it) > target.version && of(it) <= version && !beyond.contains(&it.id)
                };
                tenants.push(PlannedTenant {
                    missing: known.iter().filter(lacks).map(|it| it.id).collect(),
                    tenant: target.tenant,
                    version: target.version,
                });
            }
            let missing: HashSet<i64> = tenants.iter().flat_map(|it| it.missing.clone()).collect();
            let changes = known.into_iter().filter(|it| missing.contains(&it.id));
            Ok(DeploymentPlan {
                version,
                changes: changes.collect(),
                tenants,
            })
        })
    }
}
