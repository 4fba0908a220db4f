//! The wall: what a native role can do when nothing stands before it. No proxy and no classifier takes part in these tests.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::process::Command;

use common::{Lab, change, spec};
use control_store::snapshot::{NativeRole, NativeRoles};
use engines::postgres::PostgresEngine;
use engines::{ApplyOptions, DatabaseEngine as _, DatabaseUse};
use protocol_sql::{Effects, Options, classify};
use tokio_postgres::Client;

/// What no role of a tenant may do, by any of these ways.
const NEVER: &[&str] = &[
    // Everything that shapes a schema.
    "CREATE TABLE x (a int)",
    "CREATE TABLE public.x AS SELECT 1",
    "CREATE TABLE _tenantsdb.x (a int)",
    "SELECT 1 INTO x",
    "CREATE UNLOGGED TABLE x (a int)",
    "CREATE TABLE x PARTITION OF a DEFAULT",
    "CREATE SCHEMA s",
    "CREATE SCHEMA s CREATE TABLE t (a int)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE MATERIALIZED VIEW v AS SELECT 1",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE PROCEDURE f() LANGUAGE sql AS 'SELECT 1'",
    "CREATE AGGREGATE g(int) (SFUNC = int4pl, STYPE = int)",
    "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
    "CREATE TYPE t AS ENUM ('a')",
    "CREATE TYPE t AS (a int)",
    "CREATE TYPE t AS RANGE (SUBTYPE = int)",
    "CREATE DOMAIN d AS int",
    "CREATE COLLATION c FROM \"C\"",
    "CREATE CONVERSION c FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1",
    "CREATE CAST (int AS text) WITH INOUT",
    "CREATE SEQUENCE s",
    "CREATE STATISTICS s ON id, name FROM a",
    "CREATE TEXT SEARCH CONFIGURATION c (COPY = pg_catalog.english)",
    "CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = simple)",
    "CREATE INDEX ON a (name)",
    "CREATE INDEX CONCURRENTLY ON a (name)",
    "CREATE TRIGGER t BEFORE INSERT ON a EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE r AS ON INSERT TO a DO NOTHING",
    "CREATE POLICY p ON a",
    "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION _tenantsdb.guard_start()",
    "CREATE EXTENSION hstore",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION postgres_fdw",
    "CREATE EXTENSION file_fdw",
    "CREATE EXTENSION adminpack",
    "CREATE EXTENSION pg_stat_statements",
    "CREATE EXTENSION plpython3u",
    "CREATE LANGUAGE plperlu",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE c AS '/tmp/x.so'",
    "CREATE FOREIGN DATA WRAPPER w",
    "CREATE SERVER s FOREIGN DATA WRAPPER w",
    "CREATE USER MAPPING FOR CURRENT_USER SERVER s",
    "CREATE FOREIGN TABLE t (a int) SERVER s",
    "IMPORT FOREIGN SCHEMA public FROM SERVER s INTO public",
    "CREATE PUBLICATION p",
    "CREATE PUBLICATION p FOR ALL TABLES",
    "CREATE ACCESS METHOD m TYPE INDEX HANDLER bthandler",
    "ALTER TABLE a ADD COLUMN b int",
    "ALTER TABLE a DISABLE TRIGGER ALL",
    "ALTER TABLE a OWNER TO CURRENT_USER",
    "ALTER TABLE a RENAME TO b",
    "ALTER TABLE a ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE a SET SCHEMA pg_temp",
    "ALTER SCHEMA public RENAME TO other",
    "ALTER FUNCTION twice(int) OWNER TO CURRENT_USER",
    "ALTER FUNCTION _tenantsdb.session_locks() RESET ALL",
    "ALTER EVENT TRIGGER _tenantsdb_guard_start DISABLE",
    "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES FOR ROLE tenantsdb GRANT ALL ON TABLES TO PUBLIC",
    "ALTER EXTENSION plpgsql UPDATE",
    "ALTER LANGUAGE plpgsql OWNER TO CURRENT_USER",
    "ALTER LARGE OBJECT 1 OWNER TO CURRENT_USER",
    "DROP TABLE a",
    "DROP SCHEMA public CASCADE",
    "DROP SCHEMA _tenantsdb CASCADE",
    "DROP EXTENSION plpgsql CASCADE",
    "DROP FUNCTION _tenantsdb.session_locks()",
    "DROP EVENT TRIGGER _tenantsdb_guard_start",
    "DROP EVENT TRIGGER _tenantsdb_guard_drop",
    "DROP OWNED BY CURRENT_USER",
    "GRANT SELECT ON a TO PUBLIC",
    "GRANT CREATE ON SCHEMA public TO PUBLIC",
    "REVOKE ALL ON a FROM PUBLIC",
    "COMMENT ON TABLE a IS 'x'",
    "SECURITY LABEL ON TABLE a IS 'x'",
    "REFRESH MATERIALIZED VIEW counted",
    "REINDEX TABLE a",
    "CLUSTER a USING a_pkey",
    // Functions and types among the temporary objects: they could stand before others'.
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE DOMAIN pg_temp.text AS pg_catalog.text",
    "CREATE TYPE pg_temp.t AS (a int)",
    "CREATE TYPE pg_temp.t AS ENUM ('a')",
    "CREATE OPERATOR pg_temp.= (LEFTARG = int, RIGHTARG = text, FUNCTION = int4eq)",
    // Other databases, roles and the server.
    "CREATE DATABASE mine",
    "CREATE DATABASE mine TEMPLATE shop__globex",
    "ALTER DATABASE shop__acme SET work_mem = '1GB'",
    "ALTER DATABASE shop__acme RENAME TO x",
    "ALTER DATABASE shop__acme OWNER TO CURRENT_USER",
    "DROP DATABASE shop__globex",
    "COMMENT ON DATABASE shop__acme IS 'x'",
    "CREATE TABLESPACE t LOCATION '/tmp'",
    "CREATE TEMP TABLE t (a int) TABLESPACE pg_global",
    "CREATE SUBSCRIPTION s CONNECTION 'host=/' PUBLICATION p",
    "CREATE ROLE mallory",
    "CREATE USER mallory SUPERUSER",
    "DROP ROLE tenantsdb_platform",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE CURRENT_USER CREATEDB",
    "ALTER ROLE CURRENT_USER CREATEROLE",
    "ALTER ROLE CURRENT_USER REPLICATION",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "ALTER ROLE CURRENT_USER CONNECTION LIMIT 1",
    "ALTER ROLE CURRENT_USER RENAME TO mallory",
    "ALTER ROLE tenantsdb PASSWORD 'x'",
    "ALTER ROLE tenantsdb SET work_mem = '1MB'",
    "ALTER ROLE ALL SET work_mem = '1MB'",
    "ALTER ROLE CURRENT_USER SET session_replication_role = replica",
    "ALTER ROLE CURRENT_USER SET session_preload_libraries = 'x'",
    "GRANT tenantsdb TO CURRENT_USER",
    "GRANT tenantsdb_platform TO CURRENT_USER",
    "GRANT pg_read_server_files TO CURRENT_USER",
    "GRANT pg_execute_server_program TO CURRENT_USER",
    "GRANT pg_monitor TO CURRENT_USER",
    "GRANT pg_signal_backend TO CURRENT_USER",
    "SET ROLE tenantsdb",
    "SET ROLE tenantsdb_platform",
    "SET ROLE pg_read_all_data",
    "SET SESSION AUTHORIZATION tenantsdb",
    "SELECT set_config('role', 'tenantsdb', false)",
    "SELECT set_config('session_authorization', 'tenantsdb', false)",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "ALTER SYSTEM RESET ALL",
    "CHECKPOINT",
    "LOAD '/tmp/x.so'",
    "SELECT pg_reload_conf()",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_restore_point('x')",
    "SELECT pg_promote()",
    "SELECT pg_stat_reset()",
    "SELECT pg_log_backend_memory_contexts(pg_backend_pid())",
    // Replication.
    "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
    "SELECT pg_create_physical_replication_slot('s')",
    "SELECT pg_drop_replication_slot('s')",
    "SELECT * FROM pg_logical_slot_get_changes('s', NULL, NULL)",
    "SELECT pg_replication_origin_create('o')",
    "SELECT pg_replication_origin_session_setup('o')",
    // Files and programs.
    "COPY a TO PROGRAM 'cat'",
    "COPY a FROM PROGRAM 'id'",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "COPY a TO '/tmp/x'",
    "COPY a FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_file('postgresql.conf', 0, 10)",
    "SELECT pg_read_binary_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_ls_logdir()",
    "SELECT pg_ls_waldir()",
    "SELECT pg_ls_tmpdir()",
    "SELECT pg_ls_archive_statusdir()",
    "SELECT pg_stat_file('PG_VERSION')",
    "SELECT pg_current_logfile()",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/x')",
    // Secrets, and what shows others.
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_shadow",
    "SELECT * FROM pg_user_mapping",
    "SELECT * FROM pg_subscription",
    "SELECT subname FROM pg_subscription",
    "SELECT * FROM pg_largeobject",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT * FROM pg_ident_file_mappings",
    "SELECT * FROM pg_file_settings",
    "SELECT * FROM pg_config",
    "SELECT * FROM pg_shmem_allocations",
    "SELECT * FROM pg_backend_memory_contexts",
    "SELECT datname FROM pg_database",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_stat_get_activity(NULL)",
    "SELECT pg_stat_get_backend_activity(1)",
    "SELECT pg_stat_get_backend_dbid(1)",
    "SELECT pg_stat_get_backend_idset()",
    "SELECT pg_stat_get_db_xact_commit(1)",
    "SELECT pg_stat_get_db_numbackends(1)",
    "SELECT pg_blocking_pids(1)",
    "SELECT * FROM pg_locks",
    "SELECT * FROM pg_lock_status()",
    "SELECT * FROM pg_prepared_xacts",
    "SELECT * FROM pg_stat_database",
    "SELECT * FROM pg_stat_database_conflicts",
    "SELECT * FROM pg_stat_replication",
    "SELECT * FROM pg_stat_ssl",
    "SELECT * FROM pg_stat_wal",
    "SELECT * FROM pg_stat_slru",
    "SELECT * FROM pg_stat_progress_vacuum",
    "SELECT * FROM pg_replication_slots",
    "SELECT * FROM pg_replication_origin",
    "SELECT * FROM pg_shdepend",
    "SELECT * FROM pg_db_role_setting",
    "SELECT pg_database_size('shop__globex')",
    "SELECT pg_tablespace_size('pg_default')",
    "SELECT pg_tablespace_databases(1663)",
    "SELECT has_database_privilege('shop__globex', 'CONNECT')",
    "SELECT pg_describe_object('pg_database'::regclass, 1, 0)",
    "SELECT pg_identify_object('pg_database'::regclass, 1, 0)",
    "SELECT pg_get_object_address('database', '{shop__globex}', '{}')",
    "SELECT * FROM pg_control_system()",
    "SHOW data_directory",
    "SHOW config_file",
    "SHOW hba_file",
    "SHOW unix_socket_directories",
    // Settings that are the platform's.
    "SET session_replication_role = replica",
    "SET log_statement = 'all'",
    "SET log_min_messages = 'debug5'",
    "SET session_preload_libraries = 'x'",
    "SET dynamic_library_path = '/tmp'",
    "SET lo_compat_privileges = off",
    "SET temp_file_limit = -1",
    "SET zero_damaged_pages = on",
    "SET ignore_system_indexes = on",
    "SET allow_system_table_mods = on",
    "SELECT set_config('log_min_messages', 'panic', false)",
    "SELECT set_config('session_replication_role', 'replica', true)",
    "UPDATE pg_settings SET setting = 'replica' WHERE name = 'session_replication_role'",
    // The catalog and the platform's own schema.
    "UPDATE pg_catalog.pg_authid SET rolsuper = true",
    "UPDATE pg_catalog.pg_class SET relowner = 1",
    "INSERT INTO pg_catalog.pg_proc SELECT * FROM pg_catalog.pg_proc",
    "DELETE FROM pg_catalog.pg_event_trigger",
    "LOCK TABLE pg_authid",
    "LOCK TABLE pg_class IN ACCESS EXCLUSIVE MODE",
    "SELECT * FROM _tenantsdb.ledger",
    "INSERT INTO _tenantsdb.ledger VALUES (9, true)",
    "DELETE FROM _tenantsdb.ledger",
    "LOCK TABLE _tenantsdb.ledger",
    "SELECT * FROM _tenantsdb.ticket",
    "SELECT _tenantsdb.note_change('x', 9)",
    "CREATE OR REPLACE FUNCTION _tenantsdb.session_locks() RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
    "DO LANGUAGE plpython3u 'pass'",
];

