//! The settings of a database: how long keys live whose commands do not say, and how many there may be.
//!
//! A command that may create keys goes to the server inside of a script that runs it, so that nobody sees a key without its time and
//! no two clients create the last one. `SET` needs none where only time matters: its own option says it. What no script can run, the
//! client's own scripts, commands that wait and those that stream, is bracketed by two of ours; its reply is kept until the second
//! has run. In a transaction the first runs on the connection that sessions share, and the second is queued behind the command.

use control_store::Fault;
use control_store::snapshot::RedisKeySettings;
use protocol_redis::command::{Flags, KeyFlags, Role, Spec};
use protocol_redis::reply::Value;
use protocol_redis::reply::write::{self, Version};
use protocol_redis::request::Command;
use protocol_redis::rewrite::{Rewriter, Transform, glob};

use super::command::Step;
use super::flight::{Kind, Logged};
use super::policy::Policy;
use super::route::Turn;
use super::{RedisSession, Wait, Who};
use crate::backend::redis::Backend;
use crate::faces::redis as face;
use crate::metrics::ErrorClass;
use crate::session::{Context, Ports};

const GUARD: &str = include_str!("scripts/guard.lua");
const BEFORE: &str = include_str!("scripts/before.lua");
const AFTER: &str = include_str!("scripts/after.lua");

/// Words that Lua's stack takes.
const MAX_WORDS: usize = 7000;

/// A key that a command may create.
struct Created {
    /// Which argument it is.
    index: usize,
    /// Seconds that it is to live; 0 for ever.
    ttl: u32,
    /// The command makes it anew where it was.
    anew: bool,
}

/// A command that two scripts of ours stand around.
pub(super) struct Bracket {
    keys: Vec<Key>,
    stage: Stage,
}

/// A key that a bracketed command may create.
struct Key {
    /// As the server knows it.
    name: Vec<u8>,
    /// As in [`Created`].
    ttl: u32,
    anew: bool,
}

enum Stage {
    /// The first script runs.
    Before,
    /// It has run: the command may be sent.
    Open,
    /// It says no.
    Shut(String),
    /// The command runs.
    Within,
    /// The second script runs; the client gets this when it has.
    After {
        reply: Vec<u8>,
        logged: Option<Logged>,
    },
}

impl Who {
    /// Whether the database has settings that commands must be looked at for.
    pub(super) fn has_limits(&self) -> bool {
        self.settings().is_some_and(|it| {
            it.max_keys > 0 || it.default_ttl > 0 || it.patterns.iter().any(|it| it.ttl > 0)
        })
    }

    fn settings(&self) -> Option<&RedisKeySettings> {
        self.route
            .database
            .redis
            .as_ref()
            .map(|redis| &redis.settings)
    }

    /// The keys that a command may create. None for most. `args` are its first arguments, or all of its `argc`.
    fn created<'a>(
        &self,
        spec: &Spec,
        policy: Policy,
        argc: usize,
        args: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Vec<Created> {
        let (Some(settings), true) = (self.settings(), self.limited) else {
            return Vec::new();
        };
        let flags = spec.flags();
        let runs_scripts = runs_scripts(spec);
        // Of those that may take memory, but for what only renames; moving a member may make a set.
        let creates = runs_scripts
            || flags.has(Flags::WRITE.with(Flags::DENYOOM))
            || matches!(spec.name(), b"smove")
            || policy == Policy::Copy;
        if !creates || never_creates(spec.name(), args.clone()) {
            return Vec::new();
        }
        // Said to read and write, since they may tell what was there; they take its time away.
        let makes_anew = matches!(spec.name(), b"set" | b"getset");
        let keeps_ttl = says(args.clone(), 3, b"KEEPTTL");
        let mut walk = spec.walk(argc);
        let mut created = Vec::new();
        for (index, arg) in args.enumerate() {
            if let Role::Key(flags) = walk.next(Some(arg))
                && (runs_scripts
                    || flags.has_any(KeyFlags::OW.with(KeyFlags::INSERT).with(KeyFlags::UPDATE)))
                && !flags.has(KeyFlags::RO)
            {
                created.push(Created {
                    index,
                    ttl: ttl_of(settings, arg),
                    anew: makes_anew && !keeps_ttl || flags.has(KeyFlags::OW),
                });
            }
        }
        if settings.max_keys == 0 {
            created.retain(|it| it.ttl > 0);
        }
        created
    }

