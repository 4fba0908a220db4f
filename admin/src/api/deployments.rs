//! `/deployments`, and a tenant's part in them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use control_store::Store;
use control_store::deployments::{
    DeploymentPlan, DeploymentResult, DeploymentSummary, OnFailure, Progress, Steer,
    TenantDeployment as Part,
};
use control_store::ids::Role;
use control_store::page::Place;
use control_store::snapshot::Scope;
use engines::ApplyStep;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Body, Params};
use super::page::{Page, PageParams, Paged};
use super::state::AppState;
use super::{blueprints, tenants, time};
use crate::app::failure::{Failure, Outcome};
use crate::app::work::{Deploy, DeployTo};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(cancel))
        .routes(routes!(retry))
        .routes(routes!(of_tenant))
}

/// The project's deployments.
#[derive(Serialize, ToSchema)]
struct DeploymentList {
    deployments: Vec<DeploymentItem>,
    #[serde(flatten)]
    page: Paged,
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
    /// `in_progress`, `paused`, `completed`, `cancelled`, or `failed` if a tenant failed.
    #[schema(example = "completed")]
    status: &'static str,
    #[schema(example = 12)]
    tenants_total: u64,
    #[schema(example = 12)]
    tenants_completed: u64,
    #[schema(example = 0)]
    tenants_failed: u64,
    /// Tenants that it did not begin with, and will not unless it is retried.
    #[schema(example = 0)]
    tenants_cancelled: u64,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
    /// Left out until it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-17T20:12:09Z")]
    finished_at: Option<String>,
}

impl From<DeploymentSummary> for DeploymentItem {
    fn from(it: DeploymentSummary) -> Self {
        Self {
            id: it.id,
            blueprint_name: it.blueprint,
            version: it.version,
            status: it.status.name(),
            tenants_total: it.counts.total,
            tenants_completed: it.counts.completed,
            tenants_failed: it.counts.failed,
            tenants_cancelled: it.counts.cancelled,
            created_at: time::seconds(it.created_at),
            finished_at: it.finished_at.map(time::seconds),
        }
    }
}

/// Whether the key reaches a deployment, of which the parts that it reaches are counted.
fn sees(caller: &Caller, it: &DeploymentSummary) -> bool {
    match &caller.key.scope {
        Scope::Project => true,
        Scope::Workspaces(_) => caller.sees_workspace(&it.blueprint),
        Scope::Tenants(_) => it.counts.total > 0,
    }
}

