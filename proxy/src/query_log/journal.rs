//! The journal: what has gathered for the next block, batch by batch. See FORMAT.md.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ahash::AHashMap;
use control_store::DatabaseId;

use super::block::Span;
use super::codec::{Cursor, SUM, checksum, put_difference, put_varint};
use super::counters::Totals;
use super::entry::{Before, Entry, put_text, take_text};
use super::gathered::Gathered;
use super::totals::sync_folder;

const MAGIC: &[u8; 8] = b"TDBQJRN1";
const NAME: &str = "journal";
const PREFIX: usize = 4 + SUM;

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    len: u64,
    /// Batches that the disk did not take.
    owed: Vec<u8>,
}

impl Journal {
    /// Begins an empty journal.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(folder.join(NAME))?;
        file.write_all_at(MAGIC, 0)?;
        file.sync_all()?;
        sync_folder(folder)?;
        Ok(Self {
            file,
            len: MAGIC.len() as u64,
            owed: Vec::new(),
        })
    }

    /// Appends a batch and waits for the disk. What fails is tried again with the next one.
    pub(super) fn append(&mut self, batch: Vec<u8>) -> io::Result<()> {
        if self.owed.is_empty() {
            self.owed = batch;
        } else {
            self.owed.extend_from_slice(&batch);
        }
        if self.owed.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(&self.owed, self.len)?;
        self.file.sync_data()?;
        self.len += self.owed.len() as u64;
        self.owed = Vec::new();
        Ok(())
    }

    /// Begins anew: a block holds it all.
    pub(super) fn reset(&mut self) -> io::Result<()> {
        self.owed.clear();
        self.len = MAGIC.len() as u64;
        self.file.set_len(self.len)
    }
}

/// Encodes what came since the last batch; nothing if nothing came.
pub(super) fn batch(gathered: &mut Gathered) -> Vec<u8> {
    let (entries_done, texts_done) = gathered.journaled;
    let entries = gathered.entries.get(entries_done..).unwrap_or_default();
    if entries.is_empty() && gathered.new_counts.is_empty() {
        return Vec::new();
    }
    gathered.span.last_batch += 1;
    let span = gathered.span;
    let texts_bytes = gathered.texts.bytes_from(texts_done);
    let mut out = Vec::with_capacity(PREFIX + 64 + texts_bytes + 24 * entries.len());
    out.resize(PREFIX, 0);
    put_varint(&mut out, span.last_batch);
    put_varint(&mut out, span.from_us);
    put_varint(&mut out, span.until_us.saturating_sub(span.from_us));
    put_varint(&mut out, (gathered.texts.len() - texts_done) as u64);
    for number in texts_done..gathered.texts.len() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        put_text(&mut out, gathered.texts.get(number));
    }
    put_varint(&mut out, entries.len() as u64);
    let (mut before, mut database) = (Before::default(), 0);
    for entry in entries {
        put_difference(&mut out, database, entry.database.0);
        database = entry.database.0;
        entry.put(&mut out, &mut before);
    }
    put_varint(&mut out, gathered.new_counts.len() as u64);
    for (id, counts) in gathered.new_counts.drain() {
        put_varint(&mut out, id.0);
        counts.put(&mut out);
    }
    gathered.journaled = (gathered.entries.len(), gathered.texts.len());

    let body = out.get(PREFIX..).unwrap_or_default();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = checksum(body);
    for (to, from) in out.iter_mut().zip(len.into_iter().chain(sum)) {
        *to = from;
    }
    out
}

/// A journal of the batch that is due, and that batch's body.
pub(super) fn example(gathered: &mut Gathered) -> (Vec<u8>, Vec<u8>) {
    let batch = batch(gathered);
    let body = batch.get(PREFIX..).unwrap_or_default().to_vec();
    ([&MAGIC[..], &batch].concat(), body)
}

/// What a journal held.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// All of it, for one block.
    pub(super) gathered: Gathered,
    /// How many batches were whole.
    pub(super) batches: usize,
    /// Bytes behind the last whole batch.
    pub(super) torn: usize,
}

/// Reads the journal of a folder.
pub(super) fn load(folder: &Path, sealed: u64) -> io::Result<Read> {
    match fs::read(folder.join(NAME)) {
        Ok(bytes) => Ok(read(&bytes, sealed)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Read::default()),
        Err(error) => Err(error),
    }
}

/// Reads a journal up to where a crash cut it. Batches up to `sealed` are in a block already.
pub(super) fn read(bytes: &[u8], sealed: u64) -> Read {
    let mut read = Read::default();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        read.torn = bytes.len();
        return read;
    };
    while let Some((body, after)) = split(rest) {
        let known = read.gathered.span.last_batch.max(sealed);
        let Some(batch) = Batch::decode(body, known, read.gathered.texts.len()) else {
            break;
        };
        if batch.span.last_batch > known {
            batch.add_to(&mut read.gathered);
        }
        read.batches += 1;
        rest = after;
    }
    read.torn = rest.len();
    read
}

/// Whether a batch has this body.
pub(super) fn is_batch(body: &[u8]) -> bool {
    Batch::decode(body, 0, 0).is_some()
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut cursor = Cursor::new(bytes);
    let len = cursor.u32()?;
    let sum = cursor.array::<SUM>()?;
    let body = cursor.take(len as usize)?;
    (checksum(body) == sum).then(|| (body, bytes.get(PREFIX + body.len()..).unwrap_or_default()))
}

struct Batch<'a> {
    span: Span,
    texts: Vec<(&'a [u8], bool)>,
    entries: Vec<Entry>,
    counts: AHashMap<DatabaseId, Totals>,
}

impl<'a> Batch<'a> {
    /// `known`: the batch before, or the last that a block holds. `texts`: how many texts came before.
    fn decode(body: &'a [u8], known: u64, texts: usize) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        let last_batch = cursor.varint()?;
        let from_us = cursor.varint()?;
        let until_us = from_us.checked_add(cursor.varint()?)?;
        let mut batch = Self {
            span: Span {
                last_batch,
                from_us,
                until_us,
            },
            texts: Vec::new(),
            entries: Vec::new(),
            counts: AHashMap::new(),
        };
        if last_batch <= known {
            return Some(batch);
        }
        for _ in 0..cursor.varint()? {
            batch.texts.push(take_text(&mut cursor)?);
        }
        let texts = texts + batch.texts.len();
        let (mut before, mut database) = (Before::default(), 0);
        for _ in 0..cursor.varint()? {
            database = cursor.difference(database)?;
            let entry = Entry::take(&mut cursor, DatabaseId(database), &mut before)?;
            ((entry.text as usize) < texts).then_some(())?;
            batch.entries.push(entry);
        }
        for _ in 0..cursor.varint()? {
            let id = DatabaseId(cursor.varint()?);
            batch.counts.insert(id, Totals::take(&mut cursor)?);
        }
        cursor.is_empty().then_some(batch)
    }

    fn add_to(self, gathered: &mut Gathered) {
        if gathered.span.last_batch == 0 {
            gathered.span.from_us = self.span.from_us;
        }
        gathered.span.last_batch = self.span.last_batch;
        gathered.span.until_us = self.span.until_us;
        for (text, cut) in self.texts {
            gathered.texts.push(text, cut);
        }
        gathered.entries.extend(self.entries);
        for (id, counts) in &self.counts {
            gathered.count(*id, counts);
        }
    }
}
