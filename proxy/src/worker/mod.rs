//! One thread of the data plane: its sockets, its sessions and its pools.

pub(crate) mod conns;
pub(crate) mod hub;
mod ports;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use control_store::logs::Source;
use control_store::{DatabaseId, Engine, Fault};
use protocol_postgres::backend::ErrorFields;
use protocol_postgres::frame::{self, Split};
use slab::Slab;

use crate::backend::budget::WorkerId;
use crate::backend::handshake::{HandshakeError, LoggedIn};
use crate::backend::pool::{Delivery, Pools, SessionRef};
use crate::backend::prepared::Prepared;
use crate::backend::{Backend, BackendId, Incoming};
use crate::faces::postgres as face;
use crate::gate::Change;
use crate::metrics::{Handshake as TlsHandshake, Side, WorkerMetrics};
use crate::query_log::WorkerLog;
use crate::reactor::{Buf, Close, ConnId, Event as Io, ListenerId, Peer, Reactor, TlsServer};
use crate::session::postgres::PgSession;
use crate::session::postgres::replies::Replies;
use crate::session::{Context, Entrance, Event, Request};

use conns::{Conns, Role};
use hub::{Command, Hub};
use ports::WorkerPorts;

/// How often time limits are looked at while any run.
const TICK: Duration = Duration::from_millis(50);
/// The same while nothing but idle connections could be over a limit.
const SLOW_TICK: Duration = Duration::from_secs(1);
/// A peer that does not take this much is sent no more, until it has.
const HIGH_WATER: usize = 256 << 10;
/// A session's slot in a cancel key's process id.
const SLOT_BITS: u32 = 24;

/// One client's session and connection.
struct Entry {
    session: PgSession,
    serial: u64,
    conn: ConnId,
    tls: Option<Box<Tls>>,
    /// The login must be over by then.
    login_until: Option<Instant>,
    /// Not read, because the session wants nothing now.
    paused: bool,
    /// Not read, because its backend does not take what it has.
    backend_full: bool,
    /// Its backend is not read, because the client does not take what it has.
    backend_paused: Option<ConnId>,
}

/// TLS on a client's connection.
pub(crate) struct Tls {
    server: TlsServer,
    /// What is to be encrypted once the event in hand is dealt with.
    pieces: Vec<Buf>,
    direct: bool,
    counted: bool,
}

/// A listening socket, and how clients that come through it are met.
pub(crate) struct Door {
    pub(crate) socket: OwnedFd,
    pub(crate) source: Source,
    pub(crate) plaintext: Plaintext,
    pub(crate) tls: bool,
}

/// Whose unencrypted connections are welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plaintext {
    /// Nobody's.
    Never,
    /// Those from this machine.
    Loopback,
    /// Everybody's.
    Always,
}

/// A worker thread.
pub(crate) struct Worker<R: Reactor> {
    id: WorkerId,
    hub: Arc<Hub>,
    reactor: R,
    metrics: Arc<WorkerMetrics>,
    cx: Context,
    conns: Conns,
    sessions: Slab<Entry>,
    pools: Pools,
    requests: Vec<Request>,
    doors: AHashMap<ListenerId, (Source, Plaintext, bool)>,
    /// Sessions that wait for a gate, in the order they came.
    held: VecDeque<(DatabaseId, SessionRef)>,
    /// When logins must be over, in order.
    logins: VecDeque<(Instant, SessionRef)>,
    next_serial: u64,
    /// Set while the proxy is stopping.
    deadline: Option<Instant>,
    clock: Clock,
    next_tick: Instant,
    plain: Vec<Buf>,
    cipher: Vec<u8>,
}

/// Wall-clock time at the price of monotonic time.
struct Clock {
    base: Instant,
    base_us: u64,
}

