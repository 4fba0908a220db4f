//! The log as a whole: rings in, files out, questions answered.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime};

use control_store::DatabaseId;
use control_store::logs::{LogFilter, LogGap, LogPage, LogStats, LogWindow, QueryLogReader};

use super::counters::{Totals, lock};
use super::find::Search;
use super::forgotten::Forgotten;
use super::gathered::{Counted, Gathered, drain};
use super::recovery;
use super::ring::{Ring, WorkerLog};
use super::segment::Segment;
use super::totals::{micros, time};
use super::window::Sum;
use super::writer::{PATIENCE, Writer};

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct QueryLogConfig {
    /// Its folder; made if there is none.
    pub folder: PathBuf,
    /// Bytes between each worker and the log.
    pub ring_bytes: usize,
    /// Bytes kept of each text.
    pub max_text: usize,
    /// A statement that takes longer is slow.
    pub slow_over: Duration,
    /// How long entries are kept, as far as `max_bytes` allows, unless [`QueryLog::set_retention`] says otherwise.
    pub retention: Duration,
    /// Bytes on disk; the oldest segments make room.
    pub max_bytes: u64,
    /// A segment of this size is followed by a new one.
    pub segment_bytes: u64,
}

impl QueryLogConfig {
    /// The usual log, in that folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            ring_bytes: 8 << 20,
            max_text: 4 << 10,
            slow_over: Duration::from_secs(1),
            retention: Duration::from_secs(30 * 24 * 3600),
            max_bytes: 8 << 30,
            segment_bytes: 64 << 20,
        }
    }
}

type Retention = dyn Fn(DatabaseId) -> Duration + Send + Sync;

/// The log.
pub struct QueryLog {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Empties the rings when a worker says that one fills up. Apart from the writer: that one waits for the disk.
    gatherer: Thread,
    writer: Thread,
}

/// What the log's thread and those who ask share. Who holds `state` may take another of the locks, and no third.
pub(super) struct Shared {
    pub(super) config: QueryLogConfig,
    rings: Mutex<Vec<Arc<Ring>>>,
    pub(super) state: Mutex<State>,
    pub(super) forgotten: Mutex<Forgotten>,
    retention: Mutex<Option<Arc<Retention>>>,
    pub(super) closing: AtomicBool,
    /// Entries that could not be written.
    pub(super) lost: AtomicU64,
}

pub(super) struct State {
    pub(super) gathered: Gathered,
    pub(super) counted: Counted,
    pub(super) segments: Vec<Segment>,
    pub(super) gaps: Vec<LogGap>,
    /// The last journal batch that is in a block.
    pub(super) sealed: u64,
    /// Exchanged for full blocks of rings.
    pub(super) spare: Vec<u8>,
}

impl QueryLog {
    /// Opens the log in its folder and starts its thread.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be used, or was written by another version.
    pub fn open(config: QueryLogConfig) -> io::Result<Arc<Self>> {
        let found = recovery::read(&config)?;
        found.report();
        let shared = Arc::new(Shared {
            config,
            rings: Mutex::default(),
            state: Mutex::new(found.state),
            forgotten: Mutex::new(found.forgotten),
            retention: Mutex::default(),
            closing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        });
        let mut state = lock(&shared.state);
        let journal = shared.begin(&mut state)?;
        // What has left the disk need not be remembered, now that the kept counts are without it.
        let on_disk = |id| state.segments.iter().any(|it| it.has(id));
        lock(&shared.forgotten).retain(on_disk)?;
        drop(state);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(run)
        };
        let writer = Writer::new(Arc::clone(&shared), journal);
        let writer = spawn("query-log", Box::new(|| writer.run()))?;
        let (gathers, wakes) = (Arc::clone(&shared), writer.thread().clone());
        let gatherer = spawn("query-log-rings", Box::new(move || gathers.gather(&wakes)))?;
        Ok(Arc::new(Self {
            shared,
            gatherer: gatherer.thread().clone(),
            writer: writer.thread().clone(),
            threads: Mutex::new(vec![gatherer, writer]),
        }))
    }

    /// A worker's end of the log.
    pub fn worker(&self) -> WorkerLog {
        let config = &self.shared.config;
        let ring = Arc::new(Ring::new(config.ring_bytes));
        lock(&self.shared.rings).push(Arc::clone(&ring));
        WorkerLog::new(
            ring,
            self.gatherer.clone(),
            config.max_text,
            config.slow_over,
        )
    }

    /// How long each database's entries are kept. What is older is not shown, and leaves the disk some time later.
    pub fn set_retention(
        &self,
        retention: impl Fn(DatabaseId) -> Duration + Send + Sync + 'static,
    ) {
        *lock(&self.shared.retention) = Some(Arc::new(retention));
    }

    /// Entries that were dropped since the process began: the workers found no room, or the disk did not take them.
    pub fn dropped(&self) -> u64 {
        let rings = lock(&self.shared.rings);
        let dropped: u64 = rings.iter().map(|ring| ring.dropped.get()).sum();
        dropped + self.shared.lost.load(Ordering::Relaxed)
    }

    /// Writes everything and stops the threads. A second call does nothing.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.gatherer.unpark();
        self.writer.unpark();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the query log has panicked");
            }
        }
    }
}

