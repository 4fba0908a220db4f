//! What a newcomer does in the first five minutes, and what an operator does to the process.

use anyhow::{Context as _, Result};
use end_to_end::{Product, REACTORS, binary};
use rustix::process::Signal;
use serde_json::json;

const DDL_REFUSED: &str = "DDL not allowed on tenant databases. Deploy schema through blueprints.";

#[test]
fn a_newcomer_gets_there() -> Result<()> {
    for reactor in REACTORS {
        let product = Product::start(&["--reactor", reactor])?;
        let account = product.sign_up("ann@example.com")?;
        let workspace = account.workspace("shop", "tenant")?;
        assert_eq!(
            workspace.psql("CREATE TABLE products (id SERIAL PRIMARY KEY, name TEXT NOT NULL)")?,
            ""
        );
        let acme = account.tenant("acme", "shop", &workspace)?;
        let globex = account.tenant("globex", "shop", &workspace)?;
        assert_eq!(
            acme.psql("INSERT INTO products (name) VALUES ('anvil') RETURNING id, name")?,
            "1|anvil\n"
        );
        assert_eq!(globex.psql("SELECT count(*) FROM products")?, "0\n");
        assert!(acme.psql("DROP TABLE products")?.contains(DDL_REFUSED));
        let blocked =
            json!({"blueprint": "shop", "tenant_id": "acme", "query": "DROP TABLE products"});
        let blocked = account.call("POST", "/admin/query", Some(&blocked))?;
        assert_eq!(
            (&blocked["http_status"], &blocked["error"]),
            (&json!(400), &json!(DDL_REFUSED))
        );

        workspace.psql("ALTER TABLE products ADD COLUMN price NUMERIC(12,2)")?;
        assert!(
            acme.psql("SELECT price FROM products")?
                .contains("does not exist")
        );
        let diff = account.ok("GET", "/workspaces/shop/diff", None)?;
        assert_eq!(
            diff["changes"][0]["statement"],
            "ALTER TABLE products ADD COLUMN price NUMERIC(12,2)"
        );
        let deployed = account.deploy("shop")?;
        assert_eq!(
            (&deployed["status"], &deployed["version"]),
            (&json!("completed"), &json!(2))
        );
        for tenant in [&acme, &globex] {
            assert_eq!(tenant.psql("SELECT count(price) FROM products")?, "0\n");
        }
        let query = json!({"blueprint": "shop", "tenant_id": "acme", "query": "SELECT id, name FROM products"});
        let rows = account.ok("POST", "/admin/query", Some(&query))?;
        assert_eq!(rows["rows"], json!([[1, "anvil"]]));
        let logs = account.ok("GET", "/tenants/acme/logs", None)?;
        let logs = logs["logs"].as_array().context("logs")?.clone();
        let find = |text: &str| {
            logs.iter()
                .find(|it| it["query"] == text)
                .with_context(|| format!("{text}: {logs:?}"))
        };
        assert_eq!(find("SELECT id, name FROM products")?["source"], "api");
        assert_eq!(
            find("INSERT INTO products (name) VALUES ('anvil') RETURNING id, name")?["success"],
            true
        );
        assert_eq!(find("DROP TABLE products")?["success"], false);
        let others = account.ok("GET", "/tenants/globex/logs?search=anvil", None)?;
        assert_eq!(others["count"], 0);
        let metrics = product.metrics()?;
        assert!(metrics.contains("tenantsdb_queries_total{protocol=\"postgresql\"}"));
    }
    Ok(())
}

