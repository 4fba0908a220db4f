//! Texts that must not reach a log, and the forms in which they are drawn.

use aws_lc_rs::{digest, rand};
use zeroize::Zeroizing;

use crate::error::StoreError;

/// A secret text, wiped when dropped. It has neither `Debug` nor `Display`, so that it cannot be logged by accident.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a secret text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the one place that must show or send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What a full API key begins with.
pub const API_KEY_PREFIX: &str = "tenantsdb_sk_";

/// A new full API key: `tenantsdb_sk_` and 64 hex digits.
///
/// # Errors
/// The system gives no randomness.
pub fn new_api_key() -> Result<Secret, StoreError> {
    Ok(Secret::new(format!(
        "{API_KEY_PREFIX}{}",
        random_hex::<32>()?
    )))
}

/// A new proxy password: `tdb_` and 16 hex digits.
///
/// # Errors
/// The system gives no randomness.
pub fn new_proxy_password() -> Result<Secret, StoreError> {
    Ok(Secret::new(format!("tdb_{}", random_hex::<8>()?)))
}

/// A new password for a user of ours on a server: 64 hex digits.
pub(crate) fn new_server_password() -> Result<Secret, StoreError> {
    Ok(Secret::new(random_hex::<32>()?))
}

/// A new project id: `tdb_` and 8 hex digits.
///
/// # Errors
/// The system gives no randomness.
pub fn new_project_id() -> Result<String, StoreError> {
    Ok(format!("tdb_{}", random_hex::<4>()?))
}

/// What a key is looked up by.
pub fn api_key_hash(full_key: &str) -> [u8; 32] {
    sha256(full_key.as_bytes())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| StoreError::Crypto)?;
    Ok(bytes)
}

pub(crate) fn random_hex<const N: usize>() -> Result<String, StoreError> {
    Ok(hex(&random::<N>()?))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, prefix: &str, digits: usize) {
        let rest = text.strip_prefix(prefix).expect("prefix");
        assert_eq!(rest.len(), digits);
        assert!(
            rest.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        );
    }

    #[test]
    fn forms_are_those_of_the_reference() {
        check(new_api_key().unwrap().expose(), "tenantsdb_sk_", 64);
        check(new_proxy_password().unwrap().expose(), "tdb_", 16);
        check(&new_project_id().unwrap(), "tdb_", 8);
        assert_ne!(
            new_api_key().unwrap().expose(),
            new_api_key().unwrap().expose()
        );
    }

    #[test]
    fn a_key_is_looked_up_by_its_sha256() {
        // From FIPS 180-2, appendix B.1.
        assert_eq!(
            hex(&api_key_hash("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
