//! What is different between two schemas, in words and as statements that make the second like the first.

use std::collections::{BTreeMap, HashSet};

use engines::SchemaPair;

use super::schema::{Made, drop_of_dump, made_by_dump};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In words.
    pub description: String,
    /// What would undo it; empty where that is for a person to decide.
    pub ddl: Vec<String>,
}

impl Difference {
    fn new(description: String, ddl: impl IntoIterator<Item = String>) -> Self {
        Self {
            description,
            ddl: ddl.into_iter().collect(),
        }
    }
}

/// What the found schema has otherwise than the expected one. Both are statements of a dump.
pub fn differences(schemas: &SchemaPair) -> Vec<Difference> {
    let expected: HashSet<&str> = schemas.expected.iter().map(String::as_str).collect();
    let found: HashSet<&str> = schemas.found.iter().map(String::as_str).collect();
    let missing = schemas.expected.iter().map(String::as_str);
    let missing: Vec<&str> = missing.filter(|it| !found.contains(it)).collect();
    let extra = schemas.found.iter().map(String::as_str);
    let mut extra: BTreeMap<(String, Made), &str> = extra
        .filter(|it| !expected.contains(it))
        .map(|it| (subject(it), it))
        .collect();
    let mut all = Vec::new();
    for wanted in missing {
        match extra.remove(&subject(wanted)) {
            Some(there) => all.extend(changed(wanted, there)),
            None => all.push(Difference::new(
                format!("{} is missing", named(wanted)),
                [wanted.to_owned()],
            )),
        }
    }
    // What belongs to something that goes itself needs no word of its own.
    let going: HashSet<String> = extra
        .keys()
        .filter_map(|(_, made)| match made {
            Made::Table(name) | Made::Object(name) => Some(name.clone()),
            Made::Index { .. } | Made::Part { .. } => None,
        })
        .collect();
    for ((_, made), there) in &extra {
        if !matches!(made, Made::Index { of, .. } | Made::Part { of, .. } if going.contains(of)) {
            all.push(Difference::new(
                format!("{} is not in the blueprint", named(there)),
                drop_of_dump(there),
            ));
        }
    }
    all
}

/// What a statement is about: its first words, and what it makes. One of each has at most one in a schema.
fn subject(sql: &str) -> (String, Made) {
    (kind(sql), made_by_dump(sql))
}

/// The words in capitals at the beginning, such as `CREATE TABLE`.
fn kind(sql: &str) -> String {
    let upper = |word: &&str| word.bytes().all(|b| b.is_ascii_uppercase());
    let words: Vec<_> = sql.split_whitespace().take_while(upper).take(3).collect();
    words.join(" ")
}

/// `table users`, `the comment on column users.id`.
fn named(sql: &str) -> String {
    let kind = kind(sql).to_ascii_lowercase();
    let made = made_by_dump(sql);
    let kind = match kind.strip_prefix("create ") {
        Some(kind) => kind.trim_start_matches("or replace "),
        None if kind.starts_with("comment on") => {
            let what = kind.trim_start_matches("comment on ");
            return format!("the comment on {what} {}", made.name());
        }
        None => "a property",
    };
    match &made {
        Made::Index { index, of } if !sql.starts_with("CREATE") => {
            format!("constraint {index} of {of}")
        }
        Made::Part { name, of } if name != of => format!("{kind} {name} of {of}"),
        Made::Part { of, .. } => format!("{kind} of {of}"),
        _ => format!("{kind} {}", made.name()),
    }
}

fn changed(wanted: &str, there: &str) -> Vec<Difference> {
    if let (Some(wanted), Some(there)) = (Table::read(wanted), Table::read(there))
        && wanted.head == there.head
    {
        return columns(&wanted, &there);
    }
    let mut ddl: Vec<_> = drop_of_dump(there).into_iter().collect();
    ddl.push(wanted.to_owned());
    vec![Difference::new(
        format!("{} is not as in the blueprint", named(wanted)),
        ddl,
    )]
}

/// A `CREATE TABLE`, line by line.
struct Table<'a> {
    name: String,
    /// The name as SQL has it.
    sql_name: &'a str,
    head: (&'a str, &'a str),
    /// Columns and constraints, by their first word or name.
    lines: Vec<(&'a str, &'a str)>,
}

