//! What a statement of `pg_dump` makes. Its texts have one form, so that the words at the beginning tell.

use super::{Made, Statement};

/// A statement of a dump, with what it makes. An extension that is there already is to be told from one that is new.
pub fn statement_of_dump(sql: String) -> Statement {
    let made = made_by_dump(&sql);
    let sql = match sql.strip_prefix("CREATE EXTENSION IF NOT EXISTS ") {
        Some(rest) => format!("CREATE EXTENSION {rest}"),
        None => sql,
    };
    Statement { made, sql }
}

/// What a statement of a dump makes.
pub fn made_by_dump(sql: &str) -> Made {
    made(sql).unwrap_or_else(|| Made::Object(beginning(sql)))
}

/// The statement that undoes a statement of a dump; `None` if that cannot be told from its text.
pub fn drop_of_dump(sql: &str) -> Option<String> {
    let mut reader = Reader(sql);
    match reader.keyword() {
        "CREATE" => {
            reader.skip(&[
                "OR",
                "REPLACE",
                "UNLOGGED",
                "FOREIGN",
                "TRUSTED",
                "UNIQUE",
                "CONSTRAINT",
            ]);
            let before = reader.0;
            let kind = reader.kind();
            let words = before.get(..before.len() - reader.0.len())?.trim();
            reader.skip(&["IF", "NOT", "EXISTS"]);
            let name = reader.raw_name()?;
            match kind {
                "TABLE" | "VIEW" | "SEQUENCE" | "TYPE" | "DOMAIN" | "SCHEMA" | "EXTENSION"
                | "FUNCTION" | "PROCEDURE" | "STATISTICS" => Some(format!("DROP {words} {name}")),
                "INDEX" => {
                    let Made::Index { of, .. } = made(sql)? else {
                        return None;
                    };
                    let schema = of.split_once('.').map_or("public", |(schema, _)| schema);
                    Some(format!("DROP INDEX {schema}.{name}"))
                }
                "TRIGGER" | "POLICY" | "RULE" => {
                    reader.seek(if kind == "RULE" { "TO" } else { "ON" })?;
                    Some(format!("DROP {kind} {name} ON {}", reader.raw_name()?))
                }
                _ => None,
            }
        }
        "ALTER" if reader.kind() == "TABLE" => {
            reader.skip(&["ONLY"]);
            let table = reader.raw_name()?;
            let constraint = reader.skip(&["ADD"]) && reader.skip(&["CONSTRAINT"]);
            let name = constraint.then(|| reader.raw_name())??;
            Some(format!("ALTER TABLE {table} DROP CONSTRAINT {name}"))
        }
        "COMMENT" => sql
            .split_once(" IS '")
            .map(|(about, _)| format!("{about} IS NULL")),
        _ => None,
    }
}

/// For errors about what has no name: the first words.
fn beginning(sql: &str) -> String {
    let words: Vec<_> = sql.split_whitespace().take(4).collect();
    words.join(" ")
}

fn made(sql: &str) -> Option<Made> {
    let mut reader = Reader(sql);
    match reader.keyword() {
        "CREATE" => created(&mut reader),
        "ALTER" => {
            reader.kind();
            reader.skip(&["IF", "EXISTS", "ONLY"]);
            let of = reader.name()?;
            let Some(name) = reader.constraint() else {
                return Some(Made::Part {
                    name: of.clone(),
                    of,
                });
            };
            // These are indexes too.
            let index = matches!(reader.keyword(), "PRIMARY" | "UNIQUE" | "EXCLUDE");
            Some(if index {
                indexed(&name, of)
            } else {
                Made::Part { name, of }
            })
        }
        "COMMENT" => {
            reader.skip(&["ON"]);
            let kind = reader.kind();
            let name = reader.name()?;
            let of = match kind {
                // Of a table's column: the table is all but the last name.
                "COLUMN" => parent(&name),
                "CONSTRAINT" | "TRIGGER" | "POLICY" | "RULE" => {
                    reader.skip(&["ON", "DOMAIN"]);
                    reader.name()?
                }
                _ => name.clone(),
            };
            Some(Made::Part { name, of })
        }
        _ => None,
    }
}

fn created(reader: &mut Reader<'_>) -> Option<Made> {
    let replaces = reader.skip(&["OR", "REPLACE"]);
    reader.skip(&["UNLOGGED", "FOREIGN", "TRUSTED"]);
    let kind = reader.kind();
    reader.skip(&["IF", "NOT", "EXISTS"]);
    let name = reader.name()?;
    Some(match kind {
        "TABLE" => Made::Table(name),
        "INDEX" => indexed(&name, reader.behind("ON")?),
        "TRIGGER" | "POLICY" => {
            let of = reader.behind("ON")?;
            Made::Part { name, of }
        }
        "RULE" => {
            let of = reader.behind("TO")?;
            Made::Part { name, of }
        }
        // Where views depend on each other, one is made empty first and then again.
        _ if replaces => Made::Part {
            of: name.clone(),
            name,
        },
        _ => Made::Object(name),
    })
}

