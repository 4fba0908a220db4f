//! A schema as the statements that make it, from a managed database or one elsewhere.
//!
//! `pg_dump` knows every kind of object of every version and the order in which they can be made; its text is taken apart
//! into statements, and what belongs to the platform or to the server is left out.

use std::process::Stdio;
use std::time::Duration;

use control_store::Secret;
use control_store::snapshot::ServerAddress;
use protocol_sql::{Options, split};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::connect::{administrator_of, socket_place};
use super::harden::PLATFORM;
use crate::provisioner::local::binaries::PostgresPrograms;
use crate::{EngineError, ServerAccess};

/// For the whole of it. Only the catalog is read.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// For each lock, in milliseconds.
const LOCK_TIMEOUT: &str = "--lock-wait-timeout=10000";
/// The most that is read.
const MAX_BYTES: u64 = 64 << 20;
/// How much of what the program complained of goes into an error.
const DETAIL_BYTES: u64 = 600;

/// Beginnings of statements that are about the session, the server or the platform, and of those that a workspace already
/// has the effect of.
const LEFT_OUT: [&str; 10] = [
    "SET ",
    "SELECT pg_catalog.set_config(",
    "CREATE EVENT TRIGGER ",
    "ALTER EVENT TRIGGER ",
    "COMMENT ON EVENT TRIGGER ",
    "COMMENT ON EXTENSION ",
    "CREATE SCHEMA public",
    "ALTER SCHEMA public",
    "COMMENT ON SCHEMA public",
    "CREATE EXTENSION IF NOT EXISTS plpgsql ",
];

/// A database to read a schema from.
#[derive(Clone)]
pub struct SchemaSource {
    /// Where its server is. Names are looked up, and checked, by whoever makes this.
    pub address: ServerAddress,
    /// Whom to log in as.
    pub user: String,
    /// With which password; none where the server knows us otherwise.
    pub password: Option<Secret>,
    /// Which database.
    pub database: String,
    /// Whether an unencrypted connection is refused.
    pub require_tls: bool,
}

impl SchemaSource {
    /// A database of ours.
    pub(super) fn managed(server: &ServerAccess, database: &str) -> Self {
        let (user, password) = administrator_of(server);
        Self {
            address: server.address.clone(),
            user: user.to_owned(),
            password: password.map(|it| Secret::new(it.to_owned())),
            database: database.to_owned(),
            require_tls: false,
        }
    }

    /// The statements that make the schema, in an order in which they can run, without owners and rights. All names are
    /// qualified: run them with an empty `search_path`, and with `check_function_bodies` off, since a function may be made
    /// before what its body names.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, or `pg_dump` is missing or older than the server.
    ///
    /// # Cancel safety
    /// Safe to drop: the program ends.
    pub async fn statements(&self) -> Result<Vec<String>, EngineError> {
        let programs = PostgresPrograms::find_clients()
            .map_err(|it| EngineError::Unavailable(it.to_string()))?;
        let mut command = Command::new(programs.pg_dump());
        command
            .args([
                "--schema-only",
                "--no-owner",
                "--no-privileges",
                "--no-tablespaces",
                "--no-publications",
                "--no-subscriptions",
                "--no-security-labels",
                "--no-password",
                "--encoding=UTF8",
                LOCK_TIMEOUT,
            ])
            .arg(format!("--exclude-schema={PLATFORM}"))
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("PGUSER", &self.user)
            .env("PGDATABASE", &self.database)
            .env("PGCONNECT_TIMEOUT", "10")
            .env("PGAPPNAME", "tenantsdb")
            // Nobody else's secrets: neither the password file nor the client certificate of our own account.
            .env("PGPASSFILE", "/dev/null")
            .env("PGSSLCERT", "/dev/null/none")
            .env("PGGSSENCMODE", "disable")
            .env(
                "PGSSLMODE",
                if self.require_tls {
                    "require"
                } else {
                    "prefer"
                },
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        match &self.address {
            ServerAddress::Unix(socket) => {
                let (folder, port) = socket_place(socket);
                command
                    .env("PGHOST", folder)
                    .env("PGPORT", port.to_string());
            }
            ServerAddress::Tcp(address) => {
                command
                    .env("PGHOSTADDR", address.ip().to_string())
                    .env("PGPORT", address.port().to_string());
            }
            ServerAddress::Tls(place) => {
                command
                    .env("PGHOST", &*place.host)
                    .env("PGHOSTADDR", place.address.ip().to_string())
                    .env("PGPORT", place.address.port().to_string());
                match &place.authority {
                    Some(path) => command
                        .env("PGSSLMODE", "verify-full")
                        .env("PGSSLROOTCERT", path),
                    None => command.env("PGSSLMODE", "require"),
                };
            }
        }
        // The environment of a process is for its own account to see, unlike its arguments.
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password.expose());
        }
        let text = timeout(TIME_LIMIT, output(command))
            .await
            .map_err(|_| EngineError::Unavailable("reading the schema took too long".into()))??;
        Ok(taken_apart(&text))
    }
}

