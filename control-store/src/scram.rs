//! What a SCRAM-SHA-256 login needs of a password (RFC 5802, RFC 7677).

use std::num::NonZeroU32;

use aws_lc_rs::{hmac, pbkdf2};
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::secret::sha256;
use crate::snapshot::ScramKeys;

/// PostgreSQL's default, and the least that RFC 7677 asks for.
pub const ITERATIONS: u32 = 4096;

/// Derives the keys of a password. Passwords of ours are ASCII, which SASLprep leaves as they are.
///
/// # Errors
/// `iterations` is zero.
pub fn derive(password: &str, salt: [u8; 16], iterations: u32) -> Result<ScramKeys, StoreError> {
    let count = NonZeroU32::new(iterations).ok_or(StoreError::Invalid {
        field: "iterations",
        why: "must be at least 1",
    })?;
    let mut salted = Zeroizing::new([0_u8; 32]);
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        count,
        &salt,
        password.as_bytes(),
        &mut *salted,
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*salted);
    Ok(ScramKeys {
        salt,
        iterations,
        client_key: sign(&key, b"Client Key"),
        server_key: sign(&key, b"Server Key"),
    })
}

/// `StoredKey` of a `ClientKey`.
pub fn stored_key(client_key: &[u8; 32]) -> [u8; 32] {
    sha256(client_key)
}

fn sign(key: &hmac::Key, text: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(key, text);
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3: user `user`, password `pencil`.
    #[test]
    fn keys_reproduce_the_exchange_of_the_rfc() {
        let salt = [
            0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36,
            0xfa, 0x81,
        ];
        let keys = derive("pencil", salt, 4096).unwrap();
        let auth = b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = sign(&hmac::Key::new(hmac::HMAC_SHA256, &keys.server_key), auth);
        // Base64 of it is 6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=.
        assert_eq!(signature[..6], [0xea, 0xba, 0xe2, 0x4d, 0x10, 0x62]);
        let client_signature = sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &stored_key(&keys.client_key)),
            auth,
        );
        let proof: Vec<u8> = client_signature
            .iter()
            .zip(keys.client_key)
            .map(|(a, b)| a ^ b)
            .collect();
        // Base64 of it is dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=.
        assert_eq!(proof[..6], [0x74, 0x7c, 0xdb, 0x65, 0xaa, 0x56]);
    }

    #[test]
    fn no_iterations_are_refused() {
        assert!(derive("pencil", [0; 16], 0).is_err());
    }
}
