//! Workspaces, and the blueprints that those in tenant mode make: tracked changes and numbered versions.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::databases::{self, NewDatabase, exists};
use crate::error::{Entity, StoreError};
use crate::ids::{BlueprintName, DatabaseId, Engine, ProjectId, ServerId};
use crate::names::check_workspace;
use crate::page::{Part, list, reach};
use crate::projects::check_project;
use crate::publish::{Dirty, read_engine};
use crate::settings::{WorkspaceSettings, from_json, to_json};
use crate::snapshot::{NativeRoles, Scope};
use crate::states::Mode;
use crate::store::{Store, now_us, time};

/// A workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkspaceInfo {
    /// Its name, which is its id and its blueprint's name.
    pub name: String,
    /// Which engine.
    pub engine: Engine,
    /// What it is for.
    pub mode: Mode,
    /// What was saved last, in force or not.
    pub settings: WorkspaceSettings,
    /// Whether the settings wait for a deployment.
    pub settings_pending: bool,
    /// The newest version; 0 if there is none.
    pub version: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A tracked change of a workspace's schema.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeInfo {
    /// Its id, unique in its workspace.
    pub id: i64,
    /// The statement.
    pub statement: String,
    /// The search path it ran with.
    pub search_path: String,
    /// The version that holds it; `None` while it is pending.
    pub version: Option<u32>,
    /// When it took effect.
    pub created_at: Timestamp,
}

/// A change as a workspace's database has recorded it.
#[derive(Clone, Debug)]
pub struct NewChange {
    /// Its place in the database's own record, so that it is taken once.
    pub position: i64,
    /// The statement.
    pub statement: String,
    /// The search path it ran with.
    pub search_path: String,
    /// When, in microseconds since 1970.
    pub at_us: i64,
}

/// A version of a blueprint.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionInfo {
    /// Its number, from 1.
    pub number: u32,
    /// Changes in it.
    pub changes: u64,
    /// The settings that go with it.
    pub settings: WorkspaceSettings,
    /// When it was cut.
    pub created_at: Timestamp,
    /// When it was first deployed.
    pub deployed_at: Option<Timestamp>,
}

const WORKSPACES: &str = "SELECT w.name, w.engine, w.mode, coalesce(w.pending_settings, w.settings),
        w.pending_settings IS NOT NULL,
        (SELECT coalesce(max(number), 0) FROM blueprint_versions v WHERE v.project = w.project AND v.workspace = w.name),
        w.created_at, w.project
    FROM workspaces w";

fn read(row: &Row<'_>) -> Result<WorkspaceInfo, StoreError> {
    Ok(WorkspaceInfo {
        name: row.get(0)?,
        engine: read_engine(&row.get::<_, String>(1)?)?,
        mode: Mode::from_stored(&row.get::<_, String>(2)?)?,
        settings: from_json(&row.get::<_, String>(3)?)?,
        settings_pending: row.get(4)?,
        version: row.get(5)?,
        created_at: time(row.get(6)?)?,
    })
}

pub(crate) fn find(
    conn: &Connection,
    project: &ProjectId,
    name: &str,
) -> Result<WorkspaceInfo, StoreError> {
    let sql = format!("{WORKSPACES} WHERE w.project = ?1 AND w.name = ?2");
    list(conn, &sql, (project.as_str(), name), read)?
        .pop()
        .ok_or_else(|| StoreError::not_found(Entity::Workspace, name))
}

/// All workspaces there are, and whose they are.
pub(crate) fn all(conn: &Connection) -> Result<Vec<(ProjectId, WorkspaceInfo)>, StoreError> {
    let project = |row: &Row<'_>| row.get::<_, String>(7).map(ProjectId::new);
    list(conn, WORKSPACES, [], |row| Ok((project(row)?, read(row)?)))
}

/// What a workspace is made with.
pub struct NewWorkspace<'a> {
    /// Its name.
    pub name: &'a str,
    /// Which engine.
    pub engine: Engine,
    /// What it is for.
    pub mode: Mode,
    /// The name of its database.
    pub database: &'a str,
    /// Where that goes.
    pub server: ServerId,
    /// The roles that the proxy logs in with.
    pub roles: &'a NativeRoles,
}

