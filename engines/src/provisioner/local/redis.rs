//! One local Redis or Valkey server: its files, its process.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use control_store::servers::RedisServer;
use redis::aio::MultiplexedConnection;
use redis::{
    Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, RedisError, cmd,
};
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::account::Account;
use super::binaries::{redis_server, redis_version};
use super::files::{tail, write_whole};
use super::home::Home;
use super::memory;
use super::process::Seen;
use super::redis_settings::{acl_file, redis_conf};
use super::server::{LocalServer, Probe, Stopping};
use crate::provisioner::ProvisionError;
use crate::redis::platform_users;

/// The file name of its socket.
pub(super) const SOCKET_NAME: &str = "redis.sock";
/// ACLs with subcommands and channels, and the key positions of commands, are of this version.
const OLDEST: (u32, &str) = (7, "7.0");
/// For one answer to a health check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that the log may have: scripts can write to it (`redis.log`), as fast as a disk takes it.
const MAX_LOG: u64 = 4 << 20;
/// Bytes that the texts of scripts may take. A server keeps each that was ever run, and has no bound of its own for them.
const MAX_SCRIPTS: u64 = 16 << 20;

/// What `SHUTDOWN` does: answers no more, writes its log out, ends.
const STOPPING: Stopping = Stopping {
    steps: &[(Signal::TERM, Duration::from_secs(60))],
    // What was answered is in the log.
    at_once: Signal::KILL,
};

/// One local Redis or Valkey server. It has no `Debug`: it holds secrets.
pub(super) struct RedisProcess {
    home: Home,
    account: Account,
    program: PathBuf,
    server: RedisServer,
}

impl RedisProcess {
    /// Creates the server's data folder where it does not exist.
    pub(super) async fn prepare(
        home: Home,
        account: Account,
        server: RedisServer,
    ) -> Result<Self, ProvisionError> {
        let program = redis_server()?;
        check_version(&program).await?;
        super::home::private_folder(&home.data, &account)?;
        Ok(Self {
            home,
            account,
            program,
            server,
        })
    }

    fn config(&self) -> PathBuf {
        self.home.root.join("redis.conf")
    }

    fn write_files(&self) -> Result<(), ProvisionError> {
        let users = self.home.data.join("users.acl");
        let saved = match fs::read_to_string(&users) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(ProvisionError::io("read", &users))?,
        };
        let platform = platform_users(&self.server);
        write_whole(&users, &acl_file(&saved, &platform), &self.account)?;
        let config = redis_conf(&self.home, &users, self.server.databases);
        write_whole(&self.config(), &config, &self.account)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let settings = RedisConnectionInfo::default()
            .set_username(&self.server.admin_user)
            .set_password(self.server.admin_password.expose())
            .set_skip_set_lib_name();
        let info = ConnectionAddr::Unix(self.home.socket())
            .into_connection_info()?
            .set_redis_settings(settings);
        Client::open(info)?.get_multiplexed_async_connection().await
    }

    /// Empties the log if it has become large.
    fn bound_log(&self) {
        let log = OpenOptions::new().write(true).open(self.home.startup_log());
        let emptied = log.and_then(|log| match log.metadata()?.len() {
            0..=MAX_LOG => Ok(()),
            _ => log.set_len(0),
        });
        if let Err(error) = emptied {
            tracing::warn!(%error, "the log of a Redis server cannot be emptied");
        }
    }

    async fn ask(&self) -> Result<Probe, RedisError> {
        let mut admin = self.connect().await?;
        let memory = cmd("INFO")
            .arg("memory")
            .query_async::<String>(&mut admin)
            .await;
        match memory {
            Ok(memory) => {
                bound_scripts(&mut admin, &memory).await?;
                Ok(Probe::Answers)
            }
            Err(error) if is(&error, "BUSY") => end_script(&mut admin).await,
            Err(error) => Err(error),
        }
    }
}

/// An empty log. A server that appends goes on at its end when it is emptied.
fn new_log(path: &Path) -> std::io::Result<File> {
    let log = OpenOptions::new().append(true).create(true).open(path)?;
    log.set_len(0)?;
    Ok(log)
}

/// Has the server forget scripts that have become too many. Clients are prepared for that: it is what a restart does too.
async fn bound_scripts(admin: &mut MultiplexedConnection, memory: &str) -> Result<(), RedisError> {
    let of = |line: &str| line.strip_prefix("used_memory_scripts_eval:")?.parse().ok();
    let bytes: u64 = memory.lines().find_map(of).unwrap_or_default();
    if bytes > MAX_SCRIPTS {
        tracing::warn!(
            bytes,
            "a Redis server forgets its scripts: they take much memory"
        );
        let flush = cmd("SCRIPT").arg("FLUSH").arg("ASYNC").to_owned();
        flush.query_async::<()>(admin).await?;
    }
    Ok(())
}

