//! A proxy in front of real Redis servers, with a snapshot made by hand.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use control_store::ids::{BlueprintName, Engine, ProjectId, Role, ServerId, TenantId};
use control_store::redis::SELECT_USER;
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    RedisDatabase, RedisKeySettings, Scope, ScramKeys, Server, ServerAddress, Settings, Snapshot,
    SnapshotCell,
};
use control_store::{DatabaseId, KeyId, Secret, TrafficControl};
use engines::provisioner::local::LocalProvisioner;
use engines::provisioner::{Provisioner as _, ServerSpec};
use engines::redis::{RedisEngine, new_server};
use engines::{AdminLogin, DatabaseEngine as _, DatabaseSpec, DatabaseUse, ServerAccess};
use protocol_redis::reply::{Scan, Scanner, Value};
use proxy::query_log::{QueryLog, QueryLogConfig};
use proxy::reactor::{ReactorKind, TlsStore};
use proxy::{Config, Proxy};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const PASSWORD: &str = "tdb_0123456789abcdef";
pub(crate) const READER_PASSWORD: &str = "tdb_fedcba9876543210";
/// Two tenants on one server.
pub(crate) const ACME: DatabaseId = DatabaseId(71);
pub(crate) const BETA: DatabaseId = DatabaseId(72);
/// Of the platform's user.
const SELECT_PASSWORD: &str = "select";
const TENANTS: [(DatabaseId, &str, u32, &str); 2] =
    [(ACME, "acme", 3, "1z:"), (BETA, "beta", 5, "20:")];

/// A server that the product has started.
pub(crate) struct RedisServer {
    id: ServerId,
    pub(crate) address: ServerAddress,
    secrets: control_store::servers::RedisServer,
}

impl RedisServer {
    /// What the server itself answers, past the proxy.
    pub(crate) fn ask(&self, number: u32, command: &[&str]) -> String {
        let mut client = self.connect();
        let password = self.secrets.admin_password.expose();
        assert_eq!(
            client.ask(&["AUTH", &self.secrets.admin_user, password]),
            "OK"
        );
        client.ask(&["SELECT", &number.to_string()]);
        client.ask(command)
    }

    /// A connection past the proxy.
    pub(crate) fn connect(&self) -> Wire<UnixStream> {
        let ServerAddress::Unix(socket) = &self.address else {
            panic!("not a socket")
        };
        Wire::new(UnixStream::connect(socket).unwrap())
    }

    fn access(&self) -> ServerAccess {
        ServerAccess {
            id: self.id,
            address: self.address.clone(),
            login: Some(AdminLogin {
                user: self.secrets.admin_user.clone(),
                password: self.secrets.admin_password.clone(),
            }),
        }
    }
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < until, "{what} takes too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Servers and a proxy, for one test.
pub(crate) struct Lab {
    runtime: Runtime,
    provisioner: LocalProvisioner,
    roles: Vec<NativeRoles>,
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    pub(crate) snapshot: SnapshotCell,
    pub(crate) log: Arc<QueryLog>,
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) settings: RedisKeySettings,
    pub(crate) max_connections: u32,
    _folder: TempDir,
}

impl Lab {
    pub(crate) fn start(reactor: ReactorKind, workers: u16) -> Self {
        Self::start_with(reactor, workers, true)
    }

    pub(crate) fn start_with(reactor: ReactorKind, workers: u16, plaintext: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = Runtime::new().unwrap();
        let provisioner = LocalProvisioner::open(folder.path()).unwrap();
        let roles: Vec<NativeRoles> = TENANTS
            .iter()
            .map(|_| RedisEngine.new_roles().unwrap())
            .collect();
        let mut servers = Vec::new();
        for id in [ServerId(0), ServerId(1)] {
            let mut secrets = new_server(true).unwrap();
            // Both take the same login, so that a database can move between them.
            secrets.select_password = Secret::new(SELECT_PASSWORD.to_owned());
            let spec = ServerSpec::redis(id, secrets.clone());
            let address = runtime.block_on(provisioner.start(&spec)).unwrap();
            let server = RedisServer {
                id,
                address,
                secrets,
            };
            for ((_, tenant, number, prefix), roles) in TENANTS.iter().zip(&roles) {
                let spec = DatabaseSpec {
                    name: tenant,
                    usage: DatabaseUse::Tenant,
                    roles,
                    redis: Some(&place(*number, prefix, &RedisKeySettings::default())),
                };
                let access = server.access();
                let made = RedisEngine.create_database(&access, &spec);
                runtime.block_on(made).unwrap();
            }
            servers.push(server);
        }
        let log = QueryLog::open(QueryLogConfig::new(folder.path().join("log"))).unwrap();
        let snapshot = SnapshotCell::new(Snapshot::default());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let config = Config {
            reactor: Some(reactor),
            workers,
            redis: (0..workers).map(|_| socket.try_clone().unwrap()).collect(),
            plaintext,
            tls: Some(Arc::new(certificate(folder.path()))),
            ..Config::default()
        };
        let proxy = Proxy::start(config, snapshot.clone(), Arc::clone(&log)).unwrap();
        let lab = Self {
            runtime,
            provisioner,
            roles,
            proxy,
            address,
            snapshot,
            log,
            servers,
            settings: RedisKeySettings::default(),
            max_connections: 1000,
            _folder: folder,
        };
        lab.publish(0, DatabaseStatus::Ready);
        lab
    }

