//! PostgreSQL.

mod apply;
mod check;
mod connect;
mod create;
mod drift;
mod dump;
mod harden;
mod preparation;
mod rights;
mod schema;
pub mod scram;
mod track;

pub use dump::SchemaSource;
pub use preparation::preparation;

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::rand;
use control_store::ids::Engine;
use control_store::snapshot::NativeRoles;

use crate::{
    ApplyOptions, Change, DatabaseEngine, DatabaseSpec, EngineError, SchemaPair, ServerAccess,
    ServerReport, ServerUse, Table, TrackedChange,
};

/// Does to PostgreSQL servers what the control plane wants done, as their superuser or as somebody who may make roles and databases.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresEngine;

#[async_trait]
impl DatabaseEngine for PostgresEngine {
    fn engine(&self) -> Engine {
        Engine::Postgres
    }

    fn new_roles(&self) -> Result<NativeRoles, EngineError> {
        let role = || {
            let name = format!("tdb_{}", random_hex::<8>()?);
            scram::generate_role(&name)
                .map(Arc::new)
                .map_err(|_| EngineError::Random)
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
        create::create(server, spec).await
    }

    async fn drop_database(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
    ) -> Result<(), EngineError> {
        create::remove(server, database.name, database.roles).await
    }

    async fn set_open(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
        open: bool,
    ) -> Result<(), EngineError> {
        create::set_open(server, database.name, open).await
    }

    async fn database_size(
        &self,
        server: &ServerAccess,
        database: &DatabaseSpec<'_>,
    ) -> Result<u64, EngineError> {
        create::size(server, database.name).await
    }

    async fn ping(&self, server: &ServerAccess) -> Result<String, EngineError> {
        let client = connect::administrator(server, "postgres").await?;
        let started = client
            .query_one("SELECT pg_postmaster_start_time()::text", &[])
            .await
            .map_err(|it| connect::error(&it))?;
        Ok(started.get(0))
    }

    async fn prepare_server(
        &self,
        server: &ServerAccess,
        usage: &ServerUse<'_>,
    ) -> Result<ServerReport, EngineError> {
        check::check(server, usage).await
    }

    async fn tracked_changes(
        &self,
        server: &ServerAccess,
        database: &str,
        after: i64,
    ) -> Result<Vec<TrackedChange>, EngineError> {
        track::changes(server, database, after).await
    }

    async fn apply(
        &self,
        server: &ServerAccess,
        database: &str,
        roles: &NativeRoles,
        changes: &[Change],
        options: &ApplyOptions,
    ) -> Result<Vec<i64>, EngineError> {
        apply::apply(server, database, roles, changes, options).await
    }

    async fn schema(
        &self,
        server: &ServerAccess,
        database: &str,
    ) -> Result<Vec<Table>, EngineError> {
        schema::tables(server, database).await
    }

    async fn schemas(
        &self,
        server: &ServerAccess,
        database: &str,
        roles: &NativeRoles,
        changes: &[Change],
        options: &ApplyOptions,
    ) -> Result<SchemaPair, EngineError> {
        drift::schemas(server, database, roles, changes, options).await
    }

    async fn clear_scratch(&self, server: &ServerAccess) -> Result<(), EngineError> {
        drift::clear(server).await
    }
}

impl PostgresEngine {
    /// The statements that make a database's schema, without the platform's own: see [`SchemaSource::statements`].
    ///
    /// # Errors
    /// The server cannot be reached, or `pg_dump` is missing or older than it.
    pub async fn schema_statements(
        &self,
        server: &ServerAccess,
        database: &str,
    ) -> Result<Vec<String>, EngineError> {
        SchemaSource::managed(server, database).statements().await
    }
}

fn random_hex<const N: usize>() -> Result<String, EngineError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| EngineError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// `"name"`.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `'text'`; our servers take backslashes as they are.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The role that owns a tenant's objects, and that deployments run as.
fn owner_of(roles: &NativeRoles) -> String {
    format!("{}_owner", roles.admin.name)
}