/// The first example is pasted as it is printed.
#[test]
fn the_printed_example_works_as_it_stands() -> Result<()> {
    let product = Product::start(&["--engines", "postgresql,redis"])?;
    let log = product.log();
    let (_, example) = log.split_once("\n# An account").context("no example")?;
    let script = format!("set -e -o pipefail\n# An account{example}");
    // The refused statement fails, as it should.
    let script = script.replace("'DROP TABLE products'", "'DROP TABLE products' || true");
    let out = std::process::Command::new("bash")
        .arg("-c")
        .arg(script)
        .output()?;
    let told =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{told}");
    for expected in [
        "CREATE TABLE",
        "anvil",
        "numeric(12,2)",
        DDL_REFUSED,
        "OK\nhello\n",
        "\"logs\":[{",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    Ok(())
}

#[test]
fn everything_is_there_after_a_stop_and_after_a_crash() -> Result<()> {
    let mut product = Product::start(&[])?;
    let (key, project, acme) = {
        let account = product.sign_up("ann@example.com")?;
        let workspace = account.workspace("shop", "tenant")?;
        workspace.psql("CREATE TABLE t (a int)")?;
        let acme = account.tenant("acme", "shop", &workspace)?;
        acme.psql("INSERT INTO t VALUES (1)")?;
        (account.key.clone(), account.project.clone(), acme)
    };
    for crash in [false, true] {
        if crash {
            product.kill()?;
        } else {
            product.stop()?;
            assert!(!product.data().join("ready.json").exists());
        }
        product.start_again()?;
        let (host, port) = product.postgres();
        let acme = end_to_end::Login {
            host,
            port,
            ..acme.clone()
        };
        assert_eq!(acme.psql("SELECT a FROM t")?, "1\n");
        let tenants = product.call("GET", "/tenants", Some(&key), None)?;
        assert_eq!(tenants["tenants"][0]["tenant_id"], "acme");
        let logs = product.call("GET", "/tenants/acme/logs?search=insert", Some(&key), None)?;
        assert_eq!(logs["count"], 1, "{logs}");
        assert_eq!(acme.user, project);
    }
    Ok(())
}

#[test]
fn foreseeable_failures_are_one_sentence() -> Result<()> {
    let product = Product::start(&[])?;
    let api = product.ready["api"]
        .as_str()
        .context("api")?
        .trim_start_matches("http://")
        .to_owned();
    let folder = tempfile::tempdir()?;
    let other = folder.path().join("data").display().to_string();
    let same = product.data().display().to_string();
    for (arguments, expected) in [
        (
            vec!["up", "--data-dir", &other, "--api", &api],
            "is taken by another program",
        ),
        (
            vec!["up", "--data-dir", &same, "--api", "127.0.0.1:0"],
            "is in use by another tenantsdb process",
        ),
        (
            vec!["up", "--data-dir", &other, "--engines", "oracle"],
            "is no engine",
        ),
        (
            vec!["up", "--data-dir", &other, "--signup-tier", "gold"],
            "no tier 'gold'",
        ),
        (
            vec!["serve", "--config", "/nowhere.toml"],
            "cannot read the configuration /nowhere.toml",
        ),
        (vec!["status", "--data-dir", &other], "nothing runs on"),
    ] {
        let out = std::process::Command::new(binary())
            .args(&arguments)
            .output()?;
        let told = String::from_utf8_lossy(&out.stderr);
        let line = told
            .lines()
            .find(|line| line.starts_with("tenantsdb: "))
            .with_context(|| format!("{arguments:?}: {told}"))?;
        assert!(
            !out.status.success() && line.contains(expected),
            "{arguments:?}: {told}"
        );
    }
    let status = std::process::Command::new(binary())
        .args(["status", "--data-dir", &same])
        .output()?;
    assert!(
        status.status.success(),
        "{}",
        String::from_utf8_lossy(&status.stderr)
    );
    Ok(())
}

#[test]
fn certificates_are_read_again_and_plaintext_is_refused() -> Result<()> {
    let product = Product::start(&[])?;
    let account = product.sign_up("ann@example.com")?;
    let workspace = account.workspace("app", "control")?;
    let plain = workspace
        .command("psql")
        .env("PGSSLMODE", "disable")
        .args(["-c", "SELECT 1"])
        .output()?;
    let told = String::from_utf8_lossy(&plain.stderr);
    assert!(told.contains("TLS is required"), "{told}");
    let before = workspace.psql("SELECT 1")?;
    std::fs::write(product.data().join("tls/server.crt"), "broken")?;
    product.signal(Signal::HUP);
    assert_eq!(
        workspace.psql("SELECT 1")?,
        before,
        "a broken certificate does not take the place of a good one"
    );
    Ok(())
}
