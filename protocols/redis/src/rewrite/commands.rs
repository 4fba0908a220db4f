//! Commands on their way to the server.

use super::prefix::Rewriter;
use crate::command::keys::Keys;
use crate::command::walk::Walk;
use crate::command::{Role, Spec, Walker};
use crate::reply::write;
use crate::request::Command;

/// Arguments that the client did not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extra {
    None,
    /// `MATCH prefix*` behind a cursor. The last `MATCH` decides, so that one of the client's own prevails.
    Match,
    /// `prefix*` at the end: all of the client's channels.
    Pattern,
    /// `PREFIX prefix` at the end.
    Prefix,
}

impl Extra {
    const fn count(self) -> usize {
        match self {
            Self::None => 0,
            Self::Pattern => 1,
            Self::Match | Self::Prefix => 2,
        }
    }

    /// Those for a command whose arguments after the first two are not known.
    fn of(rewriter: &Rewriter, name: &[u8], argc: usize) -> Self {
        if rewriter.prefix().is_empty() {
            return Self::None;
        }
        match name {
            b"scan" if argc >= 2 => Self::Match,
            b"pubsub|channels" | b"pubsub|shardchannels" if argc == 2 => Self::Pattern,
            // The server refuses it where it is not wanted or not alone: what it must not do is to take none for all.
            b"client|tracking" if argc > 2 => Self::Prefix,
            _ => Self::None,
        }
    }

    /// Those for a command all of whose arguments are known.
    fn of_whole(rewriter: &Rewriter, spec: &Spec, command: Command<'_>) -> Self {
        match Self::of(rewriter, spec.name(), command.argc()) {
            Self::Prefix if !tracks_everything(spec, command) => Self::None,
            extra => extra,
        }
    }
}

/// Whether a client wants to hear of all keys in broadcasting mode.
fn tracks_everything(spec: &Spec, command: Command<'_>) -> bool {
    let mut walk = Walk::new(&spec.keys, command.argc());
    let mut broadcasts = false;
    for arg in command.args() {
        match walk.next(&spec.keys, Some(arg)) {
            Role::TrackingPrefix => return false,
            _ => broadcasts |= arg.eq_ignore_ascii_case(b"BCAST"),
        }
    }
    broadcasts
}

impl Rewriter {
    /// Appends a client's command as the server is to see it.
    #[inline]
    pub fn command(&self, spec: &Spec, command: Command<'_>, out: &mut Vec<u8>) {
        let raw = command.raw();
        match &spec.keys {
            _ if self.is_identity() => out.extend_from_slice(raw),
            Keys::None | Keys::Unknown => out.extend_from_slice(raw),
            // One key or many, and nothing else: nearly all commands.
            Keys::Range(range) if matches!(range.role, Role::Key(_)) => {
                // Room for one key's prefix, and its longer header.
                out.reserve(raw.len() + self.prefix().len() + 16);
                let mut copier = Copier::new(command, out);
                let run = range.run(command.argc());
                for index in (run.next..=run.last).step_by(run.step.max(1)) {
                    copier.put(index, 0, self.prefix());
                }
                copier.finish();
            }
            keys => self.general(spec, keys, command, out),
        }
    }

    fn general(&self, spec: &Spec, keys: &Keys, command: Command<'_>, out: &mut Vec<u8>) {
        let extra = Extra::of_whole(self, spec, command);
        let mut copier = Copier::new(command, out);
        if extra != Extra::None {
            copier.header(command.argc() + extra.count());
        }
        let mut walk = Walk::new(keys, command.argc());
        for (index, arg) in command.args().enumerate() {
            let edit = self.edit(walk.next(keys, Some(arg)), arg);
            if !edit.is_nothing() {
                copier.put(index, edit.drop, edit.head);
            }
            if extra == Extra::Match && index == 1 {
                self.extra(extra, copier.copy_through(index));
            }
        }
        copier.finish();
        if extra != Extra::Match {
            self.extra(extra, out);
        }
    }

    fn extra(&self, extra: Extra, out: &mut Vec<u8>) {
        let all = || [self.pattern(), b"*"].concat();
        match extra {
            Extra::None => {}
            Extra::Match => {
                write::bulk(out, b"MATCH");
                write::bulk(out, &all());
            }
            Extra::Pattern => write::bulk(out, &all()),
            Extra::Prefix => {
                write::bulk(out, b"PREFIX");
                write::bulk(out, self.prefix());
            }
        }
    }

