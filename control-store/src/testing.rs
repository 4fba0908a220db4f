//! What the tests of this crate share.

use std::collections::BTreeMap;

use tempfile::TempDir;

use crate::ids::ProjectId;
use crate::publish::load_all;
use crate::seal::Sealer;
use crate::secret::hex;
use crate::snapshot::Snapshot;
use crate::store::Store;

pub(crate) const PASSWORD: &str = "correct horse";

/// A store in a folder of its own.
pub(crate) struct Fixture {
    pub(crate) store: Store,
    folder: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            store: open(&folder),
            folder,
        }
    }

    /// What a crash leaves: the store is opened again beside the old handles, which never close cleanly.
    pub(crate) fn reopened(self) -> Self {
        let Self { store, folder } = self;
        let copy = tempfile::tempdir().expect("a temporary folder");
        for entry in folder.path().read_dir().expect("its entries").flatten() {
            // SQLite rebuilds the shared-memory index after a crash.
            if !entry.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
            }
        }
        drop(store);
        Self {
            store: open(&copy),
            folder: copy,
        }
    }

    pub(crate) fn project(&self) -> ProjectId {
        match self.store.snapshot().load().projects.keys().next() {
            Some(id) => id.clone(),
            None => self.another_project(),
        }
    }

    pub(crate) fn another_project(&self) -> ProjectId {
        let email = format!("{}@example.com", self.store.snapshot().load().generation);
        self.store
            .sign_up(&email, PASSWORD, "Shop", "enterprise")
            .expect("a sign-up")
            .project
    }

    /// The snapshot that grew change by change equals one built from disk.
    pub(crate) fn check(&self) {
        let fresh = self
            .store
            .read(|conn| load_all(conn, &self.store.sealer))
            .expect("a snapshot");
        assert_eq!(describe(&self.store.snapshot().load()), describe(&fresh));
    }
}

fn open(folder: &TempDir) -> Store {
    let sealer = Sealer::from_key(&[1; 32]).expect("a sealer");
    Store::open(&folder.path().join("store.db"), sealer).expect("a store")
}

/// Everything a snapshot holds but its generation, in a form that compares and prints.
pub(crate) fn describe(s: &Snapshot) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (id, p) in &s.projects {
        let keys: Vec<_> = p.keys.iter().map(|k| k.id).collect();
        all.insert(
            format!("project {id}"),
            format!(
                "{} {} {} {keys:?}",
                p.id,
                hex(&p.scram_salt),
                p.scram_iterations
            ),
        );
    }
    for (hash, k) in &s.api_keys {
        let keys = format!("{} {}", hex(&k.stored_key), hex(&k.server_key));
        all.insert(
            format!("key {}", hex(hash)),
            format!("{} {} {:?} {:?} {keys}", k.id, k.project, k.role, k.scope),
        );
    }
    for (id, v) in &s.servers {
        let text = format!(
            "{} {:?} {:?} {} {}",
            v.id, v.engine, v.address, v.connection_budget, v.region
        );
        all.insert(format!("server {id}"), text);
    }
    for (name, id) in &s.names {
        all.insert(format!("name {name:?}"), id.to_string());
    }
    for (id, d) in &s.databases {
        let place = format!(
            "{} {} {:?} {} {} {:?} {}",
            d.id, d.project, d.engine, d.name, d.blueprint, d.kind, d.server
        );
        let rules = format!(
            "{:?} {:?} {:?} {}",
            d.status, d.settings, d.pool_mode, d.schema_epoch
        );
        let roles = hex(&crate::roles::encode(&d.native_roles).expect("roles"));
        all.insert(format!("database {id}"), format!("{place} {rules} {roles}"));
    }
    all
}
