//! Redis's wire format, tables of commands, and the prefix of a database on a shared server.

use std::sync::LazyLock;

use protocol_redis::command::{Role, Spec, Table};
use protocol_redis::lua;
use protocol_redis::reply::{Scan, Scanner, Token, Tokens, Value, write};
use protocol_redis::request::{Args, Event, LARGE, Next, Parser, RequestError, Step};
use protocol_redis::rewrite::{Rewriter, Transform, glob};
use protocol_redis::text;

/// What a server of version 7.0 says of its commands.
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    const REPLY: &[u8] = include_bytes!("../../protocols/redis/testdata/command-7.0.resp3");
    Table::from_reply(REPLY).expect("a table")
});

const PREFIX: &[u8] = b"t[1:";

fn rewriter() -> Rewriter {
    Rewriter::new(PREFIX, 5).expect("a prefix")
}

fn parser() -> Parser {
    let mut parser = Parser::new();
    parser.set_authenticated(true);
    parser
}

type Command = Vec<Vec<u8>>;

/// The small commands at the front of `bytes`, which come in pieces of `step` bytes.
fn commands(bytes: &[u8], step: usize) -> (Vec<Command>, Result<(), RequestError>) {
    let mut parser = parser();
    let mut args = Args::new();
    let mut found = Vec::new();
    let mut start = 0;
    let mut end = 0;
    while end < bytes.len() {
        end = bytes.len().min(end + step);
        while start < end {
            let part = &bytes[start..end];
            match parser.next(part, &mut args) {
                Ok(Next::Command { used }) => {
                    let command = args.command(part);
                    assert!(command.argc() > 0 && used <= part.len());
                    let words: Command = command.args().map(<[u8]>::to_vec).collect();
                    let mut written = Vec::new();
                    let slices: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                    write::command(&mut written, &slices);
                    assert_eq!(written, command.raw(), "the encoding is that of the words");
                    found.push(words);
                    start += used;
                }
                Ok(Next::Empty { used }) => {
                    assert!(used > 0);
                    start += used;
                }
                Ok(Next::Incomplete { need }) => {
                    assert!(need > 0 && part.len() + need <= LARGE + 1);
                    break;
                }
                Ok(Next::Large) => return (found, Ok(())),
                Err(error) => {
                    assert!(
                        !error.to_string().contains(['\r', '\n']),
                        "an error is one line"
                    );
                    return (found, Err(error));
                }
            }
        }
    }
    (found, Ok(()))
}

/// Commands: whole or in pieces, they are the same.
pub fn redis_request(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else {
        return;
    };
    let whole = commands(bytes, bytes.len().max(1));
    assert_eq!(commands(bytes, usize::from(*step).max(1)), whole);
    // What comes behind a comment or a string is read all the same, and what is in one is not.
    if lua::leaves_shared_alone(bytes).is_err() {
        let behind = [b"--[[ ]] local s = '\\'' \n", bytes].concat();
        assert!(lua::leaves_shared_alone(&behind).is_err());
        let quoted: Vec<u8> = bytes.iter().flat_map(|byte| [b'\\', *byte]).collect();
        let within = [b"return '", &quoted[..], b"'"].concat();
        assert_eq!(lua::leaves_shared_alone(&within), Ok(()));
    }
    if let Ok(words) = text::split(bytes) {
        let mut line = String::new();
        for word in &words {
            text::quote(word, &mut line);
            line.push(' ');
        }
        assert_eq!(
            text::split(line.as_bytes()),
            Ok(words),
            "quoted and split again"
        );
    }
}

/// What a stream makes of the first command: its arguments; `None` where it is not all there.
fn streamed(bytes: &[u8], step: usize) -> Result<Option<Command>, RequestError> {
    let mut stream = parser().stream();
    let mut found: Command = Vec::new();
    for piece in bytes.chunks(step) {
        let mut rest = piece;
        loop {
            let Step { used, event } = stream.next(rest)?;
            match event {
                Event::More => {
                    assert_eq!(used, rest.len());
                    break;
                }
                Event::Header { .. } => {}
                Event::Arg(arg) => {
                    assert!(arg.len() <= LARGE);
                    found.push(arg.to_vec());
                }
                Event::Large { len } => {
                    assert!(len > LARGE as u64);
                    found.push(Vec::new());
                }
                Event::Piece { range, .. } => {
                    assert!(!range.is_empty());
                    found
                        .last_mut()
                        .expect("begun")
                        .extend_from_slice(&rest[range]);
                }
                Event::End => return Ok(Some(found)),
            }
            rest = &rest[used..];
        }
    }
    Ok(None)
}

