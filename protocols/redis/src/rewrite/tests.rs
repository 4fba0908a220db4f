use super::*;
use crate::command::{Role, Table};
use crate::reply::write;
use crate::request::{Args, Next, Parser};
use proptest::prelude::*;

const REPLY: &[u8] = include_bytes!("../../testdata/command-7.0.resp3");

fn table() -> Table {
    Table::from_reply(REPLY).expect("a table")
}

fn rewriter() -> Rewriter {
    Rewriter::new(b"t[1:", 7).expect("a prefix")
}

fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    write::command(&mut out, args);
    out
}

/// The arguments of the one command that `bytes` are.
fn decode(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut args = Args::new();
    let mut parser = Parser::new();
    parser.set_authenticated(true);
    assert_eq!(
        parser.next(bytes, &mut args),
        Ok(Next::Command { used: bytes.len() })
    );
    args.command(bytes).args().map(<[u8]>::to_vec).collect()
}

fn rewrite(rewriter: &Rewriter, table: &Table, args: &[&[u8]]) -> Vec<u8> {
    let bytes = encode(args);
    let mut parsed = Args::new();
    let mut parser = Parser::new();
    parser.set_authenticated(true);
    parser.next(&bytes, &mut parsed).expect("a command");
    let command = parsed.command(&bytes);
    let spec = table.find_command(command).expect("a known command");
    let mut out = b"before".to_vec();
    rewriter.command(spec, command, &mut out);
    out.split_off(6)
}

/// As [`rewrite`], argument by argument; those that `large` says as if they were large.
fn stream(
    rewriter: &Rewriter,
    table: &Table,
    args: &[&[u8]],
    large: impl Fn(usize) -> bool,
) -> Vec<u8> {
    let spec = table.find(args[0], args.get(1).copied()).expect("known");
    let mut out = Vec::new();
    let mut stream = rewriter.stream(spec, args.len(), &mut out);
    for (index, arg) in args.iter().enumerate() {
        match large(index) {
            true => {
                stream.large(rewriter, arg.len() as u64, &mut out);
                out.extend_from_slice(arg);
                out.extend_from_slice(b"\r\n");
            }
            false => {
                stream.arg(rewriter, arg, &mut out);
            }
        }
    }
    stream.end(rewriter, &mut out);
    out
}

/// What goes behind an argument that is still coming waits for its end.
#[test]
fn a_cursor_may_be_large() {
    let table = table();
    for args in [&[&b"scan"[..], b"0"][..], &[b"scan", b"0", b"match", b"a*"]] {
        let whole = rewrite(&rewriter(), &table, args);
        assert_eq!(stream(&rewriter(), &table, args, |index| index == 1), whole);
    }
}

/// What a line becomes, its words joined by spaces.
fn rewritten(line: &str) -> String {
    let table = table();
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let out = rewrite(&rewriter(), &table, &args);
    // Those whose end depends on all of their arguments are small.
    if !line.starts_with("client") {
        assert_eq!(stream(&rewriter(), &table, &args, |_| false), out, "{line}");
    }
    let identity = Rewriter::new(b"", 0).unwrap();
    assert_eq!(rewrite(&identity, &table, &args), encode(&args));
    assert_eq!(stream(&identity, &table, &args, |_| false), encode(&args));
    String::from_utf8(decode(&out).join(&b' ')).unwrap()
}

#[test]
fn keys_get_the_prefix() {
    assert_eq!(rewritten("get k"), "get t[1:k");
    assert_eq!(rewritten("get "), "get t[1:");
    assert_eq!(rewritten("get"), "get");
    assert_eq!(rewritten("mset a 1 b 2"), "mset t[1:a 1 t[1:b 2");
    assert_eq!(rewritten("set k k"), "set t[1:k k");
    assert_eq!(rewritten("ping k"), "ping k");
    assert_eq!(rewritten("eval s 1 k a"), "eval s 1 t[1:k a");
    assert_eq!(
        rewritten("sort l by w_* get # get d_*->f get x by nosort store d"),
        "sort t[1:l by t[1:w_* get # get t[1:d_*->f get x by nosort store t[1:d"
    );
    assert_eq!(
        rewritten("xread streams a b 0 0"),
        "xread streams t[1:a t[1:b 0 0"
    );
}

