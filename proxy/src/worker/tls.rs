//! TLS between a client's connection and its session.

use crate::metrics::{Handshake, Side, WorkerMetrics};
use crate::protocol::Protocol;
use crate::reactor::{Buf, ConnId, Reactor, TlsServer};

/// TLS on a client's connection.
pub(super) struct Tls {
    pub(super) server: TlsServer,
    /// What is to be encrypted once the event in hand is dealt with.
    pub(super) pieces: Vec<Buf>,
    /// The client began with it, without asking first.
    direct: bool,
    counted: bool,
}

impl Tls {
    pub(super) fn new(server: TlsServer, direct: bool) -> Self {
        Self {
            server,
            pieces: Vec::new(),
            direct,
            counted: false,
        }
    }

    /// Encrypts what has gathered for a client, and queues it.
    pub(super) fn encrypt<R: Reactor>(
        &mut self,
        conn: ConnId,
        reactor: &mut R,
        scratch: &mut Vec<u8>,
    ) {
        /// Replies up to this size are copied into the send queue, so that the scratch buffer is used again.
        const COPIED: usize = 4 << 10;
        if self.pieces.is_empty() {
            return;
        }
        scratch.clear();
        let pieces = self.pieces.iter().map(|piece| &**piece);
        let sent = self.server.send_pieces(pieces, scratch);
        self.pieces.clear();
        if sent.is_err() {
            return; // The connection is over; its end follows.
        }
        if scratch.len() <= COPIED {
            reactor.send_copy(conn, scratch);
        } else {
            reactor.send(conn, Buf::from_vec(std::mem::take(scratch)));
        }
    }

    /// Counts a handshake that has ended. Whether the connection must end for it.
    pub(super) fn note_handshake<P: Protocol>(
        &mut self,
        metrics: &WorkerMetrics,
        failed: bool,
    ) -> bool {
        if self.counted {
            return false;
        }
        let handshakes = &metrics.protocol(P::ENGINE).handshakes;
        if let Some(outcome) = self.server.handshake_outcome() {
            self.counted = true;
            handshakes.of(outcome).increment();
            // Where a client has not asked for TLS, only ALPN may tell that it means this protocol.
            return self.direct
                && P::DIRECT_TLS_ALPN.is_some_and(|it| self.server.alpn_protocol() != Some(it));
        }
        if failed {
            self.counted = true;
            handshakes.of(Handshake::Failed).increment();
        }
        false
    }
}

/// Counts bytes that came.
#[inline]
pub(super) fn count_received<P: Protocol>(metrics: &WorkerMetrics, side: Side, bytes: usize) {
    let received = &metrics.protocol(P::ENGINE).traffic.of(side).received;
    received.add(u64::try_from(bytes).unwrap_or(0));
}
