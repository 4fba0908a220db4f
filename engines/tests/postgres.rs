//! The PostgreSQL engine on a real server: databases, tracked changes, deployments, and the wall that a native role is.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use control_store::ids::{Engine, ServerId};
use control_store::snapshot::{NativeRole, NativeRoles, ServerAddress};
use engines::postgres::PostgresEngine;
use engines::provisioner::Provisioner as _;
use engines::provisioner::local::LocalProvisioner;
use engines::{
    ApplyOptions, Change, DatabaseEngine as _, DatabaseSpec, DatabaseUse, EngineError, ServerAccess,
};
use tempfile::TempDir;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

struct Lab {
    provisioner: LocalProvisioner,
    server: ServerAccess,
    _folder: TempDir,
}

impl Lab {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let provisioner = LocalProvisioner::open(folder.path()).unwrap();
        let id = ServerId(1);
        let address = provisioner.start(Engine::Postgres, id).await.unwrap();
        Self {
            provisioner,
            server: ServerAccess { id, address },
            _folder: folder,
        }
    }

    async fn database(&self, name: &str, usage: DatabaseUse) -> NativeRoles {
        let roles = PostgresEngine.new_roles().unwrap();
        let spec = DatabaseSpec {
            name,
            usage,
            roles: &roles,
        };
        for _ in 0..2 {
            PostgresEngine
                .create_database(&self.server, &spec)
                .await
                .unwrap();
        }
        roles
    }

    async fn connect(&self, database: &str, role: &NativeRole) -> Client {
        self.try_connect(database, role).await.unwrap()
    }

    async fn try_connect(
        &self,
        database: &str,
        role: &NativeRole,
    ) -> Result<Client, tokio_postgres::Error> {
        let ServerAddress::Unix(socket) = &self.server.address else {
            panic!("not a socket")
        };
        let mut config = Config::new();
        config
            .host_path(socket.parent().unwrap())
            .user(&*role.name)
            .password(&*role.password)
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn stop(self) {
        self.provisioner.stop_all().await;
    }
}

async fn tracked(lab: &Lab, after: i64) -> Vec<String> {
    let found = PostgresEngine
        .tracked_changes(&lab.server, "shop_workspace", after)
        .await
        .unwrap();
    found.into_iter().map(|it| it.statement).collect()
}

fn change(id: i64, statement: &str) -> Change {
    Change {
        id,
        statement: statement.into(),
        search_path: "\"$user\", public".into(),
    }
}

