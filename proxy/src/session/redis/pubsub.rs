//! Subscriptions.
//!
//! A server checks the patterns of `PSUBSCRIBE` literally against those that its user may have, so a tenant's user can have no
//! patterns but those that stand for all of the tenant's channels. The session subscribes to these, and decides itself which of the
//! client's patterns a message is for. Confirmations are ours for the same reason: the server counts other patterns than the
//! client's.

use std::ops::Deref;

use control_store::Fault;
use protocol_redis::reply::Value;
use protocol_redis::reply::write::{self, Version};
use protocol_redis::request::Command;
use protocol_redis::rewrite::{Rewriter, glob};

use super::command::Step;
use super::flight::{Failure, Flight, Kind, Logged};
use super::patterns::Pattern;
use super::{Ending, RedisSession, Wait};
use crate::backend::redis::Backend;
use crate::metrics::{ErrorClass, PinReason};
use crate::reactor::Buf;
use crate::session::{Context, Ports};

/// What one connection may subscribe to.
const MAX_SUBSCRIPTIONS: usize = 100_000;

/// What a client has subscribed to, as it names it.
#[derive(Default)]
pub(super) struct Subscriptions {
    channels: Vec<Vec<u8>>,
    patterns: Vec<Pattern>,
    shards: Vec<Vec<u8>>,
    /// Which patterns the server has for the client's.
    bases: [bool; 3],
}

/// What a confirmation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Subscribe,
    Psubscribe,
    Ssubscribe,
    Unsubscribe,
    Punsubscribe,
    Sunsubscribe,
}

impl Word {
    fn parse(name: &[u8]) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"subscribe" => Self::Subscribe,
            b"psubscribe" => Self::Psubscribe,
            b"ssubscribe" => Self::Ssubscribe,
            b"unsubscribe" => Self::Unsubscribe,
            b"punsubscribe" => Self::Punsubscribe,
            b"sunsubscribe" => Self::Sunsubscribe,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Psubscribe => "psubscribe",
            Self::Ssubscribe => "ssubscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Punsubscribe => "punsubscribe",
            Self::Sunsubscribe => "sunsubscribe",
        }
    }

    const fn adds(self) -> bool {
        matches!(self, Self::Subscribe | Self::Psubscribe | Self::Ssubscribe)
    }

    const fn is_pattern(self) -> bool {
        matches!(self, Self::Psubscribe | Self::Punsubscribe)
    }
}

impl Subscriptions {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty()
    }

    /// The names that a word is about.
    fn names(&self, word: Word) -> Vec<Vec<u8>> {
        match word {
            Word::Subscribe | Word::Unsubscribe => self.channels.clone(),
            Word::Psubscribe | Word::Punsubscribe => {
                self.patterns.iter().map(|it| it.to_vec()).collect()
            }
            Word::Ssubscribe | Word::Sunsubscribe => self.shards.clone(),
        }
    }

    fn count(&self, word: Word) -> usize {
        match word {
            Word::Ssubscribe | Word::Sunsubscribe => self.shards.len(),
            _ => self.channels.len() + self.patterns.len(),
        }
    }

    fn len(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shards.len()
    }

    /// Adds or takes away, and writes the confirmation. A pattern is noted by `hold`.
    fn change(
        &mut self,
        word: Word,
        name: Option<&[u8]>,
        hold: impl Fn(&[u8]) -> Pattern,
        version: Version,
        out: &mut Vec<u8>,
    ) {
        if let Some(name) = name {
            let adds = word.adds();
            match word {
                Word::Psubscribe | Word::Punsubscribe => {
                    change(&mut self.patterns, adds, name, hold);
                }
                Word::Subscribe | Word::Unsubscribe => {
                    change(&mut self.channels, adds, name, <[u8]>::to_vec);
                }
                Word::Ssubscribe | Word::Sunsubscribe => {
                    change(&mut self.shards, adds, name, <[u8]>::to_vec);
                }
            }
        }
        write::push_header(out, version, 3);
        write::bulk(out, word.name().as_bytes());
        match name {
            Some(name) => write::bulk(out, name),
            None => write::null(out, version),
        }
        let count = self.count(word);
        write::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The server's patterns that the client's need.
    fn needed(&self, rewriter: &Rewriter) -> [bool; 3] {
        let mut needed = [false; 3];
        for pattern in &self.patterns {
            let bases = rewriter.bases_for(pattern);
            needed[0] |= bases.channels;
            needed[1] |= bases.keyspace;
            needed[2] |= bases.keyevent;
        }
        needed
    }

    /// Has the server have the patterns that are needed and no others. Gives the number of confirmations that come.
    fn settle_bases(&mut self, rewriter: &Rewriter, out: &mut Vec<u8>) -> u32 {
        let needed = self.needed(rewriter);
        let mut confirmations = 0;
        let bases = rewriter.base_patterns();
        for ((has, needed), base) in self.bases.iter_mut().zip(needed).zip(bases) {
            if *has != needed {
                let word: &[u8] = if needed {
                    b"PSUBSCRIBE"
                } else {
                    b"PUNSUBSCRIBE"
                };
                write::command(out, &[word, base]);
                *has = needed;
                confirmations += 1;
            }
        }
        confirmations
    }

    /// Everything again, for another server. Gives the number of confirmations that come.
    pub(super) fn again(&mut self, rewriter: &Rewriter, out: &mut Vec<u8>) -> u32 {
        self.bases = [false; 3];
        let mut confirmations = 0;
        for (word, list) in [
            (&b"SUBSCRIBE"[..], &self.channels),
            (b"SSUBSCRIBE", &self.shards),
        ] {
            for name in list {
                let mut channel = Vec::new();
                if word == b"SUBSCRIBE" {
                    rewriter.server_channel(name, &mut channel);
                } else {
                    channel.extend_from_slice(rewriter.prefix());
                    channel.extend_from_slice(name);
                }
                write::command(out, &[word, &channel]);
                confirmations += 1;
            }
        }
        confirmations + self.settle_bases(rewriter, out)
    }
}

