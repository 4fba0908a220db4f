//! A session that has logged in: what it holds, what it waits for, and how it ends.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use control_store::logs::Source;
use control_store::snapshot::{Key, PoolMode};
use control_store::{DatabaseId, Engine, Fault, KeyId};
use protocol_postgres::backend::{TransactionStatus, write};
use protocol_postgres::frontend;
use protocol_sql::Options;

use super::flight::{Failure, Flights, Place, Text, record, record_refused};
use super::frontend::Sink;
use super::incoming::{Incoming, Message};
use super::login::{KnownLogin, Wanted};
use super::pins::Pins;
use super::refusal::Refusal;
use super::replies::{FaultSlot, Owed};
use super::settings::{SettingSet, Touched, canonical, put_set_config, transition};
use super::statement::Statement;
use crate::backend::PoolKey;
use crate::backend::postgres::{Backend, Parameters};
use crate::faces::postgres::{Login as LoginNames, Stage};
use crate::gate::{Gate, GateWord, Refused};
use crate::metrics::PinReason;
use crate::query_log::ErrorCode;
use crate::route::{self, Route};
use crate::session::{Context, Event, Fate, Ports, Request};

/// Replies that one session may have outstanding. A deeper pipeline waits in its own buffers.
const MAX_OWED: usize = 4096;
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
    word: GateWord,
    /// Counted as in flight by the gate.
    in_gate: bool,
    pub(super) backend: Option<Box<Backend>>,
    pub(super) wait: Wait,
    pub(super) incoming: Incoming,
    /// The message that waits, and since when.
    pub(super) held: Option<Message>,
    /// Messages that are sent again; they come before what the client sends.
    pub(super) again: VecDeque<Message>,
    /// The login that is not over yet.
    login: Option<Box<Wanted>>,
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
    closed: bool,
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

    // ---- the end of the login ----

    /// Begins what follows the authentication: startup parameters are applied on a backend, unless their outcome is known.
    pub(super) fn begin<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let Some(wanted) = &self.login else { return };
        let known = cx.logins.find(
            self.pool_key(),
            self.route.server.id,
            wanted,
            &cx.sets.none(),
        );
        if let Some(known) = known {
            return self.logged_in(cx, ports, &known);
        }
        match self.turn(cx, ports, 0) {
            Turn::Now => self.log_in_on_backend(cx, ports),
            Turn::Wait => {}
            Turn::Refused(fault) => self.terminate(cx, ports, &fault),
        }
    }

    fn log_in_on_backend<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let (Some(backend), Some(wanted)) = (&self.backend, &self.login) else {
            return;
        };
        let base = Rc::clone(&backend.parameters);
        cx.logins.learn_base(backend.pool, backend.server, &base);
        if wanted.is_empty() {
            let known = KnownLogin {
                settings: cx.sets.none(),
                parameters: base,
            };
            self.logged_in(cx, ports, &known);
            self.at_rest(cx, ports);
            return self.pump(cx, ports);
        }
        let mut text = Vec::with_capacity(256);
        put_set_config(
            &mut text,
            wanted.iter().map(|(name, value)| (&**name, &**value)),
        );
        self.send_hidden(ports, &text, Then::LogIn);
    }

    /// The backend has applied the startup parameters, or refused one.
    fn parameters_applied<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        hidden: Hidden,
    ) {
        let (Some(backend), Some(wanted)) = (self.backend.as_mut(), self.login.as_deref()) else {
            return;
        };
        if let Some((code, message)) = hidden.error {
            let code = String::from_utf8_lossy(&code).into_owned();
            let error = super::refusal::encode(
                protocol_postgres::backend::Severity::Fatal,
                &code,
                &message,
            );
            ports.copy_client(&error);
            return self.close(ports, Fate::Keep);
        }
        let mut parameters = (*backend.parameters).clone();
        for (name, value) in hidden.reported {
            match parameters.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => parameters.push((name, value)),
            }
        }
        let settings = cx.sets.intern(
            wanted
                .iter()
                .map(|(name, value)| (canonical(name), value.clone()))
                .collect(),
        );
        backend.settings = Rc::clone(&settings);
        let known = KnownLogin {
            settings,
            parameters: Rc::new(parameters),
        };
        cx.logins.learn(backend.pool, wanted.clone(), known.clone());
        self.logged_in(cx, ports, &known);
        self.at_rest(cx, ports);
    }

    fn logged_in<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        known: &KnownLogin,
    ) {
        if let Some(wanted) = self.login.take() {
            self.initial = (!wanted.is_empty()).then(|| known.clone());
            let custom = wanted.iter().map(|(name, _)| name);
            self.custom
                .extend(custom.filter(|name| name.contains(&b'.')).cloned());
        }
        self.settings = Rc::clone(&known.settings);
        let mut out = std::mem::take(&mut cx.scratch);
        out.clear();
        for (name, value) in known.parameters.iter() {
            self.note_parameter(name, value);
            let shown = match &**name {
                // The native role's name is none of the client's business.
                b"session_authorization" => self.id.user.as_bytes(),
                _ => value,
            };
            // Values came without zero bytes.
            let _ = write::parameter_status(&mut out, name, shown);
        }
        let _ = write::backend_key_data(&mut out, ports.process_id(), self.cancel_key());
        write::ready_for_query(&mut out, TransactionStatus::Idle);
        ports.copy_client(&out);
        cx.scratch = out;
        ports.request(Request::LoggedIn);
        if self.route.database.pool_mode == PoolMode::Session {
            self.pins.add(PinReason::SessionPooling);
        }
    }

    /// A setting that the server reports has this value for the client now.
    pub(super) fn note_parameter(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"client_encoding" => {
                let encoding = String::from_utf8_lossy(value);
                let conforming = self.lexing.standard_conforming_strings;
                self.lexing = Options::for_encoding(&encoding, conforming);
            }
            b"standard_conforming_strings" => {
                self.lexing.standard_conforming_strings = value != b"off";
            }
            _ => {}
        }
    }

    // ---- getting a backend, and through the gate ----

    pub(super) fn pool_key(&self) -> PoolKey {
        PoolKey {
            database: self.route.database.id,
            role: self.id.key.role,
        }
    }

    /// Sees to it that the session has a backend and is through the gate. `bytes` is what it would have to be held.
    #[inline]
    pub(super) fn turn<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bytes: u64,
    ) -> Turn {
        if self.in_gate && self.backend.is_some() {
            let owed = self.backend.as_ref().map_or(0, |it| it.replies.len());
            if owed >= MAX_OWED {
                self.wait = Wait::Replies;
                return Turn::Wait;
            }
            return Turn::Now;
        }
        self.acquire(cx, ports, bytes)
    }

    fn acquire<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, bytes: u64) -> Turn {
        // Each turn of the loop follows a change of the gate's word, which only the control plane causes.
        loop {
            // A look before the lease: what is known to be out of date leads to a server that may be gone.
            let word = self.gate.word();
            if word.is_held() {
                return self.hold(cx, ports, bytes);
            }
            if word != self.word
                && let Err(fault) = self.renew(cx, ports, word)
            {
                self.give_back(ports);
                return Turn::Refused(fault);
            }
            if self.backend.is_none() {
                let Some(backend) = ports.lease(self.pool_key(), &self.route) else {
                    self.wait = Wait::Lease { since: cx.now };
                    return Turn::Wait;
                };
                self.backend = Some(backend);
            }
            match self.gate.enter(self.word) {
                Ok(()) => {
                    self.in_gate = true;
                    return self.adopt(ports);
                }
                Err(Refused::Held | Refused::Changed(_)) => {}
            }
        }
    }

    /// The gate's word has changed: looks into the snapshot again.
    fn renew<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        word: GateWord,
    ) -> Result<(), Fault> {
        let snapshot = cx.shared.snapshot.load();
        let route = route::renew(&snapshot, &self.id.key, self.route.database.id)?;
        self.word = word;
        let moved = self
            .backend
            .as_ref()
            .is_some_and(|backend| backend.server != route.server.id);
        if moved && !self.pins.is_empty() {
            return Err(Fault::Terminated {
                why: "the database has moved to another server, and this session held what cannot move with it",
            });
        }
        self.route = route;
        if moved && let Some(backend) = self.backend.take() {
            ports.release(backend, Fate::Close);
        }
        Ok(())
    }

    /// A statement that meets a held gate gives its backend back and waits.
    fn hold<P: Ports<Backend>>(&mut self, cx: &Context, ports: &mut P, bytes: u64) -> Turn {
        self.give_back(ports);
        let bytes = bytes + self.incoming.len();
        if !self.gate.reserve_bytes(bytes) {
            return Turn::Refused(Fault::HoldTimeout);
        }
        cx.metrics.protocol(Engine::Postgres).gate_holds.increment();
        self.wait = Wait::Gate {
            since: cx.now,
            bytes,
        };
        ports.request(Request::AwaitGate(self.route.database.id));
        Turn::Wait
    }

    /// Gives an unpinned backend back without having used it.
    fn give_back<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if self.pins.is_empty()
            && let Some(backend) = self.backend.take()
        {
            ports.release(backend, Fate::Keep);
        }
    }

    /// Makes a leased backend the session's own: schema and settings.
    pub(super) fn adopt<P: Ports<Backend>>(&mut self, ports: &mut P) -> Turn {
        let epoch = self.gate.schema_epoch();
        let Some(backend) = self.backend.as_mut() else {
            return Turn::Wait;
        };
        let stale = backend.schema_epoch != epoch;
        if !stale && Rc::ptr_eq(&backend.settings, &self.settings) {
            return Turn::Now;
        }
        backend.schema_epoch = epoch;
        let mut text = Vec::new();
        // A pinned session may have prepared statements that only it knows.
        if stale && !backend.prepared.is_empty() && !self.pins.has(PinReason::Prepared) {
            backend.prepared.clear();
            text.extend_from_slice(b"DEALLOCATE ALL;");
        }
        text.extend_from_slice(&transition(&backend.settings.values, &self.settings.values));
        backend.settings = Rc::clone(&self.settings);
        if text.is_empty() {
            return Turn::Now;
        }
        self.send_hidden(ports, &text, Then::GoOn);
        Turn::Wait
    }

    fn leased<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        backend: Box<Backend>,
    ) {
        let Wait::Lease { since } = self.wait else {
            return ports.release(backend, Fate::Keep);
        };
        let waited = cx.now.saturating_duration_since(since);
        cx.metrics
            .protocol(Engine::Postgres)
            .pool_wait
            .record(waited);
        self.wait = Wait::Not;
        self.backend = Some(backend);
        self.go_on(cx, ports);
    }

    fn lease_failed<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, fault: &Fault) {
        if matches!(self.wait, Wait::Lease { .. }) {
            self.wait = Wait::Not;
            self.refuse_held(cx, ports, fault);
        }
    }

    fn gate_open<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if let Wait::Gate { since, bytes } = self.wait {
            self.gate.free_bytes(bytes);
            let waited = cx.now.saturating_duration_since(since);
            cx.metrics
                .protocol(Engine::Postgres)
                .gate_hold
                .record(waited);
            self.wait = Wait::Not;
            self.go_on(cx, ports);
        }
    }

    /// Goes on after a wait: with the login, or with the client's message.
    pub(super) fn go_on<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if self.leaving {
            return self.leave(cx, ports);
        }
        if self.login.is_some() {
            match self.turn(cx, ports, 0) {
                Turn::Now => self.log_in_on_backend(cx, ports),
                Turn::Wait => {}
                Turn::Refused(fault) => self.terminate(cx, ports, &fault),
            }
        } else {
            self.pump(cx, ports);
        }
    }

    /// The message that waited is refused.
    fn refuse_held<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, fault: &Fault) {
        if self.login.is_some() {
            return self.terminate(cx, ports, fault);
        }
        match self.held.take() {
            Some(message) => {
                self.refuse(cx, ports, &message, fault);
                self.pump(cx, ports);
            }
            None => self.terminate(cx, ports, fault),
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

    fn leave_gate(&mut self) {
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

    // ---- limits and ends ----

    fn tick<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        match self.wait {
            Wait::Gate { since, bytes } => {
                if cx.now.saturating_duration_since(since) >= self.gate.hold_time() {
                    self.gate.free_bytes(bytes);
                    self.wait = Wait::Not;
                    self.refuse_held(cx, ports, &Fault::HoldTimeout);
                }
            }
            Wait::Not | Wait::Lease { .. } | Wait::Hidden | Wait::Replies | Wait::Again => {}
        }
        let limit = Duration::from_millis(self.route.database.settings.query_timeout_ms);
        let now = cx.now;
        if let Some(flight) = self.flights.front_mut()
            && !flight.timed_out
            && now.saturating_duration_since(flight.running) >= limit
        {
            flight.timed_out = true;
            self.cancel_at_server(ports);
        }
    }

    /// Asks the server to cancel what the leased backend runs.
    pub(super) fn cancel_at_server<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if let Some(backend) = self.backend.as_mut() {
            // The cancel would meet the repetition.
            backend.replay.spoil();
            ports.cancel(backend.id);
        }
    }

    /// Another connection of the client wants what runs to be cancelled.
    fn cancel<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        match self.wait {
            Wait::Lease { .. } if self.held.is_some() => {
                ports.request(Request::CancelLease {
                    pool: self.pool_key(),
                });
                self.wait = Wait::Not;
                self.refuse_held(cx, ports, &Fault::Cancelled);
            }
            Wait::Gate { bytes, .. } if self.held.is_some() => {
                self.gate.free_bytes(bytes);
                self.wait = Wait::Not;
                self.refuse_held(cx, ports, &Fault::Cancelled);
            }
            _ if !self.flights.is_empty() => self.cancel_at_server(ports),
            _ => {}
        }
    }

    /// The client is gone: its transaction is rolled back, and its backend freed.
    pub(super) fn leave<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        self.stop_waiting(ports);
        self.leaving = true;
        let Some(backend) = &self.backend else {
            return self.close(ports, Fate::Keep);
        };
        if self.hidden.is_some() {
            // What follows it sees that the client is gone.
            return;
        }
        if !backend.replies.is_empty() || self.batch_open || self.incoming.is_streaming() {
            if !self.flights.is_empty() {
                self.cancel_at_server(ports);
            }
            self.fail_flights(cx, &Fault::BackendLost, "08006");
            return self.close(ports, Fate::Close);
        }
        let clean: &[u8] = match self.transaction {
            TransactionStatus::Idle if self.pins.is_empty() => {
                return self.close(ports, Fate::Keep);
            }
            TransactionStatus::Idle => b"DISCARD ALL",
            TransactionStatus::InTransaction | TransactionStatus::Failed => b"ROLLBACK",
        };
        self.send_hidden(ports, clean, Then::Leave);
    }

    /// The vanished client's transaction is rolled back, or its session state discarded.
    fn close_cleaned<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let rolled_back = self.transaction != TransactionStatus::Idle;
        self.transaction = TransactionStatus::Idle;
        let dirty = !self.pins.is_empty() || self.touched != Touched::Nothing;
        if rolled_back && dirty {
            self.pins.add(PinReason::Other);
            return self.send_hidden(ports, b"DISCARD ALL", Then::Leave);
        }
        if dirty && let Some(backend) = self.backend.as_mut() {
            backend.prepared.clear();
            backend.settings = cx.sets.none();
        }
        self.close(ports, Fate::Keep);
    }

    fn stop_waiting<P: Ports<Backend>>(&mut self, ports: &mut P) {
        match self.wait {
            Wait::Lease { .. } => ports.request(Request::CancelLease {
                pool: self.pool_key(),
            }),
            Wait::Gate { bytes, .. } => self.gate.free_bytes(bytes),
            Wait::Hidden => return,
            Wait::Not | Wait::Replies | Wait::Again => {}
        }
        self.wait = Wait::Not;
    }

    /// The backend's connection broke.
    fn backend_gone<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let Some(backend) = self.backend.take() else {
            return;
        };
        let starting = self
            .hidden
            .as_ref()
            .is_some_and(|hidden| matches!(hidden.then, Then::GoOn | Then::LogIn));
        ports.release(backend, Fate::Close);
        if starting && self.pins.is_empty() && !self.leaving {
            // An idle connection had died unnoticed, and the client's message is still here: another one will do.
            self.hidden = None;
            self.wait = Wait::Not;
            self.leave_gate();
            return self.go_on(cx, ports);
        }
        self.hidden = None;
        if self.leaving {
            return self.close(ports, Fate::Close);
        }
        if self.fatal_seen {
            self.fail_flights(cx, &Fault::BackendLost, "08006");
            return self.close(ports, Fate::Close);
        }
        self.terminate(cx, ports, &Fault::BackendLost);
    }

    fn end_if_drained<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if self.is_idle() && self.login.is_none() {
            self.terminate(cx, ports, &Fault::Draining);
        }
    }

    /// Ends the session with an error for the client.
    pub(super) fn terminate<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        fault: &Fault,
    ) {
        let refusal = self.refusal_at(fault, Stage::Login);
        let metrics = cx.metrics.protocol(Engine::Postgres);
        if self.flights.is_empty() {
            metrics.errors.of(refusal.class).increment();
        }
        if self.login.is_some() {
            metrics.login_failures.increment();
        }
        self.fail_flights(cx, fault, refusal.code);
        ports.copy_client(&refusal.message);
        self.stop_waiting(ports);
        let unused = self.is_idle() && self.pins.is_empty();
        if self.backend.is_some() && !unused {
            self.cancel_at_server(ports);
        }
        self.close(ports, if unused { Fate::Keep } else { Fate::Close });
    }

    /// What was under way has failed.
    pub(super) fn fail_flights(&mut self, cx: &mut Context, fault: &Fault, code: &str) {
        let failure = Failure {
            code: ErrorCode::new(code.as_bytes()),
            class: fault.into(),
        };
        while let Some(mut flight) = self.flights.pop(cx.now) {
            flight.failure = Some(failure);
            record(cx, self.place(), &flight);
        }
    }

    pub(super) fn close<P: Ports<Backend>>(&mut self, ports: &mut P, fate: Fate) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.stop_waiting(ports);
        if let Some(backend) = self.backend.take() {
            let fate = if backend.replies.is_empty() {
                fate
            } else {
                Fate::Close
            };
            ports.release(backend, fate);
        }
        self.leave_gate();
        self.gate.disconnect();
    }

    // ---- errors of ours ----

    pub(super) fn refusal(&self, fault: &Fault) -> Refusal {
        self.refusal_at(fault, Stage::Session)
    }

    fn refusal_at(&self, fault: &Fault, stage: Stage) -> Refusal {
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
