//! The envelope of every JSON answer, and the one translation of failures into HTTP.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use control_store::fault::DDL_REFUSED;
use control_store::{Entity, Fault, StoreError};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::app::failure::{EngineError, Failure};

/// The codes of the reference, and those for keys with a role and a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request succeeded.
    Ok,
    /// Something was created.
    Created,
    /// The input is invalid.
    BadRequest,
    /// There is no `Authorization` header.
    AuthRequired,
    /// The API key or the login is wrong.
    Unauthorized,
    /// The tier or the isolation level does not allow it.
    Forbidden,
    /// The key's role is too low.
    RoleRequired,
    /// The key's scope does not reach it.
    ScopeDenied,
    /// The database refused it to the key's role.
    PermissionDenied,
    /// There is no such thing.
    NotFound,
    /// It exists already, or its state does not allow this.
    Conflict,
    /// Too many requests.
    RateLimited,
    /// Ours.
    InternalError,
}

impl Code {
    /// All, in the order of the reference; those of its own at the end.
    pub const ALL: [Self; 13] = [
        Self::Ok,
        Self::Created,
        Self::BadRequest,
        Self::AuthRequired,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::RateLimited,
        Self::InternalError,
        Self::RoleRequired,
        Self::ScopeDenied,
        Self::PermissionDenied,
    ];

    /// The word in `code`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Created => "created",
            Self::BadRequest => "bad_request",
            Self::AuthRequired => "auth_required",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RoleRequired => "role_required",
            Self::ScopeDenied => "scope_denied",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::InternalError => "internal_error",
        }
    }

    /// The status it stands for.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Ok => StatusCode::OK,
            Self::Created => StatusCode::CREATED,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::AuthRequired | Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::RoleRequired | Self::ScopeDenied | Self::PermissionDenied => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict => StatusCode::CONFLICT,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What `GET /errors` says of it.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Ok => "Request succeeded",
            Self::Created => "Resource was created",
            Self::BadRequest => "Invalid input or missing fields",
            Self::AuthRequired => "Authorization header missing",
            Self::Unauthorized => "Invalid API key",
            Self::Forbidden => "Tier limit reached or wrong project",
            Self::RoleRequired => "The API key's role does not allow this",
            Self::ScopeDenied => "The API key's scope does not reach this",
            Self::PermissionDenied => "The database refused this to the API key's role",
            Self::NotFound => "Resource does not exist",
            Self::Conflict => "Already exists or operation in progress",
            Self::RateLimited => "Too many requests",
            Self::InternalError => "Server error",
        }
    }
}

/// The fields that every JSON answer carries.
#[derive(Serialize, ToSchema)]
pub struct Envelope {
    /// Whether the request succeeded.
    pub success: bool,
    /// The HTTP status code.
    #[schema(example = 200)]
    pub http_status: u16,
    /// A code for programs.
    #[schema(example = "ok")]
    pub code: &'static str,
}

impl Envelope {
    fn of(code: Code, status: StatusCode) -> Self {
        Self {
            success: status.is_success(),
            http_status: status.as_u16(),
            code: code.name(),
        }
    }
}

/// Every failure's answer. Some carry more fields that explain.
#[derive(Serialize, ToSchema)]
pub struct ErrorReply {
    /// The envelope.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// What went wrong, for people.
    pub error: String,
    /// Fields that explain.
    #[serde(flatten)]
    #[schema(additional_properties)]
    pub more: Map<String, Value>,
}

/// A success: the endpoint's own fields, merged with the envelope.
#[derive(Debug)]
pub struct Reply<T>(Code, T);

impl<T> Reply<T> {
    /// 200 `ok`.
    pub fn ok(body: T) -> Self {
        Self(Code::Ok, body)
    }

    /// 201 `created`.
    pub fn created(body: T) -> Self {
        Self(Code::Created, body)
    }
}

#[derive(Serialize)]
struct Enveloped<T> {
    #[serde(flatten)]
    envelope: Envelope,
    #[serde(flatten)]
    body: T,
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let Self(code, body) = self;
        let envelope = Envelope::of(code, code.status());
        (code.status(), Json(Enveloped { envelope, body })).into_response()
    }
}

