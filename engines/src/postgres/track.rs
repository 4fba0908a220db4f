//! Changes of a workspace's schema, recorded in the transaction that makes them.
//!
//! An event trigger writes the text of the client's query, so a rollback, also to a savepoint, takes the record back with the
//! change. One row stands for one text at one moment; `ran` names the commands of it that took effect.

use std::time::SystemTime;

use protocol_sql::{Options, StatementKind, classify, split};

use super::connect::{error, superuser};
use crate::{EngineError, ServerAccess, TrackedChange};

/// Makes the record and its triggers, or what is missing of them. The trigger's own function runs as whoever changes the
/// schema and does nothing but call the one that may write, whose search path is fixed and which refuses to be called
/// outside of an event trigger.
pub(super) const SETUP: &str = r"
CREATE TABLE IF NOT EXISTS _tenantsdb.changes (
    position bigserial PRIMARY KEY,
    transaction bigint NOT NULL,
    began timestamptz NOT NULL,
    statement text NOT NULL,
    search_path text NOT NULL,
    ran text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp());

CREATE OR REPLACE FUNCTION _tenantsdb.note_ddl(tag text, query text, path text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    object text;
BEGIN
    -- What the platform does in its own name is no change of the workspace's.
    IF tag IN ('GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES') OR session_user = current_user THEN
        RETURN;
    END IF;
    IF tag LIKE 'DROP %' THEN
        SELECT d.object_identity INTO object FROM pg_event_trigger_dropped_objects() d
        WHERE d.original AND NOT d.is_temporary LIMIT 1;
    ELSE
        SELECT c.object_identity INTO object FROM pg_event_trigger_ddl_commands() c
        WHERE NOT c.in_extension AND c.schema_name IS DISTINCT FROM 'pg_temp' LIMIT 1;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE _tenantsdb.changes c SET ran = c.ran || (tag || chr(31) || coalesce(object, ''))
    WHERE c.transaction = txid_current() AND c.began = statement_timestamp() AND c.statement = query;
    IF NOT FOUND THEN
        INSERT INTO _tenantsdb.changes (transaction, began, statement, search_path, ran)
        VALUES (txid_current(), statement_timestamp(), query, path, ARRAY[tag || chr(31) || coalesce(object, '')]);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION _tenantsdb.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TAG::pg_catalog.text OPERATOR(pg_catalog.!~~) 'DROP %'::pg_catalog.text THEN
        PERFORM _tenantsdb.note_ddl(TG_TAG::pg_catalog.text, pg_catalog.current_query(), pg_catalog.current_setting('search_path'));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION _tenantsdb.on_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TAG::pg_catalog.text OPERATOR(pg_catalog.~~) 'DROP %'::pg_catalog.text THEN
        PERFORM _tenantsdb.note_ddl(TG_TAG::pg_catalog.text, pg_catalog.current_query(), pg_catalog.current_setting('search_path'));
    END IF;
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = '_tenantsdb_ddl') THEN
        CREATE EVENT TRIGGER _tenantsdb_ddl ON ddl_command_end EXECUTE FUNCTION _tenantsdb.on_ddl();
    END IF;
    IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = '_tenantsdb_drop') THEN
        CREATE EVENT TRIGGER _tenantsdb_drop ON sql_drop EXECUTE FUNCTION _tenantsdb.on_drop();
    END IF;
END $$;";

/// How many statements one text may hold that are told apart: positions are numbered in such steps.
const PER_TEXT: i64 = 10_000;

/// What was recorded behind `after`.
pub(super) async fn changes(
    server: &ServerAccess,
    database: &str,
    after: i64,
) -> Result<Vec<TrackedChange>, EngineError> {
    let client = superuser(server, database).await?;
    // A transaction that began earlier may commit later: only what nobody can slip in before is taken.
    let rows = client
        .query(
            "SELECT position, statement, search_path, ran, created_at FROM _tenantsdb.changes
             WHERE position >= $1 AND transaction < txid_snapshot_xmin(txid_current_snapshot())
             ORDER BY position",
            &[&(after / PER_TEXT)],
        )
        .await
        .map_err(|it| error(&it))?;
    let mut found = Vec::new();
    for row in rows {
        let (position, text): (i64, String) = (row.get(0), row.get(1));
        let (search_path, ran): (String, Vec<String>) = (row.get(2), row.get(3));
        let created_at: SystemTime = row.get(4);
        for (at, statement) in (0..).zip(effective(&text, &ran)) {
            found.push(TrackedChange {
                position: position * PER_TEXT + at,
                statement: statement.to_owned(),
                search_path: search_path.clone(),
                created_at,
            });
        }
    }
    found.retain(|change| change.position > after);
    Ok(found)
}