impl Store {
    /// Makes a workspace and the row of its database, in the state `provisioning`.
    ///
    /// # Errors
    /// The name is refused or taken.
    pub fn create_workspace(
        &self,
        project: &ProjectId,
        new: &NewWorkspace<'_>,
    ) -> Result<DatabaseId, StoreError> {
        check_workspace(new.name)?;
        let settings = WorkspaceSettings::default_of(new.engine);
        let text = to_json(&settings)?;
        self.write(|tx, dirty| {
            check_project(tx, project)?;
            tx.execute(
                "INSERT INTO workspaces (project, name, engine, mode, settings, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                (
                    project.as_str(),
                    new.name,
                    new.engine.lower_name(),
                    new.mode.name(),
                    text,
                    now_us(),
                ),
            )
            .map_err(|e| StoreError::unique(e, Entity::Workspace, new.name))?;
            let database = NewDatabase {
                workspace: new.name,
                tenant: None,
                engine: new.engine,
                name: new.database,
                server: new.server,
                roles: new.roles,
                settings: &settings,
            };
            databases::insert(tx, &self.sealer, project, &database, dirty)
        })
    }

    /// A project's workspaces that a scope reaches, by name; of one mode or of both.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_workspaces(
        &self,
        project: &ProjectId,
        mode: Option<Mode>,
        scope: &Scope,
        part: &Part<String>,
    ) -> Result<Vec<WorkspaceInfo>, StoreError> {
        // A scope of tenants reaches their databases, and no workspace.
        let (workspaces, None) = reach(scope)? else {
            return Ok(Vec::new());
        };
        self.read(|conn| {
            let sql = format!(
                "{WORKSPACES} WHERE w.project = ?1 AND w.name > ?2 AND (?3 IS NULL OR w.mode = ?3)
                     AND (?4 IS NULL OR w.name IN (SELECT value FROM json_each(?4)))
                 ORDER BY w.name LIMIT ?5"
            );
            let filters = (
                project.as_str(),
                part.behind(),
                mode.map(Mode::name),
                workspaces,
                part.sql_limit(),
            );
            list(conn, &sql, filters, read)
        })
    }

    /// A workspace.
    ///
    /// # Errors
    /// There is none by that name.
    pub fn workspace(&self, project: &ProjectId, name: &str) -> Result<WorkspaceInfo, StoreError> {
        self.read(|conn| find(conn, project, name))
    }

    /// Tenants that have a database of this blueprint, those in the trash too.
    ///
    /// # Errors
    /// The store failed.
    pub fn deployed_to(
        &self,
        project: &ProjectId,
        blueprint: &str,
    ) -> Result<Vec<String>, StoreError> {
        let databases = self.blueprint_databases(project, blueprint)?;
        Ok(databases.into_iter().filter_map(|it| it.tenant).collect())
    }

    /// Saves a workspace's settings. In tenant mode they hold for the workspace's own database at once and wait for a
    /// deployment otherwise; in control mode they are in force.
    ///
    /// # Errors
    /// There is no such workspace; the settings are of another engine.
    pub fn save_settings(
        &self,
        project: &ProjectId,
        name: &str,
        settings: &WorkspaceSettings,
    ) -> Result<WorkspaceInfo, StoreError> {
        let text = to_json(settings)?;
        self.write(|tx, dirty| {
            let workspace = find(tx, project, name)?;
            if !settings.fits(workspace.engine) {
                return Err(StoreError::Invalid {
                    field: "settings",
                    why: "must be those of the workspace's engine",
                });
            }
            let column = match workspace.mode {
                Mode::Tenant => "pending_settings",
                Mode::Control => "settings",
            };
            tx.execute(
                &format!("UPDATE workspaces SET {column} = ?3 WHERE project = ?1 AND name = ?2"),
                (project.as_str(), name, &text),
            )?;
            let own = databases::select(
                tx,
                "project = ?1 AND workspace = ?2 AND tenant IS NULL",
                (project.as_str(), name),
            )?;
            for database in own {
                tx.execute(
                    "UPDATE databases SET settings = ?2 WHERE id = ?1",
                    (database.id.0, &text),
                )?;
                dirty.databases.insert(database.id);
            }
            find(tx, project, name)
        })
    }

    // ---- changes ----

    /// Takes over what a workspace's database has recorded; what was taken before is passed over.
    ///
    /// # Errors
    /// There is no such workspace.
    pub fn record_changes(
        &self,
        project: &ProjectId,
        workspace: &str,
        changes: &[NewChange],
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|tx, _| {
            // Not what there is: a change that was taken and then removed from the queue stays away.
            let taken = taken_position(tx, project, workspace)?;
            for change in changes.iter().filter(|it| it.position > taken) {
                let id = next_change(tx, project, workspace)?;
                tx.execute(
                    "INSERT INTO changes (project, workspace, id, statement, search_path, position, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    (
                        project.as_str(),
                        workspace,
                        id,
                        &change.statement,
                        &change.search_path,
                        change.position,
                        change.at_us,
                    ),
                )?;
            }
            tx.execute(
                "UPDATE workspaces SET taken_position = max(taken_position, ?3) WHERE project = ?1 AND name = ?2",
                (
                    project.as_str(),
                    workspace,
                    changes.iter().map(|it| it.position).max().unwrap_or(0),
                ),
            )?;
            Ok(())
        })
    }

    /// Up to which place in its database's own record a workspace's changes are taken over.
    ///
    /// # Errors
    /// There is no such workspace.
    pub fn taken_position(&self, project: &ProjectId, workspace: &str) -> Result<i64, StoreError> {
        self.read(|conn| taken_position(conn, project, workspace))
    }

    /// The changes of a workspace that no version holds, in the order in which they took effect, by their ids.
    ///
    /// # Errors
    /// The store failed.
    pub fn pending_changes(
        &self,
        project: &ProjectId,
        workspace: &str,
        part: &Part<u64>,
    ) -> Result<Vec<ChangeInfo>, StoreError> {
        self.read(|conn| {
            let sql = format!(
                "{CHANGES} WHERE project = ?1 AND workspace = ?2 AND version IS NULL AND id > ?3 ORDER BY id LIMIT ?4"
            );
            let place = (project.as_str(), workspace, part.above(), part.sql_limit());
            list(conn, &sql, place, read_change)
        })
    }

    /// All changes of a workspace, in the order in which they took effect.
    ///
    /// # Errors
    /// The store failed.
    pub fn changes(
        &self,
        project: &ProjectId,
        workspace: &str,
    ) -> Result<Vec<ChangeInfo>, StoreError> {
        self.read(|conn| changes(conn, project, workspace))
    }

    /// The settings that go with a version; of version 0, which has no changes, those of the workspace.
    ///
    /// # Errors
    /// There is no such version.
    pub fn version_settings(
        &self,
        project: &ProjectId,
        workspace: &str,
        version: u32,
    ) -> Result<WorkspaceSettings, StoreError> {
        self.read(|conn| {
            if version == 0 {
                return Ok(find(conn, project, workspace)?.settings);
            }
            let text: Option<String> = conn
                .prepare_cached(
                    "SELECT settings FROM blueprint_versions WHERE project = ?1 AND workspace = ?2 AND number = ?3",
                )?
                .query_row((project.as_str(), workspace, version), |r| r.get(0))
                .optional()?;
            from_json(&text.ok_or_else(|| StoreError::not_found(Entity::Version, version))?)
        })
    }

    /// Changes that at least one tenant of the blueprint lacks, or that no version holds yet.
    ///
    /// # Errors
    /// The store failed.
    pub fn undeployed_changes(
        &self,
        project: &ProjectId,
        workspace: &str,
    ) -> Result<u64, StoreError> {
        self.read(|conn| {
            Ok(conn
                .prepare_cached(
                    "SELECT count(*) FROM changes c WHERE c.project = ?1 AND c.workspace = ?2 AND (
                         c.version IS NULL
                         OR EXISTS (SELECT 1 FROM databases d JOIN tenants t ON t.project = d.project AND t.id = d.tenant
                             WHERE d.project = c.project AND d.workspace = c.workspace AND t.status <> 'deleted'
                               AND d.version < c.version
                               AND NOT EXISTS (SELECT 1 FROM ledger l WHERE l.database = d.id AND l.change = c.id)))",
                )?
                .query_row((project.as_str(), workspace), |r| r.get(0))?)
        })
    }

    /// Removes a pending change from the queue.
    ///
    /// # Errors
    /// There is none by that id, or a version holds it.
    pub fn remove_change(
        &self,
        project: &ProjectId,
        workspace: &str,
        id: i64,
    ) -> Result<(), StoreError> {
        self.write(|tx, _| {
            let removed = tx.execute(
                "DELETE FROM changes WHERE project = ?1 AND workspace = ?2 AND id = ?3 AND version IS NULL",
                (project.as_str(), workspace, id),
            )?;
            if removed == 0 {
                return Err(StoreError::not_found(Entity::Change, id));
            }
            Ok(())
        })
    }

    // ---- versions ----

    /// Makes a version of what is pending, if anything is; gives the newest version's number, 0 if there is none.
    ///
    /// # Errors
    /// There is no such workspace.
    pub fn cut_version(&self, project: &ProjectId, workspace: &str) -> Result<u32, StoreError> {
        self.write(|tx, dirty| cut_version(tx, project, workspace, dirty))
    }

    /// A blueprint's versions, the newest first, by their numbers.
    ///
    /// # Errors
    /// The store failed.
    pub fn versions(
        &self,
        project: &ProjectId,
        workspace: &str,
        part: &Part<u64>,
    ) -> Result<Vec<VersionInfo>, StoreError> {
        self.read(|conn| {
            let sql = "SELECT v.number, v.settings, v.created_at, v.deployed_at,
                    (SELECT count(*) FROM changes c
                      WHERE c.project = v.project AND c.workspace = v.workspace AND c.version = v.number)
                 FROM blueprint_versions v WHERE v.project = ?1 AND v.workspace = ?2 AND v.number < ?3
                 ORDER BY v.number DESC LIMIT ?4";
            let place = (project.as_str(), workspace, part.below(), part.sql_limit());
            list(conn, sql, place, |row| {
                let deployed: Option<i64> = row.get(3)?;
                Ok(VersionInfo {
                    number: row.get(0)?,
                    changes: row.get(4)?,
                    settings: from_json(&row.get::<_, String>(1)?)?,
                    created_at: time(row.get(2)?)?,
                    deployed_at: deployed.map(time).transpose()?,
                })
            })
        })
    }
}

