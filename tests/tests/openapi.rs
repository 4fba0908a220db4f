//! The running API against the document that describes it, by schemathesis: requests that the document allows and requests
//! that it forbids, each answer compared with what the document says of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use end_to_end::Product;
use serde_json::json;

/// Each operation gets at most so many made-up requests, beside those for its examples and the edges of its parameters.
const EXAMPLES: &str = "20";
/// The same requests each time.
const SEED: &str = "20261127";

#[test]
fn the_document_says_what_the_api_does() -> Result<()> {
    let product = Product::start(&[])?;
    let account = product.sign_up("ann@example.com")?;
    // What the document's examples name.
    for name in ["main", "myapp", "fintech"] {
        let workspace = account.workspace(name, "tenant")?;
        workspace.psql("CREATE TABLE users (id serial PRIMARY KEY, name text)")?;
    }
    let databases = ["main", "myapp", "fintech"].map(|it| json!({ "blueprint": it }));
    let acme = json!({ "tenant_id": "acme", "databases": databases });
    account.ok("POST", "/tenants", Some(&acme))?;

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = Command::new(root.join("target/drivers/python/bin/schemathesis"))
        .arg("run")
        .arg(root.join("docs/openapi.json"))
        .args(["--url", product.ready["api"].as_str().unwrap_or_default()])
        .args([
            "--header",
            &format!("Authorization: Bearer {}", account.key),
        ])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", EXAMPLES, "--seed", SEED])
        // Whether a request is carried out depends on what is there, not on its form alone: a statement on a table that is
        // missing is a valid request and is refused.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--request-timeout", "60", "--continue-on-failure"])
        .args(["--no-color", "--warnings", "off"])
        // Its database of earlier failures would make runs differ.
        .current_dir(product.data())
        .env("HOME", product.data())
        .output()?;
    let told =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{told}");
    Ok(())
}
