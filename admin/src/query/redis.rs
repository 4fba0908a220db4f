//! Redis: a command on each line, quoted as in redis-cli, and its reply as rows.
//!
//! | reply | columns | rows |
//! |---|---|---|
//! | one value, or none | `value` | one |
//! | array, set | `value` | one for each element |
//! | map, such as that of `HGETALL` | `key`, `value` | one for each pair |
//!
//! Values are JSON: integers as those of SQL, doubles as numbers, strings as they are and, where they are not UTF-8, as base64 in
//! an object `{"base64": …}`; what is nested are arrays, maps among them as arrays of pairs.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_store::Fault;
use protocol_redis::reply::{Items, Kind, Scan, Scanner, Value, write};
use protocol_redis::text;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::cell::MAX_SAFE;
use super::{Budget, Cell, StatementResult, Target};
use crate::app::failure::{EngineError, Failure, Outcome};

const READ_CHUNK: usize = 64 * 1024;
/// Commands that one request may hold.
const MAX_COMMANDS: usize = 10_000;
/// Replies nest no deeper than this on any server; JSON readers have their limits too.
const MAX_DEPTH: usize = 100;

/// Commands that make no sense for one request: they change the connection, or replies come at any time afterwards.
const OF_CONNECTIONS: [&str; 16] = [
    "AUTH",
    "HELLO",
    "RESET",
    "QUIT",
    "SELECT",
    "MONITOR",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "SYNC",
    "PSYNC",
    "CLIENT REPLY",
    "CLIENT TRACKING",
];

/// A command and what names it in answers.
struct Command {
    name: String,
    words: Vec<Vec<u8>>,
}

/// Runs the commands of all texts in one session, up to the first that fails.
pub(super) async fn run(target: &Target<'_>, texts: &[&str]) -> Outcome<Vec<StatementResult>> {
    let commands = commands(texts)?;
    let work = async {
        let mut connection = Connection::log_in(target).await?;
        let mut results = Vec::with_capacity(commands.len());
        for command in &commands {
            let reply = connection.ask(&command.words, target.budget).await?;
            results.push(result(command, &reply)?);
        }
        Ok(results)
    };
    match tokio::time::timeout(target.deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(Failure::Engine(engine_error(
            "ERR",
            &format!("no reply within {} ms", target.deadline.as_millis()),
        ))),
    }
}

fn commands(texts: &[&str]) -> Outcome<Vec<Command>> {
    let mut all = Vec::new();
    for (at, line) in texts.iter().flat_map(|text| text.lines()).enumerate() {
        let words = text::split(line.as_bytes()).map_err(|error| {
            Failure::BadRequest(format!("Field 'query': line {}: {error}", at + 1))
        })?;
        if words.is_empty() {
            continue;
        }
        if all.len() == MAX_COMMANDS {
            return Err(Failure::BadRequest(format!(
                "Field 'query' must hold at most {MAX_COMMANDS} commands"
            )));
        }
        let name = name(&words);
        if OF_CONNECTIONS.contains(&&*name) || OF_CONNECTIONS.contains(&first(&name)) {
            return Err(Failure::BadRequest(format!(
                "{name} needs a connection of its own: use a driver"
            )));
        }
        all.push(Command { name, words });
    }
    if all.is_empty() {
        return Err(Failure::bad("Field 'query' must not be empty"));
    }
    Ok(all)
}

fn first(name: &str) -> &str {
    name.split(' ').next().unwrap_or(name)
}

/// `GET`; of a command with subcommands that matter here, with them: `CLIENT REPLY`.
fn name(words: &[Vec<u8>]) -> String {
    let upper = |word: &Vec<u8>| String::from_utf8_lossy(word).to_uppercase();
    match words {
        [command, sub, ..] if command.eq_ignore_ascii_case(b"client") => {
            format!("CLIENT {}", upper(sub))
        }
        [command, ..] => upper(command),
        [] => String::new(),
    }
}

/// One connection to the proxy, which speaks RESP3 there: it tells maps from arrays.
struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
}

/// A peer that breaks the protocol here is a defect of ours: it is our own proxy.
fn broken(what: impl std::fmt::Display) -> Failure {
    Failure::Internal(format!("the proxy's internal socket for Redis: {what}"))
}

impl Connection {
    async fn log_in(target: &Target<'_>) -> Outcome<Self> {
        let mut connection = Self::open(target.socket).await?;
        let hello = ["HELLO", "3", "AUTH", target.database, target.password];
        let words = hello.map(|it| it.as_bytes().to_vec());
        let reply = connection.ask(&words, target.budget).await?;
        match parse(&reply)? {
            Value::Error(error) => Err(match refusal(error) {
                Failure::Engine(it) if it.code == "WRONGPASS" => Failure::BadKey,
                other => other,
            }),
            _ => Ok(connection),
        }
    }

    async fn open(socket: &Path) -> Outcome<Self> {
        let stream = UnixStream::connect(socket).await.map_err(|error| {
            tracing::error!(%error, socket = %socket.display(), "the proxy cannot be reached");
            Failure::Fault(Fault::BackendUnavailable)
        })?;
        Ok(Self {
            stream,
            input: Vec::new(),
        })
    }

