//! What an operator sees to: certificates, load balancers, mistakes in the configuration, connections that say nothing.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use end_to_end::{Login, Product, binary};
use rustix::process::Signal;

/// A header of version 2 for a connection of that address.
fn header(of: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = of;
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    [&fixed[..], &[a, b, c, d, 127, 0, 0, 1, 0xd9, 3, 0x15, 0x38]].concat()
}

/// A load balancer in front of a port, which says that its clients come from there. Ends with the process.
fn load_balancer(to: &str, of: [u8; 4]) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let to = to.to_owned();
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let Ok(mut server) = TcpStream::connect(&to) else {
                continue;
            };
            // In two parts, with a pause in which the first can arrive alone.
            let header = header(of);
            let sent = server.write_all(&header[..5]).and_then(|()| {
                sleep(Duration::from_millis(20));
                server.write_all(&header[5..])
            });
            let (Ok(()), Ok(client2), Ok(server2)) = (sent, client.try_clone(), server.try_clone())
            else {
                continue;
            };
            pump(client, server);
            pump(server2, client2);
        }
    });
    Ok(port)
}

/// Passes on what comes, until it ends.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        // Either side may be gone first.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

#[test]
fn a_load_balancer_says_whose_connection_it_is() -> Result<()> {
    for reactor in end_to_end::REACTORS {
        let product = Product::start(&[
            "--reactor",
            reactor,
            "--plaintext",
            "--trusted-proxies",
            "127.0.0.0/8",
            "--proxy-protocol",
        ])?;
        let (host, port) = product.postgres();
        let from = |of| load_balancer(&format!("{host}:{port}"), of);
        let api = product.ready["api"].as_str().context("api")?;
        let api = api.trim_start_matches("http://").to_owned();
        let ask = |before: &[u8], request: &str| -> Result<String> {
            let mut stream = TcpStream::connect(&api)?;
            stream.write_all(before)?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            // A connection that is refused may be reset.
            let _ = stream.read_to_string(&mut answer);
            Ok(answer)
        };
        let me = header([192, 0, 2, 7]);
        let post = |path: &str, key: &str, body: &str| {
            let text = format!(
                "POST {path} HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let answer = ask(&me, &text)?;
            let body = answer.rsplit("\r\n").next().unwrap_or_default();
            serde_json::from_str::<serde_json::Value>(body).with_context(|| answer.clone())
        };
        let account = post(
            "/signup",
            "",
            r#"{"email":"a@b.c","password":"correct horse"}"#,
        )?;
        let key = account["api_key"].as_str().context("api_key")?;
        let made = post(
            "/workspaces",
            key,
            r#"{"name":"app","database":"PostgreSQL","mode":"control"}"#,
        )?;
        let audit = ask(
            &me,
            &format!("GET /audit HTTP/1.0\r\nAuthorization: Bearer {key}\r\n\r\n"),
        )?;
        assert!(audit.contains(r#""address":"192.0.2.7""#), "{audit}");
        assert_eq!(
            ask(b"", "GET /health HTTP/1.0\r\n\r\n")?,
            "",
            "without a header"
        );

        let connection = &made["connection"];
        let text = |name: &str| connection[name].as_str().unwrap_or_default().to_owned();
        let login = |port: String| Login {
            host: host.clone(),
            port,
            user: text("user"),
            password: text("password"),
            database: text("database"),
            ca_cert: product.ready["ca_cert"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        };
        let far = login(from([192, 0, 2, 7])?);
        assert_eq!(far.psql("SELECT 1")?, "1\n");
        let plain = |login: &Login| -> Result<String> {
            let out = login
                .command("psql")
                .env("PGSSLMODE", "disable")
                .args(["-XAtqc", "SELECT 1"])
                .output()?;
            Ok(String::from_utf8_lossy(&out.stdout).into_owned()
                + &String::from_utf8_lossy(&out.stderr))
        };
        // Unencrypted clients are welcome from this machine: it is the header that tells where they are.
        assert!(plain(&far)?.contains("TLS is required"));
        assert_eq!(plain(&login(from([127, 0, 0, 1])?))?, "1\n");
        let direct = login(port.clone()).psql("SELECT 1")?;
        assert!(!direct.starts_with('1'), "without a header: {direct}");
    }
    Ok(())
}

#[test]
fn a_new_certificate_is_used_after_a_hangup() -> Result<()> {
    let product = Product::start(&[])?;
    let account = product.sign_up("ann@example.com")?;
    let workspace = account.workspace("app", "control")?;
    assert_eq!(workspace.psql("SELECT 1")?, "1\n");
    let tls = product.data().join("tls");
    let out = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .arg("-keyout")
        .arg(tls.join("server.key"))
        .arg("-out")
        .arg(tls.join("server.crt"))
        .output()?;
    ensure!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let renewed = Login {
        ca_cert: tls.join("server.crt").display().to_string(),
        ..workspace.clone()
    };
    assert!(
        renewed
            .psql("SELECT 1")?
            .contains("certificate verify failed")
    );
    product.signal(Signal::HUP);
    for _ in 0..1000 {
        if renewed.psql("SELECT 1")? == "1\n" {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
    anyhow::bail!("the new certificate is not used: {}", product.log())
}

/// As `sslnegotiation=direct` of newer clients does: TLS from the first byte, with the protocol's name.
#[test]
fn tls_may_begin_at_once() -> Result<()> {
    let product = Product::start(&[])?;
    let (host, port) = product.postgres();
    let ca_cert = product.ready["ca_cert"].as_str().context("ca_cert")?;
    let connect = |protocol: &str| -> Result<String> {
        let out = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &format!("{host}:{port}"),
                "-CAfile",
                ca_cert,
            ])
            .args(["-verify_return_error", "-alpn", protocol])
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned()
            + &String::from_utf8_lossy(&out.stderr))
    };
    let told = connect("postgresql")?;
    assert!(told.contains("ALPN protocol: postgresql"), "{told}");
    assert!(told.contains("Verify return code: 0 (ok)"), "{told}");
    let told = connect("http/1.1")?;
    assert!(!told.contains("ALPN protocol"), "{told}");
    Ok(())
}

#[test]
fn a_thousand_silent_connections_are_in_nobodys_way() -> Result<()> {
    for reactor in end_to_end::REACTORS {
        let product = Product::start(&["--reactor", reactor])?;
        let account = product.sign_up("ann@example.com")?;
        let workspace = account.workspace("app", "control")?;
        let (host, port) = product.postgres();
        let silent: Vec<_> = (0..1000)
            .map(|_| TcpStream::connect(format!("{host}:{port}")))
            .collect::<Result<_, _>>()?;
        assert_eq!(workspace.psql("SELECT 1")?, "1\n");
        account.ok("GET", "/workspaces", None)?;
        drop(silent);
    }
    Ok(())
}

#[test]
fn mistakes_in_the_configuration_are_named_in_one_sentence() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tenantsdb.toml");
    let data = folder.path().join("data").display().to_string();
    for (text, expected) in [
        ("nonsense = 1", "nonsense"),
        ("[api]\ncors_origins = ['example.com']", "api.cors_origins"),
        (
            "proxy_protocol = true",
            "proxy_protocol needs trusted_proxies",
        ),
        ("[tls]\nkey = 'k'", "tls.certificate and tls.key"),
        (
            "[tls]\ncertificate = '/none.crt'\nkey = '/none.key'",
            "/none.crt",
        ),
    ] {
        std::fs::write(&file, format!("data_dir = '{data}'\n{text}\n"))?;
        let out = Command::new(binary())
            .args(["serve", "--config"])
            .arg(&file)
            .output()?;
        let told = String::from_utf8_lossy(&out.stderr);
        let lines: Vec<_> = told
            .lines()
            .filter(|it| it.starts_with("tenantsdb: "))
            .collect();
        assert!(!out.status.success() && lines.len() == 1, "{text}: {told}");
        assert!(told.contains(expected), "{text}: {told}");
    }
    Ok(())
}
