//! API keys. Each has a proxy password of its own.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction};

use crate::error::{Entity, StoreError};
use crate::ids::{KeyId, ProjectId, Role};
use crate::page::{Part, list};
use crate::publish::{Dirty, key_hashes, read_role, read_scope};
use crate::scram::{derive, stored_key};
use crate::seal::{Purpose, Sealer};
use crate::secret::{API_KEY_PREFIX, Secret, api_key_hash, new_api_key, new_proxy_password};
use crate::settings::to_json;
use crate::snapshot::Scope;
use crate::store::{Store, next_id, now_us, time};

/// How many keys one project may have: a login tries them all.
pub const MAX_KEYS: u64 = 1000;
/// How many names one key's scope may list.
pub const MAX_SCOPE_VALUES: usize = 1000;
/// How many hex digits of a key lists show.
const HINT_DIGITS: usize = 12;

/// A key to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it may reach.
    pub scope: Scope,
}

impl NewKey {
    /// The key that a project starts with: everything in the project.
    pub fn first() -> Self {
        Self {
            name: "default".into(),
            role: Role::Admin,
            scope: Scope::Project,
        }
    }
}

/// What is shown once when a key was made.
pub struct MadeKey {
    /// The project it belongs to.
    pub project: ProjectId,
    /// Its id.
    pub key: KeyId,
    /// The full API key.
    pub api_key: Secret,
    /// The proxy password.
    pub proxy_password: Secret,
}

/// A key as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyInfo {
    /// Its id.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// The beginning of the key and `...`.
    pub hint: String,
    /// What it may do.
    pub role: Role,
    /// What it may reach.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Scope {
    /// `project`, `workspace`, `tenant`.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Workspaces(_) => "workspace",
            Self::Tenants(_) => "tenant",
        }
    }

    /// The names it lists.
    pub fn values(&self) -> Vec<&str> {
        match self {
            Self::Project => Vec::new(),
            Self::Workspaces(names) => names.iter().map(|n| n.as_str()).collect(),
            Self::Tenants(ids) => ids.iter().map(|id| id.as_str()).collect(),
        }
    }
}

/// The project that a new key belongs to, as the key needs it.
pub(crate) struct KeyOwner {
    pub(crate) project: ProjectId,
    pub(crate) scram_salt: [u8; 16],
    pub(crate) scram_iterations: u32,
}

impl Store {
    /// Makes a key.
    ///
    /// # Errors
    /// There is no such project; it has [`MAX_KEYS`] keys; the name or scope is refused.
    pub fn create_key(&self, project: &ProjectId, new: &NewKey) -> Result<MadeKey, StoreError> {
        check_new_key(new)?;
        self.write(|tx, dirty| {
            let owner = key_owner(tx, project)?;
            let count: u64 = tx.query_row(
                "SELECT count(*) FROM api_keys WHERE project = ?1",
                [project.as_str()],
                |r| r.get(0),
            )?;
            if count >= MAX_KEYS {
                return Err(StoreError::Invalid {
                    field: "name",
                    why: "a project has at most 1000 API keys",
                });
            }
            insert_key(tx, &self.sealer, &owner, new, dirty)
        })
    }

