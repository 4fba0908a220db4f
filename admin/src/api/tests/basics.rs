//! Accounts, projects, keys, and the manners of every answer.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

use super::harness::World;

#[tokio::test]
async fn an_account_its_projects_and_keys() {
    let world = World::new();
    let (project, key) = world.signed_up("ann@example.com").await;
    let login = world
        .call(
            Method::POST,
            "/login",
            None,
            r#"{"email":"ann@example.com","password":"correct horse"}"#,
        )
        .await;
    assert_eq!(
        login.json["projects"],
        json!([{ "project_id": project, "name": "My Project", "api_key": key }])
    );

    let made = world.post("/projects", &key, r#"{"name":"Shop"}"#).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let shop = made.json["project_id"].as_str().unwrap();
    for name in [shop, "Shop"] {
        let switched = world
            .post(&format!("/projects/{name}/switch"), &key, "")
            .await;
        assert_eq!(switched.json["api_key"], made.json["api_key"]);
        assert_eq!(switched.json["proxy_password"], made.json["proxy_password"]);
    }
    world.post("/projects", &key, r#"{"name":"Shop"}"#).await;
    let unclear = world.post("/projects/Shop/switch", &key, "").await;
    assert_eq!(
        (unclear.status.as_u16(), &unclear.json["code"]),
        (409, &json!("conflict"))
    );
    assert!(unclear.json["error"].as_str().unwrap().contains(shop));
    assert_eq!(unclear.json["error"], unclear.json["message"]);

    let list = world.get("/projects?limit=2", &key).await;
    assert_eq!(list.json["count"], 2);
    let cursor = list.json["next_cursor"].as_str().unwrap();
    let rest = world
        .get(&format!("/projects?limit=2&cursor={cursor}"), &key)
        .await;
    assert_eq!(
        (&rest.json["count"], rest.json.get("next_cursor")),
        (&json!(1), None)
    );

    let deleted = world.delete(&format!("/projects/{shop}"), &key).await;
    assert_eq!(
        deleted.json["message"],
        format!("Project '{shop}' deleted successfully")
    );
    let gone = world
        .get("/apikeys", made.json["api_key"].as_str().unwrap())
        .await;
    assert_eq!(
        (gone.status.as_u16(), &gone.json["code"]),
        (401, &json!("unauthorized"))
    );
}

#[tokio::test]
async fn keys_have_a_role_and_a_scope() {
    let world = World::new();
    let (_, key) = world.signed_up("ann@example.com").await;
    let body = r#"{"name":"ci","role":"READ","scope_type":"tenant","scope_values":["acme"]}"#;
    let made = world.post("/apikeys", &key, body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let narrow = made.json["key"].as_str().unwrap();
    let listed = world.get("/apikeys", &key).await;
    assert_eq!(listed.json["count"], 2);
    let hint = listed.json["api_keys"][1]["key"].as_str().unwrap();
    assert!(narrow.starts_with(hint.strip_suffix("...").unwrap()));

    let denied = world.get("/apikeys", narrow).await;
    assert_eq!(
        (denied.status.as_u16(), &denied.json["code"]),
        (403, &json!("scope_denied"))
    );
    let denied = world.post("/apikeys", narrow, "{}").await;
    assert_eq!(
        (denied.status.as_u16(), &denied.json["code"]),
        (403, &json!("role_required"))
    );

    let id = &made.json["id"];
    assert_eq!(
        world.delete(&format!("/apikeys/{id}"), &key).await.status,
        200
    );
    assert_eq!(
        world.delete(&format!("/apikeys/{id}"), &key).await.status,
        404
    );
    assert_eq!(world.get("/apikeys", narrow).await.status, 401);
    let last = &listed.json["api_keys"][0]["id"];
    assert_eq!(
        world.delete(&format!("/apikeys/{last}"), &key).await.status,
        409
    );
    for (body, names) in [
        (r#"{"role":"owner"}"#, "role"),
        (r#"{"scope_type":"tenant"}"#, "scope_values"),
        (r#"{"scope_type":"galaxy"}"#, "scope_type"),
        (r#"{"scope_values":["a"]}"#, "scope_values"),
    ] {
        let refused = world.post("/apikeys", &key, body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(
            refused.json["error"].as_str().unwrap().contains(names),
            "{}",
            refused.text
        );
    }
}

#[tokio::test]
async fn every_refusal_has_its_status_code_and_sentence() {
    let world = World::with(|config| config.body_limit = 64);
    let (_, key) = world.signed_up("a@b.c").await;
    let key = Some(key.as_str());
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(100));
    for (method, path, key, body, status, code, error) in [
        (
            Method::GET,
            "/projects",
            None,
            "",
            401,
            "auth_required",
            "Authorization header required",
        ),
        (
            Method::GET,
            "/projects",
            Some("tenantsdb_sk_00"),
            "",
            401,
            "unauthorized",
            "Invalid API key",
        ),
        (
            Method::GET,
            "/nowhere",
            None,
            "",
            404,
            "not_found",
            "Not found: GET /nowhere",
        ),
        (
            Method::PUT,
            "/projects",
            key,
            "",
            405,
            "bad_request",
            "Method not allowed on this path: see GET /docs",
        ),
        (
            Method::POST,
            "/projects",
            key,
            &long,
            413,
            "bad_request",
            "The request body is larger than 64 bytes",
        ),
        (
            Method::POST,
            "/projects",
            key,
            r#"{"nam":"x"}"#,
            400,
            "bad_request",
            "Unknown field 'nam': expected 'name'",
        ),
        (
            Method::GET,
            "/projects?limit=0",
            key,
            "",
            400,
            "bad_request",
            "Parameter 'limit' must be a whole number from 1 to 1000",
        ),
        (
            Method::GET,
            "/projects?x=1",
            key,
            "",
            400,
            "bad_request",
            "Unknown parameter 'x'",
        ),
        (
            Method::POST,
            "/projects/none/switch",
            key,
            "",
            404,
            "not_found",
            "Project not found: none",
        ),
        (
            Method::POST,
            "/login",
            None,
            r#"{"email":"a@b.c","password":"wrong one"}"#,
            401,
            "unauthorized",
            "Invalid email or password",
        ),
        (
            Method::POST,
            "/signup",
            None,
            r#"{"email":"a@b.c","password":"long enough"}"#,
            409,
            "conflict",
            "Email already registered",
        ),
        (
            Method::POST,
            "/signup",
            None,
            r#"{"email":"d@b.c","password":"short"}"#,
            400,
            "bad_request",
            "Invalid password: must be at least 8 characters",
        ),
    ] {
        let answer = world.call(method, path, key, body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {}", answer.text);
        let expected =
            json!({ "success": false, "http_status": status, "code": code, "error": error });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&answer.json[name], value, "{path}");
        }
    }
}

#[tokio::test]
async fn a_tier_limits_requests_per_minute() {
    let world = World::with(|config| {
        config.signup_tier = "free".into();
        config.tiers.get_mut("free").unwrap().requests_per_minute = Some(1);
    });
    let (_, key) = world.signed_up("ann@example.com").await;
    assert_eq!(world.get("/projects", &key).await.status, 200);
    let refused = world.get("/projects", &key).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(
        refused.json["error"],
        "rate limit exceeded: max 1 requests per minute"
    );
}

#[tokio::test]
async fn answers_repeat_the_request_id_and_may_be_compressed() {
    let world = World::with(|config| config.cors_origins = vec!["https://app.example.com".into()]);
    let request = Request::get("/openapi.json")
        .header("x-request-id", "mine-1")
        .header("accept-encoding", "gzip")
        .header("origin", "https://app.example.com")
        .body(Body::empty())
        .unwrap();
    let answer = world.send(request).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert_eq!(
        answer.headers["access-control-allow-origin"],
        "https://app.example.com"
    );
    let docs = world.call(Method::GET, "/docs", None, "").await;
    assert!(docs.text.contains("POST"));
    assert_eq!(docs.headers["content-type"], "text/html; charset=utf-8");
}

#[tokio::test]
async fn changes_are_audited_and_passwords_cannot_be_guessed_fast() {
    let world = World::new();
    let (_, key) = world.signed_up("ann@example.com").await;
    world.post("/apikeys", &key, r#"{"name":"ci"}"#).await;
    world.post("/apikeys", &key, r#"{"role":"owner"}"#).await;
    world.get("/apikeys", &key).await;
    let audit = world.get("/audit", &key).await;
    let actions: Vec<_> = audit.json["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["POST /apikeys", "POST /signup"], "{}", audit.text);
    assert_eq!(audit.json["entries"][0]["address"], "127.0.0.1");
    assert_eq!(audit.json["entries"][0]["status"], 201);
    let first = world.get("/audit?limit=1", &key).await;
    let cursor = first.json["next_cursor"].as_str().unwrap();
    let second = world
        .get(&format!("/audit?limit=1&cursor={cursor}"), &key)
        .await;
    assert_eq!(second.json["entries"][0]["action"], "POST /signup");
    assert_eq!(second.json.get("next_cursor"), None);

    let guess = r#"{"email":"ann@example.com","password":"wrong one"}"#;
    for _ in 0..10 {
        assert_eq!(
            world.call(Method::POST, "/login", None, guess).await.status,
            401
        );
    }
    let slow = world.call(Method::POST, "/login", None, guess).await;
    assert_eq!(
        (slow.status.as_u16(), &slow.headers["retry-after"]),
        (429, &"300".parse().unwrap())
    );
}

#[tokio::test]
async fn the_same_request_under_one_key_gets_the_same_answer() {
    let world = World::new();
    let (_, key) = world.signed_up("ann@example.com").await;
    let send = async |name: &str, body: &str| {
        let request = Request::post("/projects")
            .header("authorization", format!("Bearer {key}"))
            .header("idempotency-key", name)
            .body(Body::from(body.to_owned()))
            .unwrap();
        world.send(request).await
    };
    let first = send("one", r#"{"name":"Shop"}"#).await;
    let again = send("one", r#"{"name":"Shop"}"#).await;
    assert_eq!((first.status.as_u16(), &first.text), (201, &again.text));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["content-type"], "application/json");
    let other = send("one", r#"{"name":"Blog"}"#).await;
    assert_eq!(
        (other.status.as_u16(), &other.json["code"]),
        (409, &json!("conflict"))
    );
    assert_ne!(send("two", r#"{"name":"Shop"}"#).await.text, first.text);
    assert_eq!(send(&"x".repeat(256), "{}").await.status, 400);
    assert_eq!(world.get("/projects", &key).await.json["count"], 3);
    for body in ["{}", "{ }"] {
        let stranger = Request::post("/projects")
            .header("idempotency-key", "one")
            .body(Body::from(body))
            .unwrap();
        assert_eq!(world.send(stranger).await.status, 401, "{body}");
    }
    let refused = send("bad", "{").await;
    assert_eq!(refused.text, send("bad", "{").await.text);
}
