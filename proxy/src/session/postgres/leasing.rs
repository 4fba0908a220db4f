//! Getting a backend for what a client has sent, and through the gate.

use std::rc::Rc;

use control_store::{Engine, Fault};

use super::live::{Live, Then, Turn, Wait};
use super::settings::transition;
use crate::backend::PoolKey;
use crate::backend::postgres::Backend;
use crate::gate::{GateWord, Refused};
use crate::metrics::PinReason;
use crate::route;
use crate::session::{Context, Fate, Ports, Request};

/// Replies that one session may have outstanding. A deeper pipeline waits in its own buffers.
const MAX_OWED: usize = 4096;

impl Live {
    pub(super) fn pool_key(&self) -> PoolKey {
        PoolKey {
            database: self.route.database.id,
            role: self.id.key.role,
        }
    }

    /// Sees to it that the session has a backend and is through the gate. `bytes` is what it would have to be held.
    #[inline]
    pub(super) fn turn<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bytes: u64,
    ) -> Turn {
        if self.in_gate && self.backend.is_some() {
            let owed = self.backend.as_ref().map_or(0, |it| it.replies.len());
            if owed >= MAX_OWED {
                self.wait = Wait::Replies;
                return Turn::Wait;
            }
            return Turn::Now;
        }
        self.acquire(cx, ports, bytes)
    }

    fn acquire<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, bytes: u64) -> Turn {
        // Each turn of the loop follows a change of the gate's word, which only the control plane causes.
        loop {
            // A look before the lease: what is known to be out of date leads to a server that may be gone.
            let word = self.gate.word();
            if word.is_held() {
                return self.hold(cx, ports, bytes);
            }
            if word != self.word
                && let Err(fault) = self.renew(cx, ports, word)
            {
                self.give_back(ports);
                return Turn::Refused(fault);
            }
            if self.backend.is_none() {
                let Some(backend) = ports.lease(self.pool_key(), &self.route) else {
                    self.wait = Wait::Lease { since: cx.now };
                    return Turn::Wait;
                };
                self.backend = Some(backend);
            }
            match self.gate.enter(self.word) {
                Ok(()) => {
                    self.in_gate = true;
                    return self.adopt(ports);
                }
                Err(Refused::Held | Refused::Changed(_)) => {}
            }
        }
    }

    /// The gate's word has changed: looks into the snapshot again.
    fn renew<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        word: GateWord,
    ) -> Result<(), Fault> {
        let snapshot = cx.shared.snapshot.load();
        let route = route::renew(&snapshot, &self.id.key, self.route.database.id)?;
        self.word = word;
        let moved = self
            .backend
            .as_ref()
            .is_some_and(|backend| backend.server != route.server.id);
        if moved && !self.pins.is_empty() {
            return Err(Fault::Terminated {
                why: "the database has moved to another server, and this session held what cannot move with it",
            });
        }
        self.route = route;
        if moved && let Some(backend) = self.backend.take() {
            ports.release(backend, Fate::Close);
        }
        Ok(())
    }

    /// A statement that meets a held gate gives its backend back and waits.
    fn hold<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P, bytes: u64) -> Turn {
        self.give_back(ports);
        let bytes = bytes + self.incoming.len();
        if !self.gate.reserve_bytes(bytes) {
            return Turn::Refused(Fault::HoldTimeout);
        }
        cx.metrics.protocol(Engine::Postgres).gate_holds.increment();
        self.wait = Wait::Gate {
            since: cx.now,
            bytes,
        };
        ports.request(Request::AwaitGate(self.route.database.id));
        Turn::Wait
    }

    /// Gives an unpinned backend back without having used it.
    fn give_back<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if self.pins.is_empty()
            && let Some(backend) = self.backend.take()
        {
            ports.release(backend, Fate::Keep);
        }
    }

    /// Makes a leased backend the session's own: schema and settings.
    pub(super) fn adopt<P: Ports<Backend>>(&mut self, ports: &mut P) -> Turn {
        let epoch = self.gate.schema_epoch();
        let Some(backend) = self.backend.as_mut() else {
            return Turn::Wait;
        };
        let stale = backend.schema_epoch != epoch;
        if !stale && Rc::ptr_eq(&backend.settings, &self.settings) {
            return Turn::Now;
        }
        backend.schema_epoch = epoch;
        let mut text = Vec::new();
        // A pinned session may have prepared statements that only it knows.
        if stale && !backend.prepared.is_empty() && !self.pins.has(PinReason::Prepared) {
            backend.prepared.clear();
            text.extend_from_slice(b"DEALLOCATE ALL;");
        }
        text.extend_from_slice(&transition(&backend.settings.values, &self.settings.values));
        backend.settings = Rc::clone(&self.settings);
        if text.is_empty() {
            return Turn::Now;
        }
        self.send_hidden(ports, &text, Then::GoOn);
        Turn::Wait
    }

    pub(super) fn leased<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        backend: Box<Backend>,
    ) {
        let Wait::Lease { since } = self.wait else {
            return ports.release(backend, Fate::Keep);
        };
        let waited = cx.now.saturating_duration_since(since);
        cx.metrics
            .protocol(Engine::Postgres)
            .pool_wait
            .record(waited);
        self.wait = Wait::Not;
        self.backend = Some(backend);
        self.go_on(cx, ports);
    }

    pub(super) fn lease_failed<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) {
        if matches!(self.wait, Wait::Lease { .. }) {
            self.wait = Wait::Not;
            self.refuse_held(cx, ports, fault);
        }
    }

    pub(super) fn gate_open<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if let Wait::Gate { since, bytes } = self.wait {
            self.gate.free_bytes(bytes);
            let waited = cx.now.saturating_duration_since(since);
            cx.metrics
                .protocol(Engine::Postgres)
                .gate_hold
                .record(waited);
            self.wait = Wait::Not;
            self.go_on(cx, ports);
        }
    }

    /// Goes on after a wait: with the login, or with the client's message.
    pub(super) fn go_on<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if self.leaving {
            return self.leave(cx, ports);
        }
        if self.login.is_some() {
            match self.turn(cx, ports, 0) {
                Turn::Now => self.log_in_on_backend(cx, ports),
                Turn::Wait => {}
                Turn::Refused(fault) => self.terminate(cx, ports, &fault),
            }
        } else {
            self.pump(cx, ports);
        }
    }

    /// The message that waited is refused.
    pub(super) fn refuse_held<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) {
        if self.login.is_some() {
            return self.terminate(cx, ports, fault);
        }
        match self.held.take() {
            Some(message) => {
                self.refuse(cx, ports, &message, fault);
                self.pump(cx, ports);
            }
            None => self.terminate(cx, ports, fault),
        }
    }
}
