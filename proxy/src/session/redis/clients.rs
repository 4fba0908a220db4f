//! The clients of each database, in all workers: what `CLIENT LIST` shows.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use control_store::DatabaseId;
use protocol_redis::reply::write::Version;

/// One client that has logged in.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(super) address: Option<IpAddr>,
    pub(super) user: Box<str>,
    pub(super) name: Vec<u8>,
    pub(super) library: Vec<u8>,
    pub(super) library_version: Vec<u8>,
    pub(super) since: Instant,
    pub(super) version: Version,
}

/// The clients of all databases.
#[derive(Default)]
pub(crate) struct Clients {
    last_id: AtomicU64,
    by_database: Mutex<HashMap<DatabaseId, BTreeMap<u64, Client>>>,
}

impl Clients {
    fn lock(&self) -> MutexGuard<'_, HashMap<DatabaseId, BTreeMap<u64, Client>>> {
        self.by_database
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no client has had.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A client has logged in, or says something new of itself.
    pub(super) fn put(&self, database: DatabaseId, id: u64, client: Client) {
        self.lock().entry(database).or_default().insert(id, client);
    }

    pub(super) fn remove(&self, database: DatabaseId, id: u64) {
        let mut all = self.lock();
        if let Some(clients) = all.get_mut(&database) {
            clients.remove(&id);
            if clients.is_empty() {
                all.remove(&database);
            }
        }
    }

    pub(super) fn count(&self, database: DatabaseId) -> usize {
        self.lock().get(&database).map_or(0, BTreeMap::len)
    }

    /// The clients of a database, one in a line; only those with these numbers, if any are given.
    pub(super) fn list(
        &self,
        database: DatabaseId,
        now: Instant,
        wanted: Option<&[u64]>,
        out: &mut Vec<u8>,
    ) {
        if let Some(clients) = self.lock().get(&database) {
            for (id, client) in clients {
                if wanted.is_none_or(|wanted| wanted.contains(id)) {
                    client.line(*id, now, out);
                }
            }
        }
    }
}

impl Client {
    /// As a server writes it, with what is known here.
    fn line(&self, id: u64, now: Instant, out: &mut Vec<u8>) {
        let age = now.saturating_duration_since(self.since).as_secs();
        let resp = match self.version {
            Version::Resp2 => 2,
            Version::Resp3 => 3,
        };
        // Writing to memory cannot fail.
        let _ = write!(out, "id={id} addr=");
        match self.address {
            Some(IpAddr::V6(address)) => drop(write!(out, "[{address}]:0")),
            Some(IpAddr::V4(address)) => drop(write!(out, "{address}:0")),
            None => out.extend_from_slice(b"unix:0"),
        }
        out.extend_from_slice(b" name=");
        out.extend_from_slice(&self.name);
        let _ = write!(
            out,
            " age={age} flags=N db=0 user={} resp={resp} lib-name=",
            self.user
        );
        out.extend_from_slice(&self.library);
        out.extend_from_slice(b" lib-ver=");
        out.extend_from_slice(&self.library_version);
        out.push(b'\n');
    }
}
