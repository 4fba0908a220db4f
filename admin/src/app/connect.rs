//! How clients connect: what the API shows of hosts, users and passwords.

use control_store::ids::Engine;

/// What stands for a password in answers to GET.
pub const MASK: &str = "••••••••";

/// A database as a client connects to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The engine's public host.
    pub host: String,
    /// The engine's public port.
    pub port: u16,
    /// The database's name; `0` for Redis, where the user name tells.
    pub database: String,
    /// The user name.
    pub user: String,
    /// The password, or [`MASK`].
    pub password: String,
}

impl Connection {
    /// As drivers take it. TLS is asked for in the engine's own way.
    pub fn string(&self, engine: Engine) -> String {
        let Self {
            host,
            port,
            database,
            user,
            password,
        } = self;
        // An IPv6 address stands in brackets.
        let host = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let at = format!("{user}:{password}@{host}:{port}/{database}");
        match engine {
            Engine::Postgres => format!("postgresql://{at}?sslmode=require"),
            Engine::Mysql => format!("mysql://{at}"),
            Engine::Mongodb => {
                format!("mongodb://{at}?authMechanism=PLAIN&directConnection=true&tls=true")
            }
            Engine::Redis => format!("rediss://{at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_those_of_the_reference() {
        let connection = |port, database: &str, user: &str| Connection {
            host: "db.example.com".into(),
            port,
            database: database.into(),
            user: user.into(),
            password: "tdb_1".into(),
        };
        for (engine, connection, expected) in [
            (
                Engine::Postgres,
                connection(5432, "shop__acme", "tdb_2"),
                "postgresql://tdb_2:tdb_1@db.example.com:5432/shop__acme?sslmode=require",
            ),
            (
                Engine::Mysql,
                connection(3306, "shop__acme", "tdb_2"),
                "mysql://tdb_2:tdb_1@db.example.com:3306/shop__acme",
            ),
            (
                Engine::Mongodb,
                connection(27017, "shop__acme", "tdb_2"),
                "mongodb://tdb_2:tdb_1@db.example.com:27017/shop__acme?authMechanism=PLAIN&directConnection=true&tls=true",
            ),
            (
                Engine::Redis,
                connection(6379, "0", "acme"),
                "rediss://acme:tdb_1@db.example.com:6379/0",
            ),
        ] {
            assert_eq!(connection.string(engine), expected);
        }
        let local = Connection {
            host: "::1".into(),
            ..connection(1, "d", "u")
        };
        assert!(local.string(Engine::Mysql).contains("@[::1]:1/"));
    }
}
