//! What the API shows of tenants and workspaces, in memory. It is published together with the routing data, in the transaction's
//! wake and before that is acknowledged: whoever was told of a change finds it here.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Connection;

use crate::databases::{self, DatabaseInfo};
use crate::error::{Entity, StoreError};
use crate::ids::{BlueprintName, DatabaseId, Engine, ProjectId, TenantId};
use crate::snapshot::{Map, Snapshot};
use crate::states::{DatabaseState, TenantStatus};
use crate::tenants::{self, TenantInfo};
use crate::workspaces::{self, WorkspaceInfo};

/// A tenant and its databases.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantEntry {
    /// The tenant.
    pub info: TenantInfo,
    /// Its databases, the oldest first.
    pub databases: Vec<TenantDatabase>,
}

/// A tenant's database.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantDatabase {
    /// Its id.
    pub id: DatabaseId,
    /// Which engine.
    pub engine: Engine,
    /// Its name.
    pub name: Arc<str>,
    /// Of which blueprint.
    pub blueprint: BlueprintName,
    /// The newest version of that which it has in full.
    pub version: u32,
    /// Where it is in its life.
    pub state: DatabaseState,
}

impl From<DatabaseInfo> for TenantDatabase {
    fn from(it: DatabaseInfo) -> Self {
        Self {
            id: it.id,
            engine: it.engine,
            name: it.name.into(),
            blueprint: BlueprintName::new(it.workspace),
            version: it.version,
            state: it.state,
        }
    }
}

/// Whose, and which.
pub type TenantKey = (ProjectId, TenantId);
/// Whose, and which.
pub(crate) type WorkspaceKey = (ProjectId, BlueprintName);

/// All tenants and workspaces. Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory {
    tenants: Map<TenantKey, Arc<Kept>>,
    workspaces: Map<WorkspaceKey, Arc<WorkspaceInfo>>,
    /// Tenants that have a database of a workspace, without those in the trash; none is left out.
    tenant_counts: Map<WorkspaceKey, u64>,
}

/// What is kept of a tenant beside the routing of its databases: there are many.
#[derive(Debug)]
struct Kept {
    status: TenantStatus,
    created_at: Timestamp,
    databases: Box<[KeptDatabase]>,
}

#[derive(Debug)]
struct KeptDatabase {
    id: DatabaseId,
    version: u32,
    state: DatabaseState,
    blueprint: BlueprintName,
}

impl Snapshot {
    /// A tenant.
    ///
    /// # Errors
    /// There is none by that id.
    pub fn tenant(&self, project: &ProjectId, id: &str) -> Result<TenantEntry, StoreError> {
        let key = (project.clone(), TenantId::new(id));
        let kept = self.directory.tenants.get(&key);
        let kept = kept.ok_or_else(|| StoreError::not_found(Entity::Tenant, id))?;
        // What is kept is of the same moment as the routing: none of them is missing.
        let databases = kept.databases.iter().filter_map(|it| {
            let routed = self.databases.get(&it.id)?;
            Some(TenantDatabase {
                id: it.id,
                engine: routed.engine,
                name: Arc::clone(&routed.name),
                blueprint: it.blueprint.clone(),
                version: it.version,
                state: it.state,
            })
        });
        Ok(TenantEntry {
            databases: databases.collect(),
            info: TenantInfo {
                id: id.to_owned(),
                status: kept.status,
                created_at: kept.created_at,
            },
        })
    }

    /// A workspace.
    ///
    /// # Errors
    /// There is none by that name.
    pub fn workspace(
        &self,
        project: &ProjectId,
        name: &str,
    ) -> Result<Arc<WorkspaceInfo>, StoreError> {
        let key = (project.clone(), BlueprintName::new(name));
        let found = self.directory.workspaces.get(&key).cloned();
        found.ok_or_else(|| StoreError::not_found(Entity::Workspace, name))
    }

    /// How many tenants have a database of a workspace, those in the trash not counted.
    pub fn tenant_count(&self, project: &ProjectId, workspace: &str) -> u64 {
        let key = (project.clone(), BlueprintName::new(workspace));
        let counts = &self.directory.tenant_counts;
        counts.get(&key).copied().unwrap_or(0)
    }

