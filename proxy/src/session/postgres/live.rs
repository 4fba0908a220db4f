//! A session that has logged in: what it holds, what it waits for, and how it ends.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ahash::AHashMap;
use control_store::logs::Source;
use control_store::snapshot::Key;
use control_store::{DatabaseId, Fault, KeyId};
use protocol_postgres::backend::{TransactionStatus, write};
use protocol_postgres::frontend;
use protocol_sql::Options;

use super::flight::{Failure, Flights, Place, Text, record_refused};
use super::frontend::Sink;
use super::incoming::{Incoming, Message};
use super::login::{KnownLogin, Wanted};
use super::pins::Pins;
use super::refusal::Refusal;
use super::replies::{FaultSlot, Owed};
use super::settings::{SettingSet, Touched};
use super::statement::Statement;
use crate::backend::postgres::{Backend, Parameters};
use crate::faces::postgres::{Login as LoginNames, Stage};
use crate::gate::{Gate, GateWord};
use crate::query_log::ErrorCode;
use crate::route::Route;
use crate::session::{Context, Event, Fate, Ports};

/// Prepared statements and portals that one session may have.
pub(super) const MAX_NAMES: usize = 10_000;

/// Who the client is.
pub(super) struct Identity {
    pub(super) user: Box<str>,
    pub(super) database_name: Box<str>,
    pub(super) key: Arc<Key>,
    pub(super) source: Source,
    pub(super) cancel_key: [u8; 32],
    pub(super) long_cancel_key: bool,
}

/// What keeps the next message of the client from being handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing.
    Not,
    /// A backend.
    Lease { since: Instant },
    /// The gate; `bytes` are reserved of its budget.
    Gate { since: Instant, bytes: u64 },
    /// A query of our own on the leased backend.
    Hidden,
    /// Replies of an earlier batch.
    Replies,
    /// The end of a batch that is then sent again.
    Again,
}

/// A query of our own on the leased backend.
pub(super) struct Hidden {
    pub(super) then: Then,
    /// Rows of two columns.
    pub(super) rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the server reported meanwhile.
    pub(super) reported: Parameters,
    /// The server's error: code and sentence.
    pub(super) error: Option<(Vec<u8>, String)>,
}

/// What follows a query of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The backend now has the session's settings: go on with the client's message.
    GoOn,
    /// The startup parameters are applied: the login is over.
    LogIn,
    /// The server has told what the session holds.
    Inspect { all: bool },
    /// The vanished client's transaction is rolled back, or its session cleaned up.
    Leave,
    /// The transaction that hit the row limit is aborted: tell the client that the server is ready.
    Abort,
}

/// A prepared statement without a name.
pub(super) enum Unnamed {
    /// There is none. The leased backend may have one, of another client's.
    Absent,
    /// It was too large to be kept: it stands on the backend, which the session keeps.
    Large,
    /// It stands on the leased backend, unnamed there too.
    OnBackend(Rc<Statement>),
    /// It is one of ours, to be prepared where it is used.
    Ours(Rc<Statement>),
}

/// Whether messages are passed over after an error in the extended protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipping {
    /// No.
    No,
    /// Up to a Sync that we answer: the server has seen nothing of the batch.
    Ours,
    /// Up to a Sync that the server waits for: it passes them over as well.
    Servers,
}

/// Where the answer to a statement over the row limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// No statement is over its limit.
    No,
    /// The client has our error; what comes until the server is ready is not for it.
    Swallow {
        /// The server has failed the statement too.
        failed: bool,
    },
}

/// A session that has logged in.
pub(super) struct Live {
    pub(super) id: Identity,
    pub(super) route: Route,
    pub(super) gate: Arc<Gate>,
    pub(super) word: GateWord,
    /// Counted as in flight by the gate.
    pub(super) in_gate: bool,
    pub(super) backend: Option<Box<Backend>>,
    pub(super) wait: Wait,
    pub(super) incoming: Incoming,
    /// The message that waits, and since when.
    pub(super) held: Option<Message>,
    /// Messages that are sent again; they come before what the client sends.
    pub(super) again: VecDeque<Message>,
    /// The login that is not over yet.
    pub(super) login: Option<Box<Wanted>>,
    pub(super) hidden: Option<Box<Hidden>>,

