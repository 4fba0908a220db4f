//! The world of the simulated sessions: clients, a small pool, servers, and chance.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_store::ids::{BlueprintName, ProjectId, Role, TenantId};
use control_store::logs::Source;
use control_store::snapshot::{
    Database, DatabaseKind, DatabaseStatus, Key, NativeRole, NativeRoles, PoolMode, Scope,
    ScramKeys, Server, ServerAddress, Settings, Snapshot, SnapshotCell,
};
use control_store::{DatabaseId, Engine, KeyId, ServerId};
use tempfile::TempDir;

use super::super::live::{Identity, Live};
use super::super::login::KnownLogins;
use super::super::replay::Replay;
use super::super::replies::Replies;
use super::super::settings::SettingSets;
use super::super::statement::Statements;
use super::super::{PgSession, Phase};
use super::model::{self, Model};
use crate::backend::pool::{LinkId, SessionRef};
use crate::backend::postgres::prepared::Prepared;
use crate::backend::postgres::{Backend, Incoming};
use crate::backend::{BackendId, Member, PoolKey};
use crate::gate::Gates;
use crate::metrics::WorkerMetrics;
use crate::query_log::{QueryLog, QueryLogConfig};
use crate::reactor::{Buf, ConnId};
use crate::route::{DdlPolicy, Route};
use crate::session::{Context, Event, Fate, Ports, Request, Session, Shared};

/// Chance that a seed repeats (splitmix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xdead_beef)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

/// How a client fared.
pub(super) enum Outcome {
    /// Its connection stands; what it saw behind the login.
    Open(Vec<u8>),
    /// It was closed; what it saw.
    Closed(Vec<u8>),
}

struct Client {
    session: PgSession,
    /// What it has still to send.
    script: Vec<u8>,
    /// What it sends once all before it is answered.
    later: VecDeque<Vec<u8>>,
    seen: Vec<u8>,
    /// Answers that it waits for, that to its login first.
    batches: usize,
    closed: bool,
    gone: bool,
}

/// A server process, and who leases it.
struct Process {
    model: Model,
    /// On its way to the model.
    wire: Vec<u8>,
    lessee: Option<usize>,
    alive: bool,
}

struct World {
    processes: Vec<Process>,
    idle: Vec<Box<Backend>>,
    waiting: VecDeque<usize>,
    deliveries: VecDeque<(usize, Box<Backend>)>,
    capacity: usize,
    none: Rc<super::super::settings::SettingSet>,
    links: (),
}

impl World {
    fn alive(&self) -> usize {
        self.processes.iter().filter(|it| it.alive).count()
    }

    fn new_backend(&mut self) -> Box<Backend> {
        let id = self.processes.len() as u32;
        self.processes.push(Process {
            model: Model::default(),
            wire: Vec::new(),
            lessee: None,
            alive: true,
        });
        Box::new(Backend {
            member: Member {
                id: BackendId(id),
                conn: ConnId {
                    index: id,
                    generation: 0,
                },
                pool: PoolKey {
                    database: DatabaseId(1),
                    role: Role::Admin,
                },
                server: ServerId(1),
                idle_since: Instant::now(),
            },
            parameters: Rc::new(vec![(Box::from(&b"TimeZone"[..]), Box::from(&b"UTC"[..]))]),
            replies: Replies::default(),
            prepared: Prepared::default(),
            settings: Rc::clone(&self.none),
            schema_epoch: 0,
            incoming: Incoming::default(),
            replay: Replay::default(),
        })
    }

    /// Gives backends to those who wait, making new ones for those that are gone.
    fn serve(&mut self) {
        while !self.waiting.is_empty() && (!self.idle.is_empty() || self.alive() < self.capacity) {
            let backend = match self.idle.pop() {
                Some(backend) => backend,
                None => self.new_backend(),
            };
            if let Some(client) = self.waiting.pop_front() {
                self.processes[backend.id.0 as usize].lessee = Some(client);
                self.deliveries.push_back((client, backend));
            }
        }
    }
}

struct SimPorts<'a> {
    world: &'a mut World,
    me: usize,
    seen: &'a mut Vec<u8>,
    requests: &'a mut Vec<Request>,
}

