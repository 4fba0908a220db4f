//! The reactor on io_uring.
//!
//! Accepting and receiving are requests that stay with the kernel and tell each time; received bytes land in blocks
//! that the kernel picks from a group when they are there. Sends are tried in the submission that ends a turn: nearly
//! all go out whole and tell nothing; where a socket is full, a poll tells when to try again. So one system call does
//! all of a turn's work, and the kernel holds no memory of a connection's between turns: a connection can be dropped at
//! any time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use control_store::snapshot::ServerAddress;

use self::blocks::{Blocks, Filling};
use self::coalesce::Coalescing;
use self::conn::{Conn, Receiving};
use self::message::Message;
use self::ring::{Completion, Lengths, Ring};
use super::lifecycle::{Closing, Retry};
use super::pools::{Pools, Size};
use super::sys;
use super::table::Table;
use super::token::Token;
use super::{Buf, Close, ConnId, Event, ListenerId, Options, Reactor, ReactorKind, Waker};

mod begin;
mod blocks;
mod coalesce;
mod conn;
mod message;
mod probe;
mod receive;
mod ring;
mod send;

pub use probe::available;

const RECEIVE_SMALL: u8 = 0;
const RECEIVE_LARGE: u8 = 1;
const SEND: u8 = 2;
const POLL: u8 = 3;
const CANCEL: u8 = 4;
const ACCEPT: u8 = 5;
const WAKER: u8 = 6;
/// Nothing need be known of it.
const FORGET: u8 = 7;

const GROUP_SMALL: u16 = 0;
const GROUP_LARGE: u16 = 1;
/// Blocks that the kernel has at a time, at most. A power of two.
const SMALL_BLOCKS: u16 = 64;
const LARGE_BLOCKS: u16 = 8;
/// Messages from this size on are received into large blocks: changing over and back costs four requests.
const LARGE_FROM: u64 = 64 << 10;
/// After so many full small blocks in a row it is large ones, also where no message is known to be large.
const FULL_RECEIVES: u8 = 3;
/// After so many small receives into large blocks it is small ones again.
const SMALL_RECEIVES: u8 = 8;

const FORGOTTEN: Token = Token::listener(FORGET, ListenerId(0));

struct Listener {
    socket: OwnedFd,
    /// Takes no connections until then.
    rests_until: Option<Instant>,
}

/// The sockets of one thread, on io_uring. Must be used on the thread that made it.
pub struct UringReactor {
    options: Options,
    /// Before the blocks: it must be closed before they are freed.
    ring: Ring,
    small: Blocks,
    large: Blocks,
    /// The kernel has been given large blocks: some message was large.
    large_used: bool,
    pools: Pools,
    conns: Table<Conn>,
    listeners: Vec<Option<Listener>>,
    resting: usize,
    waker: Waker,
    /// Connections with something to write.
    dirty: Vec<ConnId>,
    /// Connections with something to tell that is known already.
    ready: Vec<ConnId>,
    /// Connections that should receive, for which there was no block.
    starved: VecDeque<ConnId>,
    /// Connections with a send in this turn's submission.
    trying: Vec<ConnId>,
    /// For sends of several pieces; the first `messages_used` are in this turn's submission.
    #[allow(clippy::vec_box)] // Each must stay where it is while the list grows.
    messages: Vec<Box<Message>>,
    messages_used: usize,
    coalescing: Coalescing,
    /// When closed connections are cut off, in order.
    cut_offs: VecDeque<(Instant, ConnId)>,
    retries: VecDeque<Retry>,
}

/// The largest power of two that is neither above `most` nor above `blocks`.
fn entries(most: u16, blocks: usize) -> u16 {
    let blocks = u16::try_from(blocks).unwrap_or(u16::MAX).clamp(1, most);
    1 << blocks.ilog2()
}

const fn receive_kind(size: Size) -> u8 {
    match size {
        Size::Small => RECEIVE_SMALL,
        Size::Large => RECEIVE_LARGE,
    }
}

