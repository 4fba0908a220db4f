//! The second wall: what a native role can do on a shared server if the proxy passes on whatever a client sends.

use control_store::ids::Role;
use control_store::redis::function_namespace;
use futures_util::StreamExt as _;
use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::lab::{Lab, Made, call, code, words};

const ROLES: [Role; 3] = [Role::Admin, Role::Write, Role::Read];

/// What must never reach another tenant.
const SECRETS: [&str; 2] = ["topsecret", "2:hidden"];

/// Two tenants on one server. The other one's keys are of every type.
struct Neighbours {
    lab: Lab,
    acme: Made,
    globex: Made,
}

impl Neighbours {
    async fn new() -> Self {
        let lab = Lab::start(true).await;
        let (acme, globex) = (
            lab.database(1, Some(1)).await,
            lab.database(2, Some(2)).await,
        );
        let it = Self { lab, acme, globex };
        it.fill().await;
        it
    }

    async fn fill(&self) {
        let mut theirs = self.lab.connect(&self.globex, Role::Admin).await;
        for line in [
            "SET 2:str topsecret",
            "SET 2:hidden topsecret",
            "RPUSH 2:list topsecret",
            "SADD 2:set topsecret",
            "ZADD 2:zset 1 topsecret",
            "HSET 2:hash topsecret topsecret",
            "XADD 2:stream 1-1 topsecret topsecret",
        ] {
            call(&mut theirs, &words(line)).await.unwrap();
        }
        let mut ours = self.lab.connect(&self.acme, Role::Admin).await;
        for line in ["SET 1:str 1", "RPUSH 1:list 1 2", "SADD 1:set 1"] {
            call(&mut ours, &words(line)).await.unwrap();
        }
    }

    /// Everything that is not the attacker's own: the other's keys, every other logical database, users, settings, libraries.
    async fn fingerprint(&self) -> String {
        let mut theirs = self.lab.admin(2).await;
        let mut text = String::new();
        let keys = call(&mut theirs, &words("KEYS *")).await.unwrap();
        let Value::Array(mut keys) = keys else {
            panic!("{keys:?}")
        };
        keys.sort_by_key(|it| format!("{it:?}"));
        for key in keys {
            let Value::BulkString(key) = key else {
                panic!("{key:?}")
            };
            let key = String::from_utf8(key).unwrap();
            let dump = call(&mut theirs, &["DUMP", &key]).await.unwrap();
            text.push_str(&format!("{key} {dump:?}\n"));
        }
        for line in [
            "ACL LIST",
            "FUNCTION LIST",
            "CONFIG GET *",
            "ROLE",
            "INFO keyspace",
        ] {
            let answer = call(&mut theirs, &words(line)).await.unwrap();
            let answer = format!("{answer:?}");
            let ours = |it: &&str| !it.starts_with("db1:");
            let kept: Vec<_> = answer.split("\\r\\n").filter(ours).collect();
            text.push_str(&format!("{kept:?}\n"));
        }
        text
    }

    async fn fresh(&self, role: Role) -> MultiplexedConnection {
        self.lab.connect(&self.acme, role).await
    }

    /// As that role of ours, in the other's logical database: as if the proxy had selected the wrong one.
    async fn astray(&self, role: Role) -> MultiplexedConnection {
        let select = self.lab.secrets.select_password.expose();
        let user = control_store::redis::SELECT_USER;
        let number = self.globex.place.number;
        let mut connection = self.lab.log_in(user, select, number).await.unwrap();
        let login = self.acme.roles.for_role(role);
        let login = ["AUTH", &login.name, &login.password];
        call(&mut connection, &login).await.unwrap();
        connection
    }
}

/// Every command and subcommand of this server.
async fn commands(admin: &mut MultiplexedConnection) -> Vec<Vec<String>> {
    let Value::Array(entries) = call(admin, &["COMMAND"]).await.unwrap() else {
        panic!("no table")
    };
    let mut all = Vec::new();
    for entry in entries {
        let Value::Array(fields) = entry else {
            panic!("{entry:?}")
        };
        let name = |value: &Value| match value {
            Value::BulkString(name) => String::from_utf8(name.clone()).unwrap(),
            Value::SimpleString(name) => name.clone(),
            other => panic!("{other:?}"),
        };
        all.push(vec![name(&fields[0])]);
        if let Some(Value::Array(subcommands)) = fields.get(9) {
            for subcommand in subcommands {
                let Value::Array(fields) = subcommand else {
                    panic!("{subcommand:?}")
                };
                let full = name(&fields[0]);
                all.push(full.split('|').map(str::to_owned).collect());
            }
        }
    }
    assert!(all.len() > 300, "{}", all.len());
    all
}

