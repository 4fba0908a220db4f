//! Messages, notifications and invalidations of a user who is limited to a prefix.

use protocol_redis::command::Table;
use protocol_redis::reply::{Tokens, Value, write};
use protocol_redis::request::{Args, Parser};
use protocol_redis::rewrite::{Rewriter, glob};

use crate::server::{Client, Server, show};

struct Tenant {
    client: Client,
    rewriter: Rewriter,
    table: Table,
}

impl Tenant {
    fn new(server: &Server, version: &str) -> Self {
        let mut admin = server.connect();
        let rewriter = Rewriter::new(b"t:", 5).unwrap();
        let mut rule: Vec<Vec<u8>> = [
            "ACL",
            "SETUSER",
            "limited",
            "on",
            ">pw",
            "~t:*",
            "+@all",
            "resetchannels",
        ]
        .map(|it| it.as_bytes().to_vec())
        .to_vec();
        rule.extend(rewriter.base_patterns().map(|it| [b"&", it].concat()));
        let rule: Vec<&[u8]> = rule.iter().map(Vec::as_slice).collect();
        assert_eq!(admin.call(&rule), b"+OK\r\n");
        let mut client = server.connect();
        client.must(&format!("HELLO {version} AUTH limited pw"));
        client.must("SELECT 5");
        Self {
            client,
            rewriter,
            table: server.table(),
        }
    }

    fn send(&mut self, line: &str) {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut bytes = Vec::new();
        write::command(&mut bytes, &args);
        let mut parser = Parser::new();
        parser.set_authenticated(true);
        let mut args = Args::new();
        parser.next(&bytes, &mut args).unwrap();
        let command = args.command(&bytes);
        let mut out = Vec::new();
        self.rewriter
            .command(self.table.find_command(command).unwrap(), command, &mut out);
        self.client.send(&out);
    }

    /// The next message: its strings and numbers, joined by spaces.
    fn message(&mut self) -> String {
        let reply = self.client.reply();
        let mut out = Vec::new();
        self.rewriter
            .message(&reply, &mut out)
            .unwrap_or_else(|error| panic!("{error}: {}", show(&reply)));
        words(&out)
    }
}

fn words(reply: &[u8]) -> String {
    let mut words = Vec::new();
    let mut tokens = Tokens::new(reply);
    while !tokens.rest().is_empty() {
        match tokens.token().unwrap() {
            protocol_redis::reply::Token::Bulk(_, text)
            | protocol_redis::reply::Token::Line(_, text) => words.push(show(text)),
            protocol_redis::reply::Token::Null => words.push("null".into()),
            protocol_redis::reply::Token::Aggregate(..) => {}
        }
    }
    words.join(" ")
}

