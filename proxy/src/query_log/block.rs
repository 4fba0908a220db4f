//! Blocks: many entries, apart by database, with an index. See FORMAT.md.
//!
//! A question about one database reads the block's head, that database's entries and the texts they name, and nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use ahash::AHashMap;
use control_store::DatabaseId;
use control_store::logs::Source;

use super::codec::{Cursor, SUM, checksum, put_difference, put_varint};
use super::counters::Totals;
use super::entry::{Before, Entry, Texts, put_text, take_text};
use super::search::Needle;

/// Lengths of head and data, and the head's checksum.
pub(super) const PREFIX: usize = 4 + 4 + SUM;
/// A longer head or longer data is damage.
const MAX_PART: u32 = 1 << 30;
/// Texts are packed in chunks of about this size, the reach of LZ4.
const CHUNK_BYTES: usize = 64 << 10;
/// No chunk is larger when unpacked: it ends behind the text that fills it.
const MAX_CHUNK: u32 = 64 << 20;

/// What a block was filled with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// The last journal batch whose entries and counts are in it.
    pub(super) last_batch: u64,
    /// The counts are of statements counted after this (µs since 1970) …
    pub(super) from_us: u64,
    /// … up to this.
    pub(super) until_us: u64,
}

/// What a block holds of one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) database: DatabaseId,
    /// Exact, also for entries that were dropped.
    pub(super) counts: Totals,
    pub(super) entries: u64,
    pub(super) failed: u64,
    pub(super) from_api: u64,
    /// Of the entries' ends, as the next one.
    pub(super) earliest_us: u64,
    pub(super) latest_us: u64,
    pub(super) longest_ns: u64,
    piece: Piece,
}

impl Group {
    /// Whether entries are from there.
    pub(super) const fn has_source(&self, source: Source) -> bool {
        match source {
            Source::Api => self.from_api > 0,
            Source::Proxy => self.entries > self.from_api,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    first_text: u32,
    texts: u32,
    unpacked: u32,
    piece: Piece,
}

/// Some bytes of a block's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    at: u64,
    len: u32,
    sum: [u8; 4],
}

fn short_sum(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = checksum(bytes);
    [a, b, c, d]
}

/// A block's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) span: Span,
    /// By database, ascending.
    pub(super) groups: Vec<Group>,
    chunks: Vec<Chunk>,
}

impl Head {
    /// What it says of that database.
    pub(super) fn group(&self, database: DatabaseId) -> Option<&Group> {
        let place = self
            .groups
            .binary_search_by_key(&database, |it| it.database)
            .ok()?;
        self.groups.get(place)
    }

    /// Reads a head whose checksum is right. `data`: how many bytes of data belong to it.
    pub(super) fn decode(bytes: &[u8], data: u32) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let last_batch = cursor.varint()?;
        let from_us = cursor.varint()?;
        let until_us = from_us.checked_add(cursor.varint()?)?;
        let mut head = Self {
            span: Span {
                last_batch,
                from_us,
                until_us,
            },
            groups: Vec::new(),
            chunks: Vec::new(),
        };
        let mut at = 0;
        let mut before = None;
        for _ in 0..cursor.varint()? {
            let group = take_group(&mut cursor, before, &mut at)?;
            before = Some(group.database.0);
            head.groups.push(group);
        }
        let mut first_text = 0_u32;
        for _ in 0..cursor.varint()? {
            let chunk = take_chunk(&mut cursor, first_text, &mut at)?;
            first_text = first_text.checked_add(chunk.texts)?;
            head.chunks.push(chunk);
        }
        (cursor.is_empty() && at == u64::from(data)).then_some(head)
    }
}

fn put_group(out: &mut Vec<u8>, group: &Group, before: Option<u64>) {
    // Ascending and distinct: the step above the one before suffices.
    let id = group.database.0;
    put_varint(out, before.map_or(id, |before| id - before - 1));
    group.counts.put(out);
    put_varint(out, group.entries);
    if group.entries == 0 {
        return;
    }
    put_varint(out, group.failed);
    put_varint(out, group.from_api);
    put_varint(out, group.earliest_us);
    put_varint(out, group.latest_us - group.earliest_us);
    put_varint(out, group.longest_ns);
    put_varint(out, u64::from(group.piece.len));
    out.extend_from_slice(&group.piece.sum);
}