/// The statements of a text that changed the schema, given the commands that took effect, each as its tag, the byte 31
/// and the object's identity.
fn effective<'a>(text: &'a str, ran: &[String]) -> Vec<&'a str> {
    let options = Options::default();
    let statements = split(text, &options);
    if statements.len() <= 1 {
        return statements;
    }
    let mut chosen = vec![false; statements.len()];
    let mut from = 0;
    for command in ran {
        let (tag, object) = command.split_once('\u{1f}').unwrap_or((command, ""));
        let rest = || (from..statements.len()).filter(|at| is_of(statements[*at], tag));
        // Of two that could have been it, one may have been rolled back: the object's name tells.
        let found = rest()
            .find(|at| mentions(statements[*at], object))
            .or_else(|| rest().next());
        match found {
            Some(at) => {
                chosen[at] = true;
                from = at + 1;
            }
            // No statement of the text does that by itself: a block or procedure ran it.
            None => {
                for (at, statement) in statements.iter().enumerate() {
                    let first = classify(statement.as_bytes(), &options).first;
                    chosen[at] |= matches!(
                        first,
                        StatementKind::Do | StatementKind::Call | StatementKind::Select
                    );
                }
            }
        }
    }
    let found = statements.into_iter().zip(chosen);
    found
        .filter_map(|(it, chosen)| chosen.then_some(it))
        .collect()
}

/// Whether a statement may be the command with that tag: `CREATE UNIQUE INDEX` is a `CREATE INDEX`.
fn is_of(statement: &str, tag: &str) -> bool {
    const LOOKED_AT: usize = 6;
    let words: Vec<String> = statement
        .split(|it: char| !it.is_alphanumeric() && it != '_')
        .filter(|word| !word.is_empty())
        .take(LOOKED_AT)
        .map(str::to_ascii_uppercase)
        .collect();
    let mut tag = tag.split(' ').filter(|word| *word != "AS");
    words.first().map(String::as_str) == tag.next()
        && tag.all(|word| words.iter().any(|it| it == word))
}

/// Whether a statement names the object: the last part of an identity such as `public.a`, `public.f(integer)` or
/// `t on public.a`.
fn mentions(statement: &str, identity: &str) -> bool {
    let name = identity.split(" on ").next().unwrap_or_default();
    let name = name.split('(').next().unwrap_or_default();
    let name = name
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .trim_matches('"');
    let statement = statement.to_lowercase();
    !name.is_empty()
        && statement
            .split(|it: char| !it.is_alphanumeric() && it != '_' && it != '$')
            .any(|word| word == name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_took_effect_counts() {
        let check = |text, ran: &[(&str, &str)], expected: &[&str]| {
            let ran: Vec<String> = ran
                .iter()
                .map(|(tag, object)| format!("{tag}\u{1f}{object}"))
                .collect();
            assert_eq!(effective(text, &ran), expected, "{text}");
        };
        let table = ("CREATE TABLE", "public.a");
        let index = ("CREATE INDEX", "public.a_b_idx");
        check("CREATE TABLE a ()", &[table], &["CREATE TABLE a ()"]);
        check(
            "CREATE TABLE a (); INSERT INTO a VALUES (1); CREATE UNIQUE INDEX ON a (b)",
            &[table, index],
            &["CREATE TABLE a ()", "CREATE UNIQUE INDEX ON a (b)"],
        );
        check(
            "CREATE TABLE a (); COMMIT; CREATE TABLE b ()",
            &[table],
            &["CREATE TABLE a ()"],
        );
        check(
            "SAVEPOINT s; CREATE TABLE b (); ROLLBACK TO s; CREATE TABLE a ()",
            &[table],
            &["CREATE TABLE a ()"],
        );
        check(
            "CREATE TABLE b (); CREATE INDEX ON a (b)",
            &[index],
            &["CREATE INDEX ON a (b)"],
        );
        check(
            "INSERT INTO a VALUES (1); DO $$ BEGIN END $$",
            &[table, table],
            &["DO $$ BEGIN END $$"],
        );
    }
}
