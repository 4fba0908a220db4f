//! `/tenants`.

use std::sync::Arc;

use axum::extract::State;
use control_store::Store;
use control_store::directory::{TenantDatabase, TenantEntry};
use control_store::ids::{ProjectId, Role};
use control_store::names;
use control_store::page::Place;
use control_store::snapshot::Scope;
use control_store::states::{Mode, TenantStatus};
use control_store::tenants::TenantInfo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{Caller, tenant_denied};
use super::envelope::Reply;
use super::input::{At, Body, Params};
use super::page::{Page, PageParams, Paged};
use super::state::{AppState, Shared};
use super::workspaces::{ConnectionInfo, connection};
use super::{blueprints, time};
use crate::app::connect::MASK;
use crate::app::failure::{Failure, Outcome};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
        .routes(routes!(restore))
        .routes(routes!(suspend))
        .routes(routes!(resume))
}

const STATUSES: [(&str, TenantStatus); 9] = [
    ("provisioning", TenantStatus::Provisioning),
    ("ready", TenantStatus::Ready),
    ("suspended", TenantStatus::Suspended),
    ("syncing", TenantStatus::Syncing),
    ("migrating", TenantStatus::Migrating),
    ("restoring", TenantStatus::Restoring),
    ("recovering", TenantStatus::Recovering),
    ("deleted", TenantStatus::Deleted),
    ("failed", TenantStatus::Failed),
];

/// The project's tenants.
#[derive(Serialize, ToSchema)]
struct TenantList {
    tenants: Vec<TenantItem>,
    #[serde(flatten)]
    page: Paged,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
struct TenantItem {
    #[schema(example = "acme")]
    tenant_id: String,
    #[schema(example = "ready")]
    status: &'static str,
    databases: Vec<DatabaseItem>,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
}

/// A tenant's database.
#[derive(Serialize, ToSchema)]
struct DatabaseItem {
    #[schema(example = "main")]
    blueprint: String,
    #[schema(example = "postgresql")]
    database_type: &'static str,
    #[schema(example = "L1")]
    isolation_level: &'static str,
    /// The same as a number.
    #[schema(example = 1)]
    isolation: u8,
}

impl DatabaseItem {
    fn new(it: &TenantDatabase) -> Self {
        Self {
            blueprint: it.blueprint.to_string(),
            database_type: it.engine.lower_name(),
            isolation_level: "L1",
            isolation: 1,
        }
    }
}

/// Lists the tenants that the key reaches; those in the trash only with `status=deleted`.
#[utoipa::path(get, path = "/tenants", tag = "Tenants", operation_id = "list_tenants",
    params(("status" = Option<String>, Query, description = "Only tenants in this status"),
        PageParams),
    responses((status = 200, body = TenantList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    mut params: Params,
) -> Outcome<Reply<TenantList>> {
    let page = Page::take(&mut params)?;
    let status = params.word("status", &STATUSES)?;
    params.finish()?;
    let key = Arc::clone(&caller.key);
    let find =
        move |store: &Store, part: &_| store.list_tenants(&key.project, status, &key.scope, part);
    let place = |it: &TenantEntry| Place {
        at: it.info.created_at,
        id: it.info.id.clone(),
    };
    let show = |it: TenantEntry| TenantItem::new(&caller, &it);
    let (tenants, page) = page.of(&state, find, place, show).await?;
    Ok(Reply::ok(TenantList { tenants, page }))
}

impl TenantItem {
    fn new(caller: &Caller, it: &TenantEntry) -> Self {
        let TenantEntry { info, databases } = it;
        let seen = databases
            .iter()
            .filter(|database| caller.sees_database(&info.id, database.blueprint.as_str()));
        Self {
            tenant_id: info.id.clone(),
            status: info.status.name(),
            databases: seen.map(DatabaseItem::new).collect(),
            created_at: time::seconds(info.created_at),
        }
    }
}

/// A new tenant, or more databases for one that is there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateTenant {
    /// 1 to 48 lowercase letters, digits and `_`; no `__`; not `workspace`.
    #[schema(example = "acme")]
    tenant_id: String,
    #[schema(min_items = 1)]
    databases: Vec<NewDatabase>,
}

/// A database of a tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDatabase {
    #[schema(example = "fintech")]
    blueprint: String,
    /// 1 (shared, default) or 2 (dedicated).
    #[schema(value_type = Option<u8>, example = 1)]
    isolation_level: Option<Value>,
    /// The zone of a dedicated server, see `GET /regions`.
    #[schema(example = "eu-central")]
    region: Option<String>,
}

