//! Passwords of native roles, as SCRAM-SHA-256 keeps them (RFC 5802, RFC 7677).
//!
//! The server is given a verifier, never a password: no statement log on the way can hold one.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control_store::snapshot::{NativeRole, ScramKeys};

/// PBKDF2 rounds. The passwords are 256 random bits, which no number of rounds makes harder to guess, so this is
/// what PostgreSQL itself uses by default.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");

/// The system has no random bytes to give.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct RandomFailed;

/// Makes a role with a new random password.
///
/// # Errors
/// When the system's random number generator fails.
pub fn generate_role(name: &str) -> Result<NativeRole, RandomFailed> {
    let password = URL_SAFE_NO_PAD.encode(random::<32>()?);
    let scram = derive(&password, random::<16>()?, ITERATIONS);
    Ok(NativeRole {
        name: Arc::from(name),
        password: Arc::from(password),
        scram,
    })
}

/// Derives the keys of a password that is plain ASCII, which SASLprep leaves as it is.
pub fn derive(password: &str, salt: [u8; 16], iterations: NonZeroU32) -> ScramKeys {
    let mut salted = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        &salt,
        password.as_bytes(),
        &mut salted,
    );
    ScramKeys {
        salt,
        iterations: iterations.get(),
        client_key: hmac_sha256(&salted, b"Client Key"),
        server_key: hmac_sha256(&salted, b"Server Key"),
    }
}

/// What `pg_authid.rolpassword` holds: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
pub fn verifier(keys: &ScramKeys) -> String {
    let stored_key = digest::digest(&digest::SHA256, &keys.client_key);
    let mut text = String::with_capacity(140);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "SCRAM-SHA-256${}:{}${}:{}",
        keys.iterations,
        STANDARD.encode(keys.salt),
        STANDARD.encode(stored_key.as_ref()),
        STANDARD.encode(keys.server_key),
    );
    text
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

fn random<const N: usize>() -> Result<[u8; N], RandomFailed> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| RandomFailed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange printed in RFC 7677, section 3.
    #[test]
    fn keys_sign_the_exchange_of_the_rfc() {
        let mut salt = [0; 16];
        salt.copy_from_slice(&STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap());
        let keys = derive("pencil", salt, ITERATIONS);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac_sha256(&keys.server_key, message.as_bytes());
        assert_eq!(
            STANDARD.encode(signature),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let stored = digest::digest(&digest::SHA256, &keys.client_key);
        let mut proof = keys.client_key;
        let signature = hmac_sha256(stored.as_ref(), message.as_bytes());
        proof
            .iter_mut()
            .zip(signature)
            .for_each(|(key, byte)| *key ^= byte);
        assert_eq!(
            STANDARD.encode(proof),
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
    }

    #[test]
    fn a_verifier_has_the_servers_form() {
        let text = verifier(&derive("pencil", [7; 16], ITERATIONS));
        let (head, keys) = text.rsplit_once('$').unwrap();
        assert_eq!(head, "SCRAM-SHA-256$4096:BwcHBwcHBwcHBwcHBwcHBw==");
        let lengths: Vec<_> = keys
            .split(':')
            .map(|key| STANDARD.decode(key).unwrap().len())
            .collect();
        assert_eq!(lengths, [32, 32]);
    }

    #[test]
    fn passwords_are_random_and_43_characters_long() {
        let (one, two) = (generate_role("a").unwrap(), generate_role("a").unwrap());
        assert_eq!(one.password.len(), 43);
        assert_ne!(one.password, two.password);
        assert_ne!(one.scram.salt, two.scram.salt);
    }
}
