//! The programs under comparison, each started with a written-down configuration.

pub mod haproxy;
pub mod pgbouncer;
pub mod postgres;
pub mod redis;
pub mod twemproxy;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{Cpus, give_to_service, run};

/// Where a comparison runs: folder, processors and certificate.
#[derive(Debug)]
pub struct Lab {
    /// A folder of its own, removed at the end.
    pub dir: tempfile::TempDir,
    /// What the measured proxy runs on.
    pub proxy_cpus: Cpus,
    /// What everything else runs on.
    pub load_cpus: Cpus,
    /// An ECDSA P-256 certificate for loopback.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Lab {
    /// Makes the folder and the certificate.
    ///
    /// # Errors
    /// When `openssl` is missing or the disk is full.
    pub fn new(proxy_cpus: Cpus, load_cpus: Cpus) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("tenantsdb-bench-")
            .tempdir()?;
        let (certificate, key) = (dir.path().join("server.crt"), dir.path().join("server.key"));
        make_certificate(&certificate, &key)?;
        give_to_service(dir.path())?;
        Ok(Self {
            dir,
            proxy_cpus,
            load_cpus,
            certificate,
            key,
        })
    }

    /// The path of `name` in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that the servers may read.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text)?;
        give_to_service(&path)?;
        Ok(path)
    }
}

fn make_certificate(certificate: &Path, key: &Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
    ]);
    command.args([
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    ]);
    run(command.arg("-keyout").arg(key).arg("-out").arg(certificate)).map(drop)
}
