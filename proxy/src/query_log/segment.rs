//! Files of blocks. See FORMAT.md.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control_store::DatabaseId;

use super::block::{InFile, PREFIX, Reader, Summary, checked_head, lengths};
use super::totals::sync_folder;

const MAGIC: &[u8; 8] = b"TDBQLOG1";

/// One file of the log.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// Oldest first.
    pub(super) blocks: Vec<Arc<Summary>>,
    /// Bytes up to the end of the last whole block.
    pub(super) len: u64,
}

impl Segment {
    /// Makes a new file.
    pub(super) fn create(folder: &Path, number: u64) -> io::Result<Self> {
        let segment = Self::create_at(folder.join(format!("{number:08}.log")), number)?;
        sync_folder(folder)?;
        Ok(segment)
    }

    /// Makes a new file of that name, in the place of another if there is one.
    pub(super) fn create_at(path: PathBuf, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        file.write_all_at(MAGIC, 0)?;
        Ok(Self {
            number,
            path,
            file: Arc::new(file),
            blocks: Vec::new(),
            len: MAGIC.len() as u64,
        })
    }

    /// Opens all segments of a folder. The last may have been cut by a crash: what is not whole is cut off.
    pub(super) fn open_all(folder: &Path) -> io::Result<Vec<Self>> {
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
        let last = found.len().saturating_sub(1);
        let open = |(place, (number, path))| Self::open(path, number, place == last);
        found.into_iter().enumerate().map(open).collect()
    }

    fn open(path: PathBuf, number: u64, last: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let size = file.metadata()?.len();
        let mut magic = [0; MAGIC.len()];
        if size < MAGIC.len() as u64 {
            return Self::create_at(path, number);
        }
        file.read_exact_at(&mut magic, 0)?;
        if magic != *MAGIC {
            return Err(io::Error::other(format!(
                "{} is not a query log of this version",
                path.display()
            )));
        }
        let mut segment = Self {
            number,
            path,
            file: Arc::new(file),
            blocks: Vec::new(),
            len: MAGIC.len() as u64,
        };
        while let Some(block) = segment.block_at(segment.len, size)? {
            segment.len += block.len();
            segment.blocks.push(Arc::new(block));
        }
        if last {
            segment.drop_torn_block()?;
        }
        if segment.len < size {
            let bytes = size - segment.len;
            tracing::warn!(segment = %segment.path.display(), bytes, "the query log ends in a block that is not whole");
            if last {
                segment.file.set_len(segment.len)?;
            }
        }
        Ok(segment)
    }

    /// The block that begins there. `None`: none does, or its head is not whole.
    fn block_at(&self, offset: u64, size: u64) -> io::Result<Option<Summary>> {
        if size.saturating_sub(offset) < PREFIX as u64 {
            return Ok(None);
        }
        let mut prefix = [0; PREFIX];
        self.file.read_exact_at(&mut prefix, offset)?;
        let Some((head_len, data_len)) = lengths(&prefix) else {
            return Ok(None);
        };
        if PREFIX as u64 + u64::from(head_len) + u64::from(data_len) > size - offset {
            return Ok(None);
        }
        let mut head = vec![0; head_len as usize];
        self.file.read_exact_at(&mut head, offset + PREFIX as u64)?;
        let head = checked_head(&prefix, &head);
        Ok(head.map(|head| Summary::new(&head, offset, head_len, data_len)))
    }

    /// A block is synced before the next is begun, so only the last can be torn inside.
    fn drop_torn_block(&mut self) -> io::Result<()> {
        let Some(block) = self.blocks.last() else {
            return Ok(());
        };
        let offset = block.offset;
        match self.reader(block).and_then(|mut it| it.check()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.blocks.pop();
                self.len = offset;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Appends a block. It is on disk when the file is synced.
    pub(super) fn append(&mut self, encoded: &[u8]) -> io::Result<()> {
        let head = Reader::open(encoded)?.head;
        let (head_len, data_len) = encoded
            .first_chunk()
            .and_then(lengths)
            .ok_or(io::ErrorKind::InvalidData)?;
        self.file.write_all_at(encoded, self.len)?;
        let summary = Summary::new(&head, self.len, head_len, data_len);
        self.len += encoded.len() as u64;
        self.blocks.push(Arc::new(summary));
        Ok(())
    }

    /// Reads a block.
    pub(super) fn reader(&self, block: &Summary) -> io::Result<Reader<InFile>> {
        Reader::open(InFile {
            file: Arc::clone(&self.file),
            offset: block.offset,
        })
    }

    /// Whether a database has something in it.
    pub(super) fn has(&self, database: DatabaseId) -> bool {
        self.blocks.iter().any(|block| block.has_any(&[database]))
    }

    /// Up to when it counts; zero without blocks.
    pub(super) fn until_us(&self) -> u64 {
        self.blocks.last().map_or(0, |it| it.span.until_us)
    }

    /// From when on it counts.
    pub(super) fn begins_us(&self) -> Option<u64> {
        let first = self.blocks.first()?;
        Some(first.span.from_us.min(first.earliest_us))
    }
}
