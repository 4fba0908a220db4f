//! The pools of one worker: idle backends, and sessions that wait for one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use control_store::snapshot::Server;
use control_store::{DatabaseId, ServerId};
use slab::Slab;

use super::budget::{Answer, Budget, Grant, Ticket, Verdict, WorkerId};
use super::{BackendId, PoolKey};
use crate::gate::Gate;
use crate::metrics::ProtocolMetrics;
use crate::metrics::WorkerMetrics;
use crate::protocol::{BackendLogin, PooledBackend, Protocol, Target};
use crate::reactor::{Close, ConnId, Reactor};
use crate::route::Route;
use crate::session::Fate;
use crate::worker::conns::{Conns, Role};
use crate::worker::hub::{Command, Hub};

/// While a server takes no connections, how long its waiters are not told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a failed connection is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// One session of a worker; the serial makes a stale one harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionRef {
    pub(crate) slot: u32,
    pub(crate) serial: u64,
}

/// A connection that many sessions of a worker share, see [`Links`](crate::protocol::Links).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(pub(crate) u32);

/// Who a backend is lent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lessee {
    /// One session.
    Session(SessionRef),
    /// All that share it.
    Link(LinkId),
}

/// What becomes of a wait.
pub(crate) enum Delivery<B> {
    /// A backend.
    Leased(Box<B>),
    /// The server does not take connections.
    Unavailable,
    /// It took too long, or too many wait.
    TimedOut(Duration),
}

struct Waiter {
    lessee: Lessee,
    since: Instant,
}

struct Pool<B> {
    /// Boxed, since backends move between pool and session: a pointer is moved, not the whole.
    idle: Vec<Box<B>>,
    waiters: VecDeque<Waiter>,
    /// Connections that exist or are being made.
    open: u32,
    /// Of them being made.
    connecting: u32,
    /// Requests that wait at the budget.
    tickets: Vec<Ticket>,
    target: Target,
    budget: Arc<Budget>,
    /// Keeps the database's gate, and with it the schema's epoch, while there are backends.
    _gate: Arc<Gate>,
    failing_since: Option<Instant>,
    retry_at: Option<Instant>,
}

/// A backend's connection.
pub(crate) struct Entry<P: Protocol> {
    pub(crate) conn: ConnId,
    pub(crate) pool: PoolKey,
    pub(crate) server: Arc<Server>,
    budget: Arc<Budget>,
    /// Who leases it.
    pub(crate) lessee: Option<Lessee>,
    /// Logging in.
    pub(crate) login: Option<Box<P::Login>>,
    /// What asks the server, on a connection of its own, to cancel what this one runs.
    pub(crate) cancel: Box<[u8]>,
    /// Cancel requests under way: the backend is not lent again before they have arrived.
    pub(crate) cancels: u32,
    /// Given back while a cancel request was under way.
    waiting_for_cancels: Option<Box<P::Backend>>,
}

/// The pools of one worker, and the connections in them.
pub(crate) struct Pools<P: Protocol> {
    worker: WorkerId,
    hub: Arc<Hub>,
    metrics: Arc<WorkerMetrics>,
    pools: AHashMap<PoolKey, Pool<P::Backend>>,
    pub(crate) backends: Slab<Entry<P>>,
    /// Backends that are leased.
    leased: usize,
    waiting: usize,
    /// For those who waited, once the event in hand is dealt with.
    pub(crate) deliveries: VecDeque<(Lessee, Delivery<P::Backend>)>,
}

