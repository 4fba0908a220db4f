//! Parts of lists that may be long: each costs as much as it holds, wherever in the list it is.

use jiff::Timestamp;

use crate::error::StoreError;
use crate::snapshot::Scope;

/// Where an item stands in a list that is ordered by time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// When it was made.
    pub at: Timestamp,
    /// Its id, among those that were made at the same time.
    pub id: String,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// What is behind this place; `None`: from the beginning.
    pub after: Option<Place>,
    /// So many items at most; `None`: all.
    pub limit: Option<u32>,
}

impl Part {
    /// SQLite takes a negative limit for none.
    pub(crate) fn sql_limit(&self) -> i64 {
        self.limit.map_or(-1, i64::from)
    }

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
