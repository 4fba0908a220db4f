//! The syntax of all messages: attributes of one letter, `=` and a value, parted by commas.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::secret::{KEY_LEN, Key};
use super::{MAX_MESSAGE, MAX_NONCE, ScramError};

/// Reads a message's attributes in their order.
pub(super) struct Attributes<'a>(Option<&'a [u8]>);

impl<'a> Attributes<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self(Some(message))
    }

    /// The value of the next attribute, which must have this name.
    pub(super) fn expect(&mut self, name: u8, or: &'static str) -> Result<&'a [u8], ScramError> {
        match self.next()? {
            Some((found, value)) if found == name => Ok(value),
            _ => Err(ScramError::Malformed(or)),
        }
    }

    /// The rest must be well-formed extensions, which we know none of and may ignore.
    pub(super) fn skip_extensions(&mut self) -> Result<(), ScramError> {
        while self.next()?.is_some() {}
        Ok(())
    }

    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, ScramError> {
        let Some(input) = self.0 else { return Ok(None) };
        let (attribute, rest) = match split_once(input, b',') {
            Some((attribute, rest)) => (attribute, Some(rest)),
            None => (input, None),
        };
        self.0 = rest;
        match attribute {
            [name, b'=', value @ ..] if name.is_ascii_alphabetic() => Ok(Some((*name, value))),
            _ => Err(ScramError::Malformed("attribute")),
        }
    }
}

fn split_once(input: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = input.iter().position(|&byte| byte == at)?;
    let (head, tail) = input.split_at_checked(position)?;
    Some((head, tail.get(1..)?))
}

/// Every message passes through here before anything looks at it.
pub(super) fn check_message(message: &[u8]) -> Result<(), ScramError> {
    if message.len() > MAX_MESSAGE {
        return Err(ScramError::TooLong);
    }
    if message.contains(&0) {
        return Err(ScramError::Malformed("zero byte"));
    }
    Ok(())
}

pub(super) fn check_nonce(nonce: &[u8]) -> Result<(), ScramError> {
    if nonce.len() > MAX_NONCE {
        return Err(ScramError::TooLong);
    }
    if nonce.is_empty()
        || !nonce
            .iter()
            .all(|&byte| byte.is_ascii_graphic() && byte != b',')
    {
        return Err(ScramError::Malformed("nonce"));
    }
    Ok(())
}

pub(super) fn decode_base64(value: &[u8], or: &'static str) -> Result<Vec<u8>, ScramError> {
    STANDARD
        .decode(value)
        .map_err(|_| ScramError::Malformed(or))
}

pub(super) fn decode_key(value: &[u8], or: &'static str) -> Result<Key, ScramError> {
    let bytes = decode_base64(value, or)?;
    <[u8; KEY_LEN]>::try_from(bytes).map_err(|_| ScramError::Malformed(or))
}
