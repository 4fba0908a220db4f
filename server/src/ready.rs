//! `ready.json`: where a running instance can be reached.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What is written once everything takes connections.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Ready {
    /// URL of the API.
    pub(crate) api: String,
    /// URL of the metrics.
    pub(crate) metrics: String,
    /// `host:port` for PostgreSQL clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postgres: Option<String>,
    /// `host:port` for Redis clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) redis: Option<String>,
    /// The authority that clients trust; none if the operator's own certificate is used.
    pub(crate) ca_cert: Option<PathBuf>,
    /// The process.
    pub(crate) pid: u32,
}

fn path(data: &Path) -> PathBuf {
    data.join("ready.json")
}

impl Ready {
    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, data: &Path) -> Result<()> {
        let part = data.join("ready.json.part");
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&part, text)
            .and_then(|()| fs::rename(&part, path(data)))
            .with_context(|| format!("cannot write {}", path(data).display()))
    }

    /// Reads the file of an instance that runs, or did not end cleanly.
    pub(crate) fn read(data: &Path) -> Result<Self> {
        let text = fs::read_to_string(path(data)).with_context(|| {
            format!("nothing runs on {}: there is no ready.json", data.display())
        })?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Removes the file; that there is none is no error.
    pub(crate) fn remove(data: &Path) {
        // It would only tell of an instance that is no more.
        let _ = fs::remove_file(path(data));
    }
}

/// How clients on this machine name an address.
pub(crate) fn shown(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("127.0.0.1:{}", address.port())
    } else {
        address.to_string()
    }
}
