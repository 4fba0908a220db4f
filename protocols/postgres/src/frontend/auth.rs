//! The three messages that share the tag `p`.

use crate::reader::{DecodeError, Reader};

/// The client's choice of a SASL mechanism and its first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// For example `SCRAM-SHA-256`.
    pub mechanism: &'a [u8],
    /// The first message; a client may leave it out and wait for an empty challenge.
    pub response: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mechanism = reader.cstr()?;
        let response = match reader.i32()? {
            -1 => None,
            len => {
                let len =
                    usize::try_from(len).map_err(|_| DecodeError::Invalid("response length"))?;
                Some(reader.take(len)?)
            }
        };
        reader.finish()?;
        Ok(Self {
            mechanism,
            response,
        })
    }
}

/// A later SASL message of the client: the whole body is the mechanism's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslResponse<'a> {
    /// The mechanism's bytes.
    pub data: &'a [u8],
}

impl<'a> SaslResponse<'a> {
    /// Reads a message's body. Every body is one.
    #[must_use]
    pub fn decode(body: &'a [u8]) -> Self {
        Self { data: body }
    }
}

/// A password, in the clear or hashed, as the server asked. No `Debug`: it is a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PasswordMessage<'a> {
    /// Without its zero byte.
    pub password: &'a [u8],
}

impl<'a> PasswordMessage<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let password = reader.cstr()?;
        reader.finish()?;
        Ok(Self { password })
    }
}
