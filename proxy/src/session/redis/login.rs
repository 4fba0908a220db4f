//! `AUTH` and `HELLO`: who the client is, and where its commands go.

use std::time::SystemTime;

use aws_lc_rs::digest;
use control_store::redis::redis_login;
use control_store::{Engine, Fault};
use protocol_redis::reply::write::{self, Version};
use protocol_redis::request::Command;

use super::command::Step;
use super::{Ending, Greeting, RedisSession, Who, place_of, rewriter_of};
use crate::backend::redis::Backend;
use crate::faces::redis as face;
use crate::metrics::ErrorClass;
use crate::route;
use crate::session::{Context, Ports, Request};

/// A client that may say nothing else.
const NOAUTH: &str = "NOAUTH Authentication required.";
/// As a server says it.
const NOAUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time";

impl RedisSession {
    /// A command of a client that has not logged in.
    pub(super) fn before_login<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Step {
        let name = command.arg(0).to_ascii_lowercase();
        match &*name {
            b"auth" => self.auth(cx, ports, command),
            b"hello" => self.hello(cx, ports, command),
            b"quit" => self.quit(cx, ports),
            b"reset" => self.reset(cx, ports),
            _ => self.here_error(cx, ports, NOAUTH, ErrorClass::Denied),
        }
    }

