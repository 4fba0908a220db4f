//! `/workspaces/{id}/queries` and `/admin/query`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use control_store::Entity;
use control_store::Fault;
use control_store::fault::DDL_REFUSED;
use control_store::ids::{Engine, Role};
use control_store::names;
use control_store::snapshot::{DatabaseName, DatabaseStatus};
use control_store::states::{Mode, TenantStatus};
use control_store::workspaces::WorkspaceInfo;
use protocol_sql::{Effects, Options, classify};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{Caller, tenant_denied};
use super::envelope::Reply;
use super::input::{At, Body};
use super::state::{AppState, Shared};
use super::workspaces;
use crate::app::failure::{EngineError, Failure, Outcome};
use crate::query::{self, Budget, Cell, StatementResult, Target};

/// Tenants that one request asks at the same time.
const PARALLEL: usize = 8;
/// What the proxy may take beyond the query's own time limit: for a connection, and behind a gate.
const SLACK: Duration = Duration::from_secs(30);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(workspace_query))
        .routes(routes!(admin_query))
}

/// What a statement gave. Of a Redis command: a map has the columns `key` and `value`, everything else the column `value`, with a
/// row for each element of a list or set; strings that are not UTF-8 are `{"base64": …}`. Of SQL, values are JSON that loses nothing: `bigint` beyond 2^53 - 1, `numeric`, `NaN` and the infinities
/// are strings, times are ISO 8601, `bytea` is base64, `json` is itself, arrays are arrays, everything else is a string as
/// the engine writes it.
#[derive(Serialize, ToSchema)]
struct QueryResult {
    #[schema(example = json!(["id", "name"]))]
    columns: Vec<String>,
    #[schema(value_type = Vec<Vec<serde_json::Value>>, example = json!([[1, "Alice"]]))]
    rows: Vec<Vec<Cell>>,
    /// Rows returned; of a statement that returns none, rows changed.
    #[schema(example = 1)]
    row_count: u64,
}

impl From<StatementResult> for QueryResult {
    fn from(it: StatementResult) -> Self {
        Self {
            row_count: it.affected.unwrap_or(it.rows.len() as u64),
            columns: it.columns,
            rows: it.rows,
        }
    }
}

/// What a text gave: the result of its last statement and, if there are several, of each.
#[derive(Serialize, ToSchema)]
struct QueryReply {
    #[serde(flatten)]
    last: QueryResult,
    #[schema(example = "8ms")]
    execution_time: String,
    /// Of each statement, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    results: Vec<StatementReply>,
}

/// What one of several statements gave.
#[derive(Serialize, ToSchema)]
struct StatementReply {
    #[schema(example = "INSERT")]
    command: String,
    #[serde(flatten)]
    result: QueryResult,
}

impl QueryReply {
    fn new(mut results: Vec<StatementResult>, started: Instant) -> Self {
        let last = match &results[..] {
            [_, _, ..] => results.last().cloned(),
            _ => results.pop(),
        };
        let results = results.into_iter().map(|it| StatementReply {
            command: it.command.clone(),
            result: it.into(),
        });
        Self {
            last: last.unwrap_or_default().into(),
            execution_time: elapsed(started),
            results: results.collect(),
        }
    }
}

/// `8ms`, rounded up.
fn elapsed(started: Instant) -> String {
    format!("{}ms", started.elapsed().as_micros().div_ceil(1000))
}

/// A query for a workspace.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WorkspaceQuery {
    /// One or several statements, in the engine's own language. On Redis a command on each line, quoted as in redis-cli.
    #[schema(example = "SELECT id, name FROM users")]
    query: String,
}

/// Runs a query in a workspace's database. Schema changes pass, and in tenant mode are tracked.
#[utoipa::path(post, path = "/workspaces/{id}/queries", tag = "Workspaces", request_body = WorkspaceQuery,
    params(("id" = String, Path, example = "myapp")), responses((status = 200, body = QueryReply)))]
async fn workspace_query(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    Body(request): Body<WorkspaceQuery>,
) -> Outcome<Reply<QueryReply>> {
    caller.workspace(&id, Role::Read)?;
    check_text(&request.query)?;
    workspaces::find(&state, caller.project(), &id)?;
    let database = names::workspace_database(&id)?;
    let started = Instant::now();
    let results = run_all(&state, &caller, &database, &[&request.query]).await?;
    Ok(Reply::ok(QueryReply::new(results, started)))
}

fn check_text(query: &str) -> Outcome<()> {
    if query.trim().is_empty() {
        return Err(Failure::bad("Field 'query' must not be empty"));
    }
    Ok(())
}

