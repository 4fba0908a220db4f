//! Answers to requests with an `Idempotency-Key`: the same request gets the same answer for a day.

use std::time::Duration;

use rusqlite::OptionalExtension as _;

use crate::error::StoreError;
use crate::seal::Purpose;
use crate::secret::sha256;
use crate::store::{Store, next_id, now_us};

/// How long an answer is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(86_400);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedAnswer {
    /// See [`request_digest`].
    pub request: [u8; 32],
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// What tells a request from another one under the same key.
pub fn request_digest(method: &str, path: &str, body: &[u8]) -> [u8; 32] {
    sha256(&[method.as_bytes(), b" ", path.as_bytes(), b"\0", body].concat())
}

/// Answers from before this moment are forgotten.
fn oldest() -> i64 {
    now_us().saturating_sub(i64::try_from(REMEMBERED.as_micros()).unwrap_or(i64::MAX))
}

impl Store {
    /// The answer that this scope got under this name within [`REMEMBERED`].
    ///
    /// # Errors
    /// The store failed.
    pub fn remembered_answer(
        &self,
        scope: &str,
        name: &str,
    ) -> Result<Option<RememberedAnswer>, StoreError> {
        let found: Option<(u64, [u8; 32], u16, Vec<u8>)> = self.read(|conn| {
            Ok(conn
                .prepare_cached(
                    "SELECT id, request, status, sealed_body FROM answers
                     WHERE scope = ?1 AND name = ?2 AND at > ?3",
                )?
                .query_row((scope, name, oldest()), |r| {
                    Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
                })
                .optional()?)
        })?;
        let Some((id, request, status, sealed)) = found else {
            return Ok(None);
        };
        let body = self.sealer.open(Purpose::Answer, id, &sealed)?.to_vec();
        Ok(Some(RememberedAnswer {
            request,
            status,
            body,
        }))
    }

    /// Remembers an answer, and forgets those that are too old. One that is there stays.
    ///
    /// # Errors
    /// The store failed.
    pub fn remember_answer(
        &self,
        scope: &str,
        name: &str,
        answer: &RememberedAnswer,
    ) -> Result<(), StoreError> {
        self.write(|tx, _| {
            tx.execute("DELETE FROM answers WHERE at <= ?1", [oldest()])?;
            let id = next_id(tx, "answer")?;
            let sealed = self.sealer.seal(Purpose::Answer, id, &answer.body)?;
            tx.execute(
                "INSERT OR IGNORE INTO answers (id, scope, name, request, status, sealed_body, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                (
                    id,
                    scope,
                    name,
                    answer.request,
                    answer.status,
                    sealed,
                    now_us(),
                ),
            )?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn an_answer_outlives_the_process_and_belongs_to_who_got_it() {
        let f = Fixture::new();
        let answer = RememberedAnswer {
            request: request_digest("POST", "/projects", b"{}"),
            status: 201,
            body: b"{\"api_key\":\"secret\"}".to_vec(),
        };
        f.store.remember_answer("key 1", "a", &answer).unwrap();
        let other = RememberedAnswer {
            status: 409,
            ..answer.clone()
        };
        f.store.remember_answer("key 1", "a", &other).unwrap();
        let f = f.reopened();
        let found = |scope, name| f.store.remembered_answer(scope, name).unwrap();
        assert_eq!(found("key 1", "a"), Some(answer));
        assert_eq!(found("key 2", "a"), None);
        assert_eq!(found("key 1", "b"), None);
    }

    #[test]
    fn requests_differ_by_method_path_and_body() {
        let all = [
            request_digest("POST", "/a", b"{}"),
            request_digest("POST", "/a", b"{ }"),
            request_digest("POST", "/b", b"{}"),
            request_digest("PATCH", "/a", b"{}"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
    }
}