#[test]
fn patterns_get_the_prefix_as_a_pattern() {
    assert_eq!(rewritten("keys h?llo*"), r"keys t\[1:h?llo*");
    assert_eq!(rewritten("scan 0"), r"scan 0 MATCH t\[1:*");
    // The last one decides.
    assert_eq!(
        rewritten("scan 0 match a* count 5"),
        r"scan 0 MATCH t\[1:* match t\[1:a* count 5"
    );
    assert_eq!(rewritten("scan 0 match"), r"scan 0 MATCH t\[1:* match");
    assert_eq!(rewritten("scan"), "scan");
    assert_eq!(rewritten("sscan s 0 match a*"), "sscan t[1:s 0 match a*");
    assert_eq!(rewritten("pubsub channels"), r"pubsub channels t\[1:*");
    assert_eq!(
        rewritten("pubsub shardchannels"),
        r"pubsub shardchannels t\[1:*"
    );
    assert_eq!(rewritten("pubsub channels a?"), r"pubsub channels t\[1:a?");
    assert_eq!(rewritten("psubscribe a* *"), r"psubscribe t\[1:a* t\[1:*");
}

#[test]
fn channels_get_the_prefix() {
    assert_eq!(rewritten("publish c m"), "publish t[1:c m");
    assert_eq!(rewritten("subscribe a b"), "subscribe t[1:a t[1:b");
    assert_eq!(rewritten("unsubscribe"), "unsubscribe");
    assert_eq!(rewritten("spublish c m"), "spublish t[1:c m");
    assert_eq!(rewritten("pubsub numsub c"), "pubsub numsub t[1:c");
    assert_eq!(
        rewritten("subscribe __keyspace@0__:k"),
        "subscribe __keyspace@7__:t[1:k"
    );
    assert_eq!(
        rewritten("subscribe __keyevent@0__:del"),
        "subscribe __keyevent@7__:del"
    );
    assert_eq!(
        rewritten("psubscribe __keyspace@0__:*"),
        r"psubscribe __keyspace@7__:t\[1:*"
    );
    assert_eq!(
        rewritten("psubscribe __keyevent@0__:*"),
        "psubscribe __keyevent@7__:*"
    );
    // Of other databases than 0 a client knows nothing.
    assert_eq!(
        rewritten("subscribe __keyspace@7__:k"),
        "subscribe t[1:__keyspace@7__:k"
    );
}

#[test]
fn tracking_is_limited_to_the_prefix() {
    assert_eq!(rewritten("client tracking on"), "client tracking on");
    assert_eq!(
        rewritten("client tracking on bcast noloop"),
        "client tracking on bcast noloop PREFIX t[1:"
    );
    assert_eq!(
        rewritten("client tracking on bcast prefix a"),
        "client tracking on bcast prefix t[1:a"
    );
    assert_eq!(
        rewritten("client tracking on prefix bcast"),
        "client tracking on prefix t[1:bcast"
    );
    let args: [&[u8]; 4] = [b"client", b"tracking", b"on", b"bcast"];
    let streamed = decode(&stream(&rewriter(), &table(), &args, |_| false));
    assert_eq!(streamed[4..], [b"PREFIX".to_vec(), b"t[1:".to_vec()]);
}

#[test]
fn large_arguments_get_the_prefix() {
    let table = table();
    let args: [&[u8]; 5] = [b"MSET", b"a", b"1", b"b", b"2"];
    let whole = rewrite(&rewriter(), &table, &args);
    for large in 0..32 {
        assert_eq!(
            stream(&rewriter(), &table, &args, |index| large & (1 << index)
                != 0),
            whole
        );
    }
}

#[test]
fn prefixes_that_cannot_be() {
    assert_eq!(Rewriter::new(b"a*", 1).err(), Some(PrefixError::Star));
    assert_eq!(
        Rewriter::new(b"__keyspace@1__:", 1).err(),
        Some(PrefixError::Underscores)
    );
}

