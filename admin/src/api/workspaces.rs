//! `/workspaces`.

use std::sync::Arc;

use axum::extract::State;
use control_store::ids::{Engine, ProjectId, Role};
use control_store::names;
use control_store::redis::redis_user;
use control_store::states::Mode;
use control_store::workspaces::{ChangeInfo, WorkspaceInfo};
use control_store::{Entity, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Body, Params};
use super::page::{Page, PageParams, Paged};
use super::projects::Message;
use super::state::{AppState, Shared};
use super::time;
use crate::app::connect::{Connection, MASK};
use crate::app::failure::{Failure, Outcome};
use crate::app::revert;
use crate::app::settings;
use crate::app::work::Table;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
        .routes(routes!(get_schema))
        .routes(routes!(diff))
        .routes(routes!(remove_change))
        .routes(routes!(revert_change))
        .routes(routes!(get_settings, save_settings))
}

/// The project's workspaces.
#[derive(Serialize, ToSchema)]
struct WorkspaceList {
    workspaces: Vec<WorkspaceItem>,
    #[serde(flatten)]
    page: Paged,
}

/// A workspace.
#[derive(Serialize, ToSchema)]
struct WorkspaceItem {
    #[schema(example = "main")]
    id: String,
    #[schema(example = "main")]
    name: String,
    /// `tenant` or `control`.
    #[schema(example = "tenant")]
    mode: &'static str,
    #[schema(example = "postgresql")]
    database: &'static str,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
    /// The newest version; in tenant mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 3)]
    version: Option<u32>,
}

impl From<WorkspaceInfo> for WorkspaceItem {
    fn from(it: WorkspaceInfo) -> Self {
        Self {
            version: version(&it),
            id: it.name.clone(),
            name: it.name,
            mode: it.mode.name(),
            database: it.engine.lower_name(),
            created_at: time::seconds(it.created_at),
        }
    }
}

/// Versions belong to tenant mode.
fn version(workspace: &WorkspaceInfo) -> Option<u32> {
    (workspace.mode == Mode::Tenant).then_some(workspace.version)
}

/// Lists the workspaces that the key reaches.
#[utoipa::path(get, path = "/workspaces", tag = "Workspaces", operation_id = "list_workspaces",
    params(PageParams),
    responses((status = 200, body = WorkspaceList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    params: Params,
) -> Outcome<Reply<WorkspaceList>> {
    let page = Page::read(params)?;
    let find = move |store: &Store, part: &_| {
        store.list_workspaces(caller.project(), None, &caller.key.scope, part)
    };
    let (workspaces, page) = page
        .of(&state, find, |it| it.name.clone(), WorkspaceItem::from)
        .await?;
    Ok(Reply::ok(WorkspaceList { workspaces, page }))
}

/// A new workspace.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateWorkspace {
    /// A letter, then letters, digits, `_` and `-`, at most 48 in all; no `__`.
    #[schema(example = "myapp")]
    name: String,
    /// `PostgreSQL`, `MySQL`, `MongoDB` or `Redis`.
    #[schema(example = "PostgreSQL")]
    database: String,
    /// `tenant` (default) or `control`.
    #[schema(example = "tenant")]
    mode: Option<String>,
}

/// A new workspace, and how to connect to it.
#[derive(Serialize, ToSchema)]
struct CreatedWorkspace {
    #[schema(example = "myapp")]
    id: String,
    #[schema(example = "tenant")]
    mode: &'static str,
    /// In tenant mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "myapp")]
    blueprint: Option<String>,
    #[schema(example = "PostgreSQL")]
    database: &'static str,
    connection: ConnectionInfo,
    #[schema(
        example = "postgresql://tdb_2abf90d3:tdb_d2bf66ed7898c448@pg.example.com:5432/myapp_workspace?sslmode=require"
    )]
    connection_string: String,
}

/// How to connect. `user` and `username` are the same.
#[derive(Serialize, ToSchema)]
pub(super) struct ConnectionInfo {
    #[schema(example = "pg.example.com")]
    host: String,
    #[schema(example = 5432)]
    port: u16,
    #[schema(example = "myapp_workspace")]
    database: String,
    #[schema(example = "tdb_2abf90d3")]
    user: String,
    #[schema(example = "tdb_2abf90d3")]
    username: String,
    #[schema(example = "tdb_d2bf66ed7898c448")]
    password: String,
}

