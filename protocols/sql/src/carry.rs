//! The small buffer that holds a word, a quoted name or a tag across pieces of a text.

/// A byte string cut to a fixed size; it remembers that it was cut.
///
/// Nothing the classifier looks for is as long as the buffer, so what is cut matches nothing.
/// The size leaves room for a name of 31 bytes in which every byte is written `\+00005F`.
#[derive(Debug)]
pub(crate) struct Carry {
    bytes: [u8; Self::CAPACITY],
    len: usize,
    overflowed: bool,
}

impl Default for Carry {
    fn default() -> Self {
        Self {
            bytes: [0; Self::CAPACITY],
            len: 0,
            overflowed: false,
        }
    }
}

impl Carry {
    pub(crate) const CAPACITY: usize = 256;

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.overflowed = false;
    }

    pub(crate) fn set(&mut self, text: &[u8]) {
        self.clear();
        self.extend(text);
    }

    pub(crate) fn extend(&mut self, text: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let taken = room.len().min(text.len());
        for (to, from) in room.iter_mut().zip(text) {
            *to = *from;
        }
        self.len += taken;
        self.overflowed |= taken < text.len();
    }

    /// Replaces `\XXXX` and `\+XXXXXX` in place; what is not ASCII becomes one high byte,
    /// which is all that a comparison with ASCII words needs.
    pub(crate) fn decode_unicode(&mut self, escape: u8) {
        let (mut from, mut to) = (0, 0);
        while let Some(rest) = self
            .bytes
            .get(from..self.len)
            .filter(|rest| !rest.is_empty())
        {
            let (byte, used) = unescape(rest, escape);
            if let Some(place) = self.bytes.get_mut(to) {
                *place = byte;
            }
            from += used;
            to += 1;
        }
        self.len = to;
    }
}

/// The first character of `text`, which is not empty, and the bytes it takes.
fn unescape(text: &[u8], escape: u8) -> (u8, usize) {
    let hex = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        u32::from_str_radix(digits, 16)
            .ok()
            .map(|code| u8::try_from(code).unwrap_or(0xFF))
    };
    match text {
        [first, second, ..] if *first == escape && *second == escape => (escape, 2),
        [first, b'+', digits @ ..] if *first == escape => digits
            .get(..6)
            .and_then(hex)
            .map_or((escape, 1), |byte| (byte, 8)),
        [first, digits @ ..] if *first == escape => digits
            .get(..4)
            .and_then(hex)
            .map_or((escape, 1), |byte| (byte, 5)),
        [first, ..] => (*first, 1),
        [] => (0, 1),
    }
}
