//! Counts since each database was created, kept over restarts. See FORMAT.md.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use ahash::AHashMap;
use control_store::DatabaseId;
use control_store::logs::LogGap;

use super::codec::{Cursor, SUM, checksum, put_varint};
use super::counters::Totals;

const MAGIC: &[u8; 8] = b"TDBQTOT1";
const NAME: &str = "totals";
/// So many crashes are remembered.
const MAX_GAPS: usize = 100;

/// The kept counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// The last journal batch that is counted.
    pub(super) batch: u64,
    /// When they were kept (µs since 1970).
    pub(super) saved_us: u64,
    /// The log was closed behind them.
    pub(super) closed: bool,
    /// Oldest first.
    pub(super) gaps: Vec<LogGap>,
    pub(super) totals: AHashMap<DatabaseId, Totals>,
}

/// Puts a file in the place of the one before, whole or not at all, and for good.
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = folder.join(format!("{name}.part"));
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(part, folder.join(name))?;
    sync_folder(folder)
}

/// Makes new names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Kept {
    /// Reads the counts. `None`: there are none. Damaged ones are taken from the blocks anew.
    pub(super) fn load(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(NAME)) {
            Ok(bytes) => Ok(Some(decode(&bytes).unwrap_or_else(|| {
                tracing::warn!(
                    "the query log's counts are damaged: they are taken from its entries, and begin with the oldest"
                );
                Self::default()
            }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the counts.
    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        replace(folder, NAME, &self.encode())
    }

    /// Notes a crash.
    pub(super) fn add_gap(&mut self, gap: LogGap) {
        self.gaps.push(gap);
        let surplus = self.gaps.len().saturating_sub(MAX_GAPS);
        self.gaps.drain(..surplus);
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + self.totals.len() * 24);
        put_varint(&mut body, self.batch);
        put_varint(&mut body, self.saved_us);
        body.push(u8::from(self.closed));
        put_varint(&mut body, self.gaps.len() as u64);
        for gap in &self.gaps {
            put_varint(&mut body, micros(gap.from));
            put_varint(&mut body, micros(gap.until));
        }
        put_varint(&mut body, self.totals.len() as u64);
        for (id, totals) in &self.totals {
            put_varint(&mut body, id.0);
            totals.put(&mut body);
        }
        [&MAGIC[..], &checksum(&body), &body].concat()
    }
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (sum, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<SUM>()?;
    (checksum(body) == *sum).then_some(())?;
    let mut cursor = Cursor::new(body);
    let mut kept = Kept {
        batch: cursor.varint()?,
        saved_us: cursor.varint()?,
        closed: cursor.byte()? != 0,
        ..Kept::default()
    };
    for _ in 0..cursor.varint()? {
        kept.gaps.push(LogGap {
            from: time(cursor.varint()?),
            until: time(cursor.varint()?),
        });
    }
    for _ in 0..cursor.varint()? {
        let id = DatabaseId(cursor.varint()?);
        kept.totals.insert(id, Totals::take(&mut cursor)?);
    }
    cursor.is_empty().then_some(kept)
}

/// Microseconds since 1970; zero before.
pub(super) fn micros(time: std::time::SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The time so many microseconds after 1970.
pub(super) fn time(us: u64) -> std::time::SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_micros(us))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_and_damage_is_noticed() {
        let mut kept = Kept {
            batch: 1 << 40,
            saved_us: 17,
            closed: true,
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
        kept.add_gap(LogGap {
            from: time(3),
            until: time(4),
        });
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
