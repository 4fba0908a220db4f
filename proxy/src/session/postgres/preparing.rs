//! Prepared statements: what a client's Parse and DEALLOCATE do, and that a backend has what a client means.

use std::rc::Rc;

use control_store::Fault;
use protocol_postgres::backend::write as reply;
use protocol_postgres::frontend::{Kind, Parse, write};
use protocol_sql::{Classifier, classify};

use super::frontend::{Done, Outcome, Sink, len, violation};
use super::incoming::Message;
use super::live::{Live, MAX_NAMES, Turn, Unnamed, Wait};
use super::refusal::Refusal;
use super::replies::Owed;
use super::statement::{Statement, may_name_a_moment};
use crate::backend::postgres::Backend;
use crate::metrics::PinReason;
use crate::session::{Context, Ports};

impl Live {
    /// `DEALLOCATE name` of a statement that was prepared by a Parse: it has another name on the backend. `None`: not so.
    pub(super) fn deallocate<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        text: &[u8],
    ) -> Option<Option<Done>> {
        let name = deallocated_name(text)?;
        if !self.statements.contains_key(&*name) {
            return None;
        }
        if self.owes() {
            self.wait = Wait::Replies;
            return Some(None);
        }
        self.statements.remove(&*name);
        let mut out = std::mem::take(&mut cx.scratch);
        out.clear();
        let _ = reply::command_complete(&mut out, b"DEALLOCATE");
        reply::ready_for_query(&mut out, self.transaction);
        ports.copy_client(&out);
        cx.scratch = out;
        Some(Some(Done::Yes))
    }

    pub(super) fn parse<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: Message,
    ) -> Outcome {
        if message.rest > 0 {
            return self.large_parse(cx, ports, message);
        }
        let parse =
            Parse::decode(message.body()).map_err(|_| violation("invalid Parse message"))?;
        let named = !parse.name.is_empty();
        if named && self.statements.contains_key(parse.name) {
            let refusal = Refusal::duplicate_statement(parse.name);
            self.refuse_with(cx, ports, &message, refusal);
            return Ok(Done::Yes);
        }
        if named && self.statements.len() >= MAX_NAMES {
            return Err(Fault::Unsupported {
                what: "a session may have at most 10000 prepared statements",
            });
        }
        let known = self
            .reading()
            .and_then(|reading| cx.statements.find(reading, parse.query, parse.param_types));
        let summary = match &known {
            Some(statement) => statement.summary,
            None => classify(parse.query, &self.lexing),
        };
        if let Some(fault) = self.forbids(&summary) {
            self.refuse(cx, ports, &message, &fault);
            return Ok(Done::Yes);
        }
        match self.turn(cx, ports, len(&message)) {
            Turn::Now => {}
            Turn::Wait => return Ok(Done::Waits(message)),
            Turn::Refused(fault) => {
                return self.refuse_or_end(cx, ports, &message, &fault);
            }
        }
        // Whether the backend has it, or a Parse of it fails, is not known before that one is answered.
        if let (Some(statement), Some(backend)) = (&known, &self.backend)
            && backend.replies.parsing_in_earlier_batch(statement.id)
        {
            self.wait = Wait::Replies;
            return Ok(Done::Waits(message));
        }
        self.batch_open = true;
        if let Some(backend) = self.backend.as_mut() {
            backend.replay.pass();
        }
        let (statement, one_off) = match (known, self.reading()) {
            (Some(known), _) => (known, false),
            (None, Some(reading)) if !may_name_a_moment(parse.query) => {
                let (query, types) = (parse.query, parse.param_types);
                let one_off = !named && !cx.statements.sighted(reading, query, types);
                let statement = cx.statements.insert(reading, query, types, summary);
                (statement, one_off)
            }
            _ => {
                let statement = cx
                    .statements
                    .private(parse.query, parse.param_types, summary);
                (statement, !named)
            }
        };
        self.last_parsed = Some(Rc::clone(&statement));
        if one_off {
            self.unnamed = Unnamed::OnBackend(statement);
            if let Some(backend) = self.backend.as_mut() {
                backend.replies.push(Owed::Parse {
                    statement: None,
                    show: true,
                    named: false,
                });
                ports.send_backend(backend.conn, message.bytes);
            }
            return Ok(Done::Yes);
        }
        if named {
            self.statements
                .insert(parse.name.into(), Rc::clone(&statement));
            self.unconfirmed.push_back(parse.name.into());
        } else {
            self.unnamed = Unnamed::Ours(Rc::clone(&statement));
        }
        if let Some(backend) = self.backend.as_mut() {
            if backend.prepared.touch(statement.id) {
                backend.replies.push(Owed::ParseHere { named });
            } else {
                prepare(cx, ports, backend, &statement, true, named);
            }
        }
        self.give_own(ports);
        Ok(Done::Yes)
    }

    /// A text that is too long to be kept is prepared under the client's own name, on a backend that the session keeps.
    fn large_parse<P: Ports<Backend>>(
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
        let name = memchr::memchr(0, message.body())
            .and_then(|end| message.body().get(..end))
            .ok_or_else(|| violation("name of a prepared statement too long"))?;
        if self.statements.contains_key(name) {
            let refusal = Refusal::duplicate_statement(name);
            self.refuse_with(cx, ports, &message, refusal);
            return Ok(Done::Yes);
        }
        let mut classifier = Box::new(Classifier::new(&self.lexing));
        classifier.push(message.body().get(name.len() + 1..).unwrap_or_default());
        if name.is_empty() {
            self.unnamed = Unnamed::Large;
        }
        self.batch_open = true;
        self.pin(cx, PinReason::Prepared);
        if let Some(backend) = self.backend.as_mut() {
            backend.replies.push(Owed::Parse {
                statement: None,
                show: true,
                named: false,
            });
            backend.replay.spoil();
        }
        self.send_and_stream(ports, message, Sink::Classify(classifier));
        Ok(Done::Yes)
    }

    /// Sees to it that the backend has the statement that the client means.
    pub(super) fn ready<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        name: &[u8],
        bytes: u64,
    ) -> Ready {
        match self.turn(cx, ports, bytes) {
            Turn::Now => {}
            Turn::Wait => return Ready::Wait,
            Turn::Refused(fault) => return Ready::Refused(fault),
        }
        let statement = if name.is_empty() {
            match &self.unnamed {
                Unnamed::Ours(statement) => Rc::clone(statement),
                Unnamed::OnBackend(_) | Unnamed::Large => return Ready::Theirs,
                Unnamed::Absent => return Ready::Missing,
            }
        } else {
            match self.statements.get(name) {
                Some(statement) => Rc::clone(statement),
                // A name of the client's own stands on the backend only if something of the session's made it there.
                None if self.has_foreign_names() => return Ready::Theirs,
                None => return Ready::Missing,
            }
        };
        if self.is_prepared(&statement) {
            return self.ready_with(statement);
        }
        let statement = self.read_again(cx, name, statement);
        if self.is_prepared(&statement) {
            return self.ready_with(statement);
        }
        if let Some(backend) = self.backend.as_mut() {
            prepare(cx, ports, backend, &statement, false, false);
        }
        Ready::Ours(statement)
    }

    fn is_prepared(&mut self, statement: &Statement) -> bool {
        self.backend
            .as_mut()
            .is_some_and(|backend| backend.prepared.touch(statement.id))
    }

    /// The backend has the statement, or will when it has answered.
    fn ready_with(&mut self, statement: Rc<Statement>) -> Ready {
        let parsing = self
            .backend
            .as_ref()
            .is_some_and(|it| it.replies.parsing_in_earlier_batch(statement.id));
        if parsing {
            self.wait = Wait::Replies;
            return Ready::Wait;
        }
        Ready::Ours(statement)
    }

    /// A statement that the server would now read otherwise than when the client prepared it must not be taken for the one that
    /// others share: the session gets another.
    fn read_again(
        &mut self,
        cx: &mut Context,
        name: &[u8],
        statement: Rc<Statement>,
    ) -> Rc<Statement> {
        if statement.reading.is_none() || statement.reading.as_ref() == self.reading() {
            return statement;
        }
        let (query, types) = (&statement.query, &statement.types);
        let again = match self.reading() {
            Some(reading) => match cx.statements.find(reading, query, types) {
                Some(known) => known,
                None => {
                    let summary = classify(query, &self.lexing);
                    cx.statements.insert(reading, query, types, summary)
                }
            },
            None => {
                let summary = classify(query, &self.lexing);
                cx.statements.private(query, types, summary)
            }
        };
        if name.is_empty() {
            self.unnamed = Unnamed::Ours(Rc::clone(&again));
        } else if let Some(known) = self.statements.get_mut(name) {
            *known = Rc::clone(&again);
        }
        again
    }
}

