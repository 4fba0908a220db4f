//! What a worker and its pools need to know of a wire protocol.

use std::ops::DerefMut;
use std::sync::Arc;
use std::time::Instant;

use control_store::snapshot::{Database, NativeRole, Server};
use control_store::{DatabaseId, Engine, Fault};

use crate::backend::pool::{LinkId, SessionRef};
use crate::backend::{BackendId, Member};
use crate::reactor::Buf;
use crate::session::{Context, Session, Shared};

/// One of the wire protocols.
pub(crate) trait Protocol: Sized + 'static {
    /// The engine that speaks it.
    const ENGINE: Engine;
    /// What a backend is told before its connection is closed.
    const FAREWELL: &'static [u8];
    /// What ALPN must have agreed on where a client begins with TLS at once; `None`: nothing need be agreed on.
    const DIRECT_TLS_ALPN: Option<&'static [u8]>;

    /// A client's session.
    type Session: Session<Self::Backend>;
    /// A backend's login under way.
    type Login: BackendLogin;
    /// A backend that has logged in.
    type Backend: PooledBackend;

    /// Makes a backend of a login that is over. `epoch` is that of the database's schema.
    fn backend(
        cx: &Context,
        member: Member,
        done: <Self::Login as BackendLogin>::Done,
        epoch: u64,
    ) -> Self::Backend;

    /// Whether a server that nobody asked anything ends the connection with this, or breaks the protocol.
    fn ends_connection(bytes: &[u8]) -> bool;

    /// Writes what a client reads that cannot be taken at all.
    fn turn_away(out: &mut Vec<u8>, why: &Fault);
}

/// The shared connections of a protocol.
pub(crate) type LinksOf<P> = <<P as Protocol>::Backend as PooledBackend>::Links;

/// A backend, as pools see it.
pub(crate) trait PooledBackend: DerefMut<Target = Member> + Sized {
    /// The connections that sessions share; `()` where each session has its own.
    type Links: Links<Self>;
    /// What comes over such a connection for one session.
    type Answer;

    /// Whether what it has sent ends at the end of a message.
    fn is_whole(&self) -> bool;
}

/// Connections that many sessions of a worker share by pipelining. A link is a lessee of a backend, as a session is.
pub(crate) trait Links<B: PooledBackend>: Default {
    /// Takes bytes that the link's server has sent.
    fn received(&mut self, link: LinkId, buf: Buf);

    /// What the bytes hold, session by session; `None`: nothing more.
    fn next(&mut self, link: LinkId) -> Option<(SessionRef, B::Answer)>;

    /// Whether the link's server has broken the protocol: the connection is to be closed.
    fn is_broken(&mut self, link: LinkId) -> bool;

    /// The backend that the link waited for, and who waited with it. Gives the backend back if the link is no more.
    fn leased(&mut self, link: LinkId, backend: Box<B>) -> Result<Vec<SessionRef>, Box<B>>;

    /// There is no backend for the link, or it broke: who waited, or has answers outstanding.
    fn lost(&mut self, link: LinkId) -> Vec<SessionRef>;

    /// Backends that are not needed any more.
    fn tick(&mut self, now: Instant) -> Vec<Box<B>>;

    /// Backends whose server does not answer for too long: it is to be told to end what it runs.
    fn late(&mut self, now: Instant) -> Vec<BackendId>;

    /// The links of a database are to be closed: their backends.
    fn close(&mut self, database: DatabaseId) -> Vec<Box<B>>;
}

/// No connection is shared.
impl<B: PooledBackend> Links<B> for () {
    fn received(&mut self, _: LinkId, _: Buf) {}

    fn next(&mut self, _: LinkId) -> Option<(SessionRef, B::Answer)> {
        None
    }

    fn is_broken(&mut self, _: LinkId) -> bool {
        false
    }

    fn leased(&mut self, _: LinkId, backend: Box<B>) -> Result<Vec<SessionRef>, Box<B>> {
        Err(backend)
    }

    fn lost(&mut self, _: LinkId) -> Vec<SessionRef> {
        Vec::new()
    }

    fn tick(&mut self, _: Instant) -> Vec<Box<B>> {
        Vec::new()
    }

    fn late(&mut self, _: Instant) -> Vec<BackendId> {
        Vec::new()
    }

    fn close(&mut self, _: DatabaseId) -> Vec<Box<B>> {
        Vec::new()
    }
}

/// Where a backend logs in, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    /// The server.
    pub(crate) server: Arc<Server>,
    /// The database.
    pub(crate) database: Arc<Database>,
    /// The role.
    pub(crate) role: Arc<NativeRole>,
}

/// The client's side of a login at a server. Knows no socket: bytes in, bytes out.
pub(crate) trait BackendLogin: Sized {
    /// What a login yields.
    type Done;
    /// Why it failed. Internal: clients are told only that the server is unavailable.
    type Error: std::error::Error;

    /// Begins a login; `out` takes the first bytes.
    fn start(shared: &Shared, target: &Target, out: &mut Vec<u8>) -> Result<Self, Self::Error>;

    /// Takes bytes; `out` takes the answer. `Some`: the server waits for statements.
    fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Self::Done>, Self::Error>;

    /// Whether trying again could help: the server is starting, stopping or full.
    fn is_temporary(error: &Self::Error) -> bool;

    /// What asks the server, on a connection of its own, to cancel what the backend runs.
    fn cancel_request(done: &Self::Done) -> Box<[u8]>;
}
