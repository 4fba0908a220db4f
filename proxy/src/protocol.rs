//! What a worker and its pools need to know of a wire protocol.

use std::ops::DerefMut;
use std::sync::Arc;

use control_store::snapshot::{Database, NativeRole, Server};
use control_store::{Engine, Fault};

use crate::backend::Member;
use crate::session::{Context, Session};

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

/// A backend, as pools see it.
pub(crate) trait PooledBackend: DerefMut<Target = Member> {
    /// Whether what it has sent ends at the end of a message.
    fn is_whole(&self) -> bool;
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
    fn start(target: &Target, out: &mut Vec<u8>) -> Result<Self, Self::Error>;

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
