//! The reactor on epoll, for where io_uring is refused.
//!
//! Connections are watched once, edge-triggered, for everything: pausing, resuming and writing cost no further system
//! call. What the kernel has told is remembered in each [`Conn`] until a read or a write would block. Listeners are
//! level-triggered, so that a bounded number of connections can be taken per turn.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use control_store::snapshot::ServerAddress;
use socket2::SockAddr;

use self::conn::{Conn, Flushed, Taken};
use super::lifecycle::{ACCEPT_REST, CONNECT_RETRY, Closing, Retry, concerns_one_connection};
use super::pools::Pools;
use super::sys::{self, Connecting, Epoll};
use super::table::Table;
use super::token::Token;
use super::{Buf, Close, ConnId, Event, ListenerId, Options, Reactor, ReactorKind, Waker};

mod conn;

const CONN: u8 = 0;
const LISTENER: u8 = 1;
const WAKER: u8 = 2;

const WATCH_CONN: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET).cast_unsigned();
const WATCH_LISTENER: u32 = libc::EPOLLIN.cast_unsigned();
const WATCH_NOTHING: u32 = 0;
const READABLE: u32 =
    (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();
const HANGUP: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();
const WRITABLE: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();
const ERROR: u32 = libc::EPOLLERR.cast_unsigned();

/// Kernel events taken in one turn.
const EVENTS_A_TURN: usize = 256;
/// Connections taken from one listener in one turn.
const ACCEPTS_A_TURN: usize = 64;
/// Blocks read from one connection in one turn.
const READS_A_TURN: usize = 3;
/// Bytes thrown away at a time from a peer that sends to a closed connection.
const DISCARD: usize = 16 << 10;

struct Listener {
    socket: OwnedFd,
    /// Not watched until then.
    rests_until: Option<Instant>,
}

/// The sockets of one thread, on epoll.
pub struct EpollReactor {
    options: Options,
    epoll: Epoll,
    /// Room for the kernel's answers.
    answers: Vec<libc::epoll_event>,
    conns: Table<Conn>,
    listeners: Vec<Option<Listener>>,
    resting: usize,
    pools: Pools,
    waker: Waker,
    /// Connections with something to write.
    dirty: Vec<ConnId>,
    /// Connections with something to read.
    ready: Vec<ConnId>,
    /// Connections with something to read, for which there was no block.
    starved: Vec<ConnId>,
    /// When closed connections are cut off, in order.
    cut_offs: VecDeque<(Instant, ConnId)>,
    retries: VecDeque<Retry>,
    /// Where bytes go that nobody wants.
    discarded: Box<[u8]>,
}

impl EpollReactor {
    /// A reactor without sockets.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new(options: Options) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let waker = Waker::new()?;
        let token = Token::listener(WAKER, ListenerId(0)).pack();
        epoll.add(&waker, WATCH_LISTENER, token)?;
        Ok(Self {
            pools: Pools::new(&options),
            options,
            epoll,
            answers: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_A_TURN],
            conns: Table::new(),
            listeners: Vec::new(),
            resting: 0,
            waker,
            dirty: Vec::new(),
            ready: Vec::new(),
            starved: Vec::new(),
            cut_offs: VecDeque::new(),
            retries: VecDeque::new(),
            discarded: vec![0; DISCARD].into(),
        })
    }

    /// The connection, if the caller may still speak of it.
    fn open(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns
            .get_mut(id)
            .filter(|conn| conn.closing == Closing::No)
    }

    /// Has the connection written in the next turn.
    fn mark_dirty(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.in_dirty
        {
            conn.in_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Has the connection read in this turn, or the next if this one is past that.
    fn mark_ready(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.in_ready
        {
            conn.in_ready = true;
            self.ready.push(id);
        }
    }

    fn fail(&mut self, id: ConnId, error: io::Error, events: &mut Vec<Event>) {
        if let Some(conn) = self.conns.remove(id)
            && conn.closing == Closing::No
        {
            events.push(Event::Failed { conn: id, error });
        }
    }

    // ---- writing ----

    fn flush_dirty(&mut self, events: &mut Vec<Event>) {
        for id in std::mem::take(&mut self.dirty) {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.in_dirty = false;
                self.flush(id, events);
            }
        }
    }

    fn flush(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let low_water = self.options.low_water;
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.can_flush()) else {
            return;
        };
        let flushed = conn.flush();
        if conn.closing == Closing::No && conn.queue.take_drained(low_water) {
            events.push(Event::Drained { conn: id });
        }
        match flushed {
            Flushed::Empty if conn.closing == Closing::Flushing => self.linger(id),
            Flushed::Empty | Flushed::Blocked => {}
            Flushed::More => self.mark_dirty(id),
            Flushed::Broken(error) => self.broken(id, error, events),
        }
    }

    /// Writing failed. What the peer had sent before may explain it, so that is read first, unless reading is paused.
    fn broken(&mut self, id: ConnId, error: io::Error, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.paused || conn.eof || conn.closing != Closing::No {
            return self.fail(id, error, events);
        }
        conn.broken = Some(error);
        conn.queue = super::queue::SendQueue::default();
        conn.hangup = true;
        conn.readable = true;
        self.mark_ready(id);
    }

    /// All is written: says so and waits for the peer's end.
    fn linger(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.eof {
            self.conns.remove(id);
            return;
        }
        conn.shut_down();
        conn.closing = Closing::Lingering;
        conn.readable = true;
        self.mark_ready(id);
    }

    // ---- reading ----

    fn read_ready(&mut self, events: &mut Vec<Event>) {
        if self.pools.has_some() {
            self.ready.append(&mut self.starved);
        }
        for id in std::mem::take(&mut self.ready) {
            let Some(conn) = self.conns.get_mut(id) else {
                continue;
            };
            conn.in_ready = false;
            match conn.closing {
                Closing::No => self.read(id, events),
                Closing::Flushing => {}
                Closing::Lingering => self.discard(id),
            }
        }
    }

    /// Reads what is there, a few blocks at most: others have something to say too.
    fn read(&mut self, id: ConnId, events: &mut Vec<Event>) {
        for reads in 0..READS_A_TURN {
            if !self.read_block(id, reads > 0, events) {
                return;
            }
        }
        self.mark_ready(id);
    }

    /// Reads a block, a large one if `more`: if there was more than one block's. Answers whether there may be more.
    fn read_block(&mut self, id: ConnId, more: bool, events: &mut Vec<Event>) -> bool {
        let Some(conn) = self.conns.get_mut(id) else {
            return false;
        };
        if conn.connecting {
            if let Some(error) = conn.broken.take() {
                self.fail(id, error, events);
            }
            return false;
        }
        if conn.paused || conn.eof || !conn.readable {
            return false;
        }
        let expected = if more { u64::MAX } else { conn.expected };
        let Some(mut block) = self.pools.take(expected) else {
            conn.in_ready = true;
            self.starved.push(id);
            return false;
        };
        let room = block.bytes_mut().len();
        match conn.receive(block.bytes_mut()) {
            Taken::Bytes(count) => {
                conn.expected = conn
                    .expected
                    .saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
                conn.readable = conn.hangup || count == room;
                let again = conn.readable;
                let buf = self.pools.filled(block, count);
                events.push(Event::Received { conn: id, buf });
                return again;
            }
            Taken::Nothing => {
                conn.readable = false;
                if let Some(error) = conn.broken.take() {
                    self.fail(id, error, events);
                }
            }
            Taken::End => {
                conn.readable = false;
                conn.eof = true;
                match conn.broken.take() {
                    Some(error) => self.fail(id, error, events),
                    None => events.push(Event::Eof { conn: id }),
                }
            }
            Taken::Broken(error) => {
                let error = conn.broken.take().unwrap_or(error);
                self.fail(id, error, events);
            }
        }
        false
    }

    /// Throws away what a peer sends to a connection that is closed but for its answer.
    fn discard(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        match conn.receive(&mut self.discarded) {
            Taken::Bytes(_) => self.mark_ready(id),
            Taken::Nothing => {}
            Taken::End | Taken::Broken(_) => {
                self.conns.remove(id);
            }
        }
    }

    // ---- connecting and accepting ----

    /// Connects the socket, now or (`Retry`) later; a failure is told in the next turn.
    fn begin(&mut self, id: ConnId, to: SockAddr, until: Instant, now: Instant) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        let begun = match sys::start_connect(conn.socket.as_fd(), &to) {
            Ok(Connecting::Full) if now < until => {
                let at = now + CONNECT_RETRY;
                return self.retries.push_back(Retry {
                    at,
                    until,
                    conn: id,
                    to,
                });
            }
            Ok(Connecting::Full) => Err(io::ErrorKind::TimedOut.into()),
            Ok(Connecting::Begun) => {
                self.epoll
                    .add(&conn.socket, WATCH_CONN, Token::conn(CONN, id).pack())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            conn.broken = Some(error);
            self.mark_ready(id);
        }
    }

    /// The kernel has decided on a connection that was being made.
    fn decided(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if let Some(error) = conn.take_error() {
            return self.fail(id, error, events);
        }
        conn.connecting = false;
        if conn.closing == Closing::No {
            events.push(Event::Connected { conn: id });
        }
        self.mark_dirty(id);
    }

    fn accept(&mut self, listener: ListenerId, events: &mut Vec<Event>) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(Some(entry)) = self.listeners.get(listener.0 as usize) else {
                return;
            };
            match sys::accept(entry.socket.as_fd()) {
                Ok((socket, peer)) => {
                    if let Some(conn) = self.adopt(socket) {
                        events.push(Event::Accepted {
                            listener,
                            conn,
                            peer,
                        });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => return self.rest(listener, &error),
            }
        }
    }

    /// Watches a socket that came from a listener; `None`: there is no room for it, so it is closed.
    fn adopt(&mut self, socket: OwnedFd) -> Option<ConnId> {
        let id = self.conns.insert(Conn::new(socket, false))?;
        let conn = self.conns.get(id)?;
        let watched = self
            .epoll
            .add(&conn.socket, WATCH_CONN, Token::conn(CONN, id).pack());
        if watched.is_err() {
            self.conns.remove(id);
            return None;
        }
        Some(id)
    }

    /// Lets a listener be for a while: trying again at once would spin until another connection is closed.
    fn rest(&mut self, listener: ListenerId, error: &io::Error) {
        tracing::warn!(%error, "cannot take connections for the moment");
        let Some(Some(entry)) = self.listeners.get_mut(listener.0 as usize) else {
            return;
        };
        if entry.rests_until.is_none() {
            self.resting += 1;
        }
        entry.rests_until = Some(Instant::now() + ACCEPT_REST);
        let token = Token::listener(LISTENER, listener).pack();
        // It fails only for a descriptor that is not watched; ours is.
        let _ = self.epoll.modify(&entry.socket, WATCH_NOTHING, token);
    }

    // ---- time ----

    /// Does what is due and answers when the next thing will be.
    fn timers(&mut self) -> Option<Instant> {
        if self.cut_offs.is_empty() && self.retries.is_empty() && self.resting == 0 {
            return None;
        }
        let now = Instant::now();
        while let Some((_, id)) = self
            .cut_offs
            .pop_front_if(|(at, id)| *at <= now || self.conns.get(*id).is_none())
        {
            self.conns.remove(id);
        }
        while let Some(retry) = self.retries.pop_front_if(|retry| retry.at <= now) {
            self.begin(retry.conn, retry.to, retry.until, now);
        }
        let listener = self.wake_listeners(now);
        let cut_off = self.cut_offs.front().map(|(at, _)| *at);
        let retry = self.retries.front().map(|retry| retry.at);
        [listener, cut_off, retry].into_iter().flatten().min()
    }

    /// Watches the listeners again that have rested long enough.
    fn wake_listeners(&mut self, now: Instant) -> Option<Instant> {
        if self.resting == 0 {
            return None;
        }
        let mut next = None;
        for (id, entry) in (0..).map(ListenerId).zip(&mut self.listeners) {
            let Some(entry) = entry else { continue };
            match entry.rests_until {
                Some(at) if at <= now => {
                    entry.rests_until = None;
                    self.resting = self.resting.saturating_sub(1);
                    let token = Token::listener(LISTENER, id).pack();
                    let _ = self.epoll.modify(&entry.socket, WATCH_LISTENER, token);
                }
                Some(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
                None => {}
            }
        }
        next
    }

    /// Waits for the kernel and sorts its answers.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let count = match self.epoll.wait(&mut self.answers, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        for at in 0..count {
            let Some(answer) = self.answers.get(at).copied() else {
                break;
            };
            let token = Token::unpack(answer.u64);
            match token.kind {
                CONN => self.told(token.id, answer.events, events),
                LISTENER => self.accept(token.as_listener(), events),
                _ => {
                    self.waker.drain();
                    self.waker.acknowledge();
                    events.push(Event::Woken);
                }
            }
        }
        Ok(())
    }

    /// Remembers what the kernel tells of a connection.
    fn told(&mut self, id: ConnId, what: u32, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.readable |= what & READABLE != 0;
        conn.hangup |= what & HANGUP != 0;
        conn.writable |= what & WRITABLE != 0;
        let (readable, writable) = (conn.readable, conn.writable);
        if conn.connecting {
            if writable {
                self.decided(id, events);
            }
        } else if what & ERROR != 0 && conn.eof {
            // There is nothing more to read that could tell of it.
            let error = conn
                .take_error()
                .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
            return self.fail(id, error, events);
        }
        if readable {
            self.mark_ready(id);
        }
        if writable {
            self.flush(id, events);
        }
    }
}

