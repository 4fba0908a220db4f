//! An API without sockets, and a world behind it that only remembers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use control_store::databases::NewDatabase;
use control_store::deployments::{DeploymentPlan, DeploymentResult, Progress, Steer};
use control_store::guard::Guard;
use control_store::ids::{DatabaseId, Engine, KeyId, ProjectId, ServerId};
use control_store::logs::{
    LogEntry, LogFilter, LogGap, LogLatency, LogPage, LogStats, LogWindow, QueryLogReader, Source,
};
use control_store::names;
use control_store::servers::NewServer;
use control_store::settings::WorkspaceSettings;
use control_store::snapshot::{NativeRoles, ServerAddress};
use control_store::states::{DatabaseState, Mode, TenantStatus};
use control_store::traffic::HoldBudget;
use control_store::workspaces::NewWorkspace;
use control_store::{Sealer, Store, TrafficControl};
use engines::postgres::PostgresEngine;
use engines::{ApplyStep, DatabaseEngine as _, SchemaPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tower::ServiceExt as _;

use crate::api::{Api, ApiConfig, Endpoint};
use crate::app::failure::{Failure, Outcome};
use crate::app::work::{Column, Deploy, Elsewhere, Table, Work};

pub(super) struct World {
    pub(super) router: Router,
    pub(super) store: Arc<Store>,
    peer: Option<tokio::task::JoinHandle<()>>,
    folder: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.abort();
        }
    }
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
            internal_socket: folder.path().join("socket"),
            redis_internal_socket: folder.path().join("redis-socket"),
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
            Arc::new(Guard::new(None)),
        );
        Self {
            router,
            store,
            peer: None,
            folder,
        }
    }

    /// Lets a peer play the proxy: it answers each query with what `script` makes of it.
    pub(super) fn with_proxy(mut self, script: fn(&str) -> Vec<u8>) -> Self {
        let socket = self.folder.path().join("socket");
        let listener = UnixListener::bind(socket).expect("a socket");
        self.peer = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(super::peer::serve(stream, script));
            }
        }));
        self
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

impl Fake {
    /// The one server, added with the first database.
    fn server(&self) -> ServerId {
        if let Some(id) = self.0.snapshot().load().servers.keys().next() {
            return *id;
        }
        let id = self.0.reserve_server().expect("an id");
        let new = NewServer {
            engine: Engine::Postgres,
            shared: true,
            connection_budget: 10,
            region: "eu-central".into(),
            provisioner: "{}".into(),
            redis: None,
        };
        let address = ServerAddress::Unix("/nowhere".into());
        self.0.add_server(id, &new, &address).expect("a server");
        id
    }
}

fn roles() -> NativeRoles {
    PostgresEngine.new_roles().expect("roles")
}

#[async_trait]
impl Work for Fake {
    async fn delete_project(&self, project: &ProjectId) -> Outcome<()> {
        Ok(self.0.delete_project(project)?)
    }

    async fn create_workspace(
        &self,
        project: &ProjectId,
        name: &str,
        engine: Engine,
        mode: Mode,
    ) -> Outcome<()> {
        let new = NewWorkspace {
            name,
            engine,
            mode,
            database: &names::workspace_database(name)?,
            server: self.server(),
            roles: &roles(),
        };
        let id = self.0.create_workspace(project, &new)?;
        Ok(self
            .0
            .move_database(id, DatabaseState::Provisioning, DatabaseState::Ready)?)
    }

    async fn delete_workspace(&self, project: &ProjectId, name: &str) -> Outcome<()> {
        let own = self.0.retire_workspace(project, name)?;
        Ok(self.0.remove_database(own)?)
    }

    async fn collect_changes(&self, _: &ProjectId, _: &str) -> Outcome<()> {
        Ok(())
    }

    async fn schema(&self, _: &ProjectId, _: &str) -> Outcome<Vec<Table>> {
        let column = |name: &str, type_name: &str| Column {
            name: name.into(),
            type_name: type_name.into(),
            nullable: false,
        };
        Ok(vec![Table {
            name: "users".into(),
            columns: vec![column("id", "SERIAL"), column("name", "TEXT")],
            indexes: vec!["users_pkey".into()],
        }])
    }

    async fn read_schema(&self, from: &Elsewhere) -> Outcome<Vec<String>> {
        if from.database != "mydb" {
            return Err(Failure::bad("The database cannot be read: it is not there"));
        }
        Ok([
            "CREATE TABLE public.users (\n    id integer NOT NULL\n)",
            "ALTER TABLE ONLY public.users\n    ADD CONSTRAINT users_pkey PRIMARY KEY (id)",
            "CREATE TABLE public.accounts (\n    id integer NOT NULL\n)",
            "CREATE INDEX by_id ON public.accounts USING btree (id)",
            "CREATE VIEW public.there AS\n SELECT 1",
            "COMMENT ON VIEW public.there IS 'x'",
            "CREATE TABLE public.broken (\n    id nonsense\n)",
            "ALTER TABLE public.broken ENABLE ROW LEVEL SECURITY",
        ]
        .map(str::to_owned)
        .to_vec())
    }