impl Ports<Backend> for SimPorts<'_> {
    fn send_client(&mut self, buf: Buf) {
        self.seen.extend_from_slice(&buf);
    }

    fn copy_client(&mut self, bytes: &[u8]) {
        self.seen.extend_from_slice(bytes);
    }

    fn send_backend(&mut self, conn: ConnId, buf: Buf) {
        self.copy_backend(conn, &buf);
    }

    fn copy_backend(&mut self, conn: ConnId, bytes: &[u8]) {
        let process = &mut self.world.processes[conn.index as usize];
        assert_eq!(
            process.lessee,
            Some(self.me),
            "only who leases it sends to a backend"
        );
        process.wire.extend_from_slice(bytes);
    }

    fn expect_client(&mut self, _: u64) {}

    fn expect_backend(&mut self, _: ConnId, _: u64) {}

    fn lease(&mut self, _: PoolKey, _: &Route) -> Option<Box<Backend>> {
        // Others who wait come first.
        if self.world.waiting.is_empty() {
            let backend = match self.world.idle.pop() {
                Some(backend) => Some(backend),
                None if self.world.alive() < self.world.capacity => Some(self.world.new_backend()),
                None => None,
            };
            if let Some(backend) = backend {
                self.world.processes[backend.id.0 as usize].lessee = Some(self.me);
                return Some(backend);
            }
        }
        self.world.waiting.push_back(self.me);
        None
    }

    fn release(&mut self, backend: Box<Backend>, fate: Fate) {
        let process = &mut self.world.processes[backend.id.0 as usize];
        assert_eq!(process.lessee.take(), Some(self.me));
        if fate == Fate::Keep {
            assert!(
                backend.replies.is_empty(),
                "replies are owed to a lessee who is gone"
            );
            let at_rest =
                process.model.status == protocol_postgres::backend::TransactionStatus::Idle;
            assert!(
                at_rest && process.alive,
                "a backend is given back in a transaction"
            );
            self.world.idle.push(backend);
        } else {
            process.alive = false;
        }
    }

    fn cancel(&mut self, _: BackendId) {}

    fn request(&mut self, request: Request) {
        self.requests.push(request);
    }

    fn process_id(&self) -> u32 {
        self.me as u32
    }

    fn lease_link(&mut self, _: LinkId, _: PoolKey, _: &Route) -> Option<Box<Backend>> {
        unreachable!("no connection is shared")
    }

    fn links(&mut self) -> &mut () {
        &mut self.world.links
    }

    fn this(&self) -> SessionRef {
        SessionRef {
            slot: self.me as u32,
            serial: self.me as u64,
        }
    }

    fn client_queued(&self) -> usize {
        0
    }
}

pub(super) struct Sim {
    random: Random,
    cx: Context,
    clients: Vec<Client>,
    world: World,
    route: Route,
    /// Whether schemas change behind the proxy's back.
    pub(super) alters: bool,
    _folder: TempDir,
}

impl Sim {
    pub(super) fn new(seed: u64, capacity: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = QueryLog::open(QueryLogConfig::new(folder.path())).unwrap();
        let now = Instant::now();
        let cx = Context {
            shared: Arc::new(Shared {
                snapshot: SnapshotCell::new(Snapshot::default()),
                gates: Arc::new(Gates::new(|_| ())),
                redis_servers: Arc::default(),
                redis_clients: crate::session::redis::clients::Clients::default(),
                redis_patterns: Arc::default(),
                redis_loads: Arc::default(),
                guard: None,
                mock_secret: [0; 32],
            }),
            statements: Statements::new(),
            sets: SettingSets::new(),
            logins: KnownLogins::default(),
            log: log.worker(),
            metrics: Arc::new(WorkerMetrics::default()),
            now,
            wall_us: 0,
            scratch: Vec::new(),
            redis: crate::session::redis::Scratch::default(),
        };
        let world = World {
            processes: Vec::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            deliveries: VecDeque::new(),
            capacity,
            none: cx.sets.none(),
            links: (),
        };
        Self {
            random: Random::new(seed),
            cx,
            clients: Vec::new(),
            world,
            route: route(),
            alters: false,
            _folder: folder,
        }
    }

