//! The world of a simulated worker: clients, a server, the bytes between them, time, and chance. The worker, its pools, its shared
//! connections and its sessions are the very ones that run on sockets.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use control_store::ids::{BlueprintName, ProjectId, Role, TenantId};
use control_store::logs::Source;
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseName, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode,
    RedisDatabase, RedisKeySettings, Scope, ScramKeys, Server, ServerAddress, Settings, Snapshot,
    SnapshotCell,
};
use control_store::{DatabaseId, Engine, KeyId, ServerId};
use tempfile::TempDir;

use super::model::{Model, User};
use super::reactor::{SimReactor, id};
use crate::backend::budget::WorkerId;
use crate::backend::redis::login::KnownServers;
use crate::metrics::WorkerMetrics;
use crate::query_log::{QueryLog, QueryLogConfig};
use crate::reactor::{Buf, ConnId, Event, ListenerId, Peer};
use crate::session::redis::clients::Clients;
use crate::session::{Limits, Shared};
use crate::worker::hub::{Hub, HubParts, Mailboxes, gates};
use crate::worker::{Door, Plaintext, Worker};

/// As the worker's.
pub(super) const HIGH_WATER: usize = 256 << 10;
const LOW_WATER: usize = 64 << 10;
/// What is received at once, as by the reactors.
const BUFFER: usize = 16 << 10;

/// What clients log in with.
pub(super) const PASSWORD: &str = "tdb_secret";
/// Two tenants of one server: whose number, prefix and native login these are.
const TENANTS: [(DatabaseId, &str, u32, &str, &str); 2] = [
    (DatabaseId(1), "acme", 3, "1z:", "native-acme"),
    (DatabaseId(2), "beta", 5, "20:", "native-beta"),
];
const SELECT: (&str, &str) = ("select", "select-password");

/// Chance that a seed repeats (splitmix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xfeed_beef)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound.max(1)).unwrap();
        usize::try_from((z ^ (z >> 31)) % bound).unwrap()
    }

    /// How much of `len` bytes comes at once: mostly all, often a few.
    fn cut(&mut self, len: usize) -> usize {
        match self.below(3) {
            0 => len,
            1 => 1 + self.below(len.min(8)),
            _ => 1 + self.below(len),
        }
    }
}

/// A client, as it sees its connection.
pub(super) struct Client {
    conn: ConnId,
    /// What it has still to send.
    pub(super) script: Vec<u8>,
    pub(super) seen: Vec<u8>,
    /// It takes what comes.
    pub(super) reads: bool,
    /// It has hung up, or its connection broke.
    gone: bool,
    told_of_end: bool,
}

/// A server's end of a connection that the proxy has made.
#[derive(Default)]
pub(super) struct Wire {
    /// It has ended, whether the proxy knows it or not.
    pub(super) broken: bool,
    told: bool,
    /// It neither reads nor writes.
    pub(super) stalled: bool,
}

