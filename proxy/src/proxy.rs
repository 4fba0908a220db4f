//! The data plane of one process: its worker threads, and how it is started, steered and stopped.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use control_store::guard::Guard;
use control_store::logs::Source;
use control_store::network::Network;
use control_store::{Engine, SnapshotCell, TrafficControl};

use crate::backend::budget::WorkerId;
use crate::metrics::{Extra, WorkerMetrics, render};
use crate::query_log::QueryLog;
use crate::reactor::{
    self, AnyReactor, Options, Reactor, ReactorKind, TlsConfigError, TlsStore, Uplinks,
};
use crate::session::{Limits, Shared};
use crate::worker::hub::{Hub, HubParts, Mailboxes, gates};
use crate::worker::{Door, Plaintext, Worker};

/// How a proxy is to run.
pub struct Config {
    /// The reactor; `None`: io_uring where the kernel lets us, else epoll.
    pub reactor: Option<ReactorKind>,
    /// Worker threads; at least one.
    pub workers: u16,
    /// Bound and listening sockets for PostgreSQL clients: one for each worker, on one address (`SO_REUSEPORT`). With fewer
    /// than workers, some workers have none.
    pub postgres: Vec<TcpListener>,
    /// The same for Redis clients.
    pub redis: Vec<TcpListener>,
    /// Where PostgreSQL clients of this process itself connect (`…/.s.PGSQL.5432`); its folder must be closed to others.
    pub internal_socket: Option<PathBuf>,
    /// The same for Redis clients.
    pub redis_internal_socket: Option<PathBuf>,
    /// Takes unencrypted clients from this machine.
    pub plaintext: bool,
    /// Takes unencrypted clients from everywhere.
    pub plaintext_from_anywhere: bool,
    /// The certificate; without one, TLS is not offered.
    pub tls: Option<Arc<TlsStore>>,
    /// Load balancers, whose connections begin with a PROXY header that tells whose they are.
    pub proxy_headers_from: Vec<Network>,
    /// Client connections that may be open at a time.
    pub max_clients: usize,
    /// Backend connections that the clients of one database and role may have in each worker.
    pub pool_size: u32,
    /// How long a backend connection may idle.
    pub backend_idle_timeout: Duration,
    /// How long, under load, what happens may wait for more to happen: see [`Options::coalesce`].
    pub coalesce: Duration,
    /// How long a statement may wait for a backend connection.
    pub pool_wait_timeout: Duration,
    /// How long a login may take.
    pub login_timeout: Duration,
    /// Turns banned addresses away, and hears of wrong passwords.
    pub guard: Option<Arc<Guard>>,
}

impl Default for Config {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            reactor: None,
            workers: 1,
            postgres: Vec::new(),
            redis: Vec::new(),
            internal_socket: None,
            redis_internal_socket: None,
            plaintext: false,
            plaintext_from_anywhere: false,
            tls: None,
            proxy_headers_from: Vec::new(),
            max_clients: 100_000,
            pool_size: 20,
            backend_idle_timeout: Duration::from_secs(60),
            coalesce: Options::default().coalesce,
            pool_wait_timeout: limits.lease,
            login_timeout: limits.login,
            guard: None,
        }
    }
}

/// A running data plane.
pub struct Proxy {
    hub: Arc<Hub>,
    kind: ReactorKind,
    metrics: Vec<Arc<WorkerMetrics>>,
    query_log: Arc<QueryLog>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    internal_sockets: Vec<PathBuf>,
}

impl Proxy {
    /// Starts the workers. They take clients once this returns.
    ///
    /// # Errors
    /// When a thread, a reactor or the internal socket cannot be made.
    pub fn start(
        config: Config,
        snapshot: SnapshotCell,
        query_log: Arc<QueryLog>,
    ) -> io::Result<Self> {
        let workers = config.workers.clamp(1, 127);
        let mailboxes = Mailboxes::new(usize::from(workers));
        let mut mock_secret = [0; 32];
        rand::fill(&mut mock_secret).map_err(|_| io::Error::other("no random bytes"))?;
        let hub = Arc::new(Hub::new(HubParts {
            shared: Arc::new(Shared {
                snapshot,
                gates: gates(&mailboxes),
                mock_secret,
                redis_servers: Arc::default(),
                redis_clients: crate::session::redis::clients::Clients::default(),
                redis_patterns: Arc::default(),
                redis_loads: Arc::default(),
                guard: config.guard.clone(),
            }),
            limits: Limits {
                login: config.login_timeout,
                lease: config.pool_wait_timeout,
            },
            tls: config.tls.clone(),
            pool_size: config.pool_size,
            idle_timeout: config.backend_idle_timeout,
            max_clients: config.max_clients,
            proxy_headers_from: Arc::from(config.proxy_headers_from.as_slice()),
            mailboxes,
        }));
        let internal = [&config.internal_socket, &config.redis_internal_socket];
        let internal = internal.into_iter().flatten().cloned().collect();
        let kind = reactor::choose(config.reactor)?;
        let options = Options {
            coalesce: config.coalesce,
            ..Options::default()
        };
        let by_worker = doors(config, usize::from(workers))?;
        let mut proxy = Self {
            hub,
            kind,
            metrics: Vec::new(),
            query_log,
            threads: Mutex::default(),
            internal_sockets: internal,
        };
        proxy.spawn(by_worker, options)?;
        Ok(proxy)
    }