/// What is refused by another code than `insufficient_privilege`: it is never allowed, not here, not outside of a
/// transaction, or not there.
const OTHER_CODES: &[(&str, &str)] = &[
    ("ALTER ROLE CURRENT_USER RENAME", "42939"),
    ("SET ignore_system_indexes", "55P02"),
    ("LOCK TABLE", "25P01"),
    ("DO LANGUAGE plpython3u", "42704"),
];

const REFUSED: &str = "42501";
/// Of what cannot run inside of a block.
const ACTIVE_TRANSACTION: &str = "25001";

async fn tenant(lab: &Lab) -> NativeRoles {
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    let statements = [
        "CREATE TABLE a (id int PRIMARY KEY, name text)",
        "CREATE SEQUENCE counter",
        "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'",
        "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM a",
    ];
    lab.deploy("shop__acme", &roles, &statements).await;
    roles
}

fn grades(roles: &NativeRoles) -> [&NativeRole; 3] {
    [&roles.admin, &roles.write, &roles.read]
}

/// The SQLSTATE that a statement is refused with; none if it passes.
async fn code(client: &Client, statement: &str) -> Option<String> {
    let refused = client.batch_execute(statement).await.err()?;
    let code = refused.code().map(|code| code.code().to_owned());
    Some(code.unwrap_or_else(|| refused.to_string()))
}

