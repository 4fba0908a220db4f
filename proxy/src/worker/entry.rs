//! Connections through a load balancer: whose they are stands in a PROXY header before anything else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashMap;
use control_store::network::Network;
use protocol_proxy_header::{HeaderError, Parsed, parse};

use super::DoorKind;
use crate::reactor::{Buf, ConnId};

/// Connections whose header is not here yet.
pub(super) struct Entries {
    /// Whose connections begin with a header.
    proxies: Arc<[Network]>,
    waiting: AHashMap<ConnId, Waiting>,
}

struct Waiting {
    door: DoorKind,
    /// Where the load balancer is.
    peer: IpAddr,
    /// What there is of the header: never more than the longest one.
    bytes: Vec<u8>,
    until: Instant,
}

/// A connection of which it is known now whose it is.
pub(super) struct Entered {
    pub(super) door: DoorKind,
    pub(super) address: IpAddr,
    /// What came behind the header.
    pub(super) rest: Buf,
}

impl Entries {
    pub(super) fn new(proxies: Arc<[Network]>) -> Self {
        Self {
            proxies,
            waiting: AHashMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether a connection from there begins with a header.
    pub(super) fn expects(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|it| it.contains(peer))
    }

    pub(super) fn wait(&mut self, conn: ConnId, door: DoorKind, peer: IpAddr, until: Instant) {
        let waiting = Waiting {
            door,
            peer,
            bytes: Vec::new(),
            until,
        };
        self.waiting.insert(conn, waiting);
    }

    /// Takes what a waiting connection has sent. `None`: it is no such connection, or the header is not whole yet.
    pub(super) fn received(
        &mut self,
        conn: ConnId,
        mut buf: Buf,
    ) -> Option<Result<Entered, HeaderError>> {
        let waiting = self.waiting.get_mut(&conn)?;
        let before = waiting.bytes.len();
        waiting.bytes.extend_from_slice(&buf);
        let entered = match parse(&waiting.bytes) {
            Ok(Parsed::Need(_)) => return None,
            Ok(Parsed::Header { source, used }) => {
                buf.advance(used.saturating_sub(before));
                Ok(Entered {
                    door: waiting.door,
                    address: source.map_or(waiting.peer, |it| it.ip().to_canonical()),
                    rest: buf,
                })
            }
            Err(error) => Err(error),
        };
        self.waiting.remove(&conn);
        Some(entered)
    }

    /// A connection has ended; tells whether it was waiting.
    pub(super) fn forget(&mut self, conn: ConnId) -> bool {
        self.waiting.remove(&conn).is_some()
    }

    /// Those that have waited for too long. They wait no more.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<ConnId> {
        let overdue = self.waiting.iter().filter(|(_, it)| it.until <= now);
        let overdue: Vec<_> = overdue.map(|(conn, _)| *conn).collect();
        for conn in &overdue {
            self.waiting.remove(conn);
        }
        overdue
    }

    /// All that wait. They wait no more.
    pub(super) fn drain(&mut self) -> Vec<ConnId> {
        self.waiting.drain().map(|(conn, _)| conn).collect()
    }
}
