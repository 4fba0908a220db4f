//! A model of a PostgreSQL server: enough of the protocol that order, errors, transactions and statements by name matter.

use std::collections::{HashMap, HashSet};

use protocol_postgres::backend::{
    ErrorResponse, Severity, TransactionStatus as Status, write as reply,
};
use protocol_postgres::frame::{self, Split};
use protocol_postgres::frontend::{Bind, Close, Describe, Execute, Kind, Parse, Query, write};

/// Bytes of a client's messages, given in words.
pub(super) fn batch(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (what, argument) in parts {
        let (name, rest) = argument.split_once('=').unwrap_or((argument, ""));
        match *what {
            "parse" => write::parse(&mut out, name.as_bytes(), rest.as_bytes(), b"").unwrap(),
            "bind" => message(
                &mut out,
                b'B',
                &[b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat(),
            ),
            "describe" => write::describe(&mut out, Kind::Statement, name.as_bytes()).unwrap(),
            "execute" => write::execute(&mut out, b"", 0).unwrap(),
            "close" => write::close(&mut out, Kind::Statement, name.as_bytes()).unwrap(),
            "query" => write::query(&mut out, argument.as_bytes()).unwrap(),
            "data" => message(&mut out, b'd', argument.as_bytes()),
            "done" => message(&mut out, b'c', b""),
            _ => write::sync(&mut out),
        }
    }
    out
}

fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
}

/// What the model answers to a client that is alone with it.
pub(super) fn direct(script: &[u8]) -> Vec<u8> {
    let mut model = Model::default();
    model.receive(script);
    assert!(
        model.input.is_empty() && model.status == Status::Idle,
        "the script ends at rest"
    );
    std::mem::take(&mut model.output)
}

/// How many times the server has said that it is ready.
pub(super) fn ready_count(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Split::Message { tag, used, .. }) = frame::split(bytes, 1 << 20) {
        count += usize::from(tag == b'Z');
        bytes = &bytes[used..];
    }
    count
}

/// Messages as people read them.
pub(super) fn told(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Ok(Split::Message { tag, body, used }) = frame::split(bytes, 1 << 20) {
        let body: String = String::from_utf8_lossy(body)
            .chars()
            .filter(|it| it.is_ascii_graphic() || *it == ' ')
            .collect();
        text.push_str(&format!("{}({body}) ", char::from(tag)));
        bytes = &bytes[used..];
    }
    if !bytes.is_empty() {
        text.push_str(&format!("and {} bytes of half a message", bytes.len()));
    }
    text
}

/// One server process.
pub(super) struct Model {
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) status: Status,
    skipping: bool,
    copying: bool,
    statements: HashMap<Vec<u8>, Vec<u8>>,
    /// Statements whose result has changed its shape since they were prepared.
    stale: HashSet<Vec<u8>>,
    /// A batch has begun: it may hold locks that keep a schema from changing.
    in_batch: bool,
    portal: Option<Vec<u8>>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            input: Vec::new(),
            output: Vec::new(),
            status: Status::Idle,
            skipping: false,
            copying: false,
            statements: HashMap::new(),
            stale: HashSet::new(),
            in_batch: false,
            portal: None,
        }
    }
}

