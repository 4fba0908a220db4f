//! Changes of a workspace's schema, recorded in the transaction that makes them.
//!
//! An event trigger writes the text of the client's query, so a rollback, also to a savepoint, takes the record back with the
//! change. One row stands for one text at one moment; `ran` names the commands of it that took effect.

use std::time::SystemTime;

use protocol_sql::{Options, StatementKind, classify, split};

use super::connect::{error, run, superuser};
use super::harden::{self, PLATFORM, PLATFORM_ROLE};
use crate::{EngineError, ServerAccess, TrackedChange};

/// What is no change of the schema: rights, which the platform manages, and the rows of materialized views.
const UNTRACKED: &str =
    "'GRANT', 'REVOKE', 'ALTER DEFAULT PRIVILEGES', 'REFRESH MATERIALIZED VIEW'";

/// Makes the record and its triggers, or what is missing of them. The trigger's own function runs as whoever changes the
/// schema and does nothing but call the one that may write, whose search path is fixed and which refuses to be called
/// outside of an event trigger.
pub(super) fn setup() -> String {
    let trigger_function = |name: &str, condition: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION {PLATFORM}.{name}() RETURNS event_trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF TG_TAG::pg_catalog.text OPERATOR(pg_catalog.{condition}) 'DROP %'::pg_catalog.text THEN
                     PERFORM {PLATFORM}.note_ddl(TG_TAG::pg_catalog.text, pg_catalog.current_query(),
                         pg_catalog.current_setting('search_path'::pg_catalog.text));
                 END IF;
             END $$;"
        )
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {PLATFORM}.changes (
             position bigserial PRIMARY KEY,
             number bigint UNIQUE,
             transaction bigint NOT NULL,
             began timestamptz NOT NULL,
             statement text NOT NULL,
             search_path text NOT NULL,
             ran text[] NOT NULL,
             created_at timestamptz NOT NULL DEFAULT clock_timestamp());
         ALTER TABLE {PLATFORM}.changes OWNER TO {PLATFORM_ROLE};
         CREATE OR REPLACE FUNCTION {PLATFORM}.note_ddl(tag text, query text, path text) RETURNS void
             LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
         DECLARE
             object text;
         BEGIN
             IF tag IN ({UNTRACKED}) OR (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
                 RETURN;
             END IF;
             IF tag LIKE 'DROP %' THEN
                 SELECT d.object_identity INTO object FROM pg_event_trigger_dropped_objects() d
                 WHERE d.original AND NOT d.is_temporary LIMIT 1;
             ELSE
                 SELECT c.object_identity INTO object FROM pg_event_trigger_ddl_commands() c
                 WHERE NOT c.in_extension AND c.schema_name IS DISTINCT FROM 'pg_temp'
                 ORDER BY c.command_tag <> tag LIMIT 1;
             END IF;
             IF NOT FOUND THEN
                 RETURN;
             END IF;
             object := tag || chr(31) || coalesce(object, '');
             UPDATE {PLATFORM}.changes c SET ran = c.ran || object
             WHERE c.transaction = txid_current() AND c.began = statement_timestamp() AND c.statement = query
                 AND c.number IS NULL;
             IF NOT FOUND THEN
                 INSERT INTO {PLATFORM}.changes (transaction, began, statement, search_path, ran)
                 VALUES (txid_current(), statement_timestamp(), query, path, ARRAY[object]);
             END IF;
         END $$;
         ALTER FUNCTION {PLATFORM}.note_ddl(text, text, text) OWNER TO {PLATFORM_ROLE};
         {}{}{}{}",
        trigger_function("on_ddl", "!~~"),
        trigger_function("on_drop", "~~"),
        harden::trigger("_tenantsdb_ddl", "ddl_command_end", "on_ddl"),
        harden::trigger("_tenantsdb_drop", "sql_drop", "on_drop"),
    )
}

/// How far apart the numbers of two texts are: no text has so many statements.
const PER_TEXT: i64 = 1 << 30;

/// Numbers what has been committed. `position` does not do for readers, since a transaction that began earlier may commit
/// later; a number is given once, behind all that were given before.
const NUMBER: &str = "
BEGIN;
LOCK TABLE _tenantsdb.changes IN SHARE UPDATE EXCLUSIVE MODE;
UPDATE _tenantsdb.changes c SET number = fresh.number
FROM (SELECT position, (SELECT coalesce(max(number), 0) FROM _tenantsdb.changes) + row_number() OVER (ORDER BY position) AS number
    FROM _tenantsdb.changes WHERE number IS NULL) fresh
WHERE c.position = fresh.position;
COMMIT";

