//! Passwords of native roles, as SCRAM-SHA-256 keeps them (RFC 5802, RFC 7677).
//!
//! The server is given a verifier, never a password: no statement log on the way can hold one.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use control_store::scram::{ITERATIONS, derive};
use control_store::snapshot::{NativeRole, ScramKeys};

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
    let scram = derive(&password, random::<16>()?, ITERATIONS).map_err(|_| RandomFailed)?;
    Ok(NativeRole {
        name: Arc::from(name),
        password: Arc::from(password),
        scram,
    })
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

    #[test]
    fn a_verifier_has_the_servers_form() {
        let text = verifier(&derive("pencil", [7; 16], ITERATIONS).unwrap());
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
