//! Received bytes: counted views on pooled blocks.
//!
//! A [`Buf`] is a range of a block. Views of one block share it without atomics, so a [`Buf`] stays on its thread. The
//! last view of a pooled block gives the block back to its [`Pool`]; the blocks are recycled whole, count and all, so
//! that receiving allocates nothing once the pool is warm.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, Range};
use std::rc::{Rc, Weak};

/// Memory that views share.
struct Block {
    bytes: Vec<u8>,
    /// Where the block goes when its last view is dropped. Dangling: nowhere, it is freed.
    home: Weak<Shared>,
}

/// What a pool and its blocks know of each other.
struct Shared {
    free: RefCell<Vec<Rc<Block>>>,
    /// Blocks that exist, free or not.
    alive: Cell<usize>,
    limits: PoolLimits,
}

/// The bounds of a [`Pool`].
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Bytes of a block.
    pub block: usize,
    /// Blocks that may exist at one time. At the limit [`Pool::take`] gives `None`.
    pub blocks: usize,
    /// Free blocks kept for the next use; more are freed.
    pub keep: usize,
}

/// A bounded source of equal blocks.
pub struct Pool {
    shared: Rc<Shared>,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            shared: Rc::new(Shared {
                free: RefCell::default(),
                alive: Cell::new(0),
                limits,
            }),
        }
    }

    /// A block for filling, or `None` at the limit.
    pub fn take(&self) -> Option<Unfilled> {
        if let Some(block) = self.shared.free.borrow_mut().pop() {
            return Some(Unfilled { block: Some(block) });
        }
        if self.shared.alive.get() >= self.shared.limits.blocks {
            return None;
        }
        self.shared.alive.set(self.shared.alive.get() + 1);
        let bytes = vec![0; self.shared.limits.block];
        Some(Unfilled {
            block: Some(Rc::new(Block {
                bytes,
                home: Rc::downgrade(&self.shared),
            })),
        })
    }

    /// How many blocks [`Pool::take`] could give now.
    pub fn available(&self) -> usize {
        let free = self.shared.free.borrow().len();
        free + self
            .shared
            .limits
            .blocks
            .saturating_sub(self.shared.alive.get())
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> usize {
        self.shared.limits.block
    }
}

/// Gives back a handle on a block: to the pool if it was the last one.
fn release(block: Rc<Block>) {
    if Rc::strong_count(&block) > 1 {
        return;
    }
    let Some(shared) = block.home.upgrade() else {
        return;
    };
    let mut free = shared.free.borrow_mut();
    if free.len() < shared.limits.keep {
        free.push(block);
    } else {
        shared.alive.set(shared.alive.get().saturating_sub(1));
    }
}

/// A block that nobody else sees yet.
pub struct Unfilled {
    /// `None` only while it is taken apart.
    block: Option<Rc<Block>>,
}

impl Unfilled {
    /// The whole block.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self.block.as_mut().and_then(Rc::get_mut) {
            Some(block) => &mut block.bytes,
            None => &mut [],
        }
    }

    /// A view on the first `len` bytes (at most the block).
    pub fn filled(mut self, len: usize) -> Buf {
        let end = self
            .block
            .as_ref()
            .map_or(0, |block| block.bytes.len().min(len));
        Buf {
            block: self.block.take(),
            start: 0,
            end,
        }
    }
}

impl Unfilled {
    /// Lends the block to a writer that fills it piece by piece; see [`Lent::view`].
    pub(super) fn lend(mut self) -> Lent {
        let memory = self.bytes_mut();
        let (start, len) = (memory.as_mut_ptr(), memory.len());
        Lent {
            block: self.block.take(),
            start,
            len,
        }
    }
}

/// A block whose rest the kernel fills while views on what it has filled go around.
pub(super) struct Lent {
    block: Option<Rc<Block>>,
    start: *mut u8,
    len: usize,
}

impl Lent {
    /// Where the block begins and how long it is. Valid while this or any view lives.
    pub(super) const fn memory(&self) -> (*mut u8, usize) {
        (self.start, self.len)
    }

    /// A view on a part that has been filled and will not be written again.
    pub(super) fn view(&self, filled: Range<usize>) -> Buf {
        let end = filled.end.min(self.len);
        Buf {
            block: self.block.clone(),
            start: filled.start.min(end),
            end,
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            release(block);
        }
    }
}

impl Drop for Unfilled {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            release(block);
        }
    }
}

/// A view on received or owned bytes. Cloning and slicing copy nothing.
pub struct Buf {
    /// `None`: an empty view that holds no block.
    block: Option<Rc<Block>>,
    start: usize,
    end: usize,
}

impl Buf {
    /// No bytes.
    pub const fn empty() -> Self {
        Self {
            block: None,
            start: 0,
            end: 0,
        }
    }