    /// Writes a command that may create keys so that the settings hold. `false`: it may be written as it is.
    pub(super) fn write_limited(
        &self,
        spec: &Spec,
        policy: Policy,
        command: &Command<'_>,
        version: Version,
        out: &mut Vec<u8>,
    ) -> bool {
        if !self.limited || policy != Policy::Share || runs_scripts(spec) {
            return false;
        }
        let created = self.created(spec, policy, command.argc(), command.args());
        let Some(first) = created.first() else {
            return false;
        };
        let max_keys = self.settings().map_or(0, |it| it.max_keys);
        let says_time = [&b"EX"[..], b"PX", b"EXAT", b"PXAT"]
            .iter()
            .any(|it| says(command.args(), 3, it));
        if spec.name() == b"set" && max_keys == 0 && !says(command.args(), 3, b"KEEPTTL") {
            if says_time {
                return false;
            }
            write::array_header(out, command.argc() + 2);
            put_words(&self.rewriter, spec, command, out);
            write::bulk(out, b"EX");
            write::bulk(out, first.ttl.to_string().as_bytes());
            return true;
        }
        if command.argc() + 3 * created.len() > MAX_WORDS {
            return false;
        }
        let key = |it: &Created| [self.rewriter.prefix(), command.arg(it.index)].concat();
        write::array_header(out, 3 + 3 * created.len() + 2 + command.argc());
        write::bulk(out, b"EVAL");
        write::bulk(out, GUARD.as_bytes());
        write::bulk(out, created.len().to_string().as_bytes());
        created.iter().for_each(|it| write::bulk(out, &key(it)));
        write::bulk(
            out,
            if version == Version::Resp3 {
                b"3"
            } else {
                b"2"
            },
        );
        write::bulk(out, max_keys.to_string().as_bytes());
        for it in &created {
            // What says its time itself has it.
            let ttl = if says_time { 0 } else { it.ttl };
            write::bulk(out, ttl.to_string().as_bytes());
            write::bulk(out, if it.anew { b"1" } else { b"0" });
        }
        put_words(&self.rewriter, spec, command, out);
        true
    }

    /// What must stand around a command that no script can run.
    fn bracket(&self, command: &Command<'_>) -> Option<Bracket> {
        if !self.limited {
            return None;
        }
        let (spec, policy) = self.known.as_ref()?.commands.of(command)?;
        let waits = matches!(policy, Policy::Block | Policy::BlockIfAsked);
        let scripted = matches!(policy, Policy::Copy | Policy::Sort);
        let long = command.argc() > MAX_WORDS / 4;
        if !(waits || runs_scripts(spec) || scripted || long) {
            return None;
        }
        let created = self.created(spec, policy, command.argc(), command.args());
        self.bracket_for(created, |index| command.arg(index))
    }

    fn bracket_for<'a>(
        &self,
        created: Vec<Created>,
        arg: impl Fn(usize) -> &'a [u8],
    ) -> Option<Bracket> {
        let key = |it: Created| Key {
            name: [self.rewriter.prefix(), arg(it.index)].concat(),
            ttl: it.ttl,
            anew: it.anew,
        };
        let keys: Vec<_> = created.into_iter().map(key).collect();
        (!keys.is_empty()).then_some(Bracket {
            keys,
            stage: Stage::Before,
        })
    }

    /// What must stand around a command of `argc` arguments that streams, of which the first are there.
    pub(super) fn bracket_of_stream(
        &self,
        spec: &Spec,
        policy: Policy,
        argc: usize,
        first: &[Vec<u8>],
    ) -> Streamed {
        if !self.limited {
            return Streamed::Free;
        }
        let creates = runs_scripts(spec) || spec.flags().has(Flags::WRITE.with(Flags::DENYOOM));
        if !creates {
            return Streamed::Free;
        }
        let mut walk = spec.walk(argc);
        first.iter().for_each(|arg| {
            walk.next(Some(arg));
        });
        // What is to come is not shown: a key may hide where it is not known yet how many there are.
        let settled = walk.is_settled();
        let more = (first.len()..argc).any(|_| matches!(walk.next(None), Role::Key(_)));
        if !settled || more {
            return Streamed::Unknown;
        }
        let args = first.iter().map(Vec::as_slice);
        let created = self.created(spec, policy, argc, args);
        let arg = |index: usize| first.get(index).map_or(&[][..], Vec::as_slice);
        match self.bracket_for(created, arg) {
            Some(bracket) => Streamed::Bracket(bracket),
            None => Streamed::Free,
        }
    }
}

