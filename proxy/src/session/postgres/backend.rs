//! What each message of the backend does.

use control_store::Fault;
use protocol_postgres::backend::{
    CommandComplete, ErrorFields, ParameterStatus, ReadyForQuery, TransactionStatus, tag,
};
use protocol_postgres::frame::{self, HEADER_LEN, Header, Peek};

use super::flight::{Failure, Text, record};
use super::live::{Live, Overflow, Skipping, Then, Wait};
use super::replies::{Deliver, FaultSlot, Owed, Verdict};
use crate::backend::postgres::Backend;
use crate::metrics::ErrorClass;
use crate::query_log::ErrorCode;
use crate::reactor::Buf;
use crate::session::{Context, Fate, Ports};

/// A server's messages are no longer than this.
const MAX_BODY: u32 = 0x3fff_ffff;
/// Messages that must be seen whole are seen up to this size; a larger error is passed on unread.
const MAX_WHOLE: usize = 256 << 10;

/// Rows that one query of our own may have.
const MAX_HIDDEN_ROWS: usize = 2000;

/// The part of a received buffer that goes to the client as it is.
struct Passing<'a> {
    buf: &'a Buf,
    start: usize,
    end: usize,
}

impl Passing<'_> {
    /// Sends what has gathered; what comes next stands behind it.
    fn flush<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if self.end > self.start {
            ports.send_client(self.buf.slice(self.start..self.end));
        }
        self.start = self.end;
    }

    /// Leaves bytes out.
    fn skip<P: Ports<Backend>>(&mut self, ports: &mut P, count: usize) {
        self.flush(ports);
        self.end += count;
        self.start = self.end;
    }
}

/// The backend sent what nothing asked for.
struct Broken;

