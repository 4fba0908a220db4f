//! Counts that outlive the process. See FORMAT.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use control_store::DatabaseId;

use super::codec::{Cursor, SUM, checksum, put_varint};
use super::counters::Totals;

const MAGIC: &[u8; 8] = b"TDBQTOT1";

/// A place in the log: everything before it is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What is kept of the counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) totals: BTreeMap<DatabaseId, Totals>,
    pub(super) forgotten: BTreeSet<DatabaseId>,
}

fn path(folder: &Path) -> PathBuf {
    folder.join("totals")
}

impl Kept {
    /// Reads the counts; none if there are none, or if they are damaged: then the entries are counted anew.
    pub(super) fn load(folder: &Path) -> io::Result<Self> {
        match fs::read(path(folder)) {
            Ok(bytes) => Ok(decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(
                    "the query log's counts are damaged: they are taken from its entries"
                );
                Self::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Puts the counts in the place of those before, whole or not at all.
    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        let part = folder.join("totals.part");
        let mut file = File::create(&part)?;
        file.write_all(&self.encode())?;
        file.sync_data()?;
        fs::rename(part, path(folder))
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + self.totals.len() * 24);
        put_varint(&mut body, self.place.segment);
        put_varint(&mut body, self.place.offset);
        put_varint(&mut body, self.totals.len() as u64);
        for (id, it) in &self.totals {
            for value in [
                id.0,
                it.total,
                it.failed,
                it.from_api,
                it.slow,
                it.duration_ns,
                it.rows,
            ] {
                put_varint(&mut body, value);
            }
        }
        put_varint(&mut body, self.forgotten.len() as u64);
        for id in &self.forgotten {
            put_varint(&mut body, id.0);
        }
        [&MAGIC[..], &checksum(&body), &body].concat()
    }
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let body = bytes.strip_prefix(MAGIC)?;
    let (sum, body) = body.split_first_chunk::<SUM>()?;
    (checksum(body) == *sum).then_some(())?;
    let mut cursor = Cursor::new(body);
    let mut kept = Kept {
        place: Place {
            segment: cursor.varint()?,
            offset: cursor.varint()?,
        },
        ..Kept::default()
    };
    for _ in 0..cursor.varint()? {
        let id = DatabaseId(cursor.varint()?);
        let totals = Totals {
            total: cursor.varint()?,
            failed: cursor.varint()?,
            from_api: cursor.varint()?,
            slow: cursor.varint()?,
            duration_ns: cursor.varint()?,
            rows: cursor.varint()?,
        };
        kept.totals.insert(id, totals);
    }
    for _ in 0..cursor.varint()? {
        kept.forgotten.insert(DatabaseId(cursor.varint()?));
    }
    cursor.is_empty().then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_and_damage_is_noticed() {
        let mut kept = Kept {
            place: Place {
                segment: 3,
                offset: 1 << 40,
            },
            ..Kept::default()
        };
        let totals = Totals {
            total: 5,
            failed: 1,
            from_api: 2,
            slow: 0,
            duration_ns: u64::MAX,
            rows: 7,
        };
        kept.totals.insert(DatabaseId(9), totals);
        kept.forgotten.insert(DatabaseId(2));
        let bytes = kept.encode();
        assert_eq!(decode(&bytes), Some(kept));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