impl<'a> Table<'a> {
    fn read(sql: &'a str) -> Option<Self> {
        let Made::Table(name) = made_by_dump(sql) else {
            return None;
        };
        let (head, rest) = sql.split_once(" (\n")?;
        let (body, tail) = rest.rsplit_once("\n)")?;
        let lines = body.lines().map(|line| {
            let line = line.strip_prefix("    ")?;
            let line = line.strip_suffix(',').unwrap_or(line);
            let of = line.strip_prefix("CONSTRAINT ").unwrap_or(line);
            let end = match of.strip_prefix('"') {
                Some(quoted) => quoted.find('"')? + 2,
                None => of.find(' ')?,
            };
            let length = line.len() - of.len() + end;
            Some((line.get(..length)?, line.get(length..)?.trim_start()))
        });
        Some(Self {
            name,
            sql_name: head.rsplit_once("TABLE ")?.1,
            head: (head, tail),
            lines: lines.collect::<Option<_>>()?,
        })
    }

    fn line(&self, name: &str) -> Option<&'a str> {
        self.lines.iter().find(|it| it.0 == name).map(|it| it.1)
    }
}

fn columns(wanted: &Table<'_>, there: &Table<'_>) -> Vec<Difference> {
    let table = wanted.sql_name;
    let called = |line: &str| match line.strip_prefix("CONSTRAINT ") {
        Some(name) => format!("constraint {name} of {}", wanted.name),
        None => format!("column {}.{line}", wanted.name),
    };
    let add = |line: &str, rest: &str| match line.strip_prefix("CONSTRAINT ") {
        Some(_) => format!("ALTER TABLE {table} ADD {line} {rest}"),
        None => format!("ALTER TABLE {table} ADD COLUMN {line} {rest}"),
    };
    let drop = |line: &str| match line.strip_prefix("CONSTRAINT ") {
        Some(name) => format!("ALTER TABLE {table} DROP CONSTRAINT {name}"),
        None => format!("ALTER TABLE {table} DROP COLUMN {line}"),
    };
    let mut all = Vec::new();
    for (line, rest) in &wanted.lines {
        match there.line(line) {
            Some(other) if other == *rest => {}
            None => all.push(Difference::new(
                format!("{} is missing", called(line)),
                [add(line, rest)],
            )),
            Some(other) => {
                let ddl = alter(table, line, rest, other);
                all.push(Difference::new(
                    format!("{} is '{other}' and should be '{rest}'", called(line)),
                    ddl.unwrap_or_else(|| vec![drop(line), add(line, rest)]),
                ));
            }
        }
    }
    for (line, _) in &there.lines {
        if wanted.line(line).is_none() {
            all.push(Difference::new(
                format!("{} is not in the blueprint", called(line)),
                [drop(line)],
            ));
        }
    }
    if all.is_empty() {
        all.push(Difference::new(
            format!("the columns of table {} are in another order", wanted.name),
            [],
        ));
    }
    all
}

/// What a column is, as a dump has it.
#[derive(PartialEq)]
struct Column<'a> {
    type_name: &'a str,
    default: Option<&'a str>,
    not_null: bool,
}

impl<'a> Column<'a> {
    fn read(text: &'a str) -> Self {
        let (text, not_null) = match text.strip_suffix(" NOT NULL") {
            Some(text) => (text, true),
            None => (text, false),
        };
        match text.split_once(" DEFAULT ") {
            Some((type_name, default)) => Self {
                type_name,
                default: Some(default),
                not_null,
            },
            None => Self {
                type_name: text,
                default: None,
                not_null,
            },
        }
    }
}

