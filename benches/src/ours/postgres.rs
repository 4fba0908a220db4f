//! The snapshot of a PostgreSQL server with one database.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use control_store::ids::{BlueprintName, Engine, ProjectId, Role};
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    Project, Scope, Snapshot,
};
use control_store::{DatabaseId, KeyId, scram};

use super::{PROJECT, PROXY_PASSWORD, SERVER};
use crate::contender::Endpoint;
use crate::rivals::postgres::{DATABASE, PASSWORD, SALT, USER};

/// How a load logs in on `port`.
pub(super) fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        port,
        user: PROJECT.into(),
        password: PROXY_PASSWORD.into(),
        database: DATABASE.into(),
        tls: false,
    }
}

pub(super) fn snapshot(server: SocketAddr) -> Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    let project = ProjectId::new(PROJECT);
    let keys = scram::derive(PROXY_PASSWORD, SALT, scram::ITERATIONS)?;
    let key = Arc::new(Key {
        id: KeyId(1),
        project: project.clone(),
        role: Role::Admin,
        scope: Scope::Project,
        stored_key: scram::stored_key(&keys.client_key),
        server_key: keys.server_key,
    });
    let entry = Project {
        id: project.clone(),
        scram_salt: SALT,
        scram_iterations: scram::ITERATIONS,
        keys: vec![key],
    };
    snapshot.projects.insert(project.clone(), Arc::new(entry));
    let role = Arc::new(NativeRole {
        name: USER.into(),
        password: PASSWORD.into(),
        scram: scram::derive(PASSWORD, SALT, scram::ITERATIONS)?,
    });
    let entry = super::server(Engine::Postgres, server, None);
    snapshot.servers.insert(SERVER, Arc::new(entry));
    let database = Database {
        id: DatabaseId(1),
        project: project.clone(),
        engine: Engine::Postgres,
        name: DATABASE.into(),
        blueprint: BlueprintName::new("bench"),
        kind: DatabaseKind::ControlWorkspace,
        server: SERVER,
        status: DatabaseStatus::Ready,
        native_roles: NativeRoles {
            admin: Arc::clone(&role),
            write: Arc::clone(&role),
            read: role,
        },
        settings: super::settings(),
        pool_mode: PoolMode::Transaction,
        schema_epoch: 0,
        redis: None,
    };
    snapshot.databases.insert(DatabaseId(1), Arc::new(database));
    let name = DatabaseName {
        project,
        engine: Engine::Postgres,
        name: DATABASE.into(),
    };
    snapshot.names.insert(name, DatabaseId(1));
    Ok(snapshot)
}

/// The verifier that gives the server's role the salt which our keys are derived with.
///
/// # Errors
/// When the library refuses.
pub fn server_verifier() -> Result<String> {
    let keys = scram::derive(PASSWORD, SALT, scram::ITERATIONS).context("no keys")?;
    Ok(engines::postgres::scram::verifier(&keys))
}
