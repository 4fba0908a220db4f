//! One protocol's part of a worker: its sessions and its pools.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use control_store::{DatabaseId, Fault, KeyId, ServerId};
use slab::Slab;

use super::conns::Role;
use super::hub::Command;
use super::ports::WorkerPorts;
use super::tls::{Tls, count_received};
use super::{Core, Entering, HIGH_WATER, SLOT_BITS};
use crate::backend::budget::{Grant, WorkerId};
use crate::backend::pool::{Delivery, Lessee, LinkId, Pools, SessionRef};
use crate::backend::{BackendId, Member};
use crate::metrics::Side;
use crate::protocol::{BackendLogin, Links, LinksOf, Protocol};
use crate::reactor::{Buf, Close, ConnId, Reactor, TlsServer};
use crate::session::{Entrance, Event, Fate, Request, Session};

/// One client's session and connection.
struct Entry<P: Protocol> {
    session: P::Session,
    serial: u64,
    conn: ConnId,
    tls: Option<Box<Tls>>,
    /// The login must be over by then.
    login_until: Option<Instant>,
    /// Not read, because the session wants nothing now.
    paused: bool,
    /// Not read, because its backend does not take what it has.
    backend_full: bool,
    /// Not read, because it does not take what a shared connection has brought.
    client_full: bool,
    /// Its backend is not read, because the client does not take what it has.
    backend_paused: Option<ConnId>,
}

/// The sessions and pools of one protocol.
pub(super) struct Plane<P: Protocol> {
    sessions: Slab<Entry<P>>,
    pools: Pools<P>,
    links: LinksOf<P>,
    requests: Vec<Request>,
    /// Sessions that wait for a gate, in the order they came.
    held: VecDeque<(DatabaseId, SessionRef)>,
    /// Sessions whose client is not read because that backend does not take what it has.
    stalled: Vec<(ConnId, SessionRef)>,
    /// When logins must be over, in order.
    logins: VecDeque<(Instant, SessionRef)>,
    next_serial: u64,
    /// What TLS has decrypted.
    plain: Vec<Buf>,
}

