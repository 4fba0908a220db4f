//! `/docs`: the OpenAPI document as one page to read, without scripts.

use std::fmt::Write as _;

use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}\
h1,h2{line-height:1.2}h2{margin-top:3rem;border-bottom:1px solid #d0d7de}\
details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.5rem 1rem}\
summary{cursor:pointer}b.m{display:inline-block;min-width:4.5rem;font-family:monospace}\
code,pre{font-family:ui-monospace,monospace;font-size:.9em}pre{background:#f6f8fa;padding:.75rem;overflow:auto}\
table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid #d0d7de;padding:.2rem .6rem;text-align:left;vertical-align:top}";

/// Renders the document.
pub(super) fn page(document: &Value) -> String {
    let mut out = String::new();
    let title = text(&document["info"]["title"]);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title} API</title><style>{STYLE}</style><h1>{title} API {}</h1>",
        text(&document["info"]["version"])
    );
    for paragraph in document["info"]["description"]
        .as_str()
        .unwrap_or_default()
        .split("\n\n")
    {
        let _ = write!(out, "<p>{}", escape(paragraph));
    }
    out.push_str(
        "<p>Send your API key with each request: <code>Authorization: Bearer tenantsdb_sk_…</code>. \
         For programs: <a href=/openapi.json>OpenAPI 3.1</a>.",
    );
    for tag in document["tags"].as_array().into_iter().flatten() {
        section(&mut out, document, tag);
    }
    out
}

fn section(out: &mut String, document: &Value, tag: &Value) {
    let name = tag["name"].as_str().unwrap_or_default();
    let _ = write!(
        out,
        "<h2>{}</h2><p>{}",
        escape(name),
        text(&tag["description"])
    );
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            if operation["tags"][0] == name {
                self::operation(out, document, path, method, operation);
            }
        }
    }
}

fn operation(out: &mut String, document: &Value, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        out,
        "<details><summary><b class=m>{}</b> <code>{}</code></summary><p>{}",
        method.to_uppercase(),
        escape(path),
        text(&operation["summary"])
    );
    if let Some(more) = operation["description"].as_str() {
        let _ = write!(out, "<p>{}", escape(more));
    }
    let parameters: Vec<_> = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| it["in"] != "header")
        .collect();
    if !parameters.is_empty() {
        out.push_str("<table><tr><th>Parameter<th>In<th>Meaning");
        for it in parameters {
            let _ = write!(
                out,
                "<tr><td><code>{}</code><td>{}<td>{}",
                text(&it["name"]),
                text(&it["in"]),
                text(&it["description"])
            );
        }
        out.push_str("</table>");
    }
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        out.push_str("<p>Body<pre>");
        out.push_str(&example(document, body));
        out.push_str("</pre>");
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        if !status.starts_with('2') {
            continue;
        }
        let _ = write!(out, "<p>Answer {status}");
        let schema = &response["content"]["application/json"]["schema"];
        if !schema.is_null() {
            let _ = write!(out, "<pre>{}</pre>", example(document, schema));
        }
    }
    out.push_str("</details>");
}

fn example(document: &Value, schema: &Value) -> String {
    let value = sample(document, schema, 0);
    escape(&serde_json::to_string_pretty(&value).unwrap_or_default())
}

/// Schemas refer to each other; what lies deeper than this is left out.
const MAX_DEPTH: u32 = 12;

fn sample(document: &Value, schema: &Value, depth: u32) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        return sample(
            document,
            &document["components"]["schemas"][name],
            depth + 1,
        );
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let mut whole = serde_json::Map::new();
        for part in parts {
            if let Value::Object(fields) = sample(document, part, depth + 1) {
                whole.extend(fields);
            }
        }
        return whole.into();
    }
    let choices = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    if let Some(first) = choices.and_then(|all| all.iter().find(|it| it["type"] != "null")) {
        return sample(document, first, depth + 1);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds
            .iter()
            .find(|it| *it != "null")
            .cloned()
            .unwrap_or_default(),
        kind => kind.clone(),
    };
    match kind.as_str() {
        Some("object") => schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, property)| (name.clone(), sample(document, property, depth + 1)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Some("array") => Value::Array(vec![sample(document, &schema["items"], depth + 1)]),
        Some("integer" | "number") => 0.into(),
        Some("boolean") => true.into(),
        Some("string") => "…".into(),
        _ => Value::Null,
    }
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_shows_every_path_and_has_no_script() {
        let (_, document) = crate::api::documented_routes();
        let page = super::page(&document);
        for path in document["paths"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
        }
        assert!(!page.contains("<script"));
    }
}
