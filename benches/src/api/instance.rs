//! The whole product, started for a benchmark in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::Client;
use crate::process::{Cpus, Process, RunAs, run};
use crate::procfs::{Usage, usage};

const START_TIMEOUT: Duration = Duration::from_secs(180);

/// What a project's owner knows.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) key: String,
    pub(super) project: String,
}

/// A running instance with PostgreSQL.
pub(super) struct Instance {
    folder: TempDir,
    process: Option<Process>,
    ready: Value,
    cpus: Cpus,
}

/// Builds the product, as the report is to be made with.
///
/// # Errors
/// It does not build.
pub fn build() -> Result<()> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    run(Command::new(cargo).args(["build", "--release", "--quiet", "-p", "server"])).map(drop)
}

/// The product, beside this program.
fn binary() -> Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.set_file_name("tenantsdb");
    // Tests are a folder deeper.
    if path.parent().is_some_and(|it| it.ends_with("deps")) {
        path = path.with_file_name("../tenantsdb");
    }
    path.exists()
        .then_some(path)
        .context("the product is not built: cargo build --release -p server")
}

impl Instance {
    pub(super) fn start(cpus: &Cpus) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // Database servers run as another user, who must be able to enter.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let mut instance = Self {
            folder,
            process: None,
            ready: Value::Null,
            cpus: cpus.clone(),
        };
        instance.start_again()?;
        Ok(instance)
    }

    pub(super) fn start_again(&mut self) -> Result<()> {
        let data = self.data();
        let ready = data.join("ready.json");
        // What an earlier life left.
        let _ = fs::remove_file(&ready);
        let binary = binary()?;
        let (binary, folder) = (binary.to_string_lossy(), data.to_string_lossy());
        let mut line = vec![&*binary, "up", "--data-dir", &folder, "--plaintext"];
        line.extend(["--engines", "postgresql", "--ip-limit", "0"]);
        for port in ["--api", "--postgres", "--metrics"] {
            line.extend([port, "127.0.0.1:0"]);
        }
        let log = self.folder.path().join("log");
        let mut process = Process::start(&line, &self.cpus, RunAs::Same, "TERM", &log)?;
        let mut found = None;
        process.wait_until(START_TIMEOUT, || {
            let text = fs::read_to_string(&ready).unwrap_or_default();
            found = serde_json::from_str(&text).ok();
            found.is_some()
        })?;
        self.ready = found.unwrap_or_default();
        self.process = Some(process);
        Ok(())
    }

    /// Stops it as an operator would.
    pub(super) fn stop(&mut self) {
        self.process = None;
    }

    /// Ends it as a power cut would.
    pub(super) fn kill(&mut self) -> Result<()> {
        run(Command::new("kill").args(["-s", "KILL", &self.pid()?.to_string()]))?;
        self.process = None;
        Ok(())
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(super) fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("it does not run")?.pid())
    }

    /// The processor time it has used.
    pub(super) fn usage(&self) -> Result<Usage> {
        usage(self.pid()?)
    }

    pub(super) fn client(&self, key: Option<&str>) -> Result<Client> {
        let url = self.ready["api"].as_str().unwrap_or_default();
        Client::connect(url.trim_start_matches("http://"), key)
    }

    /// A project with a workspace `shop`, whose schema is made by these statements.
    pub(super) fn shop(&self, statements: &[&str]) -> Result<Account> {
        let body = json!({"email": "bench@example.com", "password": "correct horse"});
        let made = self.client(None)?.ok("POST", "/signup", Some(&body))?;
        let text = |name: &str| made[name].as_str().map(str::to_owned).context("no account");
        let account = Account {
            key: text("api_key")?,
            project: text("project_id")?,
        };
        let mut client = self.client(Some(&account.key))?;
        let body = json!({"name": "shop", "database": "PostgreSQL", "mode": "tenant"});
        client.ok("POST", "/workspaces", Some(&body))?;
        for statement in statements {
            let body = json!({ "query": statement });
            client.ok("POST", "/workspaces/shop/queries", Some(&body))?;
        }
        Ok(account)
    }

    /// `host:port` for PostgreSQL clients.
    pub(super) fn postgres(&self) -> (&str, &str) {
        let address = self.ready["postgres"].as_str().unwrap_or_default();
        address.rsplit_once(':').unwrap_or_default()
    }
}

/// A body that makes a tenant of `shop`.
pub(super) fn new_tenant(id: &str) -> Value {
    json!({"tenant_id": id, "databases": [{"blueprint": "shop"}]})
}

/// Bytes of all files in a folder.
pub(super) fn bytes_in(folder: &Path) -> Result<u64> {
    let entries = fs::read_dir(folder)?.map(|it| Ok(it?.metadata()?.len()));
    entries.sum()
}
