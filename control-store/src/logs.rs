//! The query log as both planes see it. The proxy writes it and answers questions about it; `admin` asks.

use std::time::{Duration, SystemTime};

use crate::ids::DatabaseId;

/// Who sent a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A driver, through the proxy.
    Proxy,
    /// `/queries` or `/admin/query`.
    Api,
}

/// Which entries to return, newest first.
#[derive(Clone, Debug, Default)]
pub struct LogFilter {
    /// Of these databases (a tenant's databases, or one workspace).
    pub databases: Vec<DatabaseId>,
    /// Only failed statements.
    pub errors_only: bool,
    /// Only statements that took longer than this.
    pub slower_than: Option<Duration>,
    /// Only statements whose text contains this, in any letter case.
    pub search: Option<String>,
    /// Only statements from there.
    pub source: Option<Source>,
    /// Only statements that ended at or after this time.
    pub since: Option<SystemTime>,
    /// How many to skip.
    pub offset: u64,
    /// How many to return.
    pub limit: usize,
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// On which database.
    pub database: DatabaseId,
    /// Its text, cut to what the log keeps; parameter values only if configured.
    pub query: String,
    /// Who sent it.
    pub source: Source,
    /// When it ended.
    pub at: SystemTime,
    /// From its first byte here to its last reply byte here.
    pub duration: Duration,
    /// The error code in the engine's own form (SQLSTATE …), if it failed.
    pub error_code: Option<String>,
    /// Rows returned or changed.
    pub rows: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// Newest first.
    pub entries: Vec<LogEntry>,
    /// Whether more follow.
    pub has_more: bool,
}

/// Exact counts, since a database was created or in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogStats {
    /// Statements.
    pub total: u64,
    /// Of them failed.
    pub failed: u64,
    /// Of them from the proxy.
    pub from_proxy: u64,
    /// Of them from the API.
    pub from_api: u64,
    /// Of them slow.
    pub slow: u64,
    /// Sum of their durations.
    pub total_duration: Duration,
    /// Rows returned or changed.
    pub rows: u64,
}

/// How long the statements of a window took. Zero if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogLatency {
    /// Half of them took at most this long. Percentiles are rounded up by at most 1 in 64.
    pub p50: Duration,
    /// 95 in 100.
    pub p95: Duration,
    /// 99 in 100.
    pub p99: Duration,
    /// The longest, exactly.
    pub max: Duration,
}

/// What ran in a window of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogWindow {
    /// Where the window begins: as asked, or later if the log does not reach back that far.
    pub since: SystemTime,
    /// Where it ends: when the question was answered.
    pub until: SystemTime,
    /// Counts of the statements that ended in it.
    pub stats: LogStats,
    /// Their durations; those that the log dropped are not in it.
    pub latency: LogLatency,
}

/// A time in which statements may have run that the log does not hold: the process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogGap {
    /// Up to here all is kept.
    pub from: SystemTime,
    /// From here on the log was written again.
    pub until: SystemTime,
}

/// Answers questions about the query log. Blocking: call it off the async threads.
pub trait QueryLogReader: Send + Sync {
    /// Entries that match, newest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn find(&self, filter: &LogFilter) -> std::io::Result<LogPage>;

    /// Counts of these databases together, since they were created; exact, also for entries that the log itself dropped.
    fn stats(&self, databases: &[DatabaseId]) -> LogStats;

    /// Counts and latencies of the statements that ended at or after `since`. The counts are exact for the window that the
    /// answer names.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn window(&self, databases: &[DatabaseId], since: SystemTime) -> std::io::Result<LogWindow>;

    /// The times, oldest first, in which a crash may have cost entries and counts (at most the last second before it).
    fn gaps(&self) -> Vec<LogGap>;

    /// Forgets a database's entries and counters: it was deleted for good. Durable when this returns.
    fn forget(&self, database: DatabaseId);
}