impl UringReactor {
    /// A reactor without sockets.
    ///
    /// # Errors
    /// Where io_uring is refused or too old ([`available`] says why), or the process is out of descriptors.
    pub fn new(options: Options) -> io::Result<Self> {
        let mut made = Err(io::ErrorKind::OutOfMemory.into());
        for lengths in Lengths::USUAL {
            made = Self::with_queues(options, lengths, Filling::Piecewise);
            match &made {
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {}
                _ => break,
            }
        }
        made
    }

    fn with_queues(options: Options, lengths: Lengths, filling: Filling) -> io::Result<Self> {
        let mut ring = Ring::new(lengths)?;
        let waker = Waker::new()?;
        let small = entries(SMALL_BLOCKS, options.small.blocks);
        let large = entries(LARGE_BLOCKS, options.large.blocks);
        let small = Blocks::register(ring.queues(), GROUP_SMALL, small, filling)?;
        let large = Blocks::register(ring.queues(), GROUP_LARGE, large, filling)?;
        let token = Token::listener(WAKER, ListenerId(0));
        ring.poll(waker.as_fd(), libc::POLLIN, true, token);
        Ok(Self {
            pools: Pools::new(&options),
            options,
            ring,
            small,
            large,
            large_used: false,
            conns: Table::new(),
            listeners: Vec::new(),
            resting: 0,
            waker,
            dirty: Vec::new(),
            ready: Vec::new(),
            starved: VecDeque::new(),
            trying: Vec::new(),
            messages: Vec::new(),
            messages_used: 0,
            coalescing: Coalescing::new(options.coalesce, Instant::now()),
            cut_offs: VecDeque::new(),
            retries: VecDeque::new(),
        })
    }

    /// A reactor whose queues are full all the time, on a kernel that fills each block once.
    #[cfg(test)]
    pub(super) fn cramped(options: Options) -> io::Result<Self> {
        Self::with_queues(options, Lengths::new(2, 4), Filling::Whole)
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

    /// Has what is known of the connection told in the next turn.
    fn mark_ready(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.in_ready
        {
            conn.in_ready = true;
            self.ready.push(id);
        }
    }

    /// Ends the connection and all requests on it.
    fn remove(&mut self, id: ConnId) -> Option<Closing> {
        let conn = self.conns.remove(id)?;
        // Once more if it is ending: that may have failed.
        if let Receiving::On(size) | Receiving::Ending(size) = conn.receiving {
            self.ring
                .cancel(Token::conn(receive_kind(size), id), FORGOTTEN);
        }
        if conn.polling {
            self.ring.cancel(Token::conn(POLL, id), FORGOTTEN);
        }
        self.ring.close(conn.socket, FORGOTTEN);
        Some(conn.closing)
    }

    fn fail(&mut self, id: ConnId, error: io::Error, events: &mut Vec<Event>) {
        if self.remove(id) == Some(Closing::No) {
            events.push(Event::Failed { conn: id, error });
        }
    }

    /// Takes up a connected socket.
    fn adopt(&mut self, socket: OwnedFd) -> io::Result<ConnId> {
        let conn = self
            .conns
            .insert(Conn::accepted(socket))
            .ok_or(io::ErrorKind::QuotaExceeded)?;
        self.receive(conn);
        Ok(conn)
    }

    fn completed(&mut self, done: Completion, events: &mut Vec<Event>) {
        let id = done.token.id;
        match done.token.kind {
            RECEIVE_SMALL => self.received(done, Size::Small, events),
            RECEIVE_LARGE => self.received(done, Size::Large, events),
            SEND => self.cut_short(id, done.outcome(), events),
            POLL => self.writable(id, events),
            CANCEL => self.not_cancelled(id),
            ACCEPT => self.accepted(done, events),
            WAKER => self.woken(done, events),
            _ => {}
        }
    }

    /// A receive request could not be ended. It has told of its end before, or it goes on.
    fn not_cancelled(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && let Receiving::Ending(size) = conn.receiving
        {
            conn.receiving = Receiving::On(size);
        }
    }

    fn woken(&mut self, done: Completion, events: &mut Vec<Event>) {
        self.waker.drain();
        self.waker.acknowledge();
        events.push(Event::Woken);
        if !done.more() {
            let token = Token::listener(WAKER, ListenerId(0));
            self.ring
                .poll(self.waker.as_fd(), libc::POLLIN, true, token);
        }
    }
}

impl Reactor for UringReactor {
    fn kind(&self) -> ReactorKind {
        ReactorKind::Uring
    }

