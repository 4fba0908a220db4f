//! PgBouncer as Debian ships it.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Lab;
use super::postgres::{Postgres, utf8};
use crate::process::{Process, RunAs, free_port, run};

/// When PgBouncer gives a backend to another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// After each transaction. 32 backends, so that of 32 clients none waits.
    Transaction,
    /// After the client has left. As many backends as the largest case has clients.
    Session,
}

impl Pooling {
    /// The name that PgBouncer's configuration knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }

    /// Backends of the one pool. All pools and a direct run must fit the server's connections together (`postgres::CONNECTIONS`).
    #[must_use]
    pub fn backends(self) -> u16 {
        match self {
            Self::Transaction => 32,
            Self::Session => 128,
        }
    }
}

/// Starts a PgBouncer in front of `postgres`; returns it with its port. It takes clients with and without TLS.
///
/// # Errors
/// When it is not installed or does not start.
pub fn start(lab: &Lab, postgres: &Postgres, pooling: Pooling) -> Result<(Process, u16)> {
    let port = free_port()?;
    let users = lab.write("userlist.txt", &postgres.user_list(lab)?)?;
    let text = format!(
        "[databases]\nbench = host=127.0.0.1 port={backend} dbname=bench\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nlisten_backlog = 4096\nauth_type = scram-sha-256\nauth_file = {users}\n\
         pool_mode = {mode}\ndefault_pool_size = {pool}\nmax_client_conn = 12000\nclient_tls_sslmode = allow\n\
         client_tls_cert_file = {certificate}\nclient_tls_key_file = {key}\nserver_tls_sslmode = disable\n\
         ignore_startup_parameters = extra_float_digits\nlog_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n",
        backend = postgres.port(),
        users = utf8(&users)?,
        mode = pooling.name(),
        pool = pooling.backends(),
        certificate = utf8(&lab.certificate)?,
        key = utf8(&lab.key)?,
    );
    let file = lab.write(&format!("pgbouncer-{port}.ini"), &text)?;
    let log = lab.path(&format!("pgbouncer-{port}.log"));
    let mut process = Process::start(
        &["pgbouncer", utf8(&file)?],
        &lab.proxy_cpus,
        RunAs::Service,
        "TERM",
        &log,
    )?;
    process.wait_for_port(port, Duration::from_secs(20))?;
    Ok((process, port))
}

/// The installed version.
///
/// # Errors
/// When it is not installed.
pub fn version() -> Result<String> {
    let text = run(Command::new("pgbouncer").arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
