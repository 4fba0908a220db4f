//! The replies a backend still owes, as data.
//!
//! Each message sent to a backend, and each that we answer in its stead, puts one [`Owed`] into the queue; each message that
//! comes back is judged by the queue's head. So pipelines of any depth keep their order, messages of our own making are
//! swallowed, and an error drops what the server drops: everything up to the next `Sync`.
//!
//! `NoticeResponse`, `NotificationResponse` and `ParameterStatus` may come at any time and are not for this queue.
//!
//! Source: PostgreSQL 15 documentation, section 55.2 "Message Flow".

use std::collections::VecDeque;

#[cfg(test)]
mod tests;

/// A prepared statement of this proxy, by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StatementId(pub u64);

/// Which of our errors takes the place of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultSlot(pub u32);

/// What one message of the frontend has coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// `ParseComplete`. Shown to the client unless the `Parse` was ours alone.
    Parse {
        /// What is then prepared on the backend.
        statement: Option<StatementId>,
        /// Whether the client sent it.
        show: bool,
        /// Whether the client gave the statement a name, which then waits for the outcome.
        named: bool,
    },
    /// A `ParseComplete` that we give: the backend has the statement already.
    ParseHere {
        /// Whether the client gave the statement a name, which then waits for the outcome.
        named: bool,
    },
    /// `BindComplete`.
    Bind,
    /// `CloseComplete`. Shown to the client unless the `Close` was ours alone.
    Close {
        /// Whether the client sent it.
        show: bool,
    },
    /// A `CloseComplete` that we give: the backend keeps the statement for others.
    CloseHere,
    /// `ParameterDescription`, then `RowDescription` or `NoData`; for a portal without the first.
    Describe,
    /// Rows or COPY, then `CommandComplete`, `EmptyQueryResponse` or `PortalSuspended`.
    Execute,
    /// `ReadyForQuery`, after an error too.
    Sync,
    /// Anything, then `ReadyForQuery`: a simple `Query` or a `FunctionCall`.
    Query {
        /// Whether the client sent it.
        show: bool,
    },
    /// Nothing: the client has ended its COPY data before it knew whether the server takes any. A `Sync` before this mark is
    /// passed over by a server that does.
    CopyEnd,
    /// An error, provoked by us in place of a refused `Parse`; ours is shown instead.
    Poison(FaultSlot),
    /// An error, then `ReadyForQuery`: provoked by us in place of a refused `Query`.
    PoisonQuery(FaultSlot),
}

/// What to do with one message from the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deliver {
    /// Pass it to the client.
    Forward,
    /// The client did not cause it.
    Swallow,
    /// Give the client this error instead.
    Replace(FaultSlot),
}

/// A reply that we give ourselves, now that its turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// `ParseComplete`.
    ParseComplete {
        /// Whether a name of the client's waited for it.
        named: bool,
    },
    /// `CloseComplete`.
    CloseComplete,
}

/// The judgement of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What the client gets.
    pub deliver: Deliver,
    /// What the message answers.
    pub head: Owed,
    /// Whether it answers it in full: nothing more comes for `head`.
    pub done: bool,
}

/// The backend sent what nothing asked for: its connection can't be trusted any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unexpected {
    /// The message's tag.
    pub tag: u8,
}

/// The queue of one backend's owed replies.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    owed: VecDeque<Owed>,
}

impl Replies {
    /// A message was sent, or a reply of our own is due after those before it.
    pub(crate) fn push(&mut self, owed: Owed) {
        self.owed.push_back(owed);
    }

    /// Whether nothing is owed.
    pub(crate) fn is_empty(&self) -> bool {
        self.owed.iter().all(|owed| *owed == Owed::CopyEnd)
    }

    /// Whether the reply to one Sync is all that is owed.
    pub(crate) fn is_just_sync(&self) -> bool {
        self.owed.len() == 1 && self.owed.front() == Some(&Owed::Sync)
    }

    /// How many are owed, for the bound on pipelines.
    pub(crate) fn len(&self) -> usize {
        self.owed.len()
    }

    /// Whether a `Parse` of this statement is unanswered in a batch before the current one: its outcome must be known
    /// before another batch may rely on it.
    pub(crate) fn parsing_in_earlier_batch(&self, statement: StatementId) -> bool {
        let end_of_earlier = self.owed.iter().rposition(|owed| owed.ends_batch());
        let earlier = self.owed.iter().take(end_of_earlier.unwrap_or(0));
        earlier
            .into_iter()
            .any(|owed| matches!(owed, Owed::Parse { statement: Some(id), .. } if *id == statement))
    }