    /// Puts a tenant in its place, whose databases are there, or takes it away.
    pub fn set_tenant(&mut self, key: TenantKey, entry: Option<&TenantEntry>) {
        let kept = entry.map(|entry| {
            let databases = entry.databases.iter().map(|it| KeptDatabase {
                id: it.id,
                version: it.version,
                state: it.state,
                // One text for both.
                blueprint: match self.databases.get(&it.id) {
                    Some(routed) => routed.blueprint.clone(),
                    None => it.blueprint.clone(),
                },
            });
            Kept {
                status: entry.info.status,
                created_at: entry.info.created_at,
                databases: databases.collect(),
            }
        });
        self.directory.set_tenant(key, kept);
    }
}

impl Directory {
    fn set_tenant(&mut self, key: TenantKey, kept: Option<Kept>) {
        let project = key.0.clone();
        for workspace in kept.iter().flat_map(counted) {
            let key = (project.clone(), workspace);
            let before = self.tenant_counts.get(&key).copied().unwrap_or(0);
            self.tenant_counts.insert(key, before + 1);
        }
        let old = match kept {
            Some(kept) => self.tenants.insert(key, Arc::new(kept)),
            None => self.tenants.remove(&key),
        };
        for workspace in old.iter().flat_map(|it| counted(it)) {
            let key = (project.clone(), workspace);
            let left = self.tenant_counts.get(&key).map_or(0, |it| it - 1);
            match left {
                0 => self.tenant_counts.remove(&key),
                left => self.tenant_counts.insert(key, left),
            };
        }
    }

    pub(crate) fn set_workspace(&mut self, key: WorkspaceKey, info: Option<Arc<WorkspaceInfo>>) {
        match info {
            Some(info) => self.workspaces.insert(key, info),
            None => self.workspaces.remove(&key),
        };
    }

    #[cfg(test)]
    pub(crate) fn describe(&self) -> impl Iterator<Item = (String, String)> {
        let tenants = self.tenants.iter().map(|(k, v)| line("tenant", k, v));
        let workspaces = self.workspaces.iter().map(|(k, v)| line("workspace", k, v));
        let counts = self.tenant_counts.iter().map(|(k, v)| line("count", k, v));
        tenants.chain(workspaces).chain(counts)
    }
}

#[cfg(test)]
fn line(what: &str, key: &impl std::fmt::Debug, value: &impl std::fmt::Debug) -> (String, String) {
    (format!("{what} {key:?}"), format!("{value:?}"))
}

/// The workspaces among whose tenants a tenant counts.
fn counted(kept: &Kept) -> impl Iterator<Item = BlueprintName> {
    let counts = kept.status != TenantStatus::Deleted;
    let databases = kept.databases.iter().filter(move |_| counts);
    databases.map(|it| it.blueprint.clone())
}

pub(crate) fn load_tenant(
    conn: &Connection,
    (project, id): &TenantKey,
) -> Result<Option<TenantEntry>, StoreError> {
    let info = match tenants::find(conn, project, id.as_str()) {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        found => found?,
    };
    let entry = entry_of(conn, project, info)?;
    // The row of a deleted project's tenant, which goes with the project's.
    Ok(Some(entry).filter(|it| !it.databases.is_empty()))
}

/// A tenant with its databases, as the store has them.
pub(crate) fn entry_of(
    conn: &Connection,
    project: &ProjectId,
    info: TenantInfo,
) -> Result<TenantEntry, StoreError> {
    let its = (project.as_str(), &info.id);
    let databases = databases::select(conn, "project = ?1 AND tenant = ?2", its)?;
    let databases = databases.into_iter().map(TenantDatabase::from).collect();
    Ok(TenantEntry { info, databases })
}

pub(crate) fn load_workspace(
    conn: &Connection,
    (project, name): &WorkspaceKey,
) -> Result<Option<Arc<WorkspaceInfo>>, StoreError> {
    match workspaces::find(conn, project, name.as_str()) {
        Err(StoreError::NotFound { .. }) => Ok(None),
        found => Ok(Some(Arc::new(found?))),
    }
}

/// All workspaces, from disk, into a snapshot with all projects.
pub(crate) fn load_workspaces(conn: &Connection, into: &mut Snapshot) -> Result<(), StoreError> {
    for (project, info) in workspaces::all(conn)? {
        let key = (known(into, project), BlueprintName::new(&*info.name));
        into.directory.set_workspace(key, Some(Arc::new(info)));
    }
    Ok(())
}

