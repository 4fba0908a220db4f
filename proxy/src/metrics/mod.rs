//! What the data plane counts, and how it tells Prometheus.
//!
//! Each worker thread has one [`WorkerMetrics`] and alone writes to it; [`render`] sums them. Labels take values from
//! closed sets only, so the number of series does not grow with tenants, addresses or statements.

pub mod cell;
pub mod histogram;
pub mod label;
mod render;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use control_store::Engine;

pub use cell::{Counter, Gauge};
pub use histogram::Histogram;
pub use label::{ErrorClass, Handshake, Label, PinReason, Side};
pub use render::{Extra, ExtraMetric, Kind, render};

/// One value for each value of a label.
#[derive(Debug)]
pub struct Table<L, T, const N: usize> {
    values: [T; N],
    label: PhantomData<L>,
}

impl<L: Label, T: Default, const N: usize> Default for Table<L, T, N> {
    fn default() -> Self {
        const { assert!(N == L::ALL.len(), "one value for each label value") };
        Self {
            values: std::array::from_fn(|_| T::default()),
            label: PhantomData,
        }
    }
}

impl<L: Label, T, const N: usize> Table<L, T, N> {
    /// The value for that label value.
    pub fn of(&self, label: L) -> &T {
        &self.values[label.index()]
    }
}

/// Bytes that went over one side's sockets, as the protocol sees them (inside TLS).
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub received: Counter,
    /// Bytes sent.
    pub sent: Counter,
}

/// What one worker counts for one protocol. Lines of its own: workers never share one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ProtocolMetrics {
    /// Client connections that are open.
    pub connections: Gauge,
    /// Client connections taken so far.
    pub accepted: Counter,
    /// Statements or commands that ended, well or badly.
    pub queries: Counter,
    /// Failures told to clients.
    pub errors: Table<ErrorClass, Counter, 9>,
    /// From a statement's first byte here to its last reply byte here.
    pub latency: Histogram,
    /// Bytes by side.
    pub traffic: Table<Side, Traffic, 2>,
    /// Backend connections that are open.
    pub pool_connections: Gauge,
    /// Of them leased to nobody.
    pub pool_idle: Gauge,
    /// Clients that wait for a backend connection.
    pub pool_waiting: Gauge,
    /// How long clients waited for a backend connection, if they had to.
    pub pool_wait: Histogram,
    /// Sessions that kept their backend.
    pub pins: Table<PinReason, Counter, 9>,
    /// Statements that waited behind a gate.
    pub gate_holds: Counter,
    /// How long they waited.
    pub gate_hold: Histogram,
    /// Client handshakes.
    pub handshakes: Table<Handshake, Counter, 5>,
    /// Logins refused.
    pub login_failures: Counter,
}

/// What one worker counts. One writer: the worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    protocols: Table<Engine, ProtocolMetrics, 4>,
}

impl WorkerMetrics {
    /// The numbers of one protocol.
    pub fn protocol(&self, engine: Engine) -> &ProtocolMetrics {
        self.protocols.of(engine)
    }
}
