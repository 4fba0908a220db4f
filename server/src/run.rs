//! Starts everything in order, waits for a signal, and stops everything in the reverse order.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use admin::jobs::{JobOptions, JobParts, Jobs};
use admin::{Api, ApiConfig, Endpoint, Network, ServeOptions};
use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use control_store::guard::Guard;
use control_store::{DatabaseId, Engine, Sealer, Store};
use engines::DatabaseEngine;
use engines::postgres::PostgresEngine;
use engines::provisioner::Provisioner;
use engines::provisioner::external::{ExternalServers, Servers};
use engines::provisioner::local::LocalProvisioner;
use engines::redis::RedisEngine;
use proxy::Proxy;
use proxy::query_log::{QueryLog, QueryLogConfig};
use proxy::reactor::TlsStore;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::certificates;
use crate::config::Config;
use crate::ready::{Ready, shown};
use crate::server_status;
use crate::story::first_example;

/// What Prometheus expects of a page in its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long the start waits for servers that somebody else runs. Those that are down by then are taken up when they answer.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// Runs until a signal ends it.
pub(crate) fn run(config: &Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("control")
        .build()?;
    let outcome = runtime.block_on(run_all(config));
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

/// The signals that a running instance heeds. A second stop ends it at once.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn run_all(config: &Config) -> Result<()> {
    let mut signals = Signals::new()?;
    // Taking the folder comes first: whatever follows may rely on being alone.
    let provisioner = Arc::new(LocalProvisioner::open(&config.data_dir)?);
    let data = fs::canonicalize(&config.data_dir)?;
    Ready::remove(&data);
    let started = tokio::select! {
        started = serve(config, &data, &provisioner) => Some(started),
        // What has been started so far ends with the servers.
        () = signals.stop() => None,
    };
    let outcome = match started {
        Some(Ok(running)) => running.until_stopped(config, &mut signals).await,
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    Ready::remove(&data);
    provisioner.stop_all().await;
    outcome
}

/// What runs, for the time until a stop.
struct Running {
    proxy: Arc<Proxy>,
    query_log: Arc<QueryLog>,
    stop: watch::Sender<bool>,
    servers: Vec<tokio::task::JoinHandle<()>>,
}

async fn serve(
    config: &Config,
    data: &Path,
    provisioner: &Arc<LocalProvisioner>,
) -> Result<Running> {
    // Ports first: a port that is taken should not cost the start of servers.
    let api_socket = one(config.api.bind(1)?)?;
    let clients = [
        (Engine::Postgres, &config.postgres),
        (Engine::Redis, &config.redis),
    ];
    let mut sockets = BTreeMap::new();
    for (engine, wanted) in clients {
        if config.engines.contains(&engine) {
            sockets.insert(engine, wanted.bind(config.workers)?);
        }
    }
    let metrics_socket = one(config.metrics.bind(1)?)?;
    let addresses = addresses(&sockets)?;

    let own = match &config.tls {
        Some(_) => None,
        None => Some(certificates::ensure(data)?),
    };
    let tls = match (&config.tls, &own) {
        (Some((certificate, key)), _) => TlsStore::load(certificate, key)?,
        (None, Some(files)) => TlsStore::load(&files.certificate, &files.key)?,
        (None, None) => anyhow::bail!("no certificate"),
    };
    let store = open_store(data).await?;
    let options = JobOptions::default();
    let external = Arc::new(ExternalServers::default());
    Jobs::register_servers(&store, &config.servers, &external).await?;
    Jobs::start_servers(&store, &**provisioner, &started_here(config), &options).await?;
    let all_servers = Arc::new(Servers::new(Arc::clone(provisioner), Arc::clone(&external)));

    let query_log = QueryLog::open(QueryLogConfig {
        retention: config.log_retention,
        slow_over: config.slow_query,
        ..QueryLogConfig::new(data.join("query-log"))
    })
    .with_context(|| {
        format!(
            "cannot open the query log in {}",
            data.join("query-log").display()
        )
    })?;
    query_log.set_retention(retention(&store, config));
    let internal = internal_folder(data)?;
    let (internal_socket, redis_internal_socket) =
        (internal.join(".s.PGSQL.5432"), internal.join("redis.sock"));
    let guard = Arc::new(Guard::open(&store, config.ip_limit)?);
    let proxy = Arc::new(
        Proxy::start(
            proxy::Config {
                reactor: config.reactor,
                workers: config.workers,
                postgres: sockets.remove(&Engine::Postgres).unwrap_or_default(),
                redis: sockets.remove(&Engine::Redis).unwrap_or_default(),
                internal_socket: Some(internal_socket.clone()),
                redis_internal_socket: Some(redis_internal_socket.clone()),
                plaintext: config.plaintext,
                plaintext_from_anywhere: config.plaintext_from_anywhere,
                tls: Some(Arc::new(tls)),
                proxy_headers_from: proxy_headers_from(config),
                max_clients: config.max_clients,
                pool_size: config.pool_size,
                coalesce: config.coalesce,
                guard: Some(Arc::clone(&guard)),
                ..proxy::Config::default()
            },
            store.snapshot().clone(),
            Arc::clone(&query_log),
        )
        .context("the proxy cannot start")?,
    );
    subscribe(&store, &proxy);
    let jobs = Jobs::new(JobParts {
        store: Arc::clone(&store),
        // All of them: what an engine that is not run any more has left must be removable.
        engines: vec![
            Arc::new(PostgresEngine) as Arc<dyn DatabaseEngine>,
            Arc::new(RedisEngine),
        ],
        provisioner: all_servers.clone(),
        traffic: proxy.traffic(),
        logs: query_log.clone(),
        options,
    });
    jobs.watch_servers(config.servers.clone(), &external, FIRST_LOOK)
        .await;
    jobs.resume()
        .await
        .map_err(|error| anyhow::anyhow!("interrupted work could not be taken up: {error:?}"))?;

    let (stop, stopped) = watch::channel(false);
    let api_address = api_socket.local_addr()?;
    let api = Api::new(
        ApiConfig {
            internal_socket,
            redis_internal_socket,
            ..api_config(config, &addresses)
        },
        Arc::clone(&store),
        Arc::new(jobs),
        query_log.clone(),
        proxy.traffic(),
        guard,
    );
    let mut servers = Vec::new();
    let stop_api = wait_for(stopped.clone());
    let options = ServeOptions {
        drain: config.drain,
        proxy_headers_from: proxy_headers_from(config),
    };
    servers.push(tokio::spawn(async move {
        if let Err(error) = admin::serve(api_socket, api, options, stop_api).await {
            tracing::error!(%error, "the API has ended");
        }
    }));
    let metrics_address = metrics_socket.local_addr()?;
    servers.push(serve_metrics(
        metrics_socket,
        Arc::clone(&proxy),
        all_servers,
        stopped,
    ));

    let ready = Ready {
        api: format!("http://{}", shown(api_address)),
        metrics: format!("http://{}/metrics", shown(metrics_address)),
        postgres: addresses.get(&Engine::Postgres).map(|it| shown(*it)),
        redis: addresses.get(&Engine::Redis).map(|it| shown(*it)),
        ca_cert: own.map(|files| files.ca_cert),
        pid: std::process::id(),
    };
    ready.write(data)?;
    println!("{}", serde_json::to_string_pretty(&ready)?);
    if config.greet {
        println!("{}", first_example(&ready));
    }
    Ok(Running {
        proxy,
        query_log,
        stop,
        servers,
    })
}

impl Running {
    async fn until_stopped(self, config: &Config, signals: &mut Signals) -> Result<()> {
        loop {
            tokio::select! {
                () = async {
                    tokio::select! {
                        _ = signals.terminate.recv() => {}
                        _ = signals.interrupt.recv() => {}
                    }
                } => break,
                _ = signals.hangup.recv() => match self.proxy.reload_tls() {
                    Ok(()) => tracing::info!("the certificate was read again"),
                    Err(error) => tracing::error!(%error, "the certificate stays as it was"),
                },
            }
        }
        tracing::info!(
            seconds = config.drain.as_secs(),
            "stopping: open transactions may finish"
        );
        // Nobody waits for it any more.
        let _ = self.stop.send(true);
        let (proxy, drain) = (Arc::clone(&self.proxy), config.drain);
        let drained = tokio::task::spawn_blocking(move || proxy.drain(drain));
        tokio::select! {
            _ = drained => {}
            () = signals.stop() => {
                tracing::warn!("stopping at once");
                return Ok(());
            }
        }
        for server in self.servers {
            let _ = tokio::time::timeout(Duration::from_secs(5), server).await;
        }
        self.query_log.close();
        tracing::info!("stopped");
        Ok(())
    }
}

/// The engines whose servers are started here: those of which the configuration names none.
fn started_here(config: &Config) -> Vec<Engine> {
    let named = |engine: &Engine| config.servers.iter().any(|it| it.engine == *engine);
    let engines = config.engines.iter().copied();
    engines.filter(|engine| !named(engine)).collect()
}

/// Whose connections begin with a PROXY header, at the API and at every engine's port.
fn proxy_headers_from(config: &Config) -> Vec<Network> {
    if config.proxy_protocol {
        config.trusted_proxies.clone()
    } else {
        Vec::new()
    }
}

fn one(mut sockets: Vec<TcpListener>) -> Result<TcpListener> {
    sockets.pop().context("no socket")
}

async fn open_store(data: &Path) -> Result<Arc<Store>> {
    let (key, file) = (data.join("sealing.key"), data.join("store.db"));
    let opened = tokio::task::spawn_blocking(move || {
        let sealer = Sealer::from_file(&key)?;
        Store::open(&file, sealer)
    });
    Ok(Arc::new(opened.await??))
}

/// How long a database's entries are kept: as its project's tier says, and no longer than the log is configured to.
fn retention(
    store: &Arc<Store>,
    config: &Config,
) -> impl Fn(DatabaseId) -> Duration + Send + Sync + 'static {
    let (store, tiers, most) = (
        Arc::clone(store),
        config.tiers.clone(),
        config.log_retention,
    );
    move |database| {
        let snapshot = store.snapshot().load();
        let project = snapshot.databases.get(&database).map(|it| &it.project);
        let tier = project
            .and_then(|project| store.account_of(project).ok())
            .and_then(|(_, tier)| tiers.get(&tier));
        tier.map_or(most, |tier| {
            let days = u64::from(tier.log_retention_days);
            most.min(Duration::from_secs(days * 24 * 3600))
        })
    }
}

