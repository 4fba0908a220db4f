//! The names that callers choose, and the names that are made of them.

use crate::error::StoreError;

/// PostgreSQL cuts longer names; MySQL takes one byte more.
pub const MAX_DATABASE_NAME: usize = 63;
const MAX_NAME: usize = 48;

/// Whether a workspace may have that name: `[a-z][a-z0-9_-]{0,47}` without `__`.
///
/// # Errors
/// It may not.
pub fn check_workspace(name: &str) -> Result<(), StoreError> {
    let begins = name
        .bytes()
        .next()
        .is_some_and(|it| it.is_ascii_lowercase());
    let fits = name
        .bytes()
        .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, b'_' | b'-'));
    if begins && fits && name.len() <= MAX_NAME && !name.contains("__") {
        return Ok(());
    }
    Err(StoreError::Invalid {
        field: "name",
        why: "must begin with a letter and have at most 48 lowercase letters, digits, '_' or '-', without '__'",
    })
}

/// Whether a tenant may have that id: `[a-z0-9_]{1,48}` without `__`, and not `workspace`.
///
/// # Errors
/// It may not.
pub fn check_tenant(id: &str) -> Result<(), StoreError> {
    let fits = id
        .bytes()
        .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_');
    let length = (1..=MAX_NAME).contains(&id.len());
    if fits && length && !id.contains("__") && id != "workspace" {
        return Ok(());
    }
    Err(StoreError::Invalid {
        field: "tenant_id",
        why: "must have 1 to 48 lowercase letters, digits or '_', without '__', and not be 'workspace'",
    })
}

/// The name of a workspace's database.
///
/// # Errors
/// It would be too long.
pub fn workspace_database(workspace: &str) -> Result<String, StoreError> {
    checked(format!("{workspace}_workspace"), "name")
}

/// The name of a tenant's database.
///
/// # Errors
/// It would be too long.
pub fn tenant_database(blueprint: &str, tenant: &str) -> Result<String, StoreError> {
    checked(format!("{blueprint}__{tenant}"), "tenant_id")
}

fn checked(name: String, field: &'static str) -> Result<String, StoreError> {
    if name.len() <= MAX_DATABASE_NAME {
        return Ok(name);
    }
    Err(StoreError::Invalid {
        field,
        why: "is too long: the name of its database may have at most 63 bytes",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for (name, good) in [
            ("shop", true),
            ("a-b_c9", true),
            ("", false),
            ("9a", false),
            ("Shop", false),
            ("a__b", false),
            (&"a".repeat(49), false),
        ] {
            assert_eq!(check_workspace(name).is_ok(), good, "{name}");
        }
        for (id, good) in [
            ("acme", true),
            ("9_lives", true),
            ("a-b", false),
            ("workspace", false),
            ("a__b", false),
            ("", false),
        ] {
            assert_eq!(check_tenant(id).is_ok(), good, "{id}");
        }
        assert!(tenant_database(&"b".repeat(40), &"t".repeat(21)).is_ok());
        assert!(tenant_database(&"b".repeat(40), &"t".repeat(22)).is_err());
    }
}
