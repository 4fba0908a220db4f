//! `GET /tenants/{id}/drift`: what a tenant's schema has otherwise than its blueprint's version.

use axum::extract::State;
use control_store::states::{DatabaseState, TenantStatus};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Params};
use super::state::AppState;
use super::tenants;
use crate::app::drift::{Difference, differences};
use crate::app::failure::{Failure, Outcome};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(drift))
}

/// What a tenant's schemas have otherwise than its blueprints.
#[derive(Serialize, ToSchema)]
struct DriftReply {
    #[schema(example = "acme")]
    tenant_id: String,
    /// Whether nothing differs.
    #[schema(example = false)]
    in_sync: bool,
    databases: Vec<DatabaseDrift>,
}

/// What one database has otherwise than its blueprint's version.
#[derive(Serialize, ToSchema)]
struct DatabaseDrift {
    #[schema(example = "main")]
    blueprint: String,
    /// The version that the database has.
    #[schema(example = 3)]
    version: u32,
    #[schema(example = false)]
    in_sync: bool,
    differences: Vec<DifferenceItem>,
}

/// A difference.
#[derive(Serialize, ToSchema)]
struct DifferenceItem {
    #[schema(example = "column users.age is 'bigint' and should be 'integer'")]
    description: String,
    /// Statements that would make it as in the blueprint; none where a person has to decide.
    #[schema(example = json!(["ALTER TABLE public.users ALTER COLUMN age TYPE integer"]))]
    ddl: Vec<String>,
}

impl From<Difference> for DifferenceItem {
    fn from(it: Difference) -> Self {
        Self {
            description: it.description,
            ddl: it.ddl,
        }
    }
}

/// Compares a tenant's schemas with those of its blueprints' versions, which are made anew for that in databases of their own.
#[utoipa::path(get, path = "/tenants/{id}/drift", tag = "Tenants",
    params(("id" = String, Path, example = "acme"),
        ("blueprint" = Option<String>, Query, description = "Only the database of this blueprint")),
    responses((status = 200, body = DriftReply)))]
async fn drift(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    mut params: Params,
) -> Outcome<Reply<DriftReply>> {
    let blueprint = params.text("blueprint");
    params.finish()?;
    let (info, mut databases) = tenants::reachable(&state, &caller, &id)?;
    if info.status == TenantStatus::Deleted {
        return Err(Failure::conflict(format!("Tenant '{id}' is in trash")));
    }
    databases.retain(|it| it.state == DatabaseState::Ready);
    if let Some(blueprint) = &blueprint {
        databases.retain(|it| it.blueprint.as_str() == blueprint);
        if databases.is_empty() {
            return Err(Failure::BadRequest(format!(
                "Parameter 'blueprint': tenant '{id}' has no database of '{blueprint}'"
            )));
        }
    }
    let mut compared = Vec::new();
    for database in databases {
        let schemas = state.work.compare_schemas(database.id).await?;
        let differences: Vec<_> = differences(&schemas)
            .into_iter()
            .map(DifferenceItem::from)
            .collect();
        compared.push(DatabaseDrift {
            blueprint: database.blueprint.to_string(),
            version: database.version,
            in_sync: differences.is_empty(),
            differences,
        });
    }
    Ok(Reply::ok(DriftReply {
        tenant_id: id,
        in_sync: compared.iter().all(|it| it.in_sync),
        databases: compared,
    }))
}
