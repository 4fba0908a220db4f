//! The log's writing thread: rings to journal, journal to blocks, old blocks away.

use std::fs;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use control_store::DatabaseId;

use super::block::{Summary, encode};
use super::counters::lock;
use super::entry::{Entry, Texts};
use super::gathered::Gathered;
use super::journal::{self, Journal};
use super::log::{Shared, State};
use super::segment::Segment;
use super::totals::{Kept, micros, sync_folder};

/// How often what has gathered goes to the disk.
const WRITE_EVERY: Duration = Duration::from_millis(500);
/// A segment of this age (µs) is followed by a new one.
const SEGMENT_US: u64 = 24 * 3_600_000_000;
/// How often the counts are kept, for a quicker start after a crash.
const KEEP_EVERY: Duration = Duration::from_secs(300);
/// How often it is looked for what may go.
const CLEAN_EVERY: Duration = Duration::from_secs(120);
/// As many blocks' worth of entries may wait for a disk that is slow or full; more are lost.
pub(super) const PATIENCE: usize = 8;

pub(super) struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    written: Option<Instant>,
    kept: Instant,
    cleaned: Instant,
    /// The disk has refused: said once.
    complained: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, journal: Journal) -> Self {
        let now = Instant::now();
        Self {
            shared,
            journal,
            written: None,
            kept: now,
            cleaned: now,
            complained: false,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let closing = self.shared.closing.load(Ordering::Acquire);
            let result = self.round(closing);
            let written = result.is_ok();
            self.note(result);
            if !closing {
                thread::park_timeout(WRITE_EVERY);
            } else if !written {
                return;
            } else if self.shared.is_drained() {
                let kept = self.keep(true);
                return self.note(kept);
            }
        }
    }

    fn note(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) if self.complained => {
                self.complained = false;
                tracing::info!("the query log can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                if !mem::replace(&mut self.complained, true) {
                    tracing::error!(%error, "the query log cannot be written");
                }
            }
        }
    }

    /// The gatherer wakes the thread when there is enough for a block; else it writes when it is time to.
    fn round(&mut self, closing: bool) -> io::Result<()> {
        let due = closing
            || self
                .written
                .is_none_or(|it| it.elapsed() + Duration::from_millis(20) >= WRITE_EVERY);
        let mut state = lock(&self.shared.state);
        self.shared.drain(&mut state);
        let full = state.gathered.is_full() || (closing && !state.gathered.is_empty());
        if !due && !full {
            return Ok(());
        }
        let batch = journal::batch(&mut state.gathered);
        drop(state);
        self.written = Some(Instant::now());
        let journaled = self.journal.append(batch);
        if full {
            self.seal()?;
        }
        journaled?;
        if self.kept.elapsed() >= KEEP_EVERY {
            self.keep(false)?;
        }
        if !closing && self.cleaned.elapsed() >= CLEAN_EVERY {
            self.cleaned = Instant::now();
            self.shared.clean()?;
        }
        Ok(())
    }

    /// Makes a block of what has gathered.
    fn seal(&mut self) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        let sealed = self.shared.seal(&mut state);
        if sealed.is_err() && state.gathered.times_full() >= PATIENCE / 2 {
            let lost = state.gathered.entries.len() as u64;
            self.shared.lost.fetch_add(lost, Ordering::Relaxed);
            state.gathered.entries = Vec::new();
            state.gathered.texts = Texts::default();
            state.gathered.journaled = (0, 0);
            self.journal.reset()?;
        }
        let file = sealed?;
        drop(state); // The disk may take its time; questions need not wait for it.
        file.sync_data()?;
        self.journal.reset()
    }

    /// Keeps the counts, for a quicker start after a crash, or for good.
    fn keep(&mut self, closed: bool) -> io::Result<()> {
        self.kept = Instant::now();
        self.shared.keep(closed)
    }
}

/// How much of a segment may still be seen.
enum Worth {
    Nothing,
    /// Or a database in it was forgotten.
    AtMostHalf,
    Kept,
}

impl Shared {
    /// Whether all that the rings hold has been written. What they held while the disk lagged behind is taken up now.
    fn is_drained(&self) -> bool {
        let mut state = lock(&self.state);
        self.drain(&mut state);
        state.gathered.is_empty()
    }

    /// Keeps the counts of all blocks. What has gathered since stands in the journal.
    fn keep(&self, closed: bool) -> io::Result<()> {
        let kept = self.kept(&lock(&self.state), closed);
        kept.save(&self.config.folder)
    }

    /// Removes what nobody may see any more, and the oldest if the log is too large.
    pub(super) fn clean(&self) -> io::Result<()> {
        let now = micros(SystemTime::now());
        let (expired, outdated) = self.dispensable(now);
        if !expired.is_empty() || outdated.is_some() {
            self.keep(false)?; // What goes must be counted before.
        }
        for segment in &expired {
            self.remove(segment)?;
        }
        match outdated {
            Some(segment) => self.rewrite(segment, now),
            None => Ok(()),
        }
    }

    fn remove(&self, segment: &Segment) -> io::Result<()> {
        lock(&self.state)
            .segments
            .retain(|it| it.number != segment.number);
        fs::remove_file(&segment.path)
    }

