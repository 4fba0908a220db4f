//! Tables through one `check`, and properties.

use proptest::prelude::*;

use crate::{Classifier, Effects, Options, StatementKind as Kind, Summary, TrailBytes, classify};

fn check(text: &str, statements: u32, first: Kind, effects: Effects) {
    let summary = classify(text.as_bytes(), &Options::default());
    let expected = Summary {
        statements,
        first,
        effects,
        too_deep: false,
    };
    assert_eq!(summary, expected, "{text}");
}

fn effects(text: &str) -> Effects {
    classify(text.as_bytes(), &Options::default()).effects
}

#[test]
fn plain_statements() {
    let none = Effects::NONE;
    check(
        "SELECT abalance FROM pgbench_accounts WHERE aid = 123;",
        1,
        Kind::Select,
        none,
    );
    check("((SELECT 1) UNION (SELECT 2))", 1, Kind::Select, none);
    check("", 0, Kind::Empty, none);
    check(" ;; -- nothing\n ; /* ; */", 0, Kind::Empty, none);
    check(";;select 1;;values (2);", 2, Kind::Select, none);
    check("bogus", 1, Kind::Unknown, none);
    check("(", 1, Kind::Unknown, none);
    check(
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        1,
        Kind::Insert,
        none,
    );
    check(
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
        1,
        Kind::Select,
        none,
    );
    check("WITH delete AS (SELECT 1) SELECT 1", 1, Kind::Select, none);
    check(
        "WITH RECURSIVE a(i) AS MATERIALIZED (VALUES (1)) UPDATE t SET i = 1",
        1,
        Kind::Update,
        none,
    );
    check("TRUNCATE t", 1, Kind::Truncate, none);
    check(
        "SELECT 1e5, .5, 1.e3, $1, a--b\n, 2 - - 3 /-1",
        1,
        Kind::Select,
        none,
    );
    check(
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        1,
        Kind::SetTransaction,
        none,
    );
    check(
        "SET CONSTRAINTS ALL DEFERRED",
        1,
        Kind::SetConstraints,
        none,
    );
    check("DO $$ BEGIN CREATE TABLE t(); END $$", 1, Kind::Do, none);
}

#[test]
fn ddl_is_refused_wherever_it_stands() {
    for text in [
        "CREATE TABLE t (i int)",
        "create unlogged table t()",
        "/* c */ CREATE /**/ TABLE t()",
        "-- c\rCREATE TABLE t()",
        "select 1; ALTER TABLE t ADD c int",
        "DROP TABLE t",
        "DROP TABLE pg_temp.a, b",
        "DROP TABLE IF EXISTS t",
        "CREATE TABLE IF NOT EXISTS t()",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE SCHEMA s CREATE TABLE t()",
        "COMMENT ON TABLE t IS 'x'",
        "GRANT SELECT ON t TO u",
        "REVOKE SELECT ON t FROM u",
        "SECURITY LABEL ON TABLE t IS 'x'",
        "REINDEX TABLE t",
        "CLUSTER",
        "VACUUM",
        "ANALYZE t",
        "ANALYSE",
        "REFRESH MATERIALIZED VIEW v",
        "IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y",
        "REASSIGN OWNED BY a TO b",
        "ALTER SYSTEM SET a = 1",
        "SELECT 1 INTO t",
        "SELECT * INTO UNLOGGED TABLE t FROM u",
        "(SELECT 1 INTO t)",
        "WITH x AS (SELECT 1) SELECT * INTO t FROM x",
        "CREATE TABLE t AS SELECT 1",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "EXPLAIN (BUFFERS, ANALYZE) CREATE TABLE t AS SELECT 1",
        "EXPLAIN (\"analyze\") SELECT 1 INTO t",
        "E'x'; CREATE TABLE t()",
        "SELECT 'a\\'; CREATE TABLE t(); --'",
        "SELECT $a$ $b$ $a$; DROP TABLE t",
        "SELECT E'\\''; DROP TABLE t",
        "SELECT 'a'--x\n'b'; DROP TABLE t",
    ] {
        assert!(effects(text).contains(Effects::DDL), "{text}");
    }
}

