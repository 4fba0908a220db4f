//! The accept loop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use protocol_proxy_header::{Parsed, parse};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::config::Network;

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// A client that has not sent its headers by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's headers.
const MAX_HEADERS: usize = 32 * 1024;

/// How connections are served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// How long requests may go on after shutdown was asked for.
    pub drain: Duration,
    /// Proxies whose connections begin with a PROXY header, which tells whose they are.
    pub proxy_headers_from: Vec<Network>,
}

/// Serves until `shutdown` ends, then lets requests that run finish.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    options: ServeOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADERS);
    builder.http2().timer(TokioTimer::new());
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let proxies = Arc::new(options.proxy_headers_from);
    tokio::pin!(shutdown);
    loop {
        let slot = Arc::clone(&slots).acquire_owned();
        let (stream, address, slot) = tokio::select! {
            () = &mut shutdown => break,
            accepted = async { (slot.await, listener.accept().await) } => match accepted {
                (Ok(slot), Ok((stream, address))) => (stream, address, slot),
                (_, Err(error)) => {
                    refused(&error).await;
                    continue;
                }
                (Err(_), _) => break,
            },
        };
        let (builder, router) = (Arc::clone(&builder), router.clone());
        let (proxies, watcher) = (Arc::clone(&proxies), graceful.watcher());
        tokio::spawn(async move {
            match client(stream, address, &proxies).await {
                Ok((stream, client)) => {
                    let served = watcher.watch(connection(&builder, stream, client, router));
                    if let Err(error) = served.await {
                        tracing::debug!(%client, error = %error, "connection ended");
                    }
                }
                Err(error) => tracing::debug!(%address, %error, "no connection"),
            }
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(options.drain, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were cut off at the end of the drain time");
    }
    Ok(())
}

/// Whose connection it is: the peer's, or if that is a proxy whom its header names.
async fn client(
    mut stream: TcpStream,
    peer: SocketAddr,
    proxies: &[Network],
) -> std::io::Result<(TcpStream, SocketAddr)> {
    if !proxies.iter().any(|it| it.contains(peer.ip())) {
        return Ok((stream, peer));
    }
    let source = tokio::time::timeout(HEADER_TIMEOUT, proxy_header(&mut stream)).await??;
    Ok((stream, source.unwrap_or(peer)))
}

/// Reads a PROXY header, and nothing of what follows it.
async fn proxy_header(stream: &mut TcpStream) -> std::io::Result<Option<SocketAddr>> {
    let mut bytes = Vec::new();
    loop {
        match parse(&bytes).map_err(std::io::Error::other)? {
            Parsed::Header { source, .. } => return Ok(source),
            Parsed::Need(more) => {
                let have = bytes.len();
                bytes.resize(have + more, 0);
                stream
                    .read_exact(bytes.get_mut(have..).unwrap_or_default())
                    .await?;
            }
        }
    }
}

fn connection(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
) -> impl hyper_util::server::graceful::GracefulConnection<
    Error = Box<dyn std::error::Error + Send + Sync>,
> + Send
+ 'static {
    // Small answers must not wait for more; where it cannot be set, they do.
    let _ = stream.set_nodelay(true);
    let service = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        request.map(axum::body::Body::new)
    });
    builder
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service))
        .into_owned()
}

/// Out of descriptors, most likely: a pause lets some come back instead of spinning.
async fn refused(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::routing::get;
    use tokio::io::AsyncWriteExt as _;

    /// What a connection that begins with these bytes is answered by a server that trusts such proxies.
    async fn ask(proxies: &[&str], bytes: &[u8]) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let whoami = async |info: ConnectInfo<SocketAddr>| info.0.to_string();
        let router = Router::new().route("/", get(whoami));
        let options = ServeOptions {
            drain: Duration::from_secs(1),
            proxy_headers_from: proxies.iter().map(|it| it.parse().unwrap()).collect(),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, router, options, async {
            // Sent or dropped: it is time.
            let _ = stopped.await;
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        // A connection that is refused may be reset.
        let _ = stream.read_to_string(&mut answer).await;
        drop(stop);
        served.await.unwrap().unwrap();
        answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_trusted_proxy_tells_whose_connection_it_is() {
        const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
        let v1 = [&b"PROXY TCP4 192.0.2.7 10.0.0.1 55555 80\r\n"[..], REQUEST].concat();
        let v2 = [
            &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\xd9\x03\0\x50"[..],
            REQUEST,
        ]
        .concat();
        for bytes in [&v1, &v2] {
            assert_eq!(ask(&["127.0.0.0/8"], bytes).await, "192.0.2.7:55555");
            let refused = ask(&["10.0.0.0/8"], bytes).await;
            assert!(
                !refused.contains("192.0.2.7"),
                "from a stranger it is no header: {refused}"
            );
        }
        assert_eq!(ask(&["127.0.0.1"], REQUEST).await, "", "it must be there");
        assert!(ask(&[], REQUEST).await.starts_with("127.0.0.1:"));
    }
}
