//! The reverse of a schema change, for the kinds of change that have an obvious one.

/// A piece of a statement that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// An identifier or keyword, as written; quoted ones with their quotes.
    Word(&'a str),
    /// Any other character.
    Symbol(char),
}

impl Token<'_> {
    fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// The statement that undoes this one: `CREATE TABLE`, `CREATE INDEX` and `ALTER TABLE … ADD COLUMN` have one.
pub fn reverse(statement: &str) -> Option<String> {
    let tokens = tokens(statement)?;
    let mut rest = Tokens(&tokens);
    if rest.keyword("CREATE") {
        return create(&mut rest);
    }
    (rest.keyword("ALTER") && rest.keyword("TABLE")).then(|| add_column(&mut rest))?
}

/// Whether a statement names that thing: the last part of a name, quoted or not, in any letter case.
pub fn mentions(statement: &str, name: &str) -> bool {
    let bare = |word: &str| word.trim_matches('"').to_lowercase();
    let name = bare(name.rsplit('.').next().unwrap_or(name));
    tokens(statement).is_none_or(|tokens| {
        tokens
            .iter()
            .any(|token| matches!(token, Token::Word(word) if bare(word) == name))
    })
}

/// What [`reverse`] would remove: its name, as written.
pub fn subject(statement: &str) -> Option<String> {
    let reversed = reverse(statement)?;
    let tokens = tokens(&reversed)?;
    let mut rest = Tokens(&tokens);
    if rest.keyword("DROP") {
        rest.0 = rest.0.get(1..)?;
        rest.if_clause(false);
        return rest.name();
    }
    tokens.iter().rev().find_map(|token| match token {
        Token::Word(word) => Some((*word).to_owned()),
        Token::Symbol(_) => None,
    })
}

fn create(rest: &mut Tokens<'_>) -> Option<String> {
    rest.keyword("UNLOGGED");
    if rest.keyword("TABLE") {
        rest.if_clause(true);
        return Some(format!("DROP TABLE IF EXISTS {};", rest.name()?));
    }
    rest.keyword("UNIQUE");
    if !rest.keyword("INDEX") {
        return None;
    }
    rest.keyword("CONCURRENTLY");
    rest.if_clause(true);
    if rest.0.first().is_some_and(|token| token.is("ON")) {
        return None; // The server chose the index's name.
    }
    let index = rest.name()?;
    if !rest.keyword("ON") {
        return None;
    }
    rest.keyword("ONLY");
    // An index lives in its table's schema.
    let table = rest.name()?;
    let schema = table
        .rsplit_once('.')
        .map(|(schema, _)| format!("{schema}."));
    Some(format!(
        "DROP INDEX IF EXISTS {}{index};",
        schema.unwrap_or_default()
    ))
}

fn add_column(rest: &mut Tokens<'_>) -> Option<String> {
    rest.if_clause(false);
    rest.keyword("ONLY");
    let table = rest.name()?;
    if !rest.keyword("ADD") {
        return None;
    }
    let named = rest.keyword("COLUMN");
    rest.if_clause(true);
    let constraints = [
        "CONSTRAINT",
        "PRIMARY",
        "UNIQUE",
        "FOREIGN",
        "CHECK",
        "EXCLUDE",
    ];
    let first = rest.0.first()?;
    if !named && constraints.iter().any(|word| first.is(word)) {
        return None;
    }
    let column = rest.name()?;
    if column.contains('.') || rest.has_comma() {
        return None; // Several actions in one statement.
    }
    Some(format!(
        "ALTER TABLE {table} DROP COLUMN IF EXISTS {column};"
    ))
}

struct Tokens<'a>(&'a [Token<'a>]);

impl Tokens<'_> {
    /// Takes a keyword if it is next.
    fn keyword(&mut self, keyword: &str) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if first.is(keyword) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// Takes `IF EXISTS` or `IF NOT EXISTS`.
    fn if_clause(&mut self, not: bool) {
        if self.keyword("IF") {
            if not {
                self.keyword("NOT");
            }
            self.keyword("EXISTS");
        }
    }

    /// Takes a name, with a schema or without.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        loop {
            let (Token::Word(word), rest) = self.0.split_first()? else {
                return None;
            };
            name.push_str(word);
            self.0 = rest;
            match rest.split_first() {
                Some((Token::Symbol('.'), rest)) => {
                    name.push('.');
                    self.0 = rest;
                }
                _ => return Some(name),
            }
        }
    }

    fn has_comma(&self) -> bool {
        let mut depth = 0_i32;
        self.0.iter().any(|token| {
            match token {
                Token::Symbol('(' | '[') => depth += 1,
                Token::Symbol(')' | ']') => depth -= 1,
                _ => {}
            }
            depth == 0 && *token == Token::Symbol(',')
        })
    }
}

