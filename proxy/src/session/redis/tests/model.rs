//! A model of a Redis server: enough of it that order, transactions, waiting, messages and both versions of the protocol matter.
//! `dialogues.txt` says what a real server answers, and the model is held to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use protocol_redis::reply::write::{self, Version};
use protocol_redis::request::{Args, Event, LARGE, Next, Parser, Stream};

/// What a server of this version says of its commands.
const TABLE: &[u8] = include_bytes!("../../../../../protocols/redis/testdata/command-7.0.resp3");
const VERSION: &str = "7.0.15";

type Words = Vec<Vec<u8>>;
type Key = (u32, Vec<u8>);

/// Who may log in, and which keys and channels are theirs; `None`: the platform's own user, which may select.
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) password: &'static str,
    pub(super) prefix: Option<&'static str>,
}

enum Value {
    Text(Vec<u8>),
    List(VecDeque<Vec<u8>>),
}

/// The server.
pub(super) struct Model {
    users: Vec<User>,
    data: BTreeMap<Key, Value>,
    pub(super) conns: BTreeMap<u32, Conn>,
    next_client: i64,
    now: Instant,
    /// It is a newer server, and has these commands besides: as `COMMAND` lists them.
    more: Vec<(&'static str, Vec<u8>)>,
    /// How it was called with them.
    pub(super) called: Vec<Words>,
    /// A script keeps it busy for longer than a script may.
    pub(super) busy: bool,
}

/// One connection.
pub(super) struct Conn {
    client: i64,
    input: Vec<u8>,
    pub(super) output: Vec<u8>,
    number: u32,
    /// It has logged in.
    known: bool,
    prefix: Option<&'static str>,
    version: Version,
    queued: Option<Vec<Words>>,
    queue_failed: bool,
    watched: Vec<Key>,
    watch_failed: bool,
    waits: Option<Wait>,
    channels: Vec<Vec<u8>>,
    patterns: Vec<Vec<u8>>,
    tracking: bool,
    seen: BTreeSet<Key>,
    /// Pushes that follow the reply of the command that runs.
    afterwards: Vec<u8>,
    pub(super) over: bool,
}

struct Wait {
    keys: Vec<Key>,
    until: Option<Instant>,
}

impl Conn {
    fn subscribed(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    fn error(&mut self, text: &str) {
        write::error(&mut self.output, text.as_bytes());
    }
}

fn number(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

impl Model {
    pub(super) fn new(users: Vec<User>, now: Instant) -> Self {
        Self {
            users,
            data: BTreeMap::new(),
            conns: BTreeMap::new(),
            next_client: 1,
            now,
            more: Vec::new(),
            called: Vec::new(),
            busy: false,
        }
    }

    /// Makes it a server that knows more commands.
    pub(super) fn extend(&mut self, more: Vec<(&'static str, Vec<u8>)>) {
        self.more = more;
    }

    /// What it says to `COMMAND`.
    fn table(&self) -> Vec<u8> {
        let end = TABLE.iter().position(|it| *it == b'\n').unwrap_or(0) + 1;
        let count = number(&TABLE[1..end - 2]).and_then(|it| usize::try_from(it).ok());
        let mut table = Vec::new();
        write::array_header(&mut table, count.unwrap_or(0) + self.more.len());
        table.extend_from_slice(&TABLE[end..]);
        self.more.iter().for_each(|(_, it)| table.extend(it));
        table
    }

    pub(super) fn clear(&mut self) {
        self.data.clear();
    }

    pub(super) fn connect(&mut self, id: u32) {
        let conn = Conn {
            client: self.next_client,
            input: Vec::new(),
            output: Vec::new(),
            number: 0,
            known: false,
            prefix: None,
            version: Version::Resp2,
            queued: None,
            queue_failed: false,
            watched: Vec::new(),
            watch_failed: false,
            waits: None,
            channels: Vec::new(),
            patterns: Vec::new(),
            tracking: false,
            seen: BTreeSet::new(),
            afterwards: Vec::new(),
            over: false,
        };
        self.next_client += 1;
        self.conns.insert(id, conn);
    }

    pub(super) fn receive(&mut self, id: u32, bytes: &[u8]) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.input.extend_from_slice(bytes);
        }
        self.go_on(id);
    }

    /// Runs what a connection has sent, unless one of its commands waits.
    fn go_on(&mut self, id: u32) {
        while let Some(conn) = self.conns.get_mut(&id)
            && conn.waits.is_none()
            && !conn.over
            && let Some(words) = take_command(&mut conn.input)
        {
            self.command(id, words);
        }
    }

    /// Which connections act in that logical database.
    pub(super) fn of_number(&self, number: u32) -> Vec<u32> {
        let found = self.conns.iter().filter(|(_, it)| it.number == number);
        found.map(|(id, _)| *id).collect()
    }

    /// The next moment at which something happens by itself.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let waits = self.conns.values().filter_map(|it| it.waits.as_ref());
        waits.filter_map(|it| it.until).min()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        let late: Vec<u32> = self
            .conns
            .iter()
            .filter(|(_, it)| {
                let until = it.waits.as_ref().and_then(|it| it.until);
                until.is_some_and(|until| until <= now)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.wake(id);
        }
    }

    /// A command waits no longer, with nothing.
    fn wake(&mut self, id: u32) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.waits.take().is_some()
        {
            write::null_array(&mut conn.output, conn.version);
        }
        self.go_on(id);
    }