fn take_group(cursor: &mut Cursor<'_>, before: Option<u64>, at: &mut u64) -> Option<Group> {
    let step = cursor.varint()?;
    let id = match before {
        Some(before) => before.checked_add(1)?.checked_add(step)?,
        None => step,
    };
    let mut group = Group {
        database: DatabaseId(id),
        counts: Totals::take(cursor)?,
        entries: cursor.varint()?,
        failed: 0,
        from_api: 0,
        earliest_us: 0,
        latest_us: 0,
        longest_ns: 0,
        piece: Piece {
            at: *at,
            len: 0,
            sum: [0; 4],
        },
    };
    if group.entries > 0 {
        group.failed = cursor.varint()?;
        group.from_api = cursor.varint()?;
        group.earliest_us = cursor.varint()?;
        group.latest_us = group.earliest_us.checked_add(cursor.varint()?)?;
        group.longest_ns = cursor.varint()?;
        group.piece = take_piece(cursor, at)?;
    }
    Some(group)
}

fn take_chunk(cursor: &mut Cursor<'_>, first_text: u32, at: &mut u64) -> Option<Chunk> {
    let texts = u32::try_from(cursor.varint()?).ok()?;
    let unpacked = u32::try_from(cursor.varint()?).ok()?;
    let piece = take_piece(cursor, at)?;
    (unpacked <= MAX_CHUNK).then_some(Chunk {
        first_text,
        texts,
        unpacked,
        piece,
    })
}

fn take_piece(cursor: &mut Cursor<'_>, at: &mut u64) -> Option<Piece> {
    let piece = Piece {
        at: *at,
        len: u32::try_from(cursor.varint()?).ok()?,
        sum: cursor.array()?,
    };
    *at = at.checked_add(u64::from(piece.len))?;
    Some(piece)
}

/// Makes a block. Sorts the entries by database and end.
pub(super) fn encode(
    span: Span,
    entries: &mut [Entry],
    texts: &Texts,
    counts: &AHashMap<DatabaseId, Totals>,
) -> io::Result<Vec<u8>> {
    entries.sort_by_key(|it| (it.database, it.ended_at_us));
    let (numbers, order) = renumbered(entries, texts.len());
    let mut data = Vec::with_capacity(entries.len() * 12);
    let mut groups = encode_groups(entries, &numbers, &mut data)?;
    add_counts(&mut groups, counts)?;
    groups.sort_by_key(|it| it.database);
    let chunks = encode_chunks(&order, texts, &mut data)?;

    let mut head = Vec::with_capacity(groups.len() * 40 + chunks.len() * 12 + 32);
    put_varint(&mut head, span.last_batch);
    put_varint(&mut head, span.from_us);
    put_varint(&mut head, span.until_us.saturating_sub(span.from_us));
    put_varint(&mut head, groups.len() as u64);
    let mut before = None;
    for group in &groups {
        put_group(&mut head, group, before);
        before = Some(group.database.0);
    }
    put_varint(&mut head, chunks.len() as u64);
    for chunk in &chunks {
        put_varint(&mut head, u64::from(chunk.texts));
        put_varint(&mut head, u64::from(chunk.unpacked));
        put_varint(&mut head, u64::from(chunk.piece.len));
        head.extend_from_slice(&chunk.piece.sum);
    }
    let (head_len, data_len) = (short(head.len())?, short(data.len())?);
    Ok([
        &head_len.to_le_bytes()[..],
        &data_len.to_le_bytes(),
        &prefix_sum(head_len, data_len, &head),
        &head,
        &data,
    ]
    .concat())
}

fn short(len: usize) -> io::Result<u32> {
    u32::try_from(len)
        .ok()
        .filter(|len| *len <= MAX_PART)
        .ok_or_else(|| io::Error::other("a block of the query log is too large"))
}

