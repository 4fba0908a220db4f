//! Which statements of a text are recorded, and with what search path: a tenant gets what its workspace got.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use common::Lab;
use engines::postgres::PostgresEngine;
use engines::{ApplyOptions, Change, DatabaseEngine as _, DatabaseUse};

const WORKSPACE: &str = "shop_workspace";
const TENANT: &str = "shop__acme";

#[tokio::test]
async fn a_tenant_gets_what_its_workspace_got() {
    let lab = Lab::start().await;
    let roles = lab.database(WORKSPACE, DatabaseUse::TenantWorkspace).await;
    let tenants = lab.database(TENANT, DatabaseUse::Tenant).await;
    let client = lab.connect(WORKSPACE, &roles.admin).await;
    let make = "CREATE FUNCTION make(name text) RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE format('CREATE TABLE %I (a int)', name); EXECUTE format('CREATE INDEX ON %I (a)', name); END $$";
    let several = "CREATE PROCEDURE several() LANGUAGE plpgsql AS
        $$ BEGIN CREATE TABLE p1 (a int); COMMIT; CREATE TABLE p2 (a int); COMMIT; END $$";
    for text in [
        "CREATE SCHEMA app; CREATE EXTENSION hstore",
        // The search path changes in the middle of a text.
        "SET search_path = app; CREATE TABLE same (a int); SET search_path = public; CREATE TABLE same (b int)",
        "RESET search_path",
        // These run in several transactions.
        "DO $$ BEGIN CREATE TABLE d1 (a int); COMMIT; CREATE TABLE d2 (a int); END $$",
        several,
        "CALL several()",
        "CREATE TABLE ix (a int, b int)",
        "BEGIN; CREATE INDEX ON ix (a); COMMIT; BEGIN; CREATE INDEX ON ix (b); COMMIT",
        // The text names nothing of what it makes.
        make,
        "SELECT make('m1'); SELECT make('m2')",
        "CREATE TABLE \"Odd \"\"name;\" (a int); ALTER TABLE \"Odd \"\"name;\" ADD b int",
        "BEGIN; SAVEPOINT s; CREATE TABLE gone (a int); ROLLBACK TO s; CREATE TABLE stays (a int); COMMIT",
        "DO $$ BEGIN CREATE TABLE caught (a int); RAISE 'x'; EXCEPTION WHEN OTHERS THEN CREATE TABLE other (a int); END $$",
    ] {
        client.batch_execute(text).await.unwrap();
    }
    let deploy = async || {
        let found = PostgresEngine
            .tracked_changes(&lab.server, WORKSPACE, 0)
            .await
            .unwrap();
        let changes: Vec<_> = found
            .into_iter()
            .map(|it| Change {
                id: it.position,
                statement: it.statement,
                search_path: it.search_path,
            })
            .collect();
        let options = ApplyOptions::default();
        let applied = PostgresEngine
            .apply(&lab.server, TENANT, &tenants, &changes, &options)
            .await
            .unwrap();
        assert_eq!(applied.len(), changes.len());
    };
    let same = async || {
        let ours = PostgresEngine.schema(&lab.server, WORKSPACE).await.unwrap();
        let theirs = PostgresEngine.schema(&lab.server, TENANT).await.unwrap();
        assert_eq!(ours, theirs);
        ours.len()
    };
    deploy().await;
    assert_eq!(same().await, 12);
    // What a workspace may do with its own schema stops no deployment after it.
    client
        .batch_execute("DROP SCHEMA public CASCADE")
        .await
        .unwrap();
    deploy().await;
    client
        .batch_execute("CREATE TABLE app.late (a int)")
        .await
        .unwrap();
    deploy().await;
    assert_eq!(same().await, 2);
    let reader = lab.connect(TENANT, &tenants.read).await;
    reader
        .batch_execute("SELECT * FROM app.late")
        .await
        .unwrap();
    lab.stop().await;
}