impl<P: Protocol> Plane<P> {
    pub(super) fn new<R: Reactor>(core: &Core<R>) -> Self {
        Self {
            sessions: Slab::new(),
            pools: Pools::new(core.id, Arc::clone(&core.hub), Arc::clone(&core.metrics)),
            links: LinksOf::<P>::default(),
            requests: Vec::new(),
            held: VecDeque::new(),
            stalled: Vec::new(),
            logins: VecDeque::new(),
            next_serial: 0,
            plain: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether time limits must be watched closely.
    pub(super) fn is_busy(&self) -> bool {
        self.pools.is_busy() || !self.held.is_empty()
    }

    /// Whether there is anything that could be over a time limit.
    pub(super) fn is_watched(&self) -> bool {
        self.is_busy() || !self.logins.is_empty() || self.pools.has_connections()
    }

    // ---- what the reactor tells ----

    pub(super) fn accepted<R: Reactor>(
        &mut self,
        core: &mut Core<R>,
        conn: ConnId,
        entering: Entering,
    ) {
        let metrics = core.metrics.protocol(P::ENGINE);
        metrics.accepted.increment();
        let address = entering.address;
        let guard = core.cx.shared.guard.as_ref();
        let banned = address.is_some_and(|address| {
            guard.is_some_and(|guard| guard.banned(SystemTime::now(), address).is_some())
        });
        if banned {
            return Self::turn_away(core, conn, &Fault::AddressBanned);
        }
        if core.hub.clients.fetch_add(1, Ordering::Relaxed) >= core.hub.max_clients {
            core.hub.clients.fetch_sub(1, Ordering::Relaxed);
            return Self::turn_away(core, conn, &Fault::ProxyFull);
        }
        metrics.connections.increment();
        let entrance = Entrance {
            address,
            source: entering.source,
            plaintext: entering.plaintext,
            tls: entering.tls,
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        let until = core.cx.now + core.hub.limits.login;
        let slot = self.sessions.insert(Entry {
            session: P::Session::new(entrance),
            serial,
            conn,
            tls: None,
            login_until: Some(until),
            paused: false,
            backend_full: false,
            client_full: false,
            backend_paused: None,
        });
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        core.conns.set(conn, Role::Client(P::ENGINE, slot));
        self.logins.push_back((until, SessionRef { slot, serial }));
    }

    /// There is no room for this client.
    fn turn_away<R: Reactor>(core: &mut Core<R>, conn: ConnId, why: &Fault) {
        let mut out = Vec::new();
        P::turn_away(&mut out, why);
        core.reactor.send_copy(conn, &out);
        core.reactor.close(conn, Close::AfterFlush);
    }

    #[inline]
    pub(super) fn client_bytes<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32, buf: Buf) {
        let Some(entry) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        if entry.tls.is_some() {
            return self.tls_client_bytes(core, slot, buf);
        }
        count_received::<P>(&core.metrics, Side::Client, buf.len());
        self.session(core, slot, Event::Client(buf));
    }

    fn tls_client_bytes<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32, buf: Buf) {
        let mut plain = std::mem::take(&mut self.plain);
        let mut out = std::mem::take(&mut core.cipher);
        out.clear();
        let mut over = false;
        if let Some(entry) = self.sessions.get_mut(slot as usize)
            && let Some(tls) = entry.tls.as_mut()
        {
            over =
                tls.server.receive(buf, &mut plain, &mut out).is_err() || tls.server.peer_closed();
            if !out.is_empty() {
                core.reactor.send_copy(entry.conn, &out);
            }
            over |= tls.note_handshake::<P>(&core.metrics, over);
        }
        core.cipher = out;
        for buf in plain.drain(..) {
            count_received::<P>(&core.metrics, Side::Client, buf.len());
            self.session(core, slot, Event::Client(buf));
        }
        self.plain = plain;
        if over {
            self.session(core, slot, Event::ClientGone);
        }
    }

    #[inline]
    pub(super) fn backend_bytes<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32, buf: Buf) {
        count_received::<P>(&core.metrics, Side::Backend, buf.len());
        let Some(entry) = self.pools.backends.get_mut(slot as usize) else {
            return;
        };
        match entry.lessee {
            Some(Lessee::Session(session)) => {
                self.deliver_to(core, session, Event::Backend(buf));
                return self.throttle(core, slot, session);
            }
            Some(Lessee::Link(link)) => {
                self.links.received(link, buf);
                self.answer(core, link);
                if self.links.is_broken(link) {
                    tracing::warn!(
                        engine = P::ENGINE.lower_name(),
                        "a database server broke the protocol"
                    );
                    self.break_link(core, slot, link);
                }
                return;
            }
            None => {}
        }
        if entry.login.is_some() {
            return self.log_in(core, slot, &buf);
        }
        // Nobody leases it: the server has news of its own, or ends the connection.
        if P::ends_connection(&buf) {
            let conn = entry.conn;
            core.reactor.close(conn, Close::Now);
            core.conns.clear(conn);
            self.pools.failed(BackendId(slot), core.cx.now, true);
        }
    }

    /// Gives sessions what has come for them over a shared connection.
    fn answer<R: Reactor>(&mut self, core: &mut Core<R>, link: LinkId) {
        while let Some((session, answer)) = self.links.next(link) {
            self.deliver_to(core, session, Event::Answer(answer));
            // A client that does not take its answers may not ask for more.
            if let Some(entry) = self.sessions.get_mut(session.slot as usize)
                && entry.serial == session.serial
                && core.reactor.queued(entry.conn) > HIGH_WATER
            {
                entry.client_full = true;
                self.set_reading(core, session.slot);
            }
        }
    }

    /// A client that does not take what it is sent: its backend is not read until it has.
    #[inline]
    fn throttle<R: Reactor>(&mut self, core: &mut Core<R>, backend: u32, session: SessionRef) {
        let Some(entry) = self.sessions.get_mut(session.slot as usize) else {
            return;
        };
        if entry.serial != session.serial || core.reactor.queued(entry.conn) <= HIGH_WATER {
            return;
        }
        if let Some(backend) = self.pools.backends.get(backend as usize)
            && backend.lessee == Some(Lessee::Session(session))
            && entry.backend_paused.is_none()
        {
            entry.backend_paused = Some(backend.conn);
            core.reactor.pause(backend.conn);
        }
    }