/// A tenant that was made, and how to connect to its databases.
#[derive(Serialize, ToSchema)]
struct CreatedTenant {
    #[schema(example = "acme")]
    tenant_id: String,
    #[schema(example = "ready")]
    status: &'static str,
    databases: Vec<CreatedDatabase>,
}

/// A database that was made.
#[derive(Serialize, ToSchema)]
struct CreatedDatabase {
    #[schema(example = "fintech")]
    blueprint: String,
    #[schema(example = "PostgreSQL")]
    database_type: &'static str,
    #[schema(example = 1)]
    isolation_level: u8,
    connection: CreatedConnection,
}

/// How to connect, with the password.
#[derive(Serialize, ToSchema)]
struct CreatedConnection {
    #[schema(
        example = "postgresql://tdb_2abf90d3:tdb_d2bf66ed7898c448@pg.example.com:5432/fintech__acme?sslmode=require"
    )]
    connection_string: String,
    #[serde(flatten)]
    parts: ConnectionInfo,
}

/// Makes a tenant with a database of each blueprint, all with the current schema; adds them to a tenant that is there.
#[utoipa::path(post, path = "/tenants", tag = "Tenants", operation_id = "create_tenant",
    request_body = CreateTenant, responses((status = 201, body = CreatedTenant)))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<CreateTenant>,
) -> Outcome<Reply<CreatedTenant>> {
    caller.tenant(&request.tenant_id, Role::Admin)?;
    names::check_tenant(&request.tenant_id)?;
    let blueprints = wanted(&state, &caller, &request)?;
    check_tier(&state, &caller, &request.tenant_id).await?;
    state
        .work
        .create_tenant(caller.project(), &request.tenant_id, &blueprints)
        .await?;
    let password = caller.proxy_password(&state).await?;
    let (info, databases) = read(&state, caller.project(), &request.tenant_id)?;
    let databases = databases
        .iter()
        .filter(|it| blueprints.iter().any(|name| it.blueprint.as_str() == name))
        .map(|it| created(&state, &caller, &info.id, it, password.expose()))
        .collect::<Outcome<_>>()?;
    Ok(Reply::created(CreatedTenant {
        tenant_id: info.id,
        status: info.status.name(),
        databases,
    }))
}

fn created(
    state: &Shared,
    caller: &Caller,
    tenant: &str,
    database: &TenantDatabase,
    password: &str,
) -> Outcome<CreatedDatabase> {
    let engine = database.engine;
    let parts = connection(
        state,
        engine,
        caller.project(),
        &database.name,
        tenant,
        password,
    )?;
    Ok(CreatedDatabase {
        blueprint: database.blueprint.to_string(),
        database_type: engine.display_name(),
        isolation_level: 1,
        connection: CreatedConnection {
            connection_string: parts.string(engine),
            parts: parts.into(),
        },
    })
}

/// The blueprints asked for, each checked.
fn wanted(state: &AppState, caller: &Caller, request: &CreateTenant) -> Outcome<Vec<String>> {
    if request.databases.is_empty() {
        return Err(Failure::bad(
            "Field 'databases' must name at least one blueprint",
        ));
    }
    let mut blueprints = Vec::new();
    for (at, database) in request.databases.iter().enumerate() {
        let name = &database.blueprint;
        if blueprints.contains(name) {
            return Err(Failure::BadRequest(format!(
                "Field 'databases[{at}].blueprint': '{name}' is given twice"
            )));
        }
        if !caller.sees_database(&request.tenant_id, name) {
            return Err(tenant_denied(&request.tenant_id));
        }
        let found = blueprints::find(state, caller.project(), name)?;
        if found.mode == Mode::Control {
            return Err(Failure::BadRequest(format!(
                "Workspace '{name}' is in control mode: only tenant mode workspaces have tenants"
            )));
        }
        names::tenant_database(name, &request.tenant_id)?;
        if let Some(region) = &database.region {
            check_region(state, &format!("databases[{at}].region"), region)?;
        }
        let level = level(
            &format!("databases[{at}].isolation_level"),
            database.isolation_level.as_ref(),
        )?;
        if level == 2 {
            return Err(no_dedicated(caller));
        }
        blueprints.push(name.clone());
    }
    Ok(blueprints)
}