impl From<Connection> for ConnectionInfo {
    fn from(it: Connection) -> Self {
        Self {
            host: it.host,
            port: it.port,
            database: it.database,
            username: it.user.clone(),
            user: it.user,
            password: it.password,
        }
    }
}

/// How a client reaches a database. On Redis the user name tells which: `short`, a tenant's id or a workspace's name, where that
/// is enough.
pub(super) fn connection(
    state: &Shared,
    engine: Engine,
    project: &ProjectId,
    database: &str,
    short: &str,
    password: &str,
) -> Outcome<Connection> {
    let endpoint = state
        .config
        .endpoints
        .get(&engine)
        .ok_or_else(|| unavailable(engine))?;
    let user;
    let (database, user) = match engine {
        Engine::Postgres | Engine::Mysql | Engine::Mongodb => (database, project.as_str()),
        Engine::Redis => {
            let snapshot = state.store.snapshot().load();
            user = redis_user(&snapshot, project, database, short).to_owned();
            ("0", &*user)
        }
    };
    Ok(Connection {
        host: endpoint.host.clone(),
        port: endpoint.port,
        database: database.to_owned(),
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

fn unavailable(engine: Engine) -> Failure {
    Failure::conflict(format!("{} is not available here", engine.display_name()))
}

/// Makes a workspace with a database of its own; in tenant mode with a blueprint of the same name.
#[utoipa::path(post, path = "/workspaces", tag = "Workspaces", operation_id = "create_workspace",
    request_body = CreateWorkspace, responses((status = 201, body = CreatedWorkspace)))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<CreateWorkspace>,
) -> Outcome<Reply<CreatedWorkspace>> {
    let engine = Engine::parse(&request.database).ok_or_else(|| {
        Failure::bad("Field 'database' must be one of PostgreSQL, MySQL, MongoDB, Redis")
    })?;
    let mode = request.mode.as_deref().unwrap_or("tenant");
    let mode = Mode::parse(mode)
        .ok_or_else(|| Failure::bad("Field 'mode' must be one of tenant, control"))?;
    names::check_workspace(&request.name)?;
    let database = names::workspace_database(&request.name)?;
    caller.workspace(&request.name, Role::Admin)?;
    let password = caller.proxy_password(&state).await?;
    if !state.config.endpoints.contains_key(&engine) {
        return Err(unavailable(engine));
    }
    state
        .work
        .create_workspace(caller.project(), &request.name, engine, mode)
        .await?;
    let connection = connection(
        &state,
        engine,
        caller.project(),
        &database,
        &request.name,
        password.expose(),
    )?;
    Ok(Reply::created(CreatedWorkspace {
        blueprint: (mode == Mode::Tenant).then(|| request.name.clone()),
        id: request.name,
        mode: mode.name(),
        database: engine.display_name(),
        connection_string: connection.string(engine),
        connection: connection.into(),
    }))
}

/// A workspace with its schema, settings and connection.
#[derive(Serialize, ToSchema)]
struct WorkspaceDetail {
    #[schema(example = "main")]
    id: String,
    #[schema(example = "main")]
    name: String,
    #[schema(example = "tenant")]
    mode: &'static str,
    #[schema(example = "postgresql")]
    database: &'static str,
    /// The statements that made it, in order.
    #[schema(example = json!(["CREATE TABLE users (id SERIAL PRIMARY KEY, name TEXT NOT NULL)"]))]
    schema: Vec<String>,
    /// Why the schema could not be read just now.
    schema_error: Option<String>,
    /// Changes that a tenant lacks or no version holds; in tenant mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 2)]
    undeployed_changes: Option<u64>,
    connection: ConnectionInfo,
    connection_string: String,
    /// See `GET /workspaces/{id}/settings`.
    #[schema(value_type = Object)]
    settings: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 3)]
    version: Option<u32>,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
}

/// Shows a workspace. Its password is masked.
#[utoipa::path(get, path = "/workspaces/{id}", tag = "Workspaces", operation_id = "get_workspace",
    params(("id" = String, Path, example = "myapp")), responses((status = 200, body = WorkspaceDetail)))]
