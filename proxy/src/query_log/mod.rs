//! The query log: every statement with its text, time, outcome and rows, and exact counts per database.
//!
//! Workers copy statements into a [`WorkerLog`] each and never wait. A thread of the log's own takes them from there, masks
//! passwords and appends blocks to segment files (`FORMAT.md`). What a crash loses is at most the last second.

mod codec;
mod counters;
mod log;
mod mask;
mod record;
mod ring;
mod search;
mod segment;
mod totals;

pub use log::{QueryLog, QueryLogConfig};
pub use record::{ErrorCode, StatementRecord};
pub use ring::WorkerLog;