    /// All of `bytes`, without copying them.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        let end = bytes.len();
        Self {
            block: Some(Rc::new(Block {
                bytes,
                home: Weak::new(),
            })),
            start: 0,
            end,
        }
    }

    /// A view on part of this view. What lies outside is cut off.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = self.start + range.end.min(self.len());
        let start = (self.start + range.start.min(self.len())).min(end);
        if start == end {
            return Self::empty();
        }
        Self {
            block: self.block.clone(),
            start,
            end,
        }
    }

    /// Cuts the first `at` bytes (at most all) off this view.
    #[must_use]
    pub fn split_to(&mut self, at: usize) -> Self {
        let head = self.slice(0..at);
        self.advance(at);
        head
    }

    /// Drops the first `count` bytes (at most all) from this view.
    pub fn advance(&mut self, count: usize) {
        self.start += count.min(self.len());
    }

    /// Drops all but the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.start + len.min(self.len());
    }

    /// The bytes, for writing, if no other view shares the block.
    pub fn try_mut(&mut self) -> Option<&mut [u8]> {
        let range = self.start..self.end;
        match self.block.as_mut() {
            None => Some(&mut []),
            Some(block) => Rc::get_mut(block)?.bytes.get_mut(range),
        }
    }

    /// Takes `next` in if it follows this view in the same block; gives it back otherwise.
    ///
    /// # Errors
    /// `next` itself, untouched.
    pub fn merge(&mut self, next: Self) -> Result<(), Self> {
        let adjacent = match (&self.block, &next.block) {
            (Some(mine), Some(its)) => Rc::ptr_eq(mine, its) && self.end == next.start,
            _ => false,
        };
        if !adjacent {
            return Err(next);
        }
        self.end = next.end;
        Ok(())
    }

    /// The same bytes in memory of their own, so that a few bytes kept for long do not hold a whole block.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self::from_vec(self.to_vec())
    }
}

impl Default for Buf {
    fn default() -> Self {
        Self::empty()
    }
}

impl Clone for Buf {
    fn clone(&self) -> Self {
        Self {
            block: self.block.clone(),
            start: self.start,
            end: self.end,
        }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block
            .as_ref()
            .and_then(|block| block.bytes.get(self.start..self.end))
            .unwrap_or_default()
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            release(block);
        }
    }
}

impl fmt::Debug for Buf {
    /// The length only: the bytes are a customer's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(blocks: usize, keep: usize) -> Pool {
        Pool::new(PoolLimits {
            block: 64,
            blocks,
            keep,
        })
    }

    fn filled(pool: &Pool, bytes: &[u8]) -> Buf {
        let mut block = pool.take().expect("the pool has a block");
        block.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        block.filled(bytes.len())
    }

    #[test]
    fn a_pool_is_bounded_and_gets_its_blocks_back() {
        let pool = pool(2, 1);
        let first = filled(&pool, b"one");
        let second = filled(&pool, b"two");
        assert!(pool.take().is_none());
        let view = first.slice(1..3);
        drop(first);
        assert!(pool.take().is_none(), "a view still holds the block");
        assert_eq!(&*view, b"ne");
        drop(view);
        assert_eq!(pool.available(), 1);
        drop(second);
        assert_eq!(pool.available(), 2, "freed blocks may be made anew");
        assert_eq!(pool.shared.free.borrow().len(), 1, "only `keep` are kept");
    }

    #[test]
    fn views_outlive_their_pool() {
        let pool = pool(1, 1);
        let view = filled(&pool, b"last words");
        drop(pool);
        assert_eq!(&*view, b"last words");
    }

    #[test]
    fn slices_are_cut_to_the_view() {
        let buf = Buf::from_vec(b"abcdef".to_vec());
        for (range, expected) in [
            (0..6, &b"abcdef"[..]),
            (2..4, b"cd"),
            (4..99, b"ef"),
            (9..99, b""),
            (3..3, b""),
        ] {
            assert_eq!(&*buf.slice(range), expected);
        }
        let inner = buf.slice(1..4);
        assert_eq!(
            &*inner.slice(1..99),
            b"cd",
            "a slice of a slice cannot see beyond it"
        );
    }

    #[test]
    fn only_a_sole_view_can_be_written() {
        let mut buf = Buf::from_vec(b"abc".to_vec());
        let other = buf.clone();
        assert!(buf.try_mut().is_none());
        drop(other);
        buf.try_mut().expect("sole view")[0] = b'x';
        assert_eq!(&*buf, b"xbc");
        assert!(Buf::empty().try_mut().is_some_and(|bytes| bytes.is_empty()));
    }

    #[test]
    fn neighbours_merge_and_strangers_do_not() {
        let whole = Buf::from_vec(b"abcdef".to_vec());
        let mut left = whole.slice(0..2);
        left.merge(whole.slice(2..5)).expect("adjacent");
        assert_eq!(&*left, b"abcde");
        assert!(left.merge(whole.slice(2..5)).is_err(), "overlapping");
        assert!(
            left.merge(Buf::from_vec(b"f".to_vec())).is_err(),
            "another block"
        );
        assert!(left.merge(Buf::empty()).is_err());
    }

    #[test]
    fn cutting_moves_both_ends() {
        let mut buf = Buf::from_vec(b"abcdef".to_vec());
        assert_eq!(&*buf.split_to(2), b"ab");
        buf.truncate(3);
        assert_eq!(&*buf, b"cde");
        buf.advance(99);
        assert!(buf.is_empty());
        assert_eq!(
            &*Buf::from_vec(b"kept".to_vec()).slice(1..3).detach(),
            b"ep"
        );
    }
}
