//! Files that a server is started with, and what it prints.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::account::Account;
use crate::provisioner::ProvisionError;

/// How much of what a failed program printed goes into an error.
const DETAIL_BYTES: u64 = 600;

/// Replaces a file so that a crash leaves the old one or the new one.
pub(super) fn write_whole(
    path: &Path,
    text: &str,
    account: &Account,
) -> Result<(), ProvisionError> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).map_err(ProvisionError::io("write", &draft))?;
    account.own(&draft)?;
    fs::rename(&draft, path).map_err(ProvisionError::io("write", path))
}

/// The end of what a program printed.
pub(super) fn tail(path: &Path) -> String {
    let Ok(mut file) = File::open(path) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    // What cannot be read is missing from the error's detail, no more.
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(DETAIL_BYTES)));
    let _ = file.take(DETAIL_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
