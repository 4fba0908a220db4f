//! `POST /workspaces/{id}/schema`: a schema from a template, from JSON, from a database elsewhere or from a URL.

use std::collections::HashSet;

use axum::extract::State;
use control_store::ids::{Engine, Role};
use control_store::{Secret, names};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::{Reply, sentence};
use super::input::{At, Body};
use super::state::AppState;
use super::{input, queries, workspaces};
use crate::app::failure::{EngineError, Failure, Outcome};
use crate::app::schema::{
    JsonTable, Made, Statement, TEMPLATES, statement_of_dump, statements_of, template,
};
use crate::app::work::{Elsewhere, Table};
use crate::{egress, fetch};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(import))
}

/// A schema to import.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImportRequest {
    /// `template`, `json`, `database` or `url`.
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
    connection: Option<SourceConnection>,
    /// For `url`: where a document `{"tables": […]}` is, as for `json`.
    #[schema(example = "https://example.com/schema.json")]
    url: Option<String>,
}

/// A database to read a schema from. It must be on the public Internet, or where the operator allows. Nothing is changed there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SourceConnection {
    /// The workspace's own engine.
    #[serde(rename = "type")]
    #[schema(example = "postgresql")]
    engine: Option<String>,
    #[schema(example = "db.example.com")]
    host: String,
    /// The engine's usual port if left out.
    #[schema(example = 5432, minimum = 1)]
    port: Option<u16>,
    #[schema(example = "mydb")]
    database: String,
    #[serde(alias = "username")]
    #[schema(example = "admin")]
    user: String,
    password: Option<String>,
    /// `prefer` (default) or `require`.
    #[schema(example = "require")]
    sslmode: Option<String>,
}

/// The document behind a URL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    tables: Vec<JsonTable>,
}

/// What was imported.
#[derive(Serialize, ToSchema)]
struct ImportReply {
    #[schema(example = "Schema imported to workspace 'myapp'")]
    message: String,
    #[schema(example = "template")]
    source: &'static str,
    /// What was made: tables, and what else has a name of its own.
    #[schema(example = json!(["users", "accounts", "transactions"]))]
    created: Vec<String>,
    /// What was there already and stays as it is.
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

/// Makes the schema of a template, of JSON, of a document behind a URL or of a database elsewhere in a workspace's database.
/// What is there stays as it is. In tenant mode the changes are tracked as if they were made by hand.
#[utoipa::path(post, path = "/workspaces/{id}/schema", tag = "Workspaces", request_body = ImportRequest,
    params(("id" = String, Path, example = "myapp")), responses((status = 200, body = ImportReply)))]
