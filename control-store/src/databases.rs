//! Databases: one row for each physical database.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::error::{Entity, StoreError};
use crate::ids::{DatabaseId, Engine, ProjectId, ServerId};
use crate::page::list;
use crate::projects::check_project;
use crate::publish::{Dirty, read_engine};
use crate::roles;
use crate::seal::{Purpose, Sealer};
use crate::settings::{WorkspaceSettings, from_json, to_json};
use crate::snapshot::NativeRoles;
use crate::states::DatabaseState;
use crate::store::{Store, next_id, now_us, time};

/// A database to be made.
pub struct NewDatabase<'a> {
    /// Of which workspace or blueprint.
    pub workspace: &'a str,
    /// Of which tenant; `None`: it is the workspace's own.
    pub tenant: Option<&'a str>,
    /// Which engine.
    pub engine: Engine,
    /// Its name.
    pub name: &'a str,
    /// Where it goes.
    pub server: ServerId,
    /// The roles that the proxy logs in with.
    pub roles: &'a NativeRoles,
    /// The settings in force.
    pub settings: &'a WorkspaceSettings,
}

/// A database as the control plane knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseInfo {
    /// Its id.
    pub id: DatabaseId,
    /// Whose.
    pub project: ProjectId,
    /// Which engine.
    pub engine: Engine,
    /// Its name.
    pub name: String,
    /// Of which workspace or blueprint.
    pub workspace: String,
    /// Of which tenant; `None`: it is the workspace's own.
    pub tenant: Option<String>,
    /// Where it is.
    pub server: ServerId,
    /// Where it is in its life.
    pub state: DatabaseState,
    /// The newest blueprint version that it has in full.
    pub version: u32,
    /// The settings in force.
    pub settings: WorkspaceSettings,
    /// When it was made.
    pub created_at: Timestamp,
}

const DATABASES: &str = "SELECT id, project, engine, name, workspace, tenant, server, state, version, settings, created_at
    FROM databases";

fn read(row: &Row<'_>) -> Result<DatabaseInfo, StoreError> {
    Ok(DatabaseInfo {
        id: DatabaseId(row.get(0)?),
        project: ProjectId::new(row.get::<_, String>(1)?),
        engine: read_engine(&row.get::<_, String>(2)?)?,
        name: row.get(3)?,
        workspace: row.get(4)?,
        tenant: row.get(5)?,
        server: ServerId(row.get(6)?),
        state: DatabaseState::from_stored(&row.get::<_, String>(7)?)?,
        version: row.get(8)?,
        settings: from_json(&row.get::<_, String>(9)?)?,
        created_at: time(row.get(10)?)?,
    })
}

pub(crate) fn select(
    conn: &Connection,
    filter: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<DatabaseInfo>, StoreError> {
    let sql = format!("{DATABASES} WHERE {filter} ORDER BY id");
    list(conn, &sql, params, read)
}

pub(crate) fn insert(
    tx: &Transaction<'_>,
    sealer: &Sealer,
    project: &ProjectId,
    new: &NewDatabase<'_>,
    dirty: &mut Dirty,
) -> Result<DatabaseId, StoreError> {
    check_project(tx, project)?;
    if new.tenant.is_some() {
        check_blueprint(tx, project, new)?;
    }
    let taken = "SELECT 1 FROM databases WHERE project = ?1 AND engine = ?2 AND name = ?3";
    let name = (project.as_str(), new.engine.lower_name(), new.name);
    if exists(tx, taken, name)? {
        return Err(StoreError::taken(Entity::Database, new.name));
    }
    let id = DatabaseId(next_id(tx, "database")?);
    let sealed = sealer.seal(Purpose::NativeRoles, id.0, &roles::encode(new.roles)?)?;
    let number = redis_number(tx, new)?;
    tx.execute(
        "INSERT INTO databases (id, project, engine, name, workspace, tenant, server, state, sealed_roles, settings,
             pool_mode, created_at, redis_number)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'provisioning', ?8, ?9, 'transaction', ?10, ?11)",
        (
            id.0,
            project.as_str(),
            new.engine.lower_name(),
            new.name,
            new.workspace,
            new.tenant,
            new.server.0,
            sealed,
            to_json(new.settings)?,
            now_us(),
            number,
        ),
    )
    .map_err(|error| match StoreError::unique(error, Entity::Database, new.name) {
        StoreError::Taken { name, .. } => StoreError::NameOnServer {
            server: new.server,
            name,
        },
        other => other,
    })?;
    dirty.databases.insert(id);
    Ok(id)
}