fn prefix_sum(head_len: u32, data_len: u32, head: &[u8]) -> [u8; SUM] {
    let summed = [&head_len.to_le_bytes()[..], &data_len.to_le_bytes(), head].concat();
    checksum(&summed)
}

/// Gives the texts numbers by database, those of several databases first, so that each database's texts lie together.
/// Returns the new number of each text, and the old numbers in the new order; texts that nobody names are left out.
fn renumbered(entries: &[Entry], texts: usize) -> (Vec<u32>, Vec<u32>) {
    let mut owners: Vec<Option<DatabaseId>> = vec![None; texts];
    let mut shared = vec![false; texts];
    for entry in entries {
        let text = entry.text as usize;
        if let (Some(owner), Some(shared)) = (owners.get_mut(text), shared.get_mut(text)) {
            *shared |= *owner.get_or_insert(entry.database) != entry.database;
        }
    }
    let mut numbers = vec![u32::MAX; texts];
    let mut order = Vec::new();
    for pass in [true, false] {
        for entry in entries {
            let text = entry.text as usize;
            if shared.get(text) == Some(&pass)
                && let Some(number) = numbers.get_mut(text)
                && *number == u32::MAX
            {
                *number = u32::try_from(order.len()).unwrap_or(u32::MAX);
                order.push(entry.text);
            }
        }
    }
    (numbers, order)
}

fn encode_groups(entries: &[Entry], numbers: &[u32], data: &mut Vec<u8>) -> io::Result<Vec<Group>> {
    let mut groups = Vec::new();
    for run in entries.chunk_by(|a, b| a.database == b.database) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let at = data.len();
        let mut before = Before {
            ended_at_us: first.ended_at_us,
            text: 0,
        };
        for entry in run {
            let text = numbers.get(entry.text as usize).copied();
            Entry {
                text: text.unwrap_or(u32::MAX),
                ..*entry
            }
            .put(data, &mut before);
        }
        groups.push(Group {
            database: first.database,
            counts: Totals::default(),
            entries: run.len() as u64,
            failed: run.iter().filter(|it| it.error_code.is_some()).count() as u64,
            from_api: run.iter().filter(|it| it.source == Source::Api).count() as u64,
            earliest_us: first.ended_at_us,
            latest_us: last.ended_at_us,
            longest_ns: run.iter().map(|it| it.duration_ns).max().unwrap_or(0),
            piece: piece_of(data, at)?,
        });
    }
    Ok(groups)
}

/// Puts the counts into the groups; a database of which no entry was kept gets a group for them alone.
fn add_counts(groups: &mut Vec<Group>, counts: &AHashMap<DatabaseId, Totals>) -> io::Result<()> {
    let kept = groups.len();
    for (&database, &counts) in counts {
        let with_entries = groups.get_mut(..kept).unwrap_or_default();
        match with_entries.binary_search_by_key(&database, |it| it.database) {
            Ok(place) => {
                if let Some(group) = with_entries.get_mut(place) {
                    group.counts = counts;
                }
            }
            Err(_) if counts == Totals::default() => {}
            Err(_) => groups.push(Group {
                database,
                counts,
                entries: 0,
                failed: 0,
                from_api: 0,
                earliest_us: 0,
                latest_us: 0,
                longest_ns: 0,
                piece: piece_of(&[], 0)?,
            }),
        }
    }
    Ok(())
}

fn encode_chunks(order: &[u32], texts: &Texts, data: &mut Vec<u8>) -> io::Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let mut plain = Vec::with_capacity(CHUNK_BYTES + 8 * 1024);
    let mut first_text = 0;
    for (number, &text) in (1_u32..).zip(order) {
        put_text(&mut plain, texts.get(text));
        if plain.len() < CHUNK_BYTES && (number as usize) < order.len() {
            continue;
        }
        let at = data.len();
        data.extend_from_slice(&lz4_flex::block::compress(&plain));
        chunks.push(Chunk {
            first_text,
            texts: number - first_text,
            unpacked: short(plain.len())?,
            piece: piece_of(data, at)?,
        });
        first_text = number;
        plain.clear();
    }
    Ok(chunks)
}

