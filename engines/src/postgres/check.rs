//! Whether a server that exists already is as our databases need it.

use tokio_postgres::Client;

use super::connect::{administrator, code, error, run};
use super::rights::{Rights, SETTINGS};
use super::{identifier, literal, preparation};
use crate::{EngineError, ServerAccess, ServerReport, ServerUse};

/// The first with rights on parameters and without everybody's right to create in `public`.
const OLDEST: i32 = 150_000;
/// Connections that the control plane makes beside those of the proxy.
const OURS: i64 = 20;
/// Databases of providers that none of their customers can close, and none can enter.
const PROVIDERS: [&str; 5] = [
    "rdsadmin",
    "cloudsqladmin",
    "alloydbadmin",
    "azure_maintenance",
    "azure_sys",
];

/// Looks at the server; changes nothing.
pub(super) async fn check(
    server: &ServerAccess,
    usage: &ServerUse<'_>,
) -> Result<ServerReport, EngineError> {
    let postgres = administrator(server, "postgres").await?;
    let mut report = ServerReport::default();
    if !version(&postgres, &mut report).await? {
        return Ok(report);
    }
    let superuser = rights(&postgres, &mut report).await?;
    if !superuser {
        may_set(&postgres, &mut report).await?;
        templates(&postgres, usage, &mut report).await?;
    }
    open_databases(&postgres, &mut report).await?;
    settings(&postgres, usage, &mut report).await?;
    Ok(report)
}

async fn version(postgres: &Client, report: &mut ServerReport) -> Result<bool, EngineError> {
    let row = one(
        postgres,
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery()",
    )
    .await?;
    let (number, text, standby): (i32, String, bool) = (row.get(0), row.get(1), row.get(2));
    if standby {
        report.problem("it is a standby, which takes no writes: name the primary".into());
    }
    if number < OLDEST {
        report.problem(format!(
            "it is PostgreSQL {text}: version 15 or newer is needed"
        ));
    }
    Ok(number >= OLDEST)
}

async fn rights(postgres: &Client, report: &mut ServerReport) -> Result<bool, EngineError> {
    let row = one(
        postgres,
        "SELECT rolname::text, rolsuper, rolcreaterole, rolcreatedb, pg_has_role('pg_signal_backend', 'USAGE')
         FROM pg_roles WHERE rolname = current_user",
    )
    .await?;
    let user = identifier(row.get(0));
    if row.get(1) {
        return Ok(true);
    }
    for (column, lacks, statement) in [
        (2, "CREATEROLE", format!("ALTER ROLE {user} CREATEROLE")),
        (3, "CREATEDB", format!("ALTER ROLE {user} CREATEDB")),
        (
            4,
            "pg_signal_backend",
            format!("GRANT pg_signal_backend TO {user}"),
        ),
    ] {
        if !row.get::<_, bool>(column) {
            report.problem(format!("the user {user} lacks {lacks}: run {statement}"));
        }
    }
    Ok(false)
}

async fn may_set(postgres: &Client, report: &mut ServerReport) -> Result<(), EngineError> {
    let rights = Rights::of(postgres).await?;
    for (name, _) in SETTINGS {
        if !rights.settings().any(|(may, _)| may == name) {
            report.note(format!(
                "the user may not set {name} for databases: have a superuser run what `tenantsdb prepare` prints"
            ));
        }
    }
    Ok(())
}

/// Where the user is no superuser, databases are made of templates that one has made; or without, where a provider lets others
/// make event triggers and the operator knows what else is missing.
async fn templates(
    postgres: &Client,
    usage: &ServerUse<'_>,
    report: &mut ServerReport,
) -> Result<(), EngineError> {
    let row = postgres
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE datistemplate AND shobj_description(oid, 'pg_database') = $2)
             FROM pg_database WHERE datname = ANY ($1)",
            &[&preparation::templates(), &preparation::VERSION],
        )
        .await
        .map_err(|it| error(&it))?;
    let (there, current): (i64, i64) = (row.get(0), row.get(1));
    let all = i64::try_from(preparation::templates().len()).unwrap_or(i64::MAX);
    if current == all {
        return Ok(());
    }
    if there > 0 {
        report.problem(
            "its templates were made by another version: run what `tenantsdb prepare` prints again"
                .into(),
        );
    } else if !may_make_event_triggers(postgres).await? {
        report.problem(
            "the user is no superuser and may not make event triggers: have a superuser run what `tenantsdb prepare` prints"
                .into(),
        );
    } else if !usage.names_visible {
        report.problem(
            "the user is no superuser, so that tenants of this server could see the names of each other's databases: have a \
             superuser run what `tenantsdb prepare` prints, or accept it with names_visible = true"
                .into(),
        );
    }
    Ok(())
}

async fn may_make_event_triggers(postgres: &Client) -> Result<bool, EngineError> {
    let tried = run(
        postgres,
        "BEGIN;
         CREATE FUNCTION pg_temp.tried() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER _tenantsdb_tried ON sql_drop EXECUTE FUNCTION pg_temp.tried()",
    )
    .await;
    run(postgres, "ROLLBACK").await?;
    match tried {
        Ok(()) => Ok(true),
        Err(refused) if code(&refused).is_some() => Ok(false),
        Err(lost) => Err(lost),
    }
}

async fn open_databases(postgres: &Client, report: &mut ServerReport) -> Result<(), EngineError> {
    let rows = postgres
        .query(
            "SELECT datname::text FROM pg_database d
             WHERE datallowconn AND datname <> ALL ($1) AND EXISTS (
                 SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                 WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT')
             ORDER BY datname",
            &[&PROVIDERS.as_slice()],
        )
        .await
        .map_err(|it| error(&it))?;
    let names: Vec<String> = rows.iter().map(|row| identifier(row.get(0))).collect();
    if !names.is_empty() {
        let names = names.join(", ");
        report.problem(format!(
            "every role may connect to {names}: run REVOKE ALL ON DATABASE {names} FROM PUBLIC"
        ));
    }
    Ok(())
}

async fn settings(
    postgres: &Client,
    usage: &ServerUse<'_>,
    report: &mut ServerReport,
) -> Result<(), EngineError> {
    let row = one(
        postgres,
        "SELECT current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
             current_setting('max_prepared_transactions')::bigint, current_setting('log_statement')",
    )
    .await?;
    let (room, prepared, logged): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
    if room < i64::from(usage.connections) + OURS {
        report.note(format!(
            "it takes {room} connections: with those of the control plane, connections = {} is too many",
            usage.connections
        ));
    }
    if prepared > 0 {
        report.note(
            "max_prepared_transactions is not 0: a tenant can prepare a transaction that holds its locks for ever".into(),
        );
    }
    if logged != "none" {
        report.note(format!(
            "log_statement is {}: what tenants send stands in its log",
            literal(&logged)
        ));
    }
    Ok(())
}

async fn one(postgres: &Client, asked: &str) -> Result<tokio_postgres::Row, EngineError> {
    postgres
        .query_one(asked, &[])
        .await
        .map_err(|it| error(&it))
}
