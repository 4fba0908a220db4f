//! One side of one TLS connection.
//!
//! Records are decrypted where they were received if nobody else sees those bytes. Between calls a connection holds
//! at most the start of an incomplete record or handshake message; an idle one holds no buffer.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, HandshakeKind, ProtocolVersion, ServerConfig};
use rustls_pki_types::ServerName;

use crate::metrics::Handshake;
use crate::reactor::Buf;

/// Plaintext bytes of a full record.
const RECORD: usize = 16 << 10;
/// What a record adds to its plaintext, at most: header, explicit nonce, content type, tag.
const RECORD_OVERHEAD: usize = 5 + 8 + 1 + 16;
/// Bytes of the header that tells a record's length.
const RECORD_HEADER: usize = 5;
/// Bytes kept of what cannot be processed yet: the largest handshake message that is taken, and one record.
const MAX_PENDING: usize = (64 << 10) + RECORD + 2048;

/// Why a TLS connection is over.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// What the peer sent is not TLS, or breaks it.
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
    /// The peer sent a handshake message in more pieces than are kept.
    #[error("the peer's handshake message does not end")]
    MessageTooLong,
    /// Something was to be sent before the handshake was over.
    #[error("the TLS handshake is not complete")]
    HandshakeNotComplete,
    /// Something was to be sent after we closed the connection, or after it failed.
    #[error("the TLS connection is closed")]
    Closed,
    /// The keys have encrypted as much as they may.
    #[error("the keys of the TLS connection are used up")]
    KeysExhausted,
}

/// What differs between the two sides of a connection.
pub trait TlsSide {
    /// What the library keeps for this side.
    type Data;

    /// Looks at received bytes.
    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both sides have.
    fn common(&self) -> &CommonState;
}

impl TlsSide for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl TlsSide for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// One connection, of which we are the server.
pub type TlsServer = TlsPeer<UnbufferedServerConnection>;

/// One connection, of which we are the client.
pub type TlsClient = TlsPeer<UnbufferedClientConnection>;

/// One connection.
pub struct TlsPeer<S> {
    conn: S,
    /// Received bytes that wait for more.
    pub(super) pending: Vec<u8>,
    outcome: Option<Handshake>,
    peer_closed: bool,
    /// Nothing can be sent: we said `close_notify`, or the connection failed.
    closed: bool,
    failed: bool,
}

impl TlsServer {
    /// A connection of which nothing has been received.
    ///
    /// # Errors
    /// When the configuration is unusable.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self::of(UnbufferedServerConnection::new(config)?))
    }
}

impl TlsClient {
    /// A connection to the server of that name; its first words are appended to `out`.
    ///
    /// # Errors
    /// When the configuration is unusable.
    pub fn begin(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        out: &mut Vec<u8>,
    ) -> Result<Self, TlsError> {
        let mut client = Self::of(UnbufferedClientConnection::new(config, name)?);
        client.process(&mut [], &mut Vec::new(), out)?;
        Ok(client)
    }
}

impl<S: TlsSide> TlsPeer<S> {
    const fn of(conn: S) -> Self {
        Self {
            conn,
            pending: Vec::new(),
            outcome: None,
            peer_closed: false,
            closed: false,
            failed: false,
        }
    }

    /// Takes received bytes. What they say to the session is appended to `plain`, what must be sent for TLS's own sake
    /// to `out`.
    ///
    /// # Errors
    /// The connection is over; `out` holds the alert that tells the peer, `plain` what came before.
    pub fn receive(
        &mut self,
        ciphertext: Buf,
        plain: &mut Vec<Buf>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        if self.failed {
            return Err(TlsError::Closed);
        }
        if self.peer_closed {
            return Ok(()); // RFC 8446 section 6.1: what comes after a closure alert is ignored.
        }
        let mut plaintext = Vec::new();
        let fed = self.feed(ciphertext, &mut plaintext, out);
        if !plaintext.is_empty() {
            plain.push(Buf::from_vec(plaintext));
        }
        if let Err(error) = fed {
            self.fail(out);
            return Err(error);
        }
        if self.outcome.is_none() && !self.conn.common().is_handshaking() {
            self.outcome = Some(outcome(self.conn.common()));
        }
        Ok(())
    }

