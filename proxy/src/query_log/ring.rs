//! From a worker to the writer thread: two blocks of bytes that change hands.
//!
//! The worker appends to one block; when that is full, or the writer has hold of it just now, to the other. The writer
//! takes a block by exchanging it for an empty one, and holds at most one at a time. So the worker never waits and never
//! allocates; if neither block has room, the entry is dropped and counted.
//!
//! In a block a text stands once; later entries point at it.

use std::mem;
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use ahash::RandomState;
use control_store::DatabaseId;
use control_store::logs::Source;

use super::counters::{Directory, WorkerCounters, lock, try_lock};
use super::record::{ErrorCode, StatementRecord};
use crate::metrics::Counter;

/// Texts that a worker remembers for each block.
const REMEMBERED: usize = 1024;
/// Database, end, duration, rows, flags, error code with its length, text length or place.
const HEAD: usize = 8 * 4 + 1 + (1 + ErrorCode::MAX) + 4;

const FLAG_API: u8 = 1;
const FLAG_FAILED: u8 = 2;
/// The text was cut to the log's limit.
pub(super) const FLAG_CUT: u8 = 4;
/// Instead of a text's length stands the place of an equal text in this block.
const FLAG_POINTS: u8 = 8;

#[derive(Debug, Default)]
struct Slot {
    block: Vec<u8>,
    /// Counts the blocks, so that the worker knows when what it remembers is void.
    epoch: u32,
    writer_told: bool,
}

/// What one worker and the writer share.
#[derive(Debug)]
pub(super) struct Ring {
    slots: [Mutex<Slot>; 2],
    slot_bytes: usize,
    /// Entries for which there was no room.
    pub(super) dropped: Counter,
    /// The worker's counts.
    pub(super) directory: Arc<Directory>,
}

impl Ring {
    pub(super) fn new(bytes: usize) -> Self {
        let slot_bytes = (bytes / 2).min(u32::MAX as usize);
        let slot = || {
            Mutex::new(Slot {
                block: Vec::with_capacity(slot_bytes),
                ..Slot::default()
            })
        };
        Self {
            slots: [slot(), slot()],
            slot_bytes,
            dropped: Counter::default(),
            directory: Arc::new(Directory::default()),
        }
    }

    /// Hands each block that holds entries to `take` and puts the empty `spare` in its place. `spare` ends up empty.
    pub(super) fn drain(&self, spare: &mut Vec<u8>, mut take: impl FnMut(&Block<'_>)) {
        for slot in &self.slots {
            if self.exchange(slot, spare) {
                take(&Block(spare));
                spare.clear();
            }
        }
    }

    fn exchange(&self, slot: &Mutex<Slot>, spare: &mut Vec<u8>) -> bool {
        spare.clear();
        spare.reserve_exact(self.slot_bytes); // Here, so that the worker never has to.
        let mut slot = lock(slot);
        if slot.block.is_empty() {
            return false;
        }
        mem::swap(&mut slot.block, spare);
        slot.epoch = slot.epoch.wrapping_add(1);
        slot.writer_told = false;
        true
    }
}

/// Where a text stands in a block.
#[derive(Clone, Copy, Debug, Default)]
struct Remembered {
    hash: u64,
    epoch: u32,
    at: u32,
}

/// A worker's end of the log. Not `Sync`: `record` takes `&mut self`.
#[derive(Debug)]
pub struct WorkerLog {
    ring: Arc<Ring>,
    counters: WorkerCounters,
    writer: Thread,
    hasher: RandomState,
    remembered: [Vec<Remembered>; 2],
    current: usize,
    max_text: usize,
}

impl WorkerLog {
    pub(super) fn new(
        ring: Arc<Ring>,
        writer: Thread,
        max_text: usize,
        slow_over: Duration,
    ) -> Self {
        let remembered = || {
            vec![
                Remembered {
                    epoch: u32::MAX,
                    ..Remembered::default()
                };
                REMEMBERED
            ]
        };
        Self {
            counters: WorkerCounters::new(Arc::clone(&ring.directory), slow_over),
            ring,
            writer,
            hasher: RandomState::new(),
            remembered: [remembered(), remembered()],
            current: 0,
            max_text,
        }
    }

    /// Counts a statement and copies it into the log. Neither waits nor allocates, except for a database that this
    /// worker has not seen; without room the entry is dropped and counted.
    pub fn record(&mut self, record: &StatementRecord<'_>) {
        self.counters.count(record);
        let cut = record.text.get(..self.max_text).unwrap_or(record.text);
        let hash = self.hasher.hash_one(cut);
        if self.append(self.current, record, cut, hash) {
            return;
        }
        let other = 1 - self.current;
        if self.append(other, record, cut, hash) {
            self.current = other;
        } else {
            self.counters.note_dropped(record);
            self.ring.dropped.increment();
        }
    }

    /// Counts a statement whose entry is left out, its text with it. It counts as dropped.
    pub fn count(&mut self, record: &StatementRecord<'_>) {
        self.counters.count(record);
        self.counters.note_dropped(record);
        self.ring.dropped.increment();
    }

