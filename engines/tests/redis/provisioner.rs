//! The local provisioner on a real server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_store::ids::Role;
use engines::provisioner::local::LocalProvisioner;
use engines::provisioner::{Health, Provisioner as _, ServerSpec};
use redis::Value;

use crate::lab::{ID, Lab, call, folder, words};

/// Tells the other process of a test where its data is.
const OTHER_LIFE: &str = "ENGINES_TEST_OTHER_LIFE";

/// The processes that work in a server's folder.
fn servers_below(data: &Path) -> Vec<(i32, PathBuf)> {
    let data = fs::canonicalize(data).unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|it| {
            let pid = it.file_name().to_str()?.parse().ok()?;
            Some((pid, fs::read_link(it.path().join("cwd")).ok()?))
        })
        .filter(|(_, cwd)| cwd.starts_with(&data))
        .collect()
}

fn the_server(data: &Path) -> i32 {
    let found = servers_below(data);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].0
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(ended.is_ok(), "{what}");
}

#[tokio::test]
async fn a_server_starts_survives_crashes_and_stops() {
    let lab = Lab::start(true).await;
    let again = ServerSpec::redis(ID, lab.secrets.clone());
    assert_eq!(
        lab.provisioner.start(&again).await.unwrap(),
        lab.server.address
    );
    assert_eq!(lab.provisioner.list().len(), 1);
    let acme = lab.database(5, Some(9)).await;
    let mut client = lab.connect(&acme, Role::Write).await;
    call(&mut client, &words("SET 9:kept 7")).await.unwrap();
    let mut admin = lab.admin(0).await;
    for (name, value) in [
        ("port", "0"),
        ("databases", "256"),
        ("appendonly", "yes"),
        ("notify-keyspace-events", "AKE"),
        ("busy-reply-threshold", "5000"),
        ("sanitize-dump-payload", "yes"),
    ] {
        let found: (String, String) = redis::cmd("CONFIG")
            .arg("GET")
            .arg(name)
            .query_async(&mut admin)
            .await
            .unwrap();
        assert_eq!(found, (name.to_owned(), value.to_owned()));
    }

    let first = the_server(lab.folder());
    // What scripts hold in variables is bounded too.
    let limits = fs::read_to_string(format!("/proc/{first}/limits")).unwrap();
    let data = limits.lines().find(|it| it.starts_with("Max data size"));
    assert!(!data.unwrap().contains("unlimited"), "{limits}");
    kill(first);
    let health = || lab.provisioner.health(ID);
    until("noticed", || health() != Health::Running).await;
    until("running again", || health() == Health::Running).await;
    assert_ne!(the_server(lab.folder()), first);
    let mut client = lab.connect(&acme, Role::Read).await;
    let found = call(&mut client, &words("GET 9:kept")).await.unwrap();
    assert_eq!(found, Value::BulkString(b"7".to_vec()));

    lab.restart().await;
    let mut client = lab.connect(&acme, Role::Read).await;
    let found = call(&mut client, &words("GET 9:kept")).await.unwrap();
    assert_eq!(found, Value::BulkString(b"7".to_vec()));

    lab.provisioner.stop(ID).await;
    assert_eq!(lab.provisioner.health(ID), Health::Stopped);
    assert_eq!(servers_below(lab.folder()), []);
}

#[tokio::test]
async fn a_script_without_an_end_does_not_stop_the_others() {
    let lab = Lab::start(true).await;
    let acme = lab.database(1, Some(1)).await;
    let mut other = lab.connect(&acme, Role::Write).await;
    call(&mut other, &words("SET 1:a before")).await.unwrap();
    let first = the_server(lab.folder());

    // One that only reads is ended, and the server goes on.
    let mut endless = lab.connect(&acme, Role::Write).await;
    let answer = call(&mut endless, &["EVAL", "while true do end", "0"]).await;
    assert!(format!("{answer:?}").contains("killed"), "{answer:?}");
    assert_eq!(the_server(lab.folder()), first);

    // One that has written cannot be ended: the server is, and what the script has written never was.
    let mut endless = lab.connect(&acme, Role::Write).await;
    let script = "redis.call('SET', KEYS[1], 'half') while true do end";
    let answer = call(&mut endless, &["EVAL", script, "1", "1:a"]).await;
    assert!(answer.is_err(), "{answer:?}");
    until("started again", || {
        lab.provisioner.health(ID) == Health::Running
    })
    .await;
    let mut client = lab.connect(&acme, Role::Read).await;
    let found = call(&mut client, &words("GET 1:a")).await.unwrap();
    assert_eq!(found, Value::BulkString(b"before".to_vec()));
    lab.stop().await;
}

