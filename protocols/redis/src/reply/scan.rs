//! Where replies end.
//!
//! To find a reply's end nothing need be known of its nesting but how many elements are still to come in all: an aggregate of
//! `n` elements is one element less and `n` more. So the scanner needs no stack, and no depth is too deep.

use super::{ReplyError, Shape, length, shape};
use crate::number::{self, Line};

/// What a scan came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The reply ends after so many of the bytes.
    End(usize),
    /// All bytes belong to the reply, and there is more of it.
    More,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An element.
    Element,
    /// The rest of the line that holds a length or count.
    Length { mark: u8 },
    /// The rest of a line that holds anything.
    Line { mark: u8 },
    /// The line feed of such a line.
    LineFeed { mark: u8 },
    /// The rest of a string's bytes.
    Bulk { mark: u8, left: u64 },
    /// The line's end behind them.
    BulkEnd { mark: u8 },
    /// Its line feed.
    BulkLineFeed { mark: u8 },
}

/// Finds the end of one reply after the other. Attributes belong to the reply that follows them.
#[derive(Clone, Debug)]
pub struct Scanner {
    state: State,
    /// Elements of the reply under way that are still to come, the one under way included. Zero between replies.
    left: u64,
    /// The beginning of a line that holds a length.
    held: [u8; HELD],
    held_len: u8,
}

/// A sign, 19 digits and a carriage return.
const HELD: usize = 22;

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// One at the start of a reply.
    pub const fn new() -> Self {
        Self {
            state: State::Element,
            left: 0,
            held: [0; HELD],
            held_len: 0,
        }
    }

    /// Whether a reply has begun and not ended.
    pub const fn is_midway(&self) -> bool {
        self.left > 0
    }

    /// Looks for the end of the reply that begins, or goes on, at the front of `bytes`.
    ///
    /// # Errors
    /// What is no reply.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scan, ReplyError> {
        if self.left == 0
            && let Some(end) = whole(bytes)
        {
            return Ok(Scan::End(end));
        }
        self.slow(bytes)
    }

    fn slow(&mut self, bytes: &[u8]) -> Result<Scan, ReplyError> {
        if bytes.is_empty() {
            return Ok(Scan::More);
        }
        if self.left == 0 {
            self.left = 1;
        }
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += self.step(rest)?;
            if self.left == 0 {
                return Ok(Scan::End(at));
            }
        }
        Ok(Scan::More)
    }

    /// Takes something from the front of `rest`, which is not empty.
    fn step(&mut self, rest: &[u8]) -> Result<usize, ReplyError> {
        let first = rest.first().copied().unwrap_or_default();
        match self.state {
            State::Element => {
                if let Some(end) = whole(rest) {
                    self.left -= 1;
                    return Ok(end);
                }
                self.state = match shape(first) {
                    Some(Shape::Line) => State::Line { mark: first },
                    Some(_) => State::Length { mark: first },
                    None => return Err(ReplyError::Type { mark: first }),
                };
                Ok(1)
            }
            State::Length { mark } => self.length_line(mark, rest),
            State::Line { mark } => match memchr::memchr(b'\r', rest) {
                Some(at) => {
                    self.state = State::LineFeed { mark };
                    Ok(at + 1)
                }
                None => Ok(rest.len()),
            },
            State::Bulk { mark, left } => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                self.state = match left - here as u64 {
                    0 => State::BulkEnd { mark },
                    left => State::Bulk { mark, left },
                };
                Ok(here)
            }
            State::BulkEnd { mark } if first == b'\r' => {
                self.state = State::BulkLineFeed { mark };
                Ok(1)
            }
            State::LineFeed { .. } | State::BulkLineFeed { .. } if first == b'\n' => {
                self.element_ended();
                Ok(1)
            }
            State::LineFeed { mark } | State::BulkEnd { mark } | State::BulkLineFeed { mark } => {
                Err(ReplyError::End { mark })
            }
        }
    }

    const fn element_ended(&mut self) {
        self.state = State::Element;
        self.left -= 1;
    }

    fn length_line(&mut self, mark: u8, rest: &[u8]) -> Result<usize, ReplyError> {
        let before = usize::from(self.held_len);
        let line = match before {
            0 => number::line(rest),
            _ => {
                let room = self.held.get_mut(before..).unwrap_or_default();
                let more = rest.len().min(room.len());
                for (to, from) in room.iter_mut().zip(rest) {
                    *to = *from;
                }
                number::line(self.held.get(..before + more).unwrap_or_default())
            }
        };
        match line {
            Line::Number(number, used) => {
                self.held_len = 0;
                self.begin(mark, number)?;
                Ok(used.saturating_sub(before))
            }
            Line::Bad if before == 0 && rest.first() == Some(&b'?') => {
                Err(ReplyError::Streamed { mark })
            }
            Line::Bad => Err(ReplyError::Length { mark }),
            Line::Incomplete => {
                for (to, from) in self.held.iter_mut().skip(before).zip(rest) {
                    *to = *from;
                }
                let len = before + rest.len();
                self.held_len = u8::try_from(len).map_err(|_| ReplyError::Length { mark })?;
                Ok(rest.len())
            }
        }
    }

    /// The length of a string or the count of an aggregate is known.
    fn begin(&mut self, mark: u8, number: i64) -> Result<(), ReplyError> {
        let Some(length) = length(mark, number)? else {
            self.element_ended();
            return Ok(());
        };
        let elements = match shape(mark) {
            Some(Shape::Aggregate(each)) => {
                self.element_ended();
                length.checked_mul(each)
            }
            Some(Shape::Attribute) => {
                self.state = State::Element;
                length.checked_mul(2)
            }
            _ => {
                self.state = match length {
                    0 => State::BulkEnd { mark },
                    left => State::Bulk { mark, left },
                };
                Some(0)
            }
        };
        self.left = elements
            .and_then(|more| self.left.checked_add(more))
            .ok_or(ReplyError::Length { mark })?;
        Ok(())
    }
}

/// Where the element at the front ends, if it is a line or a string that is all there. What is wrong with it, the slow way finds.
#[inline]
fn whole(bytes: &[u8]) -> Option<usize> {
    match bytes.split_first()? {
        (b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(', rest) => {
            // Most lines are so short that looking byte by byte is quickest.
            let end = match rest.iter().take(16).position(|byte| *byte == b'\r') {
                Some(end) => end,
                None => 16 + memchr::memchr(b'\r', rest.get(16..)?)?,
            };
            (rest.get(end + 1) == Some(&b'\n')).then_some(end + 3)
        }
        (b'$', rest) => {
            let Line::Number(len, used) = number::line(rest) else {
                return None;
            };
            if len == -1 {
                return Some(1 + used);
            }
            let end = usize::try_from(len).ok()?.checked_add(1 + used)?;
            (bytes.get(end..end.checked_add(2)?)? == b"\r\n").then_some(end + 2)
        }
        _ => None,
    }
}