/// Makes a version of what is pending, if anything is; gives the newest version's number.
pub(crate) fn cut_version(
    tx: &Transaction<'_>,
    project: &ProjectId,
    workspace: &str,
    dirty: &mut Dirty,
) -> Result<u32, StoreError> {
    let found = find(tx, project, workspace)?;
    let pending = "SELECT 1 FROM changes WHERE project = ?1 AND workspace = ?2 AND version IS NULL";
    let changes = exists(tx, pending, (project.as_str(), workspace))?;
    if !changes && !found.settings_pending {
        return Ok(found.version);
    }
    let number = found.version + 1;
    let settings = to_json(&found.settings)?;
    tx.execute(
        "INSERT INTO blueprint_versions (project, workspace, number, settings, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        (project.as_str(), workspace, number, &settings, now_us()),
    )?;
    tx.execute(
        "UPDATE changes SET version = ?3 WHERE project = ?1 AND workspace = ?2 AND version IS NULL",
        (project.as_str(), workspace, number),
    )?;
    tx.execute(
        "UPDATE workspaces SET settings = ?3, pending_settings = NULL WHERE project = ?1 AND name = ?2",
        (project.as_str(), workspace, settings),
    )?;
    let key = (project.clone(), BlueprintName::new(workspace));
    dirty.workspaces.insert(key);
    Ok(number)
}