async fn import(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    Body(request): Body<ImportRequest>,
) -> Outcome<Reply<ImportReply>> {
    caller.workspace(&id, Role::Admin)?;
    let workspace = workspaces::find(&state, caller.project(), &id)?;
    workspaces::check_schema(workspace.engine)?;
    let source = source(&request, workspace.engine)?;
    let statements = statements(&state, &request, source, workspace.engine).await?;
    let tables = state.work.schema(caller.project(), &id).await?;
    let mut import = Import::new(&tables);
    let database = names::workspace_database(&id)?;
    queries::with_session(&state, &caller, &database, async |session| {
        if source == Source::Database {
            session.run(OF_DUMPS).await?;
        }
        for statement in &statements {
            if import.skips(&statement.made) {
                continue;
            }
            match session.run(&statement.sql).await {
                // Without the database none of the others can run either.
                Err(lost @ Failure::Fault(_)) => return Err(lost),
                ran => import.note(&statement.made, ran.map(drop)),
            }
        }
        Ok(())
    })
    .await?;
    Ok(Reply::ok(ImportReply {
        message: format!("Schema imported to workspace '{id}'"),
        source: source.name(),
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

/// Statements of a dump name everything with its schema, and functions may name what comes after them.
const OF_DUMPS: &str = "SET search_path = ''; SET check_function_bodies = off";

/// Where a schema comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Template,
    Json,
    Database,
    Url,
}

impl Source {
    const ALL: [Self; 4] = [Self::Template, Self::Json, Self::Database, Self::Url];

    const fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
            Self::Json => "json",
            Self::Database => "database",
            Self::Url => "url",
        }
    }
}

/// The source that was asked for. Each has its own fields, and no other.
fn source(request: &ImportRequest, engine: Engine) -> Outcome<Source> {
    let source = Source::ALL
        .into_iter()
        .find(|it| it.name().eq_ignore_ascii_case(&request.source))
        .ok_or_else(|| {
            Failure::bad("Field 'source' must be one of template, json, database, url")
        })?;
    let fields = [
        ("template", request.template.is_some(), Source::Template),
        ("tables", request.tables.is_some(), Source::Json),
        ("collections", request.collections.is_some(), Source::Json),
        ("connection", request.connection.is_some(), Source::Database),
        ("url", request.url.is_some(), Source::Url),
    ];
    if let Some((field, _, of)) = fields.iter().find(|(_, given, of)| *given && *of != source) {
        return Err(Failure::BadRequest(format!(
            "Field '{field}' goes with 'source': \"{}\" only",
            of.name()
        )));
    }
    if request.collections.is_some() && engine != Engine::Mongodb {
        return Err(Failure::bad(
            "Field 'collections' is for MongoDB only: use 'tables'",
        ));
    }
    Ok(source)
}

async fn statements(
    state: &AppState,
    request: &ImportRequest,
    source: Source,
    engine: Engine,
) -> Outcome<Vec<Statement>> {
    match source {
        Source::Template => {
            let names = TEMPLATES.map(|(name, _)| name).join(", ");
            let wrong = || Failure::BadRequest(format!("Field 'template' must be one of {names}"));
            let found = request.template.as_deref().and_then(template);
            found.ok_or_else(wrong)
        }
        Source::Json => of_tables(request.tables.as_deref().unwrap_or_default()),
        Source::Database => {
            let connection = request
                .connection
                .as_ref()
                .ok_or_else(|| Failure::bad("Field 'connection' is required"))?;
            let from = elsewhere(state, connection, engine).await?;
            let statements = state.work.read_schema(&from).await?;
            Ok(statements.into_iter().map(statement_of_dump).collect())
        }
        Source::Url => {
            let url = request
                .url
                .as_deref()
                .ok_or_else(|| Failure::bad("Field 'url' is required"))?;
            let config = &state.config;
            let text = fetch::get("url", url, config.import_limit, &config.import_networks).await?;
            let document: Document = input::parse(&text).map_err(|failure| {
                Failure::BadRequest(format!("Field 'url': the document: {}", sentence(failure)))
            })?;
            of_tables(&document.tables)
        }
    }
}

fn of_tables(tables: &[JsonTable]) -> Outcome<Vec<Statement>> {
    if tables.is_empty() {
        return Err(Failure::bad(
            "Field 'tables' must describe at least one table",
        ));
    }
    statements_of(tables)
}

/// Where to read from, once it is known that this may be.
async fn elsewhere(
    state: &AppState,
    connection: &SourceConnection,
    engine: Engine,
) -> Outcome<Elsewhere> {
    let of = connection
        .engine
        .as_deref()
        .map_or(Some(engine), Engine::parse);
    if of != Some(engine) {
        return Err(Failure::BadRequest(format!(
            "Field 'connection.type' must be {}, as the workspace is",
            engine.lower_name()
        )));
    }
    for (field, value) in [
        ("host", &connection.host),
        ("database", &connection.database),
        ("user", &connection.user),
        (
            "password",
            connection.password.as_ref().unwrap_or(&connection.user),
        ),
    ] {
        if value.is_empty() || value.contains('\0') {
            return Err(Failure::BadRequest(format!(
                "Field 'connection.{field}' must not be empty, nor hold a zero character"
            )));
        }
    }
    let require_tls = match connection.sslmode.as_deref() {
        None | Some("prefer") => false,
        Some("require") => true,
        Some(_) => {
            return Err(Failure::bad(
                "Field 'connection.sslmode' must be one of prefer, require",
            ));
        }
    };
    let port = connection.port.unwrap_or(engine.usual_port());
    if port == 0 {
        return Err(Failure::bad("Field 'connection.port' must be 1 to 65535"));
    }
    let allowed = &state.config.import_networks;
    Ok(Elsewhere {
        engine,
        address: egress::resolve("connection.host", &connection.host, port, allowed).await?,
        user: connection.user.clone(),
        password: connection.password.clone().map(Secret::new),
        database: connection.database.clone(),
        require_tls,
    })
}

/// PostgreSQL's codes for what is there already: a relation, an object, a function, a schema.
const THERE_ALREADY: [&str; 4] = ["42P07", "42710", "42723", "42P06"];

/// What has come of an import so far.
struct Import<'a> {
    there: &'a [Table],
    created: Vec<String>,
    skipped: Vec<String>,
    errors: Vec<String>,
    /// What is not as the import has it: parts of these are left out.
    left_out: HashSet<String>,
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
            left_out: HashSet::new(),
            executed: 0,
            skipped_statements: 0,
        }
    }

    /// Whether a statement is left out: its table is there, or could not be made.
    fn skips(&mut self, made: &Made) -> bool {
        match made {
            Made::Table(table) if self.there.iter().any(|it| it.name == *table) => {
                self.skip(table);
                true
            }
            Made::Index { index, of } if self.left_out.contains(of) => {
                self.left_out.insert(index.clone());
                self.skipped_statements += 1;
                true
            }
            Made::Part { of, .. } if self.left_out.contains(of) => {
                self.skipped_statements += 1;
                true
            }
            _ => false,
        }
    }

    fn skip(&mut self, name: &str) {
        self.skipped.push(name.to_owned());
        self.left_out.insert(name.to_owned());
        self.skipped_statements += 1;
    }

    fn note(&mut self, made: &Made, ran: Outcome<()>) {
        match (made, ran) {
            (made, Ok(())) => {
                self.executed += 1;
                if let Made::Table(name) | Made::Object(name) = made {
                    self.created.push(name.clone());
                }
            }
            (Made::Object(name), Err(Failure::Engine(EngineError { code, .. })))
                if THERE_ALREADY.contains(&code.as_str()) =>
            {
                self.skip(name);
            }
            (made, Err(failure)) => {
                if let Made::Table(name) | Made::Object(name) | Made::Index { index: name, .. } =
                    made
                {
                    self.left_out.insert(name.clone());
                }
                self.errors
                    .push(format!("{}: {}", made.name(), sentence(failure)));
            }
        }
    }
}