    fn feed(
        &mut self,
        mut ciphertext: Buf,
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        while !self.pending.is_empty() && !ciphertext.is_empty() {
            let take = missing(&self.pending).unwrap_or(ciphertext.len());
            self.pending.extend_from_slice(&ciphertext.split_to(take));
            let mut pending = std::mem::take(&mut self.pending);
            let used = self.process(&mut pending, plaintext, out)?;
            self.keep(pending, used)?;
        }
        if ciphertext.is_empty() {
            return Ok(());
        }
        let Some(bytes) = ciphertext.try_mut() else {
            let mut copy = ciphertext.to_vec();
            let used = self.process(&mut copy, plaintext, out)?;
            return self.keep(copy, used);
        };
        let used = self.process(bytes, plaintext, out)?;
        let rest = bytes.get(used..).unwrap_or_default().to_vec();
        self.keep(rest, 0)
    }

    /// Keeps what is left of `bytes` after the first `used`.
    fn keep(&mut self, mut bytes: Vec<u8>, used: usize) -> Result<(), TlsError> {
        if self.peer_closed || used >= bytes.len() {
            self.pending = Vec::new();
            return Ok(());
        }
        bytes.drain(..used);
        self.pending = bytes;
        if self.pending.len() > MAX_PENDING {
            return Err(TlsError::MessageTooLong);
        }
        Ok(())
    }

    /// Decrypts and answers all complete records of `bytes`; says how many bytes those were.
    fn process(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, TlsError> {
        let mut used = 0;
        loop {
            let rest = bytes.get_mut(used..).unwrap_or_default();
            let room = rest.len();
            let UnbufferedStatus { discard, state } = self.conn.process(rest);
            let mut discard = discard;
            let mut over = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    if plaintext.capacity() == 0 {
                        plaintext.reserve_exact(room);
                    }
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plaintext.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(data) => encode(data, out),
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.peer_closed = true,
                // Blocked, open for writing or closed: there is nothing more in these bytes.
                _ => over = true,
            }
            used += discard;
            if over {
                return Ok(used);
            }
        }
    }

    /// Encrypts `plain`; the records are appended to `out`. Every call makes a record of its own.
    ///
    /// # Errors
    /// While the handshake is under way, and when the connection is over.
    pub fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        if plain.is_empty() {
            return Ok(());
        }
        self.write(out, |traffic, out| encrypt(traffic, plain, out))
    }

    /// Encrypts pieces that belong together: they share records.
    ///
    /// # Errors
    /// As [`TlsServer::send`].
    pub fn send_pieces<'a>(
        &mut self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let mut pieces = pieces.into_iter();
        let Some(mut piece) = pieces.next() else {
            return Ok(());
        };
        let mut record = Vec::new();
        for next in pieces {
            self.gather(piece, &mut record, out)?;
            piece = next;
        }
        if record.is_empty() {
            return self.send(piece, out);
        }
        self.gather(piece, &mut record, out)?;
        self.send(&record, out)
    }

    /// Adds `piece` to a record that is being filled, and sends the record each time that it is full.
    fn gather(
        &mut self,
        mut piece: &[u8],
        record: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        while record.len() + piece.len() >= RECORD {
            let (head, rest) = piece.split_at(RECORD - record.len());
            if record.is_empty() {
                self.send(head, out)?;
            } else {
                record.extend_from_slice(head);
                self.send(record, out)?;
                record.clear();
            }
            piece = rest;
        }
        record.extend_from_slice(piece);
        Ok(())
    }

    /// Tells the peer that nothing more will be sent. What is sent later is refused. The first call alone says so.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.closed {
            return;
        }
        // During a handshake there is nothing to close: the peer sees the connection's end.
        let _ = self.write(out, |traffic, out| {
            fill(out, |room| traffic.queue_close_notify(room))
        });
        self.closed = true;
    }

    /// Whether application data cannot flow yet.
    pub fn is_handshaking(&self) -> bool {
        self.conn.common().is_handshaking()
    }

    /// How the handshake went; `None` while it is under way.
    pub const fn handshake_outcome(&self) -> Option<Handshake> {
        self.outcome
    }

    /// Whether the peer has said that it sends no more.
    pub const fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// The protocol that the client asked for by ALPN and got: `postgresql`, or nothing.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.conn.common().alpn_protocol()
    }

    /// Has `with` write, once nothing of TLS's own is left to write.
    fn write(
        &mut self,
        out: &mut Vec<u8>,
        with: impl FnOnce(&mut WriteTraffic<'_, S::Data>, &mut Vec<u8>) -> Result<(), TlsError>,
    ) -> Result<(), TlsError> {
        if self.closed {
            return Err(TlsError::Closed);
        }
        loop {
            // The library may have begun to read the pending bytes and expects to find them again.
            let UnbufferedStatus { state, .. } = self.conn.process(&mut self.pending);
            match state? {
                ConnectionState::WriteTraffic(mut traffic) => return with(&mut traffic, out),
                ConnectionState::EncodeTlsData(data) => encode(data, out),
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::BlockedHandshake => return Err(TlsError::HandshakeNotComplete),
                _ => return Err(TlsError::Closed),
            }
        }
    }

    /// Ends the connection; the alerts that the library has prepared go to `out`.
    fn fail(&mut self, out: &mut Vec<u8>) {
        self.failed = true;
        self.closed = true;
        self.pending = Vec::new();
        self.outcome.get_or_insert(Handshake::Failed);
        while self.conn.common().wants_write() {
            // With something to write the library looks at no input.
            match self.conn.process(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while traffic.next_record().is_some() {}
                }
                _ => return,
            }
        }
    }
}