#[track_caller]
fn assert_code(found: Option<&str>, expected: &str, what: &str) {
    assert_eq!(found, Some(expected), "{what}");
}

/// Invariant 5.
#[tokio::test]
async fn a_session_fills_neither_the_servers_log_nor_the_machines_memory() {
    let lab = Lab::start().await;
    let roles = tenant(&lab).await;
    let says = |words: &str| format!("DO $$ BEGIN RAISE LOG '%', '{words}'; END $$");
    let client = lab.connect("shop__acme", &roles.write).await;
    client
        .batch_execute(&says("a tenants words"))
        .await
        .unwrap();
    let superuser = lab.superuser("postgres").await;
    superuser
        .batch_execute(&says("the platforms words"))
        .await
        .unwrap();
    let read = |what: &str| format!("SELECT pg_read_file({what})");
    let log = superuser
        .query_one(&read("pg_current_logfile()"), &[])
        .await
        .unwrap();
    let log: String = log.get(0);
    assert!(log.contains("the platforms words"), "{log}");
    assert!(!log.contains("a tenants words"), "{log}");
    let limits = superuser
        .query_one(&read("'/proc/self/limits'"), &[])
        .await
        .unwrap();
    let limits: String = limits.get(0);
    let data = limits.lines().find(|it| it.starts_with("Max data size"));
    assert!(!data.unwrap().contains("unlimited"), "{limits}");
    lab.stop().await;
}