    /// Sends a command and takes its reply, whole. Pushes on the way are nobody's.
    async fn ask(&mut self, words: &[Vec<u8>], budget: &Budget) -> Outcome<Vec<u8>> {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        write::command(&mut out, &words);
        self.stream.write_all(&out).await.map_err(lost)?;
        loop {
            let reply = self.reply(budget).await?;
            if !matches!(parse(&reply)?, Value::Items(Kind::Push, _)) {
                return Ok(reply);
            }
        }
    }

    async fn reply(&mut self, budget: &Budget) -> Outcome<Vec<u8>> {
        let mut scanner = Scanner::new();
        let mut scanned = 0;
        loop {
            let rest = self.input.get(scanned..).unwrap_or_default();
            if let Scan::End(end) = scanner.scan(rest).map_err(broken)? {
                let left = self.input.split_off(scanned + end);
                return Ok(std::mem::replace(&mut self.input, left));
            }
            scanned = self.input.len();
            self.input.reserve(READ_CHUNK);
            let read = self.stream.read_buf(&mut self.input).await.map_err(lost)?;
            if read == 0 {
                return Err(Fault::BackendLost.into());
            }
            budget.take(read)?;
        }
    }
}

fn lost(_: std::io::Error) -> Failure {
    Fault::BackendLost.into()
}

fn parse(reply: &[u8]) -> Outcome<Value<'_>> {
    Value::parse(reply).map_err(broken)
}

fn result(command: &Command, reply: &[u8]) -> Outcome<StatementResult> {
    let (columns, rows) = match parse(reply)? {
        Value::Error(error) => return Err(refusal(error)),
        Value::Items(Kind::Map, items) => (&["key", "value"][..], pairs(items)?),
        Value::Items(_, items) => {
            let rows = items.map(|it| Ok(vec![of(&it.map_err(broken)?, 1)?]));
            (&["value"][..], rows.collect::<Outcome<_>>()?)
        }
        value => (&["value"][..], vec![vec![of(&value, 0)?]]),
    };
    Ok(StatementResult {
        columns: columns.iter().map(|it| (*it).to_owned()).collect(),
        rows,
        command: command.name.clone(),
        affected: None,
    })
}

fn pairs(items: Items<'_>) -> Outcome<Vec<Vec<Cell>>> {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for item in items {
        let cell = of(&item.map_err(broken)?, 1)?;
        match rows.last_mut() {
            Some(row) if row.len() == 1 => row.push(cell),
            _ => rows.push(vec![cell]),
        }
    }
    Ok(rows)
}

/// A value as JSON. An error inside of a reply, as `EXEC` has them, is the text of the error.
fn of(value: &Value<'_>, depth: usize) -> Outcome<Cell> {
    if depth > MAX_DEPTH {
        return Err(Failure::BadRequest(format!(
            "The reply nests deeper than {MAX_DEPTH}: use a driver"
        )));
    }
    Ok(match value {
        Value::Null => Cell::Null,
        Value::Boolean(it) => Cell::Bool(*it),
        Value::Integer(it) if it.unsigned_abs() <= MAX_SAFE => Cell::Int(*it),
        Value::Integer(it) => Cell::Text(it.to_string()),
        Value::Double(text) => double(text),
        Value::BigNumber(text) | Value::Simple(text) => string(text),
        Value::Bulk(text) | Value::Verbatim(_, text) | Value::Error(text) => string(text),
        Value::Items(Kind::Map, items) => {
            let mut pairs: Vec<Cell> = Vec::new();
            let mut key = None;
            for item in *items {
                let cell = of(&item.map_err(broken)?, depth + 1)?;
                match key.take() {
                    None => key = Some(cell),
                    Some(key) => pairs.push(Cell::Array(vec![key, cell])),
                }
            }
            Cell::Array(pairs)
        }
        Value::Items(_, items) => {
            let cells = items.map(|it| of(&it.map_err(broken)?, depth + 1));
            Cell::Array(cells.collect::<Outcome<_>>()?)
        }
    })
}

fn string(bytes: &[u8]) -> Cell {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cell::Text(text.to_owned()),
        Err(_) => {
            let json = format!("{{\"base64\":\"{}\"}}", STANDARD.encode(bytes));
            RawValue::from_string(json).map_or(Cell::Null, Cell::Json)
        }
    }
}

/// A finite number; infinities and what is no number are texts.
fn double(text: &[u8]) -> Cell {
    let text = String::from_utf8_lossy(text);
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Cell::Float(number),
        _ => Cell::Text(text.into_owned()),
    }
}

/// What an error means to who sent the command.
fn refusal(error: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(error);
    let (code, message) = text.split_once(' ').unwrap_or((&text, &text));
    let known = [
        Fault::Suspended,
        Fault::BackendUnavailable,
        Fault::BackendLost,
    ];
    if let Some(fault) = known.into_iter().find(|it| it.to_string() == message) {
        return fault.into();
    }
    match code {
        "NOPERM" => Failure::PermissionDenied(engine_error(code, message)),
        _ => Failure::Engine(engine_error(code, message)),
    }
}

fn engine_error(code: &str, message: &str) -> EngineError {
    EngineError {
        code: code.to_owned(),
        message: message.to_owned(),
        position: None,
        detail: None,
        hint: None,
    }
}

#[cfg(test)]
mod tests;
