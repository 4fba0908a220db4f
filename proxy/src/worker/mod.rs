//! One thread of the data plane: its sockets, its sessions and its pools.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the thread's loop; who gets what happens |
//! | `plane.rs` | the sessions and pools of one protocol |
//! | `ports.rs` | how a session acts |
//! | `tls.rs` | TLS between a connection and its session |
//! | `conns.rs` | what each connection is for |
//! | `entry.rs` | connections through a load balancer, which says whose they are |
//! | `hub.rs` | what threads share, and how they reach each other |

pub(crate) mod conns;
mod entry;
pub(crate) mod hub;
mod plane;
mod ports;
mod tls;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use control_store::logs::Source;
use control_store::{Engine, Fault};

use crate::backend::budget::WorkerId;
use crate::gate::Change;
use crate::metrics::WorkerMetrics;
use crate::query_log::WorkerLog;
use crate::reactor::{Buf, Close, ConnId, Event as Io, ListenerId, Peer, Reactor};
use crate::session::Context;
use crate::session::postgres::Postgres;
use crate::session::redis::Redis;

use conns::{Conns, Role};
use entry::Entries;
use hub::{Command, Hub};
use plane::{Plane, pace};

/// How often time limits are looked at while any run.
const TICK: Duration = Duration::from_millis(50);
/// The same while nothing but idle connections could be over a limit.
const SLOW_TICK: Duration = Duration::from_secs(1);
/// A peer that does not take this much is sent no more, until it has.
const HIGH_WATER: usize = 256 << 10;
/// A session's slot in a cancel key's process id.
const SLOT_BITS: u32 = 24;

/// A listening socket, and how clients that come through it are met.
pub(crate) struct Door {
    pub(crate) socket: OwnedFd,
    pub(crate) engine: Engine,
    pub(crate) source: Source,
    pub(crate) plaintext: Plaintext,
    pub(crate) tls: bool,
}

