//! Which Redis databases there are, by what a login may name. Databases in the trash are not in it.

use std::ops::Bound;

use imbl::shared_ptr::DefaultSharedPtr;

use crate::ids::{BlueprintName, DatabaseId, Engine, ProjectId, TenantId};
use crate::snapshot::{Database, DatabaseStatus};

/// A persistent ordered set: a copy shares its nodes.
type Set<T> = imbl::GenericOrdSet<T, DefaultSharedPtr>;

/// The lowest and the highest id, for ranges.
const ALL: (DatabaseId, DatabaseId) = (DatabaseId(0), DatabaseId(u64::MAX));

/// Redis databases by tenant, by blueprint, and those of workspaces. Looking up costs the same among 100,000 tenants as
/// among 100.
#[derive(Clone, Default)]
pub struct RedisIndex {
    tenants: Set<(ProjectId, TenantId, DatabaseId)>,
    blueprints: Set<(ProjectId, BlueprintName, DatabaseId)>,
    workspaces: Set<(ProjectId, DatabaseId)>,
    projects: Set<(ProjectId, DatabaseId)>,
}

impl RedisIndex {
    /// Takes in a database; of other engines and from the trash it takes none.
    pub fn insert(&mut self, database: &Database) {
        if database.engine != Engine::Redis || database.status == DatabaseStatus::Deleted {
            return;
        }
        let (project, id) = (database.project.clone(), database.id);
        match database.tenant() {
            Some(tenant) => {
                self.tenants.insert((project.clone(), tenant.clone(), id));
            }
            None => {
                self.workspaces.insert((project.clone(), id));
            }
        }
        self.blueprints
            .insert((project.clone(), database.blueprint.clone(), id));
        self.projects.insert((project, id));
    }

    /// Drops a database, if it is there.
    pub fn remove(&mut self, database: &Database) {
        if database.engine != Engine::Redis {
            return;
        }
        let (project, id) = (database.project.clone(), database.id);
        if let Some(tenant) = database.tenant() {
            self.tenants.remove(&(project.clone(), tenant.clone(), id));
        }
        self.workspaces.remove(&(project.clone(), id));
        self.blueprints
            .remove(&(project.clone(), database.blueprint.clone(), id));
        self.projects.remove(&(project, id));
    }

    /// A tenant's databases.
    pub(super) fn of_tenant(
        &self,
        project: &ProjectId,
        tenant: &TenantId,
    ) -> impl Iterator<Item = DatabaseId> {
        let bound = |id| Bound::Included((project.clone(), tenant.clone(), id));
        let range = (bound(ALL.0), bound(ALL.1));
        self.tenants.range(range).map(|(_, _, id)| *id)
    }

    /// The databases of a blueprint, its workspace's own among them.
    pub(super) fn of_blueprint(
        &self,
        project: &ProjectId,
        blueprint: &BlueprintName,
    ) -> impl Iterator<Item = DatabaseId> {
        let bound = |id| Bound::Included((project.clone(), blueprint.clone(), id));
        let range = (bound(ALL.0), bound(ALL.1));
        self.blueprints.range(range).map(|(_, _, id)| *id)
    }

    /// The databases of a project's workspaces, not those of its tenants.
    pub(super) fn of_workspaces(&self, project: &ProjectId) -> impl Iterator<Item = DatabaseId> {
        in_project(&self.workspaces, project)
    }

    /// All of a project's databases.
    pub(super) fn of_project(&self, project: &ProjectId) -> impl Iterator<Item = DatabaseId> {
        in_project(&self.projects, project)
    }

    /// Everything in it, in a form that compares and prints.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> String {
        format!(
            "{:?} {:?} {:?} {:?}",
            self.tenants, self.blueprints, self.workspaces, self.projects
        )
    }
}

fn in_project<'a>(
    set: &'a Set<(ProjectId, DatabaseId)>,
    project: &ProjectId,
) -> impl Iterator<Item = DatabaseId> + 'a {
    let bound = |id| Bound::Included((project.clone(), id));
    set.range((bound(ALL.0), bound(ALL.1))).map(|(_, id)| *id)
}
