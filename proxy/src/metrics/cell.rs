//! Numbers with one writer.
//!
//! A worker owns its cells: it alone writes, so a plain load and store does what a locked read-modify-write would do for
//! ten times the cost. Any thread may read. A second writer would be safe and would lose counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts up, for as long as the process runs.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count; it wraps at 2^64.
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.set(self.get().saturating_add(1));
    }

    /// One less; stays at zero.
    pub fn decrement(&self) {
        self.set(self.get().saturating_sub(1));
    }

    /// So many.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