/// Runs texts on a database of the caller's project, as the caller.
pub(super) async fn run_all(
    state: &AppState,
    caller: &Caller,
    database: &str,
    texts: &[&str],
) -> Outcome<Vec<StatementResult>> {
    let password = caller.proxy_password(state).await?;
    let budget = Budget::new(state.config.result_limit);
    let session = Session {
        state,
        user: caller.project().as_str(),
        password: password.expose(),
        budget: &budget,
    };
    session.run(database, texts).await
}

/// Whoever runs queries, and what their rows may still cost.
struct Session<'a> {
    state: &'a AppState,
    user: &'a str,
    password: &'a str,
    budget: &'a Budget,
}

impl Session<'_> {
    async fn run(&self, database: &str, texts: &[&str]) -> Outcome<Vec<StatementResult>> {
        query::run(&self.target(database)?, texts).await
    }

    fn target<'a>(&'a self, database: &'a str) -> Outcome<Target<'a>> {
        let snapshot = self.state.store.snapshot().load();
        // Workspaces' names are unique in a project, and so are the names of its databases, whichever engine they are of.
        let found = Engine::ALL
            .iter()
            .find_map(|engine| {
                snapshot.names.get(&DatabaseName {
                    project: control_store::ProjectId::new(self.user),
                    engine: *engine,
                    name: database.into(),
                })
            })
            .and_then(|id| snapshot.databases.get(id))
            .ok_or_else(|| Failure::not_found(Entity::Database, database))?;
        match found.status {
            DatabaseStatus::Ready => {}
            DatabaseStatus::Suspended => return Err(Fault::Suspended.into()),
            DatabaseStatus::NotReady => return Err(Fault::NotReady.into()),
            DatabaseStatus::Deleted => return Err(Fault::UnknownDatabase.into()),
        }
        Ok(Target {
            engine: found.engine,
            socket: match found.engine {
                Engine::Redis => &self.state.config.redis_internal_socket,
                _ => &self.state.config.internal_socket,
            },
            user: self.user,
            password: self.password,
            database,
            deadline: Duration::from_millis(found.settings.query_timeout_ms) + SLACK,
            budget: self.budget,
        })
    }
}

/// Gives `work` a session on a database of the caller's project, as the caller.
pub(super) async fn with_session<T>(
    state: &AppState,
    caller: &Caller,
    database: &str,
    work: impl AsyncFnOnce(&mut query::Session<'_>) -> Outcome<T>,
) -> Outcome<T> {
    let password = caller.proxy_password(state).await?;
    let session = Session {
        state,
        user: caller.project().as_str(),
        password: password.expose(),
        budget: &Budget::new(state.config.result_limit),
    };
    let target = session.target(database)?;
    let mut open = query::Session::open(&target).await?;
    let done = work(&mut open).await;
    open.close().await;
    done
}

/// A query for one or all tenants of a blueprint.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AdminQuery {
    #[schema(example = "myapp")]
    blueprint: String,
    /// One or several statements; on Redis a command on each line. Schema changes are refused.
    #[schema(example = "SELECT id, name FROM users")]
    query: String,
    /// The tenant; this or `all_tenants`.
    #[schema(example = "acme")]
    tenant_id: Option<String>,
    /// All tenants that the key reaches; this or `tenant_id`.
    all_tenants: Option<bool>,
}

/// What one tenant's database gave.
#[derive(Serialize, ToSchema)]
struct TenantReply {
    #[schema(example = "acme")]
    tenant_id: String,
    #[serde(flatten)]
    reply: QueryReply,
}

/// What each tenant's database gave.
#[derive(Serialize, ToSchema)]
struct TenantsReply {
    results: Vec<TenantResult>,
    #[schema(example = 1)]
    total_tenants: usize,
    #[schema(example = "45ms")]
    execution_time: String,
}

/// What one of all tenants gave; a failure is its own and carries `error`.
#[derive(Serialize, ToSchema)]
struct TenantResult {
    #[schema(example = "acme")]
    tenant_id: String,
    #[serde(flatten)]
    result: QueryResult,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The engine's code for why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_code: Option<String>,
}

/// Either of the two.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = AdminQueryReply)]
#[allow(
    dead_code,
    reason = "for the document: which it is depends on the request"
)]
enum AdminQueryReply {
    #[schema(title = "One tenant")]
    One(TenantReply),
    #[schema(title = "All tenants")]
    All(TenantsReply),
}

/// Runs a data query on one tenant's database, or on those of all tenants of a blueprint. A tenant that fails does not keep
/// the others from answering.
#[utoipa::path(post, path = "/admin/query", tag = "Admin query", request_body = AdminQuery,
    responses((status = 200, body = AdminQueryReply)))]
