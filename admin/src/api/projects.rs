//! `/projects`.

use axum::extract::State;
use control_store::Store;
use control_store::page::Place;
use control_store::projects::ProjectInfo;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::envelope::Reply;
use super::input::{At, Body, Params};
use super::page::{Page, PageParams, Paged};
use super::state::AppState;
use super::time;
use crate::app::failure::{Failure, Outcome};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(switch))
        .routes(routes!(delete))
}

/// The account's projects.
#[derive(Serialize, ToSchema)]
struct ProjectList {
    projects: Vec<ProjectItem>,
    #[serde(flatten)]
    page: Paged,
}

/// A project.
#[derive(Serialize, ToSchema)]
struct ProjectItem {
    #[schema(example = "tdb_2abf90d3")]
    project_id: String,
    #[schema(example = "Healthcare SaaS")]
    name: String,
    #[schema(example = 2)]
    api_key_count: u64,
    #[schema(example = "2026-01-17T20:12:06Z")]
    created_at: String,
}

impl From<ProjectInfo> for ProjectItem {
    fn from(it: ProjectInfo) -> Self {
        Self {
            project_id: it.id.to_string(),
            name: it.name,
            api_key_count: it.api_key_count,
            created_at: time::seconds(it.created_at),
        }
    }
}

/// Lists all projects of the account.
#[utoipa::path(get, path = "/projects", tag = "Projects",
    params(PageParams),
    responses((status = 200, body = ProjectList)))]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    params: Params,
) -> Outcome<Reply<ProjectList>> {
    let page = Page::read(params)?;
    caller.whole_project()?;
    let find = move |store: &Store, part: &_| store.list_projects(caller.account, part);
    let place = |it: &ProjectInfo| Place {
        at: it.created_at,
        id: it.id.to_string(),
    };
    let (projects, page) = page.of(&state, find, place, ProjectItem::from).await?;
    Ok(Reply::ok(ProjectList { projects, page }))
}

/// A new project.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateProject {
    #[schema(example = "E-commerce Platform")]
    name: String,
}

/// A project with its secrets.
#[derive(Serialize, ToSchema)]
struct ProjectSecrets {
    #[schema(example = "tdb_43cd4942")]
    project_id: String,
    #[schema(example = "E-commerce Platform")]
    name: String,
    #[schema(example = "tenantsdb_sk_42d5be1a...")]
    api_key: String,
    /// The password for drivers, with the project's id as the user.
    #[schema(example = "tdb_a9b55759ef905535")]
    proxy_password: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Project created. Save your API key - it won't be shown again!")]
    message: Option<&'static str>,
}

/// Makes a project of the same account, with a first API key.
#[utoipa::path(post, path = "/projects", tag = "Projects", request_body = CreateProject,
    responses((status = 201, body = ProjectSecrets)))]
async fn create(
    State(state): State<AppState>,
    caller: Caller,
    Body(request): Body<CreateProject>,
) -> Outcome<Reply<ProjectSecrets>> {
    caller.project_admin()?;
    let name = request.name.trim().to_owned();
    let made = state
        .store(move |store| store.create_project(caller.account, &request.name))
        .await?;
    Ok(Reply::created(ProjectSecrets {
        project_id: made.project.to_string(),
        name,
        api_key: made.api_key.expose().to_owned(),
        proxy_password: made.proxy_password.expose().to_owned(),
        message: Some("Project created. Save your API key - it won't be shown again!"),
    }))
}

/// Gives the API key of another project of the account, named by its id or name.
#[utoipa::path(post, path = "/projects/{id}/switch", tag = "Projects",
    params(("id" = String, Path, example = "tdb_43cd4942")),
    responses((status = 200, body = ProjectSecrets)))]
async fn switch(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<ProjectSecrets>> {
    caller.project_admin()?;
    let (project, key) = state
        .store(move |store| {
            let project = store.find_project(caller.account, &id)?;
            let key = store.usable_key(&project.id)?;
            Ok((project, key))
        })
        .await?;
    let (api_key, proxy_password) = key.ok_or_else(|| {
        Failure::conflict(format!(
            "Project '{}' has no API key left that may do everything",
            project.id
        ))
    })?;
    Ok(Reply::ok(ProjectSecrets {
        project_id: project.id.to_string(),
        name: project.name,
        api_key: api_key.expose().to_owned(),
        proxy_password: proxy_password.expose().to_owned(),
        message: None,
    }))
}

/// That it was done.
#[derive(Serialize, ToSchema)]
pub(super) struct Message {
    #[schema(example = "Project 'tdb_43cd4942' deleted successfully")]
    pub(super) message: String,
}

/// Deletes a project with its workspaces, blueprints, tenants and API keys.
#[utoipa::path(delete, path = "/projects/{id}", tag = "Projects",
    params(("id" = String, Path, example = "tdb_43cd4942")),
    responses((status = 200, body = Message)))]
async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    At(id): At<String>,
) -> Outcome<Reply<Message>> {
    caller.project_admin()?;
    let account = caller.account;
    let project = state
        .store(move |store| store.find_project(account, &id))
        .await?
        .id;
    state.work.delete_project(&project).await?;
    state.forget(&project);
    Ok(Reply::ok(Message {
        message: format!("Project '{project}' deleted successfully"),
    }))
}
