//! The data plane on real Redis servers, on both reactors.

#![allow(clippy::unwrap_used)]

#[path = "common/redis.rs"]
mod common;
#[path = "../src/session/redis/tests/dialogue.rs"]
mod dialogue;

use std::collections::BTreeMap;
use std::io::{Read, Write};

use common::{ACME, Lab, PASSWORD, READER_PASSWORD, Timed, redis_cli, wait_for};
use control_store::logs::{LogFilter, QueryLogReader as _};

use control_store::snapshot::{DatabaseStatus, RedisKeyPattern, RedisKeySettings};
use control_store::traffic::HoldBudget;
use protocol_redis::reply::{Scan, Scanner};
use proxy::reactor::ReactorKind;

const REACTORS: [ReactorKind; 2] = [ReactorKind::Epoll, ReactorKind::Uring];

fn on_both(test: impl Fn(&mut Lab)) {
    for reactor in REACTORS {
        let mut lab = Lab::start(reactor, 1);
        test(&mut lab);
        lab.stop();
    }
}

#[test]
fn redis_cli_sees_a_server() {
    on_both(|lab| {
        let script = "SET greeting \"hello world\"\nGET greeting\nINCR n\nLPUSH l a b c\nLRANGE l 0 -1\nNOSUCH x\nDBSIZE\n";
        let out = redis_cli(lab, "acme", &[], script);
        assert_eq!(
            out,
            "OK\n\"hello world\"\n(integer) 1\n(integer) 3\n1) \"c\"\n2) \"b\"\n3) \"a\"\n\
             (error) ERR unknown command 'NOSUCH', with args beginning with: 'x' \n(integer) 3\n"
        );
        // On the server, every key has the prefix.
        assert_eq!(
            lab.servers[0].ask(3, &["GET", "1z:greeting"]),
            "hello world"
        );
        assert_eq!(lab.servers[0].ask(0, &["DBSIZE"]), "0");
    });
}

/// Has a dialogue with clients that connect so.
fn hold<S: Read + Write + Timed>(
    dialogue: &dialogue::Dialogue,
    mut connect: impl FnMut() -> WireOf<S>,
) {
    let mut clients: BTreeMap<usize, WireOf<S>> = BTreeMap::new();
    for turn in &dialogue.turns {
        let client = clients.entry(turn.client).or_insert_with(&mut connect);
        client.stream.write_all(&turn.sends).unwrap();
        for (number, answer) in &turn.answers {
            let client = clients.get_mut(number).unwrap();
            let mut seen = Vec::new();
            let mut expected = &answer[..];
            while let Ok(Scan::End(used)) = Scanner::new().scan(expected)
                && used > 0
            {
                seen.extend(client.reply());
                expected = &expected[used..];
            }
            let (seen, expected) = (dialogue::told(&seen), dialogue::told(answer));
            assert_eq!(seen, expected, "{}", dialogue.name);
        }
    }
}

#[test]
fn dialogues_are_those_with_a_real_server() {
    on_both(|lab| {
        let server = &lab.servers[0];
        let password = format!(">{PASSWORD}");
        let user = [
            "ACL", "SETUSER", "acme", "on", &password, "~*", "&*", "+@all",
        ];
        assert_eq!(server.ask(0, &user), "OK");
        for dialogue in dialogue::dialogues(PASSWORD) {
            server.ask(0, &["FLUSHDB"]);
            hold(&dialogue, || server.connect());
            server.ask(3, &["FLUSHDB"]);
            hold(&dialogue, || lab.connect());
        }
        server.ask(0, &["FLUSHDB"]);
    });
}

#[test]
fn logins_of_all_forms() {
    on_both(|lab| {
        let mut client = lab.connect();
        assert_eq!(
            client.ask(&["GET", "x"]),
            "-NOAUTH Authentication required."
        );
        let wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
        assert_eq!(client.ask(&["AUTH", "acme", "wrong"]), wrong);
        assert_eq!(client.ask(&["AUTH", "nobody", PASSWORD]), wrong);
        assert_eq!(client.ask(&["AUTH", "acme", PASSWORD]), "OK");
        assert_eq!(client.ask(&["SET", "x", "1"]), "OK");
        assert_eq!(client.ask(&["ACL", "WHOAMI"]), "acme");
        // Another login on the same connection.
        assert_eq!(client.ask(&["AUTH", "beta", PASSWORD]), "OK");
        assert_eq!(client.ask(&["GET", "x"]), "(nil)");
        let hello = client.ask(&["HELLO", "3", "AUTH", "acme", PASSWORD, "SETNAME", "app"]);
        assert!(
            hello.starts_with("{\"server\" => redis, \"version\" => "),
            "{hello}"
        );
        assert_eq!(client.ask(&["CLIENT", "GETNAME"]), "app");
        assert_eq!(client.ask(&["GET", "x"]), "1");
        assert_eq!(client.ask(&["HGETALL", "none"]), "{}");
        assert_eq!(client.ask(&["SELECT", "0"]), "OK");
        assert_eq!(
            client.ask(&["SELECT", "1"]),
            "-ERR DB index is out of range"
        );
        assert_eq!(client.ask(&["RESET"]), "RESET");
        assert_eq!(
            client.ask(&["GET", "x"]),
            "-NOAUTH Authentication required."
        );
        assert_eq!(client.ask(&["QUIT"]), "OK");
        assert!(client.is_closed());
        let mut reader = lab.connect();
        assert_eq!(reader.ask(&["AUTH", "acme", READER_PASSWORD]), "OK");
        assert_eq!(reader.ask(&["GET", "x"]), "1");
        let refused = reader.ask(&["SET", "x", "2"]);
        assert!(refused.starts_with("-NOPERM"), "{refused}");
    });
}

#[test]
fn tenants_see_only_their_own() {
    on_both(|lab| {
        let (mut acme, mut beta) = (lab.log_in("acme"), lab.log_in("beta"));
        for client in [&mut acme, &mut beta] {
            assert_eq!(client.ask(&["MSET", "a", "1", "b", "2"]), "OK");
        }
        beta.ask(&["SET", "secret", "x"]);
        assert_eq!(acme.ask(&["DBSIZE"]), "2");
        let mut keys = acme.ask(&["KEYS", "*"]);
        assert!(keys == "[a, b]" || keys == "[b, a]", "{keys}");
        keys = acme.ask(&["SCAN", "0", "COUNT", "1000"]);
        assert!(keys == "[0, [a, b]]" || keys == "[0, [b, a]]", "{keys}");
        assert!(["a", "b"].contains(&&*acme.ask(&["RANDOMKEY"])));
        assert_eq!(acme.ask(&["GET", "secret"]), "(nil)");
        // Nothing that is not in the prefix can be named.
        assert_eq!(acme.ask(&["GET", "20:secret"]), "(nil)");
        let script = "return redis.call('GET', '20:secret')";
        let refused = acme.ask(&["EVAL", script, "0"]);
        assert!(
            refused.contains("can't access at least one of the keys"),
            "{refused}"
        );
        assert_eq!(acme.ask(&["FLUSHALL"]), "OK");
        assert_eq!(acme.ask(&["DBSIZE"]), "0");
        assert_eq!(beta.ask(&["DBSIZE"]), "3");
        for command in [
            &["CONFIG", "GET", "*"][..],
            &["MONITOR"],
            &["DEBUG", "SLEEP", "0"],
            &["SHUTDOWN"],
            &["SAVE"],
            &["REPLICAOF", "NO", "ONE"],
            &["SWAPDB", "0", "1"],
            &["MOVE", "a", "1"],
            &["SCRIPT", "FLUSH"],
            &["CLIENT", "KILL", "TYPE", "normal"],
            &["CLIENT", "PAUSE", "1"],
            &["ACL", "LIST"],
            &["SLOWLOG", "GET"],
            &["MIGRATE", "h", "1", "a", "0", "1"],
            &["CLUSTER", "INFO"],
            &["FUNCTION", "DUMP"],
            &["FUNCTION", "RESTORE", "x"],
            &["FUNCTION", "KILL"],
        ] {
            let refused = acme.ask(command);
            assert!(refused.starts_with("-NOPERM "), "{command:?}: {refused}");
        }
        let info = acme.ask(&["INFO"]);
        assert!(
            info.contains("redis_version:") && !info.contains("db5"),
            "{info}"
        );
        let info = beta.ask(&["INFO", "keyspace"]);
        assert!(info.contains("db0:keys=3,"), "{info}");
    });
}

