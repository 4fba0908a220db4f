//! The statements that one backend has prepared.

use std::rc::Rc;

use ahash::AHashMap;

use crate::session::postgres::replies::StatementId;
use crate::session::postgres::statement::Statement;

/// How many statements a backend keeps; the least recently used one makes room.
pub(crate) const CAPACITY: usize = 500;

/// Prepared statements, and when each was last used.
#[derive(Default)]
pub(crate) struct Prepared {
    statements: AHashMap<StatementId, Entry>,
    clock: u64,
}

struct Entry {
    statement: Rc<Statement>,
    used: u64,
}

impl Prepared {
    /// Whether the backend has the statement; it counts as used.
    pub(crate) fn touch(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        match self.statements.get_mut(&id) {
            Some(entry) => {
                entry.used = self.clock;
                true
            }
            None => false,
        }
    }

    /// Notes that the statement is being prepared. What is returned must be closed on the backend.
    pub(crate) fn insert(&mut self, statement: &Rc<Statement>) -> Option<Rc<Statement>> {
        let evicted = (self.statements.len() >= CAPACITY)
            .then(|| self.evict())
            .flatten();
        self.clock += 1;
        let entry = Entry {
            statement: Rc::clone(statement),
            used: self.clock,
        };
        self.statements.insert(statement.id, entry);
        evicted
    }

    /// It was not prepared after all.
    pub(crate) fn remove(&mut self, id: StatementId) {
        self.statements.remove(&id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.statements.clear();
    }

    fn evict(&mut self) -> Option<Rc<Statement>> {
        let oldest = self.statements.iter().min_by_key(|(_, entry)| entry.used);
        let id = *oldest?.0;
        self.statements.remove(&id).map(|entry| entry.statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::postgres::statement::Statements;
    use protocol_sql::Summary;

    #[test]
    fn the_least_recently_used_one_makes_room() {
        let mut statements = Statements::new();
        let mut prepared = Prepared::default();
        let made: Vec<_> = (0..=CAPACITY)
            .map(|n| statements.private(format!("SELECT {n}").as_bytes(), b"", Summary::default()))
            .collect();
        for statement in &made[..CAPACITY] {
            assert!(prepared.insert(statement).is_none());
        }
        assert!(prepared.touch(made[0].id));
        let evicted = prepared.insert(&made[CAPACITY]).unwrap();
        assert_eq!(evicted.id, made[1].id);
        assert!(!prepared.touch(made[1].id));
        assert!(prepared.touch(made[CAPACITY].id));
    }
}
