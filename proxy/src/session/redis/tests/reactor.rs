//! A reactor without sockets: what the worker sends lies here until the simulator takes it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use control_store::snapshot::ServerAddress;

use crate::reactor::{Buf, Close, ConnId, Event, ListenerId, Reactor, ReactorKind, Waker};

/// The proxy's side of a connection.
pub(super) struct Conn {
    /// The proxy has made it.
    pub(super) to_server: bool,
    /// Sent and not yet taken.
    pub(super) out: Vec<u8>,
    pub(super) paused: bool,
    /// The proxy has closed it.
    pub(super) closed: bool,
    /// It was over the high-water mark and has not been under the low one since.
    pub(super) full: bool,
}

/// The connections of the simulated worker. A place is used once.
pub(super) struct SimReactor {
    pub(super) conns: Vec<Conn>,
    waker: Waker,
}

impl SimReactor {
    pub(super) fn new() -> Self {
        Self {
            conns: Vec::new(),
            waker: Waker::new().unwrap(),
        }
    }

    pub(super) fn open(&mut self, to_server: bool) -> ConnId {
        self.conns.push(Conn {
            to_server,
            out: Vec::new(),
            paused: false,
            closed: false,
            full: false,
        });
        id(self.conns.len() - 1)
    }

    fn live(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns
            .get_mut(conn.index as usize)
            .filter(|it| !it.closed)
    }
}

pub(super) fn id(index: usize) -> ConnId {
    ConnId {
        index: u32::try_from(index).unwrap(),
        generation: 0,
    }
}

impl Reactor for SimReactor {
    fn kind(&self) -> ReactorKind {
        ReactorKind::Epoll
    }

    fn listen(&mut self, _: OwnedFd) -> io::Result<ListenerId> {
        Ok(ListenerId(0))
    }

    fn stop_listening(&mut self, _: ListenerId) {}

    fn connect(&mut self, _: &ServerAddress) -> io::Result<ConnId> {
        Ok(self.open(true))
    }

    fn send(&mut self, conn: ConnId, buf: Buf) {
        self.send_copy(conn, &buf);
    }

    fn send_copy(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(conn) = self.live(conn) {
            conn.out.extend_from_slice(bytes);
            conn.full |= conn.out.len() > super::sim::HIGH_WATER;
        }
    }

    fn queued(&self, conn: ConnId) -> usize {
        self.conns[conn.index as usize].out.len()
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(conn) = self.live(conn) {
            conn.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(conn) = self.live(conn) {
            conn.paused = false;
        }
    }

    fn expect(&mut self, _: ConnId, _: u64) {}

    fn close(&mut self, conn: ConnId, how: Close) {
        if let Some(conn) = self.live(conn) {
            conn.closed = true;
            if how == Close::Now {
                conn.out.clear();
            }
        }
    }

    fn turn(&mut self, _: Option<Duration>, _: &mut Vec<Event>) -> io::Result<()> {
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
