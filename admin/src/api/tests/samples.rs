//! Every sample of the reference against what the API answers: names and JSON types, at every depth.

use axum::http::Method;
use serde_json::{Value, json};

use super::harness::{Answer, World};
use super::peer::row;

fn script(_: &str) -> Vec<u8> {
    row(
        &["id", "name", "email"],
        &["1", "Alice", "alice@example.com"],
    )
}

/// Fails unless all that the sample has is there with the same type. Of arrays, the
/// first elements are compared: later ones may leave out what does not apply to them.
fn compare(sample: &Value, answer: &Value, at: &str) {
    match (sample, answer) {
        (Value::Object(sample), Value::Object(answer)) => {
            for (name, value) in sample {
                let at = format!("{at}.{name}");
                let found = answer
                    .get(name)
                    .unwrap_or_else(|| panic!("{at} is missing"));
                compare(value, found, &at);
            }
        }
        (Value::Array(sample), Value::Array(answer)) => {
            let Some(first) = sample.first() else { return };
            assert!(!answer.is_empty(), "{at} is empty");
            compare(first, &answer[0], &format!("{at}[]"));
        }
        (Value::Null, _) => {}
        (sample, answer) => assert_eq!(
            std::mem::discriminant(sample),
            std::mem::discriminant(answer),
            "{at}: {sample} in the sample, {answer} in the answer"
        ),
    }
}

/// The samples of one endpoint that are answers of that kind.
struct Samples(Vec<Value>);

impl Samples {
    fn check(&self, endpoint: &str, nth: usize, answer: &Answer) {
        let mut of_endpoint = self.0.iter().filter(|it| it["ep"] == endpoint);
        let sample = of_endpoint
            .nth(nth)
            .unwrap_or_else(|| panic!("no sample {nth} of {endpoint}"));
        let mut sample = sample["json"].clone();
        // The zones other than the default one and recoveries are not everywhere.
        sample.as_object_mut().map(|it| it.remove("recovery_undo"));
        compare(&sample, &answer.json, endpoint);
        for name in ["success", "http_status", "code"] {
            assert!(
                answer.json.get(name).is_some(),
                "{endpoint}: {name} is missing"
            );
        }
        assert_eq!(answer.json["http_status"], answer.status.as_u16());
    }
}

