//! What the command line and the configuration file ask for, checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use admin::jobs::ConfiguredServer;
use admin::{Network, Region, Tier};
use anyhow::{Context as _, Result, bail};
use control_store::Engine;
use engines::provisioner::local::installed;
use proxy::reactor::ReactorKind;
use serde::Deserialize;

use crate::cli::{Reactor, Up};
use crate::listen::Wanted;
use crate::servers::{self, RawServer};

/// Engines that this version can run.
pub(crate) const BUILT: [Engine; 2] = [Engine::Postgres, Engine::Redis];

/// How an instance is to run. It has no `Debug`: it holds passwords.
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) engines: Vec<Engine>,
    /// Servers that somebody else runs. An engine that has any is not started here.
    pub(crate) servers: Vec<ConfiguredServer>,
    pub(crate) api: Wanted,
    pub(crate) postgres: Wanted,
    pub(crate) redis: Wanted,
    pub(crate) metrics: Wanted,
    /// Shown in connection strings in place of the address that the proxy listens on.
    pub(crate) public_host: Option<String>,
    pub(crate) plaintext: bool,
    pub(crate) plaintext_from_anywhere: bool,
    /// Certificate chain and key; none: our own authority makes one.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) reactor: Option<ReactorKind>,
    pub(crate) workers: u16,
    pub(crate) pool_size: u32,
    pub(crate) coalesce: Duration,
    pub(crate) max_clients: usize,
    pub(crate) drain: Duration,
    pub(crate) signup_tier: String,
    pub(crate) ip_limit: Option<u32>,
    /// Proxies whose word on a client's address is believed.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Whether trusted proxies begin their connections with a PROXY header.
    pub(crate) proxy_protocol: bool,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) body_limit: usize,
    pub(crate) import_limit: usize,
    pub(crate) import_networks: Vec<Network>,
    pub(crate) tiers: BTreeMap<String, Tier>,
    pub(crate) regions: Vec<Region>,
    pub(crate) log_retention: Duration,
    pub(crate) slow_query: Duration,
    /// Prints the first example.
    pub(crate) greet: bool,
}

impl Config {
    /// What `up` asks for.
    pub(crate) fn for_up(up: &Up) -> Result<Self> {
        for (flag, address) in [("--mysql", &up.mysql), ("--mongodb", &up.mongodb)] {
            if address.is_some() {
                bail!(
                    "{flag} was given, but this version runs {} only: leave it out",
                    built()
                );
            }
        }
        let engines = match &up.engines {
            Some(list) => parse_engines(list)?,
            None => installed_engines()?,
        };
        for (flag, address, engine) in [
            ("--postgres", &up.postgres, Engine::Postgres),
            ("--redis", &up.redis, Engine::Redis),
        ] {
            if address.is_some() && !engines.contains(&engine) {
                bail!(
                    "{flag} was given, but {} is not among the engines to run: see --engines",
                    engine.display_name()
                );
            }
        }
        let tiers = match &up.tier_file {
            Some(path) => read_tiers(path)?,
            None => Tier::defaults(),
        };
        check_tier(&tiers, &up.signup_tier)?;
        Ok(Self {
            data_dir: up.data_dir.clone(),
            engines,
            servers: Vec::new(),
            api: Wanted::parse(up.api.as_deref(), 8080, "--api")?,
            postgres: Wanted::parse(up.postgres.as_deref(), 5432, "--postgres")?,
            redis: Wanted::parse(up.redis.as_deref(), 6379, "--redis")?,
            metrics: Wanted::parse(up.metrics.as_deref(), 9090, "--metrics")?,
            public_host: None,
            plaintext: up.plaintext,
            plaintext_from_anywhere: false,
            tls: None,
            reactor: up.reactor.map(|it| match it {
                Reactor::Uring => ReactorKind::Uring,
                Reactor::Epoll => ReactorKind::Epoll,
            }),
            workers: up.workers.unwrap_or_else(processors),
            pool_size: 20,
            coalesce: Duration::from_micros(RawProxy::default().coalesce_us),
            max_clients: 100_000,
            drain: Duration::from_secs(up.drain_seconds),
            signup_tier: up.signup_tier.clone(),
            ip_limit: (up.ip_limit > 0).then_some(up.ip_limit),
            proxy_protocol: checked_proxy_protocol(up.proxy_protocol, &up.trusted_proxies, "--")?,
            trusted_proxies: networks(&up.trusted_proxies, "--trusted-proxies")?,
            cors_origins: origins(&up.cors_origins, "--cors-origins")?,
            body_limit: RawApi::default().body_limit_kib << 10,
            import_limit: RawApi::default().import_limit_kib << 10,
            // The developer's own machine is what they develop with.
            import_networks: networks(&LOOPBACK.map(str::to_owned), "loopback")?,
            tiers,
            regions: Region::defaults(),
            log_retention: days(30),
            slow_query: Duration::from_secs(1),
            greet: true,
        })
    }