async fn get(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<WorkspaceDetail>> {
    caller.workspace(&id, Role::Read)?;
    let workspace = find(&state, caller.project(), &id)?;
    let (schema, schema_error) = schema_of(&state, caller.project(), &workspace).await?;
    let undeployed_changes = match workspace.mode {
        Mode::Control => None,
        Mode::Tenant => {
            let (project, name) = (caller.project().clone(), id.clone());
            Some(
                state
                    .store(move |store| store.undeployed_changes(&project, &name))
                    .await?,
            )
        }
    };
    let database = names::workspace_database(&id)?;
    let engine = workspace.engine;
    let connection = connection(&state, engine, caller.project(), &database, &id, MASK)?;
    Ok(Reply::ok(WorkspaceDetail {
        version: version(&workspace),
        id: workspace.name.clone(),
        name: workspace.name.clone(),
        mode: workspace.mode.name(),
        database: engine.lower_name(),
        schema,
        schema_error,
        undeployed_changes,
        connection_string: connection.string(engine),
        connection: connection.into(),
        settings: settings::to_json(&workspace.settings),
        created_at: time::seconds(workspace.created_at),
    }))
}

pub(super) fn find(state: &Shared, project: &ProjectId, name: &str) -> Outcome<Arc<WorkspaceInfo>> {
    Ok(state.snapshot().workspace(project, name)?)
}

/// The workspace, if it has a blueprint.
fn find_tenant_mode(
    state: &Shared,
    project: &ProjectId,
    name: &str,
) -> Outcome<Arc<WorkspaceInfo>> {
    let workspace = find(state, project, name)?;
    if workspace.mode == Mode::Control {
        return Err(Failure::BadRequest(format!(
            "Workspace '{name}' is in control mode: it has no blueprint and no versions"
        )));
    }
    Ok(workspace)
}

/// The statements that made the schema: as tracked, or in control mode as the tables look now.
async fn schema_of(
    state: &AppState,
    project: &ProjectId,
    workspace: &WorkspaceInfo,
) -> Outcome<(Vec<String>, Option<String>)> {
    match workspace.mode {
        Mode::Tenant => {
            let error = state
                .work
                .collect_changes(project, &workspace.name)
                .await
                .err();
            let changes = changes(state, project, &workspace.name).await?;
            let statements = changes.into_iter().map(|it| it.statement).collect();
            Ok((statements, error.map(|error| unreadable(&error))))
        }
        Mode::Control => match state.work.schema(project, &workspace.name).await {
            Ok(tables) => Ok((tables.iter().map(create_table).collect(), None)),
            Err(error) => Ok((Vec::new(), Some(unreadable(&error)))),
        },
    }
}

fn unreadable(error: &Failure) -> String {
    tracing::warn!(?error, "a workspace's schema cannot be read");
    "The workspace's database cannot be read now: try again".into()
}

fn create_table(table: &Table) -> String {
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|it| {
            let null = if it.nullable { "" } else { " NOT NULL" };
            format!("{} {}{null}", it.name, it.type_name)
        })
        .collect();
    format!("CREATE TABLE {} ({})", table.name, columns.join(", "))
}

async fn changes(state: &AppState, project: &ProjectId, name: &str) -> Outcome<Vec<ChangeInfo>> {
    let (project, name) = (project.clone(), name.to_owned());
    state
        .store(move |store| store.changes(&project, &name))
        .await
}

/// That the workspace is gone.
#[derive(Serialize, ToSchema)]
struct DeletedWorkspace {
    #[schema(example = "workspace deleted")]
    message: &'static str,
    details: DeletedDetails,
}

/// What was deleted.
#[derive(Serialize, ToSchema)]
struct DeletedDetails {
    #[schema(example = "main")]
    workspace: String,
    #[schema(example = "tenant")]
    mode: &'static str,
    #[schema(example = 3)]
    versions_deleted: u32,
    #[schema(example = "full")]
    deletion_type: &'static str,
    /// Whether its database was removed from the server.
    physical_db: bool,
}

/// Deletes a workspace with its database and blueprint. 409 while tenants have a database of it.
#[utoipa::path(delete, path = "/workspaces/{id}", tag = "Workspaces", operation_id = "delete_workspace",
    params(("id" = String, Path, example = "myapp")), responses((status = 200, body = DeletedWorkspace)))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<DeletedWorkspace>> {
    caller.workspace(&id, Role::Admin)?;
    let workspace = find(&state, caller.project(), &id)?;
    let (project, name) = (caller.project().clone(), id.clone());
    let tenants = state
        .store(move |store| store.deployed_to(&project, &name))
        .await?;
    if !tenants.is_empty() {
        let more = json!({
            "reason": "tenants_deployed",
            "deployed_to": tenants,
            "action_required": "Delete all tenants first or use a different workspace",
        });
        return Err(Failure::Conflict(
            "cannot delete workspace with deployed tenants".into(),
            more.as_object().cloned().unwrap_or_default(),
        ));
    }
    state.work.delete_workspace(caller.project(), &id).await?;
    Ok(Reply::ok(DeletedWorkspace {
        message: "workspace deleted",
        details: DeletedDetails {
            workspace: id,
            mode: workspace.mode.name(),
            versions_deleted: workspace.version,
            deletion_type: "full",
            physical_db: true,
        },
    }))
}