/// What must stand around a command that streams.
pub(super) enum Streamed {
    /// Nothing.
    Free,
    /// More of it must be seen.
    Unknown,
    Bracket(Bracket),
}

/// Whether a command runs a script of the client's, which another script cannot.
fn runs_scripts(spec: &Spec) -> bool {
    matches!(spec.name(), b"eval" | b"evalsha" | b"fcall")
}

/// The arguments of a command as the server knows them.
fn put_words(rewriter: &Rewriter, spec: &Spec, command: &Command<'_>, out: &mut Vec<u8>) {
    let mut header = Vec::new();
    let mut words = rewriter.stream(spec, command.argc(), &mut header);
    for arg in command.args() {
        words.arg(rewriter, arg, out);
    }
}

/// Whether a command has that option, from this argument on.
fn says<'a>(args: impl Iterator<Item = &'a [u8]>, from: usize, option: &[u8]) -> bool {
    args.skip(from).any(|arg| arg.eq_ignore_ascii_case(option))
}

/// Whether a command of a kind that may create keys is told not to.
fn never_creates<'a>(name: &[u8], args: impl Iterator<Item = &'a [u8]>) -> bool {
    match name {
        b"set" => says(args, 3, b"XX"),
        b"lpushx" | b"rpushx" | b"linsert" | b"lset" => true,
        b"xadd" => says(args, 2, b"NOMKSTREAM"),
        b"xgroup|create" => !says(args, 5, b"MKSTREAM"),
        _ => false,
    }
}

/// The seconds that a key of the client's is to live.
fn ttl_of(settings: &RedisKeySettings, key: &[u8]) -> u32 {
    settings
        .patterns
        .iter()
        .find(|it| glob::matches(&it.glob, key))
        .map_or(settings.default_ttl, |it| it.ttl)
}

