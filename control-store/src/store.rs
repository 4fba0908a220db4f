//! The store: one file, one writer, and the snapshot that follows it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::audit;
use crate::error::StoreError;
use crate::ids::{DatabaseId, KeyId, ServerId};
use crate::migrate::migrate;
use crate::publish::{self, Dirty};
use crate::seal::{Purpose, Sealer};
use crate::snapshot::SnapshotCell;

/// What changed in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvent {
    /// The generation of the snapshot that shows it.
    pub generation: u64,
    /// Databases that are new, gone, or routed otherwise.
    pub databases: Vec<DatabaseId>,
    /// Keys that are new or gone.
    pub keys: Vec<KeyId>,
    /// Servers that are new, gone, or reached otherwise.
    pub servers: Vec<ServerId>,
}

type Subscriber = Box<dyn Fn(&ChangeEvent) + Send + Sync>;

/// The durable state. Each change is on disk before it is acknowledged, and before the snapshot shows it. Its operations
/// block for as long as the disk takes: call them off the async threads.
pub struct Store {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    pub(crate) sealer: Sealer,
    /// Held while a password is hashed, which takes 19 MiB: one at a time bounds the memory.
    pub(crate) hashing: Mutex<()>,
    snapshot: SnapshotCell,
    subscribers: RwLock<Vec<Subscriber>>,
}

impl Store {
    /// Opens the store in that file, makes it if there is none, and brings its schema up to date. That only one process
    /// has it open is the caller's to ensure.
    ///
    /// # Errors
    /// The file was written by a newer program or with another sealing key, or cannot be read.
    pub fn open(path: &Path, sealer: Sealer) -> Result<Self, StoreError> {
        let mut writer = connect(path)?;
        migrate(&mut writer)?;
        check_seal(&mut writer, &sealer)?;
        let reader = connect(path)?;
        reader.pragma_update(None, "query_only", true)?;
        let snapshot = SnapshotCell::new(publish::load_all(&reader, &sealer)?);
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            sealer,
            hashing: Mutex::new(()),
            snapshot,
            subscribers: RwLock::new(Vec::new()),
        })
    }

    /// The cell with the newest snapshot.
    pub fn snapshot(&self) -> &SnapshotCell {
        &self.snapshot
    }

    /// Calls `subscriber` after each change of the snapshot, in their order, before the change is acknowledged. It must be
    /// quick and must not call the store.
    pub fn subscribe(&self, subscriber: impl Fn(&ChangeEvent) + Send + Sync + 'static) {
        self.subscribers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(subscriber));
    }

    /// Copies the store into a new file, whole and consistent, while it goes on serving.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let own = lock(&self.reader).path().map(PathBuf::from);
        let own = own.ok_or(StoreError::Corrupt { what: "path" })?;
        // A connection for this alone: the reader may not write, and the writer is not to wait.
        connect(&own)?.execute("VACUUM INTO ?1", [path.to_string_lossy()])?;
        Ok(())
    }

    pub(crate) fn read<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        f(&lock(&self.reader))
    }

    /// Runs `f` in a transaction. Once that is durable, the snapshot shows what `f` marked, and subscribers hear of it.
    pub(crate) fn write<T>(
        &self,
        f: impl FnOnce(&Transaction<'_>, &mut Dirty) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut conn = lock(&self.writer);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut dirty = Dirty::default();
        let value = f(&tx, &mut dirty)?;
        let note = audit::unwritten();
        let noted = note.as_ref().map(|it| it.write(&tx)).transpose()?.flatten();
        // Read back before the commit, so that what cannot be published is not committed either.
        let fresh = publish::load(&tx, &self.sealer, dirty, &self.snapshot.load())?;
        tx.commit()?;
        if let (Some(note), Some(row)) = (note, noted) {
            note.committed(row);
        }
        if let Some(event) = fresh.publish(&self.snapshot) {
            self.tell(&event);
        }
        Ok(value)
    }

    fn tell(&self, event: &ChangeEvent) {
        for subscriber in self
            .subscribers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            subscriber(event);
        }
    }
}

/// A panic while the lock was held rolled its transaction back, so the connection is as good as before.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(conn)
}

/// Notes on first use what the key seals, and later refuses a key that does not open it.
fn check_seal(conn: &mut Connection, sealer: &Sealer) -> Result<(), StoreError> {
    let found: Option<Vec<u8>> = conn
        .query_row(
            "SELECT value FROM facts WHERE name = 'seal-check'",
            [],
            |r| r.get(0),
        )
        .optional()?;
    match found {
        Some(sealed) => sealer
            .open(Purpose::Check, 0, &sealed)
            .map(drop)
            .map_err(|_| StoreError::WrongSealingKey),
        None => {
            let sealed = sealer.seal(Purpose::Check, 0, b"tenantsdb")?;
            conn.execute(
                "INSERT INTO facts (name, value) VALUES ('seal-check', ?1)",
                [sealed],
            )?;
            Ok(())
        }
    }
}

/// The next id of that kind; none is ever given twice.
pub(crate) fn next_id(tx: &Transaction<'_>, kind: &str) -> Result<u64, StoreError> {
    let id: u64 = tx
        .prepare_cached(
            "INSERT INTO next_ids (kind, next) VALUES (?1, 2)
             ON CONFLICT (kind) DO UPDATE SET next = next + 1 RETURNING next - 1",
        )?
        .query_row([kind], |r| r.get(0))?;
    Ok(id)
}

pub(crate) fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

/// A stored time.
pub(crate) fn time(us: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(us).map_err(|_| StoreError::Corrupt { what: "time" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, describe};

    #[test]
    fn a_copy_is_whole_while_the_store_goes_on() {
        let f = Fixture::new();
        f.project();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy.db");
        f.store.copy_to(&path).unwrap();
        let sealer = || Sealer::from_key(&[1; 32]).unwrap();
        let copy = Store::open(&path, sealer()).unwrap();
        let all = |store: &Store| describe(&store.snapshot().load());
        assert_eq!(all(&copy), all(&f.store));
        f.another_project();
        assert_ne!(all(&copy), all(&f.store));
        assert!(f.store.copy_to(&path).is_err(), "what is there stays");
    }
}