#[test]
fn pipelines_keep_their_order() {
    on_both(|lab| {
        let mut client = lab.log_in("acme");
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for n in 0..3000 {
            match n % 5 {
                0 => {
                    bytes.extend(Wire::encode(&["SET", &format!("k{n}"), &n.to_string()]));
                    expected.push("OK".to_owned());
                }
                1 => {
                    bytes.extend(Wire::encode(&["GET", &format!("k{}", n - 1)]));
                    expected.push((n - 1).to_string());
                }
                2 => {
                    bytes.extend(Wire::encode(&["CLIENT", "GETNAME"]));
                    expected.push("(nil)".to_owned());
                }
                3 => {
                    bytes.extend(Wire::encode(&["LPOP", &format!("k{}", n - 3)]));
                    let wrong =
                        "-WRONGTYPE Operation against a key holding the wrong kind of value";
                    expected.push(wrong.to_owned());
                }
                _ => {
                    bytes.extend(Wire::encode(&["CONFIG", "GET", "x"]));
                    expected.push("-NOPERM".to_owned());
                }
            }
        }
        std::thread::scope(|scope| {
            let mut writer = client.stream.try_clone().unwrap();
            scope.spawn(move || std::io::Write::write_all(&mut writer, &bytes).unwrap());
            for (n, expected) in expected.iter().enumerate() {
                let reply = client.read();
                assert!(reply.starts_with(expected), "{n}: {reply}");
            }
        });
    });
}

#[test]
fn transactions_have_a_connection_of_their_own() {
    on_both(|lab| {
        let (mut one, mut two) = (lab.log_in("acme"), lab.log_in("acme"));
        for command in [
            &["MULTI"][..],
            &["SET", "x", "1"],
            &["KEYS", "*"],
            &["INCR", "x"],
        ] {
            let reply = one.ask(command);
            assert!(reply == "OK" || reply == "QUEUED", "{reply}");
        }
        assert_eq!(two.ask(&["GET", "x"]), "(nil)");
        assert_eq!(one.ask(&["EXEC"]), "[OK, [x], 2]");
        assert_eq!(two.ask(&["GET", "x"]), "2");
        // Watched keys.
        assert_eq!(one.ask(&["WATCH", "x"]), "OK");
        two.ask(&["SET", "x", "9"]);
        one.ask(&["MULTI"]);
        one.ask(&["SET", "x", "0"]);
        assert_eq!(one.ask(&["EXEC"]), "(nil)");
        assert_eq!(two.ask(&["GET", "x"]), "9");
        // What we refuse aborts the transaction, as a refusal of the server's would.
        one.ask(&["MULTI"]);
        one.ask(&["SET", "x", "0"]);
        let refused = one.ask(&["CONFIG", "SET", "maxmemory", "1"]);
        assert!(refused.starts_with("-NOPERM"), "{refused}");
        let aborted = one.ask(&["EXEC"]);
        assert!(aborted.starts_with("-EXECABORT"), "{aborted}");
        assert_eq!(two.ask(&["GET", "x"]), "9");
        // All in one packet, with what comes before and after.
        let mut bytes = Vec::new();
        for command in [
            &["SET", "x", "5"][..],
            &["MULTI"],
            &["INCR", "x"],
            &["DISCARD"],
            &["GET", "x"],
            &["MULTI"],
            &["INCR", "x"],
            &["EXEC"],
            &["GET", "x"],
        ] {
            bytes.extend(Wire::encode(command));
        }
        std::io::Write::write_all(&mut one.stream, &bytes).unwrap();
        let replies: Vec<String> = (0..9).map(|_| one.read()).collect();
        assert_eq!(replies.join(" "), "OK OK QUEUED OK 5 OK QUEUED [6] 6");
        // A client that vanishes in a transaction leaves nothing.
        let mut three = lab.log_in("acme");
        three.ask(&["MULTI"]);
        three.ask(&["SET", "x", "gone"]);
        drop(three);
        assert_eq!(two.ask(&["GET", "x"]), "6");
    });
}

#[test]
fn what_waits_at_the_server_holds_nobody_up() {
    on_both(|lab| {
        let (mut one, mut two) = (lab.log_in("acme"), lab.log_in("acme"));
        one.send(&["BLPOP", "queue", "0"]);
        one.send(&["ECHO", "after"]);
        assert_eq!(two.ask(&["SET", "x", "1"]), "OK");
        assert!(one.is_silent());
        assert_eq!(two.ask(&["RPUSH", "queue", "job"]), "1");
        assert_eq!(one.read(), "[queue, job]");
        assert_eq!(one.read(), "after");
        assert_eq!(one.ask(&["BLPOP", "queue", "0.05"]), "(nil)");
        assert_eq!(
            one.ask(&["XREAD", "COUNT", "1", "STREAMS", "s", "0"]),
            "(nil)"
        );
        one.send(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]);
        assert!(one.is_silent());
        two.ask(&["XADD", "s", "1-1", "f", "v"]);
        assert_eq!(one.read(), "[[s, [[1-1, [f, v]]]]]");
    });
}

