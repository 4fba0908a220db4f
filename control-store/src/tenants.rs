//! Tenants.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::databases::{self, NewDatabase, exists, mark_tenant};
use crate::directory::{self, TenantEntry};
use crate::error::{Entity, StoreError};
use crate::ids::{DatabaseId, ProjectId};
use crate::names::check_tenant;
use crate::page::{Part, Place, list, reach};
use crate::projects::check_project;
use crate::snapshot::Scope;
use crate::states::{DatabaseState, TenantStatus};
use crate::store::{Store, now_us, time};
use crate::workspaces::{mark_deployed, newest_version};

/// So many databases of the workspaces that a key reaches are few: less work than to go through all tenants for them.
const FEW: u32 = 1000;

/// How a page of tenants is found.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Through the tenants, in order, until there are enough.
    InOrder,
    /// By the databases of the workspaces that the key reaches.
    ByDatabase,
}

/// Whether the workspaces, a list in JSON, have few databases.
fn has_few(conn: &Connection, project: &ProjectId, workspaces: &str) -> Result<bool, StoreError> {
    let counted: u32 = conn
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM databases
             WHERE project = ?1 AND workspace IN (SELECT value FROM json_each(?2)) LIMIT ?3)",
        )?
        .query_row((project.as_str(), workspaces, FEW + 1), |row| row.get(0))?;
    Ok(counted <= FEW)
}

/// A tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantInfo {
    /// Its id, unique in its project.
    pub id: String,
    /// Where it is in its life.
    pub status: TenantStatus,
    /// When it was made.
    pub created_at: Timestamp,
}

const TENANTS: &str = "SELECT id, status, created_at FROM tenants";

fn read(row: &Row<'_>) -> Result<TenantInfo, StoreError> {
    Ok(TenantInfo {
        id: row.get(0)?,
        status: TenantStatus::from_stored(&row.get::<_, String>(1)?)?,
        created_at: time(row.get(2)?)?,
    })
}

pub(crate) fn find(
    conn: &Connection,
    project: &ProjectId,
    id: &str,
) -> Result<TenantInfo, StoreError> {
    let sql = format!("{TENANTS} WHERE project = ?1 AND id = ?2");
    list(conn, &sql, (project.as_str(), id), read)?
        .pop()
        .ok_or_else(|| StoreError::not_found(Entity::Tenant, id))
}

/// All tenants there are, and whose they are.
pub(crate) fn all(conn: &Connection) -> Result<Vec<(ProjectId, TenantInfo)>, StoreError> {
    let sql = "SELECT id, status, created_at, project FROM tenants";
    let project = |row: &Row<'_>| row.get::<_, String>(3).map(ProjectId::new);
    list(conn, sql, [], |row| Ok((project(row)?, read(row)?)))
}