impl Reactor for EpollReactor {
    fn kind(&self) -> ReactorKind {
        ReactorKind::Epoll
    }

    fn listen(&mut self, socket: OwnedFd) -> io::Result<ListenerId> {
        sys::prepare_listener(socket.as_fd())?;
        let id = ListenerId(u32::try_from(self.listeners.len()).unwrap_or(u32::MAX));
        let token = Token::listener(LISTENER, id).pack();
        self.epoll.add(&socket, WATCH_LISTENER, token)?;
        self.listeners.push(Some(Listener {
            socket,
            rests_until: None,
        }));
        Ok(id)
    }

    fn stop_listening(&mut self, listener: ListenerId) {
        let stopped = self
            .listeners
            .get_mut(listener.0 as usize)
            .and_then(Option::take);
        if stopped.is_some_and(|stopped| stopped.rests_until.is_some()) {
            self.resting = self.resting.saturating_sub(1);
        }
    }

    fn connect(&mut self, to: &ServerAddress) -> io::Result<ConnId> {
        let (socket, address) = sys::socket_for(to)?;
        let id = self
            .conns
            .insert(Conn::new(socket, true))
            .ok_or(io::ErrorKind::QuotaExceeded)?;
        let now = Instant::now();
        self.begin(id, address, now + self.options.connect_within, now);
        Ok(id)
    }

