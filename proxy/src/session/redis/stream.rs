//! Commands that are too large to be seen whole: they go, as they come, over a connection of the session's own.

use control_store::Fault;
use protocol_redis::command::Role;
use protocol_redis::lua;
use protocol_redis::request::{Event, RequestError, Stream};
use protocol_redis::rewrite::{StreamRewriter, Transform};

use super::RedisSession;
use super::flight::{Kind, Logged};
use super::functions::Function;
use super::limits;
use super::policy::Policy;
use super::route::Turn;
use crate::backend::redis::Backend;
use crate::faces::redis as face;
use crate::metrics::ErrorClass;
use crate::reactor::{Buf, ConnId};
use crate::session::{Context, Ports};

/// Arguments of this size are kept for the log.
const MAX_LOGGED: usize = 1 << 10;
/// So many of them.
const MAX_WORDS: usize = 128;

/// So many that must be seen before the command is sent.
const MAX_GATHERED: usize = 1 << 10;

/// A command that is taken apart as it comes.
pub(super) struct Streaming {
    stream: Stream,
    /// Bytes that came and are not taken apart yet.
    rest: Buf,
    progress: Progress,
}

/// How far it has been taken apart.
struct Progress {
    argc: usize,
    /// The command's name, while it may be followed by a subcommand's.
    name: Option<Vec<u8>>,
    stage: Stage,
    logged: Vec<Vec<u8>>,
}

enum Stage {
    /// Nothing of it has been sent.
    Naming,
    /// Nothing either: these are its first arguments, and its keys must be known, for what stands before it.
    Gathering(Vec<Vec<u8>>),
    /// It goes to the server.
    Sending(Box<Sending>),
    /// It is passed over, and then refused with this text.
    Refusing(String, ErrorClass),
}

/// What is needed while a command goes to the server.
struct Sending {
    conn: ConnId,
    rewriter: StreamRewriter,
    transform: Transform,
    /// The second argument is the name of a function, which is another on the server.
    calls: bool,
    /// It is a `SET`, which may be told to keep its key's time.
    may_keep_time: bool,
    /// The line's end behind what has been sent is to come. With it the server would have the whole command, and could answer before
    /// its end has come from the client.
    line_open: bool,
}

impl Sending {
    fn end_line<P: Ports<Backend>>(&mut self, ports: &mut P) {
        if std::mem::take(&mut self.line_open) {
            ports.copy_backend(self.conn, b"\r\n");
        }
    }
}

impl Streaming {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            rest: Buf::empty(),
            progress: Progress {
                argc: 0,
                name: None,
                stage: Stage::Naming,
                logged: Vec::new(),
            },
        }
    }
}

impl RedisSession {
    /// Goes on with a command that is taken apart. Whether there is anything left to do now.
    pub(super) fn stream<P: Ports<Backend>>(&mut self, cx: &mut Context, ports: &mut P) -> bool {
        let begins = self
            .streaming
            .as_ref()
            .is_some_and(|it| it.progress.argc == 0);
        if begins && self.must_wait_here() {
            return false;
        }
        // Before anything is known of the command, so that it never has to wait with half of it sent.
        let conn = match self.take_own(cx, ports, 0) {
            Turn::Now(conn) => Ok(conn),
            Turn::Later => return false,
            Turn::Refused(fault) => Err(fault),
        };
        let Some(mut streaming) = self.streaming.take() else {
            return false;
        };
        if let (Err(fault), Stage::Naming | Stage::Gathering(_)) =
            (&conn, &streaming.progress.stage)
        {
            streaming.progress.stage = refusing(fault);
        }
        let conn = conn.ok();
        if let Stage::Gathering(_) = streaming.progress.stage
            && !self.go_on_gathering(cx, ports, &mut streaming.progress, conn)
        {
            self.streaming = Some(streaming);
            return false;
        }
        let outcome = self.stream_on(cx, ports, &mut streaming, conn);
        match outcome {
            Ok(Streamed::More) => {
                self.streaming = Some(streaming);
                false
            }
            Ok(Streamed::Ended) => {
                let rest = std::mem::take(&mut streaming.rest);
                if !rest.is_empty() {
                    self.input.unread(rest);
                }
                self.end_stream(cx, ports, streaming.progress)
            }
            Err(error) => {
                self.streaming = Some(streaming);
                self.broken(cx, ports, error);
                false
            }
        }
    }

