//! What waits to be sent on one connection.

use std::collections::VecDeque;

use super::Buf;

/// Room of a buffer made for small copies.
const COPY_ROOM: usize = 512;
/// Pieces handed to the kernel at a time.
pub(super) const MAX_PIECES: usize = 64;
/// An empty queue keeps room for no more pieces than this.
const KEEP_PIECES: usize = 16;

/// One piece of the queue.
enum Piece {
    /// A view; the bytes belong to whoever else sees them too.
    View(Buf),
    /// Copied bytes. Grows only within its capacity, so that its bytes stay where the kernel may be reading them.
    Own { bytes: Vec<u8>, sent: usize },
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::View(buf) => buf,
            Self::Own { bytes, sent } => bytes.get(*sent..).unwrap_or_default(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::View(buf) => buf.advance(count),
            Self::Own { sent, .. } => *sent += count,
        }
    }
}

/// The bytes that the kernel has not taken, in order.
#[derive(Default)]
pub(super) struct SendQueue {
    pieces: VecDeque<Piece>,
    len: usize,
    /// The queue went above the high-water mark and has not been at the low-water mark since.
    high: bool,
}

impl SendQueue {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Queues a view; it joins the last one if it follows it in memory.
    pub(super) fn push(&mut self, buf: Buf, high_water: usize) {
        if buf.is_empty() {
            return;
        }
        self.grow(buf.len(), high_water);
        let buf = match self.pieces.back_mut() {
            Some(Piece::View(last)) => match last.merge(buf) {
                Ok(()) => return,
                Err(buf) => buf,
            },
            _ => buf,
        };
        self.pieces.push_back(Piece::View(buf));
    }

    /// Queues a copy of `bytes`, in the last own buffer if there is room.
    pub(super) fn push_copy(&mut self, bytes: &[u8], high_water: usize) {
        if bytes.is_empty() {
            return;
        }
        self.grow(bytes.len(), high_water);
        if let Some(Piece::Own { bytes: last, .. }) = self.pieces.back_mut()
            && last.capacity() - last.len() >= bytes.len()
        {
            last.extend_from_slice(bytes);
            return;
        }
        let mut own = Vec::with_capacity(bytes.len().max(COPY_ROOM));
        own.extend_from_slice(bytes);
        self.pieces.push_back(Piece::Own {
            bytes: own,
            sent: 0,
        });
    }

    fn grow(&mut self, by: usize, high_water: usize) {
        self.len = self.len.saturating_add(by);
        self.high |= self.len > high_water;
    }

    /// The first pieces, at most [`MAX_PIECES`].
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().take(MAX_PIECES).map(Piece::bytes)
    }

    /// Drops the first `count` bytes, which the kernel has taken.
    pub(super) fn sent(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while let Some(first) = self.pieces.front_mut() {
            let have = first.bytes().len();
            if count < have {
                first.advance(count);
                return;
            }
            count -= have;
            self.pieces.pop_front();
        }
        if self.pieces.capacity() > KEEP_PIECES {
            self.pieces = VecDeque::new();
        }
    }

    /// True once when the queue, after it had been above the high-water mark, is at most at `low_water`.
    pub(super) fn take_drained(&mut self, low_water: usize) -> bool {
        let drained = self.high && self.len <= low_water;
        if drained {
            self.high = false;
        }
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(queue: &SendQueue) -> Vec<u8> {
        queue.pieces().flatten().copied().collect()
    }

    #[test]
    fn copies_share_a_buffer_and_views_merge() {
        let mut queue = SendQueue::default();
        let whole = Buf::from_vec(b"abcdef".to_vec());
        queue.push_copy(b"1", 1000);
        queue.push_copy(b"2", 1000);
        queue.push(whole.slice(0..2), 1000);
        queue.push(whole.slice(2..6), 1000);
        assert_eq!(queue.pieces().count(), 2);
        assert_eq!(contents(&queue), b"12abcdef");
    }

    #[test]
    fn every_partial_send_leaves_the_rest() {
        for cut in 0..=12 {
            let mut queue = SendQueue::default();
            queue.push_copy(b"abcd", 1000);
            queue.push(Buf::from_vec(b"efgh".to_vec()), 1000);
            queue.push_copy(b"ijkl", 1000);
            queue.sent(cut);
            assert_eq!(contents(&queue), &b"abcdefghijkl"[cut..]);
            assert_eq!(queue.len(), 12 - cut);
            queue.push_copy(b"m", 1000);
            assert_eq!(contents(&queue).last(), Some(&b'm'));
        }
    }

    #[test]
    fn a_copy_never_moves_bytes_queued_before() {
        let mut queue = SendQueue::default();
        queue.push_copy(b"first", 1 << 20);
        let before = queue.pieces().next().map(<[u8]>::as_ptr);
        for _ in 0..1000 {
            queue.push_copy(b"0123456789", 1 << 20);
        }
        assert_eq!(queue.pieces().next().map(<[u8]>::as_ptr), before);
    }

    #[test]
    fn drained_is_told_once_and_only_after_high_water() {
        let mut queue = SendQueue::default();
        queue.push_copy(&[0; 100], 100);
        queue.sent(100);
        assert!(!queue.take_drained(50), "never above the mark");
        queue.push_copy(&[0; 101], 100);
        queue.sent(40);
        assert!(!queue.take_drained(50), "61 bytes are left");
        queue.sent(20);
        assert!(queue.take_drained(50));
        assert!(!queue.take_drained(50));
    }
}
