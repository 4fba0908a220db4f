//! A server with databases to try things on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use control_store::DatabaseId;
use control_store::ids::{Role, ServerId};
use control_store::servers::RedisServer;
use control_store::snapshot::{
    NativeRole, NativeRoles, RedisDatabase, RedisKeySettings, ServerAddress,
};
use engines::provisioner::local::LocalProvisioner;
use engines::provisioner::{Provisioner as _, ServerSpec};
use engines::redis::RedisEngine;
use engines::{AdminLogin, DatabaseEngine as _, DatabaseSpec, DatabaseUse, ServerAccess};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo,
    RedisResult, Value,
};
use tempfile::TempDir;

/// A running server.
pub(crate) struct Lab {
    pub(crate) provisioner: LocalProvisioner,
    pub(crate) secrets: RedisServer,
    /// How to reach it.
    pub(crate) server: ServerAccess,
    folder: TempDir,
}

/// A database.
pub(crate) struct Made {
    pub(crate) roles: NativeRoles,
    pub(crate) place: RedisDatabase,
}

impl Made {
    pub(crate) fn spec(&self) -> DatabaseSpec<'_> {
        DatabaseSpec {
            name: "cache__acme",
            usage: DatabaseUse::Tenant,
            roles: &self.roles,
            redis: Some(&self.place),
        }
    }

    /// A key of it, as the server knows it.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}{name}", String::from_utf8_lossy(&self.place.prefix))
    }
}

/// A folder that the account which runs servers can reach.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

pub(crate) const ID: ServerId = ServerId(1);

impl Lab {
    pub(crate) async fn start(shared: bool) -> Self {
        let folder = folder();
        let provisioner = LocalProvisioner::open(folder.path()).unwrap();
        let secrets = engines::redis::new_server(shared).unwrap();
        let spec = ServerSpec::redis(ID, secrets.clone());
        let address = provisioner.start(&spec).await.unwrap();
        let server = ServerAccess {
            id: ID,
            address,
            login: Some(AdminLogin {
                user: secrets.admin_user.clone(),
                password: secrets.admin_password.clone(),
            }),
        };
        Self {
            provisioner,
            secrets,
            server,
            folder,
        }
    }

    /// Stops the server and starts it again.
    pub(crate) async fn restart(&self) {
        self.provisioner.stop(ID).await;
        let spec = ServerSpec::redis(ID, self.secrets.clone());
        let address = self.provisioner.start(&spec).await.unwrap();
        assert_eq!(address, self.server.address);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A database with that number, and the prefix of that id if it has one.
    pub(crate) async fn database(&self, number: u32, id: Option<u64>) -> Made {
        let made = Made {
            roles: RedisEngine.new_roles().unwrap(),
            place: RedisDatabase {
                number,
                prefix: id.map_or_else(Default::default, |id| {
                    control_store::redis::prefix(DatabaseId(id))
                }),
                settings: RedisKeySettings::default(),
            },
        };
        for _ in 0..2 {
            RedisEngine
                .create_database(&self.server, &made.spec())
                .await
                .unwrap();
        }
        made
    }

    pub(crate) async fn log_in(
        &self,
        user: &str,
        password: &str,
        number: u32,
    ) -> RedisResult<MultiplexedConnection> {
        self.client(user, password, number)
            .get_multiplexed_async_connection_with_config(&patient())
            .await
    }

    /// A client that logs in as that user, in that logical database if it may select.
    pub(crate) fn client(&self, user: &str, password: &str, number: u32) -> Client {
        let ServerAddress::Unix(socket) = &self.server.address else {
            panic!("not a socket")
        };
        let settings = RedisConnectionInfo::default()
            .set_username(user)
            .set_password(password)
            .set_skip_set_lib_name()
            .set_db(i64::from(number));
        let info = ConnectionAddr::Unix(socket.clone())
            .into_connection_info()
            .unwrap()
            .set_redis_settings(settings);
        Client::open(info).unwrap()
    }

    /// As the administrator.
    pub(crate) async fn admin(&self, number: u32) -> MultiplexedConnection {
        let secrets = &self.secrets;
        self.log_in(&secrets.admin_user, secrets.admin_password.expose(), number)
            .await
            .unwrap()
    }

    /// As the proxy logs in: as the user that selects, and then as the native role.
    pub(crate) async fn connect(&self, made: &Made, role: Role) -> MultiplexedConnection {
        self.try_connect(made, role).await.unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        made: &Made,
        role: Role,
    ) -> RedisResult<MultiplexedConnection> {
        let select = self.secrets.select_password.expose();
        let user = control_store::redis::SELECT_USER;
        let mut connection = self.log_in(user, select, made.place.number).await?;
        let login: &NativeRole = made.roles.for_role(role);
        call(&mut connection, &["AUTH", &login.name, &login.password]).await?;
        Ok(connection)
    }

    pub(crate) async fn stop(self) {
        self.provisioner.stop_all().await;
    }
}

fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(30)))
        .set_response_timeout(Some(Duration::from_secs(60)))
}

pub(crate) async fn call<S: AsRef<str>>(
    connection: &mut MultiplexedConnection,
    words: &[S],
) -> RedisResult<Value> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word.as_ref());
    }
    command.query_async(connection).await
}

/// `SET key 1`.
pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The first word of the server's error; `None`: it had none.
pub(crate) fn code(answer: &RedisResult<Value>) -> Option<String> {
    answer
        .as_ref()
        .err()
        .map(|it| it.code().unwrap_or("?").to_owned())
}
