//! Redis and Valkey, from version 7.0.
//!
//! A server holds many databases: each has a logical database of its own and a prefix for its keys and channels. Its three
//! roles are limited to both, see [`acl`]. A server that is a database's own needs neither.

mod acl;
mod connect;
mod databases;
mod prepare;
mod size;
mod table;

use std::sync::Arc;

use ::redis::cmd;
use async_trait::async_trait;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control_store::Secret;
use control_store::ids::Engine;
use control_store::servers::RedisServer;
use control_store::snapshot::{NativeRole, NativeRoles, ScramKeys};

use crate::{
    ApplyOptions, Change, DatabaseEngine, DatabaseSpec, EngineError, ServerAccess, ServerReport,
    ServerUse, Table, TrackedChange,
};

pub(crate) use acl::platform_users;
pub use prepare::preparation;

/// Who may do everything on a server that we made.
pub const ADMIN_USER: &str = "tenantsdb_admin";
/// Logical databases of a shared server. Saving the users takes Redis 7.0 a moment for each of them, 3 for a database, the first time
/// after a start (0.5 to 2 ms each), and it does nothing else meanwhile; so a server that everybody's are on would stand still for
/// seconds. Another server costs 12 MB.
pub const SHARED_DATABASES: u32 = 256;

/// Does to Redis servers what the control plane wants done.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisEngine;

/// What a new server is made with. One that is not shared needs a single logical database.
///
/// # Errors
/// The system gives no random bytes.
pub fn new_server(shared: bool) -> Result<RedisServer, EngineError> {
    Ok(RedisServer {
        databases: if shared { SHARED_DATABASES } else { 1 },
        admin_user: ADMIN_USER.into(),
        admin_password: Secret::new(new_password()?),
        select_password: Secret::new(new_password()?),
    })
}

#[async_trait]
impl DatabaseEngine for RedisEngine {
    fn engine(&self) -> Engine {
        Engine::Redis
    }

    fn new_roles(&self) -> Result<NativeRoles, EngineError> {
        let role = || {
            let name: String = random::<8>()?
                .iter()
                .map(|it| format!("{it:02x}"))
                .collect();
            Ok(Arc::new(NativeRole {
                name: format!("tdb_{name}").into(),
                password: new_password()?.into(),
                scram: ScramKeys::default(),
            }))
        };
        Ok(NativeRoles {
            admin: role()?,
            write: role()?,
            read: role()?,
        })
    }

    async fn create_database(
        &self,
        server: &ServerAccess,
        spec: &DatabaseSpec<'_>,
    ) -> Result<(), EngineError> {
        databases::create(server, spec).await
    }

    fn loses_roles(&self) -> bool {
        true
    }

    async fn restore_roles(
        &self,
        server: &ServerAccess,
        databases: &[DatabaseSpec<'_>],
    ) -> Result<(), EngineError> {
        databases::create_all(server, databases).await
    }

    async fn drop_database(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
    ) -> Result<(), EngineError> {
        databases::remove(server, database).await
    }

    async fn set_open(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
        open: bool,
    ) -> Result<(), EngineError> {
        if open {
            databases::create(server, database).await
        } else {
            databases::close(server, database).await
        }
    }

    async fn database_size(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
    ) -> Result<u64, EngineError> {
        size::estimate(server, database).await
    }

    async fn ping(&self, server: &ServerAccess) -> Result<String, EngineError> {
        let mut admin = connect::admin(server, 0).await?;
        let mut info = cmd("INFO");
        info.arg("server");
        let info: String = connect::ask(&mut admin, &info).await?;
        let life = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        Ok(life.unwrap_or_default().to_owned())
    }

    async fn prepare_server(
        &self,
        server: &ServerAccess,
        usage: &ServerUse<'_>,
    ) -> Result<ServerReport, EngineError> {
        prepare::prepare(server, usage).await
    }

    /// Nothing: there is no schema whose changes could be tracked.
    async fn tracked_changes(
        &self,
        _server: &ServerAccess,
        _database: &str,
        _after: i64,
    ) -> Result<Vec<TrackedChange>, EngineError> {
        Ok(Vec::new())
    }

    /// A deployment brings settings alone, which the proxy applies.
    async fn apply(
        &self,
        _server: &ServerAccess,
        _database: &str,
        _roles: &NativeRoles,
        changes: &[Change],
        _options: &ApplyOptions,
    ) -> Result<Vec<i64>, EngineError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        Err(EngineError::Unsupported(
            "a Redis blueprint has settings and no schema changes",
        ))
    }

    /// Nothing: keys have no schema.
    async fn schema(
        &self,
        _server: &ServerAccess,
        _database: &str,
    ) -> Result<Vec<Table>, EngineError> {
        Ok(Vec::new())
    }
}

/// 256 random bits in 43 characters.
fn new_password() -> Result<String, EngineError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

fn random<const N: usize>() -> Result<[u8; N], EngineError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| EngineError::Random)?;
    Ok(bytes)
}