    fn listen(&mut self, socket: OwnedFd) -> io::Result<ListenerId> {
        sys::prepare_listener(socket.as_fd())?;
        let id = ListenerId(u32::try_from(self.listeners.len()).unwrap_or(u32::MAX));
        self.listeners.push(Some(Listener {
            socket,
            rests_until: None,
        }));
        self.accept(id);
        Ok(id)
    }

    fn stop_listening(&mut self, listener: ListenerId) {
        let Some(stopped) = self
            .listeners
            .get_mut(listener.0 as usize)
            .and_then(Option::take)
        else {
            return;
        };
        if stopped.rests_until.is_some() {
            self.resting = self.resting.saturating_sub(1);
        }
        self.ring
            .cancel(Token::listener(ACCEPT, listener), FORGOTTEN);
        self.ring.close(stopped.socket, FORGOTTEN);
    }

    fn connect(&mut self, to: &ServerAddress) -> io::Result<ConnId> {
        let (socket, address) = sys::socket_for(to)?;
        let id = self
            .conns
            .insert(Conn::connecting(socket))
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
        if let Some(entry) = self.open(conn) {
            entry.paused = true;
            self.stop_receiving(conn);
        }
    }

    fn resume(&mut self, conn: ConnId) {
        let Some(entry) = self.open(conn) else { return };
        entry.paused = false;
        if entry.held.is_some() {
            self.mark_ready(conn);
        }
        self.receive(conn);
    }

    fn expect(&mut self, conn: ConnId, bytes: u64) {
        let Some(entry) = self.open(conn) else { return };
        entry.expected = bytes;
        if bytes >= LARGE_FROM && !entry.large {
            self.large_used = true;
            self.change_size(conn, true);
        }
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let Some(entry) = self.open(conn) else { return };
        if how == Close::Now || entry.broken.is_some() {
            self.remove(conn);
            return;
        }
        entry.closing = Closing::Flushing;
        entry.eof |= entry.held.take().is_some_and(|held| held.end.is_some());
        let at = Instant::now() + self.options.close_within;
        self.cut_offs.push_back((at, conn));
        self.mark_dirty(conn);
    }

    fn turn(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let due = self.timers();
        self.tell_ready(events);
        self.small.provide(self.pools.of(Size::Small));
        if self.large_used {
            self.large.provide(self.pools.of(Size::Large));
        }
        self.feed_starved();
        self.flush_dirty();
        let fed = self.starved.is_empty() || self.small.provided() == 0;
        let timeout = if events.is_empty() && self.dirty.is_empty() && self.ready.is_empty() && fed
        {
            let until_due = due.map(|at| at.saturating_duration_since(Instant::now()));
            timeout.into_iter().chain(until_due).min()
        } else {
            Some(Duration::ZERO)
        };
        let company = match timeout {
            Some(Duration::ZERO) => None,
            _ => self.coalescing.company(),
        };
        let told = self.ring.enter(timeout, company)?;
        self.coalescing
            .turned(Instant::now(), sys::thread_time, told.len(), company);
        for done in &told {
            self.completed(*done, events);
        }
        self.ring.recycle(told);
        self.conclude_sends(events);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