impl<P: Protocol> Pools<P> {
    pub(crate) fn new(worker: WorkerId, hub: Arc<Hub>, metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            worker,
            hub,
            metrics,
            pools: AHashMap::new(),
            backends: Slab::new(),
            leased: 0,
            waiting: 0,
            deliveries: VecDeque::new(),
        }
    }

    fn metrics(&self) -> &ProtocolMetrics {
        self.metrics.protocol(P::ENGINE)
    }

    /// Whether time limits must be watched closely.
    pub(crate) fn is_busy(&self) -> bool {
        self.leased > 0 || self.waiting > 0
    }

    /// Whether there are connections that may have idled too long.
    pub(crate) fn has_connections(&self) -> bool {
        !self.backends.is_empty()
    }

    /// A backend for that lessee, at once; otherwise it waits.
    #[inline]
    pub(crate) fn lease<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        key: PoolKey,
        route: &Route,
        lessee: Lessee,
        now: Instant,
    ) -> Option<Box<P::Backend>> {
        if let Some(pool) = self.pools.get_mut(&key)
            && pool.target.server.id == route.server.id
            && let Some(backend) = pool.idle.pop()
        {
            self.lent(&backend, lessee);
            self.metrics().pool_idle.decrement();
            return Some(backend);
        }
        self.enqueue(reactor, conns, key, route, lessee, now);
        None
    }

    fn lent(&mut self, backend: &P::Backend, lessee: Lessee) {
        if let Some(entry) = self.backends.get_mut(backend.id.0 as usize) {
            entry.lessee = Some(lessee);
        }
        self.leased += 1;
    }

    fn enqueue<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        key: PoolKey,
        route: &Route,
        lessee: Lessee,
        now: Instant,
    ) {
        self.set_route(reactor, conns, key, route);
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.waiters.push_back(Waiter { lessee, since: now });
            self.waiting += 1;
            self.metrics().pool_waiting.increment();
        }
        self.open_more(reactor, conns, key, now);
    }

    /// Makes the pool, or points it at the server that the database is on now.
    fn set_route<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        key: PoolKey,
        route: &Route,
    ) {
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.target.role = Arc::clone(&route.native_role);
            pool.target.database = Arc::clone(&route.database);
            if pool.target.server.id == route.server.id {
                pool.target.server = Arc::clone(&route.server);
                return;
            }
            // The old server's connections are closed as they fall free; the budget asked is the new one's.
            let tickets = std::mem::take(&mut pool.tickets);
            let old = std::mem::replace(&mut pool.budget, self.hub.budget(&route.server));
            pool.target.server = Arc::clone(&route.server);
            pool.failing_since = None;
            for ticket in tickets {
                old.cancel(key.database, ticket);
            }
            let idle = std::mem::take(&mut pool.idle);
            for backend in idle {
                self.metrics().pool_idle.decrement();
                self.close(reactor, conns, backend.id);
            }
            return;
        }
        let pool = Pool {
            idle: Vec::new(),
            waiters: VecDeque::new(),
            open: 0,
            connecting: 0,
            tickets: Vec::new(),
            target: Target {
                server: Arc::clone(&route.server),
                role: Arc::clone(&route.native_role),
                database: Arc::clone(&route.database),
            },
            budget: self.hub.budget(&route.server),
            _gate: self.hub.shared.gates.gate(key.database),
            failing_since: None,
            retry_at: None,
        };
        self.pools.insert(key, pool);
    }

    /// Opens connections, or asks for leave to, as long as sessions wait for more than are under way.
    fn open_more<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        key: PoolKey,
        now: Instant,
    ) {
        loop {
            let Some(pool) = self.pools.get_mut(&key) else {
                return;
            };
            let coming = pool.connecting as usize + pool.tickets.len();
            let allowed = pool.open as usize + pool.tickets.len() < self.hub.pool_size as usize;
            if coming >= pool.waiters.len() || !allowed || pool.retry_at.is_some() {
                return;
            }
            match pool.budget.request(now, self.worker, key.database) {
                Answer::Granted => self.open(reactor, conns, key, now),
                Answer::Queued(ticket) => {
                    pool.tickets.push(ticket);
                    let server = pool.target.server.id;
                    self.reclaim(reactor, conns, server, Some(key));
                    self.hub
                        .post_to_others(self.worker, || Command::Reclaim(P::ENGINE, server));
                }
                Answer::Full => {
                    if let Some(waiter) = pool.waiters.pop_back() {
                        self.waiting -= 1;
                        self.metrics().pool_waiting.decrement();
                        let waited = now.saturating_duration_since(waiter.since);
                        self.deliveries
                            .push_back((waiter.lessee, Delivery::TimedOut(waited)));
                    }
                    return;
                }
            }
        }
    }

    /// Opens one connection; leave to do so was given.
    fn open<R: Reactor>(&mut self, reactor: &mut R, conns: &mut Conns, key: PoolKey, now: Instant) {
        let Some(pool) = self.pools.get_mut(&key) else {
            return;
        };
        let mut hello = Vec::with_capacity(128);
        let started = P::Login::start(&self.hub.shared, &pool.target, &mut hello);
        let (Ok(login), Ok(conn)) = (started, reactor.connect(&pool.target.server.address)) else {
            tracing::warn!(server = %pool.target.server.id, "cannot connect to a database server");
            let budget = Arc::clone(&pool.budget);
            self.pass_on(&budget, key.database);
            return self.connection_failed(key, now, true);
        };
        reactor.send_copy(conn, &hello);
        pool.open += 1;
        pool.connecting += 1;
        let entry = Entry {
            conn,
            pool: key,
            server: Arc::clone(&pool.target.server),
            budget: Arc::clone(&pool.budget),
            lessee: None,
            login: Some(Box::new(login)),
            cancel: Box::default(),
            cancels: 0,
            waiting_for_cancels: None,
        };
        let slot = u32::try_from(self.backends.insert(entry)).unwrap_or(u32::MAX);
        conns.set(conn, Role::Backend(P::ENGINE, slot));
        self.metrics().pool_connections.increment();
    }

    /// A connection has logged in.
    pub(crate) fn ready(&mut self, backend: Box<P::Backend>, now: Instant) {
        let key = backend.pool;
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.connecting = pool.connecting.saturating_sub(1);
            pool.failing_since = None;
        }
        self.hand_on(backend, now);
    }

    /// Lends a free backend to who waits longest, or keeps it.
    fn hand_on(&mut self, mut backend: Box<P::Backend>, now: Instant) {
        let Some(pool) = self.pools.get_mut(&backend.pool) else {
            return;
        };
        match pool.waiters.pop_front() {
            Some(waiter) => {
                self.waiting -= 1;
                self.metrics().pool_waiting.decrement();
                self.lent(&backend, waiter.lessee);
                self.deliveries
                    .push_back((waiter.lessee, Delivery::Leased(backend)));
            }
            None => {
                backend.idle_since = now;
                pool.idle.push(backend);
                self.metrics().pool_idle.increment();
            }
        }
    }

    /// A session gives a backend up.
    #[inline]
    pub(crate) fn release<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        backend: Box<P::Backend>,
        fate: Fate,
        now: Instant,
    ) {
        let id = backend.id;
        let Some(entry) = self.backends.get_mut(id.0 as usize) else {
            return;
        };
        if entry.lessee.take().is_some() {
            self.leased = self.leased.saturating_sub(1);
        }
        let current = self
            .pools
            .get(&backend.pool)
            .is_some_and(|pool| pool.target.server.id == backend.server);
        let clean = backend.is_whole();
        if fate == Fate::Close || !current || !clean {
            return self.close_and_refill(reactor, conns, id, now);
        }
        if entry.cancels > 0 {
            entry.waiting_for_cancels = Some(backend);
            return;
        }
        if entry.budget.has_waiters()
            && entry.budget.freed(now, backend.pool.database) == Verdict::Yield
        {
            return self.close_and_refill(reactor, conns, id, now);
        }
        self.hand_on(backend, now);
    }

    fn close_and_refill<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        id: BackendId,
        now: Instant,
    ) {
        let key = self.backends.get(id.0 as usize).map(|entry| entry.pool);
        self.close(reactor, conns, id);
        if let Some(key) = key {
            self.open_more(reactor, conns, key, now);
            self.forget_if_unused(key);
        }
    }

    /// Closes a backend's connection. It is in no pool and with no session.
    fn close<R: Reactor>(&mut self, reactor: &mut R, conns: &mut Conns, id: BackendId) {
        let Some(entry) = self.backends.get(id.0 as usize) else {
            return;
        };
        let conn = entry.conn;
        if entry.login.is_none() {
            reactor.send_copy(conn, P::FAREWELL);
        }
        reactor.close(conn, Close::AfterFlush);
        conns.clear(conn);
        self.gone(id);
    }

    /// A backend's connection is no more: the next one may be opened.
    fn gone(&mut self, id: BackendId) {
        let Some(entry) = self.backends.try_remove(id.0 as usize) else {
            return;
        };
        if entry.lessee.is_some() {
            self.leased = self.leased.saturating_sub(1);
        }
        if let Some(pool) = self.pools.get_mut(&entry.pool) {
            pool.open = pool.open.saturating_sub(1);
            if entry.login.is_some() {
                pool.connecting = pool.connecting.saturating_sub(1);
            }
        }
        self.metrics().pool_connections.decrement();
        self.pass_on(&entry.budget, entry.pool.database);
    }

    /// Gives leave for one connection back to the budget, which may give it to somebody else.
    fn pass_on(&self, budget: &Budget, database: DatabaseId) {
        if let Some(grant) = budget.closed(database) {
            self.hub
                .post(grant.worker, Command::Grant(P::ENGINE, grant));
        }
    }

    /// A connection broke, or could not be made. The session that leases it, if any, is told by the caller.
    pub(crate) fn failed(&mut self, id: BackendId, now: Instant, temporary: bool) {
        let Some(entry) = self.backends.get(id.0 as usize) else {
            return;
        };
        let (key, logging_in) = (entry.pool, entry.login.is_some());
        if let Some(pool) = self.pools.get_mut(&key) {
            let before = pool.idle.len();
            pool.idle.retain(|backend| backend.id != id);
            if pool.idle.len() < before {
                self.metrics().pool_idle.decrement();
            }
        }
        self.gone(id);
        if logging_in {
            self.connection_failed(key, now, temporary);
        }
        self.forget_if_unused(key);
    }

    fn connection_failed(&mut self, key: PoolKey, now: Instant, temporary: bool) {
        let Some(pool) = self.pools.get_mut(&key) else {
            return;
        };
        let since = *pool.failing_since.get_or_insert(now);
        if temporary && now.saturating_duration_since(since) < PATIENCE {
            pool.retry_at = Some(now + RETRY);
            return;
        }
        pool.failing_since = None;
        let waiters = std::mem::take(&mut pool.waiters);
        for waiter in waiters {
            self.waiting -= 1;
            self.metrics().pool_waiting.decrement();
            self.deliveries
                .push_back((waiter.lessee, Delivery::Unavailable));
        }
        self.settle_tickets(key);
    }

    /// Takes back requests that nobody waits for any more.
    fn settle_tickets(&mut self, key: PoolKey) {
        let Some(pool) = self.pools.get_mut(&key) else {
            return;
        };
        let wanted = pool.waiters.len().saturating_sub(pool.connecting as usize);
        while pool.tickets.len() > wanted {
            if let Some(ticket) = pool.tickets.pop() {
                // If its grant is on the way already, it is passed on when it arrives.
                pool.budget.cancel(key.database, ticket);
            }
        }
        self.forget_if_unused(key);
    }

    /// Leave to open a connection has come.
    pub(crate) fn granted<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        grant: Grant,
        now: Instant,
    ) {
        let asked = self.pools.iter_mut().find_map(|(key, pool)| {
            let at = pool.tickets.iter().position(|it| *it == grant.ticket)?;
            (key.database == grant.database).then(|| {
                pool.tickets.swap_remove(at);
                *key
            })
        });
        match asked {
            Some(key) => self.open(reactor, conns, key, now),
            None => {
                // Nobody here waits any more. Which budget it was, the pools of that database know.
                let budgets = self.pools.iter();
                let mut budgets = budgets
                    .filter(|(key, _)| key.database == grant.database)
                    .map(|(_, pool)| Arc::clone(&pool.budget));
                let budget = budgets.next();
                drop(budgets);
                match budget {
                    Some(budget) => self.pass_on(&budget, grant.database),
                    None => self.pass_on_unknown(grant.database),
                }
            }
        }
    }

    /// The pool that asked is gone: its server is found by the database's route.
    fn pass_on_unknown(&self, database: DatabaseId) {
        let snapshot = self.hub.shared.snapshot.load();
        let server = snapshot
            .databases
            .get(&database)
            .and_then(|it| snapshot.servers.get(&it.server));
        if let Some(server) = server {
            let budget = self.hub.budget(server);
            self.pass_on(&budget, database);
        }
    }

    /// Closes the connection to that server that has idled longest, if it belongs to another pool.
    pub(crate) fn reclaim<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        server: ServerId,
        asking: Option<PoolKey>,
    ) {
        let idle = self
            .pools
            .iter()
            .filter(|(key, pool)| pool.target.server.id == server && Some(**key) != asking);
        let oldest = idle
            .filter_map(|(key, pool)| pool.idle.first().map(|it| (it.idle_since, *key)))
            .min_by_key(|(since, _)| *since);
        if let Some((_, key)) = oldest
            && let Some(pool) = self.pools.get_mut(&key)
        {
            let backend = pool.idle.remove(0);
            self.metrics().pool_idle.decrement();
            self.close(reactor, conns, backend.id);
            self.forget_if_unused(key);
        }
    }

    /// A session waits no more.
    pub(crate) fn cancel_wait(&mut self, key: PoolKey, lessee: Lessee) {
        let Some(pool) = self.pools.get_mut(&key) else {
            return;
        };
        let at = pool.waiters.iter().position(|it| it.lessee == lessee);
        if let Some(at) = at {
            pool.waiters.remove(at);
            self.waiting -= 1;
            self.metrics().pool_waiting.decrement();
        }
        self.settle_tickets(key);
    }

    /// Asks the server to cancel what a backend runs.
    pub(crate) fn cancel<R: Reactor>(&mut self, reactor: &mut R, conns: &mut Conns, id: BackendId) {
        let Some(entry) = self.backends.get_mut(id.0 as usize) else {
            return;
        };
        let Ok(conn) = reactor.connect(&entry.server.address) else {
            tracing::warn!("cannot connect to a database server to cancel a statement");
            return;
        };
        entry.cancels += 1;
        conns.set(conn, Role::Cancel(P::ENGINE, id.0, entry.conn));
        reactor.send_copy(conn, &entry.cancel);
    }

    /// A cancel request has arrived at its server.
    pub(crate) fn cancel_arrived(&mut self, slot: u32, conn: ConnId, now: Instant) {
        let Some(entry) = self.backends.get_mut(slot as usize) else {
            return;
        };
        if entry.conn != conn {
            return; // The slot is another connection's by now.
        }
        entry.cancels = entry.cancels.saturating_sub(1);
        if entry.cancels == 0
            && let Some(backend) = entry.waiting_for_cancels.take()
        {
            self.hand_on(backend, now);
        }
    }

    /// Looks after waits, retries and connections that have idled too long.
    pub(crate) fn tick<R: Reactor>(&mut self, reactor: &mut R, conns: &mut Conns, now: Instant) {
        let limit = self.hub.limits.lease;
        let mut retry = Vec::new();
        let mut idle_out = Vec::new();
        let mut changed = Vec::new();
        for (key, pool) in &mut self.pools {
            while let Some(waiter) = pool
                .waiters
                .pop_front_if(|it| now.saturating_duration_since(it.since) >= limit)
            {
                self.waiting -= 1;
                let waited = now.saturating_duration_since(waiter.since);
                self.deliveries
                    .push_back((waiter.lessee, Delivery::TimedOut(waited)));
                changed.push(*key);
            }
            if pool.retry_at.is_some_and(|at| at <= now) {
                pool.retry_at = None;
                retry.push(*key);
            }
            // The first in the list has idled longest.
            let idle_timeout = self.hub.idle_timeout;
            let old = pool
                .idle
                .iter()
                .take_while(|it| now.saturating_duration_since(it.idle_since) >= idle_timeout)
                .count();
            idle_out.extend(pool.idle.drain(..old).map(|backend| (*key, backend.id)));
        }
        for key in changed {
            self.metrics().pool_waiting.decrement();
            self.settle_tickets(key);
        }
        for key in retry {
            self.open_more(reactor, conns, key, now);
        }
        for (key, id) in idle_out {
            self.metrics().pool_idle.decrement();
            self.close(reactor, conns, id);
            self.forget_if_unused(key);
        }
    }

    /// Closes connections of that database that nobody leases and that lead to a server it has left; or all of them.
    pub(crate) fn close_idle<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        database: DatabaseId,
        keep: Option<ServerId>,
    ) {
        let keys: Vec<PoolKey> = self
            .pools
            .keys()
            .filter(|key| key.database == database)
            .copied()
            .collect();
        for key in keys {
            let Some(pool) = self.pools.get_mut(&key) else {
                continue;
            };
            let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut pool.idle)
                .into_iter()
                .partition(|backend| Some(backend.server) == keep);
            pool.idle = stay;
            for backend in go {
                self.metrics().pool_idle.decrement();
                self.close(reactor, conns, backend.id);
            }
            self.forget_if_unused(key);
        }
    }

    /// Closes connections of that database that are still logging in, or wait for cancel requests to arrive.
    pub(crate) fn close_unleased<R: Reactor>(
        &mut self,
        reactor: &mut R,
        conns: &mut Conns,
        database: DatabaseId,
    ) {
        self.close_idle(reactor, conns, database, None);
        let rest: Vec<usize> = self
            .backends
            .iter()
            .filter(|(_, entry)| entry.pool.database == database && entry.lessee.is_none())
            .map(|(slot, _)| slot)
            .collect();
        for slot in rest {
            self.close(
                reactor,
                conns,
                BackendId(u32::try_from(slot).unwrap_or(u32::MAX)),
            );
        }
    }

    /// An idle tenant costs nothing.
    fn forget_if_unused(&mut self, key: PoolKey) {
        if self.pools.get(&key).is_some_and(|pool| {
            pool.open == 0 && pool.waiters.is_empty() && pool.tickets.is_empty()
        }) {
            self.pools.remove(&key);
        }
    }
}
