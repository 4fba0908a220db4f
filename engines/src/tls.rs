//! Encrypted connections of the control plane to database servers.

use std::io;
use std::sync::Arc;

use control_store::snapshot::TlsPlace;
use control_store::trust::client_config;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// PostgreSQL: asks for TLS (length 8, code 80877103).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Connects, and does the handshake.
///
/// # Errors
/// The server cannot be reached, does not speak TLS, or is not who it should be.
///
/// # Cancel safety
/// Safe to drop: the connection ends.
pub(crate) async fn connect(place: &TlsPlace) -> io::Result<TlsStream<TcpStream>> {
    let config = client_config(place.authority.as_deref())?;
    let name = ServerName::try_from(place.host.to_string()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(place.address).await?;
    stream.set_nodelay(true)?;
    if place.asks_first {
        stream.write_all(&SSL_REQUEST).await?;
        if stream.read_u8().await? != b'S' {
            return Err(io::Error::other("the server does not speak TLS"));
        }
    }
    TlsConnector::from(Arc::clone(&config))
        .connect(name, stream)
        .await
}
