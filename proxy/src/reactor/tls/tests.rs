//! Our server against the library's own client, in memory.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::KeyPair;
use rustls::client::ClientConfig;
use rustls::{ClientConnection, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::identity::end_point_hash;
use super::*;
use crate::metrics::Handshake;
use crate::reactor::Buf;

mod hostile;
mod openssl;

const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;

/// A certificate on disk and a store that has read it.
struct Site {
    folder: tempfile::TempDir,
    store: TlsStore,
}

impl Site {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_pair(folder.path(), algorithm);
        let store = TlsStore::load(
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        )
        .expect("a good pair");
        Self { folder, store }
    }

    fn ecdsa() -> Self {
        Self::new(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("writes");
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.folder.path().join("cert.pem")).expect("is there")
    }

    /// A client that trusts this site's certificate of now. It keeps tickets.
    fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()).expect("a certificate");
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a known version")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    fn server(&self) -> TlsServer {
        TlsServer::new(Arc::clone(&self.store.current().server_config)).expect("begins")
    }
}

fn write_pair(folder: &std::path::Path, algorithm: &'static rcgen::SignatureAlgorithm) {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["localhost".into()])
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    std::fs::write(folder.join("cert.pem"), certificate.pem()).expect("writes");
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).expect("writes");
}

/// A client and our server, wired to each other.
struct Wire {
    client: ClientConnection,
    server: TlsServer,
    /// What the server understood.
    heard: Vec<u8>,
    /// Whether received bytes are seen by someone else too, so that they cannot be decrypted where they are.
    shared: bool,
}

impl Wire {
    fn new(site: &Site, client: ClientConfig) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        Self {
            client: ClientConnection::new(Arc::new(client), name).expect("begins"),
            server: site.server(),
            heard: Vec::new(),
            shared: false,
        }
    }

    /// What the client wants to send now.
    fn flight(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        while self.client.wants_write() {
            self.client
                .write_tls(&mut flight)
                .expect("a vector takes all");
        }
        flight
    }

    /// Hands `bytes` to the server; answers what it wants to send.
    fn feed(&mut self, bytes: &[u8]) -> (Result<(), TlsError>, Vec<u8>) {
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let buf = Buf::from_vec(bytes.to_vec());
        let _other = self.shared.then(|| buf.clone());
        let result = self.server.receive(buf, &mut plain, &mut out);
        plain
            .iter()
            .for_each(|buf| self.heard.extend_from_slice(buf));
        (result, out)
    }

    /// Hands `bytes` to the client; answers what it understood.
    fn answer(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut heard = Vec::new();
        while !bytes.is_empty() {
            self.client
                .read_tls(&mut bytes)
                .expect("a slice can be read");
            self.client.process_new_packets()?;
            let _ = self.client.reader().read_to_end(&mut heard); // WouldBlock at the end.
        }
        Ok(heard)
    }

    /// To and fro until both are silent.
    fn settle(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        loop {
            let flight = self.flight();
            if flight.is_empty() {
                return heard;
            }
            let (result, out) = self.feed(&flight);
            result.expect("the server is content");
            heard.extend(self.answer(&out).expect("the client is content"));
        }
    }

    /// The client says `bytes`.
    fn say(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).expect("takes it");
        self.settle();
    }

    /// The server says `pieces`; answers the ciphertext and what the client understood.
    fn reply(&mut self, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let mut out = Vec::new();
        self.server
            .send_pieces(pieces.iter().copied(), &mut out)
            .expect("can be sent");
        let heard = self.answer(&out).expect("the client is content");
        (out, heard)
    }
}

/// How many records `bytes` are.
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, high, low, rest @ ..] = bytes {
        bytes = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
        count += 1;
    }
    assert!(bytes.is_empty(), "half a record");
    count
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 31 % 251).try_into().expect("fits"))
        .collect()
}

#[test]
fn both_versions_shake_hands_and_resume_on_ecdsa_and_rsa() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let site = Site::new(algorithm);
        for (version, full, resumed) in [
            (TLS12, Handshake::Tls12Full, Handshake::Tls12Resumed),
            (TLS13, Handshake::Tls13Full, Handshake::Tls13Resumed),
        ] {
            let client = site.client(version);
            for expected in [full, resumed, resumed] {
                let mut wire = Wire::new(&site, client.clone());
                assert!(wire.server.is_handshaking());
                assert_eq!(wire.server.handshake_outcome(), None);
                wire.settle();
                assert!(!wire.server.is_handshaking());
                assert_eq!(wire.server.handshake_outcome(), Some(expected));
                wire.say(b"question");
                assert_eq!(wire.heard, b"question");
                assert_eq!(wire.reply(&[b"answer"]).1, b"answer");
            }
        }
    }
}