/// Invariants 1 and 2, the second wall.
#[tokio::test]
async fn a_tenants_role_cannot_escape_by_any_statement() {
    for lab in Lab::both().await {
        try_every_statement(lab).await;
    }
}

async fn try_every_statement(lab: Lab) {
    let other = lab.database("shop__globex", DatabaseUse::Tenant).await;
    let roles = tenant(&lab).await;
    let neighbour = lab.connect("shop__globex", &other.admin).await;
    let row = neighbour.query_one("SELECT pg_backend_pid()", &[]).await;
    let pid: i32 = row.unwrap().get(0);
    let named = [
        format!("SELECT pg_terminate_backend({pid})"),
        format!("SELECT pg_cancel_backend({pid})"),
        format!("SET ROLE {}", other.admin.name),
        format!("SET SESSION AUTHORIZATION {}", other.admin.name),
        format!("SET ROLE {}_owner", roles.admin.name),
        format!("GRANT {}_owner TO CURRENT_USER", roles.admin.name),
        format!("GRANT {} TO {}", roles.admin.name, roles.read.name),
        format!("GRANT {} TO {}", roles.admin.name, other.admin.name),
        format!("ALTER ROLE {} PASSWORD 'x'", other.admin.name),
        format!("ALTER ROLE {} SET work_mem = '1MB'", other.admin.name),
        format!("DROP ROLE {}", other.admin.name),
        format!("DROP OWNED BY {}", other.admin.name),
        format!(
            "REASSIGN OWNED BY {}_owner TO CURRENT_USER",
            roles.admin.name
        ),
    ];
    let all = || {
        NEVER
            .iter()
            .copied()
            .chain(named.iter().map(String::as_str))
    };
    for role in grades(&roles) {
        let client = lab.connect("shop__acme", role).await;
        for statement in all() {
            let other_code = OTHER_CODES.iter().find(|(it, _)| statement.starts_with(it));
            let expected = other_code.map_or(REFUSED, |(_, code)| code);
            let found = code(&client, statement).await;
            assert_code(found.as_deref(), expected, statement);
            let block = format!("DO $w$ BEGIN EXECUTE $s${statement}$s$; END $w$");
            let found = code(&client, &block).await;
            let found = found.as_deref();
            assert!(
                [Some(REFUSED), Some(ACTIVE_TRANSACTION), Some(expected)].contains(&found),
                "{block}: {found:?}"
            );
        }
        for database in ["shop__globex", "postgres", "template1"] {
            let refused = lab.try_connect(database, role).await.err().unwrap();
            let found = refused.code().map(|code| code.code());
            assert_code(found, REFUSED, database);
        }
    }
    neighbour.batch_execute("SELECT 1").await.unwrap();
    lab.stop().await;
}

