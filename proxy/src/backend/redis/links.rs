//! Connections that the sessions of one database share: the commands of many clients go out together, and the replies come back
//! in the same order.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use control_store::{DatabaseId, ServerId};
use protocol_redis::reply::write::Version;
use slab::Slab;

use super::Backend;
use super::inbox::{Answer, How, Owed};
use super::login::Known;
use crate::backend::pool::{LinkId, SessionRef};
use crate::backend::{BackendId, PoolKey};
use crate::protocol;
use crate::reactor::{Buf, ConnId};

/// How long a link that nobody uses keeps its backend.
const IDLE: Duration = Duration::from_secs(5);

/// A script that runs for so long is stopped, since nobody else is served meanwhile. Servers have the same limit
/// (`busy-reply-threshold`), and stop none before.
pub(crate) const SCRIPT_TIME: Duration = Duration::from_secs(5);

/// Whose commands go over a link: those of one database and role, in one version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkKey {
    pub(crate) pool: PoolKey,
    pub(crate) version: Version,
}

impl Hash for LinkKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.pool, self.version == Version::Resp3).hash(state);
    }
}

struct Link {
    key: LinkKey,
    backend: Option<Box<Backend>>,
    /// A backend was asked for.
    asked: bool,
    waiting: Vec<SessionRef>,
    used: Instant,
    retired: bool,
    /// When its server was last told to end a script that keeps everybody waiting.
    urged: Instant,
}

/// No session is this one: the reply is dropped.
const NOBODY: SessionRef = SessionRef {
    slot: u32::MAX,
    serial: u64::MAX,
};

/// How a link stands, for a session that would send over it.
pub(crate) enum Standing {
    /// It may.
    Ready {
        conn: ConnId,
        server: ServerId,
        /// The server speaks the link's version of the protocol.
        speaks: bool,
    },
    /// Its backend is on the way.
    Coming,
    /// Nobody has asked for one.
    Absent,
}

/// The links of one worker.
#[derive(Default)]
pub(crate) struct Links {
    links: Slab<Link>,
    by_key: AHashMap<LinkKey, LinkId>,
}

impl Links {
    /// The link of that key, which may have to get a backend yet.
    pub(crate) fn find(&mut self, key: LinkKey, now: Instant) -> LinkId {
        let links = &mut self.links;
        *self.by_key.entry(key).or_insert_with(|| {
            let link = Link {
                key,
                backend: None,
                asked: false,
                waiting: Vec::new(),
                used: now,
                retired: false,
                urged: now,
            };
            LinkId(u32::try_from(links.insert(link)).unwrap_or(u32::MAX))
        })
    }

    fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.0 as usize)
    }

    /// Whether a session may send; `key` is what the session takes the link for.
    #[inline]
    pub(crate) fn standing(&mut self, id: LinkId, key: LinkKey, now: Instant) -> Option<Standing> {
        let link = self
            .get(id)
            .filter(|link| link.key == key && !link.retired)?;
        link.used = now;
        Some(match &link.backend {
            Some(backend) => Standing::Ready {
                conn: backend.conn,
                server: backend.server,
                speaks: backend.version == link.key.version,
            },
            None if link.asked => Standing::Coming,
            None => Standing::Absent,
        })
    }

    /// What the link's server is and knows.
    pub(crate) fn known(&mut self, id: LinkId) -> Option<Arc<Known>> {
        let backend = self.get(id)?.backend.as_ref()?;
        Some(Arc::clone(&backend.known))
    }

    /// The link's connection, if it stands.
    pub(crate) fn conn(&self, id: LinkId) -> Option<ConnId> {
        let link = self.links.get(id.0 as usize)?;
        link.backend.as_ref().map(|backend| backend.conn)
    }

    /// A backend has been asked for.
    pub(crate) fn asked(&mut self, id: LinkId) {
        if let Some(link) = self.get(id) {
            link.asked = true;
        }
    }

    /// The backend that was asked for came at once.
    pub(crate) fn put(&mut self, id: LinkId, backend: Box<Backend>) {
        if let Some(link) = self.get(id) {
            link.asked = false;
            link.backend = Some(backend);
        }
    }

    /// No more is sent over the link, because it leads to a server that the database has left. It ends once all is answered.
    pub(crate) fn retire(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id.0 as usize) {
            link.retired = true;
            let key = link.key;
            if self.by_key.get(&key) == Some(&id) {
                self.by_key.remove(&key);
            }
        }
    }

    /// The server was told to speak the link's version.
    pub(crate) fn spoke(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.get(id)
            && let Some(backend) = link.backend.as_mut()
        {
            backend.version = link.key.version;
            backend.inbox.owe(Owed {
                session: NOBODY,
                how: How::Whole,
                since: now,
            });
        }
    }

    /// A session is to be told once the link stands.
    pub(crate) fn wait(&mut self, id: LinkId, session: SessionRef) {
        if let Some(link) = self.get(id) {
            link.waiting.push(session);
        }
    }

    /// One more command has been sent.
    #[inline]
    pub(crate) fn owe(&mut self, id: LinkId, owed: Owed) {
        if let Some(backend) = self.get(id).and_then(|link| link.backend.as_mut()) {
            backend.inbox.owe(owed);
        }
    }

    fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.try_remove(id.0 as usize)?;
        if self.by_key.get(&link.key) == Some(&id) {
            self.by_key.remove(&link.key);
        }
        Some(link)
    }
}

