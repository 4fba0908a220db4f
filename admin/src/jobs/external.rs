//! Servers that somebody else runs: registered by name, watched, and made ready whenever they come up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use control_store::external::{ExternalServer, Registered};
use control_store::ids::{Engine, ServerId};
use control_store::snapshot::{ServerAddress, TlsPlace};
use control_store::{Secret, Store, StoreError};
use engines::provisioner::Health;
use engines::provisioner::external::ExternalServers;
use engines::{AdminLogin, EngineError, ServerAccess, ServerUse};
use tokio::time::{sleep, timeout};

use super::{Jobs, blocking};
use crate::app::failure::{Failure, Outcome};

/// Between two looks at a server that is well.
const WELL: Duration = Duration::from_secs(2);
/// Between two looks at one that does not answer.
const GONE: Duration = Duration::from_millis(500);
/// Between two checks of one that is unfit: they try what it refuses, which its log may tell each time.
const UNFIT: Duration = Duration::from_secs(5);
/// For one look.
const LOOK: Duration = Duration::from_secs(10);
/// For a name's addresses.
const RESOLVE: Duration = Duration::from_secs(5);
/// For a first word with one of them.
const GREET: Duration = Duration::from_secs(2);
/// For the checks and what is made by them.
const PREPARE: Duration = Duration::from_secs(120);

/// A server as the configuration describes it.
#[derive(Clone)]
pub struct ConfiguredServer {
    /// What it is known by, whatever its address.
    pub name: String,
    /// Its engine.
    pub engine: Engine,
    /// Where it is.
    pub place: ServerPlace,
    /// How connections to it are encrypted, if they are: never over a socket.
    pub tls: Option<ServerTls>,
    /// As whom the control plane logs in.
    pub user: String,
    /// With which password; empty: with none.
    pub password: Secret,
    /// How many connections the proxies may open to it.
    pub connections: u32,
    /// The zone it is in.
    pub region: String,
    /// Whether databases of many share it.
    pub shared: bool,
    /// PostgreSQL: whether tenants may see the names of others' databases, where nothing can be done about it.
    pub names_visible: bool,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPlace {
    /// A Unix socket.
    Socket(PathBuf),
    /// A host, by name or address, and a port.
    Host(String, u16),
}

/// How connections to a server are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The file with the authorities that must have issued its certificate. `None`: any certificate will do.
    pub authority: Option<PathBuf>,
}