impl Clock {
    fn new(now: Instant) -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            base: now,
            base_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn wall_us(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.base).as_micros();
        self.base_us
            .saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

impl<R: Reactor> Worker<R> {
    /// A worker that takes clients from these doors.
    pub(crate) fn new(
        id: WorkerId,
        hub: Arc<Hub>,
        mut reactor: R,
        metrics: Arc<WorkerMetrics>,
        log: WorkerLog,
        doors: Vec<Door>,
    ) -> io::Result<Self> {
        hub.set_waker(id, reactor.waker());
        let mut listeners = AHashMap::new();
        for door in doors {
            let listener = reactor.listen(door.socket)?;
            listeners.insert(listener, (door.source, door.plaintext, door.tls));
        }
        let now = Instant::now();
        let clock = Clock::new(now);
        Ok(Self {
            id,
            cx: Context {
                shared: Arc::clone(&hub.shared),
                statements: crate::session::postgres::statement::Statements::new(),
                sets: crate::session::postgres::settings::SettingSets::new(),
                logins: crate::session::postgres::login::KnownLogins::default(),
                log,
                metrics: Arc::clone(&metrics),
                now,
                wall_us: clock.wall_us(now),
                scratch: Vec::new(),
            },
            pools: Pools::new(id, Arc::clone(&hub), Arc::clone(&metrics)),
            metrics,
            hub,
            reactor,
            conns: Conns::default(),
            sessions: Slab::new(),
            requests: Vec::new(),
            doors: listeners,
            held: VecDeque::new(),
            logins: VecDeque::new(),
            next_serial: 0,
            deadline: None,
            clock,
            next_tick: now,
            plain: Vec::new(),
            cipher: Vec::new(),
        })
    }