/// What concerns a whole logical database, for which the prefix is no wall.
const WHOLE: [&str; 5] = ["dbsize", "flushdb", "keys", "randomkey", "scan"];

/// What a command is tried with: the other's keys and channels, wherever a command may expect them.
const ARGUMENTS: [&str; 16] = [
    "",
    "2:str",
    "2:str 2:str",
    "2:list 2:list 2:list",
    "2:zset 0 1",
    "2:hash topsecret 1 1",
    "1 2:set",
    "2 2:set 2:zset LIMIT 1",
    "2 2:list 2:list LEFT",
    "1:str 2:str",
    "1:list 2:list LEFT LEFT",
    "0.01 1 2:list LEFT",
    "STREAMS 2:stream 0",
    "GROUP g c STREAMS 2:stream >",
    "return{redis.call('GET','2:str')} 0",
    "return{redis.call('GET',KEYS[1])} 1 2:str",
];

#[tokio::test]
async fn no_command_reaches_or_changes_what_is_not_its_own() {
    let world = Neighbours::new().await;
    let globex = world.globex.roles.admin.clone();
    let listener = world.lab.client(&globex.name, &globex.password, 0);
    let mut listener = listener.get_async_pubsub().await.unwrap();
    listener.subscribe("2:str").await.unwrap();
    listener.psubscribe("2:*").await.unwrap();
    listener.psubscribe("__keyspace@2__:2:*").await.unwrap();
    let before = world.fingerprint().await;
    let all = commands(&mut world.lab.admin(0).await).await;
    for command in &all {
        let tries = ROLES.iter().flat_map(|role| {
            let whole = WHOLE.contains(&&*command[0]);
            let places = if whole { &[false][..] } else { &[false, true] };
            places.iter().map(move |astray| (*role, *astray))
        });
        for (role, astray) in tries {
            // Its own keys it may write, wherever it is.
            let tried = ARGUMENTS.iter().filter(|it| !(astray && it.contains("1:")));
            for arguments in tried {
                let mut line = command.clone();
                line.extend(arguments.split_whitespace().map(str::to_owned));
                let mut connection = match astray {
                    true => world.astray(role).await,
                    false => world.fresh(role).await,
                };
                let told = format!("{:?}", call(&mut connection, &line).await);
                for secret in SECRETS.iter().chain([&&*globex.name]) {
                    let sent = line.iter().any(|it| it == secret);
                    assert!(sent || !told.contains(secret), "{line:?}: {told}");
                }
            }
        }
        let after = world.fingerprint().await;
        let changed = after.lines().zip(before.lines()).find(|(a, b)| a != b);
        assert_eq!((changed, after.len()), (None, before.len()), "{command:?}");
    }
    // The other is connected as before and has heard nothing.
    let mut admin = world.lab.admin(2).await;
    call(&mut admin, &words("PUBLISH 2:str end")).await.unwrap();
    let heard = listener.on_message().next().await.unwrap();
    assert_eq!(heard.get_payload::<String>().unwrap(), "end");
    drop(listener);
    world.lab.stop().await;
}

/// What ACLs cannot confine, and so nobody may do.
const REFUSED: [&str; 47] = [
    "SELECT 2",
    "SELECT 0",
    "SWAPDB 1 2",
    "MOVE 1:str 2",
    "COPY 1:str 1:copy DB 2",
    "COPY 1:str 1:copy",
    "FLUSHALL",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "INFO",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1",
    "CLIENT UNBLOCK 1",
    "CLIENT NO-EVICT ON",
    "CLIENT TRACKING ON BCAST",
    "PUBSUB CHANNELS",
    "PUBSUB NUMSUB 2:str",
    "FUNCTION LIST",
    "FUNCTION FLUSH",
    "FUNCTION DUMP",
    "FUNCTION LOAD code",
    "FUNCTION DELETE lib",
    "FUNCTION RESTORE x",
    "FUNCTION STATS",
    "FUNCTION KILL",
    "FUNCTION HELP",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "SCRIPT DEBUG YES",
    "ACL LIST",
    "ACL SETUSER x",
    "ACL LOG",
    "CLUSTER INFO",
    "LATENCY RESET",
    "SLOWLOG GET",
    "MONITOR",
    "SYNC",
    "PSYNC ? -1",
    "REPLICAOF a 1",
    "FAILOVER",
    "SAVE",
    "BGSAVE",
    "SHUTDOWN NOSAVE",
    "MODULE LIST",
    "MIGRATE localhost 1 1:str 0 1",
    "RESTORE-ASKING 1:x 0 y",
];

