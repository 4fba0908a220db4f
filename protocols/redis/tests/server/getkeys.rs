//! Keys, held against `COMMAND GETKEYSANDFLAGS`.

use std::collections::BTreeSet;

use protocol_redis::command::{KeyFlags, Role, Table};
use protocol_redis::reply::Value;

use crate::corpus::{self, FOOLING, SORTS, TEMPLATES};
use crate::server::{Client, Dice, Server, show};

/// What the server says: keys with their flags in the order of its descriptions. `None`: the line is not one of the command's.
fn asked(client: &mut Client, line: &[Vec<u8>]) -> Option<Vec<(Vec<u8>, KeyFlags)>> {
    let mut args: Vec<&[u8]> = vec![b"COMMAND", b"GETKEYSANDFLAGS"];
    args.extend(line.iter().map(Vec::as_slice));
    let reply = client.call(&args);
    match Value::parse(&reply).unwrap() {
        Value::Error(text) => match show(text) {
            text if text.contains("has no key arguments") => Some(Vec::new()),
            _ => None,
        },
        value => Some(
            value
                .items()
                .unwrap()
                .map(|pair| {
                    let mut pair = pair.unwrap().items().unwrap();
                    let key = pair.next().unwrap().unwrap().string().unwrap().to_vec();
                    let mut flags = KeyFlags::NONE;
                    for flag in pair.next().unwrap().unwrap().items().unwrap() {
                        flags = flags.with(KeyFlags::named(flag.unwrap().string().unwrap()));
                    }
                    (key, flags)
                })
                .collect(),
        ),
    }
}

fn walked(table: &Table, line: &[Vec<u8>]) -> Vec<(Vec<u8>, KeyFlags)> {
    let spec = table
        .find(&line[0], line.get(1).map(Vec::as_slice))
        .unwrap();
    let mut walker = spec.walk(line.len());
    line.iter()
        .filter_map(|arg| match walker.next(Some(arg)) {
            Role::Key(flags) => Some((arg.clone(), flags)),
            _ => None,
        })
        .collect()
}

fn sorted(mut keys: Vec<(Vec<u8>, KeyFlags)>) -> Vec<Vec<u8>> {
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    keys.into_iter().map(|key| key.0).collect()
}

/// Whether the server runs the line without an error. It runs in a transaction, where nothing waits.
fn runs(client: &mut Client, line: &[Vec<u8>]) -> bool {
    client.must("MULTI");
    let args: Vec<&[u8]> = line.iter().map(Vec::as_slice).collect();
    client.call(&args);
    let reply = client.call(&[b"EXEC"]);
    client.must("FLUSHALL");
    let first = Value::parse(&reply)
        .unwrap()
        .items()
        .and_then(|mut it| it.next());
    first.is_some_and(|value| !matches!(value, Ok(Value::Error(_))))
}

/// Compares one line; `true`: the server has found keys too.
fn compare(client: &mut Client, table: &Table, line: &[Vec<u8>]) -> bool {
    let Some(asked) = asked(client, line) else {
        return false;
    };
    let walked = walked(table, line);
    let found = !asked.is_empty();
    let spec = table
        .find(&line[0], line.get(1).map(Vec::as_slice))
        .unwrap();
    if sorted(asked.clone()) == sorted(walked.clone()) {
        // Where the arguments decide what is done, the table says the worst of it.
        let vary = walked.iter().any(|it| it.1.has(KeyFlags::VARIABLE_FLAGS));
        let by_grammar = [&b"sort"[..], b"sort_ro", b"migrate"].contains(&spec.name());
        if !vary && !by_grammar {
            let set = |keys: Vec<(Vec<u8>, KeyFlags)>| {
                keys.into_iter()
                    .map(|it| format!("{it:?}"))
                    .collect::<BTreeSet<_>>()
            };
            assert_eq!(set(asked), set(walked), "{line:?}");
        }
        return found;
    }
    // The server's descriptions go by keywords and are fooled by values that look like some. What counts is what it does; but of
    // a list that is stored under the name of an option, it stores it there and says something else.
    let stores_at_store =
        |pair: &[Vec<u8>]| pair.iter().all(|word| word.eq_ignore_ascii_case(b"store"));
    let is_sort = [&b"sort"[..], b"sort_ro"].contains(&spec.name());
    if is_sort && line.windows(2).any(stores_at_store) {
        return found;
    }
    assert!(
        !runs(client, line),
        "{:?}: the server says {asked:?}, we say {walked:?}",
        line.iter().map(|arg| show(arg)).collect::<Vec<_>>()
    );
    found
}

