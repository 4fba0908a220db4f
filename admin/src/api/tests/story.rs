//! From a workspace to its tenants, as a client tells it.

use control_store::fault::DDL_REFUSED;
use control_store::ids::ProjectId;
use control_store::workspaces::NewChange;
use serde_json::json;

use super::harness::World;
use super::peer::{done, error, row};

fn script(sql: &str) -> Vec<u8> {
    match sql {
        "BEGIN" | "COMMIT" => done(sql),
        "boom" => error("42601", "syntax error at or near \"boom\""),
        sql if sql.contains("forbidden") => error("42501", "permission denied for table users"),
        sql if sql.contains("nonsense") => error("42704", "type \"nonsense\" does not exist"),
        sql if sql.contains("VIEW public.there") => {
            error("42P07", "relation \"there\" already exists")
        }
        "CREATE TABLE t ()" => error("42501", DDL_REFUSED),
        "INSERT" => done("INSERT 0 2"),
        "two" => [done("INSERT 0 2"), row(&["id"], &["7"])].concat(),
        sql if sql.starts_with("SET LOCAL") => done("SET"),
        sql if sql.starts_with("DROP TABLE") => done("DROP TABLE"),
        _ => row(&["id", "name"], &["1", "Alice"]),
    }
}

/// A workspace `shop` whose database has recorded these statements.
async fn shop(world: &World, statements: &[&str]) -> (ProjectId, String) {
    let (project, key) = world.signed_up("ann@example.com").await;
    let made = world
        .post(
            "/workspaces",
            &key,
            r#"{"name":"shop","database":"postgres","mode":"TENANT"}"#,
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let project = ProjectId::new(project);
    let changes: Vec<_> = (1..)
        .zip(statements)
        .map(|(position, statement)| NewChange {
            position,
            statement: (*statement).to_owned(),
            search_path: "\"$user\", public".into(),
            at_us: 0,
        })
        .collect();
    world
        .store
        .record_changes(&project, "shop", &changes)
        .unwrap();
    (project, key)
}

#[tokio::test]
async fn workspaces_are_made_shown_and_deleted() {
    let world = World::new();
    let (project, key) = shop(&world, &["CREATE TABLE users (id int)"]).await;
    let shown = world.get("/workspaces/shop", &key).await;
    assert_eq!(shown.json["undeployed_changes"], 1);
    assert_eq!(shown.json["schema"], json!(["CREATE TABLE users (id int)"]));
    assert_eq!(
        shown.json["connection_string"],
        format!(
            "postgresql://{project}:••••••••@pg.example.com:5432/shop_workspace?sslmode=require"
        )
    );
    let again = world
        .post(
            "/workspaces",
            &key,
            r#"{"name":"shop","database":"PostgreSQL"}"#,
        )
        .await;
    assert_eq!(
        (again.status.as_u16(), &again.json["error"]),
        (409, &json!("Workspace already exists: shop"))
    );
    for (body, names) in [
        (r#"{"name":"Shop","database":"postgres"}"#, "name"),
        (r#"{"name":"a__b","database":"postgres"}"#, "name"),
        (r#"{"name":"a","database":"oracle"}"#, "database"),
        (r#"{"name":"a","database":"postgres","mode":"x"}"#, "mode"),
        (r#"{"name":"a"}"#, "database"),
    ] {
        let refused = world.post("/workspaces", &key, body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(
            refused.json["error"].as_str().unwrap().contains(names),
            "{}",
            refused.text
        );
    }
    let elsewhere = world
        .post("/workspaces", &key, r#"{"name":"a","database":"mysql"}"#)
        .await;
    assert_eq!(elsewhere.json["error"], "MySQL is not available here");

    let control = world
        .post(
            "/workspaces",
            &key,
            r#"{"name":"admin","database":"postgres","mode":"control"}"#,
        )
        .await;
    assert_eq!(control.json.get("blueprint"), None);
    let shown = world.get("/workspaces/admin", &key).await;
    assert_eq!(
        shown.json["schema"],
        json!(["CREATE TABLE users (id SERIAL NOT NULL, name TEXT NOT NULL)"])
    );
    assert_eq!(
        (
            shown.json.get("version"),
            shown.json.get("undeployed_changes")
        ),
        (None, None)
    );
    assert_eq!(world.get("/workspaces/admin/diff", &key).await.status, 400);
    let tenant = r#"{"tenant_id":"acme","databases":[{"blueprint":"admin"}]}"#;
    assert_eq!(world.post("/tenants", &key, tenant).await.status, 400);

    world
        .post(
            "/tenants",
            &key,
            r#"{"tenant_id":"acme","databases":[{"blueprint":"shop"}]}"#,
        )
        .await;
    let kept = world.delete("/workspaces/shop", &key).await;
    assert_eq!(
        (kept.status.as_u16(), &kept.json["deployed_to"]),
        (409, &json!(["acme"]))
    );
    world.delete("/tenants/acme?hard=true", &key).await;
    let deleted = world.delete("/workspaces/shop", &key).await;
    assert_eq!(
        deleted.json["details"]["versions_deleted"], 1,
        "{}",
        deleted.text
    );
    assert_eq!(world.get("/workspaces/shop", &key).await.status, 404);
}

#[tokio::test]
async fn changes_wait_are_removed_and_reverted() {
    let world = World::new().with_proxy(script);
    let (project, key) = shop(
        &world,
        &[
            "CREATE TABLE users (id int)",
            "ALTER TABLE users ADD age int",
            "CREATE VIEW v AS SELECT 1",
        ],
    )
    .await;
    let diff = world.get("/workspaces/shop/diff", &key).await;
    assert_eq!(diff.json["count"], 3);
    let revertible: Vec<_> = (0..3)
        .map(|i| diff.json["changes"][i]["revertible"].clone())
        .collect();
    assert_eq!(revertible, [true, true, false]);

    let builds_on = world.post("/workspaces/shop/diff/1/revert", &key, "").await;
    assert_eq!(
        (builds_on.status.as_u16(), &builds_on.json["error"]),
        (
            409,
            &json!("DDL 2 builds on DDL 1: revert or remove it first")
        )
    );
    let removed = world.delete("/workspaces/shop/diff/2", &key).await;
    assert_eq!(removed.json["message"], "DDL 2 removed from deploy queue");
    let reverted = world.post("/workspaces/shop/diff/1/revert", &key, "").await;
    assert_eq!(
        reverted.json["message"], "Reverted: DROP TABLE IF EXISTS users;",
        "{}",
        reverted.text
    );
    for (path, status) in [("3/revert", 400), ("1/revert", 404), ("x/revert", 404)] {
        let answer = world
            .post(&format!("/workspaces/shop/diff/{path}"), &key, "")
            .await;
        assert_eq!(answer.status, status, "{path}");
    }
    world.store.cut_version(&project, "shop").unwrap();
    let late = world.post("/workspaces/shop/diff/3/revert", &key, "").await;
    assert_eq!(
        late.json["error"],
        "Cannot revert DDLs already deployed to tenants. Create a new migration instead."
    );
    assert_eq!(
        world.delete("/workspaces/shop/diff/3", &key).await.status,
        404
    );
}

#[tokio::test]
async fn queries_by_rest() {
    let world = World::new().with_proxy(script);
    let (_, key) = shop(&world, &[]).await;
    let ask = async |sql: &str| {
        let body = json!({ "query": sql }).to_string();
        world.post("/workspaces/shop/queries", &key, &body).await
    };
    let rows = ask("SELECT").await;
    assert_eq!(
        (&rows.json["columns"], &rows.json["rows"]),
        (&json!(["id", "name"]), &json!([[1, "Alice"]]))
    );
    assert_eq!(rows.json["row_count"], 1);
    assert!(
        rows.json["execution_time"]
            .as_str()
            .unwrap()
            .ends_with("ms")
    );
    assert_eq!(ask("INSERT").await.json["row_count"], 2);
    let two = ask("two").await;
    assert_eq!(
        (&two.json["rows"], &two.json["results"][0]["command"]),
        (&json!([[7]]), &json!("INSERT"))
    );
    let broken = ask("boom").await;
    assert_eq!(
        (broken.status.as_u16(), &broken.json["code"]),
        (400, &json!("bad_request"))
    );
    assert_eq!(
        (&broken.json["engine_code"], &broken.json["position"]),
        (&json!("42601"), &json!(8))
    );
    let denied = ask("forbidden").await;
    assert_eq!(
        (denied.status.as_u16(), &denied.json["code"]),
        (403, &json!("permission_denied"))
    );
    assert_eq!(ask(" ").await.status, 400);
    assert_eq!(ask("a\0b").await.status, 400);
}

#[tokio::test]
async fn the_admin_query_asks_one_or_all() {
    let world = World::new().with_proxy(script);
    let (_, key) = shop(&world, &[]).await;
    for tenant in ["acme", "globex", "off"] {
        let body = format!(r#"{{"tenant_id":"{tenant}","databases":[{{"blueprint":"shop"}}]}}"#);
        assert_eq!(world.post("/tenants", &key, &body).await.status, 201);
    }
    assert_eq!(
        world.post("/tenants/off/suspend", &key, "").await.status,
        200
    );
    let ask =
        async |body: serde_json::Value| world.post("/admin/query", &key, &body.to_string()).await;
    let one = ask(json!({ "blueprint": "shop", "query": "SELECT", "tenant_id": "acme" })).await;
    assert_eq!(
        (&one.json["tenant_id"], &one.json["rows"]),
        (&json!("acme"), &json!([[1, "Alice"]]))
    );
    let off = ask(json!({ "blueprint": "shop", "query": "SELECT", "tenant_id": "off" })).await;
    assert_eq!(off.status, 409);
    let all = ask(json!({ "blueprint": "shop", "query": "SELECT", "all_tenants": true })).await;
    assert_eq!(all.json["total_tenants"], 3);
    assert_eq!(all.json["results"][0]["row_count"], 1);
    assert!(
        all.json["results"][2]["error"]
            .as_str()
            .unwrap()
            .contains("suspended")
    );
    for target in [
        json!({ "tenant_id": "acme" }),
        json!({ "all_tenants": true }),
    ] {
        let mut body = json!({ "blueprint": "shop", "query": "CREATE TABLE t ()" });
        body.as_object_mut()
            .unwrap()
            .extend(target.as_object().unwrap().clone());
        let ddl = ask(body).await;
        assert_eq!(
            (ddl.status.as_u16(), ddl.json["error"].as_str()),
            (400, Some(DDL_REFUSED))
        );
    }
    for (body, status) in [
        (json!({ "blueprint": "shop", "query": "SELECT" }), 400),
        (
            json!({ "blueprint": "shop", "query": "SELECT", "tenant_id": "acme", "all_tenants": true }),
            400,
        ),
        (
            json!({ "blueprint": "none", "query": "SELECT", "all_tenants": true }),
            404,
        ),
        (
            json!({ "blueprint": "shop", "query": "SELECT", "tenant_id": "none" }),
            404,
        ),
    ] {
        assert_eq!(ask(body.clone()).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn a_tenants_life() {
    let world = World::new();
    let (_, key) = shop(&world, &["CREATE TABLE users (id int)"]).await;
    let body = r#"{"tenant_id":"acme","databases":[{"blueprint":"shop","isolation_level":"L1"}]}"#;
    assert_eq!(world.post("/tenants", &key, body).await.status, 201);
    assert_eq!(world.post("/tenants", &key, body).await.status, 409);
    let shown = world.get("/tenants/acme", &key).await;
    assert_eq!(shown.json["databases"][0]["isolation_level"], "L1");
    assert_eq!(
        shown.json["databases"][0]["connection"]["database"],
        "shop__acme"
    );
    let steps = [
        ("resume", 409),
        ("suspend", 200),
        ("suspend", 409),
        ("restore", 409),
        ("resume", 200),
        ("recover-undo", 403),
        ("backup", 409),
    ];
    for (step, status) in steps {
        let answer = world.post(&format!("/tenants/acme/{step}"), &key, "").await;
        assert_eq!(answer.status, status, "{step} {}", answer.text);
    }
    assert_eq!(
        world.delete("/tenants/acme", &key).await.json["status"],
        "deleted"
    );
    assert_eq!(
        world.get("/tenants/acme", &key).await.json["status"],
        "deleted"
    );
    assert_eq!(world.get("/tenants", &key).await.json["count"], 0);
    assert_eq!(
        world.get("/tenants?status=deleted", &key).await.json["count"],
        1
    );
    let trash = world.post("/tenants", &key, body).await;
    assert_eq!(
        trash.json["error"],
        "Tenant 'acme' is in trash. Use POST /tenants/acme/restore or DELETE /tenants/acme?hard=true"
    );
    assert_eq!(
        world.post("/tenants/acme/restore", &key, "").await.json["tenant"]["status"],
        "ready"
    );
    assert_eq!(
        world.delete("/tenants/acme?hard=true", &key).await.status,
        200
    );
    assert_eq!(
        world.get("/tenants/acme", &key).await.json["error"],
        "Tenant not found: acme"
    );
    for (body, names) in [
        (
            r#"{"tenant_id":"A","databases":[{"blueprint":"shop"}]}"#,
            "tenant_id",
        ),
        (r#"{"tenant_id":"a","databases":[]}"#, "databases"),
        (
            r#"{"tenant_id":"a","databases":[{"blueprint":"shop","isolation_level":3}]}"#,
            "isolation_level",
        ),
        (
            r#"{"tenant_id":"a","databases":[{"blueprint":"shop","region":"moon"}]}"#,
            "region",
        ),
        (
            r#"{"tenant_id":"a","databases":[{"blueprint":"shop"},{"blueprint":"shop"}]}"#,
            "databases[1].blueprint",
        ),
    ] {
        let refused = world.post("/tenants", &key, body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(
            refused.json["error"].as_str().unwrap().contains(names),
            "{}",
            refused.text
        );
    }
}

#[tokio::test]
async fn tiers_bound_tenants_and_dedicated_servers() {
    let world = World::with(|config| {
        config.signup_tier = "free".into();
        config.tiers.get_mut("free").unwrap().tenants = Some(1);
    });
    let (_, key) = shop(&world, &[]).await;
    let tenant = |id: &str, level: u8| {
        format!(
            r#"{{"tenant_id":"{id}","databases":[{{"blueprint":"shop","isolation_level":{level}}}]}}"#
        )
    };
    let dedicated = world.post("/tenants", &key, &tenant("a", 2)).await;
    assert_eq!(
        (dedicated.status.as_u16(), &dedicated.json["code"]),
        (403, &json!("forbidden"))
    );
    assert_eq!(
        world.post("/tenants", &key, &tenant("a", 1)).await.status,
        201
    );
    let second = world.post("/tenants", &key, &tenant("b", 1)).await;
    assert_eq!(
        (second.status.as_u16(), &second.json["code"]),
        (403, &json!("forbidden"))
    );
}

#[tokio::test]
async fn a_narrow_key_sees_its_part_alone() {
    let world = World::new().with_proxy(script);
    let (_, key) = shop(&world, &[]).await;
    world
        .post(
            "/workspaces",
            &key,
            r#"{"name":"blog","database":"postgres"}"#,
        )
        .await;
    for (tenant, blueprint) in [("acme", "shop"), ("globex", "blog")] {
        let body =
            format!(r#"{{"tenant_id":"{tenant}","databases":[{{"blueprint":"{blueprint}"}}]}}"#);
        world.post("/tenants", &key, &body).await;
    }
    let narrow = async |body: &str| {
        let made = world.post("/apikeys", &key, body).await;
        made.json["key"].as_str().unwrap().to_owned()
    };
    let acme = narrow(r#"{"role":"read","scope_type":"tenant","scope_values":["acme"]}"#).await;
    let shop = narrow(r#"{"role":"admin","scope_type":"workspace","scope_values":["shop"]}"#).await;
    for (key, path, status) in [
        (&acme, "/tenants/acme", 200),
        (&acme, "/tenants/acme/logs", 200),
        (&acme, "/tenants/globex", 403),
        (&acme, "/tenants/nobody", 403),
        (&acme, "/workspaces/shop", 403),
        (&acme, "/projects", 403),
        (&shop, "/workspaces/shop", 200),
        (&shop, "/workspaces/blog", 403),
        (&shop, "/blueprints/blog", 403),
        (&shop, "/tenants/acme", 200),
        (&shop, "/tenants/globex", 403),
    ] {
        let answer = world.get(path, key).await;
        assert_eq!(answer.status, status, "{path} {}", answer.text);
    }
    for key in [&acme, &shop] {
        assert_eq!(world.get("/tenants", key).await.json["count"], 1);
    }
    assert_eq!(world.get("/workspaces", &acme).await.json["count"], 0);
    assert_eq!(world.get("/blueprints", &shop).await.json["count"], 1);
    let suspend = world.post("/tenants/acme/suspend", &acme, "").await;
    assert_eq!(suspend.json["code"], "role_required");
    assert_eq!(
        world.post("/tenants/globex/suspend", &shop, "").await.json["code"],
        "scope_denied"
    );
    assert_eq!(
        world.post("/tenants/acme/suspend", &shop, "").await.status,
        200
    );
}

#[tokio::test]
async fn another_project_sees_nothing() {
    let world = World::new();
    let (_, key) = shop(&world, &[]).await;
    world
        .post(
            "/tenants",
            &key,
            r#"{"tenant_id":"acme","databases":[{"blueprint":"shop"}]}"#,
        )
        .await;
    let deployment = world
        .post("/deployments", &key, r#"{"blueprint_name":"shop"}"#)
        .await;
    assert_eq!(deployment.status, 201, "{}", deployment.text);
    let (_, stranger) = world.signed_up("bob@example.com").await;
    for path in [
        "/tenants/acme",
        "/tenants/acme/logs",
        "/workspaces/shop",
        "/blueprints/shop",
    ] {
        assert_eq!(world.get(path, &stranger).await.status, 404, "{path}");
    }
    let id = deployment.json["id"].as_str().unwrap();
    assert_eq!(
        world
            .get(&format!("/deployments/{id}"), &stranger)
            .await
            .status,
        404
    );
    for path in ["/tenants", "/workspaces", "/blueprints", "/deployments"] {
        assert_eq!(world.get(path, &stranger).await.json["count"], 0, "{path}");
    }
}

#[tokio::test]
async fn settings_are_changed_in_part() {
    let world = World::new();
    let (_, key) = shop(&world, &[]).await;
    let saved = world
        .post(
            "/workspaces/shop/settings",
            &key,
            r#"{"max_connections":7}"#,
        )
        .await;
    assert_eq!(saved.json["settings"]["max_connections"], 7);
    assert_eq!(
        (&saved.json["message"], &saved.json["pending_deploy"]),
        (
            &json!("Settings saved. Deploy to apply to tenants."),
            &json!(true)
        )
    );
    let shown = world.get("/workspaces/shop/settings", &key).await;
    assert_eq!(
        shown.json["settings"],
        json!({ "query_timeout_ms": 30000, "max_rows_per_query": 10000, "max_connections": 7 })
    );
    let refused = world
        .post(
            "/workspaces/shop/settings",
            &key,
            r#"{"max_connections":0}"#,
        )
        .await;
    assert_eq!(refused.status, 400);
}

fn elsewhere(host: &str, database: &str) -> serde_json::Value {
    json!({ "source": "database", "connection": {
        "type": "postgresql", "host": host, "port": 5432, "database": database, "user": "admin", "password": "secret"
    } })
}

#[tokio::test]
async fn schemas_are_imported_and_what_is_there_is_skipped() {
    let world = World::with(|config| {
        config.import_networks = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .with_proxy(script);
    let (_, key) = shop(&world, &[]).await;
    let import = async |body: serde_json::Value| {
        world
            .post("/workspaces/shop/schema", &key, &body.to_string())
            .await
    };
    // The workspace has a table `users`.
    let blog = import(json!({ "source": "template", "template": "blog" })).await;
    assert_eq!(blog.status, 200, "{}", blog.text);
    assert_eq!(blog.json["skipped"], json!(["users"]));
    assert_eq!(
        blog.json["created"],
        json!(["categories", "posts", "tags", "post_tags", "comments"])
    );
    assert_eq!(
        blog.json["details"]["statements_skipped"], 2,
        "the table and its index"
    );
    let broken = import(json!({ "source": "json", "tables": [
        { "name": "t", "columns": [{ "name": "a", "type": "forbidden" }], "indexes": [{ "name": "i", "columns": ["a"] }] }
    ] }))
    .await;
    assert_eq!(
        broken.json["errors"],
        json!(["t: permission denied for table users"]),
        "{}",
        broken.text
    );
    assert_eq!(broken.json["details"]["statements_failed"], 1);
    assert_eq!(broken.json["details"]["statements_skipped"], 1);
    let dump = import(elsewhere("192.0.2.1", "mydb")).await;
    assert_eq!(dump.status, 200, "{}", dump.text);
    assert_eq!(dump.json["created"], json!(["accounts"]));
    assert_eq!(dump.json["skipped"], json!(["users", "there"]));
    assert_eq!(
        dump.json["errors"],
        json!(["broken: type \"nonsense\" does not exist"])
    );
    assert_eq!(
        dump.json["details"],
        json!({
            "workspace": "shop", "database_type": "PostgreSQL", "statements_executed": 2,
            "statements_skipped": 5, "statements_failed": 1, "statements_total": 8
        })
    );
    for (body, status, names) in [
        (json!({ "source": "template" }), 400, "template"),
        (
            json!({ "source": "template", "template": "zoo" }),
            400,
            "fintech",
        ),
        (json!({ "source": "json" }), 400, "tables"),
        (
            json!({ "source": "json", "template": "blog" }),
            400,
            "template",
        ),
        (json!({ "source": "moon" }), 400, "source"),
        (json!({ "source": "url" }), 400, "'url' is required"),
        (
            json!({ "source": "url", "url": "http://127.0.0.1/schema.json" }),
            400,
            "not on the public Internet",
        ),
        (
            json!({ "source": "database" }),
            400,
            "'connection' is required",
        ),
        (
            elsewhere("10.0.0.1", "mydb"),
            400,
            "not on the public Internet",
        ),
        (elsewhere("192.0.2.1", "none"), 400, "cannot be read"),
        (elsewhere("", "mydb"), 400, "connection.host"),
        (
            json!({ "source": "database", "connection":
                { "host": "192.0.2.1", "database": "mydb", "user": "a", "type": "mysql" } }),
            400,
            "connection.type",
        ),
        (
            json!({ "source": "database", "connection":
                { "host": "192.0.2.1", "database": "mydb", "user": "a", "sslmode": "maybe" } }),
            400,
            "connection.sslmode",
        ),
        (
            json!({ "source": "database", "connection": { "host": "192.0.2.1", "user": "a" } }),
            400,
            "connection.database",
        ),
    ] {
        let answer = import(body.clone()).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(
            answer.json["error"].as_str().unwrap().contains(names),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn deployments_are_planned_steered_and_listed_page_by_page() {
    let world = World::new();
    let (_, key) = shop(&world, &["CREATE TABLE users (id int)"]).await;
    for tenant in ["acme", "globex"] {
        let body = format!(r#"{{"tenant_id":"{tenant}","databases":[{{"blueprint":"shop"}}]}}"#);
        let made = world.post("/tenants", &key, &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let begin = async |more: &str| {
        let body = format!(r#"{{"blueprint_name":"shop"{more}}}"#);
        world.post("/deployments", &key, &body).await
    };
    let plan = begin(r#","dry_run":true,"canary":1"#).await;
    assert_eq!(plan.status, 200, "{}", plan.text);
    assert_eq!(
        (&plan.json["dry_run"], &plan.json["tenants"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(world.get("/deployments", &key).await.json["count"], 0);

    let begun = begin(r#","concurrency":2,"on_failure":"STOP""#).await;
    assert_eq!(begun.status, 201, "{}", begun.text);
    assert_eq!(begun.json["on_failure"], "stop");
    assert_eq!(begun.json["concurrency"], 2);
    assert_eq!(begun.json["tenants_completed"], 2);
    assert_eq!(begun.json["results"][0].get("step"), None, "it has ended");
    let id = begun.json["id"].as_str().unwrap();
    for action in ["pause", "resume", "cancel", "retry"] {
        let refused = world
            .post(&format!("/deployments/{id}/{action}"), &key, "")
            .await;
        assert_eq!(refused.status, 409, "{action}");
        assert_eq!(
            refused.json["error"],
            format!("Deployment '{id}' is completed")
        );
    }
    for (more, names) in [
        (r#","canary":0"#, "canary"),
        (r#","canary":1,"tenants":["acme"]"#, "only one of"),
        (r#","deploy_all":true,"canary":1"#, "only one of"),
        (r#","deploy_all":false"#, "is required"),
        (r#","concurrency":65"#, "concurrency"),
        (r#","on_failure":"panic""#, "on_failure"),
        (r#","tenants":[]"#, "at least one tenant"),
        (r#","batch":1"#, "Unknown field 'batch'"),
    ] {
        let refused = begin(more).await;
        assert_eq!(refused.status, 400, "{more}");
        assert!(
            refused.json["error"].as_str().unwrap().contains(names),
            "{}",
            refused.text
        );
    }
    for _ in 0..2 {
        begin("").await;
    }
    for path in ["/deployments", "/tenants/acme/deployments"] {
        let mut seen = std::collections::BTreeSet::new();
        let mut next = format!("{path}?limit=2");
        loop {
            let page = world.get(&next, &key).await;
            for it in page.json["deployments"].as_array().unwrap() {
                let id = it.get("id").or(it.get("deployment_id")).unwrap();
                assert!(
                    seen.insert(id.as_str().unwrap().to_owned()),
                    "{}",
                    page.text
                );
            }
            let Some(cursor) = page.json["next_cursor"].as_str() else {
                break;
            };
            next = format!("{path}?limit=2&cursor={cursor}");
        }
        assert_eq!(seen.len(), 3, "{path}");
    }
    let first = world.get("/tenants?limit=1", &key).await;
    assert_eq!(first.json["tenants"][0]["tenant_id"], "acme");
    let cursor = first.json["next_cursor"].as_str().unwrap();
    let second = world
        .get(&format!("/tenants?limit=1&cursor={cursor}"), &key)
        .await;
    assert_eq!(second.json["tenants"][0]["tenant_id"], "globex");
    assert_eq!(
        second.json["tenants"][0]["databases"][0]["blueprint"],
        "shop"
    );
    assert_eq!(second.json.get("next_cursor"), None);
}

#[tokio::test]
async fn every_list_comes_page_by_page_as_it_comes_whole() {
    let world = World::new();
    let (_, key) = shop(&world, &["CREATE TABLE a ()", "CREATE TABLE b ()"]).await;
    for name in ["blog", "news"] {
        let body = format!(r#"{{"name":"{name}","database":"PostgreSQL","mode":"tenant"}}"#);
        assert_eq!(world.post("/workspaces", &key, &body).await.status, 201);
        let made = world
            .post(
                "/projects",
                &key,
                &body.replace(r#","database":"PostgreSQL","mode":"tenant""#, ""),
            )
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!(world.post("/apikeys", &key, "{}").await.status, 201);
    }
    for id in ["acme", "globex", "initech"] {
        let body = format!(r#"{{"tenant_id":"{id}","databases":[{{"blueprint":"shop"}}]}}"#);
        assert_eq!(world.post("/tenants", &key, &body).await.status, 201);
    }
    let mut deployment = String::new();
    for timeout in [5, 6, 7] {
        let settings = format!(r#"{{"query_timeout_ms":{timeout}}}"#);
        world
            .post("/workspaces/shop/settings", &key, &settings)
            .await;
        let made = world
            .post("/deployments", &key, r#"{"blueprint_name":"shop"}"#)
            .await;
        deployment = made.json["id"].as_str().unwrap().to_owned();
    }
    for (path, list, mark) in [
        ("/projects", "projects", "project_id"),
        ("/apikeys", "api_keys", "id"),
        ("/workspaces", "workspaces", "id"),
        ("/blueprints", "blueprints", "name"),
        ("/blueprints/shop/versions", "versions", "version"),
        ("/tenants", "tenants", "tenant_id"),
        ("/tenants/acme/deployments", "deployments", "deployment_id"),
        ("/deployments", "deployments", "id"),
        (
            &format!("/deployments/{deployment}"),
            "results",
            "tenant_id",
        ),
        ("/audit", "entries", "id"),
    ] {
        let marks = |page: &serde_json::Value| -> Vec<_> {
            let items = page[list].as_array().unwrap().iter();
            items.map(|it| it[mark].clone()).collect()
        };
        let whole = world.get(path, &key).await;
        let whole = marks(&whole.json);
        assert!(whole.len() >= 3, "{path}: {whole:?}");
        let (mut seen, mut next) = (Vec::new(), format!("{path}?limit=1"));
        loop {
            let page = world.get(&next, &key).await;
            assert_eq!(page.status, 200, "{next}: {}", page.text);
            let items = marks(&page.json);
            assert_eq!(items.len(), 1, "{next}");
            seen.extend(items);
            match page.json["next_cursor"].as_str() {
                Some(cursor) => next = format!("{path}?limit=1&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(seen, whole, "{path}");
        let wrong = world.get(&format!("{path}?cursor=x"), &key).await;
        assert_eq!(wrong.status, 400, "{path}: {}", wrong.text);
    }
    let counted = world
        .get(&format!("/deployments/{deployment}?limit=1"), &key)
        .await;
    assert_eq!(counted.json["tenants_total"], 3, "not of the page alone");
}

#[tokio::test]
async fn the_log_says_what_a_crash_may_have_cost() {
    let world = World::new();
    let (_, key) = shop(&world, &[]).await;
    let body = r#"{"tenant_id":"acme","databases":[{"blueprint":"shop"}]}"#;
    assert_eq!(world.post("/tenants", &key, body).await.status, 201);
    let gap = json!([{"from": "2096-10-02T07:06:40.000Z", "until": "2096-10-02T07:06:49.000Z"}]);
    for path in [
        "logs",
        "logs?since=1h",
        "logs/stats",
        "logs/stats?since=1h",
        "metrics",
    ] {
        let told = world.get(&format!("/tenants/acme/{path}"), &key).await;
        assert_eq!(told.json["gaps"], gap, "{path}: {}", told.text);
    }
}
