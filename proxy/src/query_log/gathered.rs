//! Entries and counts that no block holds yet, and how they come out of the rings.

use std::sync::Arc;

use ahash::AHashMap;
use control_store::DatabaseId;

use super::block::Span;
use super::counters::Totals;
use super::entry::{Entry, Texts};
use super::forgotten::Forgotten;
use super::mask::masked;
use super::ring::{self, Ring};

/// With so many entries a block is full …
const FULL_ENTRIES: usize = 64 << 10;
/// … or with so many bytes of texts …
const FULL_BYTES: usize = 4 << 20;
/// … or after so long (µs).
const FULL_AFTER_US: u64 = 3_600_000_000;

/// What will be the next block. All of it is in the journal, but for what came since the last batch.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// In the order in which they came.
    pub(super) entries: Vec<Entry>,
    pub(super) texts: Texts,
    pub(super) counts: AHashMap<DatabaseId, Totals>,
    pub(super) span: Span,
    /// How many of the entries and texts the journal holds.
    pub(super) journaled: (usize, usize),
    /// The counts since the last batch.
    pub(super) new_counts: AHashMap<DatabaseId, Totals>,
}

impl Gathered {
    /// Nothing yet, from that time on.
    pub(super) fn from(from_us: u64, last_batch: u64) -> Self {
        Self {
            span: Span {
                last_batch,
                from_us,
                until_us: from_us,
            },
            ..Self::default()
        }
    }

    /// Empties it, to go on from there. Its memory stays: it will be needed again, and fresh pages are not free. Only what
    /// gathered while the disk was slow is given back.
    pub(super) fn restart(&mut self, from_us: u64, last_batch: u64) {
        if self.times_full() > 2 {
            *self = Self::from(from_us, last_batch);
            return;
        }
        self.entries.clear();
        self.texts.clear();
        self.counts.clear();
        self.new_counts.clear();
        self.journaled = (0, 0);
        self.span = Span {
            last_batch,
            from_us,
            until_us: from_us,
        };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.counts.is_empty()
    }

    /// Whether it is time to make a block of it.
    pub(super) fn is_full(&self) -> bool {
        self.times_full() > 0
            || (!self.is_empty() && self.span.until_us >= self.span.from_us + FULL_AFTER_US)
    }

    /// How many blocks it would fill by its size.
    pub(super) fn times_full(&self) -> usize {
        (self.entries.len() / FULL_ENTRIES).max(self.texts.bytes() / FULL_BYTES)
    }

    /// From when on it counts.
    pub(super) fn begins_us(&self) -> u64 {
        let earliest = self.entries.iter().map(|it| it.ended_at_us).min();
        earliest.map_or(self.span.from_us, |it| it.min(self.span.from_us))
    }

    pub(super) fn count(&mut self, database: DatabaseId, counts: &Totals) {
        self.counts.entry(database).or_default().add(counts);
        self.new_counts.entry(database).or_default().add(counts);
    }

    pub(super) fn forget(&mut self, database: DatabaseId) {
        self.counts.remove(&database);
        self.new_counts.remove(&database);
    }

    /// Takes the entries of one ring's block and adds up their counts in `taken`. A text is masked and looked up once,
    /// however many entries share it.
    pub(super) fn take(
        &mut self,
        block: &ring::Block<'_>,
        forgotten: &Forgotten,
        slow_over_ns: u64,
        taken: &mut AHashMap<DatabaseId, Totals>,
    ) {
        // Places and numbers. An entry has a text of its own, which comes behind all others, or names one of those.
        let mut texts: Vec<(u32, u32)> = Vec::new();
        for raw in block.entries() {
            if forgotten.contains(raw.database) {
                continue;
            }
            let text = match texts.binary_search_by_key(&raw.text, |it| it.0) {
                Ok(known) => texts.get(known).map_or(0, |it| it.1),
                Err(new) => {
                    let (text, cut) = block.text(raw.text);
                    let number = self.texts.intern(&masked(text), cut);
                    texts.insert(new, (raw.text, number));
                    number
                }
            };
            let entry = Entry {
                database: raw.database,
                ended_at_us: raw.ended_at_us,
                duration_ns: raw.duration_ns,
                rows: raw.rows,
                source: raw.source,
                error_code: raw.error_code,
                text,
            };
            taken
                .entry(raw.database)
                .or_default()
                .add(&entry.counts(slow_over_ns));
            self.entries.push(entry);
        }
    }
}

/// What the workers have counted, as far as it has been taken over.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Since each database was created: of earlier lives of the process too.
    pub(super) totals: AHashMap<DatabaseId, Totals>,
    /// Of it what this process's workers counted.
    pub(super) here: AHashMap<DatabaseId, Totals>,
    /// Of it what had no entry.
    dropped: AHashMap<DatabaseId, Totals>,
    /// How many entries the rings had dropped when that was looked at.
    dropped_seen: u64,
}

impl Counted {
    /// What earlier lives of the process counted.
    pub(super) fn before(totals: AHashMap<DatabaseId, Totals>) -> Self {
        Self {
            totals,
            ..Self::default()
        }
    }

    fn add(&mut self, database: DatabaseId, counts: &Totals) {
        self.totals.entry(database).or_default().add(counts);
        self.here.entry(database).or_default().add(counts);
    }

    pub(super) fn forget(&mut self, database: DatabaseId) {
        self.totals.remove(&database);
        self.here.remove(&database);
        self.dropped.remove(&database);
    }

    /// What the rings have dropped since this was last asked, by database.
    fn newly_dropped(&mut self, rings: &[Arc<Ring>]) -> Vec<(DatabaseId, Totals)> {
        let dropped: u64 = rings.iter().map(|ring| ring.dropped.get()).sum();
        if dropped == self.dropped_seen {
            return Vec::new();
        }
        self.dropped_seen = dropped;
        let mut sums = AHashMap::new();
        for ring in rings {
            ring.directory.add_dropped(&mut sums);
        }
        sums.into_iter()
            .map(|(database, sum)| {
                let before = self.dropped.insert(database, sum).unwrap_or_default();
                (database, sum.since(&before))
            })
            .filter(|(_, new)| *new != Totals::default())
            .collect()
    }
}

/// Empties the rings into what is gathered. Every statement is counted once: with its entry, or as dropped.
pub(super) fn drain(
    gathered: &mut Gathered,
    counted: &mut Counted,
    rings: &[Arc<Ring>],
    forgotten: &Forgotten,
    spare: &mut Vec<u8>,
    slow_over_ns: u64,
) {
    let mut taken = AHashMap::new();
    for ring in rings {
        ring.drain(spare, |block| {
            gathered.take(block, forgotten, slow_over_ns, &mut taken);
        });
    }
    let dropped = counted.newly_dropped(rings);
    for (database, counts) in taken.into_iter().chain(dropped) {
        if !forgotten.contains(database) {
            counted.add(database, &counts);
            gathered.count(database, &counts);
        }
    }
}
