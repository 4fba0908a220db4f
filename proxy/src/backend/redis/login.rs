//! How a backend connection to a Redis server logs in. Knows no socket: bytes in, bytes out.
//!
//! On a shared server a database has a number of its own, which only the platform's user may select: first that user logs in and
//! selects, then the database's role, which may not. All of it goes out at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use control_store::ServerId;
use control_store::snapshot::NativeRole;
use protocol_redis::command::Table;
use protocol_redis::reply::{Scan, Scanner, Value, write};
use thiserror::Error;

use crate::protocol::{BackendLogin, Target};
use crate::session::Shared;
use crate::session::redis::commands::Commands;

/// No reply of a login is longer; the longest is the table of commands.
const MAX_REPLY: usize = 16 << 20;

/// What a server is, and the commands that it knows.
pub(crate) struct Known {
    /// `redis` or `valkey`, as it names itself.
    pub(crate) name: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) commands: Commands,
}

/// What all workers know of the servers.
#[derive(Default)]
pub(crate) struct KnownServers(Mutex<HashMap<ServerId, Arc<Known>>>);

impl KnownServers {
    fn find(&self, server: ServerId) -> Option<Arc<Known>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&server).map(Arc::clone)
    }

    fn learn(&self, server: ServerId, known: Arc<Known>) {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(server, known);
    }
}

/// Why a backend could not log in. Internal: clients are told only that the server is unavailable.
#[derive(Debug, Error)]
pub(crate) enum LoginError {
    /// The server said no.
    #[error("the server refused the login: {0}")]
    Refused(String),
    /// It broke the protocol.
    #[error("the server sent {0}")]
    Protocol(&'static str),
}

/// What the next reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// `AUTH` or `SELECT`, and how many of them are left.
    Ok { left: u8 },
    /// `HELLO`.
    Hello,
    /// `COMMAND`.
    Command,
}

/// What a login yields.
pub(crate) struct LoggedIn {
    pub(crate) known: Arc<Known>,
    cancel: Box<[u8]>,
}

/// One login under way.
pub(crate) struct Login {
    shared: Arc<KnownServers>,
    server: ServerId,
    /// Who may tell the server that a command is to wait no longer.
    platform: Option<Arc<NativeRole>>,
    step: Step,
    scanner: Scanner,
    input: Vec<u8>,
    /// How much of the input the scanner has seen.
    scanned: usize,
    name: Box<str>,
    version: Box<str>,
    client: i64,
}

impl BackendLogin for Login {
    type Done = LoggedIn;
    type Error = LoginError;