/// All tenants, from disk, into a snapshot with all databases.
pub(crate) fn load_tenants(conn: &Connection, into: &mut Snapshot) -> Result<(), StoreError> {
    let mut of_tenants: HashMap<TenantKey, Vec<TenantDatabase>> = HashMap::new();
    for database in databases::select(conn, "tenant IS NOT NULL", [])? {
        let routed = into.databases.get(&database.id);
        if let Some((of, tenant)) = routed.and_then(|it| Some((&it.project, it.tenant()?))) {
            let all = of_tenants.entry((of.clone(), tenant.clone())).or_default();
            all.push(database.into());
        }
    }
    for (project, info) in tenants::all(conn)? {
        let key = (project, TenantId::new(&*info.id));
        if let Some((key, databases)) = of_tenants.remove_entry(&key) {
            into.set_tenant(key, Some(&TenantEntry { info, databases }));
        }
    }
    Ok(())
}

/// A project's id is one text in memory, however many tenants it has.
fn known(snapshot: &Snapshot, project: ProjectId) -> ProjectId {
    match snapshot.projects.get(&project) {
        Some(project) => project.id.clone(),
        None => project,
    }
}

/// So are the id of a database's project and the name of its workspace.
pub(crate) fn share_texts(snapshot: &Snapshot, database: &mut crate::snapshot::Database) {
    let key = (database.project.clone(), database.blueprint.clone());
    if let Some((key, _)) = snapshot.directory.workspaces.get_key_value(&key) {
        (database.project, database.blueprint) = key.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{QuerySettings, WorkspaceSettings};
    use crate::states::Mode;
    use crate::testing::Fixture;

    #[test]
    fn it_shows_each_change_once_that_is_acknowledged() {
        let f = Fixture::new();
        let project = f.project();
        let shown = || f.store.snapshot().load();
        let workspace = || shown().workspace(&project, "shop").unwrap();
        let count = |name| shown().tenant_count(&project, name);
        assert!(shown().workspace(&project, "shop").is_err());
        f.workspace(&project, "shop", Mode::Tenant);
        f.workspace(&project, "blog", Mode::Tenant);
        assert_eq!((workspace().version, count("shop")), (0, 0));

        f.record(&project, "shop", &[(1, "a")]);
        f.store.cut_version(&project, "shop").unwrap();
        assert_eq!(workspace().version, 1);
        let wanted = WorkspaceSettings::Queries(QuerySettings {
            query_timeout_ms: 5,
            ..QuerySettings::default()
        });
        f.store.save_settings(&project, "shop", &wanted).unwrap();
        assert_eq!(
            (&workspace().settings, workspace().settings_pending),
            (&wanted, true)
        );
        f.check();

        let tenant = |id| shown().tenant(&project, id);
        let ids = f.tenant(&project, "acme", &["shop", "blog"]);
        f.tenant(&project, "globex", &["shop"]);
        let acme = tenant("acme").unwrap();
        let of: Vec<_> = acme.databases.iter().map(|it| it.id).collect();
        assert_eq!((of, acme.info.status), (ids, TenantStatus::Ready));
        assert_eq!(acme.databases[0].version, 1);
        assert_eq!((count("shop"), count("blog")), (2, 1));
        f.check();

        let (ready, deleted) = (TenantStatus::Ready, TenantStatus::Deleted);
        let set = |from, to| f.store.set_tenant_status(&project, "acme", &[from], to);
        set(ready, deleted).unwrap();
        assert_eq!(tenant("acme").unwrap().info.status, deleted);
        assert_eq!((count("shop"), count("blog")), (1, 0));
        f.check();
        set(deleted, ready).unwrap();
        assert_eq!((count("shop"), count("blog")), (2, 1));

        let gone = f.store.retire_tenant(&project, "acme", &[ready]).unwrap();
        gone.iter()
            .for_each(|id| f.store.remove_database(*id).unwrap());
        assert!(tenant("acme").is_err());
        assert_eq!((count("shop"), count("blog")), (1, 0));
        let blog = f.store.retire_workspace(&project, "blog").unwrap();
        f.store.remove_database(blog).unwrap();
        assert!(shown().workspace(&project, "blog").is_err());
        f.check();
    }
}