fn change<T: Deref<Target: AsRef<[u8]>>>(
    list: &mut Vec<T>,
    adds: bool,
    name: &[u8],
    make: impl Fn(&[u8]) -> T,
) {
    let known = list.iter().position(|it| (**it).as_ref() == name);
    match (known, adds) {
        (None, true) => list.push(make(name)),
        (Some(at), false) => drop(list.swap_remove(at)),
        _ => {}
    }
}

impl RedisSession {
    /// A command that begins or ends subscriptions.
    pub(super) fn subscribe<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Step {
        // Replies of before could be taken for messages.
        if self.must_wait_here() {
            return Step::Later;
        }
        let Some(word) = Word::parse(command.arg(0)) else {
            return Step::Done;
        };
        if command.argc() == 1 && word.adds() {
            let text = format!(
                "ERR wrong number of arguments for '{}' command",
                word.name()
            );
            return self.refuse(cx, ports, command, &text, ErrorClass::Statement);
        }
        let count = self.own.as_ref().map_or(0, |own| own.subscriptions.len());
        if word.adds() && count + command.argc() > MAX_SUBSCRIPTIONS {
            let text = format!("ERR a connection may subscribe to {MAX_SUBSCRIPTIONS} channels");
            return self.refuse(cx, ports, command, &text, ErrorClass::Limit);
        }
        let new = !self.keeps_own();
        let conn = match self.own_turn(cx, ports, command) {
            Ok(conn) => conn,
            Err(step) => return step,
        };
        let (Some(who), Some(own)) = (self.who.as_ref(), self.own.as_mut()) else {
            return Step::Done;
        };
        let rewriter = &who.rewriter;
        let hold = |pattern: &[u8]| {
            let database = who.route.database.id;
            cx.shared.redis_patterns.hold(database, pattern)
        };
        // What is named, or all there is.
        let names: Vec<Vec<u8>> = match command.argc() {
            1 => own.subscriptions.names(word),
            _ => command.args().skip(1).map(<[u8]>::to_vec).collect(),
        };
        let mut logged = Logged::of_words(&[command.arg(0).to_ascii_uppercase()]);
        let mut told = Vec::new();
        let mut out = Vec::new();
        let mut left = 0;
        if names.is_empty() {
            own.subscriptions
                .change(word, None, hold, self.version, &mut told);
        } else if word.is_pattern() {
            for name in &names {
                own.subscriptions
                    .change(word, Some(name), hold, self.version, &mut told);
            }
            left = own.subscriptions.settle_bases(rewriter, &mut out);
        } else {
            for name in &names {
                let mut channel = Vec::new();
                match word {
                    Word::Ssubscribe | Word::Sunsubscribe => {
                        channel.extend_from_slice(rewriter.prefix());
                        channel.extend_from_slice(name);
                    }
                    _ => rewriter.server_channel(name, &mut channel),
                }
                write::command(&mut out, &[word.name().as_bytes(), &channel]);
                own.subscriptions
                    .change(word, Some(name), hold, self.version, &mut told);
                left += 1;
            }
        }
        logged.append(&names);
        own.backend.inbox.set_subscribed(true);
        if left == 0 {
            ports.copy_client(&told);
            self.record_here(cx, &logged, None);
            self.at_rest(cx, ports);
            return Step::Done;
        }
        ports.copy_backend(conn, &out);
        self.launch(cx, ports, Kind::Subscribe { left, told }, Some(logged));
        // What comes behind it may be answered with what looks like a confirmation.
        self.wait = Wait::Replies;
        if new {
            self.count_pin(cx, PinReason::Listen);
        }
        Step::Done
    }