    /// Whether a statement of that duration is a slow one.
    pub fn is_slow(&self, duration: Duration) -> bool {
        self.counters.slower(duration)
    }

    fn append(
        &mut self,
        index: usize,
        record: &StatementRecord<'_>,
        text: &[u8],
        hash: u64,
    ) -> bool {
        let Some(mut slot) = try_lock(&self.ring.slots[index]) else {
            return false;
        };
        let slot = &mut *slot;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low bits choose the place"
        )]
        let remembered = &mut self.remembered[index][hash as usize % REMEMBERED];
        let cut = text.len() < record.text.len();
        let known = remembered.hash == hash
            && remembered.epoch == slot.epoch
            && text_at(&slot.block, remembered.at).is_some_and(|known| known == (text, cut));
        let needed = HEAD + if known { 0 } else { text.len() };
        let Ok(at) = u32::try_from(slot.block.len()) else {
            return false;
        };
        if slot.block.len() + needed > self.ring.slot_bytes {
            return false;
        }
        if known {
            slot.block
                .extend_from_slice(&head(record, FLAG_POINTS, remembered.at));
        } else {
            *remembered = Remembered {
                hash,
                epoch: slot.epoch,
                at,
            };
            let len = u32::try_from(text.len()).unwrap_or(u32::MAX); // It fits a slot, so it fits.
            slot.block
                .extend_from_slice(&head(record, if cut { FLAG_CUT } else { 0 }, len));
            slot.block.extend_from_slice(text);
        }
        if slot.block.len() > self.ring.slot_bytes / 2 && !mem::replace(&mut slot.writer_told, true)
        {
            self.writer.unpark();
        }
        true
    }
}

fn head(record: &StatementRecord<'_>, flags: u8, text: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0..8].copy_from_slice(&record.database.0.to_le_bytes());
    head[8..16].copy_from_slice(&record.ended_at_us.to_le_bytes());
    head[16..24].copy_from_slice(&record.duration_ns().to_le_bytes());
    head[24..32].copy_from_slice(&record.rows.to_le_bytes());
    head[32] = flags
        | if record.source == Source::Api {
            FLAG_API
        } else {
            0
        };
    if let Some(code) = &record.error_code {
        head[32] |= FLAG_FAILED;
        let code = code.as_bytes();
        head[33] = u8::try_from(code.len()).unwrap_or(0);
        head[34..34 + code.len()].copy_from_slice(code);
    }
    head[49..53].copy_from_slice(&text.to_le_bytes());
    head
}

/// The text of the entry that begins there and has one of its own, and whether it was cut.
fn text_at(block: &[u8], at: u32) -> Option<(&[u8], bool)> {
    let (head, rest) = block.get(at as usize..)?.split_first_chunk::<HEAD>()?;
    let text = rest.get(..u32::from_le_bytes(*head.last_chunk()?) as usize)?;
    (head[32] & FLAG_POINTS == 0).then_some((text, head[32] & FLAG_CUT != 0))
}

/// A full block, for the writer.
#[derive(Debug)]
pub(super) struct Block<'a>(&'a [u8]);

/// An entry of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawEntry {
    pub(super) database: DatabaseId,
    pub(super) ended_at_us: u64,
    pub(super) duration_ns: u64,
    pub(super) rows: u64,
    pub(super) source: Source,
    pub(super) error_code: Option<ErrorCode>,
    /// The place of its text: equal places, equal texts.
    pub(super) text: u32,
}

impl<'a> Block<'a> {
    /// The text at a place that an entry named, and whether it was cut.
    pub(super) fn text(&self, at: u32) -> (&'a [u8], bool) {
        text_at(self.0, at).unwrap_or_default()
    }

    /// The entries, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = RawEntry> {
        let mut at = 0_usize;
        std::iter::from_fn(move || {
            let head = self.0.get(at..)?.first_chunk::<HEAD>()?;
            let (entry, used) = decode(head, u32::try_from(at).ok()?)?;
            at += used;
            Some(entry)
        })
    }
}

