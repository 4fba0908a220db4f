//! Databases that were deleted for good. See FORMAT.md.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use control_store::DatabaseId;

use super::codec::{Cursor, SUM, checksum, put_varint};
use super::totals::replace;

const MAGIC: &[u8; 8] = b"TDBQFOR1";
const NAME: &str = "forgotten";

/// Whose entries are shown no more. They leave the disk when their segments are rewritten or removed.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    folder: PathBuf,
    ids: BTreeSet<DatabaseId>,
}

impl Forgotten {
    /// Reads what was kept. Damage is an error: to go on would show what was deleted.
    pub(super) fn load(folder: &Path) -> io::Result<Self> {
        let ids = match fs::read(folder.join(NAME)) {
            Ok(bytes) => decode(&bytes).ok_or_else(|| {
                io::Error::other(format!(
                    "the query log's list of deleted databases, {}, is damaged",
                    folder.join(NAME).display()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            folder: folder.into(),
            ids,
        })
    }

    pub(super) fn contains(&self, database: DatabaseId) -> bool {
        self.ids.contains(&database)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Adds one, on disk too. In memory it counts also if the disk refuses.
    pub(super) fn add(&mut self, database: DatabaseId) -> io::Result<()> {
        self.ids.insert(database);
        self.save()
    }

    /// Keeps those only. Ids are never used again, so one without entries may go.
    pub(super) fn retain(&mut self, keep: impl Fn(DatabaseId) -> bool) -> io::Result<()> {
        let before = self.ids.len();
        self.ids.retain(|id| keep(*id));
        if self.ids.len() == before {
            return Ok(());
        }
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        let mut body = Vec::with_capacity(8 + self.ids.len() * 5);
        put_varint(&mut body, self.ids.len() as u64);
        for id in &self.ids {
            put_varint(&mut body, id.0);
        }
        let bytes = [&MAGIC[..], &checksum(&body), &body].concat();
        replace(&self.folder, NAME, &bytes)
    }
}

fn decode(bytes: &[u8]) -> Option<BTreeSet<DatabaseId>> {
    let (sum, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<SUM>()?;
    (checksum(body) == *sum).then_some(())?;
    let mut cursor = Cursor::new(body);
    let mut ids = BTreeSet::new();
    for _ in 0..cursor.varint()? {
        ids.insert(DatabaseId(cursor.varint()?));
    }
    cursor.is_empty().then_some(ids)
}
