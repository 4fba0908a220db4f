//! Backend connections: how they log in, how many a server may be given, and how they are lent.

pub mod budget;
pub(crate) mod handshake;
pub(crate) mod pool;
pub(crate) mod prepared;

use std::rc::Rc;
use std::time::Instant;

use control_store::ids::Role;
use control_store::{DatabaseId, ServerId};

use crate::reactor::ConnId;
use crate::session::postgres::replies::Replies;
use crate::session::postgres::settings::SettingSet;

use prepared::Prepared;

/// Whose clients may use a backend: those of one database with one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) database: DatabaseId,
    pub(crate) role: Role,
}

/// Where a worker keeps what it knows of a backend's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BackendId(pub(crate) u32);

/// What the server reported of its settings when the backend logged in.
pub(crate) type Parameters = Vec<(Box<[u8]>, Box<[u8]>)>;

/// A backend that has logged in. It belongs to the session that leases it, or to the pool.
pub(crate) struct Backend {
    pub(crate) id: BackendId,
    pub(crate) conn: ConnId,
    pub(crate) pool: PoolKey,
    pub(crate) server: ServerId,
    pub(crate) parameters: Rc<Parameters>,
    pub(crate) replies: Replies,
    pub(crate) prepared: Prepared,
    /// What is set on it now.
    pub(crate) settings: Rc<SettingSet>,
    /// The schema that its prepared statements were made for.
    pub(crate) schema_epoch: u64,
    /// The message that is just coming in.
    pub(crate) incoming: Incoming,
    /// When it fell free.
    pub(crate) idle_since: Instant,
}

/// How far the message is that a backend is sending.
#[derive(Default)]
pub(crate) struct Incoming {
    /// The beginning of a message that must be seen whole, or of a header.
    pub(crate) carry: Vec<u8>,
    /// Bytes of a body that are still to come.
    pub(crate) remaining: u64,
    /// Whether they go to the client.
    pub(crate) forward: bool,
}