    /// A project's keys, oldest first, by their ids.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_keys(
        &self,
        project: &ProjectId,
        part: &Part<u64>,
    ) -> Result<Vec<KeyInfo>, StoreError> {
        self.read(|conn| {
            let sql =
                "SELECT id, name, hint, role, scope_type, scope_values, created_at FROM api_keys
                 WHERE project = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
            let place = (project.as_str(), part.above(), part.sql_limit());
            list(conn, sql, place, |row| {
                Ok(KeyInfo {
                    id: KeyId(row.get(0)?),
                    name: row.get(1)?,
                    hint: row.get(2)?,
                    role: read_role(&row.get::<_, String>(3)?)?,
                    scope: read_scope(&row.get::<_, String>(4)?, &row.get::<_, String>(5)?)?,
                    created_at: time(row.get(6)?)?,
                })
            })
        })
    }

    /// A key's proxy password, for connection strings shown to who uses that key.
    ///
    /// # Errors
    /// There is no such key.
    pub fn proxy_password(&self, key: KeyId) -> Result<Secret, StoreError> {
        self.read(|conn| open_key(conn, &self.sealer, key, Purpose::ProxyPassword))?
            .ok_or_else(|| StoreError::not_found(Entity::ApiKey, key))
    }

    /// A key in full.
    ///
    /// # Errors
    /// There is no such key.
    pub fn full_key(&self, key: KeyId) -> Result<Secret, StoreError> {
        self.read(|conn| open_key(conn, &self.sealer, key, Purpose::ApiKey))?
            .ok_or_else(|| StoreError::not_found(Entity::ApiKey, key))
    }

    /// Deletes a key of that project.
    ///
    /// # Errors
    /// The project has no such key.
    pub fn delete_key(&self, project: &ProjectId, key: KeyId) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            let (hash, sealed): (_, Vec<u8>) = tx
                .query_row(
                    "DELETE FROM api_keys WHERE id = ?1 AND project = ?2 RETURNING hash, sealed_password",
                    (key.0, project.as_str()),
                    |r| Ok((r.get(0)?, r.get(1)?)),
                )
                .optional()?
                .ok_or_else(|| StoreError::not_found(Entity::ApiKey, key))?;
            let hashes = key_hashes(&self.sealer, key, hash, &sealed)?;
            dirty.gone_keys.push(hashes);
            dirty.keys.insert(key);
            dirty.projects.insert(project.clone());
            Ok(())
        })
    }
}

fn check_new_key(new: &NewKey) -> Result<(), StoreError> {
    crate::projects::check_name(&new.name)?;
    match new.scope.values().len() {
        0 if new.scope != Scope::Project => Err(StoreError::Invalid {
            field: "scope_values",
            why: "must name at least one",
        }),
        n if n > MAX_SCOPE_VALUES => Err(StoreError::Invalid {
            field: "scope_values",
            why: "must name at most 1000",
        }),
        _ => Ok(()),
    }
}

fn key_owner(tx: &Transaction<'_>, project: &ProjectId) -> Result<KeyOwner, StoreError> {
    tx.query_row(
        "SELECT scram_salt, scram_iterations FROM projects WHERE id = ?1 AND deleted_at IS NULL",
        [project.as_str()],
        |r| {
            Ok(KeyOwner {
                project: project.clone(),
                scram_salt: r.get(0)?,
                scram_iterations: r.get(1)?,
            })
        },
    )
    .optional()?
    .ok_or_else(|| StoreError::not_found(Entity::Project, project))
}

pub(crate) fn insert_key(
    tx: &Transaction<'_>,
    sealer: &Sealer,
    owner: &KeyOwner,
    new: &NewKey,
    dirty: &mut Dirty,
) -> Result<MadeKey, StoreError> {
    let key = KeyId(next_id(tx, "key")?);
    let api_key = new_api_key()?;
    let proxy_password = new_proxy_password()?;
    let scram = derive(
        proxy_password.expose(),
        owner.scram_salt,
        owner.scram_iterations,
    )?;
    let hint: String = api_key
        .expose()
        .chars()
        .take(API_KEY_PREFIX.len() + HINT_DIGITS)
        .collect();
    tx.execute(
        "INSERT INTO api_keys (id, project, hash, sealed_key, sealed_password, hint, stored_key, server_key, name, role,
             scope_type, scope_values, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        (
            key.0,
            owner.project.as_str(),
            api_key_hash(api_key.expose()),
            sealer.seal(Purpose::ApiKey, key.0, api_key.expose().as_bytes())?,
            sealer.seal(Purpose::ProxyPassword, key.0, proxy_password.expose().as_bytes())?,
            hint + "...",
            stored_key(&scram.client_key),
            scram.server_key,
            new.name.trim(),
            new.role.name(),
            new.scope.type_name(),
            to_json(&new.scope.values())?,
            now_us(),
        ),
    )?;
    dirty.keys.insert(key);
    dirty.projects.insert(owner.project.clone());
    Ok(MadeKey {
        project: owner.project.clone(),
        key,
        api_key,
        proxy_password,
    })
}

