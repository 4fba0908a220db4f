//! Drivers that applications use, on a tenant's database, over verified TLS, on both reactors.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use end_to_end::{Account, Login, Product, REACTORS};

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

/// Runs one driver's script against a tenant, once for each reactor.
fn check(program: &Path, script: &Path) -> Result<()> {
    for reactor in REACTORS {
        let product = Product::start(&["--reactor", reactor])?;
        let account = product.sign_up("ann@example.com")?;
        let out = tenant(&account)?
            .command(program)
            .arg(script)
            .env("NODE_PATH", installed().join("node/node_modules"))
            .output()?;
        let told = String::from_utf8_lossy(&out.stdout).into_owned()
            + &String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.success() && told.ends_with("ok\n"),
            "{reactor}: {told}"
        );
    }
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