fn strip(transform: Transform, reply: &str) -> Result<String, RewriteError> {
    let mut out = Vec::new();
    rewriter().reply(transform, reply.as_bytes(), &mut out)?;
    let mut same = Vec::new();
    let identity = Rewriter::new(b"", 0).unwrap();
    identity
        .reply(transform, reply.as_bytes(), &mut same)
        .unwrap();
    assert_eq!(same, reply.as_bytes());
    Ok(String::from_utf8(out).unwrap())
}

fn check_strip(transform: Transform, reply: &str, expected: &str) {
    assert_eq!(strip(transform, reply).unwrap(), expected);
}

#[test]
fn replies_lose_the_prefix_where_keys_are() {
    check_strip(Transform::None, "$5\r\nt[1:k\r\n", "$5\r\nt[1:k\r\n");
    check_strip(Transform::Key, "$5\r\nt[1:k\r\n", "$1\r\nk\r\n");
    check_strip(Transform::Key, "$-1\r\n", "$-1\r\n");
    check_strip(Transform::Key, "_\r\n", "_\r\n");
    check_strip(
        Transform::Keys,
        "*2\r\n$4\r\nt[1:\r\n$9\r\nt[1:t[1:k\r\n",
        "*2\r\n$0\r\n\r\n$5\r\nt[1:k\r\n",
    );
    check_strip(Transform::Keys, "*0\r\n", "*0\r\n");
    check_strip(
        Transform::Scan,
        "*2\r\n$5\r\nt[1:9\r\n*1\r\n$5\r\nt[1:k\r\n",
        "*2\r\n$5\r\nt[1:9\r\n*1\r\n$1\r\nk\r\n",
    );
    check_strip(
        Transform::KeyFirst,
        "*2\r\n$5\r\nt[1:k\r\n$5\r\nt[1:v\r\n",
        "*2\r\n$1\r\nk\r\n$5\r\nt[1:v\r\n",
    );
    check_strip(Transform::KeyFirst, "*-1\r\n", "*-1\r\n");
    check_strip(
        Transform::KeyFirst,
        "*2\r\n$5\r\nt[1:k\r\n*1\r\n$5\r\nt[1:v\r\n",
        "*2\r\n$1\r\nk\r\n*1\r\n$5\r\nt[1:v\r\n",
    );
    let entries = "*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$5\r\nt[1:f\r\n$5\r\nt[1:v\r\n";
    check_strip(
        Transform::StreamKeys,
        &format!("*1\r\n*2\r\n$5\r\nt[1:k\r\n{entries}"),
        &format!("*1\r\n*2\r\n$1\r\nk\r\n{entries}"),
    );
    check_strip(
        Transform::StreamKeys,
        &format!("%1\r\n$5\r\nt[1:k\r\n{entries}"),
        &format!("%1\r\n$1\r\nk\r\n{entries}"),
    );
    check_strip(
        Transform::Channels,
        "*2\r\n$5\r\nt[1:c\r\n$20\r\n__keyspace@7__:t[1:k\r\n",
        "*2\r\n$1\r\nc\r\n$16\r\n__keyspace@0__:k\r\n",
    );
    check_strip(
        Transform::ChannelCounts,
        "*2\r\n$5\r\nt[1:c\r\n:1\r\n",
        "*2\r\n$1\r\nc\r\n:1\r\n",
    );
    check_strip(
        Transform::TrackingInfo,
        "%2\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n$8\r\nprefixes\r\n*1\r\n$5\r\nt[1:k\r\n",
        "%2\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n$8\r\nprefixes\r\n*1\r\n$1\r\nk\r\n",
    );
    // With attributes in front.
    check_strip(
        Transform::Keys,
        "|1\r\n$5\r\nt[1:a\r\n:1\r\n*1\r\n|1\r\n+b\r\n:2\r\n$5\r\nt[1:k\r\n",
        "|1\r\n$5\r\nt[1:a\r\n:1\r\n*1\r\n|1\r\n+b\r\n:2\r\n$1\r\nk\r\n",
    );
}