#[tokio::test]
async fn what_an_acl_cannot_confine_is_refused_from_scripts_too() {
    let world = Neighbours::new().await;
    for line in REFUSED {
        for role in ROLES {
            let mut connection = world.fresh(role).await;
            let answer = call(&mut connection, &words(line)).await;
            assert_eq!(
                code(&answer).as_deref(),
                Some("NOPERM"),
                "{line}: {answer:?}"
            );
        }
        let quoted: Vec<_> = words(line).iter().map(|it| format!("'{it}'")).collect();
        let script = format!("return redis.call({})", quoted.join(","));
        let mut connection = world.fresh(Role::Admin).await;
        let answer = call(&mut connection, &["EVAL", &script, "0"]).await;
        let told = format!("{:?}", answer.expect_err(line));
        // Some are not for scripts at all.
        let refused = [
            "acl",
            "ACL",
            "can't run this command",
            "not allowed from script",
        ];
        assert!(refused.iter().any(|it| told.contains(it)), "{line}: {told}");
    }
    world.lab.stop().await;
}

#[tokio::test]
async fn anothers_function_has_a_name_that_nobody_knows_and_would_reach_nothing_of_its() {
    let world = Neighbours::new().await;
    let mut platform = world.lab.admin(0).await;
    let namespace = function_namespace(&world.globex.roles, &world.globex.place);
    let library = format!(
        "#!lua name={namespace}lib\nredis.register_function('{namespace}f', function(keys) return redis.call('GET', keys[1] or '2:str') end)"
    );
    let load = ["FUNCTION", "LOAD", &library];
    call(&mut platform, &load).await.unwrap();
    for role in [Role::Admin, Role::Write] {
        for name in [
            "f",
            "lib",
            &format!(
                "{}f",
                function_namespace(&world.acme.roles, &world.acme.place)
            ),
        ] {
            let mut connection = world.fresh(role).await;
            let answer = call(&mut connection, &["FCALL", name, "0"]).await;
            let told = answer.expect_err(name).to_string();
            assert!(told.contains("Function not found"), "{told}");
        }
        // Who knew its name would run it as nobody but themselves.
        let name = format!("{namespace}f");
        for (line, expected) in [
            (
                &["FCALL", &name, "0"][..],
                "can't access at least one of the keys",
            ),
            (
                &["FCALL", &name, "1", "2:str"],
                "can't access at least one of the keys",
            ),
        ] {
            let mut connection = world.fresh(role).await;
            let told = format!("{:?}", call(&mut connection, line).await.expect_err(&name));
            assert!(told.contains(expected) || told.contains("NoPerm"), "{told}");
            assert!(!told.contains("topsecret"), "{told}");
        }
        let mut connection = world.fresh(role).await;
        let own = call(&mut connection, &["FCALL", &name, "1", "1:str"]).await;
        assert_eq!(own, Ok(Value::BulkString(b"1".to_vec())));
    }
    let mut reader = world.fresh(Role::Read).await;
    let answer = call(&mut reader, &["FCALL", "f", "0"]).await;
    assert_eq!(code(&answer).as_deref(), Some("NOPERM"));
    world.lab.stop().await;
}

#[tokio::test]
async fn keys_and_channels_of_others_are_refused() {
    let world = Neighbours::new().await;
    // Also where the logical database is its own.
    for line in [
        "GET 2:str",
        "GET str",
        "GET 1",
        "SET 2:new 1",
        "SET new 1",
        "MGET 1:str 2:str",
        "RENAME 1:str 2:new",
        "RENAME 1:str new",
        "SUNIONSTORE 1:all 1:set 2:set",
        "SORT 1:list STORE 2:sorted",
        "EVAL return{1} 1 2:str",
        "EVAL return{redis.call('SET','2:str',1)} 0",
        "XREAD STREAMS 1:stream 2:stream 0 0",
        "OBJECT ENCODING 2:str",
        "MEMORY USAGE 2:str",
        "DUMP 2:str",
        "PUBLISH 2:chan 1",
        "PUBLISH chan 1",
        "SPUBLISH 2:chan 1",
        "SUBSCRIBE 2:chan",
        "SUBSCRIBE __keyevent@2__:set",
        "SUBSCRIBE __keyspace@2__:2:str",
        "SUBSCRIBE __keyspace@1__:2:str",
        "SSUBSCRIBE 2:chan",
        "PSUBSCRIBE *",
        "PSUBSCRIBE 2:*",
        "PSUBSCRIBE __key*",
        "SUBSCRIBE __redis__:invalidate",
    ] {
        let mut connection = world.fresh(Role::Admin).await;
        let answer = call(&mut connection, &words(line)).await;
        let told = format!("{answer:?}");
        let script =
            line.starts_with("EVAL") && told.contains("can't access at least one of the keys");
        assert!(
            script || code(&answer).as_deref() == Some("NOPERM"),
            "{line}: {told}"
        );
    }
    // What would read other keys than it names is refused for want of rights on all keys.
    for line in [
        "SORT 1:list BY 2:w_*",
        "SORT 1:list GET 2:*",
        "SORT_RO 1:list BY 2:w_*",
    ] {
        let mut connection = world.fresh(Role::Admin).await;
        let answer = call(&mut connection, &words(line)).await;
        assert!(answer.is_err(), "{line}: {answer:?}");
    }
    // Its own, all together, word for word.
    for line in [
        "SUBSCRIBE 1:chan",
        "SUBSCRIBE __keyspace@1__:1:str",
        "PSUBSCRIBE 1:*",
        "PSUBSCRIBE __keyspace@1__:1:*",
        "PSUBSCRIBE __keyevent@1__:*",
    ] {
        let mut connection = world.fresh(Role::Read).await;
        call(&mut connection, &words(line)).await.unwrap();
    }
    let mut connection = world.fresh(Role::Admin).await;
    let narrower = call(&mut connection, &words("PSUBSCRIBE 1:news.*")).await;
    assert_eq!(code(&narrower).as_deref(), Some("NOPERM"));
    world.lab.stop().await;
}