/// The tables of a workspace's database.
#[derive(Serialize, ToSchema)]
struct SchemaReply {
    tables: Vec<TableInfo>,
}

/// A table.
#[derive(Serialize, ToSchema)]
struct TableInfo {
    #[schema(example = "users")]
    name: String,
    columns: Vec<ColumnInfo>,
    #[schema(example = json!(["users_pkey"]))]
    indexes: Vec<String>,
}

/// A column.
#[derive(Serialize, ToSchema)]
struct ColumnInfo {
    #[schema(example = "id")]
    name: String,
    /// As declared.
    #[serde(rename = "type")]
    #[schema(example = "SERIAL")]
    type_name: String,
    nullable: bool,
}

/// Shows the tables that a workspace's database has now.
#[utoipa::path(get, path = "/workspaces/{id}/schema", tag = "Workspaces", operation_id = "get_schema",
    params(("id" = String, Path, example = "myapp")), responses((status = 200, body = SchemaReply)))]
async fn get_schema(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<SchemaReply>> {
    caller.workspace(&id, Role::Read)?;
    let workspace = find(&state, caller.project(), &id)?;
    check_schema(workspace.engine)?;
    let tables = state.work.schema(caller.project(), &workspace.name).await?;
    let tables = tables.into_iter().map(|table| TableInfo {
        name: table.name,
        columns: table
            .columns
            .into_iter()
            .map(|it| ColumnInfo {
                name: it.name,
                type_name: it.type_name,
                nullable: it.nullable,
            })
            .collect(),
        indexes: table.indexes,
    });
    Ok(Reply::ok(SchemaReply {
        tables: tables.collect(),
    }))
}

/// Whether databases of that engine have a schema.
pub(super) fn check_schema(engine: Engine) -> Outcome<()> {
    match engine {
        Engine::Postgres | Engine::Mysql | Engine::Mongodb => Ok(()),
        Engine::Redis => Err(Failure::bad(
            "Redis has no schema: a Redis workspace has settings, see /workspaces/{id}/settings",
        )),
    }
}

/// Changes that no version holds yet.
#[derive(Serialize, ToSchema)]
struct DiffReply {
    changes: Vec<ChangeItem>,
    #[serde(flatten)]
    page: Paged,
}

/// A change that no version holds yet.
#[derive(Serialize, ToSchema)]
struct ChangeItem {
    #[schema(example = 42)]
    id: i64,
    #[schema(example = "CREATE TABLE users (id SERIAL PRIMARY KEY)")]
    statement: String,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
    /// Whether `POST /workspaces/{id}/diff/{ddl_id}/revert` can undo it.
    revertible: bool,
}

/// Lists the changes that the next deployment takes along. Tenant mode only.
#[utoipa::path(get, path = "/workspaces/{id}/diff", tag = "Workspaces",
    params(("id" = String, Path, example = "myapp"), PageParams), responses((status = 200, body = DiffReply)))]
async fn diff(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    params: Params,
) -> Outcome<Reply<DiffReply>> {
    let page = Page::read(params)?;
    caller.workspace(&id, Role::Read)?;
    find_tenant_mode(&state, caller.project(), &id)?;
    state.work.collect_changes(caller.project(), &id).await?;
    let find = move |store: &Store, part: &_| store.pending_changes(caller.project(), &id, part);
    let id = |it: &ChangeInfo| it.id.cast_unsigned();
    let (changes, page) = page.of(&state, find, id, ChangeItem::from).await?;
    Ok(Reply::ok(DiffReply { changes, page }))
}

impl From<ChangeInfo> for ChangeItem {
    fn from(it: ChangeInfo) -> Self {
        Self {
            id: it.id,
            revertible: revert::reverse(&it.statement).is_some(),
            statement: it.statement,
            created_at: time::seconds(it.created_at),
        }
    }
}

/// A change's id is a number; anything else names no change.
fn change_id(text: &str) -> Outcome<i64> {
    text.parse()
        .map_err(|_| Failure::not_found(Entity::Change, text))
}

