//! Blocks that the kernel receives into: a ring of provided buffers, refilled from a [`Pool`].
//!
//! The kernel picks a block when bytes are there, so a connection that is silent holds none. Where it can (Linux 6.12)
//! it fills a block piece by piece before it takes the next, so that small messages of many connections share a block;
//! otherwise each receive takes a whole one.
#![allow(unsafe_code)] // Memory shared with the kernel; each block says why that is right.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::cqueue::buffer_select;
use io_uring::types::BufRingEntry;

use super::ring::Completion;
use crate::reactor::buffer::Lent;
use crate::reactor::{Buf, Pool};

/// How the kernel fills blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filling {
    /// Piece by piece until a block is full. Where that is not known, as `Whole`.
    Piecewise,
    /// Each receive takes a whole block.
    Whole,
}

/// `IOU_PBUF_RING_INC` of `io_uring_register_buf_ring(3)`.
const INCREMENTAL: u16 = 2;
/// The kernel wants the ring to begin at a page.
const PAGE: usize = 4096;

/// One slot of the ring: a block that is the kernel's, and how much of it has been filled.
struct Slot {
    block: Lent,
    filled: usize,
}

/// One group of provided blocks. Must outlive the [`IoUring`] that it is registered with: the reactor's fields are in
/// that order.
pub(super) struct Blocks {
    ring: NonNull<BufRingEntry>,
    layout: Layout,
    /// By buffer id.
    slots: Vec<Option<Slot>>,
    /// Buffer ids without a block.
    empty: Vec<u16>,
    tail: u16,
    group: u16,
    filling: Filling,
}

impl Blocks {
    /// An empty group of at most `entries` blocks, a power of two.
    ///
    /// # Errors
    /// When the kernel has no provided buffer rings or no memory for one.
    pub(super) fn register(
        queues: &IoUring,
        group: u16,
        entries: u16,
        filling: Filling,
    ) -> io::Result<Self> {
        let layout = Layout::array::<BufRingEntry>(usize::from(entries))
            .and_then(|layout| layout.align_to(PAGE))
            .map_err(io::Error::other)?;
        // SAFETY: the layout is not empty: `entries` is at least one.
        let Some(ring) = NonNull::new(unsafe { alloc_zeroed(layout) }.cast::<BufRingEntry>())
        else {
            handle_alloc_error(layout);
        };
        let mut blocks = Self {
            ring,
            layout,
            slots: (0..entries).map(|_| None).collect(),
            empty: (0..entries).rev().collect(),
            tail: 0,
            group,
            filling,
        };
        if filling == Filling::Whole || blocks.try_register(queues, entries, INCREMENTAL).is_err() {
            blocks.filling = Filling::Whole;
            blocks.try_register(queues, entries, 0)?;
        }
        Ok(blocks)
    }

    fn try_register(&self, queues: &IoUring, entries: u16, flags: u16) -> io::Result<()> {
        let address = self.ring.as_ptr() as u64;
        // SAFETY: the ring's memory has room for that many entries, begins at a page and lives as long as `self`, which
        // outlives the queues.
        unsafe {
            queues
                .submitter()
                .register_buf_ring_with_flags(address, entries, self.group, flags)
        }
    }

    pub(super) const fn group(&self) -> u16 {
        self.group
    }

    /// How many blocks the kernel has.
    pub(super) fn provided(&self) -> usize {
        self.slots.len() - self.empty.len()
    }

    /// Gives the kernel blocks from `pool` until it has all that fit.
    pub(super) fn provide(&mut self, pool: &Pool) {
        if self.empty.is_empty() {
            return;
        }
        let before = self.tail;
        while let Some(id) = self.empty.pop() {
            let Some(block) = pool.take() else {
                self.empty.push(id);
                break;
            };
            let block = block.lend();
            let (start, len) = block.memory();
            let at = usize::from(self.tail) & (self.slots.len() - 1);
            // SAFETY: `at` is below the number of entries. The kernel does not look at this entry before the tail is
            // past it, and has consumed what it held before: there are as many ids as entries, and this id came back.
            let entry = unsafe { self.ring.add(at).as_mut() };
            entry.set_addr(start as u64);
            entry.set_len(u32::try_from(len).unwrap_or(u32::MAX));
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            if let Some(slot) = self.slots.get_mut(usize::from(id)) {
                *slot = Some(Slot { block, filled: 0 });
            }
        }
        if self.tail != before {
            self.publish();
        }
    }

    /// Shows the kernel the entries up to the tail.
    fn publish(&self) {
        // SAFETY: the ring's first entry is valid; the tail lies in bytes of it that hold nothing else and is aligned
        // for 16 bits. Both we and the kernel access it atomically.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.ring.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// The bytes that a receive has brought, if any.
    pub(super) fn take(&mut self, done: &Completion) -> Option<Buf> {
        let id = buffer_select(done.flags)?;
        let place = self.slots.get_mut(usize::from(id))?;
        let count = usize::try_from(done.result).unwrap_or_default();
        let slot = place.as_mut()?;
        if count == 0 {
            // No kernel is known to consume a block for nothing where it fills them piece by piece.
            if self.filling == Filling::Whole {
                *place = None;
                self.empty.push(id);
            }
            return None;
        }
        let buf = slot.block.view(slot.filled..slot.filled + count);
        slot.filled += count;
        if self.filling == Filling::Whole || !done.has_room() {
            *place = None;
            self.empty.push(id);
        }
        Some(buf)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the queues are closed, so the kernel looks at it no more.
        unsafe { dealloc(self.ring.as_ptr().cast(), self.layout) };
    }
}