#[tokio::test]
async fn the_user_that_selects_reaches_nothing() {
    let world = Neighbours::new().await;
    let select = world.lab.secrets.select_password.expose();
    let user = control_store::redis::SELECT_USER;
    let all = commands(&mut world.lab.admin(0).await).await;
    let may = [
        "auth",
        "hello",
        "reset",
        "quit",
        "select",
        "client tracking",
        "client unblock",
        "info",
        "pubsub channels",
        "pubsub numsub",
        "pubsub numpat",
        "pubsub shardchannels",
        "pubsub shardnumsub",
        "script kill",
        "function delete",
        "function help",
        "function kill",
        "function list",
        "function load",
    ];
    let mut admin = world.lab.admin(0).await;
    for command in &all {
        // Without its subcommand it is no command.
        if all
            .iter()
            .any(|it| it.len() > 1 && it[0] == command[0] && command.len() == 1)
        {
            continue;
        }
        let name = command.join(" ");
        let mut line = vec!["ACL".to_owned(), "DRYRUN".into(), user.into()];
        line.extend(command.iter().cloned());
        // As many arguments as any command needs at least.
        let answer = (0..8).map(|count| {
            let mut line = line.clone();
            line.extend(std::iter::repeat_n("1".to_owned(), count));
            line
        });
        let mut passed = false;
        for line in answer {
            passed |= call(&mut admin, &line).await == Ok(Value::Okay);
        }
        assert_eq!(passed, may.contains(&&*name), "{name}");
    }
    let mut connection = world.lab.log_in(user, select, 2).await.unwrap();
    for line in [
        "GET 2:str",
        "DBSIZE",
        "SCAN 0",
        "SUBSCRIBE 2:chan",
        "PUBLISH 2:chan 1",
    ] {
        let answer = call(&mut connection, &words(line)).await;
        assert_eq!(code(&answer).as_deref(), Some("NOPERM"), "{line}");
    }
    world.lab.stop().await;
}

#[tokio::test]
async fn nobody_is_in_without_a_login() {
    let world = Neighbours::new().await;
    let ours = &world.acme.roles.admin;
    let theirs = &world.globex.roles.admin;
    for (user, password) in [
        ("default", ""),
        ("default", &*ours.password),
        (&*theirs.name, &*ours.password),
        (&*theirs.name, ""),
        ("tenantsdb_select", &*ours.password),
        ("tenantsdb_admin", ""),
    ] {
        let answer = world.lab.log_in(user, password, 0).await;
        assert!(answer.is_err(), "{user}");
    }
    // `RESET` logs out.
    let mut connection = world.fresh(Role::Admin).await;
    call(&mut connection, &["RESET"]).await.unwrap();
    let answer = call(&mut connection, &words("GET 1:str")).await;
    assert_eq!(code(&answer).as_deref(), Some("NOAUTH"));
    world.lab.stop().await;
}

#[tokio::test]
async fn a_payload_that_was_tampered_with_is_refused() {
    let world = Neighbours::new().await;
    let mut ours = world.fresh(Role::Admin).await;
    let Value::BulkString(dump) = call(&mut ours, &words("DUMP 1:list")).await.unwrap() else {
        panic!("no payload")
    };
    let restore = async |payload: Vec<u8>| {
        let mut command = redis::cmd("RESTORE");
        command.arg("1:again").arg(0).arg(payload).arg("REPLACE");
        command.query_async::<Value>(&mut ours.clone()).await
    };
    assert!(restore(dump.clone()).await.is_ok());
    for at in 0..dump.len() {
        let mut payload = dump.clone();
        payload[at] ^= 1;
        assert!(restore(payload).await.is_err(), "{at}");
    }
    world.lab.stop().await;
}