    /// Begins a command of `argc` arguments that streams, and appends what is in front of its arguments.
    pub fn stream(&self, spec: &Spec, argc: usize, out: &mut Vec<u8>) -> StreamRewriter {
        let extra = Extra::of(self, spec.name(), argc);
        write::array_header(out, argc + extra.count());
        StreamRewriter {
            walker: spec.walk(argc),
            index: 0,
            extra,
        }
    }
}

/// Copies a command but for some of its arguments, in pieces as large as can be.
struct Copier<'a, 'o> {
    command: Command<'a>,
    out: &'o mut Vec<u8>,
    /// What is in front of it has been copied.
    from: usize,
}

impl<'a, 'o> Copier<'a, 'o> {
    #[inline]
    fn new(command: Command<'a>, out: &'o mut Vec<u8>) -> Self {
        Self {
            command,
            out,
            from: 0,
        }
    }

    /// Writes another count of arguments than the command's. Comes first.
    fn header(&mut self, argc: usize) {
        write::array_header(self.out, argc);
        self.from = self.command.header_at(0);
    }

    #[inline]
    fn copy(&mut self, to: usize) {
        let raw = self.command.raw();
        self.out
            .extend_from_slice(raw.get(self.from..to).unwrap_or_default());
        self.from = to;
    }

    /// Copies up to argument `index`, and this with `head` in place of its first `drop` bytes.
    #[inline]
    fn put(&mut self, index: usize, drop: usize, head: &[u8]) {
        let Some(arg) = self.command.range(index) else {
            return;
        };
        self.copy(self.command.header_at(index));
        // The rest of the argument and the line's end are copied with what follows.
        self.from = arg.end.min(arg.start + drop);
        write::header(self.out, b'$', head.len() + (arg.end - self.from));
        self.out.extend_from_slice(head);
    }

    /// Copies up to the end of argument `index`, behind which something may be added.
    fn copy_through(&mut self, index: usize) -> &mut Vec<u8> {
        self.copy(self.command.header_at(index + 1));
        self.out
    }

    #[inline]
    fn finish(mut self) {
        self.copy(self.command.raw().len());
    }
}

/// Rewrites a command argument by argument. See [`Rewriter::stream`].
#[derive(Clone, Debug)]
pub struct StreamRewriter {
    walker: Walker,
    index: usize,
    extra: Extra,
}

impl StreamRewriter {
    /// Appends the next argument, and yields what it is.
    pub fn arg(&mut self, rewriter: &Rewriter, arg: &[u8], out: &mut Vec<u8>) -> Role {
        self.between(rewriter, out);
        let role = self.walker.next(Some(arg));
        let edit = match rewriter.is_identity() {
            true => rewriter.edit(Role::Other, arg),
            false => rewriter.edit(role, arg),
        };
        let kept = arg.get(edit.drop..).unwrap_or_default();
        write::header(out, b'$', edit.head.len() + kept.len());
        out.extend_from_slice(edit.head);
        out.extend_from_slice(kept);
        out.extend_from_slice(b"\r\n");
        role
    }

    /// Begins an argument of `len` bytes that is not all there: appends what goes in front of it, and yields what it is. The
    /// argument's bytes and a line end must follow.
    ///
    /// Nobody has patterns or notifications so long: such arguments are taken for plain channels and keys.
    pub fn large(&mut self, rewriter: &Rewriter, len: u64, out: &mut Vec<u8>) -> Role {
        self.between(rewriter, out);
        let role = self.walker.next(None);
        // What matters of what it holds: a star.
        let head = match rewriter.is_identity() {
            true => &[],
            false => rewriter.edit(role, b"*").head,
        };
        crate::number::write_line(out, b'$', len.saturating_add(head.len() as u64));
        out.extend_from_slice(head);
        role
    }

    /// Appends what goes behind the last argument.
    pub fn end(&self, rewriter: &Rewriter, out: &mut Vec<u8>) {
        rewriter.extra(self.extra, out);
    }

    /// Appends what goes between the arguments before and the next one.
    fn between(&mut self, rewriter: &Rewriter, out: &mut Vec<u8>) {
        if self.index == 2 && self.extra == Extra::Match {
            rewriter.extra(self.extra, out);
            self.extra = Extra::None;
        }
        self.index += 1;
    }
}