impl Live {
    /// Handles bytes of the leased backend.
    pub(super) fn receive_backend<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        mut buf: Buf,
    ) {
        while !buf.is_empty() {
            let Some(backend) = self.backend.as_mut() else {
                return;
            };
            if backend.incoming.remaining > 0 {
                self.pass_rest(ports, &mut buf);
                continue;
            }
            let carry = &mut backend.incoming.carry;
            let scanned = if carry.is_empty() {
                let whole = std::mem::take(&mut buf);
                self.scan(cx, ports, &whole)
            } else {
                let missing = missing(carry);
                let piece = buf.split_to(missing);
                carry.extend_from_slice(&piece);
                if self::missing(carry) > 0 {
                    continue;
                }
                let whole = Buf::from_vec(std::mem::take(carry));
                self.scan(cx, ports, &whole)
            };
            if scanned.is_err() {
                tracing::error!("a backend sent what nothing asked for");
                // Nobody else may have it, however idle the session is.
                if let Some(backend) = self.backend.take() {
                    ports.cancel(backend.id);
                    ports.release(backend, Fate::Close);
                }
                return self.terminate(cx, ports, &Fault::BackendLost);
            }
        }
        self.settle(cx, ports);
    }

    /// After the backend's bytes: the session may be at rest, or a message may no longer have to wait.
    fn settle<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        if self.is_closed() {
            return;
        }
        if std::mem::take(&mut self.ready_seen) && self.rests() {
            self.at_rest(cx, ports);
        }
        if self.wait == Wait::Replies {
            self.wait = Wait::Not;
        }
        if self.wait == Wait::Not {
            self.pump(cx, ports);
        }
    }

    fn rests(&self) -> bool {
        self.transaction == TransactionStatus::Idle
            && !self.batch_open
            && self.again.is_empty()
            && !self.incoming.is_streaming()
            && !self.owes()
    }

    fn pass_rest<P: Ports<Backend>>(&mut self, ports: &mut P, buf: &mut Buf) {
        let Some(backend) = self.backend.as_mut() else {
            return;
        };
        let conn = backend.conn;
        let incoming = &mut backend.incoming;
        let len = usize::try_from(incoming.remaining).unwrap_or(usize::MAX);
        let piece = buf.split_to(len);
        incoming.remaining -= u64::try_from(piece.len()).unwrap_or(0);
        if incoming.remaining > 0 {
            ports.expect_backend(conn, incoming.remaining);
        }
        if incoming.forward {
            ports.send_client(piece);
        }
    }

    /// Goes through the messages of a buffer; whole ranges are passed on at once.
    fn scan<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        buf: &Buf,
    ) -> Result<(), Broken> {
        let mut passing = Passing {
            buf,
            start: 0,
            end: 0,
        };
        loop {
            let rest = buf.get(passing.end..).unwrap_or_default();
            let header = match frame::peek(rest, MAX_BODY) {
                Ok(Peek::Header(header)) => header,
                Ok(Peek::Need(_)) => {
                    self.keep(rest);
                    break;
                }
                Err(_) => return Err(Broken),
            };
            let total = HEADER_LEN + header.body as usize;
            match rest.get(HEADER_LEN..total) {
                Some(body) => self.message(cx, ports, header.tag, body, &mut passing)?,
                None if must_be_whole(header) => {
                    self.keep(rest);
                    break;
                }
                None => {
                    self.begin_large(cx, ports, header, rest.len(), &mut passing)?;
                    break;
                }
            }
            if self.is_closed() || self.backend.is_none() {
                break;
            }
        }
        passing.flush(ports);
        Ok(())
    }

    /// Keeps the beginning of a message until the rest comes.
    fn keep(&mut self, rest: &[u8]) {
        if let Some(backend) = self.backend.as_mut() {
            backend.incoming.carry.extend_from_slice(rest);
        }
    }

    /// A message that is not all there and need not be: its rest follows by length.
    fn begin_large<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        header: Header,
        have: usize,
        passing: &mut Passing<'_>,
    ) -> Result<(), Broken> {
        self.message_header(cx, ports, header.tag, passing, have)?;
        // What is skipped leaves nothing to pass on.
        let forward = passing.start < passing.end;
        if let Some(backend) = self.backend.as_mut() {
            let total = HEADER_LEN + header.body as usize;
            backend.incoming.remaining = u64::try_from(total - have).unwrap_or(u64::MAX);
            backend.incoming.forward = forward;
            ports.expect_backend(backend.conn, backend.incoming.remaining);
        }
        Ok(())
    }

    /// One whole message.
    #[inline]
    fn message<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        tag: u8,
        body: &[u8],
        passing: &mut Passing<'_>,
    ) -> Result<(), Broken> {
        let len = HEADER_LEN + body.len();
        match tag {
            tag::READY_FOR_QUERY => self.ready_for_query(cx, ports, body, passing),
            tag::ERROR_RESPONSE => self.error(cx, ports, body, passing),
            tag::COMMAND_COMPLETE => {
                let verdict = self.judge(tag)?;
                self.command_complete(cx, &verdict, body);
                self.deliver(ports, &verdict, len, passing);
                Ok(())
            }
            tag::PARAMETER_STATUS => self.parameter_status(ports, body, passing),
            tag::PARAMETER_DESCRIPTION => self.parameter_description(cx, ports, body, passing),
            tag::DATA_ROW if self.hidden.is_some() => {
                self.judge(tag)?;
                self.hidden_row(body);
                passing.skip(ports, len);
                Ok(())
            }
            _ => self.message_header(cx, ports, tag, passing, len),
        }
    }

    /// A message of which only the tag counts. `len`: what is there of it.
    #[inline]
    fn message_header<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        tag: u8,
        passing: &mut Passing<'_>,
        len: usize,
    ) -> Result<(), Broken> {
        match tag {
            // These may come at any time.
            tag::NOTICE_RESPONSE | tag::NOTIFICATION_RESPONSE => {
                if self.hidden.is_some() && tag == tag::NOTICE_RESPONSE {
                    passing.skip(ports, len);
                } else {
                    passing.end += len;
                }
                return Ok(());
            }
            tag::PARAMETER_DESCRIPTION => {
                // The client has a part of the answer.
                if let Some(backend) = self.backend.as_mut() {
                    backend.replay.spoil();
                }
            }
            // One that is too large to be looked at is passed on as it is.
            tag::ERROR_RESPONSE => return self.error(cx, ports, b"\0", passing),
            _ => {}
        }
        let verdict = self.judge(tag)?;
        match tag {
            tag::DATA_ROW => {
                if verdict.deliver == Deliver::Forward && self.row(ports, passing) {
                    passing.end += len;
                } else {
                    passing.skip(ports, len);
                }
                return Ok(());
            }
            tag::COPY_IN_RESPONSE => {
                if let Some(backend) = self.backend.as_mut() {
                    self.copy_in = !backend.replies.copy_in_started();
                }
            }
            tag::PARSE_COMPLETE => {
                if let Owed::Parse { named: true, .. } = verdict.head {
                    self.unconfirmed.pop_front();
                }
            }
            tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED if verdict.head == Owed::Execute => {
                let rows = self.rows;
                self.end_flight(cx, Some(rows));
            }
            _ => {}
        }
        if verdict.head == Owed::Describe {
            self.give_withheld(ports, passing);
        }
        self.deliver(ports, &verdict, len, passing);
        Ok(())
    }

    #[inline]
    fn judge(&mut self, tag: u8) -> Result<Verdict, Broken> {
        let backend = self.backend.as_mut().ok_or(Broken)?;
        backend.replies.judge(tag, |_| ()).map_err(|_| Broken)
    }

    /// Passes a message on or not, and gives the replies of our own that stand behind it.
    #[inline]
    fn deliver<P: Ports<Backend>>(
        &mut self,
        ports: &mut P,
        verdict: &Verdict,
        len: usize,
        passing: &mut Passing<'_>,
    ) {
        if verdict.deliver == Deliver::Forward && self.overflow == Overflow::No {
            passing.end += len;
        } else {
            passing.skip(ports, len);
        }
        if verdict.done {
            self.give_own_behind(ports, passing);
        }
    }

    fn give_own_behind<P: Ports<Backend>>(&mut self, ports: &mut P, passing: &mut Passing<'_>) {
        let due = self
            .backend
            .as_mut()
            .is_some_and(|backend| backend.replies.own_is_due());
        if due {
            passing.flush(ports);
            self.give_own(ports);
        }
    }

    // ---- rows and their limit ----

    /// Counts a row of the client's statement; whether it may pass.
    #[inline]
    fn row<P: Ports<Backend>>(&mut self, ports: &mut P, passing: &mut Passing<'_>) -> bool {
        if self.overflow != Overflow::No {
            return false;
        }
        self.rows += 1;
        if self.rows <= self.route.database.settings.max_rows_per_query {
            return true;
        }
        self.row_limit_hit(ports, passing);
        false
    }

    fn row_limit_hit<P: Ports<Backend>>(&mut self, ports: &mut P, passing: &mut Passing<'_>) {
        passing.flush(ports);
        let fault = Fault::RowLimit {
            limit: self.route.database.settings.max_rows_per_query,
        };
        let refusal = self.refusal(&fault);
        ports.copy_client(&refusal.message);
        self.cancel_at_server(ports);
        self.overflow = Overflow::Swallow { failed: false };
        if let Some(flight) = self.flights.front_mut() {
            flight.rows += self.rows - 1;
            flight.failure = Some(Failure {
                code: ErrorCode::new(refusal.code.as_bytes()),
                class: refusal.class,
            });
        }
    }

    // ---- ends of statements ----

    fn command_complete(&mut self, cx: &mut Context, verdict: &Verdict, body: &[u8]) {
        let Ok(complete) = CommandComplete::decode(body) else {
            return;
        };
        if complete.tag == b"DISCARD ALL" || complete.tag == b"DEALLOCATE ALL" {
            self.forget_prepared();
        }
        let rows = complete.rows().unwrap_or(0);
        match verdict.head {
            Owed::Execute => self.end_flight(cx, Some(rows)),
            Owed::Query { show: true } => {
                if let Some(flight) = self.flights.front_mut() {
                    flight.rows = flight.rows.saturating_add(rows);
                }
                self.rows = 0;
            }
            _ => {}
        }
    }

    /// The server has dropped all that was prepared.
    fn forget_prepared(&mut self) {
        if self.hidden.is_some() {
            return;
        }
        self.statements.clear();
        self.unnamed = super::live::Unnamed::Absent;
        if let Some(backend) = self.backend.as_mut() {
            backend.prepared.clear();
        }
    }

    /// The statement that ran has ended.
    fn end_flight(&mut self, cx: &mut Context, rows: Option<u64>) {
        self.rows = 0;
        if let Some(mut flight) = self.flights.pop(cx.now) {
            if flight.failure.is_none()
                && let Some(rows) = rows
            {
                flight.rows = rows;
            }
            record(cx, self.place(), &flight);
        }
    }

    fn ready_for_query<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        body: &[u8],
        passing: &mut Passing<'_>,
    ) -> Result<(), Broken> {
        let len = HEADER_LEN + body.len();
        let status = ReadyForQuery::decode(body).map_err(|_| Broken)?.status;
        let verdict = self.judge(tag::READY_FOR_QUERY)?;
        self.copy_in = false;
        if let Owed::Query { show: false } = verdict.head {
            passing.skip(ports, len);
            self.hidden_done(cx, ports, status);
            return Ok(());
        }
        if let Owed::Query { show: true } = verdict.head {
            self.end_flight(cx, None);
        }
        if self.wait == Wait::Again {
            passing.skip(ports, len);
            self.wait = Wait::Not;
            // Once it is the session's again, its bytes' end leads on to the messages.
            self.adopt(ports);
            return Ok(());
        }
        self.transaction = status;
        self.ready_seen = true;
        let quiet = !self.batch_open && !self.owes();
        if let Some(backend) = self.backend.as_mut() {
            backend.replay.ready(quiet);
        }
        let overflow = std::mem::replace(&mut self.overflow, Overflow::No);
        if status == TransactionStatus::InTransaction
            && overflow == (Overflow::Swallow { failed: false })
        {
            // The cancel came too late: the transaction that the client was told has failed must fail.
            passing.skip(ports, len);
            self.send_hidden(ports, b"tenantsdb refused this", Then::Abort);
            return Ok(());
        }
        passing.end += len;
        self.give_own_behind(ports, passing);
        Ok(())
    }

    // ---- errors ----

    fn error<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        body: &[u8],
        passing: &mut Passing<'_>,
    ) -> Result<(), Broken> {
        let len = HEADER_LEN + body.len();
        let fields = ErrorFields::decode(body).ok();
        let code = fields.and_then(ErrorFields::code).unwrap_or(b"XX000");
        let fatal = fields.is_some_and(ErrorFields::is_fatal);
        let Some(backend) = self.backend.as_mut() else {
            return Err(Broken);
        };
        if backend.replies.is_empty() || fatal {
            // The server ends the connection, in its own words.
            self.fatal_seen = true;
            passing.end += len;
            return Ok(());
        }
        let mut dropped: smallvec::SmallVec<[Owed; 8]> = smallvec::SmallVec::new();
        let verdict = backend
            .replies
            .judge(tag::ERROR_RESPONSE, |owed| dropped.push(owed))
            .map_err(|_| Broken)?;
        if verdict.done && backend.replies.is_empty() {
            // The Sync has not been sent yet: the server passes over all that comes before it.
            self.skipping = Skipping::Servers;
        }
        self.copy_in = false;
        if let Owed::Query { show: false } = verdict.head {
            if let Some(hidden) = self.hidden.as_mut() {
                let message = fields.and_then(ErrorFields::message).unwrap_or_default();
                let message = String::from_utf8_lossy(message).into_owned();
                hidden.error = Some((code.to_vec(), message));
            }
            passing.skip(ports, len);
            return Ok(());
        }
        if code == b"0A000" && fields.and_then(|it| it.get(b'R')) == Some(b"RevalidateCachedQuery")
        {
            // A statement's result has changed its shape: everything is prepared again before its next use.
            backend.schema_epoch = self.gate.schema_epoch().wrapping_sub(1);
            if self.repeat(cx, ports, &dropped) {
                passing.skip(ports, len);
                return Ok(());
            }
        }
        self.give_withheld(ports, passing);
        let replacement = self.replacement(cx, code, &verdict);
        let failure = match &replacement {
            Some((_, failure)) => *failure,
            None => Failure {
                code: ErrorCode::new(code),
                class: ErrorClass::Statement,
            },
        };
        self.fail(cx, &verdict, &dropped, failure);
        if let Overflow::Swallow { failed } = &mut self.overflow {
            *failed = true;
            passing.skip(ports, len);
        } else if let Some((message, _)) = replacement {
            passing.skip(ports, len);
            ports.copy_client(&message);
        } else {
            passing.end += len;
        }
        self.give_own_behind(ports, passing);
        Ok(())
    }

    /// Our error in place of the server's, if this one is of our making.
    fn replacement(
        &mut self,
        cx: &mut Context,
        code: &[u8],
        verdict: &Verdict,
    ) -> Option<(Vec<u8>, Failure)> {
        let refusal = match verdict.deliver {
            Deliver::Replace(slot) => {
                let (refusal, text, started) = self.take_refusal(slot)?;
                self.record_refusal(cx, &refusal, text.bytes(), started);
                refusal
            }
            _ if code == b"57014" && self.flights.front_mut().is_some_and(|it| it.timed_out) => {
                self.refusal(&Fault::QueryTimeout {
                    limit_ms: self.route.database.settings.query_timeout_ms,
                })
            }
            _ => return None,
        };
        let failure = Failure {
            code: ErrorCode::new(refusal.code.as_bytes()),
            class: refusal.class,
        };
        Some((refusal.message, failure))
    }

    fn take_refusal(
        &mut self,
        slot: FaultSlot,
    ) -> Option<(super::refusal::Refusal, Text, std::time::Instant)> {
        let at = self
            .refusals
            .iter()
            .position(|(known, ..)| *known == slot)?;
        let (_, refusal, text, started) = self.refusals.remove(at)?;
        Some((refusal, text, started))
    }

    /// A message has failed, and with it what the server drops.
    fn fail(&mut self, cx: &mut Context, verdict: &Verdict, dropped: &[Owed], failure: Failure) {
        match verdict.head {
            Owed::Query { .. } => {
                if let Some(flight) = self.flights.front_mut() {
                    flight.failure.get_or_insert(failure);
                    flight.rows = flight.rows.max(self.rows);
                }
                return;
            }
            Owed::PoisonQuery(_) => return,
            _ => {}
        }
        let mut told = matches!(verdict.head, Owed::Poison(_));
        for owed in dropped {
            match owed {
                Owed::Execute => {
                    // The first is the one that failed, or would have run what failed to be prepared.
                    if let Some(mut flight) = self.flights.pop(cx.now)
                        && !std::mem::replace(&mut told, true)
                    {
                        flight.failure.get_or_insert(failure);
                        flight.rows = flight.rows.max(self.rows);
                        record(cx, self.place(), &flight);
                    }
                }
                Owed::Query { show: true } => {
                    self.flights.pop(cx.now);
                }
                Owed::Parse {
                    statement, named, ..
                } => {
                    if let (Some(id), Some(backend)) = (statement, self.backend.as_mut()) {
                        backend.prepared.remove(*id);
                    }
                    self.drop_name(*named);
                }
                Owed::ParseHere { named } => self.drop_name(*named),
                Owed::Poison(slot) | Owed::PoisonQuery(slot) if *owed != verdict.head => {
                    self.take_refusal(*slot);
                }
                _ => {}
            }
        }
        self.rows = 0;
        if !told {
            self.record_failed_parse(cx, failure);
        }
    }

    fn drop_name(&mut self, named: bool) {
        if named && let Some(name) = self.unconfirmed.pop_front() {
            self.statements.remove(&name);
        }
    }

    /// A statement that could not even be prepared, and that nothing was to execute.
    fn record_failed_parse(&mut self, cx: &mut Context, failure: Failure) {
        if let Some(statement) = self.last_parsed.take() {
            let place = self.place();
            super::flight::record_refused(cx, place, &statement.query, cx.now, failure);
        }
    }

    // ---- what the server reports ----

    /// Of a statement that is described. Whether its result can be described too shows next.
    fn parameter_description<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        body: &[u8],
        passing: &mut Passing<'_>,
    ) -> Result<(), Broken> {
        let (tag, len) = (tag::PARAMETER_DESCRIPTION, HEADER_LEN + body.len());
        let first = self
            .backend
            .as_ref()
            .is_some_and(|backend| backend.replay.begins_with_describe());
        if !first {
            return self.message_header(cx, ports, tag, passing, len);
        }
        self.judge(tag)?;
        let bytes = passing.buf.get(passing.end..passing.end + len);
        if let (Some(backend), Some(bytes)) = (self.backend.as_mut(), bytes) {
            backend.replay.withhold(bytes);
        }
        passing.skip(ports, len);
        Ok(())
    }

    /// Gives the client what was kept back until it was clear what follows.
    #[inline]
    fn give_withheld<P: Ports<Backend>>(&mut self, ports: &mut P, passing: &mut Passing<'_>) {
        let backend = self.backend.as_mut();
        if let Some(bytes) = backend.and_then(|backend| backend.replay.take_withheld()) {
            passing.flush(ports);
            ports.copy_client(&bytes);
        }
    }

    fn parameter_status<P: Ports<Backend>>(
        &mut self,
        ports: &mut P,
        body: &[u8],
        passing: &mut Passing<'_>,
    ) -> Result<(), Broken> {
        let len = HEADER_LEN + body.len();
        let status = ParameterStatus::decode(body).map_err(|_| Broken)?;
        match self.hidden.as_mut() {
            Some(hidden) => {
                hidden
                    .reported
                    .push((status.name.into(), status.value.into()));
                passing.skip(ports, len);
            }
            None => {
                self.note_parameter(status.name, status.value);
                self.note_reported(status.name, status.value);
                passing.end += len;
            }
        }
        Ok(())
    }

    fn hidden_row(&mut self, body: &[u8]) {
        if let Some(hidden) = self.hidden.as_mut()
            && hidden.rows.len() < MAX_HIDDEN_ROWS
            && let Some(row) = two_columns(body)
        {
            hidden.rows.push(row);
        }
    }
}

