//! `/apikeys`.

use axum::extract::State;
use control_store::ids::{BlueprintName, KeyId, Role, TenantId};
use control_store::keys::{KeyInfo, NewKey};
use control_store::page::Part;
use control_store::snapshot::Scope;
use control_store::{Entity, Store};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Body, Params};
use super::page::{Page, PageParams, Paged};
use super::projects::Message;
use super::state::AppState;
use super::time;
use crate::app::failure::{Failure, Outcome};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(delete))
}

/// The project's API keys.
#[derive(Serialize, ToSchema)]
struct KeyList {
    api_keys: Vec<KeyItem>,
    #[serde(flatten)]
    page: Paged,
}

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
struct KeyItem {
    #[schema(example = 7)]
    id: u64,
    #[schema(example = "default")]
    name: String,
    /// Its beginning.
    #[schema(example = "tenantsdb_sk_a91de1560b9c...")]
    key: String,
    /// `admin`, `write` or `read`.
    #[schema(example = "admin")]
    role: &'static str,
    /// `project`, `workspace` or `tenant`.
    #[schema(example = "project")]
    scope_type: &'static str,
    /// The workspaces or tenants it reaches.
    scope_values: Vec<String>,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
}

impl From<KeyInfo> for KeyItem {
    fn from(key: KeyInfo) -> Self {
        Self {
            id: key.id.0,
            role: key.role.name(),
            scope_type: key.scope.type_name(),
            scope_values: values(&key.scope),
            created_at: time::seconds(key.created_at),
            name: key.name,
            key: key.hint,
        }
    }
}

fn values(scope: &Scope) -> Vec<String> {
    scope.values().into_iter().map(str::to_owned).collect()
}

/// Lists the project's API keys; of each key only its beginning.
#[utoipa::path(get, path = "/apikeys", tag = "API keys",
    params(PageParams),
    responses((status = 200, body = KeyList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    params: Params,
) -> Outcome<Reply<KeyList>> {
    let page = Page::read(params)?;
    caller.whole_project()?;
    let find = move |store: &Store, part: &_| store.list_keys(caller.project(), part);
    let (api_keys, page) = page.of(&state, find, |it| it.id.0, KeyItem::from).await?;
    Ok(Reply::ok(KeyList { api_keys, page }))
}

/// A new API key. Everything may be left out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateKey {
    /// What people call it.
    #[schema(example = "ci")]
    name: Option<String>,
    /// `admin` (default), `write` or `read`.
    #[schema(example = "read")]
    role: Option<String>,
    /// `project` (default), `workspace` or `tenant`.
    #[schema(example = "tenant")]
    scope_type: Option<String>,
    /// The workspaces or tenants that it reaches; none for `project`.
    #[schema(example = json!(["acme"]))]
    scope_values: Option<Vec<String>>,
}

/// A new API key. Its secrets are shown this once.
#[derive(Serialize, ToSchema)]
struct KeySecrets {
    #[schema(example = 7)]
    id: u64,
    #[schema(example = "ci")]
    name: String,
    #[schema(example = "tenantsdb_sk_a91de156...")]
    key: String,
    /// The same as `key`.
    #[schema(example = "tenantsdb_sk_a91de156...")]
    api_key: String,
    /// The password for drivers that belongs to this key, with the project's id as the user.
    #[schema(example = "tdb_a9b55759ef905535")]
    proxy_password: String,
    #[schema(example = "read")]
    role: &'static str,
    #[schema(example = "tenant")]
    scope_type: &'static str,
    scope_values: Vec<String>,
    #[schema(example = "API key created. Save it - it won't be shown again!")]
    message: &'static str,
}

/// Makes an API key, with a proxy password of its own.
#[utoipa::path(post, path = "/apikeys", tag = "API keys", request_body = CreateKey,
    responses((status = 201, body = KeySecrets)))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<CreateKey>,
) -> Outcome<Reply<KeySecrets>> {
    caller.project_admin()?;
    let new = new_key(request)?;
    let copy = new.clone();
    let made = state
        .store(move |store| store.create_key(caller.project(), &copy))
        .await?;
    Ok(Reply::created(KeySecrets {
        id: made.key.0,
        name: new.name.trim().to_owned(),
        key: made.api_key.expose().to_owned(),
        api_key: made.api_key.expose().to_owned(),
        proxy_password: made.proxy_password.expose().to_owned(),
        role: new.role.name(),
        scope_type: new.scope.type_name(),
        scope_values: values(&new.scope),
        message: "API key created. Save it - it won't be shown again!",
    }))
}

fn new_key(request: CreateKey) -> Outcome<NewKey> {
    let role = match request.role.as_deref() {
        None => Role::Admin,
        Some(name) => Role::parse(name)
            .ok_or_else(|| Failure::bad("Field 'role' must be one of admin, write, read"))?,
    };
    let values = request.scope_values.unwrap_or_default();
    let scope_type = request.scope_type.unwrap_or_else(|| "project".into());
    let scope = match scope_type.to_ascii_lowercase().as_str() {
        "project" if values.is_empty() => Scope::Project,
        "project" => {
            return Err(Failure::bad(
                "Field 'scope_values' must be empty where 'scope_type' is project",
            ));
        }
        "workspace" => Scope::Workspaces(values.into_iter().map(BlueprintName::new).collect()),
        "tenant" => Scope::Tenants(values.into_iter().map(TenantId::new).collect()),
        _ => {
            return Err(Failure::bad(
                "Field 'scope_type' must be one of project, workspace, tenant",
            ));
        }
    };
    Ok(NewKey {
        name: request.name.unwrap_or_else(|| "API key".into()),
        role,
        scope,
    })
}

/// Deletes an API key and its proxy password. The project's last key that may do everything stays.
#[utoipa::path(delete, path = "/apikeys/{id}", tag = "API keys",
    params(("id" = String, Path, example = "7")),
    responses((status = 200, body = Message)))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<Message>> {
    caller.project_admin()?;
    let missing = || Failure::not_found(Entity::ApiKey, &id);
    let key = KeyId(id.parse().map_err(|_| missing())?);
    state
        .blocking(move |shared| {
            let keys = shared.store.list_keys(caller.project(), &Part::ALL)?;
            let full = |it: &&KeyInfo| it.role == Role::Admin && it.scope == Scope::Project;
            if keys.iter().filter(full).all(|it| it.id == key)
                && keys.iter().any(|it| it.id == key)
            {
                return Err(Failure::conflict(
                    "This is the project's last API key that may do everything: make another one first",
                ));
            }
            Ok(shared.store.delete_key(caller.project(), key)?)
        })
        .await?;
    state.traffic.kill_key(key);
    Ok(Reply::ok(Message {
        message: format!("API key {key} deleted successfully"),
    }))
}