/// The wall has holes that PostgreSQL does not let us close. By them a role harms itself only, the proxy refuses each, and
/// making the database again repairs them.
#[tokio::test]
async fn what_only_the_classifier_refuses_harms_nobody_else_and_is_repaired() {
    let lab = Lab::start().await;
    let roles = tenant(&lab).await;
    let client = lab.connect("shop__acme", &roles.admin).await;
    let open = [
        "ALTER ROLE CURRENT_USER SET search_path = pg_temp",
        "ALTER ROLE CURRENT_USER IN DATABASE shop__acme SET statement_timeout = 1",
        "ALTER ROLE CURRENT_USER SET local_preload_libraries = 'nothing'",
        "ALTER ROLE CURRENT_USER PASSWORD 'another'",
        // Without any effect.
        "REASSIGN OWNED BY CURRENT_USER TO CURRENT_USER",
        "GRANT CONNECT ON DATABASE shop__acme TO PUBLIC",
        "VACUUM a",
        "ANALYZE a",
    ];
    for statement in open {
        let block = format!("DO $w$ BEGIN EXECUTE $s${statement}$s$; END $w$");
        for text in [statement, &block] {
            let summary = classify(text.as_bytes(), &Options::default());
            assert!(summary.effects.intersects(Effects::DDL), "{text}");
        }
        // What runs a text elsewhere in the catalog runs queries only.
        let query = format!("SELECT query_to_xml($s${statement}$s$, true, true, '')");
        assert!(code(&client, &query).await.is_some(), "{query}");
        client.batch_execute(statement).await.unwrap();
    }
    assert!(lab.try_connect("shop__acme", &roles.admin).await.is_err());

    let spec = spec("shop__acme", DatabaseUse::Tenant, &roles);
    PostgresEngine
        .create_database(&lab.server, &spec)
        .await
        .unwrap();
    let client = lab.connect("shop__acme", &roles.admin).await;
    client.batch_execute("SELECT * FROM a").await.unwrap();
    lab.stop().await;
}

/// Rights that a deployment's statements hand out do not open the wall.
#[tokio::test]
async fn a_deployment_cannot_open_the_wall() {
    for lab in Lab::both().await {
        try_a_deployment(lab).await;
    }
}

async fn try_a_deployment(lab: Lab) {
    let roles = tenant(&lab).await;
    let (admin, owner) = (&roles.admin.name, format!("{}_owner", roles.admin.name));
    let open = format!(
        "DO $$ BEGIN
             CREATE TABLE more (id int);
             GRANT ALL ON SCHEMA public TO PUBLIC;
             GRANT ALL ON SCHEMA public TO {admin} WITH GRANT OPTION;
             GRANT ALL ON more TO PUBLIC;
         END $$"
    );
    let early = lab.connect("shop__acme", &roles.admin).await;
    // Only the platform can make members.
    let member = format!("GRANT {owner} TO {admin}");
    lab.superuser("shop__acme")
        .await
        .batch_execute(&member)
        .await
        .unwrap();
    PostgresEngine
        .apply(
            &lab.server,
            "shop__acme",
            &roles,
            &[change(50, &open)],
            &ApplyOptions::default(),
        )
        .await
        .unwrap();
    for client in [&early, &lab.connect("shop__acme", &roles.admin).await] {
        for statement in [
            format!("SET ROLE {owner}").as_str(),
            "CREATE TABLE mine (a int)",
            "CREATE TRIGGER t BEFORE INSERT ON more EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ] {
            let found = code(client, statement).await;
            assert_code(found.as_deref(), REFUSED, statement);
        }
    }
    // Nor is it the rights alone: the guard stands by itself.
    lab.superuser("shop__acme")
        .await
        .batch_execute(
            "GRANT ALL ON SCHEMA public TO PUBLIC; GRANT CREATE ON DATABASE shop__acme TO PUBLIC",
        )
        .await
        .unwrap();
    for statement in [
        "CREATE TABLE mine (a int)",
        "CREATE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
    ] {
        let refused = early.batch_execute(statement).await.unwrap_err();
        let refused = refused.as_db_error().unwrap();
        assert_eq!(
            refused.message(),
            "DDL not allowed on tenant databases. Deploy schema through blueprints."
        );
        assert_eq!(refused.code().code(), REFUSED);
    }
    lab.stop().await;
}