    /// Shows the proxy the databases on that server.
    pub(crate) fn publish(&self, server: usize, status: DatabaseStatus) {
        let mut next = Snapshot {
            generation: self.snapshot.load().generation + 1,
            ..Snapshot::default()
        };
        for (at, server) in (0..).zip(&self.servers) {
            let server = Server {
                id: ServerId(at),
                engine: Engine::Redis,
                address: server.address.clone(),
                connection_budget: 200,
                region: "eu-central".into(),
                redis_select: Some(role(SELECT_USER, SELECT_PASSWORD)),
            };
            next.servers.insert(server.id, Arc::new(server));
        }
        let project = ProjectId::new("tdb_0000cafe");
        for ((id, tenant, number, prefix), roles) in TENANTS.into_iter().zip(&self.roles) {
            let database = Database {
                id,
                project: project.clone(),
                engine: Engine::Redis,
                name: format!("cache__{tenant}").into(),
                blueprint: BlueprintName::new("cache"),
                kind: DatabaseKind::Tenant {
                    tenant: TenantId::new(tenant),
                },
                server: ServerId(server as u64),
                status,
                native_roles: roles.clone(),
                settings: Settings {
                    max_connections: self.max_connections,
                    query_timeout_ms: 5000,
                    ..Settings::default()
                },
                pool_mode: PoolMode::Transaction,
                schema_epoch: 0,
                redis: Some(place(number, prefix, &self.settings)),
            };
            let name = DatabaseName {
                project: project.clone(),
                engine: Engine::Redis,
                name: Arc::clone(&database.name),
            };
            next.names.insert(name, id);
            next.redis.insert(&database);
            next.databases.insert(id, Arc::new(database));
        }
        for (id, password, role) in [(1, PASSWORD, Role::Admin), (2, READER_PASSWORD, Role::Read)] {
            let key = Arc::new(Key {
                id: KeyId(id),
                project: project.clone(),
                role,
                scope: Scope::Project,
                stored_key: [0; 32],
                server_key: [0; 32],
            });
            let hash = digest::digest(&digest::SHA256, password.as_bytes());
            next.passwords
                .insert(hash.as_ref().try_into().unwrap(), key);
        }
        self.snapshot.store(next);
    }

    /// The first server ends.
    pub(crate) fn stop_server(&self) {
        self.runtime.block_on(self.provisioner.stop(ServerId(0)));
    }

    pub(crate) fn traffic(&self) -> Arc<dyn TrafficControl> {
        self.proxy.traffic()
    }

    /// A connection that has not logged in.
    pub(crate) fn connect(&self) -> Wire<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire::new(stream)
    }

    /// A tenant's connection.
    pub(crate) fn log_in(&self, tenant: &str) -> Wire<TcpStream> {
        let mut client = self.connect();
        assert_eq!(client.ask(&["AUTH", tenant, PASSWORD]), "OK");
        client
    }

    /// A tenant's connection in RESP3.
    pub(crate) fn log_in_3(&self, tenant: &str) -> Wire<TcpStream> {
        let mut client = self.connect();
        let hello = client.ask(&["HELLO", "3", "AUTH", tenant, PASSWORD]);
        assert!(hello.contains("\"proto\" => 3"), "{hello}");
        client
    }

    pub(crate) fn stop(self) {
        self.proxy.drain(Duration::from_millis(200));
        self.runtime.block_on(self.provisioner.stop_all());
    }
}

fn certificate(folder: &std::path::Path) -> TlsStore {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    TlsStore::load(&certificate, &key).unwrap()
}