    /// As the last ReadyForQuery said.
    pub(super) transaction: TransactionStatus,
    /// Messages of the extended protocol were sent since the last Sync.
    pub(super) batch_open: bool,
    /// After an error, everything up to Sync is passed over.
    pub(super) skipping: Skipping,
    /// The server takes COPY data.
    pub(super) copy_in: bool,
    pub(super) overflow: Overflow,
    pub(super) flights: Flights,
    /// Rows of the statement that runs.
    pub(super) rows: u64,
    /// Errors that take the place of the server's.
    pub(super) refusals: VecDeque<(FaultSlot, Refusal, Text, Instant)>,
    next_slot: u32,

    pub(super) statements: AHashMap<Box<[u8]>, Rc<Statement>>,
    pub(super) unnamed: Unnamed,
    /// Names whose Parse is not answered yet, in order.
    pub(super) unconfirmed: VecDeque<Box<[u8]>>,
    /// For the log, should a Parse fail.
    pub(super) last_parsed: Option<Rc<Statement>>,
    /// Where the rest of a streamed message goes.
    pub(super) sink: Sink,
    pub(super) portal: Option<Rc<Statement>>,
    pub(super) portals: Vec<(Box<[u8]>, Rc<Statement>)>,

    pub(super) settings: Rc<SettingSet>,
    /// What the client asked for when it logged in, if anything: a RESET goes back to that.
    pub(super) initial: Option<KnownLogin>,
    pub(super) touched: Touched,
    /// Settings that the server reports to have another value than the session is known to have set: a function has done so.
    pub(super) strayed: Vec<Box<[u8]>>,
    /// The open transaction may have changed how the server reads texts.
    pub(super) reading_unknown: bool,
    /// Custom settings, which the server does not list.
    pub(super) custom: Vec<Box<[u8]>>,
    /// How the server reads the session's texts.
    pub(super) lexing: Options,
    pub(super) pins: Pins,
    pub(super) inspect_pins: bool,
    /// A statement of the open transaction changes the schema.
    pub(super) schema_changes: bool,
    pub(super) ready_seen: bool,
    /// The server has said that it ends the connection.
    pub(super) fatal_seen: bool,
    draining: bool,
    pub(super) leaving: bool,
    pub(super) closed: bool,
}

/// Whether a statement may be sent now.
pub(super) enum Turn {
    /// Yes.
    Now,
    /// Later: the message has to be kept.
    Wait,
    /// No.
    Refused(Fault),
}

impl Live {
    pub(super) fn new(
        cx: &Context,
        id: Identity,
        route: Route,
        gate: Arc<Gate>,
        word: GateWord,
        wanted: Wanted,
    ) -> Self {
        Self {
            id,
            route,
            gate,
            word,
            in_gate: false,
            backend: None,
            wait: Wait::Not,
            incoming: Incoming::default(),
            held: None,
            again: VecDeque::new(),
            login: Some(Box::new(wanted)),
            hidden: None,
            transaction: TransactionStatus::Idle,
            batch_open: false,
            skipping: Skipping::No,
            copy_in: false,
            overflow: Overflow::No,
            flights: Flights::default(),
            rows: 0,
            refusals: VecDeque::new(),
            next_slot: 0,
            statements: AHashMap::new(),
            unnamed: Unnamed::Absent,
            unconfirmed: VecDeque::new(),
            last_parsed: None,
            sink: Sink::Discard,
            portal: None,
            portals: Vec::new(),
            settings: cx.sets.none(),
            initial: None,
            touched: Touched::Nothing,
            strayed: Vec::new(),
            reading_unknown: false,
            custom: Vec::new(),
            lexing: Options::default(),
            pins: Pins::NONE,
            inspect_pins: false,
            schema_changes: false,
            ready_seen: false,
            fatal_seen: false,
            draining: false,
            leaving: false,
            closed: false,
        }
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn database_id(&self) -> DatabaseId {
        self.route.database.id
    }

    pub(super) fn key_id(&self) -> KeyId {
        self.id.key.id
    }

    pub(super) fn cancel_key(&self) -> &[u8] {
        let len = if self.id.long_cancel_key { 32 } else { 4 };
        self.id.cancel_key.get(..len).unwrap_or_default()
    }

    pub(super) fn is_cancel_key(&self, key: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.cancel_key(), key).is_ok()
    }