fn piece_of(data: &[u8], at: usize) -> io::Result<Piece> {
    let bytes = data.get(at..).unwrap_or_default();
    Ok(Piece {
        at: at as u64,
        len: short(bytes.len())?,
        sum: short_sum(bytes),
    })
}

/// The lengths of head and data that a block's first bytes name.
pub(super) fn lengths(prefix: &[u8; PREFIX]) -> Option<(u32, u32)> {
    let mut cursor = Cursor::new(prefix);
    let (head, data) = (cursor.u32()?, cursor.u32()?);
    (head <= MAX_PART && data <= MAX_PART).then_some((head, data))
}

/// The head behind those first bytes, if its checksum is right.
pub(super) fn checked_head(prefix: &[u8; PREFIX], head: &[u8]) -> Option<Head> {
    let (head_len, data_len) = lengths(prefix)?;
    let sum = prefix.last_chunk::<SUM>()?;
    (head.len() == head_len as usize && prefix_sum(head_len, data_len, head) == *sum)
        .then_some(())?;
    Head::decode(head, data_len)
}

/// What is kept in memory of each block.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    /// Where the block begins in its file.
    pub(super) offset: u64,
    pub(super) head_len: u32,
    pub(super) data_len: u32,
    pub(super) span: Span,
    pub(super) earliest_us: u64,
    pub(super) latest_us: u64,
    longest_ns: u64,
    failed: bool,
    from_api: bool,
    from_proxy: bool,
    /// Which databases have entries or counts in it: differences, ascending.
    databases: Box<[u8]>,
}

impl Summary {
    pub(super) fn new(head: &Head, offset: u64, head_len: u32, data_len: u32) -> Self {
        let mut databases = Vec::new();
        let mut before = 0;
        for group in &head.groups {
            put_difference(&mut databases, before, group.database.0);
            before = group.database.0;
        }
        let kept = || head.groups.iter().filter(|it| it.entries > 0);
        Self {
            offset,
            head_len,
            data_len,
            span: head.span,
            earliest_us: kept().map(|it| it.earliest_us).min().unwrap_or(u64::MAX),
            latest_us: kept().map(|it| it.latest_us).max().unwrap_or(0),
            longest_ns: kept().map(|it| it.longest_ns).max().unwrap_or(0),
            failed: kept().any(|it| it.failed > 0),
            from_api: kept().any(|it| it.has_source(Source::Api)),
            from_proxy: kept().any(|it| it.has_source(Source::Proxy)),
            databases: databases.into(),
        }
    }

    /// Bytes on disk.
    pub(super) fn len(&self) -> u64 {
        PREFIX as u64 + u64::from(self.head_len) + u64::from(self.data_len)
    }

    pub(super) const fn has_failures(&self) -> bool {
        self.failed
    }

    pub(super) const fn has_source(&self, source: Source) -> bool {
        match source {
            Source::Api => self.from_api,
            Source::Proxy => self.from_proxy,
        }
    }

    /// Whether entries took longer than that.
    pub(super) const fn has_longer(&self, ns: u64) -> bool {
        self.longest_ns > ns
    }

    /// The databases in it, ascending.
    pub(super) fn databases(&self) -> impl Iterator<Item = DatabaseId> {
        let mut cursor = Cursor::new(&self.databases);
        let mut before = 0;
        std::iter::from_fn(move || {
            before = cursor.difference(before)?;
            Some(DatabaseId(before))
        })
    }

