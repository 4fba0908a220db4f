//! The Redis session.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the session's state, its events, and its end |
//! | `input.rs` | the client's bytes, cut into commands |
//! | `login.rs` | `AUTH`, `HELLO`, and what may be said before |
//! | `policy.rs` | what the proxy does with each command, by its name |
//! | `command.rs` | what each command of the client does |
//! | `route.rs` | through the gate to a connection: shared, or the session's own |
//! | `answer.rs` | what each reply does |
//! | `own.rs`, `pubsub.rs` | what a session has a connection of its own for |
//! | `commands.rs` | what is known of a server's commands |
//! | `here.rs`, `clients.rs` | commands that we answer, and what `CLIENT LIST` shows |
//! | `stream.rs` | commands that are too large to be seen whole |
//! | `functions.rs` | functions: their libraries, in a namespace of the database's own |
//! | `limits.rs` | the settings of a database: how long keys live, and how many there may be |
//! | `scripted.rs` | what scripts do because the server would not |
//! | `info.rs`, `timeout.rs` | what a tenant may see of `INFO`; a waiting command's time |
//! | `flight.rs` | commands under way, for their replies and the log |

mod answer;
pub(crate) mod clients;
mod command;
pub(crate) mod commands;
mod flight;
pub(crate) mod functions;
mod here;
mod info;
mod input;
mod limits;
mod login;
mod own;
pub(crate) mod patterns;
mod policy;
mod pubsub;
mod route;
mod scripted;
mod stream;
#[cfg(test)]
mod tests;
mod timeout;

use std::sync::Arc;
use std::time::Instant;

use control_store::redis::function_namespace;
use control_store::snapshot::Key;
use control_store::{DatabaseId, Engine, Fault, KeyId};
use protocol_redis::reply::write::Version;
use protocol_redis::request::RequestError;
use protocol_redis::rewrite::Rewriter;

use super::{Context, Entrance, Event, Fate, Ports, Request, Session};
use crate::backend::Member;
use crate::backend::pool::LinkId;
use crate::backend::redis::inbox::Inbox;
use crate::backend::redis::login::{Known, LoggedIn, Login};
use crate::backend::redis::{Backend, ends_connection};
use crate::faces::redis as face;
use crate::gate::{Gate, GateWord};
use crate::metrics::ErrorClass;
use crate::protocol::Protocol;
use crate::route::Route;

use command::Step;
use flight::Flights;
use input::{Found, Input};
use own::Own;
use pubsub::Subscriptions;
use stream::Streaming;

/// Redis, as workers and pools see it.
pub(crate) struct Redis;

impl Protocol for Redis {
    const ENGINE: Engine = Engine::Redis;
    const FAREWELL: &'static [u8] = b"";
    const DIRECT_TLS_ALPN: Option<&'static [u8]> = None;

    type Session = RedisSession;
    type Login = Login;
    type Backend = Backend;

    fn backend(_: &Context, member: Member, done: LoggedIn, _: u64) -> Backend {
        Backend {
            member,
            known: done.known,
            version: Version::Resp2,
            inbox: Inbox::default(),
        }
    }

    fn ends_connection(bytes: &[u8]) -> bool {
        ends_connection(bytes)
    }

    fn turn_away(out: &mut Vec<u8>, why: &Fault) {
        put_error(out, &face::translate(why).text);
    }
}

/// What the Redis sessions of a worker share.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Where the arguments of the command in hand are.
    args: protocol_redis::request::Args,
    /// A command as it goes to the server.
    out: Vec<u8>,
    /// A command as the log has it.
    text: String,
    entries: flight::Entries,
}

/// What keeps the next command from being handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nothing.
    Not,
    /// A shared connection.
    Link { since: Instant },
    /// A connection of its own.
    Lease { since: Instant },
    /// The gate; `bytes` are reserved of its budget.
    Gate { since: Instant, bytes: u64 },
    /// The replies of all commands before.
    Replies,
}

/// How the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It does not.
    No,
    /// Once what it has been asked is answered.
    AfterReplies,
    /// As soon as the server has answered, since nobody hears it.
    Unheard,
    /// It is over.
    Over,
}

/// What is known of a client that has logged in.
struct Who {
    /// As the client named itself.
    user: Box<str>,
    key: Arc<Key>,
    route: Route,
    gate: Arc<Gate>,
    word: GateWord,
    /// When it logged in.
    since: Instant,
    /// Knows what keys and channels are called on the server.
    rewriter: Rewriter,
    /// The database's number on its server.
    number: u32,
    /// What the server is and knows, once a connection to it stands.
    known: Option<Arc<Known>>,
    /// The database's settings limit how long keys live, or how many there are.
    limited: bool,
}