/// Lists the deployments that the key reaches, the newest first.
#[utoipa::path(get, path = "/deployments", tag = "Deployments", operation_id = "list_deployments",
    params(PageParams),
    responses((status = 200, body = DeploymentList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    params: Params,
) -> Outcome<Reply<DeploymentList>> {
    let page = Page::read(params)?;
    let find = move |store: &Store, part: &_| {
        store.list_deployments(caller.project(), &caller.key.scope, part)
    };
    let place = |it: &DeploymentSummary| Place {
        at: it.created_at,
        id: it.id.clone(),
    };
    let (deployments, page) = page.of(&state, find, place, DeploymentItem::from).await?;
    Ok(Reply::ok(DeploymentList { deployments, page }))
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
    /// To all tenants: the default where neither `tenants` nor `canary` is given.
    #[schema(example = true)]
    deploy_all: Option<bool>,
    /// Only to these tenants.
    #[schema(example = json!(["acme"]), min_items = 1)]
    tenants: Option<Vec<String>>,
    /// Only to so many tenants: the first by id, of those that lack something.
    #[schema(example = 5, minimum = 1)]
    canary: Option<u32>,
    /// To how many tenants at the same time, at most; each server takes a few in any case.
    #[schema(example = 8, minimum = 1, maximum = 64)]
    concurrency: Option<u32>,
    /// `continue` (default): a tenant's failure is its own; `stop`: no other tenant is begun after it.
    #[schema(example = "stop")]
    on_failure: Option<String>,
    /// Only tells what it would do.
    #[schema(example = false)]
    dry_run: Option<bool>,
}

/// The most tenants that one deployment works on at the same time.
const MAX_CONCURRENCY: u32 = 64;

impl CreateDeployment {
    fn checked(self) -> Outcome<Deploy> {
        let to = match (self.tenants, self.canary, self.deploy_all.unwrap_or(false)) {
            (Some(_), _, true) | (_, Some(_), true) | (Some(_), Some(_), _) => {
                return Err(Failure::bad(
                    "Give only one of 'tenants', 'canary' and 'deploy_all': true",
                ));
            }
            (None, None, false) if self.deploy_all.is_some() => {
                return Err(Failure::bad(
                    "Field 'tenants' or 'canary' is required where 'deploy_all' is false",
                ));
            }
            (Some(tenants), None, false) if tenants.is_empty() => {
                return Err(Failure::bad(
                    "Field 'tenants' must name at least one tenant",
                ));
            }
            (None, Some(0), false) => {
                return Err(Failure::bad("Field 'canary' must be at least 1"));
            }
            (Some(tenants), None, false) => DeployTo::Named(tenants),
            (None, Some(many), false) => DeployTo::Canary(many),
            (None, None, _) => DeployTo::All,
        };
        if self
            .concurrency
            .is_some_and(|it| !(1..=MAX_CONCURRENCY).contains(&it))
        {
            return Err(Failure::BadRequest(format!(
                "Field 'concurrency' must be 1 to {MAX_CONCURRENCY}"
            )));
        }
        let on_failure = self.on_failure.as_deref().unwrap_or("continue");
        Ok(Deploy {
            version: version(self.version.as_ref())?,
            blueprint: self.blueprint_name,
            to,
            concurrency: self.concurrency,
            on_failure: OnFailure::parse(on_failure)
                .ok_or_else(|| Failure::bad("Field 'on_failure' must be one of continue, stop"))?,
        })
    }
}

/// A deployment with each tenant's part.
#[derive(Serialize, ToSchema)]
struct DeploymentDetail {
    #[serde(flatten)]
    item: DeploymentItem,
    /// As asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 8)]
    concurrency: Option<u32>,
    #[schema(example = "continue")]
    on_failure: &'static str,
    /// By tenant.
    results: Vec<ResultItem>,
    /// Where the next page of `results` begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A tenant's part in a deployment.
#[derive(Serialize, ToSchema)]
struct ResultItem {
    #[schema(example = "acme")]
    tenant_id: String,
    /// `pending`, `in_progress`, `completed`, `failed` or `cancelled`.
    #[schema(example = "completed")]
    status: &'static str,
    /// What is being done, while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<StepItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-17T20:12:06Z")]
    started_at: Option<String>,
    /// How long it took, or has taken so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "120ms")]
    duration: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a deployment is doing for a tenant.
#[derive(Serialize, ToSchema)]
struct StepItem {
    /// The change that is being made.
    #[schema(example = 42)]
    change: i64,
    /// Its place among those that the tenant lacks, from 1.
    #[schema(example = 2)]
    number: usize,
    /// How many the tenant lacks.
    #[schema(example = 5)]
    of: usize,
    /// How often it has been tried: more than once while the tenant is busy.
    #[schema(example = 1)]
    attempt: u32,
}

impl From<ApplyStep> for StepItem {
    fn from(it: ApplyStep) -> Self {
        Self {
            change: it.change,
            number: it.number,
            of: it.of,
            attempt: it.attempt,
        }
    }
}

impl ResultItem {
    fn new(it: DeploymentResult, step: Option<ApplyStep>) -> Self {
        let running = it.status == Progress::InProgress;
        let so_far = it.started_at.filter(|_| running).map(|started| {
            let us = Timestamp::now().as_microsecond() - started.as_microsecond();
            u64::try_from(us).unwrap_or(0)
        });
        Self {
            tenant_id: it.tenant,
            status: it.status.name(),
            step: step.filter(|_| running).map(StepItem::from),
            started_at: it.started_at.map(time::seconds),
            duration: it.duration_us.or(so_far).map(duration),
            error: it.error,
        }
    }
}

/// `120ms`, rounded up.
fn duration(us: u64) -> String {
    format!("{}ms", us.div_ceil(1000))
}

/// What a deployment would do.
#[derive(Serialize, ToSchema)]
struct PlanReply {
    #[schema(example = true)]
    dry_run: bool,
    #[schema(example = "main")]
    blueprint_name: String,
    /// The version, which would be made of what is pending.
    #[schema(example = 4)]
    version: u32,
    /// All changes that a tenant lacks, in order.
    changes: Vec<PlannedChange>,
    #[schema(example = 2)]
    tenants_total: usize,
    tenants: Vec<PlannedTenantItem>,
}

/// A change that would be made.
#[derive(Serialize, ToSchema)]
struct PlannedChange {
    #[schema(example = 42)]
    id: i64,
    #[schema(example = "ALTER TABLE users ADD COLUMN age INTEGER")]
    statement: String,
    #[schema(example = 4)]
    version: u32,
}

/// What would be done to a tenant.
#[derive(Serialize, ToSchema)]
struct PlannedTenantItem {
    #[schema(example = "acme")]
    tenant_id: String,
    /// The version that it has.
    #[schema(example = 3)]
    version: u32,
    /// Ids of the changes that it lacks, in order.
    #[schema(example = json!([42]))]
    missing: Vec<i64>,
}

impl PlanReply {
    fn new(blueprint_name: String, plan: DeploymentPlan) -> Self {
        let of = plan.version;
        let changes = plan.changes.into_iter().map(|it| PlannedChange {
            id: it.id,
            version: it.version.unwrap_or(of),
            statement: it.statement,
        });
        let tenants = plan.tenants.into_iter().map(|it| PlannedTenantItem {
            tenant_id: it.tenant,
            version: it.version,
            missing: it.missing,
        });
        Self {
            dry_run: true,
            blueprint_name,
            version: plan.version,
            changes: changes.collect(),
            tenants_total: tenants.len(),
            tenants: tenants.collect(),
        }
    }
}

/// Begins a deployment of a blueprint's version to its tenants. Poll `GET /deployments/{id}` for its progress. With
/// `dry_run` it tells what it would do, and leaves no trace.
#[utoipa::path(post, path = "/deployments", tag = "Deployments", operation_id = "create_deployment",
    request_body = CreateDeployment,
    responses((status = 201, body = DeploymentDetail), (status = 200, body = PlanReply, description = "What it would do")))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<CreateDeployment>,
) -> Outcome<Response> {
    let dry_run = request.dry_run.unwrap_or(false);
    let deploy = request.checked()?;
    caller.workspace(&deploy.blueprint, Role::Admin)?;
    blueprints::find(&state, caller.project(), &deploy.blueprint)?;
    if dry_run {
        let plan = state
            .work
            .plan_deployment(caller.project(), &deploy)
            .await?;
        return Ok(Reply::ok(PlanReply::new(deploy.blueprint, plan)).into_response());
    }
    let id = state.work.deploy(caller.project(), &deploy).await?;
    let begun = detail(&state, &caller, &id, Page::WHOLE).await?;
    Ok(Reply::created(begun).into_response())
}

/// A deployment, with what it is doing.
async fn detail(
    state: &AppState,
    caller: &Caller,
    id: &str,
    page: Page,
) -> Outcome<DeploymentDetail> {
    let (key, wanted, part) = (Arc::clone(&caller.key), id.to_owned(), page.part()?);
    let (summary, parts) = state
        .store(move |store| store.deployment_parts(&key.project, &wanted, &key.scope, &part))
        .await?;
    if !sees(caller, &summary) {
        return Err(Failure::ScopeDenied(format!(
            "This API key does not reach deployment '{id}'"
        )));
    }
    let (parts, paged) = page.cut(parts, |it| it.tenant.clone());
    let mut steps = state.work.deployment_steps(id);
    let results = parts.into_iter().map(|it| {
        let step = steps.remove(&it.tenant);
        ResultItem::new(it, step)
    });
    Ok(DeploymentDetail {
        results: results.collect(),
        next_cursor: paged.next_cursor,
        concurrency: summary.concurrency,
        on_failure: summary.on_failure.name(),
        item: summary.into(),
    })
}

async fn steer(
    state: &AppState,
    caller: &Caller,
    id: &str,
    steer: Steer,
) -> Outcome<Reply<DeploymentDetail>> {
    let found = detail(state, caller, id, Page::WHOLE).await?;
    caller.workspace(&found.item.blueprint_name, Role::Admin)?;
    state
        .work
        .steer_deployment(caller.project(), id, steer)
        .await?;
    detail(state, caller, id, Page::WHOLE).await.map(Reply::ok)
}

/// Begins with no more tenants until the deployment is resumed. Those that it has begun with are brought to their end.
#[utoipa::path(post, path = "/deployments/{id}/pause", tag = "Deployments", operation_id = "pause_deployment",
    params(("id" = String, Path, example = "dep_abc123")), responses((status = 200, body = DeploymentDetail)))]
