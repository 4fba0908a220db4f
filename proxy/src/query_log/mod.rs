//! The query log: every statement with its text, time, outcome and rows, and exact counts per database.
//!
//! Workers copy statements into a [`WorkerLog`] each and never wait. Threads of the log's own take them from there, mask
//! passwords, append to a journal at least once a second, and pack what has gathered there into blocks in segment files
//! (`FORMAT.md`). What a crash costs is at most the last second, and [`QueryLogReader::gaps`] tells of it.
//!
//! [`QueryLogReader::gaps`]: control_store::logs::QueryLogReader::gaps

mod block;
mod codec;
mod counters;
mod entry;
mod find;
mod forgotten;
mod gathered;
#[doc(hidden)]
pub mod hostile;
mod journal;
mod log;
mod mask;
mod record;
mod recovery;
mod ring;
mod search;
mod segment;
mod totals;
mod window;
mod writer;

#[cfg(test)]
mod tests;

pub use log::{QueryLog, QueryLogConfig};
pub use record::{ErrorCode, StatementRecord};
pub use ring::WorkerLog;
