//! The list of pieces of one send.
#![allow(unsafe_code)] // A zeroed C structure.

use crate::reactor::queue::MAX_PIECES;

/// A `struct msghdr` and the vectors that it points to. Stays where it is: it points into itself.
pub(super) struct Message {
    header: libc::msghdr,
    pieces: [libc::iovec; MAX_PIECES],
}

impl Message {
    pub(super) fn new() -> Box<Self> {
        let none = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        Box::new(Self {
            // SAFETY: all zeroes is a `msghdr` without address, vectors and control data.
            header: unsafe { std::mem::zeroed() },
            pieces: [none; MAX_PIECES],
        })
    }

    /// Has the message consist of these pieces, [`MAX_PIECES`] at most.
    pub(super) fn fill<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) {
        let mut count = 0;
        for (to, piece) in self.pieces.iter_mut().zip(pieces) {
            to.iov_base = piece.as_ptr().cast_mut().cast();
            to.iov_len = piece.len();
            count += 1;
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = count;
    }

    pub(super) const fn header(&self) -> *const libc::msghdr {
        &raw const self.header
    }
}