/// Bytes that the message begun in `carry` still needs to be looked at.
fn missing(carry: &[u8]) -> usize {
    match frame::peek(carry, MAX_BODY) {
        Ok(Peek::Need(more)) => more,
        Ok(Peek::Header(header)) if must_be_whole(header) => {
            (HEADER_LEN + header.body as usize).saturating_sub(carry.len())
        }
        Ok(Peek::Header(_)) | Err(_) => 0,
    }
}

/// Whether a message's body is looked at.
const fn must_be_whole(header: Header) -> bool {
    matches!(
        header.tag,
        tag::ERROR_RESPONSE
            | tag::COMMAND_COMPLETE
            | tag::READY_FOR_QUERY
            | tag::PARAMETER_STATUS
            | tag::PARAMETER_DESCRIPTION
            | tag::NOTICE_RESPONSE
    ) && header.body as usize <= MAX_WHOLE
}

/// The text of a DataRow's two columns.
fn two_columns(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    fn column(body: &mut &[u8]) -> Option<Vec<u8>> {
        let (len, rest) = body.split_first_chunk::<4>()?;
        let len = usize::try_from(i32::from_be_bytes(*len)).ok()?;
        let (value, rest) = rest.split_at_checked(len)?;
        *body = rest;
        Some(value.to_vec())
    }
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    (u16::from_be_bytes(*count) == 2).then_some(())?;
    Some((column(&mut rest)?, column(&mut rest)?))
}
