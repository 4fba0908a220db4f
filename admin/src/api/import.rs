//! `POST /workspaces/{id}/schema`: a schema from a template or from JSON.

use axum::extract::State;
use control_store::ids::{Engine, Role};
use control_store::names;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::{Reply, sentence};
use super::input::{At, Body};
use super::state::AppState;
use super::{queries, workspaces};
use crate::app::failure::{Failure, Outcome};
use crate::app::schema::{JsonTable, Made, Statement, TEMPLATES, statements_of, template};
use crate::app::work::Table;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(import))
}

/// A schema to import.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImportRequest {
    /// `template`, `json`, `database` or `url`. The last two are not available yet.
    #[schema(example = "template")]
    source: String,
    /// `ecommerce`, `saas`, `blog` or `fintech`.
    #[schema(example = "fintech")]
    template: Option<String>,
    /// For `json`.
    tables: Option<Vec<JsonTable>>,
    /// For `json`, on MongoDB.
    #[schema(value_type = Option<Vec<Object>>)]
    collections: Option<Vec<Value>>,
    /// For `database`.
    #[schema(value_type = Option<Object>)]
    connection: Option<Value>,
    /// For `url`.
    url: Option<String>,
}

/// What was imported.
#[derive(Serialize, ToSchema)]
struct ImportReply {
    #[schema(example = "Schema imported to workspace 'myapp'")]
    message: String,
    #[schema(example = "template")]
    source: &'static str,
    /// Tables that were made.
    #[schema(example = json!(["users", "accounts", "transactions"]))]
    created: Vec<String>,
    /// Tables that were there already and stay as they are.
    skipped: Vec<String>,
    /// What failed, each with its name and why.
    errors: Vec<String>,
    details: ImportDetails,
}

/// Counts of an import's statements.
#[derive(Serialize, ToSchema)]
struct ImportDetails {
    #[schema(example = "myapp")]
    workspace: String,
    #[schema(example = "PostgreSQL")]
    database_type: &'static str,
    #[schema(example = 3)]
    statements_executed: usize,
    #[schema(example = 0)]
    statements_skipped: usize,
    #[schema(example = 0)]
    statements_failed: usize,
    #[schema(example = 3)]
    statements_total: usize,
}

/// Makes the tables of a template, or those that JSON describes, in a workspace's database. Tables that are there stay as
/// they are. In tenant mode the changes are tracked as if they were made by hand.
#[utoipa::path(post, path = "/workspaces/{id}/schema", tag = "Workspaces", request_body = ImportRequest,
    params(("id" = String, Path, example = "myapp")), responses((status = 200, body = ImportReply)))]
async fn import(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    Body(request): Body<ImportRequest>,
) -> Outcome<Reply<ImportReply>> {
    caller.workspace(&id, Role::Admin)?;
    let workspace = workspaces::find(&state, caller.project(), &id).await?;
    let (source, statements) = statements(&request, workspace.engine)?;
    let tables = state.work.schema(caller.project(), &id).await?;
    let mut import = Import::new(&tables);
    let database = names::workspace_database(&id)?;
    for statement in &statements {
        if import.skips(&statement.made) {
            continue;
        }
        let ran = queries::run_all(&state, &caller, &database, &[&statement.sql]).await;
        import.note(&statement.made, ran.map(drop));
    }
    Ok(Reply::ok(ImportReply {
        message: format!("Schema imported to workspace '{id}'"),
        source,
        details: ImportDetails {
            workspace: id,
            database_type: workspace.engine.display_name(),
            statements_executed: import.executed,
            statements_skipped: import.skipped_statements,
            statements_failed: import.errors.len(),
            statements_total: statements.len(),
        },
        created: import.created,
        skipped: import.skipped,
        errors: import.errors,
    }))
}

/// The statements of what was asked for. Each source has its own fields, and no other.
fn statements(request: &ImportRequest, engine: Engine) -> Outcome<(&'static str, Vec<Statement>)> {
    let source = request.source.to_ascii_lowercase();
    let fields = [
        ("template", request.template.is_some(), "template"),
        ("tables", request.tables.is_some(), "json"),
        ("collections", request.collections.is_some(), "json"),
        ("connection", request.connection.is_some(), "database"),
        ("url", request.url.is_some(), "url"),
    ];
    if let Some((field, _, of)) = fields.iter().find(|(_, given, of)| *given && *of != source) {
        return Err(Failure::BadRequest(format!(
            "Field '{field}' goes with 'source': \"{of}\" only"
        )));
    }
    if request.collections.is_some() && engine != Engine::Mongodb {
        return Err(Failure::bad(
            "Field 'collections' is for MongoDB only: use 'tables'",
        ));
    }
    match source.as_str() {
        "template" => {
            let names = TEMPLATES.map(|(name, _)| name).join(", ");
            let wrong = || Failure::BadRequest(format!("Field 'template' must be one of {names}"));
            let found = request.template.as_deref().and_then(template);
            Ok(("template", found.ok_or_else(wrong)?))
        }
        "json" => match request.tables.as_deref() {
            None | Some([]) => Err(Failure::bad(
                "Field 'tables' must describe at least one table",
            )),
            Some(tables) => Ok(("json", statements_of(tables)?)),
        },
        "database" | "url" => Err(Failure::conflict(format!(
            "Schema import with 'source': \"{source}\" is not available yet: use template or json"
        ))),
        _ => Err(Failure::bad(
            "Field 'source' must be one of template, json, database, url",
        )),
    }
}

/// What has come of an import so far.
struct Import<'a> {
    there: &'a [Table],
    created: Vec<String>,
    skipped: Vec<String>,
    errors: Vec<String>,
    failed_tables: Vec<String>,
    executed: usize,
    skipped_statements: usize,
}

impl<'a> Import<'a> {
    fn new(there: &'a [Table]) -> Self {
        Self {
            there,
            created: Vec::new(),
            skipped: Vec::new(),
            errors: Vec::new(),
            failed_tables: Vec::new(),
            executed: 0,
            skipped_statements: 0,
        }
    }

    /// Whether a statement is left out: its table is there, or could not be made.
    fn skips(&mut self, made: &Made) -> bool {
        let skips = match made {
            Made::Table(table) => {
                let known = self.there.iter().any(|it| it.name == *table);
                if known {
                    self.skipped.push(table.clone());
                }
                known
            }
            Made::Index { table, .. } => {
                self.skipped.contains(table) || self.failed_tables.contains(table)
            }
        };
        self.skipped_statements += usize::from(skips);
        skips
    }

    fn note(&mut self, made: &Made, ran: Outcome<()>) {
        match (made, ran) {
            (Made::Table(table), Ok(())) => {
                self.executed += 1;
                self.created.push(table.clone());
            }
            (Made::Index { .. }, Ok(())) => self.executed += 1,
            (made, Err(failure)) => {
                if let Made::Table(table) = made {
                    self.failed_tables.push(table.clone());
                }
                self.errors
                    .push(format!("{}: {}", made.name(), sentence(failure)));
            }
        }
    }
}