    async fn create_tenant(
        &self,
        project: &ProjectId,
        tenant: &str,
        blueprints: &[String],
    ) -> Outcome<()> {
        let (server, roles) = (self.server(), roles());
        let settings = WorkspaceSettings::default_of(Engine::Postgres);
        let names: Vec<_> = blueprints
            .iter()
            .map(|it| names::tenant_database(it, tenant))
            .collect::<Result<_, _>>()?;
        let new: Vec<_> = blueprints
            .iter()
            .zip(&names)
            .map(|(workspace, name)| NewDatabase {
                workspace,
                tenant: Some(tenant),
                engine: Engine::Postgres,
                name,
                server,
                roles: &roles,
                settings: &settings,
            })
            .collect();
        let ids = self.0.create_tenant(project, tenant, &new)?;
        for (id, blueprint) in ids.iter().zip(blueprints) {
            let version = self.0.cut_version(project, blueprint)?;
            self.0.set_database_version(*id, version, &settings)?;
        }
        Ok(self.0.finish_tenant(project, tenant, &ids)?)
    }

    async fn delete_tenant(&self, project: &ProjectId, tenant: &str, hard: bool) -> Outcome<()> {
        if !hard {
            return self.status(project, tenant, TenantStatus::Ready, TenantStatus::Deleted);
        }
        let any = [TenantStatus::Ready, TenantStatus::Deleted];
        for database in self.0.retire_tenant(project, tenant, &any)? {
            self.0.remove_database(database)?;
        }
        Ok(())
    }

    async fn restore_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        self.status(project, tenant, TenantStatus::Deleted, TenantStatus::Ready)
    }

    async fn suspend_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        self.status(
            project,
            tenant,
            TenantStatus::Ready,
            TenantStatus::Suspended,
        )
    }

    async fn resume_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()> {
        self.status(
            project,
            tenant,
            TenantStatus::Suspended,
            TenantStatus::Ready,
        )
    }

    async fn deploy(&self, project: &ProjectId, deploy: &Deploy) -> Outcome<String> {
        let begun = self.0.begin_deployment(project, &deploy.new_deployment())?;
        for result in begun.results {
            let result = DeploymentResult {
                status: Progress::Completed,
                duration_us: Some(119_001),
                ..result
            };
            self.0.set_deployment_result(&begun.id, &result)?;
        }
        self.0.finish_deployment(&begun.id)?;
        Ok(begun.id)
    }

    async fn plan_deployment(
        &self,
        project: &ProjectId,
        deploy: &Deploy,
    ) -> Outcome<DeploymentPlan> {
        Ok(self.0.plan_deployment(project, &deploy.new_deployment())?)
    }

    async fn steer_deployment(&self, project: &ProjectId, id: &str, steer: Steer) -> Outcome<()> {
        self.0.steer_deployment(project, id, steer)?;
        Ok(())
    }

    async fn compare_schemas(&self, _: DatabaseId) -> Outcome<SchemaPair> {
        Ok(SchemaPair {
            expected: vec!["CREATE TABLE public.users (\n    id integer\n)".into()],
            found: vec!["CREATE TABLE public.users (\n    id bigint\n)".into()],
        })
    }

    fn deployment_steps(&self, _: &str) -> BTreeMap<String, ApplyStep> {
        let step = ApplyStep {
            change: 1,
            number: 1,
            of: 2,
            attempt: 3,
        };
        BTreeMap::from([("acme".to_owned(), step)])
    }
}

impl Fake {
    fn status(
        &self,
        project: &ProjectId,
        tenant: &str,
        from: TenantStatus,
        to: TenantStatus,
    ) -> Outcome<()> {
        Ok(self.0.set_tenant_status(project, tenant, &[from], to)?)
    }
}

impl QueryLogReader for Fake {
    fn find(&self, filter: &LogFilter) -> std::io::Result<LogPage> {
        let entry = LogEntry {
            database: filter.databases[0],
            query: "SELECT * FROM users WHERE active = $1".into(),
            source: filter.source.unwrap_or(Source::Proxy),
            at: std::time::UNIX_EPOCH,
            duration: Duration::from_micros(4200),
            error_code: filter.errors_only.then(|| "42P01".into()),
            rows: 3,
        };
        Ok(LogPage {
            entries: vec![entry],
            has_more: filter.limit == 1,
        })
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
        let gap = |from, seconds| LogGap {
            from,
            until: from + Duration::from_secs(seconds),
        };
        let future = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        // Before there was any tenant, and after.
        vec![gap(std::time::UNIX_EPOCH, 1), gap(future, 9)]
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
