//! Lists page by page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control_store::page::{Part, Place};
use jiff::Timestamp;

use super::input::Params;
use crate::app::failure::Failure;

/// What a cursor begins with; another layout takes another number.
const VERSION: &str = "1:";
/// Longer lists come in several pages.
const MAX_LIMIT: usize = 1000;

/// Which part of a list was asked for: everything, unless told otherwise.
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<String>,
}

/// A part of a list.
pub(super) struct Slice<T> {
    pub(super) items: Vec<T>,
    /// Where the next part begins, if there is more.
    pub(super) next_cursor: Option<String>,
}

impl Page {
    /// Takes `limit` and `cursor`.
    pub(super) fn read(params: &mut Params) -> Result<Self, Failure> {
        let limit = params.number("limit", 1, MAX_LIMIT)?;
        let after = params
            .text("cursor")
            .map(|text| decode(&text))
            .transpose()?;
        Ok(Self { limit, after })
    }

    /// What the store is to give of a list that is ordered by time: one item more, which tells whether there is another page.
    pub(super) fn part(&self) -> Result<Part, Failure> {
        let after = self.after.as_deref().map(place).transpose()?;
        Ok(Part {
            after,
            limit: self.most().map(|it| it + 1),
        })
    }

    /// Makes a page of what the store gave for [`Page::part`].
    pub(super) fn of_part<T>(self, mut items: Vec<T>, at: impl Fn(&T) -> Place) -> Slice<T> {
        let limit = self.most().map_or(usize::MAX, |it| it as usize);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| {
            let place = at(last);
            encode(&format!("{}:{}", place.at.as_microsecond(), place.id))
        });
        Slice { items, next_cursor }
    }

    fn most(&self) -> Option<u32> {
        let most = self.limit.or(self.after.as_ref().map(|_| MAX_LIMIT));
        most.and_then(|it| u32::try_from(it).ok())
    }

    /// Cuts the part out of a short list. `key` tells an item from all others; an item that is gone since ends the pages with a
    /// clear error rather than with a gap.
    pub(super) fn cut<T>(
        self,
        mut items: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> Result<Slice<T>, Failure> {
        if let Some(after) = &self.after {
            let at = items
                .iter()
                .position(|item| key(item) == *after)
                .ok_or_else(|| {
                    Failure::bad("Parameter 'cursor' points at something that is gone: begin again without it")
                })?;
            items.drain(..=at);
        }
        let limit = self
            .limit
            .or(self.after.as_ref().map(|_| MAX_LIMIT))
            .unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| encode(&key(last)));
        Ok(Slice { items, next_cursor })
    }
}

fn place(key: &str) -> Result<Place, Failure> {
    let read = || {
        let (at, id) = key.split_once(':')?;
        let at = Timestamp::from_microsecond(at.parse().ok()?).ok()?;
        let id = id.to_owned();
        Some(Place { at, id })
    };
    read().ok_or_else(wrong_cursor)
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
        let all: Vec<u32> = (0..5).collect();
        let mut after = None;
        let mut seen = Vec::new();
        for _ in 0..3 {
            let page = Page {
                limit: Some(2),
                after,
            };
            let slice = page.cut(all.clone(), u32::to_string).unwrap();
            seen.extend(slice.items);
            after = slice.next_cursor.map(|cursor| decode(&cursor).unwrap());
        }
        assert_eq!((seen, after), (all.clone(), None));
        let whole = Page {
            limit: None,
            after: None,
        };
        assert_eq!(whole.cut(all, u32::to_string).unwrap().items.len(), 5);
        for (cursor, place) in [("5:a:b", Some((5, "a:b"))), ("x:a", None), ("5", None)] {
            let page = Page {
                limit: Some(2),
                after: Some(cursor.into()),
            };
            let part = page.part().ok();
            assert_eq!(part.as_ref().map(|it| it.limit), place.map(|_| Some(3)));
            let after = part.and_then(|it| it.after);
            let after = after
                .as_ref()
                .map(|it| (it.at.as_microsecond(), it.id.as_str()));
            assert_eq!(after, place, "{cursor}");
        }
        assert!(decode("!").is_err());
        assert!(decode(&URL_SAFE_NO_PAD.encode("2:x")).is_err());
    }
}