/// Nor does a function that a deployment made and that runs with its owner's rights: it works with rows, and with temporary
/// tables, for whoever calls it.
#[tokio::test]
async fn a_function_with_its_owners_rights_changes_no_schema() {
    let lab = Lab::start().await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    let run = "CREATE FUNCTION run(text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN EXECUTE $1; END'";
    let statements = [
        "CREATE TABLE a (id int PRIMARY KEY, name text DEFAULT 'x')",
        "CREATE INDEX named ON a (name)",
        "CREATE VIEW v AS SELECT 1",
        run,
    ];
    lab.deploy("shop__acme", &roles, &statements).await;
    for role in grades(&roles) {
        let client = lab.connect("shop__acme", role).await;
        for statement in [
            "CREATE TABLE mine (a int)",
            "CREATE TABLE mine AS SELECT 1",
            "CREATE INDEX ON a (id, name)",
            "ALTER TABLE a ADD COLUMN b int",
            "ALTER TABLE a DROP COLUMN name",
            "ALTER TABLE a ALTER COLUMN name DROP DEFAULT",
            "ALTER TABLE a RENAME TO b",
            "ALTER INDEX named RENAME TO other",
            "DROP TABLE a CASCADE",
            "DROP INDEX named",
            "DROP VIEW v",
            "DROP FUNCTION run(text)",
            "CREATE SCHEMA s",
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "COMMENT ON TABLE a IS 'x'",
            "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ] {
            let found = code(&client, &format!("SELECT run($s${statement}$s$)")).await;
            assert_code(found.as_deref(), REFUSED, statement);
        }
        for statement in [
            "INSERT INTO a VALUES (1); DELETE FROM a",
            "CREATE TEMP TABLE t (id int DEFAULT 1); ALTER TABLE t ADD b int; ALTER TABLE t ALTER id DROP DEFAULT;
             ALTER TABLE t DROP COLUMN b; CREATE INDEX i ON t (id); DROP INDEX i; DROP TABLE t",
        ] {
            client
                .batch_execute(&format!("SELECT run($s${statement}$s$)"))
                .await
                .unwrap();
        }
    }
    lab.stop().await;
}

const ALL_OF_INFORMATION_SCHEMA: &str = "DO $$
    DECLARE view regclass;
    BEGIN
        FOR view IN SELECT oid FROM pg_class WHERE relnamespace = 'information_schema'::regnamespace
            AND relkind = 'v' AND has_table_privilege(oid, 'SELECT')
        LOOP EXECUTE 'SELECT count(v::text) FROM ' || view || ' v'; END LOOP;
    END $$";

/// A role's grade holds without the proxy.
#[tokio::test]
async fn a_reader_reads_and_writers_write_and_all_have_their_session() {
    let lab = Lab::start().await;
    let roles = tenant(&lab).await;
    let writing = [
        "INSERT INTO a VALUES (1, 'x')",
        "UPDATE a SET name = 'y'",
        "SELECT * FROM a FOR UPDATE",
        "SELECT nextval('counter')",
        "SELECT setval('counter', 5)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(4711, 'x')",
        "SELECT lo_put(4711, 0, 'y')",
        "SELECT lo_unlink(4711)",
        "DELETE FROM a",
        "TRUNCATE a",
    ];
    let reading = [
        "SELECT * FROM a",
        "SELECT * FROM counted",
        "SELECT twice(2)",
        "SELECT last_value FROM counter",
        "CREATE TEMP TABLE t (id serial PRIMARY KEY, x text); INSERT INTO t (x) VALUES ('x'); CREATE INDEX ON t (x); DROP TABLE t",
        "CREATE TEMP VIEW v AS SELECT * FROM a; DROP VIEW v",
        "SELECT 1 AS one INTO TEMP t; ALTER TABLE t ADD COLUMN two int; DROP TABLE t",
        "BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; COMMIT",
        "SET search_path = public; SET statement_timeout = 1000; RESET ALL",
        "DISCARD ALL",
        "SELECT _tenantsdb.session_locks()",
        "SELECT * FROM pg_settings; SELECT * FROM pg_cursors; SELECT * FROM pg_prepared_statements; SELECT * FROM pg_roles",
        "SELECT * FROM pg_stat_user_tables; SELECT pg_relation_size('a'); SELECT pg_total_relation_size('a')",
        "LISTEN a; NOTIFY a; SELECT * FROM pg_listening_channels(); UNLISTEN *",
        "SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)",
        ALL_OF_INFORMATION_SCHEMA,
        "SELECT current_database(), current_user, session_user, version(), pg_is_in_recovery(), txid_current()",
        "DO $$ BEGIN PERFORM 1; END $$",
    ];
    for role in grades(&roles) {
        let client = lab.connect("shop__acme", role).await;
        for statement in reading {
            assert_eq!(code(&client, statement).await, None, "{statement}");
        }
        for statement in writing {
            let found = code(&client, statement).await;
            if role.name == roles.read.name {
                assert_code(found.as_deref(), REFUSED, statement);
            } else {
                assert_eq!(found, None, "{statement}");
            }
        }
    }
    // A large object belongs to all who may write.
    for (role, statement) in [
        (&roles.admin, "SELECT lo_from_bytea(4712, 'x')"),
        (&roles.write, "SELECT lo_put(4712, 0, 'y')"),
        (&roles.read, "SELECT lo_get(4712)"),
    ] {
        let client = lab.connect("shop__acme", role).await;
        client.batch_execute(statement).await.unwrap();
    }
    lab.stop().await;
}

