//! Through the gate to a connection: one that sessions share, or one of the session's own.

use std::sync::Arc;

use control_store::{Engine, Fault};
use protocol_redis::reply::write::Version;

use super::own::Own;
use super::{Ending, RedisSession, Wait};
use crate::backend::PoolKey;
use crate::backend::pool::LinkId;
use crate::backend::redis::Backend;
use crate::backend::redis::links::{LinkKey, Standing};
use crate::backend::redis::login::Known;
use crate::gate::{GateWord, Refused};
use crate::reactor::ConnId;
use crate::route;
use crate::session::{Context, Fate, Ports, Request};

/// Whether a command may be sent now.
pub(super) enum Turn {
    /// Yes, there.
    Now(ConnId),
    /// Later: it stays where it is.
    Later,
    /// No.
    Refused(Fault),
}

impl RedisSession {
    fn pool_key(&self) -> Option<PoolKey> {
        self.who.as_ref().map(|who| PoolKey {
            database: who.route.database.id,
            role: who.key.role,
        })
    }

    /// Through the gate to the connection that sessions share. `bytes` is what the command would have to be held.
    #[inline]
    pub(super) fn share<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bytes: usize,
    ) -> Turn {
        let Some(pool) = self.pool_key() else {
            return Turn::Refused(Fault::Bug);
        };
        let key = LinkKey {
            pool,
            version: self.version,
        };
        loop {
            if let Some(turn) = self.look_at_gate(cx, ports, bytes) {
                return turn;
            }
            let id = match self.link {
                Some(id) => id,
                None => *self.link.insert(ports.links().find(key, cx.now)),
            };
            let Some(who) = self.who.as_mut() else {
                return Turn::Refused(Fault::Bug);
            };
            match ports.links().standing(id, key, cx.now) {
                Some(Standing::Ready {
                    conn,
                    server,
                    speaks,
                }) if server == who.route.server.id => {
                    if !speaks {
                        ports.copy_backend(conn, hello(key.version));
                        ports.links().spoke(id, cx.now);
                    }
                    if self.in_gate {
                        return Turn::Now(conn);
                    }
                    if who.gate.enter(who.word).is_ok() {
                        self.in_gate = true;
                        if who.known.is_none() {
                            who.known = ports.links().known(id);
                        }
                        return Turn::Now(conn);
                    }
                }
                // The database has moved.
                Some(Standing::Ready { .. }) => {
                    ports.links().retire(id);
                    self.link = None;
                }
                Some(Standing::Absent) => {
                    ports.links().asked(id);
                    match ports.lease_link(id, pool, &who.route) {
                        Some(backend) => ports.links().put(id, backend),
                        None => return self.await_link(cx, ports, id),
                    }
                }
                Some(Standing::Coming) => return self.await_link(cx, ports, id),
                None => self.link = None,
            }
        }
    }

    fn await_link<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P, id: LinkId) -> Turn {
        let this = ports.this();
        ports.links().wait(id, this);
        self.wait = Wait::Link { since: cx.now };
        Turn::Later
    }

    /// `None`: the session may go on, with a route that is up to date.
    #[inline]
    fn look_at_gate<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bytes: usize,
    ) -> Option<Turn> {
        let who = self.who.as_ref()?;
        let word = who.gate.word();
        if word == who.word && !word.is_held() {
            return None;
        }
        if self.in_gate && !self.flights.is_empty() {
            // What is under way ends first.
            self.wait = Wait::Replies;
            return Some(Turn::Later);
        }
        if self.in_gate && self.own.as_ref().is_some_and(|own| own.in_transaction()) {
            return None; // The transaction goes on to its end.
        }
        self.leave_gate();
        if word.is_held() {
            return Some(self.hold(cx, ports, bytes));
        }
        self.renew(cx, ports, word).err().map(Turn::Refused)
    }

    /// The gate's word has changed: looks into the snapshot again.
    pub(super) fn renew<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        word: GateWord,
    ) -> Result<(), Fault> {
        let Some(who) = self.who.as_mut() else {
            return Err(Fault::Bug);
        };
        let snapshot = cx.shared.snapshot.load();
        let route = route::renew(&snapshot, &who.key, who.route.database.id)?;
        who.word = word;
        who.take_route(route)?;
        let server = who.route.server.id;
        let moved = self
            .own
            .as_ref()
            .is_some_and(|own| own.backend.server != server);
        if moved {
            self.move_own(ports)?;
        }
        Ok(())
    }

    fn hold<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P, bytes: usize) -> Turn {
        self.rest_own(ports);
        let Some(who) = self.who.as_ref() else {
            return Turn::Refused(Fault::Bug);
        };
        let bytes = u64::try_from(bytes.max(self.input.len())).unwrap_or(u64::MAX);
        if !who.gate.reserve_bytes(bytes) {
            return Turn::Refused(Fault::HoldTimeout);
        }
        cx.metrics.protocol(Engine::Redis).gate_holds.increment();
        self.wait = Wait::Gate {
            since: cx.now,
            bytes,
        };
        ports.request(Request::AwaitGate(who.route.database.id));
        Turn::Later
    }

    pub(super) fn leave_gate(&mut self) {
        if std::mem::take(&mut self.in_gate)
            && let Some(who) = &self.who
        {
            who.gate.leave();
        }
    }

    /// Through the gate to a connection of the session's own.
    pub(super) fn take_own<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bytes: usize,
    ) -> Turn {
        if self.own.is_none() && !self.flights.is_empty() {
            // What is under way on the shared connection is answered first.
            self.wait = Wait::Replies;
            return Turn::Later;
        }
        let Some(pool) = self.pool_key() else {
            return Turn::Refused(Fault::Bug);
        };
        loop {
            if let Some(turn) = self.look_at_gate(cx, ports, bytes) {
                return turn;
            }
            let Some(who) = self.who.as_mut() else {
                return Turn::Refused(Fault::Bug);
            };
            let conn = match &self.own {
                Some(own) => own.backend.conn,
                None => match ports.lease(pool, &who.route) {
                    Some(backend) => {
                        let conn = backend.conn;
                        who.known = Some(Arc::clone(&backend.known));
                        self.own = Some(Box::new(Own::new(backend, cx.now)));
                        conn
                    }
                    None => {
                        self.wait = Wait::Lease { since: cx.now };
                        return Turn::Later;
                    }
                },
            };
            if self.in_gate {
                self.adopt_own(cx, ports);
                return Turn::Now(conn);
            }
            match who.gate.enter(who.word) {
                Ok(()) => {
                    self.in_gate = true;
                    self.adopt_own(cx, ports);
                    return Turn::Now(conn);
                }
                Err(Refused::Held | Refused::Changed(_)) => {}
            }
        }
    }

    /// What the server is and knows. `None`: a connection to it is on the way.
    pub(super) fn known<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
    ) -> Result<Option<Arc<Known>>, Fault> {
        if let Some(known) = self.who.as_ref().and_then(|who| who.known.as_ref()) {
            return Ok(Some(Arc::clone(known)));
        }
        match self.share(cx, ports, 0) {
            Turn::Now(_) => {
                // Nothing is sent.
                if self.flights.is_empty() {
                    self.leave_gate();
                }
                let known = self.who.as_ref().and_then(|who| who.known.as_ref());
                known.map_or(Err(Fault::Bug), |known| Ok(Some(Arc::clone(known))))
            }
            Turn::Later => Ok(None),
            Turn::Refused(fault) => Err(fault),
        }
    }

    // ---- what was waited for ----

    pub(super) fn link_ready<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let Wait::Link { since } = self.wait else {
            return;
        };
        self.waited(cx, since);
        self.wait = Wait::Not;
        self.pump(cx, ports);
    }

    /// The shared connection broke, or could not be had.
    pub(super) fn link_lost<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) {
        self.link = None;
        match self.own {
            None => self.fail_flights(cx, ports, fault),
            Some(_) => self.bracket_lost(),
        }
        if let Wait::Link { .. } = self.wait {
            self.wait = Wait::Not;
            if fault == &Fault::BackendLost {
                // It was not sent yet: another connection may do.
                self.pump(cx, ports);
            } else {
                self.refuse_next(cx, ports, fault);
            }
        }
        self.at_rest(cx, ports);
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
        self.waited(cx, since);
        self.wait = Wait::Not;
        if let Some(who) = self.who.as_mut() {
            who.known = Some(Arc::clone(&backend.known));
        }
        self.own = Some(Box::new(Own::new(backend, cx.now)));
        self.pump(cx, ports);
    }

    pub(super) fn lease_failed<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) {
        if let Wait::Lease { .. } = self.wait {
            self.wait = Wait::Not;
            self.refuse_next(cx, ports, fault);
        }
    }

    pub(super) fn gate_open<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let Wait::Gate { since, bytes } = self.wait else {
            return;
        };
        if let Some(who) = &self.who {
            who.gate.free_bytes(bytes);
        }
        let waited = cx.now.saturating_duration_since(since);
        cx.metrics.protocol(Engine::Redis).gate_hold.record(waited);
        self.wait = Wait::Not;
        self.pump(cx, ports);
    }

    fn waited(&self, cx: &Context, since: std::time::Instant) {
        let waited = cx.now.saturating_duration_since(since);
        cx.metrics.protocol(Engine::Redis).pool_wait.record(waited);
    }

    /// Waits for nothing any more.
    pub(super) fn stop_waiting<P: Ports<Backend>>(&mut self, ports: &mut P) {
        match std::mem::replace(&mut self.wait, Wait::Not) {
            Wait::Lease { .. } => {
                if let Some(pool) = self.pool_key() {
                    ports.request(Request::CancelLease { pool });
                }
            }
            Wait::Gate { bytes, .. } => {
                if let Some(who) = &self.who {
                    who.gate.free_bytes(bytes);
                }
            }
            Wait::Not | Wait::Link { .. } | Wait::Replies => {}
        }
    }

    pub(super) fn tick<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if let Wait::Gate { since, .. } = self.wait
            && let Some(who) = &self.who
            && cx.now.saturating_duration_since(since) >= who.gate.hold_time()
        {
            self.stop_waiting(ports);
            return self.refuse_next(cx, ports, &Fault::HoldTimeout);
        }
        if self.ending == Ending::No {
            self.tick_own(cx, ports);
        }
    }
}

/// Has a server speak a version of the protocol.
pub(super) const fn hello(version: Version) -> &'static [u8] {
    match version {
        Version::Resp3 => b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
        Version::Resp2 => b"*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n",
    }
}
