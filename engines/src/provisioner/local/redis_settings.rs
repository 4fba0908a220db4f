//! The files that configure a local Redis server. They are written anew at each start.

use std::fmt::Write as _;
use std::path::Path;

use super::home::Home;
use super::memory;

/// Settings for one server with many databases, most of them idle, reached over its socket only.
///
/// - Logical databases are looked at for expired keys 10 times a second, 16 at a time: with 256 of them each every 1.6 seconds.
/// - What a tenant throws away is freed beside the server's other work, so that others do not wait for it.
/// - Every write is in the log before it is answered, and on disk within a second; so no snapshots are needed.
/// - Tenants cannot switch on notifications of their keys, since these settings are the whole server's. They cost a write in a
///   deep pipeline 0.5 µs of 1.2 µs, and one by one nothing that can be measured; reads nothing.
/// - What clients send stays out of logs: no slow log, no crash report, which shows a command's arguments.
/// - A payload of `RESTORE` is looked through in full: it is a customer's.
const SETTINGS: &str = "\
port 0
unixsocketperm 700
protected-mode yes
daemonize no
set-proc-title no
always-show-logo no
loglevel notice
logfile \"\"
enable-protected-configs no
enable-debug-command no
enable-module-command no
maxclients 4000
timeout 0
proto-max-bulk-len 512mb
busy-reply-threshold 5000
hz 10
dynamic-hz yes
save \"\"
appendonly yes
appendfsync everysec
aof-load-truncated yes
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 64mb
sanitize-dump-payload yes
lazyfree-lazy-eviction yes
lazyfree-lazy-expire yes
lazyfree-lazy-server-del yes
lazyfree-lazy-user-del yes
lazyfree-lazy-user-flush yes
maxmemory-policy noeviction
maxmemory-clients 10%
notify-keyspace-events KEA
slowlog-log-slower-than -1
latency-monitor-threshold 0
acllog-max-len 16
crash-log-enabled no
crash-memcheck-enabled no
";

/// `redis.conf`. An operator's `custom.conf` in the server's folder has the last word.
pub(super) fn redis_conf(home: &Home, acl_file: &Path, databases: u32) -> String {
    let mut text = String::from(
        "# Written by tenantsdb at each start. Put your own settings into custom.conf beside it.\n",
    );
    text.push_str(SETTINGS);
    // Writing to a string cannot fail.
    let mut setting = |name: &str, value: &str| {
        let _ = writeln!(text, "{name} {value}");
    };
    setting("databases", &databases.to_string());
    setting("dir", &quote(&home.data));
    setting("unixsocket", &quote(&home.socket()));
    setting("aclfile", &quote(acl_file));
    if let Some(bytes) = memory::available() {
        // A write beyond it fails, where otherwise the kernel would end some process or other.
        setting("maxmemory", &(bytes / 2).to_string());
    }
    let custom = home.root.join("custom.conf");
    if custom.exists() {
        setting("include", &quote(&custom));
    }
    text
}

/// The ACL file: the platform's own users as they must be, and the databases' as they were saved.
pub(super) fn acl_file(saved: &str, platform: &[String]) -> String {
    let name = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let ours: Vec<_> = platform.iter().filter_map(|line| name(line)).collect();
    let theirs = saved
        .lines()
        .filter(|line| name(line).is_some_and(|it| !ours.contains(&it)));
    platform
        .iter()
        .map(String::as_str)
        .chain(theirs)
        .fold(String::new(), |text, line| text + line + "\n")
}

fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        assert_eq!(quote(Path::new("/it \"is\" \\")), r#""/it \"is\" \\""#);
    }

    #[test]
    fn platform_users_are_renewed_and_others_kept() {
        let platform = ["user default off".to_owned(), "user admin on #2".to_owned()];
        let saved = "user default on nopass\nuser tdb_1 on #3 ~1:*\nuser admin on #1\n\n";
        assert_eq!(
            acl_file(saved, &platform),
            "user default off\nuser admin on #2\nuser tdb_1 on #3 ~1:*\n"
        );
        assert_eq!(
            acl_file("", &platform),
            "user default off\nuser admin on #2\n"
        );
    }
}
