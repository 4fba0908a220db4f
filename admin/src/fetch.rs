//! Fetches a document from a URL that a caller names.
//!
//! The host is looked up once and the connection goes to that address; each redirection is judged anew.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::api::Network;
use crate::app::failure::{Failure, Outcome};
use crate::egress;

const REDIRECTIONS: usize = 5;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// For all of it.
const TIME_LIMIT: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("tenantsdb/", env!("CARGO_PKG_VERSION"));

/// The body behind a URL, at most `limit` bytes.
///
/// # Errors
/// The URL is none, its address is not allowed, or its server does not answer well. `field` is the one to blame.
///
/// # Cancel safety
/// Safe to drop: the connection ends.
pub async fn get(field: &str, text: &str, limit: usize, allowed: &[Network]) -> Outcome<Bytes> {
    let url = Url::parse(text)
        .map_err(|error| refused(field, &format!("'{text}' is not a URL: {error}")))?;
    let fetched = tokio::time::timeout(TIME_LIMIT, follow(field, url, limit, allowed));
    fetched
        .await
        .map_err(|_| refused(field, "the server took too long"))?
}

fn refused(field: &str, why: &str) -> Failure {
    Failure::BadRequest(format!("Field '{field}': {why}"))
}

async fn follow(field: &str, mut url: Url, limit: usize, allowed: &[Network]) -> Outcome<Bytes> {
    for _ in 0..=REDIRECTIONS {
        let response = ask(field, &url, allowed).await?;
        if !response.status().is_redirection() {
            return body(field, response, limit).await;
        }
        let target = response.headers().get(LOCATION);
        url = target
            .and_then(|it| it.to_str().ok())
            .and_then(|it| url.join(it).ok())
            .ok_or_else(|| refused(field, "the server redirects to nowhere"))?;
    }
    Err(refused(field, "the server redirects too often"))
}

async fn ask(field: &str, url: &Url, allowed: &[Network]) -> Outcome<Response<Incoming>> {
    let (tls, usual_port) = match url.scheme() {
        "https" => (true, 443),
        "http" => (false, 80),
        other => {
            return Err(refused(
                field,
                &format!("a URL must begin with https:// or http://, not {other}:"),
            ));
        }
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(
            field,
            "a URL must not hold a user name or a password",
        ));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(refused(field, "the URL names no host")),
    };
    let port = url.port().unwrap_or(usual_port);
    let address = egress::resolve(field, &host, port, allowed).await?;
    let stream = connect(field, address).await?;
    let request = request(url)?;
    if !tls {
        return exchange(field, stream, request).await;
    }
    let name = ServerName::try_from(host)
        .map_err(|_| refused(field, "the URL's host cannot have a certificate"))?;
    let stream = connector()?
        .connect(name, stream)
        .await
        .map_err(|error| refused(field, &format!("no TLS with the server: {error}")))?;
    exchange(field, stream, request).await
}

async fn connect(field: &str, address: SocketAddr) -> Outcome<TcpStream> {
    let connecting = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address));
    match connecting.await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(refused(
            field,
            &format!("the server cannot be reached: {error}"),
        )),
        Err(_) => Err(refused(field, "the server cannot be reached in time")),
    }
}

/// Trusts whom this machine trusts.
fn connector() -> Outcome<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Failure::bad(
            "This installation trusts no certificate authority: https cannot be used (install ca-certificates)",
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Internal(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn request(url: &Url) -> Outcome<Request<Body>> {
    let host = url.host_str().unwrap_or_default();
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, AGENT)
        .body(Body::empty())
        .map_err(|error| Failure::Internal(error.to_string()))
}

async fn exchange<S>(field: &str, stream: S, request: Request<Body>) -> Outcome<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| refused(field, &format!("no answer by HTTP: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with the answer's body, or when that is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a fetch ended early");
        }
    });
    sender.send_request(request).await.map_err(failed)
}

async fn body(field: &str, response: Response<Incoming>, limit: usize) -> Outcome<Bytes> {
    if response.status() != StatusCode::OK {
        return Err(refused(
            field,
            &format!("the server answers {}", response.status()),
        ));
    }
    axum::body::to_bytes(Body::new(response.into_body()), limit)
        .await
        .map_err(|_| {
            refused(
                field,
                &format!("the document breaks off, or is larger than {limit} bytes"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get as route;

    /// A server on loopback that sends its visitors around. Ends with the test's runtime.
    async fn server() -> SocketAddr {
        let router = Router::new()
            .route("/schema", route(async || "{\"tables\":[]}"))
            .route("/moved", route(async || Redirect::temporary("/schema?x=1")))
            .route("/round", route(async || Redirect::temporary("/round")))
            .route(
                "/inside",
                route(async || Redirect::temporary("http://169.254.169.254/latest/meta-data/")),
            )
            .route(
                "/file",
                route(async || Redirect::temporary("file:///etc/passwd")),
            )
            .route("/large", route(async || "x".repeat(100)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn documents_are_fetched_from_where_it_is_allowed_alone() {
        let address = server().await;
        let loopback = ["127.0.0.0/8".parse().unwrap()];
        let url = |path: &str| format!("http://{address}{path}");
        for (url, allowed, expected) in [
            (url("/schema"), &loopback[..], Ok("{\"tables\":[]}")),
            (url("/moved"), &loopback[..], Ok("{\"tables\":[]}")),
            (url("/schema"), &[][..], Err("not on the public Internet")),
            (
                url("/inside"),
                &loopback[..],
                Err("not on the public Internet"),
            ),
            (url("/file"), &loopback[..], Err("must begin with https://")),
            (url("/round"), &loopback[..], Err("redirects too often")),
            (url("/large"), &loopback[..], Err("larger than 64 bytes")),
            (url("/none"), &loopback[..], Err("the server answers 404")),
            (
                format!("http://a:b@{address}/schema"),
                &loopback[..],
                Err("must not hold a user name"),
            ),
            (format!("https://{address}/"), &loopback[..], Err("no TLS")),
            (
                "http://127.0.0.1:1/".to_owned(),
                &loopback[..],
                Err("cannot be reached"),
            ),
            ("nonsense".to_owned(), &loopback[..], Err("is not a URL")),
        ] {
            match (get("url", &url, 64, allowed).await, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{url}"),
                (Err(Failure::BadRequest(why)), Err(expected)) => {
                    assert!(
                        why.starts_with("Field 'url': ") && why.contains(expected),
                        "{url}: {why}"
                    );
                }
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }
}
