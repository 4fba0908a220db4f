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
use socket2::SockAddr;

use self::blocks::{Blocks, Filling};
use self::conn::{Conn, Receiving};
use self::message::Message;
use self::ring::{Completion, Lengths, Ring};
use super::lifecycle::{ACCEPT_REST, CONNECT_RETRY, Closing, Retry, concerns_one_connection};
use super::pools::{Pools, Size};
use super::sys::{self, Connecting};
use super::table::Table;
use super::token::Token;
use super::{Buf, Close, ConnId, Event, ListenerId, Options, Reactor, ReactorKind, Waker};

mod blocks;
mod conn;
mod message;
mod probe;
mod ring;

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
            .insert(Conn::new(socket, false))
            .ok_or(io::ErrorKind::QuotaExceeded)?;
        self.receive(conn);
        Ok(conn)
    }

    // ---- receiving ----

    /// Has the kernel receive, if it should and does not yet.
    fn receive(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.receiving != Receiving::Off || conn.in_starved || !conn.should_receive() {
            return;
        }
        let size = conn.size();
        let blocks = match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
        };
        conn.receiving = Receiving::On(size);
        let token = Token::conn(receive_kind(size), id);
        self.ring
            .receive(conn.socket.as_fd(), blocks.group(), token);
    }

    /// Has the kernel receive no more; [`UringReactor::receive`] takes it up again once that is done.
    fn stop_receiving(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && let Receiving::On(size) = conn.receiving
        {
            conn.receiving = Receiving::Ending(size);
            let request = Token::conn(receive_kind(size), id);
            self.ring.cancel(request, Token::conn(CANCEL, id));
        }
    }

    /// A receive request has told something.
    fn received(&mut self, done: Completion, size: Size, events: &mut Vec<Event>) {
        let id = done.token.id;
        let blocks = match size {
            Size::Small => &mut self.small,
            Size::Large => &mut self.large,
        };
        let buf = blocks.take(&done).map(|buf| self.pools.sparing(buf));
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if !done.more() {
            conn.receiving = Receiving::Off;
        }
        match (done.outcome(), buf) {
            (Ok(0), _) => return self.ended(id, Ok(()), events),
            (Ok(_), Some(buf)) => self.arrived(id, buf, size, events),
            // Bytes in a block that the kernel does not have: what follows them would be out of place.
            (Ok(_), None) => {
                let error = io::ErrorKind::InvalidData.into();
                return self.ended(id, Err(error), events);
            }
            (Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN), _) => {}
            (Err(libc::ENOBUFS), _) => return self.starve(id, size),
            (Err(error), _) => {
                let error = io::Error::from_raw_os_error(error);
                return self.ended(id, Err(error), events);
            }
        }
        if !done.more() {
            self.receive(id);
        }
    }

    /// Tells of bytes, or keeps them while reading is paused.
    fn arrived(&mut self, id: ConnId, buf: Buf, size: Size, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.closing != Closing::No {
            return;
        }
        let count = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        conn.expected = conn.expected.saturating_sub(count);
        let small = buf.len() < self.options.small.block && conn.expected == 0;
        if conn.holds() {
            conn.held().bufs.push_back(buf);
            if conn.paused {
                self.stop_receiving(id);
            }
            return;
        }
        events.push(Event::Received { conn: id, buf });
        if size == Size::Large {
            conn.small_receives = if small { conn.small_receives + 1 } else { 0 };
            if conn.small_receives == SMALL_RECEIVES {
                self.change_size(id, false);
            }
        }
    }

    /// Has the connection receive into blocks of the other size.
    fn change_size(&mut self, id: ConnId, large: bool) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.large = large;
            conn.small_receives = 0;
            self.stop_receiving(id);
        }
    }

    /// There was no block for the connection.
    fn starve(&mut self, id: ConnId, size: Size) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if size == Size::Large {
            conn.large = false;
            return self.receive(id);
        }
        if !conn.in_starved {
            conn.in_starved = true;
            self.starved.push_back(id);
        }
    }

    /// Takes up the receives for which there are blocks now.
    fn feed_starved(&mut self) {
        for _ in 0..self.small.provided() {
            let Some(id) = self.starved.pop_front() else {
                return;
            };
            if let Some(conn) = self.conns.get_mut(id) {
                conn.in_starved = false;
                self.receive(id);
            }
        }
    }

    /// The peer sends no more, or the connection is broken.
    fn ended(&mut self, id: ConnId, how: io::Result<()>, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        match (conn.closing, &how) {
            (Closing::No, _) if conn.holds() => conn.held().end = Some(how),
            (Closing::No, _) => self.tell_end(id, how, events),
            (Closing::Flushing, Ok(())) => conn.eof = true,
            (Closing::Flushing, Err(_)) | (Closing::Lingering, _) => {
                self.remove(id);
            }
        }
    }

    fn tell_end(&mut self, id: ConnId, how: io::Result<()>, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        match conn.broken.take().map_or(how, Err) {
            Err(error) => self.fail(id, error, events),
            Ok(()) => {
                conn.eof = true;
                events.push(Event::Eof { conn: id });
            }
        }
    }

    /// Tells what was kept while connections were paused, and of connections that could not be begun.
    fn tell_ready(&mut self, events: &mut Vec<Event>) {
        for id in std::mem::take(&mut self.ready) {
            let Some(conn) = self.conns.get_mut(id) else {
                continue;
            };
            conn.in_ready = false;
            if conn.connecting {
                if let Some(error) = conn.broken.take() {
                    self.fail(id, error, events);
                }
                continue;
            }
            if conn.paused || conn.closing != Closing::No {
                continue;
            }
            let Some(held) = conn.held.take() else {
                continue;
            };
            let received = |buf| Event::Received { conn: id, buf };
            events.extend(held.bufs.into_iter().map(received));
            match held.end {
                Some(how) => self.tell_end(id, how, events),
                None => self.receive(id),
            }
        }
    }

    // ---- sending ----

    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.in_dirty = false;
                self.flush(id);
            }
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Puts what is queued into this turn's submission. Only just before [`Ring::enter`]: the bytes must stay.
    #[allow(unsafe_code)]
    fn flush(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if !conn.can_flush() {
            if conn.closing == Closing::Flushing && conn.queue.is_empty() && !conn.connecting {
                self.linger(id);
            }
            return;
        }
        let token = Token::conn(SEND, id);
        let socket = conn.socket.as_fd();
        let mut pieces = conn.queue.pieces();
        let (Some(first), more) = (pieces.next(), pieces.next().is_some()) else {
            return;
        };
        if more {
            if self.messages_used == self.messages.len() {
                self.messages.push(Message::new());
            }
            let Some(message) = self.messages.get_mut(self.messages_used) else {
                return;
            };
            self.messages_used += 1;
            message.fill(conn.queue.pieces());
            conn.trying = conn.queue.pieces().map(<[u8]>::len).sum();
            // SAFETY: between here and the end of `enter`, which follows in this turn, no connection is removed, no
            // queue changed and no message filled again.
            unsafe { self.ring.send_message(socket, message, token) };
        } else {
            conn.trying = first.len();
            // SAFETY: as above.
            unsafe { self.ring.send(socket, first, token) };
        }
        self.trying.push(id);
    }

    /// A send did not go out whole.
    fn cut_short(&mut self, id: ConnId, outcome: Result<usize, i32>, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.trying = 0;
        match outcome {
            Ok(count) => {
                conn.queue.sent(count);
                self.wait_writable(id);
                self.left(id, events);
            }
            Err(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => self.wait_writable(id),
            Err(libc::EINTR) => self.mark_dirty(id),
            Err(error) => self.broken(id, io::Error::from_raw_os_error(error), events),
        }
    }

    fn wait_writable(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && !conn.polling
        {
            conn.polling = true;
            let token = Token::conn(POLL, id);
            self.ring
                .poll(conn.socket.as_fd(), libc::POLLOUT, false, token);
        }
    }

    /// The sends of which nothing bad was told have gone out whole.
    fn conclude_sends(&mut self, events: &mut Vec<Event>) {
        self.messages_used = 0;
        let mut trying = std::mem::take(&mut self.trying);
        for id in trying.drain(..) {
            if let Some(conn) = self.conns.get_mut(id)
                && conn.trying > 0
            {
                let count = std::mem::take(&mut conn.trying);
                conn.queue.sent(count);
                self.left(id, events);
            }
        }
        self.trying = trying;
    }

    /// Bytes have left the queue.
    fn left(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let low_water = self.options.low_water;
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.closing == Closing::No && conn.queue.take_drained(low_water) {
            events.push(Event::Drained { conn: id });
        }
        if !conn.queue.is_empty() || conn.closing == Closing::Flushing {
            self.mark_dirty(id);
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
        self.receive(id);
    }

    /// All is written: says so and waits for the peer's end.
    fn linger(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.eof {
            self.remove(id);
            return;
        }
        sys::shut_down(conn.socket.as_fd());
        conn.closing = Closing::Lingering;
        self.receive(id);
    }

    // ---- connecting and accepting ----

    /// Connects the socket, now or (`Retry`) later; a failure is told in the next turn.
    fn begin(&mut self, id: ConnId, to: SockAddr, until: Instant, now: Instant) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        let error = match sys::start_connect(conn.socket.as_fd(), &to) {
            Ok(Connecting::Begun) => return self.wait_writable(id),
            Ok(Connecting::Full) if now < until => {
                let at = now + CONNECT_RETRY;
                return self.retries.push_back(Retry {
                    at,
                    until,
                    conn: id,
                    to,
                });
            }
            Ok(Connecting::Full) => io::ErrorKind::TimedOut.into(),
            Err(error) => error,
        };
        conn.broken = Some(error);
        self.mark_ready(id);
    }

    /// A socket takes more, or the kernel has decided on a connection that was being made.
    fn writable(&mut self, id: ConnId, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.polling = false;
        if conn.connecting {
            if let Some(error) = sys::take_error(conn.socket.as_fd()) {
                return self.fail(id, error, events);
            }
            conn.connecting = false;
            if conn.closing == Closing::No {
                events.push(Event::Connected { conn: id });
            }
            self.receive(id);
        }
        self.mark_dirty(id);
    }

    fn accept(&mut self, listener: ListenerId) {
        if let Some(Some(entry)) = self.listeners.get(listener.0 as usize) {
            let token = Token::listener(ACCEPT, listener);
            self.ring.accept(entry.socket.as_fd(), token);
        }
    }

    /// A listener has told of a connection, or that it cannot take one.
    fn accepted(&mut self, done: Completion, events: &mut Vec<Event>) {
        let listener = done.token.as_listener();
        let open = matches!(self.listeners.get(listener.0 as usize), Some(Some(_)));
        match sys::made_by_kernel(done.result) {
            Ok(socket) if open => {
                if let Ok(peer) = sys::peer_of(socket.as_fd())
                    && let Ok(conn) = self.adopt(socket)
                {
                    events.push(Event::Accepted {
                        listener,
                        conn,
                        peer,
                    });
                }
            }
            Err(error) if open && !concerns_one_connection(&error) => {
                return self.rest(listener, &error);
            }
            // The connection is gone again, or nobody wants it.
            _ => {}
        }
        if !done.more() {
            self.accept(listener);
        }
    }

    /// Lets a listener be for a while: trying again at once would spin until another connection is closed.
    fn rest(&mut self, listener: ListenerId, error: &io::Error) {
        tracing::warn!(%error, "cannot take connections for the moment");
        if let Some(Some(entry)) = self.listeners.get_mut(listener.0 as usize) {
            entry.rests_until = Some(Instant::now() + ACCEPT_REST);
            self.resting += 1;
        }
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
            self.remove(id);
        }
        while let Some(retry) = self.retries.pop_front_if(|retry| retry.at <= now) {
            self.begin(retry.conn, retry.to, retry.until, now);
        }
        let listener = self.wake_listeners(now);
        let cut_off = self.cut_offs.front().map(|(at, _)| *at);
        let retry = self.retries.front().map(|retry| retry.at);
        [listener, cut_off, retry].into_iter().flatten().min()
    }

    /// Has the listeners take connections again that have rested long enough.
    fn wake_listeners(&mut self, now: Instant) -> Option<Instant> {
        if self.resting == 0 {
            return None;
        }
        let mut next: Option<Instant> = None;
        let mut rested = Vec::new();
        for (id, entry) in (0..).map(ListenerId).zip(&mut self.listeners) {
            let Some(entry) = entry else { continue };
            match entry.rests_until {
                Some(at) if at <= now => {
                    entry.rests_until = None;
                    rested.push(id);
                }
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        self.resting = self.resting.saturating_sub(rested.len());
        rested.into_iter().for_each(|id| self.accept(id));
        next
    }

    // ---- what the kernel tells ----

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
        let told = self.ring.enter(timeout)?;
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
