//! A server with databases to try things on.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use control_store::Secret;
use control_store::ids::ServerId;
use control_store::snapshot::{NativeRole, NativeRoles, ServerAddress};
use engines::postgres::{PostgresEngine, preparation};
use engines::provisioner::local::LocalProvisioner;
use engines::provisioner::{Provisioner as _, ServerSpec};
use engines::{
    AdminLogin, ApplyOptions, Change, DatabaseEngine as _, DatabaseSpec, DatabaseUse, ServerAccess,
};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

/// A running server.
pub(crate) struct Lab {
    provisioner: LocalProvisioner,
    /// How to reach it.
    pub(crate) server: ServerAccess,
    _folder: TempDir,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let provisioner = LocalProvisioner::open(folder.path()).unwrap();
        let id = ServerId(1);
        let address = provisioner.start(&ServerSpec::postgres(id)).await.unwrap();
        Self {
            provisioner,
            server: ServerAccess {
                id,
                address,
                login: None,
            },
            _folder: folder,
        }
    }

    /// A server whose administrator may make databases and roles and nothing else, after a superuser has run what
    /// [`preparation`] says.
    pub(crate) async fn limited() -> Self {
        let mut lab = Self::start().await;
        lab.make_operator().await;
        lab.psql(&preparation(OPERATOR));
        lab.server.login = Some(operator());
        lab
    }

    /// One server of each kind: there must be no difference to databases' roles.
    pub(crate) async fn both() -> [Self; 2] {
        [Self::start().await, Self::limited().await]
    }

    /// The user that [`Lab::limited`] is about, without any rights yet.
    pub(crate) async fn make_operator(&self) {
        let statement = format!("CREATE ROLE {OPERATOR} LOGIN PASSWORD '{PASSWORD}'");
        let postgres = self.superuser("postgres").await;
        postgres.batch_execute(&statement).await.unwrap();
    }

    /// Has psql run a script as the superuser.
    pub(crate) fn psql(&self, script: &str) {
        let mut child = Command::new("/usr/lib/postgresql/15/bin/psql")
            .args(["-X", "-q", "-U", "tenantsdb", "-d", "postgres", "-h"])
            .arg(self.socket_folder())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }

    pub(crate) async fn database(&self, name: &str, usage: DatabaseUse) -> NativeRoles {
        let roles = PostgresEngine.new_roles().unwrap();
        let spec = spec(name, usage, &roles);
        for _ in 0..2 {
            PostgresEngine
                .create_database(&self.server, &spec)
                .await
                .unwrap();
        }
        roles
    }

    pub(crate) async fn connect(&self, database: &str, role: &NativeRole) -> Client {
        self.try_connect(database, role).await.unwrap()
    }

    pub(crate) async fn try_connect(
        &self,
        database: &str,
        role: &NativeRole,
    ) -> Result<Client, tokio_postgres::Error> {
        self.log_in(database, &role.name, Some(&role.password))
            .await
    }

    /// As the administrator.
    pub(crate) async fn superuser(&self, database: &str) -> Client {
        self.log_in(database, "tenantsdb", None).await.unwrap()
    }

    async fn log_in(
        &self,
        database: &str,
        user: &str,
        password: Option<&str>,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config
            .host_path(self.socket_folder())
            .user(user)
            .dbname(database);
        if let Some(password) = password {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Where the server's socket is.
    pub(crate) fn socket_folder(&self) -> &Path {
        match &self.server.address {
            ServerAddress::Unix(socket) => socket.parent().unwrap(),
            ServerAddress::Tcp(_) | ServerAddress::Tls(_) => panic!("not a socket"),
        }
    }

    /// Deploys statements, numbered from 1.
    pub(crate) async fn deploy(&self, database: &str, roles: &NativeRoles, statements: &[&str]) {
        let changes: Vec<_> = (1..)
            .zip(statements)
            .map(|(id, it)| change(id, it))
            .collect();
        PostgresEngine
            .apply(
                &self.server,
                database,
                roles,
                &changes,
                &ApplyOptions::default(),
            )
            .await
            .unwrap();
    }

    pub(crate) async fn stop(self) {
        self.provisioner.stop_all().await;
    }
}

pub(crate) const OPERATOR: &str = "operator";
const PASSWORD: &str = "secret";

pub(crate) fn operator() -> AdminLogin {
    AdminLogin {
        user: OPERATOR.into(),
        password: Secret::new(PASSWORD.into()),
    }
}

/// A PostgreSQL database.
pub(crate) fn spec<'a>(
    name: &'a str,
    usage: DatabaseUse,
    roles: &'a NativeRoles,
) -> DatabaseSpec<'a> {
    DatabaseSpec {
        name,
        usage,
        roles,
        redis: None,
    }
}

/// A change with the usual search path.
pub(crate) fn change(id: i64, statement: &str) -> Change {
    Change {
        id,
        statement: statement.into(),
        search_path: "\"$user\", public".into(),
    }
}
