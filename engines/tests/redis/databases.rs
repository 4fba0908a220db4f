//! Making, closing, measuring and removing databases.

use control_store::ids::Role;
use control_store::redis::function_namespace;
use engines::redis::RedisEngine;
use engines::{ApplyOptions, Change, DatabaseEngine as _, EngineError};
use redis::Value;

use crate::lab::{Lab, call, code, words};

#[tokio::test]
async fn roles_do_what_their_names_say() {
    let lab = Lab::start(true).await;
    let acme = lab.database(1, Some(41)).await;
    assert_eq!(acme.key("a"), "15:a");
    // For admin, write and read: what passes.
    for (line, passes) in [
        ("SET 15:a 1", [true, true, false]),
        ("GET 15:a", [true, true, true]),
        ("DEL 15:none", [true, true, false]),
        ("KEYS *", [true, true, true]),
        ("SCAN 0", [true, true, true]),
        ("DBSIZE", [true, true, true]),
        ("RANDOMKEY", [true, true, true]),
        ("TYPE 15:a", [true, true, true]),
        ("TTL 15:a", [true, true, true]),
        ("MEMORY USAGE 15:a", [true, true, true]),
        ("OBJECT ENCODING 15:a", [true, true, true]),
        ("RPUSH 15:l 3 1 2", [true, true, false]),
        ("SORT 15:l", [true, true, false]),
        ("SORT_RO 15:l", [true, true, true]),
        ("PFCOUNT 15:none", [true, true, true]),
        ("XREAD STREAMS 15:none 0", [true, true, true]),
        (
            "EVAL return{redis.call('GET',KEYS[1])} 1 15:a",
            [true, true, false],
        ),
        (
            "EVAL_RO return{redis.call('GET',KEYS[1])} 1 15:a",
            [true, true, true],
        ),
        ("SCRIPT LOAD return{1}", [true, true, true]),
        ("SCRIPT EXISTS 0", [true, true, true]),
        ("PUBLISH 15:news 1", [true, true, false]),
        ("MULTI", [true, true, true]),
        ("PING", [true, true, true]),
        ("ECHO hello", [true, true, true]),
        ("TIME", [true, true, true]),
        ("COMMAND COUNT", [true, true, true]),
        ("ACL WHOAMI", [true, true, true]),
        ("CLIENT ID", [true, true, true]),
        ("FLUSHDB", [true, true, false]),
        ("FLUSHALL", [false, false, false]),
        ("INFO", [false, false, false]),
        ("FUNCTION LIST", [false, false, false]),
        ("FUNCTION LOAD code", [false, false, false]),
    ] {
        for (role, passes) in [Role::Admin, Role::Write, Role::Read]
            .into_iter()
            .zip(passes)
        {
            let mut connection = lab.connect(&acme, role).await;
            let answer = call(&mut connection, &words(line)).await;
            let refused = code(&answer).is_some_and(|it| it == "NOPERM");
            assert_eq!(!refused, passes, "{line} as {}: {answer:?}", role.name());
            assert!(refused || answer.is_ok(), "{line}: {answer:?}");
        }
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_server_of_its_own_confines_less() {
    let lab = Lab::start(false).await;
    let acme = lab.database(0, None).await;
    for line in [
        "SET any 1",
        "COPY any other",
        "PSUBSCRIBE ne?s",
        "PUBSUB CHANNELS",
        "CLIENT TRACKING ON BCAST",
        "SORT none BY w_*",
        "FLUSHDB",
    ] {
        let mut admin = lab.connect(&acme, Role::Admin).await;
        call(&mut admin, &words(line)).await.unwrap();
    }
    let mut admin = lab.connect(&acme, Role::Admin).await;
    let library = "#!lua name=lib\nredis.register_function('f', function() return 7 end)";
    call(&mut admin, &["FUNCTION", "LOAD", library])
        .await
        .unwrap();
    let mut write = lab.connect(&acme, Role::Write).await;
    let answer = call(&mut write, &words("FCALL f 0")).await.unwrap();
    assert_eq!(answer, Value::Int(7));
    for line in [
        "SELECT 0",
        "CONFIG GET *",
        "SHUTDOWN",
        "REPLICAOF a 1",
        "CLIENT LIST",
        "ACL LIST",
        "MONITOR",
        "MIGRATE a 1 k 0 1",
    ] {
        let mut admin = lab.connect(&acme, Role::Admin).await;
        let answer = call(&mut admin, &words(line)).await;
        assert_eq!(code(&answer).as_deref(), Some("NOPERM"), "{line}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_closed_database_keeps_its_keys() {
    let lab = Lab::start(true).await;
    let acme = lab.database(3, Some(7)).await;
    RedisEngine.ping(&lab.server).await.unwrap();
    let mut client = lab.connect(&acme, Role::Write).await;
    call(&mut client, &words("SET 7:a 1")).await.unwrap();
    for _ in 0..2 {
        let closed = RedisEngine.set_open(&lab.server, &acme.spec(), false).await;
        closed.unwrap();
        assert!(lab.try_connect(&acme, Role::Write).await.is_err());
    }
    assert!(call(&mut client, &["PING"]).await.is_err());
    lab.restart().await;
    assert!(
        lab.try_connect(&acme, Role::Write).await.is_err(),
        "it stays closed"
    );
    RedisEngine
        .set_open(&lab.server, &acme.spec(), true)
        .await
        .unwrap();
    let mut client = lab.connect(&acme, Role::Write).await;
    let found = call(&mut client, &words("GET 7:a")).await.unwrap();
    assert_eq!(found, Value::BulkString(b"1".to_vec()));
    lab.stop().await;
}

#[tokio::test]
async fn removing_a_database_removes_its_roles_keys_and_functions() {
    let lab = Lab::start(true).await;
    let (acme, globex) = (
        lab.database(1, Some(1)).await,
        lab.database(2, Some(2)).await,
    );
    let mut client = lab.connect(&acme, Role::Admin).await;
    call(&mut client, &words("SET 1:a 1")).await.unwrap();
    let mut other = lab.connect(&globex, Role::Admin).await;
    call(&mut other, &words("SET 2:a 1")).await.unwrap();
    for (made, name) in [(&acme, "a"), (&acme, "b"), (&globex, "a")] {
        let space = function_namespace(&made.roles, &made.place);
        let library = format!(
            "#!lua name={space}{name}\nredis.register_function('{space}{name}', function() return 7 end)"
        );
        let mut platform = lab.admin(0).await;
        call(&mut platform, &["FUNCTION", "LOAD", &library])
            .await
            .unwrap();
    }
    // They are there after a restart.
    lab.restart().await;
    let mut client = lab.connect(&acme, Role::Admin).await;
    let mut other = lab.connect(&globex, Role::Admin).await;
    let name = format!("{}b", function_namespace(&acme.roles, &acme.place));
    let called = call(&mut client, &["FCALL", &name, "0"]).await;
    assert_eq!(called, Ok(Value::Int(7)));
    for _ in 0..2 {
        RedisEngine
            .drop_database(&lab.server, &acme.spec())
            .await
            .unwrap();
    }
    assert!(call(&mut client, &["PING"]).await.is_err());
    assert!(lab.try_connect(&acme, Role::Admin).await.is_err());
    let closed = RedisEngine.set_open(&lab.server, &acme.spec(), false).await;
    assert!(matches!(closed, Err(EngineError::Unsupported(_))));
    for (number, keys) in [(1, 0), (2, 1)] {
        let mut admin = lab.admin(number).await;
        assert_eq!(
            call(&mut admin, &["DBSIZE"]).await.unwrap(),
            Value::Int(keys)
        );
    }
    call(&mut other, &words("GET 2:a")).await.unwrap();
    let list = call(&mut lab.admin(0).await, &words("FUNCTION LIST")).await;
    let list = format!("{:?}", list.unwrap());
    assert_eq!(list.matches("library_name").count(), 1, "{list}");
    let name = format!("{}a", function_namespace(&globex.roles, &globex.place));
    let called = call(&mut other, &["FCALL", &name, "0"]).await;
    assert_eq!(called, Ok(Value::Int(7)));
    lab.stop().await;
}

#[tokio::test]
async fn roles_get_back_what_they_may_do_and_lose_the_rest() {
    let lab = Lab::start(true).await;
    let (acme, globex) = (
        lab.database(1, Some(1)).await,
        lab.database(2, Some(2)).await,
    );
    let mut admin = lab.admin(0).await;
    let reader = &acme.roles.read.name;
    call(&mut admin, &["ACL", "SETUSER", reader, "~*", "+@all"])
        .await
        .unwrap();
    call(&mut admin, &["ACL", "DELUSER", &globex.roles.admin.name])
        .await
        .unwrap();
    RedisEngine
        .restore_roles(&lab.server, &[acme.spec(), globex.spec()])
        .await
        .unwrap();
    let mut reader = lab.connect(&acme, Role::Read).await;
    for refused in ["GET 2:a", "SET 1:a 1", "SELECT 2"] {
        let answer = call(&mut reader, &words(refused)).await;
        assert_eq!(code(&answer).as_deref(), Some("NOPERM"), "{refused}");
    }
    let mut admin = lab.connect(&globex, Role::Admin).await;
    call(&mut admin, &words("SET 2:a 1")).await.unwrap();
    lab.stop().await;
}

#[tokio::test]
async fn the_size_is_that_of_the_keys() {
    let lab = Lab::start(true).await;
    let acme = lab.database(1, Some(1)).await;
    let size = async || {
        RedisEngine
            .database_size(&lab.server, &acme.spec())
            .await
            .unwrap()
    };
    assert_eq!(size().await, 0);
    let mut client = lab.connect(&acme, Role::Write).await;
    let value = "x".repeat(10_000);
    for key in 0..20 {
        call(&mut client, &["SET", &format!("1:{key}"), &value])
            .await
            .unwrap();
    }
    let few = size().await;
    assert!((200_000..400_000).contains(&few), "{few}");
    for key in 0..980 {
        call(&mut client, &["SET", &format!("1:more{key}"), &value])
            .await
            .unwrap();
    }
    let many = size().await;
    assert!((10_000_000..20_000_000).contains(&many), "{many}");
    lab.stop().await;
}

#[tokio::test]
async fn a_deployment_has_nothing_to_do() {
    let lab = Lab::start(true).await;
    let acme = lab.database(1, Some(1)).await;
    let options = ApplyOptions::default();
    let apply = async |changes: &[Change]| {
        let server = &lab.server;
        RedisEngine
            .apply(server, "cache__acme", &acme.roles, changes, &options)
            .await
    };
    assert_eq!(apply(&[]).await.unwrap(), Vec::<i64>::new());
    let change = Change {
        id: 1,
        statement: "SET a 1".into(),
        search_path: String::new(),
    };
    assert!(apply(&[change]).await.is_err());
    let tracked = RedisEngine
        .tracked_changes(&lab.server, "cache_workspace", 0)
        .await;
    assert_eq!(tracked.unwrap(), []);
    assert_eq!(
        RedisEngine
            .schema(&lab.server, "cache_workspace")
            .await
            .unwrap(),
        []
    );
    lab.stop().await;
}