/// A blueprint's newest version; 0 if there is none.
pub(crate) fn newest_version(
    conn: &Connection,
    project: &ProjectId,
    workspace: &str,
) -> Result<u32, StoreError> {
    Ok(conn
        .prepare_cached(
            "SELECT coalesce(max(number), 0) FROM blueprint_versions WHERE project = ?1 AND workspace = ?2",
        )?
        .query_row((project.as_str(), workspace), |r| r.get(0))?)
}

/// Notes that a version and those before it were deployed; the first time counts.
pub(crate) fn mark_deployed(
    tx: &Transaction<'_>,
    project: &ProjectId,
    workspace: &str,
    version: u32,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE blueprint_versions SET deployed_at = ?4
         WHERE project = ?1 AND workspace = ?2 AND number <= ?3 AND deployed_at IS NULL",
        (project.as_str(), workspace, version, now_us()),
    )?;
    Ok(())
}

fn taken_position(
    conn: &Connection,
    project: &ProjectId,
    workspace: &str,
) -> Result<i64, StoreError> {
    conn.prepare_cached("SELECT taken_position FROM workspaces WHERE project = ?1 AND name = ?2")?
        .query_row((project.as_str(), workspace), |r| r.get(0))
        .optional()?
        .ok_or_else(|| StoreError::not_found(Entity::Workspace, workspace))
}