    fn command(&mut self, id: u32, words: Words) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let name = String::from_utf8_lossy(&words[0]).to_ascii_lowercase();
        let of_subscribers = [
            "subscribe",
            "unsubscribe",
            "psubscribe",
            "punsubscribe",
            "ping",
            "quit",
            "reset",
        ];
        if conn.subscribed() && conn.version == Version::Resp2 && !of_subscribers.contains(&&*name)
        {
            return conn.error(&format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
            ));
        }
        if !conn.known && !["auth", "hello", "quit"].contains(&&*name) {
            return conn.error("NOAUTH Authentication required.");
        }
        let while_busy = [
            "auth", "hello", "multi", "discard", "watch", "unwatch", "quit", "script",
        ];
        if self.busy && !while_busy.contains(&&*name) {
            const BUSY: &str = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
            if name == "exec" && conn.queued.take().is_some() {
                conn.watched.clear();
                return conn.error(&format!(
                    "EXECABORT Transaction discarded because of: {BUSY}"
                ));
            }
            conn.queue_failed = true;
            return conn.error(BUSY);
        }
        if self.more.iter().any(|(it, _)| *it == name) {
            write::bulk(&mut conn.output, b"new");
            return self.called.push(words);
        }
        let known = KNOWN.iter().find(|(it, ..)| *it == name);
        let queues = !["multi", "exec", "discard", "watch", "quit", "reset"].contains(&&*name);
        let Some((_, arity, keys)) = known else {
            conn.queue_failed = true;
            let shown: String = words[1..]
                .iter()
                .map(|it| format!("'{}' ", String::from_utf8_lossy(it)))
                .collect();
            let name = String::from_utf8_lossy(&words[0]).into_owned();
            return conn.error(&format!(
                "ERR unknown command '{name}', with args beginning with: {shown}"
            ));
        };
        let fits = match usize::try_from(*arity) {
            Ok(arity) => words.len() == arity,
            Err(_) => words.len() >= arity.unsigned_abs() as usize,
        };
        if !fits {
            conn.queue_failed = true;
            return conn.error(&format!(
                "ERR wrong number of arguments for '{name}' command"
            ));
        }
        if let (Some(prefix), (from @ 1.., back)) = (conn.prefix, *keys) {
            let end = (words.len() + 1).saturating_sub(back);
            let mut named = words[..end].iter().skip(from);
            if !named.all(|it| it.starts_with(prefix.as_bytes())) {
                conn.queue_failed = true;
                return conn.error("NOPERM this user has no permissions to access one of the keys used as arguments");
            }
        }
        if queues && let Some(queued) = conn.queued.as_mut() {
            queued.push(words);
            return write::simple(&mut conn.output, b"QUEUED");
        }
        self.run(id, &name, &words, false);
        if let Some(conn) = self.conns.get_mut(&id) {
            let after = std::mem::take(&mut conn.afterwards);
            conn.output.extend(after);
        }
    }

    fn run(&mut self, id: u32, name: &str, words: &[Vec<u8>], in_exec: bool) {
        let word = |at: usize| words.get(at).map_or(&b""[..], |it| it);
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let db = conn.number;
        let version = conn.version;
        let key = |at: usize| (db, word(at).to_vec());
        match name {
            "ping" if conn.subscribed() && version == Version::Resp2 => {
                write::array_header(&mut conn.output, 2);
                write::bulk(&mut conn.output, b"pong");
                write::bulk(&mut conn.output, word(1));
            }
            "ping" if words.len() == 1 => write::simple(&mut conn.output, b"PONG"),
            "ping" | "echo" => write::bulk(&mut conn.output, word(1)),
            "auth" => {
                let lets_in = self.lets_in(id, word(1), word(words.len() - 1));
                self.reply(id, |out, _| match lets_in {
                    true => write::ok(out),
                    false => write::error(
                        out,
                        b"WRONGPASS invalid username-password pair or user is disabled.",
                    ),
                });
            }
            "hello" => {
                conn.version = match word(1) {
                    b"3" => Version::Resp3,
                    b"2" => Version::Resp2,
                    _ => return conn.error("NOPROTO unsupported protocol version"),
                };
                if word(2) == b"AUTH" {
                    assert!(
                        self.lets_in(id, word(3), word(4)),
                        "a wrong password in HELLO"
                    );
                }
                self.hello(id);
            }
            "select" => {
                conn.number = number(word(1))
                    .and_then(|it| u32::try_from(it).ok())
                    .unwrap_or(0);
                write::ok(&mut conn.output);
            }
            "command" => {
                let table = self.table();
                self.reply(id, |out, _| out.extend(table));
            }
            "quit" => {
                write::ok(&mut conn.output);
                conn.over = true;
            }
            "client" => self.client(id, words),
            "script" => write::error(
                &mut conn.output,
                b"NOTBUSY No scripts in execution right now.",
            ),
            // A client's own script says so; those of the proxy ask how long keys live.
            "eval" if word(1).starts_with(b"return") => write::bulk(&mut conn.output, b"done"),
            "eval" => {
                let keys = number(word(2))
                    .and_then(|it| usize::try_from(it).ok())
                    .unwrap_or(0);
                write::array_header(&mut conn.output, keys);
                (0..keys).for_each(|_| write::integer(&mut conn.output, 0));
            }
            "set" => {
                write::ok(&mut conn.output);
                self.store(id, &key(1), Some(Value::Text(word(2).to_vec())));
            }
            "get" => self.get(id, &key(1)),
            "incr" => self.increment(id, &key(1)),
            "mget" => {
                write::array_header(&mut conn.output, words.len() - 1);
                for at in 1..words.len() {
                    self.get(id, &key(at));
                }
            }
            "del" => {
                let gone = (1..words.len())
                    .filter(|at| self.data.contains_key(&key(*at)))
                    .count();
                self.reply(id, |out, _| {
                    write::integer(out, i64::try_from(gone).unwrap_or(0))
                });
                for at in 1..words.len() {
                    if self.data.contains_key(&key(at)) {
                        self.store(id, &key(at), None);
                    }
                }
            }
            "keys" => {
                let start = word(1).strip_suffix(b"*").unwrap_or(word(1));
                let found: Words = self
                    .data
                    .keys()
                    .filter(|(it, name)| *it == db && name.starts_with(start))
                    .map(|(_, name)| name.clone())
                    .collect();
                self.reply(id, |out, _| {
                    write::array_header(out, found.len());
                    found.iter().for_each(|it| write::bulk(out, it));
                });
            }
            "dbsize" => {
                let count = self.data.keys().filter(|(it, _)| *it == db).count();
                self.reply(id, |out, _| {
                    write::integer(out, i64::try_from(count).unwrap_or(0))
                });
            }
            "rpush" | "lpush" => self.push(id, &key(1), &words[2..], name == "lpush"),
            "lrange" => self.range(id, &key(1)),
            "blpop" => {
                let keys: Vec<Key> = (1..words.len() - 1).map(key).collect();
                let seconds: f64 = String::from_utf8_lossy(word(words.len() - 1))
                    .parse()
                    .unwrap_or(0.0);
                let until = (seconds > 0.0).then(|| self.now + Duration::from_secs_f64(seconds));
                self.pop(id, Wait { keys, until }, in_exec);
            }
            "multi" => match conn.queued {
                Some(_) => conn.error("ERR MULTI calls can not be nested"),
                None => {
                    conn.queued = Some(Vec::new());
                    conn.queue_failed = false;
                    write::ok(&mut conn.output);
                }
            },
            "exec" => self.exec(id),
            "discard" => match conn.queued.take() {
                Some(_) => {
                    conn.watched.clear();
                    conn.watch_failed = false;
                    write::ok(&mut conn.output);
                }
                None => conn.error("ERR DISCARD without MULTI"),
            },
            "watch" if conn.queued.is_some() => conn.error("ERR WATCH inside MULTI is not allowed"),
            "watch" => {
                conn.watched.extend((1..words.len()).map(key));
                write::ok(&mut conn.output);
            }
            "unwatch" => {
                conn.watched.clear();
                conn.watch_failed = false;
                write::ok(&mut conn.output);
            }
            "subscribe" | "psubscribe" | "unsubscribe" | "punsubscribe" => {
                self.subscribe(id, name, &words[1..])
            }
            "publish" => self.publish(id, word(1), word(2)),
            _ => conn.error("ERR the model has no such command"),
        }
    }

    fn reply(&mut self, id: u32, reply: impl FnOnce(&mut Vec<u8>, Version)) {
        if let Some(conn) = self.conns.get_mut(&id) {
            reply(&mut conn.output, conn.version);
        }
    }

    fn lets_in(&mut self, id: u32, name: &[u8], password: &[u8]) -> bool {
        let user = self
            .users
            .iter()
            .find(|it| it.name.as_bytes() == name && it.password.as_bytes() == password);
        if let (Some(conn), Some(user)) = (self.conns.get_mut(&id), user) {
            conn.known = true;
            conn.prefix = user.prefix;
        }
        user.is_some()
    }

    fn hello(&mut self, id: u32) {
        let client = self.conns.get(&id).map_or(0, |it| it.client);
        let (name, number) = match self.more.is_empty() {
            true => ("redis", VERSION),
            false => ("valkey", "9.1.0"),
        };
        self.reply(id, |out, version| {
            write::map_header(out, version, 7);
            for (name, value) in [("server", name), ("version", number)] {
                write::bulk(out, name.as_bytes());
                write::bulk(out, value.as_bytes());
            }
            write::bulk(out, b"proto");
            write::integer(out, if version == Version::Resp3 { 3 } else { 2 });
            write::bulk(out, b"id");
            write::integer(out, client);
            for (name, value) in [("mode", "standalone"), ("role", "master")] {
                write::bulk(out, name.as_bytes());
                write::bulk(out, value.as_bytes());
            }
            write::bulk(out, b"modules");
            write::array_header(out, 0);
        });
    }

    fn client(&mut self, id: u32, words: &[Vec<u8>]) {
        let word = |at: usize| words.get(at).map_or(&b""[..], |it| it);
        match &*word(1).to_ascii_lowercase() {
            b"tracking" => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.tracking = word(2).eq_ignore_ascii_case(b"on");
                    conn.seen.clear();
                    write::ok(&mut conn.output);
                }
            }
            b"unblock" => {
                let wanted = number(word(2)).unwrap_or(0);
                let found = self
                    .conns
                    .iter()
                    .find(|(_, it)| it.client == wanted && it.waits.is_some());
                let found = found.map(|(id, _)| *id);
                self.reply(id, |out, _| write::integer(out, i64::from(found.is_some())));
                if let Some(found) = found {
                    self.wake(found);
                }
            }
            _ => self.reply(id, |out, _| write::error(out, b"ERR unknown subcommand")),
        }
    }

    fn get(&mut self, id: u32, key: &Key) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if conn.tracking {
            conn.seen.insert(key.clone());
        }
        match self.data.get(key) {
            Some(Value::Text(text)) => write::bulk(&mut conn.output, text),
            Some(Value::List(_)) => {
                conn.error("WRONGTYPE Operation against a key holding the wrong kind of value")
            }
            None => write::null(&mut conn.output, conn.version),
        }
    }

    fn increment(&mut self, id: u32, key: &Key) {
        let old = match self.data.get(key) {
            Some(Value::Text(text)) => number(text),
            Some(Value::List(_)) => None,
            None => Some(0),
        };
        match old {
            Some(old) => {
                self.reply(id, |out, _| write::integer(out, old + 1));
                self.store(id, key, Some(Value::Text((old + 1).to_string().into())));
            }
            None => self.reply(id, |out, _| {
                write::error(out, b"ERR value is not an integer or out of range")
            }),
        }
    }

    fn range(&mut self, id: u32, key: &Key) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let none = VecDeque::new();
        let list = match self.data.get(key) {
            Some(Value::List(list)) => list,
            _ => &none,
        };
        write::array_header(&mut conn.output, list.len());
        list.iter().for_each(|it| write::bulk(&mut conn.output, it));
    }

    fn push(&mut self, id: u32, key: &Key, values: &[Vec<u8>], left: bool) {
        let entry = self
            .data
            .entry(key.clone())
            .or_insert_with(|| Value::List(VecDeque::new()));
        let Value::List(list) = entry else {
            return self.reply(id, |out, _| {
                write::error(
                    out,
                    b"WRONGTYPE Operation against a key holding the wrong kind of value",
                )
            });
        };
        for value in values {
            if left {
                list.push_front(value.clone());
            } else {
                list.push_back(value.clone());
            }
        }
        let len = i64::try_from(list.len()).unwrap_or(0);
        self.reply(id, |out, _| write::integer(out, len));
        self.changed(id, key);
        // Those who wait are served when the command has run, or the transaction.
        let waiting: Vec<u32> = self
            .conns
            .iter()
            .filter(|(_, it)| it.waits.as_ref().is_some_and(|it| it.keys.contains(key)))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if let Some(wait) = self.conns.get_mut(&id).and_then(|it| it.waits.take()) {
                self.pop(id, wait, false);
                self.go_on(id);
            }
        }
    }

    fn pop(&mut self, id: u32, wait: Wait, in_exec: bool) {
        for key in &wait.keys {
            if let Some(Value::List(list)) = self.data.get_mut(key)
                && let Some(value) = list.pop_front()
            {
                let empty = list.is_empty();
                let name = key.1.clone();
                self.reply(id, |out, _| {
                    write::array_header(out, 2);
                    write::bulk(out, &name);
                    write::bulk(out, &value);
                });
                if empty {
                    self.data.remove(key);
                }
                return self.changed(id, key);
            }
        }
        if in_exec {
            self.reply(id, write::null_array);
        } else if let Some(conn) = self.conns.get_mut(&id) {
            conn.waits = Some(wait);
        }
    }

    fn store(&mut self, id: u32, key: &Key, value: Option<Value>) {
        match value {
            Some(value) => drop(self.data.insert(key.clone(), value)),
            None => drop(self.data.remove(key)),
        }
        self.changed(id, key);
    }

    /// Those who watch a key or have read it hear that it has changed.
    fn changed(&mut self, by: u32, key: &Key) {
        for (id, conn) in &mut self.conns {
            conn.watch_failed |= conn.watched.contains(key);
            if conn.tracking && conn.seen.remove(key) {
                let out = if *id == by {
                    &mut conn.afterwards
                } else {
                    &mut conn.output
                };
                write::push_header(out, conn.version, 2);
                write::bulk(out, b"invalidate");
                write::array_header(out, 1);
                write::bulk(out, &key.1);
            }
        }
    }

    fn exec(&mut self, id: u32) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let Some(queued) = conn.queued.take() else {
            return conn.error("ERR EXEC without MULTI");
        };
        conn.watched.clear();
        let changed = std::mem::take(&mut conn.watch_failed);
        if std::mem::take(&mut conn.queue_failed) {
            return conn.error("EXECABORT Transaction discarded because of previous errors.");
        }
        if changed {
            return write::null_array(&mut conn.output, conn.version);
        }
        write::array_header(&mut conn.output, queued.len());
        for words in queued {
            let name = String::from_utf8_lossy(&words[0]).to_ascii_lowercase();
            self.run(id, &name, &words, true);
        }
    }

    fn subscribe(&mut self, id: u32, name: &str, names: &[Vec<u8>]) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let patterns = name.starts_with('p');
        let adds = !name.contains("un");
        let list = if patterns {
            &mut conn.patterns
        } else {
            &mut conn.channels
        };
        let mut names: Vec<Option<Vec<u8>>> = names.iter().cloned().map(Some).collect();
        if names.is_empty() {
            names = list.iter().cloned().map(Some).collect();
            if names.is_empty() {
                names.push(None);
            }
        }
        for channel in names {
            let list = if patterns {
                &mut conn.patterns
            } else {
                &mut conn.channels
            };
            if let Some(channel) = &channel {
                if adds && !list.contains(channel) {
                    list.push(channel.clone());
                } else if !adds {
                    list.retain(|it| it != channel);
                }
            }
            let count = conn.channels.len() + conn.patterns.len();
            write::push_header(&mut conn.output, conn.version, 3);
            write::bulk(&mut conn.output, name.as_bytes());
            match channel {
                Some(channel) => write::bulk(&mut conn.output, &channel),
                None => write::null(&mut conn.output, conn.version),
            }
            write::integer(&mut conn.output, i64::try_from(count).unwrap_or(0));
        }
    }

    fn publish(&mut self, id: u32, channel: &[u8], text: &[u8]) {
        let mut heard = 0;
        for conn in self.conns.values_mut() {
            if conn.channels.iter().any(|it| it == channel) {
                heard += 1;
                write::push_header(&mut conn.output, conn.version, 3);
                for part in [b"message", channel, text] {
                    write::bulk(&mut conn.output, part);
                }
            }
            for pattern in &conn.patterns {
                let start = pattern.strip_suffix(b"*").unwrap_or(pattern);
                if channel.starts_with(start) {
                    heard += 1;
                    write::push_header(&mut conn.output, conn.version, 4);
                    for part in [b"pmessage", &**pattern, channel, text] {
                        write::bulk(&mut conn.output, part);
                    }
                }
            }
        }
        self.reply(id, |out, _| write::integer(out, heard));
    }
}