#[test]
fn subscriptions_are_within_the_prefix() {
    for version in ["2", "3"] {
        let server = Server::start();
        let mut tenant = Tenant::new(&server, version);
        let mut admin = server.connect();
        tenant.send("subscribe c __keyspace@0__:k __keyevent@0__:del");
        assert_eq!(tenant.message(), "subscribe c 1");
        assert_eq!(tenant.message(), "subscribe __keyspace@0__:k 2");
        assert_eq!(tenant.message(), "subscribe __keyevent@0__:del 3");
        let shards = admin.version() >= 7;
        if shards {
            tenant.send("ssubscribe c");
            assert_eq!(tenant.message(), "ssubscribe c 1");
        }

        admin.must("PUBLISH c foreign");
        admin.must("PUBLISH t:c t:mine");
        assert_eq!(tenant.message(), "message c t:mine");
        if shards {
            admin.must("SPUBLISH t:c x");
            assert_eq!(tenant.message(), "smessage c x");
        }
        // Another database's keys, then this one's.
        admin.must("SET t:k v");
        admin.must("DEL t:k");
        admin.must("SELECT 5");
        admin.must("SET t:k v");
        assert_eq!(tenant.message(), "message __keyspace@0__:k set");
        admin.must("DEL t:k");
        assert_eq!(tenant.message(), "message __keyspace@0__:k del");
        assert_eq!(tenant.message(), "message __keyevent@0__:del k");
        // The names of channels, as others see them.
        let channels = admin.must("PUBSUB CHANNELS *");
        let transform = tenant
            .table
            .find(b"pubsub", Some(b"channels"))
            .unwrap()
            .transform();
        let mut out = Vec::new();
        tenant
            .rewriter
            .reply(transform, &channels, &mut out)
            .unwrap();
        let mut names: Vec<_> = words(&out).split(' ').map(str::to_owned).collect();
        names.sort();
        assert_eq!(names, ["__keyevent@0__:del", "__keyspace@0__:k", "c"]);

        tenant.send("unsubscribe c __keyspace@0__:k");
        assert_eq!(tenant.message(), "unsubscribe c 2");
        assert_eq!(tenant.message(), "unsubscribe __keyspace@0__:k 1");
        tenant.send("unsubscribe");
        assert_eq!(tenant.message(), "unsubscribe __keyevent@0__:del 0");
        tenant.send("unsubscribe");
        assert_eq!(tenant.message(), "unsubscribe null 0");
        if shards {
            tenant.send("sunsubscribe");
            assert_eq!(tenant.message(), "sunsubscribe c 0");
        }
    }
}

/// A user with three patterns hears all that any pattern of the client's may match.
#[test]
fn patterns_are_served_by_those_that_the_user_may_have() {
    let server = Server::start();
    let mut tenant = Tenant::new(&server, "3");
    let mut admin = server.connect();
    tenant.send("psubscribe a*");
    assert!(
        tenant.client.reply().starts_with(b"-NOPERM"),
        "the server compares patterns literally"
    );
    for (count, pattern) in (1..).zip(tenant.rewriter.base_patterns().map(<[u8]>::to_vec)) {
        let confirmed = tenant.client.call(&[b"PSUBSCRIBE", &pattern]);
        assert!(words(&confirmed).ends_with(&format!(" {count}")));
    }
    admin.must("SELECT 5");
    admin.must("PUBLISH t:abc m");
    admin.must("PUBLISH abc m");
    admin.must("SET t:k v");
    assert_eq!(tenant.message(), "pmessage * abc m");
    assert_eq!(
        tenant.message(),
        "pmessage __keyspace@0__:* __keyspace@0__:k set"
    );
    assert_eq!(
        tenant.message(),
        "pmessage __keyevent@0__:* __keyevent@0__:set k"
    );
    assert!(glob::matches(b"a*", b"abc"));
    assert!(glob::matches(b"__key*__:*", b"__keyspace@0__:k"));
}

#[test]
fn invalidations_name_the_clients_keys() {
    let server = Server::start();
    let mut tenant = Tenant::new(&server, "3");
    let mut admin = server.connect();
    admin.must("SELECT 5");
    tenant.send("client tracking on bcast");
    assert_eq!(tenant.client.reply(), b"+OK\r\n");
    admin.must("SET foreign v");
    admin.must("SET t:k v");
    assert_eq!(tenant.message(), "invalidate k");
    tenant.send("client trackinginfo");
    let reply = tenant.client.reply();
    let transform = tenant
        .table
        .find(b"client", Some(b"trackinginfo"))
        .unwrap()
        .transform();
    let mut out = Vec::new();
    tenant.rewriter.reply(transform, &reply, &mut out).unwrap();
    let info = Value::parse(&out)
        .unwrap()
        .items()
        .unwrap()
        .last()
        .unwrap()
        .unwrap();
    let prefix = info.items().unwrap().next().unwrap().unwrap();
    assert_eq!(prefix.string(), Some(&b""[..]));
    admin.must("FLUSHDB");
    assert_eq!(tenant.message(), "invalidate null");
}