impl Model {
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Split::Message { tag, body, used } = frame::split(rest, 1 << 20).unwrap() {
            self.message(tag, body);
            rest = &rest[used..];
        }
        self.input = rest.to_vec();
    }

    /// Somebody else changes the schema: what is prepared can no longer be used.
    pub(super) fn alter(&mut self) {
        if !self.in_batch {
            self.stale = self.statements.keys().cloned().collect();
        }
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.skipping && tag != b'S' {
            return;
        }
        self.in_batch = true;
        match tag {
            b'Q' => {
                self.statements.remove(&b""[..]);
                let text = Query::decode(body).unwrap().query.to_vec();
                self.query(&text);
            }
            b'P' => {
                let parse = Parse::decode(body).unwrap();
                if parse.query.starts_with(b"fail") || parse.query == b"tenantsdb refused this" {
                    self.fail("42601", &String::from_utf8_lossy(parse.query));
                } else if parse.query.starts_with(b"CREATE") {
                    self.fail("42501", control_store::fault::DDL_REFUSED);
                } else if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
                    let name = String::from_utf8_lossy(parse.name);
                    self.fail(
                        "42P05",
                        &format!("prepared statement \"{name}\" already exists"),
                    );
                } else {
                    self.stale.remove(parse.name);
                    self.statements
                        .insert(parse.name.to_vec(), parse.query.to_vec());
                    reply::parse_complete(&mut self.output);
                }
            }
            b'B' => {
                let bind = Bind::decode(body).unwrap();
                match self.find(bind.statement) {
                    Some(_) if self.status == Status::Failed => self.aborted(),
                    Some(_) if self.stale.contains(bind.statement) => self.changed(),
                    Some(text) => {
                        self.portal = Some(text);
                        reply::bind_complete(&mut self.output);
                    }
                    None => {}
                }
            }
            b'D' => {
                let describe = Describe::decode(body).unwrap();
                if let Some(text) = self.find(describe.name) {
                    message(&mut self.output, b't', b"\0\0");
                    if self.stale.contains(describe.name) {
                        self.changed();
                    } else {
                        message(&mut self.output, b'T', &text);
                    }
                }
            }
            b'E' => {
                Execute::decode(body).unwrap();
                match self.portal.clone() {
                    Some(text) => self.run(&text),
                    None => self.fail("34000", "portal \"\" does not exist"),
                }
            }
            b'C' => {
                let close = Close::decode(body).unwrap();
                self.statements.remove(close.name);
                reply::close_complete(&mut self.output);
            }
            b'S' => {
                self.skipping = false;
                self.ready();
            }
            b'c' if std::mem::take(&mut self.copying) => {
                reply::command_complete(&mut self.output, b"COPY 2").unwrap();
                self.ready();
            }
            b'd' | b'X' | b'H' => {}
            other => panic!("the session sent {}", char::from(other)),
        }
    }

    fn find(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let found = self.statements.get(name).cloned();
        if found.is_none() {
            let text = if name.is_empty() {
                "unnamed prepared statement does not exist".to_owned()
            } else {
                format!(
                    "prepared statement \"{}\" does not exist",
                    String::from_utf8_lossy(name)
                )
            };
            self.fail("26000", &text);
        }
        found
    }

    fn query(&mut self, text: &[u8]) {
        match text {
            b"" => reply::empty_query_response(&mut self.output),
            b"BEGIN" => self.end(Status::InTransaction, b"BEGIN"),
            b"COMMIT" if self.status == Status::Failed => self.end(Status::Idle, b"ROLLBACK"),
            b"COMMIT" => self.end(Status::Idle, b"COMMIT"),
            b"ROLLBACK" => self.end(Status::Idle, b"ROLLBACK"),
            b"copy in" => {
                self.copying = true;
                return message(&mut self.output, b'G', b"\0\0\0");
            }
            b"DEALLOCATE ALL;" | b"DISCARD ALL" => {
                self.statements.clear();
                self.stale.clear();
                let (status, tag) = (self.status, text.strip_suffix(b";").unwrap_or(text));
                self.end(status, tag);
            }
            _ => {
                self.run(text);
                self.skipping = false;
            }
        }
        self.ready();
    }

    fn end(&mut self, status: Status, tag: &[u8]) {
        self.status = status;
        reply::command_complete(&mut self.output, tag).unwrap();
    }

    fn run(&mut self, text: &[u8]) {
        if text.starts_with(b"CREATE") {
            return self.fail("42501", control_store::fault::DDL_REFUSED);
        }
        if text.starts_with(b"fail") || text == b"tenantsdb refused this" {
            return self.fail("42601", &String::from_utf8_lossy(text));
        }
        if self.status == Status::Failed {
            return self.aborted();
        }
        let rows = if text == b"many rows" { 50 } else { 1 };
        if text == b"notice" {
            let notice = ErrorResponse {
                severity: Severity::Notice,
                code: "00000",
                message: "noticed",
                detail: None,
                hint: None,
            };
            reply::notice_response(&mut self.output, &notice);
        }
        for _ in 0..rows {
            message(
                &mut self.output,
                b'D',
                &[b"\0\x01\0\0\0\x05", text].concat(),
            );
        }
        reply::command_complete(&mut self.output, b"SELECT 1").unwrap();
    }

    fn changed(&mut self) {
        const ERROR: &[u8] = b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0RRevalidateCachedQuery\0\0";
        message(&mut self.output, b'E', ERROR);
        if self.status == Status::InTransaction {
            self.status = Status::Failed;
        }
        self.skipping = true;
    }

    fn aborted(&mut self) {
        self.fail("25P02", "current transaction is aborted");
    }

    fn fail(&mut self, code: &str, message: &str) {
        let error = ErrorResponse {
            severity: Severity::Error,
            code,
            message,
            detail: None,
            hint: None,
        };
        reply::error_response(&mut self.output, &error);
        if self.status == Status::InTransaction {
            self.status = Status::Failed;
        }
        self.skipping = true;
    }

    fn ready(&mut self) {
        self.in_batch = false;
        if self.status == Status::Idle {
            self.portal = None;
        }
        reply::ready_for_query(&mut self.output, self.status);
    }
}
