//! An authority of our own, and the certificate that it gives to the proxy.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::{Timestamp, ToSpan as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

/// Days that a certificate of the proxy holds; it is renewed at a start when a third is left.
const LEAF_DAYS: i64 = 397;
const RENEW_DAYS: i64 = LEAF_DAYS / 3;
const AUTHORITY_DAYS: i64 = 20 * 365;

/// The files in `<data>/tls`.
pub(crate) struct Files {
    /// Of the authority; clients trust it.
    pub(crate) ca_cert: PathBuf,
    /// Of the proxy, with the authority's behind it.
    pub(crate) certificate: PathBuf,
    /// Of the proxy.
    pub(crate) key: PathBuf,
}

/// Makes what is missing, and renews what is about to expire.
pub(crate) fn ensure(data: &Path) -> Result<Files> {
    let folder = data.join("tls");
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let files = Files {
        ca_cert: folder.join("ca.crt"),
        certificate: folder.join("server.crt"),
        key: folder.join("server.key"),
    };
    let ca_key = folder.join("ca.key");
    if !files.ca_cert.exists() || !ca_key.exists() {
        make_authority(&files.ca_cert, &ca_key)?;
    }
    if !is_fresh(&files.certificate) || !files.key.exists() {
        make_leaf(&files, &ca_key)?;
    }
    Ok(files)
}

fn make_authority(certificate: &Path, key: &Path) -> Result<()> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "TenantsDB local authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = Timestamp::now();
    params.not_before = date(now - 24.hours())?;
    params.not_after = date(now + (AUTHORITY_DAYS * 24).hours())?;
    let made = params.self_signed(&pair)?;
    write_secret(key, &pair.serialize_pem())?;
    write(certificate, &made.pem())
}

fn make_leaf(files: &Files, ca_key: &Path) -> Result<()> {
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (authority, authority_key) = (read(&files.ca_cert)?, read(ca_key)?);
    let issuer = Issuer::from_ca_cert_pem(&authority, KeyPair::from_pem(&authority_key)?)?;
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        let host = host.trim().to_owned();
        if !host.is_empty() && !names.contains(&host) {
            names.push(host);
        }
    }
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "TenantsDB proxy");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let now = Timestamp::now();
    params.not_before = date(now - 24.hours())?;
    params.not_after = date(now + (LEAF_DAYS * 24).hours())?;
    let made = params.signed_by(&pair, &issuer)?;
    write_secret(&files.key, &pair.serialize_pem())?;
    write(&files.certificate, &(made.pem() + &authority))
}

fn date(at: Timestamp) -> Result<time::OffsetDateTime> {
    Ok(time::OffsetDateTime::from_unix_timestamp(at.as_second())?)
}

/// Whether the certificate can be read and holds for long enough.
fn is_fresh(certificate: &Path) -> bool {
    let Ok(text) = fs::read(certificate) else {
        return false;
    };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&text) else {
        return false;
    };
    let soon = Timestamp::now() + (RENEW_DAYS * 24).hours();
    pem.parse_x509()
        .is_ok_and(|it| it.validity().not_after.timestamp() > soon.as_second())
}

fn write(path: &Path, text: &str) -> Result<()> {
    write_with(path, text, 0o644)
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    write_with(path, text, 0o600)
}

/// Replaces a file so that a crash leaves the old one or the new one.
fn write_with(path: &Path, text: &str, mode: u32) -> Result<()> {
    let part = path.with_extension("part");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn certificates_are_made_once_and_usable() {
        let folder = tempfile::tempdir().unwrap();
        let files = ensure(folder.path()).unwrap();
        let before = fs::read(&files.certificate).unwrap();
        proxy::reactor::TlsStore::load(&files.certificate, &files.key).unwrap();
        let mode = fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        ensure(folder.path()).unwrap();
        assert_eq!(fs::read(&files.certificate).unwrap(), before);
        fs::write(&files.certificate, "broken").unwrap();
        let authority = fs::read(&files.ca_cert).unwrap();
        ensure(folder.path()).unwrap();
        assert_ne!(fs::read(&files.certificate).unwrap(), before);
        assert_eq!(fs::read(&files.ca_cert).unwrap(), authority);
    }
}
