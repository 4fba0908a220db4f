//! Redis from end to end: what a newcomer does, what holds for tenants, what survives.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use end_to_end::{Account, Product, REACTORS};
use serde_json::{Value, json};

const ENGINES: [&str; 2] = ["--engines", "postgresql,redis"];

/// Runs redis-cli with a connection string as the API shows it. It prints errors as it does values.
struct Client {
    url: String,
    ca_cert: PathBuf,
}

impl Client {
    fn of(product: &Product, connection: &Value) -> Result<Self> {
        let url = connection["connection_string"].as_str();
        Ok(Self {
            url: url.context("no connection string")?.to_owned(),
            ca_cert: product.ready["ca_cert"]
                .as_str()
                .context("no authority")?
                .into(),
        })
    }

    fn with_password(&self, password: &str) -> Self {
        let (head, rest) = self.url.rsplit_once('@').unwrap_or_default();
        let (user, _) = head.rsplit_once(':').unwrap_or_default();
        Self {
            url: format!("{user}:{password}@{rest}"),
            ca_cert: self.ca_cert.clone(),
        }
    }

    fn say(&self, words: &str) -> Result<String> {
        let output = Command::new("redis-cli")
            .args(["--no-auth-warning", "-u", &self.url, "--cacert"])
            .arg(&self.ca_cert)
            .args(words.split(' '))
            .output()
            .context("cannot run redis-cli")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = text + &String::from_utf8_lossy(&output.stderr);
        Ok(text.trim().replace('\n', " "))
    }

    #[track_caller]
    fn check(&self, words: &str, expected: &str) {
        let said = self.say(words).unwrap();
        assert!(said.contains(expected), "{words}: {said}");
    }
}

fn workspace(account: &Account<'_>, name: &str, mode: &str) -> Result<Value> {
    let body = json!({"name": name, "database": "Redis", "mode": mode});
    account.ok("POST", "/workspaces", Some(&body))
}

/// Makes a tenant with a database of each blueprint; gives the databases.
fn tenant(account: &Account<'_>, id: &str, blueprints: &[&str]) -> Result<Vec<Value>> {
    let databases: Vec<_> = blueprints
        .iter()
        .map(|it| json!({"blueprint": it, "isolation_level": 1}))
        .collect();
    let body = json!({"tenant_id": id, "databases": databases});
    let made = account.ok("POST", "/tenants", Some(&body))?;
    Ok(made["databases"].as_array().context("databases")?.clone())
}

#[test]
fn a_newcomer_gets_there() -> Result<()> {
    for reactor in REACTORS {
        let product = Product::start(&[&ENGINES[..], &["--reactor", reactor]].concat())?;
        let account = product.sign_up("ann@example.com")?;
        let shop = account.workspace("shop", "tenant")?;
        shop.psql("CREATE TABLE products (id SERIAL PRIMARY KEY)")?;
        let made = workspace(&account, "cache", "tenant")?;
        assert_eq!(
            (
                &made["database"],
                &made["blueprint"],
                &made["connection"]["database"]
            ),
            (&json!("Redis"), &json!("cache"), &json!("0"))
        );
        let url = made["connection_string"].as_str().context("no string")?;
        assert!(url.starts_with("rediss://cache:tdb_"), "{url}");
        let own = Client::of(&product, &made)?;
        own.check("SET greeting hello", "OK");
        let by_role = made["connection_string"].as_str().unwrap_or_default();
        let only = json!({"connection_string": by_role.replace("//cache:", "//workspace:")});
        Client::of(&product, &only)?.check("GET greeting", "hello");

        let databases = tenant(&account, "acme", &["shop", "cache"])?;
        let engines: Vec<_> = databases.iter().map(|it| &it["database_type"]).collect();
        assert_eq!(engines, ["PostgreSQL", "Redis"]);
        let acme = Client::of(&product, &databases[1]["connection"])?;
        let databases = tenant(&account, "globex", &["cache"])?;
        let globex = Client::of(&product, &databases[0]["connection"])?;
        assert!(acme.url.contains("//acme:"), "{}", acme.url);
        acme.check("SET secret 1", "OK");
        acme.with_password(&account.key).check("GET secret", "1");
        acme.with_password("tdb_0000000000000000")
            .check("GET secret", "WRONGPASS");
        globex.check("DBSIZE", "0");
        globex.check("KEYS *", "");
        globex.check("SET secret 2", "OK");
        acme.check("GET secret", "1");
        acme.check("KEYS *", "secret");
        acme.check("EVAL return{redis.call('GET',KEYS[1])} 1 secret", "1");
        acme.check("FLUSHALL", "OK");
        globex.check("GET secret", "2");
        for refused in [
            "CONFIG GET *",
            "SHUTDOWN",
            "REPLICAOF a 1",
            "MOVE secret 2",
            "SCRIPT FLUSH",
        ] {
            acme.check(refused, "NOPERM");
        }
    }
    Ok(())
}

