//! The messages that share the tag `R`.

use crate::reader::{DecodeError, Reader};

pub(super) const OK: u32 = 0;
const CLEARTEXT_PASSWORD: u32 = 3;
const MD5_PASSWORD: u32 = 5;
pub(super) const SASL: u32 = 10;
pub(super) const SASL_CONTINUE: u32 = 11;
pub(super) const SASL_FINAL: u32 = 12;

/// What the server asks of a client that logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing more.
    Ok,
    /// The password as it is.
    CleartextPassword,
    /// The password hashed with this salt.
    Md5Password {
        /// From the server.
        salt: [u8; 4],
    },
    /// One of these SASL mechanisms.
    Sasl(Mechanisms<'a>),
    /// The mechanism's next message.
    SaslContinue(&'a [u8]),
    /// The mechanism's last message.
    SaslFinal(&'a [u8]),
    /// A method that is not ours (GSSAPI, SSPI, Kerberos, SCM).
    Other(u32),
}

/// Names of SASL mechanisms, the server's favourite first. Checked when decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanisms<'a>(&'a [u8]);

impl<'a> Iterator for Mechanisms<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::new(self.0);
        let name = reader.cstr().ok().filter(|name| !name.is_empty())?;
        self.0 = reader.rest();
        Some(name)
    }
}

impl<'a> Mechanisms<'a> {
    fn decode(list: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(list);
        while !reader.cstr()?.is_empty() {}
        reader.finish()?;
        Ok(Self(list))
    }
}

impl<'a> Authentication<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let message = match reader.u32()? {
            OK => Self::Ok,
            CLEARTEXT_PASSWORD => Self::CleartextPassword,
            MD5_PASSWORD => Self::Md5Password {
                salt: reader.array()?,
            },
            SASL => Self::Sasl(Mechanisms::decode(reader.rest())?),
            SASL_CONTINUE => Self::SaslContinue(reader.rest()),
            SASL_FINAL => Self::SaslFinal(reader.rest()),
            other => return Ok(Self::Other(other)),
        };
        reader.finish()?;
        Ok(message)
    }
}
