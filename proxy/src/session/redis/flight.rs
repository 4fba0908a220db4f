//! Commands under way: what becomes of their replies, and what the log is told of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use control_store::logs::Source;
use control_store::{DatabaseId, Engine};
use protocol_redis::request::Command;
use protocol_redis::rewrite::Transform;
use protocol_redis::text;
use smallvec::SmallVec;

use super::functions::Load;
use crate::metrics::ErrorClass;
use crate::query_log::{ErrorCode, StatementRecord};
use crate::reactor::Buf;
use crate::session::Context;

/// What becomes of a command's reply.
pub(super) enum Kind {
    /// It goes to the client as it comes.
    Plain,
    /// It goes to the client without the prefix.
    Keys(Transform),
    /// It is `INFO`'s.
    Info,
    /// This error takes its place.
    Refused(Box<str>, ErrorClass),
    /// It is `EXEC`'s, and these are the commands of the transaction.
    Exec(Vec<Transform>),
    /// It comes when there is something, or after some time.
    Blocking(Transform),
    /// It comes in so many confirmations; then the client is told this.
    Subscribe { left: u32, told: Vec<u8> },
    /// It is that of a script of ours that stands before or behind a command.
    Bracket,
    /// It goes to the client as an integer, whatever it is.
    Integer,
    /// It is the list of the database's libraries, asked for before one is loaded or all are deleted.
    Libraries,
    /// It is that of loading a library, which is counted as being loaded until this is dropped.
    Loaded { _load: Option<Load> },
    /// It is that list, for `FUNCTION STATS`.
    FunctionStats,
    /// It is that of the last of several commands which do what one of the client's has asked for: it is done.
    Flushed,
    /// Nobody sees it, whatever it is: the others of those commands.
    Ignored,
    /// Nobody sees it, and it is no error: the backend is made ready for what the client wants.
    Hidden,
}

impl Kind {
    /// Of a command of which nothing but this is special.
    pub(super) const fn of(transform: Transform) -> Self {
        match transform {
            Transform::None => Self::Plain,
            transform => Self::Keys(transform),
        }
    }
}

/// A command as the log will have it, without a copy.
pub(super) struct Logged {
    command: Buf,
    /// The name, the subcommand and the keys in it.
    parts: SmallVec<[Range<u32>; 2]>,
}

impl Logged {
    pub(super) fn new(command: Buf) -> Self {
        Self {
            command,
            parts: SmallVec::new(),
        }
    }

    /// The command's name alone, and its subcommand's: what we refuse or answer ourselves.
    pub(super) fn names(command: &Command<'_>) -> Self {
        /// Names of commands are short; what is longer is none.
        const MAX: usize = 128;
        let mut text = Vec::new();
        protocol_redis::reply::write::array_header(&mut text, 1);
        let start = text.len();
        text.extend(command.arg(0).iter().take(MAX));
        let mut logged = Self::new(Buf::from_vec(text));
        let end = logged.command.len();
        logged.show(start..end);
        logged
    }

    /// The name of a command that the server knows, and its subcommand's.
    pub(super) fn names_of(command: &Command<'_>) -> Self {
        Self::of_words(&[command.arg(0).to_vec(), command.arg(1).to_vec()])
    }

    /// Words, all of which are shown.
    pub(super) fn of_words(words: &[Vec<u8>]) -> Self {
        let mut logged = Self::new(Buf::from_vec(words.concat()));
        let mut at = 0;
        for word in words {
            logged.show(at..at + word.len());
            at += word.len();
        }
        logged
    }

    /// More words, all of which are shown.
    pub(super) fn append(&mut self, words: &[Vec<u8>]) {
        let mut all: Vec<Vec<u8>> = self.parts().map(<[u8]>::to_vec).collect();
        all.extend_from_slice(words);
        *self = Self::of_words(&all);
    }

    /// The whole command, as it came.
    pub(super) const fn command(&self) -> &Buf {
        &self.command
    }