#[test]
fn what_looks_like_ddl_passes() {
    for text in [
        "SELECT 'CREATE TABLE t()'",
        "SELECT ';CREATE TABLE t()'",
        "SELECT 'a''; CREATE TABLE t()'",
        "SELECT E'a\\'; CREATE TABLE t(); --'",
        "SELECT E'a'\n'b\\'; CREATE TABLE t(); --'",
        "SELECT E'a' -- more\n '\\'; CREATE TABLE t(); --'",
        "SELECT $$; CREATE TABLE t()$$",
        "SELECT $a$; $b$ DROP TABLE t; $a $a$",
        "SELECT \"; CREATE TABLE t()\"",
        "SELECT U&\"a\"\"; DROP TABLE t\"",
        "/* /* */ ; CREATE TABLE t(); */ SELECT 1",
        "-- x ; \\ \nSELECT 1 -- ; CREATE TABLE t()",
        "INSERT INTO t SELECT 1",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT 1",
        "SELECT 1 AS into",
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DO NOTHING",
        "EXPLAIN CREATE TABLE t AS SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "DROP TABLE IF EXISTS pg_temp.a, \"pg_temp\".b",
        "SELECT 1 --; DROP TABLE t",
        "SELECT 1 +--; DROP TABLE t",
        "SELECT a$b$, c$b$",
        "SELECT $a$ ; DROP TABLE t",
        "SELECT 'x ; DROP TABLE t",
    ] {
        assert_eq!(effects(text), Effects::NONE, "{text}");
    }
}

#[test]
fn sessions_come_to_hold_things() {
    for (text, expected) in [
        ("CREATE TEMP TABLE t()", Effects::TEMP),
        ("create local temporary table t()", Effects::TEMP),
        ("CREATE TABLE pg_temp.t()", Effects::TEMP),
        ("CREATE FUNCTION pg_temp.f()", Effects::TEMP | Effects::DDL),
        ("SELECT 1 INTO TEMP t", Effects::TEMP),
        ("SELECT 1 INTO pg_temp.t", Effects::TEMP),
        ("SET a = 1", Effects::SET_SESSION),
        ("SET SESSION a TO 1", Effects::SET_SESSION),
        ("SET LOCAL a TO 1", Effects::SET_LOCAL),
        ("SET local.a TO 1", Effects::SET_SESSION),
        ("SET TIME ZONE 'UTC'", Effects::SET_SESSION),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            Effects::SET_SESSION,
        ),
        ("SET ROLE x", Effects::SET_SESSION | Effects::SET_ROLE),
        ("SET LOCAL ROLE x", Effects::SET_LOCAL | Effects::SET_ROLE),
        ("SET \"Role\" = x", Effects::SET_SESSION | Effects::SET_ROLE),
        (
            "SET SESSION AUTHORIZATION x",
            Effects::SET_SESSION | Effects::SET_ROLE,
        ),
        (
            "SET LOCAL SESSION AUTHORIZATION x",
            Effects::SET_LOCAL | Effects::SET_ROLE,
        ),
        ("RESET ALL", Effects::RESET),
        ("RESET ROLE", Effects::RESET | Effects::SET_ROLE),
        ("DISCARD ALL", Effects::DISCARD),
        (
            "SELECT pg_catalog.SET_CONFIG('a', 'b', true)",
            Effects::SET_CONFIG,
        ),
        ("SELECT \"set_config\"('a', 'b', true)", Effects::SET_CONFIG),
        ("SELECT \"SET_CONFIG\"('a')", Effects::NONE),
        (
            "SELECT U&\"set\\005fconfi\\+000067\"('a')",
            Effects::SET_CONFIG,
        ),
        ("SELECT 'set_config'", Effects::NONE),
        ("BEGIN; COMMIT", Effects::TRANSACTION),
        ("ROLLBACK WORK", Effects::TRANSACTION),
        ("ROLLBACK TRANSACTION TO a", Effects::SAVEPOINT),
        ("SAVEPOINT a; RELEASE a", Effects::SAVEPOINT),
        ("PREPARE TRANSACTION 'x'", Effects::TRANSACTION),
        ("PREPARE transaction AS SELECT 1", Effects::PREPARE),
        (
            "PREPARE p (int) AS SELECT set_config('a')",
            Effects::PREPARE | Effects::SET_CONFIG,
        ),
        ("EXECUTE p(1)", Effects::EXECUTE),
        ("EXPLAIN EXECUTE p", Effects::EXECUTE),
        (
            "CREATE TEMP TABLE t AS EXECUTE p",
            Effects::TEMP | Effects::EXECUTE,
        ),
        ("DEALLOCATE p", Effects::DEALLOCATE),
        ("LISTEN x", Effects::LISTEN),
        ("UNLISTEN *", Effects::UNLISTEN),
        ("NOTIFY x, 'y'", Effects::NOTIFY),
        (
            "SELECT pg_try_advisory_lock_shared(1)",
            Effects::ADVISORY_LOCK,
        ),
        ("SELECT pg_advisory_xact_lock(1)", Effects::NONE),
        ("SELECT pg_advisory_unlock_all()", Effects::ADVISORY_UNLOCK),
        (
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            Effects::HOLD_CURSOR,
        ),
        ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", Effects::NONE),
        ("CLOSE ALL", Effects::CLOSE_CURSOR),
        ("LOAD 'x'", Effects::LOAD),
        ("COPY t FROM STDIN", Effects::COPY),
    ] {
        assert_eq!(effects(text), expected, "{text}");
    }
}

