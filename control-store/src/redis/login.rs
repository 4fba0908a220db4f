//! Who logs in to Redis, and to which database: `AUTH` hands over a password in clear, and names a tenant or a workspace
//! where other engines' logins name a project and a database.

use std::sync::Arc;

use crate::fault::Fault;
use crate::ids::{DatabaseId, Engine, ProjectId, TenantId};
use crate::names::workspace_database;
use crate::snapshot::{DatabaseName, Key, Scope, Snapshot};

/// The user that reaches a project's only Redis workspace.
const WORKSPACE: &str = "workspace";
/// What `AUTH` with a password alone stands for, as on a Redis server.
const DEFAULT: &str = "default";

const AMBIGUOUS: Fault = Fault::Unsupported {
    what: "the user fits several Redis databases: log in as {blueprint}__{tenant} or {workspace}_workspace",
};

/// Finds the key and the database of a login. `password_sha256` is that of an API key or of a proxy password. `user` is a
/// tenant's id, a workspace's name, `workspace`, or a database's name; none or `default` means the only database that the
/// key opens. Where a tenant and a workspace have the same name, the tenant is meant;
/// where a tenant has the name of a database, the database.
///
/// # Errors
/// [`Fault::AuthFailed`] if no key has that password, whoever `user` may be: it is not looked at before. With a key that is
/// in force, [`Fault::UnknownDatabase`] if there is none by that name or the key does not open it, which look alike; and a
/// sentence if there are several that the key opens.
pub fn redis_login(
    snapshot: &Snapshot,
    user: Option<&str>,
    password_sha256: &[u8; 32],
) -> Result<(Arc<Key>, DatabaseId), Fault> {
    let (as_key, as_password) = (
        snapshot.api_keys.get(password_sha256),
        snapshot.passwords.get(password_sha256),
    );
    let key = as_key.or(as_password).ok_or(Fault::AuthFailed)?;
    let database = match user {
        None | Some(DEFAULT) => only_one(of_scope(snapshot, key)),
        Some(user) => named(snapshot, &key.project, user, |id| opens(snapshot, key, *id)),
    }?;
    Ok((Arc::clone(key), database))
}

/// The user that connection strings of a database show: `short`, a tenant's id or a workspace's name, if that is enough to tell it
/// from all others of the project, else its name.
pub fn redis_user<'a>(
    snapshot: &Snapshot,
    project: &ProjectId,
    database: &'a str,
    short: &'a str,
) -> &'a str {
    let meant = by_name(snapshot, project, database);
    let found = named(snapshot, project, short, |_| true).ok();
    if meant.is_some() && meant == found {
        short
    } else {
        database
    }
}

/// What a user's name stands for, among what the key opens. A database's own name comes first: it means the same for every key.
fn named(
    snapshot: &Snapshot,
    project: &ProjectId,
    user: &str,
    opened: impl Fn(&DatabaseId) -> bool,
) -> Result<DatabaseId, Fault> {
    if let Some(id) = by_name(snapshot, project, user).filter(&opened) {
        return Ok(id);
    }
    let tenant = TenantId::new(user);
    match only_one(snapshot.redis.of_tenant(project, &tenant).filter(&opened)) {
        Err(Fault::UnknownDatabase) => {}
        found => return found,
    }
    let of_workspace = workspace_database(user)
        .ok()
        .and_then(|name| by_name(snapshot, project, &name));
    if let Some(id) = of_workspace.filter(&opened) {
        return Ok(id);
    }
    if user == WORKSPACE {
        // Counted before the scope is looked at: what a connection string reaches is the same for all keys.
        let found = only_one(snapshot.redis.of_workspaces(project));
        return match found {
            Ok(id) if opened(&id) => Ok(id),
            Err(AMBIGUOUS) if snapshot.redis.of_workspaces(project).any(|id| opened(&id)) => {
                Err(AMBIGUOUS)
            }
            _ => Err(Fault::UnknownDatabase),
        };
    }
    Err(Fault::UnknownDatabase)
}

fn by_name(snapshot: &Snapshot, project: &ProjectId, name: &str) -> Option<DatabaseId> {
    let name = DatabaseName {
        project: project.clone(),
        engine: Engine::Redis,
        name: name.into(),
    };
    snapshot.names.get(&name).copied()
}

/// Everything that the key opens.
fn of_scope<'a>(snapshot: &'a Snapshot, key: &'a Key) -> Box<dyn Iterator<Item = DatabaseId> + 'a> {
    let (index, project) = (&snapshot.redis, &key.project);
    match &key.scope {
        Scope::Project => Box::new(index.of_project(project)),
        Scope::Workspaces(names) => Box::new(
            names
                .iter()
                .flat_map(|name| index.of_blueprint(project, name)),
        ),
        Scope::Tenants(ids) => Box::new(ids.iter().flat_map(|id| index.of_tenant(project, id))),
    }
}

fn opens(snapshot: &Snapshot, key: &Key, id: DatabaseId) -> bool {
    let database = snapshot.databases.get(&id);
    database.is_some_and(|it| it.project == key.project && key.scope.allows(it))
}

/// Looks at two at most; a scope that lists a name twice still means one database.
fn only_one(mut found: impl Iterator<Item = DatabaseId>) -> Result<DatabaseId, Fault> {
    let first = found.next().ok_or(Fault::UnknownDatabase)?;
    match found.find(|it| *it != first) {
        None => Ok(first),
        Some(_) => Err(AMBIGUOUS),
    }
}

#[cfg(test)]
mod tests;
