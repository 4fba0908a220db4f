//! One connection of the epoll reactor.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, OwnedFd};

use smallvec::SmallVec;
use socket2::SockRef;

use crate::reactor::lifecycle::Closing;
use crate::reactor::queue::{MAX_PIECES, SendQueue};
use crate::reactor::sys;

/// Writes tried for one connection in one turn, so that a fast reader does not keep the others waiting.
const WRITES_A_TURN: usize = 8;

/// One socket and what we know of it. The kernel tells changes only (edge-triggered), so we remember.
pub(super) struct Conn {
    pub(super) socket: OwnedFd,
    pub(super) queue: SendQueue,
    pub(super) closing: Closing,
    /// The connection does not stand yet.
    pub(super) connecting: bool,
    /// A read may give something.
    pub(super) readable: bool,
    /// The peer has hung up: reads go on until they say how it ended, also after a short one.
    pub(super) hangup: bool,
    /// A write may be taken.
    pub(super) writable: bool,
    /// The peer's end has been told.
    pub(super) eof: bool,
    pub(super) paused: bool,
    /// In the list of connections to read.
    pub(super) in_ready: bool,
    /// In the list of connections to write.
    pub(super) in_dirty: bool,
    /// Bytes of a large message that are still to come.
    pub(super) expected: u64,
    /// Why writing failed. Told once the peer's last words are read.
    pub(super) broken: Option<io::Error>,
}

/// What became of an attempt to write.
pub(super) enum Flushed {
    /// Nothing is queued any more.
    Empty,
    /// The kernel takes no more now.
    Blocked,
    /// It might take more; others first.
    More,
    /// The connection is broken.
    Broken(io::Error),
}

/// What became of an attempt to read.
pub(super) enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// The peer's end.
    End,
    /// Nothing now.
    Nothing,
    /// The connection is broken.
    Broken(io::Error),
}

impl Conn {
    pub(super) fn new(socket: OwnedFd, connecting: bool) -> Self {
        Self {
            socket,
            queue: SendQueue::default(),
            closing: Closing::No,
            connecting,
            readable: false,
            hangup: false,
            writable: !connecting,
            eof: false,
            paused: false,
            in_ready: false,
            in_dirty: false,
            expected: 0,
            broken: None,
        }
    }

    /// Whether there is something to write and someone to take it.
    pub(super) fn can_flush(&self) -> bool {
        self.writable && !self.connecting && self.broken.is_none()
    }

    /// Writes until the queue is empty or the kernel full.
    pub(super) fn flush(&mut self) -> Flushed {
        for _ in 0..WRITES_A_TURN {
            if self.queue.is_empty() {
                return Flushed::Empty;
            }
            match self.write() {
                Ok(count) => self.queue.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Flushed::Blocked;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Flushed::Broken(error),
            }
        }
        if self.queue.is_empty() {
            Flushed::Empty
        } else {
            Flushed::More
        }
    }

    fn write(&self) -> io::Result<usize> {
        let fd = self.socket.as_fd();
        let pieces: SmallVec<[IoSlice<'_>; MAX_PIECES]> =
            self.queue.pieces().map(IoSlice::new).collect();
        let socket = SockRef::from(&fd);
        match pieces.as_slice() {
            [only] => socket.send_with_flags(only, libc::MSG_NOSIGNAL),
            many => socket.send_vectored_with_flags(many, libc::MSG_NOSIGNAL),
        }
    }

    /// Reads once.
    pub(super) fn receive(&self, into: &mut [u8]) -> Taken {
        let fd = self.socket.as_fd();
        loop {
            match (&*SockRef::from(&fd)).read(into) {
                Ok(0) => return Taken::End,
                Ok(count) => return Taken::Bytes(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Taken::Nothing,
                Err(error) => return Taken::Broken(error),
            }
        }
    }

    /// The error that the socket holds, if any.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        sys::take_error(self.socket.as_fd())
    }

    /// Tells the peer that we send no more.
    pub(super) fn shut_down(&self) {
        sys::shut_down(self.socket.as_fd());
    }
}