/// The folder is closed to others: who can enter it is the operator.
fn internal_folder(data: &Path) -> Result<PathBuf> {
    let folder = data.join("run");
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    Ok(folder)
}

/// Where each engine's clients connect.
fn addresses(sockets: &BTreeMap<Engine, Vec<TcpListener>>) -> Result<BTreeMap<Engine, SocketAddr>> {
    let address = |(engine, sockets): (&Engine, &Vec<TcpListener>)| {
        let first = sockets.first().context("no socket for clients")?;
        Ok((*engine, first.local_addr()?))
    };
    sockets.iter().map(address).collect()
}

/// What changes in the store is told to the proxy's sessions.
fn subscribe(store: &Store, proxy: &Arc<Proxy>) {
    let traffic = proxy.traffic();
    let known = store.snapshot().clone();
    store.subscribe(move |event| {
        for database in &event.databases {
            traffic.refresh(*database);
        }
        let snapshot = known.load();
        let alive = |id| snapshot.api_keys.values().any(|key| key.id == id);
        for key in event.keys.iter().filter(|id| !alive(**id)) {
            traffic.kill_key(*key);
        }
    });
}

fn api_config(config: &Config, addresses: &BTreeMap<Engine, SocketAddr>) -> ApiConfig {
    let endpoint = |(engine, address): (&Engine, &SocketAddr)| {
        let host = shown(*address);
        let host = host
            .rsplit_once(':')
            .map_or(host.as_str(), |(host, _)| host);
        let endpoint = Endpoint {
            host: config
                .public_host
                .clone()
                .unwrap_or_else(|| host.to_owned()),
            port: address.port(),
        };
        (*engine, endpoint)
    };
    ApiConfig {
        endpoints: addresses.iter().map(endpoint).collect(),
        regions: config.regions.clone(),
        tiers: config.tiers.clone(),
        signup_tier: config.signup_tier.clone(),
        slow_query: config.slow_query,
        body_limit: config.body_limit,
        import_limit: config.import_limit,
        import_networks: config.import_networks.clone(),
        cors_origins: config.cors_origins.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        ..ApiConfig::default()
    }
}

/// For the operator alone: metrics, and how the database servers are.
fn serve_metrics(
    socket: TcpListener,
    proxy: Arc<Proxy>,
    servers: Arc<dyn Provisioner>,
    stopped: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let known = Arc::clone(&servers);
    let page = move || {
        let (proxy, known) = (Arc::clone(&proxy), Arc::clone(&known));
        async move {
            let text = proxy.metrics_page() + &server_status::metrics(&known.list());
            ([(CONTENT_TYPE, METRICS_TYPE)], text)
        }
    };
    let list = move || {
        let servers = Arc::clone(&servers);
        async move { axum::Json(server_status::list(&servers.list())) }
    };
    let router = Router::new()
        .route("/metrics", get(page))
        .route("/servers", get(list));
    tokio::spawn(async move {
        let served = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => {
                axum::serve(socket, router)
                    .with_graceful_shutdown(wait_for(stopped))
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(%error, "the metrics page has ended");
        }
    })
}

async fn wait_for(mut stopped: watch::Receiver<bool>) {
    // Without a sender there is nobody left to wait for.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
