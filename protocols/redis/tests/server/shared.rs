//! Two tenants' worth of commands: on a database of one's own and on a shared server behind a prefix every command must answer the
//! same, though the native user may touch nothing but the prefix.

use protocol_redis::command::Table;
use protocol_redis::reply::{Kind, Value, write};
use protocol_redis::request::{Args, Parser};
use protocol_redis::rewrite::{Rewriter, Transform};

use crate::corpus::{self, SORTS, TEMPLATES};
use crate::server::{Client, Dice, Server, show};

struct Tenant {
    own: Client,
    shared: Client,
    rewriter: Rewriter,
    table: Table,
}

impl Tenant {
    fn new(server: &Server, user: &str, version: &str) -> Self {
        let mut own = server.connect();
        own.must(&format!("HELLO {version}"));
        let mut shared = server.connect();
        shared.must(&format!("HELLO {version} AUTH {user} pw"));
        shared.must("SELECT 5");
        Self {
            own,
            shared,
            rewriter: Rewriter::new(b"t:", 5).unwrap(),
            table: server.table(),
        }
    }

    /// Both answers: the own server's and, with the prefix taken away, the shared one's.
    fn both(&mut self, line: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let own = {
            let args: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
            self.own.call(&args)
        };
        let transform = self.send(line);
        let reply = self.shared.reply();
        let mut stripped = Vec::new();
        self.rewriter
            .reply(transform, &reply, &mut stripped)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", shown(line), show(&reply)));
        (own, stripped)
    }

    /// Sends the line as the shared server is to see it.
    fn send(&mut self, line: &[Vec<u8>]) -> Transform {
        let mut bytes = Vec::new();
        let args: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
        write::command(&mut bytes, &args);
        let mut parser = Parser::new();
        parser.set_authenticated(true);
        let mut args = Args::new();
        parser.next(&bytes, &mut args).unwrap();
        let command = args.command(&bytes);
        let spec = self.table.find_command(command).unwrap();
        let mut out = Vec::new();
        self.rewriter.command(spec, command, &mut out);
        self.shared.send(&out);
        spec.transform()
    }
}

fn shown(line: &[Vec<u8>]) -> String {
    line.iter()
        .map(|arg| show(arg))
        .collect::<Vec<_>>()
        .join(" ")
}

/// An answer in which the order of keys and of a set's members, which is the server's affair, does not show.
fn ordered(value: Value<'_>, sort: bool) -> String {
    let Value::Items(kind, items) = value else {
        return format!("{value:?}");
    };
    let mut all: Vec<_> = items.map(|item| ordered(item.unwrap(), sort)).collect();
    if sort && kind != Kind::Map {
        all.sort();
    }
    format!("{kind:?} {all:?}")
}

fn compare(tenant: &mut Tenant, line: &[Vec<u8>]) {
    const UNORDERED: &[&[u8]] = &[
        b"keys",
        b"scan",
        b"sunion",
        b"sinter",
        b"sdiff",
        b"smembers",
        b"spop",
        b"sscan",
    ];
    let (own, shared) = tenant.both(line);
    let sort = UNORDERED.contains(&line[0].as_slice());
    let ordered = |reply| ordered(Value::parse(reply).unwrap(), sort);
    assert_eq!(ordered(&own), ordered(&shared), "{}", shown(line));
}

fn run(user: &str, version: &str, templates: &[&str], seed: u64) {
    let server = Server::start();
    let mut admin = server.connect();
    admin.must("ACL SETUSER limited on >pw ~t:* resetchannels &t:* +@all");
    admin.must("ACL SETUSER full on >pw ~* allchannels +@all");
    admin.call(&[
        b"FUNCTION",
        b"LOAD",
        b"#!lua name=l\nredis.register_function{function_name='echo',callback=function(keys,args) return {#keys,args[1],redis.call('get',keys[1])} end,flags={'no-writes'}}",
    ]);
    let mut tenant = Tenant::new(&server, user, version);
    let mut dice = Dice(seed);
    for _ in 0..12_000 {
        let line = corpus::line(dice.pick(templates), &mut dice);
        if tenant.table.find(&line[0], None).is_none() {
            continue;
        }
        compare(&mut tenant, &line);
    }
    // What the tenant has, it has behind the prefix and nowhere else.
    let size = |client: &mut Client, number| {
        client.must(&format!("SELECT {number}"));
        client.must("DBSIZE")
    };
    assert_eq!(size(&mut admin, 0), size(&mut admin, 5));
    let keys = admin.must("KEYS *");
    for key in Value::parse(&keys).unwrap().items().unwrap() {
        assert!(key.unwrap().string().unwrap().starts_with(b"t:"));
    }
    // A key at random is one that there is.
    for _ in 0..10 {
        let (_, key) = tenant.both(&[b"randomkey".to_vec()]);
        if let Some(key) = Value::parse(&key).unwrap().string() {
            assert_eq!(tenant.own.call(&[b"EXISTS", key]), b":1\r\n");
        }
    }
}

#[test]
fn answers_are_the_same_in_resp2() {
    run("limited", "2", TEMPLATES, 0x1234_5678_9abc_def1);
}

#[test]
fn answers_are_the_same_in_resp3() {
    run("limited", "3", TEMPLATES, 0xabcd_ef01_2345_6789);
}

#[test]
fn sorting_by_other_keys_answers_the_same() {
    let templates = [TEMPLATES, SORTS, SORTS, SORTS, SORTS, SORTS].concat();
    run("full", "2", &templates, 0x5eed_5eed_5eed_5eed);
}

#[test]
fn transactions_answer_the_same() {
    let server = Server::start();
    server
        .connect()
        .must("ACL SETUSER limited on >pw ~t:* resetchannels &t:* +@all");
    for version in ["2", "3"] {
        let mut tenant = Tenant::new(&server, "limited", version);
        let mut dice = Dice(0x7777_1234_7777_4321);
        for _ in 0..300 {
            tenant.own.must("MULTI");
            tenant.shared.must("MULTI");
            let mut transforms = Vec::new();
            let mut lines = Vec::new();
            for _ in 0..dice.below(6) {
                let line = corpus::line(dice.pick(TEMPLATES), &mut dice);
                // Order is not compared, and watching is not allowed there.
                let skipped: [&[u8]; 10] = [
                    b"keys",
                    b"scan",
                    b"watch",
                    b"sunion",
                    b"sinter",
                    b"sdiff",
                    b"smembers",
                    b"spop",
                    b"sscan",
                    b"fcall",
                ];
                let unknown = tenant.table.find(&line[0], None).is_none();
                if unknown || skipped.contains(&line[0].as_slice()) {
                    continue;
                }
                let args: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
                let queued = tenant.own.call(&args);
                let transform = tenant.send(&line);
                assert_eq!(queued, tenant.shared.reply(), "{}", shown(&line));
                transforms.push(transform);
                lines.push(shown(&line));
            }
            let own = tenant.own.call(&[b"EXEC"]);
            let reply = tenant.shared.call(&[b"EXEC"]);
            let mut stripped = Vec::new();
            tenant
                .rewriter
                .exec(transforms, &reply, &mut stripped)
                .unwrap();
            assert_eq!(show(&own), show(&stripped), "{lines:#?}");
        }
    }
}