impl RedisSession {
    /// Sees to it that what must stand before a command has been done. `None`: it may be sent.
    pub(super) fn open_bracket<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        command: &Command<'_>,
    ) -> Option<Step> {
        match self.bracket.as_ref().map(|it| &it.stage) {
            None => {}
            Some(Stage::Open) => return None,
            Some(Stage::Shut(text)) => {
                let text = text.clone();
                self.bracket = None;
                return Some(self.refuse(cx, ports, command, &text, ErrorClass::Limit));
            }
            Some(_) => return Some(Step::Later),
        }
        let bracket = self.who.as_ref()?.bracket(command)?;
        if self.must_wait_here() {
            return Some(Step::Later);
        }
        match self.ask_before(cx, ports, bracket) {
            Ok(()) => Some(Step::Later),
            Err(fault) => {
                let text = face::translate(&fault).text;
                Some(self.refuse(cx, ports, command, &text, ErrorClass::from(&fault)))
            }
        }
    }

    /// Runs the first script. Nothing is under way, and nothing else is done until it has run, or until what it needs is there.
    pub(super) fn ask_before<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bracket: Bracket,
    ) -> Result<(), Fault> {
        // In a transaction it would run at the end.
        let shared = self.own.is_none() || self.is_queueing();
        let turn = match shared {
            true => self.share(cx, ports, 0),
            false => self.take_own(cx, ports, 0),
        };
        let conn = match turn {
            Turn::Now(conn) => conn,
            Turn::Later => return Ok(()),
            Turn::Refused(fault) => return Err(fault),
        };
        let settings = self.who.as_ref().and_then(|who| who.settings());
        let max_keys = settings.map_or(0, |it| it.max_keys);
        let out = &mut cx.redis.out;
        out.clear();
        let keys = bracket.keys.iter().map(|it| it.name.as_slice());
        script(out, BEFORE, keys, &[max_keys.to_string()]);
        ports.copy_backend(conn, out);
        self.bracket = Some(Box::new(bracket));
        match shared {
            true => self.launch_shared(cx, ports, Kind::Bracket),
            false => self.launch_hidden(cx, ports, Kind::Bracket),
        }
        self.wait = Wait::Replies;
        Ok(())
    }

    /// Whether the session's commands are queued, for the end of its transaction.
    pub(super) fn is_queueing(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.queued.is_some())
    }

    /// What the first script has said of a command that streams: whether it may be sent. `None`: it has not run yet.
    pub(super) fn bracket_says(&mut self) -> Option<Result<(), String>> {
        match &self.bracket.as_ref()?.stage {
            Stage::Open => Some(Ok(())),
            Stage::Shut(text) => {
                let text = text.clone();
                self.bracket = None;
                Some(Err(text))
            }
            Stage::Before | Stage::Within | Stage::After { .. } => None,
        }
    }

    /// The command that streams keeps the time that its key has.
    pub(super) fn bracket_keeps_times(&mut self) {
        if let Some(bracket) = self.bracket.as_mut() {
            bracket.keys.retain(|it| !it.anew);
        }
    }

    /// The connection over which the first script runs beside the session's own is gone.
    pub(super) fn bracket_lost(&mut self) {
        if let Some(bracket) = self.bracket.as_mut()
            && let Stage::Before = bracket.stage
            && self.flights.pop().is_some()
        {
            bracket.stage = Stage::Shut(face::translate(&Fault::BackendLost).text);
        }
    }

    /// The connection broke. A reply that was kept is the client's.
    pub(super) fn drop_bracket<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if let Some(bracket) = self.bracket.take()
            && let Stage::After { reply, .. } = bracket.stage
        {
            ports.copy_client(&reply);
        }
    }

    /// A command within a bracket has been sent.
    pub(super) fn enter_bracket<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) {
        let open = |it: &mut Box<Bracket>| matches!(it.stage, Stage::Open);
        let Some(mut bracket) = self.bracket.take_if(open) else {
            return;
        };
        if self.is_queueing() {
            return self.queue_after(cx, ports, *bracket);
        }
        bracket.stage = Stage::Within;
        self.bracket = Some(bracket);
        // What follows must not come between.
        self.wait = Wait::Replies;
    }

    /// The command has been queued, and so is the second script, the reply of which is left out of the transaction's.
    fn queue_after<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        mut bracket: Bracket,
    ) {
        bracket.keys.retain(|it| it.ttl > 0);
        let Some(own) = self.own.as_mut().filter(|_| !bracket.keys.is_empty()) else {
            return;
        };
        if let Some(queued) = own.queued.as_mut() {
            queued.push(Transform::Hidden);
        }
        let conn = own.backend.conn;
        bracket.put_after(&mut cx.redis.out);
        ports.copy_backend(conn, &cx.redis.out);
        self.launch_hidden(cx, ports, Kind::Ignored);
    }

    /// One of our scripts has run.
    pub(super) fn bracket_answered<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        reply: &[u8],
    ) {
        let Some(mut bracket) = self.bracket.take() else {
            return;
        };
        match bracket.stage {
            Stage::Before => {
                match Value::parse(reply) {
                    Ok(Value::Items(_, there)) => {
                        let mut there = there.map(|it| it.ok().and_then(|it| it.integer()));
                        let mut fresh = || there.next().flatten() == Some(0);
                        bracket.keys.retain(|it| fresh() || it.anew);
                        bracket.stage = Stage::Open;
                    }
                    Ok(Value::Error(text)) => {
                        bracket.stage = Stage::Shut(String::from_utf8_lossy(text).into_owned());
                    }
                    _ => bracket.stage = Stage::Shut(face::translate(&Fault::Bug).text),
                }
                self.bracket = Some(bracket);
            }
            Stage::After { reply, logged } => {
                ports.copy_client(&reply);
                if let Some(logged) = logged {
                    self.record_here(cx, &logged, None);
                }
            }
            Stage::Open | Stage::Shut(_) | Stage::Within => {}
        }
    }

    /// The command within the bracket has been answered. Whether its reply is kept until the second script has run.
    pub(super) fn close_bracket<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        reply: &[u8],
        heard: bool,
        logged: &mut Option<Logged>,
    ) -> bool {
        let within = |it: &mut Box<Bracket>| matches!(it.stage, Stage::Within);
        let Some(mut bracket) = self.bracket.take_if(within) else {
            return false;
        };
        bracket.keys.retain(|it| it.ttl > 0);
        let failed = matches!(reply.first(), Some(b'-' | b'_')) || reply.starts_with(b"$-1");
        if failed || bracket.keys.is_empty() {
            return false;
        }
        // The command has been let through, and so is this.
        let conn = match (self.own.as_ref(), self.link) {
            (Some(own), _) => own.backend.conn,
            (None, Some(link)) => match ports.links().conn(link) {
                Some(conn) => conn,
                None => return false,
            },
            (None, None) => return false,
        };
        let mut out = Vec::new();
        bracket.put_after(&mut out);
        ports.copy_backend(conn, &out);
        bracket.stage = Stage::After {
            reply: if heard { reply.to_vec() } else { Vec::new() },
            logged: logged.take(),
        };
        self.bracket = Some(bracket);
        self.launch_hidden(cx, ports, Kind::Bracket);
        true
    }
}