/// Removes a change from what the next deployment takes along; the workspace's database keeps it. Tenant mode only.
#[utoipa::path(delete, path = "/workspaces/{id}/diff/{ddl_id}", tag = "Workspaces",
    params(("id" = String, Path, example = "myapp"), ("ddl_id" = String, Path, example = "42")),
    responses((status = 200, body = Message)))]
async fn remove_change(
    State(state): State<AppState>,
    caller: Caller,
    At((id, ddl_id)): At<(String, String)>,
) -> Outcome<Reply<Message>> {
    caller.workspace(&id, Role::Admin)?;
    find_tenant_mode(&state, caller.project(), &id)?;
    let change = change_id(&ddl_id)?;
    state.work.collect_changes(caller.project(), &id).await?;
    state
        .store(move |store| store.remove_change(caller.project(), &id, change))
        .await?;
    Ok(Reply::ok(Message {
        message: format!("DDL {change} removed from deploy queue"),
    }))
}

/// Undoes a change in the workspace's database, and removes it from what the next deployment takes along. Possible for
/// `CREATE TABLE`, `CREATE INDEX` and `ALTER TABLE … ADD COLUMN` that no version holds. Tenant mode only.
#[utoipa::path(post, path = "/workspaces/{id}/diff/{ddl_id}/revert", tag = "Workspaces",
    params(("id" = String, Path, example = "myapp"), ("ddl_id" = String, Path, example = "42")),
    responses((status = 200, body = Message)))]
async fn revert_change(
    State(state): State<AppState>,
    caller: Caller,
    At((id, ddl_id)): At<(String, String)>,
) -> Outcome<Reply<Message>> {
    caller.workspace(&id, Role::Admin)?;
    find_tenant_mode(&state, caller.project(), &id)?;
    let change_id = change_id(&ddl_id)?;
    state.work.collect_changes(caller.project(), &id).await?;
    let all = changes(&state, caller.project(), &id).await?;
    let (change, statement) = revertible(&all, change_id)?;
    // The path that the change ran with decides what its names mean.
    let path = Some(change.search_path.trim()).filter(|path| !path.is_empty());
    let path = format!("SET LOCAL search_path TO {}", path.unwrap_or("''"));
    let database = names::workspace_database(&id)?;
    super::queries::run_all(
        &state,
        &caller,
        &database,
        &["BEGIN", &path, &statement, "COMMIT"],
    )
    .await?;
    state.work.collect_changes(caller.project(), &id).await?;
    let newest_before = all.last().map_or(0, |it| it.id);
    let undone = Undone {
        change: change_id,
        by: statement.trim_end_matches(';').to_owned(),
        newest_before,
    };
    undone.forget(&state, caller.project(), &id).await?;
    Ok(Reply::ok(Message {
        message: format!("Reverted: {statement}"),
    }))
}

fn revertible(all: &[ChangeInfo], id: i64) -> Outcome<(&ChangeInfo, String)> {
    let at = all
        .iter()
        .position(|it| it.id == id)
        .ok_or_else(|| Failure::not_found(Entity::Change, id))?;
    let change = &all[at];
    if change.version.is_some() {
        return Err(Failure::bad(
            "Cannot revert DDLs already deployed to tenants. Create a new migration instead.",
        ));
    }
    let statement = revert::reverse(&change.statement).ok_or_else(|| {
        Failure::bad(
            "Only CREATE TABLE, CREATE INDEX and ALTER TABLE ADD COLUMN can be reverted. Create a new migration instead.",
        )
    })?;
    let subject = revert::subject(&change.statement).unwrap_or_default();
    match all[at + 1..]
        .iter()
        .find(|it| revert::mentions(&it.statement, &subject))
    {
        Some(later) => Err(Failure::conflict(format!(
            "DDL {} builds on DDL {id}: revert or remove it first",
            later.id
        ))),
        None => Ok((change, statement)),
    }
}

/// A change that was undone, and by what.
struct Undone {
    change: i64,
    by: String,
    /// The undoing was tracked as a change behind this one.
    newest_before: i64,
}