#[test]
fn bodies_and_rules_stay_whole() {
    let ddl = Effects::DDL;
    let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 end; \
                SELECT CASE WHEN true THEN 1 END; END";
    check(&format!("{body}; SELECT 1"), 2, Kind::Create, ddl);
    check(
        "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
        2,
        Kind::Create,
        ddl,
    );
    check(
        "CREATE PROCEDURE p() BEGIN ATOMIC END; SELECT 1",
        2,
        Kind::Create,
        ddl,
    );
}

#[test]
fn backslashes_escape_when_the_session_says_so() {
    let text = b"SELECT 'a\\'; DROP TABLE t; --'";
    let options = Options {
        standard_conforming_strings: false,
        ..Options::default()
    };
    assert_eq!(classify(text, &options).effects, Effects::NONE);
    assert_eq!(classify(text, &Options::default()).effects, Effects::DDL);
}

#[test]
fn trail_bytes_are_no_backslashes() {
    let two_bytes = b"SELECT E'\x95\\'; DROP TABLE t; --'";
    let katakana = b"SELECT E'\xB1\\'; DROP TABLE t; --'";
    let cut =
        |text: &[u8], encoding| classify(text, &Options::for_encoding(encoding, true)).effects;
    assert_eq!(cut(two_bytes, "UTF8"), Effects::NONE);
    assert_eq!(cut(two_bytes, "Shift_JIS"), Effects::DDL);
    assert_eq!(cut(two_bytes, "gbk"), Effects::DDL);
    assert_eq!(cut(katakana, "SJIS"), Effects::NONE);
    assert_eq!(cut(katakana, "BIG5"), Effects::DDL);
}

#[test]
fn depth_is_capped() {
    let nested = |depth| format!("{}{} SELECT 1", "/*".repeat(depth), "*/".repeat(depth));
    let deep = |depth| classify(nested(depth).as_bytes(), &Options::default());
    assert!(!deep(64).too_deep);
    assert!(deep(65).too_deep);
    assert_eq!(deep(64).first, Kind::Select);
    let tag = "a".repeat(257);
    let text = format!("SELECT ${tag}$x${tag}$");
    assert!(classify(text.as_bytes(), &Options::default()).too_deep);
}

fn options() -> impl Strategy<Value = Options> {
    let trail = prop_oneof![
        Just(TrailBytes::Never),
        Just(TrailBytes::ShiftJis),
        Just(TrailBytes::AfterHighByte)
    ];
    (any::<bool>(), trail).prop_map(|(standard_conforming_strings, backslash_trail_bytes)| {
        Options {
            standard_conforming_strings,
            backslash_trail_bytes,
        }
    })
}

