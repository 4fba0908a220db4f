//! A whole text, in one piece or several.

use crate::lexer::{Lexer, Sink, Token};
use crate::statement::{Piece, Statement};
use crate::{Effects, Options, StatementKind};

/// What the proxy must know of a text before it sends it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many statements it holds; empty ones do not count.
    pub statements: u32,
    /// The kind of the first one.
    pub first: StatementKind,
    /// The effects of all.
    pub effects: Effects,
    /// The text must not reach the server: comments nest more than 64 deep, or a dollar quote
    /// has a tag of more than 256 bytes. The rest of the summary may then be wrong.
    pub too_deep: bool,
}

/// Classifies a whole text. Takes linear time and no memory.
#[must_use]
pub fn classify(text: &[u8], options: &Options) -> Summary {
    let mut classifier = Classifier::new(options);
    classifier.push(text);
    classifier.finish()
}

/// Classifies a text that arrives in pieces. The answer is that of [`classify`] for the whole,
/// wherever the cuts are; the state between the pieces is small and of fixed size.
#[derive(Debug)]
pub struct Classifier {
    lexer: Lexer,
    tally: Tally,
}

#[derive(Debug)]
struct Tally {
    statement: Statement,
    summary: Summary,
}

impl Classifier {
    /// A classifier at the start of a text.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let tally = Tally {
            statement: Statement::new(),
            summary: Summary::default(),
        };
        Self {
            lexer: Lexer::new(options),
            tally,
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.lexer.push(piece, &mut self.tally);
    }

    /// The summary of all pieces.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        self.lexer.finish(&mut self.tally);
        self.tally.end_statement();
        Summary {
            too_deep: self.lexer.too_deep(),
            ..self.tally.summary
        }
    }
}

impl Tally {
    fn end_statement(&mut self) {
        if self.statement.is_empty() {
            return;
        }
        let (kind, effects) = self.statement.finish();
        if self.summary.statements == 0 {
            self.summary.first = kind;
        }
        self.summary.statements = self.summary.statements.saturating_add(1);
        self.summary.effects |= effects;
        self.statement = Statement::new();
    }
}

impl Sink for Tally {
    fn token(&mut self, token: Token<'_>, _start: usize, _end: usize) {
        let piece = Piece::of(token);
        if piece == Piece::Symbol(b';') && self.statement.ends_at_semicolon() {
            self.end_statement();
        } else {
            self.statement.take(piece);
        }
    }

    fn literal(&mut self, piece: &[u8], quoted: bool) {
        self.statement.take_literal(piece, quoted);
    }
}