async fn admin_query(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<AdminQuery>,
) -> Outcome<Response> {
    check_text(&request.query)?;
    let all = request.all_tenants.unwrap_or(false);
    let blueprint = blueprint(&state, &caller, &request.blueprint)?;
    match request.tenant_id {
        Some(tenant) if !all => one(&state, &caller, &blueprint, tenant, &request.query).await,
        None if all => every(&state, &caller, &blueprint, request.query).await,
        _ => Err(Failure::bad(
            "Either 'tenant_id' or 'all_tenants': true must be given",
        )),
    }
}

fn blueprint(state: &Shared, caller: &Caller, name: &str) -> Outcome<Arc<WorkspaceInfo>> {
    let workspace = super::blueprints::find(state, caller.project(), name);
    match workspace {
        Ok(it) if it.mode == Mode::Control => Err(Failure::BadRequest(format!(
            "Workspace '{name}' is in control mode: use POST /workspaces/{name}/queries"
        ))),
        other => other,
    }
}

async fn one(
    state: &AppState,
    caller: &Caller,
    blueprint: &WorkspaceInfo,
    tenant: String,
    sql: &str,
) -> Outcome<Response> {
    if !caller.sees_database(&tenant, &blueprint.name) {
        return Err(tenant_denied(&tenant));
    }
    let (project, id) = (caller.project().clone(), tenant.clone());
    let info = state
        .store(move |store| store.tenant(&project, &id))
        .await?;
    if info.status == TenantStatus::Deleted {
        return Err(Failure::Store(control_store::StoreError::WrongState {
            what: Entity::Tenant,
            name: tenant,
            state: "in trash",
        }));
    }
    let database = names::tenant_database(&blueprint.name, &tenant)?;
    let started = Instant::now();
    let results = run_all(state, caller, &database, &[sql]).await?;
    let reply = Reply::ok(TenantReply {
        tenant_id: tenant,
        reply: QueryReply::new(results, started),
    });
    Ok(reply.into_response())
}

async fn every(
    state: &AppState,
    caller: &Caller,
    blueprint: &WorkspaceInfo,
    sql: String,
) -> Outcome<Response> {
    // Each would refuse it; one answer is clearer. Redis has no such thing.
    let is_sql = blueprint.engine != Engine::Redis;
    if is_sql
        && classify(sql.as_bytes(), &Options::default())
            .effects
            .contains(Effects::DDL)
    {
        return Err(Failure::bad(DDL_REFUSED));
    }
    let started = Instant::now();
    let (project, name) = (caller.project().clone(), blueprint.name.clone());
    let mut tenants = state
        .store(move |store| store.tenants_of(&project, &name))
        .await?;
    tenants.retain(|it| caller.sees_database(it, &blueprint.name));
    let shared = Arc::new(Every {
        state: Arc::clone(state),
        user: caller.project().to_string(),
        password: caller.proxy_password(state).await?,
        budget: Budget::new(state.config.result_limit),
        blueprint: blueprint.name.clone(),
        sql,
        slots: Semaphore::new(PARALLEL),
    });
    let mut running = JoinSet::new();
    for tenant in tenants {
        let shared = Arc::clone(&shared);
        running.spawn(async move { shared.ask(tenant).await });
    }
    let mut results = running.join_all().await;
    results.sort_by(|a, b| a.tenant_id.cmp(&b.tenant_id));
    let reply = Reply::ok(TenantsReply {
        total_tenants: results.len(),
        results,
        execution_time: elapsed(started),
    });
    Ok(reply.into_response())
}

/// A query on its way to all tenants.
struct Every {
    state: AppState,
    user: String,
    password: control_store::Secret,
    budget: Budget,
    blueprint: String,
    sql: String,
    slots: Semaphore,
}

impl Every {
    async fn ask(&self, tenant_id: String) -> TenantResult {
        let answer = async {
            // The semaphore is never closed.
            let _slot = self.slots.acquire().await;
            let database = names::tenant_database(&self.blueprint, &tenant_id)?;
            let session = Session {
                state: &self.state,
                user: &self.user,
                password: self.password.expose(),
                budget: &self.budget,
            };
            session.run(&database, &[&self.sql]).await
        };
        match answer.await {
            Ok(mut results) => TenantResult {
                result: results.pop().unwrap_or_default().into(),
                tenant_id,
                error: None,
                engine_code: None,
            },
            Err(failure) => TenantResult {
                tenant_id,
                result: StatementResult::default().into(),
                engine_code: engine_code(&failure),
                error: Some(super::envelope::sentence(failure)),
            },
        }
    }
}

fn engine_code(failure: &Failure) -> Option<String> {
    match failure {
        Failure::Engine(EngineError { code, .. })
        | Failure::PermissionDenied(EngineError { code, .. }) => Some(code.clone()),
        _ => None,
    }
}