    fn stream_on<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        streaming: &mut Streaming,
        conn: Option<ConnId>,
    ) -> Result<Streamed, RequestError> {
        loop {
            let progress = &mut streaming.progress;
            let rest = streaming.rest.clone();
            let step = streaming.stream.next(&rest)?;
            streaming.rest.advance(step.used);
            match step.event {
                Event::More => match self.input.take_front() {
                    Some(front) => streaming.rest = front,
                    None => return Ok(Streamed::More),
                },
                Event::Header { argc } => progress.argc = argc as usize,
                Event::Arg(arg) => match (&mut progress.stage, progress.name.take()) {
                    (Stage::Naming, None) => progress.name = Some(arg.to_vec()),
                    (Stage::Naming, Some(name)) => {
                        self.name_stream(ports, progress, conn, &name, Some(arg));
                        self.pass(cx, ports, progress, &name);
                        self.pass_second(cx, ports, progress, arg);
                        if !self.go_on_gathering(cx, ports, progress, conn) {
                            return Ok(Streamed::More);
                        }
                    }
                    (Stage::Gathering(first), _) => {
                        first.push(arg.to_vec());
                        if !self.go_on_gathering(cx, ports, progress, conn) {
                            return Ok(Streamed::More);
                        }
                    }
                    (Stage::Sending(sending), _) => {
                        if sending.may_keep_time && arg.eq_ignore_ascii_case(b"KEEPTTL") {
                            self.bracket_keeps_times();
                        }
                        self.pass(cx, ports, progress, arg);
                    }
                    (Stage::Refusing(..), _) => {}
                },
                Event::Large { len } => {
                    if let Some(name) = progress.name.take() {
                        self.name_stream(ports, progress, conn, &name, None);
                        self.pass(cx, ports, progress, &name);
                    }
                    if let Stage::Gathering(_) = progress.stage {
                        progress.stage = unlimited();
                    }
                    ports.expect_client(len);
                    self.announce(cx, ports, progress, len);
                }
                Event::Piece { range, last } => {
                    if let Stage::Sending(sending) = &mut progress.stage {
                        ports.send_backend(sending.conn, rest.slice(range));
                        sending.line_open = last;
                    }
                }
                Event::End => return Ok(Streamed::Ended),
            }
        }
    }

    /// The command's name is known, and with it what becomes of it.
    fn name_stream<P: Ports<Backend>>(
        &mut self,
        ports: &mut P,
        progress: &mut Progress,
        conn: Option<ConnId>,
        name: &[u8],
        subcommand: Option<&[u8]>,
    ) {
        let known = self
            .who
            .as_ref()
            .and_then(|who| Some((who, who.known.as_ref()?)));
        let (Some(conn), Some((who, known))) = (conn, known) else {
            progress.stage = refusing(&Fault::BackendLost);
            return;
        };
        let calls = match known.commands.find(name, subcommand) {
            Some((_, Policy::Function(Function::Call))) => !who.rewriter.namespace().is_empty(),
            _ => false,
        };
        let text = match known.commands.find(name, subcommand) {
            Some((_, Policy::Function(Function::Call))) if calls && subcommand.is_none() => {
                "ERR Function not found".to_owned() // No name is so long.
            }
            Some((_, Policy::Script(place)))
                if self.shares_server()
                    && let Some(text) = script_refused(place, subcommand) =>
            {
                text
            }
            Some((
                spec,
                policy @ (Policy::Share | Policy::Script(_) | Policy::Function(Function::Call)),
            )) => {
                let words = [Some(name), subcommand].into_iter().flatten();
                let first: Vec<_> = words.map(<[u8]>::to_vec).collect();
                match who.bracket_of_stream(spec, policy, progress.argc, &first) {
                    limits::Streamed::Free => {
                        self.begin_sending(ports, progress, conn, name, subcommand)
                    }
                    _ => progress.stage = Stage::Gathering(first),
                }
                return;
            }
            Some((_, Policy::Refuse(sentence))) => format!("NOPERM {sentence}"),
            Some(_) => format!(
                "ERR a command over {} bytes cannot be this one",
                protocol_redis::request::LARGE
            ),
            None => "ERR unknown command".to_owned(),
        };
        progress.stage = Stage::Refusing(text, ErrorClass::Statement);
    }

    /// Goes on with a command of which the keys must be known first, if it is one. `false`: with what comes next it is to wait.
    fn go_on_gathering<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        progress: &mut Progress,
        conn: Option<ConnId>,
    ) -> bool {
        let (Stage::Gathering(first), Some(conn)) = (&progress.stage, conn) else {
            return true;
        };
        match self.bracket_says() {
            Some(Ok(())) => self.send_gathered(cx, ports, progress, conn),
            Some(Err(text)) => progress.stage = Stage::Refusing(text, ErrorClass::Limit),
            None => {
                let Some(needs) = self.needs(progress.argc, first) else {
                    progress.stage = refusing(&Fault::Bug);
                    return true;
                };
                match needs {
                    limits::Streamed::Free => self.send_gathered(cx, ports, progress, conn),
                    limits::Streamed::Unknown => {
                        if first.len() > MAX_GATHERED {
                            progress.stage = unlimited();
                        }
                    }
                    limits::Streamed::Bracket(bracket) => {
                        match self.ask_before(cx, ports, bracket) {
                            Ok(()) => return false,
                            Err(fault) => progress.stage = refusing(&fault),
                        }
                    }
                }
            }
        }
        true
    }

    /// What must stand around a command that begins so.
    fn needs(&self, argc: usize, first: &[Vec<u8>]) -> Option<limits::Streamed> {
        let who = self.who.as_ref()?;
        let second = first.get(1).map(Vec::as_slice);
        let commands = &who.known.as_ref()?.commands;
        let (spec, policy) = commands.find(first.first()?, second)?;
        Some(who.bracket_of_stream(spec, policy, argc, first))
    }

    /// Sends the arguments that were gathered.
    fn send_gathered<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        progress: &mut Progress,
        conn: ConnId,
    ) {
        let Stage::Gathering(first) = std::mem::replace(&mut progress.stage, Stage::Naming) else {
            return;
        };
        let mut words = first.iter();
        let (Some(name), second) = (words.next(), words.next()) else {
            return;
        };
        self.begin_sending(ports, progress, conn, name, second.map(Vec::as_slice));
        self.pass(cx, ports, progress, name);
        if let Some(second) = second {
            self.pass_second(cx, ports, progress, second);
        }
        words.for_each(|word| self.pass(cx, ports, progress, word));
    }

    /// Sends the beginning of a command that goes to the server.
    fn begin_sending<P: Ports<Backend>>(
        &mut self,
        ports: &mut P,
        progress: &mut Progress,
        conn: ConnId,
        name: &[u8],
        second: Option<&[u8]>,
    ) {
        let known = self
            .who
            .as_ref()
            .and_then(|who| Some((who, who.known.as_ref()?.commands.find(name, second)?)));
        let Some((who, (spec, policy))) = known else {
            progress.stage = refusing(&Fault::Bug);
            return;
        };
        let mut header = Vec::with_capacity(16);
        let rewriter = who.rewriter.stream(spec, progress.argc, &mut header);
        ports.copy_backend(conn, &header);
        progress.stage = Stage::Sending(Box::new(Sending {
            conn,
            rewriter,
            transform: spec.transform(),
            line_open: false,
            calls: matches!(policy, Policy::Function(Function::Call))
                && !who.rewriter.namespace().is_empty(),
            may_keep_time: spec.name() == b"set",
        }));
        if let Some(own) = self.own.as_mut() {
            own.streaming = true;
        }
    }

    /// Sends an argument that is there as a whole.
    fn pass<P: Ports<Backend>>(
        &self,
        cx: &mut Context,
        ports: &mut P,
        progress: &mut Progress,
        arg: &[u8],
    ) {
        let shown = || arg.iter().take(MAX_LOGGED).copied().collect();
        if progress.logged.is_empty() {
            progress.logged.push(shown());
        }
        if let (Stage::Sending(sending), Some(who)) = (&mut progress.stage, &self.who) {
            sending.end_line(ports);
            let out = &mut cx.redis.out;
            out.clear();
            let role = sending.rewriter.arg(&who.rewriter, arg, out);
            ports.copy_backend(sending.conn, out);
            if role != Role::Other && progress.logged.len() < MAX_WORDS {
                progress.logged.push(shown());
            }
        }
    }

    /// Sends the argument behind the name.
    fn pass_second<P: Ports<Backend>>(
        &self,
        cx: &mut Context,
        ports: &mut P,
        progress: &mut Progress,
        arg: &[u8],
    ) {
        match (&progress.stage, &self.who) {
            (Stage::Sending(sending), Some(who)) if sending.calls => {
                let name = who.rewriter.own_name(arg);
                self.pass(cx, ports, progress, &name);
            }
            _ => self.pass(cx, ports, progress, arg),
        }
    }

    /// Sends the beginning of an argument that comes in pieces.
    fn announce<P: Ports<Backend>>(
        &self,
        cx: &mut Context,
        ports: &mut P,
        progress: &mut Progress,
        len: u64,
    ) {
        if let (Stage::Sending(sending), Some(who)) = (&mut progress.stage, &self.who) {
            sending.end_line(ports);
            let out = &mut cx.redis.out;
            out.clear();
            sending.rewriter.large(&who.rewriter, len, out);
            ports.copy_backend(sending.conn, out);
        }
    }

    /// The command has ended. Whether the session goes on with what follows.
    fn end_stream<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        progress: Progress,
    ) -> bool {
        let logged = Logged::of_words(&progress.logged);
        if let Some(own) = self.own.as_mut() {
            own.streaming = false;
        }
        match progress.stage {
            Stage::Sending(mut sending) => {
                sending.end_line(ports);
                if let Some(who) = &self.who {
                    let out = &mut cx.redis.out;
                    out.clear();
                    sending.rewriter.end(&who.rewriter, out);
                    ports.copy_backend(sending.conn, out);
                }
                self.launch(cx, ports, Kind::of(sending.transform), Some(logged));
                self.enter_bracket(cx, ports);
            }
            Stage::Refusing(text, class) => {
                self.refuse_logged(cx, ports, logged, &text, class);
            }
            Stage::Naming | Stage::Gathering(_) => {}
        }
        true
    }
}

/// Why a script is not run on a server that others use as well, with the second argument if that is there as a whole.
fn script_refused(place: usize, second: Option<&[u8]>) -> Option<String> {
    match second.filter(|_| place == 1).map(lua::leaves_shared_alone) {
        Some(checked) => Some(format!("NOPERM {}", checked.err()?)),
        None => Some(format!(
            "NOPERM on a shared server a script may have {} bytes at most",
            protocol_redis::request::LARGE
        )),
    }
}

/// How far a command was taken apart.
enum Streamed {
    /// More bytes are needed.
    More,
    /// To its end.
    Ended,
}

/// Its keys come too late.
fn unlimited() -> Stage {
    let text = format!(
        "ERR a command over {} bytes must begin with its keys in a database that has settings for them: send it in parts",
        protocol_redis::request::LARGE
    );
    Stage::Refusing(text, ErrorClass::Statement)
}

fn refusing(fault: &Fault) -> Stage {
    Stage::Refusing(face::translate(fault).text, ErrorClass::from(fault))
}
