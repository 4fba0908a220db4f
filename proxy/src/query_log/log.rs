//! The log as a whole: rings in, segments out, questions answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control_store::DatabaseId;
use control_store::logs::{LogEntry, LogFilter, LogPage, LogStats, QueryLogReader};

use super::counters::{Totals, lock};
use super::mask::masked;
use super::ring::{Ring, WorkerLog};
use super::search::Needle;
use super::segment::{Batch, Block, Entry, Segment, Unpacked};
use super::totals::{Kept, Place};

/// How often what has gathered is written, if nobody asks.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// A segment of this size is followed by a new one.
const SEGMENT_BYTES: u64 = 64 << 20;
/// How long a question waits for what is still in the rings.
const ASK_FOR: Duration = Duration::from_secs(2);

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
    /// Entries are kept at least this long, as far as `max_bytes` allows.
    pub retention: Duration,
    /// Bytes on disk; the oldest segments make room.
    pub max_bytes: u64,
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
            max_bytes: 20 << 30,
        }
    }
}

/// The log.
pub struct QueryLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    thread: Thread,
}

struct Shared {
    config: QueryLogConfig,
    rings: Mutex<Vec<Arc<Ring>>>,
    segments: Mutex<Vec<Segment>>,
    /// Counts of earlier lives, by database.
    earlier: Mutex<BTreeMap<DatabaseId, Totals>>,
    forgotten: Mutex<BTreeSet<DatabaseId>>,
    closing: AtomicBool,
    /// Entries that could not be written.
    lost: AtomicU64,
    rounds: Mutex<Rounds>,
    round_done: Condvar,
}

/// Rounds of the writer: who waits for one that begins after his question gets all that came before it.
#[derive(Default)]
struct Rounds {
    asked: u64,
    done: u64,
}

impl QueryLog {
    /// Opens the log in its folder and starts its thread.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be used.
    pub fn open(config: QueryLogConfig) -> io::Result<Arc<Self>> {
        fs::create_dir_all(&config.folder)?;
        let kept = Kept::load(&config.folder)?;
        let segments = open_segments(&config.folder)?;
        let counted = count_rest(kept, &segments, config.slow_over)?;
        let shared = Arc::new(Shared {
            config,
            rings: Mutex::default(),
            segments: Mutex::new(segments),
            earlier: Mutex::new(counted.totals),
            forgotten: Mutex::new(counted.forgotten),
            closing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            rounds: Mutex::default(),
            round_done: Condvar::new(),
        });
        let writes = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("query-log".into())
            .spawn(move || Writer::new(writes).run())?;
        let thread = writer.thread().clone();
        Ok(Arc::new(Self {
            shared,
            writer: Mutex::new(Some(writer)),
            thread,
        }))
    }

    /// A worker's end of the log.
    pub fn worker(&self) -> WorkerLog {
        let config = &self.shared.config;
        let ring = Arc::new(Ring::new(config.ring_bytes));
        lock(&self.shared.rings).push(Arc::clone(&ring));
        WorkerLog::new(ring, self.thread.clone(), config.max_text, config.slow_over)
    }

    /// Entries that were dropped since the process began: the workers found no room, or the disk did not take them.
    pub fn dropped(&self) -> u64 {
        let rings = lock(&self.shared.rings);
        let dropped: u64 = rings.iter().map(|ring| ring.dropped.get()).sum();
        dropped + self.shared.lost.load(Ordering::Relaxed)
    }

    /// Writes everything and stops the thread. A second call does nothing.
    pub fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.thread.unpark();
        if let Some(writer) = lock(&self.writer).take()
            && writer.join().is_err()
        {
            tracing::error!("the query log's thread has panicked");
        }
    }

    /// Waits until what was recorded before is in the segments.
    fn flush(&self) {
        let mut rounds = lock(&self.shared.rounds);
        rounds.asked += 1;
        let mine = rounds.asked;
        self.thread.unpark();
        let waited = self
            .shared
            .round_done
            .wait_timeout_while(rounds, ASK_FOR, |rounds| rounds.done < mine);
        drop(waited);
    }
}

impl Drop for QueryLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn open_segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".log"))
            .and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    found
        .into_iter()
        .map(|(number, path)| Segment::open(path, number))
        .collect()
}