#[test]
fn foreign_keys_do_not_pass() {
    let foreign = Err(RewriteError::Foreign);
    assert_eq!(strip(Transform::Key, "$4\r\nt2:k\r\n"), foreign);
    assert_eq!(
        strip(Transform::Keys, "*2\r\n$5\r\nt[1:k\r\n$1\r\nk\r\n"),
        foreign
    );
    assert_eq!(
        strip(Transform::Channels, "*1\r\n$20\r\n__keyspace@7__:t[2:k\r\n"),
        foreign
    );
    assert_eq!(
        strip(Transform::Channels, "*1\r\n$20\r\n__keyspace@8__:t[1:k\r\n"),
        foreign
    );
}

#[test]
fn replies_of_another_form_do_not_pass() {
    let mut out = Vec::new();
    for (transform, reply) in [
        (Transform::Key, ":1\r\n"),
        (Transform::Keys, "+OK\r\n"),
        (Transform::Scan, "*1\r\n*0\r\n"),
        (Transform::KeyFirst, "*0\r\n"),
        (Transform::StreamKeys, "*1\r\n$5\r\nt[1:k\r\n"),
        (Transform::Key, "$5\r\nt[1:k"),
        (Transform::None, "+OK\r\n+OK\r\n"),
        (Transform::Keys, "*3\r\n$5\r\nt[1:k\r\n"),
        (Transform::ChannelCounts, "*3\r\n$5\r\nt[1:k\r\n:1\r\n"),
        (Transform::TrackingInfo, "*3\r\n+flags\r\n*0\r\n"),
    ] {
        assert!(
            rewriter()
                .reply(transform, reply.as_bytes(), &mut out)
                .is_err(),
            "{reply:?}"
        );
    }
}

#[test]
fn errors_lose_the_prefix_where_keys_are() {
    let key = "-NOGROUP No such key 't[1:k' or consumer group 't[1:g' in XREADGROUP with GROUP option\r\n";
    let stripped =
        "-NOGROUP No such key 'k' or consumer group 't[1:g' in XREADGROUP with GROUP option\r\n";
    check_strip(Transform::StreamKeys, key, stripped);
    check_strip(Transform::None, key, stripped);
    check_strip(
        Transform::None,
        "-NOGROUP No such consumer group 't[1:g' for key name 't[1:k'\r\n",
        "-NOGROUP No such consumer group 't[1:g' for key name 'k'\r\n",
    );
    check_strip(
        Transform::None,
        "!36\r\nERR can't access the 't[1:k' key, ok\r\n",
        "!32\r\nERR can't access the 'k' key, ok\r\n",
    );
    check_strip(Transform::Keys, "-ERR 't[1:k'\r\n", "-ERR 't[1:k'\r\n");
}

#[test]
fn transactions_are_stripped_command_by_command() {
    let exec = |transforms: &[Transform], reply: &str| {
        let mut out = Vec::new();
        rewriter()
            .exec(transforms.iter().copied(), reply.as_bytes(), &mut out)
            .map(|()| String::from_utf8(out).unwrap())
    };
    let reply = "*3\r\n$5\r\nt[1:k\r\n$5\r\nt[1:k\r\n-NOGROUP No such key 't[1:k'\r\n";
    let transforms = [Transform::None, Transform::Key, Transform::Scan];
    assert_eq!(
        exec(&transforms, reply).unwrap(),
        "*3\r\n$5\r\nt[1:k\r\n$1\r\nk\r\n-NOGROUP No such key 'k'\r\n"
    );
    assert!(exec(&transforms[..2], reply).is_err());
    assert_eq!(exec(&transforms, "*-1\r\n").unwrap(), "*-1\r\n");
    // What is ours is left out, and what stands for an integer is one.
    let ours = [
        Transform::Hidden,
        Transform::Integer,
        Transform::Hidden,
        Transform::Integer,
    ];
    assert_eq!(
        exec(
            &ours,
            "*4\r\n-ERR x\r\n+9007199254740993\r\n*1\r\n$1\r\na\r\n:5\r\n"
        )
        .unwrap(),
        "*2\r\n:9007199254740993\r\n:5\r\n"
    );
    assert_eq!(exec(&ours, "*-1\r\n").unwrap(), "*-1\r\n");
    assert!(exec(&ours, "*1\r\n:1\r\n").is_err());
    assert_eq!(
        exec(&transforms, "-EXECABORT x\r\n").unwrap(),
        "-EXECABORT x\r\n"
    );
}

