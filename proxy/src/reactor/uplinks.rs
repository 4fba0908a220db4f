//! TLS towards database servers, below everything that speaks to them: a reactor in front of a reactor.
//!
//! A connection to an address that wants TLS is encrypted here; whoever uses it sends and receives plain bytes. What is sent in one
//! turn shares records.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use control_store::snapshot::{ServerAddress, TlsPlace};
use control_store::trust::client_config;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::{Buf, Close, ConnId, Event, ListenerId, Reactor, ReactorKind, TlsClient, Waker};

/// PostgreSQL: asks for TLS (length 8, code 80877103).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A reactor whose connections to database servers may be encrypted.
pub struct Uplinks<R> {
    inner: R,
    links: AHashMap<ConnId, Link>,
    /// Those with something to encrypt.
    fresh: Vec<ConnId>,
    /// Those over which nothing can be sent any more, until that is told.
    broken: Vec<(ConnId, io::Error)>,
    /// What handshakes need, by what the configuration says. One for each, so that sessions resume.
    configs: AHashMap<Arc<TlsPlace>, Arc<ClientConfig>>,
}

struct Link {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// `None`: the server was asked whether it speaks TLS.
    client: Option<TlsClient>,
    /// What waits to be encrypted.
    pieces: Vec<Buf>,
    waiting: usize,
}

impl<R: Reactor> Uplinks<R> {
    /// In front of that reactor.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            links: AHashMap::new(),
            fresh: Vec::new(),
            broken: Vec::new(),
            configs: AHashMap::new(),
        }
    }

    fn config(&mut self, place: &Arc<TlsPlace>) -> io::Result<Arc<ClientConfig>> {
        if let Some(known) = self.configs.get(place) {
            return Ok(Arc::clone(known));
        }
        let config = client_config(place.authority.as_deref())?;
        self.configs.insert(Arc::clone(place), Arc::clone(&config));
        Ok(config)
    }

    fn connect_encrypted(&mut self, place: &Arc<TlsPlace>) -> io::Result<ConnId> {
        let mut link = Link {
            config: self.config(place)?,
            name: ServerName::try_from(place.host.to_string()).map_err(io::Error::other)?,
            client: None,
            pieces: Vec::new(),
            waiting: 0,
        };
        let mut first = Vec::new();
        if place.asks_first {
            first.extend_from_slice(&SSL_REQUEST);
        } else {
            link.begin(&mut first)?;
        }
        let conn = self.inner.connect(&ServerAddress::Tcp(place.address))?;
        self.inner.send_copy(conn, &first);
        self.links.insert(conn, link);
        Ok(conn)
    }

    /// Encrypts what has gathered since the last turn.
    fn flush(&mut self) {
        for conn in std::mem::take(&mut self.fresh) {
            self.flush_one(conn);
        }
    }

    fn flush_one(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else {
            return;
        };
        let mut out = Vec::new();
        let encrypted = link.encrypt(&mut out);
        if !out.is_empty() {
            self.inner.send(conn, Buf::from_vec(out));
        }
        if let Err(error) = encrypted {
            self.broken.push((conn, error));
        }
    }

    /// Whoever has the connection is told once that it has failed.
    fn fail(&mut self, conn: ConnId, error: io::Error, events: &mut Vec<Event>) {
        if self.links.remove(&conn).is_none() {
            return; // It was closed meanwhile.
        }
        tracing::warn!(%error, "a connection to a database server cannot be encrypted");
        // What tells the server why may still leave.
        self.inner.close(conn, Close::AfterFlush);
        events.push(Event::Failed { conn, error });
    }

    /// Deciphers what came. A connection that breaks TLS has failed.
    fn received(&mut self, conn: ConnId, buf: Buf, events: &mut Vec<Event>) {
        let Some(link) = self.links.get_mut(&conn) else {
            return events.push(Event::Received { conn, buf });
        };
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let outcome = link.receive(buf, &mut plain, &mut out);
        let outcome = outcome.and_then(|()| link.encrypt(&mut out));
        if !out.is_empty() {
            self.inner.send_copy(conn, &out);
        }
        let plain = plain.into_iter().filter(|buf| !buf.is_empty());
        events.extend(plain.map(|buf| Event::Received { conn, buf }));
        if let Err(error) = outcome {
            self.fail(conn, error, events);
        }
    }
}

