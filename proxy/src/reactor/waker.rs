//! Waking a reactor from another thread: an eventfd, written at most once per sleep.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sys;

/// Wakes a reactor's `turn` from any thread. Outlives the reactor harmlessly.
#[derive(Clone, Debug)]
pub struct Waker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    eventfd: OwnedFd,
    /// A wake is under way: more of them would tell nothing new.
    pending: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                eventfd: sys::eventfd()?,
                pending: AtomicBool::new(false),
            }),
        })
    }

    /// Makes the reactor's current or next turn end with `Event::Woken`. What the caller wrote before is visible to
    /// who sees that event.
    pub fn wake(&self) {
        if !self.inner.pending.swap(true, Ordering::AcqRel) {
            // Cannot fail: the counter never gets near its limit, because `pending` lets one write through per turn.
            let _ = sys::write_counter(&self.inner.eventfd);
        }
    }

    /// Tells that the wake has been noticed: the next one counts anew.
    pub(super) fn acknowledge(&self) {
        self.inner.pending.swap(false, Ordering::AcqRel);
    }

    /// Empties the counter, for a reactor that only learned that it can be read.
    pub(super) fn drain(&self) {
        let _ = sys::read_counter(&self.inner.eventfd);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.eventfd.as_fd()
    }
}
