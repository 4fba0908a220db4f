//! Lists, and parts of those that may be long: each costs as much as it holds, wherever in the list it is.

use jiff::Timestamp;
use rusqlite::{Connection, Params, Row};

use crate::error::StoreError;
use crate::snapshot::Scope;

/// Tells where an item stands in a list; goes to a client as a text, and comes back.
pub trait Mark: Sized {
    /// As a text.
    fn to_text(&self) -> String;

    /// Reads what [`Mark::to_text`] wrote.
    fn from_text(text: &str) -> Option<Self>;
}

/// Where an item stands in a list that is ordered by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// When it was made.
    pub at: Timestamp,
    /// Its id, among those that were made at the same time.
    pub id: String,
}

impl Mark for Place {
    fn to_text(&self) -> String {
        format!("{}:{}", self.at.as_microsecond(), self.id)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (at, id) = text.split_once(':')?;
        let at = Timestamp::from_microsecond(at.parse().ok()?).ok()?;
        let id = id.to_owned();
        Some(Self { at, id })
    }
}

/// An id that is a number.
impl Mark for u64 {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().filter(|it| *it <= MOST)
    }
}

/// A name.
impl Mark for String {
    fn to_text(&self) -> String {
        self.clone()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

/// The largest number that SQLite has.
const MOST: u64 = i64::MAX.cast_unsigned();

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<K> {
    /// What is behind this place; `None`: from the beginning.
    pub after: Option<K>,
    /// So many items at most; `None`: all.
    pub limit: Option<u32>,
}

impl<K> Part<K> {
    /// The whole list.
    pub const ALL: Self = Self {
        after: None,
        limit: None,
    };

    /// SQLite takes a negative limit for none.
    pub(crate) fn sql_limit(&self) -> i64 {
        self.limit.map_or(-1, i64::from)
    }
}

impl Part<Place> {
    /// The place to begin behind, for a list from the oldest to the newest.
    pub(crate) fn after_ascending(&self) -> (i64, &str) {
        self.after
            .as_ref()
            .map_or((i64::MIN, ""), |it| (it.at.as_microsecond(), &it.id))
    }

    /// The place to begin behind, for a list from the newest to the oldest.
    pub(crate) fn after_descending(&self) -> (i64, &str) {
        self.after
            .as_ref()
            .map_or((i64::MAX, ""), |it| (it.at.as_microsecond(), &it.id))
    }
}

impl Part<u64> {
    /// The number to begin above; ids begin at 1.
    pub(crate) fn above(&self) -> u64 {
        self.after.unwrap_or(0)
    }

    /// The number to begin below.
    pub(crate) fn below(&self) -> u64 {
        self.after.unwrap_or(MOST)
    }
}

impl Part<String> {
    /// The name to begin behind; no name is empty.
    pub(crate) fn behind(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }
}

/// Everything that a query finds, in its order.
pub(crate) fn list<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The workspaces and tenants that a key reaches, each as a JSON array for a query; `None`: all.
pub(crate) fn reach(scope: &Scope) -> Result<(Option<String>, Option<String>), StoreError> {
    fn names<'a>(names: impl Iterator<Item = &'a str>) -> Result<Option<String>, StoreError> {
        let names: Vec<_> = names.collect();
        serde_json::to_string(&names)
            .map(Some)
            .map_err(|_| StoreError::Corrupt { what: "scope" })
    }
    Ok(match scope {
        Scope::Project => (None, None),
        Scope::Workspaces(known) => (names(known.iter().map(|it| it.as_str()))?, None),
        Scope::Tenants(known) => (None, names(known.iter().map(|it| it.as_str()))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<M: Mark + PartialEq + std::fmt::Debug>(mark: M, text: &str, wrong: &[&str]) {
        assert_eq!(mark.to_text(), text);
        assert_eq!(M::from_text(text), Some(mark));
        for wrong in wrong {
            assert_eq!(M::from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn marks_come_back_from_their_texts() {
        let place = Place {
            at: Timestamp::from_microsecond(5).unwrap(),
            id: "a:b".into(),
        };
        check(place, "5:a:b", &["x:a", "5", "", "9223372036854775807:a"]);
        check(7, "7", &["", "-1", "x", "9223372036854775808"]);
        check("shop".to_owned(), "shop", &[]);
    }
}
