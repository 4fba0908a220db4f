//! Projects: the boundary around everything else.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use crate::accounts::{AccountId, NewProject};
use crate::databases::exists;
use crate::error::{Entity, StoreError};
use crate::ids::{KeyId, ProjectId};
use crate::keys::{KeyOwner, NewKey, insert_key};
use crate::page::{Part, Place, list};
use crate::publish::{Dirty, key_hashes};
use crate::removal;
use crate::scram::ITERATIONS;
use crate::seal::Sealer;
use crate::secret::{new_project_id, random};
use crate::store::{Store, now_us, time};

const MAX_NAME_BYTES: usize = 200;

/// A project as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectInfo {
    /// `tdb_` and 8 hex digits.
    pub id: ProjectId,
    /// What people call it.
    pub name: String,
    /// How many keys it has.
    pub api_key_count: u64,
    /// When it was made.
    pub created_at: Timestamp,
}

const PROJECTS: &str =
    "SELECT p.id, p.name, (SELECT count(*) FROM api_keys k WHERE k.project = p.id), p.created_at
    FROM projects p";

impl Store {
    /// Makes a project with a first key.
    ///
    /// # Errors
    /// The name is refused.
    pub fn create_project(&self, account: AccountId, name: &str) -> Result<NewProject, StoreError> {
        check_name(name)?;
        self.write(|tx, dirty| {
            let owner = insert_project(tx, account, name)?;
            let made = insert_key(tx, &self.sealer, &owner, &NewKey::first(), dirty)?;
            Ok(NewProject {
                project: made.project,
                key: made.key,
                api_key: made.api_key,
                proxy_password: made.proxy_password,
            })
        })
    }

    /// An account's projects, oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_projects(
        &self,
        account: AccountId,
        part: &Part<Place>,
    ) -> Result<Vec<ProjectInfo>, StoreError> {
        let (at, id) = part.after_ascending();
        self.read(|conn| {
            let sql = format!(
                "{PROJECTS} WHERE p.account = ?1 AND p.deleted_at IS NULL AND (p.created_at, p.id) > (?2, ?3)
                 ORDER BY p.created_at, p.id LIMIT ?4"
            );
            let place = (account.0, at, id, part.sql_limit());
            list(conn, &sql, place, read_project)
        })
    }

    /// The account's project with that id or name.
    ///
    /// # Errors
    /// The account has none, or several of that name.
    pub fn find_project(
        &self,
        account: AccountId,
        id_or_name: &str,
    ) -> Result<ProjectInfo, StoreError> {
        let projects = self.list_projects(account, &Part::ALL)?;
        if let Some(found) = projects.iter().find(|p| p.id.as_str() == id_or_name) {
            return Ok(found.clone());
        }
        let named: Vec<_> = projects.iter().filter(|p| p.name == id_or_name).collect();
        match named[..] {
            [] => Err(StoreError::not_found(Entity::Project, id_or_name)),
            [found] => Ok(found.clone()),
            _ => Err(StoreError::Ambiguous {
                what: Entity::Project,
                name: id_or_name.to_owned(),
                ids: named.iter().map(|p| p.id.to_string()).collect(),
            }),
        }
    }

    /// Deletes a project with its keys, tenants, workspaces and their history: nobody finds it any more. Its databases are
    /// now in the state `removing`; the rows go with the last of them.
    ///
    /// # Errors
    /// There is no such project.
    pub fn delete_project(&self, project: &ProjectId) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            check_project(tx, project)?;
            mark_keys_gone(tx, &self.sealer, project, dirty)?;
            dirty.projects.insert(project.clone());
            tx.execute(
                "DELETE FROM api_keys WHERE project = ?1",
                [project.as_str()],
            )?;
            tx.execute(
                "UPDATE projects SET deleted_at = ?2 WHERE id = ?1",
                (project.as_str(), now_us()),
            )?;
            removal::retire(tx, "project = ?1", [project.as_str()], dirty)?;
            removal::sweep_project(tx, project)
        })
    }
}

/// Whether new things may be made in a project.
pub(crate) fn check_project(conn: &Connection, project: &ProjectId) -> Result<(), StoreError> {
    let alive = "SELECT 1 FROM projects WHERE id = ?1 AND deleted_at IS NULL";
    if exists(conn, alive, [project.as_str()])? {
        return Ok(());
    }
    Err(StoreError::not_found(Entity::Project, project))
}