    /// The parts that are shown.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts
            .iter()
            .filter_map(|part| self.command.get(part.start as usize..part.end as usize))
    }

    /// This part of the command is shown.
    #[inline]
    pub(super) fn show(&mut self, part: Range<usize>) {
        /// Keys that a log entry names.
        const MAX: usize = 128;
        if self.parts.len() < MAX {
            let at = |at| u32::try_from(at).unwrap_or(u32::MAX);
            self.parts.push(at(part.start)..at(part.end));
        }
    }

    fn write(&self, out: &mut String) {
        for part in self.parts() {
            if !out.is_empty() {
                out.push(' ');
            }
            text::quote(part, out);
        }
    }
}

/// One command that the backend has been given.
pub(super) struct Flight {
    pub(super) kind: Kind,
    pub(super) logged: Option<Logged>,
    /// When its last byte came.
    pub(super) started: Instant,
    /// The client has asked for no reply.
    pub(super) silent: bool,
}

impl Flight {
    /// Of something of ours.
    pub(super) const fn hidden(kind: Kind, started: Instant) -> Self {
        Self {
            kind,
            logged: None,
            started,
            silent: true,
        }
    }
}

/// The commands under way, in order.
#[derive(Default)]
pub(super) struct Flights(VecDeque<Flight>);

impl Flights {
    #[inline]
    pub(super) fn push(&mut self, flight: Flight) {
        self.0.push_back(flight);
    }

    pub(super) fn front(&self) -> Option<&Flight> {
        self.0.front()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Flight> {
        self.0.front_mut()
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Flight> {
        let flight = self.0.pop_front();
        if self.0.is_empty() && self.0.capacity() > 4 {
            // An idle client's room is small.
            self.0 = VecDeque::new();
        }
        flight
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// How a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    pub(super) class: ErrorClass,
}

impl Failure {
    /// From an error reply of the server's: its first word is the code.
    pub(super) fn of_reply(reply: &[u8]) -> Self {
        let text = reply.strip_prefix(b"-").unwrap_or(reply);
        let end = text.iter().position(|byte| matches!(byte, b' ' | b'\r'));
        Self {
            code: ErrorCode::new(text.get(..end.unwrap_or(text.len())).unwrap_or_default()),
            class: ErrorClass::Statement,
        }
    }
}

/// Where a command's record belongs.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) database: DatabaseId,
    pub(super) source: Source,
}

/// Counts and logs a command that ended.
pub(super) fn record(
    cx: &mut Context,
    place: Place,
    logged: &Logged,
    started: Instant,
    failure: Option<Failure>,
) {
    let duration = cx.now.saturating_duration_since(started);
    let metrics = cx.metrics.protocol(Engine::Redis);
    metrics.queries.increment();
    metrics.latency.record(duration);
    if let Some(failure) = failure {
        metrics.errors.of(failure.class).increment();
    }
    let record = StatementRecord {
        database: place.database,
        text: b"",
        source: place.source,
        ended_at_us: cx.wall_us,
        duration,
        error_code: failure.map(|failure| failure.code),
        rows: 0,
    };
    let matters = failure.is_some() || cx.log.is_slow(duration);
    if !matters && !cx.redis.entries.admit(cx.now) {
        return cx.log.count(&record);
    }
    let mut text = std::mem::take(&mut cx.redis.text);
    text.clear();
    logged.write(&mut text);
    cx.log.record(&StatementRecord {
        text: text.as_bytes(),
        ..record
    });
    cx.redis.text = text;
}

/// How many ordinary commands a worker may write into the log. A server answers a million in a second: what their entries cost would be
/// many times what the commands do. All are counted, and what failed or was slow is always written.
#[derive(Default)]
pub(super) struct Entries {
    second: Option<Instant>,
    taken: u32,
}

impl Entries {
    /// Entries in a second.
    const RATE: u32 = 10_000;

    #[inline]
    fn admit(&mut self, now: Instant) -> bool {
        let begins = self
            .second
            .is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1));
        if begins {
            self.second = Some(now);
            self.taken = 0;
        }
        self.taken += 1;
        self.taken <= Self::RATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_entries_and_no_more_in_a_second() {
        let mut entries = Entries::default();
        let now = Instant::now();
        let admitted = (0..2 * Entries::RATE)
            .filter(|_| entries.admit(now))
            .count();
        assert_eq!(admitted, Entries::RATE as usize);
        assert!(!entries.admit(now + Duration::from_millis(999)));
        assert!(entries.admit(now + Duration::from_secs(1)));
    }
}
