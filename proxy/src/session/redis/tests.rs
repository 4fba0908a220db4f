//! Sessions on a simulator: a whole worker without sockets and clock, its clients, and a model of a server. Every byte stream can be
//! cut anywhere, and everything can happen in any order, which a seed repeats.
//!
//! `SIM_SEEDS` asks for more seeds.

mod dialogue;
mod model;
mod reactor;
mod sim;

use std::collections::BTreeMap;
use std::time::Instant;

use control_store::snapshot::RedisKeySettings;
use protocol_redis::reply::{Scan, Scanner, write};

use dialogue::{Dialogue, dialogues, encode, told};
use model::{Model, User};
use sim::{PASSWORD, Random, Sim};

fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("SIM_SEEDS").ok();
    0..wanted.and_then(|it| it.parse().ok()).unwrap_or(60)
}

// ---- dialogues ----

/// Bytes that clients send.
fn len(dialogue: &Dialogue) -> usize {
    dialogue.turns.iter().map(|it| it.sends.len()).sum()
}

fn alone() -> Model {
    let user = User {
        name: "acme",
        password: PASSWORD,
        prefix: Some(""),
    };
    Model::new(vec![user], Instant::now())
}

#[test]
fn the_model_answers_as_a_server_does() {
    for dialogue in dialogues(PASSWORD) {
        let mut model = alone();
        for turn in &dialogue.turns {
            for client in [1, 2] {
                if !model.conns.contains_key(&client) {
                    model.connect(client);
                }
            }
            model.receive(u32::try_from(turn.client).unwrap(), &turn.sends);
            for (client, conn) in &mut model.conns {
                let seen = std::mem::take(&mut conn.output);
                let answer = turn.answers.get(&(*client as usize));
                let expected = answer.map_or(&b""[..], |it| it);
                assert_eq!(told(&seen), told(expected), "{}", dialogue.name);
            }
        }
    }
}

/// Has the dialogue on that worker; `cut`: where what the clients send is cut in two, with all that can happen in between.
fn hold(sim: &mut Sim, dialogue: &Dialogue, cut: usize, pieces: usize) {
    sim.server.clear();
    let mut clients = BTreeMap::new();
    let mut sent = 0;
    for turn in &dialogue.turns {
        let client = *clients.entry(turn.client).or_insert_with(|| sim.connect());
        let here = cut.checked_sub(sent).filter(|it| *it < turn.sends.len());
        let (head, tail) = turn.sends.split_at(here.unwrap_or(0));
        for piece in head.chunks(pieces).chain(tail.chunks(pieces)) {
            sim.clients[client].script.extend(piece);
            sim.settle();
        }
        sent += turn.sends.len();
        for (number, client) in &clients {
            let seen = std::mem::take(&mut sim.clients[*client].seen);
            let expected = turn.answers.get(number).map_or(&b""[..], |it| it);
            assert_eq!(
                told(&seen),
                told(expected),
                "{}, client {number}, cut at {cut}, in pieces of {pieces}, the server at {:?}",
                dialogue.name,
                sim.server_cut
            );
        }
    }
    for client in clients.into_values() {
        sim.hang_up(client);
    }
    sim.settle();
    sim.check_gates_are_empty();
}

/// Where a stream of so many bytes is cut: everywhere, but within what is large only here and there.
fn cuts(len: usize) -> Vec<usize> {
    match len {
        0..2000 => (0..=len).collect(),
        _ => (0..200)
            .chain((200..len).step_by(4001))
            .chain(len - 300..len)
            .collect(),
    }
}

#[test]
fn a_dialogue_is_the_same_wherever_the_client_pauses() {
    for dialogue in dialogues(PASSWORD) {
        let mut sim = Sim::new(0);
        for cut in cuts(len(&dialogue)) {
            hold(&mut sim, &dialogue, cut, usize::MAX);
        }
        for pieces in [1, 2, 3, 7] {
            if len(&dialogue) < 2000 {
                hold(&mut sim, &dialogue, 0, pieces);
            }
        }
    }
}