    pub(super) fn place(&self) -> Place {
        Place {
            database: self.route.database.id,
            source: self.id.source,
        }
    }

    /// Bytes that came behind the login's last message.
    pub(super) fn receive_early(&mut self, bytes: Vec<u8>) {
        self.incoming.push(crate::reactor::Buf::from_vec(bytes));
    }

    pub(super) fn reads_client(&self) -> bool {
        !self.closed && !self.leaving && (self.wait == Wait::Not || !self.incoming.has_input())
    }

    pub(super) fn handle<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        event: Event<Backend>,
    ) {
        if self.closed {
            if let Event::Leased(backend) = event {
                ports.release(backend, Fate::Keep);
            }
            return;
        }
        match event {
            Event::Client(buf) => {
                self.incoming.push(buf);
                self.pump(cx, ports);
            }
            Event::Backend(buf) => self.receive_backend(cx, ports, buf),
            Event::ClientGone => self.leave(cx, ports),
            Event::BackendGone => self.backend_gone(cx, ports),
            Event::Leased(backend) => self.leased(cx, ports, backend),
            Event::LeaseFailed(fault) => self.lease_failed(cx, ports, &fault),
            Event::Answer(never) => match never {},
            // No connection is shared.
            Event::LinkReady | Event::LinkLost(_) => {}
            Event::GateOpen => self.gate_open(cx, ports),
            Event::Tick => self.tick(cx, ports),
            Event::Cancel => self.cancel(cx, ports),
            Event::Kill(fault) => self.terminate(cx, ports, &fault),
            Event::Drain => {
                self.draining = true;
                self.end_if_drained(cx, ports);
            }
        }
    }

    // ---- queries of our own ----

    pub(super) fn send_hidden<P: Ports<Backend>>(
        &mut self,
        ports: &mut P,
        text: &[u8],
        then: Then,
    ) {
        let Some(backend) = self.backend.as_mut() else {
            return;
        };
        let mut out = Vec::with_capacity(text.len() + 8);
        // The texts are ours and values came without zero bytes.
        if frontend::write::query(&mut out, text).is_err() {
            debug_assert!(false, "a query of ours holds a zero byte");
            return;
        }
        ports.copy_backend(backend.conn, &out);
        backend.replies.push(Owed::Query { show: false });
        // A simple query drops the unnamed statement.
        self.unnamed_leaves_backend();
        self.hidden = Some(Box::new(Hidden {
            then,
            rows: Vec::new(),
            reported: Vec::new(),
            error: None,
        }));
        self.wait = Wait::Hidden;
    }

    /// A query of our own has been answered.
    pub(super) fn hidden_done<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        status: TransactionStatus,
    ) {
        let Some(hidden) = self.hidden.take() else {
            return;
        };
        self.wait = Wait::Not;
        match hidden.then {
            Then::GoOn => match hidden.error {
                None => self.go_on(cx, ports),
                Some((code, message)) => {
                    tracing::warn!(
                        code = %String::from_utf8_lossy(&code),
                        message,
                        "a backend does not take a session's settings"
                    );
                    if let Some(backend) = self.backend.take() {
                        ports.release(backend, Fate::Close);
                    }
                    self.terminate(
                        cx,
                        ports,
                        &Fault::Terminated {
                            why: "a setting of this session can no longer be applied",
                        },
                    );
                }
            },
            Then::LogIn => {
                self.parameters_applied(cx, ports, *hidden);
                self.pump(cx, ports);
            }
            Then::Inspect { all } => {
                self.inspected(cx, ports, *hidden, all);
                self.at_rest(cx, ports);
                self.pump(cx, ports);
            }
            Then::Leave => {
                let clean = hidden.error.is_none() && status == TransactionStatus::Idle;
                if clean {
                    self.close_cleaned(cx, ports);
                } else {
                    self.close(ports, Fate::Close);
                }
            }
            Then::Abort => {
                self.transaction = status;
                let mut out = Vec::with_capacity(6);
                write::ready_for_query(&mut out, status);
                ports.copy_client(&out);
                self.pump(cx, ports);
            }
        }
    }

    // ---- rest ----

    /// No transaction is open and nothing is owed: what may be given up is.
    pub(super) fn at_rest<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if self.hidden.is_some() {
            return;
        }
        self.portal = None;
        self.portals.clear();
        if std::mem::take(&mut self.schema_changes) {
            self.gate.schema_changed();
            if let Some(backend) = self.backend.as_mut() {
                // Its statements are stale as well; the next use prepares them again.
                backend.schema_epoch = self.gate.schema_epoch().wrapping_sub(1);
            }
        }
        if self.inspect(ports) {
            return;
        }
        self.reading_unknown = false;
        self.leave_gate();
        if self.leaving {
            return self.leave(cx, ports);
        }
        if self.pins.is_empty()
            && let Some(backend) = self.backend.take()
        {
            self.unnamed_leaves_backend();
            ports.release(backend, Fate::Keep);
        }
        if self.draining {
            self.end_if_drained(cx, ports);
        }
    }

    /// An unnamed statement that stood on the backend is prepared under a name of ours when it is used again.
    fn unnamed_leaves_backend(&mut self) {
        self.unnamed = match std::mem::replace(&mut self.unnamed, Unnamed::Absent) {
            Unnamed::OnBackend(statement) => Unnamed::Ours(statement),
            other => other,
        };
    }

    pub(super) fn leave_gate(&mut self) {
        if std::mem::take(&mut self.in_gate) {
            self.gate.leave();
        }
    }

    /// Whether nothing of the client's runs or is open on its backend.
    pub(super) fn is_idle(&self) -> bool {
        self.transaction == TransactionStatus::Idle
            && !self.batch_open
            && self.hidden.is_none()
            && self.held.is_none()
            && self.again.is_empty()
            && self
                .backend
                .as_ref()
                .is_none_or(|backend| backend.replies.is_empty())
    }

    // ---- errors of ours ----

    pub(super) fn refusal(&self, fault: &Fault) -> Refusal {
        self.refusal_at(fault, Stage::Session)
    }

    pub(super) fn refusal_at(&self, fault: &Fault, stage: Stage) -> Refusal {
        let names = LoginNames {
            user: &self.id.user,
            database: &self.id.database_name,
        };
        Refusal::of(fault, stage, names)
    }

    /// A place for an error that takes the place of one of the server's.
    pub(super) fn slot(&mut self, refusal: Refusal, text: Text, started: Instant) -> FaultSlot {
        let slot = FaultSlot(self.next_slot);
        self.next_slot = self.next_slot.wrapping_add(1);
        self.refusals.push_back((slot, refusal, text, started));
        slot
    }

    /// Logs a statement that was refused.
    pub(super) fn record_refusal(
        &self,
        cx: &mut Context,
        refusal: &Refusal,
        text: &[u8],
        started: Instant,
    ) {
        let failure = Failure {
            code: ErrorCode::new(refusal.code.as_bytes()),
            class: refusal.class,
        };
        record_refused(cx, self.place(), text, started, failure);
    }
}
