//! The two sizes of receive blocks of one reactor.

use super::{Buf, Options, Pool, Unfilled};

/// Receives up to this many bytes are copied out of their block when blocks are scarce.
const SCARCE_COPY: usize = 1024;

/// Which blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Large,
}

/// The blocks that one reactor receives into.
pub(super) struct Pools {
    small: Pool,
    large: Pool,
    /// With fewer small blocks than this left, a small receive does not keep its block.
    scarce: usize,
}

impl Pools {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            small: Pool::new(options.small),
            large: Pool::new(options.large),
            scarce: options.small.blocks / 4,
        }
    }

    /// A block for a message of which `expected` bytes are known to come.
    pub(super) fn take(&self, expected: u64) -> Option<Unfilled> {
        let small = u64::try_from(self.small.block_size()).unwrap_or(u64::MAX);
        if expected > small
            && let Some(block) = self.large.take()
        {
            return Some(block);
        }
        self.small.take()
    }

    /// The first `len` bytes of a block.
    pub(super) fn filled(&self, block: Unfilled, len: usize) -> Buf {
        self.sparing(block.filled(len))
    }

    /// The same bytes; few of them do not hold a block when blocks are scarce: peers that send half messages and stop
    /// would otherwise use them up.
    pub(super) fn sparing(&self, buf: Buf) -> Buf {
        if buf.len() <= SCARCE_COPY && self.small.available() < self.scarce {
            return buf.detach();
        }
        buf
    }

    /// The blocks of one size.
    pub(super) const fn of(&self, size: Size) -> &Pool {
        match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
        }
    }

    /// Whether [`Pools::take`] has something to give.
    pub(super) fn has_some(&self) -> bool {
        self.small.available() > 0
    }
}
