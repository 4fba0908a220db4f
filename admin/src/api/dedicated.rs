//! What needs a dedicated server or a backup: moves, backups, recovery. None of them is there yet, and each says so, after
//! the checks that will always come first.

use axum::extract::State;
use control_store::ids::Role;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::{ErrorReply, Reply};
use super::input::{At, Body, Params};
use super::page::{Page, PageParams, Paged};
use super::state::AppState;
use super::tenants::{changeable, check_region, level, no_dedicated, reachable};
use crate::app::failure::{Failure, Outcome};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(isolation))
        .routes(routes!(backup))
        .routes(routes!(backups))
        .routes(routes!(rollback))
        .routes(routes!(recover))
        .routes(routes!(recover_undo))
}

const NO_BACKUPS: &str = "Backups are not available yet";
const NO_RECOVERY: &str = "PITR is only available for L2 (dedicated) tenants";

/// Where a tenant's database is to go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MoveRequest {
    /// 1 (shared) or 2 (dedicated).
    #[schema(value_type = u8, example = 2)]
    isolation_level: Value,
    #[schema(example = "fintech")]
    blueprint: String,
    /// See `GET /regions`.
    #[schema(example = "us-east")]
    region: Option<String>,
}

/// Moves a tenant's database between shared and dedicated servers. Dedicated servers are not available yet.
#[utoipa::path(patch, path = "/tenants/{id}/isolation", tag = "Tenants", request_body = MoveRequest,
    params(("id" = String, Path, example = "acme")),
    responses((status = 409, description = "Not available yet", body = ErrorReply)))]
async fn isolation(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    Body(request): Body<MoveRequest>,
) -> Outcome<Reply<()>> {
    let level = level("isolation_level", Some(&request.isolation_level))?;
    if let Some(region) = &request.region {
        check_region(&state, "region", region)?;
    }
    let (_, databases) = changeable(&state, &caller, &id)?;
    if !databases
        .iter()
        .any(|it| it.blueprint.as_str() == request.blueprint)
    {
        return Err(Failure::NotFound(format!(
            "Tenant '{id}' has no database of blueprint '{}'",
            request.blueprint
        )));
    }
    if level == 1 {
        return Err(Failure::conflict(format!(
            "'{}' of tenant '{id}' is on a shared server already",
            request.blueprint
        )));
    }
    Err(no_dedicated(&caller))
}

/// Backs up all databases of a tenant. Not available yet.
#[utoipa::path(post, path = "/tenants/{id}/backup", tag = "Tenants",
    params(("id" = String, Path, example = "acme")),
    responses((status = 409, description = "Not available yet", body = ErrorReply)))]
async fn backup(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<()>> {
    changeable(&state, &caller, &id)?;
    Err(Failure::conflict(NO_BACKUPS))
}

/// A tenant's backups.
#[derive(Serialize, ToSchema)]
struct BackupList {
    #[schema(example = "acme")]
    tenant_id: String,
    backups: Vec<BackupItem>,
    #[serde(flatten)]
    page: Paged,
}

/// A backup.
#[derive(Serialize, ToSchema)]
struct BackupItem {
    #[serde(rename = "type")]
    #[schema(example = "manual")]
    kind: String,
    #[schema(example = "2026-02-15T14-30-00")]
    date: String,
    #[schema(example = "postgresql")]
    database_type: &'static str,
    #[schema(example = "postgresql/manual/2026-02-15T14-30-00/tdb_2abf90d3_tenant_acme.sql.gz")]
    storage_path: String,
    #[schema(example = 524288)]
    size_bytes: u64,
    #[schema(example = "2026-02-14T03:00:00Z")]
    created_at: String,
}

/// Lists a tenant's backups. There are none yet.
#[utoipa::path(get, path = "/tenants/{id}/backups", tag = "Tenants",
    params(("id" = String, Path, example = "acme"), PageParams),
    responses((status = 200, body = BackupList)))]
async fn backups(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Outcome<Reply<BackupList>> {
    let page = Page::read(params)?;
    reachable(&state, &caller, &id)?;
    page.part::<String>()?;
    let (backups, page) = page.cut(Vec::new(), |it: &BackupItem| it.storage_path.clone());
    Ok(Reply::ok(BackupList {
        tenant_id: id,
        backups,
        page,
    }))
}

/// A backup to go back to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RollbackRequest {
    /// From the list of backups.
    #[schema(example = "postgresql/manual/2026-02-15T14-30-00/tdb_2abf90d3_tenant_acme.sql.gz")]
    storage_path: String,
}

/// Restores a tenant from a backup. Not available yet.
#[utoipa::path(post, path = "/tenants/{id}/rollback", tag = "Tenants", request_body = RollbackRequest,
    params(("id" = String, Path, example = "acme")),
    responses((status = 409, description = "Not available yet", body = ErrorReply)))]
async fn rollback(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    Body(request): Body<RollbackRequest>,
) -> Outcome<Reply<()>> {
    if request.storage_path.is_empty() {
        return Err(Failure::bad("Field 'storage_path' must not be empty"));
    }
    changeable(&state, &caller, &id)?;
    Err(Failure::conflict(NO_BACKUPS))
}

/// A time to go back to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RecoverRequest {
    /// ISO 8601.
    #[schema(example = "2026-02-03T17:10:59Z")]
    timestamp: String,
}

/// Recovers a dedicated tenant to a point in time. 403 for shared tenants.
#[utoipa::path(post, path = "/tenants/{id}/recover", tag = "Tenants", request_body = RecoverRequest,
    params(("id" = String, Path, example = "acme")),
    responses((status = 403, description = "The tenant is shared", body = ErrorReply)))]
async fn recover(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    Body(request): Body<RecoverRequest>,
) -> Outcome<Reply<()>> {
    caller.tenant(&id, Role::Admin)?;
    if request.timestamp.parse::<jiff::Timestamp>().is_err() {
        return Err(Failure::bad(
            "Field 'timestamp' must be an ISO 8601 time such as 2026-02-03T17:10:59Z",
        ));
    }
    changeable(&state, &caller, &id)?;
    Err(Failure::Forbidden(NO_RECOVERY.into()))
}

/// Undoes a recovery of a dedicated tenant. 403 for shared tenants.
#[utoipa::path(post, path = "/tenants/{id}/recover-undo", tag = "Tenants",
    params(("id" = String, Path, example = "acme")),
    responses((status = 403, description = "The tenant is shared", body = ErrorReply)))]
async fn recover_undo(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<()>> {
    changeable(&state, &caller, &id)?;
    Err(Failure::Forbidden(NO_RECOVERY.into()))
}
