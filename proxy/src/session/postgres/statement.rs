//! Prepared statements by content.
//!
//! Clients name their statements as they like, and each backend serves many clients, so a statement is known by its text and
//! parameter types, and by how the server reads the text: two clients that prepare the same share one statement on each
//! backend, under a name of ours.

use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::rc::{Rc, Weak};

use ahash::{AHashMap, RandomState};
use protocol_sql::Summary;

use super::replies::StatementId;
use super::settings::Reading;

/// Texts that are remembered as seen once.
const SIGHTINGS: usize = 8192;
/// Dead entries are swept when the table has grown to this size.
const FIRST_SWEEP: usize = 1024;

/// One statement, shared by the sessions that prepared it and the backends that have it.
pub(crate) struct Statement {
    pub(crate) id: StatementId,
    /// Its name on backends.
    pub(crate) name: Box<[u8]>,
    pub(crate) query: Box<[u8]>,
    /// OIDs as the client sent them, four bytes each.
    pub(crate) types: Box<[u8]>,
    /// How the server reads it. `None`: it belongs to one session, and nobody else may have it.
    pub(crate) reading: Option<Reading>,
    pub(crate) summary: Summary,
}

/// The statements of one worker.
pub(crate) struct Statements {
    by_hash: AHashMap<u64, Vec<Weak<Statement>>>,
    hasher: RandomState,
    /// Hashes of unnamed texts seen once: a text is worth a place on the backends from its second sighting.
    seen: Box<[Cell<u64>]>,
    next: u64,
    sweep_at: usize,
}

impl Statements {
    pub(crate) fn new() -> Self {
        Self {
            by_hash: AHashMap::new(),
            hasher: RandomState::new(),
            seen: vec![Cell::new(0); SIGHTINGS].into(),
            next: 1,
            sweep_at: FIRST_SWEEP,
        }
    }

    fn hash(&self, reading: &Reading, query: &[u8], types: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(query);
        hasher.write_usize(query.len() ^ reading.number());
        hasher.write(types);
        hasher.finish()
    }

    /// The statement with this content, if some session or backend has it.
    pub(crate) fn find(
        &self,
        reading: &Reading,
        query: &[u8],
        types: &[u8],
    ) -> Option<Rc<Statement>> {
        let hash = self.hash(reading, query, types);
        let candidates = self.by_hash.get(&hash)?;
        candidates.iter().filter_map(Weak::upgrade).find(|known| {
            *known.query == *query
                && *known.types == *types
                && known.reading.as_ref() == Some(reading)
        })
    }

    /// Makes a statement that [`Statements::find`] did not find.
    pub(crate) fn insert(
        &mut self,
        reading: &Reading,
        query: &[u8],
        types: &[u8],
        summary: Summary,
    ) -> Rc<Statement> {
        if self.by_hash.len() >= self.sweep_at {
            self.sweep();
        }
        let statement = self.make(Some(reading.clone()), query, types, summary);
        let hash = self.hash(reading, query, types);
        let entry = self.by_hash.entry(hash).or_default();
        entry.push(Rc::downgrade(&statement));
        statement
    }

    /// Makes a statement that nobody else finds.
    pub(crate) fn private(
        &mut self,
        query: &[u8],
        types: &[u8],
        summary: Summary,
    ) -> Rc<Statement> {
        self.make(None, query, types, summary)
    }

    fn make(
        &mut self,
        reading: Option<Reading>,
        query: &[u8],
        types: &[u8],
        summary: Summary,
    ) -> Rc<Statement> {
        let id = self.next;
        self.next += 1;
        let mut name = Vec::with_capacity(24);
        // Writing to a vector cannot fail.
        let _ = write!(name, "_tdb_{id:x}");
        Rc::new(Statement {
            id: StatementId(id),
            name: name.into(),
            query: query.into(),
            types: types.into(),
            reading,
            summary,
        })
    }

    /// Whether this content was sighted before; it is from now on.
    pub(crate) fn sighted(&self, reading: &Reading, query: &[u8], types: &[u8]) -> bool {
        let hash = self.hash(reading, query, types) | 1; // Zero stands for an empty place.
        let at = (hash >> 32) as usize % SIGHTINGS;
        self.seen
            .get(at)
            .is_some_and(|place| place.replace(hash) == hash)
    }

