//! A batch's messages, kept until it has ended: should the server find that a statement's result has changed its shape before
//! it has answered any of them, they can be sent again, and the client never knows.
//!
//! PostgreSQL validates a plan when a statement is bound or described, behind the locks of its tables: a statement that has
//! waited for a deployment's `ALTER TABLE` meets a schema that is newer than the proxy knew when it sent it.

use std::collections::VecDeque;

use protocol_postgres::backend::TransactionStatus;
use protocol_postgres::frontend::{tag, write};

use super::incoming::Message;
use super::live::{Live, Overflow, Skipping, Wait};
use super::replies::Owed;
use crate::backend::postgres::Backend;
use crate::session::{Context, Ports};

/// Messages that are kept: drivers send four or five in a batch. As none is larger than what is looked at whole, this also
/// bounds the bytes.
const MAX_MESSAGES: usize = 16;

/// What was sent to one backend since it was last ready.
#[derive(Default)]
pub(crate) struct Replay {
    state: State,
    messages: VecDeque<Message>,
    /// A ParameterDescription that waits for what follows it: the server tells the parameters of a statement before it looks
    /// whether it still knows the result.
    withheld: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nothing was sent that a repetition would have to bring again.
    #[default]
    Fresh,
    /// A batch is being sent, and all of it is kept.
    Open,
    /// Its Sync has been sent too.
    Synced,
    /// What was sent cannot be sent again.
    Spoiled,
}

impl Replay {
    /// A message has been sent that a batch can be repeated with. `idle`: no transaction is open.
    #[inline]
    pub(super) fn keep(&mut self, message: Message, idle: bool) {
        self.state = match (self.state, message.tag) {
            (State::Fresh, tag::BIND | tag::DESCRIBE) if idle => State::Open,
            // There is nothing that it could flush.
            (State::Fresh, tag::FLUSH) => return,
            (State::Open, tag::SYNC) => State::Synced,
            (State::Open, _) => State::Open,
            _ => return self.spoil(),
        };
        if message.rest > 0 || self.messages.len() >= MAX_MESSAGES {
            return self.spoil();
        }
        self.messages.push_back(message);
    }

    /// A message has been sent or answered that has no place inside what is repeated, but may stand before it.
    #[inline]
    pub(super) fn pass(&mut self) {
        if self.state != State::Fresh {
            self.spoil();
        }
    }

    /// A message has been sent that must not be followed by a repetition.
    #[inline]
    pub(super) fn spoil(&mut self) {
        self.state = State::Spoiled;
        self.messages.clear();
    }

    /// The server is ready. `quiet`: nothing has been sent behind what it has answered.
    #[inline]
    pub(super) fn ready(&mut self, quiet: bool) {
        self.messages.clear();
        self.state = if quiet { State::Fresh } else { State::Spoiled };
    }

    /// Whether the batch that has failed may be repeated: of what was kept nothing was answered, and nothing stands behind it.
    /// `dropped` are the replies that the error took with it, and `synced` says that just the reply to a Sync is left.
    pub(super) fn may_repeat(&self, dropped: &[Owed], synced: bool) -> bool {
        let expected = match self.state {
            State::Open => !synced,
            State::Synced => synced,
            State::Fresh | State::Spoiled => false,
        };
        let mut kept = self.messages.iter().filter_map(|it| match it.tag {
            tag::BIND => Some(Owed::Bind),
            tag::DESCRIBE => Some(Owed::Describe),
            tag::EXECUTE => Some(Owed::Execute),
            _ => None,
        });
        let all_unanswered = dropped.iter().all(|owed| match owed {
            // Of our own making: made again as it is needed.
            Owed::Parse { show: false, .. } | Owed::Close { show: false } => true,
            owed => kept.next() == Some(*owed),
        });
        expected && all_unanswered && kept.next().is_none()
    }

    /// Takes out what is to be repeated. It is not repeated once more.
    pub(super) fn take(&mut self) -> VecDeque<Message> {
        self.state = State::Spoiled;
        self.withheld.clear();
        std::mem::take(&mut self.messages)
    }

    /// Whether a ParameterDescription may be the beginning of a reply that an error ends.
    pub(super) fn begins_with_describe(&self) -> bool {
        let first = self.messages.front();
        first.is_some_and(|message| message.tag == tag::DESCRIBE)
    }

    /// Keeps a ParameterDescription back until what follows it has come.
    pub(super) fn withhold(&mut self, bytes: &[u8]) {
        self.withheld.extend_from_slice(bytes);
    }

    /// What was kept back.
    #[inline]
    pub(super) fn take_withheld(&mut self) -> Option<Vec<u8>> {
        (!self.withheld.is_empty()).then(|| std::mem::take(&mut self.withheld))
    }
}

