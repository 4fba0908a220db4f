//! The client's bytes, split into messages. A message that fits one received buffer is a view on it; one that straddles
//! buffers is put together if it must be seen whole, and streamed if it is large.

use std::collections::VecDeque;
use std::time::Instant;

use protocol_postgres::frame::{self, FrameError, HEADER_LEN, Peek};
use protocol_postgres::frontend::tag;

use crate::reactor::Buf;

/// The largest body of any message: PostgreSQL's own limit (`PQ_LARGE_MESSAGE_LIMIT`, one byte below 1 GiB).
const MAX_BODY: u32 = 0x3fff_ffff;
/// Messages up to this size are seen whole.
pub(super) const MAX_WHOLE: usize = 64 << 10;
/// Of larger ones this much is seen before the rest streams: names stand there.
pub(super) const PREFIX: usize = 8 << 10;

/// A message, or the beginning of a large one.
pub(super) struct Message {
    pub(super) tag: u8,
    /// With its header; of a large one, what has come so far.
    pub(super) bytes: Buf,
    /// Bytes that follow later.
    pub(super) rest: u64,
    /// When its last byte came, or the last of its beginning.
    pub(super) at: Instant,
}

impl Message {
    /// What has come of the body.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Bytes of the whole body.
    pub(super) fn body_len(&self) -> u32 {
        let here = u64::try_from(self.body().len()).unwrap_or(u64::MAX);
        u32::try_from(here.saturating_add(self.rest)).unwrap_or(u32::MAX)
    }
}

/// The client's bytes that are not handled yet.
#[derive(Default)]
pub(super) struct Incoming {
    input: Buf,
    more: VecDeque<Buf>,
    /// The beginning of a message that straddles buffers.
    carry: Vec<u8>,
    /// Bytes of a streamed message that are still to come.
    remaining: u64,
}

impl Incoming {
    pub(super) fn push(&mut self, buf: Buf) {
        if buf.is_empty() {
        } else if self.input.is_empty() {
            self.input = buf;
        } else {
            self.more.push_back(buf);
        }
    }

    /// Whether there are bytes that nobody has looked at.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Bytes that wait here.
    pub(super) fn len(&self) -> u64 {
        let more: usize = self.more.iter().map(|buf| buf.len()).sum();
        u64::try_from(self.input.len() + more).unwrap_or(u64::MAX)
    }

    /// Whether a message's rest is still to come.
    pub(super) const fn is_streaming(&self) -> bool {
        self.remaining > 0
    }

    /// The rest of the message just taken is to be streamed.
    pub(super) const fn stream(&mut self, rest: u64) {
        self.remaining = rest;
    }

    /// Bytes of the streamed message that are still to come.
    pub(super) const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next piece of the streamed message.
    pub(super) fn next_piece(&mut self) -> Option<Buf> {
        if self.input.is_empty() {
            return None;
        }
        let len = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let piece = self.take(len);
        self.remaining -= u64::try_from(piece.len()).unwrap_or(0);
        Some(piece)
    }