/// Servers before 7.0 do not say what a command does with its keys.
fn can_be_asked(table: &Table) -> bool {
    let found = table.find(b"command", Some(b"getkeysandflags"));
    found.is_some_and(|spec| spec.name() == b"command|getkeysandflags")
}

#[test]
fn lines_that_people_write() {
    let server = Server::start();
    let table = server.table();
    let mut client = server.connect();
    let mut dice = Dice(0x0123_4567_89ab_cdef);
    let mut with_keys = BTreeSet::new();
    for _ in 0..8 {
        for template in TEMPLATES.iter().chain(SORTS).chain(FOOLING) {
            let line = corpus::line(template, &mut dice);
            if table.find(&line[0], None).is_none() {
                continue;
            }
            if compare(&mut client, &table, &line) {
                let spec = table
                    .find(&line[0], line.get(1).map(Vec::as_slice))
                    .unwrap();
                with_keys.insert(show(spec.name()));
            }
        }
    }
    // Later servers have more commands; earlier ones cannot be asked.
    let seven = Table::from_reply(include_bytes!("../../testdata/command-7.0.resp3")).unwrap();
    let can_be_asked = can_be_asked(&table);
    for spec in seven.specs() {
        let name = show(spec.name());
        let mut walker = spec.walk(40);
        let words: [&[u8]; 40] = std::array::from_fn(|index| match index {
            0 => &b"x"[..],
            1 => b"streams",
            _ => b"1",
        });
        let takes_keys = words
            .iter()
            .any(|word| matches!(walker.next(Some(word)), Role::Key(_)));
        if takes_keys && can_be_asked && !corpus::LEFT_OUT.contains(&&*name) {
            assert!(with_keys.contains(&name), "{name} has no line");
        }
    }
}

#[test]
fn lines_that_nobody_writes() {
    const WORDS: &[&str] = &[
        "0",
        "1",
        "2",
        "3",
        "-1",
        "99",
        "store",
        "STOREDIST",
        "Limit",
        "by",
        "get",
        "count",
        "block",
        "group",
        "noack",
        "STREAMS",
        "copy",
        "auth",
        "auth2",
        "any",
        "asc",
        "km",
        "weights",
        "match",
        "left",
        "",
    ];
    let server = Server::start();
    let table = server.table();
    let mut client = server.connect();
    let mut dice = Dice(0xfeed_beef_0bad_cafe);
    for spec in table.specs() {
        // Whether MIGRATE's empty key is one depends on what comes behind it. It is not for clients.
        if spec.name() == b"migrate" {
            continue;
        }
        let least = spec.arity().unsigned_abs() as usize;
        for _ in 0..60 {
            let mut line: Vec<Vec<u8>> = spec
                .name()
                .split(|byte| *byte == b'|')
                .map(<[u8]>::to_vec)
                .collect();
            let more = match spec.arity() {
                0.. => 0,
                _ => dice.below(9),
            };
            while line.len() < least + more {
                line.push(match dice.below(3) {
                    0 => dice.pick(WORDS).as_bytes().to_vec(),
                    // All are different, so that a key's place is known by its name.
                    _ => format!("k{}", line.len()).into_bytes(),
                });
            }
            compare(&mut client, &table, &line);
        }
    }
}

/// Lines of which the server cannot say it at once, or will not run.
#[test]
fn migrate_and_kin() {
    let server = Server::start();
    let table = server.table();
    let mut client = server.connect();
    for line in [
        "migrate h 1 k 0 9",
        "migrate h 1 k 0 9 copy replace",
        "migrate h 1  0 9 keys a b",
        "migrate h 1  0 9 copy auth pw keys a b",
        "migrate h 1  0 9 auth2 u keys keys a b",
    ] {
        let line: Vec<Vec<u8>> = line.split(' ').map(|it| it.as_bytes().to_vec()).collect();
        assert!(
            compare(&mut client, &table, &line) || !can_be_asked(&table),
            "{line:?}"
        );
    }
}
