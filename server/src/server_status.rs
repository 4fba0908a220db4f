//! How the database servers are, for the operator.

use std::fmt::Write as _;

use control_store::snapshot::ServerAddress;
use engines::provisioner::{Health, RunningServer};
use serde::Serialize;

/// A server as `tenantsdb status` shows it.
#[derive(Serialize)]
pub(crate) struct Status {
    id: u64,
    /// What the configuration calls it; none: we started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    engine: &'static str,
    address: String,
    up: bool,
    health: String,
}

/// All of them.
pub(crate) fn list(servers: &[RunningServer]) -> Vec<Status> {
    let status = |server: &RunningServer| Status {
        id: server.id.0,
        name: server.name.clone(),
        engine: server.engine.lower_name(),
        address: match &server.address {
            ServerAddress::Unix(path) => path.display().to_string(),
            ServerAddress::Tcp(address) => address.to_string(),
            ServerAddress::Tls(place) => format!("{} with TLS", place.address),
        },
        up: server.health == Health::Running,
        health: server.health.to_string(),
    };
    servers.iter().map(status).collect()
}

/// Whether each is up, in the format of Prometheus. Names are of letters that need no escaping.
pub(crate) fn metrics(servers: &[RunningServer]) -> String {
    let mut text = String::from(
        "# HELP tenantsdb_server_up Whether a database server is there and fit for new databases.\n\
         # TYPE tenantsdb_server_up gauge\n",
    );
    for server in servers {
        let name = server.name.as_deref().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "tenantsdb_server_up{{server=\"{}\",name=\"{name}\",engine=\"{}\"}} {}",
            server.id,
            server.engine.lower_name(),
            u8::from(server.health == Health::Running)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use control_store::{Engine, ServerId};

    use super::*;

    #[test]
    fn a_server_that_is_not_there_is_told() {
        let server = |id, name: Option<&str>, health| RunningServer {
            id: ServerId(id),
            name: name.map(str::to_owned),
            engine: Engine::Postgres,
            address: ServerAddress::Tcp(([10, 0, 0, 7], 5432).into()),
            health,
        };
        let problems = vec!["it is a standby".to_owned(), "it is old".to_owned()];
        let servers = [
            server(1, None, Health::Running),
            server(2, Some("pg-a"), Health::Unfit { problems }),
        ];
        let text = metrics(&servers);
        for line in [
            "tenantsdb_server_up{server=\"1\",name=\"\",engine=\"postgresql\"} 1\n",
            "tenantsdb_server_up{server=\"2\",name=\"pg-a\",engine=\"postgresql\"} 0\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let shown = serde_json::to_value(list(&servers)).unwrap();
        assert_eq!(shown[1]["health"], "unfit: it is a standby; it is old");
        assert_eq!(shown[1]["address"], "10.0.0.7:5432");
        assert_eq!(
            (&shown[0]["up"], &shown[1]["up"]),
            (&true.into(), &false.into())
        );
        assert!(shown[0].get("name").is_none());
    }
}
