//! One local PostgreSQL server: its creation, its files, its process.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};

use super::account::Account;
use super::binaries::PostgresPrograms;
use super::files::{tail, write_whole};
use super::home::Home;
use super::memory;
use super::process::{HARD_STOP, Seen};
use super::server::{LocalServer, Probe, Stopping};
use super::settings::{self, SUPERUSER};
use crate::provisioner::ProvisionError;

/// The file name that PostgreSQL gives to its socket; the number only names it, since nothing listens on TCP.
pub(super) const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// Disconnects everybody and writes out all it holds; where that does not end, without.
const STOPPING: Stopping = Stopping {
    steps: &[
        (Signal::INT, Duration::from_secs(60)),
        (Signal::QUIT, HARD_STOP),
    ],
    // The next start recovers from the log.
    at_once: Signal::QUIT,
};
/// For one answer to a health check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// One local PostgreSQL server.
#[derive(Debug)]
pub(super) struct PostgresServer {
    home: Home,
    account: Account,
    programs: PostgresPrograms,
}

impl PostgresServer {
    /// Creates the server's data folder where it does not exist. A creation that was interrupted starts over.
    pub(super) async fn prepare(home: Home, account: Account) -> Result<Self, ProvisionError> {
        let mut programs = PostgresPrograms::find()?;
        if home.data.exists() {
            let version = fs::read_to_string(home.data.join("PG_VERSION")).unwrap_or_default();
            programs = PostgresPrograms::for_version(version.trim()).unwrap_or(programs);
        } else {
            initdb(&programs, &home, &account).await?;
        }
        Ok(Self {
            home,
            account,
            programs,
        })
    }

    fn write_files(&self) -> Result<(), ProvisionError> {
        let files = [
            ("postgresql.conf", settings::postgresql_conf(&self.home)),
            ("pg_hba.conf", settings::pg_hba_conf()),
            ("pg_ident.conf", settings::pg_ident_conf(&self.account)),
        ];
        files.iter().try_for_each(|(name, text)| {
            write_whole(&self.home.data.join(name), text, &self.account)
        })
    }
}

#[async_trait]
impl LocalServer for PostgresServer {
    fn home(&self) -> &Home {
        &self.home
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn stopping(&self) -> &'static Stopping {
        &STOPPING
    }

    fn is_main(&self, seen: &Seen) -> bool {
        is_postmaster(seen, &self.home)
    }

    fn is_of(&self, seen: &Seen) -> bool {
        is_of(seen, &self.home)
    }

