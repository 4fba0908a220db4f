//! The PostgreSQL session.
//!
//! | file | what |
//! |---|---|
//! | `login.rs` | startup packets, SCRAM, startup parameters |
//! | `live.rs` | the state of a session that has logged in, queries of our own, rest |
//! | `arriving.rs`, `leasing.rs`, `ending.rs` | the end of the login; getting a backend, and through the gate; limits and ends |
//! | `incoming.rs` | splits the client's bytes into messages, or streams what is too large |
//! | `frontend.rs` | what each message of the client does |
//! | `preparing.rs` | prepared statements: that a backend has what a client means |
//! | `refusal.rs`, `refusing.rs` | our errors, and how they take a server's place |
//! | `backend.rs` | what each message of the backend does |
//! | `replies.rs` | the replies owed |
//! | `leftovers.rs` | what statements leave behind in a session |
//! | `statement.rs`, `settings.rs`, `pins.rs` | prepared statements, SETs, and what keeps a backend |
//! | `replay.rs` | a batch that is sent again because a plan had changed |
//! | `flight.rs` | statements under way, for limits and the log |

mod arriving;
mod backend;
mod ending;
mod flight;
mod frontend;
mod incoming;
mod leasing;
mod leftovers;
mod live;
pub(crate) mod login;
mod pins;
mod preparing;
mod refusal;
mod refusing;
pub(crate) mod replay;
pub(crate) mod replies;
pub(crate) mod settings;
pub(crate) mod statement;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use control_store::{DatabaseId, Engine, Fault, KeyId};
use protocol_postgres::backend::{ErrorResponse, Severity, write};

use super::{Context, Entrance, Event, Ports, Request, Session};
use crate::backend::Member;
use crate::backend::postgres::handshake::{Handshake, LoggedIn};
use crate::backend::postgres::prepared::Prepared;
use crate::backend::postgres::{Backend, Incoming, TERMINATE, ends_connection};
use crate::faces::postgres as face;
use crate::protocol::Protocol;
use live::Live;
use login::{Login, Progress};
use replay::Replay;
use replies::Replies;

/// PostgreSQL, as workers and pools see it.
pub(crate) struct Postgres;

impl Protocol for Postgres {
    const ENGINE: Engine = Engine::Postgres;
    const FAREWELL: &'static [u8] = &TERMINATE;
    const DIRECT_TLS_ALPN: Option<&'static [u8]> = Some(b"postgresql");

    type Session = PgSession;
    type Login = Handshake;
    type Backend = Backend;

    fn backend(cx: &Context, member: Member, done: LoggedIn, epoch: u64) -> Backend {
        Backend {
            member,
            parameters: Rc::new(done.parameters),
            replies: Replies::default(),
            prepared: Prepared::default(),
            settings: cx.sets.none(),
            schema_epoch: epoch,
            incoming: Incoming::default(),
            replay: Replay::default(),
        }
    }

    fn ends_connection(bytes: &[u8]) -> bool {
        ends_connection(bytes)
    }

    fn turn_away(out: &mut Vec<u8>, why: &Fault) {
        let names = face::Login {
            user: "",
            database: "",
        };
        let error = face::translate(why, face::Stage::Login, names);
        let response = ErrorResponse {
            severity: Severity::Fatal,
            code: error.code,
            message: &error.message,
            detail: None,
            hint: None,
        };
        write::error_response(out, &response);
    }
}

/// One client's session.
pub(crate) struct PgSession {
    phase: Phase,
}

enum Phase {
    Login(Box<Login>),
    Live(Box<Live>),
    Closed,
}

impl Session<Backend> for PgSession {
    fn new(entrance: Entrance) -> Self {
        Self {
            phase: Phase::Login(Box::new(Login::new(entrance))),
        }
    }

    fn tls_started(&mut self, end_point_hash: Option<Vec<u8>>) {
        if let Phase::Login(login) = &mut self.phase {
            login.tls_started(end_point_hash);
        }
    }

    fn handle<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        event: Event<Backend>,
    ) {
        match &mut self.phase {
            Phase::Login(login) => match event {
                Event::Client(buf) => {
                    let progress = login.receive(cx, ports, &buf);
                    self.advance(cx, ports, progress);
                }
                Event::Kill(fault) => {
                    login.fail(cx, ports, &fault);
                    self.close(ports);
                }
                Event::Drain => {
                    login.fail(cx, ports, &Fault::Draining);
                    self.close(ports);
                }
                Event::ClientGone => self.close(ports),
                Event::Leased(backend) => ports.release(backend, super::Fate::Keep),
                _ => {}
            },
            Phase::Live(live) => {
                live.handle(cx, ports, event);
                if live.is_closed() {
                    self.close(ports);
                }
            }
            Phase::Closed => {
                if let Event::Leased(backend) = event {
                    ports.release(backend, super::Fate::Keep);
                }
            }
        }
    }

    fn reads_client(&self) -> bool {
        match &self.phase {
            Phase::Login(_) => true,
            Phase::Live(live) => live.reads_client(),
            Phase::Closed => false,
        }
    }

    fn is_cancel_key(&self, key: &[u8]) -> bool {
        match &self.phase {
            Phase::Live(live) => live.is_cancel_key(key),
            Phase::Login(_) | Phase::Closed => false,
        }
    }

    fn database(&self) -> Option<DatabaseId> {
        match &self.phase {
            Phase::Live(live) => Some(live.database_id()),
            Phase::Login(_) | Phase::Closed => None,
        }
    }

    fn key(&self) -> Option<KeyId> {
        match &self.phase {
            Phase::Live(live) => Some(live.key_id()),
            Phase::Login(_) | Phase::Closed => None,
        }
    }
}

impl PgSession {
    fn advance<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, progress: Progress) {
        match progress {
            Progress::More => {}
            Progress::Closed => self.close(ports),
            Progress::Authenticated(mut live) => {
                live.begin(cx, ports);
                let closed = live.is_closed();
                self.phase = Phase::Live(live);
                if closed {
                    self.close(ports);
                }
            }
        }
    }

    fn close<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            ports.request(Request::Close);
        }
    }
}
