//! Who changed what, when, and from where.

use jiff::Timestamp;

use crate::accounts::AccountId;
use crate::error::StoreError;
use crate::ids::{KeyId, ProjectId};
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
}

impl Store {
    /// Appends a record.
    ///
    /// # Errors
    /// The store failed.
    pub fn append_audit(&self, record: &AuditRecord) -> Result<(), StoreError> {
        self.write(|tx, _| {
            tx.prepare_cached(
                "INSERT INTO audit (at, account, project, key, address, action, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute((
                now_us(),
                record.account.map(|it| it.0),
                record.project.as_ref().map(ProjectId::as_str),
                record.key.map(|it| it.0),
                &record.address,
                &record.action,
                &record.detail,
            ))?;
            Ok(())
        })
    }

    /// A project's records, the newest first: at most `limit`, before the place `before` if given.
    ///
    /// # Errors
    /// The store failed.
    pub fn audit(
        &self,
        project: &ProjectId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT id, at, account, key, address, action, detail FROM audit
                 WHERE project = ?1 AND id < coalesce(?2, 9223372036854775807) ORDER BY id DESC LIMIT ?3",
            )?;
            let mut rows = statement.query((project.as_str(), before, limit))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(AuditEntry {
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
                });
            }
            Ok(found)
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
            f.store.append_audit(&record(&project, detail)).unwrap();
            f.store.append_audit(&record(&other, "not ours")).unwrap();
        }
        let f = f.reopened();
        let first = f.store.audit(&project, None, 2).unwrap();
        let second = f.store.audit(&project, Some(first[1].id), 2).unwrap();
        assert_eq!(first[0].record, record(&project, "c"));
        let all: Vec<_> = first
            .iter()
            .chain(&second)
            .map(|it| it.record.detail.as_str())
            .collect();
        assert_eq!(all, ["c", "b", "a"]);
    }
}
