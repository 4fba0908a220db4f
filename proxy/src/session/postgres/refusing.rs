//! Refusing what a client asks for, as a server would: in its turn, and failing an open transaction.

use std::rc::Rc;
use std::time::Instant;

use control_store::Fault;
use protocol_postgres::backend::{TransactionStatus, write as reply};
use protocol_postgres::frame::HEADER_LEN;
use protocol_postgres::frontend::{tag, write};

use super::flight::Text;
use super::frontend::{Done, LOGGED, Outcome, Sink};
use super::incoming::Message;
use super::live::{Live, Skipping, Unnamed};
use super::refusal::Refusal;
use super::replies::Owed;
use crate::backend::postgres::Backend;
use crate::reactor::Buf;
use crate::session::{Context, Ports};

/// Rows for a poison: no server can parse it, and its error shows nobody's text.
const POISON: &[u8] = b"tenantsdb refused this";
/// What the log says of a call by function number.
pub(super) const FUNCTION_CALL: Text = Text::Fixed(b"FunctionCall");

impl Live {
    /// A fault that ends the session, or else refuses the message.
    pub(super) fn refuse_or_end<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: &Message,
        fault: &Fault,
    ) -> Outcome {
        if self.refusal(fault).fatal {
            return Err(fault.clone());
        }
        self.refuse(cx, ports, message, fault);
        Ok(Done::Yes)
    }

    /// Refuses a message.
    pub(super) fn refuse<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: &Message,
        fault: &Fault,
    ) {
        let refusal = self.refusal(fault);
        self.refuse_with(cx, ports, message, refusal);
    }

    /// Answers a message with an error as a server would: in its turn, and failing an open transaction.
    pub(super) fn refuse_with<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        message: &Message,
        refusal: Refusal,
    ) {
        let text = self.text_of(message);
        let simple = matches!(message.tag, tag::QUERY | tag::FUNCTION_CALL);
        self.sink = Sink::Discard;
        self.incoming.stream(message.rest);
        let open = self.owes() || self.batch_open || self.transaction != TransactionStatus::Idle;
        if open && self.backend.is_some() {
            return self.poison(ports, simple, refusal, text, message.at);
        }
        self.record_refusal(cx, &refusal, text.bytes(), message.at);
        let mut out = refusal.message;
        if simple {
            reply::ready_for_query(&mut out, self.transaction);
        } else {
            self.skipping = Skipping::Ours;
        }
        ports.copy_client(&out);
    }

    /// The statement that a message is about, for the log.
    fn text_of(&self, message: &Message) -> Text {
        match message.tag {
            tag::QUERY => {
                let len = message.bytes.len();
                let end = if message.rest > 0 {
                    len.min(LOGGED)
                } else {
                    len.saturating_sub(1)
                };
                Text::Sent(message.bytes.slice(HEADER_LEN..end).detach())
            }
            tag::PARSE => {
                let body = message.body();
                let query = body.split(|byte| *byte == 0).nth(1).unwrap_or_default();
                let query = query.get(..LOGGED).unwrap_or(query);
                Text::Sent(Buf::from_vec(query.to_vec()))
            }
            tag::FUNCTION_CALL => FUNCTION_CALL,
            _ => match &self.portal {
                Some(statement) => Text::Prepared(Rc::clone(statement)),
                None => Text::Fixed(b""),
            },
        }
    }

    /// Sends in the message's place one that the server will refuse; its error is replaced by ours.
    fn poison<P: Ports<Backend>>(
        &mut self,
        ports: &mut P,
        simple: bool,
        refusal: Refusal,
        text: Text,
        started: Instant,
    ) {
        let slot = self.slot(refusal, text, started);
        let Some(backend) = self.backend.as_mut() else {
            return;
        };
        backend.replay.spoil();
        let mut out = Vec::with_capacity(64);
        let written = if simple {
            backend.replies.push(Owed::PoisonQuery(slot));
            write::query(&mut out, POISON)
        } else {
            self.batch_open = true;
            backend.replies.push(Owed::Poison(slot));
            write::parse(&mut out, b"", POISON, b"")
        };
        debug_assert!(written.is_ok(), "the poison is well formed");
        self.unnamed = Unnamed::Absent;
        ports.copy_backend(backend.conn, &out);
    }
}