/// Ends a script or function that has run for longer than the server's `busy-reply-threshold`: it keeps everybody waiting. One
/// that has written cannot be ended; what it has written is not in the log yet, so that with the server's end it never was.
async fn end_script(admin: &mut MultiplexedConnection) -> Result<Probe, RedisError> {
    for kind in ["SCRIPT", "FUNCTION"] {
        let killed = cmd(kind).arg("KILL").query_async::<String>(admin).await;
        match killed {
            Ok(_) => tracing::warn!(kind, "ended a script that kept a Redis server busy"),
            Err(error) if is(&error, "UNKILLABLE") => {
                return Ok(Probe::Stuck("a script that cannot be ended kept it busy"));
            }
            // `NOTBUSY`: it was of the other kind, or has ended by itself.
            Err(_) => {}
        }
    }
    Ok(Probe::Silent)
}

fn is(error: &RedisError, code: &str) -> bool {
    error.code() == Some(code)
}

#[async_trait]
impl LocalServer for RedisProcess {
    fn home(&self) -> &Home {
        &self.home
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn stopping(&self) -> &'static Stopping {
        &STOPPING
    }

    fn spawn(&self) -> Result<Child, ProvisionError> {
        self.write_files()?;
        let log_path = self.home.startup_log();
        let log = new_log(&log_path).map_err(ProvisionError::io("create", &log_path))?;
        let errors = log.try_clone();
        let errors = errors.map_err(ProvisionError::io("create", &log_path))?;
        // `maxmemory`, half of what there is, knows nothing of what scripts hold in variables.
        let mut command = memory::bounded(&self.program, 3);
        command
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        // Ctrl-C at the terminal is for us alone: clients are drained first.
        command
            .process_group(0)
            .current_dir(&self.home.data)
            .env_clear()
            .env("LC_ALL", "C.UTF-8");
        self.account.apply(&mut command);
        command
            .spawn()
            .map_err(ProvisionError::io("run", &self.program))
    }

    async fn probe(&self) -> Probe {
        self.bound_log();
        match timeout(PROBE_TIMEOUT, self.ask()).await {
            Ok(Ok(probe)) => probe,
            _ => Probe::Silent,
        }
    }

    fn last_words(&self) -> String {
        tail(&self.home.startup_log())
    }

    fn is_main(&self, seen: &Seen) -> bool {
        let config = self.config();
        let mut arguments = seen.arguments.split(|byte| *byte == 0);
        let program = arguments.next().unwrap_or_default();
        let names = [&b"redis-server"[..], b"valkey-server"];
        names.iter().any(|name| program.ends_with(name))
            && arguments.next() == Some(config.as_os_str().as_encoded_bytes())
    }

    /// A child that rewrites the log has a title of its own, such as `redis-aof-rewrite`, and works in the server's folder.
    fn is_of(&self, seen: &Seen) -> bool {
        let titles = [&b"redis-"[..], b"valkey-"];
        let titled = titles.iter().any(|it| seen.arguments.starts_with(it));
        let here = seen.folder.as_ref() == Some(&self.home.data);
        self.is_main(seen) || (here && (titled || seen.arguments.is_empty()))
    }
}

async fn check_version(program: &PathBuf) -> Result<(), ProvisionError> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(ProvisionError::io("run", program))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let (oldest, needed) = OLDEST;
    match redis_version(&printed) {
        Some((major, _)) if major >= oldest => Ok(()),
        other => Err(ProvisionError::TooOld {
            path: program.clone(),
            found: other.map_or_else(|| "unknown".into(), |(_, version)| version.to_owned()),
            needed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_this_folders_processes_are_known() {
        let root = Path::new("/d/servers/redis-1").to_owned();
        let process = RedisProcess {
            home: Home {
                data: root.join("data"),
                log: root.join("log"),
                run: root.join("run"),
                root,
                socket_name: SOCKET_NAME,
                label: "redis-1-ab".into(),
            },
            account: Account::choose().unwrap(),
            program: "/usr/bin/redis-server".into(),
            server: crate::redis::new_server(true).unwrap(),
        };
        let data = "/d/servers/redis-1/data";
        for (line, folder, main, of) in [
            (
                "/usr/bin/redis-server /d/servers/redis-1/redis.conf",
                "",
                true,
                true,
            ),
            (
                "/opt/valkey-server /d/servers/redis-1/redis.conf",
                data,
                true,
                true,
            ),
            (
                "/usr/bin/redis-server /d/servers/redis-12/redis.conf",
                "",
                false,
                false,
            ),
            (
                "/usr/bin/vi /d/servers/redis-1/redis.conf",
                data,
                false,
                false,
            ),
            ("redis-aof-rewrite unixsocket:/d/s", data, false, true),
            (
                "redis-aof-rewrite unixsocket:/d/s",
                "/d/servers/redis-12/data",
                false,
                false,
            ),
            ("", data, false, true),
        ] {
            let seen = Seen {
                arguments: line.replace(' ', "\0").into_bytes(),
                folder: (!folder.is_empty()).then(|| folder.into()),
            };
            let found = (process.is_main(&seen), process.is_of(&seen));
            assert_eq!(found, (main, of), "{line} in {folder}");
        }
    }
}