/// 1 or 2; also as a text, with or without the `L`.
pub(super) fn level(field: &str, value: Option<&Value>) -> Outcome<u8> {
    let level = match value {
        None => Some(1),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.trim_start_matches(['L', 'l']).parse().ok(),
        Some(_) => None,
    };
    match level {
        Some(1) => Ok(1),
        Some(2) => Ok(2),
        _ => Err(Failure::BadRequest(format!(
            "Field '{field}' must be 1 (shared) or 2 (dedicated)"
        ))),
    }
}

pub(super) fn check_region(state: &Shared, field: &str, region: &str) -> Outcome<()> {
    if state.config.regions.iter().any(|it| it.zone == region) {
        return Ok(());
    }
    let zones: Vec<_> = state
        .config
        .regions
        .iter()
        .map(|it| it.zone.as_str())
        .collect();
    Err(Failure::BadRequest(format!(
        "Field '{field}' must be one of {}",
        zones.join(", ")
    )))
}

/// Why there is no dedicated server: by tier, or because there are none.
pub(super) fn no_dedicated(caller: &Caller) -> Failure {
    if caller.tier.dedicated {
        Failure::conflict("Dedicated (L2) servers are not available yet")
    } else {
        Failure::Forbidden("Dedicated (L2) tenants require a paid plan".into())
    }
}

async fn check_tier(state: &AppState, caller: &Caller, tenant: &str) -> Outcome<()> {
    let Some(limit) = caller.tier.tenants else {
        return Ok(());
    };
    if state.snapshot().tenant(caller.project(), tenant).is_ok() {
        return Ok(());
    }
    let project = caller.project().clone();
    let count = state
        .store(move |store| store.count_tenants(&project))
        .await?;
    if count < u64::from(limit) {
        return Ok(());
    }
    Err(Failure::Forbidden(format!(
        "Tier limit reached: at most {limit} tenants per project, those in the trash included"
    )))
}

/// A tenant and its databases.
fn read(
    state: &Shared,
    project: &ProjectId,
    tenant: &str,
) -> Outcome<(TenantInfo, Vec<TenantDatabase>)> {
    let found = state.snapshot().tenant(project, tenant)?;
    Ok((found.info, found.databases))
}

/// A tenant of which the key reaches at least one database, and those databases.
pub(super) fn reachable(
    state: &Shared,
    caller: &Caller,
    tenant: &str,
) -> Outcome<(TenantInfo, Vec<TenantDatabase>)> {
    caller.tenant(tenant, Role::Read)?;
    let (info, mut databases) = read(state, caller.project(), tenant)?;
    databases.retain(|it| caller.sees_database(tenant, it.blueprint.as_str()));
    if databases.is_empty() && matches!(caller.key.scope, Scope::Workspaces(_)) {
        return Err(tenant_denied(tenant));
    }
    Ok((info, databases))
}

/// A tenant that the key may change: it reaches all of its databases.
pub(super) fn changeable(
    state: &Shared,
    caller: &Caller,
    tenant: &str,
) -> Outcome<(TenantInfo, Vec<TenantDatabase>)> {
    caller.tenant(tenant, Role::Admin)?;
    let (info, databases) = read(state, caller.project(), tenant)?;
    if databases
        .iter()
        .any(|it| !caller.sees_database(tenant, it.blueprint.as_str()))
    {
        return Err(tenant_denied(tenant));
    }
    Ok((info, databases))
}

/// A tenant with the connections to its databases.
#[derive(Serialize, ToSchema)]
struct TenantDetail {
    #[schema(example = "acme")]
    tenant_id: String,
    #[schema(example = "ready")]
    status: &'static str,
    databases: Vec<DatabaseDetail>,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
}

/// A tenant's database and how to connect to it.
#[derive(Serialize, ToSchema)]
struct DatabaseDetail {
    #[serde(flatten)]
    item: DatabaseItem,
    connection: ConnectionInfo,
    connection_string: String,
    /// The blueprint's version that it has.
    #[schema(example = 3)]
    version: u32,
}

