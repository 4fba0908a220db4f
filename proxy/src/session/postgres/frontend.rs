//! What each message of the client does.

use std::rc::Rc;

use control_store::Fault;
use protocol_postgres::backend::{TransactionStatus, write as reply};
use protocol_postgres::frame::HEADER_LEN;
use protocol_postgres::frontend::{
    BindNames, BindPrefix, Close, Describe, Execute, Kind, Query, tag, write,
};
use protocol_sql::{Classifier, Effects, StatementKind, Summary, classify};

use super::flight::Text;
use super::incoming::{MAX_WHOLE, Message};
use super::live::{Live, MAX_NAMES, Overflow, Skipping, Turn, Unnamed, Wait};
use super::preparing::Ready;
use super::refusal::Refusal;
use super::refusing::FUNCTION_CALL;
use super::replies::Owed;
use super::statement::Statement;
use crate::backend::postgres::Backend;
use crate::reactor::Buf;
use crate::route::DdlPolicy;
use crate::session::{Context, Ports};

/// A text's beginning that is kept for the log while the rest streams.
pub(super) const LOGGED: usize = 4 << 10;

/// Where the rest of a streamed message goes.
#[derive(Default)]
pub(super) enum Sink {
    /// Nowhere.
    #[default]
    Discard,
    /// To the leased backend.
    Backend,
    /// To the leased backend, while it is classified.
    Classify(Box<Classifier>),
}

/// What became of a message.
pub(super) enum Done {
    /// It is dealt with.
    Yes,
    /// It waits for what [`Live::wait`] says.
    Waits(Message),
}

pub(super) type Outcome = Result<Done, Fault>;

