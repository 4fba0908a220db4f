//! The log's decoders and masking, for fuzz targets: nobody else reads the log's files.

use std::borrow::Cow;
use std::time::Duration;

use control_store::DatabaseId;
use control_store::logs::Source;

use super::block::{self, PREFIX, lengths};
use super::entry::Entry;
use super::gathered::Gathered;
use super::record::ErrorCode;
use super::{journal, mask};

/// Whether these bytes are a whole block of a segment.
pub fn is_block(bytes: &[u8]) -> bool {
    block::Reader::open(bytes).is_ok_and(|mut reader| reader.check().is_ok())
}

/// Whether these would be a block if their checksums were right.
pub fn is_block_unsummed(head: &[u8], data: &[u8]) -> bool {
    block::Reader::unsummed(head, data).is_some_and(|mut reader| reader.check().is_ok())
}

/// How many batches of these bytes, as a journal, are whole.
pub fn batches_in_journal(bytes: &[u8]) -> usize {
    journal::read(bytes, 0).batches
}

/// Whether these bytes would be a batch if their checksum were right.
pub fn is_batch_unsummed(body: &[u8]) -> bool {
    journal::is_batch(body)
}

/// A text without its passwords.
pub fn masked(text: &[u8]) -> Cow<'_, [u8]> {
    mask::masked(text)
}

fn example() -> Gathered {
    let mut gathered = Gathered::from(1_700_000_000_000_000, 41);
    gathered.span.until_us += 500_000;
    for n in 0..12_u64 {
        let text = gathered
            .texts
            .intern(format!("SELECT {}", n % 5).as_bytes(), n % 5 == 4);
        let entry = Entry {
            database: DatabaseId(n % 3 * 1000),
            ended_at_us: 1_700_000_000_000_000 + n * 1000,
            duration_ns: n * 300_000_000,
            rows: n,
            source: if n % 2 == 0 {
                Source::Proxy
            } else {
                Source::Api
            },
            error_code: (n % 4 == 0).then(|| ErrorCode::new(b"42P01")),
            text,
        };
        let slow_over = Duration::from_secs(1).as_nanos();
        let counts = entry.counts(u64::try_from(slow_over).unwrap_or(u64::MAX));
        gathered.entries.push(entry);
        gathered.count(entry.database, &counts);
    }
    gathered
}

/// A block: its head and its data, and all of it. Always the same.
///
/// # Panics
/// When a small block cannot be written.
pub fn example_block() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut it = example();
    let whole = block::encode(it.span, &mut it.entries, &it.texts, &it.counts)
        .expect("a small block can be written");
    let (head, _) = whole.first_chunk().and_then(lengths).unwrap_or_default();
    let (head, data) = whole[PREFIX..].split_at(head as usize);
    (head.to_vec(), data.to_vec(), whole)
}

/// A journal of one batch, and that batch's body. Always the same.
pub fn example_journal() -> (Vec<u8>, Vec<u8>) {
    let mut gathered = example();
    // The order of a map is not: one database is enough.
    gathered.new_counts.retain(|id, _| id.0 == 0);
    let (journal, body) = journal::example(&mut gathered);
    (journal, body)
}
