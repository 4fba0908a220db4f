//! Another implementation at the other end.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::*;

/// Greets the client, echoes one line and closes. Answers how the handshake went, and the protocol agreed on.
fn serve(mut stream: TcpStream, mut tls: TlsServer) -> (Option<Handshake>, Option<Vec<u8>>) {
    let mut received = [0; 4096];
    loop {
        let count = stream.read(&mut received).expect("reads");
        assert!(count > 0, "the client left");
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let buf = Buf::from_vec(received[..count].to_vec());
        tls.receive(buf, &mut plain, &mut out)
            .expect("the client is content");
        for line in &plain {
            tls.send_pieces([&b"heard: "[..], line], &mut out)
                .expect("open");
            tls.close_notify(&mut out);
        }
        stream.write_all(&out).expect("writes");
        if !plain.is_empty() {
            return (
                tls.handshake_outcome(),
                tls.alpn_protocol().map(<[u8]>::to_vec),
            );
        }
    }
}

/// Takes the client's connection; it may have ended without making one.
fn accept(listener: &TcpListener, client: &mut Child) -> TcpStream {
    listener.set_nonblocking(true).expect("can be set");
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("can be set");
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        let ended = client.try_wait().expect("is ours");
        assert!(ended.is_none(), "openssl ended: {ended:?}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn openssl_understands_us() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("not tested: there is no openssl program here");
        return;
    }
    for (algorithm, version, expected) in [
        (
            &rcgen::PKCS_ECDSA_P256_SHA256,
            "-tls1_2",
            Handshake::Tls12Full,
        ),
        (
            &rcgen::PKCS_ECDSA_P256_SHA256,
            "-tls1_3",
            Handshake::Tls13Full,
        ),
        (&rcgen::PKCS_RSA_SHA256, "-tls1_2", Handshake::Tls12Full),
        (&rcgen::PKCS_RSA_SHA256, "-tls1_3", Handshake::Tls13Full),
    ] {
        let site = Site::new(algorithm);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let mut client = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-verify_hostname",
                "localhost",
            ])
            .args([
                version,
                "-alpn",
                "postgresql",
                "-connect",
                &address,
                "-CAfile",
            ])
            .arg(site.folder.path().join("cert.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let words = client.stdin.as_mut().expect("piped");
        words.write_all(b"words\n").expect("writes");
        let stream = accept(&listener, &mut client);
        let (outcome, protocol) = serve(stream, site.server());
        assert_eq!(outcome, Some(expected));
        assert_eq!(protocol.as_deref(), Some(&b"postgresql"[..]));
        let output = client.wait_with_output().expect("ends");
        assert_eq!(
            output.stdout,
            b"heard: words\n",
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
