//! HAProxy as a plain TCP relay: what it costs to move the bytes without understanding them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Lab;
use super::postgres::utf8;
use crate::process::{Process, RunAs, free_port, run};

/// Its connection limit: it needs two descriptors each, of 20,000 that a process may have on the reference machine.
pub const MAX_CLIENTS: u16 = 9_000;

/// Who the client speaks TLS with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// With nobody, or with the server.
    Passed,
    /// With HAProxy, by the lab's certificate.
    Ended,
}

/// Starts a relay to `backend_port` with one thread; returns it with its port.
///
/// # Errors
/// When it is not installed or does not start.
pub fn start(lab: &Lab, backend_port: u16, tls: Tls) -> Result<(Process, u16)> {
    let port = free_port()?;
    let ssl = match tls {
        Tls::Passed => String::new(),
        Tls::Ended => {
            // It wants both in one file.
            let both = fs::read_to_string(&lab.certificate)? + &fs::read_to_string(&lab.key)?;
            let file = lab.write("haproxy.pem", &both)?;
            format!(" ssl crt {}", utf8(&file)?)
        }
    };
    let text = format!(
        "global\n  nbthread 1\n  maxconn {MAX_CLIENTS}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\nlisten relay\n  bind 127.0.0.1:{port} backlog 4096{ssl}\n  server backend 127.0.0.1:{backend_port}\n",
    );
    let file = lab.write(&format!("haproxy-{port}.cfg"), &text)?;
    let log = lab.path(&format!("haproxy-{port}.log"));
    let line = ["haproxy", "-db", "-f", utf8(&file)?];
    let mut process = Process::start(&line, &lab.proxy_cpus, RunAs::Service, "TERM", &log)?;
    process.wait_for_port(port, Duration::from_secs(20))?;
    Ok((process, port))
}

/// The installed version.
///
/// # Errors
/// When it is not installed.
pub fn version() -> Result<String> {
    let text = run(Command::new("haproxy").arg("-v"))?;
    let first = text.lines().next().unwrap_or_default();
    Ok(first.split(" - ").next().unwrap_or_default().to_owned())
}
