//! Changes of a workspace's schema, recorded in the transaction that makes them.
//!
//! An event trigger writes the text of the client's query, so a rollback, also to a savepoint, takes the record back with the
//! change. One row stands for one text at one moment; `ran` names the commands of it that took effect, with their search paths.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use protocol_sql::{Options, StatementKind, classify, split};

use super::connect::{administrator, error, run};
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
             ran text[] NOT NULL,
             created_at timestamptz NOT NULL DEFAULT clock_timestamp());
         CREATE INDEX IF NOT EXISTS changes_began ON {PLATFORM}.changes (began);
         ALTER TABLE {PLATFORM}.changes OWNER TO {PLATFORM_ROLE};
         CREATE OR REPLACE FUNCTION {PLATFORM}.note_ddl(tag text, query text, path text) RETURNS void
             LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
         DECLARE
             object text;
         BEGIN
             IF tag IN ({UNTRACKED}) OR pg_has_role(session_user, '{PLATFORM_ROLE}', 'MEMBER') THEN
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
             object := concat_ws(chr(31), tag, coalesce(object, ''), path);
             UPDATE {PLATFORM}.changes c SET ran = c.ran || object
             WHERE c.transaction = txid_current() AND c.began = statement_timestamp() AND c.statement = query
                 AND c.number IS NULL;
             IF NOT FOUND THEN
                 INSERT INTO {PLATFORM}.changes (transaction, began, statement, ran)
                 VALUES (txid_current(), statement_timestamp(), query, ARRAY[object]);
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
    let client = administrator(server, database).await?;
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
    // A text that commits in its middle has a row for each transaction, and only together they tell which statement is
    // whose: those before `after` are read too.
    let rows = client
        .query(
            "SELECT number, statement, ran, created_at, began FROM _tenantsdb.changes
             WHERE number IS NOT NULL AND began IN (SELECT began FROM _tenantsdb.changes WHERE number >= $1)
             ORDER BY number",
            &[&(after / PER_TEXT)],
        )
        .await
        .map_err(|it| error(&it))?;
    let mut texts: HashMap<(SystemTime, String), Vec<Transaction>> = HashMap::new();
    for row in rows {
        let text = (row.get(4), row.get(1));
        texts.entry(text).or_default().push(Transaction {
            number: row.get(0),
            ran: row.get(2),
            created_at: row.get(3),
        });
    }
    let mut found = Vec::new();
    for ((_, text), transactions) in &texts {
        for (transaction, statements) in transactions.iter().zip(effective(text, transactions)) {
            for (at, (statement, search_path)) in (0..).zip(statements) {
                found.push(TrackedChange {
                    position: transaction.number * PER_TEXT + at,
                    statement: statement.to_owned(),
                    search_path: search_path.to_owned(),
                    created_at: transaction.created_at,
                });
            }
        }
    }
    found.retain(|change| change.position > after);
    found.sort_by_key(|change| change.position);
    Ok(found)
}

/// What one transaction did with a text.
struct Transaction {
    number: i64,
    /// The commands that took effect, as [`Command`] reads them.
    ran: Vec<String>,
    created_at: SystemTime,
}

/// A command that took effect, as the trigger noted it: the tag, the object's identity and the search path, parted by the
/// byte 31.
struct Command<'a> {
    tag: &'a str,
    object: &'a str,
    search_path: &'a str,
}

impl<'a> Command<'a> {
    fn read(noted: &'a str) -> Self {
        let mut parts = noted.splitn(3, '\u{1f}');
        let mut part = || parts.next().unwrap_or_default();
        Self {
            tag: part(),
            object: part(),
            search_path: part(),
        }
    }
}

/// For each transaction, the statements of the text that changed the schema in it, each with its search path.
fn effective<'a>(text: &'a str, transactions: &'a [Transaction]) -> Vec<Vec<(&'a str, &'a str)>> {
    let options = Options::default();
    let statements = split(text, &options);
    let mut index = Index::new(&statements);
    let mut inner = None;
    let mut from = 0;
    let mut found = Vec::with_capacity(transactions.len());
    for (nth, transaction) in transactions.iter().enumerate() {
        // The search path with which each was seen last, which is when it ended: what it ran inside may have had others.
        let mut seen = BTreeMap::new();
        for command in transaction.ran.iter().map(|it| Command::read(it)) {
            if statements.len() == 1 {
                // A block that commits is one change, however many transactions it has.
                if nth == 0 {
                    seen.insert(0, command.search_path);
                }
            } else if let Some(at) = index.find(&command, from) {
                seen.insert(at, command.search_path);
                from = at + 1;
            } else {
                // No statement of the text does that by itself: a block or procedure ran it.
                let (callers, first) =
                    inner.get_or_insert_with(|| (callers(&statements, &options), nth));
                if *first == nth {
                    seen.extend(callers.iter().map(|at| (*at, command.search_path)));
                }
            }
        }
        let chosen = seen.into_iter().map(|(at, path)| (statements[at], path));
        found.push(chosen.filter(|(it, _)| !is_change_of_owner(it)).collect());
    }
    found
}

/// Which statements of a text a command may be. A text can hold very many statements, and each may be many commands.
struct Index<'a> {
    statements: &'a [&'a str],
    /// Which statements have a word, in order.
    mentions: HashMap<String, Vec<usize>>,
    /// Which statements a tag may be of.
    tagged: HashMap<String, Vec<bool>>,
}

