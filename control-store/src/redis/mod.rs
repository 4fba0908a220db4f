//! What Redis needs of the snapshot beyond the other engines: where a database's keys are on its server, what holds for
//! them, and who is meant by a login, which names no database.

mod functions;
mod index;
mod login;

pub use functions::function_namespace;
pub use index::RedisIndex;
pub use login::{redis_login, redis_user};

use std::sync::Arc;

use crate::ids::DatabaseId;
use crate::settings::RedisSettings;

/// Who selects a logical database on a server, and may do nothing else there.
pub const SELECT_USER: &str = "tenantsdb_select";

/// Where a Redis database's keys are on its server, and what holds for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisDatabase {
    /// The server's logical database, to be selected before the native role logs in.
    pub number: u32,
    /// What keys and channels begin with on the server; empty where the server is the database's own.
    pub prefix: Arc<[u8]>,
    /// What holds for its keys.
    pub settings: RedisKeySettings,
}

/// What holds for a Redis database's keys, as the proxy enforces it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisKeySettings {
    /// Seconds that a key lives if no pattern matches it and its command does not say; 0 means for ever.
    pub default_ttl: u32,
    /// Keys that the database may hold; 0 means no limit.
    pub max_keys: u32,
    /// The first that matches a key decides: the longest are first.
    pub patterns: Arc<[RedisKeyPattern]>,
}

/// How long keys live that match a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisKeyPattern {
    /// A glob as in Redis's `KEYS`, without the prefix.
    pub glob: Arc<[u8]>,
    /// Seconds that such a key lives if its command does not say; 0 means for ever.
    pub ttl: u32,
}

impl RedisKeySettings {
    /// In the order in which the proxy looks.
    pub fn of(settings: &RedisSettings) -> Self {
        let mut patterns: Vec<_> = settings
            .patterns
            .iter()
            .map(|(glob, rule)| RedisKeyPattern {
                glob: glob.as_bytes().into(),
                ttl: rule.ttl,
            })
            .collect();
        // Equally long ones keep their order in the map, so that it does not change from one start to the next.
        patterns.sort_by_key(|it| std::cmp::Reverse(it.glob.len()));
        Self {
            default_ttl: settings.default_ttl,
            max_keys: settings.max_keys,
            patterns: patterns.into(),
        }
    }
}

/// What a database's keys and channels begin with on a shared server: its id in base 36 and a colon. The colon ends it, so
/// none is the beginning of another; and ids are never used again, nor are prefixes.
pub fn prefix(id: DatabaseId) -> Arc<[u8]> {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = vec![b':'];
    let mut rest = id.0;
    loop {
        // A remainder by 36 is an index below 36.
        digits.push(DIGITS[usize::try_from(rest % 36).unwrap_or(0)]);
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    digits.reverse();
    digits.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::RedisPattern;

    #[test]
    fn prefixes_are_ended_and_short() {
        for (id, text) in [
            (0, "0:"),
            (35, "z:"),
            (36, "10:"),
            (u64::MAX, "3w5e11264sgsf:"),
        ] {
            assert_eq!(&*prefix(DatabaseId(id)), text.as_bytes());
        }
    }

    #[test]
    fn the_longest_pattern_is_asked_first() {
        let patterns = ["a*", "session:*", "b*", "*"];
        let settings = RedisSettings {
            patterns: patterns
                .map(|it| (it.to_owned(), RedisPattern { ttl: 1 }))
                .into(),
            ..RedisSettings::default()
        };
        let globs: Vec<_> = RedisKeySettings::of(&settings)
            .patterns
            .iter()
            .map(|it| String::from_utf8_lossy(&it.glob).into_owned())
            .collect();
        assert_eq!(globs, ["session:*", "a*", "b*", "*"]);
    }
}
