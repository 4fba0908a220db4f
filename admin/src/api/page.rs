//! Lists page by page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control_store::page::{Mark, Part};
use control_store::{Store, StoreError};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::input::Params;
use super::state::AppState;
use crate::app::failure::{Failure, Outcome};

/// What a cursor begins with; another layout takes another number.
const VERSION: &str = "1:";
/// Longer lists come in several pages.
const MAX_LIMIT: u32 = 1000;

/// Which part of a list was asked for: everything, unless told otherwise.
pub(super) struct Page {
    limit: Option<u32>,
    after: Option<String>,
}

/// What [`Page`] is read from, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "for the document alone")]
pub(super) struct PageParams {
    /// At most so many; all if left out, or 1000 with a `cursor`.
    limit: Option<u32>,
    /// A `next_cursor` of this list.
    cursor: Option<String>,
}

/// What every list says of itself.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Paged {
    /// How many are in this answer.
    #[schema(example = 1)]
    count: usize,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

impl Page {
    /// All of it.
    pub(super) const WHOLE: Self = Self {
        limit: None,
        after: None,
    };

    /// Takes `limit` and `cursor`, and refuses any other parameter.
    pub(super) fn read(mut params: Params) -> Outcome<Self> {
        let page = Self::take(&mut params)?;
        params.finish()?;
        Ok(page)
    }

    /// Takes `limit` and `cursor`.
    pub(super) fn take(params: &mut Params) -> Outcome<Self> {
        let limit = params.number("limit", 1, MAX_LIMIT)?;
        let after = params
            .text("cursor")
            .map(|text| decode(&text))
            .transpose()?;
        Ok(Self { limit, after })
    }

    /// A list that is never given whole.
    pub(super) fn at_most(mut self, default: u32) -> Self {
        self.limit = self.limit.or(Some(default));
        self
    }

    /// Finds the part of a list in the store and shows each of its items. `mark` tells an item from all others of its list.
    pub(super) async fn of<K, T, U>(
        self,
        state: &AppState,
        find: impl FnOnce(&Store, &Part<K>) -> Result<Vec<T>, StoreError> + Send + 'static,
        mark: impl Fn(&T) -> K,
        show: impl FnMut(T) -> U,
    ) -> Outcome<(Vec<U>, Paged)>
    where
        K: Mark + Send + 'static,
        T: Send + 'static,
    {
        let part = self.part()?;
        let found = state.store(move |store| find(store, &part)).await?;
        let (found, paged) = self.cut(found, mark);
        Ok((found.into_iter().map(show).collect(), paged))
    }

    /// What the store is to give: one item more, which tells whether there is another page.
    pub(super) fn part<K: Mark>(&self) -> Outcome<Part<K>> {
        let read = |text: &String| K::from_text(text).ok_or_else(wrong_cursor);
        Ok(Part {
            after: self.after.as_ref().map(read).transpose()?,
            limit: self.most().map(|it| it + 1),
        })
    }

    /// Makes a page of what the store gave for [`Page::part`].
    pub(super) fn cut<K: Mark, T>(
        self,
        mut items: Vec<T>,
        mark: impl Fn(&T) -> K,
    ) -> (Vec<T>, Paged) {
        let limit = self.most().map_or(usize::MAX, |it| it as usize);
        let more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| more);
        let paged = Paged {
            count: items.len(),
            next_cursor: last.map(|last| encode(&mark(last).to_text())),
        };
        (items, paged)
    }

    fn most(&self) -> Option<u32> {
        self.limit.or(self.after.as_ref().map(|_| MAX_LIMIT))
    }
}

fn wrong_cursor() -> Failure {
    Failure::bad("Parameter 'cursor' must be a next_cursor of this list")
}

fn encode(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{VERSION}{key}"))
}

fn decode(cursor: &str) -> Result<String, Failure> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.strip_prefix(VERSION).map(str::to_owned))
        .ok_or_else(wrong_cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all: Vec<u64> = (1..=5).collect();
        let page = |limit, after| Page { limit, after };
        let mut after = None;
        let mut seen = Vec::new();
        for _ in 0..3 {
            let page = page(Some(2), after);
            let part = page.part::<u64>().unwrap();
            let behind = all.iter().copied().filter(|it| Some(*it) > part.after);
            let given = behind.take(part.limit.unwrap() as usize).collect();
            let (items, paged) = page.cut(given, |it| *it);
            assert_eq!(paged.count, items.len());
            seen.extend(items);
            after = paged.next_cursor.map(|cursor| decode(&cursor).unwrap());
        }
        assert_eq!((seen, after), (all.clone(), None));
        let (whole, paged) = page(None, None).cut(all.clone(), |it| *it);
        assert_eq!((whole, paged.next_cursor), (all, None));
        assert_eq!(page(None, None).at_most(100).most(), Some(100));
        assert_eq!(page(None, Some("1".into())).most(), Some(MAX_LIMIT));
        assert!(page(None, Some("x".into())).part::<u64>().is_err());
    }

    #[test]
    fn cursors_are_ours_or_refused() {
        assert_eq!(decode(&encode("a:b")).unwrap(), "a:b");
        for wrong in ["!", "", &URL_SAFE_NO_PAD.encode("2:x")] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }
}
