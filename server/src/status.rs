//! Subcommands about an instance.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use control_store::{Sealer, Store};

use crate::cli;
use crate::ready::Ready;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a running instance how it is.
pub(crate) fn status(options: &cli::Status) -> Result<()> {
    let ready = Ready::read(&options.data_dir)?;
    let (code, health) = ask(&ready.api, "/health").with_context(|| {
        format!(
            "the instance of {} does not answer",
            options.data_dir.display()
        )
    })?;
    println!("{}", serde_json::to_string_pretty(&ready)?);
    println!("{}", health.trim());
    let metrics = ready.metrics.trim_end_matches("/metrics");
    println!("{}", ask(metrics, "/servers")?.1.trim());
    if code != "200" {
        bail!("the instance is not healthy");
    }
    Ok(())
}

/// The status and the body of the answer.
fn ask(url: &str, path: &str) -> Result<(String, String)> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).with_context(|| format!("{host} is closed"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).unwrap_or_default();
    Ok((code.to_owned(), body.to_owned()))
}

/// Copies the store.
pub(crate) fn backup_store(options: &cli::BackupStore) -> Result<()> {
    let path = options.data_dir.join("store.db");
    if !path.exists() {
        bail!(
            "{} holds no store: name another with --data-dir",
            options.data_dir.display()
        );
    }
    if options.to.exists() {
        bail!("{} exists: name a new file", options.to.display());
    }
    let sealer = Sealer::from_file(&options.data_dir.join("sealing.key"))?;
    Store::open(&path, sealer)?.copy_to(&options.to)?;
    println!(
        "copied to {}; keep {} with it",
        options.to.display(),
        options.data_dir.join("sealing.key").display()
    );
    Ok(())
}