    /// Works until the proxy is drained.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(512);
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.reactor.turn(timeout, &mut events) {
                tracing::error!(%error, "a worker's reactor failed");
                break;
            }
            self.set_time();
            for event in events.drain(..) {
                self.io(event);
            }
            self.deliver();
            if self.cx.now >= self.next_tick {
                self.tick();
            }
            if self.is_drained() {
                break;
            }
        }
        self.flush_rest(&mut events);
        self.hub.worker_ended(self.id);
    }

    /// Gives the last words of closed connections a moment to leave.
    fn flush_rest(&mut self, events: &mut Vec<Io>) {
        for _ in 0..20 {
            if self
                .reactor
                .turn(Some(Duration::from_millis(5)), events)
                .is_err()
            {
                return;
            }
            events.clear();
        }
    }

    fn set_time(&mut self) {
        let now = Instant::now();
        // The wall clock may be set while we run; once a second is often enough to notice.
        if now.saturating_duration_since(self.clock.base) >= SLOW_TICK {
            self.clock = Clock::new(now);
        }
        self.cx.now = now;
        self.cx.wall_us = self.clock.wall_us(now);
    }

    fn timeout(&mut self) -> Option<Duration> {
        if self.pools.is_busy() {
            self.next_tick = self.next_tick.min(self.cx.now + TICK);
        }
        let watched = self.pools.is_busy()
            || !self.held.is_empty()
            || !self.logins.is_empty()
            || self.pools.has_connections()
            || self.deadline.is_some();
        watched.then(|| self.next_tick.saturating_duration_since(Instant::now()))
    }

    fn is_drained(&self) -> bool {
        self.deadline.is_some() && self.sessions.is_empty()
    }

    // ---- what the reactor tells ----

    fn io(&mut self, event: Io) {
        match event {
            Io::Received { conn, buf } => match self.conns.get(conn) {
                Some(Role::Client(slot)) => self.client_bytes(slot, buf),
                Some(Role::Backend(slot)) => self.backend_bytes(slot, buf),
                Some(Role::Cancel(..)) | None => {}
            },
            Io::Accepted {
                listener,
                conn,
                peer,
            } => self.accepted(listener, conn, &peer),
            Io::Connected { .. } => {}
            Io::Eof { conn } => self.ended(conn, None),
            Io::Failed { conn, error } => self.ended(conn, Some(&error)),
            Io::Drained { conn } => self.drained(conn),
            Io::Woken => self.read_letters(),
        }
    }

    fn accepted(&mut self, listener: ListenerId, conn: ConnId, peer: &Peer) {
        let Some((source, plaintext, tls)) = self.doors.get(&listener).copied() else {
            return self.reactor.close(conn, Close::Now);
        };
        let address = match peer {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix => None,
        };
        let metrics = self.metrics.protocol(Engine::Postgres);
        metrics.accepted.increment();
        if address.is_some_and(|address| self.is_banned(address)) {
            return self.turn_away(conn, &Fault::AddressBanned);
        }
        if self.hub.clients.fetch_add(1, Ordering::Relaxed) >= self.hub.max_clients {
            self.hub.clients.fetch_sub(1, Ordering::Relaxed);
            self.turn_away(conn, &Fault::ProxyFull);
            return;
        }
        metrics.connections.increment();
        let loopback = address.is_none_or(|address| address.is_loopback());
        let entrance = Entrance {
            address,
            source,
            plaintext: match plaintext {
                Plaintext::Never => false,
                Plaintext::Loopback => loopback,
                Plaintext::Always => true,
            },
            tls,
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        let until = self.cx.now + self.hub.limits.login;
        let slot = self.sessions.insert(Entry {
            session: PgSession::new(entrance),
            serial,
            conn,
            tls: None,
            login_until: Some(until),
            paused: false,
            backend_full: false,
            backend_paused: None,
        });
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        self.conns.set(conn, Role::Client(slot));
        let session = SessionRef { slot, serial };
        self.logins.push_back((until, session));
    }

    fn is_banned(&self, address: IpAddr) -> bool {
        let guard = self.cx.shared.guard.as_ref();
        guard.is_some_and(|guard| guard.banned(SystemTime::now(), address).is_some())
    }

    /// There is no room for this client.
    fn turn_away(&mut self, conn: ConnId, why: &Fault) {
        let names = face::Login {
            user: "",
            database: "",
        };
        let error = face::translate(why, face::Stage::Login, names);
        let mut out = Vec::new();
        let response = protocol_postgres::backend::ErrorResponse {
            severity: protocol_postgres::backend::Severity::Fatal,
            code: error.code,
            message: &error.message,
            detail: None,
            hint: None,
        };
        protocol_postgres::backend::write::error_response(&mut out, &response);
        self.reactor.send_copy(conn, &out);
        self.reactor.close(conn, Close::AfterFlush);
    }

    #[inline]
    fn client_bytes(&mut self, slot: u32, buf: Buf) {
        let Some(entry) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        if entry.tls.is_some() {
            return self.tls_client_bytes(slot, buf);
        }
        self.count(Side::Client, |traffic| &traffic.received, buf.len());
        self.session(slot, Event::Client(buf));
    }

    fn tls_client_bytes(&mut self, slot: u32, buf: Buf) {
        let mut plain = std::mem::take(&mut self.plain);
        let mut out = std::mem::take(&mut self.cipher);
        out.clear();
        let mut over = false;
        if let Some(entry) = self.sessions.get_mut(slot as usize)
            && let Some(tls) = entry.tls.as_mut()
        {
            over =
                tls.server.receive(buf, &mut plain, &mut out).is_err() || tls.server.peer_closed();
            if !out.is_empty() {
                self.reactor.send_copy(entry.conn, &out);
            }
            over |= note_handshake(tls, &self.metrics, over);
        }
        self.cipher = out;
        for buf in plain.drain(..) {
            self.count(Side::Client, |traffic| &traffic.received, buf.len());
            self.session(slot, Event::Client(buf));
        }
        self.plain = plain;
        if over {
            self.session(slot, Event::ClientGone);
        }
    }

    #[inline]
    fn backend_bytes(&mut self, slot: u32, buf: Buf) {
        self.count(Side::Backend, |traffic| &traffic.received, buf.len());
        let Some(entry) = self.pools.backends.get_mut(slot as usize) else {
            return;
        };
        if let Some(session) = entry.session {
            self.deliver_to(session, Event::Backend(buf));
            return self.throttle(slot, session);
        }
        if entry.handshake.is_some() {
            return self.log_in(slot, &buf);
        }
        // Nobody leases it: the server has news of its own, or ends the connection.
        if ends_connection(&buf) {
            let conn = entry.conn;
            self.reactor.close(conn, Close::Now);
            self.conns.clear(conn);
            self.pools.failed(BackendId(slot), self.cx.now, true);
        }
    }

    /// A client that does not take what it is sent: its backend is not read until it has.
    #[inline]
    fn throttle(&mut self, backend: u32, session: SessionRef) {
        let Some(entry) = self.sessions.get_mut(session.slot as usize) else {
            return;
        };
        if entry.serial != session.serial || self.reactor.queued(entry.conn) <= HIGH_WATER {
            return;
        }
        if let Some(backend) = self.pools.backends.get(backend as usize)
            && backend.session == Some(session)
            && entry.backend_paused.is_none()
        {
            entry.backend_paused = Some(backend.conn);
            self.reactor.pause(backend.conn);
        }
    }

    fn log_in(&mut self, slot: u32, bytes: &[u8]) {
        let Some(entry) = self.pools.backends.get_mut(slot as usize) else {
            return;
        };
        let Some(handshake) = entry.handshake.as_mut() else {
            return;
        };
        let mut out = Vec::new();
        match handshake.receive(bytes, &mut out) {
            Ok(None) => {
                if !out.is_empty() {
                    self.reactor.send_copy(entry.conn, &out);
                }
            }
            Ok(Some(logged_in)) => self.logged_in(slot, logged_in),
            Err(error) => self.login_failed(slot, &error),
        }
    }

    fn logged_in(&mut self, slot: u32, logged_in: LoggedIn) {
        let Some(entry) = self.pools.backends.get_mut(slot as usize) else {
            return;
        };
        entry.handshake = None;
        entry.cancel = (logged_in.process_id, logged_in.cancel_key.clone());
        let backend = Box::new(Backend {
            id: BackendId(slot),
            conn: entry.conn,
            pool: entry.pool,
            server: entry.server.id,
            parameters: Rc::new(logged_in.parameters),
            replies: Replies::default(),
            prepared: Prepared::default(),
            settings: self.cx.sets.none(),
            schema_epoch: self
                .hub
                .shared
                .gates
                .gate(entry.pool.database)
                .schema_epoch(),
            incoming: Incoming::default(),
            idle_since: self.cx.now,
        });
        self.pools.ready(backend, self.cx.now);
    }

    fn login_failed(&mut self, slot: u32, error: &HandshakeError) {
        tracing::warn!(%error, "cannot log in to a database server");
        if let Some(entry) = self.pools.backends.get(slot as usize) {
            let conn = entry.conn;
            self.reactor.close(conn, Close::Now);
            self.conns.clear(conn);
        }
        let temporary = error.is_temporary();
        self.pools.failed(BackendId(slot), self.cx.now, temporary);
    }

    /// A connection has ended, by itself or broken.
    fn ended(&mut self, conn: ConnId, error: Option<&io::Error>) {
        let role = self.conns.get(conn);
        match role {
            Some(Role::Client(slot)) => {
                self.session(slot, Event::ClientGone);
                if error.is_some() {
                    // Its id is dead; what the session still has to say goes nowhere.
                    self.conns.clear(conn);
                }
            }
            Some(Role::Backend(slot)) => {
                self.conns.clear(conn);
                self.reactor.close(conn, Close::Now);
                let session = self
                    .pools
                    .backends
                    .get(slot as usize)
                    .and_then(|it| it.session);
                match session {
                    Some(session) => self.deliver_to(session, Event::BackendGone),
                    None => self.pools.failed(BackendId(slot), self.cx.now, true),
                }
            }
            Some(Role::Cancel(slot, backend)) => {
                self.conns.clear(conn);
                self.reactor.close(conn, Close::Now);
                self.pools.cancel_arrived(slot, backend, self.cx.now);
            }
            None => {}
        }
    }

    /// A peer takes bytes again.
    fn drained(&mut self, conn: ConnId) {
        match self.conns.get(conn) {
            Some(Role::Client(slot)) => {
                if let Some(entry) = self.sessions.get_mut(slot as usize)
                    && let Some(backend) = entry.backend_paused.take()
                {
                    self.reactor.resume(backend);
                }
            }
            Some(Role::Backend(slot)) => {
                let session = self
                    .pools
                    .backends
                    .get(slot as usize)
                    .and_then(|it| it.session);
                if let Some(session) = session
                    && let Some(entry) = self.sessions.get_mut(session.slot as usize)
                    && entry.serial == session.serial
                {
                    entry.backend_full = false;
                    self.set_reading(session.slot);
                }
            }
            Some(Role::Cancel(..)) | None => {}
        }
    }

    // ---- sessions ----

    fn deliver_to(&mut self, session: SessionRef, event: Event) {
        let known = self.sessions.get(session.slot as usize);
        if known.is_some_and(|entry| entry.serial == session.serial) {
            self.session(session.slot, event);
        }
    }

    /// Has a session handle an event, and does what it asks for.
    #[inline]
    fn session(&mut self, slot: u32, event: Event) {
        let Some(entry) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        let mut ports = WorkerPorts {
            reactor: &mut self.reactor,
            conns: &mut self.conns,
            pools: &mut self.pools,
            requests: &mut self.requests,
            metrics: self.metrics.protocol(Engine::Postgres),
            conn: entry.conn,
            tls: entry.tls.as_deref_mut().map(|tls| &mut tls.pieces),
            session: SessionRef {
                slot,
                serial: entry.serial,
            },
            worker: self.id,
            now: self.cx.now,
            sent_to: None,
            backend_paused: &mut entry.backend_paused,
            backend_full: &mut entry.backend_full,
        };
        entry.session.handle(&mut self.cx, &mut ports, event);
        let sent_to = ports.sent_to;
        self.after(slot, sent_to);
    }

    /// After an event: TLS, backpressure, and the session's requests.
    #[inline]
    fn after(&mut self, slot: u32, sent_to: Option<ConnId>) {
        let Some(entry) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        if let Some(tls) = entry.tls.as_mut()
            && !tls.pieces.is_empty()
        {
            encrypt(tls, entry.conn, &mut self.reactor, &mut self.cipher);
        }
        if let Some(backend) = sent_to
            && self.reactor.queued(backend) > HIGH_WATER
        {
            entry.backend_full = true;
        }
        self.set_reading(slot);
        if !self.requests.is_empty() {
            self.do_requests(slot);
        }
    }

    /// Reads the client's connection or not, as the session and its backend want.
    #[inline]
    fn set_reading(&mut self, slot: u32) {
        if let Some(entry) = self.sessions.get_mut(slot as usize) {
            let pause = entry.backend_full || !entry.session.reads_client();
            if pause != entry.paused {
                entry.paused = pause;
                if pause {
                    self.reactor.pause(entry.conn);
                } else {
                    self.reactor.resume(entry.conn);
                }
            }
        }
    }

    fn do_requests(&mut self, slot: u32) {
        let requests = std::mem::take(&mut self.requests);
        for request in requests {
            self.do_request(slot, request);
        }
    }

    fn do_request(&mut self, slot: u32, request: Request) {
        let Some(entry) = self.sessions.get_mut(slot as usize) else {
            return;
        };
        let session = SessionRef {
            slot,
            serial: entry.serial,
        };
        match request {
            Request::StartTls { received, direct } => self.start_tls(slot, received, direct),
            Request::AwaitGate(database) => self.await_gate(database, session),
            Request::CancelLease { pool } => self.pools.cancel_wait(pool, session),
            Request::CancelOther { process_id, key } => self.cancel_other(process_id, key),
            Request::LoggedIn => entry.login_until = None,
            Request::Close => self.close_client(slot),
        }
    }

    fn close_client(&mut self, slot: u32) {
        let Some(mut entry) = self.sessions.try_remove(slot as usize) else {
            return;
        };
        if let Some(backend) = entry.backend_paused.take() {
            self.reactor.resume(backend);
        }
        if let Some(tls) = entry.tls.as_mut() {
            encrypt(tls, entry.conn, &mut self.reactor, &mut self.cipher);
            let mut out = Vec::new();
            tls.server.close_notify(&mut out);
            self.reactor.send_copy(entry.conn, &out);
        }
        self.conns.clear(entry.conn);
        self.reactor.close(entry.conn, Close::AfterFlush);
        self.hub.clients.fetch_sub(1, Ordering::Relaxed);
        self.metrics
            .protocol(Engine::Postgres)
            .connections
            .decrement();
    }

    fn start_tls(&mut self, slot: u32, received: Vec<u8>, direct: bool) {
        let Some(store) = &self.hub.tls else {
            return self.close_client(slot);
        };
        let identity = store.current();
        let Ok(server) = TlsServer::new(Arc::clone(&identity.server_config)) else {
            return self.close_client(slot);
        };
        if let Some(entry) = self.sessions.get_mut(slot as usize) {
            entry.tls = Some(Box::new(Tls {
                server,
                pieces: Vec::new(),
                direct,
                counted: false,
            }));
            entry.session.tls_started(identity.end_point_hash.clone());
        }
        if !received.is_empty() {
            self.tls_client_bytes(slot, Buf::from_vec(received));
        }
    }

    // ---- cancelling ----

    fn cancel_other(&mut self, process_id: u32, key: Vec<u8>) {
        let worker = WorkerId(u16::try_from(process_id >> SLOT_BITS).unwrap_or(u16::MAX));
        if worker == self.id {
            self.cancel_here(process_id, &key);
        } else {
            self.hub.post(worker, Command::Cancel { process_id, key });
        }
    }

    fn cancel_here(&mut self, process_id: u32, key: &[u8]) {
        let slot = process_id & ((1 << SLOT_BITS) - 1);
        let known = self.sessions.get(slot as usize);
        if known.is_some_and(|entry| entry.session.is_cancel_key(key)) {
            self.session(slot, Event::Cancel);
        }
    }

    // ---- gates, time, and letters ----

    fn await_gate(&mut self, database: DatabaseId, session: SessionRef) {
        self.held.push_back((database, session));
        // The release may have come between the look at the gate and this.
        if !self.hub.shared.gates.gate(database).word().is_held() {
            self.open_gate(database);
        }
    }

    fn open_gate(&mut self, database: DatabaseId) {
        let (open, held): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(it, _)| *it == database);
        self.held = held;
        for (_, session) in open {
            self.deliver_to(session, Event::GateOpen);
        }
    }

    /// Gives sessions what their pools have for them.
    fn deliver(&mut self) {
        while let Some((session, delivery)) = self.pools.deliveries.pop_front() {
            let event = match delivery {
                Delivery::Leased(backend) => Event::Leased(backend),
                Delivery::Unavailable => Event::LeaseFailed(Fault::BackendUnavailable),
                Delivery::TimedOut(waited) => Event::LeaseFailed(Fault::PoolTimeout {
                    waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                }),
            };
            let known = self.sessions.get(session.slot as usize);
            if known.is_some_and(|entry| entry.serial == session.serial) {
                self.session(session.slot, event);
            } else if let Event::Leased(backend) = event {
                // Its session is gone.
                self.pools.release(
                    &mut self.reactor,
                    &mut self.conns,
                    backend,
                    crate::session::Fate::Keep,
                    self.cx.now,
                );
            }
        }
    }

    fn tick(&mut self) {
        let now = self.cx.now;
        let leased = self.pools.backends.iter();
        let leased: Vec<SessionRef> = leased.filter_map(|(_, entry)| entry.session).collect();
        for session in leased {
            self.deliver_to(session, Event::Tick);
        }
        let held: Vec<SessionRef> = self.held.iter().map(|(_, session)| *session).collect();
        for session in held {
            self.deliver_to(session, Event::Tick);
        }
        let sessions = &self.sessions;
        self.held.retain(|(_, session)| {
            sessions
                .get(session.slot as usize)
                .is_some_and(|entry| entry.serial == session.serial)
        });
        self.end_logins(now);
        self.pools.tick(&mut self.reactor, &mut self.conns, now);
        self.deliver();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.kill(|_| true, &Fault::Draining);
        }
        let close = self.pools.is_busy() || !self.held.is_empty() || self.deadline.is_some();
        self.next_tick = now + if close { TICK } else { SLOW_TICK };
    }

    fn end_logins(&mut self, now: Instant) {
        while let Some((_, session)) = self.logins.pop_front_if(|(until, _)| *until <= now) {
            let late = self
                .sessions
                .get(session.slot as usize)
                .is_some_and(|it| it.serial == session.serial && it.login_until.is_some());
            if late {
                // As on a server: no word, since nobody has said what protocol it speaks.
                self.session(session.slot, Event::ClientGone);
            }
        }
        // Most logins are over long before their time.
        while let Some((_, session)) = self.logins.front() {
            let waits = self
                .sessions
                .get(session.slot as usize)
                .is_some_and(|it| it.serial == session.serial && it.login_until.is_some());
            if waits {
                break;
            }
            self.logins.pop_front();
        }
    }

    fn read_letters(&mut self) {
        for command in self.hub.collect(self.id) {
            match command {
                Command::Gate(Change::Released(database)) => self.open_gate(database),
                Command::Gate(Change::Refreshed(database)) => self.refreshed(database),
                Command::Grant(grant) => {
                    self.pools
                        .granted(&mut self.reactor, &mut self.conns, grant, self.cx.now);
                }
                Command::Reclaim(server) => {
                    self.pools
                        .reclaim(&mut self.reactor, &mut self.conns, server, None);
                }
                Command::Cancel { process_id, key } => self.cancel_here(process_id, &key),
                Command::KillDatabase(database, latch) => {
                    let why = "the database is being suspended, moved or deleted";
                    self.kill(
                        |session| session.database() == Some(database),
                        &Fault::Terminated { why },
                    );
                    self.pools
                        .close_unleased(&mut self.reactor, &mut self.conns, database);
                    latch.count_down();
                }
                Command::KillKey(key) => {
                    let why = "the API key of this login was deleted";
                    self.kill(
                        |session| session.key() == Some(key),
                        &Fault::Terminated { why },
                    );
                }
                Command::Drain(deadline) => self.drain(deadline),
            }
        }
        self.deliver();
    }

    /// The route of a database may have changed.
    fn refreshed(&mut self, database: DatabaseId) {
        let snapshot = self.hub.shared.snapshot.load();
        let server = snapshot.databases.get(&database).map(|it| it.server);
        self.pools
            .close_idle(&mut self.reactor, &mut self.conns, database, server);
    }

    fn kill(&mut self, which: impl Fn(&PgSession) -> bool, fault: &Fault) {
        let doomed: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(_, entry)| which(&entry.session))
            .filter_map(|(slot, _)| u32::try_from(slot).ok())
            .collect();
        for slot in doomed {
            self.session(slot, Event::Kill(fault.clone()));
        }
    }

    fn drain(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
        self.next_tick = self.cx.now;
        let listeners: Vec<ListenerId> = self.doors.drain().map(|(listener, _)| listener).collect();
        for listener in listeners {
            self.reactor.stop_listening(listener);
        }
        let slots: Vec<u32> = self
            .sessions
            .iter()
            .filter_map(|(slot, _)| u32::try_from(slot).ok())
            .collect();
        for slot in slots {
            self.session(slot, Event::Drain);
        }
    }

    #[inline]
    fn count(
        &self,
        side: Side,
        which: impl Fn(&crate::metrics::Traffic) -> &crate::metrics::Counter,
        bytes: usize,
    ) {
        let traffic = self.metrics.protocol(Engine::Postgres).traffic.of(side);
        which(traffic).add(u64::try_from(bytes).unwrap_or(0));
    }
}

