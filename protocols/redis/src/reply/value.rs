//! Looking into a reply that is all there.

use super::{ReplyError, Scan, Scanner, Shape, length, mark, shape};
use crate::number::{self, Line};

/// An element without those inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A line: its mark and what is behind it.
    Line(u8, &'a [u8]),
    /// A string with a length: its mark and its bytes.
    Bulk(u8, &'a [u8]),
    /// Null, in either version's form.
    Null,
    /// An aggregate: its mark and how many elements follow; in a map and an attribute a key and a value count as two.
    Aggregate(u8, u64),
}

/// The elements of bytes in the order in which they lie there, whatever their nesting.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    /// Those of `bytes`, which hold whole replies.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next element.
    ///
    /// # Errors
    /// What is no reply, and [`ReplyError::CutOff`] at the end.
    #[inline]
    pub fn token(&mut self) -> Result<Token<'a>, ReplyError> {
        let Some((mark, behind)) = self.rest.split_first() else {
            return Err(ReplyError::CutOff);
        };
        let mark = *mark;
        match shape(mark).ok_or(ReplyError::Type { mark })? {
            Shape::Line => {
                let end = memchr::memchr(b'\r', behind).ok_or(ReplyError::CutOff)?;
                let (text, behind) = behind.split_at(end);
                self.rest = line_end(mark, behind)?;
                Ok(match mark {
                    mark::NULL => Token::Null,
                    mark => Token::Line(mark, text),
                })
            }
            shape => {
                let (number, used) = match number::line(behind) {
                    Line::Number(number, used) => (number, used),
                    Line::Incomplete => return Err(ReplyError::CutOff),
                    Line::Bad if behind.starts_with(b"?") => {
                        return Err(ReplyError::Streamed { mark });
                    }
                    Line::Bad => return Err(ReplyError::Length { mark }),
                };
                let behind = behind.get(used..).unwrap_or_default();
                let Some(length) = length(mark, number)? else {
                    self.rest = behind;
                    return Ok(Token::Null);
                };
                match shape {
                    Shape::Aggregate(each) => {
                        self.rest = behind;
                        self.aggregate(mark, length.checked_mul(each))
                    }
                    Shape::Attribute => {
                        self.rest = behind;
                        self.aggregate(mark, length.checked_mul(2))
                    }
                    Shape::Bulk | Shape::Line => {
                        let (bytes, behind) = usize::try_from(length)
                            .ok()
                            .and_then(|length| behind.split_at_checked(length))
                            .ok_or(ReplyError::CutOff)?;
                        self.rest = line_end(mark, behind)?;
                        Ok(Token::Bulk(mark, bytes))
                    }
                }
            }
        }
    }

    fn aggregate(&self, mark: u8, elements: Option<u64>) -> Result<Token<'a>, ReplyError> {
        match elements {
            // An element takes three bytes at least: what is beyond that is not all there.
            Some(elements) if elements <= self.rest.len() as u64 => {
                Ok(Token::Aggregate(mark, elements))
            }
            Some(_) => Err(ReplyError::CutOff),
            None => Err(ReplyError::Length { mark }),
        }
    }

    /// The bytes of the next element with all that is inside it, attributes before it included.
    ///
    /// # Errors
    /// As [`Tokens::token`].
    pub fn element(&mut self) -> Result<&'a [u8], ReplyError> {
        match Scanner::new().scan(self.rest)? {
            Scan::End(end) => {
                let (element, rest) = self.rest.split_at(end);
                self.rest = rest;
                Ok(element)
            }
            Scan::More => Err(ReplyError::CutOff),
        }
    }

    /// The next element, as a value. Attributes are passed over.
    ///
    /// # Errors
    /// As [`Tokens::token`].
    pub fn value(&mut self) -> Result<Value<'a>, ReplyError> {
        Value::parse(self.element()?)
    }
}

fn line_end(mark: u8, behind: &[u8]) -> Result<&[u8], ReplyError> {
    match behind {
        [b'\r', b'\n', rest @ ..] => Ok(rest),
        [] | [b'\r'] => Err(ReplyError::CutOff),
        _ => Err(ReplyError::End { mark }),
    }
}

/// The kinds of [`Items`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `*`.
    Array,
    /// `~`.
    Set,
    /// `%`: keys and values by turns.
    Map,
    /// `>`.
    Push,
}

