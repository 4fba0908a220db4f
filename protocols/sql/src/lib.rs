//! SQL lexer and statement classifier: what the proxy must know of a statement.
//!
//! The dialect is PostgreSQL's. What a tenant may do is decided by the role it has on the server.
//! The classifier answers fast and in our own words, and tells the pool what a session has come
//! to hold. It is a wall only where the server has none: a role may always change its own
//! password and settings.
#![forbid(unsafe_code)]

mod block;
mod carry;
mod classify;
mod effects;
mod keyword;
mod kind;
mod lexer;
mod options;
mod split;
mod statement;
#[cfg(test)]
mod tests;

pub use classify::{Classifier, Summary, classify};
pub use effects::Effects;
pub use kind::StatementKind;
pub use options::{Options, TrailBytes};
pub use split::split;
