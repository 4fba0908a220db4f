//! What the proxy does with each command, by its name.
//!
//! A command that is not named here, and that the server knows, goes to the server: new and module commands work. The wall
//! against what may not be done is the native role; this is courtesy, and what the wall cannot do.

use super::functions::Function;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Any connection will do, also one that others use at the same time.
    Share,
    /// It may wait at the server: a connection of its own until it has answered.
    Block,
    /// As [`Policy::Block`] if it has the argument `BLOCK`.
    BlockIfAsked,
    /// A transaction begins, goes on or ends.
    Transaction(Transaction),
    /// Subscriptions begin or end.
    Subscribe,
    /// The server is to tell which keys change, or no longer.
    Tracking,
    /// We answer.
    Here(Here),
    /// The platform's user runs it, since a server cannot confine it and we do.
    Platform,
    /// As [`Policy::Platform`], and what the reply says of others is left out.
    Info,
    /// As [`Policy::Share`], unless it names another database.
    Copy,
    /// As [`Policy::Share`]; what the server would not do of it, a script does.
    Sort,
    /// As [`Policy::Share`]; on a server that others use as well its script may not reach what is everybody's. The script is the
    /// argument at this place.
    Script(usize),
    /// As [`Policy::Share`], with the name of the command that flushes one database.
    FlushDatabase,
    /// As [`Policy::Share`] on a server that is the database's own; on others in a namespace of the database's.
    Function(Function),
    /// It is refused with this sentence.
    Refuse(&'static str),
}

/// Commands around transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transaction {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
}

/// Commands that we answer ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    Auth,
    Hello,
    Select,
    Quit,
    Reset,
    Role,
    WhoAmI,
    ClientSetName,
    ClientGetName,
    ClientSetInfo,
    ClientId,
    /// How many patterns the database's clients have.
    NumPat,
    ClientInfo,
    ClientList,
    ClientKill,
    ClientReply,
    /// What changes how the server treats its connection, which is not the client's: accepted.
    ClientHint,
    ClientUnblock,
}

const CONFIGURATION: &str = "the server's configuration is not yours to see or change: use the database's settings in the API";
const SERVER: &str = "this command has an effect on the whole server";
const ACCESS: &str = "users and permissions are managed through the API";
const REPLICATION: &str = "replication is managed by the platform";
const INSIGHT: &str = "this command shows what other databases of the server do";
const OTHER_DATABASES: &str = "there is one database here, number 0";
const CLUSTER: &str = "there is no cluster here: connect without cluster mode";
const SCRIPTS: &str =
    "scripts are shared by the whole server, and a script over its time is stopped by the platform";
const BACKUPS: &str = "snapshots are made by the platform: use the API's backups";
const MODULES: &str = "modules are loaded by the platform";

