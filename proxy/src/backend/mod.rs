//! Backend connections: how they log in, how many a server may be given, and how they are lent.

pub mod budget;
pub(crate) mod pool;
pub(crate) mod postgres;
pub(crate) mod redis;

use std::time::Instant;

use control_store::ids::Role;
use control_store::{DatabaseId, ServerId};

use crate::reactor::ConnId;

/// Whose clients may use a backend: those of one database with one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) database: DatabaseId,
    pub(crate) role: Role,
}

/// Where a worker keeps what it knows of a backend's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BackendId(pub(crate) u32);

/// What every backend has that has logged in, whatever it speaks. It belongs to the session that leases it, or to the pool.
pub(crate) struct Member {
    pub(crate) id: BackendId,
    pub(crate) conn: ConnId,
    pub(crate) pool: PoolKey,
    pub(crate) server: ServerId,
    /// When it fell free.
    pub(crate) idle_since: Instant,
}
