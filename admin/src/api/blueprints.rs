//! `/blueprints`.

use axum::extract::State;
use control_store::ids::{ProjectId, Role};
use control_store::states::Mode;
use control_store::workspaces::WorkspaceInfo;
use control_store::{Entity, StoreError};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Params};
use super::page::Page;
use super::state::AppState;
use super::{time, workspaces};
use crate::app::failure::{Failure, Outcome};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(versions))
}

/// The project's blueprints.
#[derive(Serialize, ToSchema)]
struct BlueprintList {
    blueprints: Vec<BlueprintItem>,
    #[schema(example = 1)]
    count: usize,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A blueprint.
#[derive(Serialize, ToSchema)]
struct BlueprintItem {
    #[schema(example = "main")]
    name: String,
    #[schema(example = "postgresql")]
    database: &'static str,
    #[schema(example = "main")]
    workspace_id: String,
    /// The newest version; 0 if there is none yet.
    #[schema(example = 3)]
    current_version: u32,
    /// Tenants that have a database of it.
    #[schema(example = 12)]
    tenant_count: u64,
}

impl From<WorkspaceInfo> for BlueprintItem {
    fn from(it: WorkspaceInfo) -> Self {
        Self {
            workspace_id: it.name.clone(),
            name: it.name,
            database: it.engine.lower_name(),
            current_version: it.version,
            tenant_count: it.tenant_count,
        }
    }
}

/// Lists the blueprints that the key reaches.
#[utoipa::path(get, path = "/blueprints", tag = "Blueprints", operation_id = "list_blueprints",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = BlueprintList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    mut params: Params,
) -> Outcome<Reply<BlueprintList>> {
    let page = Page::read(&mut params)?;
    params.finish()?;
    let project = caller.project().clone();
    let mut found = state
        .store(move |store| store.list_workspaces(&project))
        .await?;
    found.retain(|it| it.mode == Mode::Tenant && caller.sees_workspace(&it.name));
    let slice = page.cut(found, |it| it.name.clone())?;
    let blueprints: Vec<_> = slice.items.into_iter().map(BlueprintItem::from).collect();
    Ok(Reply::ok(BlueprintList {
        count: blueprints.len(),
        blueprints,
        next_cursor: slice.next_cursor,
    }))
}

/// The workspace behind a blueprint. One in control mode is found too: the caller says what is wrong with it.
pub(super) async fn find(
    state: &AppState,
    project: &ProjectId,
    name: &str,
) -> Outcome<WorkspaceInfo> {
    match workspaces::find(state, project, name).await {
        Err(Failure::Store(StoreError::NotFound {
            what: Entity::Workspace,
            ..
        })) => Err(missing(name)),
        other => other,
    }
}

fn missing(name: &str) -> Failure {
    Failure::NotFound(format!("Blueprint not found: {name}"))
}

async fn find_readable(state: &AppState, caller: &Caller, name: &str) -> Outcome<WorkspaceInfo> {
    caller.workspace(name, Role::Read)?;
    let found = find(state, caller.project(), name).await?;
    if found.mode == Mode::Control {
        return Err(missing(name));
    }
    Ok(found)
}

/// A blueprint with its statements.
#[derive(Serialize, ToSchema)]
struct BlueprintDetail {
    #[serde(flatten)]
    item: BlueprintItem,
    /// The statements of all versions, in order.
    #[schema(example = json!(["CREATE TABLE users (id SERIAL PRIMARY KEY, name TEXT NOT NULL)"]))]
    schema: Vec<String>,
}

/// Shows a blueprint.
#[utoipa::path(get, path = "/blueprints/{name}", tag = "Blueprints", operation_id = "get_blueprint",
    params(("name" = String, Path, example = "myapp")), responses((status = 200, body = BlueprintDetail)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    At(name): At<String>,
) -> Outcome<Reply<BlueprintDetail>> {
    let found = find_readable(&state, &caller, &name).await?;
    let changes = state
        .store(move |store| store.changes(caller.project(), &name))
        .await?;
    let deployed = changes.into_iter().filter(|it| it.version.is_some());
    Ok(Reply::ok(BlueprintDetail {
        item: found.into(),
        schema: deployed.map(|it| it.statement).collect(),
    }))
}

/// A blueprint's versions, the newest first.
#[derive(Serialize, ToSchema)]
struct VersionList {
    versions: Vec<VersionItem>,
    #[schema(example = 1)]
    count: usize,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A version of a blueprint.
#[derive(Serialize, ToSchema)]
struct VersionItem {
    #[schema(example = 3)]
    version: u32,
    /// Changes in it.
    #[schema(example = 2)]
    ddl_count: u64,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
    /// When it first went to a tenant.
    #[schema(example = "2026-01-17T20:15:00Z")]
    deployed_at: Option<String>,
}

/// Lists the versions of a blueprint.
#[utoipa::path(get, path = "/blueprints/{name}/versions", tag = "Blueprints",
    params(("name" = String, Path, example = "myapp"), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = VersionList)))]
async fn versions(
    State(state): State<AppState>,
    caller: Caller,
    At(name): At<String>,
    mut params: Params,
) -> Outcome<Reply<VersionList>> {
    let page = Page::read(&mut params)?;
    params.finish()?;
    find_readable(&state, &caller, &name).await?;
    let found = state
        .store(move |store| store.versions(caller.project(), &name))
        .await?;
    let slice = page.cut(found, |it| it.number.to_string())?;
    let versions: Vec<_> = slice
        .items
        .into_iter()
        .map(|it| VersionItem {
            version: it.number,
            ddl_count: it.changes,
            created_at: time::seconds(it.created_at),
            deployed_at: it.deployed_at.map(time::seconds),
        })
        .collect();
    Ok(Reply::ok(VersionList {
        count: versions.len(),
        versions,
        next_cursor: slice.next_cursor,
    }))
}
