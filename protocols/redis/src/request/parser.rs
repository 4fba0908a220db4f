//! Commands that lie in one buffer.

use super::args::{Args, Span};
use super::{LARGE, Limits, RequestError, inline};
use crate::MAX_BULK;
use crate::number::{self, Line};

/// What is at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A whole command.
    Command {
        /// Bytes that it took.
        used: usize,
    },
    /// An empty line or array, which is no command and gets no reply.
    Empty {
        /// Bytes that it took.
        used: usize,
    },
    /// The beginning of a command. Come again with the same bytes and more behind them.
    Incomplete {
        /// At least this many more bytes are needed.
        need: usize,
    },
    /// The command is over [`LARGE`] bytes: it is for a [`super::Stream`], from its first byte.
    Large,
}

/// Finds the command at the front of a buffer.
///
/// While a command is incomplete the parser remembers how far it has come, so that a command that arrives byte by byte is not
/// read again and again.
#[derive(Clone, Debug)]
pub struct Parser {
    limits: Limits,
    /// Bytes of the command that have been dealt with, or of a line that hold no end.
    at: usize,
    /// Arguments that are still to come; meaningless while `at` is zero.
    left: u32,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// One for a client that has not logged in.
    pub const fn new() -> Self {
        Self {
            limits: Limits {
                authenticated: false,
                max_bulk: MAX_BULK,
            },
            at: 0,
            left: 0,
        }
    }

    /// Whether the limits before login hold.
    pub const fn set_authenticated(&mut self, authenticated: bool) {
        self.limits.authenticated = authenticated;
    }

    /// A stream for the command of which this parser has said that it is large. The parser begins anew behind it.
    pub const fn stream(&mut self) -> super::Stream {
        self.at = 0;
        super::Stream::new(self.limits)
    }

    /// Looks at the front of `bytes`. `args` must be the same from the first bytes of a command to its last, and is only then whole.
    ///
    /// # Errors
    /// What cannot become a command.
    #[inline]
    pub fn next(&mut self, bytes: &[u8], args: &mut Args) -> Result<Next, RequestError> {
        match bytes.first() {
            Some(b'*') => self.array(bytes, args),
            Some(_) => self.line(bytes, args),
            None => Ok(Next::Incomplete { need: 1 }),
        }
    }

    fn line(&mut self, bytes: &[u8], args: &mut Args) -> Result<Next, RequestError> {
        match inline::parse(bytes, self.at, args)? {
            None => {
                self.at = bytes.len();
                Ok(Next::Incomplete { need: 1 })
            }
            Some(used) => {
                self.at = 0;
                Ok(match args.spans.is_empty() {
                    true => Next::Empty { used },
                    false => Next::Command { used },
                })
            }
        }
    }

    #[inline]
    fn array(&mut self, bytes: &[u8], args: &mut Args) -> Result<Next, RequestError> {
        if self.at == 0 {
            match number::line(bytes.get(1..).unwrap_or_default()) {
                Line::Incomplete => return Ok(Next::Incomplete { need: 1 }),
                Line::Bad => return Err(RequestError::MultibulkLength),
                Line::Number(count, used) => {
                    let count = self.limits.args(count)?;
                    if count == 0 {
                        return Ok(Next::Empty { used: 1 + used });
                    }
                    // An argument takes six bytes at least.
                    if count as usize > LARGE / 6 {
                        return Ok(Next::Large);
                    }
                    args.clear();
                    self.left = count;
                    self.at = 1 + used;
                }
            }
        }
        let mut at = self.at;
        while self.left > 0 {
            let rest = bytes.get(at..).unwrap_or_default();
            let len = match rest.split_first() {
                Some((b'$', rest)) => number::line(rest),
                Some((got, _)) => return Err(RequestError::ExpectedBulk { got: *got }),
                None => Line::Incomplete,
            };
            let (len, header) = match len {
                Line::Number(len, used) => (self.limits.bulk(len)?, 1 + used),
                Line::Bad => return Err(RequestError::BulkLength),
                Line::Incomplete => {
                    self.at = at;
                    return Ok(Next::Incomplete { need: 1 });
                }
            };
            let start = at + header;
            let end = match usize::try_from(len) {
                Ok(len) if start + len + 2 <= LARGE => start + len,
                _ => return Ok(Next::Large),
            };
            match bytes.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(RequestError::BulkEnd),
                None => {
                    self.at = at;
                    let need = end + 2 - bytes.len();
                    return Ok(Next::Incomplete { need });
                }
            }
            #[allow(clippy::cast_possible_truncation)] // At most `LARGE`.
            args.spans.push(Span {
                start: start as u32,
                end: end as u32,
            });
            at = end + 2;
            self.left -= 1;
        }
        self.at = 0;
        Ok(Next::Command { used: at })
    }
}
