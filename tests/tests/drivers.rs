//! Drivers that applications use, on a tenant's database, over verified TLS, on both reactors.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use end_to_end::{Account, Login, Product, REACTORS};
use serde_json::json;

/// Where `scripts/drivers` has put them.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/drivers")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("drivers")
        .join(name)
}

fn tenant(account: &Account<'_>) -> Result<Login> {
    let workspace = account.workspace("shop", "tenant")?;
    workspace.psql("CREATE TABLE items (id int PRIMARY KEY, name text)")?;
    account.tenant("acme", "shop", &workspace)
}

/// Runs a script of a driver for PostgreSQL against a tenant, once for each reactor.
fn check(program: &Path, script: &Path) -> Result<()> {
    for reactor in REACTORS {
        let product = Product::start(&["--reactor", reactor])?;
        let account = product.sign_up("ann@example.com")?;
        let out = tenant(&account)?
            .command(program)
            .arg(script)
            .env("NODE_PATH", installed().join("node/node_modules"))
            .output()?;
        check_output(reactor, &out)?;
    }
    Ok(())
}

/// As [`check`], for Redis.
fn check_redis(program: &Path, script: &Path) -> Result<()> {
    for reactor in REACTORS {
        let product = Product::start(&["--engines", "postgresql,redis", "--reactor", reactor])?;
        let account = product.sign_up("ann@example.com")?;
        let workspace = json!({"name": "cache", "database": "Redis", "mode": "tenant"});
        account.ok("POST", "/workspaces", Some(&workspace))?;
        let database = json!({"blueprint": "cache", "isolation_level": 1});
        let tenant = json!({"tenant_id": "acme", "databases": [database]});
        let made = account.ok("POST", "/tenants", Some(&tenant))?;
        let url = &made["databases"][0]["connection"]["connection_string"];
        let authority = &product.ready["ca_cert"];
        let out = Command::new(program)
            .arg(script)
            .env("REDIS_URL", url.as_str().context("no connection string")?)
            .env("REDIS_CA", authority.as_str().context("no authority")?)
            .env("NODE_PATH", installed().join("node/node_modules"))
            .output()?;
        check_output(reactor, &out)?;
    }
    Ok(())
}

fn check_output(reactor: &str, out: &Output) -> Result<()> {
    let told =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success() && told.ends_with("ok\n"),
        "{reactor}: {told}"
    );
    Ok(())
}

#[test]
fn psycopg() -> Result<()> {
    check(
        &installed().join("python/bin/python"),
        &script("python/psycopg_test.py"),
    )
}

#[test]
fn asyncpg() -> Result<()> {
    check(
        &installed().join("python/bin/python"),
        &script("python/asyncpg_test.py"),
    )
}

#[test]
fn node_postgres() -> Result<()> {
    check(Path::new("node"), &script("node/pg_test.js"))
}

#[test]
fn redis_py() -> Result<()> {
    check_redis(
        &installed().join("python/bin/python"),
        &script("python/redis_test.py"),
    )
}

#[test]
fn ioredis() -> Result<()> {
    check_redis(Path::new("node"), &script("node/ioredis_test.js"))
}
