//! Commands whose keys or channels no description covers: how their arguments are read, as the server reads them.
//!
//! Redis describes keys only, so channels are here; options with keys that may stand anywhere (`SORT … STORE`); and options
//! whose value may look like another option (`XREAD COUNT streams`), which a search for a keyword would fall for.

use super::flags::KeyFlags;
use super::keys::{Begin, Find, KeySpec, Keys, Range, Role};

/// How a command's arguments are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `SORT key [BY pattern] [LIMIT a b] [GET pattern …] [STORE key]`.
    Sort,
    /// `GEORADIUS key … [STORE key] [STOREDIST key]`, options from this argument on.
    Georadius { options: u32 },
    /// `XREAD [COUNT n] [BLOCK n] STREAMS key … id …`; `XREADGROUP` too.
    Xread,
    /// `MIGRATE host port key|"" db timeout … [KEYS key …]`.
    Migrate,
    /// `SCAN cursor [MATCH pattern] …`.
    Scan,
    /// `CLIENT TRACKING ON|OFF … [PREFIX prefix] …`.
    Tracking,
}

const READ: Role = Role::Key(KeyFlags::RO.with(KeyFlags::ACCESS));
const STORE: Role = Role::Key(KeyFlags::OW.with(KeyFlags::UPDATE));
const MOVE: Role = Role::Key(KeyFlags::RW.with(KeyFlags::ACCESS).with(KeyFlags::DELETE));

/// What an argument turns out to be at which an option may begin.
pub(crate) struct Reading {
    /// What the argument is.
    pub(crate) role: Role,
    /// How many arguments behind it belong to it.
    pub(crate) values: usize,
    /// What these are.
    pub(crate) value_role: Role,
}

/// An option of `values` arguments that are no keys.
const fn plain(values: usize) -> Reading {
    with(values, Role::Other)
}

const fn with(values: usize, value_role: Role) -> Reading {
    Reading {
        role: Role::Other,
        values,
        value_role,
    }
}

const fn is(role: Role) -> Reading {
    Reading {
        role,
        values: 0,
        value_role: Role::Other,
    }
}

impl Rule {
    /// What argument `index` of `argc` is, which belongs to no option before it. `arg` is empty where it is withheld: no option
    /// is so long.
    pub(crate) fn read(self, index: usize, argc: usize, arg: &[u8]) -> Reading {
        let left = argc.saturating_sub(index + 1);
        let named = |name: &[u8]| arg.eq_ignore_ascii_case(name);
        match self {
            Self::Sort if index == 1 => is(READ),
            Self::Sort if index < 1 => plain(0),
            Self::Sort if named(b"LIMIT") => plain(2),
            Self::Sort if named(b"BY") => with(1, Role::SortBy),
            Self::Sort if named(b"GET") => with(1, Role::SortGet),
            Self::Sort if named(b"STORE") => with(1, STORE),

            Self::Georadius { .. } if index == 1 => is(READ),
            Self::Georadius { options } if index < options as usize => plain(0),
            Self::Georadius { .. } if named(b"COUNT") => plain(1),
            Self::Georadius { .. } if named(b"STORE") || named(b"STOREDIST") => with(1, STORE),

            Self::Xread if index < 1 => plain(0),
            Self::Xread if named(b"STREAMS") => Reading {
                role: Role::Other,
                values: left / 2,
                value_role: READ,
            },
            Self::Xread if named(b"BLOCK") || named(b"COUNT") || named(b"CLAIM") => plain(1),
            Self::Xread if named(b"GROUP") => plain(2),

            // The empty key stands for those behind KEYS. One that is withheld is not empty, but MIGRATE is not for strangers.
            Self::Migrate if index == 3 && !arg.is_empty() => is(MOVE),
            Self::Migrate if index < 6 => plain(0),
            Self::Migrate if named(b"AUTH") => plain(1),
            Self::Migrate if named(b"AUTH2") => plain(2),
            Self::Migrate if named(b"KEYS") => with(left, MOVE),

            Self::Scan if index >= 2 && named(b"MATCH") => with(1, Role::KeyPattern),
            Self::Scan if index >= 2 => plain(1),

            Self::Tracking if index >= 2 && named(b"PREFIX") => with(1, Role::TrackingPrefix),
            Self::Tracking if index >= 2 && named(b"REDIRECT") => plain(1),

            _ => plain(0),
        }
    }

