//! The query log: every statement with its text, time, outcome and rows, and exact counts per database.
//!
//! Workers copy statements into a [`WorkerLog`] each and never wait. A thread of the log's own takes them from there, masks
//! passwords, appends to a journal at least once a second, and packs what has gathered there into blocks in segment files
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

/// Whether these bytes are a whole block of a segment file: for the fuzz targets.
#[doc(hidden)]
pub fn is_block(bytes: &[u8]) -> bool {
    block::Reader::open(bytes).is_ok_and(|mut reader| reader.check().is_ok())
}

/// How many batches of a journal file are whole: for the fuzz targets.
#[doc(hidden)]
pub fn batches_in_journal(bytes: &[u8]) -> usize {
    journal::read(bytes, 0).batches
}