impl Undone {
    /// Neither the change nor its undoing is to be deployed. Where a version took the change meanwhile, both are.
    async fn forget(self, state: &AppState, project: &ProjectId, workspace: &str) -> Outcome<()> {
        let (project, workspace) = (project.clone(), workspace.to_owned());
        state
            .store(move |store| {
                store.remove_change(&project, &workspace, self.change)?;
                let is_undoing = |it: &ChangeInfo| {
                    it.id > self.newest_before && it.statement.trim_end_matches(';') == self.by
                };
                let changes = store.changes(&project, &workspace)?;
                match changes.iter().find(|it| is_undoing(it)) {
                    Some(undoing) => store.remove_change(&project, &workspace, undoing.id),
                    None => Ok(()),
                }
            })
            .await
    }
}

/// A workspace's settings.
#[derive(Serialize, ToSchema)]
struct SettingsReply {
    #[schema(example = "PostgreSQL")]
    database_type: &'static str,
    #[schema(value_type = Object, example = json!({
        "query_timeout_ms": 30000, "max_rows_per_query": 10000, "max_connections": 100
    }))]
    settings: Value,
    #[schema(example = json!(["query_timeout_ms", "max_rows_per_query", "max_connections"]))]
    available_fields: [&'static str; 3],
}

/// Shows a workspace's settings, as saved last.
#[utoipa::path(get, path = "/workspaces/{id}/settings", tag = "Workspaces",
    params(("id" = String, Path, example = "myapp")), responses((status = 200, body = SettingsReply)))]
async fn get_settings(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<SettingsReply>> {
    caller.workspace(&id, Role::Read)?;
    let workspace = find(&state, caller.project(), &id)?;
    Ok(Reply::ok(SettingsReply {
        database_type: workspace.engine.display_name(),
        settings: settings::to_json(&workspace.settings),
        available_fields: settings::fields(workspace.engine),
    }))
}

/// Settings to change; what is left out stays. The first three are of PostgreSQL, MySQL and MongoDB, the others of Redis.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "for the document: which fields there are depends on the engine"
)]
struct SaveSettings {
    /// Milliseconds after which a statement is cancelled.
    #[schema(minimum = 1, maximum = 86_400_000, example = 30000)]
    query_timeout_ms: Option<u64>,
    /// Rows that one statement may return.
    #[schema(minimum = 1, maximum = 100_000_000, example = 10000)]
    max_rows_per_query: Option<u64>,
    /// Client connections to one database.
    #[schema(minimum = 1, maximum = 10_000, example = 100)]
    max_connections: Option<u32>,
    /// Seconds that a key lives if its command does not say; 0 is for ever.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    default_ttl: Option<u32>,
    /// Keys that one database may hold; 0 is no limit.
    #[schema(minimum = 0, maximum = 2_147_483_647)]
    max_keys: Option<u32>,
    /// What holds for keys that match a pattern, such as `{"cache:*": {"ttl": 300}}`.
    #[schema(value_type = Option<Object>)]
    patterns: Option<Value>,
}

/// A workspace's settings as they are now.
#[derive(Serialize, ToSchema)]
struct SavedSettings {
    #[schema(value_type = Object)]
    settings: Value,
    #[schema(example = "Settings saved. Deploy to apply to tenants.")]
    message: &'static str,
    /// Whether a deployment must bring them to the tenants.
    pending_deploy: bool,
    #[schema(example = "PostgreSQL")]
    database_type: &'static str,
}

/// Changes a workspace's settings in part.
#[utoipa::path(post, path = "/workspaces/{id}/settings", tag = "Workspaces", request_body = SaveSettings,
    params(("id" = String, Path, example = "myapp")), responses((status = 200, body = SavedSettings)))]
async fn save_settings(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
    Body(given): Body<Map<String, Value>>,
) -> Outcome<Reply<SavedSettings>> {
    caller.workspace(&id, Role::Admin)?;
    let project = caller.project().clone();
    let name = id.clone();
    let (saved, database) = state
        .blocking(move |shared| {
            let mut wanted = shared.store.workspace(&project, &name)?.settings;
            settings::change(&mut wanted, &given)?;
            let saved = shared.store.save_settings(&project, &name, &wanted)?;
            Ok((saved, shared.store.workspace_database(&project, &name)?.id))
        })
        .await?;
    state.traffic.refresh(database);
    let pending_deploy = saved.mode == Mode::Tenant;
    Ok(Reply::ok(SavedSettings {
        settings: settings::to_json(&saved.settings),
        message: if pending_deploy {
            "Settings saved. Deploy to apply to tenants."
        } else {
            "Settings saved."
        },
        pending_deploy,
        database_type: saved.engine.display_name(),
    }))
}