/// Adds to the kept counts what the log says behind their place.
fn count_rest(mut kept: Kept, segments: &[Segment], slow_over: Duration) -> io::Result<Kept> {
    for segment in segments.iter().filter(|it| it.number >= kept.place.segment) {
        let from = if segment.number == kept.place.segment {
            kept.place.offset
        } else {
            0
        };
        let file = segment.reader()?;
        for block in segment.blocks.iter().filter(|it| it.offset >= from) {
            let unpacked = block.unpack(&file)?;
            for entry in &unpacked.entries {
                add(&mut kept.totals, entry, slow_over);
            }
        }
    }
    Ok(kept)
}

fn add(totals: &mut BTreeMap<DatabaseId, Totals>, entry: &Entry, slow_over: Duration) {
    let one = Totals {
        total: 1,
        failed: u64::from(entry.error_code.is_some()),
        from_api: u64::from(entry.source == control_store::logs::Source::Api),
        slow: u64::from(Duration::from_nanos(entry.duration_ns) > slow_over),
        duration_ns: entry.duration_ns,
        rows: entry.rows,
    };
    totals.entry(entry.database).or_default().add(&one);
}

/// The thread of the log.
struct Writer {
    shared: Arc<Shared>,
    spare: Vec<u8>,
    /// Counts of all that is written, with those of earlier lives.
    written: BTreeMap<DatabaseId, Totals>,
    unsaved: bool,
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Self {
        let written = lock(&shared.earlier).clone();
        Self {
            shared,
            spare: Vec::new(),
            written,
            unsaved: false,
        }
    }

    fn run(mut self) {
        loop {
            let asked = lock(&self.shared.rounds).asked;
            let closing = self.shared.closing.load(Ordering::Acquire);
            let wrote = self.round();
            let mut rounds = lock(&self.shared.rounds);
            rounds.done = asked;
            let again = rounds.asked > asked;
            drop(rounds);
            self.shared.round_done.notify_all();
            if closing {
                return self.finish();
            }
            // Small blocks pack badly: some more may gather, unless somebody asks or a ring fills up.
            if wrote || !again {
                thread::park_timeout(FLUSH_EVERY);
            }
        }
    }

    /// Writes what the rings hold; whether there was anything.
    fn round(&mut self) -> bool {
        let rings = lock(&self.shared.rings).clone();
        let mut batch = Batch::default();
        for ring in &rings {
            ring.drain(&mut self.spare, |block| {
                for entry in block.entries() {
                    let (text, cut) = block.text(entry.text);
                    let text = batch.text(&masked(text), cut);
                    batch.entries.push(Entry {
                        database: entry.database,
                        ended_at_us: entry.ended_at_us,
                        duration_ns: entry.duration_ns,
                        rows: entry.rows,
                        source: entry.source,
                        error_code: entry.error_code,
                        text,
                    });
                }
            });
        }
        if batch.is_empty() {
            if std::mem::take(&mut self.unsaved) {
                self.save();
            }
            return false;
        }
        if let Err(error) = self.write(&mut batch) {
            let count = u64::try_from(batch.entries.len()).unwrap_or(u64::MAX);
            self.shared.lost.fetch_add(count, Ordering::Relaxed);
            tracing::error!(%error, entries = count, "the query log cannot be written");
        }
        for entry in &batch.entries {
            add(&mut self.written, entry, self.shared.config.slow_over);
        }
        self.unsaved = true;
        true
    }

    fn write(&self, batch: &mut Batch) -> io::Result<()> {
        let encoded = batch.encode();
        let config = &self.shared.config;
        let mut segments = lock(&self.shared.segments);
        let full = segments.last().is_none_or(|it| it.len >= SEGMENT_BYTES);
        if full {
            let number = segments.last().map_or(1, |it| it.number + 1);
            segments.push(Segment::create(&config.folder, number)?);
            self.expire(&mut segments);
        }
        let Some(segment) = segments.last_mut() else {
            return Ok(());
        };
        segment.append(&encoded)?;
        let synced = segment.reader();
        drop(segments); // The disk may take its time; questions need not wait for it.
        synced?.sync_data()
    }

