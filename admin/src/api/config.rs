//! What the API is told when it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use control_store::ids::Engine;
pub use control_store::network::Network;

/// How the API behaves.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Where clients reach the proxy, by engine; an engine that is not here cannot be chosen.
    pub endpoints: BTreeMap<Engine, Endpoint>,
    /// The zones for dedicated servers.
    pub regions: Vec<Region>,
    /// The tiers by name.
    pub tiers: BTreeMap<String, Tier>,
    /// The tier of an account that signs up.
    pub signup_tier: String,
    /// The proxy's Unix socket for the API's own queries in SQL.
    pub internal_socket: PathBuf,
    /// The one for Redis.
    pub redis_internal_socket: PathBuf,
    /// Bytes of a request's body.
    pub body_limit: usize,
    /// Bytes of a schema to import: of the request's body, or of the document behind a URL.
    pub import_limit: usize,
    /// Addresses that imports may connect to beside those of the public Internet.
    pub import_networks: Vec<Network>,
    /// Bytes of one query's rows, as the engine sends them.
    pub result_limit: usize,
    /// Origins whose pages may call the API; `*` alone allows any.
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// A statement is slow if it takes longer.
    pub slow_query: Duration,
}

impl Default for ApiConfig {
    /// What the reference says; no endpoints.
    fn default() -> Self {
        Self {
            endpoints: BTreeMap::new(),
            regions: Region::defaults(),
            tiers: Tier::defaults(),
            signup_tier: "enterprise".into(),
            internal_socket: PathBuf::new(),
            redis_internal_socket: PathBuf::new(),
            body_limit: 1 << 20,
            import_limit: 16 << 20,
            import_networks: Vec::new(),
            result_limit: 64 << 20,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            slow_query: Duration::from_secs(1),
        }
    }
}

/// Where clients reach an engine's port of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host in connection strings.
    pub host: String,
    /// The port in connection strings.
    pub port: u16,
}

/// A zone for dedicated servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name in requests.
    pub zone: String,
    /// Its name for people.
    pub label: String,
    /// Whether it is taken when a request names none.
    pub is_default: bool,
}

impl Region {
    /// The zones of the reference.
    pub fn defaults() -> Vec<Self> {
        [
            ("eu-central", "Europe"),
            ("ap-southeast", "Asia Pacific"),
            ("us-east", "US East"),
            ("us-west", "US West"),
        ]
        .into_iter()
        .map(|(zone, label)| Self {
            zone: zone.into(),
            label: label.into(),
            is_default: zone == "eu-central",
        })
        .collect()
    }
}

/// What an account may use. `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// API requests per minute and project.
    pub requests_per_minute: Option<u32>,
    /// Manual backups per hour and project.
    pub backups_per_hour: Option<u32>,
    /// Tenants per project, those in the trash too.
    pub tenants: Option<u32>,
    /// Whether tenants may have dedicated servers.
    pub dedicated: bool,
    /// Days that the query log is kept.
    pub log_retention_days: u32,
}

impl Tier {
    /// The tiers that are shipped.
    pub fn defaults() -> BTreeMap<String, Self> {
        let tier = |requests, backups, tenants, dedicated, days| Self {
            requests_per_minute: requests,
            backups_per_hour: backups,
            tenants,
            dedicated,
            log_retention_days: days,
        };
        [
            ("free", tier(Some(60), Some(1), Some(5), false, 1)),
            ("starter", tier(Some(300), Some(6), Some(50), true, 7)),
            ("growth", tier(Some(1_200), Some(24), Some(500), true, 30)),
            (
                "scale",
                tier(Some(6_000), Some(120), Some(10_000), true, 90),
            ),
            ("enterprise", tier(None, None, None, true, 365)),
        ]
        .into_iter()
        .map(|(name, tier)| (name.to_owned(), tier))
        .collect()
    }
}