#[test]
fn subscriptions_bring_the_tenants_own_messages() {
    on_both(|lab| {
        let (mut acme, mut beta) = (lab.log_in("acme"), lab.log_in("beta"));
        let mut publisher = lab.log_in("acme");
        for client in [&mut acme, &mut beta] {
            client.send(&["SUBSCRIBE", "news", "other"]);
            assert_eq!(client.read(), "[subscribe, news, 1]");
            assert_eq!(client.read(), "[subscribe, other, 2]");
            assert_eq!(client.ask(&["PSUBSCRIBE", "n*"]), "[psubscribe, n*, 3]");
        }
        assert_eq!(publisher.ask(&["PUBLISH", "news", "hello"]), "2");
        let (first, second) = (acme.read(), acme.read());
        assert_eq!(first, "[message, news, hello]");
        assert_eq!(second, "[pmessage, n*, news, hello]");
        assert!(beta.is_silent());
        assert_eq!(
            publisher.ask(&["PUBSUB", "CHANNELS"]).len(),
            "[news, other]".len()
        );
        assert_eq!(publisher.ask(&["PUBSUB", "NUMSUB", "news"]), "[news, 1]");
        let refused = acme.ask(&["GET", "x"]);
        assert!(refused.contains("allowed in this context"), "{refused}");
        assert_eq!(acme.ask(&["PING"]), "[pong, ]");
        // Different patterns are counted, of this database's clients in all workers, and no longer than they are there.
        let mut patient = lab.log_in("acme");
        patient.send(&["PSUBSCRIBE", "n*", "m*"]);
        assert_eq!(patient.read(), "[psubscribe, n*, 1]");
        assert_eq!(patient.read(), "[psubscribe, m*, 2]");
        assert_eq!(publisher.ask(&["PUBSUB", "NUMPAT"]), "2");
        drop(patient);
        while publisher.ask(&["PUBSUB", "NUMPAT"]) != "1" {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(acme.ask(&["PUNSUBSCRIBE"]), "[punsubscribe, n*, 2]");
        assert_eq!(publisher.ask(&["PUBSUB", "NUMPAT"]), "0");
        acme.send(&["UNSUBSCRIBE"]);
        let counts = [acme.read(), acme.read()];
        assert!(counts[1].ends_with(", 0]"), "{counts:?}");
        // An ordinary client again.
        assert_eq!(acme.ask(&["SET", "x", "1"]), "OK");
        // In RESP3 commands go on.
        let mut three = lab.log_in_3("acme");
        assert_eq!(three.ask(&["SUBSCRIBE", "c"]), ">[subscribe, c, 1]");
        assert_eq!(three.ask(&["GET", "x"]), "1");
        publisher.ask(&["PUBLISH", "c", "m"]);
        assert_eq!(three.read(), ">[message, c, m]");
        // Notifications of keys, by the client's names.
        let mut notified = lab.log_in("acme");
        notified.ask(&["PSUBSCRIBE", "__key*__:*"]);
        beta.ask(&["PING"]);
        publisher.ask(&["SET", "watched", "1"]);
        let seen = [notified.read(), notified.read()];
        assert_eq!(
            seen[0],
            "[pmessage, __key*__:*, __keyspace@0__:watched, set]"
        );
        assert_eq!(
            seen[1],
            "[pmessage, __key*__:*, __keyevent@0__:set, watched]"
        );
    });
}

/// A move with writers, a waiting client and a subscriber: no error, nothing lost, and all of them go on on the other server.
#[test]
fn a_database_moves_under_load_and_nobody_notices() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    on_both(|lab| {
        let stop = AtomicBool::new(false);
        let written = AtomicU64::new(0);
        let mut waiting = lab.log_in("acme");
        let mut listening = lab.log_in("acme");
        let mut listening_3 = lab.log_in_3("acme");
        assert_eq!(
            listening_3.ask(&["SUBSCRIBE", "news"]),
            ">[subscribe, news, 1]"
        );
        waiting.send(&["BLPOP", "queue", "0"]);
        assert_eq!(
            listening.ask(&["SUBSCRIBE", "news"]),
            "[subscribe, news, 1]"
        );
        assert_eq!(
            listening.ask(&["PSUBSCRIBE", "n?ws"]),
            "[psubscribe, n?ws, 2]"
        );
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut client = lab.log_in("acme");
                let (stop, written) = (&stop, &written);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let counted: u64 = client.ask(&["INCR", "n"]).parse().unwrap();
                        assert!(counted > 0);
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            wait_for("the load", || written.load(Ordering::Relaxed) > 200);
            lab.traffic().hold(ACME, HoldBudget::default());
            wait_for("the drain", || lab.traffic().in_flight(ACME) == 0);
            // By hand: what a move does to the data.
            let count = lab.servers[0].ask(3, &["GET", "1z:n"]);
            assert_eq!(count, written.load(Ordering::Relaxed).to_string());
            lab.servers[1].ask(3, &["SET", "1z:n", &count]);
            lab.publish(1, DatabaseStatus::Ready);
            lab.traffic().refresh(ACME);
            lab.traffic().release(ACME);
            let before = written.load(Ordering::Relaxed);
            wait_for("the load on the other server", || {
                written.load(Ordering::Relaxed) > before + 200
            });
            stop.store(true, Ordering::Relaxed);
        });
        let count = lab.servers[1].ask(3, &["GET", "1z:n"]);
        assert_eq!(count, written.load(Ordering::Relaxed).to_string());
        // One that says something before anything has told it that the database has moved.
        assert_eq!(listening_3.ask(&["GET", "n"]), count);
        let mut other = lab.log_in("acme");
        assert_eq!(other.ask(&["RPUSH", "queue", "job"]), "1");
        assert_eq!(waiting.read(), "[queue, job]");
        wait_for("the subscriptions", || {
            other.ask(&["PUBLISH", "news", "moved"]) == "3"
        });
        assert_eq!(listening_3.read(), ">[message, news, moved]");
        assert_eq!(listening.read(), "[message, news, moved]");
        assert_eq!(listening.read(), "[pmessage, n?ws, news, moved]");
    });
}

#[test]
fn large_values_stream_through() {
    on_both(|lab| {
        let mut client = lab.log_in("acme");
        let large = "x".repeat(5 << 20);
        assert_eq!(client.ask(&["SET", "large", &large]), "OK");
        assert_eq!(client.ask(&["STRLEN", "large"]), large.len().to_string());
        assert_eq!(client.ask(&["GET", "large"]), large);
        let medium = "y".repeat(70 << 10);
        assert_eq!(
            client.ask(&["MSET", "a", &medium, "b", "2", "c", &medium]),
            "OK"
        );
        assert_eq!(client.ask(&["GET", "b"]), "2");
        assert_eq!(client.ask(&["GET", "c"]), medium);
        // Within a transaction, and refused.
        client.ask(&["MULTI"]);
        assert_eq!(client.ask(&["APPEND", "b", &medium]), "QUEUED");
        assert_eq!(client.ask(&["EXEC"]), format!("[{}]", medium.len() + 1));
        let refused = client.ask(&["CONFIG", "SET", &medium, "x"]);
        assert!(refused.starts_with("-NOPERM"), "{refused}");
        assert_eq!(client.ask(&["GET", "a"]).len(), medium.len());
        // Many arguments.
        let mut command = vec!["RPUSH".to_owned(), "list".to_owned()];
        command.extend((0..30_000).map(|n| n.to_string()));
        assert_eq!(client.ask(&command), "30000");
        assert_eq!(lab.servers[0].ask(3, &["LLEN", "1z:list"]), "30000");
        // A client that goes away in the middle of one.
        let mut gone = lab.log_in("acme");
        let begun = Wire::encode(&["SET", "large", &large]);
        std::io::Write::write_all(&mut gone.stream, &begun[..1 << 20]).unwrap();
        drop(gone);
        assert_eq!(client.ask(&["STRLEN", "large"]), large.len().to_string());
    });
}

#[test]
fn bad_bytes_cost_only_their_connection() {
    on_both(|lab| {
        let mut good = lab.log_in("acme");
        for bytes in [
            &b"*1\r\n$99999999999\r\n"[..],
            b"*99999999999\r\n",
            b"*1\r\n:5\r\n",
            b"*2\r\n$3\r\nGET\r\nx",
            b"\"unbalanced\r\n",
            &[0xff; 70_000],
        ] {
            for mut client in [lab.connect(), lab.log_in("acme")] {
                std::io::Write::write_all(&mut client.stream, bytes).unwrap();
                let reply = client.read();
                assert!(reply.starts_with("-ERR Protocol error: "), "{reply}");
                assert!(client.is_closed());
            }
        }
        // 100,000-deep nesting is no command either.
        let mut client = lab.log_in("acme");
        std::io::Write::write_all(&mut client.stream, &b"*1\r\n".repeat(100_000)).unwrap();
        assert!(client.read().starts_with("-ERR Protocol error: "));
        // Half a command, and silence.
        let mut half = lab.log_in("acme");
        std::io::Write::write_all(&mut half.stream, b"*2\r\n$3\r\nGE").unwrap();
        assert_eq!(good.ask(&["PING"]), "PONG");
        std::io::Write::write_all(&mut half.stream, b"T\r\n$1\r\nx\r\n").unwrap();
        assert_eq!(half.read(), "(nil)");
        // Commands as lines.
        std::io::Write::write_all(&mut half.stream, b"SET k \"a b\"\r\nget k\r\n").unwrap();
        assert_eq!((half.read(), half.read()), ("OK".into(), "a b".into()));
    });
}

#[test]
fn a_broken_server_is_told_and_forgotten() {
    on_both(|lab| {
        let mut client = lab.log_in("acme");
        let mut waiting = lab.log_in("acme");
        assert_eq!(client.ask(&["SET", "x", "1"]), "OK");
        waiting.send(&["BLPOP", "queue", "0"]);
        assert!(waiting.is_silent());
        lab.stop_server();
        let lost = waiting.read();
        assert!(
            lost.starts_with("-ERR connection to the database server was lost"),
            "{lost}"
        );
        let failed = client.ask(&["GET", "x"]);
        assert!(
            failed.starts_with("-ERR database server is unavailable"),
            "{failed}"
        );
    });
}

#[test]
fn tracked_keys_are_told_by_the_clients_names() {
    on_both(|lab| {
        let mut tracker = lab.log_in_3("acme");
        let mut writer = lab.log_in("acme");
        writer.ask(&["SET", "x", "1"]);
        assert_eq!(tracker.ask(&["CLIENT", "TRACKING", "ON"]), "OK");
        assert_eq!(tracker.ask(&["GET", "x"]), "1");
        writer.ask(&["SET", "x", "2"]);
        assert_eq!(tracker.read(), ">[invalidate, [x]]");
        assert_eq!(tracker.ask(&["CLIENT", "TRACKING", "OFF"]), "OK");
        // All keys that begin so; nothing of other tenants.
        assert_eq!(tracker.ask(&["CLIENT", "TRACKING", "ON", "BCAST"]), "OK");
        lab.log_in("beta").ask(&["SET", "y", "1"]);
        writer.ask(&["SET", "z", "1"]);
        assert_eq!(tracker.read(), ">[invalidate, [z]]");
        assert!(tracker.is_silent());
    });
}

