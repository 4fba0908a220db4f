//! What must hold for any bytes that a peer, or a damaged disk, may feed our decoders.
//!
//! Each function takes bytes and panics when something does not hold. libFuzzer calls them through `targets/`; the tests
//! call them with the corpus and with hostile variations of it.

mod postgres;
mod proxy_header;
mod query_log;
mod redis;
mod sql;

pub mod seeds;
#[cfg(test)]
mod tests;

pub use postgres::{backend, frame, frontend, scram_client, scram_server, startup};
pub use proxy_header::proxy_header;
pub use query_log::{query_log_block, query_log_journal, query_log_mask};
pub use redis::{
    redis_reply, redis_request, redis_rewrite, redis_stream, redis_strip, redis_table,
};
pub use sql::classify;

/// A check: panics when something does not hold.
pub type Check = fn(&[u8]);

/// All checks, under their targets' names.
pub const CHECKS: [(&str, Check); 17] = [
    ("startup", startup),
    ("frame", frame),
    ("frontend", frontend),
    ("backend", backend),
    ("scram_server", scram_server),
    ("scram_client", scram_client),
    ("classify", classify),
    ("proxy_header", proxy_header),
    ("query_log_block", query_log_block),
    ("query_log_journal", query_log_journal),
    ("query_log_mask", query_log_mask),
    ("redis_request", redis_request),
    ("redis_stream", redis_stream),
    ("redis_reply", redis_reply),
    ("redis_table", redis_table),
    ("redis_rewrite", redis_rewrite),
    ("redis_strip", redis_strip),
];