fn mark_keys_gone(
    conn: &Connection,
    sealer: &Sealer,
    project: &ProjectId,
    dirty: &mut Dirty,
) -> Result<(), StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT id, hash, sealed_password FROM api_keys WHERE project = ?1")?;
    let mut rows = statement.query([project.as_str()])?;
    while let Some(row) = rows.next()? {
        let id = KeyId(row.get(0)?);
        let hashes = key_hashes(sealer, id, row.get(1)?, &row.get::<_, Vec<u8>>(2)?)?;
        dirty.keys.insert(id);
        dirty.gone_keys.push(hashes);
    }
    Ok(())
}

/// An id of 32 random bits is now and then taken; another is drawn then.
const ID_ATTEMPTS: usize = 8;

pub(crate) fn insert_project(
    tx: &Transaction<'_>,
    account: AccountId,
    name: &str,
) -> Result<KeyOwner, StoreError> {
    let id = free_id(tx)?;
    let scram_salt = random()?;
    tx.execute(
        "INSERT INTO projects (id, account, name, scram_salt, scram_iterations, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            &id,
            account.0,
            name.trim(),
            scram_salt,
            ITERATIONS,
            now_us(),
        ),
    )?;
    Ok(KeyOwner {
        project: ProjectId::new(id),
        scram_salt,
        scram_iterations: ITERATIONS,
    })
}

fn free_id(tx: &Transaction<'_>) -> Result<String, StoreError> {
    for _ in 0..ID_ATTEMPTS {
        let id = new_project_id()?;
        let taken: Option<i64> = tx
            .query_row("SELECT 1 FROM projects WHERE id = ?1", [&id], |r| r.get(0))
            .optional()?;
        if taken.is_none() {
            return Ok(id);
        }
    }
    Err(StoreError::taken(
        Entity::Project,
        "every id that was drawn",
    ))
}

fn read_project(row: &Row<'_>) -> Result<ProjectInfo, StoreError> {
    Ok(ProjectInfo {
        id: ProjectId::new(row.get::<_, String>(0)?),
        name: row.get(1)?,
        api_key_count: row.get(2)?,
        created_at: time(row.get(3)?)?,
    })
}

pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    let name = name.trim();
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(char::is_control) {
        return Err(StoreError::Invalid {
            field: "name",
            why: "must be 1 to 200 bytes without control characters",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, PASSWORD};

    fn account(f: &Fixture) -> AccountId {
        f.store
            .sign_up("ann@example.com", PASSWORD, "Shop", "free")
            .unwrap();
        f.store.log_in("ann@example.com", PASSWORD).unwrap()
    }

    #[test]
    fn projects_are_found_by_id_and_by_a_name_that_is_theirs_alone() {
        let f = Fixture::new();
        let account = account(&f);
        let second = f.store.create_project(account, "Blog").unwrap();
        let f = f.reopened();
        assert_eq!(f.store.list_projects(account, &Part::ALL).unwrap().len(), 2);
        assert_eq!(
            f.store.find_project(account, "Blog").unwrap().id,
            second.project
        );
        assert_eq!(
            f.store
                .find_project(account, second.project.as_str())
                .unwrap()
                .name,
            "Blog"
        );
        let third = f.store.create_project(account, "Blog").unwrap();
        let Err(StoreError::Ambiguous { ids, .. }) = f.store.find_project(account, "Blog") else {
            panic!("two projects have that name")
        };
        assert_eq!(ids.len(), 2);
        assert!(ids.contains(&third.project.to_string()));
        assert!(matches!(
            f.store.find_project(account, "None"),
            Err(StoreError::NotFound { .. })
        ));
        f.check();
    }

    #[test]
    fn a_strangers_project_is_not_found() {
        let f = Fixture::new();
        let stranger = f.another_project();
        assert!(
            f.store
                .find_project(account(&f), stranger.as_str())
                .is_err()
        );
    }

    #[test]
    fn a_deleted_project_takes_its_keys_along() {
        let f = Fixture::new();
        let account = account(&f);
        let made = f.store.create_project(account, "Blog").unwrap();
        f.store.delete_project(&made.project).unwrap();
        assert!(f.store.full_key(made.key).is_err());
        assert_eq!(f.store.snapshot().load().api_keys.len(), 1);
        assert!(matches!(
            f.store.delete_project(&made.project),
            Err(StoreError::NotFound { .. })
        ));
        f.check();
        f.reopened().check();
    }
}
