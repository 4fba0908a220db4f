//! What is put in front of keys and channels, and taken away again.

use super::glob;
use crate::command::Role;

/// A prefix that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// `SORT` would take a star for its own.
    #[error("a prefix must not contain `*`")]
    Star,
    /// Channels of notifications would be taken for others.
    #[error("a prefix must not begin with `__`")]
    Underscores,
}

/// The names in which notifications come on database 0.
const KEYSPACE: &[u8] = b"__keyspace@0__:";
const KEYEVENT: &[u8] = b"__keyevent@0__:";

/// Turns a client's commands into those for the server that holds its database, and replies into the client's. One for each
/// database.
#[derive(Clone, Debug)]
pub struct Rewriter {
    prefix: Box<[u8]>,
    /// The prefix as a pattern.
    pattern: Box<[u8]>,
    /// The channels of notifications by key, with the prefix; and as a pattern.
    keyspace: Box<[u8]>,
    keyspace_pattern: Box<[u8]>,
    /// The channels of notifications by event.
    keyevent: Box<[u8]>,
    /// The patterns that the native user may subscribe to.
    bases: [Box<[u8]>; 3],
    number: u32,
    /// What the names of the database's functions and libraries begin with.
    namespace: Box<[u8]>,
}

/// Which of the [`Rewriter::base_patterns`] a client's pattern needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bases {
    /// The first.
    pub channels: bool,
    /// The second.
    pub keyspace: bool,
    /// The third.
    pub keyevent: bool,
}

/// How an argument is changed: so many of its bytes are replaced by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit<'a> {
    pub(super) drop: usize,
    pub(super) head: &'a [u8],
}

impl Edit<'_> {
    pub(super) const fn is_nothing(self) -> bool {
        self.drop == 0 && self.head.is_empty()
    }
}

impl Rewriter {
    /// For a database behind `prefix` in the server's logical database `number`. No prefix and 0: the server is the
    /// database's own, and nothing is changed.
    ///
    /// # Errors
    /// A prefix that cannot be one.
    pub fn new(prefix: &[u8], number: u32) -> Result<Self, PrefixError> {
        if prefix.contains(&b'*') {
            return Err(PrefixError::Star);
        }
        if prefix.starts_with(b"__") {
            return Err(PrefixError::Underscores);
        }
        let mut pattern = Vec::new();
        glob::escape(prefix, &mut pattern);
        let keyspace = format!("__keyspace@{number}__:");
        let keyevent = format!("__keyevent@{number}__:");
        let join = |parts: &[&[u8]]| parts.concat().into_boxed_slice();
        Ok(Self {
            keyspace: join(&[keyspace.as_bytes(), prefix]),
            keyspace_pattern: join(&[keyspace.as_bytes(), &pattern]),
            keyevent: join(&[keyevent.as_bytes()]),
            bases: [
                join(&[&pattern, b"*"]),
                join(&[keyspace.as_bytes(), &pattern, b"*"]),
                join(&[keyevent.as_bytes(), b"*"]),
            ],
            prefix: prefix.into(),
            pattern: pattern.into(),
            number,
            namespace: Box::default(),
        })
    }