/// The lowest of the server's logical databases that is free; on a server of its own, the first. `None`: not Redis.
fn redis_number(tx: &Transaction<'_>, new: &NewDatabase<'_>) -> Result<Option<u32>, StoreError> {
    if new.engine != Engine::Redis {
        return Ok(None);
    }
    let server = new.server.0;
    let (shared, databases): (bool, u32) = tx
        .prepare_cached(
            "SELECT kind = 'shared', redis_databases FROM servers WHERE id = ?1 AND engine = 'redis'",
        )?
        .query_row([server], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?
        .ok_or_else(|| StoreError::not_found(Entity::Server, new.server))?;
    let first = u32::from(shared);
    let free: u32 = tx
        .prepare_cached(
            "SELECT min(n) FROM (SELECT ?2 AS n UNION ALL SELECT redis_number + 1 FROM databases WHERE server = ?1)
             WHERE n NOT IN (SELECT redis_number FROM databases WHERE server = ?1)",
        )?
        .query_row((server, first), |r| r.get(0))?;
    // Nobody shares a server that is a database's own.
    let end = if shared { databases } else { 1 };
    if free < end {
        return Ok(Some(free));
    }
    Err(StoreError::ServerFull { server: new.server })
}

/// A blueprint has databases only while its workspace has one.
fn check_blueprint(
    conn: &Connection,
    project: &ProjectId,
    new: &NewDatabase<'_>,
) -> Result<(), StoreError> {
    let own = select(
        conn,
        "project = ?1 AND workspace = ?2 AND tenant IS NULL",
        (project.as_str(), new.workspace),
    )?;
    match own.first().map(|it| it.state) {
        Some(DatabaseState::Ready) => Ok(()),
        Some(state) => Err(StoreError::WrongState {
            what: Entity::Workspace,
            name: new.workspace.into(),
            state: state.name(),
        }),
        None => Err(StoreError::not_found(Entity::Workspace, new.workspace)),
    }
}

impl Store {
    /// A database by its id.
    ///
    /// # Errors
    /// There is none.
    pub fn database(&self, id: DatabaseId) -> Result<DatabaseInfo, StoreError> {
        self.read(|conn| select(conn, "id = ?1", [id.0]))?
            .pop()
            .ok_or_else(|| StoreError::not_found(Entity::Database, id))
    }

    /// A workspace's own database.
    ///
    /// # Errors
    /// There is no such workspace.
    pub fn workspace_database(
        &self,
        project: &ProjectId,
        workspace: &str,
    ) -> Result<DatabaseInfo, StoreError> {
        self.read(|conn| {
            select(
                conn,
                "project = ?1 AND workspace = ?2 AND tenant IS NULL",
                (project.as_str(), workspace),
            )
        })?
        .pop()
        .ok_or_else(|| StoreError::not_found(Entity::Workspace, workspace))
    }

    /// A tenant's databases.
    ///
    /// # Errors
    /// The store failed.
    pub fn tenant_databases(
        &self,
        project: &ProjectId,
        tenant: &str,
    ) -> Result<Vec<DatabaseInfo>, StoreError> {
        self.read(|conn| {
            select(
                conn,
                "project = ?1 AND tenant = ?2",
                (project.as_str(), tenant),
            )
        })
    }

    /// The databases of all tenants of a blueprint, those in the trash too.
    ///
    /// # Errors
    /// The store failed.
    pub fn blueprint_databases(
        &self,
        project: &ProjectId,
        blueprint: &str,
    ) -> Result<Vec<DatabaseInfo>, StoreError> {
        self.read(|conn| {
            select(
                conn,
                "project = ?1 AND workspace = ?2 AND tenant IS NOT NULL",
                (project.as_str(), blueprint),
            )
        })
    }

    /// All databases of a project.
    ///
    /// # Errors
    /// The store failed.
    pub fn project_databases(&self, project: &ProjectId) -> Result<Vec<DatabaseInfo>, StoreError> {
        self.read(|conn| select(conn, "project = ?1", [project.as_str()]))
    }

    /// All databases in that state.
    ///
    /// # Errors
    /// The store failed.
    pub fn databases_in(&self, state: DatabaseState) -> Result<Vec<DatabaseInfo>, StoreError> {
        self.read(|conn| select(conn, "state = ?1", [state.name()]))
    }

    /// Moves a database from one state to another.
    ///
    /// # Errors
    /// There is no such database, or it is in another state.
    pub fn move_database(
        &self,
        id: DatabaseId,
        from: DatabaseState,
        to: DatabaseState,
    ) -> Result<(), StoreError> {
        self.write(|tx, dirty| change_state(tx, id, from, to, dirty))
    }

    /// A deployment has brought the database to that version: its schema is another one, and the version's settings are in
    /// force, unless it had a newer version before.
    ///
    /// # Errors
    /// There is no such database.
    pub fn set_database_version(
        &self,
        id: DatabaseId,
        version: u32,
        settings: &WorkspaceSettings,
    ) -> Result<(), StoreError> {
        let settings = to_json(settings)?;
        self.write(|tx, dirty| {
            let changed = tx.execute(
                "UPDATE databases SET version = max(version, ?2), schema_epoch = schema_epoch + 1,
                     settings = CASE WHEN version <= ?2 THEN ?3 ELSE settings END
                 WHERE id = ?1",
                (id.0, version, settings),
            )?;
            dirty.databases.insert(id);
            if changed == 0 {
                return Err(StoreError::not_found(Entity::Database, id));
            }
            Ok(())
        })
    }

    /// Notes that the database has these changes although it has not all of their version: a deployment failed on the way.
    ///
    /// # Errors
    /// The store failed.
    pub fn mark_applied(&self, id: DatabaseId, changes: &[i64]) -> Result<(), StoreError> {
        self.write(|tx, _| {
            for change in changes {
                tx.execute(
                    "INSERT OR IGNORE INTO ledger (database, change, applied_at) VALUES (?1, ?2, ?3)",
                    (id.0, change, now_us()),
                )?;
            }
            Ok(())
        })
    }
}

pub(crate) fn change_state(
    tx: &Transaction<'_>,
    id: DatabaseId,
    from: DatabaseState,
    to: DatabaseState,
    dirty: &mut Dirty,
) -> Result<(), StoreError> {
    let found: Option<String> = tx
        .prepare_cached("SELECT state FROM databases WHERE id = ?1")?
        .query_row([id.0], |r| r.get(0))
        .optional()?;
    let found = found.ok_or_else(|| StoreError::not_found(Entity::Database, id))?;
    let state = DatabaseState::from_stored(&found)?;
    if state != from {
        return Err(StoreError::WrongState {
            what: Entity::Database,
            name: id.to_string(),
            state: state.name(),
        });
    }
    tx.execute(
        "UPDATE databases SET state = ?2 WHERE id = ?1",
        (id.0, to.name()),
    )?;
    dirty.databases.insert(id);
    Ok(())
}

/// Marks a tenant's databases, whose routing depends on the tenant's status.
pub(crate) fn mark_tenant(
    tx: &Transaction<'_>,
    project: &ProjectId,
    tenant: &str,
    dirty: &mut Dirty,
) -> Result<(), StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT id FROM databases WHERE project = ?1 AND tenant = ?2")?;
    for id in statement.query_map((project.as_str(), tenant), |r| r.get(0))? {
        dirty.databases.insert(DatabaseId(id?));
    }
    Ok(())
}

/// Whether a row like this exists.
pub(crate) fn exists(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<bool, StoreError> {
    Ok(conn
        .prepare_cached(sql)?
        .query_row(params, |_| Ok(()))
        .optional()?
        .is_some())
}