#[test]
fn what_the_server_cannot_confine_is_done_by_scripts() {
    on_both(|lab| {
        let mut acme = lab.log_in("acme");
        acme.ask(&["RPUSH", "ids", "1", "2", "3"]);
        acme.ask(&[
            "MSET", "w_1", "30", "w_2", "10", "w_3", "20", "n_1", "one", "n_3", "three",
        ]);
        acme.ask(&["HSET", "h_2", "name", "two"]);
        for (command, expected) in [
            (&["SORT", "ids", "BY", "w_*"][..], "[2, 3, 1]"),
            (
                &["SORT", "ids", "BY", "w_*", "GET", "n_*", "GET", "#", "DESC"],
                "[one, 1, three, 3, (nil), 2]",
            ),
            (&["SORT", "ids", "BY", "w_*", "LIMIT", "1", "1"], "[3]"),
            (
                &["SORT", "ids", "BY", "nosort", "GET", "h_*->name"],
                "[(nil), two, (nil)]",
            ),
            (&["SORT", "ids", "DESC"], "[3, 2, 1]"),
            (&["SORT", "ids", "ALPHA", "GET", "n_*", "STORE", "out"], "3"),
            (&["LRANGE", "out", "0", "-1"], "[one, , three]"),
            (&["SORT_RO", "ids", "BY", "w_*"], "[2, 3, 1]"),
            (
                &["SORT", "w_1", "GET", "#"],
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            (&["SORT", "ids", "GET"], "-ERR syntax error"),
            (&["COPY", "w_1", "w_9"], "1"),
            (&["COPY", "w_1", "w_9"], "0"),
            (&["COPY", "w_2", "w_9", "DB", "0", "REPLACE"], "1"),
            (&["GET", "w_9"], "10"),
            (
                &["COPY", "w_1", "w_8", "DB", "5"],
                "-NOPERM there is one database here, number 0",
            ),
            (&["COPY", "none", "w_8"], "0"),
            (
                &["COPY", "w_1", "w_8", "DB", "five"],
                "-ERR value is not an integer or out of range",
            ),
        ] {
            assert_eq!(acme.ask(command), expected, "{command:?}");
        }
        // Nobody else's keys can be reached by a pattern.
        lab.log_in("beta").ask(&["SET", "n_1", "theirs"]);
        assert_eq!(
            acme.ask(&["SORT", "ids", "GET", "20:n_*"]),
            "[(nil), (nil), (nil)]"
        );
        let mut reader = lab.connect();
        reader.ask(&["AUTH", "acme", READER_PASSWORD]);
        assert_eq!(reader.ask(&["SORT_RO", "ids", "BY", "w_*"]), "[2, 3, 1]");
    });
}

/// A library in which each function returns what it is given, what it finds and that.
fn library(name: &str, says: &str) -> String {
    format!(
        "#!lua name={name}\nlocal calls = 0\n\
         redis.register_function('get', function(keys, args)\n\
           calls = calls + 1\n\
           return {{'{says}', keys[1] and redis.call('GET', keys[1]), args[1], calls}}\n\
         end)\n\
         redis.register_function{{function_name='peek', description='looks', flags={{'no-writes'}},\n\
           callback=function(keys) return redis.call('EXISTS', unpack(keys)) end}}\n\
         redis.register_function('set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)\n\
         redis.register_function('fail', function() return redis.call('GET') end)\n\
         redis.register_function('stray', function(keys, args) return redis.call('GET', args[1]) end)"
    )
}

#[test]
fn functions_are_a_tenants_own() {
    on_both(|lab| {
        let (mut acme, mut beta) = (lab.log_in("acme"), lab.log_in("beta"));
        let (ours, theirs) = (library("lib", "acme"), library("lib", "beta"));
        assert_eq!(acme.ask(&["FUNCTION", "LIST"]), "[]");
        assert_eq!(acme.ask(&["FCALL", "get", "0"]), "-ERR Function not found");
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", &ours]), "lib");
        assert_eq!(beta.ask(&["FCALL", "get", "0"]), "-ERR Function not found");
        assert_eq!(beta.ask(&["FUNCTION", "LOAD", &theirs]), "lib");
        let again = "-ERR Library 'lib' already exists";
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", &ours]), again);
        let other = library("other", "acme");
        let twice = acme.ask(&["FUNCTION", "LOAD", &other]);
        assert!(
            twice.starts_with("-ERR Function ") && twice.ends_with(" already exists"),
            "{twice}"
        );
        let name = twice.split(' ').nth(2).unwrap();
        assert!(
            ["get", "peek", "set", "fail", "stray"].contains(&name),
            "{twice}"
        );
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", "REPLACE", &ours]), "lib");

        // Each runs its own, on its own keys.
        acme.ask(&["SET", "k", "mine"]);
        beta.ask(&["SET", "k", "theirs"]);
        assert_eq!(
            acme.ask(&["FCALL", "get", "1", "k", "x"]),
            "[acme, mine, x, 1]"
        );
        assert_eq!(
            acme.ask(&["fcall", "get", "1", "k", "x"]),
            "[acme, mine, x, 1]",
            "what a call leaves in a library's variables is gone with it"
        );
        assert_eq!(
            beta.ask(&["FCALL", "get", "1", "k", "x"]),
            "[beta, theirs, x, 1]"
        );
        assert_eq!(acme.ask(&["FCALL_RO", "peek", "2", "k", "none"]), "1");
        assert_eq!(acme.ask(&["FCALL", "set", "1", "n", "5"]), "OK");
        assert_eq!(acme.ask(&["GET", "n"]), "5");
        let stray = acme.ask(&["FCALL", "stray", "0", "20:k"]);
        assert!(
            stray.contains("can't access at least one of the keys"),
            "{stray}"
        );
        let failed = acme.ask(&["FCALL", "fail", "0"]);
        assert!(
            failed.ends_with("script: fail, on @user_function:10."),
            "{failed}"
        );
        let wrong = acme.ask(&["FCALL_RO", "set", "1", "n", "6"]);
        assert!(
            wrong.contains("Can not execute a script with write flag"),
            "{wrong}"
        );

        // In a transaction, and where the client's protocol is another.
        assert_eq!(acme.ask(&["MULTI"]), "OK");
        assert_eq!(acme.ask(&["FCALL", "peek", "1", "k"]), "QUEUED");
        assert_eq!(acme.ask(&["FCALL", "fail", "0"]), "QUEUED");
        let both = acme.ask(&["EXEC"]);
        assert!(
            both.starts_with("[1, -ERR ") && both.contains("script: fail,"),
            "{both}"
        );
        acme.ask(&["MULTI"]);
        let refused = acme.ask(&["FUNCTION", "LIST"]);
        assert!(
            refused.starts_with("-ERR this command is not allowed"),
            "{refused}"
        );
        assert!(acme.ask(&["EXEC"]).starts_with("-EXECABORT"));

        // The list holds its own, as they were sent.
        let list = acme.ask(&["FUNCTION", "LIST", "WITHCODE"]);
        assert_eq!(list.matches("library_name").count(), 1, "{list}");
        assert!(
            list.starts_with("[[library_name, lib, engine, LUA, functions, ["),
            "{list}"
        );
        assert!(list.ends_with(&format!("library_code, {ours}]]")), "{list}");
        assert!(
            list.contains("[name, peek, description, looks, flags, [no-writes]]"),
            "{list}"
        );
        assert_eq!(acme.ask(&["FUNCTION", "LIST", "LIBRARYNAME", "x*"]), "[]");
        let list = acme.ask(&["FUNCTION", "LIST", "libraryname", "l?b"]);
        assert_eq!(list.matches("library_name").count(), 1, "{list}");
        let mut modern = lab.log_in_3("acme");
        let list = modern.ask(&["FUNCTION", "LIST"]);
        assert!(list.starts_with("[{\"library_name\" => lib, "), "{list}");
        assert_eq!(
            modern.ask(&["FUNCTION", "STATS"]),
            "{\"running_script\" => (nil), \"engines\" => {\"LUA\" => {\"libraries_count\" => 1, \"functions_count\" => 5}}}"
        );
        assert_eq!(
            acme.ask(&["FUNCTION", "STATS"]),
            "[running_script, (nil), engines, [LUA, [libraries_count, 1, functions_count, 5]]]"
        );
        assert!(
            acme.ask(&["FUNCTION", "HELP"])
                .starts_with("[FUNCTION <subcommand>")
        );
        assert_eq!(
            acme.ask(&["FUNCTION", "NOSUCH"]),
            "-ERR unknown subcommand 'NOSUCH'. Try FUNCTION HELP."
        );

        // Another's stay when all of one's own go.
        let more = "#!lua name=more\nredis.register_function('more', function() return 1 end)";
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", more]), "more");
        assert_eq!(acme.ask(&["FUNCTION", "DELETE", "lib"]), "OK");
        assert_eq!(
            acme.ask(&["FUNCTION", "DELETE", "lib"]),
            "-ERR Library not found"
        );
        assert_eq!(acme.ask(&["FCALL", "get", "0"]), "-ERR Function not found");
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", &ours]), "lib");
        assert_eq!(acme.ask(&["FCALL", "more", "0"]), "1");
        let wrong = acme.ask(&["FUNCTION", "FLUSH", "NOW"]);
        assert_eq!(wrong, "-ERR FUNCTION FLUSH only supports SYNC|ASYNC option");
        let wrong = acme.ask(&["FUNCTION", "FLUSH", "SYNC", "NOW"]);
        assert!(
            wrong.starts_with("-ERR unknown subcommand or wrong number of arguments"),
            "{wrong}"
        );
        for how in [&["FUNCTION", "FLUSH"][..], &["FUNCTION", "FLUSH", "ASYNC"]] {
            assert_eq!(acme.ask(how), "OK");
            assert_eq!(acme.ask(&["FUNCTION", "LIST"]), "[]");
        }
        assert_eq!(
            beta.ask(&["FCALL", "get", "1", "k", "x"]),
            "[beta, theirs, x, 1]"
        );

        // Who may only read runs what only reads, and changes nothing.
        acme.ask(&["FUNCTION", "LOAD", &ours]);
        let mut reader = lab.connect();
        reader.ask(&["AUTH", "acme", READER_PASSWORD]);
        assert_eq!(reader.ask(&["FCALL_RO", "peek", "1", "k"]), "1");
        for refused in [
            &["FCALL", "peek", "1", "k"][..],
            &["FUNCTION", "LOAD", "REPLACE", &other],
            &["FUNCTION", "DELETE", "lib"],
            &["FUNCTION", "FLUSH"],
        ] {
            let told = reader.ask(refused);
            assert!(told.starts_with("-NOPERM"), "{refused:?}: {told}");
        }
        assert!(reader.ask(&["FUNCTION", "LIST"]).contains("lib"));
    });
}

#[test]
fn a_librarys_code_does_not_get_out_of_its_namespace() {
    on_both(|lab| {
        let (mut acme, mut beta) = (lab.log_in("acme"), lab.log_in("beta"));
        beta.ask(&["FUNCTION", "LOAD", &library("lib", "beta")]);
        let whole = |lab: &Lab| lab.servers[0].ask(0, &["FUNCTION", "LIST"]);
        let before = whole(lab);
        // What there is when a library is loaded gives no way to the server's own `redis`.
        for code in [
            "_G.redis.register_function('get', function() end)",
            "getfenv().redis.register_function('get', function() end)",
            "setfenv(1, {})",
            "loadstring('redis.register_function(\"get\", function() end)')()",
            "getmetatable(redis).__index.register_function('get', function() end)",
            "setmetatable(redis, {})",
            "debug.getupvalue(redis.register_function, 1)",
            "redis.call('GET', '20:k')",
            "redis.register_function('', function() end)",
            "redis.register_function({}, function() end)",
            "redis.register_function({function_name={}, callback=function() end})",
            "redis.register_function('get', 1)",
            "redis.register_function('get', function() end, 1)",
            "redis.register_function('a b', function() end)",
            "redis.register_function()",
            "redis.register_function{callback=function() end}",
            "redis.register_function('two', function() end) redis.register_function('two', function() end)",
            "end redis.register_function('get', function() end)",
            "]] redis.register_function('get', function() end)",
            "]==] end)() redis.register_function('get', function() end)",
            "return",
            "\u{1b}Lua",
        ] {
            let told = acme.ask(&["FUNCTION", "LOAD", &format!("#!lua name=bad\n{code}")]);
            let refused = told.starts_with("-ERR ") || told.starts_with("-NOPERM `");
            assert!(refused, "{code}: {told}");
            assert_eq!(whole(lab), before, "{code}");
        }
        for line in [
            "#!lua",
            "#!lua name=",
            "#!lua name=a name=b",
            "#!lua 'name=a'",
            "#!js name=a",
            "-- name=a",
        ] {
            let code = format!("{line}\nredis.register_function('get', function() end)");
            let told = acme.ask(&["FUNCTION", "LOAD", &code]);
            assert!(told.starts_with("-ERR "), "{line}: {told}");
            assert_eq!(whole(lab), before, "{line}");
        }
        // What it registers in roundabout ways is in its namespace, and whatever it changes is its own.
        let sly = "#!lua name=sly\nlocal register = redis['register' .. '_function'] local api = redis \
            redis = {call = 1} register('get', function() return {redis.call ~= nil, register == nil} end) \
            server.register_function('via', function() return redis.call('GET', '20:k') end) \
            local t = {function_name='one', callback=function() return 1 end} api.register_function(t) \
            t.function_name='two' api.register_function(t) api.register_function = nil";
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", sly]), "sly");
        assert_eq!(acme.ask(&["FCALL", "two", "0"]), "1");
        assert_eq!(acme.ask(&["FCALL", "one", "0"]), "1");
        assert_eq!(acme.ask(&["FCALL", "get", "0"]), "[1, (nil)]");
        let refused = acme.ask(&["FCALL", "via", "0"]);
        assert!(
            refused.contains("can't access at least one of the keys"),
            "{refused}"
        );
        assert_eq!(
            beta.ask(&["FCALL", "get", "1", "none", "x"]),
            "[beta, (nil), x, 1]"
        );
        assert_eq!(beta.ask(&["FCALL", "two", "0"]), "-ERR Function not found");
        let after = whole(lab);
        assert_eq!(after.matches("library_name").count(), 2);
        // When it runs, `redis` is the server's own, which nobody changes for others.
        let late = "#!lua name=late\nlocal keep = redis.register_function \
            redis.register_function('late', function() keep('get', function() end) end) \
            redis.register_function('spoil', function() redis.call = nil end) \
            redis.register_function('strings', function() getmetatable('').__index = nil end) \
            redis.register_function('globals', function() x = 1 end) \
            redis.register_function('missing', function() return {redis.nothing == nil, server_there} end)";
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", late]), "late");
        for name in ["late", "spoil", "strings", "globals", "missing"] {
            let told = acme.ask(&["FCALL", name, "0"]);
            assert!(told.starts_with("-ERR "), "{name}: {told}");
        }
        // The code that a call runs is the code that was sent, byte by byte.
        let odd = "#!lua name=odd\r\nlocal s = \"a\\\"\\\\-\" -- --[[ ' \" ]]\r\n--[[ two\nlines ]] \
            local t = [==[a--\n---b\u{0}]==] redis.register_function('odd', function() \
            return {s, #t, '\\0\\10--', 'CODE', 'NAMESPACE'} end)\nredis.register_function('line', \
            function() error('here') end) -- the end";
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", odd]), "odd");
        assert_eq!(
            acme.ask(&["FCALL", "odd", "0"]),
            "[a\"\\-, 9, \0\n--, CODE, NAMESPACE]"
        );
        let failed = acme.ask(&["FCALL", "line", "0"]);
        assert!(failed.contains("user_function:6: here"), "{failed}");
        // Nobody is told of the namespace.
        let mut all = Vec::new();
        for words in [
            &["FUNCTION", "LIST", "WITHCODE"][..],
            &["FUNCTION", "STATS"],
            &["FCALL", "late", "0"],
        ] {
            all.push(acme.ask(words));
        }
        let space = after
            .split("sly")
            .next()
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap();
        assert_eq!(space.len(), 34, "{space}");
        assert!(
            !all.concat().contains(space.trim_end_matches('_')),
            "{all:?}"
        );
    });
}

#[test]
fn a_script_changes_nothing_that_is_everybodys() {
    on_both(|lab| {
        let (mut acme, mut beta) = (lab.log_in("acme"), lab.log_in("beta"));
        let deep = &["EVAL", "return #cjson.decode(ARGV[1])", "0", "[[[1]]]"][..];
        assert_eq!(beta.ask(deep), "1");
        for script in [
            "cjson.decode_max_depth(1)",
            "local j = cjson j.decode_max_depth(1)",
            "local x = 5. cjson.decode_max_depth(1)",
            "_G['cj' .. 'son'].decode_max_depth(1)",
            "for _, it in pairs(_G) do if type(it) == 'table' and it.decode_max_depth then it.decode_max_depth(1) end end",
            "load(function() return nil end)",
            "loadstring('cj' .. 'son.decode_max_depth(1)')()",
            "collectgarbage('stop')",
        ] {
            let library =
                format!("#!lua name=bad\nredis.register_function('f', function() {script} end)");
            for command in [
                &["EVAL", script, "0"][..],
                &["EVAL_RO", script, "0"],
                &["SCRIPT", "LOAD", script],
                &["FUNCTION", "LOAD", &library],
            ] {
                let told = acme.ask(command);
                assert!(told.starts_with("-NOPERM "), "{command:?}: {told}");
            }
        }
        acme.ask(&["MULTI"]);
        let told = acme.ask(&["EVAL", "cjson.decode_max_depth(1)", "0"]);
        assert!(told.starts_with("-NOPERM "), "{told}");
        assert!(acme.ask(&["EXEC"]).starts_with("-EXECABORT"));
        assert_eq!(beta.ask(deep), "1");

        // Large ones: the script must be there as a whole, what comes behind it need not.
        let large = "x".repeat(100_000);
        let length = &["EVAL", "return #ARGV[1]", "0", &large][..];
        assert_eq!(acme.ask(length), "100000");
        let told = acme.ask(&["EVAL", "cjson.new()", "0", &large]);
        assert!(
            told.starts_with("-NOPERM on a shared server a script may use"),
            "{told}"
        );
        let script = format!("return 1 --{large}");
        for command in [
            &["EVAL", &script, "0"][..],
            &["EVAL_RO", &script, "0"],
            &["SCRIPT", "LOAD", &script],
        ] {
            let told = acme.ask(command);
            assert!(
                told.starts_with("-NOPERM on a shared server a script may have"),
                "{told}"
            );
        }
        assert_eq!(acme.ask(&["PING"]), "PONG");
    });
}

#[test]
fn libraries_have_a_bound() {
    on_both(|lab| {
        let (mut acme, mut beta) = (lab.log_in("acme"), lab.log_in("beta"));
        let load = |client: &mut common::Wire<_>, name: &str| {
            let code = format!(
                "#!lua name={name}\nredis.register_function('{name}', function() return 1 end) --{}",
                "x".repeat(50_000)
            );
            client.ask(&["FUNCTION", "LOAD", "REPLACE", &code])
        };
        let names: Vec<String> = (0..40).map(|it| format!("l{it}")).collect();
        let refused = names.iter().position(|name| load(&mut acme, name) != *name);
        assert_eq!(refused, Some(20), "1 MiB of code");
        let told = load(&mut acme, "more");
        assert!(
            told.starts_with("-OOM the functions of this database have "),
            "{told}"
        );
        // In the place of one of the same name there is room, and others have theirs.
        assert_eq!(load(&mut acme, "l3"), "l3");
        assert_eq!(load(&mut beta, "more"), "more");
        assert_eq!(acme.ask(&["FUNCTION", "DELETE", "l5"]), "OK");
        assert_eq!(load(&mut acme, "more"), "more");
        assert_eq!(acme.ask(&["FUNCTION", "FLUSH"]), "OK");
        assert_eq!(acme.ask(&["FUNCTION", "LIST"]), "[]");
        // As many clients as may be, at the same time.
        let mut clients: Vec<_> = (0..40).map(|_| lab.log_in("acme")).collect();
        for (client, name) in clients.iter_mut().zip(&names) {
            let code = format!(
                "#!lua name={name}\nredis.register_function('{name}', function() return 1 end) --{}",
                "x".repeat(50_000)
            );
            client.send(&["FUNCTION", "LOAD", &code]);
        }
        let told: Vec<String> = clients.iter_mut().map(|client| client.read()).collect();
        let there = acme.ask(&["FUNCTION", "LIST"]);
        let loaded = told
            .iter()
            .zip(&names)
            .filter(|(told, name)| told == name)
            .count();
        assert_eq!(there.matches("library_name").count(), loaded, "{told:?}");
        assert!(loaded <= 20, "{loaded}");
        assert!(
            told.iter()
                .all(|it| it.starts_with('l') || it.starts_with("-OOM ")),
            "{told:?}"
        );
        // A large one is refused, and a call with a large argument is not.
        let large = format!("#!lua name=x\n--{}", "x".repeat(200_000));
        let told = acme.ask(&["FUNCTION", "LOAD", &large]);
        assert!(told.starts_with("-ERR a command over "), "{told}");
        acme.ask(&["FUNCTION", "FLUSH"]);
        let code = "#!lua name=len\nredis.register_function('len', function(keys, args) return #args[1] end)";
        assert_eq!(acme.ask(&["FUNCTION", "LOAD", code]), "len");
        assert_eq!(
            acme.ask(&["FCALL", "len", "1", "k", &large]),
            large.len().to_string()
        );
        assert_eq!(acme.ask(&["FCALL", &large, "0"]), "-ERR Function not found");
    });
}

#[test]
fn keys_live_as_long_as_the_settings_say() {
    on_both(|lab| {
        let pattern = |glob: &str, ttl| RedisKeyPattern {
            glob: glob.as_bytes().into(),
            ttl,
        };
        lab.settings = RedisKeySettings {
            default_ttl: 1000,
            max_keys: 0,
            patterns: [pattern("session:*", 60), pattern("keep:*", 0)].into(),
        };
        lab.publish(0, DatabaseStatus::Ready);
        lab.traffic().refresh(ACME);
        for mut client in [lab.log_in("acme"), lab.log_in_3("acme")] {
            client.ask(&["FLUSHDB"]);
            for (command, reply, key, ttl) in [
                (&["SET", "a", "1"][..], "OK", "a", 1000),
                (&["SET", "session:1", "1"], "OK", "session:1", 60),
                (&["SET", "keep:1", "1"], "OK", "keep:1", -1),
                (&["SET", "b", "1", "EX", "7"], "OK", "b", 7),
                (&["SET", "b", "1", "KEEPTTL"], "OK", "b", 7),
                (&["SET", "c", "1", "NX", "GET"], "(nil)", "c", 1000),
                (&["SETEX", "d", "9", "1"], "OK", "d", 9),
                (&["INCR", "e"], "1", "e", 1000),
                (&["HSET", "f", "x", "1"], "1", "f", 1000),
                (&["PERSIST", "f"], "1", "f", -1),
                (&["HSET", "f", "y", "1"], "1", "f", -1),
                (&["MSET", "g", "1", "session:g", "2"], "OK", "session:g", 60),
                (&["LPUSH", "l", "1"], "1", "l", 1000),
                (
                    &["LMOVE", "l", "session:l", "LEFT", "LEFT"],
                    "1",
                    "session:l",
                    60,
                ),
                (
                    &["EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "h"],
                    "OK",
                    "h",
                    1000,
                ),
                (&["GETSET", "h", "y"], "x", "h", 1000),
                (&["ZADD", "z", "1.5", "m"], "1", "z", 1000),
                (&["COPY", "keep:1", "session:copy"], "1", "session:copy", 60),
                (&["XADD", "s", "1-1", "f", "v"], "1-1", "s", 1000),
                (
                    &["LPOP", "e"],
                    "-WRONGTYPE Operation against a key holding the wrong kind of value",
                    "e",
                    1000,
                ),
                (
                    &["LPUSH", "e", "1"],
                    "-WRONGTYPE Operation against a key holding the wrong kind of value",
                    "e",
                    1000,
                ),
            ] {
                assert_eq!(client.ask(command), reply, "{command:?}");
                let left: i64 = client.ask(&["TTL", key]).parse().unwrap();
                assert!(
                    left == ttl || (ttl > 5 && (ttl - 2..ttl).contains(&left)),
                    "{command:?}: {left}"
                );
            }
            client.ask(&["SET", "big", "9223372036854775806"]);
            assert_eq!(client.ask(&["INCR", "big"]), "9223372036854775807");
            client.ask(&["MULTI"]);
            client.ask(&["SET", "m1", "1"]);
            client.ask(&["INCR", "m2"]);
            assert_eq!(client.ask(&["EXEC"]), "[OK, 1]");
            for key in ["m1", "m2"] {
                assert_ne!(client.ask(&["TTL", key]), "-1");
            }
            // Scripts in a transaction, and what no script of ours can run there.
            let put = "return redis.call('SET', KEYS[1], ARGV[1])";
            let sha = client.ask(&["SCRIPT", "LOAD", put]);
            client.ask(&["SET", "big", "9223372036854775805"]);
            client.ask(&["SET", "keep:m", "1"]);
            client.ask(&["MULTI"]);
            for command in [
                &["EVAL", put, "1", "m3", "x"][..],
                &["EVALSHA", &sha, "1", "session:m4", "x"],
                &["EVAL", put, "1", "keep:m", "x"],
                &["COPY", "keep:m", "m5"],
                &["INCR", "big"],
                &["GET", "m3"],
            ] {
                assert_eq!(client.ask(command), "QUEUED");
            }
            assert_eq!(
                client.ask(&["EXEC"]),
                "[OK, OK, OK, 1, 9223372036854775806, x]"
            );
            for (key, ttl) in [
                ("m3", 1000),
                ("session:m4", 60),
                ("keep:m", -1),
                ("m5", 1000),
            ] {
                let left: i64 = client.ask(&["TTL", key]).parse().unwrap();
                assert!(
                    left == ttl || (ttl > 5 && (ttl - 2..ttl).contains(&left)),
                    "{key}: {left}"
                );
            }
            // Nothing of it is done, and nothing of ours shows, where the client thinks better of it.
            client.ask(&["WATCH", "m3"]);
            client.ask(&["MULTI"]);
            client.ask(&["EVAL", put, "1", "m6", "x"]);
            lab.log_in("acme").ask(&["SET", "m3", "other"]);
            assert_eq!(client.ask(&["EXEC"]), "(nil)");
            client.ask(&["MULTI"]);
            client.ask(&["EVAL", put, "1", "m6", "x"]);
            assert_eq!(client.ask(&["DISCARD"]), "OK");
            assert_eq!(client.ask(&["EXISTS", "m6"]), "0");
            // What is too large to be seen whole.
            let large = "x".repeat(100_000);
            for (command, reply, key, ttl) in [
                (&["SET", "large", &large][..], "OK", "large", 1000),
                (&["SET", "large", &large], "OK", "large", 1000),
                (
                    &["SET", "session:large", &large, "EX", "9"],
                    "OK",
                    "session:large",
                    9,
                ),
                (
                    &["SET", "session:large", &large, "KEEPTTL"],
                    "OK",
                    "session:large",
                    9,
                ),
                (&["SET", "session:large", &large], "OK", "session:large", 60),
                (&["APPEND", "keep:m", &large], "100001", "keep:m", -1),
                (
                    &["RPUSH", "session:list", "a", &large, "b"],
                    "3",
                    "session:list",
                    60,
                ),
                (
                    &["EVAL", put, "1", "large:eval", &large],
                    "OK",
                    "large:eval",
                    1000,
                ),
                (
                    &["EVALSHA", &sha, "1", "large:sha", &large],
                    "OK",
                    "large:sha",
                    1000,
                ),
                (&["GET", "none"], "(nil)", "none", -2),
            ] {
                assert_eq!(client.ask(command), reply, "{}", command[0]);
                let left: i64 = client.ask(&["TTL", key]).parse().unwrap();
                assert!(
                    left == ttl || (ttl > 5 && (ttl - 2..ttl).contains(&left)),
                    "{} {key}: {left}",
                    command[0]
                );
            }
            for command in [
                &["MSET", "p", "1", "q", &large, "r", "1"][..],
                &["SET", &large, "1"],
            ] {
                let told = client.ask(command);
                assert!(
                    told.starts_with("-ERR a command over 65536 bytes must begin"),
                    "{told}"
                );
            }
            assert_eq!(client.ask(&["EXISTS", "p", "q", "r"]), "0");
            client.ask(&["MULTI"]);
            assert_eq!(client.ask(&["SET", "session:m7", &large]), "QUEUED");
            assert_eq!(client.ask(&["STRLEN", "session:m7"]), "QUEUED");
            assert_eq!(client.ask(&["EXEC"]), "[OK, 100000]");
            assert_ne!(client.ask(&["TTL", "session:m7"]), "-1");
            // What waits.
            let mut other = lab.log_in("acme");
            client.send(&["BLMOVE", "from", "session:to", "LEFT", "LEFT", "0"]);
            other.ask(&["RPUSH", "from", "x"]);
            assert_eq!(client.read(), "x");
            assert_ne!(client.ask(&["TTL", "session:to"]), "-1");
        }
    });
}

#[test]
fn a_database_holds_as_many_keys_as_it_may() {
    on_both(|lab| {
        lab.settings.max_keys = 3;
        lab.publish(0, DatabaseStatus::Ready);
        lab.traffic().refresh(ACME);
        let mut client = lab.log_in("acme");
        let code = "#!lua name=l\nredis.register_function('put', function(keys) return redis.call('SET', keys[1], 'x') end)";
        assert_eq!(client.ask(&["FUNCTION", "LOAD", code]), "l");
        let full = "-OOM this database holds 3 keys, and may not hold more (max_keys)";
        let large = "x".repeat(100_000);
        for (command, reply) in [
            (&["SET", "a", "1"][..], "OK"),
            (&["MSET", "b", "1", "c", "1", "d", "1"], full),
            (&["MSET", "a", "2", "b", "1", "c", "1"], "OK"),
            (&["SET", "d", "1"], full),
            (&["SET", "a", "3"], "OK"),
            (&["SET", "d", "1", "XX"], "(nil)"),
            (&["LPUSH", "d", "1"], full),
            (
                &["EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "d"],
                full,
            ),
            (
                &["EVAL", "return redis.call('GET', KEYS[1])", "1", "a"],
                "3",
            ),
            (&["FCALL", "put", "1", "d"], full),
            (&["FCALL", "put", "1", "a"], "OK"),
            (&["RENAME", "a", "e"], "OK"),
            (&["SET", "d", &large], full),
            (&["SET", "c", &large], "OK"),
            (&["MULTI"], "OK"),
            (
                &["EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "c"],
                "QUEUED",
            ),
            (&["FCALL", "put", "1", "e"], "QUEUED"),
            (&["EXEC"], "[OK, OK]"),
            (&["MULTI"], "OK"),
            (&["FCALL", "put", "1", "d"], full),
            (
                &["EXEC"],
                "-EXECABORT Transaction discarded because of previous errors.",
            ),
            (&["MULTI"], "OK"),
            (&["SET", "d", &large], full),
            (
                &["EXEC"],
                "-EXECABORT Transaction discarded because of previous errors.",
            ),
            (&["DEL", "b"], "1"),
            (&["SET", "d", "1"], "OK"),
            (&["DBSIZE"], "3"),
        ] {
            assert_eq!(client.ask(command), reply, "{command:?}");
        }
        // The time that a key is to live holds beside it.
        lab.settings.default_ttl = 1000;
        lab.publish(0, DatabaseStatus::Ready);
        lab.traffic().refresh(ACME);
        client.ask(&["PERSIST", "d"]);
        assert_eq!(client.ask(&["SET", "d", "2", "KEEPTTL"]), "OK");
        assert_eq!(client.ask(&["TTL", "d"]), "-1");
        assert_eq!(client.ask(&["SET", "d", "3"]), "OK");
        assert_ne!(client.ask(&["TTL", "d"]), "-1");
        lab.settings.default_ttl = 0;
        lab.publish(0, DatabaseStatus::Ready);
        lab.traffic().refresh(ACME);
        // Exactly as many, however many ask at a time; other tenants are not counted.
        client.ask(&["FLUSHDB"]);
        lab.log_in("beta")
            .ask(&["MSET", "a", "1", "b", "1", "c", "1", "d", "1"]);
        std::thread::scope(|scope| {
            for n in 0..8 {
                let mut client = lab.log_in("acme");
                scope.spawn(move || {
                    for m in 0..20 {
                        client.ask(&["SET", &format!("k{n}:{m}"), "1"]);
                    }
                });
            }
        });
        assert_eq!(client.ask(&["DBSIZE"]), "3");
    });
}

#[test]
fn a_script_that_does_not_end_is_ended() {
    on_both(|lab| {
        let mut spinning = lab.log_in("acme");
        spinning.send(&["EVAL", "while true do end", "0"]);
        let mut other = lab.log_in("beta");
        let killed = spinning.read();
        assert!(killed.contains("Script killed"), "{killed}");
        assert_eq!(other.ask(&["SET", "x", "1"]), "OK");
        // In a transaction too.
        spinning.ask(&["MULTI"]);
        spinning.ask(&["EVAL", "while true do end", "0"]);
        let killed = spinning.ask(&["EXEC"]);
        assert!(killed.contains("Script killed"), "{killed}");
        // And a function.
        let code =
            "#!lua name=l\nredis.register_function('spin', function() while true do end end)";
        spinning.ask(&["FUNCTION", "LOAD", code]);
        let killed = spinning.ask(&["FCALL", "spin", "0"]);
        assert!(killed.contains("Script killed"), "{killed}");
    });
}

#[test]
fn clients_are_listed_by_database() {
    on_both(|lab| {
        let (mut one, mut two, _other) =
            (lab.log_in("acme"), lab.log_in("acme"), lab.log_in("beta"));
        assert_eq!(one.ask(&["CLIENT", "SETNAME", "worker"]), "OK");
        assert_eq!(
            one.ask(&["CLIENT", "SETNAME", "a b"]).chars().next(),
            Some('-')
        );
        let list = two.ask(&["CLIENT", "LIST"]);
        assert_eq!(list.lines().count(), 2, "{list}");
        assert!(
            list.contains("name=worker") && list.contains("user=acme"),
            "{list}"
        );
        let id = two.ask(&["CLIENT", "ID"]);
        let own = two.ask(&["CLIENT", "INFO"]);
        assert!(own.starts_with(&format!("id={id} ")), "{own}");
        drop(one);
        wait_for("the list", || {
            two.ask(&["CLIENT", "LIST"]).lines().count() == 1
        });
        // No replies, as long as none are wanted.
        two.send(&["CLIENT", "REPLY", "OFF"]);
        two.send(&["SET", "x", "1"]);
        two.send(&["GET", "x"]);
        assert_eq!(two.ask(&["CLIENT", "REPLY", "ON"]), "OK");
        two.send(&["CLIENT", "REPLY", "SKIP"]);
        two.send(&["GET", "x"]);
        assert_eq!(two.ask(&["GET", "x"]), "1");
    });
}

/// More than a shared connection takes at a time: those who wait for it are read again once it does.
#[test]
fn many_clients_fill_the_shared_connection() {
    on_both(|lab| {
        std::thread::scope(|scope| {
            for n in 0..60 {
                let mut client = lab.log_in("acme");
                scope.spawn(move || {
                    let value = "v".repeat(4 << 10);
                    let mut batch = Vec::new();
                    for m in 0..16 {
                        batch.extend(Wire::encode(&["SET", &format!("k{n}:{m}"), &value]));
                    }
                    for _ in 0..30 {
                        std::io::Write::write_all(&mut client.stream, &batch).unwrap();
                        (0..16).for_each(|_| assert_eq!(client.read(), "OK"));
                    }
                });
            }
        });
        assert_eq!(lab.log_in("acme").ask(&["DBSIZE"]), "960");
    });
}

#[test]
fn a_slow_reader_holds_only_itself() {
    on_both(|lab| {
        let mut good = lab.log_in("acme");
        let value = "v".repeat(60 << 10);
        good.ask(&["SET", "big", &value]);
        let mut slow = lab.log_in("acme");
        let mut bytes = Vec::new();
        (0..2000).for_each(|_| bytes.extend(Wire::encode(&["GET", "big"])));
        std::io::Write::write_all(&mut slow.stream, &bytes).unwrap();
        for n in 0..500 {
            assert_eq!(good.ask(&["SET", "n", &n.to_string()]), "OK");
        }
        for n in 0..2000 {
            assert_eq!(slow.reply().len(), value.len() + 10, "{n}");
        }
    });
}

#[test]
fn tls_from_the_first_byte() {
    for reactor in REACTORS {
        let lab = Lab::start_with(reactor, 2, false);
        let script = "SET x 1\nINCR x\nWATCH\n";
        let out = redis_cli(&lab, "acme", &["--tls", "--insecure"], script);
        let arity = "(error) ERR wrong number of arguments for 'watch' command\n";
        assert_eq!(out, format!("OK\n(integer) 2\n{arity}"));
        let large = "x".repeat(1 << 20);
        let set = format!("SET large {large}\nSTRLEN large\n");
        let out = redis_cli(&lab, "acme", &["--tls", "--insecure"], &set);
        assert_eq!(out, format!("OK\n(integer) {}\n", large.len()));
        // Without it nobody is served.
        let mut client = lab.connect();
        let refused = client.ask(&["PING"]);
        assert_eq!(refused, "-ERR TLS is required: connect with rediss://");
        assert!(client.is_closed());
        lab.stop();
    }
}

#[test]
fn the_log_has_commands_and_keys_and_no_values() {
    on_both(|lab| {
        let mut client = lab.log_in("acme");
        client.ask(&["SET", "user 1", "s3cret"]);
        client.ask(&["MGET", "user 1", "b"]);
        client.ask(&["LPOP", "user 1"]);
        client.ask(&["CONFIG", "SET", "requirepass", "s3cret"]);
        let mut texts = Vec::new();
        wait_for("the log", || {
            let filter = LogFilter {
                databases: vec![ACME],
                limit: 10,
                ..LogFilter::default()
            };
            let page = lab.log.find(&filter).unwrap();
            texts = page
                .entries
                .iter()
                .map(|it| format!("{} {}", it.query, it.error_code.as_deref().unwrap_or("ok")))
                .collect();
            texts.len() == 4
        });
        texts.reverse();
        let expected = [
            "SET \"user 1\" ok",
            "MGET \"user 1\" b ok",
            "LPOP \"user 1\" WRONGTYPE",
            "CONFIG NOPERM",
        ];
        assert_eq!(texts, expected);
    });
}

#[test]
fn suspended_tenants_and_full_databases() {
    on_both(|lab| {
        let mut client = lab.log_in("acme");
        client.ask(&["SET", "x", "1"]);
        lab.publish(0, DatabaseStatus::Suspended);
        lab.traffic().refresh(ACME);
        let refused = client.ask(&["GET", "x"]);
        assert!(refused.contains("tenant is suspended"), "{refused}");
        // One answer for one command, also from a session that keeps a connection.
        lab.publish(0, DatabaseStatus::Ready);
        lab.traffic().refresh(ACME);
        let mut subscribed = lab.log_in_3("acme");
        subscribed.ask(&["SUBSCRIBE", "c"]);
        lab.publish(0, DatabaseStatus::Suspended);
        lab.traffic().refresh(ACME);
        subscribed.send(&["MULTI"]);
        assert!(subscribed.read().contains("tenant is suspended"));
        // Then the session ends, with a word of its own and no transaction that would keep it.
        assert!(subscribed.read().contains("tenant is suspended"));
        assert!(subscribed.is_closed());
        lab.max_connections = 2;
        lab.publish(0, DatabaseStatus::Ready);
        lab.traffic().refresh(ACME);
        assert_eq!(client.ask(&["GET", "x"]), "1");
        wait_for("the other's place", || {
            client.ask(&["CLIENT", "LIST"]).lines().count() == 1
        });
        let _second = lab.log_in("acme");
        let mut third = lab.connect();
        let full = third.ask(&["AUTH", "acme", PASSWORD]);
        assert_eq!(full, "-ERR max number of clients reached");
        assert!(third.is_closed());
    });
}

use common::Wire as WireOf;
type Wire = WireOf<std::net::TcpStream>;