/// Names, arity as the table has it, and which arguments are keys or channels: from which on, and how many are none at the end.
const KNOWN: &[(&str, i32, (usize, usize))] = &[
    ("ping", -1, (0, 0)),
    ("echo", 2, (0, 0)),
    ("auth", -2, (0, 0)),
    ("hello", -1, (0, 0)),
    ("select", 2, (0, 0)),
    ("command", -1, (0, 0)),
    ("quit", -1, (0, 0)),
    ("client", -2, (0, 0)),
    ("script", -2, (0, 0)),
    ("set", -3, (1, 2)),
    ("get", 2, (1, 1)),
    ("incr", 2, (1, 1)),
    ("mget", -2, (1, 1)),
    ("del", -2, (1, 1)),
    ("eval", -3, (0, 0)),
    ("keys", 2, (0, 0)),
    ("dbsize", 1, (0, 0)),
    ("rpush", -3, (0, 0)),
    ("lpush", -3, (0, 0)),
    ("lrange", 4, (1, 3)),
    ("blpop", -3, (1, 2)),
    ("multi", 1, (0, 0)),
    ("exec", 1, (0, 0)),
    ("discard", 1, (0, 0)),
    ("watch", -2, (1, 1)),
    ("unwatch", 1, (0, 0)),
    ("subscribe", -2, (1, 1)),
    ("unsubscribe", -1, (1, 1)),
    ("psubscribe", -2, (1, 1)),
    ("punsubscribe", -1, (1, 1)),
    ("publish", 3, (1, 2)),
];