/// What was recorded behind `after`.
pub(super) async fn changes(
    server: &ServerAccess,
    database: &str,
    after: i64,
) -> Result<Vec<TrackedChange>, EngineError> {
    let client = superuser(server, database).await?;
    let fresh = client
        .query_one(
            "SELECT EXISTS (SELECT FROM _tenantsdb.changes WHERE number IS NULL)",
            &[],
        )
        .await
        .map_err(|it| error(&it))?;
    if fresh.get(0) {
        run(&client, NUMBER).await?;
    }
    let rows = client
        .query(
            "SELECT number, statement, search_path, ran, created_at FROM _tenantsdb.changes
             WHERE number >= $1 ORDER BY number",
            &[&(after / PER_TEXT)],
        )
        .await
        .map_err(|it| error(&it))?;
    let mut found = Vec::new();
    for row in rows {
        let (number, text): (i64, String) = (row.get(0), row.get(1));
        let (search_path, ran): (String, Vec<String>) = (row.get(2), row.get(3));
        let created_at: SystemTime = row.get(4);
        for (at, statement) in (0..).zip(effective(&text, &ran)) {
            found.push(TrackedChange {
                position: number * PER_TEXT + at,
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
    let mut statements = split(text, &options);
    if statements.len() <= 1 {
        statements.retain(|it| !is_change_of_owner(it));
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
                for at in callers(&statements, &options) {
                    chosen[at] = true;
                }
            }
        }
    }
    let found = statements.into_iter().zip(chosen);
    found
        .filter_map(|(it, chosen)| (chosen && !is_change_of_owner(it)).then_some(it))
        .collect()
}

/// Which statements may have run others: blocks and procedures, or else queries with a function in them, or else whatever
/// changes rows and may have a trigger.
fn callers(statements: &[&str], options: &Options) -> Vec<usize> {
    use StatementKind::{Call, Delete, Do, Execute, Insert, Merge, Select, Update, Values};
    const KINDS: [&[StatementKind]; 3] = [
        &[Do, Call],
        &[Select, Values, Execute],
        &[Insert, Update, Delete, Merge],
    ];
    let kinds: Vec<_> = statements
        .iter()
        .map(|it| classify(it.as_bytes(), options).first)
        .collect();
    let of = |wanted: &[StatementKind]| -> Vec<usize> {
        (0..kinds.len())
            .filter(|at| wanted.contains(&kinds[*at]))
            .collect()
    };
    KINDS
        .into_iter()
        .map(of)
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// Whether a statement does nothing but name an owner. All objects of a workspace have one owner, whose name means nothing
/// in a tenant's database, where the owner is another.
fn is_change_of_owner(statement: &str) -> bool {
    let words: Vec<String> = statement
        .split_ascii_whitespace()
        .map(str::to_ascii_uppercase)
        .collect();
    let outside: usize = statement
        .bytes()
        .scan(0_i32, |depth, byte| {
            *depth += i32::from(byte == b'(') - i32::from(byte == b')');
            Some(usize::from(byte == b',' && *depth == 0))
        })
        .sum();
    words.first().is_some_and(|word| word == "ALTER")
        && matches!(&*words, [.., owner, to, _] if owner == "OWNER" && to == "TO")
        && outside == 0
}

/// Whether a statement may be the command with that tag: `CREATE UNIQUE INDEX` is a `CREATE INDEX`.
fn is_of(statement: &str, tag: &str) -> bool {
    const LOOKED_AT: usize = 6;
    let mut words = statement
        .split(|it: char| !it.is_alphanumeric() && it != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_uppercase);
    if tag == "SELECT INTO" {
        return matches!(words.next().as_deref(), Some("SELECT" | "WITH"))
            && words.any(|word| word == "INTO");
    }
    let words: Vec<String> = words.take(LOOKED_AT).collect();
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
        check(
            "SELECT 1; SELECT make(2)",
            &[table],
            &["SELECT 1", "SELECT make(2)"],
        );
        check("SELECT 1; CALL make(2)", &[table], &["CALL make(2)"]);
        check(
            "UPDATE a SET b = 1; ROLLBACK TO s",
            &[table],
            &["UPDATE a SET b = 1"],
        );
        check(
            "SELECT a, b, c, d, e, f, g INTO h FROM i; SELECT 1",
            &[("SELECT INTO", "public.h")],
            &["SELECT a, b, c, d, e, f, g INTO h FROM i"],
        );
        let altered = ("ALTER TABLE", "public.a");
        check("ALTER TABLE a OWNER TO CURRENT_USER", &[altered], &[]);
        check(
            "ALTER FUNCTION f(int, int) OWNER TO b; ALTER TABLE a OWNER TO b, ADD c int",
            &[("ALTER FUNCTION", "public.f(integer,integer)"), altered],
            &["ALTER TABLE a OWNER TO b, ADD c int"],
        );
        check(
            "ALTER TABLE a ADD c int, OWNER TO b",
            &[altered],
            &["ALTER TABLE a ADD c int, OWNER TO b"],
        );
    }
}
