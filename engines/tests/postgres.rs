//! The PostgreSQL engine on a real server: databases, tracked changes, deployments.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::time::Duration;

use common::{Lab, change, spec};
use engines::postgres::{PostgresEngine, SchemaSource};
use engines::{ApplyOptions, Change, DatabaseEngine as _, DatabaseUse, EngineError};

async fn tracked(lab: &Lab, after: i64) -> Vec<String> {
    let found = PostgresEngine
        .tracked_changes(&lab.server, "shop_workspace", after)
        .await
        .unwrap();
    found.into_iter().map(|it| it.statement).collect()
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
            "CREATE TABLE users (id SERIAL PRIMARY KEY, name TEXT NOT NULL, mail varchar(255) UNIQUE, at timestamptz DEFAULT now(),
                 number bigint GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (id * 2) STORED);
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
            ("number", "BIGINT GENERATED ALWAYS AS IDENTITY", false, None),
            (
                "twice",
                "INTEGER GENERATED ALWAYS AS ((id * 2)) STORED",
                true,
                None
            ),
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
            ..ApplyOptions::default()
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
            .drop_database(
                &lab.server,
                &spec("shop__acme", DatabaseUse::Tenant, &roles),
            )
            .await
            .unwrap();
    }
    assert!(client.batch_execute("SELECT 1").await.is_err());
    assert!(lab.try_connect("postgres", &roles.admin).await.is_err());
    lab.stop().await;
}

#[tokio::test]
async fn changes_are_numbered_as_they_commit() {
    let lab = Lab::start().await;
    let roles = lab
        .database("shop_workspace", DatabaseUse::TenantWorkspace)
        .await;
    let other = lab
        .database("other_workspace", DatabaseUse::ControlWorkspace)
        .await;
    // An open transaction elsewhere on the server holds nothing up.
    let elsewhere = lab.connect("other_workspace", &other.admin).await;
    elsewhere
        .batch_execute("BEGIN; CREATE TABLE open (id int)")
        .await
        .unwrap();
    let first = lab.connect("shop_workspace", &roles.admin).await;
    let second = lab.connect("shop_workspace", &roles.admin).await;
    first
        .batch_execute("BEGIN; CREATE TABLE late (id int)")
        .await
        .unwrap();
    second
        .batch_execute("CREATE TABLE early (id int)")
        .await
        .unwrap();
    let seen = PostgresEngine
        .tracked_changes(&lab.server, "shop_workspace", 0)
        .await
        .unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].statement, "CREATE TABLE early (id int)");
    first.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        tracked(&lab, seen[0].position).await,
        ["CREATE TABLE late (id int)"]
    );
    lab.stop().await;
}