    /// Writes a segment anew without what nobody may see.
    fn rewrite(&self, old: Segment, now: u64) -> io::Result<()> {
        let part = old.path.with_extension("part");
        let mut new = Segment::create_at(part.clone(), old.number)?;
        for block in &old.blocks {
            match self.without_outdated(&old, block, now) {
                Ok(Some(encoded)) => new.append(&encoded)?,
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(%error, segment = %old.path.display(), "a block of the query log is lost");
                }
                Err(error) => return Err(error),
            }
        }
        new.file.sync_data()?;
        fs::rename(&part, &old.path)?;
        sync_folder(&self.config.folder)?;
        new.path = old.path;
        let mut state = lock(&self.state);
        let mut places = state.segments.iter_mut();
        if let Some(place) = places.find(|it| it.number == old.number) {
            *place = new;
        }
        Ok(())
    }

    /// The block without databases of which nobody may see anything. `None`: nothing is left.
    fn without_outdated(
        &self,
        segment: &Segment,
        block: &Summary,
        now: u64,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut reader = segment.reader(block)?;
        let mut left = Gathered::default();
        for group in reader.head.groups.clone() {
            if self.is_outdated(group.database, block, now) {
                continue;
            }
            left.count(group.database, &group.counts);
            let mut entries = Vec::new();
            reader.entries(&group, |entry| entries.push(entry))?;
            for entry in entries {
                let (text, cut) = reader.text(entry.text)?;
                let text = left.texts.intern(text, cut);
                left.entries.push(Entry { text, ..entry });
            }
        }
        if left.is_empty() {
            return Ok(None);
        }
        let span = reader.head.span;
        encode(span, &mut left.entries, &left.texts, &left.counts).map(Some)
    }

    /// Makes a block of what has gathered and appends it, to a new segment if it is time for one. Sync the file then.
    pub(super) fn seal(&self, state: &mut State) -> io::Result<Arc<fs::File>> {
        let gathered = &mut state.gathered;
        let entries = &mut gathered.entries;
        let encoded = encode(gathered.span, entries, &gathered.texts, &gathered.counts)?;
        // Sorted now: what the journal lacks is no longer at the end, and need not be there.
        gathered.journaled = (entries.len(), gathered.texts.len());
        let begins = state.segments.last().and_then(Segment::begins_us);
        let old = begins.is_some_and(|it| it + SEGMENT_US <= gathered.span.until_us);
        let last = state.segments.last();
        if old || last.is_none_or(|it| it.len >= self.config.segment_bytes) {
            let number = last.map_or(1, |it| it.number + 1);
            let segment = Segment::create(&self.config.folder, number)?;
            state.segments.push(segment);
        }
        let segment = state
            .segments
            .last_mut()
            .ok_or_else(|| io::Error::other("the query log has no segment"))?;
        segment.append(&encoded)?;
        let span = gathered.span;
        gathered.restart(span.until_us, span.last_batch);
        state.sealed = span.last_batch;
        Ok(Arc::clone(&segment.file))
    }

    /// The counts as they are to be kept.
    pub(super) fn kept(&self, state: &State, closed: bool) -> Kept {
        let mut totals = state.counted.totals.clone();
        for (database, counts) in &state.gathered.counts {
            if let Some(all) = totals.get_mut(database) {
                *all = all.since(counts);
            }
        }
        Kept {
            batch: state.sealed,
            saved_us: micros(SystemTime::now()),
            closed,
            gaps: state.gaps.clone(),
            totals,
        }
    }

    /// Segments to be removed, and one to be written anew: one at a time, as it costs some CPU.
    fn dispensable(&self, now: u64) -> (Vec<Segment>, Option<Segment>) {
        let state = lock(&self.state);
        let mut bytes: u64 = state.segments.iter().map(|it| it.len).sum();
        let last = state.segments.last().map(|it| it.number);
        let (mut expired, mut outdated) = (Vec::new(), None);
        for segment in &state.segments {
            let worth = self.worth(segment, now);
            let too_many = bytes > self.config.max_bytes && Some(segment.number) != last;
            if too_many || matches!(worth, Worth::Nothing) {
                bytes -= segment.len;
                expired.push(segment.clone());
            } else if matches!(worth, Worth::AtMostHalf) {
                outdated.get_or_insert_with(|| segment.clone());
            }
        }
        (expired, outdated)
    }

    fn worth(&self, segment: &Segment, now: u64) -> Worth {
        let forgotten = lock(&self.forgotten);
        if !forgotten.is_empty() {
            let mut all = segment.blocks.iter().flat_map(|it| it.databases());
            if all.any(|it| forgotten.contains(it)) {
                return Worth::AtMostHalf;
            }
        }
        drop(forgotten);
        let (mut outdated, mut kept) = (0_usize, 0_usize);
        for block in &segment.blocks {
            for database in block.databases() {
                if self.is_outdated(database, block, now) {
                    outdated += 1;
                } else {
                    kept += 1;
                }
            }
        }
        match (outdated, kept) {
            (_, 0) => Worth::Nothing,
            _ if outdated >= kept => Worth::AtMostHalf,
            _ => Worth::Kept,
        }
    }

    /// Whether nobody may see what that block says of the database.
    fn is_outdated(&self, database: DatabaseId, block: &Summary, now: u64) -> bool {
        self.kept_from(database, now)
            .is_none_or(|from| block.span.until_us.max(block.latest_us) < from)
    }
}
