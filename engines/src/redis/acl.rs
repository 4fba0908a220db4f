//! What users may do on a server: the second wall, which holds without the proxy.
//!
//! On a shared server a database's roles reach the keys and channels with its prefix, and its own logical database alone: they
//! may not `SELECT`. What an ACL cannot confine is refused to them altogether:
//! - `COPY` and `MOVE`, which write to another logical database, from a script too;
//! - `FUNCTION`, since libraries belong to the whole server: the proxy asks as [`SELECT_USER`], for names in a namespace that nobody
//!   else can guess. What a function does is limited as a script is, so that calling one is everybody's;
//! - `CLIENT TRACKING`, which in broadcast mode tells of every key of the server, and `PUBSUB`, which tells of every channel:
//!   the proxy asks as [`SELECT_USER`], for what it has confined itself;
//! - whatever may read or write and names no keys, unless it is known to keep to the logical database.
//!
//! `PSUBSCRIBE` needs, by Redis's rules, a pattern that is in the ACL word for word: the whole prefix. So the proxy subscribes to
//! all of a database's channels and picks those that a client's patterns match.

use ::redis::ToRedisArgs;
use aws_lc_rs::digest;
use control_store::Secret;
use control_store::ids::Role;
use control_store::redis::SELECT_USER;
use control_store::servers::RedisServer;
use control_store::snapshot::{NativeRole, RedisDatabase};

use super::table::Command;

/// May read or write, names no keys, and is known to keep to the logical database.
const KEYLESS: [&str; 6] = ["dbsize", "flushdb", "keys", "lolwut", "randomkey", "scan"];

/// For every role. What is dangerous is taken back before single commands are given.
const READ: &str = "+@read +@transaction -@dangerous -@admin +keys +sort_ro \
    +ping +echo +time +wait +command +acl|whoami \
    +client|id +client|getname +client|setname +client|reply +client|caching +client|trackinginfo +client|getredir \
    +subscribe +psubscribe +ssubscribe +unsubscribe +punsubscribe +sunsubscribe \
    +eval_ro +evalsha_ro +fcall_ro +script|load +script|exists";
/// For those who may change data, besides.
const WRITE: &str = "+@write -@dangerous -@admin -copy -move -function +keys +sort +sort_ro +restore +flushdb \
    +publish +spublish +eval +evalsha +fcall";
/// On a server of its own, what an ACL cannot confine needs no confining.
const OWN_READ: &str = "+pubsub +client|tracking +function|list +function|stats +function|help";
const OWN_WRITE: &str = "+copy +function|load +function|delete +function|flush";
const OWN_ADMIN: &str = "+function";

/// What [`SELECT_USER`] may do: choose the logical database, and what the proxy confines itself, see above. It reaches no key and
/// hears no channel. A script that goes on for too long keeps everybody waiting, whoever ends it; and a command that waits must wait
/// no longer when its database moves.
const SELECT_RULES: &str = "-@all +select +info +client|tracking +client|unblock \
    +pubsub|channels +pubsub|numsub +pubsub|numpat +pubsub|shardchannels +pubsub|shardnumsub \
    +function|load +function|delete +function|list +function|help +script|kill +function|kill";

/// The rules of a role, as arguments of `ACL SETUSER`; they replace what it had.
pub(super) fn rules(
    role: Role,
    login: &NativeRole,
    database: &RedisDatabase,
    commands: &[Command],
) -> Vec<Vec<u8>> {
    let mut rules = Rules(vec![b"reset".to_vec(), b"on".to_vec()]);
    rules.add(&hashed(&login.password));
    rules.reach(database);
    rules.add("-@all");
    rules.words(READ);
    if role != Role::Read {
        rules.words(WRITE);
    }
    if database.prefix.is_empty() {
        rules.words(OWN_READ);
        if role != Role::Read {
            rules.words(OWN_WRITE);
        }
        if role == Role::Admin {
            rules.words(OWN_ADMIN);
        }
    } else {
        for command in commands.iter().filter(|it| escapes(it)) {
            rules.add(&format!("-{}", command.name));
        }
    }
    rules.0
}

/// Whether a command would be given by its category and may reach beyond the prefix.
fn escapes(command: &Command) -> bool {
    let given = command.is_of("@read") || command.is_of("@write");
    let taken = command.is_of("@dangerous") || command.is_of("@admin");
    given && !taken && !command.has_keys && !KEYLESS.contains(&command.name.as_str())
        // Taken with all that it has.
        && !command.name.starts_with("function|")
}

struct Rules(Vec<Vec<u8>>);

impl Rules {
    fn add(&mut self, rule: &str) {
        self.0.push(rule.as_bytes().to_vec());
    }

