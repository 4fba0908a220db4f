//! Connections of the control plane.

use std::error::Error as _;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use control_store::snapshot::{ServerAddress, TlsPlace};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use crate::{EngineError, ServerAccess, tls};

/// The superuser of every server that the provisioner makes.
const SUPERUSER: &str = "tenantsdb";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects as the administrator: on a server of the provisioner's making its superuser, whom it knows by the account that we
/// run as; elsewhere whom the operator has named.
pub(super) async fn administrator(
    server: &ServerAccess,
    database: &str,
) -> Result<Client, EngineError> {
    let (user, password) = administrator_of(server);
    connect(server, database, user, password).await
}

/// The administrator's name, and a password where one is needed.
pub(super) fn administrator_of(server: &ServerAccess) -> (&str, Option<&str>) {
    let Some(login) = &server.login else {
        return (SUPERUSER, None);
    };
    let password = login.password.expose();
    (&login.user, Some(password).filter(|it| !it.is_empty()))
}

/// The folder of a server's socket, and the port that names it.
pub(super) fn socket_place(socket: &Path) -> (&Path, u16) {
    let name = socket.file_name().and_then(OsStr::to_str);
    let port = name.and_then(|it| it.strip_prefix(".s.PGSQL.")?.parse().ok());
    (
        socket.parent().unwrap_or(Path::new("/")),
        port.unwrap_or(5432),
    )
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
            let (folder, port) = socket_place(socket);
            config.host_path(folder).port(port);
        }
        ServerAddress::Tcp(address) => {
            config.host(address.ip().to_string()).port(address.port());
        }
        // The stream is there already.
        ServerAddress::Tls(_) => {}
    }
    config
        .user(user)
        .dbname(database)
        .application_name("tenantsdb")
        // That something is there already is what repeating means.
        .options("-c client_min_messages=error")
        .connect_timeout(CONNECT_TIMEOUT);
    if let Some(password) = password {
        config.password(password);
    }
    if let ServerAddress::Tls(place) = &server.address {
        return encrypted(config.ssl_mode(SslMode::Disable), place).await;
    }
    let (client, connection) = config.connect(NoTls).await.map_err(|it| error(&it))?;
    // It ends by itself once the client is dropped.
    tokio::spawn(connection);
    Ok(client)
}

async fn encrypted(config: &Config, place: &TlsPlace) -> Result<Client, EngineError> {
    let connected = async {
        let stream = tls::connect(place).await;
        let stream = stream.map_err(|it| EngineError::Unavailable(it.to_string()))?;
        let connected = config.connect_raw(stream, NoTls).await;
        connected.map_err(|it| error(&it))
    };
    let (client, connection) = timeout(CONNECT_TIMEOUT, connected)
        .await
        .map_err(|_| EngineError::Unavailable("it does not answer".into()))??;
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
        // What the system said is behind it.
        None => EngineError::Unavailable(match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }),
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