    /// Removes segments that are too old, or too many.
    fn expire(&self, segments: &mut Vec<Segment>) {
        let config = &self.shared.config;
        let oldest = SystemTime::now()
            .checked_sub(config.retention)
            .map_or(0, micros);
        loop {
            let total: u64 = segments.iter().map(|it| it.len).sum();
            let expired = segments.first().is_some_and(|first| {
                let latest = first.blocks.last().map_or(0, |it| it.index.latest_us);
                segments.len() > 1 && (latest < oldest || total > config.max_bytes)
            });
            if !expired {
                return;
            }
            if let Err(error) = segments.remove(0).remove() {
                tracing::warn!(%error, "an old segment of the query log cannot be removed");
            }
        }
    }

    /// Keeps the counts, with the place up to which they go.
    fn save(&self) {
        let place = lock(&self.shared.segments)
            .last()
            .map_or_else(Place::default, |it| Place {
                segment: it.number,
                offset: it.len,
            });
        let forgotten = lock(&self.shared.forgotten).clone();
        let totals = self.written.iter();
        let kept = Kept {
            place,
            totals: totals
                .filter(|(id, _)| !forgotten.contains(*id))
                .map(|(id, totals)| (*id, *totals))
                .collect(),
            forgotten,
        };
        if let Err(error) = kept.save(&self.shared.config.folder) {
            tracing::warn!(%error, "the query log's counts cannot be kept");
        }
    }

    /// The last words: the counts of what was dropped too.
    fn finish(&mut self) {
        let shared = &self.shared;
        let rings = lock(&shared.rings).clone();
        let mut totals = lock(&shared.earlier).clone();
        for ring in &rings {
            for database in ring.directory.databases() {
                let mut here = Totals::default();
                ring.directory.add_to(database, &mut here);
                totals.entry(database).or_default().add(&here);
            }
        }
        self.written = totals;
        if let Some(segment) = lock(&shared.segments).last()
            && let Err(error) = segment.sync()
        {
            tracing::warn!(%error, "the query log cannot be synced");
        }
        self.save();
    }
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A question, prepared.
struct Search<'a> {
    filter: &'a LogFilter,
    databases: Vec<DatabaseId>,
    since_us: u64,
    slower_ns: u64,
    needle: Option<Needle>,
}

impl<'a> Search<'a> {
    fn new(filter: &'a LogFilter, forgotten: &BTreeSet<DatabaseId>) -> Self {
        let slower = filter.slower_than.unwrap_or_default().as_nanos();
        Self {
            filter,
            databases: filter
                .databases
                .iter()
                .filter(|id| !forgotten.contains(id))
                .copied()
                .collect(),
            since_us: filter.since.map_or(0, micros),
            slower_ns: u64::try_from(slower).unwrap_or(u64::MAX),
            needle: filter.search.as_deref().map(Needle::new),
        }
    }

    /// Whether the block may hold an answer.
    fn may_be_in(&self, block: &Block) -> bool {
        let index = &block.index;
        index.latest_us >= self.since_us
            && (!self.filter.errors_only || index.has_failures())
            && (self.filter.slower_than.is_none() || index.longest_ns > self.slower_ns)
            && self.filter.source.is_none_or(|it| index.has_source(it))
            && self
                .databases
                .iter()
                .any(|id| index.databases.binary_search(id).is_ok())
    }

    fn fits(&self, entry: &Entry, texts: &mut [Option<bool>], block: &Unpacked) -> bool {
        self.databases.contains(&entry.database)
            && entry.ended_at_us >= self.since_us
            && (!self.filter.errors_only || entry.error_code.is_some())
            && (self.filter.slower_than.is_none() || entry.duration_ns > self.slower_ns)
            && self.filter.source.is_none_or(|it| it == entry.source)
            && self.text_fits(entry.text, texts, block)
    }

    /// Each text is searched once, however many entries share it.
    fn text_fits(&self, text: u32, texts: &mut [Option<bool>], block: &Unpacked) -> bool {
        let (Some(needle), Some(known)) = (&self.needle, texts.get_mut(text as usize)) else {
            return self.needle.is_none();
        };
        *known.get_or_insert_with(|| needle.is_in(block.text(text).0))
    }
}

