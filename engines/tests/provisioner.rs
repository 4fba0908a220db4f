//! The local provisioner on a real PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_store::ids::{Engine, ServerId};
use control_store::snapshot::ServerAddress;
use engines::provisioner::local::LocalProvisioner;
use engines::provisioner::{Health, ProvisionError, Provisioner, ServerSpec};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

const ID: ServerId = ServerId(1);
/// Tells the other process of a test where its data is.
const OTHER_LIFE: &str = "ENGINES_TEST_OTHER_LIFE";

/// A folder that the account which runs servers can reach.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

async fn connect(address: &ServerAddress) -> Client {
    let ServerAddress::Unix(socket) = address else {
        panic!("not a socket: {address:?}")
    };
    let mut config = Config::new();
    config
        .host_path(socket.parent().unwrap())
        .user("tenantsdb")
        .dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn postmaster(data: &Path) -> i32 {
    let text = fs::read_to_string(data.join("servers/pg-1/data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
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
    assert!(
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .is_ok(),
        "{what}"
    );
}

fn processes_below(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|it| fs::read_link(it.path().join("cwd")).ok())
        .filter(|cwd| cwd.starts_with(data))
        .collect()
}

#[tokio::test]
async fn a_server_starts_survives_crashes_and_stops() {
    let folder = folder();
    let provisioner = LocalProvisioner::open(folder.path()).unwrap();
    let address = provisioner.start(&ServerSpec::postgres(ID)).await.unwrap();
    assert_eq!(
        provisioner.start(&ServerSpec::postgres(ID)).await.unwrap(),
        address
    );
    assert_eq!(provisioner.list().len(), 1);
    let client = connect(&address).await;
    client
        .batch_execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
        .await
        .unwrap();
    let level: String = client
        .query_one("SHOW wal_level", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(level, "logical");

    // A child in a long computation outlives its postmaster: the restart has to end it.
    let busy = tokio::spawn(async move {
        client
            .simple_query("SELECT count(*) FROM generate_series(1, 1e12)")
            .await
    });
    let first = postmaster(folder.path());
    kill(first);
    until("noticed", || provisioner.health(ID) != Health::Running).await;
    until("running again", || {
        provisioner.health(ID) == Health::Running
    })
    .await;
    assert!(busy.await.unwrap().is_err());
    assert_ne!(postmaster(folder.path()), first);
    let row = connect(&address)
        .await
        .query_one("SELECT id FROM kept", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 7);

    provisioner.stop(ID).await;
    assert_eq!(provisioner.health(ID), Health::Stopped);
    assert_eq!(processes_below(folder.path()), Vec::<PathBuf>::new());
    assert!(
        !folder
            .path()
            .join("servers/pg-1/data/postmaster.pid")
            .exists()
    );
}

/// The other process of the next test: starts a server and then waits to be killed. A plain run skips it.
#[tokio::test]
async fn a_life_that_ends_without_a_word() {
    let Some(data) = std::env::var_os(OTHER_LIFE) else {
        return;
    };
    let provisioner = LocalProvisioner::open(Path::new(&data)).unwrap();
    provisioner.start(&ServerSpec::postgres(ID)).await.unwrap();
    fs::write(Path::new(&data).join("up"), "").unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[tokio::test]
async fn what_an_earlier_life_left_is_ended() {
    let folder = folder();
    let mut life = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_life_that_ends_without_a_word"])
        .env(OTHER_LIFE, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the other life is up", || folder.path().join("up").exists()).await;
    assert!(matches!(
        LocalProvisioner::open(folder.path()),
        Err(ProvisionError::InUse { .. })
    ));
    life.kill().unwrap();
    life.wait().unwrap();
    let left = postmaster(folder.path());
    assert!(Path::new("/proc").join(left.to_string()).exists());

    let provisioner = LocalProvisioner::open(folder.path()).unwrap();
    let address = provisioner.start(&ServerSpec::postgres(ID)).await.unwrap();
    assert_ne!(postmaster(folder.path()), left);
    connect(&address)
        .await
        .query_one("SELECT 1", &[])
        .await
        .unwrap();
    provisioner.stop_all().await;
    assert_eq!(provisioner.list(), []);
    assert_eq!(processes_below(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let folder = folder();
    let provisioner = LocalProvisioner::open(folder.path()).unwrap();
    provisioner.start(&ServerSpec::postgres(ID)).await.unwrap();
    provisioner.stop(ID).await;
    fs::write(
        folder.path().join("servers/pg-1/custom.conf"),
        "no_such_setting = 1\n",
    )
    .unwrap();
    fs::set_permissions(
        folder.path().join("servers/pg-1/custom.conf"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let error = provisioner
        .start(&ServerSpec::postgres(ID))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
    assert_eq!(provisioner.health(ID), Health::Stopped);
}

#[tokio::test]
async fn other_engines_are_refused() {
    let folder = folder();
    let provisioner = LocalProvisioner::open(folder.path()).unwrap();
    let spec = ServerSpec {
        engine: Engine::Mysql,
        ..ServerSpec::postgres(ID)
    };
    let error = provisioner.start(&spec).await.unwrap_err();
    assert_eq!(error.to_string(), "local MySQL servers are not supported");
}
