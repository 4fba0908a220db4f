//! Servers that somebody else runs, as the configuration describes them.

use rusqlite::OptionalExtension as _;

use crate::error::{Entity, StoreError};
use crate::ids::{Engine, ServerId};
use crate::page::list;
use crate::publish::read_engine;
use crate::seal::Purpose;
use crate::secret::Secret;
use crate::servers::{NewServer, RedisServer};
use crate::snapshot::ServerAddress;
use crate::store::Store;

/// What the configuration may say otherwise each time.
pub struct ExternalServer<'a> {
    /// What it is known by.
    pub name: &'a str,
    /// Which engine.
    pub engine: Engine,
    /// Whether many projects share it.
    pub shared: bool,
    /// How many connections the proxies may open to it.
    pub connection_budget: u32,
    /// The zone it is in.
    pub region: &'a str,
    /// As whom the control plane logs in.
    pub admin_user: &'a str,
    /// With which password; empty: with none.
    pub admin_password: &'a Secret,
}

/// A server that was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub id: ServerId,
    /// Its name.
    pub name: String,
    /// Its engine.
    pub engine: Engine,
    /// How many databases have rows there.
    pub databases: u32,
}

impl Store {
    /// The servers that were registered, by name.
    ///
    /// # Errors
    /// The store failed.
    pub fn external_servers(&self) -> Result<Vec<Registered>, StoreError> {
        self.read(|conn| {
            let sql = "SELECT s.id, s.name, s.engine, (SELECT count(*) FROM databases d WHERE d.server = s.id)
                FROM servers s WHERE s.name IS NOT NULL ORDER BY s.name";
            list(conn, sql, [], |row| {
                Ok(Registered {
                    id: ServerId(row.get(0)?),
                    name: row.get(1)?,
                    engine: read_engine(&row.get::<_, String>(2)?)?,
                    databases: row.get(3)?,
                })
            })
        })
    }

    /// Registers a server. Of a Redis server nothing is known yet: no database goes there before
    /// [`Store::set_redis_databases`].
    ///
    /// # Errors
    /// There is one of that name.
    pub fn register_server(
        &self,
        server: &ExternalServer<'_>,
        address: &ServerAddress,
    ) -> Result<ServerId, StoreError> {
        let redis = match server.engine {
            Engine::Redis => Some(RedisServer {
                databases: 0,
                admin_user: server.admin_user.to_owned(),
                admin_password: server.admin_password.clone(),
                select_password: crate::secret::new_server_password()?,
            }),
            Engine::Postgres | Engine::Mysql | Engine::Mongodb => None,
        };
        let new = NewServer {
            engine: server.engine,
            shared: server.shared,
            connection_budget: server.connection_budget,
            region: server.region.to_owned(),
            provisioner: "{\"kind\":\"external\"}".into(),
            redis,
        };
        let id = self.reserve_server()?;
        self.add_named_server(id, &new, address, Some(server.name))?;
        self.update_server(id, server)?;
        Ok(id)
    }

    /// Takes over what the configuration says of a server that was registered.
    ///
    /// # Errors
    /// There is no such server.
    pub fn update_server(
        &self,
        id: ServerId,
        server: &ExternalServer<'_>,
    ) -> Result<(), StoreError> {
        let password = server.admin_password.expose().as_bytes();
        let sealed = self.sealer.seal(Purpose::ServerPassword, id.0, password)?;
        self.write(|tx, dirty| {
            let changed = tx.execute(
                "UPDATE servers SET kind = ?2, connection_budget = ?3, region = ?4, admin_user = ?5, sealed_admin_password = ?6
                 WHERE id = ?1",
                (
                    id.0,
                    if server.shared { "shared" } else { "dedicated" },
                    server.connection_budget,
                    server.region,
                    server.admin_user,
                    sealed,
                ),
            )?;
            dirty.servers.insert(id);
            there(changed, id)
        })
    }

    /// Forgets a server that holds nothing. The server itself is not touched.
    ///
    /// # Errors
    /// It holds databases, or there is no such server.
    pub fn forget_server(&self, id: ServerId) -> Result<(), StoreError> {
        self.write(|tx, dirty| {
            let changed = tx.execute("DELETE FROM servers WHERE id = ?1", [id.0])?;
            dirty.servers.insert(id);
            there(changed, id)
        })
    }

    /// How many logical databases a Redis server turned out to have.
    ///
    /// # Errors
    /// There is no such server.
    pub fn set_redis_databases(&self, id: ServerId, databases: u32) -> Result<(), StoreError> {
        self.write(|tx, _| {
            let sql = "UPDATE servers SET redis_databases = ?2 WHERE id = ?1 AND engine = 'redis'";
            there(tx.execute(sql, (id.0, databases))?, id)
        })
    }