#[cfg(test)]
impl QueryLog {
    /// Nothing is written meanwhile; then the log is closed.
    pub(super) fn close_after(&self, work: impl FnOnce(&dyn Fn())) {
        let state = std::cell::RefCell::new(lock(&self.shared.state));
        work(&|| self.shared.drain(&mut state.borrow_mut()));
        self.shared.closing.store(true, Ordering::Release);
        drop(state);
        self.close();
    }

    /// What the thread does every two minutes. Not while the thread runs and writes.
    pub(super) fn clean(&self) -> io::Result<()> {
        self.shared.clean()
    }
}

impl Drop for QueryLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn slow_over_ns(&self) -> u64 {
        u64::try_from(self.config.slow_over.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The gatherer's loop.
    fn gather(&self, writer: &Thread) {
        while !self.closing.load(Ordering::Acquire) {
            let mut state = lock(&self.state);
            self.drain(&mut state);
            let full = state.gathered.is_full();
            drop(state);
            if full {
                writer.unpark();
            }
            thread::park();
        }
    }

    /// Takes what the rings hold, unless the disk lags too far behind: then workers drop entries.
    pub(super) fn drain(&self, state: &mut State) {
        if state.gathered.times_full() >= PATIENCE {
            return;
        }
        let rings = lock(&self.rings).clone();
        let now = micros(SystemTime::now());
        let State {
            gathered,
            counted,
            spare,
            ..
        } = state;
        if gathered.is_empty() {
            gathered.span.from_us = gathered.span.until_us; // Nothing ran up to the last look.
        }
        let slow_over_ns = self.slow_over_ns();
        let forgotten = lock(&self.forgotten);
        drain(gathered, counted, &rings, &forgotten, spare, slow_over_ns);
        gathered.span.until_us = now.max(gathered.span.from_us);
    }

    /// From when on a database's entries may be seen (µs since 1970). `None`: it is forgotten.
    pub(super) fn kept_from(&self, database: DatabaseId, now: u64) -> Option<u64> {
        if lock(&self.forgotten).contains(database) {
            return None;
        }
        let retention = lock(&self.retention).clone();
        let retention = retention.map_or(self.config.retention, |it| it(database));
        let retention = u64::try_from(retention.as_micros()).unwrap_or(u64::MAX);
        Some(now.saturating_sub(retention))
    }

    /// What a database's workers have counted that nobody has taken over yet.
    fn not_counted(&self, state: &State, database: DatabaseId) -> Totals {
        let mut now = Totals::default();
        for ring in lock(&self.rings).iter() {
            ring.directory.add_to(database, &mut now);
        }
        let counted = state.counted.here.get(&database).copied();
        now.since(&counted.unwrap_or_default())
    }
}

impl QueryLogReader for QueryLog {
    fn find(&self, filter: &LogFilter) -> io::Result<LogPage> {
        let now = micros(SystemTime::now());
        let search = Search::new(filter, |id| self.shared.kept_from(id, now));
        let mut state = lock(&self.shared.state);
        self.shared.drain(&mut state);
        let gathered = search.in_gathered(&state.gathered);
        let candidates = search.candidates(&state.segments);
        drop(state);
        search.run(gathered, &candidates)
    }

    fn stats(&self, databases: &[DatabaseId]) -> LogStats {
        let mut totals = Totals::default();
        let state = lock(&self.shared.state);
        let known = |id: &&DatabaseId| !lock(&self.shared.forgotten).contains(**id);
        for database in databases.iter().filter(known) {
            if let Some(counted) = state.counted.totals.get(database) {
                totals.add(counted);
            }
            totals.add(&self.shared.not_counted(&state, *database));
        }
        totals.to_stats()
    }

    fn window(&self, databases: &[DatabaseId], since: SystemTime) -> io::Result<LogWindow> {
        let until = SystemTime::now();
        let kept_from = |id: &DatabaseId| Some((*id, self.shared.kept_from(*id, micros(until))?));
        let known: Vec<_> = databases.iter().filter_map(kept_from).collect();
        let kept_from = known.iter().map(|it| it.1).max().unwrap_or(0);

        let mut state = lock(&self.shared.state);
        self.shared.drain(&mut state);
        let begin = state.segments.iter().find_map(Segment::begins_us);
        let begin = begin.unwrap_or_else(|| state.gathered.begins_us());
        let since = micros(since).max(kept_from);
        let ids: Vec<_> = known.iter().map(|it| it.0).collect();
        let mut sum = Sum::new(ids, since, self.shared.slow_over_ns());
        sum.add_gathered(&state.gathered);
        for (database, _) in &known {
            sum.totals.add(&self.shared.not_counted(&state, *database));
        }
        let blocks = sum.candidates(&state.segments);
        drop(state);
        sum.add_blocks(&blocks)?;
        Ok(LogWindow {
            since: time(sum.begins_us.max(begin)),
            until,
            stats: sum.totals.to_stats(),
            latency: sum.latency(),
        })
    }

    fn gaps(&self) -> Vec<LogGap> {
        lock(&self.shared.state).gaps.clone()
    }

    fn forget(&self, database: DatabaseId) {
        let rings = lock(&self.shared.rings).clone();
        let mut state = lock(&self.shared.state);
        if let Err(error) = lock(&self.shared.forgotten).add(database) {
            tracing::error!(%error, %database, "the query log cannot keep on disk that a database was deleted");
        }
        for ring in &rings {
            ring.directory.forget(database);
        }
        state.counted.forget(database);
        state.gathered.forget(database);
    }
}