impl Link {
    fn begin(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let client = TlsClient::begin(Arc::clone(&self.config), self.name.clone(), out);
        self.client = Some(client.map_err(io::Error::other)?);
        Ok(())
    }

    fn receive(&mut self, buf: Buf, plain: &mut Vec<Buf>, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(client) = &mut self.client {
            return client.receive(buf, plain, out).map_err(io::Error::other);
        }
        match &*buf {
            // Whatever came with it would have been sent by anybody on the way.
            b"S" => self.begin(out),
            b"N" => Err(io::Error::other("the server does not speak TLS")),
            _ => Err(io::Error::other(
                "the server answers something else when asked for TLS",
            )),
        }
    }

    /// Encrypts what waits, once it may be sent.
    fn encrypt(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let Some(client) = self.client.as_mut().filter(|it| !it.is_handshaking()) else {
            return Ok(());
        };
        if self.pieces.is_empty() {
            return Ok(());
        }
        let pieces = self.pieces.iter().map(|piece| &**piece);
        let sent = client.send_pieces(pieces, out);
        self.pieces.clear();
        self.waiting = 0;
        sent.map_err(io::Error::other)
    }
}

impl<R: Reactor> Reactor for Uplinks<R> {
    fn kind(&self) -> ReactorKind {
        self.inner.kind()
    }

    fn listen(&mut self, socket: OwnedFd) -> io::Result<ListenerId> {
        self.inner.listen(socket)
    }

    fn stop_listening(&mut self, listener: ListenerId) {
        self.inner.stop_listening(listener);
    }

    fn connect(&mut self, to: &ServerAddress) -> io::Result<ConnId> {
        match to {
            ServerAddress::Tls(place) => self.connect_encrypted(place),
            ServerAddress::Tcp(_) | ServerAddress::Unix(_) => self.inner.connect(to),
        }
    }

    #[inline]
    fn send(&mut self, conn: ConnId, buf: Buf) {
        if !self.links.is_empty()
            && let Some(link) = self.links.get_mut(&conn)
        {
            link.waiting += buf.len();
            link.pieces.push(buf);
            return self.fresh.push(conn);
        }
        self.inner.send(conn, buf);
    }

    #[inline]
    fn send_copy(&mut self, conn: ConnId, bytes: &[u8]) {
        if !self.links.is_empty() && self.links.contains_key(&conn) {
            return self.send(conn, Buf::from_vec(bytes.to_vec()));
        }
        self.inner.send_copy(conn, bytes);
    }

    #[inline]
    fn queued(&self, conn: ConnId) -> usize {
        let waiting = match self.links.is_empty() {
            true => 0,
            false => self.links.get(&conn).map_or(0, |it| it.waiting),
        };
        self.inner.queued(conn) + waiting
    }

    fn pause(&mut self, conn: ConnId) {
        self.inner.pause(conn);
    }

    fn resume(&mut self, conn: ConnId) {
        self.inner.resume(conn);
    }

    fn expect(&mut self, conn: ConnId, bytes: u64) {
        self.inner.expect(conn, bytes);
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        if how == Close::AfterFlush {
            self.flush_one(conn);
        }
        if let Some(mut link) = self.links.remove(&conn)
            && let Some(client) = link.client.as_mut()
        {
            let mut out = Vec::new();
            client.close_notify(&mut out);
            self.inner.send_copy(conn, &out);
        }
        self.inner.close(conn, how);
    }

    fn turn(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.flush();
        let first = events.len();
        let timeout = match self.broken.is_empty() {
            true => timeout,
            false => Some(Duration::ZERO),
        };
        self.inner.turn(timeout, events)?;
        if self.links.is_empty() {
            return Ok(());
        }
        for event in events.split_off(first) {
            match event {
                Event::Received { conn, buf } => self.received(conn, buf, events),
                Event::Failed { conn, error } => {
                    self.links.remove(&conn);
                    events.push(Event::Failed { conn, error });
                }
                other => events.push(other),
            }
        }
        for (conn, error) in std::mem::take(&mut self.broken) {
            self.fail(conn, error, events);
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}
