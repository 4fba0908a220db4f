//! What the end-to-end tests share: the product running in a folder of its own, and clients for it.
//!
//! The binary is the one that `cargo build` puts beside the tests; `make test` builds it first.

pub mod servers;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Both reactors: every test of the data plane runs on each.
pub const REACTORS: [&str; 2] = ["uring", "epoll"];

const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
#[must_use]
pub fn binary() -> PathBuf {
    let mut path = std::env::current_exe().unwrap_or_default();
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.join("tenantsdb")
}

/// The product, running. Dropping it ends it and everything it started.
pub struct Product {
    child: Option<Child>,
    folder: TempDir,
    flags: Vec<String>,
    /// What its configuration file has beside folder and addresses, where it is run as in production.
    configuration: Option<String>,
    /// How the proxy drives sockets, where the configuration file says so.
    reactor: Option<String>,
    /// What `ready.json` says.
    pub ready: Value,
}

impl Product {
    /// Starts it in a new folder, on free ports, with these flags behind the usual ones.
    ///
    /// # Errors
    /// It does not come up; the error holds what it printed.
    pub fn start(flags: &[&str]) -> Result<Self> {
        let flags = flags.iter().map(ToString::to_string).collect();
        let mut product = Self::new(flags, None)?;
        product.run()?;
        Ok(product)
    }

    /// Starts it in a new folder with a configuration file that holds this, too; it begins with what is in no table.
    ///
    /// # Errors
    /// As [`Product::start`].
    pub fn serve(configuration: &str) -> Result<Self> {
        let mut product = Self::new(Vec::new(), Some(configuration.to_owned()))?;
        product.run()?;
        Ok(product)
    }

    fn new(flags: Vec<String>, configuration: Option<String>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // Database servers run as another user, who must be able to enter.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            child: None,
            folder,
            flags,
            configuration,
            reactor: None,
            ready: Value::Null,
        })
    }

    /// Takes another configuration for the next start.
    pub fn configure(&mut self, configuration: &str) {
        self.configuration = Some(configuration.to_owned());
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn run(&mut self) -> Result<()> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        let child = self
            .command()?
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", binary().display()))?;
        let pid = child.id();
        self.child = Some(child);
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(text) = fs::read_to_string(self.data().join("ready.json"))
                && let Ok(ready) = serde_json::from_str::<Value>(&text)
                && ready["pid"] == pid
            {
                self.ready = ready;
                return Ok(());
            }
            if let Some(child) = self.child.as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("it ended ({status}): {}", self.log());
            }
            ensure!(Instant::now() < deadline, "it is not ready: {}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    /// Takes another reactor for the next start from a configuration file.
    pub fn drive_sockets_by(&mut self, reactor: &str) {
        self.reactor = Some(reactor.to_owned());
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary());
        if let Some(configuration) = &self.configuration {
            let file = self.folder.path().join("tenantsdb.toml");
            let reactor = self.reactor.as_ref();
            let reactor = reactor.map_or_else(String::new, |it| format!("reactor = '{it}'"));
            let text = format!(
                "data_dir = '{}'\n{configuration}\n[listen]\napi = '127.0.0.1:0'\npostgres = '127.0.0.1:0'\n\
                 redis = '127.0.0.1:0'\nmetrics = '127.0.0.1:0'\n[api]\nip_limit = 0\n[proxy]\nworkers = 2\n{reactor}\n",
                self.data().display()
            );
            fs::write(&file, text)?;
            command.arg("serve").arg("--config").arg(file);
            return Ok(command);
        }
        command
            .arg("up")
            .arg("--data-dir")
            .arg(self.data())
            .args([
                "--api",
                "127.0.0.1:0",
                "--postgres",
                "127.0.0.1:0",
                "--metrics",
                "127.0.0.1:0",
            ])
            .args(["--ip-limit", "0", "--workers", "2"])
            .args(self.engines())
            .args(&self.flags);
        Ok(command)
    }

    /// PostgreSQL, where the test names no other engines.
    fn engines(&self) -> &'static [&'static str] {
        match self.flags.iter().any(|flag| flag == "--engines") {
            true => &["--redis", "127.0.0.1:0"],
            false => &["--engines", "postgresql"],
        }
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child
            && let Ok(id) = i32::try_from(child.id())
            && let Some(pid) = Pid::from_raw(id)
        {
            // It may have ended.
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops it as an operator would, and checks that it ends well.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while let Some(child) = self.child.as_mut() {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                ensure!(status.success(), "it ended with {status}: {}", self.log());
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "it does not stop: {}",
                self.log()
            );
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it as a power cut would, but for what the kernel still writes.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again on the same folder.
    ///
    /// # Errors
    /// As [`Product::start`].
    pub fn start_again(&mut self) -> Result<()> {
        self.run()
    }

    /// Host and port for PostgreSQL clients.
    #[must_use]
    pub fn postgres(&self) -> (String, String) {
        let address = self.ready["postgres"].as_str().unwrap_or_default();
        let (host, port) = address.rsplit_once(':').unwrap_or_default();
        (host.to_owned(), port.to_owned())
    }

    /// How an operator logs in to the first shared PostgreSQL server, past the proxy.
    #[must_use]
    pub fn superuser(&self) -> Login {
        Login {
            host: self.data().join("servers/pg-1/run").display().to_string(),
            port: "5432".into(),
            user: "tenantsdb".into(),
            password: String::new(),
            database: "postgres".into(),
            ca_cert: String::new(),
        }
    }

    /// Sends a request without a key.
    ///
    /// # Errors
    /// The API does not answer, or not with JSON.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value> {
        let url = format!("{}{path}", self.ready["api"].as_str().unwrap_or_default());
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(Duration::from_secs(120)))
            .build()
            .into();
        let mut answer = match body {
            Some(body) => agent.run(
                request
                    .header("content-type", "application/json")
                    .body(body.to_string())?,
            )?,
            None => agent.run(request.body(())?)?,
        };
        let text = answer.body_mut().read_to_string()?;
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: {text}"))
    }

    /// The page of metrics.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> Result<String> {
        let url = self.ready["metrics"].as_str().unwrap_or_default();
        Ok(ureq::get(url).call()?.body_mut().read_to_string()?)
    }

    /// Makes an account with a project.
    ///
    /// # Errors
    /// The API refuses.
    pub fn sign_up(&self, email: &str) -> Result<Account<'_>> {
        let body = json!({"email": email, "password": "correct horse", "project_name": "Shop"});
        let made = self.call("POST", "/signup", None, Some(&body))?;
        let text = |name: &str| {
            made[name]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("{made}"))
        };
        Ok(Account {
            product: self,
            key: text("api_key")?,
            project: text("project_id")?,
        })
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- what the product printed ----\n{}", self.log());
        }
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_LIMIT;
        while let Some(child) = self.child.as_mut() {
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(20)),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                _ => break,
            }
        }
    }
}

