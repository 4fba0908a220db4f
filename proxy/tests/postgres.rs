//! The data plane on real PostgreSQL servers, on both reactors.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{
    Lab, Options, PASSWORD, PROJECT, REACTORS, READER_PASSWORD, TENANT, TENANT_ID, WORKSPACE,
};
use control_store::ServerId;
use control_store::snapshot::{DatabaseStatus, PoolMode, Settings};
use control_store::traffic::HoldBudget;
use proxy::reactor::ReactorKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

const FIRST: ServerId = ServerId(1);

/// Few backends, so that clients share them.
fn shared(reactor: ReactorKind) -> Options {
    Options {
        workers: 1,
        pool_size: 1,
        ..Options::on(reactor)
    }
}

async fn text(client: &tokio_postgres::Client, query: &str) -> String {
    let messages = client.simple_query(query).await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.and_then(|row| row.get(0)).unwrap_or("").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_sees_a_server() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let name = "SELECT name FROM items WHERE id = 7";
        assert_eq!(lab.psql(TENANT, name).await, "item 7\n");
        let about = "SELECT current_database(), count(*) FROM items";
        assert_eq!(lab.psql(TENANT, about).await, "shop__acme|100\n");
        let refused = lab.psql(TENANT, "CREATE TABLE x (i int)").await;
        assert!(
            refused.contains(control_store::fault::DDL_REFUSED),
            "{refused}"
        );
        assert_eq!(lab.psql(WORKSPACE, "CREATE TABLE x (i int)").await, "");
        assert!(lab.psql(WORKSPACE, "\\d x").await.contains("i|integer"));
        assert_eq!(
            lab.psql(TENANT, "SELECT 1; SELECT 2; SELECT 3").await,
            "1\n2\n3\n"
        );
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_runs_in_all_protocols() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let out = lab
            .program("pgbench", &["-i", "-q", "-s", "1"], WORKSPACE)
            .await;
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        for protocol in ["simple", "extended", "prepared"] {
            for script in ["select-only", "tpcb-like"] {
                let arguments = [
                    "-n", "-M", protocol, "-b", script, "-c", "12", "-j", "2", "-t", "60",
                ];
                let out = lab.program("pgbench", &arguments, WORKSPACE).await;
                let report = String::from_utf8_lossy(&out.stdout).into_owned();
                let errors = String::from_utf8_lossy(&out.stderr).into_owned();
                assert!(out.status.success(), "{protocol} {script}: {errors}");
                assert!(
                    report.contains("720/720"),
                    "{protocol} {script}: {report}{errors}"
                );
            }
        }
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_fail_tell_strangers_nothing() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let mut config = lab.config(TENANT);
        let code = |error: &tokio_postgres::Error| error.code().cloned();
        let error = config.password("wrong").connect(NoTls).await.err().unwrap();
        assert_eq!(code(&error), Some(SqlState::INVALID_PASSWORD));
        let stranger = config
            .user("tdb_deadbeef")
            .connect(NoTls)
            .await
            .err()
            .unwrap();
        assert_eq!(code(&stranger), Some(SqlState::INVALID_PASSWORD));
        let mut config = lab.config("no__such");
        let error = config.connect(NoTls).await.err().unwrap();
        assert_eq!(code(&error), Some(SqlState::UNDEFINED_DATABASE));
        let error = config
            .dbname(TENANT)
            .options("-c no_such_setting=1")
            .connect(NoTls)
            .await
            .err()
            .unwrap();
        assert_eq!(code(&error), Some(SqlState::UNDEFINED_OBJECT));
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_passwords_work_under_one_user_name() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let mut config = lab.config(TENANT);
        let (reader, connection) = config
            .password(READER_PASSWORD)
            .connect(NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        assert_eq!(text(&reader, "SELECT count(*) FROM items").await, "100");
        let error = reader.simple_query("DELETE FROM items").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
        let writer = lab.connect(TENANT).await;
        writer
            .simple_query("DELETE FROM items WHERE id = 1")
            .await
            .unwrap();
        assert_eq!(text(&reader, "SELECT count(*) FROM items").await, "99");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_parameters_are_applied_and_reported() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        for zone in ["Europe/Berlin", "Asia/Tokyo", "Europe/Berlin"] {
            let mut config = lab.config(TENANT);
            config.options(format!(
                "-c TimeZone={zone} -c search_path=a,public -c app.tenant=7"
            ));
            let (client, connection) = config.connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            let plain = lab.connect(TENANT).await;
            assert_eq!(text(&plain, "SHOW TimeZone").await, "UTC");
            assert_eq!(text(&client, "SHOW TimeZone").await, zone);
            assert_eq!(text(&client, "SHOW search_path").await, "a,public");
            assert_eq!(text(&client, "SHOW app.tenant").await, "7");
        }
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_follow_their_client_to_any_backend() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        let by_one = one
            .prepare("SELECT name FROM items WHERE id = $1")
            .await
            .unwrap();
        let by_two = two
            .prepare("SELECT name FROM items WHERE id = $1")
            .await
            .unwrap();
        let other = two
            .prepare("SELECT id FROM items WHERE name = $1")
            .await
            .unwrap();
        for id in 1..20_i32 {
            let row = one.query_one(&by_one, &[&id]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), format!("item {id}"));
            let row = two.query_one(&by_two, &[&id]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), format!("item {id}"));
            let row = two
                .query_one(&other, &[&format!("item {id}")])
                .await
                .unwrap();
            assert_eq!(row.get::<_, i32>(0), id);
        }
        // A transaction of one holds the only backend; the other waits, and finds its statements again.
        one.batch_execute("BEGIN").await.unwrap();
        let waits = tokio::spawn(async move {
            let row = two.query_one(&by_two, &[&5_i32]).await.unwrap();
            row.get::<_, String>(0)
        });
        one.query_one(&by_one, &[&6_i32]).await.unwrap();
        one.batch_execute("COMMIT").await.unwrap();
        assert_eq!(waits.await.unwrap(), "item 5");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_change_renews_prepared_statements() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(WORKSPACE).await, lab.connect(WORKSPACE).await);
        one.batch_execute("CREATE TABLE grows (a int); INSERT INTO grows VALUES (1)")
            .await
            .unwrap();
        let all = two.prepare("SELECT * FROM grows").await.unwrap();
        assert_eq!(two.query_one(&all, &[]).await.unwrap().len(), 1);
        one.batch_execute("ALTER TABLE grows ALTER a TYPE bigint")
            .await
            .unwrap();
        // The driver reads by the description it has; the server must not refuse the statement.
        let row = two.simple_query("SELECT 1").await.unwrap();
        assert!(!row.is_empty());
        two.query_one("SELECT a FROM grows", &[]).await.unwrap();
        assert!(two.query(&all, &[]).await.is_ok());
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_belong_to_their_session() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        one.batch_execute("SET search_path TO one, public")
            .await
            .unwrap();
        two.batch_execute("SET search_path TO two; SET app.tenant = 'it''s'")
            .await
            .unwrap();
        for _ in 0..3 {
            assert_eq!(text(&one, "SHOW search_path").await, "one, public");
            assert_eq!(text(&two, "SHOW search_path").await, "two");
            assert_eq!(
                text(&two, "SELECT current_setting('app.tenant', true)").await,
                "it's"
            );
            assert_eq!(
                text(
                    &one,
                    "SELECT coalesce(current_setting('app.tenant', true), '')"
                )
                .await,
                ""
            );
        }
        // What is rolled back was never set.
        one.batch_execute("BEGIN; SET work_mem = '7MB'; ROLLBACK")
            .await
            .unwrap();
        two.simple_query("SELECT 1").await.unwrap();
        assert_eq!(text(&one, "SHOW work_mem").await, "4MB");
        one.batch_execute(
            "BEGIN; SET work_mem = '7MB'; SAVEPOINT a; SET work_mem = '9MB'; ROLLBACK TO a; COMMIT",
        )
        .await
        .unwrap();
        assert_eq!(text(&two, "SHOW work_mem").await, "4MB");
        assert_eq!(text(&one, "SHOW work_mem").await, "7MB");
        one.query_one("SELECT set_config('work_mem', $1, false)", &[&"5MB"])
            .await
            .unwrap();
        assert_eq!(text(&two, "SHOW work_mem").await, "4MB");
        assert_eq!(text(&one, "SHOW work_mem").await, "5MB");
        one.batch_execute("RESET ALL").await.unwrap();
        assert_eq!(text(&one, "SHOW work_mem").await, "4MB");
        assert_eq!(text(&one, "SHOW search_path").await, "\"$user\", public");
        two.batch_execute("DISCARD ALL").await.unwrap();
        assert_eq!(text(&two, "SHOW search_path").await, "\"$user\", public");
        assert_eq!(
            text(
                &one,
                "SELECT coalesce(current_setting('app.tenant', true), '')"
            )
            .await,
            ""
        );
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_goes_back_to_what_the_client_asked_for_at_its_login() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let mut config = lab.config(TENANT);
        config.options("-c datestyle=German -c work_mem=8MB");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let other = lab.connect(TENANT).await;
        for reset in [
            "RESET datestyle; RESET work_mem",
            "SET DateStyle TO DEFAULT; SET WORK_MEM = DEFAULT",
            "RESET ALL",
            "DISCARD ALL",
            "BEGIN; RESET ALL; COMMIT",
        ] {
            client
                .batch_execute("SET datestyle = SQL; SET work_mem = '16MB'")
                .await
                .unwrap();
            assert_eq!(text(&client, "SHOW datestyle").await, "SQL, DMY");
            assert_eq!(text(&other, "SHOW datestyle").await, "ISO, MDY");
            client.simple_query(reset).await.unwrap();
            assert_eq!(
                text(&client, "SHOW datestyle").await,
                "German, DMY",
                "{reset}"
            );
            assert_eq!(text(&client, "SHOW work_mem").await, "8MB", "{reset}");
        }
        // A value that happens to be the server's own is no reset.
        client
            .batch_execute("SET datestyle = 'ISO, MDY'")
            .await
            .unwrap();
        client
            .batch_execute("BEGIN; RESET datestyle; ROLLBACK")
            .await
            .unwrap();
        assert_eq!(text(&client, "SHOW datestyle").await, "ISO, MDY");
        assert_eq!(text(&client, "SHOW work_mem").await, "8MB");
        assert_eq!(text(&other, "SHOW work_mem").await, "4MB");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_was_refused_spoils_nothing() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        let refused = one.simple_query("SET session_replication_role = replica");
        assert_eq!(
            refused.await.unwrap_err().code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE)
        );
        // On the same backend: nothing has to be taken back there.
        for client in [&two, &one] {
            assert_eq!(
                text(client, "SHOW session_replication_role").await,
                "origin"
            );
        }
        lab.stop().await;
    }
}

