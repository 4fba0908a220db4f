//! `/deployments`, and a tenant's part in them.

use axum::extract::State;
use control_store::deployments::{DeploymentInfo, DeploymentResult, Progress};
use control_store::ids::Role;
use control_store::snapshot::Scope;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Body, Params};
use super::page::Page;
use super::state::AppState;
use super::{blueprints, tenants, time};
use crate::app::failure::{Failure, Outcome};
use crate::app::work::Deploy;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get))
        .routes(routes!(of_tenant))
}

/// The project's deployments.
#[derive(Serialize, ToSchema)]
struct DeploymentList {
    deployments: Vec<DeploymentItem>,
    #[schema(example = 1)]
    count: usize,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A deployment.
#[derive(Serialize, ToSchema)]
struct DeploymentItem {
    #[schema(example = "dep_abc123")]
    id: String,
    #[schema(example = "main")]
    blueprint_name: String,
    #[schema(example = 3)]
    version: u32,
    /// `pending`, `in_progress`, `completed`, or `failed` if a tenant failed.
    #[schema(example = "completed")]
    status: &'static str,
    #[schema(example = 12)]
    tenants_total: usize,
    #[schema(example = 12)]
    tenants_completed: usize,
    #[schema(example = 0)]
    tenants_failed: usize,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
}

impl From<&DeploymentInfo> for DeploymentItem {
    fn from(it: &DeploymentInfo) -> Self {
        let count = |status| {
            it.results
                .iter()
                .filter(|part| part.status == status)
                .count()
        };
        Self {
            id: it.id.clone(),
            blueprint_name: it.blueprint.clone(),
            version: it.version,
            status: it.status.name(),
            tenants_total: it.results.len(),
            tenants_completed: count(Progress::Completed),
            tenants_failed: count(Progress::Failed),
            created_at: time::seconds(it.created_at),
        }
    }
}

/// Whether the key reaches a deployment, and which of its parts.
fn sees(caller: &Caller, it: &mut DeploymentInfo) -> bool {
    match &caller.key.scope {
        Scope::Project => true,
        Scope::Workspaces(_) => caller.sees_workspace(&it.blueprint),
        Scope::Tenants(ids) => {
            it.results
                .retain(|part| ids.iter().any(|id| id.as_str() == part.tenant));
            !it.results.is_empty()
        }
    }
}

/// Lists the deployments that the key reaches, the newest first.
#[utoipa::path(get, path = "/deployments", tag = "Deployments", operation_id = "list_deployments",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = DeploymentList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    mut params: Params,
) -> Outcome<Reply<DeploymentList>> {
    let page = Page::read(&mut params)?;
    params.finish()?;
    let project = caller.project().clone();
    let mut found = state
        .store(move |store| store.list_deployments(&project))
        .await?;
    found.retain_mut(|it| sees(&caller, it));
    let slice = page.cut(found, |it| it.id.clone())?;
    let deployments: Vec<_> = slice.items.iter().map(DeploymentItem::from).collect();
    Ok(Reply::ok(DeploymentList {
        count: deployments.len(),
        deployments,
        next_cursor: slice.next_cursor,
    }))
}

/// A deployment to begin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateDeployment {
    #[schema(example = "main")]
    blueprint_name: String,
    /// A version's number; the newest, with what is pending, if left out or `latest`.
    #[schema(value_type = Option<String>, example = "3")]
    version: Option<Value>,
    /// To all tenants: the default where `tenants` is left out.
    #[schema(example = true)]
    deploy_all: Option<bool>,
    /// Only to these tenants.
    #[schema(example = json!(["acme"]))]
    tenants: Option<Vec<String>>,
}

/// A deployment with each tenant's part.
#[derive(Serialize, ToSchema)]
struct DeploymentDetail {
    #[serde(flatten)]
    item: DeploymentItem,
    results: Vec<ResultItem>,
}

