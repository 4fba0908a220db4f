//! `/signup` and `/login`.

use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use control_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::envelope::Reply;
use super::input::Body;
use super::middleware::{ClientAddress, Who};
use super::state::AppState;
use crate::app::failure::Outcome;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(signup))
        .routes(routes!(login))
}

/// A new account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignupRequest {
    #[schema(example = "ann@example.com")]
    email: String,
    /// At least 8 characters.
    #[schema(example = "correct horse", min_length = 8)]
    password: String,
    /// What the first project is called; `My Project` if left out.
    #[schema(example = "Healthcare SaaS")]
    project_name: Option<String>,
}

/// A new account's first project.
#[derive(Serialize, ToSchema)]
struct SignupReply {
    /// Shown in full here and by `/login`.
    #[schema(example = "tenantsdb_sk_a91de156...")]
    api_key: String,
    #[schema(example = "tdb_2abf90d3")]
    project_id: String,
}

/// Makes an account with a first project and its first API key.
#[utoipa::path(post, path = "/signup", tag = "Accounts", request_body = SignupRequest,
    responses((status = 201, body = SignupReply)))]
async fn signup(
    State(state): State<AppState>,
    Extension(who): Extension<Who>,
    Body(request): Body<SignupRequest>,
) -> Outcome<Reply<SignupReply>> {
    let tier = state.config.signup_tier.clone();
    let made = state
        .store(move |store| {
            let project = request.project_name.as_deref().unwrap_or("My Project");
            store.sign_up(&request.email, &request.password, project, &tier)
        })
        .await?;
    who.set(
        &made.project,
        made.key,
        state.owner(&made.project).await?.account,
    );
    Ok(Reply::created(SignupReply {
        api_key: made.api_key.expose().to_owned(),
        project_id: made.project.to_string(),
    }))
}

/// An account that is there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LoginRequest {
    #[schema(example = "ann@example.com")]
    email: String,
    #[schema(example = "correct horse")]
    password: String,
}

/// The account's projects.
#[derive(Serialize, ToSchema)]
struct LoginReply {
    projects: Vec<LoginItem>,
}

/// A project and a key for it.
#[derive(Serialize, ToSchema)]
struct LoginItem {
    #[schema(example = "tdb_2abf90d3")]
    project_id: String,
    #[schema(example = "Healthcare SaaS")]
    name: String,
    /// A key that may do everything in the project; left out where all such keys were deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "tenantsdb_sk_a91de156...")]
    api_key: Option<String>,
}

/// Lists all projects of an account, each with an API key.
#[utoipa::path(post, path = "/login", tag = "Accounts", request_body = LoginRequest,
    responses((status = 200, body = LoginReply), (status = 401, body = super::envelope::ErrorReply)))]
async fn login(
    State(state): State<AppState>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    Body(request): Body<LoginRequest>,
) -> Outcome<Reply<LoginReply>> {
    state
        .limits
        .may_guess(Instant::now(), address, &request.email)?;
    let projects = state
        .blocking(
            move |shared| match shared.store.log_in(&request.email, &request.password) {
                Ok(account) => Ok(shared.store.login_projects(account)?),
                Err(error) => {
                    if matches!(error, StoreError::LoginFailed) {
                        shared
                            .limits
                            .guessed_wrong(Instant::now(), address, &request.email);
                    }
                    Err(error.into())
                }
            },
        )
        .await?;
    let projects = projects.into_iter().map(|it| LoginItem {
        project_id: it.project.to_string(),
        name: it.name,
        api_key: it.api_key.map(|key| key.expose().to_owned()),
    });
    Ok(Reply::ok(LoginReply {
        projects: projects.collect(),
    }))
}
