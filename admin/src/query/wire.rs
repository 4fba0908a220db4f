//! One connection to the proxy, for one text. The simple protocol: it alone takes several statements and tells types.

use std::path::Path;

use control_store::Fault;
use protocol_postgres::PROTOCOL_3_0;
use protocol_postgres::backend::{Authentication, CommandComplete, ErrorFields, field, tag};
use protocol_postgres::frame::{Split, split};
use protocol_postgres::frontend::write;
use protocol_postgres::scram::{Client, ClientBinding, Credentials, Nonce};
use protocol_postgres::startup::write::startup_message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::decode::{Column, columns, row};
use super::{Budget, StatementResult, Target, refusal};
use crate::app::failure::{EngineError, Failure, Outcome};

/// Bytes of one message; a longer one is over every budget.
const MAX_MESSAGE: u32 = 1 << 30;
const READ_CHUNK: usize = 64 * 1024;

pub(super) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    /// How much of `input` is used up.
    used: usize,
}

/// A peer that breaks the protocol here is a defect of ours: it is our own proxy.
fn broken(what: &str) -> Failure {
    Failure::Internal(format!("the proxy's internal socket: {what}"))
}

impl Connection {
    pub(super) async fn log_in(target: &Target<'_>) -> Outcome<Self> {
        let mut connection = Self::open(target.socket).await?;
        let mut out = Vec::new();
        let parameters = [
            ("user", target.user),
            ("database", target.database),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("application_name", "tenantsdb-api"),
        ];
        startup_message(
            &mut out,
            PROTOCOL_3_0,
            parameters.map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
        .map_err(|error| broken(&error.to_string()))?;
        connection.send(&out).await?;
        connection.authenticate(target.password).await?;
        connection.ready().await?;
        Ok(connection)
    }

    async fn open(socket: &Path) -> Outcome<Self> {
        let stream = UnixStream::connect(socket).await.map_err(|error| {
            tracing::error!(%error, socket = %socket.display(), "the proxy cannot be reached");
            Failure::Fault(Fault::BackendUnavailable)
        })?;
        Ok(Self {
            stream,
            input: Vec::new(),
            used: 0,
        })
    }

    async fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(|_| Fault::BackendLost.into())
    }

    /// The next message: its type, and where its body is in `input`.
    async fn message(&mut self) -> Outcome<(u8, std::ops::Range<usize>)> {
        loop {
            let pending = &self.input[self.used..];
            match split(pending, MAX_MESSAGE).map_err(|error| broken(&error.to_string()))? {
                Split::Message { tag, body, used } => {
                    let start = self.used + used - body.len();
                    let range = start..start + body.len();
                    self.used += used;
                    return Ok((tag, range));
                }
                Split::Need(more) => {
                    self.input.drain(..self.used);
                    self.used = 0;
                    self.input.reserve(more.clamp(READ_CHUNK, 1 << 20));
                    let read = self.stream.read_buf(&mut self.input).await;
                    if read.unwrap_or(0) == 0 {
                        return Err(Fault::BackendLost.into());
                    }
                }
            }
        }
    }

    async fn authenticate(&mut self, password: &str) -> Outcome<()> {
        let nonce = Nonce::random().map_err(|error| broken(&error.to_string()))?;
        let (client, first) = Client::start("", ClientBinding::Unsupported, nonce);
        let mut client = Some(client);
        let mut last = None;
        loop {
            let (tag, body) = self.message().await?;
            let body = &self.input[body];
            if tag == tag::ERROR_RESPONSE {
                return Err(refusal(engine_error(body)?));
            }
            if tag != tag::AUTHENTICATION {
                return Err(broken("unexpected message while logging in"));
            }
            let asked = Authentication::decode(body).map_err(|error| broken(&error.to_string()))?;
            let mut out = Vec::new();
            let written = match asked {
                Authentication::Ok => return Ok(()),
                Authentication::CleartextPassword => write::password(&mut out, password.as_bytes()),
                Authentication::Sasl(_) => {
                    let mechanism = ClientBinding::Unsupported.mechanism().name();
                    write::sasl_initial_response(&mut out, mechanism, &first)
                }
                Authentication::SaslContinue(challenge) => {
                    let client = client.take().ok_or_else(|| broken("a second challenge"))?;
                    let credentials = Credentials::Password(password.as_bytes());
                    let (end, answer) = client
                        .respond(challenge, credentials)
                        .map_err(|error| broken(&error.to_string()))?;
                    last = Some(end);
                    write::sasl_response(&mut out, &answer)
                }
                Authentication::SaslFinal(signature) => {
                    let end = last.take().ok_or_else(|| broken("an early end"))?;
                    end.verify(signature)
                        .map_err(|error| broken(&error.to_string()))?;
                    continue;
                }
                _ => return Err(broken("unknown authentication method")),
            };
            written.map_err(|error| broken(&error.to_string()))?;
            self.send(&out).await?;
        }
    }

