//! Valid inputs of every target, written by our own writers: the corpus from which fuzzing starts.

mod redis;

use protocol_postgres::backend::{
    ErrorResponse, Severity, TransactionStatus, tag as backend_tag, write as backend,
};
use protocol_postgres::frontend::{Kind, write as client};
use protocol_postgres::scram::{
    Candidate, Client, ClientBinding, Credentials, Mechanism, Nonce, ScramSecret, Server,
};
use protocol_postgres::startup::write as startup;
use protocol_postgres::{EncodeError, PROTOCOL_3_0, PROTOCOL_3_2};

use proxy::query_log::hostile;

use crate::postgres::{CERTIFICATE, CLIENT_NONCE, PASSWORD, ROUNDS, SALT, SERVER_NONCE};

/// A target's name, a seed's name and its bytes.
pub type Seed = (&'static str, &'static str, Vec<u8>);

/// All seeds.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    seeds.extend(startups());
    let (frontends, backends) = (frontends(), backends());
    seeds.push(("frame", "client", join(&frontends)));
    seeds.push(("frame", "server", join(&backends)));
    seeds.extend(bodies("frontend", frontends));
    seeds.extend(bodies("backend", backends));
    seeds.extend(scram());
    seeds.extend(texts());
    seeds.extend(query_log());
    seeds.extend(proxy_headers());
    seeds.extend(redis::all());
    seeds
}

/// There is no writer of these: load balancers write them.
fn proxy_headers() -> Vec<Seed> {
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21";
    let v4 = b"\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\xd9\x03\x1f\x90GET / HTTP/1.1\r\n";
    let v6 = [&b"\x21\0\x28"[..], &[0x20; 36], b"\x04\0\x01\0"].concat();
    [
        (
            "line_4",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 55555 8080\r\nGET".to_vec(),
        ),
        ("line_6", b"PROXY TCP6 2001:db8::9 ::1 80 443\r\n".to_vec()),
        ("line_unknown", b"PROXY UNKNOWN\r\n".to_vec()),
        ("binary_4", [V2, v4].concat()),
        ("binary_6", [V2, &v6].concat()),
        ("binary_local", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()),
    ]
    .map(|(name, bytes)| ("proxy_header", name, bytes))
    .to_vec()
}

type Message = (&'static str, Vec<u8>);

fn join(messages: &[Message]) -> Vec<u8> {
    messages.iter().flat_map(|(_, it)| it.clone()).collect()
}

/// The targets take a type and a body, without the length between them.
fn bodies(target: &'static str, messages: Vec<Message>) -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, mut message) in messages {
        message.drain(1..5);
        seeds.push((target, name, message));
    }
    seeds
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).expect("a seed can be written");
    out
}

fn startups() -> Vec<Seed> {
    let options = b"-c search_path=a\\ b --work-mem=1MB -cgeqo=off".as_slice();
    let params: [(&[u8], &[u8]); 4] = [
        (b"user", b"tdb_0a1b2c3d"),
        (b"database", b"orders__acme"),
        (b"options", options),
        (b"client_encoding", b"UTF8"),
    ];
    let mut ssl = Vec::new();
    startup::ssl_request(&mut ssl);
    [
        ("ssl", ssl),
        (
            "cancel",
            written(|out| startup::cancel_request(out, 77, b"keys")),
        ),
        (
            "cancel_long_key",
            written(|out| startup::cancel_request(out, 77, &[9; 256])),
        ),
        (
            "protocol_3_0",
            written(|out| startup::startup_message(out, PROTOCOL_3_0, params)),
        ),
        (
            "protocol_3_2",
            written(|out| startup::startup_message(out, PROTOCOL_3_2, [])),
        ),
        ("options_only", options.to_vec()),
    ]
    .map(|(name, bytes)| ("startup", name, bytes))
    .into()
}

