//! Commands too large for a buffer, taken apart while they come.

use std::ops::Range;

use super::{LARGE, Limits, RequestError};
use crate::number::{self, Line};

/// What came next in a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing whole: come again with the bytes that follow those used.
    More,
    /// The command begins, and has so many arguments.
    Header {
        /// At least one.
        argc: u32,
    },
    /// A whole argument of at most [`LARGE`] bytes.
    Arg(&'a [u8]),
    /// An argument of more than [`LARGE`] bytes begins.
    Large {
        /// Its length.
        len: u64,
    },
    /// A part of the argument that began with [`Event::Large`].
    Piece {
        /// Where in the bytes it lies. Not empty.
        range: Range<usize>,
        /// The argument ends with it.
        last: bool,
    },
    /// The command has ended; the bytes behind those used are another's.
    End,
}

/// An event, and the bytes that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Bytes that are dealt with.
    pub used: usize,
    /// What they held.
    pub event: Event<'a>,
}

/// A sign, 19 digits and a line's end, behind a mark.
const LONGEST_LINE: usize = 1 + 20 + 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The array's header comes.
    Header,
    /// An argument's header comes, or the end.
    Argument,
    /// An argument comes that is handed out whole.
    Small { len: usize },
    /// The rest of an argument that is handed out in pieces comes.
    Pieces { left: u64 },
    /// A line's end comes.
    LineEnd,
    /// All has been handed out.
    Ended,
}

/// Takes one command apart. See [`super::Parser::stream`].
#[derive(Clone, Debug)]
pub struct Stream {
    limits: Limits,
    state: State,
    /// Arguments that have not begun.
    left: u32,
    /// The beginning of a line or of a small argument.
    held: Vec<u8>,
    /// What is held has been handed out.
    stale: bool,
}

impl Stream {
    pub(super) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Header,
            left: 0,
            held: Vec::new(),
            stale: false,
        }
    }

    /// Takes what comes next from the front of `bytes`: to be called until [`Event::More`] or [`Event::End`].
    ///
    /// # Errors
    /// What cannot become a command.
    pub fn next<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Step<'a>, RequestError> {
        if std::mem::take(&mut self.stale) {
            self.held.clear();
        }
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            match self.state {
                State::Header => {
                    let Some((count, took)) = self.line(rest, b'*')? else {
                        return Ok(more(bytes));
                    };
                    used += took;
                    self.left = self.limits.args(count)?;
                    self.state = State::Argument;
                    let argc = self.left;
                    return Ok(step(used, Event::Header { argc }));
                }
                State::Argument if self.left == 0 => self.state = State::Ended,
                State::Argument => {
                    let Some((len, took)) = self.line(rest, b'$')? else {
                        return Ok(more(bytes));
                    };
                    used += took;
                    self.left -= 1;
                    let len = self.limits.bulk(len)?;
                    match usize::try_from(len) {
                        Ok(len) if len <= LARGE => self.state = State::Small { len },
                        _ => {
                            self.state = State::Pieces { left: len };
                            return Ok(step(used, Event::Large { len }));
                        }
                    }
                }
                State::Small { len } => return Ok(self.small(bytes, used, len)),
                State::Pieces { .. } if rest.is_empty() => return Ok(more(bytes)),
                State::Pieces { left } => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - here as u64;
                    self.state = match left {
                        0 => State::LineEnd,
                        left => State::Pieces { left },
                    };
                    let event = Event::Piece {
                        range: used..used + here,
                        last: left == 0,
                    };
                    return Ok(step(used + here, event));
                }
                State::LineEnd => {
                    let Some(took) = self.line_end(rest)? else {
                        return Ok(more(bytes));
                    };
                    used += took;
                    self.state = State::Argument;
                }
                State::Ended => return Ok(step(used, Event::End)),
            }
        }
    }

    /// A line that holds a number. `None`: all of `rest` is held.
    fn line(&mut self, rest: &[u8], mark: u8) -> Result<Option<(i64, usize)>, RequestError> {
        let before = self.held.len();
        let room = LONGEST_LINE.saturating_sub(before);
        let line = match before {
            0 => rest,
            _ => {
                let more = rest.get(..room).unwrap_or(rest);
                self.held.extend_from_slice(more);
                &self.held
            }
        };
        let Some((first, digits)) = line.split_first() else {
            return Ok(None);
        };
        if *first != mark {
            return Err(match mark {
                b'$' => RequestError::ExpectedBulk { got: *first },
                _ => RequestError::MultibulkLength,
            });
        }
        match number::line(digits) {
            Line::Number(value, used) => {
                self.held.clear();
                Ok(Some((value, (1 + used).saturating_sub(before))))
            }
            Line::Bad if mark == b'$' => Err(RequestError::BulkLength),
            Line::Bad => Err(RequestError::MultibulkLength),
            Line::Incomplete => {
                if before == 0 {
                    self.held.extend_from_slice(rest);
                }
                Ok(None)
            }
        }
    }

    /// An argument that is handed out whole: from `bytes` where it lies in them, else collected.
    fn small<'a>(&'a mut self, bytes: &'a [u8], at: usize, len: usize) -> Step<'a> {
        let rest = bytes.get(at..).unwrap_or_default();
        if self.held.is_empty()
            && let Some(arg) = rest.get(..len)
        {
            self.state = State::LineEnd;
            return step(at + len, Event::Arg(arg));
        }
        let missing = len - self.held.len();
        let here = rest.get(..missing).unwrap_or(rest);
        self.held.extend_from_slice(here);
        if self.held.len() < len {
            return more(bytes);
        }
        self.state = State::LineEnd;
        self.stale = true;
        step(at + here.len(), Event::Arg(&self.held))
    }

    fn line_end(&mut self, rest: &[u8]) -> Result<Option<usize>, RequestError> {
        match (self.held.as_slice(), rest) {
            ([], [b'\r', b'\n', ..]) => Ok(Some(2)),
            ([b'\r'], [b'\n', ..]) => {
                self.held.clear();
                Ok(Some(1))
            }
            ([], [b'\r']) => {
                self.held.push(b'\r');
                Ok(None)
            }
            (_, []) => Ok(None),
            _ => Err(RequestError::BulkEnd),
        }
    }
}

const fn step(used: usize, event: Event<'_>) -> Step<'_> {
    Step { used, event }
}

const fn more(bytes: &[u8]) -> Step<'_> {
    step(bytes.len(), Event::More)
}
