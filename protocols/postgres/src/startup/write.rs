//! Packets without a tag, as a client sends them.

use super::{CANCEL, MAX_CANCEL_KEY, MAX_PACKET, MIN_CANCEL_KEY, SSL};
use crate::writer::{self, EncodeError};

/// StartupMessage. `protocol` is [`crate::PROTOCOL_3_0`] or [`crate::PROTOCOL_3_2`].
///
/// # Errors
/// A zero byte in a name or value, an empty name, or more than a server takes.
pub fn startup_message<'a>(
    out: &mut Vec<u8>,
    protocol: u32,
    params: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), EncodeError> {
    writer::message(out, None, |out| {
        let start = out.len();
        out.extend(protocol.to_be_bytes());
        for (name, value) in params {
            if name.is_empty() {
                return Err(EncodeError::EmptyName);
            }
            writer::cstr(out, name)?;
            writer::cstr(out, value)?;
        }
        out.push(0);
        // The length field counts, too.
        if out.len() - start + 4 > MAX_PACKET as usize {
            return Err(EncodeError::TooLong);
        }
        Ok(())
    })
}

/// SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    out.extend(8_u32.to_be_bytes());
    out.extend(SSL.to_be_bytes());
}

/// CancelRequest, with the key as BackendKeyData gave it.
///
/// # Errors
/// A key that is not 4 to 256 bytes long.
pub fn cancel_request(out: &mut Vec<u8>, process_id: u32, key: &[u8]) -> Result<(), EncodeError> {
    if !(MIN_CANCEL_KEY..=MAX_CANCEL_KEY).contains(&key.len()) {
        return Err(EncodeError::TooLong);
    }
    writer::message(out, None, |out| {
        out.extend(CANCEL.to_be_bytes());
        out.extend(process_id.to_be_bytes());
        out.extend_from_slice(key);
        Ok(())
    })
}