async fn pause(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<DeploymentDetail>> {
    steer(&state, &caller, &id, Steer::Pause).await
}

/// Goes on with a paused deployment.
#[utoipa::path(post, path = "/deployments/{id}/resume", tag = "Deployments", operation_id = "resume_deployment",
    params(("id" = String, Path, example = "dep_abc123")), responses((status = 200, body = DeploymentDetail)))]
async fn resume(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<DeploymentDetail>> {
    steer(&state, &caller, &id, Steer::Resume).await
}

/// Begins with no more tenants. What was done stays.
#[utoipa::path(post, path = "/deployments/{id}/cancel", tag = "Deployments", operation_id = "cancel_deployment",
    params(("id" = String, Path, example = "dep_abc123")), responses((status = 200, body = DeploymentDetail)))]
async fn cancel(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<DeploymentDetail>> {
    steer(&state, &caller, &id, Steer::Cancel).await
}

/// Goes on with the tenants that failed and those that it did not begin with, of a deployment that failed or was cancelled.
#[utoipa::path(post, path = "/deployments/{id}/retry", tag = "Deployments", operation_id = "retry_deployment",
    params(("id" = String, Path, example = "dep_abc123")), responses((status = 200, body = DeploymentDetail)))]
async fn retry(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<DeploymentDetail>> {
    steer(&state, &caller, &id, Steer::Retry).await
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
    params(("id" = String, Path, example = "dep_abc123"), PageParams),
    responses((status = 200, body = DeploymentDetail)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Outcome<Reply<DeploymentDetail>> {
    let page = Page::read(params)?;
    detail(&state, &caller, &id, page).await.map(Reply::ok)
}

/// What was deployed to a tenant, the newest first.
#[derive(Serialize, ToSchema)]
struct TenantDeployments {
    #[schema(example = "acme")]
    tenant_id: String,
    deployments: Vec<TenantDeployment>,
    #[serde(flatten)]
    page: Paged,
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

impl From<Part> for TenantDeployment {
    fn from(it: Part) -> Self {
        Self {
            deployment_id: it.id,
            blueprint_name: it.blueprint,
            version: it.version,
            status: it.result.status.name(),
            duration: it.result.duration_us.map(duration),
            error: it.result.error,
            created_at: time::seconds(it.created_at),
        }
    }
}

/// Lists what was deployed to a tenant.
#[utoipa::path(get, path = "/tenants/{id}/deployments", tag = "Tenants",
    params(("id" = String, Path, example = "acme"), PageParams),
    responses((status = 200, body = TenantDeployments)))]
async fn of_tenant(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Outcome<Reply<TenantDeployments>> {
    let page = Page::read(params)?;
    tenants::reachable(&state, &caller, &id)?;
    let (key, tenant) = (Arc::clone(&caller.key), id.clone());
    let find = move |store: &Store, part: &_| {
        store.tenant_deployments(&key.project, &tenant, &key.scope, part)
    };
    let place = |it: &Part| Place {
        at: it.created_at,
        id: it.id.clone(),
    };
    let (deployments, page) = page.of(&state, find, place, TenantDeployment::from).await?;
    Ok(Reply::ok(TenantDeployments {
        tenant_id: id,
        deployments,
        page,
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