    fn words(&mut self, rules: &str) {
        rules.split_whitespace().for_each(|it| self.add(it));
    }

    fn bytes(&mut self, parts: &[&[u8]]) {
        self.0.push(parts.concat());
    }

    /// Keys, channels, and the notifications of its logical database: those of a key name it in the channel, those of an event
    /// in the message, and in that logical database all keys are its own.
    fn reach(&mut self, database: &RedisDatabase) {
        if database.prefix.is_empty() {
            self.words("allkeys allchannels");
            return;
        }
        let (prefix, number) = (&*database.prefix, database.number.to_string());
        let number = number.as_bytes();
        self.bytes(&[b"~", prefix, b"*"]);
        self.add("resetchannels");
        self.bytes(&[b"&", prefix, b"*"]);
        self.bytes(&[b"&__keyspace@", number, b"__:", prefix, b"*"]);
        self.bytes(&[b"&__keyevent@", number, b"__:*"]);
    }
}

/// `#` and the SHA-256: no statement log on the way can hold the password.
fn hashed(password: &str) -> String {
    let hash = digest::digest(&digest::SHA256, password.as_bytes());
    hash.as_ref().iter().fold(String::from("#"), |text, byte| {
        text + &format!("{byte:02x}")
    })
}

/// The lines of a server's ACL file for the platform's own users. Nobody is let in without a login.
pub(crate) fn platform_users(server: &RedisServer) -> [String; 3] {
    [
        "user default off resetpass resetkeys resetchannels -@all".into(),
        format!(
            "user {} on {} allkeys allchannels +@all",
            server.admin_user,
            hashed(server.admin_password.expose())
        ),
        format!(
            "user {SELECT_USER} on {} resetkeys resetchannels {}",
            hashed(server.select_password.expose()),
            SELECT_RULES
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        ),
    ]
}

/// The rules of [`SELECT_USER`], as arguments of `ACL SETUSER`.
pub(super) fn select_rules(password: &Secret) -> Vec<String> {
    let first = ["reset".into(), "on".into(), hashed(password.expose())];
    let rest = SELECT_RULES.split_whitespace().map(str::to_owned);
    first.into_iter().chain(rest).collect()
}

/// `ACL SETUSER` with these rules.
pub(super) fn set_user(name: &str, rules: &[impl ToRedisArgs]) -> ::redis::Cmd {
    let mut command = ::redis::cmd("ACL");
    command.arg("SETUSER").arg(name);
    for rule in rules {
        command.arg(rule);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str, categories: &[&str], has_keys: bool) -> Command {
        Command {
            name: name.into(),
            categories: categories.iter().map(|it| (*it).into()).collect(),
            has_keys,
        }
    }

    #[test]
    fn what_names_no_keys_is_taken_back_unless_it_is_known() {
        for (name, categories, has_keys, expected) in [
            ("get", &["@read"][..], true, false),
            ("scan", &["@read"], false, false),
            ("ft.search", &["@read", "@search"], false, true),
            ("swapdb", &["@write", "@dangerous"], false, false),
            ("function|load", &["@write"], false, false),
            ("ping", &["@connection"], false, false),
        ] {
            assert_eq!(
                escapes(&command(name, categories, has_keys)),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn a_role_reaches_its_prefix_alone() {
        let login = NativeRole {
            name: "r".into(),
            password: "secret".into(),
            scram: control_store::snapshot::ScramKeys::default(),
        };
        let database = |prefix: &[u8]| RedisDatabase {
            number: 7,
            prefix: prefix.into(),
            settings: control_store::snapshot::RedisKeySettings::default(),
        };
        let text = |database: &RedisDatabase| {
            let rules = rules(
                Role::Read,
                &login,
                database,
                &[command("x.y", &["@read"], false)],
            );
            rules
                .iter()
                .map(|it| String::from_utf8_lossy(it).into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let shared = text(&database(b"1a:"));
        // From `printf secret | sha256sum`.
        let begin = "reset on #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b \
            ~1a:* resetchannels &1a:* &__keyspace@7__:1a:* &__keyevent@7__:* -@all +@read ";
        assert!(shared.starts_with(begin), "{shared}");
        assert!(shared.ends_with(" -x.y"), "{shared}");
        let own = text(&database(b""));
        assert!(own.contains(" allkeys allchannels -@all "), "{own}");
        assert!(!own.contains("x.y"), "{own}");
    }

    #[test]
    fn no_file_holds_a_password() {
        let server = super::super::new_server(true).unwrap();
        let lines = platform_users(&server).join("\n");
        for secret in [&server.admin_password, &server.select_password] {
            assert!(!lines.contains(secret.expose()));
        }
        assert_eq!(lines.lines().count(), 3);
    }
}
