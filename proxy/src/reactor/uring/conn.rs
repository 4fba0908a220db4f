//! One connection of the io_uring reactor.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use crate::reactor::Buf;
use crate::reactor::lifecycle::Closing;
use crate::reactor::pools::Size;
use crate::reactor::queue::SendQueue;

/// The receive request of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// There is none.
    Off,
    /// It receives into blocks of that size.
    On(Size),
    /// It has been asked to end and has not told that it has.
    Ending(Size),
}

/// What came for a paused connection.
#[derive(Default)]
pub(super) struct Held {
    pub(super) bufs: VecDeque<Buf>,
    /// How it went on: the peer's end, or a failure.
    pub(super) end: Option<io::Result<()>>,
}

/// One socket and what we know of it.
pub(super) struct Conn {
    pub(super) socket: OwnedFd,
    pub(super) queue: SendQueue,
    pub(super) closing: Closing,
    pub(super) receiving: Receiving,
    /// The peer connected to us, and not we to it.
    pub(super) client: bool,
    /// When a client last sent something, for [`Coalescing::asked`](super::coalesce::Coalescing::asked).
    pub(super) asked: u32,
    /// The connection does not stand yet.
    pub(super) connecting: bool,
    /// The kernel will tell when the socket takes more, or when it is connected.
    pub(super) polling: bool,
    /// The peer's end has been told.
    pub(super) eof: bool,
    pub(super) paused: bool,
    /// Receive into large blocks.
    pub(super) large: bool,
    /// Small receives in a row into large blocks.
    pub(super) small_receives: u8,
    /// Small blocks filled in a row.
    pub(super) full_receives: u8,
    /// In the list of connections to write.
    pub(super) in_dirty: bool,
    /// In the list of connections with something held to tell.
    pub(super) in_ready: bool,
    /// In the list of connections that wait for a block.
    pub(super) in_starved: bool,
    /// Bytes handed to the kernel of which nothing bad is known yet.
    pub(super) trying: usize,
    /// Bytes of a large message that are still to come.
    pub(super) expected: u64,
    pub(super) held: Option<Box<Held>>,
    /// Why writing failed. Told once the peer's last words are read.
    pub(super) broken: Option<io::Error>,
}

impl Conn {
    /// A connection that a client has made.
    pub(super) fn accepted(socket: OwnedFd) -> Self {
        Self {
            client: true,
            connecting: false,
            ..Self::connecting(socket)
        }
    }

    /// A connection that we make.
    pub(super) fn connecting(socket: OwnedFd) -> Self {
        Self {
            socket,
            queue: SendQueue::default(),
            closing: Closing::No,
            receiving: Receiving::Off,
            client: false,
            asked: 0,
            connecting: true,
            polling: false,
            eof: false,
            paused: false,
            large: false,
            small_receives: 0,
            full_receives: 0,
            in_dirty: false,
            in_ready: false,
            in_starved: false,
            trying: 0,
            expected: 0,
            held: None,
            broken: None,
        }
    }

    /// Whether there is something to write and someone to take it.
    pub(super) fn can_flush(&self) -> bool {
        !self.connecting && !self.polling && self.broken.is_none() && !self.queue.is_empty()
    }

    /// Whether a receive request should be under way.
    pub(super) fn should_receive(&self) -> bool {
        if self.connecting || self.eof || self.held.as_ref().is_some_and(|held| held.end.is_some())
        {
            return false;
        }
        match self.closing {
            Closing::No => !self.paused,
            Closing::Flushing => false,
            Closing::Lingering => true,
        }
    }

    /// The size of blocks to receive into.
    pub(super) const fn size(&self) -> Size {
        if self.large { Size::Large } else { Size::Small }
    }

    /// Whether what comes has to wait: reading is paused, or earlier bytes wait.
    pub(super) const fn holds(&self) -> bool {
        self.paused || self.held.is_some()
    }

    /// Where what comes waits.
    pub(super) fn held(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }
}
