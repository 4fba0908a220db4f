//! Finds entries, newest first.

use std::io;
use std::sync::Arc;
use std::thread;

use control_store::DatabaseId;
use control_store::logs::{LogEntry, LogFilter, LogPage};

use super::block::{Group, InFile, Reader, Summary};
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
                self.fits(entry, since) && self.text_fits(entry.text, &mut known, gathered)
            })
            .collect();
        found.sort_by_key(|it| std::cmp::Reverse(it.ended_at_us));
        found.truncate(self.reach());
        let shown = |entry: &&Entry| {
            let shown = shown(entry, gathered.texts.get(entry.text));
            Hit::Gathered(Box::new(shown), entry.ended_at_us)
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
    fn text_fits(&self, number: u32, known: &mut [Option<bool>], gathered: &Gathered) -> bool {
        let (Some(needle), Some(known)) = (&self.needle, known.get_mut(number as usize)) else {
            return self.needle.is_none();
        };
        *known.get_or_insert_with(|| needle.is_in(gathered.texts.get(number).0))
    }

    /// A block's answers, oldest first.
    fn in_block(&self, candidate: &Candidate) -> io::Result<Found> {
        let mut reader = Reader::open(candidate.bytes.clone())?;
        let mut entries = Vec::new();
        for &(database, since) in &self.wanted {
            if let Some(group) = reader.head.group(database)
                && self.may_be_in_group(group, since)
            {
                reader.entries(group, |entry| {
                    if self.fits(&entry, since) {
                        entries.push(entry);
                    }
                })?;
            }
        }
        if let Some(needle) = &self.needle {
            let fits = reader.texts_with(needle, &entries)?;
            entries.retain(|it| fits.get(it.text as usize) == Some(&true));
        }
        if self.wanted.len() > 1 {
            entries.sort_by_key(|it| it.ended_at_us);
        }
        Ok(Some((reader, entries)))
    }

    /// A damaged block costs its own entries only.
    fn in_block_if_whole(&self, candidate: &Candidate) -> io::Result<Found> {
        match self.in_block(candidate) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, offset = candidate.bytes.offset, "entries of the query log cannot be read");
                Ok(None)
            }
            other => other,
        }
    }

    fn in_blocks(&self, candidates: &[Candidate]) -> io::Result<Vec<Found>> {
        let [first, others @ ..] = candidates else {
            return Ok(Vec::new());
        };
        thread::scope(|scope| {
            let others: Vec<_> = others
                .iter()
                .map(|it| scope.spawn(|| self.in_block_if_whole(it)))
                .collect();
            let mut all = vec![self.in_block_if_whole(first)?];
            for other in others {
                let found = other
                    .join()
                    .map_err(|_| io::Error::other("a search of the query log has panicked"))?;
                all.push(found?);
            }
            Ok(all)
        })
    }

    /// The page. Workers end statements at the same time, so what two blocks hold overlaps a little: an entry is shown
    /// when no block that is still to be read can hold a later one.
    pub(super) fn run(&self, gathered: Vec<Hit>, candidates: &[Candidate]) -> io::Result<LogPage> {
        let mut page = Page {
            skip: self.skip,
            limit: self.limit,
            readers: Vec::new(),
            page: LogPage::default(),
        };
        let mut pending = gathered;
        let mut rest = candidates;
        let mut at_a_time = 1;
        loop {
            pending.sort_by_key(Hit::ended_at_us);
            let next = rest.first().map_or(0, |it| it.latest_us);
            let later = pending.partition_point(|it| it.ended_at_us() < next);
            if !page.take(&mut pending, later)? || rest.is_empty() {
                return Ok(page.page);
            }
            let (now, later) = rest.split_at(at_a_time.min(rest.len()));
            for (reader, entries) in self.in_blocks(now)?.into_iter().flatten() {
                let place = page.readers.len();
                page.readers.push(reader);
                pending.extend(entries.into_iter().map(|it| Hit::InBlock(it, place)));
            }
            rest = later;
            at_a_time = AT_A_TIME;
        }
    }
}

/// A block and its answers; `None` if it is damaged.
type Found = Option<(Reader<InFile>, Vec<Entry>)>;

/// A block that may hold answers.
pub(super) struct Candidate {
    latest_us: u64,
    bytes: InFile,
}

/// An answer.
pub(super) enum Hit {
    Gathered(Box<LogEntry>, u64),
    /// With the number of its block's reader.
    InBlock(Entry, usize),
}

impl Hit {
    fn ended_at_us(&self) -> u64 {
        match self {
            Self::Gathered(_, ended_at_us) => *ended_at_us,
            Self::InBlock(entry, _) => entry.ended_at_us,
        }
    }
}

struct Page {
    skip: u64,
    limit: usize,
    readers: Vec<Reader<InFile>>,
    page: LogPage,
}

impl Page {
    /// Takes the hits from that place on, the last first. Says whether more are wanted.
    fn take(&mut self, hits: &mut Vec<Hit>, from: usize) -> io::Result<bool> {
        let ready = hits.len() - from;
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(ready);
        self.skip -= skipped as u64;
        hits.truncate(hits.len() - skipped);
        while hits.len() > from
            && let Some(hit) = hits.pop()
        {
            if self.page.entries.len() >= self.limit {
                self.page.has_more = true;
                return Ok(false);
            }
            match self.shown(hit) {
                Ok(shown) => self.page.entries.push(shown),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(%error, "an entry of the query log cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        if hits.is_empty() {
            self.readers.clear();
        }
        Ok(true)
    }

    fn shown(&mut self, hit: Hit) -> io::Result<LogEntry> {
        match hit {
            Hit::Gathered(entry, _) => Ok(*entry),
            Hit::InBlock(entry, reader) => {
                let reader = self
                    .readers
                    .get_mut(reader)
                    .ok_or_else(|| io::Error::other("no reader of that block"))?;
                Ok(shown(&entry, reader.text(entry.text)?))
            }
        }
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
