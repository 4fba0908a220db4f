//! What clients cost that have logged in and then stay silent.

pub mod postgres;
pub mod redis;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::contender::{Contender, Endpoint};
use crate::procfs;
use crate::results::IdleResult;

/// Logs `clients` in, holds them, and measures how the proxy's resident memory has grown.
pub fn measure(
    contender: &Contender,
    clients: u32,
    tls: bool,
    login: &mut dyn Login,
) -> IdleResult {
    IdleResult {
        kind: contender.kind,
        tls,
        clients,
        bytes_per_client: growth(contender, clients, tls, login)
            .map_err(|error| format!("{error:#}")),
    }
}

fn growth(contender: &Contender, clients: u32, tls: bool, login: &mut dyn Login) -> Result<f64> {
    let process = contender.process.as_ref().context("no proxy to measure")?;
    let endpoint = contender.endpoint(tls);
    let mut opener = Opener { login, tls: None };
    // What the first clients make the proxy allocate once is not theirs.
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(opener.open(&endpoint)?);
    }
    std::thread::sleep(Duration::from_millis(500));
    let before = procfs::resident_bytes(process.pid())?;
    for at in 0..clients {
        let client = opener.open(&endpoint);
        held.push(client.with_context(|| format!("client {at}"))?);
    }
    std::thread::sleep(Duration::from_secs(2));
    let after = procfs::resident_bytes(process.pid())?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let grown = after.saturating_sub(before) as f64;
    Ok(grown / f64::from(clients))
}

/// A client's connection, which ends when it is dropped.
pub trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// How a client of one protocol begins. It may keep what it needs to do only once.
pub trait Login {
    /// Asks for TLS where the protocol has a way to; after this both sides begin the handshake.
    ///
    /// # Errors
    /// When the proxy offers none.
    fn ask_for_tls(&self, _: &mut TcpStream) -> Result<()> {
        Ok(())
    }

    /// Logs in.
    ///
    /// # Errors
    /// When the proxy refuses.
    fn log_in(&mut self, stream: &mut dyn Connection, endpoint: &Endpoint) -> Result<()>;
}

/// Opens connections, with one TLS configuration for all.
struct Opener<'a> {
    login: &'a mut dyn Login,
    tls: Option<Arc<ClientConfig>>,
}

impl Opener<'_> {
    fn open(&mut self, endpoint: &Endpoint) -> Result<Box<dyn Connection>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, endpoint.port))?;
        stream.set_nodelay(true)?;
        let mut stream: Box<dyn Connection> = if endpoint.tls {
            self.login.ask_for_tls(&mut stream)?;
            let config = Arc::clone(self.tls.get_or_insert_with(client_config));
            let session = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
            Box::new(StreamOwned::new(session, stream))
        } else {
            Box::new(stream)
        };
        self.login.log_in(&mut *stream, endpoint)?;
        Ok(stream)
    }
}

fn client_config() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate))
                .with_no_client_auth()
        });
    match config {
        Ok(config) => Arc::new(config),
        Err(error) => unreachable!("the library's own defaults are consistent: {error}"),
    }
}

/// The lab's certificate signs itself, and nobody else listens there.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}
