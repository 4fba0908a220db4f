//! Use cases: one function each, between the handlers and what does the work.

pub mod failure;
pub mod work;
