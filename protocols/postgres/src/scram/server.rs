//! The server's side, for many passwords under one user name.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::attributes::{Attributes, check_message, check_nonce, decode_key};
use super::secret::{KEY_LEN, Key, hmac, sha256, xor};
use super::{Mechanism, Nonce, ScramError};

/// Bytes of the salts that we make.
const SALT_LEN: usize = 16;

/// One of the passwords that a user may have. No `Debug`: it is a secret.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// Checks the client's proof.
    pub stored_key: &'a [u8; KEY_LEN],
    /// Proves us to the client.
    pub server_key: &'a [u8; KEY_LEN],
}

/// A login that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which candidate the client has the password of; the first, if several are equal.
    pub index: usize,
    /// The message that ends the exchange (AuthenticationSASLFinal).
    pub server_final: Vec<u8>,
}

/// A login that waits for the client's proof.
#[derive(Clone, Debug)]
pub struct Server {
    /// The start of the text that both sides sign: `client-first-message-bare,server-first-message,`.
    auth_message: Vec<u8>,
    /// What the client must send as `c=`.
    channel: String,
    /// What the client must send as `r=`.
    nonce: Vec<u8>,
}

impl Server {
    /// Takes the client's first message and gives the answer to it (AuthenticationSASLContinue).
    ///
    /// `binding` is the `tls-server-end-point` hash of our certificate if SCRAM-SHA-256-PLUS was offered, else `None`.
    /// For a user that does not exist take [`mock_salt`] and go on as if it did. The user name inside the message is
    /// ignored, as PostgreSQL does: the one of the StartupMessage counts.
    ///
    /// # Errors
    /// The message is broken, asks for what we do not have, or shows that somebody hid our offer.
    pub fn start(
        mechanism: Mechanism,
        binding: Option<&[u8]>,
        client_first: &[u8],
        salt: &[u8],
        iterations: NonZeroU32,
        nonce: &Nonce,
    ) -> Result<(Self, Vec<u8>), ScramError> {
        check_message(client_first)?;
        let (header, bare) = split_header(client_first)?;
        let channel = channel(mechanism, binding, header)?;
        let mut attributes = Attributes::new(bare);
        attributes.expect(b'n', "user name expected")?;
        let client_nonce = attributes.expect(b'r', "nonce expected")?;
        attributes.skip_extensions()?;
        check_nonce(client_nonce)?;

        let nonce = [client_nonce, nonce.0.as_bytes()].concat();
        let parameters = format!(",s={},i={iterations}", STANDARD.encode(salt));
        let server_first = [b"r=", &nonce[..], parameters.as_bytes()].concat();
        let auth_message = [bare, b",", &server_first, b","].concat();
        Ok((
            Self {
                auth_message,
                channel,
                nonce,
            },
            server_first,
        ))
    }

    /// Takes the client's final message and finds whose proof it holds.
    ///
    /// Every candidate is checked, also after one fits, each in constant time; without any candidate one check is done
    /// in vain. So the time tells at most how many there are.
    ///
    /// # Errors
    /// The message is broken, of another channel or login, or its proof fits no candidate.
    pub fn finish<'c>(
        mut self,
        client_final: &[u8],
        candidates: impl IntoIterator<Item = Candidate<'c>>,
    ) -> Result<Accepted, ScramError> {
        check_message(client_final)?;
        let (without_proof, proof) = split_proof(client_final)?;
        self.check_final(without_proof)?;
        let proof = decode_key(proof, "proof")?;
        self.auth_message.extend_from_slice(without_proof);

        let (index, server_key) = self
            .find(&proof, candidates)
            .ok_or(ScramError::WrongProof)?;
        let signature = hmac(&server_key, &self.auth_message);
        let server_final = format!("v={}", STANDARD.encode(signature)).into_bytes();
        Ok(Accepted {
            index,
            server_final,
        })
    }

    fn check_final(&self, without_proof: &[u8]) -> Result<(), ScramError> {
        let mut attributes = Attributes::new(without_proof);
        let channel = attributes.expect(b'c', "channel binding expected")?;
        let nonce = attributes.expect(b'r', "nonce expected")?;
        attributes.skip_extensions()?;
        if channel != self.channel.as_bytes() {
            return Err(ScramError::ChannelBinding);
        }
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        Ok(())
    }

    fn find<'c>(
        &self,
        proof: &Key,
        candidates: impl IntoIterator<Item = Candidate<'c>>,
    ) -> Option<(usize, Key)> {
        let mut found = None;
        let mut checked = false;
        for (index, candidate) in candidates.into_iter().enumerate() {
            let fits = self.proves(proof, candidate.stored_key);
            found = found.or(fits.then_some((index, *candidate.server_key)));
            checked = true;
        }
        if !checked {
            std::hint::black_box(self.proves(proof, &[0; KEY_LEN]));
        }
        found
    }

    fn proves(&self, proof: &Key, stored_key: &Key) -> bool {
        let client_key = xor(hmac(stored_key, &self.auth_message), proof);
        verify_slices_are_equal(&sha256(&client_key), stored_key).is_ok()
    }
}