#[tokio::test]
async fn what_is_no_change_of_the_schema_is_not_tracked() {
    let lab = Lab::start().await;
    let roles = lab
        .database("shop_workspace", DatabaseUse::TenantWorkspace)
        .await;
    let client = lab.connect("shop_workspace", &roles.admin).await;
    for (statement, counts) in [
        ("CREATE TABLE a (id serial PRIMARY KEY, name text)", true),
        ("CREATE EXTENSION citext", true),
        ("CREATE SCHEMA s CREATE TABLE t (id int)", true),
        ("SELECT id INTO copied FROM a", true),
        ("CREATE MATERIALIZED VIEW m AS SELECT * FROM a", true),
        ("CREATE INDEX CONCURRENTLY named ON a (name)", true),
        ("COMMENT ON COLUMN a.name IS 'x'", true),
        (
            "CREATE TYPE mood AS ENUM ('x'); ALTER TYPE mood ADD VALUE 'y'",
            true,
        ),
        (
            "CREATE RULE r AS ON DELETE TO copied DO INSTEAD NOTHING",
            true,
        ),
        ("CREATE POLICY p ON a", true),
        ("DROP TABLE copied, s.t", true),
        ("REFRESH MATERIALIZED VIEW m", false),
        (
            "GRANT SELECT ON a TO PUBLIC; REVOKE SELECT ON a FROM PUBLIC",
            false,
        ),
        ("ALTER TABLE a OWNER TO CURRENT_USER", false),
        (
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
            false,
        ),
        ("CREATE TABLE IF NOT EXISTS a (id int)", false),
        ("DROP TABLE IF EXISTS nothing", false),
        ("CREATE TEMP TABLE t AS SELECT 1", false),
        (
            "ALTER TABLE t ADD COLUMN x int; CREATE INDEX ON t (x)",
            false,
        ),
        ("DISCARD TEMP", false),
        ("TRUNCATE a; VACUUM a", false),
    ] {
        let before = PostgresEngine
            .tracked_changes(&lab.server, "shop_workspace", 0)
            .await
            .unwrap();
        let after = before.last().map_or(0, |it| it.position);
        for one in statement.split("; ") {
            client.batch_execute(one).await.unwrap();
        }
        let expected: Vec<_> = statement.split("; ").filter(|_| counts).collect();
        assert_eq!(tracked(&lab, after).await, expected, "{statement}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_concurrent_build_is_recognised_after_a_crash() {
    let lab = Lab::start().await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    lab.deploy(
        "shop__acme",
        &roles,
        &["CREATE TABLE a (id int)", "CREATE TABLE b (id int)"],
    )
    .await;
    let options = ApplyOptions::default();
    let apply = async |change: Change| {
        PostgresEngine
            .apply(&lab.server, "shop__acme", &roles, &[change], &options)
            .await
    };
    let indexes = async |admin: &tokio_postgres::Client| {
        let rows = admin
            .query("SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                    WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1", &[])
            .await
            .unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect::<Vec<(String, bool)>>()
    };
    let admin = lab.superuser("shop__acme").await;
    let begun = async |id: i64| {
        let mark = format!(
            "INSERT INTO _tenantsdb.ledger (change, finished, indexes)
             VALUES ({id}, false, ARRAY(SELECT indexrelid FROM pg_index))"
        );
        admin.batch_execute(&mark).await.unwrap();
    };
    // A build that fails leaves nothing behind, and the next attempt starts over.
    admin
        .batch_execute("INSERT INTO a VALUES (1), (1)")
        .await
        .unwrap();
    let unique = change(11, "CREATE UNIQUE INDEX CONCURRENTLY one ON a (id)");
    for _ in 0..2 {
        let failed = apply(unique.clone()).await.unwrap_err();
        assert!(
            matches!(&failed, EngineError::Statement { change: Some(11), code, .. } if code == "23505"),
            "{failed:?}"
        );
        assert_eq!(indexes(&admin).await, []);
    }
    // A crash in the middle of the build.
    begun(12).await;
    assert!(
        admin
            .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY two ON a (id)")
            .await
            .is_err()
    );
    admin.batch_execute("TRUNCATE a").await.unwrap();
    assert_eq!(indexes(&admin).await, [("two".to_owned(), false)]);
    apply(change(12, "CREATE UNIQUE INDEX CONCURRENTLY two ON a (id)"))
        .await
        .unwrap();
    assert_eq!(indexes(&admin).await, [("two".to_owned(), true)]);
    // A crash between the build and its line in the ledger.
    begun(13).await;
    admin
        .batch_execute("CREATE INDEX CONCURRENTLY ON b (id)")
        .await
        .unwrap();
    apply(change(13, "CREATE INDEX CONCURRENTLY ON b (id)"))
        .await
        .unwrap();
    let both = [("b_id_idx".to_owned(), true), ("two".to_owned(), true)];
    assert_eq!(indexes(&admin).await, both);
    // The same of a removal.
    begun(14).await;
    admin.batch_execute("DROP INDEX two").await.unwrap();
    let ledger = apply(change(14, "DROP INDEX CONCURRENTLY two")).await;
    assert_eq!(ledger.unwrap(), [1, 2, 12, 13, 14]);
    lab.stop().await;
}

#[tokio::test]
async fn a_deployment_cannot_write_the_ledger_and_two_wait_for_each_other() {
    let lab = Lab::start().await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    let options = ApplyOptions::default();
    for forged in [
        "INSERT INTO _tenantsdb.ledger (change, finished) VALUES (9, true)",
        "SELECT _tenantsdb.note_change('', 9)",
        "SELECT * FROM _tenantsdb.ticket",
        "DO $$ BEGIN PERFORM _tenantsdb.note_change(t.ticket, 9) FROM _tenantsdb.ticket t; END $$",
    ] {
        let failed = PostgresEngine
            .apply(
                &lab.server,
                "shop__acme",
                &roles,
                &[change(1, forged)],
                &options,
            )
            .await
            .unwrap_err();
        assert!(
            matches!(&failed, EngineError::Statement { code, .. } if code == "42501"),
            "{forged}: {failed:?}"
        );
    }
    let changes: Vec<_> = (1..=5)
        .map(|id| change(id, &format!("CREATE TABLE t{id} (id int)")))
        .collect();
    let one = PostgresEngine.apply(&lab.server, "shop__acme", &roles, &changes, &options);
    let two = PostgresEngine.apply(&lab.server, "shop__acme", &roles, &changes, &options);
    let (one, two) = tokio::join!(one, two);
    assert_eq!(one.unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(two.unwrap(), [1, 2, 3, 4, 5]);
    lab.stop().await;
}

#[tokio::test]
async fn a_closed_database_keeps_its_rows() {
    let lab = Lab::start().await;
    let roles = lab.database("shop__acme", DatabaseUse::Tenant).await;
    lab.deploy("shop__acme", &roles, &["CREATE TABLE a (id int)"])
        .await;
    PostgresEngine.ping(&lab.server).await.unwrap();
    let size = PostgresEngine
        .database_size(
            &lab.server,
            &spec("shop__acme", DatabaseUse::Tenant, &roles),
        )
        .await
        .unwrap();
    assert!(size > 1_000_000, "{size}");
    let client = lab.connect("shop__acme", &roles.write).await;
    client
        .batch_execute("INSERT INTO a VALUES (7)")
        .await
        .unwrap();
    for _ in 0..2 {
        PostgresEngine
            .set_open(
                &lab.server,
                &spec("shop__acme", DatabaseUse::Tenant, &roles),
                false,
            )
            .await
            .unwrap();
        assert!(lab.try_connect("shop__acme", &roles.write).await.is_err());
    }
    assert!(client.batch_execute("SELECT 1").await.is_err());
    PostgresEngine
        .set_open(
            &lab.server,
            &spec("shop__acme", DatabaseUse::Tenant, &roles),
            true,
        )
        .await
        .unwrap();
    let client = lab.connect("shop__acme", &roles.write).await;
    let row = client.query_one("SELECT id FROM a", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);
    lab.stop().await;
}

#[tokio::test]
async fn many_databases_are_made_at_once() {
    let lab = Lab::start().await;
    let (one, two, three, four) = tokio::join!(
        lab.database("shop__t1", DatabaseUse::Tenant),
        lab.database("shop__t2", DatabaseUse::Tenant),
        lab.database("shop_workspace", DatabaseUse::TenantWorkspace),
        lab.database("other_workspace", DatabaseUse::ControlWorkspace),
    );
    lab.connect("shop__t1", &one.read).await;
    lab.connect("shop__t2", &two.read).await;
    lab.connect("shop_workspace", &three.read).await;
    lab.connect("other_workspace", &four.read).await;
    lab.stop().await;
}

/// Of everything that a workspace can hold.
const RICH: &str = r#"
CREATE EXTENSION citext;
CREATE EXTENSION pg_trgm;
CREATE SCHEMA audit;
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE TYPE pair AS (x int, y numeric(12,2));
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE invoice_number START 1000 INCREMENT 5;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.changed := now(); RETURN NEW; END; $f$;
CREATE FUNCTION full_price(net numeric, OUT gross numeric) LANGUAGE sql IMMUTABLE AS 'SELECT net * 1.2';
CREATE TABLE "Users" (id serial PRIMARY KEY, mail citext UNIQUE NOT NULL, mood mood DEFAULT 'sad', "Odd; name" text COLLATE "C",
    changed timestamptz NOT NULL DEFAULT now(), tags text[] DEFAULT '{}', CHECK (length("Odd; name") < 10));
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id int NOT NULL REFERENCES "Users" ON DELETE CASCADE,
    number int NOT NULL DEFAULT nextval('invoice_number'), net numeric(12,2) NOT NULL, count positive,
    gross numeric GENERATED ALWAYS AS (full_price(net)) STORED, period tstzrange, at pair,
    EXCLUDE USING gist (period WITH &&), UNIQUE (user_id, number) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE audit.log (id uuid DEFAULT gen_random_uuid(), at date NOT NULL, what jsonb) PARTITION BY RANGE (at);
CREATE TABLE audit.log_2026 PARTITION OF audit.log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE audit.rest PARTITION OF audit.log DEFAULT;
CREATE TABLE special (extra text) INHERITS ("Users");
CREATE INDEX ON orders (net DESC NULLS LAST) INCLUDE (count) WHERE net > 0;
CREATE INDEX trigram ON "Users" USING gin (mail gin_trgm_ops);
CREATE INDEX ON audit.log ((what ->> 'x'));
CREATE STATISTICS correlated ON user_id, number FROM orders;
CREATE VIEW happy AS SELECT id, mail FROM "Users" WHERE mood = 'happy' WITH LOCAL CHECK OPTION;
CREATE MATERIALIZED VIEW totals AS SELECT user_id, sum(net) FROM orders GROUP BY 1;
CREATE UNIQUE INDEX ON totals (user_id);
CREATE FUNCTION orders_of(who "Users") RETURNS SETOF orders LANGUAGE sql STABLE BEGIN ATOMIC SELECT * FROM orders o WHERE o.user_id = who.id; END;
CREATE PROCEDURE forget(who int) LANGUAGE sql AS 'DELETE FROM "Users" WHERE id = who';
CREATE AGGREGATE multiply(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
CREATE TRIGGER touch BEFORE UPDATE OF mail ON "Users" FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION touch();
CREATE RULE quiet AS ON DELETE TO happy DO INSTEAD NOTHING;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON orders USING (user_id > 0);
ALTER TABLE orders ALTER COLUMN net SET STATISTICS 500;
COMMENT ON TABLE orders IS 'what; they''d like';
COMMENT ON COLUMN "Users".mail IS 'where';
COMMENT ON FUNCTION touch() IS 'when'
"#;

#[tokio::test]
async fn a_rich_schema_survives_the_round_trip_and_a_deployment() {
    let lab = Lab::start().await;
    let roles = lab
        .database("shop_workspace", DatabaseUse::TenantWorkspace)
        .await;
    let client = lab.connect("shop_workspace", &roles.admin).await;
    for statement in protocol_sql::split(RICH, &protocol_sql::Options::default()) {
        client.batch_execute(statement).await.unwrap();
    }
    let read = async |database: &str| {
        PostgresEngine
            .schema_statements(&lab.server, database)
            .await
            .unwrap()
    };
    let statements = read("shop_workspace").await;
    assert!(statements.len() > 40, "{statements:#?}");
    assert!(
        statements.iter().all(|it| !it.contains("_tenantsdb")),
        "{statements:#?}"
    );

    let copy = lab
        .database("copy_workspace", DatabaseUse::ControlWorkspace)
        .await;
    let client = lab.connect("copy_workspace", &copy.admin).await;
    client
        .batch_execute("SET search_path = ''; SET check_function_bodies = off")
        .await
        .unwrap();
    for statement in &statements {
        let outcome = client.batch_execute(statement).await;
        assert!(outcome.is_ok(), "{statement}: {outcome:?}");
    }
    assert_eq!(read("copy_workspace").await, statements);

    // As from elsewhere: with a password, and what the server says without one.
    let mut source = SchemaSource {
        address: lab.server.address.clone(),
        user: copy.admin.name.to_string(),
        password: Some(control_store::Secret::new("wrong".into())),
        database: "copy_workspace".into(),
        require_tls: false,
    };
    let failed = source.statements().await.unwrap_err().to_string();
    assert!(
        failed.contains("password authentication failed"),
        "{failed}"
    );
    source.database = "nothing".into();
    source.password = None;
    let failed = source.statements().await.unwrap_err().to_string();
    assert!(failed.contains("no password supplied"), "{failed}");

    // What was tracked makes the same in a tenant's database.
    let tenant = lab.database("shop__acme", DatabaseUse::Tenant).await;
    let changes: Vec<_> = PostgresEngine
        .tracked_changes(&lab.server, "shop_workspace", 0)
        .await
        .unwrap()
        .into_iter()
        .map(|it| Change {
            id: it.position,
            statement: it.statement,
            search_path: it.search_path,
        })
        .collect();
    PostgresEngine
        .apply(
            &lab.server,
            "shop__acme",
            &tenant,
            &changes,
            &ApplyOptions::default(),
        )
        .await
        .unwrap();
    assert_eq!(read("shop__acme").await, statements);
    lab.stop().await;
}