    /// The numbers of the databases that have rows on a Redis server.
    ///
    /// # Errors
    /// The store failed.
    pub fn redis_numbers(&self, id: ServerId) -> Result<Vec<u32>, StoreError> {
        self.read(|conn| {
            let sql =
                "SELECT redis_number FROM databases WHERE server = ?1 AND redis_number IS NOT NULL";
            list(conn, sql, [id.0], |row| Ok(row.get(0)?))
        })
    }

    /// As whom the control plane logs in to a server. `None`: it is known there by the account that it runs as.
    ///
    /// # Errors
    /// There is no such server.
    pub fn server_login(&self, id: ServerId) -> Result<Option<(String, Secret)>, StoreError> {
        let found: Option<(String, Vec<u8>)> = self.read(|conn| {
            Ok(conn
                .prepare_cached(
                    "SELECT admin_user, sealed_admin_password FROM servers WHERE id = ?1",
                )?
                .query_row([id.0], |r| Ok((r.get(0)?, r.get(1)?)))
                .optional()?)
        })?;
        let (user, sealed) = found.ok_or_else(|| StoreError::not_found(Entity::Server, id))?;
        if user.is_empty() {
            return Ok(None);
        }
        let password = (self.sealer).open_text(Purpose::ServerPassword, id.0, &sealed)?;
        Ok(Some((user, password)))
    }
}

fn there(changed: usize, id: ServerId) -> Result<(), StoreError> {
    match changed {
        0 => Err(StoreError::not_found(Entity::Server, id)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::states::Mode;
    use crate::testing::Fixture;

    fn server<'a>(name: &'a str, engine: Engine, password: &'a Secret) -> ExternalServer<'a> {
        ExternalServer {
            name,
            engine,
            shared: true,
            connection_budget: 90,
            region: "eu-central",
            admin_user: "operator",
            admin_password: password,
        }
    }

    fn address(port: u16) -> ServerAddress {
        ServerAddress::Tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn a_server_is_known_by_its_name() {
        let f = Fixture::new();
        let (old, new) = (Secret::new("old".into()), Secret::new("new".into()));
        let made = server("pg-a", Engine::Postgres, &old);
        let id = f.store.register_server(&made, &address(1)).unwrap();
        let again = f.store.register_server(&made, &address(2));
        assert!(matches!(again, Err(StoreError::Taken { .. })));
        let changed = ExternalServer {
            connection_budget: 50,
            admin_user: "other",
            ..server("pg-a", Engine::Postgres, &new)
        };
        f.store.update_server(id, &changed).unwrap();
        let f = f.reopened();
        f.check();
        let login = f.store.server_login(id).unwrap().unwrap();
        assert_eq!((login.0.as_str(), login.1.expose()), ("other", "new"));
        assert_eq!(f.store.snapshot().load().servers[&id].connection_budget, 50);
        let known = f.store.external_servers().unwrap();
        assert_eq!((known[0].id, known[0].name.as_str()), (id, "pg-a"));
        assert_eq!(known.len(), 1);
        assert!(f.store.server_login(f.server()).unwrap().is_none());
        assert_eq!(f.store.external_servers().unwrap().len(), 1);
    }

    #[test]
    fn a_server_that_holds_databases_is_not_forgotten() {
        let f = Fixture::new();
        let project = f.project();
        let password = Secret::new(String::new());
        let made = server("pg-a", Engine::Postgres, &password);
        let id = f.store.register_server(&made, &address(1)).unwrap();
        let database = f.workspace(&project, "a", Mode::Tenant);
        assert!(f.store.forget_server(id).is_err());
        assert_eq!(f.store.external_servers().unwrap()[0].databases, 1);
        let (from, to) = (
            crate::states::DatabaseState::Ready,
            crate::states::DatabaseState::Removing,
        );
        f.store.move_database(database, from, to).unwrap();
        f.store.remove_database(database).unwrap();
        f.store.forget_server(id).unwrap();
        assert!(!f.store.snapshot().load().servers.contains_key(&id));
        assert!(f.store.forget_server(id).is_err());
        f.check();
    }

    #[test]
    fn nothing_goes_to_a_redis_server_that_nobody_has_seen() {
        let f = Fixture::new();
        let project = f.project();
        let password = Secret::new("p".into());
        let made = server("cache", Engine::Redis, &password);
        let id = f.store.register_server(&made, &address(1)).unwrap();
        let place = || f.store.place(Engine::Redis, "a_workspace", &[]).unwrap();
        assert_eq!(place(), None);
        f.store.set_redis_databases(id, 3).unwrap();
        assert_eq!(place(), Some(id));
        f.redis_workspace(&project, "a");
        assert_eq!(f.store.redis_numbers(id).unwrap(), [1]);
        assert_eq!(f.store.redis_server(id).unwrap().databases, 3);
        f.check();
    }
}