    fn spawn(&mut self, doors: Vec<Vec<Door>>, options: Options) -> io::Result<()> {
        let kind = self.kind;
        let (started, starts) = mpsc::channel();
        let count = doors.len();
        for (id, doors) in (0..).map(WorkerId).zip(doors) {
            let metrics = Arc::new(WorkerMetrics::default());
            self.metrics.push(Arc::clone(&metrics));
            let (hub, log, started) = (
                Arc::clone(&self.hub),
                self.query_log.worker(),
                started.clone(),
            );
            let work = move || {
                // A reactor belongs to the thread that makes it.
                let reactor = match reactor::open(kind, options) {
                    Ok(reactor) => reactor,
                    Err(error) => return drop(started.send(Err(error))),
                };
                match reactor {
                    AnyReactor::Uring(reactor) => {
                        let reactor = Uplinks::new(*reactor);
                        run(id, hub, reactor, metrics, log, doors, &started);
                    }
                    AnyReactor::Epoll(reactor) => {
                        let reactor = Uplinks::new(*reactor);
                        run(id, hub, reactor, metrics, log, doors, &started);
                    }
                }
            };
            let thread = thread::Builder::new()
                .name(format!("proxy-{}", id.0))
                .spawn(work)?;
            self.threads().push(thread);
        }
        drop(started);
        for _ in 0..count {
            let start = starts
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("a worker ended as it began")));
            if let Err(error) = start {
                self.drain(Duration::ZERO);
                return Err(error);
            }
        }
        Ok(())
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the control plane steers this proxy's traffic.
    pub fn traffic(&self) -> Arc<dyn TrafficControl> {
        Arc::clone(&self.hub) as Arc<dyn TrafficControl>
    }

    /// The reactor in use.
    pub fn reactor(&self) -> ReactorKind {
        self.kind
    }

    /// All metrics, as one scrape's body.
    pub fn metrics_page(&self) -> String {
        let extra = Extra {
            reactor: match self.kind {
                ReactorKind::Uring => "io_uring",
                ReactorKind::Epoll => "epoll",
            },
            query_log_dropped: self.query_log.dropped(),
            metrics: Vec::new(),
        };
        render(&self.metrics, &extra)
    }

    /// Reads the certificate's files again; connections that stand keep what they have.
    ///
    /// # Errors
    /// When they cannot be used; the certificate of before then stays.
    pub fn reload_tls(&self) -> Result<(), TlsConfigError> {
        self.hub.tls.as_ref().map_or(Ok(()), |store| store.reload())
    }

    /// Takes no more clients, ends sessions at a safe point and those that are left after `time`. Returns when all workers
    /// have ended.
    pub fn drain(&self, time: Duration) {
        self.hub.drain(Instant::now() + time);
        let threads = std::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker has panicked");
            }
        }
        for path in &self.internal_sockets {
            // It may be gone with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn run<R: Reactor>(
    id: WorkerId,
    hub: Arc<Hub>,
    reactor: R,
    metrics: Arc<WorkerMetrics>,
    log: crate::query_log::WorkerLog,
    doors: Vec<Door>,
    started: &mpsc::Sender<io::Result<()>>,
) {
    match Worker::new(id, hub, reactor, metrics, log, doors) {
        Ok(worker) => {
            // Whoever started us waits for this.
            let _ = started.send(Ok(()));
            worker.run();
        }
        Err(error) => drop(started.send(Err(error))),
    }
}

/// The sockets, dealt out to the workers.
fn doors(config: Config, workers: usize) -> io::Result<Vec<Vec<Door>>> {
    let mut by_worker: Vec<Vec<Door>> = (0..workers).map(|_| Vec::new()).collect();
    let plaintext = match (config.plaintext_from_anywhere, config.plaintext) {
        (true, _) => Plaintext::Always,
        (false, true) => Plaintext::Loopback,
        (false, false) => Plaintext::Never,
    };
    let tls = config.tls.is_some();
    let sockets = [
        (Engine::Postgres, config.postgres),
        (Engine::Redis, config.redis),
    ];
    for (engine, sockets) in sockets {
        for (at, socket) in sockets.into_iter().enumerate() {
            socket.set_nonblocking(true)?;
            by_worker[at % workers].push(Door {
                socket: OwnedFd::from(socket),
                engine,
                source: Source::Proxy,
                plaintext,
                tls,
            });
        }
    }
    let internal = [
        (Engine::Postgres, config.internal_socket),
        (Engine::Redis, config.redis_internal_socket),
    ];
    for (engine, path) in internal {
        let Some(path) = path else { continue };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(&path)?;
        socket.set_nonblocking(true)?;
        for doors in &mut by_worker {
            doors.push(Door {
                socket: OwnedFd::from(socket.try_clone()?),
                engine,
                source: Source::Api,
                plaintext: Plaintext::Loopback,
                tls: false,
            });
        }
    }
    Ok(by_worker)
}
