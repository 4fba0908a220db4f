//! Statements under way: for the time limit, the row limit, the log and the metrics.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use control_store::logs::Source;
use control_store::{DatabaseId, Engine};

use super::statement::Statement;
use crate::metrics::ErrorClass;
use crate::query_log::{ErrorCode, StatementRecord};
use crate::reactor::Buf;
use crate::session::Context;

/// A statement's text, without a copy.
#[derive(Clone)]
pub(super) enum Text {
    /// In the message that carries it.
    Sent(Buf),
    /// In a prepared statement.
    Prepared(Rc<Statement>),
    /// Not known.
    Fixed(&'static [u8]),
}

impl Text {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Sent(buf) => buf,
            Self::Prepared(statement) => &statement.query,
            Self::Fixed(text) => text,
        }
    }
}

/// One statement that the backend has been given.
pub(super) struct Flight {
    pub(super) text: Text,
    /// When its first byte came.
    pub(super) started: Instant,
    /// When it became the one that runs.
    pub(super) running: Instant,
    /// Rows returned or changed so far.
    pub(super) rows: u64,
    /// Set once it has failed.
    pub(super) failure: Option<Failure>,
    /// We have asked the server to cancel it, because of its time limit.
    pub(super) timed_out: bool,
}

/// How a statement failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    pub(super) class: ErrorClass,
}

/// The statements under way, in order.
#[derive(Default)]
pub(super) struct Flights(VecDeque<Flight>);

impl Flights {
    pub(super) fn push(&mut self, text: Text, started: Instant, now: Instant) {
        self.0.push_back(Flight {
            text,
            started,
            running: now,
            rows: 0,
            failure: None,
            timed_out: false,
        });
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Flight> {
        self.0.front_mut()
    }

    /// Takes the first one out; the next one runs from now on.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Flight> {
        let flight = self.0.pop_front();
        if let Some(next) = self.0.front_mut() {
            next.running = now;
        } else if self.0.capacity() > 64 {
            // A pipeline's room is not kept for ever.
            self.0 = VecDeque::new();
        }
        flight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where a statement's record belongs.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) database: DatabaseId,
    pub(super) source: Source,
}

/// Counts and logs a statement that ended.
pub(super) fn record(cx: &mut Context, place: Place, flight: &Flight) {
    let duration = cx.now.saturating_duration_since(flight.started);
    write(
        cx,
        place,
        flight.text.bytes(),
        duration,
        flight.rows,
        flight.failure,
    );
}

/// Counts and logs a statement that was refused before it ran.
pub(super) fn record_refused(
    cx: &mut Context,
    place: Place,
    text: &[u8],
    started: Instant,
    failure: Failure,
) {
    let duration = cx.now.saturating_duration_since(started);
    write(cx, place, text, duration, 0, Some(failure));
}

fn write(
    cx: &mut Context,
    place: Place,
    text: &[u8],
    duration: Duration,
    rows: u64,
    failure: Option<Failure>,
) {
    let metrics = cx.metrics.protocol(Engine::Postgres);
    metrics.queries.increment();
    metrics.latency.record(duration);
    if let Some(failure) = failure {
        metrics.errors.of(failure.class).increment();
    }
    cx.log.record(&StatementRecord {
        database: place.database,
        text,
        source: place.source,
        ended_at_us: cx.wall_us,
        duration,
        error_code: failure.map(|failure| failure.code),
        rows,
    });
}
