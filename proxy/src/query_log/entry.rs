//! Entries on their way to the disk and from it.

use ahash::{AHashMap, RandomState};
use control_store::DatabaseId;
use control_store::logs::Source;

use super::codec::{Cursor, put_difference, put_varint};
use super::counters::Totals;
use super::record::ErrorCode;

const FROM_API: u8 = 1;
const FAILED: u8 = 2;

/// One statement. `text` is a number in the texts that stand beside it.
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

impl Entry {
    /// What this entry adds to its database's counts.
    pub(super) fn counts(&self, slow_over_ns: u64) -> Totals {
        Totals {
            total: 1,
            failed: u64::from(self.error_code.is_some()),
            from_api: u64::from(self.source == Source::Api),
            slow: u64::from(self.duration_ns > slow_over_ns),
            duration_ns: self.duration_ns,
            rows: self.rows,
        }
    }

    /// Appends all but the database, as differences from the entry before.
    pub(super) fn put(&self, out: &mut Vec<u8>, before: &mut Before) {
        put_difference(out, before.ended_at_us, self.ended_at_us);
        put_varint(out, self.duration_ns);
        put_varint(out, self.rows);
        put_difference(out, before.text, u64::from(self.text));
        let api = u8::from(self.source == Source::Api) * FROM_API;
        let failed = u8::from(self.error_code.is_some()) * FAILED;
        out.push(api | failed);
        if let Some(code) = &self.error_code {
            let code = code.as_bytes();
            out.push(u8::try_from(code.len()).unwrap_or(0));
            out.extend_from_slice(code);
        }
        *before = Before::of(self);
    }

    /// Reads what [`Entry::put`] wrote.
    pub(super) fn take(
        cursor: &mut Cursor<'_>,
        database: DatabaseId,
        before: &mut Before,
    ) -> Option<Self> {
        let ended_at_us = cursor.difference(before.ended_at_us)?;
        let (duration_ns, rows) = (cursor.varint()?, cursor.varint()?);
        let text = u32::try_from(cursor.difference(before.text)?).ok()?;
        let flags = cursor.byte()?;
        let error_code = if flags & FAILED == 0 {
            None
        } else {
            let len = usize::from(cursor.byte()?);
            Some(ErrorCode::new(cursor.take(len)?))
        };
        let source = if flags & FROM_API == 0 {
            Source::Proxy
        } else {
            Source::Api
        };
        let entry = Self {
            database,
            ended_at_us,
            duration_ns,
            rows,
            source,
            error_code,
            text,
        };
        *before = Before::of(&entry);
        Some(entry)
    }
}

/// What differences are taken from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    pub(super) ended_at_us: u64,
    pub(super) text: u64,
}

impl Before {
    fn of(entry: &Entry) -> Self {
        Self {
            ended_at_us: entry.ended_at_us,
            text: u64::from(entry.text),
        }
    }
}

impl Totals {
    /// Appends the counts.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for value in [
            self.total,
            self.failed,
            self.from_api,
            self.slow,
            self.duration_ns,
            self.rows,
        ] {
            put_varint(out, value);
        }
    }

    /// Reads what [`Totals::put`] wrote.
    pub(super) fn take(cursor: &mut Cursor<'_>) -> Option<Self> {
        Some(Self {
            total: cursor.varint()?,
            failed: cursor.varint()?,
            from_api: cursor.varint()?,
            slow: cursor.varint()?,
            duration_ns: cursor.varint()?,
            rows: cursor.varint()?,
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    len: usize,
    cut: bool,
}

/// Texts, each once, numbered from zero.
#[derive(Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    numbers: AHashMap<u64, u32>,
    hasher: RandomState,
}

impl Texts {
    /// Forgets all texts.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
        self.numbers.clear();
    }

    /// The number of a text. `cut`: it was longer.
    pub(super) fn intern(&mut self, text: &[u8], cut: bool) -> u32 {
        let hash = self.hasher.hash_one((text, cut));
        if let Some(&number) = self.numbers.get(&hash)
            && self.get(number) == (text, cut)
        {
            return number;
        }
        let number = self.push(text, cut);
        self.numbers.insert(hash, number); // Of two texts with one hash the older is not found again: no harm.
        number
    }

    /// Takes a text without asking whether it is known. Its number is one above the last.
    pub(super) fn push(&mut self, text: &[u8], cut: bool) -> u32 {
        let number = u32::try_from(self.spans.len()).unwrap_or(u32::MAX);
        self.spans.push(Span {
            start: self.bytes.len(),
            len: text.len(),
            cut,
        });
        self.bytes.extend_from_slice(text);
        number
    }

    /// A text, and whether it was cut; empty if there is none.
    pub(super) fn get(&self, number: u32) -> (&[u8], bool) {
        self.spans
            .get(number as usize)
            .and_then(|it| Some((self.bytes.get(it.start..it.start + it.len)?, it.cut)))
            .unwrap_or_default()
    }

    /// The bytes of those from that number on.
    pub(super) fn bytes_from(&self, number: usize) -> usize {
        let begin = self
            .spans
            .get(number)
            .map_or(self.bytes.len(), |it| it.start);
        self.bytes.len() - begin
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Their bytes together.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Appends a text.
pub(super) fn put_text(out: &mut Vec<u8>, (text, cut): (&[u8], bool)) {
    put_varint(out, text.len() as u64);
    out.push(u8::from(cut));
    out.extend_from_slice(text);
}

/// Reads what [`put_text`] wrote.
pub(super) fn take_text<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a [u8], bool)> {
    let len = cursor.length()?;
    let cut = cursor.byte()? != 0;
    Some((cursor.take(len)?, cut))
}
