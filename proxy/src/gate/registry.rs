//! All gates of a process. An idle database has none: a gate exists while a session or a hold needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use control_store::DatabaseId;
use control_store::traffic::HoldBudget;

use super::Gate;

/// What workers are told when the control plane has touched a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Statements held for this database may go on.
    Released(DatabaseId),
    /// Sessions and idle backends of this database should look into the snapshot.
    Refreshed(DatabaseId),
}

/// The gates of one process.
pub struct Gates {
    table: Mutex<Table>,
    notify: Box<dyn Fn(Change) + Send + Sync>,
}

#[derive(Default)]
struct Table {
    gates: HashMap<DatabaseId, Arc<Gate>, ahash::RandomState>,
    /// Unused gates are swept when the table has grown to this size.
    sweep_at: usize,
}

const FIRST_SWEEP: usize = 1024;

impl Gates {
    /// `notify` is called after a change is visible, from the thread that made it; it must not block.
    pub fn new(notify: impl Fn(Change) + Send + Sync + 'static) -> Self {
        Self {
            table: Mutex::new(Table {
                sweep_at: FIRST_SWEEP,
                ..Table::default()
            }),
            notify: Box::new(notify),
        }
    }

    /// The gate of a database, made if there is none.
    pub fn gate(&self, database: DatabaseId) -> Arc<Gate> {
        let mut table = self.lock();
        if table.gates.len() >= table.sweep_at {
            table.sweep();
        }
        Arc::clone(table.gates.entry(database).or_default())
    }

    /// See [`control_store::TrafficControl::hold`].
    pub fn hold(&self, database: DatabaseId, budget: HoldBudget) {
        self.gate(database).hold(budget);
    }

    /// See [`control_store::TrafficControl::in_flight`].
    pub fn in_flight(&self, database: DatabaseId) -> u64 {
        self.existing(database).map_or(0, |gate| gate.in_flight())
    }

    /// See [`control_store::TrafficControl::release`]. Without a hold it does nothing.
    pub fn release(&self, database: DatabaseId) {
        let released = self.existing(database).is_some_and(|gate| gate.release());
        if released {
            (self.notify)(Change::Released(database));
        }
    }

    /// See [`control_store::TrafficControl::refresh`].
    pub fn refresh(&self, database: DatabaseId) {
        if let Some(gate) = self.existing(database) {
            gate.refresh();
            (self.notify)(Change::Refreshed(database));
        }
    }

    /// See [`control_store::TrafficControl::schema_changed`].
    pub fn schema_changed(&self, database: DatabaseId) {
        // A database without a gate has no backend with prepared statements either: pools hold their gate.
        if let Some(gate) = self.existing(database) {
            gate.schema_changed();
        }
    }

    /// How many gates there are.
    pub fn len(&self) -> usize {
        self.lock().gates.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn existing(&self, database: DatabaseId) -> Option<Arc<Gate>> {
        self.lock().gates.get(&database).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change to the table is one call on the map: a panic can't leave it half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Drops gates that no session has and that are not held. Sound because new references are only made under the lock.
    fn sweep(&mut self) {
        self.gates
            .retain(|_, gate| Arc::strong_count(gate) > 1 || gate.word().is_held());
        self.sweep_at = (self.gates.len() * 2).max(FIRST_SWEEP);
    }
}
