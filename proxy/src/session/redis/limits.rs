//! The settings of a database: how long keys live whose commands do not say, and how many there may be.
//!
//! A command that may create keys goes to the server inside of a script that runs it, so that nobody sees a key without its time and
//! no two clients create the last one. `SET` needs none where only time matters: its own option says it. What no script can run, the
//! client's own scripts and commands that wait, is bracketed by two of ours; its reply is kept until the second has run.

use control_store::Fault;
use control_store::snapshot::RedisKeySettings;
use protocol_redis::command::{Flags, KeyFlags, Role, Spec};
use protocol_redis::reply::Value;
use protocol_redis::reply::write::{self, Version};
use protocol_redis::request::Command;
use protocol_redis::rewrite::{Rewriter, glob};

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
    /// The keys that it may create, as the server knows them, and the seconds that they are to live.
    keys: Vec<(Vec<u8>, u32)>,
    stage: Stage,
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

    /// The keys that a command may create. None for most.
    fn created(&self, spec: &Spec, policy: Policy, command: &Command<'_>) -> Vec<Created> {
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
        if !creates || never_creates(spec.name(), command) {
            return Vec::new();
        }
        // Said to read and write, since they may tell what was there; they take its time away.
        let makes_anew = matches!(spec.name(), b"set" | b"getset");
        let keeps_ttl = says(command, 3, b"KEEPTTL");
        let mut walk = spec.walk(command.argc());
        let mut created = Vec::new();
        for (index, arg) in command.args().enumerate() {
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
        let created = self.created(spec, policy, command);
        let Some(first) = created.first() else {
            return false;
        };
        let max_keys = self.settings().map_or(0, |it| it.max_keys);
        let says_time = [&b"EX"[..], b"PX", b"EXAT", b"PXAT"]
            .iter()
            .any(|it| says(command, 3, it));
        if spec.name() == b"set" && max_keys == 0 && !says(command, 3, b"KEEPTTL") {
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
        let keys: Vec<_> = self
            .created(spec, policy, command)
            .iter()
            .map(|it| {
                let key = [self.rewriter.prefix(), command.arg(it.index)].concat();
                (key, it.ttl)
            })
            .collect();
        (!keys.is_empty()).then_some(Bracket {
            keys,
            stage: Stage::Before,
        })
    }
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
fn says(command: &Command<'_>, from: usize, option: &[u8]) -> bool {
    command
        .args()
        .skip(from)
        .any(|arg| arg.eq_ignore_ascii_case(option))
}

/// Whether a command of a kind that may create keys is told not to.
fn never_creates(name: &[u8], command: &Command<'_>) -> bool {
    match name {
        b"set" => says(command, 3, b"XX"),
        b"lpushx" | b"rpushx" | b"linsert" | b"lset" => true,
        b"xadd" => says(command, 2, b"NOMKSTREAM"),
        b"xgroup|create" => !says(command, 5, b"MKSTREAM"),
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
        // In a transaction nothing runs before its end; there the settings hold for commands, not for scripts.
        if self.own.as_ref().is_some_and(|own| own.queued.is_some()) {
            return None;
        }
        if self.must_wait_here() {
            return Some(Step::Later);
        }
        let conn = match self.any_turn(cx, ports) {
            Turn::Now(conn) => conn,
            Turn::Later => return Some(Step::Later),
            Turn::Refused(fault) => {
                let text = face::translate(&fault).text;
                return Some(self.refuse(cx, ports, command, &text, ErrorClass::from(&fault)));
            }
        };
        let max_keys = self.who.as_ref()?.settings()?.max_keys;
        let out = &mut cx.redis.out;
        out.clear();
        let keys = bracket.keys.iter().map(|(key, _)| key.as_slice());
        script(out, BEFORE, keys, &[max_keys.to_string()]);
        ports.copy_backend(conn, out);
        self.bracket = Some(Box::new(bracket));
        self.launch_hidden(cx, ports, Kind::Bracket);
        self.wait = Wait::Replies;
        Some(Step::Later)
    }

    fn any_turn<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) -> Turn {
        if self.own.is_some() {
            self.take_own(cx, ports, 0)
        } else {
            self.share(cx, ports, 0)
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
    pub(super) fn enter_bracket(&mut self) {
        if let Some(bracket) = self.bracket.as_mut()
            && matches!(bracket.stage, Stage::Open)
        {
            bracket.stage = Stage::Within;
            // What follows must not come between.
            self.wait = Wait::Replies;
        }
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
                        bracket.keys.retain(|_| there.next().flatten() == Some(0));
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
        bracket.keys.retain(|(_, ttl)| *ttl > 0);
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
        let times: Vec<String> = bracket
            .keys
            .iter()
            .map(|(_, ttl)| ttl.to_string())
            .collect();
        let keys = bracket.keys.iter().map(|(key, _)| key.as_slice());
        script(&mut out, AFTER, keys, &times);
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
