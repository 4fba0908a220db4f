//! From the first byte to an authenticated user.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use ahash::AHashMap;
use aws_lc_rs::rand;
use control_store::ids::ProjectId;
use control_store::snapshot::{DatabaseName, Key, Project};
use control_store::{Engine, Fault, ServerId};
use protocol_postgres::backend::{Severity, write};
use protocol_postgres::frame::{self, Split};
use protocol_postgres::frontend::{SaslInitialResponse, SaslResponse, tag};
use protocol_postgres::scram::{
    Candidate, DEFAULT_ITERATIONS, Mechanism, Nonce, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError,
    Server, mock_salt,
};
use protocol_postgres::startup::{self, Params, StartupError, StartupPacket};
use protocol_postgres::{PROTOCOL_3_0, PROTOCOL_3_2};

use super::live::{Identity, Live};
use super::refusal::{Refusal, encode};
use super::settings::SettingSet;
use crate::backend::PoolKey;
use crate::backend::postgres::Backend;
use crate::backend::postgres::Parameters;
use crate::faces::postgres::{Login as LoginNames, Stage};
use crate::route;
use crate::session::{Context, Entrance, Ports, Request};

/// No message of a login is longer.
const MAX_BODY: u32 = 8 << 10;
/// Startup parameters that one client may send.
const MAX_PARAMETERS: usize = 64;

/// What a client asks for in its startup packet, beside user and database.
pub(crate) type Wanted = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What servers answered to logins: what they report of themselves, and of the parameters that clients asked for.
#[derive(Default)]
pub(crate) struct KnownLogins {
    pools: AHashMap<PoolKey, KnownPool>,
}

struct KnownPool {
    server: ServerId,
    base: Rc<Parameters>,
    by_wanted: AHashMap<Wanted, KnownLogin>,
}

/// The outcome of startup parameters on a server.
#[derive(Clone)]
pub(super) struct KnownLogin {
    pub(super) settings: Rc<SettingSet>,
    pub(super) parameters: Rc<Parameters>,
}

/// Pools, and sets of startup parameters in one pool, that a worker remembers.
const MAX_KNOWN: usize = 1024;
const MAX_WANTED: usize = 256;

impl KnownLogins {
    /// What a login with these parameters yields, if that is known.
    pub(super) fn find(
        &self,
        pool: PoolKey,
        server: ServerId,
        wanted: &Wanted,
        none: &Rc<SettingSet>,
    ) -> Option<KnownLogin> {
        let known = self
            .pools
            .get(&pool)
            .filter(|known| known.server == server)?;
        if wanted.is_empty() {
            return Some(KnownLogin {
                settings: Rc::clone(none),
                parameters: Rc::clone(&known.base),
            });
        }
        known.by_wanted.get(wanted).cloned()
    }

    /// A backend of that pool reported these.
    pub(super) fn learn_base(&mut self, pool: PoolKey, server: ServerId, base: &Rc<Parameters>) {
        if self
            .pools
            .get(&pool)
            .is_some_and(|known| known.server == server)
        {
            return;
        }
        if self.pools.len() >= MAX_KNOWN {
            self.pools.clear();
        }
        let known = KnownPool {
            server,
            base: Rc::clone(base),
            by_wanted: AHashMap::new(),
        };
        self.pools.insert(pool, known);
    }

    /// A login with these parameters yielded that.
    pub(super) fn learn(&mut self, pool: PoolKey, wanted: Wanted, login: KnownLogin) {
        if let Some(known) = self.pools.get_mut(&pool) {
            if known.by_wanted.len() >= MAX_WANTED {
                known.by_wanted.clear();
            }
            known.by_wanted.insert(wanted, login);
        }
    }
}

/// Where a login stands.
pub(super) struct Login {
    entrance: Entrance,
    /// Whether TLS is spoken.
    encrypted: bool,
    /// `tls-server-end-point` of our certificate, where one is defined.
    binding: Option<Vec<u8>>,
    input: Vec<u8>,
    state: State,
    names: Names,
}

enum State {
    /// Waits for a packet without a tag.
    Packet,
    /// Waits for the choice of a mechanism.
    Mechanism,
    /// The mechanism is chosen; waits for its first message.
    First(Mechanism),
    /// Waits for the proof.
    Proof(Box<Server>),
}

/// What the startup packet said.
#[derive(Default)]
struct Names {
    user: String,
    database: String,
    wanted: Wanted,
    long_cancel_key: bool,
    project: Option<Arc<Project>>,
}

/// What came of some bytes.
pub(super) enum Progress {
    /// More are needed.
    More,
    /// The connection is to be closed; the client has been told why.
    Closed,
    /// Who it is, is known.
    Authenticated(Box<Live>),
}