/// `None` if the text is cut off inside a quote or comment.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest)?,
            '\'' => quoted(rest, '\'')?,
            '"' => {
                let end = quoted(rest, '"')?;
                found.push(Token::Word(&rest[..end]));
                end
            }
            '$' => dollar_quoted(rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let end = rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
                    .unwrap_or(rest.len());
                found.push(Token::Word(&rest[..end]));
                end
            }
            c => {
                if !c.is_whitespace() {
                    found.push(Token::Symbol(c));
                }
                c.len_utf8()
            }
        };
        rest = &rest[end..];
    }
    Some(found)
}

/// Where a quote ends; a doubled quote does not end it.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return Some(at + c.len_utf8());
        }
    }
    None
}

fn dollar_quoted(text: &str) -> Option<usize> {
    let tag = text[1..].find(|c: char| !(c.is_alphanumeric() || c == '_'));
    match tag {
        Some(end) if text[1 + end..].starts_with('$') => {
            let tag = &text[..end + 2];
            let body = &text[tag.len()..];
            Some(tag.len() + body.find(tag)? + tag.len())
        }
        _ => Some(1),
    }
}

/// Comments nest.
fn comment(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest.chars().next()?.len_utf8();
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_reverse() {
        for (statement, expected) in [
            (
                "CREATE TABLE users (id SERIAL)",
                Some("DROP TABLE IF EXISTS users;"),
            ),
            (
                "create table if not exists app.\"My Users\" (id int)",
                Some("DROP TABLE IF EXISTS app.\"My Users\";"),
            ),
            (
                "CREATE TABLE t AS SELECT 1",
                Some("DROP TABLE IF EXISTS t;"),
            ),
            (
                "/* a /* b */ */ CREATE -- c\n UNIQUE INDEX CONCURRENTLY i ON app.t (a)",
                Some("DROP INDEX IF EXISTS app.i;"),
            ),
            (
                "CREATE INDEX i ON t (lower(a), b)",
                Some("DROP INDEX IF EXISTS i;"),
            ),
            ("CREATE INDEX ON t (a)", None),
            (
                "ALTER TABLE users ADD COLUMN age numeric(10, 2) DEFAULT 'a,b'",
                Some("ALTER TABLE users DROP COLUMN IF EXISTS age;"),
            ),
            (
                "ALTER TABLE IF EXISTS ONLY users ADD age int",
                Some("ALTER TABLE users DROP COLUMN IF EXISTS age;"),
            ),
            ("ALTER TABLE users ADD a int, ADD b int", None),
            ("ALTER TABLE users ADD CONSTRAINT c CHECK (true)", None),
            ("ALTER TABLE users ADD UNIQUE (a)", None),
            ("ALTER TABLE users DROP COLUMN age", None),
            ("CREATE VIEW v AS SELECT 1", None),
            ("CREATE TABLE \"open", None),
            ("", None),
        ] {
            assert_eq!(reverse(statement).as_deref(), expected, "{statement}");
        }
    }

    #[test]
    fn what_a_later_change_builds_on() {
        assert_eq!(
            subject("CREATE TABLE app.users (id int)").as_deref(),
            Some("app.users")
        );
        assert_eq!(
            subject("ALTER TABLE users ADD age int").as_deref(),
            Some("age")
        );
        assert!(mentions(
            "ALTER TABLE public.\"users\" ADD x int",
            "app.users"
        ));
        assert!(!mentions(
            "CREATE TABLE users2 (t text DEFAULT 'users')",
            "users"
        ));
        assert!(
            mentions("CREATE FUNCTION f() AS $$ unfinished", "users"),
            "cannot tell: rather yes"
        );
    }
}