/// Shows a tenant. Passwords are masked.
#[utoipa::path(get, path = "/tenants/{id}", tag = "Tenants", operation_id = "get_tenant",
    params(("id" = String, Path, example = "acme")), responses((status = 200, body = TenantDetail)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<TenantDetail>> {
    let (info, databases) = reachable(&state, &caller, &id)?;
    let databases = databases
        .iter()
        .map(|it| {
            let parts = connection(&state, it.engine, caller.project(), &it.name, &id, MASK)?;
            Ok(DatabaseDetail {
                item: DatabaseItem::new(it),
                connection_string: parts.string(it.engine),
                connection: parts.into(),
                version: it.version,
            })
        })
        .collect::<Outcome<_>>()?;
    Ok(Reply::ok(TenantDetail {
        tenant_id: info.id,
        status: info.status.name(),
        databases,
        created_at: time::seconds(info.created_at),
    }))
}

/// What became of a tenant.
#[derive(Serialize, ToSchema)]
struct TenantChange {
    #[schema(example = "Tenant 'acme' restored successfully")]
    message: String,
    tenant: TenantState,
    /// The same as in `tenant`.
    #[schema(example = "acme")]
    tenant_id: String,
    /// The same as in `tenant`.
    #[schema(example = "ready")]
    status: &'static str,
}

/// A tenant's status.
#[derive(Serialize, ToSchema)]
struct TenantState {
    #[schema(example = "acme")]
    tenant_id: String,
    #[schema(example = "ready")]
    status: &'static str,
}

fn changed(tenant_id: String, status: TenantStatus, what: &str) -> Reply<TenantChange> {
    Reply::ok(TenantChange {
        message: format!("Tenant '{tenant_id}' {what}"),
        tenant: TenantState {
            tenant_id: tenant_id.clone(),
            status: status.name(),
        },
        tenant_id,
        status: status.name(),
    })
}

/// Moves a tenant to the trash; with `hard=true` deletes it for good, from the trash too.
#[utoipa::path(delete, path = "/tenants/{id}", tag = "Tenants", operation_id = "delete_tenant",
    params(("id" = String, Path, example = "acme"),
        ("hard" = Option<bool>, Query, description = "Delete it for good")),
    responses((status = 200, body = TenantChange)))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    mut params: Params,
) -> Outcome<Reply<TenantChange>> {
    let hard = params.flag("hard")?;
    params.finish()?;
    changeable(&state, &caller, &id)?;
    state
        .work
        .delete_tenant(caller.project(), &id, hard)
        .await?;
    let what = if hard {
        "permanently deleted"
    } else {
        "moved to trash"
    };
    Ok(changed(id, TenantStatus::Deleted, what))
}

/// Takes a tenant out of the trash, with its rows.
#[utoipa::path(post, path = "/tenants/{id}/restore", tag = "Tenants",
    params(("id" = String, Path, example = "acme")), responses((status = 200, body = TenantChange)))]
async fn restore(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<TenantChange>> {
    changeable(&state, &caller, &id)?;
    state.work.restore_tenant(caller.project(), &id).await?;
    Ok(changed(id, TenantStatus::Ready, "restored successfully"))
}

/// Refuses all queries of a tenant until it is resumed.
#[utoipa::path(post, path = "/tenants/{id}/suspend", tag = "Tenants",
    params(("id" = String, Path, example = "acme")), responses((status = 200, body = TenantChange)))]
async fn suspend(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<TenantChange>> {
    changeable(&state, &caller, &id)?;
    state.work.suspend_tenant(caller.project(), &id).await?;
    Ok(changed(id, TenantStatus::Suspended, "suspended"))
}

/// Admits a suspended tenant's queries again.
#[utoipa::path(post, path = "/tenants/{id}/resume", tag = "Tenants",
    params(("id" = String, Path, example = "acme")), responses((status = 200, body = TenantChange)))]
async fn resume(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<TenantChange>> {
    changeable(&state, &caller, &id)?;
    state.work.resume_tenant(caller.project(), &id).await?;
    Ok(changed(id, TenantStatus::Ready, "resumed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn levels() {
        for (value, expected) in [
            (json!(1), Some(1)),
            (json!(2), Some(2)),
            (json!("L2"), Some(2)),
            (json!("l1"), Some(1)),
            (json!("2"), Some(2)),
            (json!(3), None),
            (json!("dedicated"), None),
            (json!(true), None),
        ] {
            assert_eq!(level("x", Some(&value)).ok(), expected, "{value}");
        }
        assert_eq!(level("x", None).ok(), Some(1));
    }
}