    /// `AUTH password`, `AUTH user password`.
    pub(super) fn auth<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Step {
        let (user, password) = match command.argc() {
            2 => (None, command.arg(1)),
            3 => (Some(command.arg(1)), command.arg(2)),
            1 => {
                let text = "ERR wrong number of arguments for 'auth' command";
                return self.here_error(cx, ports, text, ErrorClass::Statement);
            }
            _ => return self.here_error(cx, ports, "ERR syntax error", ErrorClass::Statement),
        };
        if self.must_wait_here() {
            return Step::Later;
        }
        match self.log_in(cx, ports, user, password) {
            Ok(()) => self.here(cx, ports, |out, _| out.extend_from_slice(b"+OK\r\n")),
            Err(fault) => self.login_failed(cx, ports, &fault),
        }
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`.
    pub(super) fn hello<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Step {
        let mut version = self.version;
        let mut login = None;
        let mut name = None;
        let mut at = 1;
        if let Some(asked) = command.get(1) {
            version = match asked {
                b"2" => Version::Resp2,
                b"3" => Version::Resp3,
                _ if asked.iter().all(u8::is_ascii_digit) => {
                    let text = "NOPROTO unsupported protocol version";
                    return self.here_error(cx, ports, text, ErrorClass::Protocol);
                }
                _ => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return self.here_error(cx, ports, text, ErrorClass::Protocol);
                }
            };
            at = 2;
        }
        while let Some(option) = command.get(at) {
            if option.eq_ignore_ascii_case(b"AUTH") && command.argc() > at + 2 {
                login = Some((command.arg(at + 1), command.arg(at + 2)));
                at += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && command.argc() > at + 1 {
                name = Some(command.arg(at + 1));
                at += 2;
            } else {
                let text = format!(
                    "ERR Syntax error in HELLO option '{}'",
                    String::from_utf8_lossy(option)
                );
                return self.here_error(cx, ports, &text, ErrorClass::Statement);
            }
        }
        if let Some(name) = name
            && let Err(text) = super::here::check_name(name)
        {
            return self.here_error(cx, ports, text, ErrorClass::Statement);
        }
        if self.must_wait_here() {
            return Step::Later;
        }
        if let Some((user, password)) = login
            && let Err(fault) = self.log_in(cx, ports, Some(user), password)
        {
            return self.login_failed(cx, ports, &fault);
        }
        if self.who.is_none() {
            return self.here_error(cx, ports, NOAUTH_HELLO, ErrorClass::Denied);
        }
        self.greeting = Some(Box::new(Greeting {
            version,
            name: name.map(<[u8]>::to_vec),
        }));
        Step::Done
    }

    /// Answers `HELLO`: the reply names the server's version, which a connection to it tells. Whether that is done.
    pub(super) fn greet<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) -> bool {
        let known = match self.known(cx, ports) {
            Ok(Some(known)) => known,
            Ok(None) => return false,
            Err(fault) => {
                self.greeting = None;
                let error = face::translate(&fault);
                self.here_error(cx, ports, &error.text, ErrorClass::from(&fault));
                return true;
            }
        };
        let Some(greeting) = self.greeting.take() else {
            return true;
        };
        if let Some(name) = greeting.name {
            self.about_mut().name = name;
        }
        self.set_version(cx, ports, greeting.version);
        let id = self.id.cast_signed();
        self.here(cx, ports, |out, version| {
            write::map_header(out, version, 7);
            let text = |out: &mut Vec<u8>, name: &str, value: &str| {
                write::bulk(out, name.as_bytes());
                write::bulk(out, value.as_bytes());
            };
            text(out, "server", &known.name);
            text(out, "version", &known.version);
            write::bulk(out, b"proto");
            write::integer(out, if version == Version::Resp3 { 3 } else { 2 });
            write::bulk(out, b"id");
            write::integer(out, id);
            text(out, "mode", "standalone");
            text(out, "role", "master");
            write::bulk(out, b"modules");
            write::array_header(out, 0);
        });
        true
    }

    /// The client speaks this version from now on; nothing is under way.
    pub(super) fn set_version<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        version: Version,
    ) {
        if self.version == version {
            return;
        }
        self.version = version;
        self.link = None;
        self.rest_own(ports);
        // Messages that come from now on are in the new version.
        self.agree_on_version(cx, ports);
    }

    /// Finds the key and the database, and takes a place among the database's clients.
    fn log_in<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        user: Option<&[u8]>,
        password: &[u8],
    ) -> Result<(), Fault> {
        let hash = digest::digest(&digest::SHA256, password);
        let hash: [u8; 32] = hash.as_ref().try_into().map_err(|_| Fault::Bug)?;
        let user = match user {
            Some(user) => Some(std::str::from_utf8(user).map_err(|_| Fault::AuthFailed)?),
            None => None,
        };
        let snapshot = cx.shared.snapshot.load();
        let (key, database) = redis_login(&snapshot, user, &hash)?;
        let gate = cx.shared.gates.gate(database);
        // Before the snapshot is looked at: what changes in between is then noticed.
        let word = gate.word();
        let snapshot = cx.shared.snapshot.load();
        let route = route::renew(&snapshot, &key, database)?;
        let rewriter = rewriter_of(&route)?;
        let limit = route.database.settings.max_connections;
        if !gate.connect(limit) {
            return Err(Fault::ConnectionLimit { limit });
        }
        self.forget_login(cx, ports);
        if self.id == 0 {
            self.id = cx.shared.redis_clients.next_id();
        }
        let mut who = Box::new(Who {
            user: user.unwrap_or("default").into(),
            key,
            since: cx.now,
            rewriter,
            number: place_of(&route).1,
            gate,
            word,
            known: None,
            limited: false,
            route,
        });
        who.limited = who.has_limits();
        self.who = Some(who);
        self.register(cx);
        self.input.set_authenticated(true);
        ports.request(Request::LoggedIn);
        Ok(())
    }

    /// What belonged to the user that the client was before.
    pub(super) fn forget_login<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P) {
        self.drop_own(ports);
        self.leave_gate();
        self.link = None;
        if let Some(before) = self.who.take() {
            before.gate.disconnect();
            let database = before.route.database.id;
            cx.shared.redis_clients.remove(database, self.id);
        }
    }

    fn login_failed<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) -> Step {
        cx.metrics
            .protocol(Engine::Redis)
            .login_failures
            .increment();
        if let (Fault::AuthFailed, Some(guard), Some(address)) =
            (fault, &cx.shared.guard, self.entrance.address)
        {
            // That it is banned now, its next connection learns.
            guard.failed_login(SystemTime::now(), address);
        }
        let error = face::translate(fault);
        let step = self.here_error(cx, ports, &error.text, ErrorClass::from(fault));
        if error.severity == face::Severity::Fatal {
            self.ending = Ending::AfterReplies;
            self.end_if_answered(cx, ports);
        }
        step
    }
}