pub(crate) fn open_key(
    conn: &Connection,
    sealer: &Sealer,
    key: KeyId,
    purpose: Purpose,
) -> Result<Option<Secret>, StoreError> {
    let column = if purpose == Purpose::ApiKey {
        "sealed_key"
    } else {
        "sealed_password"
    };
    let sealed: Option<Vec<u8>> = conn
        .prepare_cached(&format!("SELECT {column} FROM api_keys WHERE id = ?1"))?
        .query_row([key.0], |r| r.get(0))
        .optional()?;
    sealed
        .map(|sealed| sealer.open_text(purpose, key.0, &sealed))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BlueprintName, TenantId};
    use crate::testing::Fixture;

    #[test]
    fn a_key_is_found_by_its_hash_and_its_password_by_its_keys() {
        let f = Fixture::new();
        let project = f.project();
        let scope = Scope::Tenants(vec![TenantId::new("acme")]);
        let new = NewKey {
            name: "ci".into(),
            role: Role::Read,
            scope: scope.clone(),
        };
        let made = f.store.create_key(&project, &new).unwrap();
        let f = f.reopened();
        let snapshot = f.store.snapshot().load();
        let key = &snapshot.api_keys[&api_key_hash(made.api_key.expose())];
        assert_eq!(
            (key.id, key.role, &key.scope),
            (made.key, Role::Read, &scope)
        );
        let owner = &snapshot.projects[&project];
        let scram = derive(
            made.proxy_password.expose(),
            owner.scram_salt,
            owner.scram_iterations,
        )
        .unwrap();
        assert_eq!(
            (key.stored_key, key.server_key),
            (stored_key(&scram.client_key), scram.server_key)
        );
        assert_eq!(
            f.store.proxy_password(made.key).unwrap().expose(),
            made.proxy_password.expose()
        );
        assert_eq!(
            f.store.full_key(made.key).unwrap().expose(),
            made.api_key.expose()
        );
        f.check();
    }

    #[test]
    fn lists_show_only_the_beginning_of_a_key() {
        let f = Fixture::new();
        let project = f.project();
        let made = f.store.create_key(&project, &NewKey::first()).unwrap();
        let keys = f.store.list_keys(&project, &Part::ALL).unwrap();
        assert_eq!(keys.len(), 2);
        let hint = keys[1].hint.strip_suffix("...").unwrap();
        assert_eq!(hint.len(), API_KEY_PREFIX.len() + 12);
        assert!(made.api_key.expose().starts_with(hint));
    }

    #[test]
    fn a_deleted_key_is_gone_everywhere_and_only_its_project_can_delete_it() {
        let f = Fixture::new();
        let project = f.project();
        let stranger = f.another_project();
        let made = f.store.create_key(&project, &NewKey::first()).unwrap();
        assert!(matches!(
            f.store.delete_key(&stranger, made.key),
            Err(StoreError::NotFound { .. })
        ));
        f.store.delete_key(&project, made.key).unwrap();
        assert!(f.store.delete_key(&project, made.key).is_err());
        assert!(f.store.full_key(made.key).is_err());
        let snapshot = f.store.snapshot().load();
        let hash = |secret: &Secret| api_key_hash(secret.expose());
        assert!(!snapshot.api_keys.contains_key(&hash(&made.api_key)));
        assert!(!snapshot.passwords.contains_key(&hash(&made.proxy_password)));
        f.check();
        f.reopened().check();
    }

    #[test]
    fn a_scope_that_names_nothing_is_refused() {
        let f = Fixture::new();
        let new = NewKey {
            name: "x".into(),
            role: Role::Read,
            scope: Scope::Workspaces(Vec::new()),
        };
        assert!(matches!(
            f.store.create_key(&f.project(), &new).err(),
            Some(StoreError::Invalid {
                field: "scope_values",
                ..
            })
        ));
        let many = (0..=MAX_SCOPE_VALUES)
            .map(|i| BlueprintName::new(format!("w{i}")))
            .collect();
        let new = NewKey {
            scope: Scope::Workspaces(many),
            ..new
        };
        assert!(f.store.create_key(&f.project(), &new).is_err());
    }

    #[test]
    fn subscribers_hear_of_new_and_deleted_keys_after_the_snapshot_shows_them() {
        use std::sync::{Arc, Mutex};
        let f = Fixture::new();
        let project = f.project();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (log, cell) = (Arc::clone(&heard), f.store.snapshot().clone());
        f.store.subscribe(move |event| {
            assert_eq!(cell.load().generation, event.generation);
            log.lock().unwrap().extend(event.keys.clone());
        });
        let made = f.store.create_key(&project, &NewKey::first()).unwrap();
        f.store.delete_key(&project, made.key).unwrap();
        assert!(f.store.delete_key(&project, made.key).is_err());
        assert_eq!(*heard.lock().unwrap(), [made.key, made.key]);
    }
}
