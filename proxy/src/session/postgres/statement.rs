//! Prepared statements by content.
//!
//! Clients name their statements as they like, and each backend serves many clients, so a statement is known by its text and
//! parameter types: two clients that prepare the same text share one statement on each backend, under a name of ours.

use std::cell::Cell;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::rc::{Rc, Weak};

use ahash::{AHashMap, RandomState};
use protocol_sql::Summary;

use super::replies::StatementId;

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

    fn hash(&self, query: &[u8], types: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(query);
        hasher.write_usize(query.len());
        hasher.write(types);
        hasher.finish()
    }

    /// The statement with this content, if some session or backend has it.
    pub(crate) fn find(&self, query: &[u8], types: &[u8]) -> Option<Rc<Statement>> {
        let hash = self.hash(query, types);
        let candidates = self.by_hash.get(&hash)?;
        candidates
            .iter()
            .filter_map(Weak::upgrade)
            .find(|known| *known.query == *query && *known.types == *types)
    }

    /// Makes a statement that [`Statements::find`] did not find.
    pub(crate) fn insert(&mut self, query: &[u8], types: &[u8], summary: Summary) -> Rc<Statement> {
        if self.by_hash.len() >= self.sweep_at {
            self.sweep();
        }
        let id = self.next;
        self.next += 1;
        let mut name = Vec::with_capacity(24);
        // Writing to a vector cannot fail.
        let _ = write!(name, "_tdb_{id:x}");
        let statement = Rc::new(Statement {
            id: StatementId(id),
            name: name.into(),
            query: query.into(),
            types: types.into(),
            summary,
        });
        let hash = self.hash(query, types);
        let entry = self.by_hash.entry(hash).or_default();
        entry.push(Rc::downgrade(&statement));
        statement
    }

    /// Whether this content was sighted before; it is from now on.
    pub(crate) fn sighted(&self, query: &[u8], types: &[u8]) -> bool {
        let hash = self.hash(query, types) | 1; // Zero stands for an empty place.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides() {
        let mut statements = Statements::new();
        assert!(statements.find(b"SELECT $1", b"").is_none());
        let first = statements.insert(b"SELECT $1", b"", Summary::default());
        let typed = statements.insert(b"SELECT $1", &[0, 0, 0, 23], Summary::default());
        assert_ne!(first.id, typed.id);
        assert_ne!(first.name, typed.name);
        let found = statements.find(b"SELECT $1", b"").unwrap();
        assert!(Rc::ptr_eq(&found, &first));
        drop((first, found));
        assert!(
            statements.find(b"SELECT $1", b"").is_none(),
            "nobody has it"
        );
        assert!(statements.find(b"SELECT $1", &[0, 0, 0, 23]).is_some());
    }

    #[test]
    fn the_second_sighting_counts() {
        let statements = Statements::new();
        assert!(!statements.sighted(b"SELECT 1", b""));
        assert!(statements.sighted(b"SELECT 1", b""));
        assert!(!statements.sighted(b"SELECT 2", b""));
    }

    #[test]
    fn dead_entries_are_swept() {
        let mut statements = Statements::new();
        for n in 0..10 * FIRST_SWEEP {
            statements.insert(format!("SELECT {n}").as_bytes(), b"", Summary::default());
        }
        assert!(statements.by_hash.len() <= FIRST_SWEEP);
    }
}
