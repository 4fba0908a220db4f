//! Database servers, and which one takes a new database.

use rusqlite::OptionalExtension as _;

use crate::error::{Entity, StoreError};
use crate::ids::{Engine, ServerId};
use crate::publish::{read_address, read_engine};
use crate::seal::Purpose;
use crate::snapshot::ServerAddress;
use crate::store::{Store, next_id, now_us};

/// A server to be added. Its address is set once it runs.
#[derive(Clone, Debug)]
pub struct NewServer {
    /// Which engine.
    pub engine: Engine,
    /// Whether many projects share it.
    pub shared: bool,
    /// How many connections the proxies may open to it.
    pub connection_budget: u32,
    /// The zone it is in.
    pub region: String,
    /// Who made it, for the provisioner alone.
    pub provisioner: String,
}

/// A server as the control plane knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its id.
    pub id: ServerId,
    /// Which engine.
    pub engine: Engine,
    /// Whether many projects share it.
    pub shared: bool,
    /// How to reach it.
    pub address: ServerAddress,
    /// Who made it.
    pub provisioner: String,
}

fn address_text(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Unix(path) => format!("unix:{}", path.display()),
        ServerAddress::Tcp(address) => format!("tcp:{address}"),
    }
}

impl Store {
    /// The id for a server that is about to be made.
    ///
    /// # Errors
    /// The store failed.
    pub fn reserve_server(&self) -> Result<ServerId, StoreError> {
        self.write(|tx, _| next_id(tx, "server").map(ServerId))
    }

    /// Adds a server that runs.
    ///
    /// # Errors
    /// There is one with that id.
    pub fn add_server(
        &self,
        id: ServerId,
        new: &NewServer,
        address: &ServerAddress,
    ) -> Result<(), StoreError> {
        let sealed = self.sealer.seal(Purpose::ServerPassword, id.0, b"")?;
        self.write(|tx, dirty| {
            tx.execute(
                "INSERT INTO servers (id, engine, kind, address, connection_budget, region, admin_user,
                     sealed_admin_password, provisioner, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, '', ?7, ?8, ?9)",
                (
                    id.0,
                    new.engine.lower_name(),
                    if new.shared { "shared" } else { "dedicated" },
                    address_text(address),
                    new.connection_budget,
                    &new.region,
                    sealed,
                    &new.provisioner,
                    now_us(),
                ),
            )
            .map_err(|e| StoreError::unique(e, Entity::Server, id))?;
            dirty.servers.insert(id);
            Ok(())
        })
    }

    /// A server has another address since it was started again.
    ///
    /// # Errors
    /// There is no such server.
    pub fn set_server_address(
        &self,
        id: ServerId,
        address: &ServerAddress,
    ) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            let changed = tx.execute(
                "UPDATE servers SET address = ?2 WHERE id = ?1",
                (id.0, address_text(address)),
            )?;
            if changed == 0 {
                return Err(StoreError::not_found(Entity::Server, id));
            }
            dirty.servers.insert(id);
            Ok(())
        })
    }

    /// All servers, in the order of their ids.
    ///
    /// # Errors
    /// The store failed.
    pub fn list_servers(&self) -> Result<Vec<ServerInfo>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT id, engine, kind, address, provisioner FROM servers ORDER BY id",
            )?;
            let mut rows = statement.query([])?;
            let mut servers = Vec::new();
            while let Some(row) = rows.next()? {
                servers.push(ServerInfo {
                    id: ServerId(row.get(0)?),
                    engine: read_engine(&row.get::<_, String>(1)?)?,
                    shared: row.get::<_, String>(2)? == "shared",
                    address: read_address(&row.get::<_, String>(3)?)?,
                    provisioner: row.get(4)?,
                });
            }
            Ok(servers)
        })
    }

    /// The shared server with the fewest databases on which no database has that name; `None`: another server is needed.
    ///
    /// # Errors
    /// The store failed.
    pub fn place(&self, engine: Engine, name: &str) -> Result<Option<ServerId>, StoreError> {
        self.read(|conn| {
            Ok(conn
                .prepare_cached(
                    "SELECT s.id FROM servers s
                     WHERE s.engine = ?1 AND s.kind = 'shared'
                       AND NOT EXISTS (SELECT 1 FROM databases d WHERE d.server = s.id AND d.name = ?2)
                     ORDER BY (SELECT count(*) FROM databases d WHERE d.server = s.id), s.id LIMIT 1",
                )?
                .query_row((engine.lower_name(), name), |r| r.get(0).map(ServerId))
                .optional()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::states::Mode;
    use crate::testing::Fixture;

    #[test]
    fn a_database_goes_where_its_name_is_free_and_room_is_most() {
        let f = Fixture::new();
        let (ours, theirs) = (f.project(), f.another_project());
        let place = |name: &str| f.store.place(Engine::Postgres, name).unwrap();
        assert_eq!(place("a_workspace"), None);
        let first = f.server();
        assert_eq!(place("a_workspace"), Some(first));
        f.workspace(&ours, "a", Mode::Tenant);
        assert_eq!(place("a_workspace"), None, "the name is taken there");
        assert_eq!(f.store.place(Engine::Mysql, "b").unwrap(), None);
        let second = f.server();
        assert_eq!(place("b_workspace"), Some(second), "it has fewer databases");
        f.workspace(&theirs, "a", Mode::Tenant);
        assert_eq!(place("a_workspace"), None);
        f.check();
    }

    #[test]
    fn a_server_is_known_after_a_crash_and_may_move() {
        let f = Fixture::new();
        let id = f.server();
        let address = ServerAddress::Tcp("127.0.0.1:5433".parse().unwrap());
        f.store.set_server_address(id, &address).unwrap();
        f.check();
        let f = f.reopened();
        assert_eq!(f.store.list_servers().unwrap()[0].address, address);
        assert_eq!(f.store.snapshot().load().servers[&id].address, address);
        let nowhere = f.store.set_server_address(ServerId(99), &address);
        assert!(matches!(nowhere, Err(StoreError::NotFound { .. })));
        assert_ne!(f.store.reserve_server().unwrap(), id, "ids are given once");
    }
}
