//! A tenant's database on a server that it shares: its keys and channels carry a prefix there, and it has a logical database
//! of its own.
//!
//! [`Rewriter`] turns a client's commands into the server's, and the server's replies into the client's. The native user is
//! limited to the prefix as well, so that a mistake here ends in an error.
//!
//! A channel is the client's name behind the prefix. Keyspace notifications have channels of a form that the server decides:
//! `__keyspace@<database>__:<key>` and `__keyevent@<database>__:<event>`; the client sees database 0 and its own keys.
//!
//! A server checks the patterns of `PSUBSCRIBE` literally against those that the user may have, so that a user who is limited
//! to `prefix*` can have no other pattern than this one. [`Rewriter::base_patterns`] are those that such a user has;
//! [`glob::matches`] then decides which of the client's patterns a message is for.

mod commands;
pub mod functions;
pub mod glob;
mod prefix;
mod replies;
#[cfg(test)]
mod tests;
mod transform;

pub use commands::StreamRewriter;
pub use prefix::{Bases, PrefixError, Rewriter};
pub use replies::RewriteError;
pub use transform::Transform;