    /// Whether the client has subscribed in RESP2, where a server answers hardly anything else meanwhile.
    pub(super) fn hears_only_messages(&self) -> bool {
        let own = self.own.as_ref();
        self.version == Version::Resp2 && own.is_some_and(|own| !own.subscriptions.is_empty())
    }

    /// What the server has sent of its own accord, or a reply on a connection where it may.
    pub(super) fn pushed<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bytes: &Buf,
    ) {
        let (Some(who), Some(own)) = (self.who.as_ref(), self.own.as_mut()) else {
            return;
        };
        let mut out = Vec::new();
        let rewritten = match sort(bytes, self.version) {
            Sort::Reply => {
                let subscribes = |it: &Flight| matches!(it.kind, Kind::Subscribe { .. });
                if self.flights.front().is_some_and(subscribes) {
                    return self.not_subscribed(cx, ports, bytes);
                }
                // It answers a command.
                own.backend.inbox.settle();
                return self.replied(cx, ports, bytes);
            }
            Sort::Confirmation => return self.confirmed(cx, ports),
            Sort::Pattern { channel, payload } => {
                let mut name = Vec::new();
                let known = who.rewriter.client_channel(channel, &mut name);
                let payload = match who.rewriter.brings_keys(channel) {
                    true => who.rewriter.client_key(payload),
                    false => Some(payload),
                };
                if let (true, Some(payload)) = (known, payload) {
                    let patterns = own.subscriptions.patterns.iter();
                    for pattern in patterns.filter(|pattern| glob::matches(pattern, &name)) {
                        write::push_header(&mut out, self.version, 4);
                        for part in [b"pmessage", &**pattern, &name, payload] {
                            write::bulk(&mut out, part);
                        }
                    }
                }
                Ok(())
            }
            Sort::Message => who.rewriter.message(bytes, &mut out),
        };
        if let Err(error) = rewritten {
            // Events of other databases have no place among those that the server lets the user see.
            tracing::debug!(%error, "a message is not for this client");
            return;
        }
        if self.ending != Ending::Unheard && !out.is_empty() {
            ports.copy_client(&out);
            self.check_queue(ports);
        }
    }

    /// The server has refused one of the things that a command needs, and may have done others: what the client would hear, nobody
    /// could tell it.
    fn not_subscribed<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P, reply: &[u8]) {
        let Some(flight) = self.flights.pop() else {
            return;
        };
        self.record(cx, &flight, Some(Failure::of_reply(reply)));
        if flight.silent || self.ending == Ending::Unheard {
            return self.terminate(cx, ports, &Fault::BackendLost);
        }
        ports.copy_client(reply);
        self.leave(cx, ports);
    }

    /// The server has done one of the things that a command needs.
    fn confirmed<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let Some(own) = self.own.as_mut() else { return };
        let Some(flight) = self.flights.front_mut() else {
            return;
        };
        let Kind::Subscribe { left, told } = &mut flight.kind else {
            return;
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return;
        }
        let told = std::mem::take(told);
        own.backend.inbox.settle();
        if let Some(flight) = self.flights.pop() {
            self.record(cx, &flight, None);
        }
        if self.ending != Ending::Unheard && !told.is_empty() {
            ports.copy_client(&told);
        }
    }
}

/// What a connection with subscriptions has been sent.
enum Sort<'a> {
    /// A command's reply.
    Reply,
    /// The server has subscribed, or ended a subscription.
    Confirmation,
    /// A message for a pattern.
    Pattern {
        channel: &'a [u8],
        payload: &'a [u8],
    },
    /// Any other message.
    Message,
}

fn sort(bytes: &[u8], version: Version) -> Sort<'_> {
    let push = bytes.first() == Some(&b'>');
    if version == Version::Resp3 && !push {
        return Sort::Reply;
    }
    let Some(mut items) = Value::parse(bytes).ok().and_then(|it| it.items()) else {
        return Sort::Reply;
    };
    let mut next = || items.next().and_then(Result::ok).and_then(|it| it.string());
    let Some(kind) = next() else {
        return Sort::Reply;
    };
    match kind {
        b"message" | b"smessage" | b"invalidate" | b"tracking-redir-broken" => Sort::Message,
        b"pmessage" => {
            next();
            match (next(), next()) {
                (Some(channel), Some(payload)) => Sort::Pattern { channel, payload },
                _ => Sort::Message,
            }
        }
        kind if Word::parse(kind).is_some() => Sort::Confirmation,
        _ if push => Sort::Message,
        _ => Sort::Reply,
    }
}