/// Text made of what the lexer tells apart, so that short ones reach every state.
pub(crate) fn text() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&[u8]] = &[
        b"'",
        b"''",
        b"\"",
        b"$",
        b"$$",
        b"$a$",
        b"$1",
        b"-",
        b"--",
        b"/",
        b"*",
        b"/*",
        b"*/",
        b";",
        b"\n",
        b"\r",
        b" ",
        b"\\",
        b"e",
        b"E'",
        b"U&",
        b"u&\"",
        b"x'",
        b"(",
        b")",
        b".",
        b",",
        b"=",
        b"\0",
        b"\x95",
        b"\xB1",
        b"1",
        b"1e5",
        b"SELECT ",
        b"CREATE ",
        b"TABLE ",
        b"TEMP ",
        b"INTO ",
        b"SET ",
        b"LOCAL ",
        b"SESSION ",
        b"ROLE ",
        b"set_config",
        b"pg_temp",
        b"DROP ",
        b"WITH ",
        b"AS ",
        b"INSERT ",
        b"EXPLAIN ",
        b"ANALYZE ",
        b"PREPARE ",
        b"TRANSACTION ",
        b"BEGIN ",
        b"ATOMIC ",
        b"END ",
        b"FUNCTION ",
        b"ROLLBACK ",
        b"TO ",
        b"DECLARE ",
        b"HOLD ",
        b"FOR ",
        b"\\005f",
        b"DEALLOCATE ",
        b"ALL ",
        b"SAVEPOINT ",
        b"DO ",
        b"$a$",
        b"EXECUTE",
    ];
    let part = prop_oneof![
        9 => proptest::sample::select(PARTS).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

#[test]
fn blocks_that_may_change_roles_are_ddl() {
    let none = Effects::NONE;
    for (text, effects) in [
        ("DO $$ BEGIN RAISE NOTICE 'x'; END $$", none),
        (
            "DO LANGUAGE plpgsql $x$ BEGIN UPDATE a SET b = 1; END $x$",
            none,
        ),
        ("DO 'BEGIN PERFORM f(''x''); END' LANGUAGE plpgsql", none),
        (
            "DO $$ BEGIN PERFORM altered, executes, x_alter FROM grants; END $$",
            none,
        ),
        ("DO $$ BEGIN PERFORM '\\d'; END $$", none),
        (
            "DO $$ BEGIN ALTER ROLE CURRENT_USER PASSWORD 'x'; END $$",
            Effects::DDL,
        ),
        ("DO $$ BEGIN Alter/**/role a; END $$", Effects::DDL),
        (
            "DO $$ BEGIN EXECUTE 'AL' || 'TER ROLE a'; END $$",
            Effects::DDL,
        ),
        ("DO $a$ $b EXECUTE $a $a$", Effects::DDL),
        ("DO $a$ $EXECUTE x $a$", Effects::DDL),
        ("DO $exec$ $execute x $exec$", Effects::DDL),
        ("DO 'BEGIN EXE'\n'CUTE x; END'", Effects::DDL),
        ("DO 'GRANT'", Effects::DDL),
        ("DO E'EXE\\143UTE'", Effects::DDL),
        ("DO '\\'", Effects::DDL),
        ("DO U&'!0045XECUTE' UESCAPE '!'", Effects::DDL),
        ("DO LANGUAGE 'plpgsql' $$alter$$", Effects::DDL),
        ("DO $$revoke$$ LANGUAGE plpgsql", Effects::DDL),
    ] {
        check(text, 1, Kind::Do, effects);
    }
    check(
        "SELECT $$ALTER$$; DO $$ $$; SELECT 'EXECUTE'",
        3,
        Kind::Select,
        none,
    );
}

proptest! {
    #[test]
    fn cuts_do_not_matter(text in text(), options in options(), step in 1usize..5) {
        let whole = classify(&text, &options);
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            let mut classifier = Classifier::new(&options);
            classifier.push(head);
            classifier.push(tail);
            prop_assert_eq!(classifier.finish(), whole);
        }
        let mut classifier = Classifier::new(&options);
        text.chunks(step).for_each(|piece| classifier.push(piece));
        prop_assert_eq!(classifier.finish(), whole);
    }

    #[test]
    fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..600), options in options()) {
        let _ = classify(&text, &options);
    }
}