#[test]
fn settings_reach_tenants_with_a_deployment() -> Result<()> {
    let product = Product::start(&ENGINES)?;
    let account = product.sign_up("ann@example.com")?;
    let own = Client::of(&product, &workspace(&account, "cache", "tenant")?)?;
    let databases = tenant(&account, "acme", &["cache"])?;
    let acme = Client::of(&product, &databases[0]["connection"])?;
    let path = "/workspaces/cache/settings";
    let shown = account.ok("GET", path, None)?;
    assert_eq!(
        (&shown["settings"], &shown["available_fields"]),
        (
            &json!({"default_ttl": 0, "max_keys": 0, "patterns": {}}),
            &json!(["default_ttl", "max_keys", "patterns"])
        )
    );
    for (wrong, why) in [
        (json!({"default_ttl": -1}), "default_ttl"),
        (json!({"max_keys": "9"}), "max_keys"),
        (
            json!({"patterns": {"a": {"ttl": 1, "size": 2}}}),
            "patterns",
        ),
        (json!({"max_connections": 5}), "max_connections"),
    ] {
        let refused = account.call("POST", path, Some(&wrong))?;
        assert_eq!(refused["http_status"], 400, "{refused}");
        assert!(
            refused["error"].as_str().unwrap_or_default().contains(why),
            "{refused}"
        );
    }
    let settings =
        json!({"default_ttl": 1000, "max_keys": 3, "patterns": {"session:*": {"ttl": 50}}});
    let saved = account.ok("POST", path, Some(&settings))?;
    assert_eq!(
        (
            &saved["settings"],
            &saved["pending_deploy"],
            &saved["message"]
        ),
        (
            &settings,
            &json!(true),
            &json!("Settings saved. Deploy to apply to tenants.")
        )
    );
    let ttl = |client: &Client, key: &str| -> Result<i64> {
        client.check(&format!("SET {key} 1"), "OK");
        Ok(client.say(&format!("TTL {key}"))?.parse()?)
    };
    assert!(ttl(&own, "a")? > 900, "at once for the workspace itself");
    assert_eq!(ttl(&acme, "a")?, -1, "not yet for tenants");
    assert_eq!(account.deploy("cache")?["status"], "completed");
    assert!(ttl(&acme, "b")? > 900);
    let session = ttl(&acme, "session:1")?;
    assert!((1..=50).contains(&session), "{session}");
    acme.check("SET fourth 1", "OOM");
    acme.check("DBSIZE", "3");

    let control = Client::of(&product, &workspace(&account, "queue", "control")?)?;
    let saved = account.ok(
        "POST",
        "/workspaces/queue/settings",
        Some(&json!({"default_ttl": 1000})),
    )?;
    assert_eq!(
        (&saved["message"], &saved["pending_deploy"]),
        (&json!("Settings saved."), &json!(false))
    );
    assert!(ttl(&control, "a")? > 900);

    // What has no meaning without a schema.
    for (method, path) in [
        ("GET", "/workspaces/cache/schema"),
        ("POST", "/workspaces/cache/schema"),
    ] {
        let body = (method == "POST").then(|| json!({"source": "template", "template": "blog"}));
        let refused = account.call(method, path, body.as_ref())?;
        assert_eq!(refused["http_status"], 400, "{refused}");
        assert!(
            refused["error"]
                .as_str()
                .unwrap_or_default()
                .contains("no schema"),
            "{refused}"
        );
    }
    assert_eq!(
        account.ok("GET", "/workspaces/cache/diff", None)?["count"],
        0
    );
    let blueprint = account.ok("GET", "/blueprints/cache", None)?;
    assert_eq!(
        (&blueprint["database"], &blueprint["current_version"]),
        (&json!("redis"), &json!(1))
    );
    Ok(())
}