/// What becomes of the command of that name: lower case, with its subcommand as in `client|list`.
pub(super) fn policy(name: &[u8]) -> Policy {
    use Policy::{Block, BlockIfAsked, FlushDatabase, Here as On, Refuse, Share, Subscribe};
    match name {
        b"blpop" | b"brpop" | b"brpoplpush" | b"blmove" | b"blmpop" | b"bzpopmin" | b"bzpopmax"
        | b"bzmpop" | b"wait" | b"waitaof" => Block,
        b"xread" | b"xreadgroup" => BlockIfAsked,

        b"multi" => Policy::Transaction(Transaction::Multi),
        b"exec" => Policy::Transaction(Transaction::Exec),
        b"discard" => Policy::Transaction(Transaction::Discard),
        b"watch" => Policy::Transaction(Transaction::Watch),
        b"unwatch" => Policy::Transaction(Transaction::Unwatch),

        b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe"
        | b"sunsubscribe" => Subscribe,

        b"auth" => On(Here::Auth),
        b"hello" => On(Here::Hello),
        b"select" => On(Here::Select),
        b"quit" => On(Here::Quit),
        b"reset" => On(Here::Reset),
        b"role" => On(Here::Role),
        b"acl|whoami" => On(Here::WhoAmI),
        b"client|setname" => On(Here::ClientSetName),
        b"client|getname" => On(Here::ClientGetName),
        b"client|setinfo" => On(Here::ClientSetInfo),
        b"client|id" => On(Here::ClientId),
        b"client|info" => On(Here::ClientInfo),
        b"client|list" => On(Here::ClientList),
        b"client|kill" => On(Here::ClientKill),
        b"client|reply" => On(Here::ClientReply),
        b"client|tracking" => Policy::Tracking,
        b"pubsub|channels" | b"pubsub|numsub" | b"pubsub|shardchannels" | b"pubsub|shardnumsub" => {
            Policy::Platform
        }
        b"pubsub|numpat" => On(Here::NumPat),
        b"client|trackinginfo" | b"client|caching" | b"client|getredir" => Share,
        b"client|no-evict" | b"client|no-touch" => On(Here::ClientHint),
        b"client|unblock" => On(Here::ClientUnblock),
        b"client|help" => Share,

        b"flushall" => FlushDatabase,
        b"info" => Policy::Info,
        b"copy" => Policy::Copy,
        b"sort" | b"sort_ro" => Policy::Sort,

        b"config"
        | b"memory|doctor"
        | b"memory|malloc-stats"
        | b"memory|purge"
        | b"memory|stats" => Refuse(CONFIGURATION),
        b"shutdown" | b"debug" | b"client|pause" | b"client|unpause" | b"pfdebug"
        | b"pfselftest" => Refuse(SERVER),
        b"acl" => Refuse(ACCESS),
        b"replicaof" | b"slaveof" | b"psync" | b"sync" | b"replconf" | b"failover"
        | b"restore-asking" => Refuse(REPLICATION),
        b"monitor" | b"slowlog" | b"latency" => Refuse(INSIGHT),
        b"swapdb" | b"move" | b"migrate" => Refuse(OTHER_DATABASES),
        b"cluster" | b"asking" | b"readonly" | b"readwrite" => Refuse(CLUSTER),
        b"script|flush" | b"script|kill" | b"script|debug" => Refuse(SCRIPTS),
        b"eval" | b"eval_ro" => Policy::Script(1),
        b"script|load" => Policy::Script(2),
        b"fcall" | b"fcall_ro" => Policy::Function(Function::Call),
        b"save" | b"bgsave" | b"bgrewriteaof" => Refuse(BACKUPS),
        b"module" => Refuse(MODULES),
        _ => by_container(name),
    }
}

/// A subcommand that is not named is treated as its command is, if that is named.
fn by_container(name: &[u8]) -> Policy {
    if name.split(|byte| *byte == b'|').next() == Some(b"function") {
        return Policy::Function(Function::of(name));
    }
    match name.iter().position(|byte| *byte == b'|') {
        Some(at) => match name.get(..at) {
            Some(b"client") => Policy::Refuse(SERVER),
            Some(container) => policy(container),
            None => Policy::Share,
        },
        None => Policy::Share,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_follow_their_command_unless_named() {
        assert_eq!(policy(b"config|set"), Policy::Refuse(CONFIGURATION));
        assert_eq!(policy(b"acl|whoami"), Policy::Here(Here::WhoAmI));
        assert_eq!(policy(b"acl|setuser"), Policy::Refuse(ACCESS));
        assert_eq!(policy(b"client|whatever-comes"), Policy::Refuse(SERVER));
        assert_eq!(policy(b"object|encoding"), Policy::Share);
        assert_eq!(policy(b"script|load"), Policy::Script(2));
        assert_eq!(policy(b"function|list"), Policy::Function(Function::List));
        assert_eq!(policy(b"function|new"), Policy::Function(Function::Unknown));
        assert_eq!(policy(b"function"), Policy::Function(Function::Unknown));
    }

    #[test]
    fn what_nobody_has_heard_of_is_the_servers_business() {
        assert_eq!(policy(b"json.get"), Policy::Share);
    }
}
