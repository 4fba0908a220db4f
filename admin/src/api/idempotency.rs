//! `Idempotency-Key`: a request that is sent again is not carried out again.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use control_store::answers::{RememberedAnswer, request_digest};

use super::caller::find_key;
use super::input;
use super::middleware::ClientAddress;
use super::state::{AppState, Shared};
use crate::app::failure::{Failure, Outcome};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_NAME: usize = 255;
/// Larger answers are not remembered.
const MAX_ANSWER: usize = 1 << 20;

/// Requests with a key that run now, by scope and key.
#[derive(Default)]
pub(super) struct Running(Mutex<HashSet<(String, String)>>);

/// One of them; dropped when it has ended, however it ended.
struct Turn<'a> {
    running: &'a Running,
    id: (String, String),
}

impl Running {
    fn begin(&self, id: (String, String)) -> Option<Turn<'_>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .insert(id.clone())
            .then_some(Turn { running: self, id })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut running = self
            .running
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.id);
    }
}

/// Carries a POST with an `Idempotency-Key` out once.
pub(super) async fn once(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let asks = request.method() == Method::POST && request.headers().contains_key(HEADER);
    let scope = if asks { scope(&request, &state) } else { None };
    match scope {
        None => next.run(request).await,
        Some(scope) => answer(&state, scope, request, next)
            .await
            .unwrap_or_else(Failure::into_response),
    }
}

/// Paths that take a POST without an API key.
const PUBLIC: [&str; 2] = ["/signup", "/login"];

/// Who may have the answer again: whoever has the API key, or on public paths the address. `None`: the key is missing or not
/// one of ours, which the handler says.
fn scope(request: &Request, state: &Shared) -> Option<String> {
    match find_key(request.headers(), state) {
        Ok(key) => Some(format!("key {}", key.id)),
        Err(Failure::AuthRequired) if PUBLIC.contains(&request.uri().path()) => {
            let address = request.extensions().get::<ClientAddress>()?;
            Some(format!("address {}", address.0))
        }
        Err(_) => None,
    }
}

async fn answer(
    state: &AppState,
    scope: String,
    request: Request,
    next: Next,
) -> Outcome<Response> {
    let name = name(request.headers())?;
    let (parts, body) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), body);
    let limit = input::body_limit(&parts.extensions, &state.config);
    let body = input::read(whole, limit).await?;
    let path = parts.uri.path_and_query().map_or("", |it| it.as_str());
    let digest = request_digest(parts.method.as_str(), path, &body);
    let _turn = state
        .running
        .begin((scope.clone(), name.clone()))
        .ok_or_else(|| Failure::conflict("A request with this Idempotency-Key is still running"))?;

    let (of, known) = (scope.clone(), name.clone());
    let remembered = state
        .store(move |store| store.remembered_answer(&of, &known))
        .await?;
    match remembered {
        Some(remembered) if remembered.request == digest => return Ok(replay(remembered)),
        Some(_) => {
            return Err(Failure::conflict(
                "This Idempotency-Key was used with another request",
            ));
        }
        None => {}
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    remember(state, scope, name, digest, response).await
}

fn name(headers: &HeaderMap) -> Outcome<String> {
    headers
        .get(HEADER)
        .and_then(|it| it.to_str().ok())
        .filter(|it| (1..=MAX_NAME).contains(&it.len()))
        .map(str::to_owned)
        .ok_or_else(|| Failure::bad("Header 'Idempotency-Key' must be 1 to 255 visible characters"))
}

fn replay(answer: RememberedAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Remembers an answer, unless trying again may give another one.
async fn remember(
    state: &AppState,
    scope: String,
    name: String,
    request: [u8; 32],
    response: Response,
) -> Outcome<Response> {
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX)
        .await
        .map_err(|error| Failure::Internal(format!("an answer broke off: {error}")))?;
    if body.len() <= MAX_ANSWER {
        let answer = RememberedAnswer {
            request,
            status: status.as_u16(),
            body: body.to_vec(),
        };
        let noted = state
            .store(move |store| store.remember_answer(&scope, &name, &answer))
            .await;
        if let Err(error) = noted {
            // It was carried out: the client must learn that.
            tracing::error!(?error, "an answer could not be remembered");
        }
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}
