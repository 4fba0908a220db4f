//! The bounds of a reactor.

use std::time::Duration;

use super::PoolLimits;

/// The bounds of one reactor. The defaults suit a worker with thousands of connections.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Blocks that connections receive into. While none is left, nothing is received.
    pub small: PoolLimits,
    /// Larger blocks, for messages known to be large. While none is left, small ones are used.
    pub large: PoolLimits,
    /// A send queue above this many bytes is told of when it has drained.
    pub high_water: usize,
    /// A send queue at this many bytes counts as drained.
    pub low_water: usize,
    /// How long a closed connection may take to flush and to see its peer's end.
    pub close_within: Duration,
    /// How long a connection to a Unix socket whose backlog is full is tried again.
    pub connect_within: Duration,
    /// How long what happens may wait for more to happen, so that one turn does the work of several. Only io_uring,
    /// and only under load; zero: never.
    pub coalesce: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            small: PoolLimits {
                block: 16 << 10,
                blocks: 16 << 10,
                keep: 512,
            },
            large: PoolLimits {
                block: 256 << 10,
                blocks: 64,
                keep: 16,
            },
            high_water: 256 << 10,
            low_water: 64 << 10,
            close_within: Duration::from_secs(5),
            connect_within: Duration::from_secs(5),
            coalesce: Duration::from_micros(200),
        }
    }
}
