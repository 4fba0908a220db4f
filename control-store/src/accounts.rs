//! Accounts: sign up and log in.

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use rusqlite::OptionalExtension as _;

use crate::error::{Entity, StoreError};
use crate::ids::{KeyId, ProjectId, Role};
use crate::keys::{NewKey, insert_key, open_key};
use crate::page::Part;
use crate::projects::{check_name, insert_project};
use crate::seal::Purpose;
use crate::secret::Secret;
use crate::snapshot::Scope;
use crate::store::{Store, lock, next_id, now_us};

/// Longer passwords are refused: hashing them would cost memory and time for nothing.
pub const MAX_PASSWORD_BYTES: usize = 1024;
const MIN_PASSWORD_CHARS: usize = 8;
const MAX_EMAIL_BYTES: usize = 254;

/// A hash of a password that nobody knows, with the same parameters as every other: checking it for an unknown account
/// takes as long as checking a known one.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$dGVuYW50c2RiLW5vYm9keQ$pZqy2Yx8qN1vUO0b1Z0m3Yp2l4V9Jc7h5rT6wK8sXfE";

/// One account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub u64);

/// What someone who just signed up or made a project is shown once.
pub struct NewProject {
    /// The project.
    pub project: ProjectId,
    /// Its first key.
    pub key: KeyId,
    /// The full API key.
    pub api_key: Secret,
    /// The proxy password.
    pub proxy_password: Secret,
}

/// A project as its account sees it after a login.
pub struct LoginProject {
    /// The project.
    pub project: ProjectId,
    /// Its name.
    pub name: String,
    /// A full API key of it that may do everything; `None` where every such key was deleted.
    pub api_key: Option<Secret>,
}

impl Store {
    /// Makes an account, its first project and that project's first key, all or nothing.
    ///
    /// # Errors
    /// The address is taken; a value is refused.
    pub fn sign_up(
        &self,
        email: &str,
        password: &str,
        project: &str,
        tier: &str,
    ) -> Result<NewProject, StoreError> {
        let email = normal_email(email)?;
        check_password(password)?;
        check_name(project)?;
        if self.account_by_email(&email)?.is_some() {
            return Err(StoreError::taken(Entity::Account, email));
        }
        let hash = {
            let _one_at_a_time = lock(&self.hashing);
            Argon2::default()
                .hash_password(password.as_bytes())
                .map_err(|_| StoreError::Crypto)?
                .to_string()
        };
        self.write(|tx, dirty| {
            let account = AccountId(next_id(tx, "account")?);
            tx.execute(
                "INSERT INTO accounts (id, email, password_hash, tier, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                (account.0, &email, &hash, tier, now_us()),
            )
            .map_err(|e| StoreError::unique(e, Entity::Account, &email))?;
            let new = insert_project(tx, account, project)?;
            insert_key(tx, &self.sealer, &new, &NewKey::first(), dirty)
        })
        .map(|made| NewProject {
            project: made.project,
            key: made.key,
            api_key: made.api_key,
            proxy_password: made.proxy_password,
        })
    }

    /// Checks an address and a password, and returns the account. Takes the same time whether the account exists or not.
    ///
    /// # Errors
    /// [`StoreError::LoginFailed`], whichever of the two is wrong.
    pub fn log_in(&self, email: &str, password: &str) -> Result<AccountId, StoreError> {
        let email = normal_email(email).map_err(|_| StoreError::LoginFailed)?;
        let known = self.account_by_email(&email)?;
        let hash = known.as_ref().map_or(NOBODY, |(_, hash)| hash.as_str());
        let right = password.len() <= MAX_PASSWORD_BYTES && {
            let _one_at_a_time = lock(&self.hashing);
            Argon2::default()
                .verify_password(password.as_bytes(), hash)
                .is_ok()
        };
        match known {
            Some((account, _)) if right => Ok(account),
            _ => Err(StoreError::LoginFailed),
        }
    }

    /// All projects of an account, each with a key that may do everything in it.
    ///
    /// # Errors
    /// The store failed.
    pub fn login_projects(&self, account: AccountId) -> Result<Vec<LoginProject>, StoreError> {
        let projects = self.list_projects(account, &Part::ALL)?;
        projects
            .into_iter()
            .map(|p| {
                let api_key = self.usable_key(&p.id)?.map(|(key, _)| key);
                Ok(LoginProject {
                    project: p.id,
                    name: p.name,
                    api_key,
                })
            })
            .collect()
    }

    /// The oldest key of a project that may do everything in it, and its proxy password.
    ///
    /// # Errors
    /// The store failed.
    pub fn usable_key(&self, project: &ProjectId) -> Result<Option<(Secret, Secret)>, StoreError> {
        let id = self.read(|conn| {
            Ok(conn
                .prepare_cached(
                    "SELECT id FROM api_keys WHERE project = ?1 AND role = ?2 AND scope_type = ?3 ORDER BY id LIMIT 1",
                )?
                .query_row((project.as_str(), Role::Admin.name(), Scope::Project.type_name()), |r| r.get(0))
                .optional()?)
        })?;
        let Some(id) = id else { return Ok(None) };
        let full = self.read(|conn| open_key(conn, &self.sealer, KeyId(id), Purpose::ApiKey))?;
        let password =
            self.read(|conn| open_key(conn, &self.sealer, KeyId(id), Purpose::ProxyPassword))?;
        Ok(full.zip(password))
    }