    /// What a configuration file asks for.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let raw: RawConfig = toml::from_str(&text).map_err(|error| {
            anyhow::anyhow!("{}: {}", path.display(), error.to_string().trim_end())
        })?;
        raw.checked()
            .with_context(|| format!("{} is not a usable configuration", path.display()))
    }
}

/// The configuration file. Every key has a default but `data_dir`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    data_dir: PathBuf,
    #[serde(default = "default_engines")]
    engines: Vec<String>,
    public_host: Option<String>,
    #[serde(default)]
    trusted_proxies: Vec<String>,
    #[serde(default)]
    proxy_protocol: bool,
    #[serde(default)]
    listen: RawListen,
    #[serde(default)]
    tls: RawTls,
    #[serde(default)]
    proxy: RawProxy,
    #[serde(default)]
    api: RawApi,
    #[serde(default)]
    query_log: RawQueryLog,
    #[serde(default)]
    tiers: BTreeMap<String, RawTier>,
    #[serde(default)]
    regions: Vec<RawRegion>,
    #[serde(default)]
    servers: Vec<RawServer>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawListen {
    api: Option<String>,
    postgres: Option<String>,
    redis: Option<String>,
    metrics: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawTls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default)]
    plaintext: RawPlaintext,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum RawPlaintext {
    #[default]
    Never,
    Loopback,
    Always,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawProxy {
    reactor: Option<String>,
    workers: Option<u16>,
    pool_size: u32,
    coalesce_us: u64,
    max_clients: usize,
    drain_seconds: u64,
}

impl Default for RawProxy {
    fn default() -> Self {
        Self {
            reactor: None,
            workers: None,
            pool_size: 20,
            coalesce_us: 200,
            max_clients: 100_000,
            drain_seconds: 30,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawApi {
    signup_tier: String,
    ip_limit: u32,
    cors_origins: Vec<String>,
    body_limit_kib: usize,
    import_limit_kib: usize,
    import_networks: Vec<String>,
}

impl Default for RawApi {
    fn default() -> Self {
        Self {
            signup_tier: "enterprise".into(),
            ip_limit: 100,
            cors_origins: Vec::new(),
            body_limit_kib: 1024,
            import_limit_kib: 16 * 1024,
            import_networks: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawQueryLog {
    retention_days: u32,
    slow_ms: u64,
}

impl Default for RawQueryLog {
    fn default() -> Self {
        Self {
            retention_days: 30,
            slow_ms: 1000,
        }
    }
}

/// A tier, with no limit where a key is left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTier {
    requests_per_minute: Option<u32>,
    backups_per_hour: Option<u32>,
    tenants: Option<u32>,
    #[serde(default)]
    dedicated: bool,
    #[serde(default = "default_retention")]
    log_retention_days: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRegion {
    zone: String,
    label: String,
    #[serde(default)]
    is_default: bool,
}

fn default_engines() -> Vec<String> {
    vec!["postgresql".into()]
}

const fn default_retention() -> u32 {
    30
}

impl RawTier {
    fn checked(self) -> Tier {
        Tier {
            requests_per_minute: self.requests_per_minute,
            backups_per_hour: self.backups_per_hour,
            tenants: self.tenants,
            dedicated: self.dedicated,
            log_retention_days: self.log_retention_days,
        }
    }
}

impl RawConfig {
    fn checked(self) -> Result<Config> {
        let tiers = if self.tiers.is_empty() {
            Tier::defaults()
        } else {
            let tiers = self.tiers.into_iter();
            tiers.map(|(name, tier)| (name, tier.checked())).collect()
        };
        check_tier(&tiers, &self.api.signup_tier)?;
        let tls = match (self.tls.certificate, self.tls.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => bail!("tls.certificate and tls.key belong together: give both or none"),
        };
        let regions = if self.regions.is_empty() {
            Region::defaults()
        } else {
            let regions = self.regions.into_iter().map(|it| Region {
                zone: it.zone,
                label: it.label,
                is_default: it.is_default,
            });
            regions.collect()
        };
        if regions.iter().filter(|it| it.is_default).count() != 1 {
            bail!("exactly one of the regions must have is_default = true");
        }
        let reactor = match self.proxy.reactor.as_deref() {
            None => None,
            Some("uring") => Some(ReactorKind::Uring),
            Some("epoll") => Some(ReactorKind::Epoll),
            Some(other) => bail!("proxy.reactor is '{other}': it must be 'uring' or 'epoll'"),
        };
        let workers = self.proxy.workers.unwrap_or_else(processors);
        if !(1..=127).contains(&workers) {
            bail!("proxy.workers is {workers}: it must be 1 to 127");
        }
        if self.proxy.coalesce_us > 10_000 {
            let micros = self.proxy.coalesce_us;
            bail!("proxy.coalesce_us is {micros}: it must be 0 to 10000");
        }
        for (key, kib) in [
            ("api.body_limit_kib", self.api.body_limit_kib),
            ("api.import_limit_kib", self.api.import_limit_kib),
        ] {
            if !(1..=1 << 20).contains(&kib) {
                bail!("{key} is {kib}: it must be 1 to 1048576");
            }
        }
        let engines = parse_engines(&self.engines.join(","))?;
        Ok(Config {
            data_dir: self.data_dir,
            servers: servers::checked(self.servers, &engines, &regions)?,
            engines,
            api: Wanted::exactly(self.listen.api.as_deref(), 8080, "listen.api")?,
            postgres: Wanted::exactly(self.listen.postgres.as_deref(), 5432, "listen.postgres")?,
            redis: Wanted::exactly(self.listen.redis.as_deref(), 6379, "listen.redis")?,
            metrics: Wanted::exactly(self.listen.metrics.as_deref(), 9090, "listen.metrics")?,
            public_host: self.public_host,
            plaintext: !matches!(self.tls.plaintext, RawPlaintext::Never),
            plaintext_from_anywhere: matches!(self.tls.plaintext, RawPlaintext::Always),
            tls,
            reactor,
            workers,
            pool_size: self.proxy.pool_size,
            coalesce: Duration::from_micros(self.proxy.coalesce_us),
            max_clients: self.proxy.max_clients,
            drain: Duration::from_secs(self.proxy.drain_seconds),
            signup_tier: self.api.signup_tier,
            ip_limit: (self.api.ip_limit > 0).then_some(self.api.ip_limit),
            proxy_protocol: checked_proxy_protocol(self.proxy_protocol, &self.trusted_proxies, "")?,
            trusted_proxies: networks(&self.trusted_proxies, "trusted_proxies")?,
            cors_origins: origins(&self.api.cors_origins, "api.cors_origins")?,
            body_limit: self.api.body_limit_kib << 10,
            import_limit: self.api.import_limit_kib << 10,
            import_networks: networks(&self.api.import_networks, "api.import_networks")?,
            tiers,
            regions,
            log_retention: days(self.query_log.retention_days),
            slow_query: Duration::from_millis(self.query_log.slow_ms),
            greet: false,
        })
    }
}

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1"];

fn networks(list: &[String], key: &str) -> Result<Vec<Network>> {
    list.iter()
        .map(|text| text.parse().map_err(|why| anyhow::anyhow!("{key}: {why}")))
        .collect()
}

/// `*`, or origins as browsers send them.
fn origins(list: &[String], key: &str) -> Result<Vec<String>> {
    for origin in list {
        let host = ["https://", "http://"]
            .iter()
            .find_map(|scheme| origin.strip_prefix(scheme));
        let plain = |host: &str| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        };
        let any = origin == "*" && list.len() == 1;
        if !any && !host.is_some_and(plain) {
            bail!(
                "{key}: '{origin}' must be an origin such as https://app.example.com, or '*' alone"
            );
        }
    }
    Ok(list.to_vec())
}

/// A header from just anybody would say whatever they like.
fn checked_proxy_protocol(on: bool, trusted: &[String], prefix: &str) -> Result<bool> {
    if on && trusted.is_empty() {
        let dash = if prefix.is_empty() { '_' } else { '-' };
        bail!(
            "{prefix}proxy{dash}protocol needs {prefix}trusted{dash}proxies: name the addresses that the proxies connect from"
        );
    }
    Ok(on)
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 24 * 3600)
}

fn processors() -> u16 {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(count).unwrap_or(127).clamp(1, 127)
}

fn check_tier(tiers: &BTreeMap<String, Tier>, signup: &str) -> Result<()> {
    if tiers.contains_key(signup) {
        return Ok(());
    }
    let known: Vec<&str> = tiers.keys().map(String::as_str).collect();
    bail!(
        "there is no tier '{signup}' for new accounts: choose one of {}",
        known.join(", ")
    )
}

fn read_tiers(path: &Path) -> Result<BTreeMap<String, Tier>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the tier file {}", path.display()))?;
    let raw: BTreeMap<String, RawTier> = toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.to_string().trim_end()))?;
    Ok(raw
        .into_iter()
        .map(|(name, tier)| (name, tier.checked()))
        .collect())
}

/// `postgresql, redis`.
fn built() -> String {
    BUILT.map(Engine::lower_name).join(", ")
}

/// The engines whose servers can be started here. Says which cannot; if that is all of them, it is an error.
fn installed_engines() -> Result<Vec<Engine>> {
    let mut engines = Vec::new();
    let mut missing = Vec::new();
    for engine in BUILT {
        match installed(engine) {
            Ok(()) => engines.push(engine),
            Err(error) => missing.push((engine, error)),
        }
    }
    if engines.is_empty() {
        let reasons: Vec<_> = missing.iter().map(|(_, error)| error.to_string()).collect();
        bail!("{}", reasons.join("; "));
    }
    for (engine, error) in missing {
        tracing::warn!("{} is left out: {error}", engine.display_name());
    }
    Ok(engines)
}

fn parse_engines(list: &str) -> Result<Vec<Engine>> {
    let mut engines = Vec::new();
    for name in list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let Some(engine) = Engine::parse(name) else {
            bail!("'{name}' is no engine: this version runs {}", built());
        };
        if !BUILT.contains(&engine) {
            bail!(
                "{} cannot be run by this version: it runs {}",
                engine.display_name(),
                built()
            );
        }
        if !engines.contains(&engine) {
            engines.push(engine);
        }
    }
    if engines.is_empty() {
        bail!("no engine was named: this version runs {}", built());
    }
    Ok(engines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, text).unwrap();
        match Config::from_file(&path) {
            Ok(_) => panic!("not refused: {text}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn the_example_is_a_configuration() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tenantsdb.example.toml");
        let config = Config::from_file(&path).unwrap();
        assert_eq!(config.engines, [Engine::Postgres]);
        assert!(config.servers.is_empty());
        assert_eq!(config.drain, Duration::from_secs(30));
        assert!(!config.greet);
        assert!(config.import_networks.is_empty(), "off by default");
        assert_eq!(config.body_limit, 1 << 20);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("", "data_dir"),
            ("data_dir = 'd'\nnonsense = 1", "nonsense"),
            (
                "data_dir = 'd'\nengines = ['oracle']",
                "'oracle' is no engine",
            ),
            (
                "data_dir = 'd'\nengines = ['mongodb']",
                "MongoDB cannot be run by this version: it runs postgresql, redis",
            ),
            (
                "data_dir = 'd'\n[[servers]]\nname = 'a'\nengine = 'redis'\naddress = 'h:1'\nuser = 'u'",
                "'a': engine is 'redis': it must be among `engines`",
            ),
            ("data_dir = 'd'\n[tls]\nkey = 'k'", "belong together"),
            ("data_dir = 'd'\n[proxy]\nreactor = 'kqueue'", "'kqueue'"),
            ("data_dir = 'd'\n[proxy]\nworkers = 0", "1 to 127"),
            (
                "data_dir = 'd'\n[proxy]\ncoalesce_us = 10001",
                "coalesce_us",
            ),
            (
                "data_dir = 'd'\n[api]\nsignup_tier = 'gold'",
                "no tier 'gold'",
            ),
            ("data_dir = 'd'\n[listen]\napi = 'nowhere'", "listen.api"),
            (
                "data_dir = 'd'\ntrusted_proxies = ['10.0.0.0/99']",
                "trusted_proxies: '10.0.0.0/99' is not a network",
            ),
            (
                "data_dir = 'd'\nproxy_protocol = true",
                "proxy_protocol needs trusted_proxies",
            ),
            (
                "data_dir = 'd'\n[api]\ncors_origins = ['*', 'https://a.b']",
                "api.cors_origins: '*'",
            ),
            (
                "data_dir = 'd'\n[api]\ncors_origins = ['app.example.com']",
                "must be an origin",
            ),
            (
                "data_dir = 'd'\n[api]\nimport_networks = ['intranet']",
                "api.import_networks: 'intranet'",
            ),
            (
                "data_dir = 'd'\n[api]\nbody_limit_kib = 0",
                "body_limit_kib",
            ),
            (
                "data_dir = 'd'\n[[regions]]\nzone = 'a'\nlabel = 'A'",
                "is_default",
            ),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }
}
