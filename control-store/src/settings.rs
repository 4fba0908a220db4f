//! The settings of a workspace, and of each database made from it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::ids::Engine;
use crate::snapshot::Settings;

/// Milliseconds after which a script of a Redis database is ended: the server's own `busy-reply-threshold`.
pub const REDIS_BUSY_MS: u64 = 5000;

/// Settings as the workspace's engine has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkspaceSettings {
    /// PostgreSQL, MySQL, MongoDB.
    Queries(QuerySettings),
    /// Redis.
    Redis(RedisSettings),
}

/// Limits on queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuerySettings {
    /// Milliseconds after which a statement is cancelled at the server.
    pub query_timeout_ms: u64,
    /// Rows that one statement may return.
    pub max_rows_per_query: u64,
    /// Client connections to one database.
    pub max_connections: u32,
}

impl Default for QuerySettings {
    fn default() -> Self {
        let Settings {
            query_timeout_ms,
            max_rows_per_query,
            max_connections,
        } = Settings::default();
        Self {
            query_timeout_ms,
            max_rows_per_query,
            max_connections,
        }
    }
}

/// Limits on keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// Seconds that a key lives if its command does not say; 0 means for ever.
    pub default_ttl: u32,
    /// Keys that one database may hold; 0 means no limit.
    pub max_keys: u32,
    /// What holds for keys that match a pattern.
    pub patterns: BTreeMap<String, RedisPattern>,
}

/// What holds for keys that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisPattern {
    /// Seconds that such a key lives; 0 means for ever.
    pub ttl: u32,
}

impl WorkspaceSettings {
    /// What a new workspace of that engine has.
    pub fn default_of(engine: Engine) -> Self {
        match engine {
            Engine::Postgres | Engine::Mysql | Engine::Mongodb => {
                Self::Queries(QuerySettings::default())
            }
            Engine::Redis => Self::Redis(RedisSettings::default()),
        }
    }

    /// Whether a workspace of that engine can have them.
    pub fn fits(&self, engine: Engine) -> bool {
        matches!(self, Self::Redis(_)) == (engine == Engine::Redis)
    }

    /// What the proxy enforces on statements and connections.
    pub fn routing(&self) -> Settings {
        match self {
            Self::Queries(QuerySettings {
                query_timeout_ms,
                max_rows_per_query,
                max_connections,
            }) => Settings {
                query_timeout_ms: *query_timeout_ms,
                max_rows_per_query: *max_rows_per_query,
                max_connections: *max_connections,
            },
            // Scripts have a limit; rows and other statements have none.
            Self::Redis(_) => Settings {
                query_timeout_ms: REDIS_BUSY_MS,
                max_rows_per_query: u64::MAX,
                ..Settings::default()
            },
        }
    }
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt {
        what: "value for JSON",
    })
}

pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what: "JSON value" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_the_store() {
        for engine in Engine::ALL {
            let settings = WorkspaceSettings::default_of(engine);
            assert!(settings.fits(engine));
            assert_eq!(
                from_json::<WorkspaceSettings>(&to_json(&settings).unwrap()).unwrap(),
                settings
            );
        }
        assert!(!WorkspaceSettings::default_of(Engine::Redis).fits(Engine::Postgres));
    }
}
