//! Gates: one atomic word per database decides whether a statement may start, and tells a session that something
//! it knows of the database may be out of date.
//!
//! A statement enters by counting itself in *before* it loads the word; a controller sets the word *before* it reads the
//! count. Both are sequentially consistent, so one of the two always sees the other: after [`Gate::hold`], an in-flight
//! count of zero means that nothing reaches the server until [`Gate::release`].

mod registry;
#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use control_store::traffic::HoldBudget;

pub use registry::{Change, Gates};

const HELD: u64 = 1;
const GENERATION: u64 = 2;

/// The value of a gate's word as a session last saw it: route, settings and schema epoch are unchanged while it is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateWord(u64);

impl GateWord {
    /// Whether statements wait.
    pub fn is_held(self) -> bool {
        self.0 & HELD != 0
    }
}

/// Why a statement may not start yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Look into the snapshot again, then enter with this word.
    Changed(GateWord),
    /// Wait for the release.
    Held,
}

/// The gate of one database, shared by all workers.
#[derive(Debug, Default)]
pub struct Gate {
    word: AtomicU64,
    in_flight: AtomicU64,
    held_bytes: AtomicU64,
    connections: AtomicU32,
    schema_epoch: AtomicU64,
    budget: Mutex<HoldBudget>,
}

impl Gate {
    /// The word to enter with, to be read *before* the snapshot is: what changes in between is then noticed.
    pub fn word(&self) -> GateWord {
        GateWord(self.word.load(Ordering::SeqCst))
    }

    /// Counts one statement or transaction in, unless the word is no longer what the session saw.
    /// Each success must be paired with one [`Gate::leave`].
    ///
    /// # Errors
    /// [`Refused`]; nothing is counted then.
    pub fn enter(&self, seen: GateWord) -> Result<(), Refused> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let now = self.word();
        if now == seen && !now.is_held() {
            return Ok(());
        }
        self.leave();
        Err(if now.is_held() {
            Refused::Held
        } else {
            Refused::Changed(now)
        })
    }

    /// Counts one statement or transaction out.
    pub fn leave(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "left a gate that was not entered");
    }

    /// How many statements and transactions are in.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Makes new statements wait. A second hold replaces the budget.
    pub fn hold(&self, budget: HoldBudget) {
        *self.lock_budget() = budget;
        self.change(|word| word | HELD);
    }

    /// Lets statements go on, after a look into the snapshot. Returns whether the gate was held.
    pub fn release(&self) -> bool {
        self.change(|word| word & !HELD).is_held()
    }

    /// Makes every session look into the snapshot before its next statement.
    pub fn refresh(&self) {
        self.change(|word| word);
    }

    /// Counts a client connection in, if there are fewer than `limit`. Each success must be paired with one
    /// [`Gate::disconnect`].
    pub fn connect(&self, limit: u32) -> bool {
        let next = |count: u32| (count < limit).then_some(count + 1);
        self.connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }

    /// Counts a client connection out.
    pub fn disconnect(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Grows with each change of the schema that this process knows of. What was prepared in an earlier epoch is prepared
    /// again before its next use.
    pub fn schema_epoch(&self) -> u64 {
        self.schema_epoch.load(Ordering::Acquire)
    }

    /// The schema has changed.
    pub fn schema_changed(&self) {
        self.schema_epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// How long one statement may wait.
    pub fn hold_time(&self) -> Duration {
        self.lock_budget().time
    }

    /// Asks for room for a held statement's bytes. Each success must be paired with one [`Gate::free_bytes`].
    pub fn reserve_bytes(&self, bytes: u64) -> bool {
        let limit = self.lock_budget().bytes;
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= limit);
        self.held_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    /// Gives back what [`Gate::reserve_bytes`] granted.
    pub fn free_bytes(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Applies a change of the state bits and moves to the next generation; returns the word before.
    fn change(&self, state: impl Fn(u64) -> u64) -> GateWord {
        let next = |word: u64| Some(state(word).wrapping_add(GENERATION));
        let before = self
            .word
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        GateWord(before.unwrap_or_else(|unchanged| unchanged))
    }

    fn lock_budget(&self) -> std::sync::MutexGuard<'_, HoldBudget> {
        // A budget is two plain numbers: a panic elsewhere can't have left it half written.
        self.budget
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
