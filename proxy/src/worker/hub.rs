//! What the workers of a process share, and how they and the control plane reach each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use control_store::network::Network;
use control_store::snapshot::Server;
use control_store::traffic::HoldBudget;
use control_store::{DatabaseId, Engine, KeyId, ServerId, TrafficControl};

use crate::backend::budget::{Budget, Grant, WorkerId};
use crate::gate::{Change, Gates};
use crate::reactor::{TlsStore, Waker};
use crate::session::{Limits, Shared};

/// Requests for connections that may wait at one server.
const MAX_WAITING: usize = 100_000;

/// What a worker is told by others.
pub(crate) enum Command {
    /// A gate has changed.
    Gate(Change),
    /// A connection may be opened.
    Grant(Engine, Grant),
    /// Give up an idle connection to that server.
    Reclaim(Engine, ServerId),
    /// A client wants a statement cancelled that may be running here.
    Cancel {
        /// Of the session that runs it.
        process_id: u32,
        /// What proves that it may.
        key: Vec<u8>,
    },
    /// End all sessions of a database, and close its connections.
    KillDatabase(DatabaseId, Arc<Latch>),
    /// End all sessions that logged in with that key.
    KillKey(KeyId),
    /// Take no more clients, end sessions at a safe point, and the rest at that time.
    Drain(Instant),
}

/// Counts down as workers finish, and wakes who waits.
pub(crate) struct Latch {
    left: Mutex<usize>,
    done: Condvar,
}

impl Latch {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            left: Mutex::new(count),
            done: Condvar::new(),
        })
    }

    pub(crate) fn count_down(&self) {
        let mut left = lock(&self.left);
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.done.notify_all();
        }
    }

    /// Whether all have finished in time.
    fn wait(&self, timeout: Duration) -> bool {
        let left = lock(&self.left);
        let waited = self
            .done
            .wait_timeout_while(left, timeout, |left| *left > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

/// One worker's letter box.
#[derive(Default)]
struct Mailbox {
    commands: Mutex<Vec<Command>>,
    waker: OnceLock<Waker>,
    /// The worker has ended: nobody reads any more.
    closed: AtomicBool,
}

/// What the workers share.
pub(crate) struct Hub {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<Arc<TlsStore>>,
    /// Backend connections that one database's clients of one role may have in one worker.
    pub(crate) pool_size: u32,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_clients: usize,
    /// Load balancers, whose connections begin with a PROXY header.
    pub(crate) proxy_headers_from: Arc<[Network]>,
    pub(crate) clients: AtomicUsize,
    mailboxes: Arc<Mailboxes>,
    budgets: Mutex<HashMap<ServerId, Arc<Budget>>>,
}

/// The letter boxes of all workers.
pub(crate) struct Mailboxes(Vec<Mailbox>);

impl Mailboxes {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        let boxes = (0..workers).map(|_| Mailbox::default());
        Arc::new(Self(boxes.collect()))
    }

    pub(crate) fn post(&self, to: WorkerId, command: Command) {
        let Some(mailbox) = self.0.get(usize::from(to.0)) else {
            return;
        };
        if mailbox.closed.load(Ordering::Acquire) {
            if let Command::KillDatabase(_, latch) = command {
                latch.count_down();
            }
            return;
        }
        lock(&mailbox.commands).push(command);
        if let Some(waker) = mailbox.waker.get() {
            waker.wake();
        }
    }

    fn broadcast(&self, make: impl Fn() -> Command) {
        for worker in self.ids() {
            self.post(worker, make());
        }
    }

    fn ids(&self) -> impl Iterator<Item = WorkerId> {
        (0..u16::try_from(self.0.len()).unwrap_or(u16::MAX)).map(WorkerId)
    }
}

/// What a hub is made of.
pub(crate) struct HubParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Limits,
    pub(crate) tls: Option<Arc<TlsStore>>,
    pub(crate) pool_size: u32,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_clients: usize,
    pub(crate) proxy_headers_from: Arc<[Network]>,
    pub(crate) mailboxes: Arc<Mailboxes>,
}

