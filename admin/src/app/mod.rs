//! Use cases: one function each, between the handlers and what does the work.

pub mod connect;
pub mod drift;
pub mod failure;
pub mod revert;
pub mod schema;
pub mod settings;
pub mod work;