fn message(parts: &[&str]) -> Result<Vec<String>, RewriteError> {
    let mut found = Vec::new();
    for version in [write::Version::Resp2, write::Version::Resp3] {
        let mut bytes = Vec::new();
        write::push_header(&mut bytes, version, parts.len());
        for part in parts {
            match part.split_once(' ') {
                Some(("keys", keys)) => {
                    let keys: Vec<_> = keys.split(' ').collect();
                    write::array_header(&mut bytes, keys.len());
                    keys.iter()
                        .for_each(|key| write::bulk(&mut bytes, key.as_bytes()));
                }
                _ if *part == "null" => write::null(&mut bytes, version),
                _ => write::bulk(&mut bytes, part.as_bytes()),
            }
        }
        let mut out = Vec::new();
        rewriter().message(&bytes, &mut out)?;
        let mut tokens = crate::reply::Tokens::new(&out);
        let mut text = Vec::new();
        while !tokens.rest().is_empty() {
            text.push(match tokens.token().unwrap() {
                crate::reply::Token::Bulk(_, bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                crate::reply::Token::Null => "null".into(),
                crate::reply::Token::Aggregate(_, count) => count.to_string(),
                other => panic!("{other:?}"),
            });
        }
        found.push(text);
    }
    assert_eq!(found[0], found[1]);
    Ok(found.swap_remove(0).split_off(1))
}

#[test]
fn messages() {
    assert_eq!(
        message(&["message", "t[1:c", "t[1:m"]).unwrap(),
        ["message", "c", "t[1:m"]
    );
    assert_eq!(
        message(&["smessage", "t[1:c", "t[1:m"]).unwrap(),
        ["smessage", "c", "t[1:m"]
    );
    assert_eq!(
        message(&["pmessage", r"t\[1:*", "t[1:c", "m"]).unwrap(),
        ["pmessage", "*", "c", "m"]
    );
    assert_eq!(
        message(&["message", "__keyspace@7__:t[1:k", "t[1:del"]).unwrap(),
        ["message", "__keyspace@0__:k", "t[1:del"]
    );
    assert_eq!(
        message(&["message", "__keyevent@7__:del", "t[1:k"]).unwrap(),
        ["message", "__keyevent@0__:del", "k"]
    );
    assert_eq!(
        message(&[
            "pmessage",
            r"__keyspace@7__:t\[1:*",
            "__keyspace@7__:t[1:k",
            "del"
        ])
        .unwrap(),
        ["pmessage", "__keyspace@0__:*", "__keyspace@0__:k", "del"]
    );
    assert_eq!(
        message(&[
            "pmessage",
            "__keyevent@7__:*",
            "__keyevent@7__:del",
            "t[1:k"
        ])
        .unwrap(),
        ["pmessage", "__keyevent@0__:*", "__keyevent@0__:del", "k"]
    );
    assert_eq!(
        message(&["subscribe", "t[1:c", "1"]).unwrap(),
        ["subscribe", "c", "1"]
    );
    assert_eq!(
        message(&["unsubscribe", "null", "0"]).unwrap(),
        ["unsubscribe", "null", "0"]
    );
    assert_eq!(
        message(&["punsubscribe", r"t\[1:a*", "0"]).unwrap(),
        ["punsubscribe", "a*", "0"]
    );
    assert_eq!(
        message(&["ssubscribe", "t[1:c", "1"]).unwrap(),
        ["ssubscribe", "c", "1"]
    );
    assert_eq!(
        message(&["invalidate", "keys t[1:a t[1:b"]).unwrap(),
        ["invalidate", "2", "a", "b"]
    );
    assert_eq!(
        message(&["invalidate", "null"]).unwrap(),
        ["invalidate", "null"]
    );
    assert_eq!(
        message(&["message", "__redis__:invalidate", "keys t[1:a"]).unwrap(),
        ["message", "__redis__:invalidate", "1", "a"]
    );
    assert_eq!(message(&["pong", "t[1:x"]).unwrap(), ["pong", "t[1:x"]);
    let foreign = Err(RewriteError::Foreign);
    assert_eq!(message(&["message", "t[2:c", "m"]), foreign);
    assert_eq!(
        message(&["message", "__keyevent@7__:del", "t[2:k"]),
        foreign
    );
    assert_eq!(
        message(&["message", "__keyevent@8__:del", "t[1:k"]),
        foreign
    );
    assert_eq!(message(&["invalidate", "keys t[2:a"]), foreign);
    assert!(message(&["something", "t[1:a"]).is_err());
}

#[test]
fn patterns_know_where_their_messages_come_from() {
    let rewriter = rewriter();
    assert_eq!(
        rewriter.base_patterns(),
        [
            &br"t\[1:*"[..],
            br"__keyspace@7__:t\[1:*",
            b"__keyevent@7__:*"
        ]
    );
    let bases = |pattern: &str| {
        let it = rewriter.bases_for(pattern.as_bytes());
        [it.channels, it.keyspace, it.keyevent]
    };
    assert_eq!(bases("*"), [true, true, true]);
    assert_eq!(bases("news.*"), [true, false, false]);
    assert_eq!(bases("__key*__:*"), [true, true, true]);
    assert_eq!(bases("__keyspace@*"), [true, true, false]);
    assert_eq!(bases("__keyspace@0__:*"), [false, true, false]);
    assert_eq!(bases(r"__keyspace\@0__:user*"), [false, true, false]);
    assert_eq!(bases("__keyevent@0__:*"), [false, false, true]);
    assert_eq!(bases("__keyevent@0__:del"), [false, false, true]);
}

#[test]
fn globs() {
    for (pattern, text, expected) in [
        ("", "", true),
        ("", "a", false),
        ("a", "a", true),
        ("*", "", true),
        ("*", "anything", true),
        ("h?llo", "hello", true),
        ("h?llo", "hllo", false),
        ("h*llo", "heeeello", true),
        ("h[ae]llo", "hallo", true),
        ("h[^e]llo", "hello", false),
        ("h[^e]llo", "hbllo", true),
        ("h[a-b]llo", "hcllo", false),
        ("h[b-a]llo", "hbllo", true),
        (r"h\*llo", "h*llo", true),
        (r"h\*llo", "hello", false),
        (r"[\]]", "]", true),
        ("[abc", "c", true),
        ("*a*b*c", "xxaxxbxxc", true),
        ("*a*b*c", "xxaxxbxx", false),
        ("a**", "a", true),
        ("[]a", "a", false),
        (r"\", r"\", true),
    ] {
        let found = glob::matches(pattern.as_bytes(), text.as_bytes());
        assert_eq!(found, expected, "{pattern} {text}");
    }
    // Naively this takes longer than anybody has.
    let pattern = b"a*".repeat(200);
    assert!(!glob::matches(
        &[&pattern[..], b"b"].concat(),
        &[b'a'; 20_000]
    ));
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![
            "streams",
            "STORE",
            "storedist",
            "by",
            "GET",
            "limit",
            "keys",
            "match",
            "count",
            "prefix",
            "bcast",
            "block",
            "group",
            "auth",
            "auth2",
            "redirect",
            "#",
            "*",
            "w_*",
            "0",
            "1",
            "2",
            "-1",
            "__keyspace@0__:x",
            "__keyevent@0__:del",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ]
}

/// A command of the table and arguments that look like some that matter.
fn line() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let names: Vec<_> = table()
        .specs()
        .iter()
        .filter(|it| !it.has_subcommands)
        .map(|it| {
            it.name()
                .split(|byte| *byte == b'|')
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        })
        .collect();
    let name = prop::sample::select(names);
    (name, prop::collection::vec(word(), 0..10)).prop_map(|(name, words)| [name, words].concat())
}

/// The line before it was rewritten: without the prefix wherever an argument carries it.
fn original(table: &Table, written: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let spec = table
        .find(&written[0], written.get(1).map(Vec::as_slice))
        .unwrap();
    let mut walker = spec.walk(written.len());
    let rewriter = rewriter();
    written
        .iter()
        .map(|arg| {
            let strip = |edit: Option<prefix::Edit<'_>>| {
                let edit = edit.expect("it carries the prefix");
                [edit.head, &arg[edit.drop..]].concat()
            };
            match walker.next(Some(arg)) {
                Role::Other => arg.clone(),
                Role::SortBy | Role::SortGet if !arg.contains(&b'*') => arg.clone(),
                Role::Key(_)
                | Role::ShardChannel
                | Role::SortBy
                | Role::SortGet
                | Role::TrackingPrefix => rewriter
                    .client_key(arg)
                    .expect("it carries the prefix")
                    .to_vec(),
                Role::KeyPattern | Role::ShardPattern => arg
                    .strip_prefix(br"t\[1:")
                    .expect("it carries the prefix")
                    .to_vec(),
                Role::Channel => strip(rewriter.edit_back(arg)),
                Role::ChannelPattern => strip(rewriter.edit_pattern_back(arg)),
            }
        })
        .collect()
}