fn next_change(
    tx: &Transaction<'_>,
    project: &ProjectId,
    workspace: &str,
) -> Result<i64, StoreError> {
    tx.prepare_cached(
        "UPDATE workspaces SET next_change = next_change + 1 WHERE project = ?1 AND name = ?2
         RETURNING next_change - 1",
    )?
    .query_row((project.as_str(), workspace), |r| r.get(0))
    .optional()?
    .ok_or_else(|| StoreError::not_found(Entity::Workspace, workspace))
}

pub(crate) fn changes(
    conn: &Connection,
    project: &ProjectId,
    workspace: &str,
) -> Result<Vec<ChangeInfo>, StoreError> {
    let sql = format!("{CHANGES} WHERE project = ?1 AND workspace = ?2 ORDER BY id");
    list(conn, &sql, (project.as_str(), workspace), read_change)
}

const CHANGES: &str = "SELECT id, statement, search_path, version, created_at FROM changes";

fn read_change(row: &Row<'_>) -> Result<ChangeInfo, StoreError> {
    Ok(ChangeInfo {
        id: row.get(0)?,
        statement: row.get(1)?,
        search_path: row.get(2)?,
        version: row.get(3)?,
        created_at: time(row.get(4)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::QuerySettings;
    use crate::snapshot::DatabaseStatus;
    use crate::states::DatabaseState;
    use crate::testing::Fixture;

    fn statements(f: &Fixture, project: &ProjectId) -> Vec<(String, Option<u32>)> {
        let changes = f.store.changes(project, "shop").unwrap();
        changes
            .into_iter()
            .map(|it| (it.statement, it.version))
            .collect()
    }

    fn with_timeout(query_timeout_ms: u64) -> WorkspaceSettings {
        WorkspaceSettings::Queries(QuerySettings {
            query_timeout_ms,
            ..QuerySettings::default()
        })
    }

    #[test]
    fn a_workspace_is_routed_once_its_database_is_there() {
        let f = Fixture::new();
        let project = f.project();
        let id = f.new_workspace(&project, "shop", Mode::Tenant).unwrap();
        let status = |f: &Fixture| f.store.snapshot().load().databases[&id].status;
        assert_eq!(status(&f), DatabaseStatus::NotReady);
        let f = f.reopened();
        assert_eq!(status(&f), DatabaseStatus::NotReady);
        let (from, to) = (DatabaseState::Provisioning, DatabaseState::Ready);
        f.store.move_database(id, from, to).unwrap();
        assert_eq!(status(&f), DatabaseStatus::Ready);
        assert!(matches!(
            f.store.move_database(id, from, to),
            Err(StoreError::WrongState { state: "ready", .. })
        ));
        f.check();
        let again = f.new_workspace(&project, "shop", Mode::Control);
        assert!(matches!(
            again,
            Err(StoreError::Taken {
                what: Entity::Workspace,
                ..
            })
        ));
        f.check();
        for bad in ["", "Shop", "a__b", "9"] {
            assert!(matches!(
                f.new_workspace(&project, bad, Mode::Tenant),
                Err(StoreError::Invalid { field: "name", .. })
            ));
        }
        assert_eq!(f.workspace_names(&project), ["shop"]);
        assert!(f.store.workspace(&f.another_project(), "shop").is_err());
    }

    #[test]
    fn changes_are_taken_once_and_stay_removed() {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        f.record(&project, "shop", &[(10, "a"), (11, "b")]);
        f.record(&project, "shop", &[(10, "a"), (11, "b"), (20, "c")]);
        assert_eq!(f.store.taken_position(&project, "shop").unwrap(), 20);
        let ids: Vec<_> = f
            .store
            .changes(&project, "shop")
            .unwrap()
            .iter()
            .map(|it| it.id)
            .collect();
        assert_eq!(ids, [1, 2, 3]);
        f.store.remove_change(&project, "shop", 3).unwrap();
        let f = f.reopened();
        f.record(&project, "shop", &[(20, "c")]);
        assert_eq!(
            statements(&f, &project),
            [("a".into(), None), ("b".into(), None)]
        );
        for gone in [3, 99] {
            let refused = f.store.remove_change(&project, "shop", gone);
            assert!(matches!(
                refused,
                Err(StoreError::NotFound {
                    what: Entity::Change,
                    ..
                })
            ));
        }
        assert!(f.store.record_changes(&project, "none", &[]).is_ok());
    }

    #[test]
    fn a_version_holds_what_was_pending_and_never_changes() {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        let cut = || f.store.cut_version(&project, "shop").unwrap();
        assert_eq!(cut(), 0, "there is nothing");
        f.record(&project, "shop", &[(1, "a"), (2, "b")]);
        assert_eq!((cut(), cut()), (1, 1));
        f.record(&project, "shop", &[(3, "c")]);
        assert!(
            f.store.remove_change(&project, "shop", 1).is_err(),
            "a version holds it"
        );
        assert_eq!(cut(), 2);
        let saved = f
            .store
            .save_settings(&project, "shop", &with_timeout(5))
            .unwrap();
        assert!(saved.settings_pending);
        assert_eq!(cut(), 3);
        assert!(
            !f.store
                .workspace(&project, "shop")
                .unwrap()
                .settings_pending
        );
        let versions = f.store.versions(&project, "shop", &Part::ALL).unwrap();
        let counts: Vec<_> = versions.iter().map(|it| (it.number, it.changes)).collect();
        assert_eq!(counts, [(3, 0), (2, 1), (1, 2)]);
        assert_eq!(
            f.store.version_settings(&project, "shop", 3).unwrap(),
            with_timeout(5)
        );
        assert_eq!(
            f.store.version_settings(&project, "shop", 2).unwrap(),
            with_timeout(30_000)
        );
        assert_eq!(
            f.store.version_settings(&project, "shop", 0).unwrap(),
            with_timeout(5)
        );
        assert!(f.store.version_settings(&project, "shop", 4).is_err());
        assert_eq!(
            statements(&f, &project),
            [
                ("a".into(), Some(1)),
                ("b".into(), Some(1)),
                ("c".into(), Some(2))
            ]
        );
    }

    #[test]
    fn settings_hold_at_once_for_the_workspace_itself() {
        let f = Fixture::new();
        let project = f.project();
        let own = f.workspace(&project, "shop", Mode::Tenant);
        let tenant = f.tenant(&project, "acme", &["shop"])[0];
        let saved = f
            .store
            .save_settings(&project, "shop", &with_timeout(7))
            .unwrap();
        assert_eq!(
            (saved.settings, saved.settings_pending),
            (with_timeout(7), true)
        );
        let timeout = |id| {
            f.store.snapshot().load().databases[&id]
                .settings
                .query_timeout_ms
        };
        assert_eq!((timeout(own), timeout(tenant)), (7, 30_000));
        f.check();
        f.workspace(&project, "control", Mode::Control);
        let saved = f
            .store
            .save_settings(&project, "control", &with_timeout(8))
            .unwrap();
        assert!(!saved.settings_pending);
        let redis = WorkspaceSettings::default_of(Engine::Redis);
        assert!(matches!(
            f.store.save_settings(&project, "shop", &redis),
            Err(StoreError::Invalid {
                field: "settings",
                ..
            })
        ));
    }

    #[test]
    fn a_change_is_undeployed_until_every_tenant_has_it() {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        let count = || f.store.undeployed_changes(&project, "shop").unwrap();
        f.record(&project, "shop", &[(1, "a"), (2, "b")]);
        assert_eq!(count(), 2, "no version holds them");
        f.store.cut_version(&project, "shop").unwrap();
        assert_eq!(count(), 0, "no tenant lacks them");
        let behind = f.new_tenant(&project, "behind", &["shop"]).unwrap()[0];
        f.tenant(&project, "acme", &["shop"]);
        assert_eq!(count(), 2);
        f.store.mark_applied(behind, &[1]).unwrap();
        f.store.mark_applied(behind, &[1]).unwrap();
        assert_eq!(count(), 1);
        f.bring(&project, behind, "shop");
        assert_eq!(count(), 0);
        f.record(&project, "shop", &[(3, "c")]);
        assert_eq!(count(), 1);
    }
}
