//! Limits that run out, and the ways in which a session ends.

use std::time::Duration;

use control_store::{Engine, Fault};
use protocol_postgres::backend::TransactionStatus;

use super::flight::{Failure, record};
use super::live::{Live, Then, Wait};
use super::settings::Touched;
use crate::backend::postgres::Backend;
use crate::faces::postgres::Stage;
use crate::metrics::PinReason;
use crate::query_log::ErrorCode;
use crate::session::{Context, Fate, Ports, Request};

impl Live {
    pub(super) fn tick<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        match self.wait {
            Wait::Gate { since, bytes } => {
                if cx.now.saturating_duration_since(since) >= self.gate.hold_time() {
                    self.gate.free_bytes(bytes);
                    self.wait = Wait::Not;
                    self.refuse_held(cx, ports, &Fault::HoldTimeout);
                }
            }
            Wait::Not | Wait::Lease { .. } | Wait::Hidden | Wait::Replies | Wait::Again => {}
        }
        let limit = Duration::from_millis(self.route.database.settings.query_timeout_ms);
        let now = cx.now;
        if let Some(flight) = self.flights.front_mut()
            && !flight.timed_out
            && now.saturating_duration_since(flight.running) >= limit
        {
            flight.timed_out = true;
            self.cancel_at_server(ports);
        }
    }

    /// Asks the server to cancel what the leased backend runs.
    pub(super) fn cancel_at_server<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if let Some(backend) = self.backend.as_mut() {
            // The cancel would meet the repetition.
            backend.replay.spoil();
            ports.cancel(backend.id);
        }
    }

    /// Another connection of the client wants what runs to be cancelled.
    pub(super) fn cancel<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        match self.wait {
            Wait::Lease { .. } if self.held.is_some() => {
                ports.request(Request::CancelLease {
                    pool: self.pool_key(),
                });
                self.wait = Wait::Not;
                self.refuse_held(cx, ports, &Fault::Cancelled);
            }
            Wait::Gate { bytes, .. } if self.held.is_some() => {
                self.gate.free_bytes(bytes);
                self.wait = Wait::Not;
                self.refuse_held(cx, ports, &Fault::Cancelled);
            }
            _ if !self.flights.is_empty() => self.cancel_at_server(ports),
            _ => {}
        }
    }

    /// The client is gone: its transaction is rolled back, and its backend freed.
    pub(super) fn leave<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        self.stop_waiting(ports);
        self.leaving = true;
        let Some(backend) = &self.backend else {
            return self.close(ports, Fate::Keep);
        };
        if self.hidden.is_some() {
            // What follows it sees that the client is gone.
            return;
        }
        if !backend.replies.is_empty() || self.batch_open || self.incoming.is_streaming() {
            if !self.flights.is_empty() {
                self.cancel_at_server(ports);
            }
            self.fail_flights(cx, &Fault::BackendLost, "08006");
            return self.close(ports, Fate::Close);
        }
        let clean: &[u8] = match self.transaction {
            TransactionStatus::Idle if self.pins.is_empty() => {
                return self.close(ports, Fate::Keep);
            }
            TransactionStatus::Idle => b"DISCARD ALL",
            TransactionStatus::InTransaction | TransactionStatus::Failed => b"ROLLBACK",
        };
        self.send_hidden(ports, clean, Then::Leave);
    }

    /// The vanished client's transaction is rolled back, or its session state discarded.
    pub(super) fn close_cleaned<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let rolled_back = self.transaction != TransactionStatus::Idle;
        self.transaction = TransactionStatus::Idle;
        let dirty = !self.pins.is_empty() || self.touched != Touched::Nothing;
        if rolled_back && dirty {
            self.pins.add(PinReason::Other);
            return self.send_hidden(ports, b"DISCARD ALL", Then::Leave);
        }
        if dirty && let Some(backend) = self.backend.as_mut() {
            backend.prepared.clear();
            backend.settings = cx.sets.none();
        }
        self.close(ports, Fate::Keep);
    }

    fn stop_waiting<P: Ports<Backend>>(&mut self, ports: &mut P) {
        match self.wait {
            Wait::Lease { .. } => ports.request(Request::CancelLease {
                pool: self.pool_key(),
            }),
            Wait::Gate { bytes, .. } => self.gate.free_bytes(bytes),
            Wait::Hidden => return,
            Wait::Not | Wait::Replies | Wait::Again => {}
        }
        self.wait = Wait::Not;
    }

    /// The backend's connection broke.
    pub(super) fn backend_gone<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let Some(backend) = self.backend.take() else {
            return;
        };
        let starting = self
            .hidden
            .as_ref()
            .is_some_and(|hidden| matches!(hidden.then, Then::GoOn | Then::LogIn));
        ports.release(backend, Fate::Close);
        if starting && self.pins.is_empty() && !self.leaving {
            // An idle connection had died unnoticed, and the client's message is still here: another one will do.
            self.hidden = None;
            self.wait = Wait::Not;
            self.leave_gate();
            return self.go_on(cx, ports);
        }
        self.hidden = None;
        if self.leaving {
            return self.close(ports, Fate::Close);
        }
        if self.fatal_seen {
            self.fail_flights(cx, &Fault::BackendLost, "08006");
            return self.close(ports, Fate::Close);
        }
        self.terminate(cx, ports, &Fault::BackendLost);
    }

    pub(super) fn end_if_drained<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if self.is_idle() && self.login.is_none() {
            self.terminate(cx, ports, &Fault::Draining);
        }
    }

    /// Ends the session with an error for the client.
    pub(super) fn terminate<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) {
        let refusal = self.refusal_at(fault, Stage::Login);
        let metrics = cx.metrics.protocol(Engine::Postgres);
        if self.flights.is_empty() {
            metrics.errors.of(refusal.class).increment();
        }
        if self.login.is_some() {
            metrics.login_failures.increment();
        }
        self.fail_flights(cx, fault, refusal.code);
        ports.copy_client(&refusal.message);
        self.stop_waiting(ports);
        let unused = self.is_idle() && self.pins.is_empty();
        if self.backend.is_some() && !unused {
            self.cancel_at_server(ports);
        }
        self.close(ports, if unused { Fate::Keep } else { Fate::Close });
    }

    /// What was under way has failed.
    fn fail_flights(&mut self, cx: &mut Context, fault: &Fault, code: &str) {
        let failure = Failure {
            code: ErrorCode::new(code.as_bytes()),
            class: fault.into(),
        };
        while let Some(mut flight) = self.flights.pop(cx.now) {
            flight.failure = Some(failure);
            record(cx, self.place(), &flight);
        }
    }

    pub(super) fn close<P: Ports<Backend>>(&mut self, ports: &mut P, fate: Fate) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.stop_waiting(ports);
        if let Some(backend) = self.backend.take() {
            let fate = if backend.replies.is_empty() {
                fate
            } else {
                Fate::Close
            };
            ports.release(backend, fate);
        }
        self.leave_gate();
        self.gate.disconnect();
    }
}