fn psql(lab: &Lab, connection: &str, role: &NativeRole, commands: &[&str]) -> (bool, String) {
    let mut psql = Command::new("psql");
    psql.arg(format!(
        "host={} user={} {connection}",
        lab.socket_folder().display(),
        role.name
    ));
    psql.args(["-X", "-v", "ON_ERROR_STOP=1"])
        .env("PGPASSWORD", &*role.password);
    for command in commands {
        psql.args(["-c", command]);
    }
    let output = psql.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn psql_describes_what_there_is_and_replication_is_refused() {
    let lab = Lab::start().await;
    let roles = tenant(&lab).await;
    for role in grades(&roles) {
        let described = [
            "\\d",
            "\\d a",
            "\\d+ a",
            "\\dt",
            "\\dt+",
            "\\di+",
            "\\ds",
            "\\dv",
            "\\dm",
            "\\df",
            "\\df+",
            "\\du",
            "\\dx",
            "\\dT",
            "\\dp",
            "\\ddp",
            "\\sf twice",
            "\\conninfo",
        ];
        let (passed, text) = psql(&lab, "dbname=shop__acme", role, &described);
        assert!(passed, "{text}");
        assert!(!text.contains("_tenantsdb"), "{text}");
        for mode in ["database", "true"] {
            let connection = format!("dbname=shop__acme replication={mode}");
            let (passed, text) = psql(&lab, &connection, role, &["IDENTIFY_SYSTEM"]);
            assert!(!passed, "{text}");
        }
    }
    lab.stop().await;
}

/// Temporary objects do not stand before the catalog's for what runs with more rights.
#[tokio::test]
async fn platform_functions_are_not_led_astray() {
    const EVIL: &str = "CREATE FUNCTION pg_temp.evil() RETURNS bigint LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'CREATE TABLE _tenantsdb.stolen ()'; RETURN 1; END $$";
    let lab = Lab::start().await;
    let roles = lab
        .database("shop_workspace", DatabaseUse::TenantWorkspace)
        .await;
    for statement in [
        "CREATE VIEW pg_temp.pg_locks AS SELECT 'advisory'::text AS locktype, pg_backend_pid() AS pid, pg_temp.evil() = 1 AS granted",
        "CREATE VIEW pg_temp.pg_roles AS SELECT session_user AS rolname, pg_temp.evil() = 1 AS rolsuper",
        "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.evil() = 1)",
        "CREATE DOMAIN pg_temp.int8 AS pg_catalog.int8 CHECK (pg_temp.evil() = 1)",
        "CREATE OPERATOR pg_temp.!~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = textne)",
        "CREATE FUNCTION pg_temp.current_query() RETURNS text LANGUAGE sql AS 'SELECT ''x'''",
    ] {
        for role in grades(&roles) {
            let client = lab.connect("shop_workspace", role).await;
            for text in [
                EVIL,
                statement,
                "SET search_path = pg_temp, pg_catalog",
                "SELECT _tenantsdb.session_locks()",
                "CREATE TEMP TABLE x (a int)",
                "CREATE TABLE public.x (a int)",
                "DROP TABLE public.x",
                "SELECT _tenantsdb.note_ddl('CREATE TABLE', 'forged', '')",
            ] {
                // Whether it is refused or has no effect does not matter.
                let _ = client.batch_execute(text).await;
            }
        }
        let check = lab.superuser("shop_workspace").await;
        let row = check
            .query_one(
                "SELECT to_regclass('_tenantsdb.stolen') IS NULL AND NOT EXISTS (
                     SELECT FROM _tenantsdb.changes WHERE statement NOT LIKE '% TABLE public.x%')",
                &[],
            )
            .await
            .unwrap();
        assert!(row.get::<_, bool>(0), "{statement}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_workspace_is_free_inside_and_closed_outside() {
    for lab in Lab::both().await {
        try_a_workspace(lab).await;
    }
}

async fn try_a_workspace(lab: Lab) {
    lab.database("shop__globex", DatabaseUse::Tenant).await;
    for usage in [DatabaseUse::TenantWorkspace, DatabaseUse::ControlWorkspace] {
        let name = format!("w{}_workspace", usage as u8);
        let roles = lab.database(&name, usage).await;
        let client = lab.connect(&name, &roles.admin).await;
        client
            .batch_execute(
                "CREATE TABLE a (id int); CREATE SCHEMA s; CREATE TABLE s.b (id int); CREATE TYPE mood AS ENUM ('x');
                 CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
                 CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();
                 ALTER TABLE a ADD COLUMN x int; DROP TABLE s.b; CREATE EXTENSION citext; COMMENT ON TABLE a IS 'x';
                 CREATE TABLE s.c (id int)",
            )
            .await
            .unwrap();
        let writer = lab.connect(&name, &roles.write).await;
        writer
            .batch_execute("INSERT INTO a VALUES (1, 2); INSERT INTO s.c VALUES (1)")
            .await
            .unwrap();
        assert!(code(&writer, "CREATE TABLE no (a int)").await.is_some());
        let reader = lab.connect(&name, &roles.read).await;
        reader.batch_execute("SELECT * FROM s.c").await.unwrap();
        assert!(code(&reader, "DELETE FROM s.c").await.is_some());
        let outside = NEVER.iter().copied().filter(|it| is_outside(it));
        for statement in outside.chain([
            "DROP OWNED BY CURRENT_USER",
            "ALTER SCHEMA _tenantsdb RENAME TO x",
            "DROP EVENT TRIGGER _tenantsdb_ddl",
            "SELECT * FROM _tenantsdb.changes",
            "COPY a FROM PROGRAM 'id'",
            "COPY a FROM '/etc/passwd'",
        ]) {
            assert!(code(&client, statement).await.is_some(), "{statement}");
        }
        let drop_own = format!("DROP DATABASE {name}");
        let found = code(&client, &drop_own).await;
        assert_code(found.as_deref(), REFUSED, &drop_own);
        for database in ["shop__globex", "postgres", "template1"] {
            assert!(lab.try_connect(database, &roles.admin).await.is_err());
        }
    }
    lab.stop().await;
}

/// What a workspace may not do either: what is about more than its own schema.
fn is_outside(statement: &str) -> bool {
    const VERBS: [&str; 7] = [
        "CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE", "REINDEX",
    ];
    const ABOUT: [&str; 19] = [
        "ALL TABLES",
        "DATABASE ",
        "EVENT TRIGGER",
        "LANGUAGE c",
        "ROLE ",
        "SUBSCRIPTION",
        "SYSTEM",
        "TABLESPACE",
        "USER ",
        "WRAPPER",
        "_tenantsdb",
        "adminpack",
        "dblink",
        "file_fdw",
        "pg_execute",
        "pg_stat",
        "plp",
        "postgres_fdw",
        "tenantsdb",
    ];
    const OWN: [&str; 8] = [
        " a", "_acme", "public", "pg_temp", "counted", "REFRESH", "CLUSTER", "INTO x",
    ];
    if statement.starts_with("COMMENT ON DATABASE") {
        // A warning where there is no such database.
        false
    } else if VERBS.iter().any(|it| statement.starts_with(it)) {
        ABOUT.iter().any(|it| statement.contains(it)) && !statement.contains("DEFAULT PRIVILEGES")
    } else {
        !OWN.iter().any(|it| statement.contains(it))
    }
}

/// A grant to another database's role does not keep that role, or its database, from being removed.
#[tokio::test]
async fn a_role_that_others_refer_to_is_removed_with_its_database() {
    let lab = Lab::start().await;
    let other = lab.database("shop__globex", DatabaseUse::Tenant).await;
    let roles = lab
        .database("shop_workspace", DatabaseUse::ControlWorkspace)
        .await;
    let client = lab.connect("shop_workspace", &roles.admin).await;
    let referring = format!(
        "CREATE TABLE a (id int); GRANT SELECT ON a TO {0}; CREATE POLICY p ON a TO {0};
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {0}",
        other.read.name
    );
    client.batch_execute(&referring).await.unwrap();
    PostgresEngine
        .drop_database(
            &lab.server,
            &spec("shop__globex", DatabaseUse::Tenant, &other),
        )
        .await
        .unwrap();
    let left = lab
        .superuser("postgres")
        .await
        .query(
            "SELECT FROM pg_roles WHERE rolname = $1",
            &[&&*other.read.name],
        )
        .await
        .unwrap();
    assert!(left.is_empty());
    client.batch_execute("SELECT * FROM a").await.unwrap();
    lab.stop().await;
}
