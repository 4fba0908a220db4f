//! What a Redis server sends, cut into replies and told apart by whom they are for.

use std::collections::VecDeque;
use std::time::Instant;

use protocol_redis::reply::{Scan, Scanner};

use crate::backend::pool::SessionRef;
use crate::reactor::Buf;

/// Replies that must be seen whole may be this large, and errors.
const MAX_WHOLE: usize = 256 << 20;

/// How a reply reaches its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As it comes, in pieces, together with its neighbours.
    Pass,
    /// Alone, and all of it at once.
    Whole,
}

/// A reply that the server owes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed {
    pub(crate) session: SessionRef,
    pub(crate) how: How,
    /// When its command was sent.
    pub(crate) since: Instant,
}

/// Bytes for one session.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Buf,
    /// Replies that end in them.
    pub(crate) done: u32,
    /// They are one reply, and all of it.
    pub(crate) whole: bool,
    /// They end within a reply.
    pub(crate) open: bool,
    /// Nobody has asked for them in particular.
    pub(crate) push: bool,
}

/// The replies owed on one connection, and what has come of them.
#[derive(Default)]
pub(crate) struct Inbox {
    owed: VecDeque<Owed>,
    scanner: Scanner,
    input: Buf,
    /// The beginning of a reply that must be seen whole.
    collected: Vec<u8>,
    /// The reply that has begun and not ended is seen whole.
    collecting: bool,
    /// A reply has begun and not ended.
    midway: bool,
    /// Messages come that nobody asked for in particular, and every reply is seen whole: the connection has subscriptions.
    subscribed: bool,
    broken: bool,
}

impl Inbox {
    /// One more command has been sent.
    #[inline]
    pub(crate) fn owe(&mut self, owed: Owed) {
        self.owed.push_back(owed);
    }

    /// Who waits for replies, each named as often as there are.
    pub(crate) fn creditors(&self) -> impl Iterator<Item = SessionRef> {
        self.owed.iter().map(|owed| owed.session)
    }

    /// Since when the server has not answered what it has been asked first.
    pub(crate) fn late_since(&self) -> Option<Instant> {
        self.owed.front().map(|owed| owed.since)
    }

    /// Whether messages come that nobody asked for in particular.
    pub(crate) const fn set_subscribed(&mut self, subscribed: bool) {
        self.subscribed = subscribed;
    }

    /// A reply that came unasked turns out to be the one that is owed. If none is, the server has broken the protocol.
    pub(crate) fn settle(&mut self) {
        self.broken |= self.owed.pop_front().is_none();
    }

    /// Nothing is owed, and the last reply has ended.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.owed.is_empty() && self.is_whole()
    }

    /// What has come ends at the end of a reply.
    pub(crate) fn is_whole(&self) -> bool {
        !self.midway && self.input.is_empty() && !self.broken
    }

    /// The server broke the protocol: the connection is of no use.
    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Bytes have come. Those before must have been taken out.
    #[inline]
    pub(crate) fn receive(&mut self, buf: Buf) {
        debug_assert!(self.input.is_empty(), "bytes are left of those before");
        self.input = buf;
    }

    /// What the bytes hold for the next session, or for whoever has subscribed; `None`: they are dealt with.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(Option<SessionRef>, Answer)> {
        while let Some(first) = self.input.first().copied()
            && !self.broken
        {
            let owed = self.owed.front().copied();
            if !self.midway {
                if owed.is_none() && first != b'>' && !self.subscribed {
                    // Nobody knows whose the next replies would be.
                    self.broken = true;
                    return None;
                }
                let alone = first == b'-' || first == b'>' || self.subscribed;
                self.collecting = alone || owed.is_none_or(|it| it.how == How::Whole);
            }
            let found = if self.collecting {
                self.collect(first)
            } else {
                owed.and_then(|owed| self.run(owed.session))
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// As many replies of one session as lie next to each other.
    fn run(&mut self, session: SessionRef) -> Option<(Option<SessionRef>, Answer)> {
        let mut end = 0;
        let mut done = 0;
        while let Some(rest) = self.input.get(end..).filter(|rest| !rest.is_empty()) {
            if !self.midway {
                let passes = self
                    .owed
                    .front()
                    .is_some_and(|it| it.session == session && it.how == How::Pass);
                if !passes || matches!(rest.first(), Some(b'-' | b'>')) {
                    break;
                }
            }
            match self.scanner.scan(rest) {
                Ok(Scan::End(used)) => {
                    end += used;
                    done += 1;
                    self.midway = false;
                    self.owed.pop_front();
                }
                Ok(Scan::More) => {
                    end = self.input.len();
                    self.midway = true;
                }
                Err(_) => {
                    self.broken = true;
                    return None;
                }
            }
        }
        let bytes = self.input.split_to(end);
        let answer = Answer {
            bytes,
            done,
            whole: false,
            open: self.midway,
            push: false,
        };
        Some((Some(session), answer))
    }

    /// One reply, once all of it has come.
    fn collect(&mut self, first: u8) -> Option<(Option<SessionRef>, Answer)> {
        let first = self.collected.first().copied().unwrap_or(first);
        match self.scanner.scan(&self.input) {
            Ok(Scan::End(used)) => {
                self.midway = false;
                let last = self.input.split_to(used);
                let bytes = if self.collected.is_empty() {
                    last
                } else {
                    self.collected.extend_from_slice(&last);
                    Buf::from_vec(std::mem::take(&mut self.collected))
                };
                let push = first == b'>' || self.subscribed;
                let owed = if push {
                    self.owed.front().copied()
                } else {
                    self.owed.pop_front()
                };
                let answer = Answer {
                    bytes,
                    done: u32::from(!push),
                    whole: true,
                    open: false,
                    push,
                };
                Some((owed.map(|owed| owed.session), answer))
            }
            Ok(Scan::More) => {
                self.midway = true;
                let piece = std::mem::take(&mut self.input);
                if self.collected.len() + piece.len() > MAX_WHOLE {
                    self.broken = true;
                    return None;
                }
                self.collected.extend_from_slice(&piece);
                None
            }
            Err(_) => {
                self.broken = true;
                None
            }
        }
    }
}
