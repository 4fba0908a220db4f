//! Seeds for the targets of Redis.

use protocol_redis::reply::write::{self, Version};

use super::Seed;

pub(super) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    seeds.extend(requests());
    seeds.extend(replies());
    seeds.extend(rewrites());
    seeds.extend(strips());
    seeds.push(("redis_table", "seven", table()));
    seeds
}

fn command(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let mut out = Vec::new();
    write::command(&mut out, &words);
    out
}

/// The first byte is the length of the pieces.
fn requests() -> Vec<Seed> {
    let pipeline = [
        b"\x03".to_vec(),
        command("SET key value"),
        b"*0\r\nPING\r\n  get \"a\\x00\\n\" 'b'\r\n*-1\r\n".to_vec(),
        command("QUIT"),
    ]
    .concat();
    let large = b"\x10*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$70000\r\nvalue".to_vec();
    let small = [b"\x02".to_vec(), command("MSET a 1 b ")].concat();
    vec![
        ("redis_request", "pipeline", pipeline),
        ("redis_request", "large", large.clone()),
        ("redis_stream", "large", large),
        ("redis_stream", "small", small),
    ]
}

fn replies() -> Vec<Seed> {
    let reply = |version| {
        let mut out = b"\x05".to_vec();
        write::ok(&mut out);
        write::error(&mut out, b"ERR no");
        write::map_header(&mut out, version, 2);
        write::bulk(&mut out, b"key");
        write::integer(&mut out, -12);
        write::null(&mut out, version);
        write::set_header(&mut out, version, 2);
        write::double(&mut out, version, 1.5);
        write::boolean(&mut out, version, true);
        write::verbatim(&mut out, version, b"text");
        write::big_number(&mut out, version, b"123456789012345678901234567890");
        write::bulk_error(&mut out, version, b"ERR long");
        write::push_header(&mut out, version, 1);
        write::null_array(&mut out, version);
        out
    };
    let mut attribute = reply(Version::Resp3);
    attribute.extend_from_slice(b"|1\r\n+ttl\r\n:3600\r\n*1\r\n|0\r\n$0\r\n\r\n");
    vec![
        ("redis_reply", "resp2", reply(Version::Resp2)),
        ("redis_reply", "resp3", attribute),
    ]
}

fn rewrites() -> Vec<Seed> {
    [
        ("key", "GET k"),
        ("pairs", "MSET a 1 b 2"),
        ("script", "EVAL return 2 a b c"),
        ("sort", "SORT l BY w_* GET # GET d_*->f LIMIT 0 5 STORE d"),
        ("streams", "XREADGROUP GROUP g c COUNT 2 STREAMS a b > >"),
        ("places", "GEORADIUS g 15 37 200 km COUNT 1 STORE d"),
        ("union", "ZUNIONSTORE d 2 a b WEIGHTS 1 2"),
        ("scan", "SCAN 0 COUNT 10 MATCH a*"),
        (
            "channels",
            "SUBSCRIBE a __keyspace@0__:k __keyevent@0__:del",
        ),
        ("patterns", "PSUBSCRIBE a* __keyspace@0__:*"),
        ("names", "PUBSUB CHANNELS"),
        ("tracking", "CLIENT TRACKING ON BCAST PREFIX a"),
        ("migrate", "MIGRATE h 1 k 0 9 COPY AUTH2 u p"),
    ]
    .map(|(name, line)| ("redis_rewrite", name, command(line)))
    .to_vec()
}

/// The first byte is the reply's kind.
fn strips() -> Vec<Seed> {
    let strings = |mark: u8, words: &[&str]| {
        let mut out = Vec::new();
        write::header(&mut out, mark, words.len());
        for word in words {
            write::bulk(&mut out, word.as_bytes());
        }
        out
    };
    let with = |kind: u8, rest: Vec<u8>| [vec![kind], rest].concat();
    let keys = strings(b'*', &["t[1:a", "t[1:b"]);
    let scan = [b"*2\r\n$1\r\n0\r\n".to_vec(), keys.clone()].concat();
    let stream = [b"%1\r\n$5\r\nt[1:s\r\n".to_vec(), strings(b'*', &["x"])].concat();
    let message = [
        "pmessage",
        "__keyevent@5__:*",
        "__keyevent@5__:del",
        "t[1:k",
    ];
    let error = b"-NOGROUP No such key 't[1:k' or consumer group 'g'\r\n".to_vec();
    [
        ("key", with(1, b"$5\r\nt[1:k\r\n".to_vec())),
        ("keys", with(2, keys.clone())),
        ("scan", with(3, scan)),
        ("first", with(4, keys)),
        ("streams", with(5, stream)),
        (
            "channels",
            with(6, strings(b'*', &["__keyspace@5__:t[1:k"])),
        ),
        (
            "tracking",
            with(10, b"%1\r\n+prefixes\r\n*1\r\n$5\r\nt[1:a\r\n".to_vec()),
        ),
        ("message", with(0, strings(b'>', &message))),
        (
            "invalidate",
            with(
                0,
                b">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\nt[1:k\r\n".to_vec(),
            ),
        ),
        ("error", with(0, error)),
    ]
    .map(|(name, bytes)| ("redis_strip", name, bytes))
    .to_vec()
}

/// Three commands: of today's form with subcommands, and of the form before 7.0.
fn table() -> Vec<u8> {
    let mut out = Vec::new();
    write::array_header(&mut out, 3);
    for (name, inside) in [("zunionstore", false), ("object", true)] {
        entry(&mut out, name, usize::from(inside));
        if inside {
            entry(&mut out, "object|encoding", 0);
        }
    }
    write::array_header(&mut out, 6);
    write::bulk(&mut out, b"mset");
    write::integer(&mut out, -3);
    write::array_header(&mut out, 1);
    write::simple(&mut out, b"write");
    for number in [1, -1, 2] {
        write::integer(&mut out, number);
    }
    out
}

/// A command with two descriptions of keys, up to its subcommands.
fn entry(out: &mut Vec<u8>, name: &str, subcommands: usize) {
    let version = Version::Resp3;
    write::array_header(out, 10);
    write::bulk(out, name.as_bytes());
    write::integer(out, -4);
    write::set_header(out, version, 1);
    write::simple(out, b"write");
    for number in [1, 1, 1] {
        write::integer(out, number);
    }
    write::set_header(out, version, 1);
    write::simple(out, b"@slow");
    write::array_header(out, 0);
    write::array_header(out, 2);
    let range: &[(&str, i64)] = &[("lastkey", 0), ("keystep", 1), ("limit", 0)];
    let keynum: &[(&str, i64)] = &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
    for (index, kind, fields) in [(1, "range", range), (2, "keynum", keynum)] {
        write::map_header(out, version, 3);
        write::bulk(out, b"flags");
        write::set_header(out, version, 1);
        write::simple(out, b"OW");
        write::bulk(out, b"begin_search");
        search(out, "index", &[("index", index)]);
        write::bulk(out, b"find_keys");
        search(out, kind, fields);
    }
    write::array_header(out, subcommands);
}

fn search(out: &mut Vec<u8>, kind: &str, fields: &[(&str, i64)]) {
    write::map_header(out, Version::Resp3, 2);
    write::bulk(out, b"type");
    write::bulk(out, kind.as_bytes());
    write::bulk(out, b"spec");
    write::map_header(out, Version::Resp3, fields.len());
    for (name, value) in fields {
        write::bulk(out, name.as_bytes());
        write::integer(out, *value);
    }
}
