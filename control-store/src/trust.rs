//! Which database servers are believed to be who they say.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, aws_lc_rs as provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What handshakes with a database server need: it must show a certificate of the authority in that file for its name, or just any
/// certificate.
///
/// # Errors
/// The file cannot be read, or holds no certificate.
pub fn client_config(authority: Option<&Path>) -> io::Result<Arc<ClientConfig>> {
    let crypto = Arc::new(provider::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&crypto))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let Some(path) = authority else {
        let anybody = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(crypto)));
        return Ok(Arc::new(anybody.with_no_client_auth()));
    };
    let mut roots = RootCertStore::empty();
    let told = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("{} is no use: {error}", path.display()))
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|it| told(&it))? {
        let certificate = certificate.map_err(|it| told(&it))?;
        roots.add(certificate).map_err(|it| told(&it))?;
    }
    if roots.is_empty() {
        return Err(told(&"it holds no certificate in PEM format"));
    }
    let builder = builder.with_root_certificates(roots);
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// Takes every certificate: what is sent cannot be read on the way, but it may go to anybody.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