    fn log_in<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32, bytes: &[u8]) {
        let Some(entry) = self.pools.backends.get_mut(slot as usize) else {
            return;
        };
        let Some(login) = entry.login.as_mut() else {
            return;
        };
        let mut out = Vec::new();
        match login.receive(bytes, &mut out) {
            Ok(None) => {
                if !out.is_empty() {
                    core.reactor.send_copy(entry.conn, &out);
                }
            }
            Ok(Some(done)) => {
                entry.login = None;
                entry.cancel = P::Login::cancel_request(&done);
                let member = Member {
                    id: BackendId(slot),
                    conn: entry.conn,
                    pool: entry.pool,
                    server: entry.server.id,
                    idle_since: core.cx.now,
                };
                let gate = core.hub.shared.gates.gate(entry.pool.database);
                let backend = P::backend(&core.cx, member, done, gate.schema_epoch());
                self.pools.ready(Box::new(backend), core.cx.now);
            }
            Err(error) => {
                tracing::warn!(engine = P::ENGINE.lower_name(), %error, "cannot log in to a database server");
                core.reactor.close(entry.conn, Close::Now);
                core.conns.clear(entry.conn);
                let temporary = P::Login::is_temporary(&error);
                self.pools.failed(BackendId(slot), core.cx.now, temporary);
            }
        }
    }

    /// A client's connection has ended, by itself or broken.
    pub(super) fn client_ended<R: Reactor>(
        &mut self,
        core: &mut Core<R>,
        slot: u32,
        conn: ConnId,
        error: Option<&io::Error>,
    ) {
        self.session(core, slot, Event::ClientGone);
        if error.is_some() {
            // Its id is dead; what the session still has to say goes nowhere.
            core.conns.clear(conn);
        }
    }

    /// A backend's connection has ended, by itself or broken.
    pub(super) fn backend_ended<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32) {
        let backend = self.pools.backends.get(slot as usize);
        let conn = backend.map(|it| it.conn);
        match backend.and_then(|it| it.lessee) {
            Some(Lessee::Session(session)) => self.deliver_to(core, session, Event::BackendGone),
            Some(Lessee::Link(link)) => {
                self.pools.failed(BackendId(slot), core.cx.now, true);
                self.link_lost(core, link, &Fault::BackendLost);
                if let Some(conn) = conn {
                    self.unstall(core, conn);
                }
            }
            None => self.pools.failed(BackendId(slot), core.cx.now, true),
        }
    }

    fn break_link<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32, link: LinkId) {
        if let Some(entry) = self.pools.backends.get(slot as usize) {
            let conn = entry.conn;
            core.reactor.close(conn, Close::Now);
            core.conns.clear(conn);
            self.unstall(core, conn);
        }
        self.pools.failed(BackendId(slot), core.cx.now, true);
        self.link_lost(core, link, &Fault::BackendLost);
    }

    fn link_lost<R: Reactor>(&mut self, core: &mut Core<R>, link: LinkId, fault: &Fault) {
        for session in self.links.lost(link) {
            self.deliver_to(core, session, Event::LinkLost(fault.clone()));
        }
    }

    /// A connection that carried a cancel request has ended.
    pub(super) fn cancel_ended<R: Reactor>(&mut self, core: &Core<R>, slot: u32, backend: ConnId) {
        self.pools.cancel_arrived(slot, backend, core.cx.now);
    }

    /// A client takes bytes again.
    pub(super) fn client_drained<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32) {
        if let Some(entry) = self.sessions.get_mut(slot as usize) {
            if let Some(backend) = entry.backend_paused.take() {
                core.reactor.resume(backend);
            }
            if std::mem::take(&mut entry.client_full) {
                self.set_reading(core, slot);
            }
        }
    }

    /// A backend takes bytes again.
    pub(super) fn backend_drained<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32) {
        if let Some(backend) = self.pools.backends.get(slot as usize) {
            let conn = backend.conn;
            self.unstall(core, conn);
        }
    }

    /// Reads those clients again whose commands a backend did not take: over a shared connection these are many.
    fn unstall<R: Reactor>(&mut self, core: &mut Core<R>, backend: ConnId) {
        let mut stalled = std::mem::take(&mut self.stalled);
        stalled.retain(|(conn, session)| {
            if *conn != backend {
                return true;
            }
            if let Some(entry) = self.sessions.get_mut(session.slot as usize)
                && entry.serial == session.serial
            {
                entry.backend_full = false;
                self.set_reading(core, session.slot);
            }
            false
        });
        self.stalled = stalled;
    }

    // ---- sessions ----

    fn deliver_to<R: Reactor>(
        &mut self,
        core: &mut Core<R>,
        session: SessionRef,
        event: Event<P::Backend>,
    ) {
        let known = self.sessions.get(session.slot as usize);
        if known.is_some_and(|entry| entry.serial == session.serial) {
            self.session(core, session.slot, event);
        }
    }

    /// Has a session handle an event, and does what it asks for.
    #[inline]
    fn session<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32, event: Event<P::Backend>) {
        let Some(entry) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        let mut ports = WorkerPorts {
            reactor: &mut core.reactor,
            conns: &mut core.conns,
            pools: &mut self.pools,
            links: &mut self.links,
            requests: &mut self.requests,
            metrics: core.metrics.protocol(P::ENGINE),
            conn: entry.conn,
            tls: entry.tls.as_deref_mut().map(|tls| &mut tls.pieces),
            session: SessionRef {
                slot,
                serial: entry.serial,
            },
            worker: core.id,
            now: core.cx.now,
            sent_to: None,
            backend_paused: &mut entry.backend_paused,
            backend_full: &mut entry.backend_full,
        };
        entry.session.handle(&mut core.cx, &mut ports, event);
        let sent_to = ports.sent_to;
        self.after(core, slot, sent_to);
    }

    /// After an event: TLS, backpressure, and the session's requests.
    #[inline]
    fn after<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32, sent_to: Option<ConnId>) {
        let Some(entry) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        if let Some(tls) = entry.tls.as_mut() {
            tls.encrypt(entry.conn, &mut core.reactor, &mut core.cipher);
        }
        if let Some(backend) = sent_to
            && core.reactor.queued(backend) > HIGH_WATER
            && !entry.backend_full
        {
            entry.backend_full = true;
            let serial = entry.serial;
            self.stalled.push((backend, SessionRef { slot, serial }));
        }
        self.set_reading(core, slot);
        while !self.requests.is_empty() {
            let mut requests = std::mem::take(&mut self.requests);
            for request in requests.drain(..) {
                self.do_request(core, slot, request);
            }
            if self.requests.is_empty() {
                self.requests = requests; // Its allocation serves again.
            }
        }
    }

    /// Reads the client's connection or not, as the session and its backend want.
    #[inline]
    fn set_reading<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32) {
        if let Some(entry) = self.sessions.get_mut(slot as usize) {
            let pause = entry.backend_full || entry.client_full || !entry.session.reads_client();
            if pause != entry.paused {
                entry.paused = pause;
                if pause {
                    core.reactor.pause(entry.conn);
                } else {
                    core.reactor.resume(entry.conn);
                }
            }
        }
    }

    fn do_request<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32, request: Request) {
        let Some(entry) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        let session = SessionRef {
            slot,
            serial: entry.serial,
        };
        match request {
            Request::StartTls { received, direct } => self.start_tls(core, slot, received, direct),
            Request::AwaitGate(database) => self.await_gate(core, database, session),
            Request::CancelLease { pool } => self.pools.cancel_wait(pool, Lessee::Session(session)),
            Request::CancelOther { process_id, key } => self.cancel_other(core, process_id, key),
            Request::LoggedIn => entry.login_until = None,
            Request::Close => self.close_client(core, slot),
        }
    }

    fn close_client<R: Reactor>(&mut self, core: &mut Core<R>, slot: u32) {
        let Some(mut entry) = self.sessions.try_remove(slot as usize) else {
            return;
        };
        if let Some(backend) = entry.backend_paused.take() {
            core.reactor.resume(backend);
        }
        if let Some(tls) = entry.tls.as_mut() {
            tls.encrypt(entry.conn, &mut core.reactor, &mut core.cipher);
            let mut out = Vec::new();
            tls.server.close_notify(&mut out);
            core.reactor.send_copy(entry.conn, &out);
        }
        core.conns.clear(entry.conn);
        core.reactor.close(entry.conn, Close::AfterFlush);
        core.hub.clients.fetch_sub(1, Ordering::Relaxed);
        core.metrics.protocol(P::ENGINE).connections.decrement();
    }

    fn start_tls<R: Reactor>(
        &mut self,
        core: &mut Core<R>,
        slot: u32,
        received: Vec<u8>,
        direct: bool,
    ) {
        let Some(store) = &core.hub.tls else {
            return self.close_client(core, slot);
        };
        let identity = store.current();
        let Ok(server) = TlsServer::new(Arc::clone(&identity.server_config)) else {
            return self.close_client(core, slot);
        };
        if let Some(entry) = self.sessions.get_mut(slot as usize) {
            entry.tls = Some(Box::new(Tls::new(server, direct)));
            entry.session.tls_started(identity.end_point_hash.clone());
        }
        if !received.is_empty() {
            self.tls_client_bytes(core, slot, Buf::from_vec(received));
        }
    }

    // ---- cancelling ----

    fn cancel_other<R: Reactor>(&mut self, core: &mut Core<R>, process_id: u32, key: Vec<u8>) {
        let worker = WorkerId(u16::try_from(process_id >> SLOT_BITS).unwrap_or(u16::MAX));
        if worker == core.id {
            self.cancel_here(core, process_id, &key);
        } else {
            core.hub.post(worker, Command::Cancel { process_id, key });
        }
    }

    pub(super) fn cancel_here<R: Reactor>(
        &mut self,
        core: &mut Core<R>,
        process_id: u32,
        key: &[u8],
    ) {
        let slot = process_id & ((1 << SLOT_BITS) - 1);
        let known = self.sessions.get(slot as usize);
        if known.is_some_and(|entry| entry.session.is_cancel_key(key)) {
            self.session(core, slot, Event::Cancel);
        }
    }

    // ---- gates, time, and letters ----

    fn await_gate<R: Reactor>(
        &mut self,
        core: &mut Core<R>,
        database: DatabaseId,
        session: SessionRef,
    ) {
        self.held.push_back((database, session));
        // The release may have come between the look at the gate and this.
        if !core.hub.shared.gates.gate(database).word().is_held() {
            self.open_gate(core, database);
        }
    }

    /// The gate of a database was released.
    pub(super) fn open_gate<R: Reactor>(&mut self, core: &mut Core<R>, database: DatabaseId) {
        let (open, held): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(it, _)| *it == database);
        self.held = held;
        for (_, session) in open {
            self.deliver_to(core, session, Event::GateOpen);
        }
    }

    /// Gives sessions and links what their pools have for them.
    pub(super) fn deliver<R: Reactor>(&mut self, core: &mut Core<R>) {
        while let Some((lessee, delivery)) = self.pools.deliveries.pop_front() {
            let outcome = match delivery {
                Delivery::Leased(backend) => Ok(backend),
                Delivery::Unavailable => Err(Fault::BackendUnavailable),
                Delivery::TimedOut(waited) => Err(Fault::PoolTimeout {
                    waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                }),
            };
            match (lessee, outcome) {
                (Lessee::Session(session), Ok(backend)) => {
                    let known = self.sessions.get(session.slot as usize);
                    if known.is_some_and(|entry| entry.serial == session.serial) {
                        self.session(core, session.slot, Event::Leased(backend));
                    } else {
                        self.release(core, backend, Fate::Keep); // Its session is gone.
                    }
                }
                (Lessee::Session(session), Err(fault)) => {
                    self.deliver_to(core, session, Event::LeaseFailed(fault));
                }
                (Lessee::Link(link), Ok(backend)) => match self.links.leased(link, backend) {
                    Ok(waiting) => {
                        for session in waiting {
                            self.deliver_to(core, session, Event::LinkReady);
                        }
                    }
                    Err(backend) => self.release(core, backend, Fate::Keep),
                },
                (Lessee::Link(link), Err(fault)) => self.link_lost(core, link, &fault),
            }
        }
    }

    fn release<R: Reactor>(&mut self, core: &mut Core<R>, backend: Box<P::Backend>, fate: Fate) {
        let now = core.cx.now;
        self.pools
            .release(&mut core.reactor, &mut core.conns, backend, fate, now);
    }

    /// Time has passed.
    pub(super) fn tick<R: Reactor>(&mut self, core: &mut Core<R>) {
        let leased = self.pools.backends.iter();
        let leased: Vec<SessionRef> = leased
            .filter_map(|(_, entry)| match entry.lessee {
                Some(Lessee::Session(session)) => Some(session),
                Some(Lessee::Link(_)) | None => None,
            })
            .collect();
        for session in leased {
            self.deliver_to(core, session, Event::Tick);
        }
        let held: Vec<SessionRef> = self.held.iter().map(|(_, session)| *session).collect();
        for session in held {
            self.deliver_to(core, session, Event::Tick);
        }
        let sessions = &self.sessions;
        self.held.retain(|(_, session)| {
            sessions
                .get(session.slot as usize)
                .is_some_and(|entry| entry.serial == session.serial)
        });
        self.end_logins(core);
        for id in self.links.late(core.cx.now) {
            self.pools.cancel(&mut core.reactor, &mut core.conns, id);
        }
        for backend in self.links.tick(core.cx.now) {
            self.release(core, backend, Fate::Keep);
        }
        self.pools
            .tick(&mut core.reactor, &mut core.conns, core.cx.now);
        self.deliver(core);
    }

    fn end_logins<R: Reactor>(&mut self, core: &mut Core<R>) {
        let now = core.cx.now;
        while let Some((_, session)) = self.logins.pop_front_if(|(until, _)| *until <= now) {
            if self.logs_in(session) {
                // As on a server: no word, since nobody has said what protocol it speaks.
                self.session(core, session.slot, Event::ClientGone);
            }
        }
        // Most logins are over long before their time.
        while let Some((_, session)) = self.logins.front()
            && !self.logs_in(*session)
        {
            self.logins.pop_front();
        }
    }

    fn logs_in(&self, session: SessionRef) -> bool {
        self.sessions
            .get(session.slot as usize)
            .is_some_and(|it| it.serial == session.serial && it.login_until.is_some())
    }

    /// Leave to open a connection has come for one of these pools, or for nobody that is left.
    pub(super) fn granted<R: Reactor>(&mut self, core: &mut Core<R>, grant: Grant) {
        self.pools
            .granted(&mut core.reactor, &mut core.conns, grant, core.cx.now);
    }

    /// Another worker needs a connection to that server.
    pub(super) fn reclaim<R: Reactor>(&mut self, core: &mut Core<R>, server: ServerId) {
        self.pools
            .reclaim(&mut core.reactor, &mut core.conns, server, None);
    }

    /// The route of a database may have changed.
    pub(super) fn refreshed<R: Reactor>(&mut self, core: &mut Core<R>, database: DatabaseId) {
        let snapshot = core.hub.shared.snapshot.load();
        let server = snapshot.databases.get(&database).map(|it| it.server);
        self.pools
            .close_idle(&mut core.reactor, &mut core.conns, database, server);
    }

    pub(super) fn kill_database<R: Reactor>(&mut self, core: &mut Core<R>, database: DatabaseId) {
        let why = "the database is being suspended, moved or deleted";
        self.kill(
            core,
            |session| session.database() == Some(database),
            &Fault::Terminated { why },
        );
        for backend in self.links.close(database) {
            self.release(core, backend, Fate::Close);
        }
        self.pools
            .close_unleased(&mut core.reactor, &mut core.conns, database);
    }

    pub(super) fn kill_key<R: Reactor>(&mut self, core: &mut Core<R>, key: KeyId) {
        let why = "the API key of this login was deleted";
        self.kill(
            core,
            |session| session.key() == Some(key),
            &Fault::Terminated { why },
        );
    }

    pub(super) fn kill<R: Reactor>(
        &mut self,
        core: &mut Core<R>,
        which: impl Fn(&P::Session) -> bool,
        fault: &Fault,
    ) {
        let doomed: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(_, entry)| which(&entry.session))
            .filter_map(|(slot, _)| u32::try_from(slot).ok())
            .collect();
        for slot in doomed {
            self.session(core, slot, Event::Kill(fault.clone()));
        }
    }

    /// The proxy is stopping.
    pub(super) fn drain<R: Reactor>(&mut self, core: &mut Core<R>) {
        let slots: Vec<u32> = self
            .sessions
            .iter()
            .filter_map(|(slot, _)| u32::try_from(slot).ok())
            .collect();
        for slot in slots {
            self.session(core, slot, Event::Drain);
        }
    }
}

/// How soon time limits are looked at again.
pub(super) const fn pace(busy: bool) -> Duration {
    if busy { super::TICK } else { super::SLOW_TICK }
}