/// Why a login ends.
enum End {
    Fault(Fault),
    /// With this SQLSTATE and sentence.
    Error(&'static str, String),
    /// Without a word.
    Silent,
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Login {
    pub(super) fn new(entrance: Entrance) -> Self {
        Self {
            entrance,
            encrypted: false,
            binding: None,
            input: Vec::new(),
            state: State::Packet,
            names: Names::default(),
        }
    }

    pub(super) fn tls_started(&mut self, end_point_hash: Option<Vec<u8>>) {
        self.encrypted = true;
        self.binding = end_point_hash;
    }

    /// Tells the client why its login fails.
    pub(super) fn fail<P: Ports<Backend>>(&self, cx: &Context, ports: &mut P, fault: &Fault) {
        let names = LoginNames {
            user: &self.names.user,
            database: &self.names.database,
        };
        let refusal = Refusal::of(fault, Stage::Login, names);
        let metrics = cx.metrics.protocol(Engine::Postgres);
        metrics.login_failures.increment();
        metrics.errors.of(refusal.class).increment();
        ports.copy_client(&refusal.message);
        if let (Fault::AuthFailed, Some(guard), Some(address)) =
            (fault, &cx.shared.guard, self.entrance.address)
        {
            // That it is banned now, its next connection learns.
            guard.failed_login(SystemTime::now(), address);
        }
    }

    pub(super) fn receive<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        bytes: &[u8],
    ) -> Progress {
        self.input.extend_from_slice(bytes);
        match self.advance(cx, ports) {
            Ok(progress) => progress,
            Err(end) => {
                match end {
                    End::Fault(fault) => self.fail(cx, ports, &fault),
                    End::Error(code, message) => {
                        cx.metrics
                            .protocol(Engine::Postgres)
                            .login_failures
                            .increment();
                        ports.copy_client(&encode(Severity::Fatal, code, &message));
                    }
                    End::Silent => {}
                }
                Progress::Closed
            }
        }
    }

    fn advance<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
    ) -> Result<Progress, End> {
        loop {
            let input = std::mem::take(&mut self.input);
            let (used, progress) = match &self.state {
                State::Packet => self.packet(cx, ports, &input)?,
                _ => self.message(cx, ports, &input)?,
            };
            self.input = input;
            self.input.drain(..used);
            match progress {
                Progress::More if used > 0 && !self.input.is_empty() => {}
                Progress::Authenticated(mut live) => {
                    live.receive_early(std::mem::take(&mut self.input));
                    return Ok(Progress::Authenticated(live));
                }
                other => return Ok(other),
            }
        }
    }

    // ---- packets without a tag ----