    /// Whether `XREAD`'s keys have been announced: what is behind them are ids, whatever they look like.
    pub(crate) fn ends_with(self, arg: &[u8]) -> bool {
        self == Self::Xread && arg.eq_ignore_ascii_case(b"STREAMS")
    }
}

/// What is known of a command by its name, whatever the server says.
pub(crate) fn by_name(name: &[u8]) -> Option<Keys> {
    Some(match name {
        b"sort" | b"sort_ro" => Keys::Rule(Rule::Sort),
        b"georadius" => Keys::Rule(Rule::Georadius { options: 6 }),
        b"georadiusbymember" => Keys::Rule(Rule::Georadius { options: 5 }),
        b"xread" | b"xreadgroup" => Keys::Rule(Rule::Xread),
        b"migrate" => Keys::Rule(Rule::Migrate),
        b"scan" => Keys::Rule(Rule::Scan),
        b"client|tracking" => Keys::Rule(Rule::Tracking),
        b"keys" => one(1, Role::KeyPattern),
        b"publish" => one(1, Role::Channel),
        b"spublish" => one(1, Role::ShardChannel),
        b"subscribe" | b"unsubscribe" => all_from(1, Role::Channel),
        b"psubscribe" | b"punsubscribe" => all_from(1, Role::ChannelPattern),
        b"ssubscribe" | b"sunsubscribe" => all_from(1, Role::ShardChannel),
        b"pubsub|channels" => one(2, Role::ChannelPattern),
        b"pubsub|shardchannels" => one(2, Role::ShardPattern),
        b"pubsub|numsub" => all_from(2, Role::Channel),
        b"pubsub|shardnumsub" => all_from(2, Role::ShardChannel),
        _ => return None,
    })
}

const fn one(index: u32, role: Role) -> Keys {
    Keys::Range(Range {
        first: index,
        last: index.cast_signed(),
        step: 1,
        role,
    })
}

const fn all_from(first: u32, role: Role) -> Keys {
    Keys::Range(Range {
        first,
        last: -1,
        step: 1,
        role,
    })
}

/// What is known of commands with movable keys whose server (before 7.0) does not describe them.
pub(crate) fn before_7(name: &[u8], role: Role) -> Option<Keys> {
    let specs = match name {
        b"eval" | b"evalsha" => vec![counted(2, role)],
        b"zunionstore" | b"zinterstore" | b"zdiffstore" => vec![
            KeySpec {
                begin: Begin::Index(1),
                find: Find::Range {
                    last: 0,
                    step: 1,
                    limit: 0,
                },
                role: STORE,
            },
            counted(2, READ),
        ],
        b"zunion" | b"zinter" | b"zdiff" => vec![counted(1, READ)],
        b"memory" | b"memory|usage" => return Some(one(2, READ)),
        _ => return None,
    };
    Some(Keys::Specs(specs.into()))
}

/// The number of keys at `index`, and then these.
const fn counted(index: u32, role: Role) -> KeySpec {
    KeySpec {
        begin: Begin::Index(index),
        find: Find::Count {
            index: 0,
            first: 1,
            step: 1,
        },
        role,
    }
}

/// The subcommands of servers before 7.0, which do not list them.
pub(crate) fn subcommands_before_7(name: &[u8]) -> &'static [&'static str] {
    match name {
        b"acl" => &[
            "cat", "deluser", "genpass", "getuser", "help", "list", "load", "log", "save",
            "setuser", "users", "whoami",
        ],
        b"client" => &[
            "caching",
            "getname",
            "getredir",
            "help",
            "id",
            "info",
            "kill",
            "list",
            "no-evict",
            "pause",
            "reply",
            "setname",
            "tracking",
            "trackinginfo",
            "unblock",
            "unpause",
        ],
        b"command" => &["count", "getkeys", "help", "info"],
        b"config" => &["get", "help", "resetstat", "rewrite", "set"],
        b"memory" => &["doctor", "help", "malloc-stats", "purge", "stats", "usage"],
        b"object" => &["encoding", "freq", "help", "idletime", "refcount"],
        b"pubsub" => &["channels", "help", "numpat", "numsub"],
        b"script" => &["debug", "exists", "flush", "help", "kill", "load"],
        b"slowlog" => &["get", "help", "len", "reset"],
        b"xgroup" => &[
            "create",
            "createconsumer",
            "delconsumer",
            "destroy",
            "help",
            "setid",
        ],
        b"xinfo" => &["consumers", "groups", "help", "stream"],
        _ => &[],
    }
}