#[tokio::test]
async fn a_change_is_tracked_when_it_has_taken_effect() {
    let lab = Lab::start().await;
    let roles = lab
        .database("shop_workspace", DatabaseUse::TenantWorkspace)
        .await;
    let client = lab.connect("shop_workspace", &roles.admin).await;
    let run = async |text: &str| client.batch_execute(text).await;
    run("CREATE TABLE a (id serial PRIMARY KEY, name text)")
        .await
        .unwrap();
    assert!(run("CREATE TABLE a (id int)").await.is_err());
    run("BEGIN; CREATE TABLE gone (id int); ROLLBACK")
        .await
        .unwrap();
    run("BEGIN; SAVEPOINT s; CREATE TABLE gone (id int); ROLLBACK TO s; CREATE INDEX named ON a (name); COMMIT")
        .await
        .unwrap();
    run("CREATE TEMP TABLE t (id int); DROP TABLE t")
        .await
        .unwrap();
    run("INSERT INTO a (name) VALUES ('x'); ALTER TABLE a ADD COLUMN price numeric(12,2); ALTER TABLE a DROP COLUMN price")
        .await
        .unwrap();
    run("DO $$ BEGIN CREATE TABLE b (id int); CREATE TABLE c (id int); END $$")
        .await
        .unwrap();
    run("DROP TABLE c").await.unwrap();
    run("GRANT SELECT ON a TO PUBLIC").await.unwrap();
    client
        .query("CREATE VIEW v AS SELECT 1 AS one", &[])
        .await
        .unwrap();
    let expected = [
        "CREATE TABLE a (id serial PRIMARY KEY, name text)",
        "CREATE INDEX named ON a (name)",
        "ALTER TABLE a ADD COLUMN price numeric(12,2)",
        "ALTER TABLE a DROP COLUMN price",
        "DO $$ BEGIN CREATE TABLE b (id int); CREATE TABLE c (id int); END $$",
        "DROP TABLE c",
        "CREATE VIEW v AS SELECT 1 AS one",
    ];
    assert_eq!(tracked(&lab, 0).await, expected);
    let all = PostgresEngine
        .tracked_changes(&lab.server, "shop_workspace", 0)
        .await
        .unwrap();
    assert_eq!(tracked(&lab, all[2].position).await, expected[3..]);
    assert!(tracked(&lab, all[6].position).await.is_empty());
    // Nobody but the trigger writes the record, and nobody removes it.
    for text in [
        "SELECT _tenantsdb.note_ddl('CREATE TABLE', 'DROP TABLE a', '')",
        "INSERT INTO _tenantsdb.changes (statement) VALUES ('x')",
        "DELETE FROM _tenantsdb.changes",
        "DROP EVENT TRIGGER _tenantsdb_ddl",
        "ALTER EVENT TRIGGER _tenantsdb_ddl DISABLE",
        "DROP SCHEMA _tenantsdb CASCADE",
        "DROP FUNCTION _tenantsdb.note_ddl",
        "CREATE TABLE _tenantsdb.mine (a int)",
        "SET session_replication_role = replica",
    ] {
        assert!(run(text).await.is_err(), "{text}");
    }
    // Operators of the client's own do not run as the superuser.
    run("CREATE SCHEMA evil; CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT 1/0 = 1';
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
         CREATE OPERATOR evil.~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq)")
        .await
        .unwrap();
    run("SET search_path = evil, pg_catalog; CREATE TABLE public.d (id int); DROP TABLE public.d; RESET search_path")
        .await
        .unwrap();
    lab.stop().await;
}

#[tokio::test]
async fn the_schema_reads_as_it_was_declared() {
    let lab = Lab::start().await;
    let roles = lab
        .database("shop_workspace", DatabaseUse::TenantWorkspace)
        .await;
    let client = lab.connect("shop_workspace", &roles.admin).await;
    client
        .batch_execute(
            "CREATE TABLE users (id SERIAL PRIMARY KEY, name TEXT NOT NULL, mail varchar(255) UNIQUE, at timestamptz DEFAULT now());
             CREATE SCHEMA other; CREATE TABLE other.t (a bigint)",
        )
        .await
        .unwrap();
    let tables = PostgresEngine
        .schema(&lab.server, "shop_workspace")
        .await
        .unwrap();
    let names: Vec<_> = tables.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["users", "other.t"]);
    let columns: Vec<_> = tables[0]
        .columns
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.data_type.as_str(),
                it.nullable,
                it.default.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            ("id", "SERIAL", false, None),
            ("name", "TEXT", false, None),
            ("mail", "VARCHAR(255)", true, None),
            ("at", "TIMESTAMPTZ", true, Some("now()")),
        ]
    );
    assert_eq!(tables[0].indexes, ["users_pkey", "users_mail_key"]);
    lab.stop().await;
}