    fn start(shared: &Shared, target: &Target, out: &mut Vec<u8>) -> Result<Self, LoginError> {
        let platform = target.server.redis_select.clone();
        let number = target.database.redis.as_ref().map_or(0, |it| it.number);
        let mut left = 1;
        if let Some(role) = &platform {
            auth(out, role);
            write::command(out, &[b"SELECT", number.to_string().as_bytes()]);
            left += 2;
        }
        auth(out, &target.role);
        write::command(out, &[b"HELLO", b"2"]);
        Ok(Self {
            shared: Arc::clone(&shared.redis_servers),
            server: target.server.id,
            platform,
            step: Step::Ok { left },
            scanner: Scanner::new(),
            input: Vec::new(),
            scanned: 0,
            name: Box::default(),
            version: Box::default(),
            client: 0,
        })
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<LoggedIn>, LoginError> {
        self.input.extend_from_slice(bytes);
        if self.input.len() > MAX_REPLY {
            return Err(LoginError::Protocol("more than a login takes"));
        }
        loop {
            let new = self.input.get(self.scanned..).unwrap_or_default();
            let scan = self
                .scanner
                .scan(new)
                .map_err(|_| LoginError::Protocol("what is no reply"))?;
            let Scan::End(used) = scan else {
                self.scanned = self.input.len();
                return Ok(None);
            };
            let end = self.scanned + used;
            let rest = self.input.split_off(end);
            let reply = std::mem::replace(&mut self.input, rest);
            self.scanned = 0;
            if let Some(known) = self.reply(&reply, out)? {
                return Ok(Some(LoggedIn {
                    known,
                    cancel: self.unblock(),
                }));
            }
        }
    }

    fn is_temporary(error: &LoginError) -> bool {
        match error {
            LoginError::Refused(text) => ["LOADING", "BUSY", "MASTERDOWN", "ERR max"]
                .iter()
                .any(|code| text.starts_with(code)),
            LoginError::Protocol(_) => false,
        }
    }

    fn cancel_request(done: &LoggedIn) -> Box<[u8]> {
        done.cancel.clone()
    }
}

impl Login {
    fn reply(&mut self, reply: &[u8], out: &mut Vec<u8>) -> Result<Option<Arc<Known>>, LoginError> {
        let value = Value::parse(reply).map_err(|_| LoginError::Protocol("a broken reply"))?;
        if let Value::Error(text) = value {
            let text = String::from_utf8_lossy(text).into_owned();
            return Err(LoginError::Refused(text));
        }
        match self.step {
            Step::Ok { left } => {
                self.step = match left {
                    0 | 1 => Step::Hello,
                    left => Step::Ok { left: left - 1 },
                };
                Ok(None)
            }
            Step::Hello => {
                self.hello(&value)?;
                if let Some(known) = self.shared.find(self.server)
                    && (&known.name, &known.version) == (&self.name, &self.version)
                {
                    return Ok(Some(known));
                }
                write::command(out, &[b"COMMAND"]);
                self.step = Step::Command;
                Ok(None)
            }
            Step::Command => {
                let table = Table::from_reply(reply).map_err(|_| {
                    LoginError::Protocol("a table of commands that nobody can read")
                })?;
                let known = Arc::new(Known {
                    name: self.name.clone(),
                    version: self.version.clone(),
                    commands: Commands::new(table),
                });
                self.shared.learn(self.server, Arc::clone(&known));
                Ok(Some(known))
            }
        }
    }

    /// Takes what is needed of `HELLO`'s reply.
    fn hello(&mut self, value: &Value<'_>) -> Result<(), LoginError> {
        let broken = LoginError::Protocol("a broken reply to HELLO");
        let Some(mut items) = value.items() else {
            return Err(broken);
        };
        while let Some(Ok(name)) = items.next() {
            let Some(Ok(value)) = items.next() else {
                return Err(broken);
            };
            match name.string() {
                Some(b"server") => self.name = text(&value),
                Some(b"version") => self.version = text(&value),
                Some(b"id") => self.client = value.integer().unwrap_or_default(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks the server, on another connection, to have this one's command wait no longer; and to end a script that has run for longer
    /// than a script may, whoever's it is. Of any other script a server hears such a request only when it has ended.
    fn unblock(&self) -> Box<[u8]> {
        let Some(role) = &self.platform else {
            return Box::default();
        };
        let mut out = Vec::new();
        auth(&mut out, role);
        let id = self.client.to_string();
        write::command(
            &mut out,
            &[b"CLIENT", b"UNBLOCK", id.as_bytes(), b"TIMEOUT"],
        );
        // Of the two, the one for what runs: a script or a function.
        write::command(&mut out, &[b"SCRIPT", b"KILL"]);
        write::command(&mut out, &[b"FUNCTION", b"KILL"]);
        write::command(&mut out, &[b"QUIT"]);
        out.into()
    }
}

fn text(value: &Value<'_>) -> Box<str> {
    String::from_utf8_lossy(value.string().unwrap_or_default()).into()
}

/// Logs a role in.
pub(crate) fn auth(out: &mut Vec<u8>, role: &NativeRole) {
    write::command(
        out,
        &[b"AUTH", role.name.as_bytes(), role.password.as_bytes()],
    );
}
