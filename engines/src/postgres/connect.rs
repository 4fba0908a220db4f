//! Connections of the control plane.

use std::path::Path;
use std::time::Duration;

use control_store::snapshot::ServerAddress;
use tokio_postgres::{Client, Config, NoTls};

use crate::{EngineError, ServerAccess};

/// The superuser of every server that the provisioner makes.
pub(super) const SUPERUSER: &str = "tenantsdb";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects as the superuser, whom the server knows by the account that we run as.
pub(super) async fn superuser(
    server: &ServerAccess,
    database: &str,
) -> Result<Client, EngineError> {
    connect(server, database, SUPERUSER, None).await
}

/// Connects with a password.
pub(super) async fn as_role(
    server: &ServerAccess,
    database: &str,
    role: &str,
    password: &str,
) -> Result<Client, EngineError> {
    connect(server, database, role, Some(password)).await
}

async fn connect(
    server: &ServerAccess,
    database: &str,
    user: &str,
    password: Option<&str>,
) -> Result<Client, EngineError> {
    let mut config = Config::new();
    match &server.address {
        ServerAddress::Unix(socket) => {
            let folder = socket.parent().unwrap_or(Path::new("/"));
            config.host_path(folder);
        }
        ServerAddress::Tcp(address) => {
            config.host(address.ip().to_string()).port(address.port());
        }
    }
    config
        .user(user)
        .dbname(database)
        .application_name("tenantsdb")
        .connect_timeout(CONNECT_TIMEOUT);
    if let Some(password) = password {
        config.password(password);
    }
    let (client, connection) = config.connect(NoTls).await.map_err(|it| error(&it))?;
    // It ends by itself once the client is dropped.
    tokio::spawn(connection);
    Ok(client)
}

/// The server's refusal, or what kept us from asking.
pub(super) fn error(error: &tokio_postgres::Error) -> EngineError {
    match error.as_db_error() {
        Some(refusal) => EngineError::Statement {
            change: None,
            code: refusal.code().code().to_owned(),
            message: refusal.message().to_owned(),
        },
        None => EngineError::Unavailable(error.to_string()),
    }
}

/// Runs statements that return nothing.
pub(super) async fn run(client: &Client, statements: &str) -> Result<(), EngineError> {
    client
        .batch_execute(statements)
        .await
        .map_err(|it| error(&it))
}

/// The SQLSTATE, if the server refused.
pub(super) fn code(error: &EngineError) -> Option<&str> {
    match error {
        EngineError::Statement { code, .. } => Some(code),
        _ => None,
    }
}
