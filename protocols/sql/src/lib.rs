//! SQL lexer and statement classifier: what the proxy must know of a statement.
//!
//! The dialect is PostgreSQL's. Nothing here is a wall: what a tenant may do is decided by the
//! role it has on the server. The classifier answers fast and in our own words, and tells the
//! pool what a session has come to hold.
#![forbid(unsafe_code)]

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
