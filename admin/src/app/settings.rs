//! Changing a workspace's settings in part.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use control_store::ids::Engine;
use control_store::settings::{RedisPattern, WorkspaceSettings};
use serde_json::{Map, Value};

use super::failure::{Failure, Outcome};

const TIMEOUT_MS: RangeInclusive<u64> = 1..=86_400_000;
const ROWS: RangeInclusive<u64> = 1..=100_000_000;
const CONNECTIONS: RangeInclusive<u32> = 1..=10_000;
const REDIS: RangeInclusive<u32> = 0..=i32::MAX.unsigned_abs();

/// The names of an engine's settings.
pub fn fields(engine: Engine) -> [&'static str; 3] {
    match engine {
        Engine::Postgres | Engine::Mysql | Engine::Mongodb => {
            ["query_timeout_ms", "max_rows_per_query", "max_connections"]
        }
        Engine::Redis => ["default_ttl", "max_keys", "patterns"],
    }
}

/// Settings as the API shows them.
pub fn to_json(settings: &WorkspaceSettings) -> Value {
    let json = match settings {
        WorkspaceSettings::Queries(queries) => serde_json::to_value(queries),
        WorkspaceSettings::Redis(redis) => serde_json::to_value(redis),
    };
    // Plain numbers, texts and maps with text keys always become JSON.
    json.unwrap_or_default()
}

/// Puts those that are given in the place of those that are there.
///
/// # Errors
/// A field is unknown, of the wrong type or out of range; the sentence names it.
pub fn change(settings: &mut WorkspaceSettings, given: &Map<String, Value>) -> Outcome<()> {
    for (name, value) in given {
        match (&mut *settings, name.as_str()) {
            (WorkspaceSettings::Queries(it), "query_timeout_ms") => {
                it.query_timeout_ms = number(name, value, &TIMEOUT_MS)?;
            }
            (WorkspaceSettings::Queries(it), "max_rows_per_query") => {
                it.max_rows_per_query = number(name, value, &ROWS)?;
            }
            (WorkspaceSettings::Queries(it), "max_connections") => {
                it.max_connections = number(name, value, &CONNECTIONS)?;
            }
            (WorkspaceSettings::Redis(it), "default_ttl") => {
                it.default_ttl = number(name, value, &REDIS)?;
            }
            (WorkspaceSettings::Redis(it), "max_keys") => {
                it.max_keys = number(name, value, &REDIS)?;
            }
            (WorkspaceSettings::Redis(it), "patterns") => it.patterns = patterns(value)?,
            (it, _) => {
                let engine = match it {
                    WorkspaceSettings::Queries(_) => Engine::Postgres,
                    WorkspaceSettings::Redis(_) => Engine::Redis,
                };
                return Err(Failure::BadRequest(format!(
                    "Unknown field '{name}': expected one of '{}'",
                    fields(engine).join("', '")
                )));
            }
        }
    }
    Ok(())
}

fn number<T>(name: &str, value: &Value, range: &RangeInclusive<T>) -> Outcome<T>
where
    T: TryFrom<u64> + PartialOrd + std::fmt::Display,
{
    value
        .as_u64()
        .and_then(|it| T::try_from(it).ok())
        .filter(|it| range.contains(it))
        .ok_or_else(|| {
            Failure::BadRequest(format!(
                "Field '{name}' must be a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        })
}

fn patterns(value: &Value) -> Outcome<BTreeMap<String, RedisPattern>> {
    let wrong =
        || Failure::bad("Field 'patterns' must be an object such as {\"cache:*\": {\"ttl\": 300}}");
    let given = value.as_object().ok_or_else(wrong)?;
    given
        .iter()
        .map(|(pattern, rule)| {
            let rule = rule.as_object().ok_or_else(wrong)?;
            match rule.iter().next() {
                Some((name, ttl)) if rule.len() == 1 && name == "ttl" => {
                    let ttl = number(&format!("patterns.{pattern}.ttl"), ttl, &REDIS)?;
                    Ok((pattern.clone(), RedisPattern { ttl }))
                }
                _ => Err(wrong()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(engine: Engine, given: &Value, expected: Result<Value, &str>) {
        let mut settings = WorkspaceSettings::default_of(engine);
        match (change(&mut settings, given.as_object().unwrap()), expected) {
            (Ok(()), Ok(expected)) => assert_eq!(to_json(&settings), expected),
            (Err(Failure::BadRequest(why)), Err(expected)) => assert_eq!(why, expected),
            (other, expected) => panic!("{other:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn partial_changes_and_refusals() {
        check(
            Engine::Postgres,
            &json!({ "max_connections": 10 }),
            Ok(
                json!({ "query_timeout_ms": 30000, "max_rows_per_query": 10000, "max_connections": 10 }),
            ),
        );
        check(
            Engine::Postgres,
            &json!({ "max_connections": 0 }),
            Err("Field 'max_connections' must be a whole number from 1 to 10000"),
        );
        check(
            Engine::Postgres,
            &json!({ "query_timeout_ms": "5" }),
            Err("Field 'query_timeout_ms' must be a whole number from 1 to 86400000"),
        );
        check(
            Engine::Postgres,
            &json!({ "default_ttl": 5 }),
            Err(
                "Unknown field 'default_ttl': expected one of 'query_timeout_ms', 'max_rows_per_query', 'max_connections'",
            ),
        );
        check(
            Engine::Redis,
            &json!({ "patterns": { "cache:*": { "ttl": 300 } } }),
            Ok(
                json!({ "default_ttl": 0, "max_keys": 0, "patterns": { "cache:*": { "ttl": 300 } } }),
            ),
        );
        check(
            Engine::Redis,
            &json!({ "patterns": { "a": { "ttl": -1 } } }),
            Err("Field 'patterns.a.ttl' must be a whole number from 0 to 2147483647"),
        );
    }
}
