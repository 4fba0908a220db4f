//! Blocks of entries, and the files they stand in. See FORMAT.md.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control_store::DatabaseId;
use control_store::logs::Source;

use super::codec::{Cursor, SUM, checksum, put_difference, put_varint};
use super::record::ErrorCode;

const MAGIC: &[u8; 8] = b"TDBQLOG1";
const HEAD: usize = 4 + SUM;
/// A block is never longer: a length beyond it is damage.
const MAX_BLOCK: u32 = 256 << 20;

const SOME_FAILED: u8 = 1;
const SOME_FROM_API: u8 = 2;
const SOME_FROM_PROXY: u8 = 4;
const FROM_API: u8 = 1;
const FAILED: u8 = 2;

/// An entry on its way to or from the disk. `text` is a place in the block's texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) database: DatabaseId,
    pub(super) ended_at_us: u64,
    pub(super) duration_ns: u64,
    pub(super) rows: u64,
    pub(super) source: Source,
    pub(super) error_code: Option<ErrorCode>,
    pub(super) text: u32,
}

/// Entries and the texts that they share.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    pub(super) texts: Vec<(Box<[u8]>, bool)>,
    places: HashMap<(Box<[u8]>, bool), u32, ahash::RandomState>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The place of a text; equal texts have one place.
    pub(super) fn text(&mut self, text: &[u8], cut: bool) -> u32 {
        let key = (Box::from(text), cut);
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let place = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push(key.clone());
        self.places.insert(key, place);
        place
    }

    /// The block with these entries.
    pub(super) fn encode(&mut self) -> Vec<u8> {
        self.entries.sort_by_key(|entry| entry.ended_at_us);
        let mut databases: Vec<DatabaseId> = self.entries.iter().map(|it| it.database).collect();
        databases.sort_unstable();
        databases.dedup();
        let payload = self.payload(&databases);
        let index = self.index(&databases);
        let packed = lz4_flex::block::compress(&payload);
        let mut body = Vec::with_capacity(index.len() + packed.len() + 16);
        put_varint(&mut body, index.len() as u64);
        body.extend_from_slice(&index);
        let raw = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        body.extend_from_slice(&raw.to_le_bytes());
        body.extend_from_slice(&packed);
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        [&len.to_le_bytes()[..], &checksum(&body), &body].concat()
    }

    fn index(&self, databases: &[DatabaseId]) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + databases.len() * 2);
        let ends = |entry: Option<&Entry>| entry.map_or(0, |it| it.ended_at_us);
        put_varint(&mut out, self.entries.len() as u64);
        put_varint(&mut out, ends(self.entries.first()));
        put_varint(&mut out, ends(self.entries.last()));
        let flags = self.entries.iter().fold(0, |flags, entry| {
            let failed = if entry.error_code.is_some() {
                SOME_FAILED
            } else {
                0
            };
            let from = match entry.source {
                Source::Api => SOME_FROM_API,
                Source::Proxy => SOME_FROM_PROXY,
            };
            flags | failed | from
        });
        out.push(flags);
        let longest = self.entries.iter().map(|it| it.duration_ns).max();
        put_varint(&mut out, longest.unwrap_or(0));
        put_varint(&mut out, databases.len() as u64);
        let mut before = 0;
        for database in databases {
            put_difference(&mut out, before, database.0);
            before = database.0;
        }
        out
    }

    fn payload(&self, databases: &[DatabaseId]) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 * 1024);
        put_varint(&mut out, self.texts.len() as u64);
        for (text, cut) in &self.texts {
            put_varint(&mut out, text.len() as u64);
            out.push(u8::from(*cut));
            out.extend_from_slice(text);
        }
        let mut before = 0;
        for entry in &self.entries {
            let database = databases.binary_search(&entry.database).unwrap_or(0);
            put_varint(&mut out, database as u64);
            put_difference(&mut out, before, entry.ended_at_us);
            before = entry.ended_at_us;
            put_varint(&mut out, entry.duration_ns);
            put_varint(&mut out, entry.rows);
            let api = if entry.source == Source::Api {
                FROM_API
            } else {
                0
            };
            out.push(
                api | if entry.error_code.is_some() {
                    FAILED
                } else {
                    0
                },
            );
            if let Some(code) = &entry.error_code {
                let code = code.as_bytes();
                out.push(u8::try_from(code.len()).unwrap_or(0));
                out.extend_from_slice(code);
            }
            put_varint(&mut out, u64::from(entry.text));
        }
        out
    }
}

/// What is known of a block without unpacking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BlockIndex {
    pub(super) count: u64,
    pub(super) earliest_us: u64,
    pub(super) latest_us: u64,
    flags: u8,
    pub(super) longest_ns: u64,
    pub(super) databases: Vec<DatabaseId>,
}

impl BlockIndex {
    pub(super) const fn has_failures(&self) -> bool {
        self.flags & SOME_FAILED != 0
    }

    pub(super) const fn has_source(&self, source: Source) -> bool {
        let flag = match source {
            Source::Api => SOME_FROM_API,
            Source::Proxy => SOME_FROM_PROXY,
        };
        self.flags & flag != 0
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let mut index = Self {
            count: cursor.varint()?,
            earliest_us: cursor.varint()?,
            latest_us: cursor.varint()?,
            flags: cursor.byte()?,
            longest_ns: cursor.varint()?,
            databases: Vec::new(),
        };
        let mut before = 0;
        for _ in 0..cursor.varint()? {
            before = cursor.difference(before)?;
            index.databases.push(DatabaseId(before));
        }
        cursor.is_empty().then_some(index)
    }
}

/// A block's contents.
pub(super) struct Unpacked {
    pub(super) entries: Vec<Entry>,
    payload: Vec<u8>,
    texts: Vec<(usize, usize, bool)>,
}

