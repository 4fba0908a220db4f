//! The client's side, from keys that were derived once or from a password.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::attributes::{Attributes, check_message, check_nonce, decode_base64, decode_key};
use super::secret::{KEY_LEN, Key, ScramSecret, hmac, sha256, xor};
use super::{MAX_ITERATIONS, MAX_SALT, Mechanism, Nonce, ScramError};

/// What the client says about the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientBinding<'a> {
    /// The client cannot bind it (plaintext).
    Unsupported,
    /// The client could, but the server did not offer SCRAM-SHA-256-PLUS.
    NotOffered,
    /// The `tls-server-end-point` hash of the server's certificate.
    TlsServerEndPoint(&'a [u8]),
}

impl ClientBinding<'_> {
    /// The mechanism to name in SASLInitialResponse.
    #[must_use]
    pub fn mechanism(self) -> Mechanism {
        match self {
            Self::Unsupported | Self::NotOffered => Mechanism::Plain,
            Self::TlsServerEndPoint(_) => Mechanism::Plus,
        }
    }

    fn header_and_data(&self) -> (&'static str, &[u8]) {
        match self {
            Self::Unsupported => ("n,,", &[]),
            Self::NotOffered => ("y,,", &[]),
            Self::TlsServerEndPoint(data) => ("p=tls-server-end-point,,", data),
        }
    }
}

/// What the client knows. No `Debug`: it is a secret.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// Keys, which cost two hashes instead of thousands, for this salt and these iterations only.
    Keys {
        /// The salt that the keys were derived with.
        salt: &'a [u8],
        /// The iterations that the keys were derived with.
        iterations: NonZeroU32,
        /// See [`ScramSecret::client_key`].
        client_key: &'a [u8; KEY_LEN],
        /// See [`ScramSecret::server_key`].
        server_key: &'a [u8; KEY_LEN],
    },
    /// A password, as its bytes are.
    Password(&'a [u8]),
}

/// A login that waits for the server's first message.
#[derive(Clone, Debug)]
pub struct Client {
    /// `client-first-message-bare`.
    bare: String,
    /// What we send as `c=`.
    channel: String,
    nonce: Nonce,
}

impl Client {
    /// Begins a login and gives the first message. PostgreSQL ignores `user`; libpq leaves it empty.
    #[must_use]
    pub fn start(user: &str, binding: ClientBinding<'_>, nonce: Nonce) -> (Self, Vec<u8>) {
        let (header, data) = binding.header_and_data();
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={}", nonce.0);
        let first = format!("{header}{bare}").into_bytes();
        let channel = STANDARD.encode([header.as_bytes(), data].concat());
        (
            Self {
                bare,
                channel,
                nonce,
            },
            first,
        )
    }

    /// Takes the server's first message and gives the answer with the proof.
    ///
    /// # Errors
    /// The message is broken or over a limit, not an answer to ours, or not for these keys.
    pub fn respond(
        self,
        server_first: &[u8],
        credentials: Credentials<'_>,
    ) -> Result<(ClientFinal, Vec<u8>), ScramError> {
        let first = ServerFirst::parse(server_first)?;
        if first
            .nonce
            .strip_prefix(self.nonce.0.as_bytes())
            .is_none_or(<[u8]>::is_empty)
        {
            return Err(ScramError::Nonce);
        }
        let keys = first.keys(credentials)?;
        let channel = format!("c={},r=", self.channel);
        let without_proof = [channel.as_bytes(), first.nonce].concat();
        let auth_message = [
            self.bare.as_bytes(),
            b",",
            server_first,
            b",",
            &without_proof,
        ]
        .concat();

        let client_signature = hmac(&sha256(&keys.client), &auth_message);
        let proof = STANDARD.encode(xor(client_signature, &keys.client));
        let server_signature = hmac(&keys.server, &auth_message);
        let message = [&without_proof[..], b",p=", proof.as_bytes()].concat();
        Ok((ClientFinal { server_signature }, message))
    }
}

/// A login that waits for the server's proof. No `Debug`: who knows it can pose as the server.
pub struct ClientFinal {
    server_signature: Key,
}

impl ClientFinal {
    /// Takes the server's final message. Only now does the client know that it talks to the right server.
    ///
    /// # Errors
    /// The message is broken, or the server does not know the password.
    pub fn verify(self, server_final: &[u8]) -> Result<(), ScramError> {
        check_message(server_final)?;
        if server_final.starts_with(b"e=") {
            return Err(ScramError::ServerSignature);
        }
        let mut attributes = Attributes::new(server_final);
        let signature = decode_key(attributes.expect(b'v', "verifier expected")?, "verifier")?;
        attributes.skip_extensions()?;
        verify_slices_are_equal(&signature, &self.server_signature)
            .map_err(|_| ScramError::ServerSignature)
    }
}

struct Keys {
    client: Key,
    server: Key,
}

struct ServerFirst<'a> {
    nonce: &'a [u8],
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        check_message(message)?;
        let mut attributes = Attributes::new(message);
        let nonce = attributes.expect(b'r', "nonce expected")?;
        let salt = attributes.expect(b's', "salt expected")?;
        let iterations = attributes.expect(b'i', "iterations expected")?;
        attributes.skip_extensions()?;
        check_nonce(nonce)?;
        let salt = decode_base64(salt, "salt")?;
        if salt.len() > MAX_SALT {
            return Err(ScramError::TooLong);
        }
        Ok(Self {
            nonce,
            salt,
            iterations: parse_iterations(iterations)?,
        })
    }

    fn keys(&self, credentials: Credentials<'_>) -> Result<Keys, ScramError> {
        match credentials {
            Credentials::Keys {
                salt,
                iterations,
                client_key,
                server_key,
            } => {
                if salt != self.salt || iterations != self.iterations {
                    return Err(ScramError::StaleKeys);
                }
                Ok(Keys {
                    client: *client_key,
                    server: *server_key,
                })
            }
            Credentials::Password(password) => {
                if self.iterations.get() > MAX_ITERATIONS {
                    return Err(ScramError::TooLong);
                }
                let secret = ScramSecret::derive(password, &self.salt, self.iterations);
                Ok(Keys {
                    client: secret.client_key,
                    server: secret.server_key,
                })
            }
        }
    }
}

/// Digits only: Rust's own parser would also take a sign.
fn parse_iterations(value: &[u8]) -> Result<NonZeroU32, ScramError> {
    let text = std::str::from_utf8(value)
        .ok()
        .filter(|_| value.iter().all(u8::is_ascii_digit));
    text.and_then(|text| text.parse().ok())
        .ok_or(ScramError::Malformed("iterations"))
}
