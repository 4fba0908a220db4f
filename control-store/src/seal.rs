//! Secrets at rest: AES-256-GCM, bound to the row they stand in.
//!
//! A sealed value is `0x01`, 12 bytes of nonce, the ciphertext, 16 bytes of tag. Its associated data is the purpose,
//! a zero byte and the row's id, so that a value copied to another row or column does not open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::secret::{Secret, hex, random};

const VERSION: u8 = 1;
const NONCE_LEN: usize = 12;

/// What a sealed value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A full API key.
    ApiKey,
    /// A proxy password.
    ProxyPassword,
    /// The native roles of a database.
    NativeRoles,
    /// The administrator's password of a server.
    ServerPassword,
    /// The password of the user that selects among a Redis server's databases.
    SelectPassword,
    /// An answer of the API, which may show secrets.
    Answer,
    /// Proves that the key belongs to the store.
    Check,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::ApiKey => "api-key",
            Self::ProxyPassword => "proxy-password",
            Self::NativeRoles => "native-roles",
            Self::ServerPassword => "server-password",
            Self::SelectPassword => "select-password",
            Self::Answer => "answer",
            Self::Check => "check",
        }
    }

    fn associated_data(self, row: u64) -> Vec<u8> {
        let mut data = self.name().as_bytes().to_vec();
        data.push(0);
        data.extend_from_slice(&row.to_be_bytes());
        data
    }
}

/// Seals and opens. It has no `Debug`: it holds the key.
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// A sealer with a key from elsewhere, such as the environment.
    ///
    /// # Errors
    /// The cryptographic library refused the key.
    pub fn from_key(key: &[u8; 32]) -> Result<Self, StoreError> {
        RandomizedNonceKey::new(&AES_256_GCM, key)
            .map(Self)
            .map_err(|_| StoreError::Crypto)
    }

    /// A sealer with the key in that file, which is made with mode 0600 if there is none.
    ///
    /// # Errors
    /// The file cannot be read or made, is open to other users, or holds no key.
    pub fn from_file(path: &Path) -> Result<Self, StoreError> {
        let fault = |why: String| StoreError::KeyFile {
            path: path.to_owned(),
            why,
        };
        let text = match read_key(path) {
            Err(KeyFault::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                create_key(path)?;
                read_key(path)
            }
            other => other,
        };
        let text = text.map_err(|e| fault(e.to_string()))?;
        let key = parse_hex(text.trim_end()).ok_or_else(|| {
            fault("it must hold 64 hex digits: put back the file that was there".into())
        })?;
        Self::from_key(&key)
    }

    /// Seals a value for one purpose and one row.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn seal(&self, purpose: Purpose, row: u64, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut body = plain.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose.associated_data(row)), &mut body)
            .map_err(|_| StoreError::Crypto)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what was sealed for that purpose and row.
    ///
    /// # Errors
    /// It was changed, moved, or sealed with another key.
    pub fn open(
        &self,
        purpose: Purpose,
        row: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let (nonce, body) = match sealed {
            [VERSION, rest @ ..] => rest
                .split_first_chunk::<NONCE_LEN>()
                .ok_or(StoreError::SealBroken)?,
            _ => return Err(StoreError::SealBroken),
        };
        let mut body = Zeroizing::new(body.to_vec());
        let len = self
            .0
            .open_in_place(
                Nonce::from(nonce),
                Aad::from(purpose.associated_data(row)),
                &mut body,
            )
            .map_err(|_| StoreError::SealBroken)?
            .len();
        body.truncate(len);
        Ok(body)
    }

    /// Opens a sealed text.
    ///
    /// # Errors
    /// As [`Sealer::open`].
    pub fn open_text(
        &self,
        purpose: Purpose,
        row: u64,
        sealed: &[u8],
    ) -> Result<Secret, StoreError> {
        let plain = self.open(purpose, row, sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| StoreError::SealBroken)?;
        Ok(Secret::new(text.to_owned()))
    }
}

#[derive(Debug, thiserror::Error)]
enum KeyFault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("other users can read it: run chmod 600 on it")]
    Open,
}

fn read_key(path: &Path) -> Result<Zeroizing<String>, KeyFault> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(KeyFault::Open);
    }
    let mut text = Zeroizing::new(String::new());
    // A key and a line end; whatever is longer is no key.
    file.take(80).read_to_string(&mut text)?;
    Ok(text)
}

/// Makes the file whole or not at all, so that a crash leaves no half a key behind.
fn create_key(path: &Path) -> Result<(), StoreError> {
    let key = Zeroizing::new(hex(&*Zeroizing::new(random::<32>()?)) + "\n");
    write_new(path, key.as_bytes()).map_err(|e| StoreError::KeyFile {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

fn write_new(path: &Path, contents: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn parse_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut key = Zeroizing::new([0; 32]);
    for (byte, pair) in key.iter_mut().zip(pairs) {
        let digits = std::str::from_utf8(pair)
            .ok()
            .filter(|d| !d.starts_with('+'))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> Sealer {
        Sealer::from_key(&[7; 32]).unwrap()
    }

    #[test]
    fn a_sealed_value_opens_in_its_place() {
        let sealed = sealer().seal(Purpose::ApiKey, 3, b"secret").unwrap();
        assert_eq!(
            *sealer().open(Purpose::ApiKey, 3, &sealed).unwrap(),
            b"secret"
        );
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
    }

    #[test]
    fn the_same_value_never_seals_alike() {
        assert_ne!(
            sealer().seal(Purpose::ApiKey, 3, b"x").unwrap(),
            sealer().seal(Purpose::ApiKey, 3, b"x").unwrap()
        );
    }

    #[test]
    fn another_row_purpose_or_key_does_not_open() {
        let sealed = sealer().seal(Purpose::ApiKey, 3, b"secret").unwrap();
        assert!(sealer().open(Purpose::ApiKey, 4, &sealed).is_err());
        assert!(sealer().open(Purpose::ProxyPassword, 3, &sealed).is_err());
        assert!(
            Sealer::from_key(&[8; 32])
                .unwrap()
                .open(Purpose::ApiKey, 3, &sealed)
                .is_err()
        );
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let sealed = sealer().seal(Purpose::NativeRoles, 1, b"secret").unwrap();
        for (at, bit) in (0..sealed.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bad = sealed.clone();
            bad[at] ^= 1 << bit;
            assert!(
                sealer().open(Purpose::NativeRoles, 1, &bad).is_err(),
                "byte {at} bit {bit}"
            );
        }
        for cut in 0..sealed.len() {
            assert!(
                sealer()
                    .open(Purpose::NativeRoles, 1, &sealed[..cut])
                    .is_err(),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn the_key_file_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let sealed = Sealer::from_file(&path)
            .unwrap()
            .seal(Purpose::Check, 0, b"x")
            .unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(
            Sealer::from_file(&path)
                .unwrap()
                .open(Purpose::Check, 0, &sealed)
                .is_ok()
        );
    }

    #[test]
    fn a_key_file_open_to_others_or_without_a_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        Sealer::from_file(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refusal = Sealer::from_file(&path).err().unwrap().to_string();
        assert!(refusal.contains("chmod 600"), "{refusal}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in [
            "",
            "abcd\n",
            &"zz".repeat(32),
            &"+1".repeat(32),
            &"ab".repeat(33),
        ] {
            fs::write(&path, bad).unwrap();
            assert!(Sealer::from_file(&path).is_err(), "{bad:?}");
        }
    }
}
