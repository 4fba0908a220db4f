//! A server that existed before us, whose administrator is no superuser.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use common::{Lab, OPERATOR, operator, spec};
use engines::postgres::{PostgresEngine, preparation};
use engines::{ApplyOptions, DatabaseEngine as _, DatabaseUse, EngineError, ServerUse};

const USAGE: ServerUse<'static> = ServerUse {
    shared: true,
    connections: 300,
    names_visible: false,
    redis: None,
    numbers: &[],
};

/// What the server is told to lack, as one text.
async fn problems(lab: &Lab, usage: &ServerUse<'_>) -> String {
    let report = PostgresEngine.prepare_server(&lab.server, usage).await;
    report.unwrap().problems.join("\n")
}

#[tokio::test]
async fn a_workspace_and_a_tenant_live_their_lives() {
    let lab = Lab::limited().await;
    assert_eq!(problems(&lab, &USAGE).await, "");
    let workspace = lab
        .database("shop_workspace", DatabaseUse::TenantWorkspace)
        .await;
    let control = lab.database("app", DatabaseUse::ControlWorkspace).await;
    let tenant = lab.database("shop__acme", DatabaseUse::Tenant).await;

    let table = "CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL)";
    let index = "CREATE INDEX CONCURRENTLY ON items (name)";
    let client = lab.connect("shop_workspace", &workspace.admin).await;
    for statement in [table, index] {
        client.batch_execute(statement).await.unwrap();
    }
    let undone = client.batch_execute("BEGIN; CREATE TABLE x (); ROLLBACK");
    undone.await.unwrap();
    let tracked = PostgresEngine
        .tracked_changes(&lab.server, "shop_workspace", 0)
        .await
        .unwrap();
    let statements: Vec<_> = tracked.iter().map(|it| it.statement.as_str()).collect();
    assert_eq!(statements, [table, index]);
    let tables = PostgresEngine.schema(&lab.server, "shop_workspace").await;
    assert_eq!(tables.unwrap()[0].name, "items");
    let control = lab.connect("app", &control.admin).await;
    control.batch_execute("CREATE TABLE t ()").await.unwrap();

    for _ in 0..2 {
        lab.deploy("shop__acme", &tenant, &statements).await;
    }
    let writer = lab.connect("shop__acme", &tenant.write).await;
    writer
        .batch_execute("INSERT INTO items (name) VALUES ('a')")
        .await
        .unwrap();
    let refused = writer.batch_execute("CREATE SCHEMA x").await.unwrap_err();
    assert!(
        refused
            .as_db_error()
            .is_some_and(|it| it.message().starts_with("DDL not allowed")),
        "{refused:?}"
    );
    let reader = lab.connect("shop__acme", &tenant.read).await;
    let set = reader
        .query_one(
            "SELECT current_setting('log_min_messages'), current_setting('lo_compat_privileges')",
            &[],
        )
        .await
        .unwrap();
    let set: (String, String) = (set.get(0), set.get(1));
    assert_eq!((&*set.0, &*set.1), ("fatal", "on"));
    let large = "SELECT lo_from_bytea(7, 'x')";
    writer.batch_execute(large).await.unwrap();
    assert!(reader.batch_execute(large).await.is_err());
    reader.batch_execute("SELECT lo_get(7)").await.unwrap();

    let changes: Vec<_> = (1..)
        .zip(&statements)
        .map(|(id, it)| common::change(id, it))
        .collect();
    let pair = PostgresEngine
        .schemas(
            &lab.server,
            "shop__acme",
            &tenant,
            &changes,
            &ApplyOptions::default(),
        )
        .await
        .unwrap();
    assert_eq!(pair.expected, pair.found);
    assert!(
        pair.found
            .iter()
            .any(|it| it.starts_with("CREATE TABLE public.items"))
    );

    let spec = spec("shop__acme", DatabaseUse::Tenant, &tenant);
    let size = PostgresEngine.database_size(&lab.server, &spec).await;
    assert!(size.unwrap() > 1 << 20);
    PostgresEngine
        .set_open(&lab.server, &spec, false)
        .await
        .unwrap();
    assert!(writer.batch_execute("SELECT 1").await.is_err());
    assert!(lab.try_connect("shop__acme", &tenant.read).await.is_err());
    PostgresEngine
        .create_database(&lab.server, &spec)
        .await
        .unwrap();
    lab.connect("shop__acme", &tenant.read).await;
    // A role's name is all it takes to give it something of one's own.
    let grant = format!("GRANT SELECT ON t TO \"{}\"", tenant.read.name);
    control.batch_execute(&grant).await.unwrap();
    for _ in 0..2 {
        PostgresEngine
            .drop_database(&lab.server, &spec)
            .await
            .unwrap();
    }
    let left = lab
        .superuser("postgres")
        .await
        .query_one(
            "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1)",
            &[&&*tenant.admin.name],
        )
        .await
        .unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
    lab.stop().await;
}