    async fn ready(&mut self) -> Outcome<()> {
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                tag::READY_FOR_QUERY => return Ok(()),
                tag::ERROR_RESPONSE => return Err(refusal(engine_error(&self.input[body])?)),
                _ => {}
            }
        }
    }

    pub(super) async fn query(
        &mut self,
        sql: &str,
        budget: &Budget,
    ) -> Outcome<Vec<StatementResult>> {
        let mut out = Vec::new();
        write::query(&mut out, sql.as_bytes()).map_err(|error| broken(&error.to_string()))?;
        self.send(&out).await?;
        let mut answer = Answer::default();
        loop {
            let (tag, body) = match self.message().await {
                Ok(message) => message,
                Err(lost) => return Err(answer.error.map_or(lost, refusal)),
            };
            match tag {
                tag::READY_FOR_QUERY => break,
                tag::COPY_IN_RESPONSE => self.refuse_copy().await?,
                tag::COPY_OUT_RESPONSE | tag::COPY_BOTH_RESPONSE => {
                    return Err(Failure::bad(
                        "COPY TO STDOUT is not possible by REST: use SELECT, or a driver",
                    ));
                }
                // Nothing follows but the end of the connection.
                tag::ERROR_RESPONSE if is_fatal(&self.input[body.clone()]) => {
                    return Err(refusal(engine_error(&self.input[body])?));
                }
                tag => answer.take(tag, &self.input[body], budget)?,
            }
        }
        match answer.error {
            Some(error) => Err(refusal(error)),
            None => Ok(answer.done),
        }
    }

    /// Says that this was all.
    pub(super) async fn log_out(mut self) {
        let mut bye = Vec::new();
        write::terminate(&mut bye);
        // The proxy sees the socket close in any case.
        let _ = self.stream.write_all(&bye).await;
    }

    async fn refuse_copy(&mut self) -> Outcome<()> {
        let mut out = Vec::new();
        write::copy_fail(
            &mut out,
            b"COPY FROM STDIN is not possible by REST: use a driver",
        )
        .map_err(|error| broken(&error.to_string()))?;
        self.send(&out).await
    }
}

/// What has come of an answer so far.
#[derive(Default)]
struct Answer {
    columns: Vec<Column>,
    open: StatementResult,
    done: Vec<StatementResult>,
    error: Option<EngineError>,
}

impl Answer {
    fn take(&mut self, tag: u8, body: &[u8], budget: &Budget) -> Outcome<()> {
        match tag {
            tag::ROW_DESCRIPTION => {
                self.columns = columns(body).ok_or_else(|| broken("a bad RowDescription"))?;
                self.open.columns = self.columns.iter().map(|it| it.name.clone()).collect();
            }
            tag::DATA_ROW => {
                budget.take(body.len())?;
                let row = row(body, &self.columns).ok_or_else(|| broken("a bad DataRow"))?;
                self.open.rows.push(row);
            }
            tag::COMMAND_COMPLETE => {
                let complete =
                    CommandComplete::decode(body).map_err(|error| broken(&error.to_string()))?;
                self.finish(complete);
            }
            tag::ERROR_RESPONSE => {
                let error = engine_error(body)?;
                self.error.get_or_insert(error);
            }
            // Notices, notifications and settings tell nothing that the answer has a place for.
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, complete: CommandComplete<'_>) {
        let mut result = std::mem::take(&mut self.open);
        if self.columns.is_empty() && result.rows.is_empty() {
            result.affected = complete.rows();
        }
        result.command = String::from_utf8_lossy(complete.tag)
            .split(|c: char| c.is_ascii_digit())
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_owned();
        self.columns.clear();
        self.done.push(result);
    }
}

fn is_fatal(body: &[u8]) -> bool {
    let severity = ErrorFields::decode(body)
        .ok()
        .and_then(|it| it.get(field::SEVERITY_FIXED).or(it.get(field::SEVERITY)));
    matches!(severity, Some(b"FATAL" | b"PANIC"))
}

fn engine_error(body: &[u8]) -> Outcome<EngineError> {
    let fields = ErrorFields::decode(body).map_err(|error| broken(&error.to_string()))?;
    let text = |tag| {
        fields
            .get(tag)
            .map(|it| String::from_utf8_lossy(it).into_owned())
    };
    Ok(EngineError {
        code: text(field::CODE).unwrap_or_default(),
        message: text(field::MESSAGE).unwrap_or_default(),
        position: text(field::POSITION).and_then(|it| it.parse().ok()),
        detail: text(field::DETAIL),
        hint: text(field::HINT),
    })
}

#[cfg(test)]
mod tests;