/// A reply. It borrows from the bytes, and an aggregate's elements are read when they are asked for: a value costs nothing,
/// however deep it is.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// `+`.
    Simple(&'a [u8]),
    /// `-` or `!`.
    Error(&'a [u8]),
    /// `:`.
    Integer(i64),
    /// `$`.
    Bulk(&'a [u8]),
    /// `$-1`, `*-1` or `_`.
    Null,
    /// `#`.
    Boolean(bool),
    /// `,`, as it is written: `inf`, `-inf` and `nan` too.
    Double(&'a [u8]),
    /// `(`, as it is written.
    BigNumber(&'a [u8]),
    /// `=`: the text's type, of three letters, and the text.
    Verbatim(&'a [u8], &'a [u8]),
    /// An aggregate.
    Items(Kind, Items<'a>),
}

impl<'a> Value<'a> {
    /// Reads `bytes`, which are one whole reply. Attributes are passed over.
    ///
    /// # Errors
    /// What is no reply; [`ReplyError::CutOff`] and [`ReplyError::LeftOver`] where it is not exactly one. Only as much is looked at
    /// as the value needs: errors inside of an aggregate show when it is read.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ReplyError> {
        let mut tokens = Tokens::new(bytes);
        let value = loop {
            let token = tokens.token()?;
            match token {
                Token::Aggregate(mark::ATTRIBUTE, elements) => {
                    for _ in 0..elements {
                        tokens.element()?;
                    }
                }
                Token::Aggregate(mark, count) => {
                    let kind = match mark {
                        mark::SET => Kind::Set,
                        mark::MAP => Kind::Map,
                        mark::PUSH => Kind::Push,
                        _ => Kind::Array,
                    };
                    let items = Items { tokens, count };
                    return Ok(Self::Items(kind, items));
                }
                token => break Self::of(token)?,
            }
        };
        match tokens.rest {
            [] => Ok(value),
            _ => Err(ReplyError::LeftOver),
        }
    }

    /// A token that is no aggregate.
    fn of(token: Token<'a>) -> Result<Self, ReplyError> {
        Ok(match token {
            Token::Null => Self::Null,
            Token::Line(mark::SIMPLE, text) => Self::Simple(text),
            Token::Line(mark::ERROR, text) | Token::Bulk(mark::BULK_ERROR, text) => {
                Self::Error(text)
            }
            Token::Line(mark::INTEGER, text) => {
                let text = text.strip_prefix(b"+").unwrap_or(text);
                Self::Integer(number::parse(text).ok_or(ReplyError::Form)?)
            }
            Token::Line(mark::BOOLEAN, b"t") => Self::Boolean(true),
            Token::Line(mark::BOOLEAN, b"f") => Self::Boolean(false),
            Token::Line(mark::DOUBLE, text) => Self::Double(text),
            Token::Line(mark::BIG_NUMBER, text) => Self::BigNumber(text),
            Token::Bulk(mark::VERBATIM, text) => match text.split_at_checked(4) {
                Some(([kind @ .., b':'], text)) => Self::Verbatim(kind, text),
                _ => return Err(ReplyError::Form),
            },
            Token::Bulk(_, bytes) => Self::Bulk(bytes),
            Token::Line(..) | Token::Aggregate(..) => return Err(ReplyError::Form),
        })
    }

    /// The bytes of a string of any type.
    pub const fn string(&self) -> Option<&'a [u8]> {
        match self {
            Self::Simple(text) | Self::Bulk(text) | Self::Verbatim(_, text) => Some(text),
            _ => None,
        }
    }

    /// An integer, also one in a string.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Bulk(text) | Self::Simple(text) => number::parse(text),
            _ => None,
        }
    }

    /// The elements of an aggregate; keys and values of a map by turns.
    pub const fn items(&self) -> Option<Items<'a>> {
        match self {
            Self::Items(_, items) => Some(*items),
            _ => None,
        }
    }
}

/// The elements of an aggregate. After an error there are none.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    tokens: Tokens<'a>,
    count: u64,
}

impl Items<'_> {
    /// How many are left; as announced, which is never more than there are bytes.
    pub const fn count_left(&self) -> u64 {
        self.count
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Value<'a>, ReplyError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let value = self.tokens.value();
        if value.is_err() {
            self.count = 0;
        }
        Some(value)
    }
}
