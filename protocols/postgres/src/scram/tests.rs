use super::*;
use proptest::prelude::*;

/// RFC 7677, section 3.
const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &[u8] =
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

const FEW: NonZeroU32 = NonZeroU32::new(2).unwrap();
const HASH: &[u8] = &[7; 32];

fn rfc_salt() -> Vec<u8> {
    STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap()
}

fn client_nonce() -> Nonce {
    Nonce::new("rOprNGfwEbeRWgbNEkqO").unwrap()
}

fn server_nonce() -> Nonce {
    Nonce::new("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap()
}

fn candidate(secret: &ScramSecret) -> Candidate<'_> {
    Candidate {
        stored_key: &secret.stored_key,
        server_key: &secret.server_key,
    }
}

fn rfc_server() -> (Server, Vec<u8>) {
    let salt = rfc_salt();
    Server::start(
        Mechanism::Plain,
        None,
        CLIENT_FIRST,
        &salt,
        DEFAULT_ITERATIONS,
        &server_nonce(),
    )
    .unwrap()
}

#[test]
fn rfc_7677_server() {
    let secret = ScramSecret::derive(b"pencil", &rfc_salt(), DEFAULT_ITERATIONS);
    let (server, server_first) = rfc_server();
    assert_eq!(server_first, SERVER_FIRST);
    let accepted = server.finish(CLIENT_FINAL, [candidate(&secret)]).unwrap();
    assert_eq!(
        accepted,
        Accepted {
            index: 0,
            server_final: SERVER_FINAL.to_vec()
        }
    );
}

#[test]
fn rfc_7677_client_from_password_and_from_keys() {
    let secret = ScramSecret::derive(b"pencil", &rfc_salt(), DEFAULT_ITERATIONS);
    let keys = Credentials::Keys {
        salt: &secret.salt,
        iterations: secret.iterations,
        client_key: &secret.client_key,
        server_key: &secret.server_key,
    };
    for credentials in [Credentials::Password(b"pencil"), keys] {
        let (client, first) = Client::start("user", ClientBinding::Unsupported, client_nonce());
        assert_eq!(first, CLIENT_FIRST);
        let (client, last) = client.respond(SERVER_FIRST, credentials).unwrap();
        assert_eq!(last, CLIENT_FINAL);
        assert_eq!(client.verify(SERVER_FINAL), Ok(()));
    }
}

/// Made by PostgreSQL 15 itself: `CREATE ROLE r PASSWORD 'pencil'`, then `SELECT rolpassword FROM pg_authid`.
#[test]
fn verifier_has_the_form_of_postgresql() {
    let secret = ScramSecret::derive(b"pencil", &rfc_salt(), DEFAULT_ITERATIONS);
    let expected = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
        wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert_eq!(secret.verifier(), expected);
}

/// A whole login over `binding`, of the password `password`, where `server_binding` is what the server offers.
fn login(
    binding: ClientBinding<'_>,
    server_binding: Option<&[u8]>,
    password: &[u8],
    secrets: &[ScramSecret],
) -> Result<usize, ScramError> {
    let (client, first) = Client::start("", binding, Nonce::random()?);
    let nonce = Nonce::random()?;
    let (server, first) = Server::start(
        binding.mechanism(),
        server_binding,
        &first,
        b"salt",
        FEW,
        &nonce,
    )?;
    let (client, last) = client.respond(&first, Credentials::Password(password))?;
    let accepted = server.finish(&last, secrets.iter().map(candidate))?;
    client.verify(&accepted.server_final)?;
    Ok(accepted.index)
}

fn secrets(passwords: &[&[u8]]) -> Vec<ScramSecret> {
    passwords
        .iter()
        .map(|password| ScramSecret::derive(password, b"salt", FEW))
        .collect()
}

#[test]
fn the_proof_decides_which_password_it_was() {
    let all = secrets(&[b"one", b"two", b"three", b"two"]);
    for (password, index) in [(&b"one"[..], 0), (b"two", 1), (b"three", 2)] {
        assert_eq!(
            login(ClientBinding::Unsupported, None, password, &all),
            Ok(index)
        );
    }
    let wrong = Err(ScramError::WrongProof);
    assert_eq!(
        login(ClientBinding::Unsupported, None, b"four", &all),
        wrong
    );
    assert_eq!(login(ClientBinding::Unsupported, None, b"one", &[]), wrong);
}

