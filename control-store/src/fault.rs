//! The one list of what can go wrong for a client, whatever face it speaks to.
//!
//! Each face translates it in exactly one file, without a catch-all arm, so that a new fault does not compile
//! until every face answers it.

use thiserror::Error;

/// The reference's sentence for refused DDL.
pub const DDL_REFUSED: &str =
    "DDL not allowed on tenant databases. Deploy schema through blueprints.";

/// A failure that a client is told of. Public text only: internal detail goes to the log where it is handled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Wrong user or password; the two are not told apart.
    #[error("password authentication failed")]
    AuthFailed,
    /// The database does not exist, or the caller is not entitled to know of it.
    #[error("database does not exist")]
    UnknownDatabase,
    /// The login's role does not allow this.
    #[error("permission denied")]
    PermissionDenied,
    /// TLS is required and the client did not ask for it.
    #[error("TLS is required: connect with sslmode=require or stronger")]
    TlsRequired,
    /// A schema change on a tenant database.
    #[error("{}", DDL_REFUSED)]
    DdlRefused,
    /// The tenant is suspended.
    #[error("tenant is suspended: resume it with POST /tenants/{{id}}/resume")]
    Suspended,
    /// The database is being created, restored or has failed.
    #[error("database is not ready")]
    NotReady,
    /// The client's database has as many client connections as its settings allow.
    #[error("too many connections for this database (max_connections is {limit})")]
    ConnectionLimit {
        /// `max_connections` of the settings in force.
        limit: u32,
    },
    /// This address is banned, or sends too much.
    #[error("too many requests from this address: try again later")]
    AddressBanned,
    /// The proxy itself is full.
    #[error("too many client connections to this proxy")]
    ProxyFull,
    /// No backend connection became free in time.
    #[error("no server connection became available within {waited_ms} ms")]
    PoolTimeout {
        /// How long the statement waited.
        waited_ms: u64,
    },
    /// A statement waited behind a gate for longer than the gate's budget of time, or did not fit its budget of bytes.
    #[error("database is moving to another server and did not become available in time")]
    HoldTimeout,
    /// The database's server cannot be reached.
    #[error("database server is unavailable")]
    BackendUnavailable,
    /// The backend connection broke in the middle of a statement.
    #[error("connection to the database server was lost")]
    BackendLost,
    /// The statement ran longer than `query_timeout_ms` and was cancelled at the server.
    #[error("canceling statement due to statement timeout (query_timeout_ms is {limit_ms})")]
    QueryTimeout {
        /// `query_timeout_ms` of the settings in force.
        limit_ms: u64,
    },
    /// Another connection of the client asked to cancel the statement, before it was sent to a server.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// The statement returned more rows than `max_rows_per_query`.
    #[error("statement returned more than {limit} rows (max_rows_per_query)")]
    RowLimit {
        /// `max_rows_per_query` of the settings in force.
        limit: u64,
    },
    /// The peer broke the protocol.
    #[error("protocol violation: {what}")]
    ProtocolViolation {
        /// What was wrong, without the peer's bytes.
        what: &'static str,
    },
    /// Something the protocol has and the product refuses.
    #[error("{what}")]
    Unsupported {
        /// What is refused and what to do instead.
        what: &'static str,
    },
    /// The key this connection logged in with was deleted, or the database is gone or has moved from under a pinned session.
    #[error("terminating connection: {why}")]
    Terminated {
        /// Why, for the client.
        why: &'static str,
    },
    /// The proxy is stopping.
    #[error("terminating connection due to administrator command")]
    Draining,
    /// A defect of ours.
    #[error("internal error")]
    Bug,
}
