//! TLS, below the session: bytes in, bytes out, no socket.
//!
//! A [`TlsStore`] holds the certificate and hands out what a handshake with a client needs; a [`TlsServer`] is the state of one
//! client's connection. The worker feeds it what the reactor received and sends what it gives. A [`TlsClient`] is the state of one
//! to a database server, see [`Uplinks`](super::Uplinks).

mod identity;
mod peer;
#[cfg(test)]
mod tests;

pub use identity::{TlsConfigError, TlsIdentity, TlsStore};
pub use peer::{TlsClient, TlsError, TlsServer};
