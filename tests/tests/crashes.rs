//! `kill -9` in the middle of work: it is finished or undone at the next start.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use end_to_end::{Login, Product, find_program};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// Asks until the answer is what is waited for.
fn until(product: &Product, key: &str, path: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = product.call("GET", path, Some(key), None)?;
        if good(&now) {
            return Ok(now);
        }
        ensure!(Instant::now() < deadline, "{path}: {now}");
        sleep(Duration::from_millis(20));
    }
}

/// The same login where the product listens now.
fn now(login: &Login, product: &Product) -> Login {
    let (host, port) = product.postgres();
    Login {
        host,
        port,
        ..login.clone()
    }
}

#[test]
fn a_deployment_goes_on_where_it_was() -> Result<()> {
    let mut product = Product::start(&[])?;
    let (key, tenants, id) = {
        let account = product.sign_up("ann@example.com")?;
        let workspace = account.workspace("shop", "tenant")?;
        workspace.psql("CREATE TABLE t (a int)")?;
        let mut tenants = Vec::new();
        for tenant in ["acme", "busy", "globex"] {
            tenants.push(account.tenant(tenant, "shop", &workspace)?);
        }
        // One tenant's table is locked, so that the deployment cannot end before the crash.
        let mut holder = tenants[1]
            .command(find_program("psql"))
            .args(["-X", "-A", "-t", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut script = holder.stdin.take().context("stdin")?;
        script.write_all(b"BEGIN; UPDATE t SET a = 1; LOCK TABLE t; SELECT 'held';\n")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("stdout")?).read_line(&mut line)?;
        assert_eq!(line, "held\n");

        workspace.psql("ALTER TABLE t ADD COLUMN b int")?;
        let body = json!({"blueprint_name": "shop", "deploy_all": true});
        let begun = account.ok("POST", "/deployments", Some(&body))?;
        let id = begun["id"].as_str().context("id")?.to_owned();
        let path = format!("/deployments/{id}");
        until(&product, &account.key, &path, |it| {
            it["tenants_completed"] == 2
        })?;
        let key = account.key.clone();
        product.kill()?;
        drop(script);
        holder.wait()?;
        (key, tenants, id)
    };
    product.start_again()?;
    let ended = until(&product, &key, &format!("/deployments/{id}"), |it| {
        it["status"] != "in_progress"
    })?;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ended["tenants_completed"], 3);
    for tenant in &tenants {
        assert_eq!(now(tenant, &product).psql("SELECT count(b) FROM t")?, "0\n");
    }
    let workspace = product.call("GET", "/workspaces/shop", Some(&key), None)?;
    assert_eq!(workspace["undeployed_changes"], 0, "{workspace}");
    Ok(())
}

#[test]
fn a_tenant_is_made_or_was_never_there() -> Result<()> {
    let mut product = Product::start(&[])?;
    let (key, workspace) = {
        let account = product.sign_up("ann@example.com")?;
        let workspace = account.workspace("shop", "tenant")?;
        workspace.psql("CREATE TABLE t (a int)")?;
        (account.key.clone(), workspace)
    };
    for (tenant, after) in [("a", 30), ("b", 120), ("c", 400)] {
        let body = json!({"tenant_id": tenant, "databases": [{"blueprint": "shop", "isolation_level": 1}]});
        let url = format!("{}/tenants", product.ready["api"].as_str().context("api")?);
        let (authorization, text) = (format!("Bearer {key}"), body.to_string());
        let asking = spawn(move || {
            ureq::post(&url)
                .header("authorization", authorization)
                .header("content-type", "application/json")
                .send(text)
                .map(drop)
        });
        sleep(Duration::from_millis(after));
        product.kill()?;
        let answered = asking.join().is_ok_and(|it| it.is_ok());
        product.start_again()?;
        let path = format!("/tenants/{tenant}");
        let found = product.call("GET", &path, Some(&key), None)?;
        if found["http_status"] == 404 {
            assert!(!answered, "{tenant} was acknowledged");
            let made = product.call("POST", "/tenants", Some(&key), Some(&body))?;
            assert_eq!(made["status"], "ready", "{made}");
        } else {
            assert_eq!(found["status"], "ready", "{found}");
        }
        let login = Login {
            database: format!("shop__{tenant}"),
            ..now(&workspace, &product)
        };
        assert_eq!(login.psql("SELECT count(*) FROM t")?, "0\n");
    }
    Ok(())
}
