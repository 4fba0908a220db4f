//! What clients cost that have logged in and then stay silent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol_postgres::frontend::write;
use protocol_postgres::scram::{
    Client, ClientBinding, Credentials, Nonce, SCRAM_SHA_256, ScramSecret,
};
use protocol_postgres::startup;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::contender::Contender;
use crate::pgbench::Endpoint;
use crate::procfs;
use crate::results::IdleResult;

/// Logs `clients` in, holds them, and measures how the proxy's resident memory has grown.
pub fn measure(contender: &Contender, clients: u32, tls: bool) -> IdleResult {
    IdleResult {
        kind: contender.kind,
        tls,
        clients,
        bytes_per_client: growth(contender, clients, tls).map_err(|error| format!("{error:#}")),
    }
}

fn growth(contender: &Contender, clients: u32, tls: bool) -> Result<f64> {
    let process = contender.process.as_ref().context("no proxy to measure")?;
    let endpoint = contender.endpoint(tls);
    let mut logins = Logins::default();
    // What the first clients make the proxy allocate once is not theirs.
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(logins.open(&endpoint)?);
    }
    std::thread::sleep(Duration::from_millis(500));
    let before = procfs::resident_bytes(process.pid())?;
    for at in 0..clients {
        let client = logins.open(&endpoint);
        held.push(client.with_context(|| format!("client {at}"))?);
    }
    std::thread::sleep(Duration::from_secs(2));
    let after = procfs::resident_bytes(process.pid())?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let grown = after.saturating_sub(before) as f64;
    Ok(grown / f64::from(clients))
}

/// A client's connection, which ends when it is dropped.
trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// Logs in, deriving the password's keys once.
#[derive(Default)]
struct Logins {
    secret: Option<ScramSecret>,
    tls: Option<Arc<ClientConfig>>,
}

impl Logins {
    fn open(&mut self, endpoint: &Endpoint) -> Result<Box<dyn Connection>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, endpoint.port))?;
        stream.set_nodelay(true)?;
        let mut stream: Box<dyn Connection> = if endpoint.tls {
            let mut request = Vec::new();
            startup::write::ssl_request(&mut request);
            stream.write_all(&request)?;
            let mut answer = [0];
            stream.read_exact(&mut answer)?;
            if answer != [b'S'] {
                bail!("no TLS is offered");
            }
            let config = Arc::clone(self.tls.get_or_insert_with(client_config));
            let session = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
            Box::new(StreamOwned::new(session, stream))
        } else {
            Box::new(stream)
        };
        self.log_in(&mut *stream, endpoint)?;
        Ok(stream)
    }

    fn log_in(&mut self, stream: &mut dyn Connection, endpoint: &Endpoint) -> Result<()> {
        let mut out = Vec::new();
        let parameters = [
            (&b"user"[..], endpoint.user.as_bytes()),
            (b"database", endpoint.database.as_bytes()),
        ];
        startup::write::startup_message(&mut out, protocol_postgres::PROTOCOL_3_0, parameters)?;
        stream.write_all(&out)?;
        read_message(stream)?;
        let (client, first) = Client::start("", ClientBinding::Unsupported, Nonce::random()?);
        out.clear();
        write::sasl_initial_response(&mut out, SCRAM_SHA_256, &first)?;
        stream.write_all(&out)?;
        let (_, body) = read_message(stream)?;
        let challenge = body.get(4..).context("a short challenge")?;
        let secret = self.secret_for(challenge, &endpoint.password)?;
        let credentials = Credentials::Keys {
            salt: &secret.salt,
            iterations: secret.iterations,
            client_key: &secret.client_key,
            server_key: &secret.server_key,
        };
        let (_, last) = client.respond(challenge, credentials)?;
        out.clear();
        write::sasl_response(&mut out, &last)?;
        stream.write_all(&out)?;
        loop {
            match read_message(stream)? {
                (b'Z', _) => return Ok(()),
                (b'E', body) => bail!("{}", String::from_utf8_lossy(&body).replace('\0', " ")),
                _ => {}
            }
        }
    }

    fn secret_for(&mut self, challenge: &[u8], password: &str) -> Result<&ScramSecret> {
        let text = std::str::from_utf8(challenge)?;
        let field = |name: &str| text.split(',').find_map(|it| it.strip_prefix(name));
        let salt = field("s=").context("no salt")?;
        let salt = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, salt)?;
        let iterations: NonZeroU32 = field("i=").context("no iterations")?.parse()?;
        let known = self.secret.as_ref().is_some_and(|it| it.salt == salt);
        if !known {
            self.secret = Some(ScramSecret::derive(password.as_bytes(), &salt, iterations));
        }
        self.secret.as_ref().context("no secret")
    }
}

fn read_message(stream: &mut dyn Connection) -> Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [tag, len @ ..] = head;
    let len = (u32::from_be_bytes(len) as usize).saturating_sub(4);
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok((tag, body))
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
