//! The REST API: types, handlers, the envelope, OpenAPI.

mod accounts;
mod audit;
mod blueprints;
mod caller;
mod config;
mod dedicated;
mod deployments;
mod docs;
mod drift;
pub mod envelope;
mod idempotency;
mod import;
mod input;
mod keys;
mod limits;
mod logs;
mod meta;
mod middleware;
mod openapi;
mod page;
mod projects;
mod queries;
mod serve;
mod state;
mod tenants;
#[cfg(test)]
mod tests;
mod time;
mod workspaces;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use control_store::guard::Guard;
use control_store::logs::QueryLogReader;
use control_store::{Store, TrafficControl};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

pub use config::{ApiConfig, Endpoint, Network, Region, Tier};
pub use serve::{ServeOptions, serve};

use crate::app::failure::Failure;
use crate::app::work::Work;
use state::{AppState, Shared};

/// The REST API.
pub struct Api;

impl Api {
    /// The routes, with everything that happens around each request.
    #[allow(
        clippy::new_ret_no_self,
        reason = "what the caller serves is a Router; there is nothing else to hold"
    )]
    pub fn new(
        config: ApiConfig,
        store: Arc<Store>,
        work: Arc<dyn Work>,
        logs: Arc<dyn QueryLogReader>,
        traffic: Arc<dyn TrafficControl>,
        guard: Arc<Guard>,
    ) -> Router {
        let (routes, document) = documented_routes();
        let pages = (
            Arc::from(document.to_string()),
            Arc::from(docs::page(&document)),
        );
        let cors = cors(&config.cors_origins);
        let state: AppState = Arc::new(Shared::new(
            config, store, work, logs, traffic, guard, pages,
        ));
        routes
            .route_layer(axum::middleware::from_fn_with_state(
                Arc::clone(&state),
                audit::note,
            ))
            // Outside of it: an answer that is given again is no change.
            .route_layer(axum::middleware::from_fn_with_state(
                Arc::clone(&state),
                idempotency::once,
            ))
            .fallback(unknown_path)
            .method_not_allowed_fallback(async || Failure::MethodNotAllowed)
            .layer(CatchPanicLayer::custom(panicked))
            .layer(CompressionLayer::new())
            .layer(cors)
            .layer(axum::middleware::from_fn_with_state(
                Arc::clone(&state),
                middleware::around,
            ))
            .with_state(state)
    }
}

/// The routes, and the document that describes them.
fn documented_routes() -> (Router<AppState>, serde_json::Value) {
    let (routes, document) = OpenApiRouter::with_openapi(openapi::Document::openapi())
        .merge(meta::routes())
        .merge(accounts::routes())
        .merge(projects::routes())
        .merge(keys::routes())
        .merge(workspaces::routes())
        .merge(import::routes())
        .merge(queries::routes())
        .merge(blueprints::routes())
        .merge(tenants::routes())
        .merge(dedicated::routes())
        .merge(deployments::routes())
        .merge(drift::routes())
        .merge(logs::routes())
        .merge(audit::routes())
        .split_for_parts();
    (routes, openapi::complete(document))
}

async fn unknown_path(method: Method, uri: Uri) -> Failure {
    Failure::NotFound(format!("Not found: {method} {}", uri.path()))
}

/// The panic itself was reported by the panic hook.
fn panicked(_: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    Failure::Internal("a handler panicked".into()).into_response()
}

fn cors(origins: &[String]) -> CorsLayer {
    let origin = match origins {
        [any] if any == "*" => AllowOrigin::any(),
        origins => AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers(Any)
}