    /// A client that has just proved who it is.
    pub(super) fn connect(&mut self, script: &[u8]) -> usize {
        let me = self.clients.len();
        let gate = self.cx.shared.gates.gate(DatabaseId(1));
        assert!(gate.connect(1000));
        let word = gate.word();
        let mut live = Live::new(
            &self.cx,
            identity(),
            self.route.clone(),
            gate,
            word,
            Vec::new(),
        );
        let (mut seen, mut requests) = (Vec::new(), Vec::new());
        let mut ports = SimPorts {
            world: &mut self.world,
            me,
            seen: &mut seen,
            requests: &mut requests,
        };
        live.begin(&mut self.cx, &mut ports);
        self.clients.push(Client {
            session: PgSession {
                phase: Phase::Live(Box::new(live)),
            },
            script: script.to_vec(),
            later: VecDeque::new(),
            seen,
            batches: 1,
            closed: false,
            gone: false,
        });
        me
    }

    /// A client that waits for the answers to each batch before it sends the next one.
    pub(super) fn connect_patient(&mut self, batches: Vec<Vec<u8>>) {
        let me = self.connect(b"");
        self.clients[me].later = batches.into();
    }

    /// Patient clients go on.
    fn send_later(&mut self) {
        for client in &mut self.clients {
            if client.script.is_empty()
                && !client.later.is_empty()
                && model::ready_count(&client.seen) == client.batches
                && let Some(batch) = client.later.pop_front()
            {
                client.script = batch;
                client.batches += 1;
            }
        }
    }

    fn event(&mut self, me: usize, event: Event<Backend>) {
        let client = &mut self.clients[me];
        let mut requests = Vec::new();
        let mut ports = SimPorts {
            world: &mut self.world,
            me,
            seen: &mut client.seen,
            requests: &mut requests,
        };
        client.session.handle(&mut self.cx, &mut ports, event);
        for request in requests {
            match request {
                Request::Close => client.closed = true,
                Request::CancelLease { .. } => self.world.waiting.retain(|it| *it != me),
                Request::LoggedIn => {}
                other => panic!("nobody expects {other:?}"),
            }
        }
        self.world.serve();
    }

    /// One random thing happens. `false`: nothing can happen any more.
    fn step(&mut self) -> bool {
        self.cx.now += Duration::from_micros(10);
        if let Some((me, backend)) = self.world.deliveries.pop_front() {
            self.event(me, Event::Leased(backend));
            return true;
        }
        if self.alters && self.random.below(6) == 0 {
            let count = self.world.processes.len();
            if let Some(process) = self.world.processes.get_mut(self.random.below(count)) {
                process.model.alter();
            }
        }
        self.send_later();
        let mut can = Vec::new();
        for (at, client) in self.clients.iter().enumerate() {
            if !client.script.is_empty()
                && !client.closed
                && !client.gone
                && client.session.reads_client()
            {
                can.push((0, at));
            }
        }
        for (at, process) in self.world.processes.iter().enumerate() {
            if process.alive && !process.wire.is_empty() {
                can.push((1, at));
            }
            if process.alive && process.lessee.is_some() && !process.model.output.is_empty() {
                can.push((2, at));
            }
        }
        if can.is_empty() {
            return false;
        }
        let (what, at) = can[self.random.below(can.len())];
        match what {
            0 => {
                let piece = cut(&mut self.random, &mut self.clients[at].script);
                self.event(at, Event::Client(Buf::from_vec(piece)));
            }
            1 => {
                let process = &mut self.world.processes[at];
                let piece = cut(&mut self.random, &mut process.wire);
                process.model.receive(&piece);
            }
            _ => {
                let process = &mut self.world.processes[at];
                let piece = cut(&mut self.random, &mut process.model.output);
                if let Some(lessee) = process.lessee {
                    self.event(lessee, Event::Backend(Buf::from_vec(piece)));
                }
            }
        }
        true
    }

    pub(super) fn run_for(&mut self, steps: usize) {
        for _ in 0..steps {
            if !self.step() {
                return;
            }
        }
    }

    /// Until nothing can happen any more, which must come.
    pub(super) fn run(&mut self) {
        for _ in 0..200_000 {
            if !self.step() {
                return;
            }
        }
        panic!("it never ends");
    }

