//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides (RFC 5802, RFC 7677, channel binding of RFC 5929).
//!
//! The server side serves many passwords under one user name: they share salt and iterations, and the client's proof
//! decides which of them it has. Passwords are taken as their bytes are: SASLprep (RFC 4013) is **not** applied, so a
//! password with characters outside ASCII may fail where PostgreSQL, which normalizes it, accepts it.

mod attributes;
mod client;
mod secret;
mod server;

pub use client::{Client, ClientBinding, ClientFinal, Credentials};
pub use secret::{KEY_LEN, ScramSecret};
pub use server::{Accepted, Candidate, Server, mock_salt};

use std::num::NonZeroU32;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &[u8] = b"SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &[u8] = b"SCRAM-SHA-256-PLUS";
/// The most bytes that one message of a peer may have.
pub const MAX_MESSAGE: usize = 4096;
/// The longest nonce that a peer may send.
pub const MAX_NONCE: usize = 512;
/// The longest salt that a server may send.
pub const MAX_SALT: usize = 256;
/// The most rounds of PBKDF2 that a server may ask of a client that has a password only.
pub const MAX_ITERATIONS: u32 = 1_000_000;
/// Rounds where nobody says otherwise; PostgreSQL's default, and the least that RFC 7677 allows.
pub const DEFAULT_ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

const NONCE_BYTES: usize = 18;

/// Why a login cannot go on. Only [`ScramError::WrongProof`] may have been a wrong password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message or one of its parts is over its limit.
    #[error("SCRAM message too long")]
    TooLong,
    /// A message is not what the specification says.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The client asks for what we do not have: an authorization identity, another channel binding.
    #[error("unsupported SCRAM feature: {0}")]
    Unsupported(&'static str),
    /// The client could have bound the channel, but somebody hid from it that we offer it.
    #[error("client supports channel binding but thinks the server does not")]
    Downgrade,
    /// The client is bound to another TLS channel than ours: somebody sits in between.
    #[error("SCRAM channel binding check failed")]
    ChannelBinding,
    /// The peer does not repeat our nonce.
    #[error("invalid SCRAM nonce")]
    Nonce,
    /// The client's proof fits none of the candidates.
    #[error("SCRAM proof does not match")]
    WrongProof,
    /// The server's salt or iterations are not those of the given keys.
    #[error("SCRAM keys were derived from another salt or number of iterations")]
    StaleKeys,
    /// The server sent an error, or a signature that shows that it does not know the password.
    #[error("server could not prove that it knows the password")]
    ServerSignature,
    /// The system gave no random bytes.
    #[error("no random bytes")]
    Random,
}

/// What a client chooses between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// Without channel binding.
    Plain,
    /// With channel binding.
    Plus,
}

impl Mechanism {
    /// The mechanism of this name.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            SCRAM_SHA_256 => Some(Self::Plain),
            SCRAM_SHA_256_PLUS => Some(Self::Plus),
            _ => None,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Plain => SCRAM_SHA_256,
            Self::Plus => SCRAM_SHA_256_PLUS,
        }
    }
}

/// One side's contribution to a login's nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A fresh one, from the system's random bytes.
    ///
    /// # Errors
    /// The system gave none.
    pub fn random() -> Result<Self, ScramError> {
        let mut bytes = [0; NONCE_BYTES];
        rand::fill(&mut bytes).map_err(|_| ScramError::Random)?;
        Ok(Self(STANDARD.encode(bytes)))
    }

    /// A given one, so that a login can be repeated byte for byte.
    ///
    /// # Errors
    /// It is empty, too long, or has other than printable ASCII without blank and comma.
    pub fn new(text: &str) -> Result<Self, ScramError> {
        attributes::check_nonce(text.as_bytes())?;
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests;
