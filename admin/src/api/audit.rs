//! `/audit`: who changed what, when, and from where.

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use control_store::Store;
use control_store::audit::{AuditEntry, AuditRecord, Note};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::Params;
use super::middleware::{ClientAddress, RequestId, Who};
use super::page::{Page, Paged};
use super::state::AppState;
use super::time;
use crate::app::failure::Outcome;
use crate::audited;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Not changes: the query log tells what these did.
const NOT_AUDITED: [&str; 3] = ["/login", "/admin/query", "/workspaces/{id}/queries"];

/// Notes each change, in the transaction of the change, and afterwards what came of it.
pub(super) async fn note(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let pattern = request
        .extensions()
        .get::<MatchedPath>()
        .map(|it| it.as_str().to_owned())
        .unwrap_or_default();
    if request.method() == Method::GET || NOT_AUDITED.contains(&pattern.as_str()) {
        return next.run(request).await;
    }
    let extensions = request.extensions();
    let who = extensions.get::<Who>().cloned().unwrap_or_default();
    let address = extensions.get::<ClientAddress>().map(|it| it.0.to_string());
    let detail = json!({
        "path": request.uri().path(),
        "request_id": extensions.get::<RequestId>().and_then(|it| it.0.to_str().ok()),
    })
    .to_string();
    let action = format!("{} {pattern}", request.method());
    let note = Note::new(move || {
        let (project, key, account) = who.get().cloned()?;
        Some(AuditRecord {
            account: Some(account),
            project: Some(project),
            key: Some(key),
            address: address.clone(),
            action: action.clone(),
            detail: detail.clone(),
        })
    });
    let response = audited::by(note.clone(), next.run(request)).await;
    let status = response.status().as_u16();
    let finished = state.store(move |store| store.finish_audit(&note, status));
    if let Err(error) = finished.await {
        tracing::error!(
            ?error,
            "what came of a change could not be noted in the audit log"
        );
    }
    response
}

/// What was changed with the project's keys, the newest first.
#[derive(Serialize, ToSchema)]
struct AuditReply {
    entries: Vec<AuditItem>,
    #[serde(flatten)]
    page: Paged,
}

/// A change.
#[derive(Serialize, ToSchema)]
struct AuditItem {
    #[schema(example = 12)]
    id: u64,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
    /// The API key that made it.
    #[schema(example = 7)]
    api_key_id: Option<u64>,
    #[schema(example = "POST /tenants/{id}/suspend")]
    action: String,
    #[schema(example = "/tenants/acme/suspend")]
    path: Option<String>,
    /// From where.
    #[schema(example = "192.0.2.7")]
    address: Option<String>,
    #[schema(example = "req_5f1c3a1e00000001")]
    request_id: Option<String>,
    /// The status of the answer; left out while it is under way, and for good if a crash cut it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 200)]
    status: Option<u16>,
}

impl From<AuditEntry> for AuditItem {
    fn from(it: AuditEntry) -> Self {
        let record = it.record;
        let detail: Value = serde_json::from_str(&record.detail).unwrap_or_default();
        let text = |name: &str| detail[name].as_str().map(str::to_owned);
        Self {
            id: it.id,
            created_at: time::seconds(it.at),
            api_key_id: record.key.map(|key| key.0),
            action: record.action,
            path: text("path"),
            address: record.address,
            request_id: text("request_id"),
            status: it.status,
        }
    }
}

/// The log is long: it never comes whole.
const DEFAULT_LIMIT: u32 = 100;

/// Lists what was changed with the project's API keys, the newest first.
#[utoipa::path(get, path = "/audit", tag = "Projects",
    params(("limit" = Option<u32>, Query, description = "At most so many; 100 if left out"), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = AuditReply)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    params: Params,
) -> Outcome<Reply<AuditReply>> {
    let page = Page::read(params)?.at_most(DEFAULT_LIMIT);
    caller.project_admin()?;
    let find = move |store: &Store, part: &_| store.audit(caller.project(), part);
    let (entries, page) = page.of(&state, find, |it| it.id, AuditItem::from).await?;
    Ok(Reply::ok(AuditReply { entries, page }))
}