#[tokio::test]
async fn a_deployment_makes_what_is_missing_and_goes_on_where_it_failed() {
    let lab = Lab::start().await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    let apply = async |changes: &[Change]| {
        let options = ApplyOptions {
            lock_timeout: Duration::from_millis(100),
            attempts: 3,
            backoff: Duration::from_millis(20),
        };
        PostgresEngine
            .apply(&lab.server, "shop__acme", &roles, changes, &options)
            .await
    };
    let mut changes = vec![
        change(1, "CREATE TABLE a (id serial PRIMARY KEY, name text)"),
        change(2, "CREATE INDEX CONCURRENTLY named ON a (name)"),
        change(5, "ALTER TABLE nothing ADD COLUMN x int"),
        change(6, "CREATE TABLE b (id int)"),
    ];
    let failed = apply(&changes).await.unwrap_err();
    assert!(
        matches!(&failed, EngineError::Statement { change: Some(5), code, .. } if code == "42P01"),
        "{failed:?}"
    );
    changes[2] = change(5, "ALTER TABLE a ADD COLUMN x int");
    assert_eq!(apply(&changes).await.unwrap(), [1, 2, 5, 6]);
    assert_eq!(apply(&changes).await.unwrap(), [1, 2, 5, 6]);
    // The tenant's roles use what was made.
    let client = lab.connect("shop__acme", &roles.write).await;
    client
        .batch_execute("INSERT INTO a (name, x) VALUES ('n', 1); UPDATE a SET x = 2; TRUNCATE b")
        .await
        .unwrap();
    let reader = lab.connect("shop__acme", &roles.read).await;
    assert_eq!(reader.query("SELECT * FROM a", &[]).await.unwrap().len(), 1);
    assert!(reader.batch_execute("DELETE FROM a").await.is_err());
    // A busy tenant is not blocked, and is done once it is free.
    client
        .batch_execute("BEGIN; UPDATE a SET x = 3")
        .await
        .unwrap();
    changes.push(change(7, "ALTER TABLE a ADD COLUMN y int"));
    assert!(matches!(
        apply(&changes).await,
        Err(EngineError::Busy { change: 7, .. })
    ));
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(apply(&changes).await.unwrap(), [1, 2, 5, 6, 7]);
    // A statement of a deployment is never more than the owner.
    for text in [
        "DO $$ BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'CREATE ROLE mallory SUPERUSER'; END $$",
        "DO $$ BEGIN EXECUTE 'SET SESSION AUTHORIZATION tenantsdb'; END $$",
        "COPY a FROM PROGRAM 'id'",
        "CREATE TABLE _tenantsdb.x (a int)",
    ] {
        let failed = apply(&[change(100, text)]).await.unwrap_err();
        assert!(
            matches!(&failed, EngineError::Statement { code, .. } if code == "42501"),
            "{text}: {failed:?}"
        );
    }
    lab.stop().await;
}

#[tokio::test]
async fn removing_a_database_removes_its_roles() {
    let lab = Lab::start().await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    let client = lab.connect("shop__acme", &roles.admin).await;
    for _ in 0..2 {
        PostgresEngine
            .drop_database(&lab.server, "shop__acme", &roles)
            .await
            .unwrap();
    }
    assert!(client.batch_execute("SELECT 1").await.is_err());
    assert!(lab.try_connect("postgres", &roles.admin).await.is_err());
    lab.stop().await;
}

