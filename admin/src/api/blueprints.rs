//! `/blueprints`.

use std::sync::Arc;

use axum::extract::State;
use control_store::ids::{ProjectId, Role};
use control_store::states::Mode;
use control_store::workspaces::{VersionInfo, WorkspaceInfo};
use control_store::{Entity, Store, StoreError};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Params};
use super::page::{Page, PageParams, Paged};
use super::state::{AppState, Shared};
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
    #[serde(flatten)]
    page: Paged,
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

impl BlueprintItem {
    fn new(it: &WorkspaceInfo, tenant_count: u64) -> Self {
        Self {
            name: it.name.clone(),
            database: it.engine.lower_name(),
            workspace_id: it.name.clone(),
            current_version: it.version,
            tenant_count,
        }
    }
}

/// Lists the blueprints that the key reaches.
#[utoipa::path(get, path = "/blueprints", tag = "Blueprints", operation_id = "list_blueprints",
    params(PageParams),
    responses((status = 200, body = BlueprintList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    params: Params,
) -> Outcome<Reply<BlueprintList>> {
    let page = Page::read(params)?;
    let key = Arc::clone(&caller.key);
    let find = move |store: &Store, part: &_| {
        store.list_workspaces(&key.project, Some(Mode::Tenant), &key.scope, part)
    };
    let show = |it: WorkspaceInfo| item(&state, &caller, &it);
    let (blueprints, page) = page.of(&state, find, |it| it.name.clone(), show).await?;
    Ok(Reply::ok(BlueprintList { blueprints, page }))
}

fn item(state: &Shared, caller: &Caller, it: &WorkspaceInfo) -> BlueprintItem {
    let tenants = state.snapshot().tenant_count(caller.project(), &it.name);
    BlueprintItem::new(it, tenants)
}

/// The workspace behind a blueprint. One in control mode is found too: the caller says what is wrong with it.
pub(super) fn find(state: &Shared, project: &ProjectId, name: &str) -> Outcome<Arc<WorkspaceInfo>> {
    match workspaces::find(state, project, name) {
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

fn find_readable(state: &Shared, caller: &Caller, name: &str) -> Outcome<Arc<WorkspaceInfo>> {
    caller.workspace(name, Role::Read)?;
    let found = find(state, caller.project(), name)?;
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
    let found = find_readable(&state, &caller, &name)?;
    let item = item(&state, &caller, &found);
    let changes = state
        .store(move |store| store.changes(caller.project(), &name))
        .await?;
    let deployed = changes.into_iter().filter(|it| it.version.is_some());
    Ok(Reply::ok(BlueprintDetail {
        item,
        schema: deployed.map(|it| it.statement).collect(),
    }))
}

/// A blueprint's versions, the newest first.
#[derive(Serialize, ToSchema)]
struct VersionList {
    versions: Vec<VersionItem>,
    #[serde(flatten)]
    page: Paged,
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

impl From<VersionInfo> for VersionItem {
    fn from(it: VersionInfo) -> Self {
        Self {
            version: it.number,
            ddl_count: it.changes,
            created_at: time::seconds(it.created_at),
            deployed_at: it.deployed_at.map(time::seconds),
        }
    }
}

/// Lists the versions of a blueprint.
#[utoipa::path(get, path = "/blueprints/{name}/versions", tag = "Blueprints",
    params(("name" = String, Path, example = "myapp"), PageParams),
    responses((status = 200, body = VersionList)))]
async fn versions(
    State(state): State<AppState>,
    caller: Caller,
    At(name): At<String>,
    params: Params,
) -> Outcome<Reply<VersionList>> {
    let page = Page::read(params)?;
    find_readable(&state, &caller, &name)?;
    let find = move |store: &Store, part: &_| store.versions(caller.project(), &name, part);
    let (versions, page) = page
        .of(&state, find, |it| u64::from(it.number), VersionItem::from)
        .await?;
    Ok(Reply::ok(VersionList { versions, page }))
}
