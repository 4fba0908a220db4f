//! Receiving: requests that stay with the kernel, and what is kept while the caller wants nothing.

use std::io;
use std::os::fd::AsFd;

use super::conn::Receiving;
use super::ring::Completion;
use super::{CANCEL, FULL_RECEIVES, SMALL_RECEIVES, UringReactor, receive_kind};
use crate::reactor::lifecycle::Closing;
use crate::reactor::pools::Size;
use crate::reactor::token::Token;
use crate::reactor::{Buf, ConnId, Event};

impl UringReactor {
    /// Has the kernel receive, if it should and does not yet.
    pub(super) fn receive(&mut self, id: ConnId) {
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
    pub(super) fn stop_receiving(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id)
            && let Receiving::On(size) = conn.receiving
        {
            conn.receiving = Receiving::Ending(size);
            let request = Token::conn(receive_kind(size), id);
            self.ring.cancel(request, Token::conn(CANCEL, id));
        }
    }

    /// A receive request has told something.
    pub(super) fn received(&mut self, done: Completion, size: Size, events: &mut Vec<Event>) {
        let id = done.token.id;
        let blocks = match size {
            Size::Small => &mut self.small,
            Size::Large => &mut self.large,
        };
        let buf = blocks.take(&done).map(|buf| self.pools.sparing(buf));
        // The block was full, and that was not all.
        let full = buf.is_some() && !done.has_room() && done.more_there();
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if !done.more() {
            conn.receiving = Receiving::Off;
        }
        match (done.outcome(), buf) {
            (Ok(0), _) => return self.ended(id, Ok(()), events),
            (Ok(_), Some(buf)) => {
                self.arrived(id, buf, size, events);
                self.note_full(id, size, full);
            }
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
    pub(super) fn arrived(&mut self, id: ConnId, buf: Buf, size: Size, events: &mut Vec<Event>) {
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
        self.coalescing.received(count);
        if conn.client {
            self.coalescing.asked(&mut conn.asked);
        }
        events.push(Event::Received { conn: id, buf });
        if size == Size::Large {
            conn.small_receives = if small { conn.small_receives + 1 } else { 0 };
            if conn.small_receives == SMALL_RECEIVES {
                self.change_size(id, false);
            }
        }
    }

    /// A connection that fills small blocks one after the other receives into large ones.
    fn note_full(&mut self, id: ConnId, size: Size, full: bool) {
        if size == Size::Large {
            return;
        }
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        conn.full_receives = if full {
            conn.full_receives.saturating_add(1)
        } else {
            0
        };
        if conn.full_receives == FULL_RECEIVES && !conn.large {
            self.large_used = true;
            self.change_size(id, true);
        }
    }

    /// Has the connection receive into blocks of the other size.
    pub(super) fn change_size(&mut self, id: ConnId, large: bool) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.large = large;
            conn.small_receives = 0;
            conn.full_receives = 0;
            self.stop_receiving(id);
        }
    }

    /// There was no block for the connection.
    pub(super) fn starve(&mut self, id: ConnId, size: Size) {
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
    pub(super) fn feed_starved(&mut self) {
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
    pub(super) fn ended(&mut self, id: ConnId, how: io::Result<()>, events: &mut Vec<Event>) {
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

    pub(super) fn tell_end(&mut self, id: ConnId, how: io::Result<()>, events: &mut Vec<Event>) {
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
    pub(super) fn tell_ready(&mut self, events: &mut Vec<Event>) {
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
}
