//! How a backend connection logs in. Knows no socket: bytes in, bytes out.

use std::num::NonZeroU32;
use std::sync::Arc;

use control_store::snapshot::NativeRole;
use protocol_postgres::backend::{
    Authentication, BackendKeyData, ErrorFields, ParameterStatus, tag,
};
use protocol_postgres::frame::{self, Split};
use protocol_postgres::scram::{
    Client, ClientBinding, ClientFinal, Credentials, Nonce, SCRAM_SHA_256, ScramError,
};
use protocol_postgres::{PROTOCOL_3_0, frontend, startup};
use thiserror::Error;

use super::Parameters;
use crate::protocol::{BackendLogin, Target};
use crate::session::Shared;

/// No message of a login is longer.
const MAX_BODY: u32 = 64 << 10;

/// Why a backend could not log in. Internal: clients are told only that the server is unavailable.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    /// The server said no.
    #[error("the server refused the login: {message} ({code})")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// The server's sentence.
        message: String,
    },
    /// It broke the protocol.
    #[error("the server sent {0}")]
    Protocol(&'static str),
    /// SCRAM failed.
    #[error(transparent)]
    Scram(#[from] ScramError),
}

impl HandshakeError {
    fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { code, .. } => {
                code.starts_with("57P") || code.starts_with("53") || code.starts_with("08")
            }
            Self::Protocol(_) | Self::Scram(_) => false,
        }
    }
}

enum State {
    /// Waits for the offer of mechanisms.
    Offer,
    /// Waits for the server's first SCRAM message.
    First(Client),
    /// Waits for the server's proof.
    Final(ClientFinal),
    /// Waits for AuthenticationOk.
    Ok,
    /// Waits for ReadyForQuery.
    Ready,
}

/// What a login yields.
pub(crate) struct LoggedIn {
    pub(crate) process_id: u32,
    pub(crate) cancel_key: Box<[u8]>,
    pub(crate) parameters: Parameters,
}

/// One login under way.
pub(crate) struct Handshake {
    role: Arc<NativeRole>,
    state: State,
    input: Vec<u8>,
    process_id: u32,
    cancel_key: Box<[u8]>,
    parameters: Parameters,
}

impl BackendLogin for Handshake {
    type Done = LoggedIn;
    type Error = HandshakeError;

    fn start(_: &Shared, target: &Target, out: &mut Vec<u8>) -> Result<Self, HandshakeError> {
        let parameters = [
            (&b"user"[..], target.role.name.as_bytes()),
            (b"database", target.database.name.as_bytes()),
        ];
        startup::write::startup_message(out, PROTOCOL_3_0, parameters)
            .map_err(|_| HandshakeError::Protocol("no name that a startup packet can hold"))?;
        Ok(Self {
            role: Arc::clone(&target.role),
            state: State::Offer,
            input: Vec::new(),
            process_id: 0,
            cancel_key: Box::default(),
            parameters: Vec::new(),
        })
    }

    fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<LoggedIn>, HandshakeError> {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        loop {
            match frame::split(rest, MAX_BODY) {
                Ok(Split::Need(_)) => {
                    self.input = rest.to_vec();
                    return Ok(None);
                }
                Ok(Split::Message { tag, body, used }) => {
                    rest = rest.get(used..).unwrap_or_default();
                    if self.message(tag, body, out)? {
                        return Ok(Some(self.take_logged_in()));
                    }
                }
                Err(_) => return Err(HandshakeError::Protocol("a broken frame")),
            }
        }
    }

    fn is_temporary(error: &HandshakeError) -> bool {
        error.is_temporary()
    }

    fn cancel_request(done: &LoggedIn) -> Box<[u8]> {
        let mut out = Vec::with_capacity(16);
        // The key came in a message of the server's, so it is no longer than one of ours may be.
        let _ = startup::write::cancel_request(&mut out, done.process_id, &done.cancel_key);
        out.into()
    }
}

impl Handshake {
    fn take_logged_in(&mut self) -> LoggedIn {
        LoggedIn {
            process_id: self.process_id,
            cancel_key: std::mem::take(&mut self.cancel_key),
            parameters: std::mem::take(&mut self.parameters),
        }
    }

    fn message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        match (tag, &self.state) {
            (tag::AUTHENTICATION, _) => self.authentication(body, out)?,
            (tag::ERROR_RESPONSE, _) => return Err(refused(body)),
            (tag::NOTICE_RESPONSE | tag::NEGOTIATE_PROTOCOL_VERSION, _) => {}
            (tag::PARAMETER_STATUS, State::Ready) => {
                let status = ParameterStatus::decode(body)
                    .map_err(|_| HandshakeError::Protocol("a broken ParameterStatus"))?;
                self.parameters
                    .push((status.name.into(), status.value.into()));
            }
            (tag::BACKEND_KEY_DATA, State::Ready) => {
                let data = BackendKeyData::decode(body)
                    .map_err(|_| HandshakeError::Protocol("a broken BackendKeyData"))?;
                self.process_id = data.process_id;
                self.cancel_key = data.key.into();
            }
            (tag::READY_FOR_QUERY, State::Ready) => return Ok(true),
            _ => return Err(HandshakeError::Protocol("a message that no login has")),
        }
        Ok(false)
    }

    fn authentication(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        let message = Authentication::decode(body)
            .map_err(|_| HandshakeError::Protocol("a broken Authentication"))?;
        let state = std::mem::replace(&mut self.state, State::Offer);
        self.state = match (state, message) {
            // `trust` and `peer` ask nothing.
            (State::Offer | State::Ok, Authentication::Ok) => State::Ready,
            (State::Offer, Authentication::Sasl(mut mechanisms)) => {
                if !mechanisms.any(|name| name == SCRAM_SHA_256) {
                    return Err(HandshakeError::Protocol("no offer of SCRAM-SHA-256"));
                }
                let nonce = Nonce::random()?;
                // The name inside SCRAM is ignored: the startup packet's counts.
                let (client, first) = Client::start("", ClientBinding::Unsupported, nonce);
                frontend::write::sasl_initial_response(out, SCRAM_SHA_256, &first)
                    .map_err(|_| HandshakeError::Protocol("too much"))?;
                State::First(client)
            }
            (State::First(client), Authentication::SaslContinue(data)) => {
                let keys = &self.role.scram;
                let credentials = Credentials::Keys {
                    salt: &keys.salt,
                    iterations: NonZeroU32::new(keys.iterations)
                        .ok_or(HandshakeError::Scram(ScramError::StaleKeys))?,
                    client_key: &keys.client_key,
                    server_key: &keys.server_key,
                };
                let (state, response) = client.respond(data, credentials)?;
                frontend::write::sasl_response(out, &response)
                    .map_err(|_| HandshakeError::Protocol("too much"))?;
                State::Final(state)
            }
            (State::Final(state), Authentication::SaslFinal(data)) => {
                state.verify(data)?;
                State::Ok
            }
            _ => return Err(HandshakeError::Protocol("an unexpected Authentication")),
        };
        Ok(())
    }
}

fn refused(body: &[u8]) -> HandshakeError {
    let Ok(fields) = ErrorFields::decode(body) else {
        return HandshakeError::Protocol("a broken ErrorResponse");
    };
    let text = |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or_default()).into();
    HandshakeError::Refused {
        code: text(fields.code()),
        message: text(fields.message()),
    }
}
