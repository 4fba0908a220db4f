//! The frame of every message but the first: a tag, a length that counts itself, a body.

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 5;

/// Why bytes are not a frame. The connection cannot go on: the next message's start is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length does not even cover itself.
    #[error("declared length {declared} is below 4")]
    LengthBelowMinimum {
        /// What the peer sent.
        declared: u32,
    },
    /// The body is over the caller's limit.
    #[error("body of {body} bytes is over the limit of {max}")]
    TooLong {
        /// Bytes of the body, as declared.
        body: u32,
        /// The limit.
        max: u32,
    },
}

/// A message's first five bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message's type.
    pub tag: u8,
    /// Bytes that follow the header.
    pub body: u32,
}

/// What [`peek`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// At least this many more bytes are needed.
    Need(usize),
    /// A checked header; its body may not be there yet.
    Header(Header),
}

/// What [`split`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// At least this many more bytes are needed.
    Need(usize),
    /// One whole message.
    Message {
        /// Its type.
        tag: u8,
        /// Its body, without the header.
        body: &'a [u8],
        /// Bytes of the input that it took.
        used: usize,
    },
}

/// Reads only the header, for bodies that are forwarded by remaining length.
///
/// # Errors
/// A length below four or a body over `max_body`.
#[inline]
pub fn peek(input: &[u8], max_body: u32) -> Result<Peek, FrameError> {
    let Some([tag, len @ ..]) = input.first_chunk::<HEADER_LEN>() else {
        return Ok(Peek::Need(HEADER_LEN - input.len()));
    };
    let declared = u32::from_be_bytes(*len);
    let body = declared
        .checked_sub(4)
        .ok_or(FrameError::LengthBelowMinimum { declared })?;
    if body > max_body {
        return Err(FrameError::TooLong {
            body,
            max: max_body,
        });
    }
    Ok(Peek::Header(Header { tag: *tag, body }))
}

/// Splits one message off the front of `input`; copies and allocates nothing.
///
/// # Errors
/// As [`peek`].
#[inline]
pub fn split(input: &[u8], max_body: u32) -> Result<Split<'_>, FrameError> {
    let header = match peek(input, max_body)? {
        Peek::Need(more) => return Ok(Split::Need(more)),
        Peek::Header(header) => header,
    };
    let len = header.body as usize;
    let rest = input.get(HEADER_LEN..).unwrap_or_default();
    Ok(match rest.get(..len) {
        Some(body) => Split::Message {
            tag: header.tag,
            body,
            used: HEADER_LEN + len,
        },
        None => Split::Need(len - rest.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits_at_every_cut() {
        let input = b"Q\0\0\0\x0dSELECT 1\0S\0\0\0\x04";
        for cut in 0..14 {
            let expected = if cut < 5 { 5 - cut } else { 14 - cut };
            assert_eq!(
                split(&input[..cut], 9),
                Ok(Split::Need(expected)),
                "cut {cut}"
            );
        }
        let first = Split::Message {
            tag: b'Q',
            body: b"SELECT 1\0",
            used: 14,
        };
        assert_eq!(split(input, 9), Ok(first));
        let second = Split::Message {
            tag: b'S',
            body: b"",
            used: 5,
        };
        assert_eq!(split(&input[14..], 0), Ok(second));
    }

    #[test]
    fn refuses_hostile_lengths() {
        for declared in 0..4_u32 {
            let input = [&b"Q"[..], &declared.to_be_bytes()].concat();
            assert_eq!(
                split(&input, 9),
                Err(FrameError::LengthBelowMinimum { declared })
            );
        }
        let too_long = FrameError::TooLong { body: 10, max: 9 };
        assert_eq!(split(b"Q\0\0\0\x0e", 9), Err(too_long));
        let huge = FrameError::TooLong {
            body: u32::MAX - 4,
            max: 9,
        };
        assert_eq!(peek(b"Q\xff\xff\xff\xff", 9), Err(huge));
    }

    #[test]
    fn peeks_without_the_body() {
        assert_eq!(peek(b"d\x40\0", 1 << 30), Ok(Peek::Need(2)));
        let header = Header {
            tag: b'd',
            body: (1 << 30) - 4,
        };
        assert_eq!(peek(b"d\x40\0\0\0", 1 << 30), Ok(Peek::Header(header)));
    }

    proptest! {
        #[test]
        fn split_never_panics_nor_takes_too_much(input: Vec<u8>, max: u32) {
            match split(&input, max) {
                Ok(Split::Message { body, used, .. }) => prop_assert_eq!(used, body.len() + 5),
                Ok(Split::Need(more)) => prop_assert!(more > 0),
                Err(_) => {}
            }
        }
    }
}