#[tokio::test]
async fn answers_have_the_shape_of_the_samples() {
    let samples = Samples(serde_json::from_str(include_str!("samples.json")).unwrap());
    let world = World::new().with_proxy(script);
    let post = async |path: &str, key: Option<&str>, body: Value| {
        world.call(Method::POST, path, key, &body.to_string()).await
    };
    let account = json!({ "email": "ann@example.com", "password": "correct horse" });
    let signup = post("/signup", None, account.clone()).await;
    samples.check("POST /signup", 0, &signup);
    samples.check("POST /login", 0, &post("/login", None, account).await);
    let key = signup.json["api_key"].as_str().unwrap().to_owned();
    let ours = Some(key.as_str());

    for (path, endpoint) in [
        ("/regions", "GET /regions"),
        ("/errors", "GET /errors"),
        ("/projects", "GET /projects"),
    ] {
        samples.check(endpoint, 0, &world.get(path, &key).await);
    }
    let made = post("/projects", ours, json!({ "name": "Shop" })).await;
    samples.check("POST /projects", 0, &made);
    let id = made.json["project_id"].as_str().unwrap();
    let switched = post(&format!("/projects/{id}/switch"), ours, json!({})).await;
    samples.check("POST /projects/{id}/switch", 0, &switched);
    let deleted = world.delete(&format!("/projects/{id}"), &key).await;
    samples.check("DELETE /projects/{id}", 0, &deleted);

    let workspace =
        |name: &str, mode: &str| json!({ "name": name, "database": "PostgreSQL", "mode": mode });
    samples.check(
        "POST /workspaces",
        0,
        &post("/workspaces", ours, workspace("main", "tenant")).await,
    );
    samples.check(
        "POST /workspaces",
        1,
        &post("/workspaces", ours, workspace("plane", "control")).await,
    );
    let project = control_store::ProjectId::new(signup.json["project_id"].as_str().unwrap());
    let change = |position, statement: &str| control_store::workspaces::NewChange {
        position,
        statement: statement.into(),
        search_path: "public".into(),
        at_us: 0,
    };
    let changes = [
        change(1, "CREATE TABLE users (id int)"),
        change(2, "CREATE TABLE gone (id int)"),
        change(3, "CREATE TABLE undone (id int)"),
    ];
    world
        .store
        .record_changes(&project, "main", &changes)
        .unwrap();
    samples.check(
        "DELETE /workspaces/{id}/diff/{ddl_id}",
        0,
        &world.delete("/workspaces/main/diff/2", &key).await,
    );
    let reverted = post("/workspaces/main/diff/3/revert", ours, json!({})).await;
    samples.check("POST /workspaces/{id}/diff/{ddl_id}/revert", 0, &reverted);
    samples.check(
        "GET /workspaces/{id}",
        0,
        &world.get("/workspaces/main", &key).await,
    );
    let template = json!({ "source": "template", "template": "fintech" });
    samples.check(
        "POST /workspaces/{id}/schema",
        2,
        &post("/workspaces/main/schema", ours, template).await,
    );
    samples.check(
        "GET /workspaces/{id}/schema",
        0,
        &world.get("/workspaces/main/schema", &key).await,
    );
    samples.check(
        "GET /workspaces/{id}/settings",
        0,
        &world.get("/workspaces/main/settings", &key).await,
    );
    let saved = post(
        "/workspaces/main/settings",
        ours,
        json!({ "max_connections": 10 }),
    )
    .await;
    samples.check("POST /workspaces/{id}/settings", 2, &saved);
    let query = json!({ "query": "SELECT * FROM users" });
    samples.check(
        "POST /workspaces/{id}/queries",
        0,
        &post("/workspaces/main/queries", ours, query).await,
    );

    samples.check("GET /workspaces", 0, &world.get("/workspaces", &key).await);
    let tenant = json!({ "tenant_id": "acme", "databases": [{ "blueprint": "main", "isolation_level": 1 }] });
    samples.check("POST /tenants", 0, &post("/tenants", ours, tenant).await);
    let deployment = post(
        "/deployments",
        ours,
        json!({ "blueprint_name": "main", "version": "1", "deploy_all": true }),
    )
    .await;
    let id = deployment.json["id"].as_str().unwrap();
    samples.check(
        "GET /deployments/{id}",
        0,
        &world.get(&format!("/deployments/{id}"), &key).await,
    );
    for (path, endpoint) in [
        ("/deployments", "GET /deployments"),
        ("/tenants", "GET /tenants"),
        ("/tenants/acme", "GET /tenants/{id}"),
        ("/tenants/acme/deployments", "GET /tenants/{id}/deployments"),
        ("/tenants/acme/logs", "GET /tenants/{id}/logs"),
        ("/tenants/acme/logs/stats", "GET /tenants/{id}/logs/stats"),
        ("/blueprints", "GET /blueprints"),
        ("/blueprints/main", "GET /blueprints/{name}"),
        (
            "/blueprints/main/versions",
            "GET /blueprints/{name}/versions",
        ),
    ] {
        samples.check(endpoint, 0, &world.get(path, &key).await);
    }
    let one = json!({ "blueprint": "main", "query": "SELECT 1", "tenant_id": "acme" });
    samples.check(
        "POST /admin/query",
        0,
        &post("/admin/query", ours, one).await,
    );
    let all = json!({ "blueprint": "main", "query": "SELECT 1", "all_tenants": true });
    samples.check(
        "POST /admin/query",
        1,
        &post("/admin/query", ours, all).await,
    );
    let ddl = json!({ "blueprint": "main", "query": "DROP TABLE users", "all_tenants": true });
    samples.check(
        "POST /admin/query",
        2,
        &post("/admin/query", ours, ddl).await,
    );
    samples.check(
        "DELETE /workspaces/{id}",
        1,
        &world.delete("/workspaces/main", &key).await,
    );
    world.delete("/tenants/acme", &key).await;
    samples.check(
        "POST /tenants/{id}/restore",
        0,
        &post("/tenants/acme/restore", ours, json!({})).await,
    );
    world.delete("/tenants/acme?hard=true", &key).await;
    samples.check(
        "DELETE /workspaces/{id}",
        0,
        &world.delete("/workspaces/main", &key).await,
    );
}
