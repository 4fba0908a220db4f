//! Finds entries, newest first.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use control_store::DatabaseId;
use control_store::logs::{LogEntry, LogFilter, LogPage};

use super::block::{Group, InFile, Reader, Summary};
use super::counters::lock;
use super::entry::Entry;
use super::gathered::Gathered;
use super::search::Needle;
use super::segment::Segment;
use super::totals::{micros, time};

/// A question looks at so many blocks at a time once the first has not answered it.
const AT_A_TIME: usize = 2;

/// A question, prepared.
pub(super) struct Search {
    /// Of which databases, sorted, and from when on.
    wanted: Vec<(DatabaseId, u64)>,
    ids: Vec<DatabaseId>,
    since_us: u64,
    errors_only: bool,
    slower_ns: Option<u64>,
    source: Option<control_store::logs::Source>,
    needle: Option<Needle>,
    skip: u64,
    limit: usize,
}

impl Search {
    /// `kept_from`: what a database's retention leaves of it (µs since 1970); `None` if it is forgotten.
    pub(super) fn new(filter: &LogFilter, kept_from: impl Fn(DatabaseId) -> Option<u64>) -> Self {
        let since = filter.since.map_or(0, micros);
        let mut wanted: Vec<_> = filter
            .databases
            .iter()
            .filter_map(|id| Some((*id, kept_from(*id)?.max(since))))
            .collect();
        wanted.sort_unstable();
        wanted.dedup_by_key(|(id, _)| *id);
        let slower = |it: std::time::Duration| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX);
        Self {
            ids: wanted.iter().map(|(id, _)| *id).collect(),
            since_us: wanted.iter().map(|it| it.1).min().unwrap_or(u64::MAX),
            wanted,
            errors_only: filter.errors_only,
            slower_ns: filter.slower_than.map(slower),
            source: filter.source,
            needle: filter.search.as_deref().map(Needle::new),
            skip: filter.offset,
            limit: filter.limit,
        }
    }

    fn may_be_in(&self, block: &Summary) -> bool {
        block.latest_us >= self.since_us
            && (!self.errors_only || block.has_failures())
            && self.slower_ns.is_none_or(|ns| block.has_longer(ns))
            && self.source.is_none_or(|it| block.has_source(it))
            && block.has_any(&self.ids)
    }

    fn may_be_in_group(&self, group: &Group, since: u64) -> bool {
        group.entries > 0
            && group.latest_us >= since
            && (!self.errors_only || group.failed > 0)
            && self.slower_ns.is_none_or(|ns| group.longest_ns > ns)
            && self.source.is_none_or(|it| group.has_source(it))
    }

    /// All but the text.
    fn fits(&self, entry: &Entry, since: u64) -> bool {
        entry.ended_at_us >= since
            && (!self.errors_only || entry.error_code.is_some())
            && self.slower_ns.is_none_or(|ns| entry.duration_ns > ns)
            && self.source.is_none_or(|it| it == entry.source)
    }

    /// Blocks that may hold answers, with their files; the latest first.
    pub(super) fn candidates(&self, segments: &[Segment]) -> Vec<Candidate> {
        let mut found = Vec::new();
        for segment in segments {
            let blocks = segment.blocks.iter().filter(|it| self.may_be_in(it));
            found.extend(blocks.map(|block| Candidate {
                latest_us: block.latest_us,
                bytes: InFile {
                    file: Arc::clone(&segment.file),
                    offset: block.offset,
                },
            }));
        }
        found.sort_by_key(|it| std::cmp::Reverse(it.latest_us));
        found
    }

    /// Answers from what no block holds yet: as many of the newest as may be shown or skipped.
    pub(super) fn in_gathered(&self, gathered: &Gathered) -> Vec<Hit> {
        let mut known = vec![None; gathered.texts.len()];
        let mut found: Vec<&Entry> = gathered
            .entries
            .iter()
            .filter(|entry| {
                let Ok(place) = self.ids.binary_search(&entry.database) else {
                    return false;
                };
                let since = self.wanted.get(place).map_or(u64::MAX, |it| it.1);
                self.fits(entry, since)
                    && self
                        .text_fits(entry.text, &mut known, |text| {
                            Ok(gathered.texts.get(text).0)
                        })
                        .unwrap_or(false)
            })
            .collect();
        found.sort_by_key(|it| std::cmp::Reverse(it.ended_at_us));
        found.truncate(self.reach());
        let shown = |entry: &&Entry| Hit {
            ended_at_us: entry.ended_at_us,
            what: What::Gathered(shown(entry, gathered.texts.get(entry.text))),
        };
        found.iter().map(shown).collect()
    }

    /// Entries further back than this are not asked for, but for whether there are any.
    fn reach(&self) -> usize {
        usize::try_from(self.skip)
            .unwrap_or(usize::MAX)
            .saturating_add(self.limit)
            .saturating_add(1)
    }

    /// Each text is searched once, however many entries share it.
    fn text_fits<'a>(
        &self,
        number: u32,
        known: &mut [Option<bool>],
        text: impl FnOnce(u32) -> io::Result<&'a [u8]>,
    ) -> io::Result<bool> {
        let Some(needle) = &self.needle else {
            return Ok(true);
        };
        match known.get_mut(number as usize) {
            Some(Some(fits)) => Ok(*fits),
            Some(unknown) => Ok(*unknown.insert(needle.is_in(text(number)?))),
            None => Ok(false),
        }
    }

    fn in_block(&self, candidate: &Candidate) -> io::Result<Vec<Hit>> {
        let mut reader = Reader::open(candidate.bytes.clone())?;
        let mut found = Vec::new();
        for &(database, since) in &self.wanted {
            if let Some(group) = reader.head.group(database)
                && self.may_be_in_group(group, since)
            {
                reader.entries(group, |entry| {
                    if self.fits(&entry, since) {
                        found.push(entry);
                    }
                })?;
            }
        }
        if self.needle.is_some() {
            let mut known = vec![None; reader.texts()];
            let mut fitting = Vec::new();
            for entry in found {
                if self.text_fits(entry.text, &mut known, |text| Ok(reader.text(text)?.0))? {
                    fitting.push(entry);
                }
            }
            found = fitting;
        }
        found.sort_by_key(|it| std::cmp::Reverse(it.ended_at_us));
        let reader = Arc::new(Mutex::new(reader));
        let hit = |entry: Entry| Hit {
            ended_at_us: entry.ended_at_us,
            what: What::InBlock(entry, Arc::clone(&reader)),
        };
        Ok(found.into_iter().map(hit).collect())
    }

    /// A damaged block costs its own entries only.
    fn in_block_if_whole(&self, candidate: &Candidate) -> io::Result<Vec<Hit>> {
        match self.in_block(candidate) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, offset = candidate.bytes.offset, "entries of the query log cannot be read");
                Ok(Vec::new())
            }
            other => other,
        }
    }

    fn in_blocks(&self, candidates: &[Candidate]) -> io::Result<Vec<Hit>> {
        let [first, others @ ..] = candidates else {
            return Ok(Vec::new());
        };
        thread::scope(|scope| {
            let others: Vec<_> = others
                .iter()
                .map(|it| scope.spawn(|| self.in_block_if_whole(it)))
                .collect();
            let mut hits = self.in_block_if_whole(first)?;
            for other in others {
                let found = other
                    .join()
                    .map_err(|_| io::Error::other("a search of the query log has panicked"))?;
                hits.extend(found?);
            }
            Ok(hits)
        })
    }

    /// The page. Workers end statements at the same time, so what two blocks hold overlaps a little: an entry is shown
    /// when no block that is still to be read can hold a later one.
    pub(super) fn run(&self, gathered: Vec<Hit>, candidates: &[Candidate]) -> io::Result<LogPage> {
        let mut page = Page {
            skip: self.skip,
            limit: self.limit,
            page: LogPage::default(),
        };
        let mut pending = gathered;
        let mut rest = candidates;
        let mut at_a_time = 1;
        loop {
            pending.sort_by_key(|it| it.ended_at_us);
            let next = rest.first().map_or(0, |it| it.latest_us);
            while pending.last().is_some_and(|it| it.ended_at_us >= next) {
                if let Some(hit) = pending.pop()
                    && !page.take(hit)?
                {
                    return Ok(page.page);
                }
            }
            if rest.is_empty() {
                return Ok(page.page);
            }
            let (now, later) = rest.split_at(at_a_time.min(rest.len()));
            pending.extend(self.in_blocks(now)?);
            rest = later;
            at_a_time = AT_A_TIME;
        }
    }
}