#[test]
fn channel_binding_protects_both_ways() {
    use ClientBinding::{NotOffered, TlsServerEndPoint, Unsupported};
    let all = secrets(&[b"pw"]);
    let check = |binding, offered, expected| {
        assert_eq!(
            login(binding, offered, b"pw", &all),
            expected,
            "{binding:?} {offered:?}"
        );
    };
    check(Unsupported, None, Ok(0));
    check(Unsupported, Some(HASH), Ok(0));
    check(NotOffered, None, Ok(0));
    check(NotOffered, Some(HASH), Err(ScramError::Downgrade));
    check(TlsServerEndPoint(HASH), Some(HASH), Ok(0));
    check(
        TlsServerEndPoint(&[8; 32]),
        Some(HASH),
        Err(ScramError::ChannelBinding),
    );
    check(
        TlsServerEndPoint(HASH),
        None,
        Err(ScramError::Unsupported("channel binding without TLS")),
    );
}

#[test]
fn server_refuses_bad_first_messages() {
    let check = |mechanism, message: &[u8], expected| {
        let started = Server::start(
            mechanism,
            Some(HASH),
            message,
            b"salt",
            FEW,
            &server_nonce(),
        );
        assert_eq!(started.err(), Some(expected), "{}", message.escape_ascii());
    };
    let plain = Mechanism::Plain;
    check(plain, b"", ScramError::Malformed("GS2 header"));
    check(plain, b"n,", ScramError::Malformed("GS2 header"));
    check(plain, b"x,,n=,r=abc", ScramError::Malformed("GS2 header"));
    check(
        plain,
        b"n,a=other,n=,r=abc",
        ScramError::Unsupported("authorization identity"),
    );
    check(
        plain,
        b"p=tls-unique,,n=,r=abc",
        ScramError::Malformed("unexpected channel binding"),
    );
    check(
        plain,
        b"n,,m=ext,n=,r=abc",
        ScramError::Malformed("user name expected"),
    );
    check(plain, b"n,,n=", ScramError::Malformed("nonce expected"));
    check(plain, b"n,,n=,r=", ScramError::Malformed("nonce"));
    check(plain, b"n,,n=,r=a b", ScramError::Malformed("nonce"));
    check(plain, b"n,,n=,r=a,", ScramError::Malformed("attribute"));
    check(plain, b"n,,n=,r=a,1=x", ScramError::Malformed("attribute"));
    check(plain, b"n,,n=,r=a\0", ScramError::Malformed("zero byte"));
    check(
        plain,
        &[b"n,,n=,r=", &[b'a'; MAX_NONCE + 1][..]].concat(),
        ScramError::TooLong,
    );
    check(plain, &[b'a'; MAX_MESSAGE + 1], ScramError::TooLong);
    check(
        Mechanism::Plus,
        b"n,,n=,r=abc",
        ScramError::Malformed("channel binding expected"),
    );
    check(
        Mechanism::Plus,
        b"p=tls-unique,,n=,r=abc",
        ScramError::Unsupported("channel binding type"),
    );
    let known = b"n,,n=\xc3\xbc,r=abc,x=ext";
    assert!(Server::start(plain, None, known, b"salt", FEW, &server_nonce()).is_ok());
}

#[test]
fn server_refuses_bad_final_messages() {
    let secret = ScramSecret::derive(b"pencil", &rfc_salt(), DEFAULT_ITERATIONS);
    let check = |message: &str, expected| {
        let (server, _) = rfc_server();
        assert_eq!(
            server.finish(message.as_bytes(), [candidate(&secret)]),
            Err(expected),
            "{message}"
        );
    };
    let good = std::str::from_utf8(CLIENT_FINAL).unwrap();
    check("", ScramError::Malformed("proof"));
    check(
        &good.replace("c=biws", "c=eSws"),
        ScramError::ChannelBinding,
    );
    check(&good.replace("r=r", "r=x"), ScramError::Nonce);
    check(&good.replace("$k0", "$k1"), ScramError::Nonce);
    check(&good.replace("p=d", "p=e"), ScramError::WrongProof);
    check(&good.replace(",p=", ",x=ext,p="), ScramError::WrongProof);
    check(&good.replace("VQ=", "VQ"), ScramError::Malformed("proof"));
    check(&good.replace("dHzb", ""), ScramError::Malformed("proof"));
    check(&format!("{good},x=ext"), ScramError::Malformed("proof"));
    check(
        &good.replace("c=biws,", ""),
        ScramError::Malformed("channel binding expected"),
    );
    check(&"a".repeat(MAX_MESSAGE + 1), ScramError::TooLong);
}

