//! The only code that touches sockets.
//!
//! A [`Reactor`] owns the sockets of one worker thread and turns completions into [`Event`]s. It knows no protocol
//! and no session. Two implementations: `uring` and `epoll`; the worker is the same code on both.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use control_store::snapshot::ServerAddress;

mod buffer;
mod choice;
mod epoll;
mod lifecycle;
mod options;
mod pools;
mod queue;
mod sys;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod uplinks;
mod uring;
mod waker;

pub use buffer::{Buf, Pool, PoolLimits, Unfilled};
pub use choice::{AnyReactor, choose, open};
pub use epoll::EpollReactor;
pub use options::Options;
pub use tls::{TlsClient, TlsConfigError, TlsError, TlsIdentity, TlsServer, TlsStore};
pub use uplinks::Uplinks;
pub use uring::{UringReactor, available};
pub use waker::Waker;

/// One connection of one reactor. The generation makes a stale id harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Slot in the reactor's table.
    pub index: u32,
    /// Counts the slot's uses.
    pub generation: u32,
}

/// One listening socket of one reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u32);

/// Who connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A client of a Unix socket.
    Unix,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A client connected. Receiving has begun.
    Accepted {
        /// On which socket.
        listener: ListenerId,
        /// The new connection.
        conn: ConnId,
        /// From where.
        peer: Peer,
    },
    /// A connection begun with [`Reactor::connect`] stands. Receiving has begun.
    Connected {
        /// Which.
        conn: ConnId,
    },
    /// Bytes came. Never empty.
    Received {
        /// On which connection.
        conn: ConnId,
        /// The bytes.
        buf: Buf,
    },
    /// The peer will send no more (it may still read). Comes after the last `Received`.
    Eof {
        /// Which.
        conn: ConnId,
    },
    /// The send queue had been above the high-water mark and has fallen to the low-water mark.
    Drained {
        /// Which.
        conn: ConnId,
    },
    /// The connection failed (also: could not be made). Its id is dead. Never comes after a `close`.
    Failed {
        /// Which.
        conn: ConnId,
        /// Why.
        error: io::Error,
    },
    /// A [`Waker`] was used since the last turn.
    Woken,
}

/// How to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Once the send queue is empty, or after a few seconds if the peer does not read.
    AfterFlush,
    /// At once; what is queued is dropped.
    Now,
}

/// Which implementation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReactorKind {
    /// [`UringReactor`].
    Uring,
    /// [`EpollReactor`].
    Epoll,
}

/// The sockets of one worker thread.
pub trait Reactor {
    /// Which implementation this is.
    fn kind(&self) -> ReactorKind;

    /// Takes connections from a bound, listening, non-blocking socket (TCP or Unix).
    fn listen(&mut self, socket: OwnedFd) -> io::Result<ListenerId>;

    /// Takes no more connections from that socket and closes it. Connections taken before stay.
    fn stop_listening(&mut self, listener: ListenerId);

    /// Begins a connection; `Connected` or `Failed` follows. What is sent before `Connected` is queued. Encrypts nothing: that
    /// is for [`Uplinks`].
    fn connect(&mut self, to: &ServerAddress) -> io::Result<ConnId>;

    /// Queues bytes behind what is queued. They leave at the next turn. Sending on a dead id is a no-op.
    fn send(&mut self, conn: ConnId, buf: Buf);

    /// Queues a copy of few bytes, filling up the tail of the queue's last own buffer where it can.
    fn send_copy(&mut self, conn: ConnId, bytes: &[u8]);

    /// Bytes queued that the kernel has not taken.
    fn queued(&self, conn: ConnId) -> usize;

    /// Stops `Received` for this connection. What the kernel had delivered before is kept and comes after `resume`.
    fn pause(&mut self, conn: ConnId);

    /// Undoes `pause`.
    fn resume(&mut self, conn: ConnId);

    /// A hint: about this many more bytes of one message will come; receive in larger pieces.
    fn expect(&mut self, conn: ConnId, bytes: u64);

    /// Closes the connection; its id is dead to the caller, no more events come.
    fn close(&mut self, conn: ConnId, how: Close);

    /// Submits what is queued, waits for at most `timeout` (`None`: until something happens; zero: not at all), and appends events.
    fn turn(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Wakes this reactor's `turn` from another thread.
    fn waker(&self) -> Waker;
}