/// A block that may hold answers.
pub(super) struct Candidate {
    latest_us: u64,
    bytes: InFile,
}

/// An answer.
pub(super) struct Hit {
    ended_at_us: u64,
    what: What,
}

enum What {
    Gathered(LogEntry),
    InBlock(Entry, Arc<Mutex<Reader<InFile>>>),
}

impl What {
    fn shown(self) -> io::Result<LogEntry> {
        match self {
            Self::Gathered(entry) => Ok(entry),
            Self::InBlock(entry, reader) => Ok(shown(&entry, lock(&reader).text(entry.text)?)),
        }
    }
}

struct Page {
    skip: u64,
    limit: usize,
    page: LogPage,
}

impl Page {
    /// Whether more are wanted.
    fn take(&mut self, hit: Hit) -> io::Result<bool> {
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.page.entries.len() < self.limit {
            self.page.entries.push(hit.what.shown()?);
        } else {
            self.page.has_more = true;
            return Ok(false);
        }
        Ok(true)
    }
}

fn shown(entry: &Entry, (text, cut): (&[u8], bool)) -> LogEntry {
    let mut query = String::from_utf8_lossy(text).into_owned();
    if cut {
        query.push('…');
    }
    LogEntry {
        database: entry.database,
        query,
        source: entry.source,
        at: time(entry.ended_at_us),
        duration: std::time::Duration::from_nanos(entry.duration_ns),
        error_code: entry.error_code.map(|code| code.to_string()),
        rows: entry.rows,
    }
}