pub(super) struct Sim {
    pub(super) random: Random,
    pub(super) now: Instant,
    worker: Worker<SimReactor>,
    hub: Arc<Hub>,
    pub(super) server: Model,
    pub(super) wires: BTreeMap<u32, Wire>,
    pub(super) clients: Vec<Client>,
    /// Bytes that the server may send before one of its replies is cut in two.
    pub(super) server_cut: Option<usize>,
    _folder: TempDir,
    _log: Arc<QueryLog>,
}

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        Self::with_settings(seed, &RedisKeySettings::default())
    }

    pub(super) fn with_settings(seed: u64, settings: &RedisKeySettings) -> Self {
        // All servers of all simulations are alike, and their table is long.
        static KNOWN: OnceLock<Arc<KnownServers>> = OnceLock::new();
        Self::with_servers(seed, settings, Arc::clone(KNOWN.get_or_init(Arc::default)))
    }

    /// A server that has these commands besides.
    pub(super) fn with_commands(more: Vec<(&'static str, Vec<u8>)>) -> Self {
        let mut sim = Self::with_servers(0, &RedisKeySettings::default(), Arc::default());
        sim.server.extend(more);
        sim
    }

    fn with_servers(seed: u64, settings: &RedisKeySettings, known: Arc<KnownServers>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = QueryLog::open(QueryLogConfig {
            ring_bytes: 64 << 10,
            ..QueryLogConfig::new(folder.path())
        });
        let log = log.unwrap();
        let mailboxes = Mailboxes::new(1);
        let hub = Arc::new(Hub::new(HubParts {
            shared: Arc::new(Shared {
                snapshot: SnapshotCell::new(snapshot(settings)),
                gates: gates(&mailboxes),
                redis_servers: known,
                redis_clients: Clients::default(),
                redis_patterns: Arc::default(),
                redis_loads: Arc::default(),
                guard: None,
                mock_secret: [0; 32],
            }),
            limits: Limits::default(),
            tls: None,
            pool_size: 20,
            idle_timeout: Duration::from_secs(3600),
            max_clients: 1_000_000,
            proxy_headers_from: Arc::from([]),
            mailboxes,
        }));
        let door = Door {
            socket: File::open("/dev/null").unwrap().into(),
            engine: Engine::Redis,
            source: Source::Proxy,
            plaintext: Plaintext::Always,
            tls: false,
        };
        let worker = Worker::new(
            WorkerId(0),
            Arc::clone(&hub),
            SimReactor::new(),
            Arc::new(WorkerMetrics::default()),
            log.worker(),
            vec![door],
        );
        let now = Instant::now();
        let mut users = vec![User {
            name: SELECT.0,
            password: SELECT.1,
            prefix: None,
        }];
        users.extend(TENANTS.map(|(_, _, _, prefix, name)| User {
            name,
            password: name,
            prefix: Some(prefix),
        }));
        Self {
            random: Random::new(seed),
            now,
            worker: worker.unwrap(),
            hub,
            server: Model::new(users, now),
            wires: BTreeMap::new(),
            clients: Vec::new(),
            server_cut: None,
            _folder: folder,
            _log: log,
        }
    }

    // ---- what clients do ----

    /// A client that has said nothing yet.
    pub(super) fn connect(&mut self) -> usize {
        let mut conn = id(0);
        self.step_with(Vec::new(), |reactor| conn = reactor.open(false));
        let accepted = Event::Accepted {
            listener: ListenerId(0),
            conn,
            peer: Peer::Unix,
        };
        self.step(vec![accepted]);
        self.clients.push(Client {
            conn,
            script: Vec::new(),
            seen: Vec::new(),
            reads: true,
            gone: false,
            told_of_end: false,
        });
        self.clients.len() - 1
    }

    /// A client that has this to send, behind its login.
    pub(super) fn log_in(&mut self, tenant: &str, script: &[u8]) -> usize {
        let client = self.connect();
        let mut bytes = super::encode(&["AUTH", tenant, PASSWORD]);
        bytes.extend_from_slice(script);
        self.clients[client].script = bytes;
        client
    }

    /// The proxy has ended its connection, and it has seen all that was sent before.
    pub(super) fn is_closed(&mut self, client: usize) -> bool {
        let conn = self.clients[client].conn;
        let mut closed = false;
        self.step_with(Vec::new(), |reactor| {
            let conn = &reactor.conns[conn.index as usize];
            closed = conn.closed && conn.out.is_empty();
        });
        closed
    }

    /// It hangs up.
    pub(super) fn hang_up(&mut self, client: usize) {
        let it = &mut self.clients[client];
        it.gone = true;
        it.script.clear();
    }

    /// What the proxy keeps for a client that does not take it.
    pub(super) fn queued(&mut self, client: usize) -> usize {
        let conn = self.clients[client].conn;
        let mut queued = 0;
        self.step_with(Vec::new(), |reactor| {
            queued = reactor.conns[conn.index as usize].out.len();
        });
        queued
    }

    // ---- what happens ----

    fn step(&mut self, events: Vec<Event>) {
        self.step_with(events, |_| ());
    }

    fn step_with(&mut self, events: Vec<Event>, world: impl FnOnce(&mut SimReactor)) {
        self.now += Duration::from_micros(10);
        self.server.tick(self.now);
        self.worker.simulate(self.now, events, world);
    }

    /// The reactor's connections: which have what to take.
    fn conns(&mut self) -> Vec<(ConnId, bool, usize, bool, bool)> {
        let mut all = Vec::new();
        self.step_with(vec![Event::Woken], |reactor| {
            all = reactor
                .conns
                .iter()
                .enumerate()
                .map(|(at, it)| (id(at), it.to_server, it.out.len(), it.paused, it.closed))
                .collect();
        });
        all
    }

    /// Takes bytes that the proxy has sent; tells it if it may send more again.
    fn take(&mut self, conn: ConnId, len: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        let mut drained = false;
        self.step_with(Vec::new(), |reactor| {
            let it = &mut reactor.conns[conn.index as usize];
            let len = len.min(it.out.len());
            taken = it.out.drain(..len).collect();
            drained = it.full && it.out.len() <= LOW_WATER && !it.closed;
            it.full &= it.out.len() > LOW_WATER;
        });
        if drained {
            self.step(vec![Event::Drained { conn }]);
        }
        taken
    }

    /// What can happen now.
    fn possible(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        let conns = self.conns();
        for (conn, to_server, out, paused, closed) in conns {
            if to_server {
                let wire = self.wires.entry(conn.index).or_insert_with(|| {
                    self.server.connect(conn.index);
                    Wire::default()
                });
                if wire.broken {
                    if !wire.told && !closed {
                        acts.push(Act::ServerEnd(conn));
                    }
                    continue;
                }
                if wire.stalled {
                    continue;
                }
                if out > 0 {
                    acts.push(Act::ServerTakes(conn, out));
                } else if closed {
                    self.server.conns.remove(&conn.index);
                }
                let waiting = self.server.conns.get(&conn.index);
                let waiting = waiting.map_or(0, |it| it.output.len());
                if waiting > 0 && !paused && !closed {
                    acts.push(Act::ServerSends(conn, waiting));
                }
                let over = self.server.conns.get(&conn.index).is_some_and(|it| it.over);
                if over && waiting == 0 && !closed {
                    acts.push(Act::ServerEnd(conn));
                }
            } else if let Some(at) = self.clients.iter().position(|it| it.conn == conn) {
                let client = &self.clients[at];
                if out > 0 && client.reads && !client.gone {
                    acts.push(Act::ClientTakes(at, out));
                }
                if closed {
                    continue;
                }
                if client.gone && !client.told_of_end {
                    acts.push(Act::ClientEnd(at));
                } else if !client.script.is_empty() && !paused {
                    acts.push(Act::ClientSends(at, client.script.len()));
                }
            }
        }
        acts
    }

    fn act(&mut self, act: &Act, len: usize) {
        match *act {
            Act::ClientSends(at, _) => {
                let client = &mut self.clients[at];
                let piece: Vec<u8> = client.script.drain(..len).collect();
                let (conn, buf) = (client.conn, Buf::from_vec(piece));
                self.step(vec![Event::Received { conn, buf }]);
            }
            Act::ClientTakes(at, _) => {
                let taken = self.take(self.clients[at].conn, len);
                self.clients[at].seen.extend(taken);
            }
            Act::ClientEnd(at) => {
                self.clients[at].told_of_end = true;
                let conn = self.clients[at].conn;
                self.step(vec![Event::Eof { conn }]);
            }
            Act::ServerTakes(conn, _) => {
                let taken = self.take(conn, len);
                self.server.receive(conn.index, &taken);
            }
            Act::ServerSends(conn, _) => {
                let output = self
                    .server
                    .conns
                    .get_mut(&conn.index)
                    .map(|it| &mut it.output);
                let piece: Vec<u8> = output.map_or_else(Vec::new, |it| it.drain(..len).collect());
                let buf = Buf::from_vec(piece);
                self.step(vec![Event::Received { conn, buf }]);
            }
            Act::ServerEnd(conn) => {
                let wire = self.wires.entry(conn.index).or_default();
                (wire.broken, wire.told) = (true, true);
                self.server.conns.remove(&conn.index);
                self.step(vec![Event::Eof { conn }]);
            }
        }
    }

    /// One random thing happens. `false`: nothing can happen without time passing.
    fn random_step(&mut self) -> bool {
        let acts = self.possible();
        if acts.is_empty() {
            return false;
        }
        let act = &acts[self.random.below(acts.len())];
        let len = self.random.cut(act.len()).min(BUFFER);
        self.act(act, len);
        true
    }

    /// So many random things happen.
    pub(super) fn run_for(&mut self, steps: usize) {
        for _ in 0..steps {
            if !self.random_step() && !self.pass_time() {
                return;
            }
        }
    }

    /// Until nothing can happen any more, which must come.
    pub(super) fn run(&mut self) {
        for _ in 0..400_000 {
            if !self.random_step() && !self.pass_time() {
                return;
            }
        }
        panic!("it never ends");
    }

    /// All that can happen happens, whole and in order, but no time passes that somebody waits for.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            let acts = self.possible();
            let Some(act) = acts.first() else { return };
            let mut len = act.len().min(BUFFER);
            if let (Act::ServerSends(..), Some(left)) = (act, self.server_cut) {
                if left > 0 && left < len {
                    len = left;
                }
                self.server_cut = left.checked_sub(len).filter(|left| *left > 0);
            }
            self.act(act, len);
        }
        panic!("it never settles");
    }

    /// As [`Self::settle`], up to a moment that must come.
    pub(super) fn settle_until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let acts = self.possible();
            let act = acts.first().expect("nothing more happens");
            self.act(act, act.len().min(BUFFER));
        }
    }

    // ---- what servers do that fail ----

    /// Brings the proxy so many bytes of what the server has for that connection.
    pub(super) fn deliver(&mut self, conn: u32, len: usize) {
        let conn = id(conn as usize);
        self.act(&Act::ServerSends(conn, len), len);
    }

    /// The server's end of that connection breaks; the proxy has yet to notice.
    pub(super) fn break_wire(&mut self, conn: u32) {
        self.wires.entry(conn).or_default().broken = true;
        self.server.conns.remove(&conn);
    }

    /// A connection of that logical database breaks, if there is one.
    pub(super) fn break_one_of(&mut self, number: u32) {
        let conns = self.server.of_number(number);
        if !conns.is_empty() {
            let conn = conns[self.random.below(conns.len())];
            self.break_wire(conn);
        }
    }

    /// The server sends something on one connection of that logical database.
    pub(super) fn lie(&mut self, number: u32, bytes: &[u8]) {
        let conns = self.server.of_number(number);
        if !conns.is_empty() {
            let conn = conns[self.random.below(conns.len())];
            let conn = self.server.conns.get_mut(&conn);
            conn.unwrap().output.extend_from_slice(bytes);
        }
    }

    /// Time passes until something can happen. `false`: nobody waits for any.
    pub(super) fn pass_time(&mut self) -> bool {
        // The proxy tries a server again that took no connection.
        let ticks = 40;
        for _ in 0..ticks {
            self.now += Duration::from_millis(50);
            self.step(vec![Event::Woken]);
            if !self.possible().is_empty() {
                return true;
            }
        }
        let Some(next) = self.server.next_time() else {
            return false;
        };
        self.now = self.now.max(next);
        self.step(vec![Event::Woken]);
        !self.possible().is_empty()
    }

    // ---- what is true afterwards ----

    /// Nobody is counted as under way.
    pub(super) fn check_gates_are_empty(&self) {
        for (database, ..) in TENANTS {
            assert_eq!(self.hub.shared.gates.in_flight(database), 0);
        }
    }
}