impl Bracket {
    /// Writes the call of the second script.
    fn put_after(&self, out: &mut Vec<u8>) {
        out.clear();
        let times: Vec<String> = self.keys.iter().map(|it| it.ttl.to_string()).collect();
        let keys = self.keys.iter().map(|it| it.name.as_slice());
        script(out, AFTER, keys, &times);
    }
}

/// Writes a call of one of our scripts.
fn script<'a>(
    out: &mut Vec<u8>,
    text: &str,
    keys: impl ExactSizeIterator<Item = &'a [u8]>,
    arguments: &[String],
) {
    write::array_header(out, 3 + keys.len() + arguments.len());
    write::bulk(out, b"EVAL");
    write::bulk(out, text.as_bytes());
    write::bulk(out, keys.len().to_string().as_bytes());
    keys.for_each(|key| write::bulk(out, key));
    for argument in arguments {
        write::bulk(out, argument.as_bytes());
    }
}

/// The reply of a guarded command to the client: beyond what Lua's numbers hold, integers come as text.
pub(super) fn integer(reply: &[u8], out: &mut Vec<u8>) {
    match reply.split_first() {
        Some((b'+', digits)) => {
            out.push(b':');
            out.extend_from_slice(digits);
        }
        _ => out.extend_from_slice(reply),
    }
}

/// Whether a command's reply is the integer that it has left in its key.
pub(super) fn counts(command: &Command<'_>) -> bool {
    let name = command.arg(0).to_ascii_lowercase();
    matches!(
        &*name,
        b"incr" | b"incrby" | b"decr" | b"decrby" | b"hincrby"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_store::snapshot::RedisKeyPattern;

    #[test]
    fn the_longest_pattern_decides() {
        let pattern = |glob: &str, ttl| RedisKeyPattern {
            glob: glob.as_bytes().into(),
            ttl,
        };
        let settings = RedisKeySettings {
            default_ttl: 9,
            max_keys: 0,
            patterns: [pattern("session:x:*", 0), pattern("session:*", 5)].into(),
        };
        for (key, ttl) in [("session:x:1", 0), ("session:1", 5), ("other", 9)] {
            assert_eq!(ttl_of(&settings, key.as_bytes()), ttl, "{key}");
        }
    }

    #[test]
    fn integers_beyond_luas_are_integers_again() {
        for (reply, expected) in [
            ("+9007199254740993\r\n", ":9007199254740993\r\n"),
            (":5\r\n", ":5\r\n"),
            ("-ERR x\r\n", "-ERR x\r\n"),
        ] {
            let mut out = Vec::new();
            integer(reply.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