/// How clients that come through a door are met.
#[derive(Clone, Copy)]
struct DoorKind {
    engine: Engine,
    source: Source,
    plaintext: Plaintext,
    tls: bool,
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

/// A client that has just connected, and how it is met.
#[derive(Clone, Copy)]
struct Entering {
    /// From where; `None` on a Unix socket.
    address: Option<IpAddr>,
    source: Source,
    plaintext: bool,
    tls: bool,
}

/// What the protocols of one worker share.
struct Core<R: Reactor> {
    id: WorkerId,
    hub: Arc<Hub>,
    reactor: R,
    conns: Conns,
    cx: Context,
    metrics: Arc<WorkerMetrics>,
    /// For what is encrypted and sent at once.
    cipher: Vec<u8>,
}

/// A worker thread.
pub(crate) struct Worker<R: Reactor> {
    core: Core<R>,
    postgres: Plane<Postgres>,
    redis: Plane<Redis>,
    doors: AHashMap<ListenerId, DoorKind>,
    entries: Entries,
    /// Set while the proxy is stopping.
    deadline: Option<Instant>,
    clock: Clock,
    next_tick: Instant,
}

/// Has the plane of an engine do something.
macro_rules! on_plane {
    ($worker:expr, $engine:expr, $method:ident($($argument:expr),*)) => {
        match $engine {
            Engine::Postgres => $worker.postgres.$method(&mut $worker.core, $($argument),*),
            Engine::Redis => $worker.redis.$method(&mut $worker.core, $($argument),*),
            // No door and no backend is of another engine.
            Engine::Mysql | Engine::Mongodb => {}
        }
    };
}

/// Has every plane do something.
macro_rules! on_all_planes {
    ($worker:expr, $method:ident($($argument:expr),*)) => {
        $worker.postgres.$method(&mut $worker.core, $($argument),*);
        $worker.redis.$method(&mut $worker.core, $($argument),*);
    };
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
            let kind = DoorKind {
                engine: door.engine,
                source: door.source,
                plaintext: door.plaintext,
                tls: door.tls,
            };
            listeners.insert(listener, kind);
        }
        let now = Instant::now();
        let clock = Clock::new(now);
        let cx = Context {
            shared: Arc::clone(&hub.shared),
            statements: crate::session::postgres::statement::Statements::new(),
            sets: crate::session::postgres::settings::SettingSets::new(),
            logins: crate::session::postgres::login::KnownLogins::default(),
            log,
            metrics: Arc::clone(&metrics),
            now,
            wall_us: clock.wall_us(now),
            scratch: Vec::new(),
            redis: crate::session::redis::Scratch::default(),
        };
        let entries = Entries::new(Arc::clone(&hub.proxy_headers_from));
        let core = Core {
            id,
            hub,
            reactor,
            conns: Conns::default(),
            cx,
            metrics,
            cipher: Vec::new(),
        };
        Ok(Self {
            postgres: Plane::new(&core),
            redis: Plane::new(&core),
            core,
            doors: listeners,
            entries,
            deadline: None,
            clock,
            next_tick: now,
        })
    }

    /// Works until the proxy is drained.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(512);
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.core.reactor.turn(timeout, &mut events) {
                tracing::error!(%error, "a worker's reactor failed");
                break;
            }
            self.turned(Instant::now(), &mut events);
            if self.is_drained() {
                break;
            }
        }
        self.flush_rest(&mut events);
        self.core.hub.worker_ended(self.core.id);
    }

    /// Deals with what a turn of the reactor has brought.
    fn turned(&mut self, now: Instant, events: &mut Vec<Io>) {
        self.set_time(now);
        for event in events.drain(..) {
            self.io(event);
        }
        on_all_planes!(self, deliver());
        if now >= self.next_tick {
            self.tick();
        }
    }

    /// As [`Self::run`] does for each turn, with a reactor and a clock that are the tests'.
    #[cfg(test)]
    pub(crate) fn simulate(
        &mut self,
        now: Instant,
        mut events: Vec<Io>,
        world: impl FnOnce(&mut R),
    ) {
        self.turned(now, &mut events);
        world(&mut self.core.reactor);
    }

    /// Gives the last words of closed connections a moment to leave.
    fn flush_rest(&mut self, events: &mut Vec<Io>) {
        for _ in 0..20 {
            let turned = self
                .core
                .reactor
                .turn(Some(Duration::from_millis(5)), events);
            if turned.is_err() {
                return;
            }
            events.clear();
        }
    }

    fn set_time(&mut self, now: Instant) {
        // The wall clock may be set while we run; once a second is often enough to notice.
        if now.saturating_duration_since(self.clock.base) >= SLOW_TICK {
            self.clock = Clock::new(now);
        }
        self.core.cx.now = now;
        self.core.cx.wall_us = self.clock.wall_us(now);
    }

    fn timeout(&mut self) -> Option<Duration> {
        if self.is_busy() {
            self.next_tick = self.next_tick.min(self.core.cx.now + TICK);
        }
        let watched =
            self.postgres.is_watched() || self.redis.is_watched() || self.deadline.is_some();
        let watched = watched || !self.entries.is_empty();
        watched.then(|| self.next_tick.saturating_duration_since(Instant::now()))
    }

    fn is_busy(&self) -> bool {
        self.postgres.is_busy() || self.redis.is_busy()
    }

    fn is_drained(&self) -> bool {
        self.deadline.is_some() && self.postgres.is_empty() && self.redis.is_empty()
    }

    #[inline]
    fn io(&mut self, event: Io) {
        match event {
            Io::Received { conn, buf } => match self.core.conns.get(conn) {
                Some(Role::Client(engine, slot)) => {
                    on_plane!(self, engine, client_bytes(slot, buf));
                }
                Some(Role::Backend(engine, slot)) => {
                    on_plane!(self, engine, backend_bytes(slot, buf));
                }
                Some(Role::Cancel(..)) => {}
                None => self.first_bytes(conn, buf),
            },
            Io::Accepted {
                listener,
                conn,
                peer,
            } => self.accepted(listener, conn, &peer),
            Io::Connected { .. } => {}
            Io::Eof { conn } => self.ended(conn, None),
            Io::Failed { conn, error } => self.ended(conn, Some(&error)),
            Io::Drained { conn } => match self.core.conns.get(conn) {
                Some(Role::Client(engine, slot)) => on_plane!(self, engine, client_drained(slot)),
                Some(Role::Backend(engine, slot)) => on_plane!(self, engine, backend_drained(slot)),
                Some(Role::Cancel(..)) | None => {}
            },
            Io::Woken => self.read_letters(),
        }
    }

    fn accepted(&mut self, listener: ListenerId, conn: ConnId, peer: &Peer) {
        let Some(door) = self.doors.get(&listener).copied() else {
            return self.core.reactor.close(conn, Close::Now);
        };
        match peer {
            Peer::Tcp(peer) if self.entries.expects(peer.ip()) => {
                let until = self.core.cx.now + self.core.hub.limits.login;
                self.entries.wait(conn, door, peer.ip(), until);
            }
            Peer::Tcp(peer) => self.enter(conn, door, Some(peer.ip())),
            Peer::Unix => self.enter(conn, door, None),
        }
    }

    fn enter(&mut self, conn: ConnId, door: DoorKind, address: Option<IpAddr>) {
        let entering = Entering {
            address,
            source: door.source,
            plaintext: match door.plaintext {
                Plaintext::Never => false,
                Plaintext::Loopback => address.is_none_or(|address| address.is_loopback()),
                Plaintext::Always => true,
            },
            tls: door.tls,
        };
        on_plane!(self, door.engine, accepted(conn, entering));
    }

    /// Bytes of a connection of which it is not known yet whose it is, or that is gone.
    fn first_bytes(&mut self, conn: ConnId, buf: Buf) {
        match self.entries.received(conn, buf) {
            None => {}
            Some(Ok(entered)) => {
                self.enter(conn, entered.door, Some(entered.address));
                if !entered.rest.is_empty() {
                    self.io(Io::Received {
                        conn,
                        buf: entered.rest,
                    });
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a load balancer's connection was refused");
                self.core.reactor.close(conn, Close::Now);
            }
        }
    }

    /// A connection has ended, by itself or broken.
    fn ended(&mut self, conn: ConnId, error: Option<&io::Error>) {
        match self.core.conns.get(conn) {
            Some(Role::Client(engine, slot)) => {
                on_plane!(self, engine, client_ended(slot, conn, error));
            }
            Some(Role::Backend(engine, slot)) => {
                self.core.conns.clear(conn);
                self.core.reactor.close(conn, Close::Now);
                on_plane!(self, engine, backend_ended(slot));
            }
            Some(Role::Cancel(engine, slot, backend)) => {
                self.core.conns.clear(conn);
                self.core.reactor.close(conn, Close::Now);
                on_plane!(self, engine, cancel_ended(slot, backend));
            }
            None if self.entries.forget(conn) => self.core.reactor.close(conn, Close::Now),
            None => {}
        }
    }

    fn tick(&mut self) {
        on_all_planes!(self, tick());
        let now = self.core.cx.now;
        for conn in self.entries.overdue(now) {
            self.core.reactor.close(conn, Close::Now);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            on_all_planes!(self, kill(|_| true, &Fault::Draining));
        }
        let busy = self.is_busy() || self.deadline.is_some();
        self.next_tick = now + pace(busy);
    }

    fn read_letters(&mut self) {
        for command in self.core.hub.collect(self.core.id) {
            match command {
                Command::Gate(Change::Released(database)) => {
                    on_all_planes!(self, open_gate(database));
                }
                Command::Gate(Change::Refreshed(database)) => {
                    on_all_planes!(self, refreshed(database));
                }
                Command::Grant(engine, grant) => on_plane!(self, engine, granted(grant)),
                Command::Reclaim(engine, server) => on_plane!(self, engine, reclaim(server)),
                Command::Cancel { process_id, key } => {
                    self.postgres.cancel_here(&mut self.core, process_id, &key);
                }
                Command::KillDatabase(database, latch) => {
                    on_all_planes!(self, kill_database(database));
                    latch.count_down();
                }
                Command::KillKey(key) => {
                    on_all_planes!(self, kill_key(key));
                }
                Command::Drain(deadline) => self.drain(deadline),
            }
        }
        on_all_planes!(self, deliver());
    }

    fn drain(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
        self.next_tick = self.core.cx.now;
        for (listener, _) in self.doors.drain() {
            self.core.reactor.stop_listening(listener);
        }
        for conn in self.entries.drain() {
            self.core.reactor.close(conn, Close::Now);
        }
        on_all_planes!(self, drain());
    }
}
