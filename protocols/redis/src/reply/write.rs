//! Writing replies and commands.

use super::mark;
use crate::number;

/// Which form of null, maps and the like a client reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// What a connection begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// A mark and a count or length.
#[inline]
pub fn header(out: &mut Vec<u8>, mark: u8, count: usize) {
    number::write_line(out, mark, count as u64);
}

fn line(out: &mut Vec<u8>, mark: u8, text: &[u8]) {
    out.push(mark);
    // A line end inside would begin a reply of its own.
    out.extend(text.iter().map(|byte| match byte {
        b'\r' | b'\n' => b' ',
        byte => *byte,
    }));
    out.extend_from_slice(b"\r\n");
}

fn counted(out: &mut Vec<u8>, mark: u8, bytes: &[u8]) {
    header(out, mark, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A simple string. Line ends become spaces.
pub fn simple(out: &mut Vec<u8>, text: &[u8]) {
    line(out, mark::SIMPLE, text);
}

/// `+OK`.
pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

/// An error: a code in capitals, a space and a sentence. Line ends become spaces.
pub fn error(out: &mut Vec<u8>, text: &[u8]) {
    line(out, mark::ERROR, text);
}

/// An integer.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    match u64::try_from(value) {
        Ok(value) => number::write_line(out, mark::INTEGER, value),
        Err(_) => line(out, mark::INTEGER, value.to_string().as_bytes()),
    }
}

/// A bulk string; as an argument of a command too.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    counted(out, mark::BULK, bytes);
}

/// A null.
pub fn null(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::Resp2 => b"$-1\r\n",
        Version::Resp3 => b"_\r\n",
    });
}

/// A null where there would be an array. RESP3 does not tell it from others.
pub fn null_array(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(match version {
        Version::Resp2 => b"*-1\r\n",
        Version::Resp3 => b"_\r\n",
    });
}

/// A boolean; in RESP2 an integer.
pub fn boolean(out: &mut Vec<u8>, version: Version, value: bool) {
    out.extend_from_slice(match (version, value) {
        (Version::Resp2, false) => b":0\r\n",
        (Version::Resp2, true) => b":1\r\n",
        (Version::Resp3, false) => b"#f\r\n",
        (Version::Resp3, true) => b"#t\r\n",
    });
}

/// A floating-point number; in RESP2 a bulk string.
pub fn double(out: &mut Vec<u8>, version: Version, value: f64) {
    let text = match value {
        value if value.is_nan() => "nan".to_owned(),
        f64::INFINITY => "inf".to_owned(),
        f64::NEG_INFINITY => "-inf".to_owned(),
        value => value.to_string(),
    };
    match version {
        Version::Resp2 => bulk(out, text.as_bytes()),
        Version::Resp3 => line(out, mark::DOUBLE, text.as_bytes()),
    }
}

/// An integer of any size, as text; in RESP2 a bulk string.
pub fn big_number(out: &mut Vec<u8>, version: Version, digits: &[u8]) {
    match version {
        Version::Resp2 => bulk(out, digits),
        Version::Resp3 => line(out, mark::BIG_NUMBER, digits),
    }
}

/// Plain text for people; in RESP2 a bulk string.
pub fn verbatim(out: &mut Vec<u8>, version: Version, text: &[u8]) {
    match version {
        Version::Resp2 => bulk(out, text),
        Version::Resp3 => {
            header(out, mark::VERBATIM, text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// An error of any length and with any bytes; in RESP2 a simple error.
pub fn bulk_error(out: &mut Vec<u8>, version: Version, text: &[u8]) {
    match version {
        Version::Resp2 => error(out, text),
        Version::Resp3 => counted(out, mark::BULK_ERROR, text),
    }
}

/// The beginning of an array, or of a command; `count` elements must follow.
#[inline]
pub fn array_header(out: &mut Vec<u8>, count: usize) {
    header(out, mark::ARRAY, count);
}

/// The beginning of a map of `pairs` keys and values; in RESP2 an array of twice as many.
pub fn map_header(out: &mut Vec<u8>, version: Version, pairs: usize) {
    match version {
        Version::Resp2 => array_header(out, pairs.saturating_mul(2)),
        Version::Resp3 => header(out, mark::MAP, pairs),
    }
}

/// The beginning of a set; in RESP2 an array.
pub fn set_header(out: &mut Vec<u8>, version: Version, count: usize) {
    match version {
        Version::Resp2 => array_header(out, count),
        Version::Resp3 => header(out, mark::SET, count),
    }
}

/// The beginning of a push; in RESP2 an array.
pub fn push_header(out: &mut Vec<u8>, version: Version, count: usize) {
    match version {
        Version::Resp2 => array_header(out, count),
        Version::Resp3 => header(out, mark::PUSH, count),
    }
}

/// A whole command.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    array_header(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}