#[test]
fn client_refuses_a_server_that_lies() {
    let check = |message: &str, expected| {
        let (client, _) = Client::start("user", ClientBinding::Unsupported, client_nonce());
        let got = client.respond(message.as_bytes(), Credentials::Password(b"pencil"));
        assert_eq!(got.err(), Some(expected), "{message}");
    };
    let good = std::str::from_utf8(SERVER_FIRST).unwrap();
    check("", ScramError::Malformed("attribute"));
    check(
        "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        ScramError::Nonce,
    );
    check(&good.replace("r=r", "r=x"), ScramError::Nonce);
    check(&good.replace("gQ==", "gQ"), ScramError::Malformed("salt"));
    for iterations in ["0", "-1", "+1", "", "4294967296"] {
        check(
            &good.replace("4096", iterations),
            ScramError::Malformed("iterations"),
        );
    }
    check(&good.replace("4096", "4294967295"), ScramError::TooLong);
    check(
        &format!("m=ext,{good}"),
        ScramError::Malformed("nonce expected"),
    );

    let check = |message: &[u8], expected| {
        let (client, _) = Client::start("user", ClientBinding::Unsupported, client_nonce());
        let (client, _) = client
            .respond(SERVER_FIRST, Credentials::Password(b"pencil"))
            .unwrap();
        assert_eq!(client.verify(message), Err(expected), "{message:?}");
    };
    check(b"e=other-error", ScramError::ServerSignature);
    check(
        b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ScramError::ServerSignature,
    );
    check(b"v=", ScramError::Malformed("verifier"));
    check(b"x=", ScramError::Malformed("verifier expected"));
}

#[test]
fn client_notices_that_its_keys_are_stale() {
    let secret = ScramSecret::derive(b"pencil", b"other salt", FEW);
    for (salt, iterations) in [
        (b"other salt".to_vec(), DEFAULT_ITERATIONS),
        (rfc_salt(), FEW),
    ] {
        let (client, _) = Client::start("user", ClientBinding::Unsupported, client_nonce());
        let keys = Credentials::Keys {
            salt: &salt,
            iterations,
            client_key: &secret.client_key,
            server_key: &secret.server_key,
        };
        assert_eq!(
            client.respond(SERVER_FIRST, keys).err(),
            Some(ScramError::StaleKeys)
        );
    }
}

#[test]
fn mock_salts_are_steady_and_differ_by_user_and_secret() {
    let salt = mock_salt(b"secret", b"alice");
    assert_eq!(salt, mock_salt(b"secret", b"alice"));
    assert_ne!(salt, mock_salt(b"secret", b"bob"));
    assert_ne!(salt, mock_salt(b"other", b"alice"));
}

#[test]
fn nonces_are_checked_and_fresh() {
    assert_ne!(Nonce::random(), Nonce::random());
    assert_eq!(Nonce::new(""), Err(ScramError::Malformed("nonce")));
    assert_eq!(Nonce::new("a,b"), Err(ScramError::Malformed("nonce")));
}

#[test]
fn user_names_are_escaped() {
    let (_, first) = Client::start("a=b,c", ClientBinding::NotOffered, client_nonce());
    assert_eq!(first, b"y,,n=a=3Db=2Cc,r=rOprNGfwEbeRWgbNEkqO");
}

proptest! {
    #[test]
    fn hostile_messages_never_panic(message: Vec<u8>, text in "[npryc=,a-z0-9+/]{0,40}") {
        for message in [&message[..], text.as_bytes(), &[b"n,,n=,r=", text.as_bytes()].concat()] {
            let _ = Server::start(Mechanism::Plain, None, message, b"salt", FEW, &server_nonce());
            let (server, _) = rfc_server();
            prop_assert!(server.finish(message, []).is_err());
            let (client, _) = Client::start("", ClientBinding::Unsupported, client_nonce());
            prop_assert!(client.respond(message, Credentials::Password(b"")).is_err());
        }
    }
}