/// Whether the backend has the statement that a client means.
pub(super) enum Ready {
    /// Yes, under our name.
    Ours(Rc<Statement>),
    /// It may, under the client's own name: the server knows.
    Theirs,
    /// There is none.
    Missing,
    /// Later.
    Wait,
    /// No statement may be sent.
    Refused(Fault),
}

/// Prepares a statement on a backend.
fn prepare<P: Ports<Backend>>(
    cx: &mut Context,
    ports: &mut P,
    backend: &mut Backend,
    statement: &Rc<Statement>,
    show: bool,
    named: bool,
) {
    let mut out = std::mem::take(&mut cx.scratch);
    out.clear();
    if let Some(evicted) = backend.prepared.insert(statement) {
        let _ = write::close(&mut out, Kind::Statement, &evicted.name);
        backend.replies.push(Owed::Close { show: false });
    }
    // It came from a Parse, so it makes one.
    let _ = write::parse(
        &mut out,
        &statement.name,
        &statement.query,
        &statement.types,
    );
    backend.replies.push(Owed::Parse {
        statement: Some(statement.id),
        show,
        named,
    });
    ports.copy_backend(backend.conn, &out);
    cx.scratch = out;
}

/// The name in `DEALLOCATE [PREPARE] name`.
fn deallocated_name(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    let rest = strip_word(text, b"deallocate")?;
    let rest = strip_word(rest, b"prepare").unwrap_or(rest);
    match rest {
        [b'"', name @ .., b'"'] if !name.contains(&b'"') => Some(name.to_vec()),
        [first, rest @ ..] if first.is_ascii_alphabetic() || *first == b'_' => {
            let word = rest
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'$');
            let name = [&[*first], rest].concat().to_ascii_lowercase();
            (word && name != b"all").then_some(name)
        }
        _ => None,
    }
}

fn strip_word<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(word.len())?;
    (head.eq_ignore_ascii_case(word) && rest.first()?.is_ascii_whitespace())
        .then(|| rest.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deallocated_names() {
        for (text, name) in [
            ("DEALLOCATE a", Some("a")),
            (" deallocate Prepare \"B c\" ; ", Some("B c")),
            ("DEALLOCATE pg3_0", Some("pg3_0")),
            ("DEALLOCATE ALL", None),
            ("DEALLOCATE a; SELECT 1", None),
            ("DEALLOCATE", None),
            ("DEALLOCATEx a", None),
        ] {
            let found = deallocated_name(text.as_bytes());
            assert_eq!(found.as_deref(), name.map(str::as_bytes), "{text}");
        }
    }
}
