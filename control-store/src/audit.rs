//! Who changed what, when, and from where.
//!
//! A record is written in the transaction of the first change that is made for it, so that no change is without one; what came
//! of it all is added when that is known.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rusqlite::Transaction;

use crate::accounts::AccountId;
use crate::error::StoreError;
use crate::ids::{KeyId, ProjectId};
use crate::page::{Part, list};
use crate::store::{Store, now_us, time};

/// Something that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// By which account, where it logged in as such.
    pub account: Option<AccountId>,
    /// In which project.
    pub project: Option<ProjectId>,
    /// With which key.
    pub key: Option<KeyId>,
    /// From which address.
    pub address: Option<String>,
    /// What: a word such as `tenant.create`.
    pub action: String,
    /// To what, in words without secrets.
    pub detail: String,
}

/// A record in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// Its place; grows.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub record: AuditRecord,
    /// The HTTP status of the answer; `None`: it is under way, or a crash cut it off.
    pub status: Option<u16>,
}

/// A record that is yet to be written. Cheap to clone: all clones are the same record.
#[derive(Clone)]
pub struct Note(Arc<Inner>);

struct Inner {
    /// Who asks is known only after the request was looked at.
    record: Box<dyn Fn() -> Option<AuditRecord> + Send + Sync>,
    /// The row, once it is committed.
    row: OnceLock<i64>,
}

thread_local! {
    static CURRENT: RefCell<Option<Note>> = const { RefCell::new(None) };
}

impl Note {
    /// A note that asks for its record when it is written.
    pub fn new(record: impl Fn() -> Option<AuditRecord> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            record: Box::new(record),
            row: OnceLock::new(),
        }))
    }

    /// Runs `f`, whose changes to the store on this thread are this note's.
    pub fn around<T>(&self, f: impl FnOnce() -> T) -> T {
        /// Puts back what was there, also after a panic.
        struct Restore(Option<Note>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.with_borrow_mut(|it| *it = self.0.take());
            }
        }
        let _restore = Restore(CURRENT.with_borrow_mut(|it| it.replace(self.clone())));
        f()
    }
}

/// The note of this thread, if it is not written yet.
pub(crate) fn unwritten() -> Option<Note> {
    CURRENT
        .with_borrow(Clone::clone)
        .filter(|it| it.0.row.get().is_none())
}

impl Note {
    /// Writes the record into a transaction; gives the row, for [`Note::committed`].
    pub(crate) fn write(&self, tx: &Transaction<'_>) -> Result<Option<i64>, StoreError> {
        let Some(record) = (self.0.record)() else {
            return Ok(None);
        };
        insert(tx, &record, None)?;
        Ok(Some(tx.last_insert_rowid()))
    }

    /// The transaction is durable.
    pub(crate) fn committed(&self, row: i64) {
        // A second row for the same note cannot be: the writer is one.
        let _ = self.0.row.set(row);
    }
}

fn insert(
    tx: &Transaction<'_>,
    record: &AuditRecord,
    status: Option<u16>,
) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO audit (at, account, project, key, address, action, detail, status)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        now_us(),
        record.account.map(|it| it.0),
        record.project.as_ref().map(ProjectId::as_str),
        record.key.map(|it| it.0),
        &record.address,
        &record.action,
        &record.detail,
        status,
    ))?;
    Ok(())
}

impl Store {
    /// Adds to a note's record what came of it. A record that no change has written yet is written now if that was a success:
    /// then what it changed is elsewhere.
    ///
    /// # Errors
    /// The store failed.
    pub fn finish_audit(&self, note: &Note, status: u16) -> Result<(), StoreError> {
        let succeeded = (200..300).contains(&status);
        match (note.0.row.get().copied(), (note.0.record)()) {
            (Some(row), _) => self.write(|tx, _| {
                tx.prepare_cached("UPDATE audit SET status = ?2 WHERE id = ?1")?
                    .execute((row, status))?;
                Ok(())
            }),
            (None, Some(record)) if succeeded => {
                self.write(|tx, _| insert(tx, &record, Some(status)))
            }
            (None, _) => Ok(()),
        }
    }

    /// A project's records, the newest first, by their places.
    ///
    /// # Errors
    /// The store failed.
    pub fn audit(
        &self,
        project: &ProjectId,
        part: &Part<u64>,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(|conn| {
            let sql = "SELECT id, at, account, key, address, action, detail, status FROM audit
                 WHERE project = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
            let place = (project.as_str(), part.below(), part.sql_limit());
            list(conn, sql, place, |row| {
                Ok(AuditEntry {
                    id: row.get(0)?,
                    at: time(row.get(1)?)?,
                    record: AuditRecord {
                        account: row.get::<_, Option<_>>(2)?.map(AccountId),
                        project: Some(project.clone()),
                        key: row.get::<_, Option<_>>(3)?.map(KeyId),
                        address: row.get(4)?,
                        action: row.get(5)?,
                        detail: row.get(6)?,
                    },
                    status: row.get(7)?,
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn the_log_is_read_backwards_page_by_page() {
        let f = Fixture::new();
        let (project, other) = (f.project(), f.another_project());
        let record = |project: &ProjectId, detail: &str| AuditRecord {
            account: Some(AccountId(1)),
            project: Some(project.clone()),
            key: None,
            address: Some("192.0.2.1".into()),
            action: "tenant.create".into(),
            detail: detail.into(),
        };
        for detail in ["a", "b", "c"] {
            for (of, detail) in [(&project, detail), (&other, "not ours")] {
                let record = record(of, detail);
                let note = Note::new(move || Some(record.clone()));
                f.store.finish_audit(&note, 200).unwrap();
            }
        }
        let f = f.reopened();
        let page = |after| {
            let limit = Some(2);
            f.store.audit(&project, &Part { after, limit })
        };
        let first = page(None).unwrap();
        let second = page(Some(first[1].id)).unwrap();
        assert_eq!(first[0].record, record(&project, "c"));
        let all: Vec<_> = first
            .iter()
            .chain(&second)
            .map(|it| it.record.detail.as_str())
            .collect();
        assert_eq!(all, ["c", "b", "a"]);
    }

    #[test]
    fn a_record_is_part_of_the_first_change_that_is_made_for_it() {
        let f = Fixture::new();
        let project = f.project();
        let about = project.clone();
        let note = Note::new(move || {
            Some(AuditRecord {
                account: None,
                project: Some(about.clone()),
                key: None,
                address: None,
                action: "test".into(),
                detail: String::new(),
            })
        });
        let statuses = || -> Vec<Option<u16>> {
            let entries = f.store.audit(&project, &Part::ALL).unwrap();
            entries.iter().map(|it| it.status).collect()
        };
        let failed: Result<(), _> = note.around(|| {
            f.store
                .write(|_, _| Err(StoreError::Corrupt { what: "test" }))
        });
        assert!(failed.is_err());
        assert_eq!(statuses(), [], "nothing was changed");
        note.around(|| f.store.write(|_, _| Ok(()))).unwrap();
        note.around(|| f.store.write(|_, _| Ok(()))).unwrap();
        assert_eq!(statuses(), [None], "as a crash would leave it");
        f.store.write(|_, _| Ok(())).unwrap();
        f.store.finish_audit(&note, 409).unwrap();
        assert_eq!(statuses(), [Some(409)]);
    }
}