/// Encrypts what has gathered for a client, and queues it.
fn encrypt<R: Reactor>(tls: &mut Tls, conn: ConnId, reactor: &mut R, scratch: &mut Vec<u8>) {
    /// Replies up to this size are copied into the send queue, so that the scratch buffer is used again.
    const COPIED: usize = 4 << 10;
    if tls.pieces.is_empty() {
        return;
    }
    scratch.clear();
    let pieces = tls.pieces.iter().map(|piece| &**piece);
    let sent = tls.server.send_pieces(pieces, scratch);
    tls.pieces.clear();
    if sent.is_err() {
        return; // The connection is over; its end follows.
    }
    if scratch.len() <= COPIED {
        reactor.send_copy(conn, scratch);
    } else {
        reactor.send(conn, Buf::from_vec(std::mem::take(scratch)));
    }
}

/// Counts a handshake that has ended. Whether the connection must end for it.
fn note_handshake(tls: &mut Tls, metrics: &WorkerMetrics, failed: bool) -> bool {
    if tls.counted {
        return false;
    }
    let handshakes = &metrics.protocol(Engine::Postgres).handshakes;
    if let Some(outcome) = tls.server.handshake_outcome() {
        tls.counted = true;
        handshakes.of(outcome).increment();
        // Without an SSLRequest only ALPN tells that the client means this protocol.
        return tls.direct && tls.server.alpn_protocol() != Some(b"postgresql");
    }
    if failed {
        tls.counted = true;
        handshakes.of(TlsHandshake::Failed).increment();
    }
    false
}

/// Whether a server that nobody asked anything ends the connection, or breaks the protocol.
fn ends_connection(mut bytes: &[u8]) -> bool {
    const MAX_BODY: u32 = 64 << 10;
    while !bytes.is_empty() {
        match frame::split(bytes, MAX_BODY) {
            Ok(Split::Message { tag, body, used }) => {
                let harmless = match tag {
                    b'S' | b'N' | b'A' => true,
                    b'E' => ErrorFields::decode(body).is_ok_and(|fields| !fields.is_fatal()),
                    _ => false,
                };
                if !harmless {
                    return true;
                }
                bytes = bytes.get(used..).unwrap_or_default();
            }
            Ok(Split::Need(_)) | Err(_) => return true,
        }
    }
    false
}
