//! What the API says of itself.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::envelope::{Code, Reply};
use super::state::AppState;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(root))
        .routes(routes!(health))
        .routes(routes!(regions))
        .routes(routes!(errors))
        .routes(routes!(openapi))
        .routes(routes!(docs))
}

/// What this is.
#[derive(Serialize, ToSchema)]
struct Root {
    #[schema(example = "TenantsDB")]
    name: &'static str,
    #[schema(example = "0.1.0")]
    version: &'static str,
    #[schema(example = "/docs")]
    docs: &'static str,
    #[schema(example = "/openapi.json")]
    openapi: &'static str,
}

/// Name and version of the product, and where its documentation is.
#[utoipa::path(get, path = "/", tag = "About", responses((status = 200, body = Root)))]
async fn root() -> Reply<Root> {
    Reply::ok(Root {
        name: "TenantsDB",
        version: env!("CARGO_PKG_VERSION"),
        docs: "/docs",
        openapi: "/openapi.json",
    })
}

/// That it serves.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `healthy`, or `degraded` while a database server is not there or not fit.
    #[schema(example = "healthy")]
    status: &'static str,
}

/// Whether the API serves.
#[utoipa::path(get, path = "/health", tag = "About", responses((status = 200, body = Health)))]
async fn health(State(state): State<AppState>) -> Reply<Health> {
    let status = match state.work.all_servers_run() {
        true => "healthy",
        false => "degraded",
    };
    Reply::ok(Health { status })
}

/// The zones for dedicated servers.
#[derive(Serialize, ToSchema)]
struct Regions {
    regions: Vec<RegionItem>,
}

/// A zone for dedicated servers.
#[derive(Serialize, ToSchema)]
struct RegionItem {
    /// Its name in requests.
    #[schema(example = "eu-central")]
    zone: String,
    /// Its name for people.
    #[schema(example = "Europe")]
    label: String,
    /// Whether it is taken when a request names none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_default: bool,
}

/// The zones for dedicated servers.
#[utoipa::path(get, path = "/regions", tag = "About", responses((status = 200, body = Regions)))]
async fn regions(State(state): State<AppState>) -> Reply<Regions> {
    let regions = state.config.regions.iter().map(|region| RegionItem {
        zone: region.zone.clone(),
        label: region.label.clone(),
        is_default: region.is_default,
    });
    Reply::ok(Regions {
        regions: regions.collect(),
    })
}

/// The codes by name.
#[derive(Serialize, ToSchema)]
struct Errors {
    codes: BTreeMap<&'static str, ErrorItem>,
}

/// What a code means.
#[derive(Serialize, ToSchema)]
struct ErrorItem {
    /// The HTTP status that goes with it.
    #[schema(example = 404)]
    status: u16,
    #[schema(example = "Resource does not exist")]
    description: &'static str,
}

/// Every code that an answer may carry.
#[utoipa::path(get, path = "/errors", tag = "About", responses((status = 200, body = Errors)))]
async fn errors() -> Reply<Errors> {
    let item = |code: Code| ErrorItem {
        status: code.status().as_u16(),
        description: code.description(),
    };
    Reply::ok(Errors {
        codes: Code::ALL
            .into_iter()
            .map(|code| (code.name(), item(code)))
            .collect(),
    })
}

/// This description of the API in OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "About",
    responses((status = 200, body = Object, content_type = "application/json")))]
async fn openapi(State(state): State<AppState>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/json")],
        state.openapi.to_string(),
    )
}

/// This description of the API as a page to read.
#[utoipa::path(get, path = "/docs", tag = "About",
    responses((status = 200, body = String, content_type = "text/html")))]
async fn docs(State(state): State<AppState>) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE.as_str(), "text/html; charset=utf-8"),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
    ];
    (headers, state.docs.to_string())
}
