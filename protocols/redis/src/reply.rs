//! What servers send: replies and pushes, in RESP2 and RESP3.
//!
//! [`Scanner`] finds where replies end without keeping any of them. [`Value`] looks into one that is all there. [`write`]
//! makes them.

mod scan;
#[cfg(test)]
mod tests;
mod value;
pub mod write;

pub use scan::{Scan, Scanner};
pub use value::{Items, Kind, Token, Tokens, Value};

/// Bytes that are no reply. The connection cannot go on: the next reply's start is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// No type of RESP3 has this mark.
    #[error("a reply of unknown type {:?}", char::from(*.mark))]
    Type {
        /// The first byte.
        mark: u8,
    },
    /// A length or count is no number, or negative, or beyond all measure.
    #[error("the length of a reply of type {:?} is invalid", char::from(*.mark))]
    Length {
        /// The reply's first byte.
        mark: u8,
    },
    /// The lengths of RESP3's streamed strings and aggregates are not announced. No server sends these.
    #[error("a streamed reply of type {:?}", char::from(*.mark))]
    Streamed {
        /// The reply's first byte.
        mark: u8,
    },
    /// A line or string does not end where it should.
    #[error("a reply of type {:?} does not end where it should", char::from(*.mark))]
    End {
        /// The reply's first byte.
        mark: u8,
    },
    /// The bytes end before the reply does, where all of it was expected.
    #[error("a reply is cut off")]
    CutOff,
    /// Bytes are left behind the reply, where none were expected.
    #[error("bytes are left behind a reply")]
    LeftOver,
    /// A part is not of the type that it must be.
    #[error("a reply has not the form that was expected")]
    Form,
}

/// The first byte of a reply: its type.
pub mod mark {
    /// A simple string.
    pub const SIMPLE: u8 = b'+';
    /// A simple error.
    pub const ERROR: u8 = b'-';
    /// An integer.
    pub const INTEGER: u8 = b':';
    /// A bulk string.
    pub const BULK: u8 = b'$';
    /// An array.
    pub const ARRAY: u8 = b'*';
    /// RESP3's null.
    pub const NULL: u8 = b'_';
    /// A boolean.
    pub const BOOLEAN: u8 = b'#';
    /// A floating-point number.
    pub const DOUBLE: u8 = b',';
    /// An integer of any size.
    pub const BIG_NUMBER: u8 = b'(';
    /// An error with a length.
    pub const BULK_ERROR: u8 = b'!';
    /// A string with a type of its text.
    pub const VERBATIM: u8 = b'=';
    /// A map.
    pub const MAP: u8 = b'%';
    /// A set.
    pub const SET: u8 = b'~';
    /// What nobody asked for: a message, an invalidation.
    pub const PUSH: u8 = b'>';
    /// Further information about the reply that follows.
    pub const ATTRIBUTE: u8 = b'|';
}

/// How a type continues behind its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// To the end of the line.
    Line,
    /// A length and so many bytes.
    Bulk,
    /// A count and so many times this many elements.
    Aggregate(u64),
    /// As a map, and then what it is about.
    Attribute,
}

const fn shape(mark: u8) -> Option<Shape> {
    Some(match mark {
        mark::SIMPLE
        | mark::ERROR
        | mark::INTEGER
        | mark::NULL
        | mark::BOOLEAN
        | mark::DOUBLE
        | mark::BIG_NUMBER => Shape::Line,
        mark::BULK | mark::BULK_ERROR | mark::VERBATIM => Shape::Bulk,
        mark::ARRAY | mark::SET | mark::PUSH => Shape::Aggregate(1),
        mark::MAP => Shape::Aggregate(2),
        mark::ATTRIBUTE => Shape::Attribute,
        _ => return None,
    })
}

/// A length or count behind `mark`. `None`: null, as RESP2 writes it.
const fn length(mark: u8, number: i64) -> Result<Option<u64>, ReplyError> {
    match number {
        -1 if matches!(mark, mark::BULK | mark::ARRAY) => Ok(None),
        0.. => Ok(Some(number.cast_unsigned())),
        _ => Err(ReplyError::Length { mark }),
    }
}