    fn packet<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        input: &[u8],
    ) -> Result<(usize, Progress), End> {
        if input.first() == Some(&startup::DIRECT_TLS) {
            if self.encrypted || !self.entrance.tls {
                return Err(End::Silent);
            }
            ports.request(Request::StartTls {
                received: input.to_vec(),
                direct: true,
            });
            return Ok((input.len(), Progress::More));
        }
        let (packet, used) = match startup::split(input) {
            Ok(startup::Split::Need(_)) => return Ok((0, Progress::More)),
            Ok(startup::Split::Packet { packet, used }) => (packet, used),
            // What is no startup packet at all gets no answer, as on a server: it may be another protocol.
            Err(StartupError::Length(_)) => return Err(End::Silent),
            Err(StartupError::Unsupported { major, minor }) => {
                let text = format!(
                    "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
                );
                return Err(End::Error("0A000", text));
            }
            Err(StartupError::Decode(_)) => {
                return Err(End::Error(
                    "08P01",
                    "invalid startup packet layout: expected terminator as last byte".into(),
                ));
            }
        };
        match packet {
            StartupPacket::Ssl => self.ssl(ports, input.len() > used)?,
            StartupPacket::GssEnc => ports.copy_client(&[startup::ENCRYPTION_REFUSED]),
            StartupPacket::Cancel { process_id, key } => {
                let key = key.to_vec();
                ports.request(Request::CancelOther { process_id, key });
                return Err(End::Silent);
            }
            StartupPacket::Startup { minor, params, .. } => {
                self.startup(cx, ports, minor, params)?;
            }
        }
        Ok((used, Progress::More))
    }

    fn ssl<P: Ports<Backend>>(&mut self, ports: &mut P, more_follows: bool) -> Result<(), End> {
        if self.encrypted {
            return Err(Fault::ProtocolViolation {
                what: "SSLRequest on an encrypted connection",
            }
            .into());
        }
        if !self.entrance.tls {
            ports.copy_client(&[startup::ENCRYPTION_REFUSED]);
            return Ok(());
        }
        // Bytes behind the request were sent in the clear: whoever put them there must not be taken for the client
        // (CVE-2021-23214).
        if more_follows {
            return Err(Fault::ProtocolViolation {
                what: "received unencrypted data after SSL request",
            }
            .into());
        }
        ports.copy_client(&[startup::SSL_ACCEPTED]);
        ports.request(Request::StartTls {
            received: Vec::new(),
            direct: false,
        });
        Ok(())
    }

    fn startup<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        minor: u16,
        params: Params<'_>,
    ) -> Result<(), End> {
        self.take_names(params)?;
        if !self.encrypted && !self.entrance.plaintext {
            return Err(Fault::TlsRequired.into());
        }
        let unknown: Vec<&[u8]> = params
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(b"_pq_."))
            .collect();
        self.names.long_cancel_key = minor >= 2;
        let mut out = Vec::new();
        if minor > 2 || minor == 1 || !unknown.is_empty() {
            let offered = if minor >= 2 {
                PROTOCOL_3_2
            } else {
                PROTOCOL_3_0
            };
            write::negotiate_protocol_version(&mut out, offered, &unknown)
                .map_err(|_| End::Silent)?;
        }
        let snapshot = cx.shared.snapshot.load();
        let user = ProjectId::new(self.names.user.as_str());
        self.names.project = snapshot.projects.get(&user).cloned();
        let mechanisms: &[&[u8]] = if self.binding.is_some() {
            &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256]
        } else {
            &[SCRAM_SHA_256]
        };
        write::authentication_sasl(&mut out, mechanisms).map_err(|_| End::Silent)?;
        ports.copy_client(&out);
        self.state = State::Mechanism;
        Ok(())
    }

    fn take_names(&mut self, params: Params<'_>) -> Result<(), End> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        for (name, value) in params {
            match name {
                b"user" => self.names.user = text(value),
                b"database" => self.names.database = text(value),
                b"replication" => {
                    if !matches!(value, b"false" | b"off" | b"no" | b"0") {
                        return Err(Fault::Unsupported {
                            what: "replication connections are not available: tenants are moved and backed up by the API",
                        }
                        .into());
                    }
                }
                b"options" => self.take_options(value)?,
                name if name.starts_with(b"_pq_.") => {}
                name => self.want(name, value)?,
            }
        }
        if self.names.user.is_empty() {
            let text = "no PostgreSQL user name specified in startup packet";
            return Err(End::Error("28000", text.into()));
        }
        if self.names.database.is_empty() {
            self.names.database.clone_from(&self.names.user);
        }
        Ok(())
    }

    fn take_options(&mut self, options: &[u8]) -> Result<(), End> {
        for setting in startup::settings(options) {
            let setting = setting.map_err(|error| End::Error("42601", error.to_string()))?;
            self.want(&setting.name, &setting.value)?;
        }
        Ok(())
    }

    /// A later value of a name wins, as on a server.
    fn want(&mut self, name: &[u8], value: &[u8]) -> Result<(), End> {
        let name: Box<[u8]> = name.to_ascii_lowercase().into();
        let wanted = &mut self.names.wanted;
        if let Some((_, known)) = wanted.iter_mut().find(|(known, _)| *known == name) {
            *known = value.into();
        } else if wanted.len() < MAX_PARAMETERS {
            wanted.push((name, value.into()));
        } else {
            return Err(Fault::ProtocolViolation {
                what: "too many startup parameters",
            }
            .into());
        }
        Ok(())
    }

    // ---- SCRAM ----

    fn message<P: Ports<Backend>>(
        &mut self,
        cx: &mut Context,
        ports: &mut P,
        input: &[u8],
    ) -> Result<(usize, Progress), End> {
        let (tag, body, used) = match frame::split(input, MAX_BODY) {
            Ok(Split::Need(_)) => return Ok((0, Progress::More)),
            Ok(Split::Message { tag, body, used }) => (tag, body, used),
            Err(_) => {
                return Err(Fault::ProtocolViolation {
                    what: "invalid message length during login",
                }
                .into());
            }
        };
        match tag {
            tag::PASSWORD => {}
            tag::TERMINATE => return Err(End::Silent),
            _ => {
                return Err(Fault::ProtocolViolation {
                    what: "expected a SASL response",
                }
                .into());
            }
        }
        let progress = match std::mem::replace(&mut self.state, State::Packet) {
            State::Packet | State::Mechanism => self.choose(cx, ports, body)?,
            State::First(mechanism) => {
                self.begin_scram(cx, ports, mechanism, SaslResponse::decode(body).data)?
            }
            State::Proof(server) => self.prove(cx, ports, *server, body)?,
        };
        Ok((used, progress))
    }

    fn choose<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        body: &[u8],
    ) -> Result<Progress, End> {
        let violation = |what| End::Fault(Fault::ProtocolViolation { what });
        let choice = SaslInitialResponse::decode(body)
            .map_err(|_| violation("malformed SASLInitialResponse"))?;
        let mechanism = Mechanism::from_name(choice.mechanism)
            .filter(|mechanism| *mechanism == Mechanism::Plain || self.binding.is_some())
            .ok_or_else(|| violation("client selected an invalid SASL authentication mechanism"))?;
        match choice.response {
            Some(first) => self.begin_scram(cx, ports, mechanism, first),
            None => {
                let mut out = Vec::new();
                write::authentication_sasl_continue(&mut out, b"").map_err(|_| End::Silent)?;
                ports.copy_client(&out);
                self.state = State::First(mechanism);
                Ok(Progress::More)
            }
        }
    }

    fn begin_scram<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        mechanism: Mechanism,
        first: &[u8],
    ) -> Result<Progress, End> {
        let (salt, iterations) = match &self.names.project {
            Some(project) => (project.scram_salt, project.scram_iterations),
            None => (
                mock_salt(&cx.shared.mock_secret, self.names.user.as_bytes()),
                DEFAULT_ITERATIONS.get(),
            ),
        };
        let iterations = NonZeroU32::new(iterations).unwrap_or(DEFAULT_ITERATIONS);
        let nonce = Nonce::random().map_err(|_| Fault::Bug)?;
        let binding = self.binding.as_deref();
        let (server, answer) = Server::start(mechanism, binding, first, &salt, iterations, &nonce)
            .map_err(|error| scram_end(&error))?;
        let mut out = Vec::new();
        write::authentication_sasl_continue(&mut out, &answer).map_err(|_| End::Silent)?;
        ports.copy_client(&out);
        self.state = State::Proof(Box::new(server));
        Ok(Progress::More)
    }

    fn prove<P: Ports<Backend>>(
        &mut self,
        cx: &Context,
        ports: &mut P,
        server: Server,
        body: &[u8],
    ) -> Result<Progress, End> {
        let keys: &[Arc<Key>] = self
            .names
            .project
            .as_ref()
            .map_or(&[], |project| &project.keys);
        let candidates = keys.iter().map(|key| Candidate {
            stored_key: &key.stored_key,
            server_key: &key.server_key,
        });
        let accepted = server
            .finish(body, candidates)
            .map_err(|error| scram_end(&error))?;
        let key = keys.get(accepted.index).ok_or(Fault::Bug)?;
        let mut out = Vec::new();
        write::authentication_sasl_final(&mut out, &accepted.server_final)
            .map_err(|_| End::Silent)?;
        write::authentication_ok(&mut out);
        ports.copy_client(&out);
        self.enter(cx, Arc::clone(key)).map(Progress::Authenticated)
    }

    /// The client is who it says: what may it use?
    fn enter(&mut self, cx: &Context, key: Arc<Key>) -> Result<Box<Live>, End> {
        let name = DatabaseName {
            project: key.project.clone(),
            engine: Engine::Postgres,
            name: self.names.database.as_str().into(),
        };
        let snapshot = cx.shared.snapshot.load();
        let id = snapshot.names.get(&name).ok_or(Fault::UnknownDatabase)?;
        // The word comes first: what changes after it is noticed at the first statement.
        let gate = cx.shared.gates.gate(*id);
        let word = gate.word();
        let snapshot = cx.shared.snapshot.load();
        let route = route::find(&snapshot, &key, &name)?;
        let limit = route.database.settings.max_connections;
        if !gate.connect(limit) {
            return Err(Fault::ConnectionLimit { limit }.into());
        }
        let mut cancel_key = [0; 32];
        if rand::fill(&mut cancel_key).is_err() {
            gate.disconnect();
            return Err(Fault::Bug.into());
        }
        let names = std::mem::take(&mut self.names);
        let identity = Identity {
            user: names.user.into(),
            database_name: names.database.into(),
            key,
            source: self.entrance.source,
            cancel_key,
            long_cancel_key: names.long_cancel_key,
        };
        Ok(Box::new(Live::new(
            cx,
            identity,
            route,
            gate,
            word,
            names.wanted,
        )))
    }
}

fn scram_end(error: &ScramError) -> End {
    match error {
        ScramError::WrongProof => Fault::AuthFailed.into(),
        ScramError::Random => Fault::Bug.into(),
        ScramError::ChannelBinding | ScramError::Downgrade => {
            End::Error("28000", error.to_string())
        }
        _ => End::Error("08P01", error.to_string()),
    }
}
