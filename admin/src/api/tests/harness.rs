//! An API without sockets, and a world behind it that only remembers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use control_store::ids::{DatabaseId, Engine, KeyId, ProjectId};
use control_store::logs::{
    LogFilter, LogGap, LogLatency, LogPage, LogStats, LogWindow, QueryLogReader,
};
use control_store::states::Mode;
use control_store::traffic::HoldBudget;
use control_store::{Sealer, Store, TrafficControl};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::api::{Api, ApiConfig, Endpoint};
use crate::app::failure::Outcome;
use crate::app::work::{Deploy, Table, Work};

pub(super) struct World {
    pub(super) router: Router,
    pub(super) store: Arc<Store>,
    _folder: TempDir,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: axum::http::HeaderMap,
    pub(super) text: String,
    pub(super) json: Value,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sealer = Sealer::from_key(&[7; 32]).expect("a sealer");
        let store = Store::open(&folder.path().join("store.db"), sealer).expect("a store");
        let store = Arc::new(store);
        let mut config = ApiConfig {
            ip_limit: None,
            ..ApiConfig::default()
        };
        config.endpoints.insert(
            Engine::Postgres,
            Endpoint {
                host: "pg.example.com".into(),
                port: 5432,
            },
        );
        change(&mut config);
        let work = Arc::new(Fake(Arc::clone(&store)));
        let router = Api::new(
            config,
            Arc::clone(&store),
            work,
            Arc::new(Fake(Arc::clone(&store))),
            Arc::new(Fake(Arc::clone(&store))),
        );
        Self {
            router,
            store,
            _folder: folder,
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("the router never fails");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX)
            .await
            .expect("a body");
        let text = String::from_utf8(bytes.to_vec()).unwrap_or_default();
        Answer {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request
            .body(Body::from(body.to_owned()))
            .expect("a request");
        self.send(request).await
    }

    pub(super) async fn get(&self, path: &str, key: &str) -> Answer {
        self.call(Method::GET, path, Some(key), "").await
    }

    pub(super) async fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        self.call(Method::POST, path, Some(key), body).await
    }

    pub(super) async fn delete(&self, path: &str, key: &str) -> Answer {
        self.call(Method::DELETE, path, Some(key), "").await
    }

    /// An account; its project and key.
    pub(super) async fn signed_up(&self, email: &str) -> (String, String) {
        let body = format!(r#"{{"email":"{email}","password":"correct horse"}}"#);
        let answer = self.call(Method::POST, "/signup", None, &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        let field = |name: &str| answer.json[name].as_str().expect(name).to_owned();
        (field("project_id"), field("api_key"))
    }
}

/// Does in the store what the real one does there, and nothing on servers.
pub(super) struct Fake(Arc<Store>);

#[async_trait]
impl Work for Fake {
    async fn delete_project(&self, project: &ProjectId) -> Outcome<()> {
        Ok(self.0.delete_project(project)?)
    }

    async fn create_workspace(&self, _: &ProjectId, _: &str, _: Engine, _: Mode) -> Outcome<()> {
        Ok(())
    }

    async fn delete_workspace(&self, _: &ProjectId, _: &str) -> Outcome<()> {
        Ok(())
    }

    async fn collect_changes(&self, _: &ProjectId, _: &str) -> Outcome<()> {
        Ok(())
    }

    async fn schema(&self, _: &ProjectId, _: &str) -> Outcome<Vec<Table>> {
        Ok(Vec::new())
    }

    async fn create_tenant(&self, _: &ProjectId, _: &str, _: &[String]) -> Outcome<()> {
        Ok(())
    }

    async fn delete_tenant(&self, _: &ProjectId, _: &str, _: bool) -> Outcome<()> {
        Ok(())
    }

    async fn restore_tenant(&self, _: &ProjectId, _: &str) -> Outcome<()> {
        Ok(())
    }

    async fn suspend_tenant(&self, _: &ProjectId, _: &str) -> Outcome<()> {
        Ok(())
    }

    async fn resume_tenant(&self, _: &ProjectId, _: &str) -> Outcome<()> {
        Ok(())
    }

    async fn deploy(&self, _: &ProjectId, _: &Deploy) -> Outcome<String> {
        Ok("dep_000001".into())
    }
}

impl QueryLogReader for Fake {
    fn find(&self, _: &LogFilter) -> std::io::Result<LogPage> {
        Ok(LogPage::default())
    }

    fn stats(&self, _: &[DatabaseId]) -> LogStats {
        LogStats::default()
    }

    fn window(&self, _: &[DatabaseId], since: SystemTime) -> std::io::Result<LogWindow> {
        Ok(LogWindow {
            since,
            until: SystemTime::now(),
            stats: LogStats::default(),
            latency: LogLatency::default(),
        })
    }

    fn gaps(&self) -> Vec<LogGap> {
        Vec::new()
    }

    fn forget(&self, _: DatabaseId) {}
}

impl TrafficControl for Fake {
    fn hold(&self, _: DatabaseId, _: HoldBudget) {}

    fn in_flight(&self, _: DatabaseId) -> u64 {
        0
    }

    fn release(&self, _: DatabaseId) {}

    fn refresh(&self, _: DatabaseId) {}

    fn schema_changed(&self, _: DatabaseId) {}

    fn kill(&self, _: DatabaseId, _: Duration) -> bool {
        true
    }

    fn kill_key(&self, _: KeyId) {}
}