/// The configuration cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A server is gone from the configuration, and its databases are not.
    #[error(
        "the server '{name}' is not in the configuration any more and holds {databases} databases: put it back, or delete them first"
    )]
    StillUsed {
        /// Its name.
        name: String,
        /// How many.
        databases: u32,
    },
    /// A name stands for another engine's server.
    #[error("the server '{name}' was a {} server: give this one another name", was.display_name())]
    OtherEngine {
        /// The name.
        name: String,
        /// What it was.
        was: Engine,
    },
    /// A new server's host has no address.
    #[error("the address of the server '{name}' cannot be found: {why}")]
    NoAddress {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Jobs {
    /// Takes over what the configuration says of servers that somebody else runs. Nothing is asked of them yet.
    ///
    /// # Errors
    /// It says what cannot be.
    pub async fn register_servers(
        store: &Arc<Store>,
        configured: &[ConfiguredServer],
        board: &ExternalServers,
    ) -> Result<(), RegisterError> {
        let known = blocking(store, |store| store.external_servers()).await?;
        let known: BTreeMap<String, Registered> =
            known.into_iter().map(|it| (it.name.clone(), it)).collect();
        for server in configured {
            match known.get(&server.name) {
                Some(known) if known.engine != server.engine => {
                    return Err(RegisterError::OtherEngine {
                        name: server.name.clone(),
                        was: known.engine,
                    });
                }
                _ => {}
            }
        }
        for gone in known.values() {
            if !configured.iter().any(|it| it.name == gone.name) {
                forget(store, gone).await?;
            }
        }
        for server in configured {
            register(store, server, known.get(&server.name), board).await?;
        }
        Ok(())
    }

    /// Looks after these servers from now on. Ends when each has been looked at once, or after `patience`.
    pub async fn watch_servers(
        &self,
        configured: Vec<ConfiguredServer>,
        board: &Arc<ExternalServers>,
        patience: Duration,
    ) {
        for server in configured {
            let watcher = Watcher {
                jobs: self.clone(),
                board: Arc::clone(board),
                life: None,
                scratch_cleared: false,
                server,
            };
            tokio::spawn(watcher.run());
        }
        let looked = async {
            while board.list().iter().any(|it| it.health == Health::Starting) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        // Those that take longer are taken up when they answer.
        let _ = timeout(patience, looked).await;
    }
}

/// A server that holds nothing may go.
async fn forget(store: &Arc<Store>, gone: &Registered) -> Result<(), RegisterError> {
    if gone.databases > 0 {
        return Err(RegisterError::StillUsed {
            name: gone.name.clone(),
            databases: gone.databases,
        });
    }
    let id = gone.id;
    blocking(store, move |store| store.forget_server(id)).await?;
    tracing::info!(
        server = gone.name,
        "forgotten: it is not in the configuration any more"
    );
    Ok(())
}

async fn register(
    store: &Arc<Store>,
    server: &ConfiguredServer,
    known: Option<&Registered>,
    board: &ExternalServers,
) -> Result<(), RegisterError> {
    let before = known.and_then(|it| {
        let snapshot = store.snapshot().load();
        snapshot.servers.get(&it.id).map(|it| it.address.clone())
    });
    let address = match (server.resolve(before.as_ref(), false).await, before) {
        (Ok(address), _) => address,
        // A name service may be down for a while; the watcher asks again.
        (Err(_), Some(before)) => before,
        (Err(why), None) => {
            return Err(RegisterError::NoAddress {
                name: server.name.clone(),
                why,
            });
        }
    };
    let (described, id, place) = (server.clone(), known.map(|it| it.id), address.clone());
    let id = blocking(store, move |store| {
        let description = described.description();
        let Some(id) = id else {
            return store.register_server(&description, &place);
        };
        store.update_server(id, &description)?;
        store.set_server_address(id, &place)?;
        Ok(id)
    })
    .await?;
    board.add(id, server.engine, &server.name, address);
    Ok(())
}

impl ConfiguredServer {
    fn description(&self) -> ExternalServer<'_> {
        ExternalServer {
            name: &self.name,
            engine: self.engine,
            shared: self.shared,
            connection_budget: self.connections,
            region: &self.region,
            admin_user: &self.user,
            admin_password: &self.password,
        }
    }
}

impl ConfiguredServer {
    /// The address of the server. A name may have several, of which not all need be open: the one that it had stays if it is
    /// still among them and `well`, otherwise it is one that takes connections, if any does.
    async fn resolve(
        &self,
        before: Option<&ServerAddress>,
        well: bool,
    ) -> Result<ServerAddress, String> {
        let (host, port) = match &self.place {
            ServerPlace::Socket(path) => return Ok(ServerAddress::Unix(path.clone())),
            ServerPlace::Host(host, port) => (host.as_str(), *port),
        };
        let found = timeout(RESOLVE, tokio::net::lookup_host((host, port))).await;
        let found = found
            .map_err(|_| format!("{host}: no answer from the name service"))?
            .map_err(|error| format!("{host}: {error}"))?;
        let before = before.and_then(ServerAddress::network);
        let address = choose(found.collect(), before, well).await;
        let address = address.ok_or_else(|| format!("{host} has no address"))?;
        Ok(match &self.tls {
            None => ServerAddress::Tcp(address),
            Some(tls) => ServerAddress::Tls(Arc::new(TlsPlace {
                address,
                host: host.into(),
                authority: tls.authority.clone(),
                asks_first: self.engine == Engine::Postgres,
            })),
        })
    }
}

async fn choose(
    mut found: Vec<SocketAddr>,
    before: Option<SocketAddr>,
    well: bool,
) -> Option<SocketAddr> {
    // The one that it had comes first.
    found.sort_by_key(|it| before != Some(*it));
    let first = *found.first()?;
    let same = before == Some(first);
    if found.len() == 1 || (same && well) {
        return Some(first);
    }
    for address in found {
        let greeted = timeout(GREET, tokio::net::TcpStream::connect(address)).await;
        if matches!(greeted, Ok(Ok(_))) {
            return Some(address);
        }
    }
    Some(first)
}

/// Looks after one server for as long as we live.
struct Watcher {
    jobs: Jobs,
    board: Arc<ExternalServers>,
    server: ConfiguredServer,
    /// Which life of the server is made ready. `None`: it has to be looked at as a whole.
    life: Option<String>,
    /// What a crash of ours had left there is gone.
    scratch_cleared: bool,
}

impl Watcher {
    async fn run(mut self) {
        let Some(id) = self.id() else {
            return;
        };
        let mut before = Health::Starting;
        loop {
            let health = self.look(id).await;
            if health != before {
                self.tell(&health);
            }
            let address = self.address(id);
            if let Some(address) = address {
                self.board.seen(id, address, health.clone());
            }
            let pause = match &health {
                Health::Running => WELL,
                Health::Unfit { .. } => UNFIT,
                _ => GONE,
            };
            before = health;
            sleep(pause).await;
        }
    }

    fn id(&self) -> Option<ServerId> {
        let named = |name: Option<&str>| name == Some(&self.server.name);
        let all = self.board.list();
        all.iter()
            .find(|it| named(it.name.as_deref()))
            .map(|it| it.id)
    }

    fn tell(&self, health: &Health) {
        let name = &self.server.name;
        match health {
            Health::Running => tracing::info!(server = name, "the server is there and fit"),
            Health::Unfit { problems } => {
                for problem in problems {
                    tracing::error!(server = name, "the server is unfit: {problem}");
                }
            }
            other => tracing::warn!(server = name, "the server is {other}"),
        }
    }

    fn address(&self, id: ServerId) -> Option<ServerAddress> {
        let snapshot = self.jobs.shared.store.snapshot().load();
        snapshot.servers.get(&id).map(|it| it.address.clone())
    }

    async fn look(&mut self, id: ServerId) -> Health {
        let health = match self.try_look(id).await {
            Ok(health) => health,
            Err(reason) => Health::Unreachable { reason },
        };
        if health != Health::Running {
            self.life = None;
        }
        health
    }

    async fn try_look(&mut self, id: ServerId) -> Result<Health, String> {
        self.follow(id).await;
        let access = self.jobs.access(id).await.map_err(|it| format!("{it:?}"))?;
        let engine = self.jobs.engine(self.server.engine);
        let engine = Arc::clone(engine.map_err(|it| format!("{it:?}"))?);
        let life = timeout(LOOK, engine.ping(&access)).await;
        let life = life.map_err(|_| "it does not answer".to_owned())?;
        let life = life.map_err(|error| error.to_string())?;
        if self.life.as_ref() == Some(&life) {
            return Ok(Health::Running);
        }
        let problems = timeout(PREPARE, self.prepare(id, &access)).await;
        let problems = problems.map_err(|_| "the checks of it do not end".to_owned())??;
        if !problems.is_empty() {
            return Ok(Health::Unfit { problems });
        }
        self.life = Some(life);
        Ok(Health::Running)
    }

    /// A host's address may become another one. Whoever is still at the old one must not write there any longer.
    async fn follow(&self, id: ServerId) {
        let before = self.address(id);
        let well = self.life.is_some();
        let Ok(now) = self.server.resolve(before.as_ref(), well).await else {
            return; // The old one may do.
        };
        if before.as_ref() == Some(&now) {
            return;
        }
        tracing::info!(server = self.server.name, ?now, "the server has moved");
        let moved = self
            .jobs
            .store(move |store| store.set_server_address(id, &now))
            .await;
        if let Err(error) = moved {
            tracing::error!(
                ?error,
                server = self.server.name,
                "its address could not be noted"
            );
            return;
        }
        let snapshot = self.jobs.shared.store.snapshot().load();
        let there = snapshot.databases.values().filter(|it| it.server == id);
        for database in there {
            self.jobs.kill(database.id).await;
        }
    }

    /// Checks the server and makes it what our databases there need. Gives what is wrong.
    async fn prepare(
        &mut self,
        id: ServerId,
        access: &ServerAccess,
    ) -> Result<Vec<String>, String> {
        let report = match self.check(id, access).await {
            Ok(report) => report,
            Err(Prepared::Refused(sentence)) => return Ok(vec![sentence]),
            Err(Prepared::Lost(why)) => return Err(why),
        };
        if !report.problems.is_empty() {
            return Ok(report.problems);
        }
        // Once each time that it comes up, not each time that it is looked at.
        for note in &report.notes {
            tracing::warn!(server = self.server.name, "{note}");
        }
        let finished = async {
            if let Some(count) = report.redis_databases {
                self.jobs
                    .store(move |store| store.set_redis_databases(id, count))
                    .await?;
            }
            self.jobs.restore_roles_on(id).await?;
            if !self.scratch_cleared {
                self.jobs.clear_scratch_on(id).await?;
            }
            Ok::<(), Failure>(())
        };
        finished.await.map_err(|error| format!("{error:?}"))?;
        self.scratch_cleared = true;
        Ok(Vec::new())
    }

    async fn check(
        &self,
        id: ServerId,
        access: &ServerAccess,
    ) -> Result<engines::ServerReport, Prepared> {
        let lost = |error: Failure| Prepared::Lost(format!("{error:?}"));
        let engine = Arc::clone(self.jobs.engine(self.server.engine).map_err(lost)?);
        let redis = match self.server.engine {
            Engine::Redis => {
                let found = self.jobs.store(move |store| store.redis_server(id)).await;
                Some(found.map_err(lost)?)
            }
            Engine::Postgres | Engine::Mysql | Engine::Mongodb => None,
        };
        let numbers = self.jobs.store(move |store| store.redis_numbers(id)).await;
        let numbers = numbers.map_err(lost)?;
        let usage = ServerUse {
            shared: self.server.shared,
            connections: self.server.connections,
            names_visible: self.server.names_visible,
            redis: redis.as_ref(),
            numbers: &numbers,
        };
        engine
            .prepare_server(access, &usage)
            .await
            .map_err(|error| match error {
                EngineError::Statement { code, message, .. } => {
                    Prepared::Refused(format!("it refuses what we need: {message} ({code})"))
                }
                other => Prepared::Lost(other.to_string()),
            })
    }
}

/// Why a server could not be checked to the end.
enum Prepared {
    /// It refused something, and will again.
    Refused(String),
    /// It was not to be reached.
    Lost(String),
}

impl Jobs {
    /// As whom we log in to a server where that is not told by the account that we run as.
    pub(super) async fn login(&self, id: ServerId) -> Outcome<Option<AdminLogin>> {
        let found = self.store(move |store| store.server_login(id)).await?;
        Ok(found.map(|(user, password)| AdminLogin { user, password }))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn of_several_addresses_it_is_one_that_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed: SocketAddr = ([127, 0, 0, 2], open.port()).into();
        let strange: SocketAddr = ([127, 0, 0, 3], open.port()).into();
        let check = async |before: Option<SocketAddr>, well, expected| {
            let chosen = choose(vec![closed, open], before, well).await;
            assert_eq!(chosen, Some(expected), "{before:?} {well}");
        };
        check(None, false, open).await;
        check(Some(open), true, open).await;
        check(Some(closed), false, open).await;
        check(Some(closed), true, closed).await;
        check(Some(strange), true, open).await;
        drop(listener);
        check(Some(open), false, open).await;
        check(None, false, closed).await;
        assert_eq!(choose(Vec::new(), None, false).await, None);
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_told() {
        let server = ConfiguredServer {
            name: "a".into(),
            engine: Engine::Postgres,
            place: ServerPlace::Host("no-such-host.invalid".into(), 1),
            tls: None,
            user: "u".into(),
            password: Secret::new(String::new()),
            connections: 1,
            region: "r".into(),
            shared: true,
            names_visible: false,
        };
        let why = server.resolve(None, false).await.unwrap_err();
        assert!(why.starts_with("no-such-host.invalid: "), "{why}");
    }
}