/// A tenant's part in a deployment.
#[derive(Serialize, ToSchema)]
struct ResultItem {
    #[schema(example = "acme")]
    tenant_id: String,
    #[schema(example = "completed")]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "120ms")]
    duration: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<DeploymentResult> for ResultItem {
    fn from(it: DeploymentResult) -> Self {
        Self {
            tenant_id: it.tenant,
            status: it.status.name(),
            duration: it.duration_us.map(duration),
            error: it.error,
        }
    }
}

/// `120ms`, rounded up.
fn duration(us: u64) -> String {
    format!("{}ms", us.div_ceil(1000))
}

impl From<DeploymentInfo> for DeploymentDetail {
    fn from(it: DeploymentInfo) -> Self {
        Self {
            item: DeploymentItem::from(&it),
            results: it.results.into_iter().map(ResultItem::from).collect(),
        }
    }
}

/// Begins a deployment of a blueprint's version to its tenants. Poll `GET /deployments/{id}` for its progress.
#[utoipa::path(post, path = "/deployments", tag = "Deployments", operation_id = "create_deployment",
    request_body = CreateDeployment, responses((status = 201, body = DeploymentDetail)))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<CreateDeployment>,
) -> Outcome<Reply<DeploymentDetail>> {
    let version = version(request.version.as_ref())?;
    let tenants = match (request.tenants, request.deploy_all) {
        (Some(_), Some(true)) => {
            return Err(Failure::bad(
                "Give either 'tenants' or 'deploy_all': true, not both",
            ));
        }
        (None, Some(false)) => {
            return Err(Failure::bad(
                "Field 'tenants' is required where 'deploy_all' is false",
            ));
        }
        (Some(tenants), _) if tenants.is_empty() => {
            return Err(Failure::bad(
                "Field 'tenants' must name at least one tenant",
            ));
        }
        (tenants, _) => tenants,
    };
    caller.workspace(&request.blueprint_name, Role::Admin)?;
    blueprints::find(&state, caller.project(), &request.blueprint_name).await?;
    let deploy = Deploy {
        blueprint: request.blueprint_name,
        version,
        tenants,
    };
    let id = state.work.deploy(caller.project(), &deploy).await?;
    let begun = state
        .store(move |store| store.deployment(caller.project(), &id))
        .await?;
    Ok(Reply::created(begun.into()))
}

/// A number, as such or as a text; `None` is the newest.
fn version(value: Option<&Value>) -> Outcome<Option<u32>> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("latest") => return Ok(None),
        Some(Value::String(text)) => text.trim_start_matches(['v', 'V']).parse().ok(),
        Some(Value::Number(number)) => number.as_u64().and_then(|it| u32::try_from(it).ok()),
        Some(_) => None,
    };
    match number {
        Some(number) if number > 0 => Ok(Some(number)),
        _ => Err(Failure::bad(
            "Field 'version' must be the number of a version, or latest",
        )),
    }
}

/// Shows a deployment and each tenant's part in it.
#[utoipa::path(get, path = "/deployments/{id}", tag = "Deployments", operation_id = "get_deployment",
    params(("id" = String, Path, example = "dep_abc123")), responses((status = 200, body = DeploymentDetail)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<DeploymentDetail>> {
    let (project, wanted) = (caller.project().clone(), id.clone());
    let mut found = state
        .store(move |store| store.deployment(&project, &wanted))
        .await?;
    if !sees(&caller, &mut found) {
        return Err(Failure::ScopeDenied(format!(
            "This API key does not reach deployment '{id}'"
        )));
    }
    Ok(Reply::ok(found.into()))
}

/// What was deployed to a tenant, the newest first.
#[derive(Serialize, ToSchema)]
struct TenantDeployments {
    #[schema(example = "acme")]
    tenant_id: String,
    #[schema(example = 1)]
    count: usize,
    deployments: Vec<TenantDeployment>,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A tenant's part in a deployment.
#[derive(Serialize, ToSchema)]
struct TenantDeployment {
    #[schema(example = "dep_abc123")]
    deployment_id: String,
    #[schema(example = "main")]
    blueprint_name: String,
    #[schema(example = 3)]
    version: u32,
    /// Of this tenant's part.
    #[schema(example = "completed")]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "120ms")]
    duration: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
}

/// Lists what was deployed to a tenant.
#[utoipa::path(get, path = "/tenants/{id}/deployments", tag = "Tenants",
    params(("id" = String, Path, example = "acme"), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = TenantDeployments)))]
async fn of_tenant(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    mut params: Params,
) -> Outcome<Reply<TenantDeployments>> {
    let page = Page::read(&mut params)?;
    params.finish()?;
    tenants::reachable(&state, &caller, &id).await?;
    let (project, tenant) = (caller.project().clone(), id.clone());
    let mut found = state
        .store(move |store| store.tenant_deployments(&project, &tenant))
        .await?;
    found.retain(|it| caller.sees_database(&id, &it.blueprint));
    let slice = page.cut(found, |it| it.id.clone())?;
    let deployments: Vec<_> = slice
        .items
        .into_iter()
        .filter_map(|it| {
            let part = it.results.into_iter().find(|part| part.tenant == id)?;
            Some(TenantDeployment {
                deployment_id: it.id,
                blueprint_name: it.blueprint,
                version: it.version,
                status: part.status.name(),
                duration: part.duration_us.map(duration),
                error: part.error,
                created_at: time::seconds(it.created_at),
            })
        })
        .collect();
    Ok(Reply::ok(TenantDeployments {
        tenant_id: id,
        count: deployments.len(),
        deployments,
        next_cursor: slice.next_cursor,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn versions() {
        for (value, expected) in [
            (json!("3"), Some(Some(3))),
            (json!("v3"), Some(Some(3))),
            (json!(3), Some(Some(3))),
            (json!("Latest"), Some(None)),
            (json!(null), Some(None)),
            (json!("0"), None),
            (json!(-1), None),
            (json!("three"), None),
            (json!([]), None),
        ] {
            assert_eq!(version(Some(&value)).ok(), expected, "{value}");
        }
    }
}