/// A command that streams: however it is cut it is the same, and what a parser finds in one buffer.
pub fn redis_stream(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else {
        return;
    };
    let whole = streamed(bytes, bytes.len().max(1));
    assert_eq!(streamed(bytes, usize::from(*step).max(1)), whole);
    if bytes.first() == Some(&b'*')
        && let Ok(Next::Command { .. }) = parser().next(bytes, &mut Args::new())
    {
        let (commands, _) = commands(bytes, bytes.len());
        assert_eq!(whole, Ok(commands.first().cloned()));
    }
}

/// Where replies end in bytes that come in pieces; whether something is no reply.
fn ends(bytes: &[u8], step: usize) -> (Vec<usize>, bool) {
    let mut scanner = Scanner::new();
    let mut found = Vec::new();
    let mut start = 0;
    for piece in bytes.chunks(step) {
        let end = start + piece.len();
        while start < end {
            match scanner.scan(&bytes[start..end]) {
                Ok(Scan::End(used)) => {
                    assert!(used > 0 && !scanner.is_midway());
                    start += used;
                    found.push(start);
                }
                Ok(Scan::More) => start = end,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// Reads a reply element by element, and says how many there are.
fn visit(reply: &[u8]) -> usize {
    let mut tokens = Tokens::new(reply);
    let mut count = 0;
    while !tokens.rest().is_empty() {
        if let Token::Aggregate(_, elements) = tokens.token().expect("it was scanned") {
            assert!(elements <= reply.len() as u64);
        }
        count += 1;
    }
    if let Some(items) = Value::parse(reply).ok().and_then(|it| it.items()) {
        for item in items {
            let _ = item.map(|item| (item.string().is_some(), item.integer()));
        }
    }
    count
}

/// Replies: whole or in pieces they end at the same places, and can be looked into.
pub fn redis_reply(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else {
        return;
    };
    let whole = ends(bytes, bytes.len().max(1));
    assert_eq!(ends(bytes, usize::from(*step).max(1)), whole);
    let mut start = 0;
    for end in whole.0 {
        assert!(visit(&bytes[start..end]) > 0);
        start = end;
    }
    let _ = Value::parse(bytes);
}

/// A server's table: refused, or its commands are found and can be walked.
pub fn redis_table(data: &[u8]) {
    let Ok(table) = Table::from_reply(data) else {
        return;
    };
    for spec in table.specs() {
        let name = spec.name();
        let split = name.iter().position(|byte| *byte == b'|');
        let own = split.map_or(name, |at| &name[..at]);
        let _ = table.find(own, split.map(|at| &name[at + 1..]));
        for argc in [0, 1, 3, 7] {
            let mut walker = spec.walk(argc);
            for word in [&b"x"[..], b"2", b"STREAMS", b"keys", b"1"] {
                walker.next(Some(word));
                walker.next(None);
            }
        }
    }
}

fn roles<'a>(spec: &Spec, args: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<Role> {
    let mut walker = spec.walk(args.len());
    args.map(|arg| walker.next(Some(arg))).collect()
}

/// Asserts that `written` is `arg` behind the prefix, in the way of its role.
fn check_rewritten(rewriter: &Rewriter, role: Role, arg: &[u8], written: &[u8]) {
    let mut pattern = Vec::new();
    glob::escape(PREFIX, &mut pattern);
    match role {
        Role::Other => assert_eq!(written, arg),
        Role::SortBy | Role::SortGet if !arg.contains(&b'*') => assert_eq!(written, arg),
        Role::Key(_) | Role::ShardChannel | Role::SortBy | Role::SortGet | Role::TrackingPrefix => {
            assert_eq!(rewriter.client_key(written), Some(arg));
        }
        Role::KeyPattern | Role::ShardPattern => {
            assert_eq!(written.strip_prefix(&*pattern), Some(arg));
        }
        Role::Channel => {
            let mut back = Vec::new();
            assert!(rewriter.client_channel(written, &mut back));
            assert_eq!(back, arg);
        }
        Role::ChannelPattern => {
            let within = rewriter.base_patterns().iter().any(|base| {
                let head = base.strip_suffix(b"*").expect("it ends with a star");
                written.starts_with(head)
            });
            assert!(within, "a pattern that leaves the database");
        }
    }
}

/// Commands on their way to a shared server: every key carries the prefix, nothing else changes, and streamed they are the same.
pub fn redis_rewrite(data: &[u8]) {
    let mut args = Args::new();
    let Ok(Next::Command { used }) = parser().next(data, &mut args) else {
        return;
    };
    let command = args.command(&data[..used]);
    let Some(spec) = TABLE.find_command(command) else {
        return;
    };
    let rewriter = rewriter();
    let mut written = Vec::new();
    rewriter.command(spec, command, &mut written);

    let mut read = Args::new();
    let next = parser().next(&written, &mut read);
    if next == Ok(Next::Large) {
        return;
    }
    assert_eq!(
        next,
        Ok(Next::Command {
            used: written.len()
        })
    );
    let mut after: Vec<&[u8]> = read.command(&written).args().collect();
    // What has been added.
    match spec.name() {
        b"scan" if command.argc() > 1 => {
            assert_eq!(after.drain(2..4).next(), Some(&b"MATCH"[..]));
        }
        b"pubsub|channels" | b"pubsub|shardchannels" if command.argc() == 2 => {
            assert!(after.pop().is_some());
        }
        b"client|tracking" => after.truncate(command.argc()),
        _ => {}
    }
    assert_eq!(after.len(), command.argc());
    let roles = roles(spec, command.args());
    for ((role, arg), written) in roles.iter().zip(command.args()).zip(after) {
        check_rewritten(&rewriter, *role, arg, written);
    }

    if spec.name() != b"client|tracking" {
        let mut streamed = Vec::new();
        let mut stream = rewriter.stream(spec, command.argc(), &mut streamed);
        for arg in command.args() {
            stream.arg(&rewriter, arg, &mut streamed);
        }
        stream.end(&rewriter, &mut streamed);
        assert_eq!(streamed, written, "streamed it is another");
    }
    let mut same = Vec::new();
    let identity = Rewriter::new(b"", 0).expect("no prefix");
    identity.command(spec, command, &mut same);
    assert_eq!(same, command.raw());
}

const TRANSFORMS: [Transform; 13] = [
    Transform::None,
    Transform::Key,
    Transform::Keys,
    Transform::Scan,
    Transform::KeyFirst,
    Transform::StreamKeys,
    Transform::Channels,
    Transform::ChannelCounts,
    Transform::ShardChannels,
    Transform::ShardChannelCounts,
    Transform::TrackingInfo,
    Transform::Libraries,
    Transform::LibraryName,
];

/// Replies and messages on their way to the client: what comes out is one reply; without a prefix it is the same.
pub fn redis_strip(data: &[u8]) {
    let Some((which, reply)) = data.split_first() else {
        return;
    };
    let transform = TRANSFORMS[usize::from(*which) % TRANSFORMS.len()];
    let is_reply = Scanner::new().scan(reply) == Ok(Scan::End(reply.len()));
    let rewriter = rewriter();
    let identity = Rewriter::new(b"", 0).expect("no prefix");
    let apply = |rewriter: &Rewriter, how: usize, out: &mut Vec<u8>| match how {
        0 => rewriter.reply(transform, reply, out).is_ok(),
        1 => rewriter.exec([transform; 8], reply, out).is_ok(),
        _ => rewriter.message(reply, out).is_ok(),
    };
    for how in 0..3 {
        let mut out = Vec::new();
        if apply(&rewriter, how, &mut out) {
            assert!(is_reply, "half a reply is none");
            assert_eq!(Scanner::new().scan(&out), Ok(Scan::End(out.len())));
        }
        let mut same = Vec::new();
        if apply(&identity, how, &mut same) {
            assert_eq!(same, reply);
        }
    }
}