#[test]
fn a_dialogue_is_the_same_wherever_the_server_pauses() {
    for dialogue in dialogues(PASSWORD) {
        let mut sim = Sim::new(0);
        let answers = dialogue.turns.iter().flat_map(|it| it.answers.values());
        let len: usize = answers.map(Vec::len).sum();
        // What the server sends to the proxy is longer: logins, and the table of commands at first.
        hold(&mut sim, &dialogue, 0, usize::MAX);
        for cut in cuts(len + 200) {
            sim.server_cut = Some(cut);
            hold(&mut sim, &dialogue, 0, usize::MAX);
        }
    }
}

// ---- many clients at once ----

/// What clients do, on keys and channels of their own; each entry leaves its connection at rest.
fn repertoire(tag: &str, random: &mut Random) -> Vec<u8> {
    let (key, list, channel) = (format!("k{tag}"), format!("l{tag}"), format!("c{tag}"));
    let text = format!("{tag}-{}", random.below(1_000_000));
    let long = text.repeat(1 + random.below(40));
    let huge = "y".repeat(66_000 + random.below(9000));
    let scripts: Vec<Vec<Vec<&str>>> = vec![
        vec![vec!["ECHO", &text]],
        vec![
            vec!["SET", &key, &long],
            vec!["GET", &key],
            vec!["ECHO", &text],
        ],
        vec![
            vec!["DEL", &key],
            vec!["INCR", &key],
            vec!["INCR", &key],
            vec!["GET", &key],
        ],
        vec![vec!["NOSUCH", &text], vec!["GET"], vec!["ECHO", &text]],
        vec![
            vec!["MULTI"],
            vec!["SET", &key, &text],
            vec!["MGET", &key, &list],
            vec!["EXEC"],
        ],
        vec![
            vec!["MULTI"],
            vec!["NOSUCH"],
            vec!["ECHO", &text],
            vec!["EXEC"],
            vec!["ECHO", &text],
        ],
        vec![
            vec!["WATCH", &key],
            vec!["GET", &key],
            vec!["MULTI"],
            vec!["ECHO", &text],
            vec!["EXEC"],
        ],
        vec![
            vec!["WATCH", &key],
            vec!["SET", &key, "9"],
            vec!["MULTI"],
            vec!["ECHO", &text],
            vec!["EXEC"],
        ],
        vec![vec!["WATCH", &key], vec!["UNWATCH"], vec!["ECHO", &text]],
        vec![
            vec!["DEL", &list],
            vec!["RPUSH", &list, &text, "b"],
            vec!["LRANGE", &list, "0", "-1"],
        ],
        vec![
            vec!["DEL", &list],
            vec!["RPUSH", &list, &text],
            vec!["BLPOP", &list, "0"],
            vec!["ECHO", &text],
        ],
        vec![
            vec!["DEL", &list],
            vec!["BLPOP", &list, "0.05"],
            vec!["ECHO", &text],
        ],
        vec![
            vec!["SUBSCRIBE", &channel],
            vec!["PING"],
            vec!["UNSUBSCRIBE", &channel],
            vec!["ECHO", &text],
        ],
        vec![
            vec!["PSUBSCRIBE", &channel, "x*"],
            vec!["PUNSUBSCRIBE"],
            vec!["GET", &key],
        ],
        vec![
            vec!["SET", &key, &huge],
            vec!["GET", &key],
            vec!["ECHO", &text],
        ],
        vec![
            vec!["MULTI"],
            vec!["SET", &key, &huge],
            vec!["EXEC"],
            vec!["DEL", &key],
        ],
    ];
    let script = &scripts[random.below(scripts.len())];
    script.iter().flat_map(|words| encode(words)).collect()
}

