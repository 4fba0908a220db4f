//! The PostgreSQL session.
//!
//! | file | what |
//! |---|---|
//! | `login.rs` | startup packets, SCRAM, startup parameters |
//! | `live.rs` | the state of a session that has logged in: leases, gate, waits, ends |
//! | `incoming.rs` | splits the client's bytes into messages, or streams what is too large |
//! | `frontend.rs` | what each message of the client does |
//! | `backend.rs` | what each message of the backend does |
//! | `replies.rs` | the replies owed |
//! | `statement.rs`, `settings.rs`, `pins.rs` | prepared statements, SETs, and what keeps a backend |
//! | `flight.rs` | statements under way, for limits and the log |

mod backend;
mod flight;
mod frontend;
mod incoming;
mod live;
pub(crate) mod login;
mod pins;
mod refusal;
pub(crate) mod replies;
pub(crate) mod settings;
pub(crate) mod statement;
#[cfg(test)]
mod tests;

use control_store::{DatabaseId, Fault};

use super::{Context, Entrance, Event, Ports, Request};
use live::Live;
use login::{Login, Progress};

/// One client's session.
pub(crate) struct PgSession {
    phase: Phase,
}

enum Phase {
    Login(Box<Login>),
    Live(Box<Live>),
    Closed,
}

impl PgSession {
    /// A session whose client has sent nothing yet.
    pub(crate) fn new(entrance: Entrance) -> Self {
        Self {
            phase: Phase::Login(Box::new(Login::new(entrance))),
        }
    }

    /// TLS has begun on the session's connection, with this `tls-server-end-point` hash of our
    /// certificate, if one is defined.
    pub(crate) fn tls_started(&mut self, end_point_hash: Option<Vec<u8>>) {
        if let Phase::Login(login) = &mut self.phase {
            login.tls_started(end_point_hash);
        }
    }

    /// Takes one event.
    pub(crate) fn handle<P: Ports>(&mut self, cx: &mut Context, ports: &mut P, event: Event) {
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

    fn advance<P: Ports>(&mut self, cx: &mut Context, ports: &mut P, progress: Progress) {
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

    fn close<P: Ports>(&mut self, ports: &mut P) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            ports.request(Request::Close);
        }
    }

    /// Whether bytes of the client are wanted now. While they are not, the connection is not read.
    pub(crate) fn reads_client(&self) -> bool {
        match &self.phase {
            Phase::Login(_) => true,
            Phase::Live(live) => live.reads_client(),
            Phase::Closed => false,
        }
    }

    /// Whether that is the key for cancelling this session's statements.
    pub(crate) fn is_cancel_key(&self, key: &[u8]) -> bool {
        match &self.phase {
            Phase::Live(live) => live.is_cancel_key(key),
            Phase::Login(_) | Phase::Closed => false,
        }
    }

    /// The database, once the login is that far.
    pub(crate) fn database(&self) -> Option<DatabaseId> {
        match &self.phase {
            Phase::Live(live) => Some(live.database_id()),
            Phase::Login(_) | Phase::Closed => None,
        }
    }

    /// The key that the client logged in with.
    pub(crate) fn key(&self) -> Option<control_store::KeyId> {
        match &self.phase {
            Phase::Live(live) => Some(live.key_id()),
            Phase::Login(_) | Phase::Closed => None,
        }
    }
}