fn frontends() -> Vec<Message> {
    let types = [0, 0, 0, 23, 0, 0, 0, 25];
    let mut bind = b"B\0\0\0\x1dportal\0statement\0".to_vec();
    bind.extend([0, 1, 0, 1, 0, 1, 0, 0]);
    let len = u32::try_from(bind.len() - 1).unwrap_or(0);
    bind.splice(1..5, len.to_be_bytes());
    let mut sync = Vec::new();
    client::sync(&mut sync);
    vec![
        (
            "query",
            written(|out| client::query(out, b"SELECT 1; SELECT 2")),
        ),
        (
            "parse",
            written(|out| client::parse(out, b"s1", b"SELECT $1, $2", &types)),
        ),
        ("bind", bind),
        (
            "describe_statement",
            written(|out| client::describe(out, Kind::Statement, b"s1")),
        ),
        (
            "describe_portal",
            written(|out| client::describe(out, Kind::Portal, b"")),
        ),
        (
            "close",
            written(|out| client::close(out, Kind::Statement, b"s1")),
        ),
        ("execute", written(|out| client::execute(out, b"", 100))),
        ("sync", sync),
        (
            "copy_fail",
            written(|out| client::copy_fail(out, b"no more")),
        ),
        (
            "sasl_initial",
            written(|out| client::sasl_initial_response(out, b"SCRAM-SHA-256", b"n,,n=,r=abc")),
        ),
        (
            "sasl",
            written(|out| client::sasl_response(out, b"c=biws,r=abc,p=AAAA")),
        ),
        ("password", written(|out| client::password(out, PASSWORD))),
    ]
}