fn decode(head: &[u8; HEAD], at: u32) -> Option<(RawEntry, usize)> {
    let word = |from: usize| -> Option<u64> {
        Some(u64::from_le_bytes(*head.get(from..)?.first_chunk()?))
    };
    let flags = head[32];
    let last = u32::from_le_bytes(*head.last_chunk()?);
    let points = flags & FLAG_POINTS != 0;
    let code = head.get(34..34 + usize::from(head[33]))?;
    let entry = RawEntry {
        database: DatabaseId(word(0)?),
        ended_at_us: word(8)?,
        duration_ns: word(16)?,
        rows: word(24)?,
        source: if flags & FLAG_API == 0 {
            Source::Proxy
        } else {
            Source::Api
        },
        error_code: (flags & FLAG_FAILED != 0).then(|| ErrorCode::new(code)),
        text: if points { last } else { at },
    };
    Some((entry, HEAD + if points { 0 } else { last as usize }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query_log::counters::Totals;
    use ahash::AHashMap;
    use std::thread;

    fn record(text: &[u8], n: u64) -> StatementRecord<'_> {
        StatementRecord {
            database: DatabaseId(n % 7),
            text,
            source: if n.is_multiple_of(3) {
                Source::Api
            } else {
                Source::Proxy
            },
            ended_at_us: n,
            duration: Duration::from_nanos(n * 10),
            error_code: n.is_multiple_of(5).then(|| ErrorCode::new(b"42P01")),
            rows: n,
        }
    }

    fn worker(ring: &Arc<Ring>) -> WorkerLog {
        WorkerLog::new(
            Arc::clone(ring),
            thread::current(),
            100,
            Duration::from_secs(1),
        )
    }

    fn drained(ring: &Ring) -> Vec<(RawEntry, Vec<u8>, bool)> {
        let mut entries = Vec::new();
        ring.drain(&mut Vec::new(), |block| {
            entries.extend(block.entries().map(|entry| {
                let (text, cut) = block.text(entry.text);
                (entry, text.to_vec(), cut)
            }));
        });
        entries
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let ring = Arc::new(Ring::new(64 * 1024));
        let mut log = worker(&ring);
        let long = vec![b'x'; 101];
        let texts: [&[u8]; 4] = [b"SELECT 1", b"", b"\xff\x00", &long];
        for (n, text) in (0..200).zip(texts.iter().cycle()) {
            log.record(&record(text, n));
        }
        let entries = drained(&ring);
        assert_eq!(entries.len(), 200);
        for ((n, sent), (entry, text, cut)) in (0_u64..).zip(texts.iter().cycle()).zip(&entries) {
            let wanted = record(sent, n);
            assert_eq!(entry.database, wanted.database);
            assert_eq!(
                (entry.ended_at_us, entry.duration_ns, entry.rows),
                (n, n * 10, n)
            );
            assert_eq!(
                (entry.source, entry.error_code),
                (wanted.source, wanted.error_code)
            );
            assert_eq!(text.as_slice(), &wanted.text[..wanted.text.len().min(100)]);
            assert_eq!(*cut, n % 4 == 3);
        }
        assert!(drained(&ring).is_empty());
    }

    #[test]
    fn a_cut_text_is_not_taken_for_a_whole_one() {
        let ring = Arc::new(Ring::new(64 * 1024));
        let mut log = worker(&ring);
        log.record(&record(&[b'y'; 100], 1));
        log.record(&record(&[b'y'; 101], 2));
        assert_eq!(
            drained(&ring).iter().map(|e| e.2).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn a_repeated_text_costs_a_reference() {
        let ring = Arc::new(Ring::new(2 * (HEAD * 10 + 90)));
        let mut log = worker(&ring);
        for n in 0..20 {
            log.record(&record(&[b'z'; 90], n));
        }
        assert_eq!(ring.dropped.get(), 0);
        assert_eq!(drained(&ring).len(), 20);
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted_exactly() {
        let ring = Arc::new(Ring::new(4096));
        let mut log = worker(&ring);
        for n in 0..1000_u64 {
            log.record(&record(format!("SELECT {n}").as_bytes(), n));
        }
        let kept = drained(&ring).len() as u64;
        assert!(kept > 10, "kept {kept}");
        assert_eq!(kept + ring.dropped.get(), 1000);
        let mut totals = Totals::default();
        for database in 0..7 {
            ring.directory.add_to(DatabaseId(database), &mut totals);
        }
        assert_eq!(totals.total, 1000, "the counters do not drop");
        let mut dropped = AHashMap::new();
        ring.directory.add_dropped(&mut dropped);
        let dropped: u64 = dropped.values().map(|it| it.total).sum();
        assert_eq!(kept + dropped, 1000);
    }

    #[test]
    fn nothing_is_lost_or_doubled_while_the_writer_drains() {
        let ring = Arc::new(Ring::new(64 * 1024));
        let mut log = worker(&ring);
        let mut seen = Vec::new();
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                for n in 0..100_000_u64 {
                    log.record(&record(format!("SELECT {}", n % 50).as_bytes(), n));
                }
            });
            while !worker.is_finished() {
                seen.extend(drained(&ring));
            }
        });
        seen.extend(drained(&ring));
        assert_eq!(seen.len() as u64 + ring.dropped.get(), 100_000);
        for (entry, text, _) in &seen {
            assert_eq!(
                String::from_utf8_lossy(text),
                format!("SELECT {}", entry.ended_at_us % 50)
            );
        }
        seen.sort_by_key(|(entry, ..)| entry.ended_at_us);
        seen.dedup_by_key(|(entry, ..)| entry.ended_at_us);
        assert_eq!(
            seen.len() as u64 + ring.dropped.get(),
            100_000,
            "none twice"
        );
    }

    #[test]
    fn a_forgotten_database_counts_no_more() {
        let ring = Arc::new(Ring::new(4096));
        let mut log = worker(&ring);
        log.record(&record(b"SELECT 1", 1));
        ring.directory.forget(DatabaseId(1));
        let mut totals = Default::default();
        ring.directory.add_to(DatabaseId(1), &mut totals);
        assert_eq!(totals.total, 0);
    }
}
