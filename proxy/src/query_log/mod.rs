//! The query log: every statement with its text, time, outcome and rows, and exact counts per database.
//!
//! Workers copy statements into a [`WorkerLog`] each and never wait.
#![allow(dead_code, reason = "the writer side uses what is left")]

mod codec;
mod counters;
mod mask;
mod record;
mod ring;
mod search;

pub use record::{ErrorCode, StatementRecord};
pub use ring::WorkerLog;