impl QueryLogReader for QueryLog {
    fn find(&self, filter: &LogFilter) -> io::Result<LogPage> {
        self.flush();
        let search = Search::new(filter, &lock(&self.shared.forgotten));
        let mut candidates = Vec::new();
        for segment in lock(&self.shared.segments).iter() {
            let file = Arc::new(segment.reader()?);
            let blocks = segment.blocks.iter().filter(|it| search.may_be_in(it));
            candidates.extend(blocks.map(|block| (Arc::clone(&file), block.clone())));
        }
        let mut page = LogPage::default();
        let mut skip = filter.offset;
        for (file, block) in candidates.iter().rev() {
            let unpacked = block.unpack(file)?;
            let mut texts = vec![None; unpacked.texts()];
            for entry in unpacked.entries.iter().rev() {
                if !search.fits(entry, &mut texts, &unpacked) {
                } else if skip > 0 {
                    skip -= 1;
                } else if page.entries.len() >= filter.limit {
                    page.has_more = true;
                    return Ok(page);
                } else {
                    page.entries.push(shown(entry, &unpacked));
                }
            }
        }
        Ok(page)
    }

    fn stats(&self, databases: &[DatabaseId]) -> LogStats {
        let mut totals = Totals::default();
        let forgotten = lock(&self.shared.forgotten);
        let rings = lock(&self.shared.rings);
        let earlier = lock(&self.shared.earlier);
        for database in databases.iter().filter(|id| !forgotten.contains(id)) {
            if let Some(before) = earlier.get(database) {
                totals.add(before);
            }
            for ring in rings.iter() {
                ring.directory.add_to(*database, &mut totals);
            }
        }
        totals.to_stats()
    }

    fn forget(&self, database: DatabaseId) {
        lock(&self.shared.forgotten).insert(database);
        lock(&self.shared.earlier).remove(&database);
        for ring in lock(&self.shared.rings).iter() {
            ring.directory.forget(database);
        }
    }
}

