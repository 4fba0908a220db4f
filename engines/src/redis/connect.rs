//! Connections of the control plane.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue,
    IntoConnectionInfo as _, Pipeline, RedisConnectionInfo, RedisError,
};
use control_store::snapshot::{ServerAddress, TlsPlace};
use tokio::time::timeout;

use crate::{EngineError, ServerAccess, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that serves many may be busy with a script of somebody's for a few seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects as the administrator, to that logical database.
pub(super) async fn admin(
    server: &ServerAccess,
    number: u32,
) -> Result<MultiplexedConnection, EngineError> {
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(number));
    if let Some(login) = &server.login {
        settings = settings
            .set_username(&login.user)
            .set_password(login.password.expose());
    }
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let address = match &server.address {
        ServerAddress::Unix(socket) => ConnectionAddr::Unix(socket.clone()),
        ServerAddress::Tcp(address) => {
            ConnectionAddr::Tcp(address.ip().to_string(), address.port())
        }
        ServerAddress::Tls(place) => return encrypted(place, &settings, config).await,
    };
    let info = address
        .into_connection_info()
        .map_err(|it| error(&it))?
        .set_redis_settings(settings);
    Client::open(info)
        .map_err(|it| error(&it))?
        .get_multiplexed_async_connection_with_config(&config)
        .await
        // Whatever the server said, it did not let its administrator in.
        .map_err(|it| EngineError::Unavailable(it.to_string()))
}

async fn encrypted(
    place: &TlsPlace,
    settings: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, EngineError> {
    let connected = async {
        let stream = tls::connect(place).await.map_err(|it| it.to_string())?;
        MultiplexedConnection::new_with_config(settings, stream, config)
            .await
            .map_err(|it| it.to_string())
    };
    let (connection, driver) = timeout(CONNECT_TIMEOUT, connected)
        .await
        .unwrap_or_else(|_| Err("it does not answer".into()))
        .map_err(EngineError::Unavailable)?;
    // It ends by itself once nobody has the connection.
    tokio::spawn(driver);
    Ok(connection)
}

/// The server's refusal, or what kept us from asking.
pub(super) fn error(error: &RedisError) -> EngineError {
    match (error.kind(), error.code()) {
        (ErrorKind::Server(_) | ErrorKind::Extension, Some(code)) => EngineError::Statement {
            change: None,
            code: code.to_owned(),
            message: error.detail().unwrap_or(code).to_owned(),
        },
        _ => EngineError::Unavailable(error.to_string()),
    }
}

/// Runs a command whose answer does not matter unless it is an error.
pub(super) async fn run(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<(), EngineError> {
    ask::<::redis::Value>(connection, command).await.map(drop)
}

/// Runs a command.
pub(super) async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<T, EngineError> {
    command
        .query_async(connection)
        .await
        .map_err(|it| error(&it))
}

/// Runs commands, one after the other, with one round trip.
pub(super) async fn ask_all<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    commands: &Pipeline,
) -> Result<T, EngineError> {
    commands
        .query_async(connection)
        .await
        .map_err(|it| error(&it))
}
