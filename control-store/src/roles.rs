//! How the native roles of a database are laid out before they are sealed.
//!
//! For each of admin, write and read: name and password, each as a 2-byte length and the text; 16 bytes of salt; the
//! iterations in 4 bytes; 32 bytes of client key; 32 bytes of server key. Numbers are big-endian. Nothing follows.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::StoreError;
use crate::snapshot::{NativeRole, NativeRoles, ScramKeys};

/// Lays out a database's roles.
///
/// # Errors
/// A name or password is 64 KiB long or longer.
pub fn encode(roles: &NativeRoles) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut out = Zeroizing::new(Vec::with_capacity(640));
    for role in [&roles.admin, &roles.write, &roles.read] {
        put_text(&mut out, &role.name)?;
        put_text(&mut out, &role.password)?;
        out.extend_from_slice(&role.scram.salt);
        out.extend_from_slice(&role.scram.iterations.to_be_bytes());
        out.extend_from_slice(&role.scram.client_key);
        out.extend_from_slice(&role.scram.server_key);
    }
    Ok(out)
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), StoreError> {
    let len = u16::try_from(text.len()).map_err(|_| StoreError::Invalid {
        field: "native role",
        why: "must be shorter than 64 KiB",
    })?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Reads a database's roles.
///
/// # Errors
/// The bytes are not what [`encode`] makes.
pub fn decode(mut input: &[u8]) -> Result<NativeRoles, StoreError> {
    let input = &mut input;
    let roles = NativeRoles {
        admin: role(input)?,
        write: role(input)?,
        read: role(input)?,
    };
    if input.is_empty() {
        Ok(roles)
    } else {
        Err(CORRUPT)
    }
}

const CORRUPT: StoreError = StoreError::Corrupt {
    what: "native role",
};

fn role(input: &mut &[u8]) -> Result<Arc<NativeRole>, StoreError> {
    Ok(Arc::new(NativeRole {
        name: text(input)?,
        password: text(input)?,
        scram: ScramKeys {
            salt: take(input)?,
            iterations: u32::from_be_bytes(take(input)?),
            client_key: take(input)?,
            server_key: take(input)?,
        },
    }))
}

fn text(input: &mut &[u8]) -> Result<Arc<str>, StoreError> {
    let len = usize::from(u16::from_be_bytes(take(input)?));
    let (text, rest) = input.split_at_checked(len).ok_or(CORRUPT)?;
    *input = rest;
    std::str::from_utf8(text)
        .map(Arc::from)
        .map_err(|_| CORRUPT)
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], StoreError> {
    let (bytes, rest) = input.split_first_chunk::<N>().ok_or(CORRUPT)?;
    *input = rest;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Arc<NativeRole> {
        let scram = crate::scram::derive(name, [3; 16], 2).unwrap();
        Arc::new(NativeRole {
            name: name.into(),
            password: "secret".into(),
            scram,
        })
    }

    #[test]
    fn round_trip_and_every_cut() {
        let bytes = encode(&NativeRoles {
            admin: role("a"),
            write: role("w"),
            read: role("rö"),
        })
        .unwrap();
        let back = decode(&bytes).unwrap();
        assert_eq!(&*back.read.name, "rö");
        assert_eq!(encode(&back).unwrap(), bytes);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(decode(&longer).is_err());
    }
}