/// A failure, as HTTP has it.
struct Answer {
    code: Code,
    status: StatusCode,
    error: String,
    more: Map<String, Value>,
    retry_after: Option<u64>,
}

impl Answer {
    fn new(code: Code, error: impl Into<String>) -> Self {
        Self {
            code,
            status: code.status(),
            error: error.into(),
            more: Map::new(),
            retry_after: None,
        }
    }

    fn with(mut self, more: Map<String, Value>) -> Self {
        self.more.extend(more);
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let answer = translate(self);
        let body = ErrorReply {
            envelope: Envelope::of(answer.code, answer.status),
            error: answer.error,
            more: answer.more,
        };
        let mut response = (answer.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = answer.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The sentence alone, for a failure that is one part of a success.
pub(super) fn sentence(failure: Failure) -> String {
    translate(failure).error
}

fn translate(failure: Failure) -> Answer {
    match failure {
        Failure::AuthRequired => Answer::new(Code::AuthRequired, "Authorization header required"),
        Failure::BadKey => Answer::new(Code::Unauthorized, "Invalid API key"),
        Failure::BadRequest(why) => Answer::new(Code::BadRequest, why),
        Failure::Forbidden(why) => Answer::new(Code::Forbidden, why),
        Failure::RoleRequired { needs, has } => Answer::new(
            Code::RoleRequired,
            format!(
                "This needs an API key with the role {}; this key has the role {}",
                needs.name(),
                has.name()
            ),
        ),
        Failure::ScopeDenied(why) => Answer::new(Code::ScopeDenied, why),
        Failure::PermissionDenied(error) => engine(Code::PermissionDenied, error),
        Failure::NotFound(what) => Answer::new(Code::NotFound, what),
        Failure::Conflict(why, more) => conflict(why, more),
        Failure::MethodNotAllowed => Answer {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Answer::new(
                Code::BadRequest,
                "Method not allowed on this path: see GET /docs",
            )
        },
        Failure::BodyTooLarge(limit) => Answer {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            ..Answer::new(
                Code::BadRequest,
                format!("The request body is larger than {limit} bytes"),
            )
        },
        Failure::RateLimited {
            message,
            retry_after,
        } => Answer {
            retry_after: Some(retry_after.as_secs().max(1)),
            ..Answer::new(Code::RateLimited, message)
        },
        Failure::Engine(error) if error.message == DDL_REFUSED => {
            Answer::new(Code::BadRequest, DDL_REFUSED)
        }
        Failure::Engine(error) => engine(Code::BadRequest, error),
        Failure::Fault(fault) => self::fault(&fault),
        Failure::Store(error) => store(&error),
        Failure::Internal(detail) => internal(&detail),
    }
}

/// The sentence of a conflict under both names that the reference has for it.
fn conflict(why: String, more: Map<String, Value>) -> Answer {
    let mut answer = Answer::new(Code::Conflict, why.clone()).with(more);
    answer.more.insert("message".into(), why.into());
    answer
}

fn engine(code: Code, error: EngineError) -> Answer {
    let mut more = Map::new();
    more.insert("engine_code".into(), error.code.into());
    for (name, value) in [
        ("position", error.position.map(Value::from)),
        ("detail", error.detail.map(Value::from)),
        ("hint", error.hint.map(Value::from)),
    ] {
        more.extend(value.map(|value| (name.to_owned(), value)));
    }
    Answer::new(code, error.message).with(more)
}

/// The detail goes to the log here, and to nobody else.
fn internal(detail: &str) -> Answer {
    tracing::error!(detail, "a request failed by our fault");
    Answer::new(Code::InternalError, "Internal server error")
}

// No `_` arm: a new fault must not compile until this face answers it.
fn fault(fault: &Fault) -> Answer {
    let text = fault.to_string();
    match fault {
        Fault::AuthFailed => Answer::new(Code::Unauthorized, text),
        Fault::UnknownDatabase => Answer::new(Code::NotFound, "Database not found"),
        Fault::PermissionDenied => Answer::new(Code::PermissionDenied, text),
        Fault::AddressBanned => Answer {
            retry_after: Some(300),
            ..Answer::new(Code::RateLimited, text)
        },
        Fault::Suspended | Fault::NotReady => conflict(text, Map::new()),
        Fault::TlsRequired
        | Fault::DdlRefused
        | Fault::ConnectionLimit { .. }
        | Fault::QueryTimeout { .. }
        | Fault::Cancelled
        | Fault::RowLimit { .. }
        | Fault::ProtocolViolation { .. }
        | Fault::Unsupported { .. } => Answer::new(Code::BadRequest, text),
        Fault::ProxyFull
        | Fault::PoolTimeout { .. }
        | Fault::HoldTimeout
        | Fault::BackendUnavailable
        | Fault::BackendLost
        | Fault::Terminated { .. }
        | Fault::Draining => Answer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: Some(1),
            ..Answer::new(Code::InternalError, text)
        },
        Fault::Bug => internal("the data plane reported a defect"),
    }
}

fn store(error: &StoreError) -> Answer {
    let text = error.to_string();
    match error {
        StoreError::NotFound { .. } => Answer::new(Code::NotFound, text),
        StoreError::Taken {
            what: Entity::Account,
            ..
        } => conflict("Email already registered".into(), Map::new()),
        StoreError::Taken { .. } | StoreError::InUse { .. } => conflict(text, Map::new()),
        StoreError::Ambiguous { ids, .. } => {
            let more = json!({ "project_ids": ids });
            conflict(text, more.as_object().cloned().unwrap_or_default())
        }
        StoreError::WrongState {
            what: Entity::Tenant,
            name,
            state: "in trash" | "deleted",
        } => conflict(
            format!(
                "Tenant '{name}' is in trash. Use POST /tenants/{name}/restore or DELETE /tenants/{name}?hard=true"
            ),
            Map::new(),
        ),
        StoreError::WrongState { .. } | StoreError::NewerVersion { .. } => {
            conflict(text, Map::new())
        }
        StoreError::Invalid { field, why } => {
            Answer::new(Code::BadRequest, format!("Invalid {field}: {why}"))
        }
        StoreError::LoginFailed => Answer::new(Code::Unauthorized, text),
        StoreError::NameOnServer { .. }
        | StoreError::ServerFull { .. }
        | StoreError::NewerSchema { .. }
        | StoreError::WrongSealingKey
        | StoreError::KeyFile { .. }
        | StoreError::SealBroken
        | StoreError::Corrupt { .. }
        | StoreError::IllegalEvent(_)
        | StoreError::Crypto
        | StoreError::Sqlite(_) => internal(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_codes_and_sentences() {
        let engine = |message: &str| EngineError {
            code: "42501".into(),
            message: message.into(),
            position: Some(3),
            detail: None,
            hint: None,
        };
        let in_trash = StoreError::WrongState {
            what: Entity::Tenant,
            name: "acme".into(),
            state: "in trash",
        };
        for (failure, status, code, error) in [
            (
                Failure::AuthRequired,
                401,
                "auth_required",
                "Authorization header required",
            ),
            (Failure::BadKey, 401, "unauthorized", "Invalid API key"),
            (
                Failure::not_found(Entity::Tenant, "acme"),
                404,
                "not_found",
                "Tenant not found: acme",
            ),
            (
                in_trash.into(),
                409,
                "conflict",
                "Tenant 'acme' is in trash. Use POST /tenants/acme/restore or DELETE /tenants/acme?hard=true",
            ),
            (
                Failure::Engine(engine(DDL_REFUSED)),
                400,
                "bad_request",
                "DDL not allowed on tenant databases. Deploy schema through blueprints.",
            ),
            (
                Failure::PermissionDenied(engine("no")),
                403,
                "permission_denied",
                "no",
            ),
            (
                Fault::Bug.into(),
                500,
                "internal_error",
                "Internal server error",
            ),
            (
                Failure::BodyTooLarge(7),
                413,
                "bad_request",
                "The request body is larger than 7 bytes",
            ),
        ] {
            let answer = translate(failure);
            assert_eq!(
                (
                    answer.status.as_u16(),
                    answer.code.name(),
                    answer.error.as_str()
                ),
                (status, code, error)
            );
        }
    }

    #[test]
    fn too_many_requests_say_when_to_come_back() {
        let response = Failure::RateLimited {
            message: "rate limit exceeded: max 60 requests per minute".into(),
            retry_after: std::time::Duration::ZERO,
        }
        .into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
