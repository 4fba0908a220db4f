//! The patterns that the clients of each database have subscribed to, in all workers: what `PUBSUB NUMPAT` counts.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use control_store::DatabaseId;

/// For each pattern, how many clients have it.
type Holders = HashMap<Arc<[u8]>, usize>;

/// The patterns of all databases.
#[derive(Default)]
pub(crate) struct Patterns(Mutex<HashMap<DatabaseId, Holders>>);

impl Patterns {
    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseId, Holders>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has that pattern, until what this gives is dropped.
    pub(super) fn hold(self: &Arc<Self>, database: DatabaseId, pattern: &[u8]) -> Pattern {
        let text: Arc<[u8]> = pattern.into();
        let mut all = self.lock();
        let holders = all.entry(database).or_default();
        *holders.entry(Arc::clone(&text)).or_default() += 1;
        Pattern {
            text,
            database,
            all: Arc::clone(self),
        }
    }

    /// How many different ones a database's clients have.
    pub(super) fn count(&self, database: DatabaseId) -> usize {
        self.lock().get(&database).map_or(0, HashMap::len)
    }
}

/// A pattern that a client has.
pub(super) struct Pattern {
    text: Arc<[u8]>,
    database: DatabaseId,
    all: Arc<Patterns>,
}

impl Deref for Pattern {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let Some(holders) = all.get_mut(&self.database) else {
            return;
        };
        if let Some(count) = holders.get_mut(&self.text) {
            *count -= 1;
            if *count == 0 {
                holders.remove(&self.text);
            }
        }
        if holders.is_empty() {
            all.remove(&self.database);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_patterns_are_counted_while_somebody_has_them() {
        let all = Arc::new(Patterns::default());
        let (one, other) = (DatabaseId(1), DatabaseId(2));
        let held = [
            all.hold(one, b"a*"),
            all.hold(one, b"a*"),
            all.hold(one, b"b*"),
            all.hold(other, b"a*"),
        ];
        assert_eq!((all.count(one), all.count(other)), (2, 1));
        let [first, second, third, fourth] = held;
        drop(first);
        assert_eq!(all.count(one), 2);
        drop((second, third, fourth));
        assert_eq!((all.count(one), all.count(other)), (0, 0));
        assert!(all.lock().is_empty());
    }
}
