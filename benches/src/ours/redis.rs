//! The snapshot of a shared Redis server with one tenant's database.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use control_store::ids::{BlueprintName, Engine, ProjectId, Role, TenantId};
use control_store::redis::SELECT_USER;
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    RedisDatabase, RedisKeySettings, Scope, ScramKeys, Snapshot,
};
use control_store::{DatabaseId, KeyId};

use super::{PROJECT, PROXY_PASSWORD, SERVER};
use crate::contender::Endpoint;

/// The database.
pub const DATABASE: &str = "bench__acme";
/// The logical database that its keys are in.
pub const NUMBER: u32 = 3;
/// What its keys begin with.
pub const PREFIX: &str = "1z:";
/// The password of the platform's user.
pub const SELECT_PASSWORD: &str = "select";
const TENANT: &str = "acme";

/// How a load logs in on `port`.
pub(super) fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        port,
        user: TENANT.into(),
        password: PROXY_PASSWORD.into(),
        database: String::new(),
        tls: false,
    }
}

/// Where its keys are.
#[must_use]
pub fn place() -> RedisDatabase {
    RedisDatabase {
        number: NUMBER,
        prefix: PREFIX.as_bytes().into(),
        settings: RedisKeySettings::default(),
    }
}

/// As whom the proxy logs in to the server.
#[must_use]
pub fn roles() -> NativeRoles {
    NativeRoles {
        admin: role("bench_admin", "admin"),
        write: role("bench_write", "write"),
        read: role("bench_read", "read"),
    }
}

fn role(name: &str, password: &str) -> Arc<NativeRole> {
    Arc::new(NativeRole {
        name: name.into(),
        password: password.into(),
        scram: ScramKeys::default(),
    })
}

pub(super) fn snapshot(server: SocketAddr) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let project = ProjectId::new(PROJECT);
    let select = role(SELECT_USER, SELECT_PASSWORD);
    let entry = super::server(Engine::Redis, server, Some(select));
    snapshot.servers.insert(SERVER, Arc::new(entry));
    let database = Database {
        id: DatabaseId(1),
        project: project.clone(),
        engine: Engine::Redis,
        name: DATABASE.into(),
        blueprint: BlueprintName::new("bench"),
        kind: DatabaseKind::Tenant {
            tenant: TenantId::new(TENANT),
        },
        server: SERVER,
        status: DatabaseStatus::Ready,
        native_roles: roles(),
        settings: super::settings(),
        pool_mode: PoolMode::Transaction,
        schema_epoch: 0,
        redis: Some(place()),
    };
    let name = DatabaseName {
        project: project.clone(),
        engine: Engine::Redis,
        name: Arc::clone(&database.name),
    };
    snapshot.names.insert(name, database.id);
    snapshot.redis.insert(&database);
    snapshot.databases.insert(database.id, Arc::new(database));
    let key = Arc::new(Key {
        id: KeyId(1),
        project,
        role: Role::Admin,
        scope: Scope::Project,
        stored_key: [0; 32],
        server_key: [0; 32],
    });
    let hash = digest::digest(&digest::SHA256, PROXY_PASSWORD.as_bytes());
    if let Ok(hash) = hash.as_ref().try_into() {
        snapshot.passwords.insert(hash, key);
    }
    snapshot
}