fn place(number: u32, prefix: &str, settings: &RedisKeySettings) -> RedisDatabase {
    RedisDatabase {
        number,
        prefix: prefix.as_bytes().into(),
        settings: settings.clone(),
    }
}

fn role(name: &str, password: &str) -> Arc<NativeRole> {
    Arc::new(NativeRole {
        name: name.into(),
        password: password.into(),
        scram: ScramKeys::default(),
    })
}

/// A client that writes commands and reads replies, in words.
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    scanner: Scanner,
    input: Vec<u8>,
}

/// A stream that may be given a time limit.
pub(crate) trait Timed {
    fn limit(&self, time: Duration);
}

impl Timed for TcpStream {
    fn limit(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

impl Timed for UnixStream {
    fn limit(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

impl<S: std::io::Read + std::io::Write + Timed> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        stream.limit(Duration::from_secs(30));
        Self {
            stream,
            scanner: Scanner::new(),
            input: Vec::new(),
        }
    }

    pub(crate) fn encode<A: AsRef<[u8]>>(command: &[A]) -> Vec<u8> {
        let args: Vec<&[u8]> = command.iter().map(AsRef::as_ref).collect();
        let mut out = Vec::new();
        protocol_redis::reply::write::command(&mut out, &args);
        out
    }

    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, command: &[A]) {
        self.stream.write_all(&Self::encode(command)).unwrap();
    }

    /// One whole reply, as bytes.
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        let mut at = 0;
        loop {
            if let Scan::End(used) = self.scanner.scan(&self.input[at..]).unwrap() {
                let rest = self.input.split_off(at + used);
                return std::mem::replace(&mut self.input, rest);
            }
            at = self.input.len();
            let mut bytes = [0; 16 << 10];
            let got = match self.stream.read(&mut bytes) {
                Ok(got) => got,
                // The time limit makes the kernel tell of this, where a thread of the process has a ring.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("no reply: {error}"),
            };
            assert!(
                got > 0,
                "no reply; so far: {}",
                String::from_utf8_lossy(&self.input)
            );
            self.input.extend_from_slice(&bytes[..got]);
        }
    }

    /// One reply, in words.
    pub(crate) fn read(&mut self) -> String {
        let reply = self.reply();
        show(&Value::parse(&reply).unwrap())
    }

    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, command: &[A]) -> String {
        self.send(command);
        self.read()
    }

    /// Whether the other side ends the connection, with nothing more to say.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        self.input.is_empty() && matches!(self.stream.read(&mut byte), Ok(0))
    }

    /// Whether nothing comes for a moment.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.stream.limit(Duration::from_millis(150));
        let mut bytes = [0; 1024];
        let got = self.stream.read(&mut bytes);
        self.stream.limit(Duration::from_secs(30));
        match got {
            Ok(got) => {
                self.input.extend_from_slice(&bytes[..got]);
                got == 0 && self.input.is_empty()
            }
            Err(_) => self.input.is_empty(),
        }
    }
}

/// A reply in words: bulk strings bare, maps with `=>`, errors with their code.
pub(crate) fn show(value: &Value<'_>) -> String {
    use protocol_redis::reply::Kind;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match value {
        Value::Simple(it) | Value::Bulk(it) | Value::Verbatim(_, it) => text(it),
        Value::Error(it) => format!("-{}", text(it)),
        Value::Integer(it) => it.to_string(),
        Value::Null => "(nil)".into(),
        Value::Boolean(it) => it.to_string(),
        Value::Double(it) | Value::BigNumber(it) => text(it),
        Value::Items(kind, items) => {
            let items: Vec<String> = items.map(|it| show(&it.unwrap())).collect();
            match kind {
                Kind::Map => {
                    let pairs = items
                        .chunks(2)
                        .map(|it| format!("{:?} => {}", it[0], it[1]));
                    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
                }
                Kind::Push => format!(">[{}]", items.join(", ")),
                Kind::Set => format!("~[{}]", items.join(", ")),
                Kind::Array => format!("[{}]", items.join(", ")),
            }
        }
    }
}

/// Runs redis-cli against the proxy.
pub(crate) fn redis_cli(lab: &Lab, tenant: &str, arguments: &[&str], input: &str) -> String {
    let mut process = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &lab.address.port().to_string()])
        .args(["--user", tenant, "--no-auth-warning", "--no-raw"])
        .args(arguments)
        .env("REDISCLI_AUTH", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let mut out = String::new();
    let mut lines = BufReader::new(process.stdout.take().unwrap());
    while lines.read_line(&mut out).unwrap() > 0 {}
    process.wait().unwrap();
    out
}