    fn sweep(&mut self) {
        self.by_hash.retain(|_, entries| {
            entries.retain(|entry| entry.strong_count() > 0);
            !entries.is_empty()
        });
        self.sweep_at = (self.by_hash.len() * 2).max(FIRST_SWEEP);
    }
}

/// Whether a text may hold a literal like `'today'`, which the server replaces by the date when it prepares the statement: one
/// prepared for an earlier client would be wrong for the next. Such a word anywhere in the text counts.
pub(crate) fn may_name_a_moment(query: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
    let is_moment = |word: &[u8]| WORDS.iter().any(|it| word.eq_ignore_ascii_case(it));
    let mut rest = query;
    while let Some(at) = rest.iter().position(u8::is_ascii_alphabetic) {
        let (before, letters) = rest.split_at(at);
        let end = letters.iter().position(|byte| !byte.is_ascii_alphabetic());
        let (word, behind) = letters.split_at(end.unwrap_or(letters.len()));
        rest = behind;
        // A call of now() is evaluated when the statement runs.
        let is_call = word.len() == 3 && behind.trim_ascii_start().starts_with(b"(");
        // The first letter may belong to an escape, such as a tab.
        let escaped = before.ends_with(b"\\") && word.get(1..).is_some_and(is_moment);
        if (is_moment(word) && !is_call) || escaped {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::settings::SettingSets;
    use super::*;

    #[test]
    fn moments_are_found() {
        for (text, found) in [
            ("SELECT 'now'::timestamptz", true),
            ("select * from t where d='Today'", true),
            ("SELECT '10:00 TOMORROW'", true),
            ("SELECT date 'yesterday'", true),
            (r"SELECT E'\ttoday', '\now'", true),
            ("SELECT now(), NOW ( )", false),
            ("SELECT now(), 'now'", true),
            ("SELECT known, nowhere FROM snow", false),
            ("SELECT 1", false),
            ("", false),
        ] {
            assert_eq!(may_name_a_moment(text.as_bytes()), found, "{text}");
        }
    }

    #[test]
    fn content_and_reading_decide() {
        let mut sets = SettingSets::new();
        let here = &sets.none().reading;
        let values = [(b"timezone"[..].into(), b"UTC"[..].into())];
        let there = sets.intern(values.into_iter().collect());
        let there = &there.reading;
        let mut statements = Statements::new();
        assert!(statements.find(here, b"SELECT $1", b"").is_none());
        let first = statements.insert(here, b"SELECT $1", b"", Summary::default());
        let typed = statements.insert(here, b"SELECT $1", &[0, 0, 0, 23], Summary::default());
        assert!(statements.find(there, b"SELECT $1", b"").is_none());
        let second = statements.insert(there, b"SELECT $1", b"", Summary::default());
        assert_ne!(first.id, second.id);
        let own = statements.private(b"SELECT 2", b"", Summary::default());
        assert!(statements.find(here, b"SELECT 2", b"").is_none() && own.reading.is_none());
        assert_ne!(first.id, typed.id);
        assert_ne!(first.name, typed.name);
        let found = statements.find(here, b"SELECT $1", b"").unwrap();
        assert!(Rc::ptr_eq(&found, &first));
        drop((first, found));
        assert!(
            statements.find(here, b"SELECT $1", b"").is_none(),
            "nobody has it"
        );
        assert!(
            statements
                .find(here, b"SELECT $1", &[0, 0, 0, 23])
                .is_some()
        );
    }

    #[test]
    fn the_second_sighting_counts() {
        let reading = &SettingSets::new().none().reading;
        let statements = Statements::new();
        assert!(!statements.sighted(reading, b"SELECT 1", b""));
        assert!(statements.sighted(reading, b"SELECT 1", b""));
        assert!(!statements.sighted(reading, b"SELECT 2", b""));
    }

    #[test]
    fn dead_entries_are_swept() {
        let reading = &SettingSets::new().none().reading;
        let mut statements = Statements::new();
        for n in 0..10 * FIRST_SWEEP {
            let text = format!("SELECT {n}");
            statements.insert(reading, text.as_bytes(), b"", Summary::default());
        }
        assert!(statements.by_hash.len() <= FIRST_SWEEP);
    }
}