#[test]
fn queries_by_rest_are_commands() -> Result<()> {
    let product = Product::start(&ENGINES)?;
    let account = product.sign_up("ann@example.com")?;
    workspace(&account, "cache", "tenant")?;
    tenant(&account, "acme", &["cache"])?;
    tenant(&account, "globex", &["cache"])?;
    let query = json!({"query": "SET greeting \"hello \\\"world\\\"\"\nGET greeting\nHSET h a 1 b 2\nHGETALL h"});
    let answer = account.ok("POST", "/workspaces/cache/queries", Some(&query))?;
    assert_eq!(
        (&answer["columns"], &answer["rows"], &answer["row_count"]),
        (
            &json!(["key", "value"]),
            &json!([["a", "1"], ["b", "2"]]),
            &json!(2)
        )
    );
    assert_eq!(answer["results"][1]["rows"], json!([["hello \"world\""]]));
    let ask = |tenant: &str, query: &str| {
        let body = json!({"blueprint": "cache", "tenant_id": tenant, "query": query});
        account.call("POST", "/admin/query", Some(&body))
    };
    assert_eq!(ask("acme", "RPUSH l 1 2 3")?["rows"], json!([[3]]));
    assert_eq!(
        ask("acme", "LRANGE l 0 -1")?["rows"],
        json!([["1"], ["2"], ["3"]])
    );
    assert_eq!(ask("globex", "EXISTS l")?["rows"], json!([[0]]));
    let refused = ask("acme", "INCR l")?;
    assert_eq!(
        (&refused["http_status"], &refused["engine_code"]),
        (&json!(400), &json!("WRONGTYPE"))
    );
    let refused = ask("acme", "GET \"l")?;
    assert_eq!(refused["error"], "Field 'query': line 1: unbalanced quotes");
    assert_eq!(ask("acme", "SUBSCRIBE a")?["http_status"], 400);
    let all = json!({"blueprint": "cache", "all_tenants": true, "query": "DBSIZE"});
    let all = account.ok("POST", "/admin/query", Some(&all))?;
    let sizes: Vec<_> = all["results"]
        .as_array()
        .context("results")?
        .iter()
        .map(|it| (&it["tenant_id"], &it["rows"]))
        .collect();
    assert_eq!(
        sizes,
        [
            (&json!("acme"), &json!([[1]])),
            (&json!("globex"), &json!([[0]]))
        ]
    );

    // A key that may only read.
    let reader = json!({"name": "reader", "role": "read"});
    let reader = account.ok("POST", "/apikeys", Some(&reader))?;
    let reader = reader["key"].as_str().context("key")?;
    let body = json!({"blueprint": "cache", "tenant_id": "acme", "query": "SET a 1"});
    let refused = product.call("POST", "/admin/query", Some(reader), Some(&body))?;
    assert_eq!(refused["http_status"], 403, "{refused}");
    let body = json!({"blueprint": "cache", "tenant_id": "acme", "query": "LLEN l"});
    let passed = product.call("POST", "/admin/query", Some(reader), Some(&body))?;
    assert_eq!(passed["rows"], json!([[3]]));

    let logs = account.ok("GET", "/tenants/acme/logs", None)?;
    let logs = logs["logs"].as_array().context("logs")?;
    let find = |text: &str| logs.iter().find(|it| it["query"].as_str() == Some(text));
    let pushed = find("RPUSH l").with_context(|| format!("{logs:?}"))?;
    assert_eq!(
        (&pushed["source"], &pushed["success"]),
        (&json!("api"), &json!(true))
    );
    assert!(product.metrics()?.contains("redis"));
    Ok(())
}