/// An account of the product, with the key of its first project.
pub struct Account<'a> {
    product: &'a Product,
    /// The API key.
    pub key: String,
    /// The project, which is also the user name on the wire.
    pub project: String,
}

/// How to log in to a database.
#[derive(Clone, Debug)]
pub struct Login {
    /// The host.
    pub host: String,
    /// The port.
    pub port: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// The database.
    pub database: String,
    /// The authority to trust.
    pub ca_cert: String,
}

impl<'a> Account<'a> {
    /// An account that was made before, by its key.
    #[must_use]
    pub fn known(product: &'a Product, key: &str) -> Self {
        Self {
            product,
            key: key.to_owned(),
            project: String::new(),
        }
    }
}

impl Account<'_> {
    /// Sends a request and gives the answer, whatever it is.
    ///
    /// # Errors
    /// The API does not answer with JSON.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.product.call(method, path, Some(&self.key), body)
    }

    /// Sends a request that must succeed.
    ///
    /// # Errors
    /// The API refuses; the error holds its answer.
    pub fn ok(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let answer = self.call(method, path, body)?;
        ensure!(answer["success"] == true, "{method} {path}: {answer}");
        Ok(answer)
    }

    /// Makes a workspace; gives the login to its database.
    ///
    /// # Errors
    /// The API refuses.
    pub fn workspace(&self, name: &str, mode: &str) -> Result<Login> {
        let body = json!({"name": name, "database": "PostgreSQL", "mode": mode});
        let made = self.ok("POST", "/workspaces", Some(&body))?;
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let connection = &made["connection"];
        Ok(Login {
            host: text(&connection["host"]),
            port: text(&connection["port"]),
            user: text(&connection["user"]),
            password: text(&connection["password"]),
            database: text(&connection["database"]),
            ca_cert: text(&self.product.ready["ca_cert"]),
        })
    }

    /// Makes a tenant with one shared database; gives the login to it.
    ///
    /// # Errors
    /// The API refuses.
    pub fn tenant(&self, id: &str, blueprint: &str, workspace: &Login) -> Result<Login> {
        let database = json!({"blueprint": blueprint, "isolation_level": 1});
        let body = json!({"tenant_id": id, "databases": [database]});
        let made = self.ok("POST", "/tenants", Some(&body))?;
        ensure!(made["status"] == "ready", "{made}");
        Ok(Login {
            database: format!("{blueprint}__{id}"),
            ..workspace.clone()
        })
    }

    /// Deploys a blueprint to all its tenants and waits for the end.
    ///
    /// # Errors
    /// The API refuses, or it does not end.
    pub fn deploy(&self, blueprint: &str) -> Result<Value> {
        let body = json!({"blueprint_name": blueprint, "deploy_all": true});
        let begun = self.ok("POST", "/deployments", Some(&body))?;
        let id = begun["id"]
            .as_str()
            .or(begun["deployment_id"].as_str())
            .with_context(|| format!("{begun}"))?
            .to_owned();
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let now = self.ok("GET", &format!("/deployments/{id}"), None)?;
            if now["status"] == "completed" || now["status"] == "failed" {
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "{now}");
            sleep(Duration::from_millis(50));
        }
    }
}

impl Login {
    /// A command with libpq's environment for this login, over verified TLS.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("PGHOST", &self.host)
            .env("PGPORT", &self.port)
            .env("PGUSER", &self.user)
            .env("PGPASSWORD", &self.password)
            .env("PGDATABASE", &self.database)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", &self.ca_cert)
            .env("PGCONNECT_TIMEOUT", "30");
        command
    }

    /// Runs a program of PostgreSQL's.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn program(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        Ok(self
            .command(find_program(program))
            .args(arguments)
            .output()?)
    }

    /// What psql prints for a script, errors too.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn psql(&self, script: &str) -> Result<String> {
        let out = self.program("psql", &["-X", "-A", "-t", "-q", "-c", script])?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned()
            + &String::from_utf8_lossy(&out.stderr))
    }
}

/// Where a program of PostgreSQL's is.
#[must_use]
pub fn find_program(name: &str) -> PathBuf {
    let debian = Path::new("/usr/lib/postgresql/15/bin").join(name);
    if debian.exists() { debian } else { name.into() }
}