    pub(super) fn vanish(&mut self, me: usize) {
        self.clients[me].gone = true;
        if !self.clients[me].closed {
            self.event(me, Event::ClientGone);
        }
    }

    /// The connection of a leased backend breaks.
    pub(super) fn break_a_backend(&mut self) {
        let leased = self
            .world
            .processes
            .iter()
            .position(|it| it.alive && it.lessee.is_some());
        if let Some(at) = leased
            && let Some(lessee) = self.world.processes[at].lessee
        {
            if self
                .world
                .deliveries
                .iter()
                .any(|(_, backend)| backend.id.0 as usize == at)
            {
                return;
            }
            self.event(lessee, Event::BackendGone);
        }
    }

    /// A leased backend sends what nobody asked for.
    pub(super) fn make_a_backend_lie(&mut self, bytes: &[u8]) {
        let leased = self
            .world
            .processes
            .iter_mut()
            .find(|it| it.alive && it.lessee.is_some());
        if let Some(process) = leased {
            process.model.output.extend_from_slice(bytes);
        }
    }

    pub(super) fn outcome(&self, me: usize) -> Outcome {
        let client = &self.clients[me];
        // The login ends with the first ReadyForQuery.
        let end = client
            .seen
            .windows(6)
            .position(|it| it == [b'Z', 0, 0, 0, 5, b'I']);
        let seen = client.seen[end.map_or(0, |at| at + 6)..].to_vec();
        if client.closed {
            Outcome::Closed(seen)
        } else {
            Outcome::Open(seen)
        }
    }

    /// All clients are at rest or gone: no backend is leased, nobody waits, and the gate is empty.
    pub(super) fn check_nothing_is_held(&self) {
        assert!(self.world.waiting.is_empty(), "somebody waits");
        let leased = self
            .world
            .processes
            .iter()
            .any(|it| it.alive && it.lessee.is_some());
        assert!(!leased, "a backend is leased by nobody who needs it");
        assert_eq!(self.cx.shared.gates.in_flight(DatabaseId(1)), 0);
    }
}

fn cut(random: &mut Random, bytes: &mut Vec<u8>) -> Vec<u8> {
    // Mostly whole, often a few bytes: both ways matter.
    let len = match random.below(3) {
        0 => bytes.len(),
        1 => 1 + random.below(bytes.len().min(8)),
        _ => 1 + random.below(bytes.len()),
    };
    bytes.drain(..len.min(bytes.len())).collect()
}

fn identity() -> Identity {
    Identity {
        user: "tdb_1".into(),
        database_name: "shop__acme".into(),
        key: Arc::new(Key {
            id: KeyId(1),
            project: ProjectId::new("tdb_1"),
            role: Role::Admin,
            scope: Scope::Project,
            stored_key: [0; 32],
            server_key: [0; 32],
        }),
        source: Source::Proxy,
        cancel_key: [1; 32],
        long_cancel_key: false,
    }
}

fn route() -> Route {
    let role = Arc::new(NativeRole {
        name: "native".into(),
        password: "".into(),
        scram: ScramKeys {
            salt: [0; 16],
            iterations: 1,
            client_key: [0; 32],
            server_key: [0; 32],
        },
    });
    Route {
        database: Arc::new(Database {
            id: DatabaseId(1),
            project: ProjectId::new("tdb_1"),
            engine: Engine::Postgres,
            name: "shop__acme".into(),
            blueprint: BlueprintName::new("shop"),
            kind: DatabaseKind::Tenant {
                tenant: TenantId::new("acme"),
            },
            server: ServerId(1),
            status: DatabaseStatus::Ready,
            native_roles: NativeRoles {
                admin: Arc::clone(&role),
                write: Arc::clone(&role),
                read: Arc::clone(&role),
            },
            settings: Settings::default(),
            pool_mode: PoolMode::Transaction,
            schema_epoch: 0,
            redis: None,
        }),
        server: Arc::new(Server {
            id: ServerId(1),
            engine: Engine::Postgres,
            address: ServerAddress::Unix("/nowhere".into()),
            connection_budget: 10,
            region: "eu-central".into(),
            redis_select: None,
        }),
        native_role: role,
        ddl: DdlPolicy::Refuse,
    }
}
