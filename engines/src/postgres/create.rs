//! Making and removing databases and their roles.

use control_store::snapshot::{NativeRole, NativeRoles};
use tokio_postgres::Client;

use super::connect::{error, run, superuser};
use super::{identifier, literal, owner_of, scram, track};
use crate::{DatabaseSpec, DatabaseUse, EngineError, ServerAccess};

/// What the platform keeps for itself in every database.
pub(super) const PLATFORM: &str = "_tenantsdb";

/// What shows other databases or their sessions, and is for nobody. `pg_settings` and what shows one's own session stay.
const HIDDEN_VIEWS: [&str; 22] = [
    "pg_database",
    "pg_db_role_setting",
    "pg_locks",
    "pg_prepared_xacts",
    "pg_replication_origin_status",
    "pg_replication_slots",
    "pg_stat_activity",
    "pg_stat_archiver",
    "pg_stat_bgwriter",
    "pg_stat_database",
    "pg_stat_database_conflicts",
    "pg_stat_gssapi",
    "pg_stat_progress_analyze",
    "pg_stat_progress_basebackup",
    "pg_stat_progress_cluster",
    "pg_stat_progress_copy",
    "pg_stat_progress_create_index",
    "pg_stat_progress_vacuum",
    "pg_stat_replication",
    "pg_stat_ssl",
    "pg_stat_subscription",
    "pg_stat_wal_receiver",
];

/// The same, as functions, and what acts on other sessions.
const HIDDEN_FUNCTIONS: [&str; 12] = [
    "pg_cancel_backend",
    "pg_database_size",
    "pg_get_replication_slots",
    "pg_lock_status",
    "pg_prepared_xact",
    "pg_show_replication_origin_status",
    "pg_stat_get_activity",
    "pg_stat_get_progress_info",
    "pg_stat_get_subscription",
    "pg_stat_get_wal_senders",
    "pg_tablespace_databases",
    "pg_terminate_backend",
];

/// Makes the roles and the database, or what is missing of them.
pub(super) async fn create(
    server: &ServerAccess,
    spec: &DatabaseSpec<'_>,
) -> Result<(), EngineError> {
    let postgres = superuser(server, "postgres").await?;
    // Databases that everybody could enter would show what everybody may see of a server.
    run(
        &postgres,
        "REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC",
    )
    .await?;
    for role in logins(spec.roles) {
        make_login(&postgres, role).await?;
    }
    if spec.usage == DatabaseUse::Tenant {
        make_role(&postgres, &owner_of(spec.roles), "NOLOGIN").await?;
    }
    let known = postgres
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&spec.name])
        .await
        .map_err(|it| error(&it))?;
    if known.is_none() {
        let statement = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'",
            identifier(spec.name)
        );
        run(&postgres, &statement).await?;
    }
    run(&postgres, &database_grants(spec)).await?;
    let inside = superuser(server, spec.name).await?;
    run(&inside, &platform_schema(spec)).await?;
    run(&inside, &schema_grants(spec)).await?;
    if spec.usage == DatabaseUse::TenantWorkspace {
        run(&inside, track::SETUP).await?;
    }
    Ok(())
}

/// Removes the database and its roles.
pub(super) async fn remove(
    server: &ServerAccess,
    name: &str,
    roles: &NativeRoles,
) -> Result<(), EngineError> {
    let postgres = superuser(server, "postgres").await?;
    let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
    run(&postgres, &statement).await?;
    let owner = owner_of(roles);
    let names = logins(roles).map(|role| &*role.name);
    for role in names.into_iter().chain([owner.as_str()]) {
        run(
            &postgres,
            &format!("DROP ROLE IF EXISTS {}", identifier(role)),
        )
        .await?;
    }
    Ok(())
}

fn logins(roles: &NativeRoles) -> [&NativeRole; 3] {
    [&roles.admin, &roles.write, &roles.read]
}