/// What makes a column like another one; `None`: it must be made anew.
fn alter(table: &str, line: &str, wanted: &str, there: &str) -> Option<Vec<String>> {
    let anew = |text: &str| text.contains(" GENERATED ");
    if line.starts_with("CONSTRAINT ") || anew(wanted) || anew(there) {
        return None;
    }
    let (wanted, there) = (Column::read(wanted), Column::read(there));
    let mut ddl = Vec::new();
    let mut push =
        |what: String| ddl.push(format!("ALTER TABLE {table} ALTER COLUMN {line} {what}"));
    if wanted.type_name != there.type_name {
        push(format!("TYPE {}", wanted.type_name));
    }
    if wanted.default != there.default {
        push(match wanted.default {
            Some(default) => format!("SET DEFAULT {default}"),
            None => "DROP DEFAULT".into(),
        });
    }
    if wanted.not_null != there.not_null {
        let what = if wanted.not_null { "SET" } else { "DROP" };
        push(format!("{what} NOT NULL"));
    }
    Some(ddl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: &[&str], found: &[&str], differences: &[(&str, &[&str])]) {
        let owned = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let schemas = SchemaPair {
            expected: owned(expected),
            found: owned(found),
        };
        let told = super::differences(&schemas);
        let told: Vec<_> = told
            .iter()
            .map(|it| {
                let ddl: Vec<_> = it.ddl.iter().map(String::as_str).collect();
                (it.description.as_str(), ddl)
            })
            .collect();
        let wanted: Vec<_> = differences.iter().map(|(a, b)| (*a, b.to_vec())).collect();
        assert_eq!(told, wanted);
    }

    const USERS: &str = "CREATE TABLE public.users (\n    id integer NOT NULL,\n    \"Full name\" text DEFAULT 'a, b'::text,\n    CONSTRAINT positive CHECK ((id > 0))\n)";
    const INDEX: &str = "CREATE INDEX by_name ON public.users USING btree (\"Full name\")";

    #[test]
    fn equal_schemas_have_no_differences_in_whatever_order() {
        check(&[USERS, INDEX], &[INDEX, USERS], &[]);
    }

    #[test]
    fn objects_that_are_missing_or_too_many_are_named() {
        check(
            &[USERS, INDEX],
            &[USERS],
            &[("index by_name is missing", &[INDEX])],
        );
        check(
            &[],
            &[USERS, INDEX, "COMMENT ON TABLE public.users IS 'x'"],
            &[(
                "table users is not in the blueprint",
                &["DROP TABLE public.users"],
            )],
        );
        check(
            &[USERS, "COMMENT ON COLUMN public.users.id IS 'y'"],
            &[USERS, INDEX, "COMMENT ON COLUMN public.users.id IS 'x'"],
            &[
                (
                    "the comment on column users.id is not as in the blueprint",
                    &[
                        "COMMENT ON COLUMN public.users.id IS NULL",
                        "COMMENT ON COLUMN public.users.id IS 'y'",
                    ],
                ),
                (
                    "index by_name is not in the blueprint",
                    &["DROP INDEX public.by_name"],
                ),
            ],
        );
        check(
            &["ALTER TABLE ONLY public.users\n    ADD CONSTRAINT users_pkey PRIMARY KEY (id)"],
            &["ALTER TABLE ONLY public.users\n    ADD CONSTRAINT other PRIMARY KEY (id)"],
            &[
                (
                    "constraint users_pkey of users is missing",
                    &[
                        "ALTER TABLE ONLY public.users\n    ADD CONSTRAINT users_pkey PRIMARY KEY (id)",
                    ],
                ),
                (
                    "constraint other of users is not in the blueprint",
                    &["ALTER TABLE public.users DROP CONSTRAINT other"],
                ),
            ],
        );
    }

    #[test]
    fn columns_are_compared_one_by_one() {
        let other = "CREATE TABLE public.users (\n    id bigint DEFAULT 1,\n    extra text,\n    CONSTRAINT positive CHECK ((id >= 0))\n)";
        check(
            &[USERS],
            &[other],
            &[
                (
                    "column users.id is 'bigint DEFAULT 1' and should be 'integer NOT NULL'",
                    &[
                        "ALTER TABLE public.users ALTER COLUMN id TYPE integer",
                        "ALTER TABLE public.users ALTER COLUMN id DROP DEFAULT",
                        "ALTER TABLE public.users ALTER COLUMN id SET NOT NULL",
                    ],
                ),
                (
                    "column users.\"Full name\" is missing",
                    &[
                        "ALTER TABLE public.users ADD COLUMN \"Full name\" text DEFAULT 'a, b'::text",
                    ],
                ),
                (
                    "constraint positive of users is 'CHECK ((id >= 0))' and should be 'CHECK ((id > 0))'",
                    &[
                        "ALTER TABLE public.users DROP CONSTRAINT positive",
                        "ALTER TABLE public.users ADD CONSTRAINT positive CHECK ((id > 0))",
                    ],
                ),
                (
                    "column users.extra is not in the blueprint",
                    &["ALTER TABLE public.users DROP COLUMN extra"],
                ),
            ],
        );
    }
}
