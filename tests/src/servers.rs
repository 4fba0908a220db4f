//! Database servers that the tests run themselves, as an operator would who does not leave it to the product.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

use crate::find_program;

const LIMIT: Duration = Duration::from_secs(60);
/// Who runs PostgreSQL, which refuses to run as root.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];
/// The password of every administrator here.
pub const PASSWORD: &str = "an operator's";

/// A server. Dropping it ends it.
pub struct Server {
    folder: TempDir,
    child: Option<Child>,
    kind: Kind,
    encrypted: bool,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Redis,
}

impl Server {
    /// A new PostgreSQL server, running; its superuser is `root`, through the socket in its folder.
    ///
    /// # Errors
    /// It does not come up.
    pub fn postgres() -> Result<Self> {
        let mut server = Self::new(Kind::Postgres)?;
        let data = server.data();
        server
            .command(find_program("initdb"))
            .args([
                "-D", &data, "-U", "root", "-E", "UTF8", "--locale", "C.UTF-8",
            ])
            .args([
                "--auth-local",
                "trust",
                "--auth-host",
                "scram-sha-256",
                "--no-sync",
            ])
            .stdout(Stdio::null())
            .status()
            .context("cannot run initdb")?;
        server.start()?;
        Ok(server)
    }

    /// A new Redis server, running, which keeps its keys over a restart and has no file for its users: an operator's own
    /// are in its configuration.
    ///
    /// # Errors
    /// It does not come up.
    pub fn redis(users: &str) -> Result<Self> {
        let mut server = Self::new(Kind::Redis)?;
        let settings = format!(
            "bind 127.0.0.1\ndatabases 16\nappendonly yes\nnotify-keyspace-events KEA\ndir {}\n{users}\n",
            server.folder.path().display()
        );
        fs::write(server.folder.path().join("redis.conf"), settings)?;
        server.start()?;
        Ok(server)
    }

    fn new(kind: Kind) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        if let Some((uid, gid)) = account() {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            folder,
            child: None,
            kind,
            encrypted: false,
            port: free_port()?,
        })
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn command(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some((uid, gid)) = account() {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Has it take nothing but TLS over the network from its next start on, with a certificate for `localhost` of an authority of
    /// its own; gives the file that the authority is in.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn encrypt(&mut self) -> Result<PathBuf> {
        let script = "set -e
            new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
            openssl req -x509 $new -keyout ca.key -out ca.crt -days 2 -subj /CN=authority
            openssl req $new -keyout server.key -out server.csr -subj /CN=localhost
            echo subjectAltName=DNS:localhost > names
            openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt
            chmod 600 server.key";
        let made = self.command("sh".into()).args(["-c", script]).output()?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "{said}");
        if self.kind == Kind::Postgres {
            let access = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
            fs::write(self.folder.path().join("data/pg_hba.conf"), access)?;
        }
        self.encrypted = true;
        Ok(self.folder.path().join("ca.crt"))
    }

    /// Starts it, on the port that it has now.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&mut self) -> Result<()> {
        let port = self.port.to_string();
        let mut command = match self.kind {
            Kind::Postgres => {
                let mut command = self.command(find_program("postgres"));
                command
                    .args(["-D", &self.data(), "-p", &port, "-k"])
                    .arg(self.folder.path())
                    .args(["-h", "127.0.0.1", "-c", "fsync=off"]);
                if self.encrypted {
                    let folder = self.folder.path();
                    for (setting, file) in [("cert", "server.crt"), ("key", "server.key")] {
                        let file = folder.join(file);
                        command
                            .arg("-c")
                            .arg(format!("ssl_{setting}_file={}", file.display()));
                    }
                    command.args(["-c", "ssl=on"]);
                }
                command
            }
            Kind::Redis => {
                let mut command = self.command("redis-server".into());
                command.arg(self.folder.path().join("redis.conf"));
                if self.encrypted {
                    command
                        .args(["--port", "0", "--tls-port", &port])
                        .args(["--tls-cert-file", "server.crt"])
                        .args(["--tls-key-file", "server.key"])
                        .args(["--tls-auth-clients", "no"]);
                } else {
                    command.args(["--port", &port]);
                }
                command
            }
        };
        let log = fs::File::create(self.folder.path().join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("cannot run a database server")?);
        let deadline = Instant::now() + LIMIT;
        while !self.answers() {
            ensure!(
                Instant::now() < deadline,
                "it does not come up: {}",
                self.log()
            );
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What it has printed.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether it lets its administrator in.
    #[must_use]
    pub fn answers(&self) -> bool {
        match self.kind {
            Kind::Postgres => self.sql("SELECT 1").is_ok(),
            Kind::Redis => self.redis_cli("PING").is_ok_and(|it| it.contains("PONG")),
        }
    }

    /// Has it end, its clients' connections first.
    ///
    /// # Errors
    /// It does not.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let signal = match self.kind {
            Kind::Postgres => Signal::INT,
            Kind::Redis => Signal::TERM,
        };
        if let Some(pid) = Pid::from_raw(i32::try_from(child.id())?) {
            kill_process(pid, signal)?;
        }
        child.wait()?;
        Ok(())
    }

    /// Stops it and starts it at another port.
    ///
    /// # Errors
    /// It does not come up.
    pub fn move_away(&mut self) -> Result<()> {
        self.stop()?;
        self.port = free_port()?;
        self.start()
    }

    /// What psql prints for a script, as the superuser of a PostgreSQL server.
    ///
    /// # Errors
    /// A statement is refused.
    pub fn sql(&self, script: &str) -> Result<String> {
        let mut child = Command::new(find_program("psql"))
            .args([
                "-XAtq",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "root",
                "-d",
                "postgres",
                "-h",
            ])
            .arg(self.folder.path())
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Where nobody reads it, the status says so.
            let _ = stdin.write_all(script.as_bytes());
        }
        let out = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "{said}");
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    /// What redis-cli prints for a command, as the administrator `operator` of a Redis server.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn redis_cli(&self, words: &str) -> Result<String> {
        let mut command = Command::new("redis-cli");
        if self.encrypted {
            command.arg("--tls").arg("--cacert");
            command.arg(self.folder.path().join("ca.crt"));
        }
        let out = command
            .args(["-h", "localhost", "-p", &self.port.to_string()])
            .args(["--user", "operator"])
            .args(["--pass", PASSWORD, "--no-auth-warning"])
            .args(words.split(' '))
            .output()?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- what a database server printed ----\n{}", self.log());
        }
        // Nothing is left to be done about it.
        let _ = self.stop();
    }
}

/// The user and group ids of who runs the servers, where that is somebody else.
fn account() -> Option<(u32, u32)> {
    if !getuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string(Path::new("/etc/passwd")).ok()?;
    ACCOUNTS.iter().find_map(|name| {
        let line = passwd
            .lines()
            .find(|it| it.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    })
}

/// A port that nobody uses just now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