/// What may happen next; how many bytes it concerns.
enum Act {
    ClientSends(usize, usize),
    ClientTakes(usize, usize),
    ClientEnd(usize),
    ServerTakes(ConnId, usize),
    ServerSends(ConnId, usize),
    ServerEnd(ConnId),
}

impl Act {
    const fn len(&self) -> usize {
        match self {
            Self::ClientSends(_, len)
            | Self::ClientTakes(_, len)
            | Self::ServerTakes(_, len)
            | Self::ServerSends(_, len) => *len,
            Self::ClientEnd(_) | Self::ServerEnd(_) => 0,
        }
    }
}

fn role(name: &str, password: &str) -> Arc<NativeRole> {
    Arc::new(NativeRole {
        name: name.into(),
        password: password.into(),
        scram: ScramKeys::default(),
    })
}

fn snapshot(settings: &RedisKeySettings) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let server = Server {
        id: ServerId(1),
        engine: Engine::Redis,
        address: ServerAddress::Unix("/nowhere".into()),
        connection_budget: 100,
        region: "eu-central".into(),
        redis_select: Some(role(SELECT.0, SELECT.1)),
    };
    snapshot.servers.insert(server.id, Arc::new(server));
    let project = ProjectId::new("tdb_0000cafe");
    for (id, tenant, number, prefix, native) in TENANTS {
        let role = role(native, native);
        let database = Database {
            id,
            project: project.clone(),
            engine: Engine::Redis,
            name: format!("cache__{tenant}").into(),
            blueprint: BlueprintName::new("cache"),
            kind: DatabaseKind::Tenant {
                tenant: TenantId::new(tenant),
            },
            server: ServerId(1),
            status: DatabaseStatus::Ready,
            native_roles: NativeRoles {
                admin: Arc::clone(&role),
                write: Arc::clone(&role),
                read: role,
            },
            settings: Settings {
                max_connections: 1_000_000,
                ..Settings::default()
            },
            pool_mode: PoolMode::Transaction,
            schema_epoch: 0,
            redis: Some(RedisDatabase {
                number,
                prefix: prefix.as_bytes().into(),
                settings: settings.clone(),
            }),
        };
        let name = DatabaseName {
            project: project.clone(),
            engine: Engine::Redis,
            name: Arc::clone(&database.name),
        };
        snapshot.names.insert(name, id);
        snapshot.redis.insert(&database);
        snapshot.databases.insert(id, Arc::new(database));
    }
    let key = Arc::new(Key {
        id: KeyId(1),
        project,
        role: Role::Admin,
        scope: Scope::Project,
        stored_key: [0; 32],
        server_key: [0; 32],
    });
    let hash = digest::digest(&digest::SHA256, PASSWORD.as_bytes());
    let hash = hash.as_ref().try_into().unwrap();
    snapshot.passwords.insert(hash, key);
    snapshot
}