    fn spawn(&self) -> Result<Child, ProvisionError> {
        self.write_files()?;
        let log_path = self.home.startup_log();
        let log = File::create(&log_path).map_err(ProvisionError::io("create", &log_path))?;
        // A session may set its `work_mem` as it likes.
        let mut command = memory::bounded(&self.programs.postgres(), 1);
        command
            .arg("-D")
            .arg(&self.home.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // Ctrl-C at the terminal is for us alone: clients are drained first.
        command
            .process_group(0)
            .current_dir(&self.home.data)
            .env_clear()
            .env("LC_ALL", "C.UTF-8");
        self.account.apply(&mut command);
        command
            .spawn()
            .map_err(ProvisionError::io("run", &self.programs.postgres()))
    }

    async fn probe(&self) -> Probe {
        let probe = async {
            let mut config = Config::new();
            config
                .host_path(&self.home.run)
                .port(5432)
                .user(SUPERUSER)
                .dbname("template1");
            let (client, connection) = config.connect(NoTls).await.ok()?;
            let driver = tokio::spawn(connection);
            let answer = client.simple_query("SELECT 1").await.ok();
            drop(client);
            // Ends by itself once the client is gone.
            let _ = driver.await;
            answer
        };
        match timeout(PROBE_TIMEOUT, probe).await {
            Ok(Some(_)) => Probe::Answers,
            _ => Probe::Silent,
        }
    }

    fn last_words(&self) -> String {
        tail(&self.home.startup_log())
    }
}

async fn initdb(
    programs: &PostgresPrograms,
    home: &Home,
    account: &Account,
) -> Result<(), ProvisionError> {
    let draft = home.root.join("data.draft");
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(ProvisionError::io("remove", &draft))?;
    }
    let log_path = home.startup_log();
    let log = File::create(&log_path).map_err(ProvisionError::io("create", &log_path))?;
    let mut command = Command::new(programs.initdb());
    command.arg("-D").arg(&draft).args([
        "--username",
        SUPERUSER,
        "--encoding",
        "UTF8",
        "--locale",
        "C.UTF-8",
    ]);
    command.args([
        "--auth-local",
        "peer",
        "--auth-host",
        "reject",
        "--data-checksums",
        "--no-instructions",
    ]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir(&home.root)
        .kill_on_drop(true);
    account.apply(&mut command);
    let status = command
        .status()
        .await
        .map_err(ProvisionError::io("run", &programs.initdb()))?;
    if !status.success() {
        return Err(ProvisionError::ToolFailed {
            program: "initdb",
            detail: tail(&log_path),
        });
    }
    fs::rename(&draft, &home.data).map_err(ProvisionError::io("create", &home.data))
}

fn is_postmaster(seen: &Seen, home: &Home) -> bool {
    let data = home.data.as_os_str().as_encoded_bytes();
    let arguments: Vec<_> = seen.arguments.split(|byte| *byte == 0).collect();
    matches!(&*arguments, [program, b"-D", folder, ..] if program.ends_with(b"/postgres") && *folder == data)
}

/// Whether a process is one of the server's. Children show the cluster's name, which is our label, at the front of their
/// titles. One that is about to end has lost its title already, but works in the server's folder to the last; where we may
/// not see that folder, the title has to do.
fn is_of(seen: &Seen, home: &Home) -> bool {
    let title = format!("postgres: {}: ", home.label);
    seen.arguments.starts_with(title.as_bytes())
        || is_postmaster(seen, home)
        || (seen.arguments.is_empty() && seen.folder.as_ref() == Some(&home.data))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn home() -> Home {
        let root = Path::new("/d/servers/pg-1").to_owned();
        Home {
            data: root.join("data"),
            log: root.join("log"),
            run: root.join("run"),
            root,
            socket_name: SOCKET_NAME,
            label: "pg-1-ab".into(),
        }
    }

    #[test]
    fn only_this_folders_postmaster_is_known() {
        let check = |line: &str, expected| {
            let seen = Seen {
                arguments: line.replace(' ', "\0").into_bytes(),
                folder: None,
            };
            assert_eq!(is_postmaster(&seen, &home()), expected, "{line}");
        };
        check(
            "/usr/lib/postgresql/15/bin/postgres -D /d/servers/pg-1/data",
            true,
        );
        check(
            "/usr/lib/postgresql/15/bin/postgres -D /d/servers/pg-12/data",
            false,
        );
        check("/usr/bin/vi -D /d/servers/pg-1/data", false);
        check("/usr/lib/postgresql/15/bin/postgres", false);
    }

    #[test]
    fn only_this_servers_children_are_known() {
        let check = |title: &str, folder: &str, expected| {
            let seen = Seen {
                arguments: title.into(),
                folder: (!folder.is_empty()).then(|| folder.into()),
            };
            assert_eq!(is_of(&seen, &home()), expected, "{title} in {folder}");
        };
        check(
            "postgres: pg-1-ab: tdb_r1_a shop__acme [local] idle",
            "",
            true,
        );
        check("postgres: pg-1-abc: checkpointer", "", false);
        check("postgres: checkpointer", "", false);
        check("", "/d/servers/pg-1/data", true);
        check("bash", "/d/servers/pg-1/data", false);
        check("", "/d/servers/pg-12/data", false);
    }
}
