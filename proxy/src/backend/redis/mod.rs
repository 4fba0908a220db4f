//! Redis's backends.

pub(crate) mod inbox;
pub(crate) mod links;
pub(crate) mod login;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use protocol_redis::reply::write::Version;

use super::Member;
use crate::protocol::PooledBackend;

use inbox::{Answer, Inbox};
use links::Links;
use login::Known;

/// A backend that has logged in.
pub(crate) struct Backend {
    pub(crate) member: Member,
    /// What its server is, and the commands that it knows.
    pub(crate) known: Arc<Known>,
    /// The version of the protocol that it speaks now.
    pub(crate) version: Version,
    pub(crate) inbox: Inbox,
}

impl Deref for Backend {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.member
    }
}

impl DerefMut for Backend {
    fn deref_mut(&mut self) -> &mut Member {
        &mut self.member
    }
}

impl PooledBackend for Backend {
    type Links = Links;
    type Answer = Answer;

    fn is_whole(&self) -> bool {
        self.inbox.is_whole()
    }
}

/// Whether a server that nobody asked anything ends the connection with this, or breaks the protocol.
pub(crate) fn ends_connection(bytes: &[u8]) -> bool {
    // It has nothing to say: subscriptions end before a connection is given back.
    !bytes.is_empty()
}
