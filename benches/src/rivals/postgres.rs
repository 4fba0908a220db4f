//! The PostgreSQL server behind the rivals.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Lab;
use crate::contender::Endpoint;
use crate::process::{Process, RunAs, free_port, run_to_end};

const BIN: &str = "/usr/lib/postgresql/15/bin";
/// The role that all contenders log in with at the server.
pub const USER: &str = "bench";
/// Its password.
pub const PASSWORD: &str = "bench-password";
/// The database.
pub const DATABASE: &str = "bench";
/// The salt of the role's SCRAM verifier.
pub const SALT: [u8; 16] = *b"tenantsdb-bench!";
/// Connections that the server takes: all pools, and the largest case's direct ones, fit together.
pub const CONNECTIONS: u16 = 500;
/// `pgbench -i -s`: 1,000,000 accounts, some 150 MB, all of it in shared buffers.
pub const SCALE: u16 = 10;

/// A running server with pgbench's tables in it.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    socket_dir: PathBuf,
    _process: Process,
}

impl Postgres {
    /// Makes a cluster in the lab's folder, starts it and fills it.
    ///
    /// # Errors
    /// When PostgreSQL 15 is not installed or does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        let data = lab.path("pgdata");
        let data_dir = utf8(&data)?;
        let initdb = [
            &format!("{BIN}/initdb"),
            "-D",
            data_dir,
            "-U",
            "postgres",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
        ];
        run_to_end(&initdb, &lab.load_cpus, RunAs::Service)?;
        let port = free_port()?;
        lab.write("pgdata/postgresql.auto.conf", &configuration(lab, port)?)?;
        let program = format!("{BIN}/postgres");
        let log = lab.path("postgres.log");
        let mut process = Process::start(
            &[&program, "-D", data_dir],
            &lab.load_cpus,
            RunAs::Service,
            "INT",
            &log,
        )?;
        process.wait_for_port(port, Duration::from_secs(60))?;
        let server = Self {
            port,
            socket_dir: lab.dir.path().to_owned(),
            _process: process,
        };
        server.fill(lab)?;
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How a load reaches the test database through `port`, which may be a proxy's.
    #[must_use]
    pub fn endpoint(&self, port: u16, tls: bool) -> Endpoint {
        Endpoint {
            port,
            user: USER.into(),
            password: PASSWORD.into(),
            database: DATABASE.into(),
            tls,
        }
    }

    /// The line of PgBouncer's user list: the same SCRAM secret as the server has, so that PgBouncer checks clients and logs in to the
    /// server without knowing the password.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn user_list(&self, lab: &Lab) -> Result<String> {
        let secret = self.psql(
            lab,
            &format!("select rolpassword from pg_authid where rolname = '{USER}'"),
        )?;
        Ok(format!("\"{USER}\" \"{}\"\n", secret.trim()))
    }

    /// The server's version.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn version(&self, lab: &Lab) -> Result<String> {
        Ok(self.psql(lab, "show server_version")?.trim().to_owned())
    }

    fn fill(&self, lab: &Lab) -> Result<()> {
        // The server also listens before it accepts logins: only a query proves that it does.
        self.psql_when_ready(lab)?;
        self.psql(
            lab,
            &format!(
                "create role {USER} login password '{}'",
                crate::ours::postgres::server_verifier()?
            ),
        )?;
        self.psql(lab, &format!("create database {DATABASE} owner {USER}"))?;
        let (port, scale) = (self.port.to_string(), SCALE.to_string());
        let init = [
            "pgbench",
            "-i",
            "-q",
            "-s",
            &scale,
            "-h",
            utf8(&self.socket_dir)?,
            "-p",
            &port,
            "-U",
            USER,
            DATABASE,
        ];
        run_to_end(&init, &lab.load_cpus, RunAs::Service)?;
        self.psql(lab, "checkpoint").map(drop)
    }

    fn psql_when_ready(&self, lab: &Lab) -> Result<()> {
        for _ in 0..100 {
            if self.psql(lab, "select 1").is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.psql(lab, "select 1").map(drop)
    }

    fn psql(&self, lab: &Lab, statement: &str) -> Result<String> {
        let port = self.port.to_string();
        let socket_dir = utf8(&self.socket_dir)?;
        let line = [
            "psql", "-X", "-A", "-t", "-h", socket_dir, "-p", &port, "-U", "postgres", "-c",
            statement, "postgres",
        ];
        run_to_end(&line, &lab.load_cpus, RunAs::Service)
    }
}

fn configuration(lab: &Lab, port: u16) -> Result<String> {
    Ok(format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{dir}'\nmax_connections = {CONNECTIONS}\n\
         fsync = on\nshared_buffers = '256MB'\npassword_encryption = 'scram-sha-256'\n\
         ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n",
        dir = utf8(lab.dir.path())?,
        certificate = utf8(&lab.certificate)?,
        key = utf8(&lab.key)?,
    ))
}

/// A path as text, for command lines and configuration files.
///
/// # Errors
/// When it is not UTF-8.
pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str()
        .context("the temporary folder's name is not UTF-8")
}
