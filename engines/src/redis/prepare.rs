//! Whether a server that exists already is as our databases need it, and our own user there.

use std::collections::HashMap;

use ::redis::aio::MultiplexedConnection;
use ::redis::{FromRedisValue, Value, cmd};
use control_store::redis::SELECT_USER;

use super::SHARED_DATABASES;
use super::acl::{select_rules, set_user};
use super::connect::{admin, ask, run};
use super::databases::save;
use crate::{EngineError, ServerAccess, ServerReport, ServerUse};

/// What the control plane asks of a server that somebody else runs.
const ADMIN_RULES: &str = "~* &* -@all +acl +auth +client +command +config|get +dbsize +flushdb +function|delete +function|list \
    +hello +info +memory|usage +ping +randomkey +scan +select";

/// The command that makes `user` an administrator as we need one.
pub fn preparation(user: &str) -> String {
    format!(
        "ACL SETUSER {user} reset on >PASSWORD {ADMIN_RULES}\nACL SETUSER default off\nACL SAVE\n"
    )
}

/// Looks at the server, and makes the user that selects among its logical databases.
pub(super) async fn prepare(
    server: &ServerAccess,
    usage: &ServerUse<'_>,
) -> Result<ServerReport, EngineError> {
    let mut admin = admin(server, 0).await?;
    let mut report = ServerReport::default();
    let info: String = ask(&mut admin, &cmd("INFO")).await?;
    let info = Info(&info);
    whole(&info, &mut report);
    if !report.problems.is_empty() {
        return Ok(report);
    }
    everybody(&mut admin, &mut report).await?;
    foreign_keys(&info, usage, &mut report);
    report.redis_databases = Some(match usage.shared {
        true => count_databases(&mut admin, &mut report).await?,
        false => 1,
    });
    if let Some(secrets) = usage.redis.filter(|_| report.problems.is_empty()) {
        run(
            &mut admin,
            &set_user(SELECT_USER, &select_rules(&secrets.select_password)),
        )
        .await?;
        if !save(&mut admin).await? {
            report.note(
                "it has no aclfile: its users are gone with a restart, and made again within seconds".into(),
            );
        }
    }
    settings(&mut admin, &mut report).await?;
    Ok(report)
}

/// What a server says of itself.
struct Info<'a>(&'a str);

impl<'a> Info<'a> {
    fn field(&self, name: &str) -> Option<&'a str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    /// The logical databases that hold keys.
    fn used(&self) -> impl Iterator<Item = u32> + 'a {
        self.0
            .lines()
            .filter_map(|line| line.strip_prefix("db")?.split_once(':')?.0.parse().ok())
    }
}

/// Whether it is a server that takes writes for all keys, of a version that we know.
fn whole(info: &Info<'_>, report: &mut ServerReport) {
    // Valkey tells the version of Redis that it is like, too.
    let version = info.field("redis_version").unwrap_or("unknown");
    let major = version.split('.').next().and_then(|it| it.parse().ok());
    if major.is_none_or(|it: u32| it < 7) {
        report.problem(format!("it is version {version}: 7.0 or newer is needed"));
    }
    if info.field("role").is_some_and(|it| it != "master") {
        report.problem("it is a replica, which takes no writes: name the primary".into());
    }
    if info.field("cluster_enabled") == Some("1") {
        report.problem(
            "it is one of a cluster, which has no logical databases: name a server by itself"
                .into(),
        );
    }
}

/// Whether the server lets in whoever comes.
async fn everybody(
    admin: &mut MultiplexedConnection,
    report: &mut ServerReport,
) -> Result<(), EngineError> {
    let mut asked = cmd("ACL");
    asked.arg("GETUSER").arg("default");
    let user: HashMap<String, Value> = ask(admin, &asked).await?;
    let flags = user.get("flags").cloned().unwrap_or(Value::Nil);
    let flags = Vec::<String>::from_redis_value(flags).unwrap_or_default();
    let has = |flag: &str| flags.iter().any(|it| it == flag);
    if has("on") && has("nopass") {
        report.problem("the user 'default' needs no password: run ACL SETUSER default off".into());
    }
    Ok(())
}