    /// The next message. `None`: more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no message: the connection cannot go on.
    #[inline]
    pub(super) fn next_message(&mut self, now: Instant) -> Result<Option<Message>, FrameError> {
        while !self.input.is_empty() {
            let found = if self.carry.is_empty() {
                self.split_input(now)?
            } else {
                self.split_carry(now)?
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn split_input(&mut self, now: Instant) -> Result<Option<Message>, FrameError> {
        let Peek::Header(header) = frame::peek(&self.input, MAX_BODY)? else {
            self.carry_on(usize::MAX);
            return Ok(None);
        };
        let total = HEADER_LEN + header.body as usize;
        let have = self.input.len();
        if have >= total {
            let bytes = self.take(total);
            return Ok(Some(message(header.tag, bytes, total, now)));
        }
        if have < wanted(header.tag, total) {
            self.carry.reserve_exact(wanted(header.tag, total));
            self.carry_on(usize::MAX);
            return Ok(None);
        }
        let bytes = self.take(have);
        Ok(Some(message(header.tag, bytes, total, now)))
    }

    fn split_carry(&mut self, now: Instant) -> Result<Option<Message>, FrameError> {
        if self.carry.len() < HEADER_LEN {
            self.carry_on(HEADER_LEN - self.carry.len());
        }
        let Peek::Header(header) = frame::peek(&self.carry, MAX_BODY)? else {
            return Ok(None);
        };
        let total = HEADER_LEN + header.body as usize;
        let wanted = wanted(header.tag, total);
        if self.carry.len() < wanted {
            self.carry_on(wanted - self.carry.len());
        }
        if self.carry.len() < wanted {
            return Ok(None);
        }
        let bytes = Buf::from_vec(std::mem::take(&mut self.carry));
        Ok(Some(message(header.tag, bytes, total, now)))
    }

    /// Moves up to `count` bytes from the input to the carry.
    fn carry_on(&mut self, count: usize) {
        let piece = self.take(count);
        self.carry.extend_from_slice(&piece);
    }

    fn take(&mut self, count: usize) -> Buf {
        let piece = self.input.split_to(count);
        if self.input.is_empty() {
            self.input = self.more.pop_front().unwrap_or_default();
        }
        piece
    }
}

fn message(tag: u8, bytes: Buf, total: usize, at: Instant) -> Message {
    let rest = u64::try_from(total - bytes.len()).unwrap_or(u64::MAX);
    Message {
        tag,
        bytes,
        rest,
        at,
    }
}

/// How much of a message must be there before it is looked at.
fn wanted(tag: u8, total: usize) -> usize {
    match tag {
        tag::COPY_DATA | tag::FUNCTION_CALL => HEADER_LEN,
        _ if total <= MAX_WHOLE => total,
        _ => PREFIX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(pieces: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let mut incoming = Incoming::default();
        let mut found = Vec::new();
        for piece in pieces {
            incoming.push(Buf::from_vec(piece.to_vec()));
            loop {
                if incoming.is_streaming() {
                    let Some(piece) = incoming.next_piece() else {
                        break;
                    };
                    let last: &mut (u8, Vec<u8>) = found.last_mut().expect("a message streams");
                    last.1.extend_from_slice(&piece);
                    continue;
                }
                let Some(message) = incoming.next_message(Instant::now()).expect("valid") else {
                    break;
                };
                incoming.stream(message.rest);
                found.push((message.tag, message.bytes.to_vec()));
            }
        }
        assert!(!incoming.is_streaming() && incoming.carry.is_empty());
        found
    }

    #[test]
    fn every_cut_gives_the_same_messages() {
        let mut large = b"d\0\x01\x11\x74".to_vec();
        large.extend(std::iter::repeat_n(b'x', 70_000));
        let all = [
            &b"Q\0\0\0\x0dSELECT 1\0"[..],
            b"S\0\0\0\x04",
            &large,
            b"X\0\0\0\x04",
        ]
        .concat();
        let whole = messages(&[&all]);
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[2].1, large);
        for cut in (1..40).chain([9000, 20_000, all.len() - 3]) {
            assert_eq!(messages(&[&all[..cut], &all[cut..]]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(messages(&bytes), whole);
    }

    #[test]
    fn a_large_query_streams_behind_its_prefix() {
        let mut query = b"Q\0\x01\x11\x75".to_vec();
        query.extend(std::iter::repeat_n(b'x', 70_000));
        query.push(0);
        let mut incoming = Incoming::default();
        for chunk in query.chunks(1000) {
            incoming.push(Buf::from_vec(chunk.to_vec()));
        }
        let message = incoming.next_message(Instant::now()).unwrap().unwrap();
        assert_eq!(message.bytes.len(), PREFIX);
        assert_eq!(message.rest, (query.len() - PREFIX) as u64);
        assert_eq!(message.body_len(), 70_001);
    }

    #[test]
    fn hostile_lengths_end_the_connection() {
        for bytes in [
            &b"Q\0\0\0\x03"[..],
            b"Q\xff\xff\xff\xff",
            b"d\x7f\xff\xff\xff",
        ] {
            let mut incoming = Incoming::default();
            incoming.push(Buf::from_vec(bytes.to_vec()));
            assert!(incoming.next_message(Instant::now()).is_err());
        }
    }
}
