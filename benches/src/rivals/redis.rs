//! The Redis server behind the rivals.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_store::ServerId;
use control_store::redis::SELECT_USER;
use control_store::snapshot::ServerAddress;
use engines::redis::RedisEngine;
use engines::{DatabaseEngine as _, DatabaseSpec, DatabaseUse, ServerAccess};

use super::Lab;
use super::postgres::utf8;
use crate::contender::Endpoint;
use crate::ours;
use crate::process::{Cpus, Process, RunAs, free_port, run_to_end};

/// Clients that it takes: HAProxy brings each of its own.
const MAX_CLIENTS: u16 = 12_000;

/// A running server with the keys of direct clients and rivals in its logical database 0, where anybody may do everything, and
/// those of our tenant in another, where its roles may do what the product lets them.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    cpus: Cpus,
    _process: Process,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        let port = free_port()?;
        let users = format!(
            "user default on nopass ~* &* +@all\n\
             user {SELECT_USER} on >{} resetkeys resetchannels -@all +select\n",
            ours::redis::SELECT_PASSWORD
        );
        let users = lab.write("users.acl", &users)?;
        let (listen, clients) = (port.to_string(), MAX_CLIENTS.to_string());
        let line = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            &listen,
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxclients",
            &clients,
            "--dir",
            utf8(lab.dir.path())?,
            "--aclfile",
            utf8(&users)?,
        ];
        let log = lab.path("redis.log");
        let mut process = Process::start(&line, &lab.load_cpus, RunAs::Service, "TERM", &log)?;
        process.wait_for_port(port, Duration::from_secs(20))?;
        let server = Self {
            port,
            cpus: lab.load_cpus.clone(),
            _process: process,
        };
        server.create_tenant()?;
        Ok(server)
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How a load reaches it through `port`, which may be a proxy's that knows no users.
    #[must_use]
    pub fn endpoint(&self, port: u16) -> Endpoint {
        Endpoint {
            port,
            user: String::new(),
            password: String::new(),
            database: String::new(),
            tls: false,
        }
    }

    /// The server's version.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn version(&self) -> Result<String> {
        let text = self.ask(0, &["INFO", "server"])?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.context("no version")?.trim().to_owned())
    }

    /// Makes `keys` keys with values of that length, the same for everyone, in place of all that there is.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn fill(&self, keys: u32, value: u32) -> Result<()> {
        // The keys of `redis-benchmark -r`.
        const SCRIPT: &str = "local value = string.rep('x', tonumber(ARGV[3])) \
            for at = 0, ARGV[2] - 1 do redis.call('SET', ARGV[1] .. string.format('key:%012d', at), value) end \
            return redis.call('DBSIZE')";
        self.ask(0, &["FLUSHALL"])?;
        for (number, prefix) in [(0, ""), (ours::redis::NUMBER, ours::redis::PREFIX)] {
            let (keys, value) = (keys.to_string(), value.to_string());
            let made = self.ask(number, &["EVAL", SCRIPT, "0", prefix, &keys, &value])?;
            ensure!(made.trim() == keys, "cannot fill the server: {made}");
        }
        Ok(())
    }

    fn create_tenant(&self) -> Result<()> {
        let (roles, place) = (ours::redis::roles(), ours::redis::place());
        let access = ServerAccess {
            id: ServerId(1),
            address: ServerAddress::Tcp(([127, 0, 0, 1], self.port).into()),
            login: None,
        };
        let spec = DatabaseSpec {
            name: ours::redis::DATABASE,
            usage: DatabaseUse::Tenant,
            roles: &roles,
            redis: Some(&place),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(RedisEngine.create_database(&access, &spec))?;
        Ok(())
    }

    fn ask(&self, number: u32, command: &[&str]) -> Result<String> {
        let (port, number) = (self.port.to_string(), number.to_string());
        let mut line = vec!["redis-cli", "-e", "-p", &port, "-n", &number];
        line.extend(command);
        run_to_end(&line, &self.cpus, RunAs::Same)
    }
}
