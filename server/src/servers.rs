//! `[[servers]]` of the configuration: database servers that somebody else runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use admin::Region;
use admin::jobs::{ConfiguredServer, ServerPlace, ServerTls};
use anyhow::{Context as _, Result, bail, ensure};
use control_store::trust::client_config;
use control_store::{Engine, Secret};
use serde::Deserialize;

/// One server as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawServer {
    name: String,
    engine: String,
    address: String,
    user: String,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    #[serde(default)]
    tls: RawTls,
    ca_file: Option<PathBuf>,
    #[serde(default = "default_connections")]
    connections: u32,
    region: Option<String>,
    #[serde(default = "default_shared")]
    shared: bool,
    #[serde(default)]
    names_visible: bool,
}

/// How connections to the server are encrypted.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum RawTls {
    #[default]
    Disable,
    Require,
    VerifyFull,
}

const fn default_connections() -> u32 {
    300
}

const fn default_shared() -> bool {
    true
}

/// Checks all servers; the engines of each are to be among `engines`.
pub(crate) fn checked(
    raw: Vec<RawServer>,
    engines: &[Engine],
    regions: &[Region],
) -> Result<Vec<ConfiguredServer>> {
    let mut names = BTreeSet::new();
    raw.into_iter()
        .map(|server| {
            let name = server.name.clone();
            ensure!(
                names.insert(name.clone()),
                "servers: two have the name '{name}'"
            );
            check(server, engines, regions).with_context(|| format!("servers: '{name}'"))
        })
        .collect()
}

fn check(raw: RawServer, engines: &[Engine], regions: &[Region]) -> Result<ConfiguredServer> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    ensure!(
        (1..=63).contains(&raw.name.len()) && raw.name.bytes().all(plain),
        "a name has 1 to 63 letters, digits, '-', '_' or '.'"
    );
    let engine = engines
        .iter()
        .find(|it| Engine::parse(&raw.engine) == Some(**it));
    let Some(engine) = engine.copied() else {
        bail!("engine is '{}': it must be among `engines`", raw.engine);
    };
    ensure!(
        (1..=100_000).contains(&raw.connections),
        "connections is {}: it must be 1 to 100000",
        raw.connections
    );
    ensure!(
        !raw.names_visible || engine == Engine::Postgres,
        "names_visible is for PostgreSQL"
    );
    let place = place(&raw.address)?;
    let tls = tls(&raw, &place)?;
    let password = password(&raw)?;
    let peer = matches!(place, ServerPlace::Socket(_)) && engine == Engine::Postgres;
    ensure!(
        peer || password.is_some(),
        "password_file or password_env is missing"
    );
    Ok(ConfiguredServer {
        engine,
        place,
        tls,
        password: password.unwrap_or_else(|| Secret::new(String::new())),
        connections: raw.connections,
        region: region(raw.region, regions)?,
        shared: raw.shared,
        names_visible: raw.names_visible,
        name: raw.name,
        user: raw.user,
    })
}

/// `/path/to/a/socket`, or `host:port`; an IPv6 address stands in brackets.
fn place(address: &str) -> Result<ServerPlace> {
    if address.starts_with('/') {
        return Ok(ServerPlace::Socket(address.into()));
    }
    let parts = address.rsplit_once(':');
    let host_and_port = parts.and_then(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = bare.or((!host.contains(':')).then_some(host))?;
        let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| (host.to_owned(), port))
    });
    let Some((host, port)) = host_and_port else {
        bail!("address is '{address}': it must be host:port or the path of a Unix socket");
    };
    Ok(ServerPlace::Host(host, port))
}

fn tls(raw: &RawServer, place: &ServerPlace) -> Result<Option<ServerTls>> {
    ensure!(
        raw.tls == RawTls::Disable || matches!(place, ServerPlace::Host(..)),
        "tls is for host:port: nobody is on the way to a Unix socket"
    );
    let authority = raw.ca_file.clone();
    match raw.tls {
        RawTls::VerifyFull => {
            let path = authority.context("tls = 'verify-full' needs ca_file")?;
            client_config(Some(&path)).with_context(|| format!("ca_file {}", path.display()))?;
            Ok(Some(ServerTls {
                authority: Some(path),
            }))
        }
        RawTls::Disable | RawTls::Require if authority.is_some() => {
            bail!("ca_file is for tls = 'verify-full'")
        }
        RawTls::Disable => Ok(None),
        RawTls::Require => Ok(Some(ServerTls { authority: None })),
    }
}

fn password(raw: &RawServer) -> Result<Option<Secret>> {
    let text = match (&raw.password_file, &raw.password_env) {
        (None, None) => return Ok(None),
        (Some(path), None) => fs::read_to_string(path)
            .with_context(|| format!("cannot read password_file {}", path.display()))?,
        // What it holds stands in no error.
        (None, Some(name)) => std::env::var(name)
            .ok()
            .with_context(|| format!("password_env: there is no {name} in the environment"))?,
        (Some(_), Some(_)) => bail!("password_file and password_env: give one of them"),
    };
    let text = text.trim_end_matches(['\r', '\n']);
    ensure!(!text.is_empty(), "the password is empty");
    Ok(Some(Secret::new(text.to_owned())))
}