/// The hour that a literal of midnight in the session's time zone is in UTC.
const HOUR: &str =
    "SELECT EXTRACT(hour FROM '2026-01-01 00:00'::timestamptz AT TIME ZONE 'UTC')::int";

async fn hour(client: &tokio_postgres::Client) -> i32 {
    client.query_one(HOUR, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn literals_are_read_with_the_settings_of_who_prepares_them() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        one.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        two.batch_execute("SET TIME ZONE 'Asia/Tokyo'")
            .await
            .unwrap();
        for _ in 0..3 {
            assert_eq!(hour(&one).await, 0);
            assert_eq!(hour(&two).await, 15);
        }
        // A setting that lasts for a transaction, or is not known to last yet, spoils nothing for others.
        for set in [
            "SET LOCAL TimeZone = 'America/New_York'",
            "SET TimeZone = 'America/New_York'",
            "SELECT set_config('timezone', 'America/New_York', true)",
        ] {
            for text in [
                "SELECT '2026-01-01 01:00'::timestamptz = '2026-01-01 06:00Z'",
                HOUR,
            ] {
                one.batch_execute("BEGIN").await.unwrap();
                one.simple_query(set).await.unwrap();
                one.query_one(text, &[]).await.unwrap();
                one.batch_execute("ROLLBACK").await.unwrap();
            }
            let same = "SELECT '2026-01-01 01:00'::timestamptz = '2026-01-01 06:00Z'";
            assert!(
                !one.query_one(same, &[]).await.unwrap().get::<_, bool>(0),
                "{set}"
            );
            assert_eq!(hour(&one).await, 0, "{set}");
            assert_eq!(hour(&two).await, 15, "{set}");
        }
        // Prepared before the setting changed, and used on a backend that has yet to prepare it.
        let kept = one.prepare(HOUR).await.unwrap();
        one.batch_execute("SET TimeZone = 'Europe/Moscow'")
            .await
            .unwrap();
        let backend = text(&two, "SELECT pg_backend_pid()").await;
        let admin = lab.superuser(FIRST, "postgres").await;
        admin
            .simple_query(&format!("SELECT pg_terminate_backend({backend}, 5000)"))
            .await
            .unwrap();
        one.query_one(&kept, &[]).await.unwrap();
        let three = lab.connect(TENANT).await;
        three.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
        assert_eq!(hour(&three).await, 0);
        assert_eq!(hour(&one).await, 21);
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_path_of_ones_own_reads_ones_own_tables() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(WORKSPACE).await, lab.connect(WORKSPACE).await);
        one.batch_execute(
            "CREATE SCHEMA a; CREATE TABLE a.t AS SELECT 1 AS x;
             CREATE SCHEMA b; CREATE TABLE b.t AS SELECT 'two' AS y, 2 AS z",
        )
        .await
        .unwrap();
        one.batch_execute("SET search_path = a").await.unwrap();
        two.batch_execute("SET search_path = b").await.unwrap();
        for _ in 0..3 {
            let row = one.query_one("SELECT * FROM t", &[]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), 1);
            let row = two.query_one("SELECT * FROM t", &[]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), "two");
        }
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_now_in_a_literal_means_now() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        for client in [&one, &two, &one, &two] {
            for _ in 0..3 {
                let before = text(client, "SELECT clock_timestamp()").await;
                let rows = client
                    .query_typed(
                        "SELECT 'Now'::timestamptz >= $1::text::timestamptz",
                        &[(&before, tokio_postgres::types::Type::TEXT)],
                    )
                    .await
                    .unwrap();
                assert!(rows[0].get::<_, bool>(0), "unnamed, {before}");
                let row = client
                    .query_one(
                        "SELECT 'now'::timestamptz >= $1::text::timestamptz",
                        &[&before],
                    )
                    .await
                    .unwrap();
                assert!(row.get::<_, bool>(0), "named, {before}");
            }
        }
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_have_one_name_however_it_is_written() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        one.batch_execute("SET TIME ZONE 'Asia/Tokyo'")
            .await
            .unwrap();
        two.batch_execute("SET TIME ZONE 'Asia/Tokyo'")
            .await
            .unwrap();
        one.batch_execute("SET timezone = 'Europe/Moscow'")
            .await
            .unwrap();
        for _ in 0..3 {
            assert_eq!(text(&one, "SHOW timezone").await, "Europe/Moscow");
            assert_eq!(text(&two, "SHOW timezone").await, "Asia/Tokyo");
        }
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_sets_stays_with_its_session() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (one, two) = (lab.connect(WORKSPACE).await, lab.connect(WORKSPACE).await);
        one.batch_execute(
            "CREATE FUNCTION settle(zone text, local boolean) RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN RETURN set_config('TimeZone', zone, local); END $$",
        )
        .await
        .unwrap();
        let usual = text(&two, "SHOW timezone").await;
        text(&one, "SELECT settle('Asia/Tokyo', false)").await;
        for _ in 0..3 {
            assert_eq!(text(&two, "SHOW timezone").await, usual);
            assert_eq!(text(&one, "SHOW timezone").await, "Asia/Tokyo");
        }
        text(&two, "SELECT settle('Asia/Tokyo', true)").await;
        assert_eq!(text(&two, "SHOW timezone").await, usual);
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_pins_and_is_freed_again() {
    for reactor in REACTORS {
        let lab = Lab::start(Options {
            pool_size: 2,
            ..shared(reactor)
        })
        .await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        one.batch_execute("CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (5)")
            .await
            .unwrap();
        assert!(two.simple_query("SELECT * FROM mine").await.is_err());
        assert_eq!(text(&one, "SELECT a FROM mine").await, "5");
        one.batch_execute("DISCARD TEMP").await.unwrap();
        assert_eq!(text(&one, "SELECT pg_try_advisory_lock(42)").await, "t");
        assert_eq!(text(&two, "SELECT pg_try_advisory_lock(42)").await, "f");
        assert_eq!(text(&one, "SELECT pg_advisory_unlock(42)").await, "t");
        // Both are free of their pins now: two more clients can use the two backends at the same time.
        let (three, four) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        three.batch_execute("BEGIN; SELECT 1").await.unwrap();
        four.batch_execute("BEGIN; SELECT 1").await.unwrap();
        three.batch_execute("COMMIT").await.unwrap();
        four.batch_execute("COMMIT").await.unwrap();
        assert_eq!(text(&two, "SELECT pg_try_advisory_lock(42)").await, "t");
        drop((one, two, three, four));
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_reach_who_listens() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let (client, mut connection) = lab.config(TENANT).connect(NoTls).await.unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let Ok(tokio_postgres::AsyncMessage::Notification(note)) = message {
                    let _ = tell.send(note.payload().to_owned());
                }
            }
        });
        client.batch_execute("LISTEN news").await.unwrap();
        let other = lab.connect(TENANT).await;
        other.batch_execute("NOTIFY news, 'hello'").await.unwrap();
        let payload = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
        assert_eq!(payload.unwrap().as_deref(), Some("hello"));
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_in_a_transaction_is_rolled_back() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        for statement in [
            "UPDATE items SET name = 'gone' WHERE id = 1",
            "SELECT pg_sleep(600)",
        ] {
            let (client, connection) = lab.config(TENANT).connect(NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            client
                .batch_execute("BEGIN; UPDATE items SET name = 'gone' WHERE id = 2")
                .await
                .unwrap();
            let running = client.simple_query(statement);
            let _ = tokio::time::timeout(Duration::from_millis(200), running).await;
            connection.abort();
            drop(client);
            // The only backend is free again, and nothing has changed.
            let other = lab.connect(TENANT).await;
            let names = "SELECT string_agg(name, ',' ORDER BY id) FROM items WHERE id < 3";
            assert_eq!(text(&other, names).await, "item 1,item 2");
        }
        let admin = lab.superuser(FIRST, "postgres").await;
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(6%' AND state = 'active' AND pid <> pg_backend_pid()";
        for _ in 0..200 {
            if text(&admin, sleeping).await == "0" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            text(&admin, sleeping).await,
            "0",
            "it was cancelled at the server"
        );
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_can_be_cancelled() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let client = lab.connect(TENANT).await;
        let token = client.cancel_token();
        let runs = client.simple_query("SELECT pg_sleep(600)");
        let cancels = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            token.cancel_query(NoTls).await.unwrap();
        };
        let (ran, ()) = tokio::join!(runs, cancels);
        assert_eq!(ran.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        assert_eq!(text(&client, "SELECT 1").await, "1");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_enforced() {
    for reactor in REACTORS {
        let lab = Lab::start(Options {
            settings: Settings {
                query_timeout_ms: 300,
                max_rows_per_query: 50,
                max_connections: 3,
            },
            ..shared(reactor)
        })
        .await;
        let client = lab.connect(TENANT).await;
        let error = client
            .simple_query("SELECT pg_sleep(600)")
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
        assert!(
            error.to_string().contains("query_timeout_ms is 300") || {
                let db = error.as_db_error().unwrap();
                db.message().contains("query_timeout_ms is 300")
            }
        );
        assert_eq!(
            client
                .query("SELECT * FROM items LIMIT 50", &[])
                .await
                .unwrap()
                .len(),
            50
        );
        for _ in 0..3 {
            let error = client.query("SELECT * FROM items", &[]).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::PROGRAM_LIMIT_EXCEEDED));
            let error = client
                .simple_query("SELECT * FROM items")
                .await
                .unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::PROGRAM_LIMIT_EXCEEDED));
        }
        // Inside a transaction the limit fails the transaction, as any error does.
        client.batch_execute("BEGIN").await.unwrap();
        client
            .simple_query("SELECT * FROM items")
            .await
            .unwrap_err();
        let error = client.simple_query("SELECT 1").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        client.batch_execute("ROLLBACK").await.unwrap();
        let (_two, _three) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        let error = lab.config(TENANT).connect(NoTls).await.err().unwrap();
        assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_ddl_fails_its_transaction() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let client = lab.connect(TENANT).await;
        for ddl in [
            "CREATE TABLE x (i int)",
            "SELECT 1; DROP TABLE items",
            "GRANT ALL ON items TO PUBLIC",
        ] {
            let error = client.simple_query(ddl).await.unwrap_err();
            assert_eq!(
                error.code(),
                Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                "{ddl}"
            );
            assert_eq!(
                error.as_db_error().unwrap().message(),
                control_store::fault::DDL_REFUSED
            );
        }
        client
            .batch_execute("BEGIN; DELETE FROM items WHERE id = 1")
            .await
            .unwrap();
        let error = client.query("DROP TABLE items", &[]).await.unwrap_err();
        assert_eq!(
            error.as_db_error().unwrap().message(),
            control_store::fault::DDL_REFUSED
        );
        let error = client.simple_query("SELECT 1").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(text(&client, "SELECT count(*) FROM items").await, "100");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_goes_both_ways() {
    use futures_util::{SinkExt as _, StreamExt as _};
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let client = lab.connect(TENANT).await;
        let sink = client.copy_in("COPY items FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        let mut sent = 0_u32;
        while sent < 50_000 {
            let mut chunk = Vec::new();
            for _ in 0..500 {
                sent += 1;
                chunk.extend_from_slice(format!("{}\tcopied {sent}\n", 1000 + sent).as_bytes());
            }
            sink.send(bytes::Bytes::from(chunk)).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 50_000);
        let stream = client.copy_out("COPY items TO STDOUT").await.unwrap();
        let mut stream = std::pin::pin!(stream);
        let mut lines = 0;
        while let Some(chunk) = stream.next().await {
            lines += chunk.unwrap().iter().filter(|byte| **byte == b'\n').count();
        }
        assert_eq!(lines, 50_100);
        // A COPY that fails in the middle leaves the connection usable.
        let sink = client
            .copy_in::<_, bytes::Bytes>("COPY items FROM STDIN")
            .await
            .unwrap();
        let mut sink = std::pin::pin!(sink);
        let _ = sink
            .send(bytes::Bytes::from_static(b"not a number\tx\n"))
            .await;
        assert!(sink.finish().await.is_err());
        assert_eq!(text(&client, "SELECT count(*) FROM items").await, "50100");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_stream() {
    for reactor in REACTORS {
        let lab = Lab::start(Options {
            settings: Settings {
                max_connections: 100,
                query_timeout_ms: 120_000,
                ..Settings::default()
            },
            ..shared(reactor)
        })
        .await;
        let client = lab.connect(TENANT).await;
        let large = "x".repeat(48 << 20);
        let row = client
            .query_one("SELECT length($1), $1", &[&large])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i32>(0), 48 << 20);
        assert_eq!(row.get::<_, &str>(1), large);
        let query = format!("SELECT length('{}')", &large[..20 << 20]);
        assert_eq!(text(&client, &query).await, (20 << 20).to_string());
        let hidden = format!("SELECT '{}'; DROP TABLE items", &large[..1 << 20]);
        assert!(client.simple_query(&hidden).await.is_err());
        let client = lab.connect(TENANT).await;
        let long = format!("SELECT $1::int, '{}'", &large[..200_000]);
        let statement = client.prepare(&long).await.unwrap();
        for n in 0..3_i32 {
            let row = client.query_one(&statement, &[&n]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), n);
        }
        assert_eq!(text(&client, "SELECT count(*) FROM items").await, "100");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_moves_under_load_and_nobody_notices() {
    for reactor in REACTORS {
        let mut lab = Lab::start(Options::on(reactor)).await;
        let second = lab.add_server().await;
        for server in [FIRST, second] {
            let admin = lab.superuser(server, TENANT).await;
            admin
                .batch_execute("CREATE TABLE log (client int, n int, PRIMARY KEY (client, n)); GRANT ALL ON log TO lab_admin")
                .await
                .unwrap();
        }
        let lab = Arc::new(lab);
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        for id in 0..12_i32 {
            let (lab, stop, written) = (Arc::clone(&lab), Arc::clone(&stop), Arc::clone(&written));
            clients.push(tokio::spawn(async move {
                let mut client = lab.connect(TENANT).await;
                client
                    .batch_execute(&format!("SET app.client = '{id}'"))
                    .await
                    .unwrap();
                let insert = client
                    .prepare("INSERT INTO log VALUES ($1, $2)")
                    .await
                    .unwrap();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    if id % 3 == 0 {
                        let transaction = client.transaction().await.unwrap();
                        transaction.execute(&insert, &[&id, &n]).await.unwrap();
                        transaction.commit().await.unwrap();
                    } else {
                        client.execute(&insert, &[&id, &n]).await.unwrap();
                    }
                    let row = client
                        .query_one("SELECT current_setting('app.client')", &[])
                        .await
                        .unwrap();
                    assert_eq!(row.get::<_, String>(0), id.to_string());
                    written.fetch_add(1, Ordering::Relaxed);
                }
                n
            }));
        }
        let traffic = lab.traffic();
        for round in 0..4 {
            let target = if round % 2 == 0 { second } else { FIRST };
            let source = if round % 2 == 0 { FIRST } else { second };
            let before = written.load(Ordering::Relaxed);
            while written.load(Ordering::Relaxed) < before + 100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            traffic.hold(TENANT_ID, HoldBudget::default());
            while traffic.in_flight(TENANT_ID) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // The rows move by hand while everything waits.
            let from = lab.superuser(source, TENANT).await;
            let rows = from.query("SELECT client, n FROM log", &[]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            let again = from.query("SELECT client, n FROM log", &[]).await.unwrap();
            assert_eq!(
                rows.len(),
                again.len(),
                "something was written behind a closed gate"
            );
            let to = lab.superuser(target, TENANT).await;
            to.batch_execute("TRUNCATE log").await.unwrap();
            let insert = to.prepare("INSERT INTO log VALUES ($1, $2)").await.unwrap();
            for row in &rows {
                to.execute(&insert, &[&row.get::<_, i32>(0), &row.get::<_, i32>(1)])
                    .await
                    .unwrap();
            }
            from.batch_execute("TRUNCATE log").await.unwrap();
            lab.publish(target, DatabaseStatus::Ready);
            traffic.refresh(TENANT_ID);
            traffic.release(TENANT_ID);
        }
        let before = written.load(Ordering::Relaxed);
        while written.load(Ordering::Relaxed) < before + 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut total = 0;
        for client in clients {
            total += i64::from(client.await.expect("no client saw an error"));
        }
        let end = lab.superuser(FIRST, TENANT).await;
        let count: i64 = end
            .query_one("SELECT count(*) FROM log", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(count, total, "no write was lost or doubled");
        Arc::into_inner(lab)
            .expect("all clients are done")
            .stop()
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_has_a_budget_of_time_and_bytes() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let client = lab.connect(TENANT).await;
        assert_eq!(text(&client, "SELECT 1").await, "1");
        let traffic = lab.traffic();
        let short = HoldBudget {
            time: Duration::from_millis(200),
            bytes: 1 << 20,
        };
        traffic.hold(TENANT_ID, short);
        let error = client.simple_query("SELECT 1").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::CANNOT_CONNECT_NOW));
        let few = HoldBudget {
            time: Duration::from_secs(60),
            bytes: 100,
        };
        traffic.hold(TENANT_ID, few);
        let error = client
            .simple_query(&format!("SELECT '{}'", "x".repeat(200)))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::CANNOT_CONNECT_NOW));
        let waits = tokio::spawn(async move { text(&client, "SELECT 2").await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waits.is_finished());
        traffic.release(TENANT_ID);
        assert_eq!(waits.await.unwrap(), "2");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_is_refused_and_comes_back() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let client = lab.connect(TENANT).await;
        assert_eq!(text(&client, "SELECT 1").await, "1");
        lab.publish(FIRST, DatabaseStatus::Suspended);
        lab.traffic().refresh(TENANT_ID);
        let error = client.simple_query("SELECT 1").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::CANNOT_CONNECT_NOW));
        assert!(error.as_db_error().unwrap().message().contains("suspended"));
        assert!(lab.config(TENANT).connect(NoTls).await.is_err());
        lab.publish(FIRST, DatabaseStatus::Ready);
        lab.traffic().refresh(TENANT_ID);
        assert_eq!(text(&client, "SELECT 1").await, "1");
        assert!(lab.traffic().kill(TENANT_ID, Duration::from_secs(10)));
        assert!(client.simple_query("SELECT 1").await.is_err());
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_waiting_clients_do_not_starve_another() {
    for reactor in REACTORS {
        let lab = Arc::new(
            Lab::start(Options {
                workers: 1,
                connection_budget: 2,
                ..Options::on(reactor)
            })
            .await,
        );
        let stop = Arc::new(AtomicBool::new(false));
        let mut greedy = Vec::new();
        for _ in 0..100 {
            let (lab, stop) = (Arc::clone(&lab), Arc::clone(&stop));
            greedy.push(tokio::spawn(async move {
                let client = lab.connect(TENANT).await;
                while !stop.load(Ordering::Relaxed) {
                    client.simple_query("SELECT pg_sleep(0.01)").await.unwrap();
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let modest = lab.connect(WORKSPACE).await;
        for _ in 0..20 {
            let asked =
                tokio::time::timeout(Duration::from_secs(5), text(&modest, "SELECT 1")).await;
            assert_eq!(asked.expect("the other tenant gets its turn"), "1");
        }
        stop.store(true, Ordering::Relaxed);
        for client in greedy {
            client.await.unwrap();
        }
        drop(modest);
        Arc::into_inner(lab).unwrap().stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_backend_has_a_limit() {
    for reactor in REACTORS {
        let lab = Lab::start(Options {
            pool_wait_timeout: Duration::from_millis(300),
            ..shared(reactor)
        })
        .await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        one.batch_execute("BEGIN; SELECT 1").await.unwrap();
        let error = two.simple_query("SELECT 1").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
        one.batch_execute("COMMIT").await.unwrap();
        assert_eq!(text(&two, "SELECT 1").await, "1");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_dies_idle_is_replaced_unnoticed() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let client = lab.connect(TENANT).await;
        client.batch_execute("SET app.x = '1'").await.unwrap();
        for _ in 0..3 {
            let admin = lab.superuser(FIRST, "postgres").await;
            admin
                .batch_execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'lab_admin'")
                .await
                .unwrap();
            // They are gone; the proxy hears of it a moment later.
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(text(&client, "SELECT current_setting('app.x')").await, "1");
        }
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_pooling_keeps_a_backend() {
    for reactor in REACTORS {
        let lab = Lab::start(Options {
            pool_mode: PoolMode::Session,
            pool_size: 2,
            ..shared(reactor)
        })
        .await;
        let (one, two) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        let pid = text(&one, "SELECT pg_backend_pid()").await;
        assert_ne!(text(&two, "SELECT pg_backend_pid()").await, pid);
        one.batch_execute("CREATE TEMP TABLE t (a int)")
            .await
            .unwrap();
        assert_eq!(text(&one, "SELECT pg_backend_pid()").await, pid);
        drop(one);
        // The next session gets a clean one.
        let three = lab.connect(TENANT).await;
        assert!(three.simple_query("SELECT * FROM t").await.is_err());
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_idle_clients_and_lets_transactions_finish() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let (idle, busy) = (lab.connect(TENANT).await, lab.connect(TENANT).await);
        busy.batch_execute("BEGIN; DELETE FROM items WHERE id = 1")
            .await
            .unwrap();
        let lab = Arc::new(lab);
        let draining = {
            let lab = Arc::clone(&lab);
            tokio::task::spawn_blocking(move || lab.proxy.drain(Duration::from_secs(30)))
        };
        let error = loop {
            if let Err(error) = idle.simple_query("SELECT 1").await {
                break error;
            }
        };
        assert!(
            error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN),
            "{error}"
        );
        busy.batch_execute("DELETE FROM items WHERE id = 2; COMMIT")
            .await
            .unwrap();
        draining.await.unwrap();
        let end = lab.superuser(FIRST, TENANT).await;
        assert_eq!(text(&end, "SELECT count(*) FROM items").await, "98");
        drop(end);
        Arc::into_inner(lab).unwrap().stop().await;
    }
}

/// Bytes that are no protocol, half messages, and silence cost only their own connection.
#[tokio::test(flavor = "multi_thread")]
async fn bad_bytes_cost_only_their_connection() {
    for reactor in REACTORS {
        let lab = Lab::start(Options::on(reactor)).await;
        let good = lab.connect(TENANT).await;
        let mut silent = Vec::new();
        for _ in 0..1000 {
            silent.push(tokio::net::TcpStream::connect(lab.address).await.unwrap());
        }
        let packets: [&[u8]; 7] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &[0xff; 64],
            &[0, 0, 0, 8, 0, 3, 0, 0],
            &[0, 0, 0, 4],
            &[0, 0, 39, 16, 0, 3, 0, 0, b'u'],
            &[0, 0, 0, 9, 4, 210, 22, 46, 0],
            &[22, 3, 1, 2, 0, 1, 0, 1, 252],
        ];
        for packet in packets {
            let mut stream = tokio::net::TcpStream::connect(lab.address).await.unwrap();
            stream.write_all(packet).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer))
                .await
                .expect("the connection ends");
        }
        // After a login, too.
        for garbage in [
            &b"Q\xff\xff\xff\xff"[..],
            b"Q\0\0\0\x03",
            b"?\0\0\0\x04",
            b"P\0\0\0\x05x",
            b"B\0\0\0\x06\0x",
        ] {
            let (mut stream, _) = raw_login(&lab).await;
            stream.write_all(garbage).await.unwrap();
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer))
                .await
                .expect("the connection ends");
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains("08P01"), "{garbage:?}: {answer}");
        }
        assert_eq!(text(&good, "SELECT count(*) FROM items").await, "100");
        drop(silent);
        lab.stop().await;
    }
}

/// A plain socket that has logged in, and what the server said.
async fn raw_login(lab: &Lab) -> (tokio::net::TcpStream, Vec<u8>) {
    use protocol_postgres::frontend::write;
    use protocol_postgres::scram::{Client, ClientBinding, Credentials, Nonce, SCRAM_SHA_256};
    let mut stream = tokio::net::TcpStream::connect(lab.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut out = Vec::new();
    let parameters = [
        (&b"user"[..], PROJECT.as_bytes()),
        (b"database", TENANT.as_bytes()),
    ];
    protocol_postgres::startup::write::startup_message(
        &mut out,
        protocol_postgres::PROTOCOL_3_0,
        parameters,
    )
    .unwrap();
    stream.write_all(&out).await.unwrap();
    let _ = read_message(&mut stream).await;
    let (client, first) = Client::start("", ClientBinding::Unsupported, Nonce::random().unwrap());
    out.clear();
    write::sasl_initial_response(&mut out, SCRAM_SHA_256, &first).unwrap();
    stream.write_all(&out).await.unwrap();
    let (_, body) = read_message(&mut stream).await;
    let (_, last) = client
        .respond(&body[4..], Credentials::Password(PASSWORD.as_bytes()))
        .unwrap();
    out.clear();
    write::sasl_response(&mut out, &last).unwrap();
    stream.write_all(&out).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let (tag, body) = read_message(&mut stream).await;
        seen.push(tag);
        assert_ne!(tag, b'E', "{}", String::from_utf8_lossy(&body));
        if tag == b'Z' {
            return (stream, seen);
        }
    }
}

async fn read_message(stream: &mut tokio::net::TcpStream) -> (u8, Vec<u8>) {
    let tag = stream.read_u8().await.unwrap();
    let len = stream.read_u32().await.unwrap() as usize;
    let mut body = vec![0; len - 4];
    stream.read_exact(&mut body).await.unwrap();
    (tag, body)
}

/// Tags of all messages up to the given number of ReadyForQuery.
async fn tags(stream: &mut tokio::net::TcpStream, ready: usize) -> String {
    let (mut seen, mut count) = (String::new(), 0);
    while count < ready {
        let (tag, body) = tokio::time::timeout(Duration::from_secs(30), read_message(stream))
            .await
            .unwrap_or_else(|_| panic!("no more messages after {seen}"));
        if tag == b'E' {
            println!("{}", String::from_utf8_lossy(&body).replace('\0', " "));
        }
        seen.push(char::from(tag));
        count += usize::from(tag == b'Z');
    }
    seen
}

fn batch(parts: &[(&str, &str)]) -> Vec<u8> {
    use protocol_postgres::frontend::{Kind, write};
    let mut out = Vec::new();
    for (what, argument) in parts {
        let (name, rest) = argument.split_once('=').unwrap_or((argument, ""));
        match *what {
            "parse" => write::parse(&mut out, name.as_bytes(), rest.as_bytes(), b"").unwrap(),
            "bind" => {
                let body = [b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat();
                out.push(b'B');
                out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
                out.extend_from_slice(&body);
            }
            "describe" => write::describe(&mut out, Kind::Statement, name.as_bytes()).unwrap(),
            "execute" => write::execute(&mut out, b"", rest.parse().unwrap_or(0)).unwrap(),
            "close" => write::close(&mut out, Kind::Statement, name.as_bytes()).unwrap(),
            "query" => write::query(&mut out, argument.as_bytes()).unwrap(),
            "flush" => write::flush(&mut out),
            _ => write::sync(&mut out),
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_keep_their_order() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        for chunk in [1, 7, 4096] {
            let (mut stream, _) = raw_login(&lab).await;
            let check = async |stream: &mut tokio::net::TcpStream,
                               parts: &[(&str, &str)],
                               expected: &str| {
                for piece in batch(parts).chunks(chunk) {
                    stream.write_all(piece).await.unwrap();
                }
                let ready = expected.matches('Z').count();
                assert_eq!(tags(stream, ready).await, expected, "{parts:?}");
            };
            let s = ("sync", "");
            check(
                &mut stream,
                &[("parse", "a=SELECT 1"), ("bind", "a"), ("execute", ""), s],
                "12DCZ",
            )
            .await;
            check(
                &mut stream,
                &[
                    ("bind", "a"),
                    ("execute", ""),
                    s,
                    ("bind", "a"),
                    ("execute", ""),
                    s,
                ],
                "2DCZ2DCZ",
            )
            .await;
            // A name that is taken, and one that is not there.
            check(
                &mut stream,
                &[("parse", "a=SELECT 2"), ("bind", "a"), ("execute", ""), s],
                "EZ",
            )
            .await;
            check(
                &mut stream,
                &[
                    ("bind", "a"),
                    ("execute", ""),
                    ("bind", "nope"),
                    ("execute", ""),
                    s,
                ],
                "2DCEZ",
            )
            .await;
            // DDL in the middle of a batch fails it there, and the batch behind it runs.
            check(
                &mut stream,
                &[
                    ("bind", "a"),
                    ("execute", ""),
                    ("parse", "=DROP TABLE items"),
                    ("bind", ""),
                    ("execute", ""),
                    s,
                    ("bind", "a"),
                    ("execute", ""),
                    s,
                ],
                "2DCEZ2DCZ",
            )
            .await;
            check(
                &mut stream,
                &[
                    ("parse", "=DROP TABLE items"),
                    ("bind", ""),
                    ("execute", ""),
                    s,
                ],
                "EZ",
            )
            .await;
            check(
                &mut stream,
                &[
                    ("query", "BEGIN"),
                    ("query", "DROP TABLE items"),
                    ("query", "SELECT 1"),
                    ("query", "ROLLBACK"),
                ],
                "CZEZEZCZ",
            )
            .await;
            // A statement prepared in a batch that fails is not prepared.
            check(
                &mut stream,
                &[
                    ("parse", "b=SELECT 3"),
                    ("parse", "c=SELECT nonsense"),
                    ("parse", "d=SELECT 4"),
                    s,
                    ("bind", "b"),
                    s,
                    ("bind", "d"),
                    s,
                ],
                "1EZ2ZEZ",
            )
            .await;
            check(
                &mut stream,
                &[
                    ("parse", "d=SELECT 4"),
                    ("describe", "d"),
                    ("close", "d"),
                    ("parse", "d=SELECT 5"),
                    s,
                ],
                "1tT31Z",
            )
            .await;
            // The unnamed statement, three times the same text: the third is known.
            for _ in 0..3 {
                check(
                    &mut stream,
                    &[
                        ("parse", "=SELECT 6"),
                        ("describe", ""),
                        ("bind", ""),
                        ("execute", ""),
                        s,
                    ],
                    "1tT2DCZ",
                )
                .await;
            }
            // It survives its transaction.
            check(&mut stream, &[("bind", ""), ("execute", ""), s], "2DCZ").await;
            check(
                &mut stream,
                &[
                    ("parse", "=SELECT 'once'"),
                    s,
                    ("bind", ""),
                    ("execute", ""),
                    s,
                ],
                "1Z2DCZ",
            )
            .await;
            check(&mut stream, &[("bind", ""), ("execute", ""), s], "2DCZ").await;
            check(&mut stream, &[s, s, s], "ZZZ").await;
            check(
                &mut stream,
                &[
                    ("parse", "=SELECT * FROM items"),
                    ("bind", ""),
                    ("execute", "=2"),
                    ("execute", "=2"),
                    s,
                ],
                "12DDsDDsZ",
            )
            .await;
            check(
                &mut stream,
                &[("query", ""), ("query", "SELECT 1; SELECT 2")],
                "IZTDCTDCZ",
            )
            .await;
            check(
                &mut stream,
                &[("query", "DEALLOCATE a"), ("bind", "a"), s],
                "CZEZ",
            )
            .await;
            check(
                &mut stream,
                &[
                    ("parse", "a=SELECT 1"),
                    s,
                    ("query", "DISCARD ALL"),
                    ("bind", "a"),
                    s,
                ],
                "1ZCZEZ",
            )
            .await;
        }
        lab.stop().await;
    }
}

/// Tags of what comes back for a batch, up to its last ReadyForQuery.
async fn exchange(stream: &mut tokio::net::TcpStream, parts: &[(&str, &str)]) -> String {
    let ends = |part: &&(&str, &str)| matches!(part.0, "sync" | "query");
    stream.write_all(&batch(parts)).await.unwrap();
    tags(stream, parts.iter().filter(ends).count()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_plan_has_changed_is_repeated_unnoticed() {
    let (sync, execute) = (("sync", ""), ("execute", ""));
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        // Past the proxy, which then does not know that the schema has changed.
        let admin = lab.superuser(FIRST, TENANT).await;
        admin
            .batch_execute(
                "CREATE TABLE grows (a int); CREATE TABLE other (a int);
                 INSERT INTO grows VALUES (1); GRANT ALL ON grows, other TO lab_admin",
            )
            .await
            .unwrap();
        let grow = async || {
            let name = text(
                &admin,
                "SELECT 'c' || count(*) FROM pg_attribute WHERE attrelid = 'grows'::regclass",
            )
            .await;
            let add = format!("ALTER TABLE grows ADD {name} int");
            admin.batch_execute(&add).await.unwrap();
        };
        let (mut stream, _) = raw_login(&lab).await;
        let prepare = [
            ("parse", "all=SELECT * FROM grows LIMIT 1"),
            sync,
            (
                "parse",
                "write=INSERT INTO grows (a) VALUES (2) RETURNING *",
            ),
            sync,
            ("parse", "other=INSERT INTO other VALUES (1) RETURNING *"),
            sync,
        ];
        assert_eq!(exchange(&mut stream, &prepare).await, "1Z1Z1Z");
        let unnamed = ("parse", "=SELECT * FROM grows LIMIT 1");
        let run = [unnamed, ("bind", ""), execute, sync];
        for _ in 0..3 {
            assert_eq!(exchange(&mut stream, &run).await, "12DCZ");
        }
        let all = [("bind", "all"), execute, sync];
        let write = [("bind", "write"), execute, sync];
        for (parts, expected) in [
            (&all[..], "2DCZ"),
            (&write, "2DCZ"),
            (&[("describe", "all"), sync], "tTZ"),
            (
                &[("describe", "all"), ("bind", "all"), execute, sync],
                "tT2DCZ",
            ),
            (
                &[("bind", "all"), execute, ("bind", "write"), execute, sync],
                "2DC2DCZ",
            ),
            (&run, "12DCZ"),
            (
                &[unnamed, ("describe", ""), ("bind", ""), execute, sync],
                "1tT2DCZ",
            ),
        ] {
            // All are prepared on the backend, for the schema that is.
            for parts in [&all, &write] {
                assert_eq!(exchange(&mut stream, parts).await, "2DCZ");
            }
            assert_eq!(exchange(&mut stream, &run).await, "12DCZ");
            grow().await;
            assert_eq!(exchange(&mut stream, parts).await, expected, "{parts:?}");
        }
        // Nothing was done twice.
        assert_eq!(text(&admin, "SELECT count(*) FROM grows").await, "10");

        // The Sync comes later.
        grow().await;
        let flushed = [("bind", "all"), execute, ("flush", "")];
        stream.write_all(&batch(&flushed)).await.unwrap();
        let mut seen = String::new();
        while !seen.ends_with(['C', 'E']) {
            seen.push(char::from(read_message(&mut stream).await.0));
        }
        assert_eq!(seen, "2DC");
        assert_eq!(exchange(&mut stream, &[sync]).await, "Z");

        // What was answered, or stands in a transaction, cannot be repeated: the client gets the error, and once only.
        assert_eq!(
            exchange(&mut stream, &[("bind", "other"), execute, sync]).await,
            "2DCZ"
        );
        grow().await;
        let half = [("bind", "other"), execute, ("bind", "all"), execute, sync];
        assert_eq!(exchange(&mut stream, &half).await, "2DCEZ");
        assert_eq!(exchange(&mut stream, &half).await, "2DC2DCZ");
        assert_eq!(text(&admin, "SELECT count(*) FROM other").await, "2");
        assert_eq!(exchange(&mut stream, &[("query", "BEGIN")]).await, "CZ");
        grow().await;
        assert_eq!(exchange(&mut stream, &all).await, "EZ");
        assert_eq!(exchange(&mut stream, &[("query", "ROLLBACK")]).await, "CZ");
        assert_eq!(exchange(&mut stream, &all).await, "2DCZ");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_waits_for_a_schema_change_sees_the_new_schema() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let mut deployment = lab.superuser(FIRST, TENANT).await;
        let watcher = lab.superuser(FIRST, TENANT).await;
        let client = lab.connect(TENANT).await;
        let all = client.prepare("SELECT * FROM items").await.unwrap();
        assert_eq!(client.query(&all, &[]).await.unwrap().len(), 100);
        let change = deployment.transaction().await.unwrap();
        change
            .batch_execute("ALTER TABLE items ALTER name TYPE varchar")
            .await
            .unwrap();
        let waits = tokio::spawn(async move { client.query(&all, &[]).await });
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while text(&watcher, waiting).await == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        change.commit().await.unwrap();
        assert_eq!(waits.await.unwrap().unwrap().len(), 100);
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unnamed_statement_outlives_what_the_proxy_asks_for_itself() {
    for reactor in REACTORS {
        let options = Options {
            pool_mode: PoolMode::Session,
            ..Options::on(reactor)
        };
        let lab = Lab::start(options).await;
        let (mut stream, _) = raw_login(&lab).await;
        // Once it has run, the proxy asks the server what it has set.
        let parts = [
            ("parse", "=SELECT set_config('work_mem', '8MB', false)"),
            ("bind", ""),
            ("execute", ""),
            ("sync", ""),
        ];
        assert_eq!(exchange(&mut stream, &parts).await, "12DCZ");
        assert_eq!(exchange(&mut stream, &parts[1..]).await, "2DCZ");
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_gives_replies_before_sync() {
    for reactor in REACTORS {
        let lab = Lab::start(shared(reactor)).await;
        let (mut stream, _) = raw_login(&lab).await;
        let parts = [
            ("parse", "=SELECT 1"),
            ("describe", ""),
            ("bind", ""),
            ("execute", ""),
            ("flush", ""),
        ];
        stream.write_all(&batch(&parts)).await.unwrap();
        let mut seen = String::new();
        while !seen.ends_with('C') {
            seen.push(char::from(read_message(&mut stream).await.0));
        }
        assert_eq!(seen, "1tT2DC");
        stream.write_all(&batch(&[("sync", "")])).await.unwrap();
        assert_eq!(tags(&mut stream, 1).await, "Z");
        lab.stop().await;
    }
}
