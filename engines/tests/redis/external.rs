//! A server that existed before us, whose administrator may do what we need and no more.

use control_store::Secret;
use control_store::ids::Role;
use engines::redis::{RedisEngine, preparation};
use engines::{AdminLogin, DatabaseEngine as _, ServerReport, ServerUse};

use crate::lab::{Lab, call, words};

/// A server with an operator whom its own administrator has made; nobody of ours is there yet.
async fn operated() -> Lab {
    let mut lab = Lab::start(true).await;
    let mut admin = lab.admin(0).await;
    let commands = preparation("operator").replace("PASSWORD", "secret");
    for line in commands.lines() {
        call(&mut admin, &words(line)).await.unwrap();
    }
    call(&mut admin, &words("ACL DELUSER tenantsdb_select"))
        .await
        .unwrap();
    lab.server.login = Some(AdminLogin {
        user: "operator".into(),
        password: Secret::new("secret".into()),
    });
    lab
}

async fn prepare(lab: &Lab, numbers: &[u32]) -> ServerReport {
    let usage = ServerUse {
        shared: true,
        connections: 300,
        names_visible: false,
        redis: Some(&lab.secrets),
        numbers,
    };
    let report = RedisEngine.prepare_server(&lab.server, &usage).await;
    report.unwrap()
}

#[tokio::test]
async fn a_database_lives_its_life() {
    let lab = operated().await;
    let report = prepare(&lab, &[]).await;
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.redis_databases, Some(256));
    let acme = lab.database(3, Some(7)).await;
    let mut client = lab.connect(&acme, Role::Write).await;
    call(&mut client, &words("SET 7:a 1")).await.unwrap();
    let again = prepare(&lab, &[3]).await;
    assert_eq!(again.problems, [""; 0]);

    let spec = acme.spec();
    let size = RedisEngine.database_size(&lab.server, &spec).await;
    assert!(size.unwrap() > 0);
    let before = RedisEngine.ping(&lab.server).await.unwrap();
    assert_eq!(RedisEngine.ping(&lab.server).await.unwrap(), before);
    lab.restart().await;
    assert_ne!(RedisEngine.ping(&lab.server).await.unwrap(), before);
    for open in [false, true] {
        RedisEngine
            .set_open(&lab.server, &spec, open)
            .await
            .unwrap();
        let entered = lab.try_connect(&acme, Role::Write).await;
        assert_eq!(entered.is_ok(), open);
    }
    RedisEngine.drop_database(&lab.server, &spec).await.unwrap();
    assert!(lab.try_connect(&acme, Role::Write).await.is_err());
    assert_eq!(prepare(&lab, &[]).await.problems, [""; 0], "no key is left");
    lab.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_told() {
    let lab = operated().await;
    let mut admin = lab.admin(5).await;
    call(&mut admin, &words("SET theirs 1")).await.unwrap();
    for line in [
        "ACL SETUSER default on nopass",
        "CONFIG SET maxmemory-policy allkeys-lru",
        "CONFIG SET notify-keyspace-events E",
    ] {
        call(&mut admin, &words(line)).await.unwrap();
    }
    let report = prepare(&lab, &[4]).await;
    let (problems, notes) = (report.problems.join("\n"), report.notes.join("\n"));
    for sentence in [
        "the user 'default' needs no password: run ACL SETUSER default off",
        "its logical databases 5 hold keys that are not ours",
    ] {
        assert!(problems.contains(sentence), "{problems}");
    }
    for sentence in ["maxmemory-policy", "notify-keyspace-events"] {
        assert!(notes.contains(sentence), "{notes}");
    }
    let known = call(&mut admin, &words("ACL GETUSER tenantsdb_select")).await;
    assert_eq!(known.unwrap(), redis::Value::Nil, "nothing is made there");
    let theirs = call(&mut admin, &words("GET theirs")).await;
    assert!(theirs.unwrap() != redis::Value::Nil);
    lab.stop().await;
}