#[tokio::test]
async fn the_administrator_acts_for_no_tenants_role_afterwards() {
    let lab = Lab::limited().await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    lab.deploy("shop__acme", &roles, &["CREATE TABLE a ()"])
        .await;
    let acts_for = lab
        .superuser("postgres")
        .await
        .query(
            "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, 'tdb_') AND pg_has_role($1::text::name, oid, 'USAGE')",
            &[&OPERATOR],
        )
        .await
        .unwrap();
    let names: Vec<String> = acts_for.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, [""; 0]);
    lab.stop().await;
}

#[tokio::test]
async fn nobody_sees_the_others() {
    let lab = Lab::limited().await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    lab.database("shop__globex", DatabaseUse::Tenant).await;
    let admin = lab.connect("shop__acme", &roles.admin).await;
    for statement in [
        "SELECT datname FROM pg_database",
        "SELECT * FROM pg_stat_activity",
        "SELECT pg_database_size('shop__globex')",
    ] {
        let refused = admin.batch_execute(statement).await.unwrap_err();
        assert_eq!(
            refused.code().map(|it| it.code()),
            Some("42501"),
            "{statement}"
        );
    }
    for database in [
        "postgres",
        "template1",
        "shop__globex",
        "tenantsdb_template_tenant",
    ] {
        assert!(
            lab.try_connect(database, &roles.admin).await.is_err(),
            "{database}"
        );
    }
    lab.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_told() {
    let mut lab = Lab::start().await;
    lab.make_operator().await;
    let superuser = lab.superuser("postgres").await;
    lab.server.login = Some(operator());
    let asked = problems(&lab, &USAGE).await;
    for sentence in [
        "lacks CREATEROLE: run ALTER ROLE \"operator\" CREATEROLE",
        "lacks CREATEDB",
        "lacks pg_signal_backend",
        "may not make event triggers: have a superuser run what `tenantsdb prepare` prints",
        "every role may connect to \"postgres\", \"template1\"",
    ] {
        assert!(asked.contains(sentence), "{sentence}: {asked}");
    }
    lab.psql(&preparation(OPERATOR));
    lab.psql(&preparation(OPERATOR));
    assert_eq!(problems(&lab, &USAGE).await, "");

    superuser
        .batch_execute("COMMENT ON DATABASE tenantsdb_template_tenant IS 'tenantsdb preparation 0'")
        .await
        .unwrap();
    let asked = problems(&lab, &USAGE).await;
    assert!(asked.contains("made by another version"), "{asked}");
    for statement in [
        "ALTER SYSTEM SET log_statement = 'all'",
        "SELECT pg_reload_conf()",
        "CREATE DATABASE theirs",
    ] {
        superuser.batch_execute(statement).await.unwrap();
    }
    let usage = ServerUse {
        connections: 390,
        ..USAGE
    };
    let report = PostgresEngine.prepare_server(&lab.server, &usage).await;
    let report = report.unwrap();
    assert!(
        report
            .problems
            .join("\n")
            .contains("connect to \"theirs\": run REVOKE ALL ON DATABASE \"theirs\" FROM PUBLIC"),
        "{report:?}"
    );
    let notes = report.notes.join("\n");
    assert!(notes.contains("connections = 390 is too many"), "{notes}");
    assert!(notes.contains("log_statement is 'all'"), "{notes}");
    lab.stop().await;
}

#[tokio::test]
async fn a_superuser_needs_no_templates() {
    let mut lab = Lab::start().await;
    lab.psql(
        "CREATE ROLE operator LOGIN SUPERUSER PASSWORD 'secret';
         REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC",
    );
    lab.server.login = Some(operator());
    assert_eq!(problems(&lab, &USAGE).await, "");
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    lab.deploy("shop__acme", &roles, &["CREATE TABLE a ()"])
        .await;
    let admin = lab.connect("shop__acme", &roles.admin).await;
    assert!(admin.batch_execute("TABLE pg_database").await.is_err());
    lab.stop().await;
}

#[tokio::test]
async fn a_database_of_somebody_elses_is_neither_taken_nor_dropped() {
    let lab = Lab::limited().await;
    let superuser = lab.superuser("postgres").await;
    superuser
        .batch_execute("CREATE DATABASE shop__acme OWNER operator")
        .await
        .unwrap();
    let roles = PostgresEngine.new_roles().unwrap();
    let spec = spec("shop__acme", DatabaseUse::Tenant, &roles);
    let refused = PostgresEngine.create_database(&lab.server, &spec).await;
    assert!(
        matches!(refused, Err(EngineError::NotOurs(_))),
        "{refused:?}"
    );
    PostgresEngine
        .drop_database(&lab.server, &spec)
        .await
        .unwrap();
    let there = superuser
        .query("SELECT FROM pg_database WHERE datname = 'shop__acme'", &[])
        .await
        .unwrap();
    assert_eq!(there.len(), 1);
    lab.stop().await;
}