impl Live {
    /// Handles the client's messages until one has to wait.
    pub(super) fn pump<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        while !self.is_closed() && self.wait == Wait::Not {
            if self.leaving {
                return self.leave(cx, ports);
            }
            if self.held.is_none() && self.incoming.is_streaming() {
                match self.incoming.next_piece() {
                    Some(piece) => self.stream(cx, ports, piece),
                    None => return,
                }
                continue;
            }
            let message = match self.held.take().or_else(|| self.next_again()) {
                Some(message) => message,
                None => match self.incoming.next_message(cx.now) {
                    Ok(Some(message)) => message,
                    Ok(None) => return,
                    Err(_) => {
                        let fault = Fault::ProtocolViolation {
                            what: "invalid message length",
                        };
                        return self.terminate(cx, ports, &fault);
                    }
                },
            };
            match self.dispatch(cx, ports, message) {
                Ok(Done::Yes) => {}
                Ok(Done::Waits(message)) => self.held = Some(message),
                Err(fault) => return self.terminate(cx, ports, &fault),
            }
        }
    }

    fn dispatch<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        if self.skipping != Skipping::No && !matches!(message.tag, tag::SYNC | tag::TERMINATE) {
            self.sink = Sink::Discard;
            self.incoming.stream(message.rest);
            return Ok(Done::Yes);
        }
        match message.tag {
            tag::QUERY => self.query(cx, ports, message),
            tag::PARSE => self.parse(cx, ports, message),
            tag::BIND => self.bind(cx, ports, message),
            tag::DESCRIBE => self.describe(cx, ports, message),
            tag::EXECUTE => self.execute(cx, ports, message),
            tag::CLOSE => self.close_named(cx, ports, message),
            tag::SYNC => self.sync(cx, ports, message),
            tag::FLUSH => {
                if let Some(backend) = self.backend.as_mut() {
                    ports.copy_backend(backend.conn, &message.bytes);
                    let idle = self.transaction == TransactionStatus::Idle;
                    backend.replay.keep(message, idle);
                }
                Ok(Done::Yes)
            }
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {
                self.copy(ports, message);
                Ok(Done::Yes)
            }
            tag::FUNCTION_CALL => self.function_call(cx, ports, message),
            tag::TERMINATE => {
                self.leave(cx, ports);
                Ok(Done::Yes)
            }
            _ => Err(violation("invalid frontend message type")),
        }
    }

    // ---- streaming ----

    fn stream<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, piece: Buf) {
        let last = !self.incoming.is_streaming();
        match &mut self.sink {
            Sink::Discard => {}
            Sink::Backend => self.forward_piece(ports, piece),
            Sink::Classify(classifier) => {
                // The zero byte at its end is no part of a text; the server refuses one inside.
                let text = piece.strip_suffix(&[0]).filter(|_| last).unwrap_or(&piece);
                classifier.push(text);
                self.forward_piece_or_refuse(cx, ports, piece, last);
            }
        }
    }

    fn forward_piece<P: Ports<Backend>>(&mut self, ports: &mut P, piece: Buf) {
        if let Some(backend) = &self.backend {
            ports.expect_client(self.incoming.remaining());
            ports.send_backend(backend.conn, piece);
        }
    }

    /// The last piece of a text decides whether the server gets it: it has run nothing of a message that does not end.
    fn forward_piece_or_refuse<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        piece: Buf,
        last: bool,
    ) {
        if !last {
            return self.forward_piece(ports, piece);
        }
        let Sink::Classify(classifier) = std::mem::take(&mut self.sink) else {
            return;
        };
        let summary = classifier.finish();
        if let Some(fault) = self.forbids(&summary) {
            // Whatever else is under way on this backend is lost with it.
            return self.terminate(cx, ports, &fault);
        }
        self.note_effects(cx, summary.effects, b"DISCARD");
        self.forward_piece(ports, piece);
    }

    pub(super) fn send_and_stream<P: Ports<Backend>>(
        &mut self,
        ports: &mut P,
        message: Message,
        sink: Sink,
    ) {
        let Some(backend) = &self.backend else { return };
        if message.rest > 0 {
            ports.expect_client(message.rest);
            self.incoming.stream(message.rest);
            self.sink = sink;
        }
        ports.send_backend(backend.conn, message.bytes);
    }

    // ---- simple queries ----

    fn query<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        if message.rest > 0 {
            return self.large_query(cx, ports, message);
        }
        let text = Query::decode(message.body())
            .map_err(|_| violation("invalid Query message"))?
            .query;
        let summary = classify(text, &self.lexing);
        if let Some(fault) = self.forbids(&summary) {
            self.refuse(cx, ports, &message, &fault);
            return Ok(Done::Yes);
        }
        if summary.first == StatementKind::Deallocate
            && summary.statements == 1
            && let Some(outcome) = self.deallocate(cx, ports, text)
        {
            return Ok(outcome.unwrap_or(Done::Waits(message)));
        }
        match self.turn(cx, ports, len(&message)) {
            Turn::Now => {}
            Turn::Wait => return Ok(Done::Waits(message)),
            Turn::Refused(fault) => {
                return self.refuse_or_end(cx, ports, &message, &fault);
            }
        }
        self.note_effects(cx, summary.effects, text);
        // A simple query drops the unnamed statement.
        self.unnamed = Unnamed::Absent;
        let end = message.bytes.len() - 1;
        let text = Text::Sent(message.bytes.slice(HEADER_LEN..end));
        self.flights.push(text, message.at, cx.now);
        if let Some(backend) = self.backend.as_mut() {
            backend.replies.push(Owed::Query { show: true });
            backend.replay.spoil();
            ports.send_backend(backend.conn, message.bytes);
        }
        Ok(Done::Yes)
    }

    /// A text that is too long to be seen whole is classified piece by piece, while it streams.
    fn large_query<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        match self.turn(cx, ports, len(&message)) {
            Turn::Now => {}
            Turn::Wait => return Ok(Done::Waits(message)),
            Turn::Refused(fault) => {
                return self.refuse_or_end(cx, ports, &message, &fault);
            }
        }
        let mut classifier = Box::new(Classifier::new(&self.lexing));
        classifier.push(message.body());
        self.unnamed = Unnamed::Absent;
        let text = Text::Sent(message.bytes.slice(HEADER_LEN..LOGGED).detach());
        self.flights.push(text, message.at, cx.now);
        if let Some(backend) = self.backend.as_mut() {
            backend.replies.push(Owed::Query { show: true });
            backend.replay.spoil();
        }
        self.send_and_stream(ports, message, Sink::Classify(classifier));
        Ok(Done::Yes)
    }

    /// What the product forbids of a text.
    pub(super) fn forbids(&self, summary: &Summary) -> Option<Fault> {
        if summary.too_deep {
            return Some(Fault::Unsupported {
                what: "comments nest more than 64 deep, or a dollar quote has a tag of more than 256 bytes",
            });
        }
        let ddl = summary.effects.intersects(Effects::DDL);
        (ddl && self.route.ddl == DdlPolicy::Refuse).then_some(Fault::DdlRefused)
    }

    // ---- the extended protocol ----

    fn bind<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        let names = match BindNames::decode_prefix(message.body(), message.body_len(), MAX_WHOLE) {
            Ok(BindPrefix::Names(names)) => names,
            Ok(BindPrefix::Need(_)) | Err(_) => return Err(violation("invalid Bind message")),
        };
        let statement = match self.ready(cx, ports, names.statement, len(&message)) {
            Ready::Ours(statement) => Some(statement),
            Ready::Theirs => None,
            Ready::Missing => {
                let refusal = Refusal::no_statement(names.statement);
                self.refuse_with(cx, ports, &message, refusal);
                return Ok(Done::Yes);
            }
            Ready::Wait => return Ok(Done::Waits(message)),
            Ready::Refused(fault) => {
                return self.refuse_or_end(cx, ports, &message, &fault);
            }
        };
        self.batch_open = true;
        let executed = statement.clone().or_else(|| match &self.unnamed {
            Unnamed::OnBackend(statement) if names.statement.is_empty() => {
                Some(Rc::clone(statement))
            }
            _ => None,
        });
        if let Some(executed) = &executed {
            self.note_effects(cx, executed.summary.effects, &executed.query);
        }
        self.note_portal(names.portal, executed);
        let Some(backend) = self.backend.as_mut() else {
            return Ok(Done::Yes);
        };
        backend.replies.push(Owed::Bind);
        match statement {
            None => {
                // A name of the client's own means nothing on another backend, nor on this one once it has prepared anew.
                backend.replay.spoil();
                self.send_and_stream(ports, message, Sink::Backend);
            }
            Some(statement) => {
                let mut out = std::mem::take(&mut cx.scratch);
                out.clear();
                write::bind_header(&mut out, &names, message.body_len(), &statement.name)
                    .map_err(|_| violation("Bind message too long"))?;
                let skipped = HEADER_LEN + names.encoded_len();
                let rest = message.bytes.get(skipped..).unwrap_or_default();
                // A small one is copied whole: that is cheaper than two pieces.
                if rest.len() <= SMALL {
                    out.extend_from_slice(rest);
                    ports.copy_backend(backend.conn, &out);
                } else {
                    ports.copy_backend(backend.conn, &out);
                    ports.send_backend(
                        backend.conn,
                        message.bytes.slice(skipped..message.bytes.len()),
                    );
                }
                cx.scratch = out;
                if message.rest > 0 {
                    ports.expect_client(message.rest);
                    self.incoming.stream(message.rest);
                    self.sink = Sink::Backend;
                }
                let idle = self.transaction == TransactionStatus::Idle;
                backend.replay.keep(message, idle);
            }
        }
        Ok(Done::Yes)
    }

    fn note_portal(&mut self, portal: &[u8], statement: Option<Rc<Statement>>) {
        if portal.is_empty() {
            self.portal = statement;
        } else if let Some(statement) = statement
            && self.portals.len() < MAX_NAMES
        {
            match self.portals.iter_mut().find(|(name, _)| **name == *portal) {
                Some((_, known)) => *known = statement,
                None => self.portals.push((portal.into(), statement)),
            }
        }
    }

    fn describe<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        let describe =
            Describe::decode(message.body()).map_err(|_| violation("invalid Describe message"))?;
        let statement = match describe.kind {
            Kind::Statement => match self.ready(cx, ports, describe.name, len(&message)) {
                Ready::Ours(statement) => Some(statement),
                Ready::Theirs => None,
                Ready::Missing => {
                    let refusal = Refusal::no_statement(describe.name);
                    self.refuse_with(cx, ports, &message, refusal);
                    return Ok(Done::Yes);
                }
                Ready::Wait => return Ok(Done::Waits(message)),
                Ready::Refused(fault) => {
                    return self.refuse_or_end(cx, ports, &message, &fault);
                }
            },
            Kind::Portal => match self.turn(cx, ports, len(&message)) {
                Turn::Now => None,
                Turn::Wait => return Ok(Done::Waits(message)),
                Turn::Refused(fault) => {
                    return self.refuse_or_end(cx, ports, &message, &fault);
                }
            },
        };
        self.batch_open = true;
        let Some(backend) = self.backend.as_mut() else {
            return Ok(Done::Yes);
        };
        backend.replies.push(Owed::Describe);
        match statement {
            None => copy_or_send(ports, backend, &message.bytes),
            Some(statement) => {
                let mut out = std::mem::take(&mut cx.scratch);
                out.clear();
                let _ = write::describe(&mut out, Kind::Statement, &statement.name);
                ports.copy_backend(backend.conn, &out);
                cx.scratch = out;
            }
        }
        let idle = self.transaction == TransactionStatus::Idle;
        backend.replay.keep(message, idle);
        Ok(Done::Yes)
    }

    fn execute<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        let execute =
            Execute::decode(message.body()).map_err(|_| violation("invalid Execute message"))?;
        match self.turn(cx, ports, len(&message)) {
            Turn::Now => {}
            Turn::Wait => return Ok(Done::Waits(message)),
            Turn::Refused(fault) => {
                return self.refuse_or_end(cx, ports, &message, &fault);
            }
        }
        self.batch_open = true;
        let statement = if execute.portal.is_empty() {
            self.portal.as_ref()
        } else {
            let named = self.portals.iter();
            named
                .rev()
                .find(|(name, _)| **name == *execute.portal)
                .map(|(_, statement)| statement)
        };
        let text = statement.map_or(Text::Fixed(b""), |it| Text::Prepared(Rc::clone(it)));
        self.flights.push(text, message.at, cx.now);
        if let Some(backend) = self.backend.as_mut() {
            backend.replies.push(Owed::Execute);
            copy_or_send(ports, backend, &message.bytes);
            let idle = self.transaction == TransactionStatus::Idle;
            backend.replay.keep(message, idle);
        }
        Ok(Done::Yes)
    }

    fn close_named<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        let close =
            Close::decode(message.body()).map_err(|_| violation("invalid Close message"))?;
        let ours = match close.kind {
            Kind::Statement if close.name.is_empty() => {
                let unnamed = std::mem::replace(&mut self.unnamed, Unnamed::Absent);
                matches!(unnamed, Unnamed::Ours(_))
            }
            Kind::Statement => self.statements.remove(close.name).is_some(),
            Kind::Portal => false,
        };
        if self.backend.is_none() {
            // Nothing of that name is anywhere: closing it is no error.
            ports.copy_client(&CLOSE_COMPLETE);
            return Ok(Done::Yes);
        }
        match self.turn(cx, ports, len(&message)) {
            Turn::Now => {}
            Turn::Wait => return Ok(Done::Waits(message)),
            Turn::Refused(fault) => {
                return self.refuse_or_end(cx, ports, &message, &fault);
            }
        }
        self.batch_open = true;
        if let Some(backend) = self.backend.as_mut() {
            backend.replay.pass();
            if ours {
                backend.replies.push(Owed::CloseHere);
            } else {
                backend.replies.push(Owed::Close { show: true });
                ports.send_backend(backend.conn, message.bytes);
            }
        }
        self.give_own(ports);
        Ok(Done::Yes)
    }

    fn sync<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        let skipping = std::mem::replace(&mut self.skipping, Skipping::No);
        if skipping == Skipping::Ours || self.backend.is_none() {
            let mut out = Vec::with_capacity(6);
            reply::ready_for_query(&mut out, self.transaction);
            ports.copy_client(&out);
            self.at_rest_if_idle(cx, ports);
            return Ok(Done::Yes);
        }
        match self.turn(cx, ports, len(&message)) {
            Turn::Now => {}
            Turn::Wait => return Ok(Done::Waits(message)),
            Turn::Refused(fault) => return Err(fault),
        }
        if let Some(backend) = self.backend.as_mut() {
            // While it takes COPY data, the server passes over a Sync.
            if !self.copy_in {
                backend.replies.push(Owed::Sync);
                self.batch_open = false;
            }
            ports.copy_backend(backend.conn, &message.bytes);
            let idle = self.transaction == TransactionStatus::Idle;
            backend.replay.keep(message, idle);
        }
        Ok(Done::Yes)
    }

    fn copy<P: Ports<Backend>>(&mut self, ports: &mut P, message: Message) {
        if let Some(backend) = self.backend.as_mut() {
            backend.replay.spoil();
        }
        if message.tag != tag::COPY_DATA
            && !std::mem::take(&mut self.copy_in)
            && let Some(backend) = self.backend.as_mut()
            && !backend.replies.is_empty()
        {
            backend.replies.push(Owed::CopyEnd);
        }
        // Data that comes after the server has failed the COPY is passed over, as the server does.
        if self.owes() {
            self.send_and_stream(ports, message, Sink::Backend);
        } else {
            self.sink = Sink::Discard;
            self.incoming.stream(message.rest);
        }
    }

    fn function_call<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        match self.turn(cx, ports, len(&message)) {
            Turn::Now => {}
            Turn::Wait => return Ok(Done::Waits(message)),
            Turn::Refused(fault) => {
                return self.refuse_or_end(cx, ports, &message, &fault);
            }
        }
        self.touch_everything(cx);
        self.flights.push(FUNCTION_CALL, message.at, cx.now);
        if let Some(backend) = self.backend.as_mut() {
            backend.replies.push(Owed::Query { show: true });
            backend.replay.spoil();
        }
        self.send_and_stream(ports, message, Sink::Backend);
        Ok(Done::Yes)
    }

    // ---- what Bind and Describe share ----

    /// Gives the replies of our own whose turn has come.
    pub(super) fn give_own<P: Ports<Backend>>(&mut self, ports: &mut P) {
        use super::replies::Own;
        let Some(backend) = self.backend.as_mut() else {
            return;
        };
        while let Some(own) = backend.replies.own() {
            match own {
                Own::ParseComplete { named } => {
                    if named {
                        self.unconfirmed.pop_front();
                    }
                    if self.overflow == Overflow::No {
                        ports.copy_client(&PARSE_COMPLETE);
                    }
                }
                Own::CloseComplete if self.overflow == Overflow::No => {
                    ports.copy_client(&CLOSE_COMPLETE);
                }
                Own::CloseComplete => {}
            }
        }
    }

    /// After an answer of our own: whatever is held for nothing is given up.
    pub(super) fn at_rest_if_idle<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if self.is_idle() {
            self.at_rest(cx, ports);
        }
    }

    /// Whether the backend owes replies.
    pub(super) fn owes(&self) -> bool {
        self.backend
            .as_ref()
            .is_some_and(|backend| !backend.replies.is_empty())
    }
}

/// Messages up to this size are copied into the send queue.
const SMALL: usize = 512;
const PARSE_COMPLETE: [u8; 5] = [b'1', 0, 0, 0, 4];
const CLOSE_COMPLETE: [u8; 5] = [b'3', 0, 0, 0, 4];

/// Sends a message that is kept too.
fn copy_or_send<P: Ports<Backend>>(ports: &mut P, backend: &Backend, bytes: &Buf) {
    if bytes.len() <= SMALL {
        ports.copy_backend(backend.conn, bytes);
    } else {
        ports.send_backend(backend.conn, bytes.clone());
    }
}

pub(super) fn violation(what: &'static str) -> Fault {
    Fault::ProtocolViolation { what }
}

pub(super) fn len(message: &Message) -> u64 {
    u64::try_from(message.bytes.len()).unwrap_or(u64::MAX)
}
