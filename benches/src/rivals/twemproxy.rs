//! twemproxy (`nutcracker`) as Debian ships it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Lab;
use super::postgres::utf8;
use crate::process::{Process, RunAs, free_port};

/// Starts it in front of the server on `backend_port`, with the one connection to it that is its default; returns it with its
/// port.
///
/// # Errors
/// When it is not installed or does not start.
pub fn start(lab: &Lab, backend_port: u16) -> Result<(Process, u16)> {
    let port = free_port()?;
    let text = format!(
        "bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  preconnect: true\n  backlog: 4096\n  hash: fnv1a_64\n  \
         distribution: ketama\n  servers:\n   - 127.0.0.1:{backend_port}:1\n",
    );
    let file = lab.write(&format!("twemproxy-{port}.yml"), &text)?;
    let pid_file = lab.path(&format!("twemproxy-{port}.pid"));
    // It opens its log by name, as another user than the one that its output goes to a file of.
    let messages = lab.path(&format!("twemproxy-{port}.messages"));
    let log = lab.path(&format!("twemproxy-{port}.log"));
    let stats_port = free_port()?.to_string();
    let line = [
        "nutcracker",
        "-c",
        utf8(&file)?,
        "-p",
        utf8(&pid_file)?,
        "-o",
        utf8(&messages)?,
        "-a",
        "127.0.0.1",
        "-s",
        &stats_port,
    ];
    let mut process = Process::start(&line, &lab.proxy_cpus, RunAs::Service, "TERM", &log)?;
    process.wait_for_port(port, Duration::from_secs(20))?;
    Ok((process, port))
}

/// The installed version.
///
/// # Errors
/// When it is not installed.
pub fn version() -> Result<String> {
    // On standard error.
    let output = Command::new("nutcracker")
        .arg("-V")
        .output()
        .context("cannot start nutcracker")?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().context("nutcracker tells no version")?;
    Ok(first.rsplit(' ').next().unwrap_or_default().to_owned())
}
