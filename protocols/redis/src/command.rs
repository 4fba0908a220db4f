//! What a proxy must know of commands: their names, what they do and where their keys are.
//!
//! [`Table`] holds what a server itself says in its reply to `COMMAND`, so new commands and those of modules are known.
//! [`Walker`] goes through a command's arguments one after the other and says what each is, so that the keys of a command of
//! any size can be changed while it streams.

mod decode;
mod flags;
pub(crate) mod keys;
mod rules;
mod table;
#[cfg(test)]
mod tests;
pub(crate) mod walk;

pub use decode::TableError;
pub use flags::{Categories, Flags, KeyFlags};
pub use keys::Role;
pub use table::{Spec, Table};
pub use walk::Walker;
