//! How the control plane steers traffic. The proxy implements it; nothing else of the proxy is visible to `admin`.

use std::time::Duration;

use crate::ids::{DatabaseId, KeyId};

/// Steers the traffic of one process's proxy.
///
/// The route itself (server, settings, status) is read from the snapshot; after a change to it the caller says
/// [`TrafficControl::refresh`], so that sessions look again at their next statement.
pub trait TrafficControl: Send + Sync {
    /// Makes new statements on this database wait, for at most `budget` each. Statements and transactions that run go on.
    /// A second hold extends the first.
    fn hold(&self, database: DatabaseId, budget: HoldBudget);

    /// How many transactions and statements still run on this database. After [`TrafficControl::hold`], zero means
    /// that nothing will reach the server until the release.
    fn in_flight(&self, database: DatabaseId) -> u64;

    /// Lets held statements go on, in the order they came, to wherever the snapshot says the database is now.
    fn release(&self, database: DatabaseId);

    /// The snapshot changed for this database: sessions look again before their next statement, and backend
    /// connections to a server it has left are closed once they are free.
    fn refresh(&self, database: DatabaseId);

    /// The schema of this database changed: prepared statements are prepared again before their next use.
    fn schema_changed(&self, database: DatabaseId);

    /// Ends every session on this database and closes its backend connections, at once. Used before it is dropped or
    /// while it is suspended. Returns when no backend connection to it is left, or after `timeout`.
    fn kill(&self, database: DatabaseId, timeout: Duration) -> bool;

    /// Ends every session that logged in with this key.
    fn kill_key(&self, key: KeyId);
}

/// What a hold may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldBudget {
    /// How long a statement may wait before it fails.
    pub time: Duration,
    /// How many bytes of held statements the proxy keeps for the database; one that does not fit fails.
    pub bytes: u64,
}

impl Default for HoldBudget {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            bytes: 64 << 20,
        }
    }
}
