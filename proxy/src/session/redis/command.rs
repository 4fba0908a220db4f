//! What each command of the client does.

use control_store::{Engine, Fault};
use protocol_redis::lua;
use protocol_redis::reply::write::Version;
use protocol_redis::request::Command;
use protocol_redis::rewrite::Transform;

use super::commands::{Commands, describe};
use super::flight::{Failure, Flight, Kind, Logged};
use super::functions::Function;
use super::own::Actor;
use super::policy::{Here, Policy, Transaction};
use super::route::Turn;
use super::{RedisSession, Wait, limits, scripted};
use crate::backend::redis::Backend;
use crate::backend::redis::inbox::{How, Owed};
use crate::faces::redis as face;
use crate::metrics::{ErrorClass, PinReason};
use crate::query_log::ErrorCode;
use crate::reactor::{Buf, ConnId};
use crate::session::{Context, Ports};

/// Commands that one session may have under way. A deeper pipeline waits in its own buffers.
const MAX_FLIGHTS: usize = 1024;
/// No server knows this command: it aborts the transaction that it is queued in.
const POISON: &[u8] = b"*1\r\n$17\r\nTENANTSDB.REFUSED\r\n";

/// Whether a command is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is.
    Done,
    /// It stays at the front of the input, until what the session waits for has come.
    Later,
}

/// A command as it goes to the server, in the scratch buffer.
struct Outgoing {
    transform: Transform,
    logged: Logged,
    /// Its reply is an integer, which a script may have to give as text.
    integer: bool,
}