impl<'a> Index<'a> {
    fn new(statements: &'a [&'a str]) -> Self {
        let mut mentions: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, statement) in statements.iter().enumerate() {
            for word in words(&statement.to_lowercase()) {
                let places = mentions.entry(word.to_owned()).or_default();
                if places.last() != Some(&at) {
                    places.push(at);
                }
            }
        }
        Self {
            statements,
            mentions,
            tagged: HashMap::new(),
        }
    }

    /// The first statement from `from` on that may be the command. Of two that could have been it, one may have been rolled
    /// back: the object's name tells.
    fn find(&mut self, command: &Command<'_>, from: usize) -> Option<usize> {
        let statements = self.statements;
        let tagged = self
            .tagged
            .entry(command.tag.to_owned())
            .or_insert_with(|| statements.iter().map(|it| is_of(it, command.tag)).collect());
        let name = name_in(command.object).to_lowercase();
        let named = self.mentions.get(&name).and_then(|places| {
            let rest = places.get(places.partition_point(|at| *at < from)..)?;
            rest.iter().copied().find(|at| tagged[*at])
        });
        named.or_else(|| (from..tagged.len()).find(|at| tagged[*at]))
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|it: char| !it.is_alphanumeric() && it != '_' && it != '$')
        .filter(|word| !word.is_empty())
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

/// An object's name without its schema: the last part of an identity such as `public.a`, `public.f(integer)` or
/// `t on public.a`.
fn name_in(identity: &str) -> &str {
    let name = identity.split(" on ").next().unwrap_or_default();
    let name = name.split('(').next().unwrap_or_default();
    let name = name.rsplit('.').next().unwrap_or_default();
    name.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(ran: Vec<String>) -> Transaction {
        Transaction {
            number: 1,
            ran,
            created_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_what_took_effect_counts() {
        let check = |text, ran: &[(&str, &str)], expected: &[&str]| {
            let ran: Vec<String> = ran
                .iter()
                .map(|(tag, object)| format!("{tag}\u{1f}{object}\u{1f}public"))
                .collect();
            let transactions = [transaction(ran)];
            let found = effective(text, &transactions).concat();
            let found: Vec<_> = found.into_iter().map(|(statement, _)| statement).collect();
            assert_eq!(found, expected, "{text}");
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

    #[test]
    fn each_statement_has_the_search_path_that_it_ended_with() {
        let check = |text, ran: &[&str], expected: &[(&str, &str)]| {
            let ran: Vec<String> = ran.iter().map(|it| it.replace('|', "\u{1f}")).collect();
            let transactions = [transaction(ran)];
            assert_eq!(effective(text, &transactions).concat(), expected, "{text}");
        };
        check(
            "SET search_path = a; CREATE TABLE t (); SET search_path = b; CREATE TABLE t ()",
            &["CREATE TABLE|a.t|a", "CREATE TABLE|b.t|b"],
            &[("CREATE TABLE t ()", "a"), ("CREATE TABLE t ()", "b")],
        );
        check(
            "CREATE EXTENSION hstore",
            &[
                "DROP OPERATOR|public.=>|public, pg_temp",
                "CREATE EXTENSION|hstore|a, public",
            ],
            &[("CREATE EXTENSION hstore", "a, public")],
        );
    }

    #[test]
    fn very_many_statements_cost_little_each() {
        const MANY: usize = 20_000;
        let text = "CREATE INDEX ON a (b);".repeat(MANY);
        let ran: Vec<String> = (0..MANY)
            .map(|at| format!("CREATE INDEX\u{1f}public.a_b_idx{at}\u{1f}public"))
            .collect();
        let together = [transaction(ran.clone())];
        assert_eq!(effective(&text, &together).concat().len(), MANY);
        let apart: Vec<_> = ran.into_iter().map(|it| transaction(vec![it])).collect();
        assert_eq!(effective(&text, &apart).concat().len(), MANY);
        let calls = "SELECT f();".repeat(MANY);
        assert_eq!(effective(&calls, &apart).concat().len(), MANY);
    }

    #[test]
    fn a_text_of_several_transactions_is_read_on_where_the_last_one_ended() {
        let check = |text, ran: &[&str], expected: &[&[&str]]| {
            let transactions: Vec<_> = ran
                .iter()
                .map(|it| transaction(vec![it.replace('|', "\u{1f}")]))
                .collect();
            let found: Vec<Vec<_>> = effective(text, &transactions)
                .into_iter()
                .map(|it| it.into_iter().map(|(statement, _)| statement).collect())
                .collect();
            assert_eq!(found, expected, "{text}");
        };
        let (first, second) = (
            "CREATE INDEX|public.a_x_idx|p",
            "CREATE INDEX|public.a_y_idx|p",
        );
        check(
            "CREATE INDEX ON a (x); COMMIT; CREATE INDEX ON a (y)",
            &[first, second],
            &[&["CREATE INDEX ON a (x)"], &["CREATE INDEX ON a (y)"]],
        );
        check("CALL f()", &[first, second], &[&["CALL f()"], &[]]);
        check(
            "CALL f(); COMMIT; CALL f()",
            &[first, second],
            &[&["CALL f()", "CALL f()"], &[]],
        );
    }
}