impl Store {
    /// Makes a tenant in the status `provisioning`, with the rows of its databases.
    ///
    /// # Errors
    /// The id is refused or taken; a database's name is taken.
    pub fn create_tenant(
        &self,
        project: &ProjectId,
        id: &str,
        databases: &[NewDatabase<'_>],
    ) -> Result<Vec<DatabaseId>, StoreError> {
        check_tenant(id)?;
        if databases.is_empty() {
            return Err(StoreError::Invalid {
                field: "databases",
                why: "must name at least one blueprint",
            });
        }
        self.write(|tx, dirty| {
            check_project(tx, project)?;
            let known = tx
                .prepare_cached("SELECT status FROM tenants WHERE project = ?1 AND id = ?2")?
                .query_row((project.as_str(), id), |r| r.get::<_, String>(0))
                .optional()?;
            match known.as_deref().map(TenantStatus::from_stored).transpose()? {
                None => {}
                Some(TenantStatus::Deleted) => return Err(in_trash(id)),
                Some(_) => return Err(StoreError::taken(Entity::Tenant, id)),
            }
            tx.execute(
                "INSERT INTO tenants (project, id, status, created_at) VALUES (?1, ?2, 'provisioning', ?3)",
                (project.as_str(), id, now_us()),
            )?;
            databases
                .iter()
                .map(|new| databases::insert(tx, &self.sealer, project, new, dirty))
                .collect()
        })
    }

    /// Adds databases, in the state `provisioning`, to a tenant that is in use.
    ///
    /// # Errors
    /// There is no such tenant, it is not ready, or it has a database of one of the blueprints.
    pub fn add_databases(
        &self,
        project: &ProjectId,
        id: &str,
        databases: &[NewDatabase<'_>],
    ) -> Result<Vec<DatabaseId>, StoreError> {
        self.write(|tx, dirty| {
            let tenant = find(tx, project, id)?;
            match tenant.status {
                TenantStatus::Ready => {}
                TenantStatus::Deleted => return Err(in_trash(id)),
                status => return Err(wrong_status(id, status)),
            }
            for new in databases {
                let has =
                    "SELECT 1 FROM databases WHERE project = ?1 AND tenant = ?2 AND workspace = ?3";
                if exists(tx, has, (project.as_str(), id, new.workspace))? {
                    return Err(StoreError::taken(Entity::Tenant, id));
                }
            }
            databases
                .iter()
                .map(|new| databases::insert(tx, &self.sealer, project, new, dirty))
                .collect()
        })
    }

    /// Opens databases that were made for a tenant, and the tenant if it is new. They have the newest version of their
    /// blueprints: one that was cut meanwhile has to be brought to them first.
    ///
    /// # Errors
    /// [`StoreError::NewerVersion`]; a database is not being made any more; the tenant was deleted meanwhile.
    pub fn finish_tenant(
        &self,
        project: &ProjectId,
        id: &str,
        databases: &[DatabaseId],
    ) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            let tenant = find(tx, project, id)?;
            match tenant.status {
                TenantStatus::Provisioning => set_status(tx, project, id, TenantStatus::Ready)?,
                TenantStatus::Ready | TenantStatus::Suspended => {}
                status => return Err(wrong_status(id, status)),
            }
            for database in databases {
                let (from, to) = (DatabaseState::Provisioning, DatabaseState::Ready);
                databases::change_state(tx, *database, from, to, dirty)?;
                for made in databases::select(tx, "id = ?1", [database.0])? {
                    let version = newest_version(tx, project, &made.workspace)?;
                    if made.version < version {
                        return Err(StoreError::NewerVersion {
                            blueprint: made.workspace,
                            version,
                        });
                    }
                    mark_deployed(tx, project, &made.workspace, version)?;
                }
            }
            mark_tenant(tx, project, id, dirty)
        })
    }

    /// A project's tenants that a scope reaches, the oldest first; those in the trash only if asked for. Each comes with all of
    /// its databases.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_tenants(
        &self,
        project: &ProjectId,
        status: Option<TenantStatus>,
        scope: &Scope,
        part: &Part<Place>,
    ) -> Result<Vec<TenantEntry>, StoreError> {
        let (workspaces, tenants) = reach(scope)?;
        self.read(|conn| {
            let way = match &workspaces {
                Some(names) if has_few(conn, project, names)? => Way::ByDatabase,
                _ => Way::InOrder,
            };
            self.list_by(conn, way, project, status, (workspaces, tenants), part)
        })
    }

    fn list_by(
        &self,
        conn: &Connection,
        way: Way,
        project: &ProjectId,
        status: Option<TenantStatus>,
        (workspaces, tenants): (Option<String>, Option<String>),
        part: &Part<Place>,
    ) -> Result<Vec<TenantEntry>, StoreError> {
        let (at, id) = part.after_ascending();
        // A column with a plus in front is looked up by no index.
        let (plus, reached) = match way {
            Way::InOrder => (
                "",
                "?5 IS NULL OR EXISTS (SELECT 1 FROM databases d WHERE d.project = tenants.project
                     AND d.tenant = tenants.id AND d.workspace IN (SELECT value FROM json_each(?5)))",
            ),
            Way::ByDatabase => (
                "+",
                "id IN (SELECT d.tenant FROM databases d WHERE d.project = ?1 AND d.workspace IN (SELECT value FROM json_each(?5)))",
            ),
        };
        // One text each, so that each has its index.
        let of_status = match status {
            None => format!("{plus}status <> 'deleted' AND ?2 IS NULL"),
            Some(_) => format!("{plus}status = ?2"),
        };
        let sql = format!(
            "{TENANTS}
             WHERE project = ?1 AND {of_status} AND ({plus}created_at, {plus}id) > (?3, ?4)
                 AND ({reached})
                 AND (?6 IS NULL OR id IN (SELECT value FROM json_each(?6)))
             ORDER BY {plus}created_at, {plus}id LIMIT ?7"
        );
        let filters = (
            project.as_str(),
            status.map(TenantStatus::name),
            at,
            id,
            workspaces,
            tenants,
            part.sql_limit(),
        );
        let found = list(conn, &sql, filters, read)?;
        let snapshot = self.snapshot().load();
        let entries = found
            .into_iter()
            .map(|info| match snapshot.tenant(project, &info.id) {
                Ok(entry) if entry.info == info => Ok(entry),
                // Changed this moment.
                _ => directory::entry_of(conn, project, info),
            });
        entries.collect()
    }

    /// How many tenants a project has, those in the trash included.
    ///
    /// # Errors
    /// The store failed.
    pub fn count_tenants(&self, project: &ProjectId) -> Result<u64, StoreError> {
        self.read(|conn| {
            Ok(conn
                .prepare_cached("SELECT count(*) FROM tenants WHERE project = ?1")?
                .query_row([project.as_str()], |r| r.get(0))?)
        })
    }

    /// The tenants that have a database of a blueprint, by id; not those in the trash.
    ///
    /// # Errors
    /// The store failed.
    pub fn tenants_of(
        &self,
        project: &ProjectId,
        blueprint: &str,
    ) -> Result<Vec<String>, StoreError> {
        self.read(|conn| {
            let sql =
                "SELECT t.id FROM databases d JOIN tenants t ON t.project = d.project AND t.id = d.tenant
                 WHERE d.project = ?1 AND d.workspace = ?2 AND t.status <> 'deleted' ORDER BY t.id";
            let of = (project.as_str(), blueprint);
            list(conn, sql, of, |row| Ok(row.get(0)?))
        })
    }

    /// A tenant.
    ///
    /// # Errors
    /// There is none by that id.
    pub fn tenant(&self, project: &ProjectId, id: &str) -> Result<TenantInfo, StoreError> {
        self.read(|conn| find(conn, project, id))
    }

    /// Moves a tenant from one of the statuses in `from` to `to`.
    ///
    /// # Errors
    /// There is none by that id, or it is in another status.
    pub fn set_tenant_status(
        &self,
        project: &ProjectId,
        id: &str,
        from: &[TenantStatus],
        to: TenantStatus,
    ) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            let tenant = find(tx, project, id)?;
            if !from.contains(&tenant.status) {
                return Err(wrong_status(id, tenant.status));
            }
            let going =
                "SELECT 1 FROM databases WHERE project = ?1 AND tenant = ?2 AND state = 'removing'";
            if tenant.status == TenantStatus::Deleted && exists(tx, going, (project.as_str(), id))?
            {
                return Err(StoreError::WrongState {
                    what: Entity::Tenant,
                    name: id.into(),
                    state: "being deleted for good",
                });
            }
            set_status(tx, project, id, to)?;
            mark_tenant(tx, project, id, dirty)
        })
    }
}

