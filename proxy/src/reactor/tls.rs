//! TLS for client connections, below the session: bytes in, bytes out, no socket.
//!
//! A [`TlsStore`] holds the certificate and hands out what a handshake needs; a [`TlsServer`] is the state of one
//! connection. The worker feeds it what the reactor received and sends what it gives.

mod identity;
mod server;
#[cfg(test)]
mod tests;

pub use identity::{TlsConfigError, TlsIdentity, TlsStore};
pub use server::{TlsError, TlsServer};
