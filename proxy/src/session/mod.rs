//! One state machine per protocol. A session owns no socket and no clock: it is told what happened and what time it is,
//! and answers through [`Ports`]. The workers and the tests' simulator run the very same sessions.

pub mod postgres;
pub(crate) mod redis;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_store::guard::Guard;
use control_store::logs::Source;
use control_store::{DatabaseId, Fault, KeyId, SnapshotCell};

use crate::backend::pool::{LinkId, SessionRef};
use crate::backend::redis::login::KnownServers;
use crate::backend::{BackendId, PoolKey};
use crate::gate::Gates;
use crate::metrics::WorkerMetrics;
use crate::protocol::PooledBackend;
use crate::query_log::WorkerLog;
use crate::reactor::{Buf, ConnId};
use crate::route::Route;

use postgres::login::KnownLogins;
use postgres::settings::SettingSets;
use postgres::statement::Statements;
use redis::clients::Clients;
use redis::functions::Loads;
use redis::patterns::Patterns;

/// What all sessions of a process share.
pub(crate) struct Shared {
    pub(crate) snapshot: SnapshotCell,
    pub(crate) gates: Arc<Gates>,
    /// Makes salts for users that do not exist.
    pub(crate) mock_secret: [u8; 32],
    /// What the Redis servers are.
    pub(crate) redis_servers: Arc<KnownServers>,
    /// Who is logged in to Redis databases.
    pub(crate) redis_clients: Clients,
    /// What they have subscribed to by patterns.
    pub(crate) redis_patterns: Arc<Patterns>,
    /// The libraries of functions that Redis servers are being given.
    pub(crate) redis_loads: Arc<Loads>,
    /// Bans addresses whose logins fail too often.
    pub(crate) guard: Option<Arc<Guard>>,
}

/// What all sessions of a worker share.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) statements: Statements,
    pub(crate) sets: SettingSets,
    pub(crate) logins: KnownLogins,
    pub(crate) log: WorkerLog,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// Read once a turn.
    pub(crate) now: Instant,
    /// The same moment in microseconds since 1970.
    pub(crate) wall_us: u64,
    /// For messages that are made and sent at once.
    pub(crate) scratch: Vec<u8>,
    pub(crate) redis: redis::Scratch,
}

/// How a client reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    /// From where; `None` on a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// Who sends the statements.
    pub(crate) source: Source,
    /// Whether unencrypted clients are welcome.
    pub(crate) plaintext: bool,
    /// Whether TLS is offered.
    pub(crate) tls: bool,
}

/// What happened, to a session whose backends are `B`.
pub(crate) enum Event<B: PooledBackend> {
    /// Bytes from the client, decrypted.
    Client(Buf),
    /// The client has hung up, or its connection broke.
    ClientGone,
    /// Bytes from the leased backend.
    Backend(Buf),
    /// The leased backend's connection broke.
    BackendGone,
    /// The backend that was waited for.
    Leased(Box<B>),
    /// None came.
    LeaseFailed(Fault),
    /// An answer over a connection that sessions share.
    Answer(B::Answer),
    /// The shared connection that was waited for stands.
    LinkReady,
    /// It does not, or broke with answers outstanding.
    LinkLost(Fault),
    /// The gate that was waited for is open.
    GateOpen,
    /// Time has passed: see whether a statement or wait is over its limit.
    Tick,
    /// Another connection asks to cancel what runs.
    Cancel,
    /// End the session at once, with this fault for the client.
    Kill(Fault),
    /// The proxy is stopping: end the session when no transaction is open.
    Drain,
}

/// What becomes of a backend that a session gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Others may use it.
    Keep,
    /// It is in a state that nobody knows.
    Close,
}

/// What a session asks for that is done once its event is handled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Speak TLS from the next byte on.
    StartTls {
        /// What has been received of it.
        received: Vec<u8>,
        /// Without an SSLRequest, as PostgreSQL 17 clients may: ALPN must have agreed on the protocol.
        direct: bool,
    },
    /// Tell the session when the gate of its database is released.
    AwaitGate(DatabaseId),
    /// No backend of that pool is waited for any more.
    CancelLease {
        /// Which pool was asked.
        pool: PoolKey,
    },
    /// The client of this connection wants a statement of another one cancelled.
    CancelOther {
        /// From the other connection's BackendKeyData.
        process_id: u32,
        /// The same.
        key: Vec<u8>,
    },
    /// The login is over: its time limit too.
    LoggedIn,
    /// Close the client's connection once all is sent.
    Close,
}

/// One client's session.
pub(crate) trait Session<B: PooledBackend>: Sized {
    /// A session whose client has sent nothing yet.
    fn new(entrance: Entrance) -> Self;

    /// TLS has begun on the session's connection, with this `tls-server-end-point` hash of our certificate, if one is
    /// defined.
    fn tls_started(&mut self, end_point_hash: Option<Vec<u8>>);

    /// Takes one event.
    fn handle<P: Ports<B>>(&mut self, cx: &mut Context, ports: &mut P, event: Event<B>);

    /// Whether bytes of the client are wanted now. While they are not, the connection is not read.
    fn reads_client(&self) -> bool;

    /// Whether that is the key for cancelling this session's statements.
    fn is_cancel_key(&self, key: &[u8]) -> bool;

    /// The database, once the login is that far.
    fn database(&self) -> Option<DatabaseId>;

    /// The key that the client logged in with.
    fn key(&self) -> Option<KeyId>;
}

/// How a session whose backends are `B` acts on the world.
pub(crate) trait Ports<B: PooledBackend> {
    /// Sends bytes to the client by reference.
    fn send_client(&mut self, buf: Buf);
    /// Sends a copy of few bytes to the client.
    fn copy_client(&mut self, bytes: &[u8]);
    /// Sends bytes to a leased backend by reference.
    fn send_backend(&mut self, conn: ConnId, buf: Buf);
    /// Sends a copy of few bytes to a leased backend.
    fn copy_backend(&mut self, conn: ConnId, bytes: &[u8]);
    /// About this many more bytes of one message will come from the client.
    fn expect_client(&mut self, bytes: u64);
    /// About this many more bytes of one message will come from a leased backend.
    fn expect_backend(&mut self, conn: ConnId, bytes: u64);
    /// A backend of that pool, at once; `None`: [`Event::Leased`] or [`Event::LeaseFailed`] follows.
    fn lease(&mut self, pool: PoolKey, route: &Route) -> Option<Box<B>>;
    /// A backend for a shared connection, at once; `None`: [`Event::LinkReady`] or [`Event::LinkLost`] follows for those who
    /// wait for it.
    fn lease_link(&mut self, link: LinkId, pool: PoolKey, route: &Route) -> Option<Box<B>>;
    /// The connections that sessions share.
    fn links(&mut self) -> &mut B::Links;
    /// Gives a backend up.
    fn release(&mut self, backend: Box<B>, fate: Fate);
    /// Asks the server to cancel what that backend runs.
    fn cancel(&mut self, backend: BackendId);
    /// Asks for something.
    fn request(&mut self, request: Request);
    /// What names this session in cancel requests.
    fn process_id(&self) -> u32;
    /// What names this session among those that share a connection.
    fn this(&self) -> SessionRef;
    /// Bytes that the client has not taken yet.
    fn client_queued(&self) -> usize;
}

/// Limits of sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A login must be over by then.
    pub(crate) login: Duration,
    /// How long a statement may wait for a backend.
    pub(crate) lease: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login: Duration::from_secs(60),
            lease: Duration::from_secs(30),
        }
    }
}