fn region(wanted: Option<String>, regions: &[Region]) -> Result<String> {
    let found = match &wanted {
        Some(zone) => regions.iter().find(|it| it.zone == *zone),
        None => regions.iter().find(|it| it.is_default),
    };
    let Some(region) = found else {
        let known: Vec<&str> = regions.iter().map(|it| it.zone.as_str()).collect();
        bail!(
            "region is '{}': it must be one of {}",
            wanted.unwrap_or_default(),
            known.join(", ")
        );
    };
    Ok(region.zone.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        servers: Vec<RawServer>,
    }

    fn read(text: &str) -> Result<Vec<ConfiguredServer>> {
        let file: File = toml::from_str(text)?;
        let engines = [Engine::Postgres, Engine::Redis];
        checked(file.servers, &engines, &Region::defaults())
    }

    /// A server with these lines in place of, or behind, the usual ones.
    fn with(lines: &str) -> String {
        let usual = [
            ("name", "'pg-a'"),
            ("engine", "'postgresql'"),
            ("address", "'/run/.s.PGSQL.5432'"),
            ("user", "'operator'"),
        ];
        let kept = usual
            .iter()
            .filter(|(key, _)| !lines.lines().any(|it| it.starts_with(&format!("{key} "))))
            .map(|(key, value)| format!("{key} = {value}\n"));
        format!("[[servers]]\n{}{lines}\n", kept.collect::<String>())
    }

    #[test]
    fn a_server_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "secret\n").unwrap();
        let text = with(&format!(
            "address = 'db.example.com:5433'\npassword_file = '{}'\nconnections = 90\nshared = false",
            file.display()
        ));
        let servers = read(&text).unwrap();
        let server = &servers[0];
        let place = ServerPlace::Host("db.example.com".into(), 5433);
        assert_eq!((&*server.name, &server.place), ("pg-a", &place));
        assert_eq!(server.password.expose(), "secret");
        assert_eq!((server.connections, server.shared), (90, false));
        assert!(!server.region.is_empty());
        let by_peer = read(&with("")).unwrap();
        assert_eq!(by_peer[0].password.expose(), "");
        assert!(by_peer[0].shared);
    }

    #[test]
    fn addresses_are_read() {
        for (text, expected) in [
            ("[::1]:5432", Some(("::1", 5432))),
            ("10.0.0.7:5432", Some(("10.0.0.7", 5432))),
            ("::1:5432", None),
            ("db.example.com", None),
            (":5432", None),
            ("db:0", None),
            ("db:70000", None),
            ("", None),
        ] {
            let found = place(text).ok();
            let expected = expected.map(|(host, port)| ServerPlace::Host(host.into(), port));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let twice = with("") + &with("");
        for (text, expected) in [
            (with("nonsense = 1"), "nonsense"),
            (with("name = 'a b'"), "'a b': a name has 1 to 63"),
            (twice, "two have the name 'pg-a'"),
            (
                with("engine = 'mongodb'"),
                "'pg-a': engine is 'mongodb': it must be among `engines`",
            ),
            (with("address = 'db'"), "must be host:port or the path"),
            (
                with("address = 'db:5432'"),
                "password_file or password_env is missing",
            ),
            (
                with("engine = 'redis'"),
                "password_file or password_env is missing",
            ),
            (
                with("password_file = '/nowhere'"),
                "cannot read password_file /nowhere",
            ),
            (
                with("password_env = 'TENANTSDB_TEST_NO_SUCH_VARIABLE'"),
                "there is no TENANTSDB_TEST_NO_SUCH_VARIABLE in the environment",
            ),
            (
                with("password_file = '/a'\npassword_env = 'B'"),
                "give one of them",
            ),
            (
                with("tls = 'require'"),
                "nobody is on the way to a Unix socket",
            ),
            (
                with("address = 'db:1'\ntls = 'verify-full'"),
                "needs ca_file",
            ),
            (
                with("address = 'db:1'\ntls = 'verify-full'\nca_file = '/nowhere'"),
                "ca_file /nowhere",
            ),
            (
                with("address = 'db:1'\ntls = 'require'\nca_file = '/nowhere'"),
                "ca_file is for tls = 'verify-full'",
            ),
            (with("tls = 'maybe'"), "unknown variant `maybe`"),
            (with("connections = 0"), "it must be 1 to 100000"),
            (
                with("region = 'moon'"),
                "region is 'moon': it must be one of",
            ),
            (
                with("engine = 'redis'\npassword_env = 'PATH'\nnames_visible = true"),
                "names_visible is for PostgreSQL",
            ),
        ] {
            let refusal = match read(&text) {
                Ok(_) => panic!("not refused: {text}"),
                Err(error) => format!("{error:#}"),
            };
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }
}