    /// The same, for a database the names of whose functions and libraries begin so: letters, digits and underscores. Others cannot
    /// guess it, and no client is told.
    #[must_use]
    pub fn with_namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.as_bytes().into();
        self
    }

    /// What the names of the database's functions and libraries begin with.
    pub fn namespace(&self) -> &[u8] {
        &self.namespace
    }

    /// Whether nothing is ever changed.
    #[inline]
    pub fn is_identity(&self) -> bool {
        self.prefix.is_empty() && self.number == 0
    }

    /// What keys begin with.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// [`Rewriter::prefix`] as a pattern.
    pub(super) fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// The patterns of channels that the native user may subscribe to: its own, notifications by key, notifications by event.
    pub fn base_patterns(&self) -> [&[u8]; 3] {
        self.bases.each_ref().map(AsRef::as_ref)
    }

    /// Which of [`Rewriter::base_patterns`] may bring messages that a client's pattern matches.
    pub fn bases_for(&self, pattern: &[u8]) -> Bases {
        let literal = glob::literal_head(pattern);
        let may = |head: &[u8]| literal.starts_with(head) || head.starts_with(&literal);
        Bases {
            channels: !literal.starts_with(KEYSPACE) && !literal.starts_with(KEYEVENT),
            keyspace: may(KEYSPACE),
            keyevent: may(KEYEVENT),
        }
    }

    /// How the argument that is `arg`, or begins so, is changed on its way to the server.
    #[inline]
    pub(super) fn edit(&self, role: Role, arg: &[u8]) -> Edit<'_> {
        let put = |head| Edit { drop: 0, head };
        match role {
            Role::Other => put(&[]),
            Role::Key(_) | Role::ShardChannel | Role::TrackingPrefix => put(&self.prefix),
            Role::KeyPattern | Role::ShardPattern => put(&self.pattern),
            Role::SortBy | Role::SortGet if arg.contains(&b'*') => put(&self.prefix),
            Role::SortBy | Role::SortGet => put(&[]),
            Role::Channel => self.edit_channel(arg, &self.keyspace, &self.prefix),
            Role::ChannelPattern => self.edit_channel(arg, &self.keyspace_pattern, &self.pattern),
        }
    }

    fn edit_channel<'a>(&'a self, arg: &[u8], keyspace: &'a [u8], other: &'a [u8]) -> Edit<'a> {
        let drop = KEYSPACE.len();
        if arg.starts_with(KEYSPACE) {
            return Edit {
                drop,
                head: keyspace,
            };
        }
        if arg.starts_with(KEYEVENT) {
            let head = &self.keyevent;
            return Edit { drop, head };
        }
        Edit {
            drop: 0,
            head: other,
        }
    }

    /// A key as the client knows it. `None`: it is not the client's.
    #[inline]
    pub fn client_key<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(&*self.prefix)
    }

    /// How a channel is changed on its way to the client. `None`: it is not the client's.
    pub(super) fn edit_back(&self, channel: &[u8]) -> Option<Edit<'static>> {
        self.back(channel, &self.keyspace, &self.prefix)
    }

    /// As [`Rewriter::edit_back`], for a pattern.
    pub(super) fn edit_pattern_back(&self, pattern: &[u8]) -> Option<Edit<'static>> {
        self.back(pattern, &self.keyspace_pattern, &self.pattern)
    }

    fn back(&self, name: &[u8], keyspace: &[u8], other: &[u8]) -> Option<Edit<'static>> {
        let edit = |drop: &[u8], head| {
            let drop = drop.len();
            Some(Edit { drop, head })
        };
        if name.starts_with(keyspace) {
            return edit(keyspace, KEYSPACE);
        }
        if name.starts_with(&self.keyevent) {
            return edit(&self.keyevent, KEYEVENT);
        }
        match name.starts_with(other) {
            true => edit(other, &[]),
            false => None,
        }
    }

    /// Appends a channel as the client knows it; `false`, and nothing appended: it is not the client's.
    pub fn client_channel(&self, channel: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(edit) = self.edit_back(channel) else {
            return false;
        };
        out.extend_from_slice(edit.head);
        out.extend_from_slice(channel.get(edit.drop..).unwrap_or_default());
        true
    }

    /// Appends a client's channel as the server knows it.
    pub fn server_channel(&self, channel: &[u8], out: &mut Vec<u8>) {
        let edit = self.edit(Role::Channel, channel);
        out.extend_from_slice(edit.head);
        out.extend_from_slice(channel.get(edit.drop..).unwrap_or_default());
    }

    /// Whether messages of the channel, as the server knows it, are keys.
    pub fn brings_keys(&self, channel: &[u8]) -> bool {
        channel.starts_with(&self.keyevent)
    }
}