#[tokio::test]
async fn scripts_do_not_fill_the_memory() {
    let lab = Lab::start(true).await;
    let acme = lab.database(1, Some(1)).await;
    let mut client = lab.connect(&acme, Role::Write).await;
    call(&mut client, &words("SET 1:a kept")).await.unwrap();
    let few = ["SCRIPT", "LOAD", "return 1"];
    let Value::BulkString(sha) = call(&mut client, &few).await.unwrap() else {
        panic!("no hash");
    };
    let sha = String::from_utf8(sha).unwrap();
    let there = ["SCRIPT", "EXISTS", &sha];
    let long = "x".repeat(1 << 20);
    let mut loaded = 0;
    let forgets = async {
        while call(&mut client, &there).await.unwrap() == Value::Array(vec![Value::Int(1)]) {
            // No more than it takes: the rest of the time is the health check's.
            if loaded < 17 {
                let script = format!("return {loaded} --{long}");
                call(&mut client, &["EVAL", &script, "0"]).await.unwrap();
                loaded += 1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let forgotten = tokio::time::timeout(Duration::from_secs(60), forgets).await;
    assert!(forgotten.is_ok(), "{loaded} MiB of scripts are kept");
    assert!(loaded >= 16, "scripts within the bound were forgotten");
    let found = call(&mut client, &words("GET 1:a")).await.unwrap();
    assert_eq!(found, Value::BulkString(b"kept".to_vec()));
    lab.stop().await;
}

#[tokio::test]
async fn scripts_do_not_fill_the_disk() {
    let lab = Lab::start(true).await;
    let acme = lab.database(1, Some(1)).await;
    let mut client = lab.connect(&acme, Role::Write).await;
    let servers = fs::read_dir(lab.folder().join("servers")).unwrap();
    let logs = servers.map(|it| it.unwrap().path().join("log/startup.log"));
    let logs: Vec<_> = logs.filter(|it| it.exists()).collect();
    let [log] = &logs[..] else {
        panic!("{logs:?}");
    };
    let length = || fs::metadata(log).unwrap().len();
    let says = "local line = string.rep('x', 900) for i = 1, 10000 do redis.log(redis.LOG_WARNING, line) end";
    call(&mut client, &["EVAL", says, "0"]).await.unwrap();
    assert!(length() > 8 << 20, "nothing to empty: {}", length());
    until("emptied", || length() < 1 << 20).await;
    // It goes on at its end, not where it was.
    let line = "redis.log(redis.LOG_WARNING, 'the last words')";
    call(&mut client, &["EVAL", line, "0"]).await.unwrap();
    assert!(fs::read_to_string(log).unwrap().contains("the last words"));
    assert!(length() < 1 << 20);
    lab.stop().await;
}

/// The other process of the next test: starts a server and then waits to be killed. A plain run skips it.
#[tokio::test]
async fn a_life_that_ends_without_a_word() {
    let Some(data) = std::env::var_os(OTHER_LIFE) else {
        return;
    };
    let provisioner = LocalProvisioner::open(Path::new(&data)).unwrap();
    let secrets = engines::redis::new_server(true).unwrap();
    let spec = ServerSpec::redis(ID, secrets);
    provisioner.start(&spec).await.unwrap();
    fs::write(Path::new(&data).join("up"), "").unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[tokio::test]
async fn what_an_earlier_life_left_is_ended() {
    let folder = folder();
    let mut life = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "provisioner::a_life_that_ends_without_a_word"])
        .env(OTHER_LIFE, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the other life is up", || folder.path().join("up").exists()).await;
    life.kill().unwrap();
    life.wait().unwrap();
    let left = the_server(folder.path());

    // The store of this life has other passwords: they are those that hold.
    let provisioner = LocalProvisioner::open(folder.path()).unwrap();
    let secrets = engines::redis::new_server(true).unwrap();
    provisioner
        .start(&ServerSpec::redis(ID, secrets))
        .await
        .unwrap();
    assert_ne!(the_server(folder.path()), left);
    provisioner.stop_all().await;
    assert_eq!(provisioner.list(), []);
    assert_eq!(servers_below(folder.path()), []);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let lab = Lab::start(true).await;
    lab.provisioner.stop(ID).await;
    let custom = lab.folder().join("servers/redis-1/custom.conf");
    fs::write(custom, "no-such-setting 1\n").unwrap();
    let spec = ServerSpec::redis(ID, lab.secrets.clone());
    let error = lab.provisioner.start(&spec).await.unwrap_err();
    assert!(error.to_string().contains("no-such-setting"), "{error}");
    assert_eq!(lab.provisioner.health(ID), Health::Stopped);
}

#[tokio::test]
async fn no_file_of_a_server_holds_a_password() {
    let lab = Lab::start(true).await;
    let acme = lab.database(1, Some(1)).await;
    let mut folders = vec![lab.folder().join("servers/redis-1")];
    let secrets = [
        lab.secrets.admin_password.expose(),
        lab.secrets.select_password.expose(),
        &*acme.roles.admin.password,
        &*acme.roles.read.password,
    ];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_type().unwrap().is_file() {
                files += 1;
                let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
                assert!(
                    secrets.iter().all(|it| !text.contains(it)),
                    "{:?}",
                    entry.path()
                );
            }
        }
    }
    assert!(files >= 4, "{files}");
    lab.stop().await;
}