impl Who {
    /// The database's place may have changed, and its settings.
    fn take_route(&mut self, route: Route) -> Result<(), Fault> {
        if route.server.id != self.route.server.id {
            self.known = None;
        }
        let place = place_of(&route);
        if place.1 != self.number || place.0 != self.rewriter.prefix() {
            self.rewriter = rewriter_of(&route)?;
            self.number = place.1;
        }
        self.route = route;
        self.limited = self.has_limits();
        Ok(())
    }
}

/// What a database's keys begin with on its server, and its number there.
fn place_of(route: &Route) -> (&[u8], u32) {
    let redis = route.database.redis.as_ref();
    redis.map_or((&[], 0), |redis| (&*redis.prefix, redis.number))
}

fn rewriter_of(route: &Route) -> Result<Rewriter, Fault> {
    let (prefix, number) = place_of(route);
    let rewriter = Rewriter::new(prefix, number).map_err(|error| {
        tracing::error!(%error, "the store holds a prefix that cannot be one");
        Fault::Bug
    })?;
    let place = route.database.redis.as_ref();
    let namespace = place.map(|it| function_namespace(&route.database.native_roles, it));
    Ok(rewriter.with_namespace(&namespace.unwrap_or_default()))
}

/// A `HELLO` that is not answered yet.
struct Greeting {
    version: Version,
    name: Option<Vec<u8>>,
}

/// What a client says of itself.
#[derive(Default)]
struct About {
    name: Vec<u8>,
    library: Vec<u8>,
    library_version: Vec<u8>,
}

/// One client's session.
pub(crate) struct RedisSession {
    entrance: Entrance,
    /// Whether TLS is spoken.
    encrypted: bool,
    /// Whether the client's first byte was seen.
    begun: bool,
    /// The version of the protocol that the client speaks.
    version: Version,
    id: u64,
    input: Input,
    who: Option<Box<Who>>,
    about: Option<Box<About>>,
    flights: Flights,
    wait: Wait,
    /// Counted as in flight by the gate.
    in_gate: bool,
    /// Commands go over this shared connection.
    link: Option<LinkId>,
    own: Option<Box<Own>>,
    replies: own::Replies,
    greeting: Option<Box<Greeting>>,
    /// What the client has subscribed to, while the database moves.
    moved: Option<Box<Subscriptions>>,
    /// What stands around the command in hand.
    bracket: Option<Box<limits::Bracket>>,
    /// What is known and reserved for the command in hand, which is about libraries of functions.
    libraries: Option<Box<functions::Libraries>>,
    /// Why the next command is not sent.
    refused: Option<Fault>,
    /// A command that is too large to be seen whole.
    streaming: Option<Box<Streaming>>,
    /// The client has been sent part of a reply, and the rest is to come.
    midway: bool,
    ending: Ending,
}

impl Session<Backend> for RedisSession {
    fn new(entrance: Entrance) -> Self {
        Self {
            entrance,
            encrypted: false,
            begun: false,
            version: Version::Resp2,
            id: 0,
            input: Input::default(),
            who: None,
            about: None,
            flights: Flights::default(),
            wait: Wait::Not,
            in_gate: false,
            link: None,
            own: None,
            replies: own::Replies::On,
            greeting: None,
            moved: None,
            bracket: None,
            libraries: None,
            refused: None,
            streaming: None,
            midway: false,
            ending: Ending::No,
        }
    }

    fn tls_started(&mut self, _: Option<Vec<u8>>) {
        self.encrypted = true;
    }

    fn handle<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        event: Event<Backend>,
    ) {
        if self.ending == Ending::Over {
            if let Event::Leased(backend) = event {
                ports.release(backend, Fate::Keep);
            }
            return;
        }
        match event {
            Event::Client(buf) => {
                if !self.begun && !self.begin(ports, &buf) {
                    return;
                }
                self.input.push(buf);
                self.pump(cx, ports);
            }
            Event::Answer(answer) => self.answered(cx, ports, answer),
            Event::Backend(buf) => self.own_answered(cx, ports, buf),
            Event::LinkReady => self.link_ready(cx, ports),
            Event::LinkLost(fault) => self.link_lost(cx, ports, &fault),
            Event::Leased(backend) => self.leased(cx, ports, backend),
            Event::LeaseFailed(fault) => self.lease_failed(cx, ports, &fault),
            Event::GateOpen => self.gate_open(cx, ports),
            Event::Tick => self.tick(cx, ports),
            Event::ClientGone => self.client_gone(cx, ports),
            Event::BackendGone => self.own_lost(cx, ports),
            Event::Kill(fault) => self.terminate(cx, ports, &fault),
            Event::Drain => self.drain(cx, ports),
            Event::Cancel => {} // Redis has no such thing.
        }
    }

    fn reads_client(&self) -> bool {
        self.ending == Ending::No && (self.wait == Wait::Not || self.input.has_room())
    }

    fn is_cancel_key(&self, _: &[u8]) -> bool {
        false
    }

    fn database(&self) -> Option<DatabaseId> {
        self.who.as_ref().map(|who| who.route.database.id)
    }

    fn key(&self) -> Option<KeyId> {
        self.who.as_ref().map(|who| who.key.id)
    }
}