fn backends() -> Vec<Message> {
    let error = ErrorResponse {
        severity: Severity::Error,
        code: "42P01",
        message: "relation \"x\" does not exist",
        detail: Some("detail"),
        hint: Some("hint"),
    };
    let plain = |write: fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let notification = b"\0\0\0\x07channel\0payload\0";
    let len = u32::try_from(notification.len() + 4).unwrap_or(0);
    let notification = [
        &[backend_tag::NOTIFICATION_RESPONSE],
        &len.to_be_bytes()[..],
        notification,
    ]
    .concat();
    vec![
        ("authentication_ok", plain(backend::authentication_ok)),
        (
            "authentication_sasl",
            written(|out| {
                backend::authentication_sasl(out, &[b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"])
            }),
        ),
        (
            "authentication_sasl_continue",
            written(|out| backend::authentication_sasl_continue(out, b"r=ab,s=c2FsdA==,i=4096")),
        ),
        (
            "authentication_sasl_final",
            written(|out| backend::authentication_sasl_final(out, b"v=AAAA")),
        ),
        (
            "parameter_status",
            written(|out| backend::parameter_status(out, b"TimeZone", b"Etc/UTC")),
        ),
        (
            "backend_key_data",
            written(|out| backend::backend_key_data(out, 77, b"keys")),
        ),
        (
            "negotiate_protocol_version",
            written(|out| backend::negotiate_protocol_version(out, PROTOCOL_3_0, &[b"_pq_.x"])),
        ),
        (
            "ready_for_query",
            plain(|out| backend::ready_for_query(out, TransactionStatus::InTransaction)),
        ),
        (
            "command_complete",
            written(|out| backend::command_complete(out, b"INSERT 0 5")),
        ),
        ("notification", notification),
        ("error", {
            let mut out = Vec::new();
            backend::error_response(&mut out, &error);
            out
        }),
        ("notice", {
            let mut out = Vec::new();
            backend::notice_response(&mut out, &error);
            out
        }),
        ("parse_complete", plain(backend::parse_complete)),
    ]
}

/// A whole login for each kind of channel binding, as each side hears it.
fn scram() -> Vec<Seed> {
    let logins = [
        (
            0,
            0,
            ClientBinding::Unsupported,
            ["client_plain", "server_plain"],
        ),
        (
            1,
            0,
            ClientBinding::NotOffered,
            ["client_offers", "server_offers"],
        ),
        (
            2,
            3,
            ClientBinding::TlsServerEndPoint(CERTIFICATE),
            ["client_plus", "server_plus"],
        ),
    ];
    let mut seeds = Vec::new();
    for (client_how, server_how, binding, [client_name, server_name]) in logins {
        let [client_first, server_first, client_final, server_final] = login(binding);
        let heard = |how: u8, first: &[u8], last: &[u8]| [&[how], first, &[0], last].concat();
        seeds.push((
            "scram_server",
            client_name,
            heard(server_how, &client_first, &client_final),
        ));
        seeds.push((
            "scram_client",
            server_name,
            heard(client_how, &server_first, &server_final),
        ));
    }
    seeds
}

fn login(binding: ClientBinding<'_>) -> [Vec<u8>; 4] {
    let secret = ScramSecret::derive(PASSWORD, SALT, ROUNDS);
    let nonce = |text| Nonce::new(text).expect("a nonce");
    let hash = matches!(binding, ClientBinding::TlsServerEndPoint(_)).then_some(CERTIFICATE);
    let mechanism: Mechanism = binding.mechanism();
    let (client, client_first) = Client::start("user", binding, nonce(CLIENT_NONCE));
    let (server, server_first) = Server::start(
        mechanism,
        hash,
        &client_first,
        SALT,
        ROUNDS,
        &nonce(SERVER_NONCE),
    )
    .expect("a login");
    let (_, client_final) = client
        .respond(&server_first, Credentials::Password(PASSWORD))
        .expect("a login");
    let candidate = Candidate {
        stored_key: &secret.stored_key,
        server_key: &secret.server_key,
    };
    let accepted = server.finish(&client_final, [candidate]).expect("a login");
    [
        client_first,
        server_first,
        client_final,
        accepted.server_final,
    ]
}

fn texts() -> Vec<Seed> {
    let classify: [(&str, &str); 12] = [
        (
            "select",
            "SELECT a, 'it''s', E'\\'', $1 FROM t WHERE b = 1.5e3 -- end",
        ),
        ("comments", "/* a /* b */ c */ SELECT/**/1; -- x\n;SELECT 2"),
        ("dollar", "DO $x$ BEGIN $y$;$y$; END $x$; SELECT $1"),
        (
            "ddl",
            "CREATE TABLE IF NOT EXISTS a.b (c int DEFAULT ';'); DROP INDEX d",
        ),
        (
            "function",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 3",
        ),
        (
            "transaction",
            "BEGIN ISOLATION LEVEL SERIALIZABLE; SAVEPOINT a; ROLLBACK TO a; COMMIT AND CHAIN",
        ),
        (
            "settings",
            "SET LOCAL search_path TO a, b; RESET ALL; SELECT set_config('a', 'b', false)",
        ),
        (
            "pins",
            "LISTEN a; CREATE TEMP TABLE b(c int); SELECT pg_advisory_lock(1); DECLARE d CURSOR WITH HOLD FOR SELECT 1",
        ),
        (
            "prepared",
            "PREPARE a AS SELECT 1; EXECUTE a; DEALLOCATE ALL; DISCARD ALL",
        ),
        (
            "copy",
            "COPY a FROM STDIN WITH (FORMAT csv); EXPLAIN ANALYZE DELETE FROM a",
        ),
        (
            "unicode",
            "SELECT U&'d\\0061t' UESCAPE '!', U&\"x\", x'1f', b'01', n'z'",
        ),
        (
            "names",
            "SELECT \"select\", a.\"b\"\"c\" FROM größe AS \"日本\"",
        ),
    ];
    let masks: [(&str, &str); 6] = [
        (
            "role",
            "ALTER ROLE a WITH LOGIN PASSWORD 'sesame' VALID UNTIL 'infinity'",
        ),
        (
            "identified",
            "CREATE USER a IDENTIFIED WITH plugin BY 'it''s'",
        ),
        ("uri", "SELECT dblink('postgres://user:sesame@host/db')"),
        (
            "json",
            "db.createUser({user: \"a\", pwd: \"sesame\", roles: []})",
        ),
        ("keywords", "host=a password=sesame user=b"),
        ("dollar", "CREATE ROLE a PASSWORD $x$ses'ame$x$"),
    ];
    let how_and_cut = |(name, text): (&'static str, &str)| {
        ("classify", name, [&[0, 7], text.as_bytes()].concat())
    };
    let mut seeds: Vec<Seed> = classify.map(how_and_cut).into();
    seeds.push((
        "classify",
        "sjis",
        [&[2, 3], &b"SELECT '\x83\x5c', \"\x95\x5c\""[..]].concat(),
    ));
    seeds.push((
        "classify",
        "backslashes",
        [&[1, 1], &b"SELECT '\\'', 'a\\\\'"[..]].concat(),
    ));
    seeds.extend(masks.map(|(name, text)| ("query_log_mask", name, text.into())));
    seeds
}

fn query_log() -> Vec<Seed> {
    let (head, data, whole) = hostile::example_block();
    let cut = u16::try_from(head.len()).unwrap_or(u16::MAX).to_le_bytes();
    let (journal, batch) = hostile::example_journal();
    vec![
        ("query_log_block", "whole", whole),
        (
            "query_log_block",
            "unsummed",
            [&cut[..], &head, &data].concat(),
        ),
        ("query_log_journal", "whole", journal),
        ("query_log_journal", "batch", batch),
    ]
}