/// One whole command off the front.
fn take_command(input: &mut Vec<u8>) -> Option<Words> {
    let mut parser = Parser::new();
    parser.set_authenticated(true);
    let mut args = Args::new();
    match parser.next(input, &mut args).unwrap() {
        Next::Command { used } => {
            let words = args.command(input).args().map(<[u8]>::to_vec).collect();
            input.drain(..used);
            Some(words)
        }
        Next::Empty { used } => {
            input.drain(..used);
            take_command(input)
        }
        Next::Incomplete { .. } => None,
        Next::Large => {
            let (words, used) = take_large(parser.stream(), input)?;
            input.drain(..used);
            Some(words)
        }
    }
}

/// A command that the parser does not take whole.
fn take_large(mut stream: Stream, input: &[u8]) -> Option<(Words, usize)> {
    let mut words: Words = Vec::new();
    let mut at = 0;
    loop {
        let step = stream.next(&input[at..]).unwrap();
        let start = at;
        at += step.used;
        match step.event {
            Event::More => return None,
            Event::Arg(arg) => words.push(arg.to_vec()),
            Event::Large { .. } => words.push(Vec::with_capacity(LARGE)),
            Event::Piece { range, .. } => {
                if let Some(word) = words.last_mut() {
                    word.extend_from_slice(&input[start + range.start..start + range.end]);
                }
            }
            Event::End => return Some((words, at)),
            _ => {}
        }
    }
}