/// What the program prints, up to the limit: the far side may be hostile.
async fn output(mut command: Command) -> Result<String, EngineError> {
    let failed = |it: std::io::Error| EngineError::Unavailable(format!("cannot run pg_dump: {it}"));
    let mut child = command.spawn().map_err(failed)?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(EngineError::Unsupported("pg_dump has no output"));
    };
    let (mut text, mut said) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (stdout.take(MAX_BYTES + 1), stderr.take(DETAIL_BYTES));
    let (printed, complained) =
        tokio::join!(stdout.read_to_end(&mut text), stderr.read_to_end(&mut said));
    printed.and(complained).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(EngineError::Unsupported(
            "the schema is larger than 64 MiB as text",
        ));
    }
    // What it may still have to say is not read: it cannot block on that.
    drop((stdout, stderr));
    if !child.wait().await.map_err(failed)?.success() {
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return Err(EngineError::Unavailable(said));
    }
    String::from_utf8(text).map_err(|_| EngineError::Unsupported("the schema is not in UTF-8"))
}

/// The statements of a dump that matter.
fn taken_apart(text: &str) -> Vec<String> {
    let text = without_commands(text);
    split(&text, &Options::default())
        .into_iter()
        .filter(|statement| !LEFT_OUT.iter().any(|it| statement.starts_with(it)))
        .map(str::to_owned)
        .collect()
}

/// Newer versions put the text between two commands to `psql`, which share a random word.
fn without_commands(text: &str) -> String {
    let word = text
        .lines()
        .find_map(|line| line.strip_prefix("\\restrict "));
    let Some(word) = word else {
        return text.to_owned();
    };
    let (begin, end) = (format!("\\restrict {word}"), format!("\\unrestrict {word}"));
    let lines = text.lines().filter(|line| *line != begin && *line != end);
    lines.fold(String::with_capacity(text.len()), |mut kept, line| {
        kept.push_str(line);
        kept.push('\n');
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_taken_apart() {
        let text = "--\n-- PostgreSQL database dump\n--\n\n\\restrict x7\n\nSET lock_timeout = 0;\n\
            SELECT pg_catalog.set_config('search_path', '', false);\n\
            CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;\n\
            COMMENT ON EXTENSION citext IS 'x';\n\
            CREATE FUNCTION public.f() RETURNS text\n    LANGUAGE plpgsql\n    AS $$\nBEGIN\n  SET x; -- ;\n  RETURN '\n\\restrict x8\n';\nEND\n$$;\n\n\
            CREATE TABLE public.a (\n    id integer NOT NULL\n);\n\n\\unrestrict x7\n\n";
        assert_eq!(
            taken_apart(text),
            [
                "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public",
                "CREATE FUNCTION public.f() RETURNS text\n    LANGUAGE plpgsql\n    AS $$\nBEGIN\n  SET x; -- ;\n  RETURN '\n\\restrict x8\n';\nEND\n$$",
                "CREATE TABLE public.a (\n    id integer NOT NULL\n)",
            ]
        );
    }
}