    /// A reply of ours whose turn has come. Ask until `None` after each push and each judgement.
    pub(crate) fn own(&mut self) -> Option<Own> {
        self.skip_marks();
        let own = match self.owed.front()? {
            Owed::ParseHere { named } => Own::ParseComplete { named: *named },
            Owed::CloseHere => Own::CloseComplete,
            _ => return None,
        };
        self.owed.pop_front();
        Some(own)
    }

    /// Whether a reply of ours is due.
    #[inline]
    pub(crate) fn own_is_due(&mut self) -> bool {
        self.skip_marks();
        matches!(
            self.owed.front(),
            Some(Owed::ParseHere { .. } | Owed::CloseHere)
        )
    }

    /// Judges a message from the backend. After an error `dropped` is told of each entry that the server drops with it,
    /// the one that failed first.
    ///
    /// # Errors
    /// [`Unexpected`] if it answers nothing.
    #[inline]
    pub(crate) fn judge(
        &mut self,
        tag: u8,
        dropped: impl FnMut(Owed),
    ) -> Result<Verdict, Unexpected> {
        self.skip_marks();
        let head = *self.owed.front().ok_or(Unexpected { tag })?;
        if tag == b'E' {
            return Ok(self.error(head, dropped));
        }
        let Fits { done, deliver } = head.fits(tag).ok_or(Unexpected { tag })?;
        if done {
            self.owed.pop_front();
        }
        Ok(Verdict {
            deliver,
            head,
            done,
        })
    }

    /// The server has begun to take COPY data: it ignores the `Sync`s that were sent behind that statement and before the
    /// data's end. Whether that end has been sent already.
    pub(crate) fn copy_in_started(&mut self) -> bool {
        while matches!(self.owed.get(1), Some(Owed::Sync)) {
            self.owed.remove(1);
        }
        let ended = self.owed.get(1) == Some(&Owed::CopyEnd);
        if ended {
            self.owed.remove(1);
        }
        ended
    }

    /// Marks that mattered to nobody: the server took no COPY data.
    fn skip_marks(&mut self) {
        while self.owed.front() == Some(&Owed::CopyEnd) {
            self.owed.pop_front();
        }
    }

    fn error(&mut self, head: Owed, dropped: impl FnMut(Owed)) -> Verdict {
        let deliver = match head {
            Owed::Poison(slot) | Owed::PoisonQuery(slot) => Deliver::Replace(slot),
            // An error that our own message met concerns the client's next one.
            _ => Deliver::Forward,
        };
        let done = !head.ends_batch();
        if done {
            self.drop_to_sync(dropped);
        }
        Verdict {
            deliver,
            head,
            done,
        }
    }

    /// The server ignores everything up to `Sync` after an error in the extended protocol, a `Query` too.
    fn drop_to_sync(&mut self, mut dropped: impl FnMut(Owed)) {
        while let Some(owed) = self.owed.pop_front_if(|owed| *owed != Owed::Sync) {
            dropped(owed);
        }
    }
}

/// How a message answers an entry.
struct Fits {
    done: bool,
    deliver: Deliver,
}

impl Owed {
    /// Whether `ReadyForQuery` ends this one.
    const fn ends_batch(self) -> bool {
        matches!(self, Self::Sync | Self::Query { .. } | Self::PoisonQuery(_))
    }

    fn fits(self, tag: u8) -> Option<Fits> {
        let shown = |show| {
            if show {
                Deliver::Forward
            } else {
                Deliver::Swallow
            }
        };
        let (done, deliver) = match (self, tag) {
            (Self::Parse { show, .. }, b'1') | (Self::Close { show }, b'3') => (true, shown(show)),
            (Self::Bind, b'2') | (Self::Sync, b'Z') => (true, Deliver::Forward),
            (Self::Describe, b'T' | b'n') => (true, Deliver::Forward),
            (Self::Describe, b't') => (false, Deliver::Forward),
            (Self::Execute, b'C' | b'I' | b's') => (true, Deliver::Forward),
            (Self::Execute, b'D' | b'G' | b'H' | b'd' | b'c') => (false, Deliver::Forward),
            (Self::Query { show }, b'Z') => (true, shown(show)),
            (
                Self::Query { show },
                b'T' | b'D' | b'C' | b'I' | b'G' | b'H' | b'd' | b'c' | b'V',
            ) => (false, shown(show)),
            // After a replaced error the client still needs to hear that the server is ready.
            (Self::PoisonQuery(_), b'Z') => (true, Deliver::Forward),
            _ => return None,
        };
        Some(Fits { done, deliver })
    }
}
