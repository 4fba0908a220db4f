//! Commands that we answer ourselves: what they are about is the client's connection to us, not ours to the server.

use protocol_redis::reply::write::{self, Version};
use protocol_redis::request::Command;

use super::clients::Client;
use super::command::Step;
use super::flight::{Failure, Logged};
use super::own::Replies;
use super::policy::Here;
use super::{About, RedisSession, Wait, put_error};
use crate::backend::redis::Backend;
use crate::metrics::ErrorClass;
use crate::query_log::ErrorCode;
use crate::session::{Context, Ports};

const SYNTAX: &str = "ERR syntax error";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

impl RedisSession {
    /// Whether a command that we answer must wait for the replies of those before it.
    pub(super) fn must_wait_here(&mut self) -> bool {
        if self.flights.is_empty() {
            return false;
        }
        self.wait = Wait::Replies;
        true
    }

    /// Answers a command. Nothing is under way.
    pub(super) fn here<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        reply: impl FnOnce(&mut Vec<u8>, Version),
    ) -> Step {
        let mut out = std::mem::take(&mut cx.redis.out);
        out.clear();
        reply(&mut out, self.version);
        if !self.takes_silence() {
            ports.copy_client(&out);
        }
        cx.redis.out = out;
        Step::Done
    }

    /// Answers a command with an error.
    pub(super) fn here_error<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        text: &str,
        class: ErrorClass,
    ) -> Step {
        if self.must_wait_here() {
            return Step::Later;
        }
        let metrics = cx.metrics.protocol(control_store::Engine::Redis);
        metrics.errors.of(class).increment();
        self.here(cx, ports, |out, _| put_error(out, text))
    }

    /// Whether the reply to the next command is not wanted; of one that is skipped, the one after it is.
    pub(super) fn takes_silence(&mut self) -> bool {
        match self.replies {
            Replies::On => false,
            Replies::Off => true,
            Replies::SkipNext => {
                self.replies = Replies::On;
                true
            }
        }
    }

    /// A command of the kind that we answer.
    pub(super) fn answer_here<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        what: Here,
        command: &Command<'_>,
    ) -> Step {
        if self.must_wait_here() {
            return Step::Later;
        }
        let outcome = match what {
            Here::Auth => return self.auth(cx, ports, command),
            Here::Hello => return self.hello(cx, ports, command),
            Here::Quit => return self.quit(cx, ports),
            Here::Reset => return self.reset(cx, ports),
            Here::ClientReply => return self.client_reply(cx, ports, command),
            Here::Select => match command.arg(1) {
                b"0" => ok(cx),
                index if index.iter().all(u8::is_ascii_digit) => {
                    Err("ERR DB index is out of range")
                }
                _ => Err(NOT_AN_INTEGER),
            },
            Here::Role => write_to(cx, |out| {
                write::array_header(out, 3);
                write::bulk(out, b"master");
                write::integer(out, 0);
                write::array_header(out, 0);
            }),
            Here::WhoAmI => {
                let user = self.who.as_ref().map_or("default", |who| &who.user);
                write_to(cx, |out| write::bulk(out, user.as_bytes()))
            }
            Here::ClientSetName => self.set_name(cx, command.arg(2)),
            Here::ClientGetName => {
                let name = self.about.as_ref().map(|about| &*about.name);
                let version = self.version;
                write_to(cx, |out| match name {
                    Some(name) if !name.is_empty() => write::bulk(out, name),
                    _ => write::null(out, version),
                })
            }
            Here::ClientSetInfo => self.set_info(cx, command),
            Here::ClientId => {
                let id = self.id.cast_signed();
                write_to(cx, |out| write::integer(out, id))
            }
            Here::NumPat => {
                let database = self.who.as_ref().map(|who| who.route.database.id);
                let count = database.map_or(0, |id| cx.shared.redis_patterns.count(id));
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                write_to(cx, |out| write::integer(out, count))
            }
            Here::ClientInfo => self.list(cx, Some(&[self.id])),
            Here::ClientList => self.client_list(cx, command),
            Here::ClientHint => match command.arg(2) {
                it if it.eq_ignore_ascii_case(b"on") || it.eq_ignore_ascii_case(b"off") => ok(cx),
                _ => Err(SYNTAX),
            },
            Here::ClientKill | Here::ClientUnblock => Err(
                "NOPERM other connections cannot be ended or woken from here: delete the API key to end its connections",
            ),
        };
        let failure = outcome.err().map(|text| {
            let out = &mut cx.redis.out;
            out.clear();
            put_error(out, text);
            let code = text.split(' ').next().unwrap_or_default();
            Failure {
                code: ErrorCode::new(code.as_bytes()),
                class: ErrorClass::Statement,
            }
        });
        if !self.takes_silence() {
            ports.copy_client(&cx.redis.out);
        }
        let logged = Logged::names(command);
        self.record_here(cx, &logged, failure);
        Step::Done
    }

    /// The client ends the connection.
    pub(super) fn quit<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) -> Step {
        if self.must_wait_here() {
            return Step::Later;
        }
        self.here(cx, ports, |out, _| write::ok(out));
        // A transaction that is open ends with the connection.
        self.leave(cx, ports);
        Step::Done
    }

    /// The client's connection becomes as new.
    pub(super) fn reset<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) -> Step {
        if self.must_wait_here() {
            return Step::Later;
        }
        self.forget_login(cx, ports);
        self.version = Version::Resp2;
        self.about = None;
        self.replies = Replies::On;
        self.input.set_authenticated(false);
        self.here(cx, ports, |out, _| write::simple(out, b"RESET"))
    }

    fn client_reply<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Step {
        match command.arg(2).to_ascii_lowercase().as_slice() {
            b"on" => {
                self.replies = Replies::On;
                self.here(cx, ports, |out, _| write::ok(out))
            }
            b"off" => {
                self.replies = Replies::Off;
                Step::Done
            }
            b"skip" => {
                if self.replies == Replies::On {
                    self.replies = Replies::SkipNext;
                }
                Step::Done
            }
            _ => self.here_error(cx, ports, SYNTAX, ErrorClass::Statement),
        }
    }

    // ---- what a client says of itself ----

    pub(super) fn about_mut(&mut self) -> &mut About {
        self.about.get_or_insert_default()
    }

    fn set_name(&mut self, cx: &mut Context, name: &[u8]) -> Result<(), &'static str> {
        check_name(name)?;
        self.about_mut().name = name.to_vec();
        self.register(cx);
        ok(cx)
    }

    fn set_info(&mut self, cx: &mut Context, command: &Command<'_>) -> Result<(), &'static str> {
        let value = command.arg(3);
        check_name(value).map_err(
            |_| "ERR lib-name and lib-ver cannot contain spaces, newlines or special characters.",
        )?;
        let about = self.about_mut();
        match command.arg(2).to_ascii_lowercase().as_slice() {
            b"lib-name" => about.library = value.to_vec(),
            b"lib-ver" => about.library_version = value.to_vec(),
            _ => return Err("ERR Unrecognized option"),
        }
        self.register(cx);
        ok(cx)
    }

    /// Has the list of clients show this one as it is.
    pub(super) fn register(&self, cx: &Context) {
        let Some(who) = &self.who else { return };
        let none = About::default();
        let about = self.about.as_deref().unwrap_or(&none);
        let client = Client {
            address: self.entrance.address,
            user: who.user.clone(),
            name: about.name.clone(),
            library: about.library.clone(),
            library_version: about.library_version.clone(),
            since: who.since,
            version: self.version,
        };
        let database = who.route.database.id;
        cx.shared.redis_clients.put(database, self.id, client);
    }

    fn client_list(&self, cx: &mut Context, command: &Command<'_>) -> Result<(), &'static str> {
        if command.argc() == 2 {
            return self.list(cx, None);
        }
        let option = command.arg(2).to_ascii_lowercase();
        match &*option {
            b"id" if command.argc() > 3 => {
                let ids: Option<Vec<u64>> = command
                    .args()
                    .skip(3)
                    .map(|it| std::str::from_utf8(it).ok()?.parse().ok())
                    .collect();
                self.list(cx, Some(&ids.ok_or("ERR Invalid client ID")?))
            }
            b"type" if command.argc() == 4 => {
                let kind = command.arg(3).to_ascii_lowercase();
                match &*kind {
                    b"normal" => self.list(cx, None),
                    b"master" | b"replica" | b"slave" | b"pubsub" => self.list(cx, Some(&[])),
                    _ => Err("ERR Unknown client type"),
                }
            }
            _ => Err(SYNTAX),
        }
    }

    fn list(&self, cx: &mut Context, wanted: Option<&[u64]>) -> Result<(), &'static str> {
        let mut lines = Vec::new();
        if let Some(who) = &self.who {
            let database = who.route.database.id;
            let clients = &cx.shared.redis_clients;
            clients.list(database, cx.now, wanted, &mut lines);
        }
        let version = self.version;
        write_to(cx, |out| write::verbatim(out, version, &lines))
    }
}

fn write_to(cx: &mut Context, reply: impl FnOnce(&mut Vec<u8>)) -> Result<(), &'static str> {
    cx.redis.out.clear();
    reply(&mut cx.redis.out);
    Ok(())
}

fn ok(cx: &mut Context) -> Result<(), &'static str> {
    write_to(cx, write::ok)
}

/// Names stand in lists of clients, one in a line with spaces between the fields.
pub(super) fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        true => Ok(()),
        false => Err("ERR Client names cannot contain spaces, newlines or special characters."),
    }
}