proptest! {
    #[test]
    fn every_key_carries_the_prefix_and_nothing_else_changes(line in line(), large: u16) {
        let table = table();
        let args: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
        let written = rewrite(&rewriter(), &table, &args);
        let mut back = original(&table, &decode(&written));
        // What has been added.
        let spec = table.find(args[0], args.get(1).copied()).unwrap();
        match spec.name() {
            b"scan" if args.len() > 1 => { back.drain(2..4); }
            b"pubsub|channels" | b"pubsub|shardchannels" if args.len() == 2 => { back.pop(); }
            b"client|tracking" => back.truncate(args.len()),
            _ => {}
        }
        // An empty key of MIGRATE is none, and a prefix alone is one.
        if spec.name() != b"migrate" {
            prop_assert_eq!(&back, &line);
        }
        if spec.name() != b"client|tracking" {
            prop_assert_eq!(&stream(&rewriter(), &table, &args, |_| false), &written);
        }
        // Arguments that are withheld are no keywords; what comes of it is a command with the same arguments all the same.
        let large = |index: usize| large & (1 << (index % 16)) != 0;
        prop_assert!(decode(&stream(&rewriter(), &table, &args, large)).len() >= args.len());
    }

    #[test]
    fn any_reply_is_rewritten_or_refused(reply: Vec<u8>) {
        let mut out = Vec::new();
        for transform in [Transform::Keys, Transform::Scan, Transform::StreamKeys, Transform::TrackingInfo, Transform::Libraries] {
            let _ = rewriter().reply(transform, &reply, &mut out);
        }
        let _ = rewriter().message(&reply, &mut out);
    }

    #[test]
    fn escaped_text_matches_itself_alone(text: Vec<u8>, other: Vec<u8>) {
        let mut pattern = Vec::new();
        glob::escape(&text, &mut pattern);
        prop_assert!(glob::matches(&pattern, &text));
        prop_assert_eq!(glob::matches(&pattern, &other), text == other);
        prop_assert_eq!(glob::literal_head(&pattern), text);
    }

    #[test]
    fn what_matches_begins_as_it_must(pattern in "[ab*?\\[\\]\\\\^-]{0,8}", text in "[ab-]{0,8}") {
        if glob::matches(pattern.as_bytes(), text.as_bytes()) {
            prop_assert!(text.as_bytes().starts_with(&glob::literal_head(pattern.as_bytes())));
        }
    }
}