/// The salt to show for a user that does not exist: always the same, and not to be told from a real one without
/// `secret`.
#[must_use]
pub fn mock_salt(secret: &[u8], user: &[u8]) -> [u8; SALT_LEN] {
    let tag = hmac(secret, user);
    let mut salt = [0; SALT_LEN];
    salt.iter_mut().zip(tag).for_each(|(salt, tag)| *salt = tag);
    salt
}

/// Parts the `gs2-header`, without its last comma, from `client-first-message-bare`.
fn split_header(message: &[u8]) -> Result<(&[u8], &[u8]), ScramError> {
    let mut commas = message
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b',')
        .map(|(at, _)| at);
    let (Some(_), Some(second)) = (commas.next(), commas.next()) else {
        return Err(ScramError::Malformed("GS2 header"));
    };
    let (header, rest) = message
        .split_at_checked(second)
        .ok_or(ScramError::Malformed("GS2 header"))?;
    Ok((header, rest.get(1..).unwrap_or_default()))
}

/// What the client must send as `c=`, if its header is acceptable.
fn channel(
    mechanism: Mechanism,
    binding: Option<&[u8]>,
    header: &[u8],
) -> Result<String, ScramError> {
    let flag = header
        .strip_suffix(b",")
        .ok_or(ScramError::Unsupported("authorization identity"))?;
    let data = match (flag, mechanism, binding) {
        (b"n", Mechanism::Plain, _) | (b"y", Mechanism::Plain, None) => &[],
        (b"y", Mechanism::Plain, Some(_)) => return Err(ScramError::Downgrade),
        (b"p=tls-server-end-point", Mechanism::Plus, Some(data)) => data,
        (b"p=tls-server-end-point", Mechanism::Plus, None) => {
            return Err(ScramError::Unsupported("channel binding without TLS"));
        }
        (b"n" | b"y", Mechanism::Plus, _) => {
            return Err(ScramError::Malformed("channel binding expected"));
        }
        ([b'p', b'=', ..], Mechanism::Plain, _) => {
            return Err(ScramError::Malformed("unexpected channel binding"));
        }
        ([b'p', b'=', ..], Mechanism::Plus, _) => {
            return Err(ScramError::Unsupported("channel binding type"));
        }
        _ => return Err(ScramError::Malformed("GS2 header")),
    };
    Ok(STANDARD.encode([header, b",", data].concat()))
}

/// Parts the proof, which comes last, from what is signed.
fn split_proof(message: &[u8]) -> Result<(&[u8], &[u8]), ScramError> {
    const MARK: &[u8] = b",p=";
    let at = message
        .windows(MARK.len())
        .rposition(|window| window == MARK);
    let (signed, rest) = at
        .and_then(|at| message.split_at_checked(at))
        .ok_or(ScramError::Malformed("proof"))?;
    Ok((signed, rest.get(MARK.len()..).unwrap_or_default()))
}