impl Hub {
    pub(crate) fn new(parts: HubParts) -> Self {
        Self {
            shared: parts.shared,
            limits: parts.limits,
            tls: parts.tls,
            pool_size: parts.pool_size.max(1),
            idle_timeout: parts.idle_timeout,
            max_clients: parts.max_clients,
            proxy_headers_from: parts.proxy_headers_from,
            clients: AtomicUsize::new(0),
            mailboxes: parts.mailboxes,
            budgets: Mutex::default(),
        }
    }

    /// Tells how to wake a worker.
    pub(crate) fn set_waker(&self, worker: WorkerId, waker: Waker) {
        if let Some(mailbox) = self.mailboxes.0.get(usize::from(worker.0)) {
            // Each worker does so once.
            let _ = mailbox.waker.set(waker);
        }
    }

    pub(crate) fn post(&self, to: WorkerId, command: Command) {
        self.mailboxes.post(to, command);
    }

    /// Tells all workers but this one.
    pub(crate) fn post_to_others(&self, from: WorkerId, make: impl Fn() -> Command) {
        for worker in self.mailboxes.ids().filter(|worker| *worker != from) {
            self.post(worker, make());
        }
    }

    /// Takes a worker's letters out.
    pub(crate) fn collect(&self, worker: WorkerId) -> Vec<Command> {
        match self.mailboxes.0.get(usize::from(worker.0)) {
            Some(mailbox) => std::mem::take(&mut *lock(&mailbox.commands)),
            None => Vec::new(),
        }
    }

    /// A worker has ended; those who wait for it need not.
    pub(crate) fn worker_ended(&self, worker: WorkerId) {
        if let Some(mailbox) = self.mailboxes.0.get(usize::from(worker.0)) {
            mailbox.closed.store(true, Ordering::Release);
        }
        for command in self.collect(worker) {
            if let Command::KillDatabase(_, latch) = command {
                latch.count_down();
            }
        }
    }

    /// The connections of a server.
    pub(crate) fn budget(&self, server: &Server) -> Arc<Budget> {
        let mut budgets = lock(&self.budgets);
        let budget = budgets
            .entry(server.id)
            .or_insert_with(|| Arc::new(Budget::new(server.connection_budget, MAX_WAITING)));
        Arc::clone(budget)
    }

    pub(crate) fn drain(&self, deadline: Instant) {
        self.mailboxes.broadcast(|| Command::Drain(deadline));
    }
}

/// Makes the gates of a process; changes are told to its workers.
pub(crate) fn gates(mailboxes: &Arc<Mailboxes>) -> Arc<Gates> {
    let mailboxes = Arc::clone(mailboxes);
    Arc::new(Gates::new(move |change| {
        mailboxes.broadcast(|| Command::Gate(change));
    }))
}

impl TrafficControl for Hub {
    fn hold(&self, database: DatabaseId, budget: HoldBudget) {
        self.shared.gates.hold(database, budget);
    }

    fn in_flight(&self, database: DatabaseId) -> u64 {
        self.shared.gates.in_flight(database)
    }

    fn release(&self, database: DatabaseId) {
        self.shared.gates.release(database);
    }

    fn refresh(&self, database: DatabaseId) {
        self.shared.gates.refresh(database);
    }

    fn schema_changed(&self, database: DatabaseId) {
        self.shared.gates.schema_changed(database);
    }

    fn kill(&self, database: DatabaseId, timeout: Duration) -> bool {
        let latch = Latch::new(self.mailboxes.0.len());
        self.mailboxes
            .broadcast(|| Command::KillDatabase(database, Arc::clone(&latch)));
        latch.wait(timeout)
    }

    fn kill_key(&self, key: KeyId) {
        self.mailboxes.broadcast(|| Command::KillKey(key));
    }
}

/// What is locked here is whole between any two statements of those who lock it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
