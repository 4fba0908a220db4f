//! What clients send: commands, as arrays of bulk strings or as lines ("inline").
//!
//! [`Parser`] finds commands that lie in one buffer, up to [`LARGE`] bytes, and copies nothing. What is larger it only
//! announces; [`Stream`] then takes it apart as it comes.

mod args;
mod inline;
mod parser;
mod stream;
#[cfg(test)]
mod tests;

pub use args::{Args, Command};
pub use parser::{Next, Parser};
pub use stream::{Event, Step, Stream};

/// A command over so many bytes is not collected.
pub const LARGE: usize = 64 << 10;
/// The longest line, as in Redis (`PROTO_INLINE_MAX_SIZE`).
pub const MAX_INLINE: usize = 64 << 10;
/// The most arguments of a command.
pub const MAX_ARGS: u32 = 1 << 20;
/// The most arguments of a command before login.
pub const MAX_ARGS_BEFORE_LOGIN: u32 = 10;
/// The longest argument before login.
pub const MAX_BULK_BEFORE_LOGIN: u64 = 16 << 10;

/// Why bytes are not a command. The connection cannot go on: the next command's start is unknown. `Display` is the text of the
/// error reply, without its `ERR `.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The count of arguments is no number or over the limit.
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    /// Over [`MAX_ARGS_BEFORE_LOGIN`].
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// An argument does not begin as one.
    #[error("Protocol error: expected '$', got '{}'", printable(*.got))]
    ExpectedBulk {
        /// What it began with.
        got: u8,
    },
    /// The length of an argument is no number or over the limit.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// Over [`MAX_BULK_BEFORE_LOGIN`].
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An argument is longer or shorter than announced. Redis does not look.
    #[error("Protocol error: expected a line end after the argument")]
    BulkEnd,
    /// A line over [`MAX_INLINE`].
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// A line's quotes do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// An error reply is a line of its own.
fn printable(byte: u8) -> char {
    match byte {
        b'\r' | b'\n' => ' ',
        byte => char::from(byte),
    }
}

/// What a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    authenticated: bool,
    max_bulk: u64,
}

impl Limits {
    fn args(self, count: i64) -> Result<u32, RequestError> {
        let count = match u32::try_from(count) {
            Ok(count) if count <= MAX_ARGS => count,
            Err(_) if count < 0 => 0,
            _ => return Err(RequestError::MultibulkLength),
        };
        if count > MAX_ARGS_BEFORE_LOGIN && !self.authenticated {
            return Err(RequestError::UnauthenticatedMultibulkLength);
        }
        Ok(count)
    }

    fn bulk(self, len: i64) -> Result<u64, RequestError> {
        let len = u64::try_from(len).map_err(|_| RequestError::BulkLength)?;
        if len > self.max_bulk {
            return Err(RequestError::BulkLength);
        }
        if len > MAX_BULK_BEFORE_LOGIN && !self.authenticated {
            return Err(RequestError::UnauthenticatedBulkLength);
        }
        Ok(len)
    }
}