pub(crate) fn wrong_status(id: &str, status: TenantStatus) -> StoreError {
    StoreError::WrongState {
        what: Entity::Tenant,
        name: id.into(),
        state: status.name(),
    }
}

fn in_trash(id: &str) -> StoreError {
    StoreError::WrongState {
        what: Entity::Tenant,
        name: id.into(),
        state: "in trash",
    }
}

pub(crate) fn set_status(
    tx: &Transaction<'_>,
    project: &ProjectId,
    id: &str,
    to: TenantStatus,
) -> Result<(), StoreError> {
    let deleted_at = (to == TenantStatus::Deleted).then(now_us);
    tx.execute(
        "UPDATE tenants SET status = ?3, deleted_at = ?4 WHERE project = ?1 AND id = ?2",
        (project.as_str(), id, to.name(), deleted_at),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::DatabaseStatus;
    use crate::states::Mode;
    use crate::testing::Fixture;

    fn names(f: &Fixture, project: &ProjectId, status: Option<TenantStatus>) -> Vec<String> {
        let all = Scope::Project;
        let tenants = f.store.list_tenants(project, status, &all, &Part::ALL);
        let tenants = tenants.unwrap();
        tenants.into_iter().map(|it| it.info.id.clone()).collect()
    }

    #[test]
    fn both_ways_to_a_page_find_the_same() {
        let f = Fixture::new();
        let project = f.project();
        for workspace in ["shop", "rare"] {
            f.workspace(&project, workspace, Mode::Tenant);
        }
        for n in 0..9 {
            let of = if n % 3 == 0 {
                &["shop", "rare"][..]
            } else {
                &["shop"]
            };
            f.new_tenant(&project, &format!("t{n}"), of).unwrap();
        }
        let find = |way, status, names: &str, part: &Part<Place>| {
            let reach = (Some(names.to_owned()), None);
            let found = f
                .store
                .read(|conn| f.store.list_by(conn, way, &project, status, reach, part));
            let found = found.unwrap();
            found.into_iter().map(|it| it.info).collect::<Vec<_>>()
        };
        let provisioning = Some(TenantStatus::Provisioning);
        for (names, count) in [(r#"["rare"]"#, 3), (r#"["shop","rare"]"#, 9), ("[]", 0)] {
            for status in [None, provisioning, Some(TenantStatus::Suspended)] {
                let all = find(Way::InOrder, status, names, &Part::ALL);
                let expected = if status == Some(TenantStatus::Suspended) {
                    0
                } else {
                    count
                };
                assert_eq!(all.len(), expected, "{names} {status:?}");
                assert_eq!(find(Way::ByDatabase, status, names, &Part::ALL), all);
                let Some(first) = all.first() else { continue };
                let rest = Part {
                    after: Some(Place {
                        at: first.created_at,
                        id: first.id.clone(),
                    }),
                    ..Part::ALL
                };
                for way in [Way::InOrder, Way::ByDatabase] {
                    assert_eq!(find(way, status, names, &rest), all[1..], "{way:?}");
                }
            }
        }
    }

    #[test]
    fn a_tenant_with_its_databases_is_made_whole_or_not_at_all() {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        f.new_workspace(&project, "young", Mode::Tenant).unwrap();
        let refused = f.new_tenant(&project, "acme", &["shop", "young"]);
        assert!(matches!(
            refused,
            Err(StoreError::WrongState {
                what: Entity::Workspace,
                state: "provisioning",
                ..
            })
        ));
        let refused = f.new_tenant(&project, "acme", &["shop", "none"]);
        assert!(matches!(
            refused,
            Err(StoreError::NotFound {
                what: Entity::Workspace,
                ..
            })
        ));
        let refused = f.new_tenant(&project, "acme", &["shop", "shop"]);
        assert!(matches!(
            refused,
            Err(StoreError::Taken {
                what: Entity::Database,
                ..
            })
        ));
        assert!(f.store.tenant(&project, "acme").is_err());
        let refused = f.new_tenant(&project, "acme", &[]);
        assert!(matches!(
            refused,
            Err(StoreError::Invalid {
                field: "databases",
                ..
            })
        ));
        let ids = f.new_tenant(&project, "acme", &["shop"]).unwrap();
        assert!(matches!(
            f.new_tenant(&project, "acme", &["shop"]),
            Err(StoreError::Taken {
                what: Entity::Tenant,
                ..
            })
        ));
        f.check();
        let f = f.reopened();
        assert_eq!(
            f.store.tenant(&project, "acme").unwrap().status,
            TenantStatus::Provisioning
        );
        f.store.finish_tenant(&project, "acme", &ids).unwrap();
        assert_eq!(
            f.store.tenant(&project, "acme").unwrap().status,
            TenantStatus::Ready
        );
        let route = &f.store.snapshot().load().databases[&ids[0]];
        assert_eq!(
            (route.status, &*route.name),
            (DatabaseStatus::Ready, "shop__acme")
        );
        f.check();
    }

    #[test]
    fn a_name_that_is_taken_on_a_server_is_told_from_one_that_is_taken_in_the_project() {
        let f = Fixture::new();
        let (ours, theirs) = (f.project(), f.another_project());
        f.workspace(&ours, "shop", Mode::Tenant);
        f.workspace(&theirs, "shop", Mode::Tenant);
        let ours = f.tenant(&ours, "acme", &["shop"])[0];
        let server = f.store.database(ours).unwrap().server;
        let made = f.with_databases(&theirs, "acme", &["shop"], |new| {
            let new = new.iter().map(|it| NewDatabase { server, ..*it });
            let new: Vec<_> = new.collect();
            f.store.create_tenant(&theirs, "acme", &new)
        });
        assert!(matches!(made, Err(StoreError::NameOnServer { .. })));
        assert!(f.store.tenant(&theirs, "acme").is_err());
        f.tenant(&theirs, "acme", &["shop"]);
        f.check();
    }

    #[test]
    fn a_version_that_was_cut_meanwhile_comes_first() {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        let ids = f.new_tenant(&project, "acme", &["shop"]).unwrap();
        f.record(&project, "shop", &[(1, "a")]);
        f.store.cut_version(&project, "shop").unwrap();
        let early = f.store.finish_tenant(&project, "acme", &ids);
        assert!(matches!(
            early,
            Err(StoreError::NewerVersion { version: 1, .. })
        ));
        assert_eq!(
            f.store.tenant(&project, "acme").unwrap().status,
            TenantStatus::Provisioning
        );
        assert_eq!(
            f.store.versions(&project, "shop", &Part::ALL).unwrap()[0].deployed_at,
            None
        );
        f.bring(&project, ids[0], "shop");
        f.store.finish_tenant(&project, "acme", &ids).unwrap();
        assert!(
            f.store.versions(&project, "shop", &Part::ALL).unwrap()[0]
                .deployed_at
                .is_some()
        );
        f.check();
    }

    #[test]
    fn databases_are_added_to_a_tenant_in_use() {
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        f.workspace(&project, "blog", Mode::Tenant);
        f.tenant(&project, "acme", &["shop"]);
        let add = |of: &[&str]| {
            f.with_databases(&project, "acme", of, |new| {
                f.store.add_databases(&project, "acme", new)
            })
        };
        assert!(matches!(
            add(&["blog", "shop"]),
            Err(StoreError::Taken { .. })
        ));
        assert_eq!(f.store.tenant_databases(&project, "acme").unwrap().len(), 1);
        let ids = add(&["blog"]).unwrap();
        let (ready, suspended) = (TenantStatus::Ready, TenantStatus::Suspended);
        f.store
            .set_tenant_status(&project, "acme", &[ready], suspended)
            .unwrap();
        f.store.finish_tenant(&project, "acme", &ids).unwrap();
        assert_eq!(f.store.tenant(&project, "acme").unwrap().status, suspended);
        assert!(matches!(
            add(&["x"]),
            Err(StoreError::WrongState {
                state: "suspended",
                ..
            })
        ));
        f.check();
    }

    #[test]
    fn the_status_decides_what_is_routed_and_what_may_follow() {
        use TenantStatus::{Deleted, Ready, Suspended};
        let f = Fixture::new();
        let project = f.project();
        f.workspace(&project, "shop", Mode::Tenant);
        let id = f.tenant(&project, "acme", &["shop"])[0];
        f.tenant(&project, "globex", &["shop"]);
        let step = |from: TenantStatus, to, expected: DatabaseStatus| {
            f.store
                .set_tenant_status(&project, "acme", &[from], to)
                .unwrap();
            assert_eq!(f.store.snapshot().load().databases[&id].status, expected);
            assert!(matches!(
                f.store.set_tenant_status(&project, "acme", &[from], to),
                Err(StoreError::WrongState {
                    what: Entity::Tenant,
                    ..
                })
            ));
            f.check();
        };
        step(Ready, Suspended, DatabaseStatus::Suspended);
        step(Suspended, Ready, DatabaseStatus::Ready);
        step(Ready, Deleted, DatabaseStatus::Deleted);
        assert_eq!(names(&f, &project, None), ["globex"]);
        assert_eq!(names(&f, &project, Some(Deleted)), ["acme"]);
        assert!(matches!(
            f.new_tenant(&project, "acme", &["shop"]),
            Err(StoreError::WrongState {
                state: "in trash",
                ..
            })
        ));
        step(Deleted, Ready, DatabaseStatus::Ready);
        assert_eq!(names(&f, &project, Some(Ready)), ["acme", "globex"]);
    }
}