/// Some of what clients do, in either version of the protocol.
fn script(tag: &str, random: &mut Random) -> Vec<u8> {
    let mut script = Vec::new();
    if random.below(3) == 0 {
        script.extend(encode(&["HELLO", "3"]));
    }
    for _ in 0..1 + random.below(6) {
        script.extend(repertoire(tag, random));
    }
    script
}

/// What a client would be sent that is alone with a server of its own.
fn direct(script: &[u8]) -> Vec<u8> {
    let mut model = alone();
    model.connect(1);
    model.receive(1, &encode(&["AUTH", "acme", PASSWORD]));
    model.receive(1, script);
    while let Some(time) = model.next_time() {
        model.tick(time);
    }
    std::mem::take(&mut model.conns.get_mut(&1).unwrap().output)
}

#[test]
fn every_reply_finds_its_asker_in_any_order() {
    for seed in seeds() {
        let mut sim = Sim::new(seed);
        let mut scripts = Vec::new();
        for number in 0..8 {
            let script = script(&number.to_string(), &mut sim.random);
            let tenant = ["acme", "acme", "beta"][number % 3];
            scripts.push((sim.log_in(tenant, &script), script));
        }
        sim.run();
        for (client, script) in &scripts {
            let seen = told(&sim.clients[*client].seen);
            assert_eq!(seen, told(&direct(script)), "seed {seed}, client {client}");
            assert!(!sim.is_closed(*client), "seed {seed}, client {client}");
            sim.hang_up(*client);
        }
        sim.run();
        sim.check_gates_are_empty();
    }
}

// ---- servers that fail ----

/// Replies, one by one, and what is left of one that has not ended.
fn split(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut replies = Vec::new();
    while let Ok(Scan::End(used)) = Scanner::new().scan(bytes)
        && used > 0
    {
        replies.push(bytes[..used].to_vec());
        bytes = &bytes[used..];
    }
    (replies, bytes.to_vec())
}

/// What asks for replies that tell whose they are, whatever became of the commands before.
fn numbered(tag: &str, random: &mut Random) -> Vec<u8> {
    let mut script = Vec::new();
    for number in 0..20 + random.below(60) {
        let text = format!("{tag}-{number}-").repeat(1 + random.below(30));
        let channel = format!("c{tag}");
        let words: Vec<Vec<&str>> = match random.below(12) {
            0 => vec![vec!["MULTI"], vec!["ECHO", &text], vec!["EXEC"]],
            1 => vec![vec!["SUBSCRIBE", &channel], vec!["UNSUBSCRIBE", &channel]],
            2 => vec![
                vec!["WATCH", &channel],
                vec!["ECHO", &text],
                vec!["UNWATCH"],
            ],
            3 => vec![vec!["BLPOP", &channel, "0.01"]],
            _ => vec![vec!["ECHO", &text]],
        };
        script.extend(words.iter().flat_map(|it| encode(it)));
    }
    script
}

/// Each reply is the one that was due or an error in its place, and none is missing unless the connection has ended.
fn check_replies(sim: &mut Sim, seed: u64, client: usize, script: &[u8]) {
    let (expected, _) = split(&direct(script));
    let (seen, rest) = split(&sim.clients[client].seen);
    for (at, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
        assert!(
            told(seen) == told(expected) || seen.starts_with(b"-"),
            "seed {seed}, client {client}, reply {at}: {} and not {}",
            told(seen),
            told(expected)
        );
    }
    if sim.is_closed(client) {
        // The last word is why.
        assert!(
            seen.len() <= expected.len() + 1,
            "seed {seed}, client {client}"
        );
    } else {
        assert_eq!(seen.len(), expected.len(), "seed {seed}, client {client}");
        assert_eq!(rest, b"", "seed {seed}, client {client}");
    }
}