/// How many bytes the record at the front of `pending` lacks, as far as its header tells. `None`: it lacks nothing
/// that the header tells of.
fn missing(pending: &[u8]) -> Option<usize> {
    let needed = match pending {
        [_, _, _, high, low, ..] => RECORD_HEADER + usize::from(u16::from_be_bytes([*high, *low])),
        _ => RECORD_HEADER,
    };
    needed.checked_sub(pending.len()).filter(|count| *count > 0)
}

fn outcome(conn: &CommonState) -> Handshake {
    let resumed = conn.handshake_kind() == Some(HandshakeKind::Resumed);
    match (conn.protocol_version(), resumed) {
        (Some(ProtocolVersion::TLSv1_2), false) => Handshake::Tls12Full,
        (Some(ProtocolVersion::TLSv1_2), true) => Handshake::Tls12Resumed,
        (_, false) => Handshake::Tls13Full,
        (_, true) => Handshake::Tls13Resumed,
    }
}

/// Appends a record of the library's own to `out`.
fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(need)) = data.encode(&mut []) {
        out.resize(start + need.required_size, 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let written = data.encode(room).unwrap_or(0);
        out.truncate(start + written);
    }
}

fn encrypt<D>(
    traffic: &mut WriteTraffic<'_, D>,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TlsError> {
    let start = out.len();
    let records = plain.len() / RECORD + 1;
    out.resize(start + plain.len() + records * RECORD_OVERHEAD, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    match traffic.encrypt(plain, room) {
        Ok(written) => {
            out.truncate(start + written);
            Ok(())
        }
        // The answer to a key update comes on top.
        Err(EncryptError::InsufficientSize(_)) => {
            out.truncate(start);
            fill(out, |room| traffic.encrypt(plain, room))
        }
        Err(EncryptError::EncryptExhausted) => {
            out.truncate(start);
            Err(TlsError::KeysExhausted)
        }
    }
}

/// Appends to `out` what `write` writes, with exactly the room that it asks for.
fn fill(
    out: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), TlsError> {
    let start = out.len();
    let mut written = write(&mut []);
    if let Err(EncryptError::InsufficientSize(need)) = &written {
        out.resize(start + need.required_size, 0);
        written = write(out.get_mut(start..).unwrap_or_default());
    }
    out.truncate(start + written.as_ref().map_or(0, |count| *count));
    written.map(drop).map_err(|_| TlsError::KeysExhausted)
}

impl<S> std::fmt::Debug for TlsPeer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsPeer")
            .field("outcome", &self.outcome)
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}
