//! What both sides compute from a password.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of every key and signature.
pub const KEY_LEN: usize = digest::SHA256_OUTPUT_LEN;

pub(super) type Key = [u8; KEY_LEN];

/// A password's keys. No `Debug`: they are secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramSecret {
    /// Shared by all passwords of a user.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2; shared by all passwords of a user.
    pub iterations: NonZeroU32,
    /// What a client needs to log in; as good as the password.
    pub client_key: [u8; KEY_LEN],
    /// What a server needs to check a client.
    pub stored_key: [u8; KEY_LEN],
    /// What a server needs to prove itself to a client.
    pub server_key: [u8; KEY_LEN],
}

impl ScramSecret {
    /// Computes the keys; slow by design. The password is taken as its bytes are, without SASLprep: give it ASCII.
    #[must_use]
    pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = [0; KEY_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            password,
            &mut salted,
        );
        let client_key = hmac(&salted, b"Client Key");
        Self {
            salt: salt.to_vec(),
            iterations,
            client_key,
            stored_key: sha256(&client_key),
            server_key: hmac(&salted, b"Server Key"),
        }
    }

    /// The text that PostgreSQL keeps in `pg_authid.rolpassword`, and that `CREATE ROLE … PASSWORD` takes instead of
    /// a password.
    #[must_use]
    pub fn verifier(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key)
        )
    }
}

pub(super) fn hmac(key: &[u8], data: &[u8]) -> Key {
    to_key(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref())
}

pub(super) fn sha256(data: &[u8]) -> Key {
    to_key(digest::digest(&digest::SHA256, data).as_ref())
}

pub(super) fn xor(mut left: Key, right: &Key) -> Key {
    left.iter_mut()
        .zip(right)
        .for_each(|(left, right)| *left ^= right);
    left
}

/// `output` always has this length: it is SHA-256's.
fn to_key(output: &[u8]) -> Key {
    let mut key = [0; KEY_LEN];
    key.copy_from_slice(output);
    key
}
