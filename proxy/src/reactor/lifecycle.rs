//! What both reactors hold to when connections begin and end.

use std::io;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::ConnId;

/// How long a listener rests when there is no descriptor or memory for another connection.
pub(super) const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How often a Unix socket with a full backlog is tried.
pub(super) const CONNECT_RETRY: Duration = Duration::from_millis(5);

/// How far the closing of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Open: the caller knows its id.
    No,
    /// What is queued still leaves.
    Flushing,
    /// We have said that we are done and wait for the peer's end: closing with bytes unread would reset the connection
    /// and could take our last bytes with it.
    Lingering,
}

/// A connection to a Unix socket whose backlog was full.
pub(super) struct Retry {
    pub(super) at: Instant,
    pub(super) until: Instant,
    pub(super) conn: ConnId,
    pub(super) to: SockAddr,
}

/// Whether a failed accept says nothing of the next one.
pub(super) fn concerns_one_connection(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EBADF | libc::EINVAL
        )
    )
}
