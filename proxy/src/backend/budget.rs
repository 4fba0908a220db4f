//! How many connections one server may be given, and who gets the next one.
//!
//! All workers share one [`Budget`] per server. It is asked only when a connection is to be opened, has been closed, or
//! falls free while somebody waits: never on the way of a statement that finds an idle connection.
//!
//! Fairness is by database, not by client. A database that holds more than its share (the limit divided by the databases that hold or
//! want something) gives a connection up when it falls free and another database waits. Where there are more databases than
//! connections, each keeps its connection for a [`TURN`] and then lets the next one have it. So 1,000 waiting clients of one tenant
//! delay another tenant by no more than one client would.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control_store::DatabaseId;

#[cfg(test)]
mod tests;

/// How long a database without any connection waits before one that only has its share must yield.
pub const TURN: Duration = Duration::from_millis(50);

/// One worker thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(pub u16);

/// One waiting request, to be matched with its [`Grant`] or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The permission to open one connection. It is spent by [`Budget::closed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who asked.
    pub worker: WorkerId,
    /// For which database.
    pub database: DatabaseId,
    /// In answer to what.
    pub ticket: Ticket,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Open it now.
    Granted,
    /// Wait for the [`Grant`]. The caller asks the other workers to give up idle connections.
    Queued(Ticket),
    /// As many wait as may.
    Full,
}

/// What to do with a connection that has fallen free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Lend it to another client of its database, or let it idle.
    Keep,
    /// Close it and report [`Budget::closed`]: another database is due.
    Yield,
}

/// The connections of one server.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
    /// As many as wait, readable without the lock.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct State {
    limit: u32,
    max_waiting: usize,
    open: u32,
    waiting: usize,
    next_ticket: u64,
    databases: HashMap<DatabaseId, Share, ahash::RandomState>,
    /// Databases with waiters, in the order in which they are served.
    turns: VecDeque<DatabaseId>,
}

#[derive(Debug, Default)]
struct Share {
    open: u32,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    worker: WorkerId,
    ticket: Ticket,
    since: Instant,
}

impl Budget {
    /// `limit`: connections; `max_waiting`: requests that may wait, of all databases together.
    pub fn new(limit: u32, max_waiting: usize) -> Self {
        Self {
            state: Mutex::new(State {
                limit: limit.max(1),
                max_waiting,
                open: 0,
                waiting: 0,
                next_ticket: 0,
                databases: HashMap::default(),
                turns: VecDeque::new(),
            }),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether anybody waits, without the lock: whether [`Budget::freed`] has a question to answer.
    pub fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Asks to open a connection.
    pub fn request(&self, now: Instant, worker: WorkerId, database: DatabaseId) -> Answer {
        self.change(|state| state.request(now, worker, database))
    }

    /// Takes a request back. `false`: its grant is already on its way and must be used or reported closed.
    pub fn cancel(&self, database: DatabaseId, ticket: Ticket) -> bool {
        self.change(|state| state.cancel(database, ticket))
    }

    /// A connection (or an unused grant) is gone; whoever is next may open one.
    #[must_use = "the grant belongs to somebody who waits"]
    pub fn closed(&self, database: DatabaseId) -> Option<Grant> {
        self.change(|state| {
            state.give_back(database);
            state.grant_next()
        })
    }

    /// A connection of this database has fallen free.
    pub fn freed(&self, now: Instant, database: DatabaseId) -> Verdict {
        self.lock().verdict(now, database)
    }

    /// The limit was changed by configuration. A lower one is reached as connections close.
    #[must_use = "the grants belong to those who wait"]
    pub fn set_limit(&self, limit: u32) -> Vec<Grant> {
        self.change(|state| {
            state.limit = limit.max(1);
            std::iter::from_fn(|| state.grant_next()).collect()
        })
    }

    /// Connections that are open or granted.
    pub fn open(&self) -> u32 {
        self.lock().open
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let value = f(&mut state);
        self.waiting.store(state.waiting, Ordering::Relaxed);
        value
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The counts are plain numbers changed together without calls that could panic in between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn request(&mut self, now: Instant, worker: WorkerId, database: DatabaseId) -> Answer {
        if self.open < self.limit && self.waiting == 0 {
            self.open += 1;
            self.databases.entry(database).or_default().open += 1;
            return Answer::Granted;
        }
        if self.waiting >= self.max_waiting {
            return Answer::Full;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let share = self.databases.entry(database).or_default();
        if share.waiters.is_empty() {
            self.turns.push_back(database);
        }
        share.waiters.push_back(Waiter {
            worker,
            ticket,
            since: now,
        });
        self.waiting += 1;
        Answer::Queued(ticket)
    }

    fn cancel(&mut self, database: DatabaseId, ticket: Ticket) -> bool {
        let Some(share) = self.databases.get_mut(&database) else {
            return false;
        };
        // Tickets grow, so the queue is sorted by them.
        let Ok(at) = share
            .waiters
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
        else {
            return false;
        };
        share.waiters.remove(at);
        self.waiting -= 1;
        if share.waiters.is_empty() {
            self.turns.retain(|turn| *turn != database);
        }
        self.forget_if_unused(database);
        true
    }

    fn give_back(&mut self, database: DatabaseId) {
        let Some(share) = self.databases.get_mut(&database) else {
            debug_assert!(false, "gave back what was not granted");
            return;
        };
        debug_assert!(share.open > 0, "gave back more than was granted");
        share.open = share.open.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
        self.forget_if_unused(database);
    }

    /// Serves the next database in turn that has less than its share, or failing that the next in turn.
    fn grant_next(&mut self) -> Option<Grant> {
        if self.open >= self.limit {
            return None;
        }
        let fair = self.fair_share();
        let below = |database: &DatabaseId| {
            self.databases
                .get(database)
                .is_some_and(|share| share.open < fair)
        };
        let at = self.turns.iter().position(below).unwrap_or(0);
        let database = self.turns.remove(at)?;
        let share = self.databases.get_mut(&database)?;
        let waiter = share.waiters.pop_front()?;
        share.open += 1;
        self.open += 1;
        self.waiting -= 1;
        if !share.waiters.is_empty() {
            self.turns.push_back(database);
        }
        Some(Grant {
            worker: waiter.worker,
            database,
            ticket: waiter.ticket,
        })
    }

    fn verdict(&self, now: Instant, database: DatabaseId) -> Verdict {
        let holds = self.databases.get(&database).map_or(0, |share| share.open);
        let fair = self.fair_share();
        let others = self.turns.iter().filter(|turn| **turn != database);
        let due = others
            .filter_map(|turn| self.databases.get(turn))
            .any(|other| {
                let starves = other.open == 0
                    && other
                        .waiters
                        .front()
                        .is_some_and(|waiter| now.saturating_duration_since(waiter.since) >= TURN);
                (holds > fair && other.open < fair) || starves
            });
        // Over a lowered limit nobody has a right to keep one.
        if due || self.open > self.limit {
            Verdict::Yield
        } else {
            Verdict::Keep
        }
    }

    /// Connections per database that holds or wants any; at least one.
    fn fair_share(&self) -> u32 {
        let databases = u32::try_from(self.databases.len()).unwrap_or(u32::MAX);
        (self.limit / databases.max(1)).max(1)
    }

    fn forget_if_unused(&mut self, database: DatabaseId) {
        if self
            .databases
            .get(&database)
            .is_some_and(|share| share.open == 0 && share.waiters.is_empty())
        {
            self.databases.remove(&database);
        }
    }
}
