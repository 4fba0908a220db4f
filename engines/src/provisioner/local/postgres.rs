//! One local PostgreSQL server: its creation, its files, its process.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};

use super::account::Account;
use super::binaries::PostgresPrograms;
use super::home::Home;
use super::settings::{self, SUPERUSER};
use crate::provisioner::ProvisionError;

/// How much of what a failed program printed goes into an error.
const DETAIL_BYTES: u64 = 600;
/// For one answer to a health check.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// One local PostgreSQL server.
#[derive(Debug)]
pub(super) struct PostgresServer {
    pub(super) home: Home,
    pub(super) account: Account,
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

    /// Starts the server's process, which then has to become ready.
    pub(super) fn spawn(&self) -> Result<Child, ProvisionError> {
        self.write_files()?;
        let log_path = self.home.startup_log();
        let log = File::create(&log_path).map_err(ProvisionError::io("create", &log_path))?;
        let mut command = Command::new(self.programs.postgres());
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

    /// Whether the server takes connections and answers.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub(super) async fn answers(&self) -> bool {
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
        matches!(timeout(PROBE_TIMEOUT, probe).await, Ok(Some(_)))
    }

    /// The end of what the server printed when it started.
    pub(super) fn last_words(&self) -> String {
        tail(&self.home.startup_log())
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

/// Replaces a file so that a crash leaves the old one or the new one.
fn write_whole(path: &Path, text: &str, account: &Account) -> Result<(), ProvisionError> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).map_err(ProvisionError::io("write", &draft))?;
    account.own(&draft)?;
    fs::rename(&draft, path).map_err(ProvisionError::io("write", path))
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

fn tail(path: &Path) -> String {
    let Ok(mut file) = File::open(path) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    // What cannot be read is missing from the error's detail, no more.
    let _ = file.seek(SeekFrom::Start(length.saturating_sub(DETAIL_BYTES)));
    let _ = file.take(DETAIL_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
