//! What happens around every handler: the request id, the address, its limit, the log line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use control_store::accounts::AccountId;
use control_store::guard::Verdict;
use control_store::ids::{KeyId, ProjectId};

use super::config::Network;
use super::state::AppState;
use crate::app::failure::Failure;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer id of a client's own is replaced.
const MAX_REQUEST_ID: usize = 128;

/// Filled in once it is known who calls.
#[derive(Clone, Default)]
pub(super) struct Who(Arc<OnceLock<(ProjectId, KeyId, AccountId)>>);

impl Who {
    pub(super) fn set(&self, project: &ProjectId, key: KeyId, account: AccountId) {
        // A request has one caller; a second extraction says the same.
        let _ = self.0.set((project.clone(), key, account));
    }

    pub(super) fn get(&self) -> Option<&(ProjectId, KeyId, AccountId)> {
        self.0.get()
    }
}

/// The address of the client, a trusted proxy's word taken into account.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// The request's id, as the answer and the log have it.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) HeaderValue);

pub(super) async fn around(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let peer = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |info| info.0.ip());
    let address = client_address(peer, request.headers(), &state.config.trusted_proxies);
    let who = Who::default();
    request.extensions_mut().insert(who.clone());
    request.extensions_mut().insert(ClientAddress(address));
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();

    let mut response = match admit(&state, address) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    };
    tracing::info!(
        request_id = id.to_str().unwrap_or_default(),
        %method,
        path,
        status = response.status().as_u16(),
        project = who.get().map(|it| it.0.as_str()),
        %address,
        elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        "request"
    );
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn admit(state: &AppState, address: IpAddr) -> Result<(), Failure> {
    match state.guard.request(SystemTime::now(), address) {
        Verdict::Pass => Ok(()),
        Verdict::Slow => Err(Failure::RateLimited {
            message: "rate limit exceeded: too many requests per second from this address".into(),
            retry_after: Duration::from_secs(1),
        }),
        Verdict::Banned(left) => Err(Failure::RateLimited {
            message: "too many requests: this address is banned for a while".into(),
            retry_after: left,
        }),
    }
}

/// The client's own id if it is short and plain, a new one otherwise.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |value: &HeaderValue| {
        (1..=MAX_REQUEST_ID).contains(&value.len())
            && value
                .as_bytes()
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
    };
    match headers.get(REQUEST_ID) {
        Some(value) if plain(value) => value.clone(),
        _ => new_request_id(),
    }
}

fn new_request_id() -> HeaderValue {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static START: OnceLock<u64> = OnceLock::new();
    let start = START.get_or_init(|| RandomState::new().hash_one("request"));
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::try_from(format!("req_{start:016x}{count:08x}"))
        .unwrap_or(HeaderValue::from_static("req_0"))
}

/// The last address of `X-Forwarded-For` that is no trusted proxy, if the peer is one.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return peer;
    }
    let hops: Vec<IpAddr> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map_while(|hop| hop.trim().parse().ok())
        .collect();
    hops.iter()
        .rev()
        .copied()
        .find(|hop| !is_trusted(*hop))
        .or(hops.first().copied())
        .unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trusted_proxys_word_is_taken_and_nobody_elses() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (peer, forwarded, expected) in [
            ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
            ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
            (
                "10.0.0.1",
                "198.51.100.1, 203.0.113.9, 10.0.0.2",
                "203.0.113.9",
            ),
            ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
            ("10.0.0.1", "nonsense", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            let found = client_address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), expected, "{peer} {forwarded}");
        }
    }

    #[test]
    fn request_ids_are_kept_if_plain() {
        let mut headers = HeaderMap::new();
        assert!(request_id(&headers).to_str().unwrap().starts_with("req_"));
        headers.insert(REQUEST_ID, "my-id.1".parse().unwrap());
        assert_eq!(request_id(&headers), "my-id.1");
        headers.insert(REQUEST_ID, "a b".parse().unwrap());
        assert_ne!(request_id(&headers), "a b");
    }
}