impl Live {
    /// A plan had changed: sends the batch again, once the server has ended it and prepares anew. `false`: that is not
    /// possible, and the client gets the error. `dropped` are the replies that the error took with it.
    pub(super) fn repeat<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        dropped: &[Owed],
    ) -> bool {
        let possible = self.transaction == TransactionStatus::Idle
            && self.overflow == Overflow::No
            && !self.has_foreign_names();
        let Some(backend) = self.backend.as_mut().filter(|_| possible) else {
            return false;
        };
        let synced = backend.replies.is_just_sync();
        if !(synced || backend.replies.is_empty()) || !backend.replay.may_repeat(dropped, synced) {
            return false;
        }
        let mut messages = backend.replay.take();
        if !synced {
            let mut sync = Vec::with_capacity(5);
            write::sync(&mut sync);
            ports.copy_backend(backend.conn, &sync);
            backend.replies.push(Owed::Sync);
        }
        // What has not run is neither counted nor logged; it is under way again when it is sent again.
        for _ in dropped.iter().filter(|owed| **owed == Owed::Execute) {
            self.flights.pop(cx.now);
        }
        self.rows = 0;
        self.skipping = Skipping::No;
        self.batch_open = false;
        // A message that waits came behind them.
        messages.extend(self.held.take());
        self.again = messages;
        self.wait = Wait::Again;
        true
    }

    /// The next message that is to be sent again.
    #[inline]
    pub(super) fn next_again(&mut self) -> Option<Message> {
        let message = self.again.pop_front()?;
        if self.again.is_empty() {
            // An idle session keeps no room for them.
            self.again = VecDeque::new();
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Buf;
    use std::time::Instant;

    fn message(tag: u8) -> Message {
        Message {
            tag,
            bytes: Buf::empty(),
            rest: 0,
            at: Instant::now(),
        }
    }

    fn sent(tags: &str) -> Replay {
        let mut replay = Replay::default();
        for tag in tags.bytes() {
            match tag {
                b'P' | b'C' => replay.pass(),
                b'Q' => replay.spoil(),
                tag => replay.keep(message(tag), true),
            }
        }
        replay
    }

    #[test]
    fn only_a_whole_batch_that_nothing_stands_behind_is_repeated() {
        let parse = Owed::Parse {
            statement: None,
            show: false,
            named: false,
        };
        let (bind, describe, execute) = (Owed::Bind, Owed::Describe, Owed::Execute);
        for (tags, dropped, synced, may) in [
            ("BES", &[bind, execute][..], true, true),
            ("PBDES", &[bind, describe, execute], true, true),
            ("BDEH", &[bind, describe, execute], false, true),
            ("DS", &[describe], true, true),
            ("BEBES", &[bind, execute, parse, bind, execute], true, true),
            // The first half was answered.
            ("BEBES", &[bind, execute], true, false),
            ("BES", &[execute], true, false),
            // Something stands behind it, or before it.
            ("BESB", &[bind, execute], true, false),
            ("BESQ", &[bind, execute], true, false),
            ("QBES", &[bind, execute], true, false),
            ("SBES", &[bind, execute], true, false),
            ("BEPBES", &[bind, execute], true, false),
            // Nothing that has been sent begins a batch.
            ("ES", &[execute], true, false),
            ("", &[], false, false),
            // The replies do not fit what was sent.
            ("BES", &[bind, execute], false, false),
            ("BE", &[bind, execute], true, false),
        ] {
            assert_eq!(sent(tags).may_repeat(dropped, synced), may, "{tags}");
        }
    }

    #[test]
    fn what_is_kept_has_a_bound_and_ends_with_the_batch() {
        let mut replay = sent(&"B".repeat(MAX_MESSAGES));
        assert!(replay.may_repeat(&[Owed::Bind; MAX_MESSAGES], false));
        replay.keep(message(b'B'), true);
        assert!(replay.messages.is_empty());
        assert!(!replay.may_repeat(&[Owed::Bind; MAX_MESSAGES + 1], false));
        replay.ready(true);
        replay.keep(message(b'B'), true);
        assert!(replay.may_repeat(&[Owed::Bind], false));
        replay.ready(false);
        replay.keep(message(b'B'), true);
        assert!(!replay.may_repeat(&[Owed::Bind], false));
    }

    #[test]
    fn a_transaction_and_a_streamed_message_cannot_be_repeated() {
        let mut replay = Replay::default();
        replay.keep(message(b'B'), false);
        assert!(!replay.may_repeat(&[Owed::Bind], false));
        let mut replay = Replay::default();
        replay.keep(
            Message {
                rest: 1,
                ..message(b'B')
            },
            true,
        );
        assert!(!replay.may_repeat(&[Owed::Bind], false));
    }
}
