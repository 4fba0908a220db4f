//! What each reply does.

use control_store::{Engine, Fault};
use protocol_redis::reply::write;
use protocol_redis::rewrite::{RewriteError, Transform};

use super::flight::{Failure, Flight, Kind, Logged, Place, record};
use super::info::own_info;
use super::limits;
use super::{Ending, RedisSession, Wait, put_error, timeout};
use crate::backend::redis::Backend;
use crate::backend::redis::inbox::Answer;
use crate::faces::redis as face;
use crate::metrics::ErrorClass;
use crate::query_log::ErrorCode;
use crate::reactor::Buf;
use crate::session::{Context, Ports};

/// A client that has this much to take is disconnected, as a server does with its output buffer's limit.
const MAX_QUEUED: usize = 256 << 20;

impl RedisSession {
    /// Replies over the shared connection.
    pub(super) fn answered<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        answer: Answer,
    ) {
        self.take_answer(cx, ports, answer);
        self.at_rest(cx, ports);
    }

    #[inline]
    pub(super) fn take_answer<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        answer: Answer,
    ) {
        if answer.push {
            return self.pushed(cx, ports, &answer.bytes);
        }
        if answer.whole {
            return self.replied(cx, ports, &answer.bytes);
        }
        self.midway = answer.open;
        for _ in 0..answer.done {
            if let Some(flight) = self.flights.pop() {
                self.record(cx, &flight, None);
            }
        }
        self.send(ports, answer.bytes);
    }

    /// One reply, all of it.
    pub(super) fn replied<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bytes: &Buf,
    ) {
        let Some(mut flight) = self.flights.pop() else {
            return;
        };
        if let Kind::Bracket = flight.kind {
            return self.bracket_answered(cx, ports, bytes);
        }
        match flight.kind {
            Kind::Libraries => return self.libraries_answered(bytes),
            Kind::Ignored => return,
            _ => {}
        }
        let failed = bytes.first() == Some(&b'-');
        let failure = failed.then(|| Failure::of_reply(bytes));
        let mut out = std::mem::take(&mut cx.redis.out);
        out.clear();
        match &flight.kind {
            Kind::Refused(text, class) => {
                put_error(&mut out, text);
                let code = text.split(' ').next().unwrap_or_default();
                let failure = Failure {
                    code: ErrorCode::new(code.as_bytes()),
                    class: *class,
                };
                self.record(cx, &flight, Some(failure));
            }
            Kind::Hidden => {
                cx.redis.out = out;
                if failed {
                    tracing::warn!(
                        "a database server does not do what every server does at a session's beginning"
                    );
                    self.terminate(cx, ports, &Fault::BackendLost);
                }
                return;
            }
            Kind::Blocking(_) if self.was_woken() && is_null(bytes) => {
                // Nothing came, and the database is moving: the command goes on on the other server.
                cx.redis.out = out;
                return self.issue_again(cx, flight);
            }
            Kind::Info if !failed => {
                self.own_info(cx, bytes, &mut out);
                self.record(cx, &flight, None);
            }
            Kind::FunctionStats if !failed => {
                self.function_stats(bytes, &mut out);
                self.record(cx, &flight, None);
            }
            Kind::Flushed => {
                // That another client has deleted it meanwhile is no error.
                write::ok(&mut out);
                self.record(cx, &flight, None);
            }
            kind => {
                let rewritten = self.rewrite(kind, bytes, &mut out);
                self.record(cx, &flight, failure);
                if let Err(error) = rewritten {
                    tracing::error!(%error, "a reply is not passed on");
                    out.clear();
                    put_error(&mut out, &face::translate(&Fault::Bug).text);
                }
            }
        }
        let heard = !flight.silent && self.ending != Ending::Unheard;
        if !self.close_bracket(cx, ports, &out, heard, &mut flight.logged) && heard {
            ports.copy_client(&out);
        }
        cx.redis.out = out;
    }

    /// What waited at the server goes on on another one, for the time that is left of its own.
    fn issue_again(&mut self, cx: &Context, flight: Flight) {
        let Some(logged) = flight.logged else { return };
        let elapsed = cx.now.saturating_duration_since(flight.started);
        let again = timeout::shorten(logged.command(), elapsed);
        self.input.unread(Buf::from_vec(again));
    }

    /// The reply as the client is to see it.
    fn rewrite(&self, kind: &Kind, reply: &[u8], out: &mut Vec<u8>) -> Result<(), RewriteError> {
        let Some(who) = &self.who else { return Ok(()) };
        match kind {
            Kind::Keys(transform) | Kind::Blocking(transform) => {
                who.rewriter.reply(*transform, reply, out)
            }
            Kind::Integer => {
                limits::integer(reply, out);
                Ok(())
            }
            Kind::Loaded { .. } => who.rewriter.reply(Transform::LibraryName, reply, out),
            Kind::Exec(transforms) => who.rewriter.exec(transforms.iter().copied(), reply, out),
            _ => who.rewriter.reply(Transform::None, reply, out),
        }
    }

    fn own_info(&self, cx: &Context, reply: &[u8], out: &mut Vec<u8>) {
        if let Some(who) = &self.who {
            let clients = cx.shared.redis_clients.count(who.route.database.id);
            own_info(reply, who.number, clients, self.version, out);
        }
    }

    fn was_woken(&mut self) -> bool {
        self.own
            .as_mut()
            .is_some_and(|own| std::mem::take(&mut own.woken))
    }

    #[inline]
    fn send<P: Ports<Backend>>(&mut self, ports: &mut P, bytes: Buf) {
        if self.ending != Ending::Unheard {
            ports.send_client(bytes);
            self.check_queue(ports);
        }
    }

    /// A client that does not take what it has asked for may not fill the memory.
    #[inline]
    pub(super) fn check_queue<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if ports.client_queued() > MAX_QUEUED {
            tracing::warn!(
                bytes = MAX_QUEUED,
                "a Redis client does not take its replies and is disconnected"
            );
            self.ending = Ending::Unheard;
        }
    }

    /// After replies: what the session holds for them is given back, and what waited for them goes on.
    pub(super) fn at_rest<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if !self.flights.is_empty() || self.ending == Ending::Over {
            return;
        }
        if self.ending == Ending::Unheard {
            return self.leave(cx, ports);
        }
        self.rest_own(ports);
        let in_transaction = self.own.as_ref().is_some_and(|own| own.in_transaction());
        if !in_transaction {
            self.leave_gate();
        }
        if self.ending == Ending::AfterReplies {
            return self.end_if_answered(cx, ports);
        }
        if self.wait == Wait::Replies {
            self.wait = Wait::Not;
            self.pump(cx, ports);
        }
    }

    // ---- failures ----

    /// What is under way fails: nobody knows what the server has done with it.
    pub(super) fn fail_flights<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) {
        let error = face::translate(fault);
        let failure = Failure {
            code: ErrorCode::new(error.code().as_bytes()),
            class: ErrorClass::from(fault),
        };
        self.drop_bracket(ports);
        if self.midway {
            // The client has the beginning of a reply: whatever followed, it would take for the rest.
            self.ending = Ending::Unheard;
        }
        let mut out = Vec::new();
        while let Some(flight) = self.flights.pop() {
            if !flight.silent {
                put_error(&mut out, &error.text);
            }
            self.record(cx, &flight, Some(failure));
        }
        if self.ending != Ending::Unheard && !out.is_empty() {
            ports.copy_client(&out);
        }
    }

    fn place(&self) -> Option<Place> {
        self.who.as_ref().map(|who| Place {
            database: who.route.database.id,
            source: self.entrance.source,
        })
    }

    pub(super) fn record(&self, cx: &mut Context, flight: &Flight, failure: Option<Failure>) {
        if let (Some(place), Some(logged)) = (self.place(), &flight.logged) {
            record(cx, place, logged, flight.started, failure);
        }
    }

    /// Records a command that we have answered ourselves.
    pub(super) fn record_here(&self, cx: &mut Context, logged: &Logged, failure: Option<Failure>) {
        let now = cx.now;
        match self.place() {
            Some(place) => record(cx, place, logged, now, failure),
            None => {
                let metrics = cx.metrics.protocol(Engine::Redis);
                if let Some(failure) = failure {
                    metrics.errors.of(failure.class).increment();
                }
            }
        }
    }
}

/// Whether a reply says that there is nothing.
fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}