impl RedisSession {
    /// One command, which lies at the front of `front`.
    #[inline]
    pub(super) fn command<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
    ) -> Step {
        if self.flights.len() >= MAX_FLIGHTS {
            self.wait = Wait::Replies;
            return Step::Later;
        }
        let Some(who) = &self.who else {
            return self.before_login(cx, ports, command);
        };
        let Some(known) = &who.known else {
            return match self.known(cx, ports) {
                Ok(Some(_)) => self.command(cx, ports, command, front),
                Ok(None) => Step::Later,
                Err(fault) => self.refuse(
                    cx,
                    ports,
                    command,
                    &face::translate(&fault).text,
                    ErrorClass::from(&fault),
                ),
            };
        };
        let found = known.commands.of(command);
        if let Some((spec, policy)) = found
            && policy != Policy::Share
            && !spec.takes(command.argc())
        {
            let name = String::from_utf8_lossy(spec.name());
            let text = format!("ERR wrong number of arguments for '{name}' command");
            return self.refuse(cx, ports, command, &text, ErrorClass::Statement);
        }
        let policy = found.map(|(_, policy)| policy);
        if who.limited
            && let Some(step) = self.open_bracket(cx, ports, command)
        {
            return step;
        }
        match policy {
            Some(Policy::Share) if self.own.is_none() => {
                self.send_shared(cx, ports, command, front)
            }
            Some(policy) => self.by_policy(cx, ports, command, front, policy),
            None => {
                let text = Commands::unknown(command);
                self.refuse(cx, ports, command, &text, ErrorClass::Statement)
            }
        }
    }

    fn by_policy<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
        policy: Policy,
    ) -> Step {
        let in_transaction = self.own.as_ref().is_some_and(|own| own.queued.is_some());
        match policy {
            Policy::Function(what) if self.shares_server() => {
                self.function(cx, ports, command, front, what)
            }
            Policy::Function(_) => self.send_anywhere(cx, ports, command, front, Kind::Plain),
            Policy::Script(place) if self.shares_server() => {
                match lua::leaves_shared_alone(command.arg(place)) {
                    Ok(()) => self.send_anywhere(cx, ports, command, front, Kind::Plain),
                    Err(error) => {
                        let text = format!("NOPERM {error}");
                        self.refuse(cx, ports, command, &text, ErrorClass::Denied)
                    }
                }
            }
            Policy::Refuse(sentence) => {
                let text = format!("NOPERM {sentence}");
                self.refuse(cx, ports, command, &text, ErrorClass::Denied)
            }
            Policy::Here(_)
            | Policy::Subscribe
            | Policy::Tracking
            | Policy::Info
            | Policy::Platform
                if in_transaction =>
            {
                let text = "ERR this command is not allowed in a transaction here";
                self.refuse(cx, ports, command, text, ErrorClass::Statement)
            }
            Policy::Here(what)
                if !matches!(what, Here::Quit | Here::Reset) && self.hears_only_messages() =>
            {
                let name = String::from_utf8_lossy(command.arg(0)).to_ascii_lowercase();
                let text = format!(
                    "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
                );
                self.refuse(cx, ports, command, &text, ErrorClass::Statement)
            }
            Policy::Here(what) => self.answer_here(cx, ports, what, command),
            Policy::Copy if let Some(name) = other_database(command) => {
                let (text, class) = match std::str::from_utf8(name).map(str::parse::<i64>) {
                    Ok(Ok(_)) => (
                        "NOPERM there is one database here, number 0",
                        ErrorClass::Denied,
                    ),
                    _ => (
                        "ERR value is not an integer or out of range",
                        ErrorClass::Statement,
                    ),
                };
                self.refuse(cx, ports, command, text, class)
            }
            Policy::BlockIfAsked if !has_argument(command, b"BLOCK") => {
                self.send_anywhere(cx, ports, command, front, Kind::Plain)
            }
            Policy::Block | Policy::BlockIfAsked if in_transaction => {
                self.send_own(cx, ports, command, front, Kind::Plain)
            }
            Policy::Block | Policy::BlockIfAsked => {
                if self.must_wait_here() {
                    return Step::Later;
                }
                let kind = Kind::Blocking(Transform::None);
                let step = self.send_own(cx, ports, command, front, kind);
                if step == Step::Done && !self.flights.is_empty() {
                    // What comes behind it may not overtake it, should it have to be issued again.
                    self.wait = Wait::Replies;
                }
                step
            }
            Policy::Transaction(part) => self.transaction(cx, ports, command, front, part),
            Policy::Tracking => self.track(cx, ports, command, front),
            Policy::Subscribe => self.subscribe(cx, ports, command),
            Policy::Info => self.send_as_platform(cx, ports, command, front, Kind::Info),
            Policy::Platform => self.send_as_platform(cx, ports, command, front, Kind::Plain),
            Policy::Share
            | Policy::Script(_)
            | Policy::Copy
            | Policy::Sort
            | Policy::FlushDatabase => self.send_anywhere(cx, ports, command, front, Kind::Plain),
        }
    }

    // ---- sending ----

    /// Writes the command as the server is to have it into the scratch buffer.
    #[inline]
    fn write(&self, cx: &mut Context, command: &Command<'_>, front: &Buf) -> Option<Outgoing> {
        let who = self.who.as_ref()?;
        let known = who.known.as_ref()?;
        let raw = command.raw();
        let kept = if std::ptr::eq(front.as_ptr(), raw.as_ptr()) {
            front.slice(0..raw.len())
        } else {
            Buf::from_vec(raw.to_vec()) // It came as a line.
        };
        let mut logged = Logged::new(kept);
        let out = &mut cx.redis.out;
        out.clear();
        let (spec, policy) = known.commands.of(command)?;
        let mut integer = false;
        let written = match policy {
            Policy::FlushDatabase => {
                scripted::flush(command, out);
                true
            }
            Policy::Share if who.write_limited(spec, policy, command, self.version, out) => {
                integer = limits::counts(command);
                true
            }
            Policy::Function(Function::Call) if !who.rewriter.namespace().is_empty() => {
                who.rewriter.call(spec, command, out);
                true
            }
            Policy::Copy => scripted::copy(&who.rewriter, command, out),
            Policy::Sort => scripted::sort(&who.rewriter, command, out),
            _ => false,
        };
        if !written {
            who.rewriter.command(spec, *command, out);
        }
        let transform = describe(spec, command, &mut logged);
        Some(Outgoing {
            transform,
            logged,
            integer,
        })
    }

    /// Over the connection that others use at the same time.
    #[inline]
    fn send_shared<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
    ) -> Step {
        self.send_over(cx, ports, command, front, Kind::Plain, Self::share)
    }

    /// Over the session's own connection, if it has one, or else over the shared one.
    pub(super) fn send_anywhere<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
        kind: Kind,
    ) -> Step {
        // What is under way there comes first.
        if self.own.is_some() {
            return self.send_own(cx, ports, command, front, kind);
        }
        self.send_over(cx, ports, command, front, kind, Self::share)
    }

    fn send_own<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
        kind: Kind,
    ) -> Step {
        self.send_over(cx, ports, command, front, kind, Self::take_own)
    }

    #[inline]
    fn send_over<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
        kind: Kind,
        connect: impl Fn(&mut Self, &mut Context, &mut P, usize) -> Turn,
    ) -> Step {
        let conn = match connect(self, cx, ports, command.raw().len()) {
            Turn::Now(conn) => conn,
            Turn::Later => return Step::Later,
            Turn::Refused(fault) => {
                let error = face::translate(&fault);
                return self.refuse(cx, ports, command, &error.text, ErrorClass::from(&fault));
            }
        };
        // Written only now: the database's place, and with it the prefix, may have changed on the way.
        let Some(outgoing) = self.write(cx, command, front) else {
            return Step::Done;
        };
        let kind = match kind {
            Kind::Plain if outgoing.integer => Kind::Integer,
            Kind::Plain if outgoing.transform != Transform::None => Kind::Keys(outgoing.transform),
            Kind::Blocking(_) => Kind::Blocking(outgoing.transform),
            kind => kind,
        };
        ports.copy_backend(conn, &cx.redis.out);
        self.launch(cx, ports, kind, Some(outgoing.logged));
        self.enter_bracket(cx, ports);
        Step::Done
    }

    /// A command has been sent: notes what is to become of its reply.
    #[inline]
    pub(super) fn launch<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        mut kind: Kind,
        logged: Option<Logged>,
    ) {
        let silent = self.takes_silence();
        if let Some(own) = self.own.as_mut()
            && let Some(queued) = own.queued.as_mut()
            && let Kind::Keys(_) | Kind::Plain | Kind::Integer | Kind::Blocking(_) = kind
        {
            // Its reply is that it is queued; its place is in EXEC's.
            queued.push(match kind {
                Kind::Keys(transform) | Kind::Blocking(transform) => transform,
                Kind::Integer => Transform::Integer,
                _ => Transform::None,
            });
            kind = Kind::Plain;
        }
        let passes = matches!(kind, Kind::Plain) && !silent && self.bracket.is_none();
        let how = if passes { How::Pass } else { How::Whole };
        if !self.owe(cx, ports, how) {
            return;
        }
        self.flights.push(Flight {
            kind,
            logged,
            started: cx.now,
            silent,
        });
    }

    /// A reply is to come, on the session's own connection if it has one. `false`: there is none.
    #[inline]
    fn owe<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P, how: How) -> bool {
        let owed = Owed {
            session: ports.this(),
            how,
            since: cx.now,
        };
        match (self.own.as_mut(), self.link) {
            (Some(own), _) => own.backend.inbox.owe(owed),
            (None, Some(link)) => ports.links().owe(link, owed),
            (None, None) => return false,
        }
        true
    }

    /// Something of ours has been sent.
    pub(super) fn launch_hidden<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        kind: Kind,
    ) {
        if self.owe(cx, ports, How::Whole) {
            self.flights.push(Flight::hidden(kind, cx.now));
        }
    }

    /// Something of ours has been sent over the connection that sessions share. Nothing else is under way.
    pub(super) fn launch_shared<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        kind: Kind,
    ) {
        let owed = Owed {
            session: ports.this(),
            how: How::Whole,
            since: cx.now,
        };
        if let Some(link) = self.link {
            ports.links().owe(link, owed);
            self.flights.push(Flight::hidden(kind, cx.now));
        }
    }

    /// Answers a command with an error that stands for it, in its place among the replies, and aborts the transaction that it is in.
    pub(super) fn refuse<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        text: &str,
        class: ErrorClass,
    ) -> Step {
        self.refuse_logged(cx, ports, Logged::names(command), text, class)
    }

    pub(super) fn refuse_logged<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        logged: Logged,
        text: &str,
        class: ErrorClass,
    ) -> Step {
        if let Some(own) = self.own.as_mut().filter(|own| own.queued.is_some()) {
            ports.copy_backend(own.backend.conn, POISON);
            let kind = Kind::Refused(text.into(), class);
            self.launch(cx, ports, kind, Some(logged));
            return Step::Done;
        }
        let step = self.here_error(cx, ports, text, class);
        if step == Step::Done {
            let code = text.split(' ').next().unwrap_or_default();
            let failure = Failure {
                code: ErrorCode::new(code.as_bytes()),
                class,
            };
            self.record_here(cx, &logged, Some(failure));
        }
        step
    }

    // ---- transactions and subscriptions ----

    fn transaction<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
        part: Transaction,
    ) -> Step {
        if self.own.is_none()
            && let Transaction::Unwatch = part
        {
            return self.send_anywhere(cx, ports, command, front, Kind::Plain);
        }
        let new = !self.keeps_own();
        if let Err(step) = self.own_turn(cx, ports, command) {
            return step;
        }
        let Some(own) = self.own.as_mut() else {
            return Step::Done;
        };
        let mut kind = Kind::Plain;
        match part {
            Transaction::Exec => {
                own.watching = false;
                if let Some(queued) = own.queued.take() {
                    kind = Kind::Exec(queued);
                }
            }
            Transaction::Discard => {
                own.watching &= own.queued.is_none();
                own.queued = None;
            }
            Transaction::Watch => own.watching |= own.queued.is_none(),
            Transaction::Unwatch => own.watching &= own.queued.is_some(),
            Transaction::Multi => {}
        }
        let step = self.send_own(cx, ports, command, front, kind);
        if let (Transaction::Multi, Some(own)) = (part, self.own.as_mut())
            && own.queued.is_none()
        {
            own.queued = Some(Vec::new());
        }
        if new && self.keeps_own() {
            self.count_pin(cx, PinReason::Transaction);
        }
        step
    }

    /// A connection of the session's own, before anything is changed that depends on it. Otherwise what has become of the command.
    pub(super) fn own_turn<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Result<ConnId, Step> {
        match self.take_own(cx, ports, command.raw().len()) {
            Turn::Now(conn) => Ok(conn),
            Turn::Later => Err(Step::Later),
            Turn::Refused(fault) => {
                let error = face::translate(&fault);
                Err(self.refuse(cx, ports, command, &error.text, ErrorClass::from(&fault)))
            }
        }
    }

    /// `CLIENT TRACKING`: from now on the server tells this connection which keys change, or no longer.
    fn track<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
    ) -> Step {
        if self.must_wait_here() {
            return Step::Later;
        }
        let begins = command.arg(2).eq_ignore_ascii_case(b"on");
        if begins && (self.version == Version::Resp2 || has_argument(command, b"REDIRECT")) {
            let text = "ERR client tracking tells the connection itself, in RESP3: say HELLO 3 and leave REDIRECT out";
            return self.refuse(cx, ports, command, text, ErrorClass::Statement);
        }
        if !begins && !self.keeps_own() {
            return self.send_anywhere(cx, ports, command, front, Kind::Plain);
        }
        if let Err(step) = self.own_turn(cx, ports, command) {
            return step;
        }
        if let Some(own) = self.own.as_mut() {
            own.tracking = begins;
            own.backend.inbox.set_subscribed(true);
        }
        if begins {
            self.count_pin(cx, PinReason::SessionState);
        }
        self.send_as_platform(cx, ports, command, front, Kind::Plain)
    }

    /// Over the session's own connection, as the platform's user.
    fn send_as_platform<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
        front: &Buf,
        kind: Kind,
    ) -> Step {
        if let Err(step) = self.own_turn(cx, ports, command) {
            return step;
        }
        self.act_as(cx, ports, Actor::Platform);
        let step = self.send_own(cx, ports, command, front, kind);
        self.act_as(cx, ports, Actor::Role);
        step
    }

    pub(super) fn count_pin(&self, cx: &Context, reason: PinReason) {
        let metrics = cx.metrics.protocol(Engine::Redis);
        metrics.pins.of(reason).increment();
    }

    /// The next command cannot be sent.
    pub(super) fn refuse_next<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) {
        self.refused = Some(fault.clone());
        self.pump(cx, ports);
    }
}

/// Whether a command has that word among its arguments.
fn has_argument(command: &Command<'_>, word: &[u8]) -> bool {
    command.args().any(|arg| arg.eq_ignore_ascii_case(word))
}

/// The other database than the client's to which `COPY` would go.
fn other_database<'a>(command: &Command<'a>) -> Option<&'a [u8]> {
    let options = command.args().skip(3);
    let values = command.args().skip(4);
    options
        .zip(values)
        .find(|(option, value)| option.eq_ignore_ascii_case(b"DB") && *value != b"0")
        .map(|(_, value)| value)
}
