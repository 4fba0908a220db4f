//! TLS towards servers, and servers that are not what they should be.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use control_store::snapshot::TlsPlace;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

use super::*;

/// A certificate for `localhost`, of itself.
struct Identity {
    folder: tempfile::TempDir,
    config: Arc<ServerConfig>,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.crt"), made.cert.pem()).expect("written");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate");
        Self {
            folder,
            config: Arc::new(config),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }
}

fn uplinks(kind: ReactorKind) -> Bench {
    let options = Options::default();
    Bench::on(match kind {
        ReactorKind::Epoll => Box::new(Uplinks::new(EpollReactor::new(options).expect("works"))),
        ReactorKind::Uring => Box::new(Uplinks::new(UringReactor::new(options).expect("works"))),
    })
}

/// A server for one connection, and how to reach it.
fn serve(
    authority: Option<PathBuf>,
    asks_first: bool,
    server: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static,
) -> (ServerAddress, JoinHandle<io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = TlsPlace {
        address: listener.local_addr().expect("bound"),
        host: "localhost".into(),
        authority,
        asks_first,
    };
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        server(stream)
    });
    (ServerAddress::Tls(Arc::new(place)), thread)
}

fn asked(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = [0; 8];
    stream.read_exact(&mut request)?;
    assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
    Ok(())
}

/// Sends back so many bytes.
fn echo(config: Arc<ServerConfig>, stream: TcpStream, len: usize) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes)?;
    stream.write_all(&bytes)?;
    stream.flush()
}

on_both_reactors! {
    fn what_is_sent_and_received_is_plain(kind) {
        const LEN: usize = 300_000;
        let identity = Identity::new();
        for (asks_first, verified) in [(true, true), (false, true), (false, false)] {
            let config = Arc::clone(&identity.config);
            let authority = verified.then(|| identity.file());
            let (to, server) = serve(authority, asks_first, move |mut stream| {
                if asks_first {
                    asked(&mut stream)?;
                    stream.write_all(b"S")?;
                }
                echo(config, stream, LEN)
            });
            let mut bench = uplinks(kind);
            let conn = bench.reactor.connect(&to).expect("begins");
            let bytes = pattern(LEN, 7);
            // Before the connection stands, in pieces of either kind.
            let (small, large) = bytes.split_at(1000);
            for piece in small.chunks(100) {
                bench.reactor.send_copy(conn, piece);
            }
            bench.reactor.send(conn, Buf::from_vec(large.to_vec()));
            assert!(bench.reactor.queued(conn) >= LEN);
            let mut got = Vec::new();
            while got.len() < LEN {
                match bench.next() {
                    Event::Connected { .. } | Event::Drained { .. } => {}
                    Event::Received { conn: on, buf } if on == conn => got.extend_from_slice(&buf),
                    other => panic!("unexpected {other:?}"),
                }
            }
            assert!(got == bytes);
            bench.reactor.close(conn, Close::AfterFlush);
            bench.until_done(server).expect("the server is well");
        }
    }

    fn a_server_that_is_not_the_right_one_is_told_nothing(kind) {
        let (right, wrong) = (Identity::new(), Identity::new());
        let answers: [&'static [u8]; 5] = [b"N", b"E", b"S\x16\x03\x03", b"Sx", b"SS"];
        let mut cases: Vec<Box<dyn FnOnce(TcpStream) -> io::Result<()> + Send>> = Vec::new();
        for answer in answers {
            cases.push(Box::new(move |mut stream| {
                asked(&mut stream)?;
                stream.write_all(answer)?;
                let mut rest = Vec::new();
                // It may be reset.
                let _ = stream.read_to_end(&mut rest);
                assert!(!rest.windows(6).any(|it| it == b"secret"));
                Ok(())
            }));
        }
        let config = Arc::clone(&wrong.config);
        cases.push(Box::new(move |mut stream| {
            asked(&mut stream)?;
            stream.write_all(b"S")?;
            assert!(echo(config, stream, 6).is_err(), "it trusts anybody");
            Ok(())
        }));
        for case in cases {
            let (to, server) = serve(Some(right.file()), true, case);
            let mut bench = uplinks(kind);
            let conn = bench.reactor.connect(&to).expect("begins");
            bench.reactor.send_copy(conn, b"secret");
            loop {
                match bench.next() {
                    Event::Connected { .. } => {}
                    Event::Failed { conn: on, .. } => break assert_eq!(on, conn),
                    other => panic!("unexpected {other:?}"),
                }
            }
            bench.until_done(server).expect("the server is well");
            bench.settle();
            assert!(bench.events.is_empty(), "{:?} after the end", bench.events);
        }
    }
}