/// An index is in its table's schema.
fn indexed(name: &str, of: String) -> Made {
    let index = match of.split_once('.') {
        Some((schema, _)) => format!("{schema}.{name}"),
        None => name.to_owned(),
    };
    Made::Index { index, of }
}

/// `schema.table` of `schema.table.column`.
fn parent(name: &str) -> String {
    name.rsplit_once('.')
        .map_or_else(|| name.to_owned(), |(table, _)| table.to_owned())
}

/// What is left to read.
struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    /// The next word, if it is one of letters.
    fn keyword(&mut self) -> &'a str {
        let rest = self.0.trim_start();
        let end = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        word
    }

    /// Passes over those words, in any order; tells whether there was one.
    fn skip(&mut self, words: &[&str]) -> bool {
        let mut any = false;
        loop {
            let mut ahead = Reader(self.0);
            let word = ahead.keyword();
            // A quoted name begins with no letter; one that is not quoted is in lower case.
            if !words.contains(&word) {
                return any;
            }
            any = true;
            self.0 = ahead.0;
        }
    }

    /// The kind of object, by its last word: `VIEW` of `MATERIALIZED VIEW`.
    fn kind(&mut self) -> &'a str {
        let mut last = "";
        loop {
            let mut ahead = Reader(self.0);
            let word = ahead.keyword();
            let upper = !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
            if !upper || matches!(word, "IF" | "ONLY" | "ON") {
                return last;
            }
            last = word;
            self.0 = ahead.0;
        }
    }

    /// A name with its schema, unless that is the usual one; without quotes.
    fn name(&mut self) -> Option<String> {
        let mut parts = vec![self.part()?];
        while let Some(rest) = self.0.strip_prefix('.') {
            self.0 = rest;
            parts.push(self.part()?);
        }
        if parts.len() > 1 && parts.first().is_some_and(|it| it == "public") {
            parts.remove(0);
        }
        Some(parts.join("."))
    }

    /// The same as it stands.
    fn raw_name(&mut self) -> Option<&'a str> {
        let before = self.0.trim_start();
        self.name()?;
        before.get(..before.len() - self.0.len())
    }

    fn part(&mut self) -> Option<String> {
        let rest = self.0.trim_start();
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest
                .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$')))
                .unwrap_or(rest.len());
            let (word, rest) = rest.split_at(end);
            self.0 = rest;
            return (!word.is_empty()).then(|| word.to_owned());
        };
        let mut name = String::new();
        let mut chars = quoted.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c != '"' {
                name.push(c);
            } else if chars.next_if(|(_, next)| *next == '"').is_some() {
                name.push('"');
            } else {
                self.0 = quoted.get(at + 1..)?;
                return Some(name);
            }
        }
        None
    }

    /// The name behind that word.
    fn behind(&mut self, word: &str) -> Option<String> {
        self.seek(word)?;
        self.name()
    }

    /// Goes behind that word. Names before it that hold the word would be quoted or in lower case.
    fn seek(&mut self, word: &str) -> Option<()> {
        loop {
            let rest = self.0.trim_start();
            if rest.is_empty() {
                return None;
            }
            self.0 = rest;
            if rest.starts_with('"') {
                self.part()?;
                continue;
            }
            let mut ahead = Reader(rest);
            let found = ahead.keyword();
            if found == word {
                ahead.skip(&["ONLY"]);
                self.0 = ahead.0;
                return Some(());
            }
            self.0 = if found.is_empty() {
                let mut chars = rest.chars();
                chars.next();
                chars.as_str()
            } else {
                ahead.0
            };
        }
    }

    /// The name of the constraint that a table is altered to have.
    fn constraint(&mut self) -> Option<String> {
        (self.skip(&["ADD"]) && self.skip(&["CONSTRAINT"])).then(|| self.name())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_tells_what_it_makes_and_of_what_it_is_a_part() {
        let table = |name: &str| Made::Table(name.into());
        let object = |name: &str| Made::Object(name.into());
        let part = |name: &str, of: &str| Made::Part {
            name: name.into(),
            of: of.into(),
        };
        let index = |index: &str, of: &str| Made::Index {
            index: index.into(),
            of: of.into(),
        };
        for (sql, expected) in [
            (
                "CREATE TABLE public.users (\n    id integer\n)",
                table("users"),
            ),
            (
                "CREATE UNLOGGED TABLE app.\"A \"\"b\" (\n)",
                table("app.A \"b"),
            ),
            (
                "CREATE SEQUENCE public.users_id_seq\n    AS integer",
                object("users_id_seq"),
            ),
            (
                "ALTER SEQUENCE public.s OWNED BY public.users.id",
                part("s", "s"),
            ),
            (
                "ALTER TABLE ONLY public.users\n    ADD CONSTRAINT \"users ON\" PRIMARY KEY (id)",
                index("users ON", "users"),
            ),
            (
                "ALTER TABLE ONLY app.t\n    ADD CONSTRAINT k EXCLUDE USING gist (a WITH &&)",
                index("app.k", "app.t"),
            ),
            (
                "ALTER TABLE ONLY app.t\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES app.u(id)",
                part("f", "app.t"),
            ),
            (
                "ALTER TABLE public.users ENABLE ROW LEVEL SECURITY",
                part("users", "users"),
            ),
            (
                "CREATE UNIQUE INDEX by_mail ON ONLY public.users USING btree (mail)",
                index("by_mail", "users"),
            ),
            (
                "ALTER INDEX public.a ATTACH PARTITION public.b",
                part("a", "a"),
            ),
            (
                "CREATE TRIGGER t BEFORE INSERT OR UPDATE OF \"ON\" ON public.users FOR EACH ROW EXECUTE FUNCTION public.f()",
                part("t", "users"),
            ),
            (
                "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON app.users DEFERRABLE",
                part("t", "app.users"),
            ),
            (
                "CREATE POLICY p ON public.users USING (true)",
                part("p", "users"),
            ),
            (
                "CREATE RULE r AS\n    ON DELETE TO public.v DO INSTEAD NOTHING",
                part("r", "v"),
            ),
            (
                "CREATE MATERIALIZED VIEW public.m AS\n SELECT 1",
                object("m"),
            ),
            (
                "CREATE OR REPLACE VIEW public.v AS\n SELECT 1",
                part("v", "v"),
            ),
            (
                "CREATE FUNCTION public.f(a integer) RETURNS text",
                object("f"),
            ),
            (
                "CREATE TYPE public.mood AS ENUM (\n    'ON'\n)",
                object("mood"),
            ),
            ("CREATE SCHEMA app", object("app")),
            (
                "COMMENT ON TABLE public.users IS 'x'",
                part("users", "users"),
            ),
            (
                "COMMENT ON COLUMN public.users.id IS 'x'",
                part("users.id", "users"),
            ),
            (
                "COMMENT ON COLUMN app.users.id IS 'x'",
                part("app.users.id", "app.users"),
            ),
            (
                "COMMENT ON CONSTRAINT c ON public.users IS 'x'",
                part("c", "users"),
            ),
            (
                "COMMENT ON FUNCTION public.f(a integer) IS 'x'",
                part("f", "f"),
            ),
            (
                "CREATE CAST (text AS public.mood) WITH FUNCTION public.f(text)",
                object("CREATE CAST (text AS"),
            ),
        ] {
            assert_eq!(statement_of_dump(sql.into()).made, expected, "{sql}");
        }
        let extension =
            statement_of_dump("CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public".into());
        assert_eq!(extension.made, object("citext"));
        assert_eq!(extension.sql, "CREATE EXTENSION citext WITH SCHEMA public");
    }

    #[test]
    fn what_a_statement_makes_can_be_undone() {
        for (sql, expected) in [
            (
                "CREATE UNLOGGED TABLE app.\"A b\" (\n)",
                Some("DROP TABLE app.\"A b\""),
            ),
            (
                "CREATE MATERIALIZED VIEW public.m AS\n SELECT 1",
                Some("DROP MATERIALIZED VIEW public.m"),
            ),
            (
                "CREATE FUNCTION public.f(a integer) RETURNS text",
                Some("DROP FUNCTION public.f"),
            ),
            (
                "CREATE UNIQUE INDEX i ON ONLY app.t USING btree (a)",
                Some("DROP INDEX app.i"),
            ),
            (
                "CREATE CONSTRAINT TRIGGER \"T\" AFTER INSERT ON public.t DEFERRABLE",
                Some("DROP TRIGGER \"T\" ON public.t"),
            ),
            (
                "CREATE RULE r AS\n    ON DELETE TO public.v DO NOTHING",
                Some("DROP RULE r ON public.v"),
            ),
            (
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c CHECK (true)",
                Some("ALTER TABLE public.t DROP CONSTRAINT c"),
            ),
            (
                "COMMENT ON TABLE public.t IS 'x IS ''y'''",
                Some("COMMENT ON TABLE public.t IS NULL"),
            ),
            ("ALTER TABLE public.t ENABLE ROW LEVEL SECURITY", None),
            ("CREATE CAST (text AS public.mood) WITH INOUT", None),
        ] {
            assert_eq!(drop_of_dump(sql).as_deref(), expected, "{sql}");
        }
    }

    #[test]
    fn no_cut_of_a_statement_is_too_much_for_it() {
        let sql = "CREATE CONSTRAINT TRIGGER \"t\"\"é\" AFTER INSERT ON \"a\".users DEFERRABLE";
        for (at, _) in sql.char_indices() {
            statement_of_dump(sql[..at].to_owned());
            drop_of_dump(&sql[..at]);
        }
    }
}
