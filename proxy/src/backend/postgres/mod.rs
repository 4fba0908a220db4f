//! PostgreSQL's backends.

pub(crate) mod handshake;
pub(crate) mod prepared;

use std::convert::Infallible;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use protocol_postgres::backend::ErrorFields;
use protocol_postgres::frame::{self, Split};

use super::Member;
use crate::protocol::PooledBackend;
use crate::session::postgres::replay::Replay;
use crate::session::postgres::replies::Replies;
use crate::session::postgres::settings::SettingSet;

use prepared::Prepared;

/// Terminate.
pub(crate) const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// What the server reported of its settings when the backend logged in.
pub(crate) type Parameters = Vec<(Box<[u8]>, Box<[u8]>)>;

/// A backend that has logged in.
pub(crate) struct Backend {
    pub(crate) member: Member,
    pub(crate) parameters: Rc<Parameters>,
    pub(crate) replies: Replies,
    pub(crate) prepared: Prepared,
    /// What is set on it now.
    pub(crate) settings: Rc<SettingSet>,
    /// The schema that its prepared statements were made for.
    pub(crate) schema_epoch: u64,
    /// The message that is just coming in.
    pub(crate) incoming: Incoming,
    /// What the batch that runs could be repeated with.
    pub(crate) replay: Replay,
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
    type Links = ();
    type Answer = Infallible;

    fn is_whole(&self) -> bool {
        self.incoming.carry.is_empty() && self.incoming.remaining == 0
    }
}

/// How far the message is that a backend is sending.
#[derive(Default)]
pub(crate) struct Incoming {
    /// The beginning of a message that must be seen whole, or of a header.
    pub(crate) carry: Vec<u8>,
    /// Bytes of a body that are still to come.
    pub(crate) remaining: u64,
    /// Whether they go to the client.
    pub(crate) forward: bool,
}

/// Whether a server that nobody asked anything ends the connection, or breaks the protocol.
pub(crate) fn ends_connection(mut bytes: &[u8]) -> bool {
    const MAX_BODY: u32 = 64 << 10;
    while !bytes.is_empty() {
        match frame::split(bytes, MAX_BODY) {
            Ok(Split::Message { tag, body, used }) => {
                let harmless = match tag {
                    b'S' | b'N' | b'A' => true,
                    b'E' => ErrorFields::decode(body).is_ok_and(|fields| !fields.is_fatal()),
                    _ => false,
                };
                if !harmless {
                    return true;
                }
                bytes = bytes.get(used..).unwrap_or_default();
            }
            Ok(Split::Need(_)) | Err(_) => return true,
        }
    }
    false
}
