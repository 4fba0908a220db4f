//! Reading requests strictly: each refusal names the field and what is accepted.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Path, Query, Request};
use axum::http::Extensions;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::config::ApiConfig;
use super::state::AppState;
use crate::app::failure::Failure;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<AppState> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure> {
        let limit = body_limit(request.extensions(), &state.config);
        parse(&read(request, limit).await?).map(Self)
    }
}

/// Schemas to import may be larger than other bodies.
pub(super) fn body_limit(extensions: &Extensions, config: &ApiConfig) -> usize {
    let path = extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    if path == Some("/workspaces/{id}/schema") {
        config.import_limit.max(config.body_limit)
    } else {
        config.body_limit
    }
}

/// A body in full, if it is within the limit.
pub(super) async fn read(request: Request, limit: usize) -> Result<Bytes, Failure> {
    let declared = request
        .headers()
        .get(axum::http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|bytes| bytes > limit) {
        return Err(Failure::BodyTooLarge(limit));
    }
    to_bytes(request.into_body(), limit)
        .await
        .map_err(|error| body_error(&error, limit))
}

fn body_error(error: &axum::Error, limit: usize) -> Failure {
    let too_large = std::error::Error::source(error)
        .is_some_and(|source| source.to_string().contains("length limit"));
    if too_large {
        Failure::BodyTooLarge(limit)
    } else {
        Failure::bad("The request body could not be read to its end")
    }
}

/// Reads a JSON object; a body that is empty counts as `{}`.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let bytes = if bytes.trim_ascii().is_empty() {
        b"{}"
    } else {
        bytes
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        Failure::BadRequest(explain(&path, error.inner()))
    })?;
    json.end()
        .map_err(|_| Failure::bad("Invalid JSON: something follows the object"))?;
    Ok(value)
}

fn explain(path: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    if !error.is_data() {
        return format!("Invalid JSON: {text}{place}");
    }
    let field = |rest: &str| rest.split('`').nth(1).unwrap_or_default().to_owned();
    if let Some(rest) = text.strip_prefix("unknown field") {
        let accepted = rest
            .split_once(", ")
            .map_or("nothing else", |(_, list)| list);
        return format!(
            "Unknown field '{}': {}",
            field(rest),
            accepted.replace('`', "'")
        );
    }
    if let Some(rest) = text.strip_prefix("missing field") {
        let name = field(rest);
        return match path {
            "." => format!("Field '{name}' is required"),
            path => format!("Field '{path}.{name}' is required"),
        };
    }
    if let Some(rest) = text.strip_prefix("duplicate field") {
        return format!("Field '{}' is given twice", field(rest));
    }
    match path {
        "." => format!("The body must be a JSON object: {text}"),
        path => format!("Field '{path}': {}", text.replace('`', "'")),
    }
}

/// A part of the path, or several.
pub(super) struct At<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for At<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        Path::from_request_parts(parts, state)
            .await
            .map(|Path(value)| Self(value))
            .map_err(|_| {
                Failure::NotFound("Not found: the path holds bytes that are not UTF-8".into())
            })
    }
}

/// The query string. Take what is known, then [`Params::finish`] refuses the rest.
pub(super) struct Params(BTreeMap<String, String>);

impl FromRequestParts<AppState> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Failure> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| Failure::bad("The query string is not valid"))?;
        let mut found = BTreeMap::new();
        for (name, value) in pairs {
            if found.insert(name.clone(), value).is_some() {
                return Err(Failure::BadRequest(format!(
                    "Parameter '{name}' is given twice"
                )));
            }
        }
        Ok(Self(found))
    }
}

impl Params {
    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A whole number within bounds.
    pub(super) fn number<T>(&mut self, name: &str, min: T, max: T) -> Result<Option<T>, Failure>
    where
        T: Copy + FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.0.remove(name) else {
            return Ok(None);
        };
        match text.parse::<T>() {
            Ok(value) if value >= min && value <= max => Ok(Some(value)),
            _ => Err(Failure::BadRequest(format!(
                "Parameter '{name}' must be a whole number from {min} to {max}"
            ))),
        }
    }

    /// `true` or `false`; the name alone means `true`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Failure> {
        match self.0.remove(name).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(_) => Err(Failure::BadRequest(format!(
                "Parameter '{name}' must be true or false"
            ))),
        }
    }

    /// One of some words, in any letter case.
    pub(super) fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.0.remove(name) else {
            return Ok(None);
        };
        match words
            .iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(&text))
        {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let accepted: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(Failure::BadRequest(format!(
                    "Parameter '{name}' must be one of {}",
                    accepted.join(", ")
                )))
            }
        }
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Failure::BadRequest(format!("Unknown parameter '{name}'"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it parses matters")]
    struct Example {
        name: String,
        #[serde(default)]
        items: Vec<Item>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only whether it parses matters")]
    struct Item {
        size: u32,
    }

    #[test]
    fn refusals_name_the_field_and_what_is_accepted() {
        for (body, expected) in [
            (
                r#"{"name":"a""#,
                "Invalid JSON: EOF while parsing an object at line 1 column 11",
            ),
            (
                r#"{"name":"a","x":1}"#,
                "Unknown field 'x': expected 'name' or 'items'",
            ),
            (
                r#"{"name":5}"#,
                "Field 'name': invalid type: integer '5', expected a string",
            ),
            ("{}", "Field 'name' is required"),
            ("", "Field 'name' is required"),
            (
                r#"{"name":"a","items":[{}]}"#,
                "Field 'items[0].size' is required",
            ),
            (r#"{"name":"a","name":"b"}"#, "Field 'name' is given twice"),
            (
                r#"{"name":"a"} 1"#,
                "Invalid JSON: something follows the object",
            ),
            (
                r#"{"name":"a","items":[{"size":-1}]}"#,
                "Field 'items[0].size': invalid value: integer '-1', expected u32",
            ),
            (
                "[]",
                "The body must be a JSON object: invalid length 0, expected struct Example with 2 elements",
            ),
        ] {
            match parse::<Example>(body.as_bytes()) {
                Err(Failure::BadRequest(why)) => assert_eq!(why, expected, "{body}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }
}
