//! Sending, and the end of a connection that is closed once all is sent.

use std::io;
use std::os::fd::AsFd;

use super::message::Message;
use super::{POLL, SEND, UringReactor};
use crate::reactor::lifecycle::Closing;
use crate::reactor::queue::SendQueue;
use crate::reactor::token::Token;
use crate::reactor::{ConnId, Event, sys};

impl UringReactor {
    pub(super) fn flush_dirty(&mut self) {
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
    pub(super) fn flush(&mut self, id: ConnId) {
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
    pub(super) fn cut_short(
        &mut self,
        id: ConnId,
        outcome: Result<usize, i32>,
        events: &mut Vec<Event>,
    ) {
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

    pub(super) fn wait_writable(&mut self, id: ConnId) {
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
    pub(super) fn conclude_sends(&mut self, events: &mut Vec<Event>) {
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
    pub(super) fn left(&mut self, id: ConnId, events: &mut Vec<Event>) {
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
    pub(super) fn broken(&mut self, id: ConnId, error: io::Error, events: &mut Vec<Event>) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if conn.paused || conn.eof || conn.closing != Closing::No {
            return self.fail(id, error, events);
        }
        conn.broken = Some(error);
        conn.queue = SendQueue::default();
        self.receive(id);
    }

    /// All is written: says so and waits for the peer's end.
    pub(super) fn linger(&mut self, id: ConnId) {
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
}
