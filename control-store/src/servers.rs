//! Database servers, and which one takes a new database.

use rusqlite::OptionalExtension as _;

use crate::error::{Entity, StoreError};
use crate::ids::{Engine, ServerId};
use crate::page::list;
use crate::publish::{read_address, read_engine};
use crate::seal::Purpose;
use crate::secret::Secret;
use crate::snapshot::ServerAddress;
use crate::store::{Store, next_id, now_us};

/// A server to be added. Its address is set once it runs.
#[derive(Clone)]
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
    /// What only a Redis server has, and every one of them.
    pub redis: Option<RedisServer>,
}

/// What the control plane must know of a Redis server beyond where it is. It has no `Debug`: it holds secrets.
#[derive(Clone)]
pub struct RedisServer {
    /// How many logical databases it has. The first is left empty on a shared server: connections begin there.
    pub databases: u32,
    /// Who may do everything.
    pub admin_user: String,
    /// With which password.
    pub admin_password: Secret,
    /// The password of [`SELECT_USER`](crate::redis::SELECT_USER).
    pub select_password: Secret,
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
    /// What the configuration calls one that somebody else runs. `None`: we started it.
    pub name: Option<String>,
}

fn address_text(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Unix(path) => format!("unix:{}", path.display()),
        ServerAddress::Tcp(address) => format!("tcp:{address}"),
        ServerAddress::Tls(place) => {
            let authority = place.authority.as_ref().map(|it| it.display().to_string());
            let stored = (place.address, &*place.host, authority, place.asks_first);
            // Texts and numbers can be written.
            format!("tls:{}", serde_json::to_string(&stored).unwrap_or_default())
        }
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
        self.add_named_server(id, new, address, None)
    }

    pub(crate) fn add_named_server(
        &self,
        id: ServerId,
        new: &NewServer,
        address: &ServerAddress,
        name: Option<&str>,
    ) -> Result<(), StoreError> {
        if new.redis.is_some() != (new.engine == Engine::Redis) {
            return Err(StoreError::Invalid {
                field: "server",
                why: "must have Redis's settings if and only if it is one",
            });
        }
        let redis = new.redis.as_ref();
        let password = redis.map_or("", |it| it.admin_password.expose());
        let sealed = (self.sealer).seal(Purpose::ServerPassword, id.0, password.as_bytes())?;
        let select = redis.map(|it| {
            let password = it.select_password.expose().as_bytes();
            self.sealer.seal(Purpose::SelectPassword, id.0, password)
        });
        let select = select.transpose()?;
        self.write(|tx, dirty| {
            tx.execute(
                "INSERT INTO servers (id, engine, kind, address, connection_budget, region, admin_user,
                     sealed_admin_password, provisioner, created_at, redis_databases, sealed_select_password, name)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                (
                    id.0,
                    new.engine.lower_name(),
                    if new.shared { "shared" } else { "dedicated" },
                    address_text(address),
                    new.connection_budget,
                    &new.region,
                    redis.map_or("", |it| it.admin_user.as_str()),
                    sealed,
                    &new.provisioner,
                    now_us(),
                    redis.map(|it| it.databases),
                    select,
                    name,
                ),
            )
            .map_err(|e| StoreError::unique(e, Entity::Server, name.unwrap_or(&id.to_string())))?;
            dirty.servers.insert(id);
            Ok(())
        })
    }

    /// What the control plane must know of a Redis server.
    ///
    /// # Errors
    /// There is no such server, or it is another engine's.
    pub fn redis_server(&self, id: ServerId) -> Result<RedisServer, StoreError> {
        let found: Option<(u32, String, Vec<u8>, Vec<u8>)> = self.read(|conn| {
            Ok(conn
                .prepare_cached(
                    "SELECT redis_databases, admin_user, sealed_admin_password, sealed_select_password
                     FROM servers WHERE id = ?1 AND engine = 'redis'",
                )?
                .query_row([id.0], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
                .optional()?)
        })?;
        let (databases, admin_user, admin, select) =
            found.ok_or_else(|| StoreError::not_found(Entity::Server, id))?;
        let open = |purpose, sealed: &[u8]| self.sealer.open_text(purpose, id.0, sealed);
        Ok(RedisServer {
            databases,
            admin_user,
            admin_password: open(Purpose::ServerPassword, &admin)?,
            select_password: open(Purpose::SelectPassword, &select)?,
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
            let sql =
                "SELECT id, engine, kind, address, provisioner, name FROM servers ORDER BY id";
            list(conn, sql, [], |row| {
                Ok(ServerInfo {
                    id: ServerId(row.get(0)?),
                    engine: read_engine(&row.get::<_, String>(1)?)?,
                    shared: row.get::<_, String>(2)? == "shared",
                    address: read_address(&row.get::<_, String>(3)?)?,
                    provisioner: row.get(4)?,
                    name: row.get(5)?,
                })
            })
        })
    }

    /// The shared server with the fewest databases that has room: no database of that name, and on Redis, where names do not
    /// meet, a logical database that is free: a few are left, since a tenant's several
    /// databases are all placed before the first has its row. None of `closed`, which take no databases now. `None`: another
    /// server is needed.
    ///
    /// # Errors
    /// The store failed.
    pub fn place(
        &self,
        engine: Engine,
        name: &str,
        closed: &[ServerId],
    ) -> Result<Option<ServerId>, StoreError> {
        self.read(|conn| {
            let mut statement = conn.prepare_cached(
                "SELECT s.id FROM servers s
                 WHERE s.engine = ?1 AND s.kind = 'shared'
                   AND CASE s.engine
                       WHEN 'redis' THEN (SELECT count(*) FROM databases d WHERE d.server = s.id)
                           + s.redis_databases / 64 < s.redis_databases - 1
                       ELSE NOT EXISTS (SELECT 1 FROM databases d WHERE d.server = s.id AND d.name = ?2) END
                 ORDER BY (SELECT count(*) FROM databases d WHERE d.server = s.id), s.id",
            )?;
            let mut rows = statement.query((engine.lower_name(), name))?;
            while let Some(row) = rows.next()? {
                let id = ServerId(row.get(0)?);
                if !closed.contains(&id) {
                    return Ok(Some(id));
                }
            }
            Ok(None)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::TlsPlace;
    use crate::states::{DatabaseState, Mode};
    use crate::testing::Fixture;

    #[test]
    fn a_database_goes_where_its_name_is_free_and_room_is_most() {
        let f = Fixture::new();
        let (ours, theirs) = (f.project(), f.another_project());
        let place = |name: &str| f.store.place(Engine::Postgres, name, &[]).unwrap();
        assert_eq!(place("a_workspace"), None);
        let first = f.server();
        assert_eq!(place("a_workspace"), Some(first));
        f.workspace(&ours, "a", Mode::Tenant);
        assert_eq!(place("a_workspace"), None, "the name is taken there");
        assert_eq!(f.store.place(Engine::Mysql, "b", &[]).unwrap(), None);
        let second = f.server();
        assert_eq!(place("b_workspace"), Some(second), "it has fewer databases");
        let closed = f.store.place(Engine::Postgres, "b_workspace", &[second]);
        assert_eq!(closed.unwrap(), Some(first));
        f.workspace(&theirs, "a", Mode::Tenant);
        assert_eq!(place("a_workspace"), None);
        f.check();
    }

    #[test]
    fn redis_names_may_meet_and_numbers_run_out() {
        let f = Fixture::new();
        let (ours, theirs) = (f.project(), f.another_project());
        assert_eq!(
            f.store.place(Engine::Redis, "a_workspace", &[]).unwrap(),
            None
        );
        let first = f.redis_server(3);
        let number = |id| {
            let snapshot = f.store.snapshot().load();
            let database = &snapshot.databases[&id];
            let redis = database.redis.as_ref().unwrap();
            assert_eq!(redis.prefix, crate::redis::prefix(id));
            (database.server, redis.number)
        };
        let ids = [&ours, &theirs].map(|project| f.redis_workspace(project, "a"));
        assert_eq!(ids.map(number), [(first, 1), (first, 2)]);
        assert_eq!(
            f.store.place(Engine::Redis, "b", &[]).unwrap(),
            None,
            "it is full"
        );
        let full = f.new_redis_workspace(&ours, "b", first);
        assert!(matches!(full, Err(StoreError::ServerFull { server }) if server == first));
        assert!(f.workspace_names(&ours).len() == 1);
        let (from, to) = (DatabaseState::Ready, DatabaseState::Removing);
        f.store.move_database(ids[0], from, to).unwrap();
        assert!(
            f.new_redis_workspace(&ours, "b", first).is_err(),
            "its keys are there yet"
        );
        f.store.remove_database(ids[0]).unwrap();
        let again = f.new_redis_workspace(&ours, "b", first).unwrap();
        assert_eq!(number(again), (first, 1), "the lowest that is free");
        f.check();
    }

    #[test]
    fn a_redis_server_keeps_its_secrets() {
        let f = Fixture::new();
        let id = f.redis_server(16);
        let f = f.reopened();
        let found = f.store.redis_server(id).unwrap();
        assert_eq!(
            (found.databases, &*found.admin_user),
            (16, "tenantsdb_admin")
        );
        assert_eq!(found.admin_password.expose(), "all");
        assert_eq!(found.select_password.expose(), "select");
        let snapshot = f.store.snapshot().load();
        let select = snapshot.servers[&id].redis_select.as_ref().unwrap();
        assert_eq!(
            (&*select.name, &*select.password),
            ("tenantsdb_select", "select")
        );
        let postgres = f.server();
        assert!(f.store.redis_server(postgres).is_err());
        assert!(
            f.store.snapshot().load().servers[&postgres]
                .redis_select
                .is_none()
        );
        f.check();
    }

    #[test]
    fn a_server_is_known_after_a_crash_and_may_move() {
        let f = Fixture::new();
        let id = f.server();
        let tcp = "127.0.0.1:5433".parse().unwrap();
        let tls = |authority: Option<&str>| {
            ServerAddress::Tls(Arc::new(TlsPlace {
                address: tcp,
                host: "db.example.com".into(),
                authority: authority.map(Into::into),
                asks_first: true,
            }))
        };
        let mut f = f;
        for address in [
            ServerAddress::Tcp(tcp),
            tls(None),
            tls(Some("/a \"b\".pem")),
        ] {
            f.store.set_server_address(id, &address).unwrap();
            f.check();
            f = f.reopened();
            assert_eq!(f.store.list_servers().unwrap()[0].address, address);
            assert_eq!(f.store.snapshot().load().servers[&id].address, address);
        }
        let address = ServerAddress::Tcp(tcp);
        let nowhere = f.store.set_server_address(ServerId(99), &address);
        assert!(matches!(nowhere, Err(StoreError::NotFound { .. })));
        assert_ne!(f.store.reserve_server().unwrap(), id, "ids are given once");
    }
}
