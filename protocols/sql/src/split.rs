//! A text's statements, one by one.

use crate::Options;
use crate::lexer::{Lexer, Sink, Token};
use crate::statement::{Piece, Statement};

/// The statements of a text, each from its first word to its semicolon, which is left out. A semicolon inside a function's
/// body ends nothing.
#[must_use]
pub fn split<'a>(text: &'a str, options: &Options) -> Vec<&'a str> {
    let mut lexer = Lexer::new(options);
    let mut splitter = Splitter::default();
    lexer.push(text.as_bytes(), &mut splitter);
    lexer.finish(&mut splitter);
    splitter.end_statement(text.len());
    let found = splitter.found.into_iter();
    found
        .filter_map(|(start, end)| text.get(start..end))
        .map(str::trim_end)
        .collect()
}

#[derive(Default)]
struct Splitter {
    statement: Option<(Statement, usize)>,
    found: Vec<(usize, usize)>,
}

impl Splitter {
    fn end_statement(&mut self, end: usize) {
        if let Some((_, start)) = self.statement.take() {
            self.found.push((start, end));
        }
    }
}

impl Sink for Splitter {
    fn token(&mut self, token: Token<'_>, start: usize, _end: usize) {
        let piece = Piece::of(token);
        let semicolon = piece == Piece::Symbol(b';');
        match &mut self.statement {
            None if semicolon => {}
            Some((statement, _)) if semicolon && statement.ends_at_semicolon() => {
                self.end_statement(start);
            }
            Some((statement, _)) => statement.take(piece),
            None => {
                let mut statement = Statement::new();
                statement.take(piece);
                self.statement = Some((statement, start));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(split(text, &Options::default()), expected, "{text}");
    }

    #[test]
    fn statements_are_parted_where_the_server_parts_them() {
        check("", &[]);
        check(" ; ; -- nothing\n", &[]);
        check("SELECT 1", &["SELECT 1"]);
        check(
            "CREATE TABLE a (b text DEFAULT ';'); /* ; */ SELECT 2 ;",
            &["CREATE TABLE a (b text DEFAULT ';')", "SELECT 2"],
        );
        check(
            "DO $$ BEGIN a; b; END $$; SELECT $x$;$x$",
            &["DO $$ BEGIN a; b; END $$", "SELECT $x$;$x$"],
        );
        check(
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
            &[
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
                "SELECT 3",
            ],
        );
        check(
            "SELECT 'it''s'; SELECT \"a;b\" ",
            &["SELECT 'it''s'", "SELECT \"a;b\""],
        );
        check(
            "SELECT 1 + 2 -- tail\n; SELECT 3.5",
            &["SELECT 1 + 2 -- tail", "SELECT 3.5"],
        );
    }
}