/// Whether logical databases that would be given to ours hold what is somebody else's.
fn foreign_keys(info: &Info<'_>, usage: &ServerUse<'_>, report: &mut ServerReport) {
    let first = u32::from(usage.shared);
    let foreign: Vec<String> = info
        .used()
        .filter(|number| *number >= first && !usage.numbers.contains(number))
        .map(|it| it.to_string())
        .collect();
    if !foreign.is_empty() {
        report.problem(format!(
            "its logical databases {} hold keys that are not ours: give us a server of our own",
            foreign.join(", ")
        ));
    }
}

/// How many logical databases there are, up to as many as we use. `CONFIG`, which would tell, is closed at providers.
async fn count_databases(
    admin: &mut MultiplexedConnection,
    report: &mut ServerReport,
) -> Result<u32, EngineError> {
    let (mut there, mut missing) = (0, SHARED_DATABASES);
    while missing - there > 1 {
        let middle = u32::midpoint(there, missing);
        let mut select = cmd("SELECT");
        select.arg(middle);
        match run(admin, &select).await {
            Ok(()) => there = middle,
            Err(EngineError::Statement { code, .. }) if code == "ERR" => missing = middle,
            Err(other) => return Err(other),
        }
    }
    let count = there + 1;
    if count < 2 {
        report.problem(
            "it has a single logical database: a shared server needs one for each database, set databases".into(),
        );
    }
    Ok(count)
}

/// What the operator should know of its settings, where they are to be seen.
async fn settings(
    admin: &mut MultiplexedConnection,
    report: &mut ServerReport,
) -> Result<(), EngineError> {
    let mut asked = cmd("CONFIG");
    asked.arg("GET").arg("*");
    let found: HashMap<String, String> = match ask(admin, &asked).await {
        Ok(found) => found,
        Err(EngineError::Statement { .. }) => return Ok(()),
        Err(other) => return Err(other),
    };
    let setting = |name: &str| found.get(name).map_or("", String::as_str);
    let kept = setting("appendonly") == "yes" || !setting("save").is_empty();
    for (wrong, sentence) in [
        (
            setting("maxmemory") == "0",
            "maxmemory is 0: the server may grow until the system ends it",
        ),
        (
            setting("maxmemory-policy") != "noeviction",
            "maxmemory-policy is not noeviction: one tenant's keys push out another's",
        ),
        (
            !kept,
            "neither appendonly nor save is set: nothing survives a restart",
        ),
        (
            !notifies(setting("notify-keyspace-events")),
            "notify-keyspace-events is not KEA: tenants hear nothing of their keys",
        ),
    ] {
        if wrong {
            report.note(sentence.into());
        }
    }
    Ok(())
}

fn notifies(events: &str) -> bool {
    // The server tells `A` as what it stands for where it is not whole.
    ["K", "E", "A"].iter().all(|it| events.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_at(info: &str, shared: bool, numbers: &[u32]) -> String {
        let usage = ServerUse {
            shared,
            connections: 1,
            names_visible: false,
            redis: None,
            numbers,
        };
        let mut report = ServerReport::default();
        whole(&Info(info), &mut report);
        foreign_keys(&Info(info), &usage, &mut report);
        report.problems.join("; ")
    }

    #[test]
    fn what_a_server_is_decides() {
        let good = "redis_version:7.0.15\r\nrole:master\r\ncluster_enabled:0\r\n";
        let keys = "# Keyspace\r\ndb0:keys=9,expires=0\r\ndb3:keys=1,expires=0\r\n";
        for (info, shared, numbers, expected) in [
            (good.to_owned(), true, &[][..], ""),
            (
                good.replace("7.0.15", "6.2.1"),
                true,
                &[],
                "it is version 6.2.1",
            ),
            (
                good.replace("master", "slave"),
                true,
                &[],
                "it is a replica",
            ),
            (
                good.replace("enabled:0", "enabled:1"),
                true,
                &[],
                "it is one of a cluster",
            ),
            (good.to_owned() + keys, true, &[3], ""),
            (
                good.to_owned() + keys,
                true,
                &[2],
                "its logical databases 3 hold",
            ),
            (
                good.to_owned() + keys,
                false,
                &[],
                "its logical databases 0, 3 hold",
            ),
        ] {
            let problems = looked_at(&info, shared, numbers);
            assert!(problems.starts_with(expected), "{problems}");
            assert_eq!(problems.is_empty(), expected.is_empty(), "{problems}");
        }
    }
}