#[test]
fn a_connection_that_breaks_anywhere_costs_what_was_under_way() {
    for seed in seeds() {
        let mut sim = Sim::new(seed);
        let mut scripts = Vec::new();
        for number in 0..6 {
            let script = numbered(&number.to_string(), &mut sim.random);
            scripts.push((sim.log_in("acme", &script), script));
        }
        let untouched = numbered("other", &mut sim.random);
        let other = sim.log_in("beta", &untouched);
        for _ in 0..1 + sim.random.below(4) {
            let steps = sim.random.below(300);
            sim.run_for(steps);
            match sim.random.below(4) {
                0 => sim.server.busy = true,
                _ => sim.break_one_of(3),
            }
            let steps = sim.random.below(60);
            sim.run_for(steps);
            sim.server.busy = false;
        }
        sim.run();
        for (client, script) in &scripts {
            check_replies(&mut sim, seed, *client, script);
            sim.hang_up(*client);
        }
        check_replies(&mut sim, seed, other, &untouched);
        sim.hang_up(other);
        sim.run();
        sim.check_gates_are_empty();
    }
}

/// What no server sends, and what none sends unasked.
const LIES: &[&[u8]] = &[
    b"+OK\r\n",
    b"$3\r\nabc\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"_\r\n",
    b"*2\r\n$3\r\nfoo\r\n:1\r\n",
    b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
    b">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\n1z:\r\n",
    b">0\r\n",
    b">1\r\n:1\r\n",
    b"%1\r\n+a\r\n+b\r\n",
    b"|1\r\n+a\r\n+b\r\n",
    b"-ERR of its own accord\r\n",
    b"-\r\n",
    b"!5\r\nERR x\r\n",
    b"$99999999999999999999\r\n",
    b"$536870912\r\n",
    b"*2147483647\r\n",
    b"*1000000\r\n*1000000\r\n*1000000\r\n",
    b"$10\r\nhalf",
    b"$2\r\nabcdef\r\n",
    b"*?\r\n",
    b"\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\0\0\0\0",
];

#[test]
fn a_server_that_lies_harms_nobody_but_those_who_ask_it() {
    for seed in seeds() {
        let mut sim = Sim::new(seed);
        let mut asking = Vec::new();
        for number in 0..5 {
            let script = script(&number.to_string(), &mut sim.random);
            asking.push(sim.log_in("acme", &script));
        }
        let untouched = script("other", &mut sim.random);
        let other = sim.log_in("beta", &untouched);
        for _ in 0..1 + sim.random.below(5) {
            let steps = sim.random.below(200);
            sim.run_for(steps);
            let lie = LIES[sim.random.below(LIES.len())];
            let lie = match sim.random.below(10) {
                0 => b"*1\r\n".repeat(100_000),
                1 => (0..50)
                    .map(|_| u8::try_from(sim.random.below(256)).unwrap())
                    .collect(),
                _ => lie.to_vec(),
            };
            sim.lie(3, &lie);
        }
        sim.run_for(5000);
        for client in asking {
            sim.hang_up(client);
        }
        for conn in sim.server.of_number(3) {
            sim.break_wire(conn);
        }
        sim.run();
        let seen = told(&sim.clients[other].seen);
        assert_eq!(seen, told(&direct(&untouched)), "seed {seed}");
        // Nobody's connection is left to those who come afterwards.
        let again = script("again", &mut sim.random);
        let late = sim.log_in("acme", &again);
        sim.run();
        let seen = told(&sim.clients[late].seen);
        assert_eq!(seen, told(&direct(&again)), "seed {seed}");
        for client in [other, late] {
            sim.hang_up(client);
        }
        sim.run();
        sim.check_gates_are_empty();
    }
}

// ---- single defects and limits ----

#[test]
fn a_reply_that_breaks_off_is_not_filled_up_with_an_error() {
    let mut sim = Sim::new(0);
    let script = [
        encode(&["SET", "a", &"v".repeat(300)]),
        encode(&["GET", "a"]),
    ]
    .concat();
    let client = sim.log_in("acme", &script[..]);
    sim.settle_until(|sim| sim.server.conns.values().any(|it| it.output.len() > 300));
    let conn = sim
        .server
        .of_number(3)
        .into_iter()
        .find(|it| sim.server.conns[it].output.len() > 300);
    sim.deliver(conn.unwrap(), 200);
    sim.break_wire(conn.unwrap());
    sim.settle();
    let seen = told(&sim.clients[client].seen);
    assert!(sim.is_closed(client), "{seen}");
    assert!(seen.contains("vvv") && !seen.contains("ERR"), "{seen}");
}

