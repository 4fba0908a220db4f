//! The lexer: bytes in, tokens out, resumable at every byte.
//!
//! It follows `src/backend/parser/scan.l` of PostgreSQL 18 in all that decides where a token
//! ends, and keeps nothing but a small fixed buffer between two pushes.

use crate::carry::Carry;
use crate::{Options, TrailBytes};

/// How deep comments may nest; nobody needs more.
pub(crate) const MAX_COMMENT_DEPTH: u32 = 64;

/// One token. Words come as written; what is quoted comes unquoted and cut to [`Carry::CAPACITY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// An identifier or keyword without quotes.
    Word(&'a [u8]),
    /// A `"quoted"` identifier, or `U&"…"`.
    Quoted(&'a [u8]),
    /// A string of any form.
    Literal,
    /// A number, or a parameter such as `$1`.
    Number,
    /// Any other byte.
    Symbol(u8),
}

/// Takes the tokens. `start` and `end` count from the first byte ever pushed; a literal ends
/// where it starts, because nobody asks for more.
pub(crate) trait Sink {
    fn token(&mut self, token: Token<'_>, start: usize, end: usize);

    /// A piece of the literal that was announced last, as it is spelled but for doubled quotes. `quoted`: backslashes in
    /// it may have a meaning.
    fn literal(&mut self, _piece: &[u8], _quoted: bool) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escapes {
    None,
    Backslash,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Normal,
    Word,
    Number,
    /// After `U&`, which is a prefix only if a quote follows at once.
    UnicodePrefix,
    Minus,
    Slash,
    LineComment,
    /// `last` is the byte before, unless that one is used up.
    BlockComment {
        last: u8,
    },
    String(Escapes),
    StringBackslash,
    /// After a quote inside a string: it ends here unless another quote follows.
    StringQuote(Escapes),
    /// Between two parts of one string: the server joins them over a line break.
    StringGap {
        escapes: Escapes,
        line_break: bool,
    },
    Quoted {
        unicode: bool,
    },
    QuotedQuote {
        unicode: bool,
    },
    Dollar,
    DollarTag,
    /// Inside a dollar quote: `matched` bytes of the closing tag seen after a `$`.
    Dollared {
        matched: Option<usize>,
    },
}

#[derive(Clone, Copy)]
enum Class {
    Symbol,
    Space,
    Word,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Minus,
    Slash,
}

const CLASSES: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Symbol; 256];
    let mut byte = 0u8;
    loop {
        table[byte as usize] = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => Class::Word,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'-' => Class::Minus,
            b'/' => Class::Slash,
            _ => Class::Symbol,
        };
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

fn in_word(byte: u8) -> bool {
    matches!(class(byte), Class::Word | Class::Digit | Class::Dollar)
}

fn in_tag(byte: u8) -> bool {
    matches!(class(byte), Class::Word | Class::Digit)
}

/// How many bytes of `text` from `at` on satisfy `holds`.
fn run(text: &[u8], at: usize, holds: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter()
        .position(|&byte| !holds(byte))
        .unwrap_or(rest.len())
}

/// Where `found` in `text[at..]` lies in `text`; its end when there is none.
fn after(text: &[u8], at: usize, find: impl Fn(&[u8]) -> Option<usize>) -> usize {
    text.get(at..)
        .and_then(find)
        .map_or(text.len(), |found| at + found)
}

/// The lexer's whole state between two pieces of a text.
#[derive(Debug)]
pub(crate) struct Lexer {
    state: State,
    carry: Carry,
    plain: Escapes,
    trail: TrailBytes,
    after_lead: bool,
    /// A `-` or a comment inside a gap leads back to this gap.
    gap: Option<Escapes>,
    depth: u32,
    too_deep: bool,
    base: usize,
    start: usize,
}

impl Lexer {
    pub(crate) fn new(options: &Options) -> Self {
        let plain = if options.standard_conforming_strings {
            Escapes::None
        } else {
            Escapes::Backslash
        };
        Self {
            state: State::Normal,
            carry: Carry::default(),
            plain,
            trail: options.backslash_trail_bytes,
            after_lead: false,
            gap: None,
            depth: 0,
            too_deep: false,
            base: 0,
            start: 0,
        }
    }

    /// Whether comments nest too deep, or a dollar quote's tag is too long, to be followed.
    pub(crate) fn too_deep(&self) -> bool {
        self.too_deep
    }

    /// Lexes the next piece of the text.
    pub(crate) fn push(&mut self, piece: &[u8], sink: &mut impl Sink) {
        if self.trail == TrailBytes::Never {
            return self.lex(piece, sink);
        }
        let mut masked = [0u8; 256];
        for part in piece.chunks(masked.len()) {
            for (to, &from) in masked.iter_mut().zip(part) {
                *to = self.mask(from);
            }
            self.lex(masked.get(..part.len()).unwrap_or_default(), sink);
        }
    }

    /// Hides the second byte of a character: what is no ASCII to the server shall be none to us.
    fn mask(&mut self, byte: u8) -> u8 {
        let trails = self.after_lead && byte >= 0x40;
        self.after_lead = !trails && self.trail.leads(byte);
        if trails { byte | 0x80 } else { byte }
    }

    fn lex(&mut self, text: &[u8], sink: &mut impl Sink) {
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            at = match self.state {
                State::Normal => self.normal(text, at, sink),
                State::Word => self.word(text, at, byte, sink),
                State::Number => self.number(text, at, sink),
                State::UnicodePrefix => self.unicode_prefix(at, byte, sink),
                State::Minus => self.minus(at, byte, sink),
                State::Slash => self.slash(at, byte, sink),
                State::LineComment => self.line_comment(text, at),
                State::BlockComment { last } => self.block_comment(text, at, last),
                State::String(escapes) => self.string(text, at, escapes, sink),
                State::StringBackslash => {
                    sink.literal(b"\\", true);
                    self.enter(State::String(Escapes::Backslash), at + 1)
                }
                State::StringQuote(escapes) => self.string_quote(at, byte, escapes),
                State::StringGap {
                    escapes,
                    line_break,
                } => self.string_gap(at, byte, escapes, line_break),
                State::Quoted { unicode } => self.quoted(text, at, unicode),
                State::QuotedQuote { unicode } => self.quoted_quote(at, byte, unicode, sink),
                State::Dollar => self.dollar(at, byte, sink),
                State::DollarTag => self.dollar_tag(text, at, byte, sink),
                State::Dollared { matched } => self.dollared(text, at, byte, matched, sink),
            };
        }
        self.base += text.len();
    }

    /// Hands over what only the end of the text completes.
    pub(crate) fn finish(&mut self, sink: &mut impl Sink) {
        let end = self.base;
        match self.state {
            State::Word => self.emit_word(end, sink),
            State::Number => sink.token(Token::Number, self.start, end),
            State::UnicodePrefix => self.emit_prefix(end, sink),
            State::Minus => sink.token(Token::Symbol(b'-'), self.start, end),
            State::Slash => sink.token(Token::Symbol(b'/'), self.start, end),
            State::QuotedQuote { unicode } => self.emit_quoted(end, unicode, sink),
            State::Dollar => sink.token(Token::Symbol(b'$'), self.start, end),
            State::DollarTag => self.emit_failed_tag(end, sink),
            // What is open in these is an error to the server, which then runs nothing.
            State::String(_) | State::StringBackslash | State::Quoted { .. } => {}
            State::BlockComment { .. } | State::Dollared { .. } => {}
            State::Normal | State::LineComment => {}
            State::StringQuote(_) | State::StringGap { .. } => {}
        }
        self.state = State::Normal;
    }

    fn enter(&mut self, state: State, at: usize) -> usize {
        self.state = state;
        at
    }

    fn begin(&mut self, state: State, at: usize) -> usize {
        self.start = self.base + at;
        self.enter(state, at + 1)
    }

    fn normal(&mut self, text: &[u8], mut at: usize, sink: &mut impl Sink) -> usize {
        while let Some(&byte) = text.get(at) {
            match class(byte) {
                Class::Space => at += 1,
                Class::Word => match self.whole_word(text, at, sink) {
                    Some(next) => at = next,
                    None => return at + run(text, at, in_word),
                },
                Class::Symbol => {
                    let start = self.base + at;
                    sink.token(Token::Symbol(byte), start, start + 1);
                    at += 1;
                }
                Class::Digit => return self.begin(State::Number, at),
                Class::Quote => return self.open_string(self.plain, at, sink),
                Class::DoubleQuote => {
                    self.carry.clear();
                    return self.begin(State::Quoted { unicode: false }, at);
                }
                Class::Dollar => return self.begin(State::Dollar, at),
                Class::Minus => return self.begin(State::Minus, at),
                Class::Slash => return self.begin(State::Slash, at),
            }
        }
        at
    }

    /// Takes the word at `at` without a copy, unless it may go on in the next piece or be the
    /// prefix of a string.
    fn whole_word(&mut self, text: &[u8], at: usize, sink: &mut impl Sink) -> Option<usize> {
        let len = run(text, at, in_word);
        let word = text.get(at..at + len)?;
        let next = text.get(at + len);
        if next.is_none() || (len == 1 && matches!(next, Some(b'\'' | b'&'))) {
            self.start = self.base + at;
            self.carry.set(word);
            self.state = State::Word;
            return None;
        }
        sink.token(Token::Word(word), self.base + at, self.base + at + len);
        Some(at + len)
    }

    fn word(&mut self, text: &[u8], at: usize, byte: u8, sink: &mut impl Sink) -> usize {
        if in_word(byte) {
            let len = run(text, at, in_word);
            self.carry
                .extend(text.get(at..at + len).unwrap_or_default());
            return at + len;
        }
        match (self.carry.bytes(), byte) {
            ([b'u' | b'U'], b'&') => self.enter(State::UnicodePrefix, at + 1),
            ([b'e' | b'E'], b'\'') => self.open_string(Escapes::Backslash, at, sink),
            ([b'b' | b'B' | b'x' | b'X'], b'\'') => self.open_string(Escapes::None, at, sink),
            _ => {
                self.emit_word(self.base + at, sink);
                self.enter(State::Normal, at)
            }
        }
    }

    fn emit_word(&self, end: usize, sink: &mut impl Sink) {
        sink.token(Token::Word(self.carry.bytes()), self.start, end);
    }

    fn number(&mut self, text: &[u8], at: usize, sink: &mut impl Sink) -> usize {
        let len = run(text, at, |byte| byte.is_ascii_digit() || byte == b'.');
        if at + len < text.len() {
            sink.token(Token::Number, self.start, self.base + at + len);
            self.state = State::Normal;
        }
        at + len
    }

    fn unicode_prefix(&mut self, at: usize, byte: u8, sink: &mut impl Sink) -> usize {
        match byte {
            b'\'' => {
                let next = self.open_string(Escapes::None, at, sink);
                // Its escape character may be any.
                sink.literal(b"\\", true);
                next
            }
            b'"' => {
                self.carry.clear();
                self.enter(State::Quoted { unicode: true }, at + 1)
            }
            _ => {
                self.emit_prefix(self.base + at, sink);
                self.enter(State::Normal, at)
            }
        }
    }

    fn emit_prefix(&self, end: usize, sink: &mut impl Sink) {
        sink.token(Token::Word(b"u"), self.start, end - 1);
        sink.token(Token::Symbol(b'&'), end - 1, end);
    }

    fn minus(&mut self, at: usize, byte: u8, sink: &mut impl Sink) -> usize {
        if byte == b'-' {
            return self.enter(State::LineComment, at + 1);
        }
        self.gap = None;
        sink.token(Token::Symbol(b'-'), self.start, self.start + 1);
        self.enter(State::Normal, at)
    }

    fn slash(&mut self, at: usize, byte: u8, sink: &mut impl Sink) -> usize {
        if byte == b'*' {
            self.depth = 1;
            return self.enter(State::BlockComment { last: 0 }, at + 1);
        }
        sink.token(Token::Symbol(b'/'), self.start, self.start + 1);
        self.enter(State::Normal, at)
    }

    fn line_comment(&mut self, text: &[u8], at: usize) -> usize {
        let end = after(text, at, |rest| memchr::memchr2(b'\n', b'\r', rest));
        if end < text.len() {
            self.state = match self.gap.take() {
                Some(escapes) => State::StringGap {
                    escapes,
                    line_break: true,
                },
                None => State::Normal,
            };
        }
        end
    }

    fn block_comment(&mut self, text: &[u8], at: usize, mut last: u8) -> usize {
        for (byte, next) in text.iter().copied().zip(1..).skip(at) {
            match (last, byte) {
                (b'/', b'*') => {
                    self.depth = self.depth.saturating_add(1);
                    self.too_deep |= self.depth > MAX_COMMENT_DEPTH;
                    last = 0;
                }
                (b'*', b'/') => {
                    self.depth -= 1;
                    last = 0;
                    if self.depth == 0 {
                        return self.enter(State::Normal, next);
                    }
                }
                _ => last = byte,
            }
        }
        self.enter(State::BlockComment { last }, text.len())
    }

    fn open_string(&mut self, escapes: Escapes, at: usize, sink: &mut impl Sink) -> usize {
        let start = self.base + at;
        sink.token(Token::Literal, start, start);
        self.enter(State::String(escapes), at + 1)
    }

    fn string(&mut self, text: &[u8], at: usize, escapes: Escapes, sink: &mut impl Sink) -> usize {
        let end = after(text, at, |rest| match escapes {
            Escapes::None => memchr::memchr(b'\'', rest),
            Escapes::Backslash => memchr::memchr2(b'\'', b'\\', rest),
        });
        sink.literal(text.get(at..end).unwrap_or_default(), true);
        match text.get(end) {
            None => end,
            Some(b'\'') => self.enter(State::StringQuote(escapes), end + 1),
            Some(_) => self.enter(State::StringBackslash, end + 1),
        }
    }

    fn string_quote(&mut self, at: usize, byte: u8, escapes: Escapes) -> usize {
        match byte {
            b'\'' => self.enter(State::String(escapes), at + 1),
            _ => self.enter(
                State::StringGap {
                    escapes,
                    line_break: false,
                },
                at,
            ),
        }
    }

    fn string_gap(&mut self, at: usize, byte: u8, escapes: Escapes, line_break: bool) -> usize {
        match class(byte) {
            Class::Space => {
                let line_break = line_break || matches!(byte, b'\n' | b'\r');
                self.enter(
                    State::StringGap {
                        escapes,
                        line_break,
                    },
                    at + 1,
                )
            }
            Class::Quote if line_break => self.enter(State::String(escapes), at + 1),
            Class::Minus => {
                self.gap = Some(escapes);
                self.begin(State::Minus, at)
            }
            _ => self.enter(State::Normal, at),
        }
    }

    fn quoted(&mut self, text: &[u8], at: usize, unicode: bool) -> usize {
        let end = after(text, at, |rest| memchr::memchr(b'"', rest));
        self.carry.extend(text.get(at..end).unwrap_or_default());
        if end < text.len() {
            return self.enter(State::QuotedQuote { unicode }, end + 1);
        }
        end
    }

    fn quoted_quote(&mut self, at: usize, byte: u8, unicode: bool, sink: &mut impl Sink) -> usize {
        if byte == b'"' {
            self.carry.extend(b"\"");
            return self.enter(State::Quoted { unicode }, at + 1);
        }
        self.emit_quoted(self.base + at, unicode, sink);
        self.enter(State::Normal, at)
    }

    fn emit_quoted(&mut self, end: usize, unicode: bool, sink: &mut impl Sink) {
        if unicode {
            self.carry.decode_unicode(b'\\');
        }
        sink.token(Token::Quoted(self.carry.bytes()), self.start, end);
    }

    fn dollar(&mut self, at: usize, byte: u8, sink: &mut impl Sink) -> usize {
        self.carry.clear();
        match class(byte) {
            Class::Digit => self.enter(State::Number, at),
            Class::Word => self.enter(State::DollarTag, at),
            Class::Dollar => self.open_dollared(at, sink),
            _ => {
                sink.token(Token::Symbol(b'$'), self.start, self.start + 1);
                self.enter(State::Normal, at)
            }
        }
    }

    fn dollar_tag(&mut self, text: &[u8], at: usize, byte: u8, sink: &mut impl Sink) -> usize {
        if in_tag(byte) {
            let len = run(text, at, in_tag);
            self.carry
                .extend(text.get(at..at + len).unwrap_or_default());
            return at + len;
        }
        if byte == b'$' {
            return self.open_dollared(at, sink);
        }
        self.emit_failed_tag(self.base + at, sink);
        self.enter(State::Normal, at)
    }

    /// What looked like a tag is a lone `$` and a word: a syntax error, so nothing hangs on it.
    fn emit_failed_tag(&self, end: usize, sink: &mut impl Sink) {
        sink.token(Token::Symbol(b'$'), self.start, self.start + 1);
        sink.token(Token::Word(self.carry.bytes()), self.start + 1, end);
    }

    fn open_dollared(&mut self, at: usize, sink: &mut impl Sink) -> usize {
        self.too_deep |= self.carry.overflowed();
        sink.token(Token::Literal, self.start, self.start);
        self.enter(State::Dollared { matched: None }, at + 1)
    }

    fn dollared(
        &mut self,
        text: &[u8],
        at: usize,
        byte: u8,
        matched: Option<usize>,
        sink: &mut impl Sink,
    ) -> usize {
        let Some(matched) = matched else {
            let end = after(text, at, |rest| memchr::memchr(b'$', rest));
            sink.literal(text.get(at..end).unwrap_or_default(), false);
            if end < text.len() {
                return self.enter(State::Dollared { matched: Some(0) }, end + 1);
            }
            return end;
        };
        let tag = self.carry.bytes();
        let state = match byte {
            b'$' if matched == tag.len() => State::Normal,
            b'$' => State::Dollared { matched: Some(0) },
            _ if tag.get(matched) == Some(&byte) => State::Dollared {
                matched: Some(matched + 1),
            },
            _ => State::Dollared { matched: None },
        };
        let goes_on =
            matches!(state, State::Dollared { matched: next } if next != Some(matched + 1));
        if goes_on {
            // What looked like the end of it was part of it.
            sink.literal(b"$", false);
            sink.literal(tag.get(..matched).unwrap_or_default(), false);
            sink.literal(&[byte], false);
        }
        self.enter(state, at + 1)
    }
}