#[test]
fn many_mebibytes_go_both_ways_in_any_pieces() {
    let site = Site::ecdsa();
    for version in [TLS12, TLS13] {
        for (shared, chunk) in [(false, 16 << 10), (false, 4001), (true, 70_000)] {
            let mut wire = Wire::new(&site, site.client(version));
            wire.shared = shared;
            wire.client.set_buffer_limit(None);
            wire.settle();
            let said = pattern(3 << 20);
            wire.client.writer().write_all(&said).expect("takes it");
            let flight = wire.flight();
            for piece in flight.chunks(chunk) {
                wire.feed(piece).0.expect("the server is content");
            }
            assert!(wire.heard == said, "what the server understood differs");
            let mut heard = Vec::new();
            for piece in said.chunks(chunk) {
                heard.extend(wire.reply(&[piece]).1);
            }
            assert!(heard == said, "what the client understood differs");
        }
    }
}

#[test]
fn pieces_share_records() {
    let site = Site::ecdsa();
    let big = pattern(40_000);
    let cases: &[(&[&[u8]], usize)] = &[
        (&[], 0),
        (&[b""], 0),
        (&[b"T", b"D", b"C", b"Z"], 1),
        (&[b"", b"x", b""], 1),
        (&[&big[..16_384]], 1),
        (&[&big[..16_383], b"x"], 1),
        (&[&big[..16_384], b"x"], 2),
        (&[&big[..16_000], &big[16_000..17_000]], 2),
        (&[b"x", &big[..16_384]], 2),
        (&[&big, &big], 5),
    ];
    for version in [TLS12, TLS13] {
        for (pieces, expected) in cases {
            let mut wire = Wire::new(&site, site.client(version));
            wire.settle();
            let (out, heard) = wire.reply(pieces);
            assert!(heard == pieces.concat(), "the bytes differ");
            assert_eq!(records(&out), *expected, "of {} pieces", pieces.len());
        }
    }
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_heard() {
    let site = Site::ecdsa();
    let mut wire = Wire::new(&site, site.client(TLS13));
    wire.client
        .writer()
        .write_all(b"early bird")
        .expect("takes it");
    wire.settle();
    assert_eq!(wire.heard, b"early bird");
}

#[test]
fn closing_is_told_both_ways_and_once() {
    let site = Site::ecdsa();
    for version in [TLS12, TLS13] {
        let mut wire = Wire::new(&site, site.client(version));
        wire.settle();
        wire.client
            .writer()
            .write_all(b"last words")
            .expect("takes it");
        wire.client.send_close_notify();
        wire.settle();
        assert_eq!(wire.heard, b"last words");
        assert!(wire.server.peer_closed());
        assert_eq!(wire.reply(&[b"the answer"]).1, b"the answer");
        let mut out = Vec::new();
        wire.server.close_notify(&mut out);
        assert_eq!(records(&out), 1);
        wire.answer(&out).expect("the client is content");
        assert!(
            wire.client
                .process_new_packets()
                .expect("well")
                .peer_has_closed()
        );
        out.clear();
        wire.server.close_notify(&mut out);
        assert!(out.is_empty());
        assert!(matches!(
            wire.server.send(b"more", &mut out),
            Err(TlsError::Closed)
        ));
        assert!(
            wire.feed(b"anything").0.is_ok(),
            "ignored after the peer's end"
        );
        assert_eq!(wire.heard, b"last words");
    }
}

#[test]
fn nothing_can_be_sent_before_the_handshake_is_over() {
    let site = Site::ecdsa();
    let mut wire = Wire::new(&site, site.client(TLS13));
    let mut out = Vec::new();
    assert!(matches!(
        wire.server.send(b"hasty", &mut out),
        Err(TlsError::HandshakeNotComplete)
    ));
    assert!(out.is_empty());
    wire.settle();
    assert_eq!(wire.reply(&[b"now"]).1, b"now");
}

#[test]
fn key_updates_are_answered() {
    let site = Site::ecdsa();
    let mut wire = Wire::new(&site, site.client(TLS13));
    wire.settle();
    for round in 0..5 {
        wire.client.refresh_traffic_keys().expect("allowed");
        wire.say(&[b'q', round]);
        assert_eq!(wire.reply(&[&[b'a', round]]).1, [b'a', round]);
    }
    assert_eq!(wire.heard.len(), 10);
}

#[test]
fn alpn_is_taken_if_offered_and_refused_if_foreign() {
    let site = Site::ecdsa();
    for (offered, expected) in [
        (&[][..], Some(None)),
        (&["postgresql"][..], Some(Some("postgresql"))),
        (&["h2", "postgresql"][..], Some(Some("postgresql"))),
        (&["h2", "http/1.1"][..], None),
    ] {
        for version in [TLS12, TLS13] {
            let mut client = site.client(version);
            client.alpn_protocols = offered
                .iter()
                .map(|name| name.as_bytes().to_vec())
                .collect();
            let mut wire = Wire::new(&site, client);
            match expected {
                Some(protocol) => {
                    wire.settle();
                    assert_eq!(wire.server.alpn_protocol(), protocol.map(str::as_bytes));
                }
                None => {
                    let flight = wire.flight();
                    let (result, out) = wire.feed(&flight);
                    result.expect_err("a foreign protocol");
                    assert_eq!(wire.server.handshake_outcome(), Some(Handshake::Failed));
                    let told = wire.answer(&out).expect_err("an alert came");
                    assert!(
                        format!("{told:?}").contains("NoApplicationProtocol"),
                        "{told:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn reloading_changes_new_connections_only_and_keeps_sessions() {
    let site = Site::ecdsa();
    let client = site.client(TLS13);
    let mut old = Wire::new(&site, client.clone());
    let mut halfway = Wire::new(&site, client.clone());
    old.settle();
    let before = site.store.current();
    write_pair(site.folder.path(), &rcgen::PKCS_RSA_SHA256);
    site.store.reload().expect("a good pair");
    assert_ne!(before.end_point_hash, site.store.current().end_point_hash);
    old.say(b"still here");
    assert_eq!(old.heard, b"still here");
    halfway.settle();
    assert!(!halfway.server.is_handshaking());
    let mut resumed = Wire::new(&site, client);
    resumed.settle();
    assert_eq!(
        resumed.server.handshake_outcome(),
        Some(Handshake::Tls13Resumed)
    );
    let mut new = Wire::new(&site, site.client(TLS13));
    new.settle();
    assert_eq!(new.server.handshake_outcome(), Some(Handshake::Tls13Full));
    assert_eq!(
        new.client.peer_certificates(),
        Some(&[site.certificate()][..])
    );
}

#[test]
fn bad_files_are_named_and_change_nothing() {
    let site = Site::ecdsa();
    let before = site.store.current();
    let other = KeyPair::generate().expect("a key").serialize_pem();
    let certificate = std::fs::read_to_string(site.folder.path().join("cert.pem")).expect("reads");
    let key = std::fs::read_to_string(site.folder.path().join("key.pem")).expect("reads");
    for (name, text, expected) in [
        (
            "cert.pem",
            "",
            "cert.pem holds no certificate in PEM format",
        ),
        (
            "cert.pem",
            key.as_str(),
            "cert.pem holds no certificate in PEM format",
        ),
        (
            "cert.pem",
            "-----BEGIN CERTIFICATE-----\nMIIB\n",
            "cert.pem is not valid PEM",
        ),
        (
            "cert.pem",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "cert.pem is not a valid X.509 certificate",
        ),
        ("key.pem", "", "key.pem holds no private key in PEM format"),
        (
            "key.pem",
            certificate.as_str(),
            "key.pem holds no private key in PEM format",
        ),
        (
            "key.pem",
            other.as_str(),
            "key.pem cannot be used with the certificate in",
        ),
    ] {
        site.write(name, text);
        let error = site.store.reload().expect_err("bad").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(Arc::ptr_eq(&before, &site.store.current()));
        site.write("cert.pem", &certificate);
        site.write("key.pem", &key);
    }
    let error =
        TlsStore::load(site.folder.path().join("none.pem"), "key.pem").expect_err("missing");
    assert!(
        error
            .to_string()
            .starts_with("cannot read the TLS certificate in"),
        "{error}"
    );
}

/// The hashes are those of `openssl x509 -outform der | openssl dgst`.
#[test]
fn the_end_point_hash_is_that_of_the_signature() {
    for (pem, expected) in [
        (
            &include_bytes!("testdata/ecdsa-sha256.pem")[..],
            Some("a47bf331e4b3af705ad862e443a7ff268cde2ff2e6ac87a21bdad18f0d4caed0"),
        ),
        (
            include_bytes!("testdata/ecdsa-sha384.pem"),
            Some(
                "619ae7b7bd4a4e2f63251535087bfa8d1fadc6bd6b6c8c4b9ec851e3091cc1240026063f4fbcd32655b49926cc60abf0",
            ),
        ),
        (
            include_bytes!("testdata/rsa-sha512.pem"),
            Some(
                "92555df2b37e92136ed745de1d8f09edaec0edf7677f13574ffc013f1ed8351a8abba870c16443b82c085c5dfbd4d74e78c1482085b4e46a42cd97badae60fe5",
            ),
        ),
        (
            include_bytes!("testdata/rsa-sha224.pem"),
            Some("23ae3a128ac8dd0b38825413be23f720dc93c49d4fb251d75780b4f8"),
        ),
        (
            include_bytes!("testdata/rsa-sha1.pem"),
            Some("7c86580165097ff32d6bca4b6eaabe75aa55d1cf8318e34fe9beced6594efdfd"),
        ),
        (
            include_bytes!("testdata/rsa-md5.pem"),
            Some("767519219d6329ca625fd2d5d7a0d99a5b47bb64adb3c2dcf2d971fde4a9872a"),
        ),
        (
            include_bytes!("testdata/rsa-pss-sha384.pem"),
            Some(
                "06e1e45fa22a3c0549eb7522a6810b9f248347c52827e9235b7829f04c1a15e40e41746ba502cd35d91a07801f6ab71f",
            ),
        ),
        (include_bytes!("testdata/ed25519.pem"), None),
    ] {
        let der = CertificateDer::from_pem_slice(pem).expect("PEM");
        let hash = end_point_hash(&der).expect("a certificate");
        let hex = hash.map(|hash| {
            hash.iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        });
        assert_eq!(hex.as_deref(), expected);
    }
    assert_eq!(end_point_hash(b"no certificate"), None);
}
