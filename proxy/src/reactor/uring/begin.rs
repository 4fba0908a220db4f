//! How connections begin: connecting, accepting, and trying either again.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

use socket2::SockAddr;

use super::ring::Completion;
use super::{ACCEPT, UringReactor};
use crate::reactor::lifecycle::{
    ACCEPT_REST, CONNECT_RETRY, Closing, Retry, concerns_one_connection,
};
use crate::reactor::sys::{self, Connecting};
use crate::reactor::token::Token;
use crate::reactor::{ConnId, Event, ListenerId};

impl UringReactor {
    /// Connects the socket, now or (`Retry`) later; a failure is told in the next turn.
    pub(super) fn begin(&mut self, id: ConnId, to: SockAddr, until: Instant, now: Instant) {
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
    pub(super) fn writable(&mut self, id: ConnId, events: &mut Vec<Event>) {
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

    pub(super) fn accept(&mut self, listener: ListenerId) {
        if let Some(Some(entry)) = self.listeners.get(listener.0 as usize) {
            let token = Token::listener(ACCEPT, listener);
            self.ring.accept(entry.socket.as_fd(), token);
        }
    }

    /// A listener has told of a connection, or that it cannot take one.
    pub(super) fn accepted(&mut self, done: Completion, events: &mut Vec<Event>) {
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
    pub(super) fn rest(&mut self, listener: ListenerId, error: &io::Error) {
        tracing::warn!(%error, "cannot take connections for the moment");
        if let Some(Some(entry)) = self.listeners.get_mut(listener.0 as usize) {
            entry.rests_until = Some(Instant::now() + ACCEPT_REST);
            self.resting += 1;
        }
    }

    /// Does what is due and answers when the next thing will be.
    pub(super) fn timers(&mut self) -> Option<Instant> {
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
    pub(super) fn wake_listeners(&mut self, now: Instant) -> Option<Instant> {
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
}
