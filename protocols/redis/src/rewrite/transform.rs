//! Which replies hold keys or channels.

/// Where a command's reply holds keys or channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transform {
    /// Nowhere.
    #[default]
    None,
    /// It is one, or null.
    Key,
    /// All of its elements are keys.
    Keys,
    /// Its second element holds keys.
    Scan,
    /// Its first element is a key.
    KeyFirst,
    /// A map by key; in RESP2 an array of pairs.
    StreamKeys,
    /// All of its elements are channels.
    Channels,
    /// Channels and counts by turns.
    ChannelCounts,
    /// Shard channels, which are never those of notifications.
    ShardChannels,
    /// Shard channels and counts by turns.
    ShardChannelCounts,
    /// A map of which `prefixes` holds beginnings of keys.
    TrackingInfo,
    /// Libraries of functions, with their names and code.
    Libraries,
    /// It is a library's name.
    LibraryName,
    /// It is an integer, or its digits as a line: what a script returns in the place of one that is too large for Lua.
    Integer,
    /// In a transaction: it is none of the client's, and left out.
    Hidden,
}

impl Transform {
    /// That of a command: its name in lower case, with its subcommand as in `pubsub|channels`.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"randomkey" => Self::Key,
            b"keys" => Self::Keys,
            b"scan" => Self::Scan,
            b"blpop" | b"brpop" | b"bzpopmin" | b"bzpopmax" | b"lmpop" | b"blmpop" | b"zmpop"
            | b"bzmpop" => Self::KeyFirst,
            b"xread" | b"xreadgroup" => Self::StreamKeys,
            b"pubsub|channels" => Self::Channels,
            b"pubsub|numsub" => Self::ChannelCounts,
            b"pubsub|shardchannels" => Self::ShardChannels,
            b"pubsub|shardnumsub" => Self::ShardChannelCounts,
            b"client|trackinginfo" => Self::TrackingInfo,
            b"function|list" => Self::Libraries,
            b"function|load" => Self::LibraryName,
            _ => Self::None,
        }
    }
}