#[test]
fn a_server_that_refuses_to_subscribe_answers_once() {
    let mut sim = Sim::new(0);
    let client = sim.log_in("acme", &encode(&["WATCH", "a"]));
    sim.settle();
    sim.server.busy = true;
    let script = [
        encode(&["SUBSCRIBE", "a", "b", "c"]),
        encode(&["ECHO", "behind"]),
    ]
    .concat();
    sim.clients[client].script = script;
    sim.settle();
    let seen = told(&sim.clients[client].seen);
    assert_eq!(seen.matches("-BUSY").count(), 1, "{seen}");
    // What of it the server has done and what not, a new connection need not know.
    assert!(sim.is_closed(client), "{seen}");
}

#[test]
fn settings_hold_for_clients_that_want_no_replies() {
    let settings = RedisKeySettings {
        default_ttl: 60,
        max_keys: 100,
        ..RedisKeySettings::default()
    };
    let mut sim = Sim::with_settings(0, &settings);
    let words: [&[&str]; 6] = [
        &["CLIENT", "REPLY", "OFF"],
        &["EVAL", "return 1", "1", "a"],
        &["EVAL", "return 1", "1", "b"],
        &["CLIENT", "REPLY", "ON"],
        &["EVAL", "return 1", "1", "c"],
        &["ECHO", "behind"],
    ];
    let script: Vec<u8> = words.iter().flat_map(|it| encode(it)).collect();
    let client = sim.log_in("acme", &script);
    sim.settle();
    let seen = told(&sim.clients[client].seen);
    assert_eq!(seen, "+OK|+OK|$4|done|$6|behind|");
}

#[test]
fn a_client_that_takes_nothing_holds_only_itself() {
    let mut sim = Sim::new(0);
    let set = encode(&["SET", "a", &"v".repeat(1000)]);
    let slow = sim.log_in(
        "acme",
        &[set, encode(&["GET", "a"]).repeat(20_000)].concat(),
    );
    sim.clients[slow].reads = false;
    sim.settle();
    // So many commands may be under way when it is noticed, each with its reply.
    let queued = sim.queued(slow);
    assert!(
        queued < 8 << 20,
        "{queued} bytes are kept for a client that does not take them"
    );
    let other = sim.log_in("acme", &encode(&["GET", "a"]));
    sim.settle();
    assert!(told(&sim.clients[other].seen).starts_with("+OK|$1000|"));
    sim.clients[slow].reads = true;
    sim.settle();
    let (replies, rest) = split(&sim.clients[slow].seen);
    assert_eq!((replies.len(), rest.len()), (20_002, 0));
}

#[test]
fn a_server_that_does_not_answer_holds_up_its_own_clients_only() {
    let mut sim = Sim::new(0);
    let first = sim.log_in("acme", &encode(&["ECHO", "a"]));
    sim.settle();
    for conn in sim.server.of_number(3) {
        sim.wires.get_mut(&conn).unwrap().stalled = true;
    }
    sim.clients[first].script = encode(&["SET", "a", &"v".repeat(60_000)]).repeat(100);
    let other = sim.log_in("beta", &encode(&["ECHO", "b"]));
    sim.settle();
    assert_eq!(told(&sim.clients[other].seen), "+OK|$1|b|");
    // The client is not read while the server takes nothing.
    assert!(sim.clients[first].script.len() > 4 << 20);
    for wire in sim.wires.values_mut() {
        wire.stalled = false;
    }
    sim.settle();
    let (replies, _) = split(&sim.clients[first].seen);
    assert_eq!(replies.len(), 102);
}

