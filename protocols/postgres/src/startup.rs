//! What a client sends before anything else. These packets have a length but no tag.

mod options;
pub mod write;

pub use options::{OptionError, Setting, Settings, settings};

use crate::reader::{DecodeError, Reader};

/// PostgreSQL's own limit on a startup packet, its length field included (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_PACKET: u32 = 10_000;
/// The longest cancel key of protocol 3.2; the shortest (and the only one of 3.0) has 4 bytes.
pub const MAX_CANCEL_KEY: usize = 256;
pub(crate) const MIN_CANCEL_KEY: usize = 4;

pub(crate) const CANCEL: u32 = (1234 << 16) | 5678;
pub(crate) const SSL: u32 = (1234 << 16) | 5679;
pub(crate) const GSS_ENC: u32 = (1234 << 16) | 5680;

/// The answer to [`StartupPacket::Ssl`] or [`StartupPacket::GssEnc`]: no, go on in plaintext.
pub const ENCRYPTION_REFUSED: u8 = b'N';
/// The answer to [`StartupPacket::Ssl`]: yes, send the ClientHello.
pub const SSL_ACCEPTED: u8 = b'S';
/// The first byte of a TLS handshake record, which a direct TLS client (PostgreSQL 17) opens with.
pub const DIRECT_TLS: u8 = 0x16;

/// Why bytes are not a startup packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length is below the smallest packet's or over [`MAX_PACKET`].
    #[error("invalid length of startup packet: {0}")]
    Length(u32),
    /// A code that is neither a request nor protocol 3; PostgreSQL's "unsupported frontend protocol".
    #[error("unsupported frontend protocol {major}.{minor}")]
    Unsupported {
        /// Upper half of the code.
        major: u16,
        /// Lower half of the code.
        minor: u16,
    },
    /// The packet's fields are broken.
    #[error("invalid startup packet: {0}")]
    Decode(#[from] DecodeError),
}

/// What [`split`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// At least this many more bytes are needed.
    Need(usize),
    /// One whole packet.
    Packet {
        /// What it says.
        packet: StartupPacket<'a>,
        /// Bytes of the input that it took.
        used: usize,
    },
}

/// A packet without a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupPacket<'a> {
    /// The client wants TLS.
    Ssl,
    /// The client wants GSSAPI encryption.
    GssEnc,
    /// The client wants a running query of another connection cancelled.
    Cancel {
        /// The other connection's, from its BackendKeyData.
        process_id: u32,
        /// The other connection's secret, 4 to 256 bytes.
        key: &'a [u8],
    },
    /// The client wants a session. Major is 3; any minor is accepted here, NegotiateProtocolVersion settles it.
    Startup {
        /// Always 3.
        major: u16,
        /// 0 for most drivers, 2 since PostgreSQL 18; 9999 to test negotiation.
        minor: u16,
        /// Names and values, checked.
        params: Params<'a>,
    },
}

/// The names and values of a StartupMessage, in order. Checked when split, so iteration cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params<'a>(&'a [u8]);

impl<'a> Params<'a> {
    /// The last value of a name: PostgreSQL, too, lets a later one win.
    #[must_use]
    pub fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        self.filter(|(key, _)| *key == name)
            .last()
            .map(|(_, value)| value)
    }

    fn parse(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        while !reader.cstr()?.is_empty() {
            reader.cstr()?;
        }
        reader.finish()?;
        Ok(Self(body))
    }
}

impl<'a> Iterator for Params<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::new(self.0);
        let name = reader.cstr().ok().filter(|name| !name.is_empty())?;
        let value = reader.cstr().ok()?;
        self.0 = reader.rest();
        Some((name, value))
    }
}

/// Splits one packet off the front of `input`; copies and allocates nothing.
///
/// # Errors
/// A length out of bounds, a code that is not ours, or broken fields.
pub fn split(input: &[u8]) -> Result<Split<'_>, StartupError> {
    let Some((len, rest)) = input.split_first_chunk::<4>() else {
        return Ok(Split::Need(4 - input.len()));
    };
    let declared = u32::from_be_bytes(*len);
    if !(8..=MAX_PACKET).contains(&declared) {
        return Err(StartupError::Length(declared));
    }
    let len = declared as usize - 4;
    match rest.get(..len) {
        Some(body) => Ok(Split::Packet {
            packet: decode(body)?,
            used: len + 4,
        }),
        None => Ok(Split::Need(len - rest.len())),
    }
}

fn decode(body: &[u8]) -> Result<StartupPacket<'_>, StartupError> {
    let mut reader = Reader::new(body);
    let code = reader.u32()?;
    let packet = match code {
        SSL => StartupPacket::Ssl,
        GSS_ENC => StartupPacket::GssEnc,
        CANCEL => cancel(&mut reader)?,
        _ => return startup(code, reader.rest()),
    };
    reader.finish()?;
    Ok(packet)
}

fn cancel<'a>(reader: &mut Reader<'a>) -> Result<StartupPacket<'a>, DecodeError> {
    let process_id = reader.u32()?;
    let key = reader.rest();
    if !(MIN_CANCEL_KEY..=MAX_CANCEL_KEY).contains(&key.len()) {
        return Err(DecodeError::Invalid("cancel key length"));
    }
    Ok(StartupPacket::Cancel { process_id, key })
}

fn startup(code: u32, rest: &[u8]) -> Result<StartupPacket<'_>, StartupError> {
    let [a, b, c, d] = code.to_be_bytes();
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if major != 3 {
        return Err(StartupError::Unsupported { major, minor });
    }
    Ok(StartupPacket::Startup {
        major,
        minor,
        params: Params::parse(rest)?,
    })
}

#[cfg(test)]
mod tests;
