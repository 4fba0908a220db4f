//! The certificate that clients see, and its replacement while the process runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::AlgorithmIdentifier;

/// The protocol name that PostgreSQL 17 clients offer when they speak TLS from the first byte.
const ALPN_POSTGRESQL: &[u8] = b"postgresql";
/// One is enough for a driver to reconnect with; each costs a record in every handshake.
const TICKETS_A_HANDSHAKE: usize = 1;

/// Why a certificate cannot be used. Each is one sentence that names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("cannot read the TLS {what} in {}: {error}", path.display())]
    Unreadable {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// A file holds no PEM block of the right kind.
    #[error("{} holds no {what} in PEM format", path.display())]
    Missing {
        /// `certificate` or `private key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A PEM file is damaged.
    #[error("{} is not valid PEM: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it breaks off.
        reason: String,
    },
    /// The first certificate is not a certificate.
    #[error("the first certificate in {} is not a valid X.509 certificate", path.display())]
    NotACertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key is of no kind that can sign handshakes, or it is not the certificate's.
    #[error("the key in {} cannot be used with the certificate in {}: {reason}", key.display(), certificate.display())]
    UnusableKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The library refused.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// One certificate with its key, as handshakes use it.
#[derive(Debug)]
pub struct TlsIdentity {
    /// For [`TlsServer::new`](super::TlsServer::new).
    pub server_config: Arc<ServerConfig>,
    /// The channel binding `tls-server-end-point` (RFC 5929 section 4.1). `None`: the certificate's signature names no
    /// hash (Ed25519), so that none is defined and SCRAM must not offer -PLUS.
    pub end_point_hash: Option<Vec<u8>>,
}

/// The certificate of this process. Handshakes use the one that is current when they begin.
pub struct TlsStore {
    certificate: PathBuf,
    key: PathBuf,
    /// Shared by all workers and kept across reloads, so that sessions resume on any of them.
    ticketer: Arc<dyn ProducesTickets>,
    crypto: Arc<CryptoProvider>,
    current: ArcSwap<TlsIdentity>,
}

impl TlsStore {
    /// Reads a certificate chain (leaf first) and its private key from PEM files.
    ///
    /// # Errors
    /// When a file cannot be read or the two do not make a usable pair.
    pub fn load(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsConfigError> {
        let (certificate, key) = (certificate.into(), key.into());
        let crypto = Arc::new(provider::default_provider());
        let ticketer = provider::Ticketer::new()?;
        let identity = read(&certificate, &key, &crypto, &ticketer)?;
        Ok(Self {
            certificate,
            key,
            ticketer,
            crypto,
            current: ArcSwap::from_pointee(identity),
        })
    }

    /// Reads the same files again. Connections that stand keep what they have.
    ///
    /// # Errors
    /// As [`TlsStore::load`]; the certificate of before then stays.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        let identity = read(&self.certificate, &self.key, &self.crypto, &self.ticketer)?;
        self.current.store(Arc::new(identity));
        Ok(())
    }

    /// What a handshake that begins now uses.
    pub fn current(&self) -> Arc<TlsIdentity> {
        self.current.load_full()
    }
}

impl std::fmt::Debug for TlsStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStore")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

fn read(
    certificate: &Path,
    key: &Path,
    crypto: &Arc<CryptoProvider>,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<TlsIdentity, TlsConfigError> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error("certificate", certificate, error))?;
    let Some(leaf) = chain.first() else {
        return Err(pem_error(
            "certificate",
            certificate,
            pem::Error::NoItemsFound,
        ));
    };
    let end_point_hash = end_point_hash(leaf).ok_or_else(|| TlsConfigError::NotACertificate {
        path: certificate.into(),
    })?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| pem_error("private key", key, error))?;
    let pair = CertifiedKey::from_der(chain, private, crypto).map_err(|error| {
        TlsConfigError::UnusableKey {
            certificate: certificate.into(),
            key: key.into(),
            reason: error.to_string(),
        }
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(crypto))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.ticketer = Arc::clone(ticketer);
    config.send_tls13_tickets = TICKETS_A_HANDSHAKE;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
    Ok(TlsIdentity {
        server_config: Arc::new(config),
        end_point_hash,
    })
}

fn pem_error(what: &'static str, path: &Path, error: pem::Error) -> TlsConfigError {
    let path = path.into();
    match error {
        pem::Error::Io(error) => TlsConfigError::Unreadable { what, path, error },
        pem::Error::NoItemsFound => TlsConfigError::Missing { what, path },
        error => TlsConfigError::Damaged {
            path,
            reason: error.to_string(),
        },
    }
}

/// The hash of a certificate by which SCRAM binds to its TLS channel; `Some(None)`: none is defined for it; `None`: it
/// is no certificate.
pub(super) fn end_point_hash(der: &[u8]) -> Option<Option<Vec<u8>>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let hash = signature_hash(&certificate.signature_algorithm);
    Some(hash.map(|hash| digest::digest(hash, der).as_ref().to_vec()))
}

/// The hash within a signature algorithm. RFC 5929 puts SHA-256 in the place of MD5 and SHA-1.
fn signature_hash(algorithm: &AlgorithmIdentifier<'_>) -> Option<&'static digest::Algorithm> {
    use x509_parser::oid_registry as oid;

    if let Ok(SignatureAlgorithm::RSASSA_PSS(pss)) = SignatureAlgorithm::try_from(algorithm) {
        let hash = pss.hash_algorithm_oid();
        return if *hash == oid::OID_NIST_HASH_SHA256 || *hash == oid::OID_HASH_SHA1 {
            Some(&digest::SHA256)
        } else if *hash == oid::OID_NIST_HASH_SHA384 {
            Some(&digest::SHA384)
        } else if *hash == oid::OID_NIST_HASH_SHA512 {
            Some(&digest::SHA512)
        } else {
            None
        };
    }
    let known = [
        (oid::OID_PKCS1_MD5WITHRSAENC, &digest::SHA256),
        (oid::OID_PKCS1_SHA1WITHRSA, &digest::SHA256),
        (oid::OID_SHA1_WITH_RSA, &digest::SHA256),
        (oid::OID_PKCS1_SHA224WITHRSA, &digest::SHA224),
        (oid::OID_PKCS1_SHA256WITHRSA, &digest::SHA256),
        (oid::OID_PKCS1_SHA384WITHRSA, &digest::SHA384),
        (oid::OID_PKCS1_SHA512WITHRSA, &digest::SHA512),
        (oid::OID_SIG_ECDSA_WITH_SHA224, &digest::SHA224),
        (oid::OID_SIG_ECDSA_WITH_SHA256, &digest::SHA256),
        (oid::OID_SIG_ECDSA_WITH_SHA384, &digest::SHA384),
        (oid::OID_SIG_ECDSA_WITH_SHA512, &digest::SHA512),
    ];
    known
        .into_iter()
        .find_map(|(oid, hash)| (algorithm.algorithm == oid).then_some(hash))
}