impl Unpacked {
    pub(super) fn text(&self, place: u32) -> (&[u8], bool) {
        self.texts
            .get(place as usize)
            .and_then(|(start, end, cut)| Some((self.payload.get(*start..*end)?, *cut)))
            .unwrap_or_default()
    }

    pub(super) fn texts(&self) -> usize {
        self.texts.len()
    }

    fn decode(payload: Vec<u8>, databases: &[DatabaseId]) -> Option<Self> {
        let mut cursor = Cursor::new(&payload);
        let total = payload.len();
        let at = |cursor: &Cursor<'_>| total - cursor.remaining();
        let mut texts = Vec::new();
        for _ in 0..cursor.varint()? {
            let len = cursor.length()?;
            let cut = cursor.byte()? != 0;
            let start = at(&cursor);
            cursor.take(len)?;
            texts.push((start, start + len, cut));
        }
        let mut entries = Vec::new();
        let mut before = 0;
        while !cursor.is_empty() {
            let database = *databases.get(cursor.length()?)?;
            before = cursor.difference(before)?;
            let (duration_ns, rows) = (cursor.varint()?, cursor.varint()?);
            let flags = cursor.byte()?;
            let error_code = if flags & FAILED == 0 {
                None
            } else {
                let len = usize::from(cursor.byte()?);
                Some(ErrorCode::new(cursor.take(len)?))
            };
            entries.push(Entry {
                database,
                ended_at_us: before,
                duration_ns,
                rows,
                source: if flags & FROM_API == 0 {
                    Source::Proxy
                } else {
                    Source::Api
                },
                error_code,
                text: u32::try_from(cursor.varint()?).ok()?,
            });
        }
        Some(Self {
            entries,
            payload,
            texts,
        })
    }
}

/// Reads a block's body, whose checksum is right.
fn split_body(body: &[u8]) -> Option<(BlockIndex, u32, &[u8])> {
    let mut cursor = Cursor::new(body);
    let len = cursor.length()?;
    let index = BlockIndex::decode(cursor.take(len)?)?;
    let raw = cursor.u32()?;
    let packed = cursor.take(cursor.remaining())?;
    Some((index, raw, packed))
}

/// A block in a segment.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) index: Arc<BlockIndex>,
    pub(super) offset: u64,
    len: u32,
}

/// One file of the log.
pub(super) struct Segment {
    pub(super) number: u64,
    path: PathBuf,
    file: File,
    pub(super) blocks: Vec<Block>,
    /// Bytes of whole blocks, and the magic.
    pub(super) len: u64,
}

impl Segment {
    /// Makes a new file.
    pub(super) fn create(folder: &Path, number: u64) -> io::Result<Self> {
        let path = folder.join(format!("{number:08}.log"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.write_all(MAGIC)?;
        Ok(Self {
            number,
            path,
            file,
            blocks: Vec::new(),
            len: MAGIC.len() as u64,
        })
    }

    /// Opens a file, and cuts off what a crash has left half written.
    pub(super) fn open(path: PathBuf, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let bytes = fs::read(&path)?;
        let mut segment = Self {
            number,
            path,
            file,
            blocks: Vec::new(),
            len: MAGIC.len() as u64,
        };
        if !bytes.starts_with(MAGIC) {
            if bytes.len() >= MAGIC.len() {
                return Err(io::Error::other(format!(
                    "{} is not a query log of this version",
                    segment.path.display()
                )));
            }
            segment.file.set_len(0)?;
            segment.file.write_all_at(MAGIC, 0)?;
            return Ok(segment);
        }
        let mut at = MAGIC.len();
        while let Some((block, next)) = read_block(&bytes, at) {
            segment.blocks.push(block);
            at = next;
        }
        segment.len = at as u64;
        if at < bytes.len() {
            let lost = bytes.len() - at;
            tracing::warn!(
                bytes = lost,
                "the query log was cut by a crash: statements of its last second are lost"
            );
            segment.file.set_len(segment.len)?;
        }
        Ok(segment)
    }

    /// Appends a block. It is on disk after [`Segment::sync`].
    pub(super) fn append(&mut self, encoded: &[u8]) -> io::Result<()> {
        let Some((mut block, _)) = read_block(encoded, 0) else {
            return Err(io::Error::other("a block of the query log is too large"));
        };
        self.file.write_all_at(encoded, self.len)?;
        block.offset = self.len;
        self.len += encoded.len() as u64;
        self.blocks.push(block);
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn reader(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Removes the file.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// The block that begins there, and where the next one does. `None`: it is not whole.
fn read_block(bytes: &[u8], at: usize) -> Option<(Block, usize)> {
    let mut cursor = Cursor::new(bytes.get(at..)?);
    let len = cursor.u32()?;
    let sum = cursor.array::<SUM>()?;
    let body = cursor.take(len as usize)?;
    if len > MAX_BLOCK || checksum(body) != sum {
        return None;
    }
    let (index, ..) = split_body(body)?;
    let block = Block {
        index: Arc::new(index),
        offset: at as u64,
        len,
    };
    Some((block, at + HEAD + len as usize))
}

impl Block {
    /// Reads the block's entries.
    pub(super) fn unpack(&self, file: &File) -> io::Result<Unpacked> {
        let mut body = vec![0; self.len as usize];
        file.read_exact_at(&mut body, self.offset + HEAD as u64)?;
        let damaged = || io::Error::other("a block of the query log is damaged");
        let (index, raw, packed) = split_body(&body).ok_or_else(damaged)?;
        let payload = lz4_flex::block::decompress(packed, raw as usize).map_err(|_| damaged())?;
        Unpacked::decode(payload, &index.databases).ok_or_else(damaged)
    }
}
