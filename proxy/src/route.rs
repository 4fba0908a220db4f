//! From what a login named to where its statements go.

use std::sync::Arc;

use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, Server, Snapshot,
};
use control_store::{DatabaseId, Fault};

/// What a session needs to know of its database, until its gate's word changes.
#[derive(Clone)]
pub struct Route {
    /// The database, with its settings.
    pub database: Arc<Database>,
    /// Where it is.
    pub server: Arc<Server>,
    /// The role to log in with there.
    pub native_role: Arc<NativeRole>,
    /// What happens to schema changes.
    pub ddl: DdlPolicy,
}

/// What happens to schema changes on a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DdlPolicy {
    /// Refused: tenants change by deployment.
    Refuse,
    /// Passed on; the server's own privileges decide, and a workspace in tenant mode tracks them.
    Pass,
}

/// Finds what an authenticated client named.
///
/// # Errors
/// [`Fault::UnknownDatabase`] if it does not exist, is in the trash or is outside the key's scope: the three look alike.
/// Otherwise what keeps it from being used.
pub fn find(snapshot: &Snapshot, key: &Key, name: &DatabaseName) -> Result<Route, Fault> {
    if name.project != key.project {
        return Err(Fault::UnknownDatabase);
    }
    let id = snapshot.names.get(name).ok_or(Fault::UnknownDatabase)?;
    renew(snapshot, key, *id)
}

/// Looks up a session's database again, after its gate's word has changed.
///
/// # Errors
/// As [`find`].
pub fn renew(snapshot: &Snapshot, key: &Key, id: DatabaseId) -> Result<Route, Fault> {
    let database = snapshot.databases.get(&id).ok_or(Fault::UnknownDatabase)?;
    if database.project != key.project || !key.scope.allows(database) {
        return Err(Fault::UnknownDatabase);
    }
    match database.status {
        DatabaseStatus::Ready => {}
        DatabaseStatus::Suspended => return Err(Fault::Suspended),
        DatabaseStatus::NotReady => return Err(Fault::NotReady),
        DatabaseStatus::Deleted => return Err(Fault::UnknownDatabase),
    }
    let server = snapshot
        .servers
        .get(&database.server)
        .ok_or(Fault::BackendUnavailable)?;
    Ok(Route {
        native_role: Arc::clone(database.native_roles.for_role(key.role)),
        server: Arc::clone(server),
        ddl: ddl_policy(&database.kind),
        database: Arc::clone(database),
    })
}

fn ddl_policy(kind: &DatabaseKind) -> DdlPolicy {
    match kind {
        DatabaseKind::Tenant { .. } => DdlPolicy::Refuse,
        DatabaseKind::TenantWorkspace | DatabaseKind::ControlWorkspace => DdlPolicy::Pass,
    }
}

#[cfg(test)]
mod tests;