    /// Whether one of these (sorted) databases is in it.
    pub(super) fn has_any(&self, sorted: &[DatabaseId]) -> bool {
        let mut wanted = sorted.iter().peekable();
        for here in self.databases() {
            while wanted.peek().is_some_and(|it| **it < here) {
                wanted.next();
            }
            match wanted.peek() {
                Some(it) if **it == here => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }
}

/// Where a block's bytes come from.
pub(super) trait Bytes {
    /// Reads `len` bytes, `at` bytes into the block.
    fn read(&self, at: u64, len: u32) -> io::Result<Vec<u8>>;
}

/// A block in a file.
#[derive(Clone, Debug)]
pub(super) struct InFile {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
}

impl Bytes for InFile {
    fn read(&self, at: u64, len: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, self.offset + at)?;
        Ok(bytes)
    }
}

impl Bytes for &[u8] {
    fn read(&self, at: u64, len: u32) -> io::Result<Vec<u8>> {
        usize::try_from(at)
            .ok()
            .and_then(|at| self.get(at..at.checked_add(len as usize)?))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Reads a block piece by piece, and checks each.
pub(super) struct Reader<B> {
    bytes: B,
    pub(super) head: Head,
    data_at: u64,
    chunks: Vec<Option<Unpacked>>,
}

/// A chunk's bytes, and where its texts are in them once one has been asked for.
struct Unpacked {
    plain: Vec<u8>,
    texts: Option<Vec<(usize, usize, bool)>>,
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a block of the query log is damaged",
    )
}

impl<B: Bytes> Reader<B> {
    /// Reads the head.
    pub(super) fn open(bytes: B) -> io::Result<Self> {
        let prefix: [u8; PREFIX] = bytes
            .read(0, u32::try_from(PREFIX).unwrap_or(0))?
            .try_into()
            .map_err(|_| damaged())?;
        let (head_len, _) = lengths(&prefix).ok_or_else(damaged)?;
        let head = bytes.read(PREFIX as u64, head_len)?;
        let head = checked_head(&prefix, &head).ok_or_else(damaged)?;
        let mut chunks = Vec::new();
        chunks.resize_with(head.chunks.len(), || None);
        Ok(Self {
            bytes,
            head,
            data_at: PREFIX as u64 + u64::from(head_len),
            chunks,
        })
    }

    fn piece(&self, piece: &Piece) -> io::Result<Vec<u8>> {
        let bytes = self.bytes.read(self.data_at + piece.at, piece.len)?;
        if short_sum(&bytes) == piece.sum {
            Ok(bytes)
        } else {
            Err(damaged())
        }
    }

    /// Hands over the entries of a group, oldest first.
    pub(super) fn entries(&self, group: &Group, mut take: impl FnMut(Entry)) -> io::Result<()> {
        if group.entries == 0 {
            return Ok(());
        }
        let bytes = self.piece(&group.piece)?;
        let mut cursor = Cursor::new(&bytes);
        let mut before = Before {
            ended_at_us: group.earliest_us,
            text: 0,
        };
        while !cursor.is_empty() {
            let entry = Entry::take(&mut cursor, group.database, &mut before);
            take(entry.ok_or_else(damaged)?);
        }
        Ok(())
    }

    /// A text, and whether it was cut.
    pub(super) fn text(&mut self, number: u32) -> io::Result<(&[u8], bool)> {
        let place = self.place_of(number)?;
        let chunk = self.head.chunks.get(place).ok_or_else(damaged)?;
        let (first, count) = (chunk.first_text, chunk.texts);
        let unpacked = self.unpacked(place)?;
        if unpacked.texts.is_none() {
            unpacked.texts = Some(spans(&unpacked.plain, count).ok_or_else(damaged)?);
        }
        let spans = unpacked.texts.as_deref().unwrap_or_default();
        let (start, end, cut) = *spans.get((number - first) as usize).ok_or_else(damaged)?;
        Ok((unpacked.plain.get(start..end).unwrap_or_default(), cut))
    }

    /// The chunk that a text is in.
    fn place_of(&self, number: u32) -> io::Result<usize> {
        let chunks = &self.head.chunks;
        let after = chunks.partition_point(|it| it.first_text <= number);
        after.checked_sub(1).ok_or_else(damaged)
    }

    fn unpacked(&mut self, place: usize) -> io::Result<&mut Unpacked> {
        if self.chunks.get(place).is_some_and(Option::is_none) {
            let chunk = self.head.chunks.get(place).ok_or_else(damaged)?;
            let plain = unpack(&self.piece(&chunk.piece)?, chunk).ok_or_else(damaged)?;
            if let Some(slot) = self.chunks.get_mut(place) {
                *slot = Some(Unpacked { plain, texts: None });
            }
        }
        let slot = self.chunks.get_mut(place);
        slot.and_then(Option::as_mut).ok_or_else(damaged)
    }

