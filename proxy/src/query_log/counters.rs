//! Exact counts per database: kept also for statements whose entries the log dropped.
//!
//! Each worker counts in cells of its own and finds them in a map of its own. Others find them in a directory of two
//! halves: the worker adds to whichever half is free, and readers, who take turns, hold one half at a time. So a worker
//! never waits, whatever the readers do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use ahash::AHashMap;
use control_store::DatabaseId;
use control_store::logs::{LogStats, Source};

use super::record::StatementRecord;
use crate::metrics::Counter;

/// A worker looks for forgotten databases each time its map has doubled, and not below this size.
const FIRST_SWEEP: usize = 1024;

/// Counts of one database, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) total: u64,
    pub(super) failed: u64,
    pub(super) from_api: u64,
    pub(super) slow: u64,
    pub(super) duration_ns: u64,
    pub(super) rows: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.total = self.total.wrapping_add(other.total);
        self.failed = self.failed.wrapping_add(other.failed);
        self.from_api = self.from_api.wrapping_add(other.from_api);
        self.slow = self.slow.wrapping_add(other.slow);
        self.duration_ns = self.duration_ns.wrapping_add(other.duration_ns);
        self.rows = self.rows.wrapping_add(other.rows);
    }

    /// What was added since `before`, whose counts are all in these.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            total: self.total.wrapping_sub(before.total),
            failed: self.failed.wrapping_sub(before.failed),
            from_api: self.from_api.wrapping_sub(before.from_api),
            slow: self.slow.wrapping_sub(before.slow),
            duration_ns: self.duration_ns.wrapping_sub(before.duration_ns),
            rows: self.rows.wrapping_sub(before.rows),
        }
    }

    pub(super) fn to_stats(self) -> LogStats {
        LogStats {
            total: self.total,
            failed: self.failed,
            from_proxy: self.total.saturating_sub(self.from_api),
            from_api: self.from_api,
            slow: self.slow,
            total_duration: Duration::from_nanos(self.duration_ns),
            rows: self.rows,
        }
    }
}

/// Counts with one writer.
#[derive(Debug, Default)]
struct Cells {
    total: Counter,
    failed: Counter,
    from_api: Counter,
    slow: Counter,
    duration_ns: Counter,
    rows: Counter,
}

impl Cells {
    fn count(&self, record: &StatementRecord<'_>, slow: bool) {
        self.total.increment();
        self.duration_ns.add(record.duration_ns());
        self.rows.add(record.rows);
        if record.error_code.is_some() {
            self.failed.increment();
        }
        if record.source == Source::Api {
            self.from_api.increment();
        }
        if slow {
            self.slow.increment();
        }
    }

    fn totals(&self) -> Totals {
        Totals {
            total: self.total.get(),
            failed: self.failed.get(),
            from_api: self.from_api.get(),
            slow: self.slow.get(),
            duration_ns: self.duration_ns.get(),
            rows: self.rows.get(),
        }
    }
}

/// What one worker counts for one database. The worker alone writes.
#[derive(Debug, Default)]
pub(super) struct DatabaseCells {
    /// All statements.
    all: Cells,
    /// Of them those whose entries were dropped.
    dropped: Cells,
    forgotten: AtomicBool,
}

type Half = AHashMap<DatabaseId, Arc<DatabaseCells>>;

/// Where others find a worker's cells. A database is in one half only.
#[derive(Debug, Default)]
pub(super) struct Directory {
    halves: [Mutex<Half>; 2],
    readers: Mutex<()>,
}

impl Directory {
    /// By the worker. Readers hold at most one half, so one of the two tries succeeds; the loop is for form's sake.
    fn insert(&self, database: DatabaseId, cells: &Arc<DatabaseCells>) {
        loop {
            for half in &self.halves {
                if let Some(mut half) = try_lock(half) {
                    half.insert(database, Arc::clone(cells));
                    return;
                }
            }
            std::hint::spin_loop();
        }
    }

    /// Adds this worker's counts of that database.
    pub(super) fn add_to(&self, database: DatabaseId, totals: &mut Totals) {
        let _turn = lock(&self.readers);
        for half in &self.halves {
            if let Some(cells) = lock(half).get(&database) {
                totals.add(&cells.all.totals());
            }
        }
    }

    /// Adds the counts of entries that this worker dropped, by database.
    pub(super) fn add_dropped(&self, sums: &mut AHashMap<DatabaseId, Totals>) {
        let _turn = lock(&self.readers);
        for half in &self.halves {
            for (database, cells) in lock(half).iter() {
                let dropped = cells.dropped.totals();
                if dropped.total > 0 {
                    sums.entry(*database).or_default().add(&dropped);
                }
            }
        }
    }

    /// Drops the counts of that database; the worker lets go of its cells when it next sweeps.
    pub(super) fn forget(&self, database: DatabaseId) {
        let _turn = lock(&self.readers);
        for half in &self.halves {
            if let Some(cells) = lock(half).remove(&database) {
                cells.forgotten.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// The worker's own way to its cells.
#[derive(Debug)]
pub(super) struct WorkerCounters {
    map: AHashMap<DatabaseId, Arc<DatabaseCells>>,
    directory: Arc<Directory>,
    sweep_at: usize,
    slow_over: Duration,
}

impl WorkerCounters {
    pub(super) fn new(directory: Arc<Directory>, slow_over: Duration) -> Self {
        Self {
            map: AHashMap::new(),
            directory,
            sweep_at: FIRST_SWEEP,
            slow_over,
        }
    }

    /// Counts one statement. Allocates only for a database that this worker has not seen.
    pub(super) fn count(&mut self, record: &StatementRecord<'_>) {
        let slow = self.is_slow(record);
        match self.map.get(&record.database) {
            Some(cells) => cells.all.count(record, slow),
            None => self.adopt(record.database).all.count(record, slow),
        }
    }

    /// Notes that the entry of a statement, which is counted already, was dropped.
    pub(super) fn note_dropped(&self, record: &StatementRecord<'_>) {
        if let Some(cells) = self.map.get(&record.database) {
            cells.dropped.count(record, self.is_slow(record));
        }
    }

    fn is_slow(&self, record: &StatementRecord<'_>) -> bool {
        self.slower(record.duration)
    }

    pub(super) fn slower(&self, duration: Duration) -> bool {
        duration > self.slow_over
    }

    fn adopt(&mut self, database: DatabaseId) -> Arc<DatabaseCells> {
        if self.map.len() >= self.sweep_at {
            self.map
                .retain(|_, cells| !cells.forgotten.load(Ordering::Relaxed));
            self.sweep_at = FIRST_SWEEP.max(2 * self.map.len());
        }
        let cells = Arc::new(DatabaseCells::default());
        self.directory.insert(database, &cells);
        self.map.insert(database, Arc::clone(&cells));
        cells
    }
}

/// A poisoned lock guards whole values only, so it is taken as it is.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None`: another thread holds it.
pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