    fn send(&mut self, conn: ConnId, buf: Buf) {
        let high_water = self.options.high_water;
        if let Some(entry) = self.open(conn).filter(|entry| entry.broken.is_none()) {
            entry.queue.push(buf, high_water);
            self.mark_dirty(conn);
        }
    }

    fn send_copy(&mut self, conn: ConnId, bytes: &[u8]) {
        let high_water = self.options.high_water;
        if let Some(entry) = self.open(conn).filter(|entry| entry.broken.is_none()) {
            entry.queue.push_copy(bytes, high_water);
            self.mark_dirty(conn);
        }
    }

    fn queued(&self, conn: ConnId) -> usize {
        self.conns.get(conn).map_or(0, |conn| conn.queue.len())
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(conn) = self.open(conn) {
            conn.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(entry) = self.open(conn) else { return };
        entry.paused = false;
        if entry.readable {
            self.mark_ready(conn);
        }
    }

    fn expect(&mut self, conn: ConnId, bytes: u64) {
        if let Some(conn) = self.open(conn) {
            conn.expected = bytes;
        }
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let Some(entry) = self.open(conn) else { return };
        if how == Close::Now || entry.broken.is_some() {
            self.conns.remove(conn);
            return;
        }
        entry.closing = Closing::Flushing;
        let at = Instant::now() + self.options.close_within;
        self.cut_offs.push_back((at, conn));
        self.mark_dirty(conn);
    }

    fn turn(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.flush_dirty(events);
        let due = self.timers();
        let fed = !self.starved.is_empty() && self.pools.has_some();
        let timeout = if events.is_empty() && self.ready.is_empty() && self.dirty.is_empty() && !fed
        {
            let until_due = due.map(|at| at.saturating_duration_since(Instant::now()));
            timeout.into_iter().chain(until_due).min()
        } else {
            Some(Duration::ZERO)
        };
        self.wait(timeout, events)?;
        self.read_ready(events);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