    /// Which texts, of those that these entries name, hold the needle. A chunk is searched as a whole first: most hold none.
    pub(super) fn texts_with(
        &mut self,
        needle: &Needle,
        entries: &[Entry],
    ) -> io::Result<Vec<bool>> {
        let mut known = vec![false; self.texts()];
        let mut chunks: Vec<Option<bool>> = vec![None; self.head.chunks.len()];
        let mut looked = vec![false; known.len()];
        let mut last = (0, 0, 0); // Neighbours are mostly in one chunk.
        for entry in entries {
            let number = entry.text as usize;
            match looked.get_mut(number) {
                Some(looked) if *looked => continue,
                Some(looked) => *looked = true,
                None => return Err(damaged()),
            }
            if !(last.1..last.2).contains(&number) {
                let place = self.place_of(entry.text)?;
                let chunk = self.head.chunks.get(place).ok_or_else(damaged)?;
                let first = chunk.first_text as usize;
                last = (place, first, first + chunk.texts as usize);
            }
            let place = last.0;
            let may_be = match chunks.get(place).copied().flatten() {
                Some(known) => known,
                None => {
                    let found = needle.may_be_in(&self.unpacked(place)?.plain);
                    if let Some(chunk) = chunks.get_mut(place) {
                        *chunk = Some(found);
                    }
                    found
                }
            };
            if may_be && let Some(known) = known.get_mut(number) {
                *known = needle.is_in(self.text(entry.text)?.0);
            }
        }
        Ok(known)
    }

    /// How many texts there are.
    pub(super) fn texts(&self) -> usize {
        self.head
            .chunks
            .last()
            .map_or(0, |it| it.first_text as usize + it.texts as usize)
    }

    /// Reads and checks everything.
    pub(super) fn check(&mut self) -> io::Result<()> {
        for group in self.head.groups.clone() {
            let mut count = 0;
            let mut last_text = None;
            self.entries(&group, |entry| {
                count += 1;
                last_text = last_text.max(Some(entry.text));
            })?;
            if count != group.entries || last_text.is_some_and(|it| it as usize >= self.texts()) {
                return Err(damaged());
            }
        }
        for chunk in self.head.chunks.clone() {
            if chunk.texts > 0 {
                self.text(chunk.first_text)?;
            }
        }
        Ok(())
    }
}

impl<'a> Reader<&'a [u8]> {
    /// A block of this head and data, with the checksums put right: fuzzers do not guess them.
    pub(super) fn unsummed(head: &[u8], data: &'a [u8]) -> Option<Self> {
        let mut head = Head::decode(head, u32::try_from(data.len()).ok()?)?;
        let groups = head.groups.iter_mut().map(|it| &mut it.piece);
        for piece in groups.chain(head.chunks.iter_mut().map(|it| &mut it.piece)) {
            piece.sum = short_sum(&data.read(piece.at, piece.len).ok()?);
        }
        let mut chunks = Vec::new();
        chunks.resize_with(head.chunks.len(), || None);
        Some(Self {
            bytes: data,
            head,
            data_at: 0,
            chunks,
        })
    }
}

fn unpack(packed: &[u8], chunk: &Chunk) -> Option<Vec<u8>> {
    // LZ4 makes at most 255 bytes of one: what claims more is damage, and gets no memory.
    (chunk.unpacked as usize <= (packed.len() + 1).saturating_mul(255)).then_some(())?;
    lz4_flex::block::decompress(packed, chunk.unpacked as usize).ok()
}

/// Where so many texts are in a chunk that holds nothing else.
fn spans(plain: &[u8], count: u32) -> Option<Vec<(usize, usize, bool)>> {
    let mut cursor = Cursor::new(plain);
    let mut spans = Vec::new();
    for _ in 0..count {
        let (text, cut) = take_text(&mut cursor)?;
        let end = plain.len() - cursor.remaining();
        spans.push((end - text.len(), end, cut));
    }
    cursor.is_empty().then_some(spans)
}