#[test]
fn a_tenant_lives_and_dies() -> Result<()> {
    let product = Product::start(&ENGINES)?;
    let account = product.sign_up("ann@example.com")?;
    workspace(&account, "cache", "tenant")?;
    let databases = tenant(&account, "acme", &["cache"])?;
    let acme = Client::of(&product, &databases[0]["connection"])?;
    acme.check("SET kept 1", "OK");
    account.ok("POST", "/tenants/acme/suspend", None)?;
    acme.check("GET kept", "suspended");
    account.ok("POST", "/tenants/acme/resume", None)?;
    acme.check("GET kept", "1");
    account.ok("DELETE", "/tenants/acme", None)?;
    acme.check("GET kept", "WRONGPASS");
    account.ok("POST", "/tenants/acme/restore", None)?;
    acme.check("GET kept", "1");
    let refused = account.call("DELETE", "/workspaces/cache", None)?;
    assert_eq!(refused["http_status"], 409, "{refused}");
    account.ok("DELETE", "/tenants/acme?hard=true", None)?;
    acme.check("GET kept", "WRONGPASS");
    let databases = tenant(&account, "acme", &["cache"])?;
    let acme = Client::of(&product, &databases[0]["connection"])?;
    acme.check("DBSIZE", "0");
    account.ok("DELETE", "/tenants/acme?hard=true", None)?;
    account.ok("DELETE", "/workspaces/cache", None)?;
    Ok(())
}

#[test]
fn everything_is_there_after_a_stop_and_after_a_crash() -> Result<()> {
    let mut product = Product::start(&ENGINES)?;
    let (key, databases) = {
        let account = product.sign_up("ann@example.com")?;
        workspace(&account, "cache", "tenant")?;
        (account.key.clone(), tenant(&account, "acme", &["cache"])?)
    };
    Client::of(&product, &databases[0]["connection"])?.check("SET kept 1", "OK");
    for crash in [false, true] {
        if crash {
            product.kill()?;
        } else {
            product.stop()?;
        }
        product.start_again()?;
        let path = "/admin/query";
        let body = json!({"blueprint": "cache", "tenant_id": "acme", "query": "INCR kept"});
        let answer = product.call("POST", path, Some(&key), Some(&body))?;
        let expected = if crash { 3 } else { 2 };
        assert_eq!(answer["rows"], json!([[expected]]), "{answer}");
    }
    Ok(())
}

#[test]
fn an_engine_that_is_missing_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = |engines: &[&str]| {
        Command::new(end_to_end::binary())
            .args(["up", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(["--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(engines)
            .env("PATH", "")
            .output()
    };
    let asked = run(&["--engines", "redis", "--redis", "127.0.0.1:0"])?;
    let told = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(!asked.status.success());
    assert!(
        told.contains("redis-server was not found: install it"),
        "{told}"
    );
    // Nothing is asked for by name but its port.
    let port = run(&["--redis", "127.0.0.1:0"])?;
    let told = String::from_utf8_lossy(&port.stderr).into_owned();
    assert!(!port.status.success());
    assert!(
        told.contains("Redis is left out") && told.contains("--engines"),
        "{told}"
    );
    Ok(())
}

#[test]
fn an_engine_that_is_not_asked_for_is_not_served() -> Result<()> {
    let product = Product::start(&[])?;
    assert_eq!(product.ready["redis"], Value::Null);
    let account = product.sign_up("ann@example.com")?;
    let body = json!({"name": "cache", "database": "Redis", "mode": "tenant"});
    let refused = account.call("POST", "/workspaces", Some(&body))?;
    assert_eq!(refused["http_status"], 409, "{refused}");
    Ok(())
}
