//! The PROXY header, by which a load balancer says whose connection it passes on: versions 1 and 2 of
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Of version 2, before the addresses.
const FIXED: usize = 16;
/// The longest header of version 1, its line end included.
const MAX_LINE: usize = 107;
/// The longest header of version 2 that is read; the extensions that are in use are much shorter.
const MAX_BINARY: usize = 4096;
/// The shortest header of all is `PROXY UNKNOWN` and a line end.
const SHORTEST: usize = 15;

/// What the beginning of a connection holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// So many bytes at least are missing, and all of them belong to the header.
    Need(usize),
    /// A whole header.
    Header {
        /// Whose connection it is; `None`: the load balancer's own, or of a kind without addresses.
        source: Option<SocketAddr>,
        /// How long it is.
        used: usize,
    },
}

/// Why it is no header.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// It begins otherwise.
    #[error("the connection does not begin with a PROXY header")]
    NoHeader,
    /// It is longer than a header may be.
    #[error("the PROXY header is too long")]
    TooLong,
    /// An address, a port or a length in it is wrong.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// The version or the command is none that we know.
    #[error("the PROXY header is of an unknown version")]
    Version,
}

/// Reads a header off the front of `input`. Copies and allocates nothing.
///
/// # Errors
/// There is none, or not a valid one.
pub fn parse(input: &[u8]) -> Result<Parsed, HeaderError> {
    let seen = input.len().min(SIGNATURE.len());
    if input.get(..seen) == SIGNATURE.get(..seen) && seen > 0 {
        return binary(input);
    }
    let seen = input.len().min(6);
    if input.get(..seen) != b"PROXY ".get(..seen) {
        return Err(HeaderError::NoHeader);
    }
    line(input)
}

fn line(input: &[u8]) -> Result<Parsed, HeaderError> {
    let within = input.get(..MAX_LINE).unwrap_or(input);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        if input.len() >= MAX_LINE {
            return Err(HeaderError::TooLong);
        }
        // The end is two bytes, of which one may be there.
        let end = if input.last() == Some(&b'\r') { 1 } else { 2 };
        return Ok(Parsed::Need(end.max(SHORTEST.saturating_sub(input.len()))));
    };
    let text = within
        .get(..end)
        .and_then(|it| it.strip_suffix(b"\r"))
        .and_then(|it| std::str::from_utf8(it).ok())
        .ok_or(HeaderError::Malformed)?;
    Ok(Parsed::Header {
        source: words(text)?,
        used: end + 1,
    })
}

fn words(text: &str) -> Result<Option<SocketAddr>, HeaderError> {
    let mut words = text.split(' ').skip(1);
    let family = words.next().ok_or(HeaderError::Malformed)?;
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut address = || -> Option<IpAddr> { words.next()?.parse().ok() };
    let (Some(source), Some(target)) = (address(), address()) else {
        return Err(HeaderError::Malformed);
    };
    let of_family = match family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| word.parse().ok())?
    };
    match (of_family, port(), port(), words.next()) {
        (true, Some(port), Some(_), None) => Ok(Some(SocketAddr::new(source, port))),
        _ => Err(HeaderError::Malformed),
    }
}

fn binary(input: &[u8]) -> Result<Parsed, HeaderError> {
    let Some(fixed) = input.first_chunk::<FIXED>() else {
        return Ok(Parsed::Need(FIXED - input.len()));
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let used = FIXED + length;
    if used > MAX_BINARY {
        return Err(HeaderError::TooLong);
    }
    let Some(rest) = input.get(FIXED..used) else {
        return Ok(Parsed::Need(used - input.len()));
    };
    let source = match command {
        // The load balancer's own connection, a health check.
        0x20 => None,
        0x21 => source(family, rest)?,
        _ => return Err(HeaderError::Version),
    };
    Ok(Parsed::Header { source, used })
}

/// The first of two addresses, whose ports stand behind both.
fn source(family: u8, addresses: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    let (address, port): (IpAddr, Option<&[u8; 2]>) = match family >> 4 {
        1 => {
            let address = addresses.first_chunk::<4>().ok_or(HeaderError::Malformed)?;
            (
                IpAddr::from(*address),
                addresses.get(8..12).and_then(<[u8]>::first_chunk),
            )
        }
        2 => {
            let address = addresses
                .first_chunk::<16>()
                .ok_or(HeaderError::Malformed)?;
            (
                IpAddr::from(*address),
                addresses.get(32..36).and_then(<[u8]>::first_chunk),
            )
        }
        // Unspecified, or a Unix socket.
        0 | 3 => return Ok(None),
        _ => return Err(HeaderError::Malformed),
    };
    let port = port.ok_or(HeaderError::Malformed)?;
    Ok(Some(SocketAddr::new(address, u16::from_be_bytes(*port))))
}

#[cfg(test)]
mod tests;