async fn make_login(postgres: &Client, role: &NativeRole) -> Result<(), EngineError> {
    let verifier = scram::verifier(&role.scram);
    make_role(
        postgres,
        &role.name,
        &format!("LOGIN PASSWORD {}", literal(&verifier)),
    )
    .await
}

async fn make_role(postgres: &Client, name: &str, options: &str) -> Result<(), EngineError> {
    let known = postgres
        .query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&name])
        .await
        .map_err(|it| error(&it))?;
    let verb = if known.is_some() { "ALTER" } else { "CREATE" };
    let statement = format!(
        "{verb} ROLE {} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT {options}",
        identifier(name)
    );
    run(postgres, &statement).await
}

/// Who may enter. Nobody owns the database: its owner could rename or drop it.
fn database_grants(spec: &DatabaseSpec<'_>) -> String {
    let name = identifier(spec.name);
    let all = logins(spec.roles)
        .map(|role| identifier(&role.name))
        .join(", ");
    let maker = match spec.usage {
        DatabaseUse::Tenant => owner_of(spec.roles),
        DatabaseUse::TenantWorkspace | DatabaseUse::ControlWorkspace => {
            spec.roles.admin.name.to_string()
        }
    };
    let maker = identifier(&maker);
    format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC;
         GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {all};
         GRANT CONNECT, CREATE ON DATABASE {name} TO {maker};"
    )
}

/// The platform's own schema, and what is taken from everybody.
fn platform_schema(spec: &DatabaseSpec<'_>) -> String {
    let views = HIDDEN_VIEWS.map(literal).join(", ");
    let functions = HIDDEN_FUNCTIONS.map(literal).join(", ");
    let mut text = format!(
        "CREATE SCHEMA IF NOT EXISTS {PLATFORM};
         GRANT USAGE ON SCHEMA {PLATFORM} TO PUBLIC;
         CREATE OR REPLACE FUNCTION {PLATFORM}.session_locks() RETURNS bigint
             LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
             $$ SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted $$;
         DO $$
         DECLARE name text;
         BEGIN
             FOR name IN SELECT c.oid::regclass FROM pg_class c
                 WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relname IN ({views})
             LOOP EXECUTE 'REVOKE ALL ON ' || name || ' FROM PUBLIC'; END LOOP;
             FOR name IN SELECT p.oid::regprocedure FROM pg_proc p
                 WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN ({functions})
             LOOP EXECUTE 'REVOKE ALL ON FUNCTION ' || name || ' FROM PUBLIC'; END LOOP;
         END $$;"
    );
    if spec.usage == DatabaseUse::Tenant {
        let owner = identifier(&owner_of(spec.roles));
        text.push_str(&format!(
            "CREATE TABLE IF NOT EXISTS {PLATFORM}.ledger (
                 change bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());
             GRANT SELECT, INSERT ON {PLATFORM}.ledger TO {owner};"
        ));
    }
    text
}

/// Who may do what with objects, present and future.
fn schema_grants(spec: &DatabaseSpec<'_>) -> String {
    let [admin, write, read] = logins(spec.roles).map(|role| identifier(&role.name));
    let (owner, writers) = match spec.usage {
        DatabaseUse::Tenant => (
            identifier(&owner_of(spec.roles)),
            format!("{admin}, {write}"),
        ),
        DatabaseUse::TenantWorkspace | DatabaseUse::ControlWorkspace => {
            (admin.clone(), write.clone())
        }
    };
    let everybody = format!("{admin}, {write}, {read}");
    let defaults = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {owner}");
    format!(
        "ALTER SCHEMA public OWNER TO {owner};
         REVOKE ALL ON SCHEMA public FROM PUBLIC;
         GRANT USAGE ON SCHEMA public TO {everybody};
         {defaults} GRANT USAGE ON SCHEMAS TO {everybody};
         {defaults} GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLES TO {writers};
         {defaults} GRANT SELECT ON TABLES TO {read};
         {defaults} GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {writers};
         {defaults} GRANT SELECT ON SEQUENCES TO {read};
         {defaults} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
         {defaults} GRANT EXECUTE ON FUNCTIONS TO {everybody};"
    )
}