fn shown(entry: &Entry, block: &Unpacked) -> LogEntry {
    let (text, cut) = block.text(entry.text);
    let mut query = String::from_utf8_lossy(text).into_owned();
    if cut {
        query.push('…');
    }
    LogEntry {
        database: entry.database,
        query,
        source: entry.source,
        at: UNIX_EPOCH + Duration::from_micros(entry.ended_at_us),
        duration: Duration::from_nanos(entry.duration_ns),
        error_code: entry.error_code.map(|code| code.to_string()),
        rows: entry.rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query_log::{ErrorCode, StatementRecord};
    use control_store::logs::Source;

    fn record(log: &mut WorkerLog, database: u64, text: &str, n: u64) {
        log.record(&StatementRecord {
            database: DatabaseId(database),
            text: text.as_bytes(),
            source: if n.is_multiple_of(3) {
                Source::Api
            } else {
                Source::Proxy
            },
            ended_at_us: 1_700_000_000_000_000 + n,
            duration: Duration::from_micros(n * 100),
            error_code: n.is_multiple_of(5).then(|| ErrorCode::new(b"42P01")),
            rows: n,
        });
    }

    fn filter(database: u64) -> LogFilter {
        LogFilter {
            databases: vec![DatabaseId(database)],
            limit: 1000,
            ..LogFilter::default()
        }
    }

    fn queries(log: &QueryLog, filter: &LogFilter) -> Vec<String> {
        let page = log.find(filter).unwrap();
        page.entries.into_iter().map(|it| it.query).collect()
    }

    #[test]
    fn every_filter_finds_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let log = QueryLog::open(QueryLogConfig::new(folder.path())).unwrap();
        let mut worker = log.worker();
        for n in 1..=30 {
            record(&mut worker, 1, &format!("SELECT {n}"), n);
            record(&mut worker, 2, "other", n);
        }
        let all = queries(&log, &filter(1));
        assert_eq!(all.len(), 30);
        assert_eq!(
            (all[0].as_str(), all[29].as_str()),
            ("SELECT 30", "SELECT 1")
        );
        let mut some = filter(1);
        (some.limit, some.offset) = (2, 1);
        assert!(log.find(&some).unwrap().has_more);
        assert_eq!(queries(&log, &some), ["SELECT 29", "SELECT 28"]);
        (some.limit, some.offset) = (2, 28);
        assert!(!log.find(&some).unwrap().has_more);
        let mut failed = filter(1);
        failed.errors_only = true;
        assert_eq!(queries(&log, &failed).len(), 6);
        let mut slow = filter(1);
        slow.slower_than = Some(Duration::from_micros(2800));
        assert_eq!(queries(&log, &slow), ["SELECT 30", "SELECT 29"]);
        let mut found = filter(1);
        found.search = Some("select 2".into());
        assert_eq!(queries(&log, &found).len(), 11);
        let mut api = filter(1);
        api.source = Some(Source::Api);
        assert_eq!(queries(&log, &api).len(), 10);
        let mut since = filter(1);
        since.since = Some(UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_000 + 25));
        assert_eq!(queries(&log, &since).len(), 6);
        let stats = log.stats(&[DatabaseId(1)]);
        assert_eq!(
            (stats.total, stats.failed, stats.from_api, stats.rows),
            (30, 6, 10, 465)
        );
        log.forget(DatabaseId(1));
        assert!(queries(&log, &filter(1)).is_empty());
        assert_eq!(log.stats(&[DatabaseId(1)]).total, 0);
        assert_eq!(queries(&log, &filter(2)).len(), 30);
    }

    #[test]
    fn entries_and_counts_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        for life in 1..=3_usize {
            let log = QueryLog::open(QueryLogConfig::new(folder.path())).unwrap();
            let mut worker = log.worker();
            for n in 1..=10 {
                record(&mut worker, 1, "SELECT 1", n);
            }
            assert_eq!(queries(&log, &filter(1)).len(), life * 10);
            assert_eq!(log.stats(&[DatabaseId(1)]).total, life as u64 * 10);
            // Without a close on even lives: a crash, since the last second was asked for and so is written.
            if life % 2 == 0 {
                let crashed = tempfile::tempdir().unwrap();
                for name in ["totals", "00000001.log"] {
                    // There are no counts yet if the first life has just begun.
                    let _ = fs::copy(folder.path().join(name), crashed.path().join(name));
                }
                let again = QueryLog::open(QueryLogConfig::new(crashed.path())).unwrap();
                assert_eq!(again.stats(&[DatabaseId(1)]).total, life as u64 * 10);
            }
            log.close();
        }
    }

    #[test]
    fn a_torn_end_is_cut_off_at_every_byte() {
        let folder = tempfile::tempdir().unwrap();
        let log = QueryLog::open(QueryLogConfig::new(folder.path())).unwrap();
        let mut worker = log.worker();
        record(&mut worker, 1, "first", 1);
        assert_eq!(queries(&log, &filter(1)).len(), 1);
        let path = folder.path().join("00000001.log");
        let first = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
        record(&mut worker, 1, "second", 2);
        assert_eq!(queries(&log, &filter(1)).len(), 2);
        log.close();
        let whole = fs::read(&path).unwrap();
        for cut in first..whole.len() {
            let torn = tempfile::tempdir().unwrap();
            fs::write(torn.path().join("00000001.log"), &whole[..cut]).unwrap();
            let log = QueryLog::open(QueryLogConfig::new(torn.path())).unwrap();
            assert_eq!(queries(&log, &filter(1)), ["first"], "cut at {cut}");
            let mut worker = log.worker();
            record(&mut worker, 1, "third", 3);
            assert_eq!(queries(&log, &filter(1)), ["third", "first"]);
        }
    }

    #[test]
    fn passwords_do_not_reach_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let log = QueryLog::open(QueryLogConfig::new(folder.path())).unwrap();
        let mut worker = log.worker();
        record(&mut worker, 1, "ALTER ROLE a PASSWORD 'sesame'", 1);
        assert_eq!(queries(&log, &filter(1)), ["ALTER ROLE a PASSWORD '***'"]);
        log.close();
        let bytes = fs::read(folder.path().join("00000001.log")).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"sesame"));
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("00000001.log"), b"something else").unwrap();
        assert!(QueryLog::open(QueryLogConfig::new(folder.path())).is_err());
    }
}