// ---- servers of other versions ----

/// A command as servers since 7.0 list it. `keys`: first, last, step. `spec`: how its keys are described.
fn listed(name: &str, flags: &[&str], keys: [i64; 3], spec: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    write::array_header(&mut out, 11);
    write::bulk(&mut out, name.as_bytes());
    write::integer(&mut out, -2);
    write::array_header(&mut out, flags.len());
    flags
        .iter()
        .for_each(|it| write::simple(&mut out, it.as_bytes()));
    keys.iter().for_each(|it| write::integer(&mut out, *it));
    // Categories and tips.
    write::array_header(&mut out, 0);
    write::array_header(&mut out, 0);
    write::array_header(&mut out, usize::from(spec.is_some()));
    out.extend_from_slice(spec.unwrap_or_default());
    // Subcommands, and something that no server sends yet.
    write::array_header(&mut out, 0);
    write::bulk(&mut out, b"of the future");
    out
}

/// The description of keys behind a number of them, in RESP2.
const COUNTED: &[u8] = b"*8\r\n$5\r\nnotes\r\n$1\r\n-\r\n$5\r\nflags\r\n*2\r\n+RW\r\n+novel\r\n\
    $12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n$5\r\nindex\r\n:1\r\n\
    $9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$6\r\nkeynum\r\n$4\r\nspec\r\n\
    *6\r\n$9\r\nkeynumidx\r\n:0\r\n$8\r\nfirstkey\r\n:1\r\n$7\r\nkeystep\r\n:1\r\n";

#[test]
fn commands_that_nobody_has_heard_of_are_prefixed_and_routed() {
    let commands = [
        // As modules give them: positions only.
        (
            "json.mget",
            listed("json.mget", &["readonly"], [1, -2, 1], None),
        ),
        (
            "x.count",
            listed("x.count", &["write", "denyoom"], [0, 0, 0], Some(COUNTED)),
        ),
        (
            "x.wait",
            listed("x.wait", &["write", "blocking"], [1, 1, 1], None),
        ),
        (
            "x.keyless",
            listed("x.keyless", &["unheard-of"], [0, 0, 0], None),
        ),
    ];
    let mut sim = Sim::with_commands(commands.to_vec());
    let calls: [(&[&str], &[&str]); 4] = [
        (
            &["JSON.MGET", "a", "b", "$"],
            &["JSON.MGET", "1z:a", "1z:b", "$"],
        ),
        (
            &["x.count", "2", "a", "b", "c"],
            &["x.count", "2", "1z:a", "1z:b", "c"],
        ),
        (&["X.WAIT", "a", "b"], &["X.WAIT", "1z:a", "b"]),
        (&["x.keyless", "a"], &["x.keyless", "a"]),
    ];
    let script: Vec<u8> = calls.iter().flat_map(|(sent, _)| encode(sent)).collect();
    let client = sim.log_in("acme", &script);
    sim.settle();
    assert_eq!(
        told(&sim.clients[client].seen),
        "+OK|$3|new|$3|new|$3|new|$3|new|"
    );
    let called = std::mem::take(&mut sim.server.called);
    let called: Vec<Vec<String>> = called
        .iter()
        .map(|words| {
            words
                .iter()
                .map(|it| String::from_utf8_lossy(it).into_owned())
                .collect()
        })
        .collect();
    let expected: Vec<&[&str]> = calls.iter().map(|(_, called)| *called).collect();
    assert_eq!(called, expected);
    // What may wait had a connection of its own, or others would have waited with it.
    assert_eq!(sim.server.of_number(3).len(), 2);
    // A server is called what it calls itself.
    sim.clients[client].script = encode(&["HELLO", "3"]);
    sim.settle();
    let seen = told(&sim.clients[client].seen);
    assert!(
        seen.contains("$6|server|$6|valkey|$7|version|VERSION|"),
        "{seen}"
    );
}
