//! What a request can fail with. `api/envelope.rs` alone turns it into HTTP.

use std::time::Duration;

use control_store::ids::Role;
use control_store::{Entity, Fault, StoreError};
use serde_json::{Map, Value};

/// An error of a database engine, in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError {
    /// The engine's code, for PostgreSQL the SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// Character of the query text, from 1.
    pub position: Option<u32>,
    /// More about the problem.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

/// Why a request failed, split by whose fault it is.
#[derive(Debug)]
pub enum Failure {
    /// There was no `Authorization` header.
    AuthRequired,
    /// The API key is not one of ours.
    BadKey,
    /// The request makes no sense; the sentence names the field and what is accepted.
    BadRequest(String),
    /// The tier, or the isolation level, does not allow it.
    Forbidden(String),
    /// The key's role is too low.
    RoleRequired {
        /// The lowest role that may do it.
        needs: Role,
        /// The key's role.
        has: Role,
    },
    /// The key's scope does not reach it.
    ScopeDenied(String),
    /// The database refused it to the key's role.
    PermissionDenied(EngineError),
    /// There is no such thing, or no such path.
    NotFound(String),
    /// It exists already, or its state does not allow this; with fields that explain.
    Conflict(String, Map<String, Value>),
    /// The method is not one that the path has.
    MethodNotAllowed,
    /// The body is larger than this many bytes.
    BodyTooLarge(usize),
    /// Too many requests.
    RateLimited {
        /// The sentence.
        message: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// The database refused the query.
    Engine(EngineError),
    /// The data plane refused it.
    Fault(Fault),
    /// The store refused it.
    Store(StoreError),
    /// Ours. The text is for the log alone.
    Internal(String),
}

impl Failure {
    /// A request that makes no sense.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::BadRequest(message.into())
    }

    /// A conflict with a sentence alone.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict(message.into(), Map::new())
    }

    /// There is no such thing.
    pub fn not_found(what: Entity, name: impl std::fmt::Display) -> Self {
        Self::NotFound(format!("{what} not found: {name}"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What use cases return.
pub type Outcome<T> = Result<T, Failure>;