/// Invariants 1 and 2, the second wall: whatever the proxy lets through, the native role can do nothing but data.
#[tokio::test]
async fn a_tenants_role_cannot_escape_by_any_statement() {
    let lab = Lab::start().await;
    let other = lab.database("shop__globex", DatabaseUse::Tenant).await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    let made = [change(1, "CREATE TABLE a (id int PRIMARY KEY, name text)")];
    PostgresEngine
        .apply(
            &lab.server,
            "shop__acme",
            &roles,
            &made,
            &ApplyOptions::default(),
        )
        .await
        .unwrap();
    let neighbour = lab.connect("shop__globex", &other.admin).await;
    let pid: i32 = neighbour
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let terminate = format!("SELECT pg_terminate_backend({pid})");
    let cancel = format!("SELECT pg_cancel_backend({pid})");
    let become_other = format!("SET ROLE {}", other.admin.name);
    let become_owner = format!("SET ROLE {}_owner", roles.admin.name);
    let statements = [
        "CREATE TABLE x (a int)",
        "CREATE TABLE public.x AS SELECT 1",
        "SELECT 1 INTO x",
        "CREATE SCHEMA s",
        "CREATE VIEW v AS SELECT 1",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE t AS ENUM ('a')",
        "CREATE SEQUENCE s",
        "CREATE EXTENSION hstore",
        "CREATE EXTENSION dblink",
        "CREATE EXTENSION postgres_fdw",
        "CREATE LANGUAGE plperlu",
        "CREATE DATABASE mine",
        "CREATE ROLE mallory",
        "CREATE USER mallory SUPERUSER",
        "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION _tenantsdb.session_locks()",
        "CREATE TABLESPACE t LOCATION '/tmp'",
        "CREATE PUBLICATION p FOR ALL TABLES",
        "CREATE SUBSCRIPTION s CONNECTION 'host=/' PUBLICATION p",
        "CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE INDEX ON a (name)",
        "CREATE TRIGGER t BEFORE INSERT ON a EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE RULE r AS ON INSERT TO a DO NOTHING",
        "CREATE POLICY p ON a",
        "ALTER TABLE a ADD COLUMN b int",
        "ALTER TABLE a DISABLE TRIGGER ALL",
        "ALTER TABLE a OWNER TO CURRENT_USER",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "ALTER DATABASE shop__acme SET work_mem = '1GB'",
        "ALTER DATABASE shop__acme RENAME TO x",
        "ALTER ROLE CURRENT_USER SUPERUSER",
        "ALTER ROLE CURRENT_USER CREATEDB",
        "DROP TABLE a",
        "DROP SCHEMA public CASCADE",
        "DROP DATABASE shop__globex",
        "GRANT ALL ON a TO PUBLIC WITH GRANT OPTION; CREATE TABLE x ()",
        "COMMENT ON TABLE a IS 'x'",
        "REINDEX TABLE a",
        "CLUSTER a USING a_pkey",
        "REFRESH MATERIALIZED VIEW a",
        "LOCK TABLE pg_authid",
        "COPY a TO PROGRAM 'cat'",
        "COPY a FROM PROGRAM 'id'",
        "COPY a TO '/tmp/x'",
        "COPY a FROM '/etc/passwd'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_read_binary_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "SELECT pg_ls_logdir()",
        "SELECT pg_stat_file('PG_VERSION')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_export(1, '/tmp/x')",
        "SELECT pg_reload_conf()",
        "SELECT pg_rotate_logfile()",
        "SELECT pg_switch_wal()",
        "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
        "SELECT pg_logical_emit_message(true, 'a', 'b') FROM pg_replication_slots",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_shadow",
        "SELECT * FROM pg_user_mapping",
        "SELECT * FROM pg_subscription",
        "SELECT * FROM pg_largeobject",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT * FROM pg_file_settings",
        "SELECT datname FROM pg_database",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM pg_stat_get_activity(NULL)",
        "SELECT * FROM pg_locks",
        "SELECT * FROM pg_stat_database",
        "SELECT * FROM pg_stat_replication",
        "SELECT pg_database_size('shop__globex')",
        "SELECT * FROM pg_db_role_setting",
        "SHOW data_directory",
        "SHOW config_file",
        "SET ROLE tenantsdb",
        "SET SESSION AUTHORIZATION tenantsdb",
        "SET session_replication_role = replica",
        "SET log_statement = 'all'",
        "SET session_preload_libraries = 'x'",
        "SET temp_tablespaces = 'pg_global'; CREATE TEMP TABLE t (a int) TABLESPACE pg_global",
        "LOAD '/tmp/x.so'",
        "SELECT set_config('log_min_messages', 'panic', false)",
        "INSERT INTO _tenantsdb.ledger VALUES (9)",
        "DELETE FROM _tenantsdb.ledger",
        "SELECT * FROM _tenantsdb.ledger",
        "DROP FUNCTION _tenantsdb.session_locks()",
        "CREATE OR REPLACE FUNCTION _tenantsdb.session_locks() RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
        "UPDATE pg_catalog.pg_authid SET rolsuper = true",
        "DELETE FROM pg_catalog.pg_class",
        "DO $$ BEGIN CREATE TABLE x (a int); END $$",
        "DO $$ BEGIN EXECUTE 'COPY a TO PROGRAM ''cat'''; END $$",
        "DO $$ BEGIN EXECUTE 'ALTER ROLE CURRENT_USER SUPERUSER'; END $$",
        "DO LANGUAGE plpython3u 'pass'",
        "CHECKPOINT",
        &terminate,
        &cancel,
        &become_other,
        &become_owner,
    ];
    for role in [&roles.admin, &roles.write, &roles.read] {
        let client = lab.connect("shop__acme", role).await;
        for statement in statements {
            let outcome = client.batch_execute(statement).await;
            assert!(outcome.is_err(), "{} may: {statement}", role.name);
        }
        for database in ["shop__globex", "postgres", "template1"] {
            let refused = lab.try_connect(database, role).await.err().unwrap();
            let code = refused.code();
            assert_eq!(code, Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{database}");
        }
    }
    assert!(neighbour.batch_execute("SELECT 1").await.is_ok());
    // Temporary objects do not stand before the catalog's for what runs as the superuser.
    const EVIL: &str = "CREATE FUNCTION pg_temp.evil() RETURNS bigint LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'CREATE ROLE mallory SUPERUSER'; RETURN 1; END $$";
    for statement in [
        "CREATE VIEW pg_temp.pg_locks AS SELECT 'advisory'::text AS locktype, pg_backend_pid() AS pid, pg_temp.evil() = 1 AS granted",
        "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (pg_temp.evil() = 1)",
        "CREATE DOMAIN pg_temp.int8 AS pg_catalog.int8 CHECK (pg_temp.evil() = 1)",
    ] {
        let client = lab.connect("shop__acme", &roles.admin).await;
        for text in [EVIL, statement, "SELECT _tenantsdb.session_locks()"] {
            // Whether it is refused or has no effect does not matter.
            let _ = client.batch_execute(text).await;
        }
        let made = client
            .query("SELECT FROM pg_roles WHERE rolname = 'mallory'", &[])
            .await
            .unwrap();
        assert!(made.is_empty(), "{statement}");
    }
    // What a session needs of the server stays.
    let client = lab.connect("shop__acme", &roles.admin).await;
    for statement in [
        "CREATE TEMP TABLE t (a int); INSERT INTO t VALUES (1)",
        "SELECT _tenantsdb.session_locks()",
        "SELECT * FROM pg_settings; SELECT * FROM pg_cursors; SELECT * FROM pg_prepared_statements",
        "SELECT * FROM pg_listening_channels()",
        "LISTEN a; NOTIFY a; SELECT pg_advisory_lock(1); SELECT pg_advisory_unlock(1)",
        "SELECT * FROM information_schema.tables; SELECT * FROM pg_class, pg_namespace, pg_attribute LIMIT 1",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_workspace_is_free_inside_and_closed_outside() {
    let lab = Lab::start().await;
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
                 ALTER TABLE a ADD COLUMN x int; DROP TABLE s.b; CREATE EXTENSION citext; COMMENT ON TABLE a IS 'x'",
            )
            .await
            .unwrap();
        let writer = lab.connect(&name, &roles.write).await;
        writer
            .batch_execute("INSERT INTO a VALUES (1, 2)")
            .await
            .unwrap();
        assert!(
            writer
                .batch_execute("CREATE TABLE no (a int)")
                .await
                .is_err()
        );
        for statement in [
            "CREATE DATABASE mine",
            "CREATE ROLE mallory",
            "CREATE EXTENSION dblink",
            "ALTER SYSTEM SET work_mem = '1GB'",
            "COPY a FROM PROGRAM 'id'",
            "SELECT pg_read_file('PG_VERSION')",
            "SELECT datname FROM pg_database",
            "SELECT * FROM pg_stat_activity",
            "DROP SCHEMA _tenantsdb CASCADE",
        ] {
            assert!(
                client.batch_execute(statement).await.is_err(),
                "{statement}"
            );
        }
        let drop_own = format!("DROP DATABASE {name}");
        assert!(client.batch_execute(&drop_own).await.is_err());
        assert!(lab.try_connect("shop__globex", &roles.admin).await.is_err());
    }
    lab.stop().await;
}
