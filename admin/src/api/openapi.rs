//! The OpenAPI document: what the handlers declare, completed with what holds for all of them.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::envelope::{Envelope, ErrorReply};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "TenantsDB",
        description = "A database of its own for every customer: projects, workspaces, blueprints, tenants and deployments.\n\n\
            Every JSON answer carries `success`, `http_status` and `code`; every failure carries `error`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Envelope, ErrorReply)),
    tags(
        (name = "About", description = "What the API says of itself"),
        (name = "Accounts", description = "Sign up and log in"),
        (name = "Projects", description = "The boundary around everything else"),
        (name = "API keys", description = "Keys with a role and a scope"),
        (name = "Workspaces", description = "Where a schema is shaped"),
        (name = "Blueprints", description = "Versions of a schema"),
        (name = "Tenants", description = "A customer's databases"),
        (name = "Query logs", description = "What ran"),
        (name = "Deployments", description = "Schema changes on their way to tenants"),
        (name = "Admin query", description = "Data queries on tenant databases"),
    )
)]
pub(super) struct Document;

/// Paths that need no API key.
const PUBLIC: [&str; 8] = [
    "/",
    "/health",
    "/regions",
    "/errors",
    "/openapi.json",
    "/docs",
    "/signup",
    "/login",
];
/// Paths whose answers have no envelope.
const BARE: [&str; 2] = ["/openapi.json", "/docs"];
const REQUEST_ID: &str = "An id of your own for this request; the answer and our log repeat it. One that is not 1 to 128 letters, \
    digits, `-`, `_`, `.` and `:` is replaced.";

const IDEMPOTENCY_KEY: &str =
    "The same key with the same request gets the same answer, for a day; with another request 409.";

/// Completes the document: security, the envelope around each answer, and the failures that any request may meet.
pub(super) fn complete(document: utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_else(|_| json!({}));
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["components"]["securitySchemes"] = json!({
        "api_key": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key: `tenantsdb_sk_` and 64 hex digits."
        }
    });
    document["security"] = json!([{ "api_key": [] }]);
    for (path, item) in objects(&mut document["paths"]) {
        for (method, operation) in objects(item) {
            complete_operation(&path, &method, operation);
        }
    }
    document
}

fn objects(value: &mut Value) -> impl Iterator<Item = (String, &mut Value)> {
    value
        .as_object_mut()
        .into_iter()
        .flat_map(|map| map.iter_mut().map(|(name, value)| (name.clone(), value)))
}

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let public = PUBLIC.contains(&path);
    if public {
        operation["security"] = json!([]);
    }
    if !BARE.contains(&path) {
        for (status, response) in objects(&mut operation["responses"]) {
            if status.starts_with('2') {
                wrap(response);
            }
        }
    }
    let parameters = operation["parameters"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let body = operation.get("requestBody").is_some();
    let in_path = parameters.iter().any(|it| it["in"] == "path");
    for (applies, status, why) in [
        (
            body || !parameters.is_empty() || !public,
            400,
            "The request makes no sense; `error` names the field and what is accepted",
        ),
        (!public, 401, "No API key, or not one of ours"),
        (
            !public,
            403,
            "The tier, or the key's role or scope, does not allow it",
        ),
        (in_path || (body && !public), 404, "There is no such thing"),
        (
            method != "get",
            409,
            "It exists already, or its state does not allow this",
        ),
        (body, 413, "The body is too large"),
        (
            true,
            429,
            "Too many requests; `Retry-After` says when to come back",
        ),
        (true, 500, "Our fault"),
        (true, 503, "Try again: a server is unavailable or stopping"),
    ] {
        let responses = &mut operation["responses"];
        if applies && responses.get(status.to_string()).is_none() {
            responses[status.to_string()] = failure(why, status);
        }
    }
    let mut parameters = parameters;
    for parameter in &mut parameters {
        bound(parameter);
    }
    if method == "post" {
        parameters.push(json!({
            "name": "idempotency-key", "in": "header", "required": false, "description": IDEMPOTENCY_KEY,
            "schema": { "type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$" }
        }));
    }
    parameters.push(json!({
        "name": "x-request-id", "in": "header", "required": false, "description": REQUEST_ID,
        "schema": { "type": "string" }
    }));
    operation["parameters"] = parameters.into();
}

/// What holds for a query parameter wherever it is.
fn bound(parameter: &mut Value) {
    let bounds = match (parameter["in"].as_str(), parameter["name"].as_str()) {
        (Some("query"), Some("limit")) => json!({ "minimum": 1, "maximum": 1000 }),
        (Some("query"), Some("offset")) => json!({ "minimum": 0, "maximum": i64::MAX }),
        (Some("query"), Some("cursor")) => json!({ "pattern": "^[A-Za-z0-9_-]+$" }),
        (Some("query"), Some("since")) => json!({ "pattern": "^[1-9][0-9]{0,4}[mhd]$" }),
        _ => return,
    };
    if let (Some(schema), Some(bounds)) = (parameter["schema"].as_object_mut(), bounds.as_object())
    {
        schema.extend(bounds.clone());
    }
}

/// Puts the envelope around an answer's own schema.
fn wrap(response: &mut Value) {
    let schema = &mut response["content"]["application/json"]["schema"];
    let own = schema.take();
    *schema = json!({ "allOf": [{ "$ref": "#/components/schemas/Envelope" }, own] });
}

fn failure(why: &str, status: u16) -> Value {
    let mut answer = json!({
        "description": why,
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/ErrorReply" } } }
    });
    if status == 429 || status == 503 {
        let seconds = json!({ "description": "Seconds", "schema": { "type": "integer" } });
        answer["headers"] = Value::Object(Map::from_iter([("Retry-After".to_owned(), seconds)]));
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Run with `UPDATE_GOLDEN=1` after a change that is meant.
    #[test]
    fn the_document_is_the_golden_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let (_, document) = crate::api::documented_routes();
        let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == golden,
            "docs/openapi.json is not what the types say: run `UPDATE_GOLDEN=1 cargo test -p admin golden`"
        );
    }

    #[test]
    fn every_reference_resolves() {
        let (_, document) = crate::api::documented_routes();
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name} is not declared"
            );
        }
        assert_eq!(document["openapi"], "3.1.0");
    }
}
