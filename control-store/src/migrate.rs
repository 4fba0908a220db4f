//! Brings a store's schema up to date.

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;

/// Each entry brings the schema from the version before it to the next; the first makes version 1. An entry that was
/// released never changes.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_answers.sql"),
    include_str!("../migrations/0003_redis.sql"),
    include_str!("../migrations/0004_deployments.sql"),
    include_str!("../migrations/0005_audit_status.sql"),
    include_str!("../migrations/0006_external.sql"),
];

/// Applies what is missing, each migration in a transaction of its own.
///
/// # Errors
/// The store was written by a newer program, or SQLite failed.
pub(crate) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL
         ) STRICT",
    )?;
    let found: i64 = conn.query_row(
        "SELECT coalesce(max(version), 0) FROM schema_migrations",
        [],
        |r| r.get(0),
    )?;
    for (version, sql) in (1_i64..).zip(MIGRATIONS) {
        if version > found {
            apply(conn, version, sql)?;
        }
    }
    let known = (1_i64..)
        .zip(MIGRATIONS)
        .map(|(version, _)| version)
        .last()
        .unwrap_or(0);
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    Ok(())
}

fn apply(conn: &mut Connection, version: i64, sql: &str) -> Result<(), StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(sql)?;
    tx.execute(
        "INSERT INTO schema_migrations (version, applied_at) VALUES (?1, ?2)",
        (version, jiff::Timestamp::now().as_microsecond()),
    )?;
    tx.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_scratch_and_again() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn).unwrap();
        migrate(&mut conn).unwrap();
        let versions: i64 = conn
            .query_row("SELECT count(*) FROM schema_migrations", [], |r| r.get(0))
            .unwrap();
        assert_eq!(usize::try_from(versions).unwrap(), MIGRATIONS.len());
        conn.execute("INSERT INTO bans VALUES ('192.0.2.1', 1)", [])
            .unwrap();
    }

    #[test]
    fn databases_keep_their_ledgers_when_their_table_is_made_anew() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.pragma_update(None, "foreign_keys", true).unwrap();
        conn.execute_batch(
            "CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT",
        )
        .unwrap();
        for (version, sql) in (1_i64..).zip(&MIGRATIONS[..2]) {
            apply(&mut conn, version, sql).unwrap();
        }
        conn.execute_batch(
            "INSERT INTO accounts VALUES (1, 'a@example.com', '', 'free', 0);
             INSERT INTO projects VALUES ('tdb_1', 1, 'Shop', x'', 1, 0, NULL);
             INSERT INTO servers VALUES (1, 'postgresql', 'shared', 'unix:/s', 9, 'eu', '', x'', '{}', 0);
             INSERT INTO workspaces (project, name, engine, mode, settings, created_at)
                 VALUES ('tdb_1', 'shop', 'postgresql', 'tenant', '{}', 0);
             INSERT INTO databases VALUES (7, 'tdb_1', 'postgresql', 'shop_workspace', 'shop', NULL, 1, 'ready', x'01',
                 '{}', 'transaction', 3, 4, 5);
             INSERT INTO ledger VALUES (7, 11, 12);",
        )
        .unwrap();
        migrate(&mut conn).unwrap();
        let kept: String = conn
            .query_row(
                "SELECT d.name || d.settings || d.schema_epoch || d.version || d.created_at || l.change || l.applied_at
                 FROM databases d JOIN ledger l ON l.database = d.id",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(kept, "shop_workspace{}3451112");
        let stray = "INSERT INTO ledger VALUES (8, 1, 1)";
        assert!(
            conn.execute(stray, []).is_err(),
            "the ledger still points at databases"
        );
        conn.execute("DELETE FROM databases", []).unwrap();
        let left: i64 = conn
            .query_row("SELECT count(*) FROM ledger", [], |r| r.get(0))
            .unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_newer_schema_is_refused_in_a_plain_sentence() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn).unwrap();
        conn.execute("INSERT INTO schema_migrations VALUES (999, 0)", [])
            .unwrap();
        let refusal = migrate(&mut conn).unwrap_err().to_string();
        assert!(refusal.contains("schema version 999"), "{refusal}");
    }

    #[test]
    fn a_migration_that_fails_leaves_nothing() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate(&mut conn).unwrap();
        assert!(
            apply(
                &mut conn,
                2,
                "CREATE TABLE half (a INTEGER); SELECT nonsense"
            )
            .is_err()
        );
        assert!(conn.execute("SELECT * FROM half", []).is_err());
    }
}