    /// The account of a project, and its tier.
    ///
    /// # Errors
    /// There is no such project.
    pub fn account_of(&self, project: &ProjectId) -> Result<(AccountId, String), StoreError> {
        self.read(|conn| {
            conn.prepare_cached(
                "SELECT a.id, a.tier FROM projects p JOIN accounts a ON a.id = p.account WHERE p.id = ?1",
            )?
            .query_row([project.as_str()], |r| Ok((AccountId(r.get(0)?), r.get(1)?)))
            .optional()?
            .ok_or_else(|| StoreError::not_found(Entity::Project, project))
        })
    }

    fn account_by_email(&self, email: &str) -> Result<Option<(AccountId, String)>, StoreError> {
        self.read(|conn| {
            Ok(conn
                .prepare_cached("SELECT id, password_hash FROM accounts WHERE email = ?1")?
                .query_row([email], |r| Ok((AccountId(r.get(0)?), r.get(1)?)))
                .optional()?)
        })
    }
}

fn normal_email(email: &str) -> Result<String, StoreError> {
    let invalid = |why| StoreError::Invalid {
        field: "email",
        why,
    };
    let email = email.trim();
    if email.len() > MAX_EMAIL_BYTES {
        return Err(invalid("must be at most 254 bytes"));
    }
    match email.split_once('@') {
        Some((user, host))
            if !user.is_empty() && !host.is_empty() && !email.contains(char::is_whitespace) =>
        {
            Ok(email.to_lowercase())
        }
        _ => Err(invalid("must be an email address")),
    }
}

fn check_password(password: &str) -> Result<(), StoreError> {
    let invalid = |why| {
        Err(StoreError::Invalid {
            field: "password",
            why,
        })
    };
    if password.len() > MAX_PASSWORD_BYTES {
        return invalid("must be at most 1024 bytes");
    }
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return invalid("must be at least 8 characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, PASSWORD};

    #[test]
    fn an_account_outlives_the_process_and_its_password_opens_it() {
        let f = Fixture::new();
        let made = f
            .store
            .sign_up("Ann@Example.com", PASSWORD, "Shop", "free")
            .unwrap();
        let f = f.reopened();
        let account = f.store.log_in(" ann@example.COM ", PASSWORD).unwrap();
        let projects = f.store.login_projects(account).unwrap();
        let [project] = &projects[..] else {
            panic!("one project")
        };
        assert_eq!(
            (&project.project, project.name.as_str()),
            (&made.project, "Shop")
        );
        assert_eq!(
            project.api_key.as_ref().unwrap().expose(),
            made.api_key.expose()
        );
        assert_eq!(
            f.store.account_of(&made.project).unwrap(),
            (account, "free".into())
        );
    }

    #[test]
    fn wrong_passwords_and_unknown_accounts_fail_alike() {
        let f = Fixture::new();
        f.store
            .sign_up("ann@example.com", PASSWORD, "Shop", "free")
            .unwrap();
        let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
        for (email, password) in [
            ("ann@example.com", "wrong password"),
            ("bob@example.com", PASSWORD),
            ("", PASSWORD),
            ("ann@example.com", &long),
        ] {
            assert!(
                matches!(
                    f.store.log_in(email, password),
                    Err(StoreError::LoginFailed)
                ),
                "{email}"
            );
        }
    }

    /// Were it unreadable, unknown accounts would fail at once and could be told apart.
    #[test]
    fn the_hash_for_unknown_accounts_costs_what_a_real_one_costs() {
        use argon2::password_hash::phc::PasswordHash;
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let real = Argon2::default().hash_password(b"some password").unwrap();
        assert_eq!(nobody.algorithm, real.algorithm);
        assert_eq!(nobody.params, real.params);
        assert_eq!(nobody.hash.unwrap().len(), real.hash.unwrap().len());
    }

    #[test]
    fn an_address_belongs_to_one_account_in_any_letter_case() {
        let f = Fixture::new();
        f.store
            .sign_up("ann@example.com", PASSWORD, "Shop", "free")
            .unwrap();
        let again = f
            .store
            .sign_up("ANN@example.com", PASSWORD, "Shop", "free")
            .err();
        assert!(matches!(
            again,
            Some(StoreError::Taken {
                what: Entity::Account,
                ..
            })
        ));
        assert_eq!(f.store.snapshot().load().projects.len(), 1);
    }

    #[test]
    fn bad_values_name_their_field() {
        let f = Fixture::new();
        for (email, password, project, field) in [
            ("ann", PASSWORD, "Shop", "email"),
            ("a b@example.com", PASSWORD, "Shop", "email"),
            ("ann@example.com", "1234567", "Shop", "password"),
            ("ann@example.com", PASSWORD, " ", "name"),
        ] {
            let refusal = f.store.sign_up(email, password, project, "free").err();
            assert!(
                matches!(refusal, Some(StoreError::Invalid { field: f, .. }) if f == field),
                "{field}"
            );
        }
    }
}