impl protocol::Links<Backend> for Links {
    fn received(&mut self, link: LinkId, buf: Buf) {
        if let Some(backend) = self.get(link).and_then(|link| link.backend.as_mut()) {
            backend.inbox.receive(buf);
        }
    }

    fn next(&mut self, link: LinkId) -> Option<(SessionRef, Answer)> {
        let backend = self.get(link)?.backend.as_mut()?;
        loop {
            // Nobody has subscribed here: what is for nobody is dropped.
            if let (Some(session), answer) = backend.inbox.next()? {
                return Some((session, answer));
            }
        }
    }

    fn is_broken(&mut self, link: LinkId) -> bool {
        let backend = self.get(link).and_then(|link| link.backend.as_ref());
        backend.is_some_and(|backend| backend.inbox.is_broken())
    }

    fn leased(
        &mut self,
        link: LinkId,
        backend: Box<Backend>,
    ) -> Result<Vec<SessionRef>, Box<Backend>> {
        match self.get(link) {
            Some(it) if it.key.pool == backend.pool && it.backend.is_none() => {
                it.asked = false;
                it.backend = Some(backend);
                Ok(std::mem::take(&mut it.waiting))
            }
            _ => Err(backend),
        }
    }

    fn lost(&mut self, link: LinkId) -> Vec<SessionRef> {
        let Some(link) = self.remove(link) else {
            return Vec::new();
        };
        let mut sessions = link.waiting;
        if let Some(backend) = &link.backend {
            sessions.extend(backend.inbox.creditors());
        }
        sessions.sort_unstable_by_key(|session| (session.slot, session.serial));
        sessions.dedup();
        sessions
    }

    fn tick(&mut self, now: Instant) -> Vec<Box<Backend>> {
        let idle: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| {
                let at_rest = match &link.backend {
                    Some(backend) => backend.inbox.is_at_rest(),
                    None => !link.asked,
                };
                at_rest
                    && link.waiting.is_empty()
                    && (link.retired || now.saturating_duration_since(link.used) >= IDLE)
            })
            .filter_map(|(id, _)| u32::try_from(id).ok().map(LinkId))
            .collect();
        idle.into_iter()
            .filter_map(|id| self.remove(id)?.backend)
            .collect()
    }

    fn late(&mut self, now: Instant) -> Vec<BackendId> {
        let mut late = Vec::new();
        for (_, link) in &mut self.links {
            let Some(backend) = &link.backend else {
                continue;
            };
            let since = backend.inbox.late_since();
            let since = since.map_or(now, |since| since.max(link.urged));
            if now.saturating_duration_since(since) >= SCRIPT_TIME {
                link.urged = now;
                late.push(backend.id);
            }
        }
        late
    }

    fn close(&mut self, database: DatabaseId) -> Vec<Box<Backend>> {
        let doomed: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| link.key.pool.database == database)
            .filter_map(|(id, _)| u32::try_from(id).ok().map(LinkId))
            .collect();
        doomed
            .into_iter()
            .filter_map(|id| self.remove(id)?.backend)
            .collect()
    }
}