impl RedisSession {
    /// Looks at the client's first byte. Whether it begins a command.
    fn begin<P: Ports<Backend>>(&mut self, ports: &mut P, buf: &[u8]) -> bool {
        /// A TLS record with a handshake message; no command begins so.
        const TLS_HANDSHAKE: u8 = 22;
        if !self.encrypted && buf.first() == Some(&TLS_HANDSHAKE) {
            if self.entrance.tls {
                ports.request(Request::StartTls {
                    received: buf.to_vec(),
                    direct: true,
                });
            } else {
                self.close(ports);
            }
            return false;
        }
        self.begun = true;
        if !self.encrypted && !self.entrance.plaintext {
            self.say(ports, &Fault::TlsRequired);
            self.close(ports);
            return false;
        }
        true
    }

    /// Handles what the client has sent, as far as that goes.
    fn pump<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let mut args = std::mem::take(&mut cx.redis.args);
        while self.wait == Wait::Not && self.ending == Ending::No {
            if self.greeting.is_some() && !self.greet(cx, ports) {
                break;
            }
            if self.moved.is_some() && !self.follow(cx, ports) {
                break;
            }
            if self.streaming.is_some() {
                if !self.stream(cx, ports) {
                    break;
                }
                continue;
            }
            match self.input.next(&mut args) {
                Ok(Found::Command(used)) => {
                    let front = self.input.front().clone();
                    let command = args.command(&front);
                    let step = match self.refused.take() {
                        Some(fault) => {
                            self.libraries = None;
                            let text = face::translate(&fault).text;
                            self.refuse(cx, ports, &command, &text, ErrorClass::from(&fault))
                        }
                        None => self.command(cx, ports, &command, &front),
                    };
                    if step == Step::Done {
                        self.input.advance(used);
                    }
                }
                Ok(Found::Large(stream)) => {
                    self.streaming = Some(Box::new(Streaming::new(*stream)));
                }
                Ok(Found::Nothing) => break,
                Err(error) => self.broken(cx, ports, error),
            }
        }
        cx.redis.args = args;
    }

    /// The client's bytes are no command.
    fn broken<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, error: RequestError) {
        // What came before is answered first.
        if !self.flights.is_empty() {
            self.wait = Wait::Replies;
            return;
        }
        let mut out = Vec::new();
        put_error(&mut out, &format!("ERR {error}"));
        ports.copy_client(&out);
        let metrics = cx.metrics.protocol(Engine::Redis);
        metrics.errors.of(ErrorClass::Protocol).increment();
        self.leave(cx, ports);
    }

    /// Tells the client of a fault.
    fn say<P: Ports<Backend>>(&self, ports: &mut P, fault: &Fault) {
        let mut out = Vec::new();
        put_error(&mut out, &face::translate(fault).text);
        ports.copy_client(&out);
    }

    // ---- the end ----

    /// The proxy is stopping: the client is sent away once it has no transaction open.
    fn drain<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        self.ending = Ending::AfterReplies;
        self.end_if_answered(cx, ports);
    }

    fn end_if_answered<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let in_transaction = self.own.as_ref().is_some_and(|own| own.in_transaction());
        if self.ending == Ending::AfterReplies && self.flights.is_empty() && !in_transaction {
            self.leave(cx, ports);
        }
    }

    fn client_gone<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        self.ending = Ending::Unheard;
        if self.own.is_some() || self.flights.is_empty() {
            return self.leave(cx, ports);
        }
        // What is under way on a shared connection is counted as in flight until it is answered.
        self.stop_waiting(ports);
    }

    fn terminate<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, fault: &Fault) {
        // Behind part of a reply, a word would be taken for the rest of it.
        if self.ending != Ending::Unheard && !self.midway {
            self.say(ports, fault);
        }
        self.leave(cx, ports);
    }

    /// Gives up what the session has, and ends it.
    fn leave<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        self.stop_waiting(ports);
        self.forget_login(cx, ports);
        self.close(ports);
    }

    fn close<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if self.ending != Ending::Over {
            self.ending = Ending::Over;
            ports.request(Request::Close);
        }
    }
}

/// Writes an error reply. Its text is ours: one line.
fn put_error(out: &mut Vec<u8>, text: &str) {
    out.push(b'-');
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}
