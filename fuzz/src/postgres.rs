//! PostgreSQL's wire format and SCRAM.

use std::num::NonZeroU32;

use protocol_postgres::backend::{
    Authentication, BackendKeyData, CommandComplete, ErrorFields, NegotiateProtocolVersion,
    NotificationResponse, ParameterStatus, ReadyForQuery,
};
use protocol_postgres::frontend::{
    Bind, BindNames, BindPrefix, Close, Describe, Execute, Parse, PasswordMessage, Query,
    SaslInitialResponse, SaslResponse,
};
use protocol_postgres::scram::{
    Candidate, Client, ClientBinding, Credentials, KEY_LEN, MAX_MESSAGE, Mechanism, Nonce,
    ScramSecret, Server,
};
use protocol_postgres::startup::{self as wire, StartupPacket};
use protocol_postgres::{EncodeError, frame, frontend as client, startup as start};

/// What every test of SCRAM shares. One round: it is the messages that are tested.
pub(crate) const ROUNDS: NonZeroU32 = NonZeroU32::MIN;
pub(crate) const SALT: &[u8] = b"salt of 16 bytes";
pub(crate) const PASSWORD: &[u8] = b"sesame";
pub(crate) const CERTIFICATE: &[u8] = b"hash of a certificate";
pub(crate) const SERVER_NONCE: &str = "server";
pub(crate) const CLIENT_NONCE: &str = "client";

/// Asserts what a splitter says of a prefix: it needs at least a byte more, and no more than it will take in the end.
fn check_need(need: usize, have: usize, used: Option<usize>) {
    assert!(need > 0, "asks for nothing at {have}");
    if let Some(used) = used {
        assert!(have + need <= used, "asks for too much at {have}");
    }
}

/// A startup packet: every part of it asks for more and no more than there is; written anew it reads the same.
pub fn startup(data: &[u8]) {
    let _ = start::settings(data).count();
    let whole = wire::split(data);
    let used = match whole {
        Ok(wire::Split::Packet { used, .. }) => Some(used),
        _ => None,
    };
    for cut in 0..used.unwrap_or(0) {
        match wire::split(&data[..cut]) {
            Ok(wire::Split::Need(need)) => check_need(need, cut, used),
            other => panic!("a part of a packet, but {other:?}"),
        }
    }
    let Ok(wire::Split::Packet { packet, used }) = whole else {
        return;
    };
    let mut written = Vec::new();
    match packet {
        StartupPacket::Ssl => wire::write::ssl_request(&mut written),
        StartupPacket::GssEnc => return,
        StartupPacket::Cancel { process_id, key } => {
            wire::write::cancel_request(&mut written, process_id, key).expect("was read");
        }
        StartupPacket::Startup { minor, params, .. } => {
            let protocol = (3 << 16) | u32::from(minor);
            wire::write::startup_message(&mut written, protocol, params).expect("was read");
            for (name, _) in params {
                assert!(params.get(name).is_some());
            }
            let options = params.get(b"options").unwrap_or_default();
            let _ = start::settings(options).count();
        }
    }
    assert_eq!(written, &data[..used]);
}

/// A stream of messages: split whole or byte by byte, it is the same messages.
pub fn frame(data: &[u8]) {
    const MAX: u32 = 1 << 16;
    let mut rest = data;
    while let Ok(frame::Split::Message { tag, body, used }) = frame::split(rest, MAX) {
        for cut in (0..used).rev().take(8).chain(0..used.min(8)) {
            match frame::split(&rest[..cut], MAX) {
                Ok(frame::Split::Need(need)) => check_need(need, cut, Some(used)),
                other => panic!("a part of a message, but {other:?}"),
            }
        }
        assert_eq!(rest[0], tag);
        assert_eq!(&rest[5..used], body);
        rest = &rest[used..];
    }
    if let Ok(frame::Split::Need(need)) = frame::split(rest, MAX) {
        check_need(need, rest.len(), None);
        assert!(need <= MAX as usize + 5);
    }
}

/// Asserts that a message that was read is written as it came.
fn same(tag: u8, body: &[u8], write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) {
    let mut written = Vec::new();
    write(&mut written).expect("was read, so it can be written");
    let len = u32::try_from(body.len() + 4).expect("a small message");
    assert_eq!(written, [&[tag], &len.to_be_bytes()[..], body].concat());
}

/// A client's message: type and body. What can be read is written back byte for byte.
pub fn frontend(data: &[u8]) {
    use client::{tag, write};
    let Some((&kind, body)) = data.split_first() else {
        return;
    };
    match kind {
        tag::QUERY => {
            if let Ok(it) = Query::decode(body) {
                same(kind, body, |out| write::query(out, it.query));
            }
        }
        tag::PARSE => {
            if let Ok(it) = Parse::decode(body) {
                same(kind, body, |out| {
                    write::parse(out, it.name, it.query, it.param_types)
                });
            }
        }
        tag::BIND => bind(body),
        tag::DESCRIBE => {
            if let Ok(it) = Describe::decode(body) {
                same(kind, body, |out| write::describe(out, it.kind, it.name));
            }
        }
        tag::CLOSE => {
            if let Ok(it) = Close::decode(body) {
                same(kind, body, |out| write::close(out, it.kind, it.name));
            }
        }
        tag::EXECUTE => {
            if let Ok(it) = Execute::decode(body) {
                same(kind, body, |out| {
                    write::execute(out, it.portal, it.max_rows)
                });
            }
        }
        tag::PASSWORD => passwords(body),
        _ => {}
    }
}

fn bind(body: &[u8]) {
    use client::{tag, write};
    let len = u32::try_from(body.len()).expect("a small message");
    let whole = Bind::decode(body);
    let limit = 64;
    for cut in 0..=body.len().min(2 * limit) {
        match BindNames::decode_prefix(&body[..cut], len, limit) {
            Ok(BindPrefix::Need(need)) => check_need(need, cut, Some(body.len())),
            Ok(BindPrefix::Names(names)) => {
                let it = whole.expect("its names are there");
                assert_eq!((names.portal, names.statement), (it.portal, it.statement));
                assert!(names.encoded_len() <= limit.min(cut));
            }
            Err(_) => assert!(cut >= limit.min(body.len())),
        }
    }
    if let Ok(it) = whole {
        let names = BindNames {
            portal: it.portal,
            statement: it.statement,
        };
        same(tag::BIND, body, |out| {
            write::bind_header(out, &names, len, it.statement)?;
            out.extend_from_slice(it.rest);
            Ok(())
        });
    }
}

fn passwords(body: &[u8]) {
    use client::{tag, write};
    if let Ok(it) = SaslInitialResponse::decode(body)
        && let Some(response) = it.response
    {
        same(tag::PASSWORD, body, |out| {
            write::sasl_initial_response(out, it.mechanism, response)
        });
    }
    same(tag::PASSWORD, body, |out| {
        write::sasl_response(out, SaslResponse::decode(body).data)
    });
    if let Ok(it) = PasswordMessage::decode(body) {
        same(tag::PASSWORD, body, |out| write::password(out, it.password));
    }
}

/// A server's message: type and body. What can be read, and is ours to write, is written back byte for byte.
pub fn backend(data: &[u8]) {
    use protocol_postgres::backend::{tag, write};
    let Some((&kind, body)) = data.split_first() else {
        return;
    };
    match kind {
        tag::AUTHENTICATION => authentication(body),
        tag::PARAMETER_STATUS => {
            if let Ok(it) = ParameterStatus::decode(body) {
                same(kind, body, |out| {
                    write::parameter_status(out, it.name, it.value)
                });
            }
        }
        tag::BACKEND_KEY_DATA => {
            if let Ok(it) = BackendKeyData::decode(body) {
                same(kind, body, |out| {
                    write::backend_key_data(out, it.process_id, it.key)
                });
            }
        }
        tag::READY_FOR_QUERY => {
            if let Ok(it) = ReadyForQuery::decode(body) {
                same(kind, body, |out| {
                    write::ready_for_query(out, it.status);
                    Ok(())
                });
            }
        }
        tag::COMMAND_COMPLETE => {
            if let Ok(it) = CommandComplete::decode(body) {
                let _ = it.rows();
                same(kind, body, |out| write::command_complete(out, it.tag));
            }
        }
        tag::NOTIFICATION_RESPONSE => {
            let _ = NotificationResponse::decode(body);
        }
        tag::NEGOTIATE_PROTOCOL_VERSION => {
            if let Ok(it) = NegotiateProtocolVersion::decode(body) {
                let names: Vec<&[u8]> = it.unknown_options.collect();
                same(kind, body, |out| {
                    write::negotiate_protocol_version(out, it.protocol, &names)
                });
            }
        }
        tag::ERROR_RESPONSE | tag::NOTICE_RESPONSE => {
            if let Ok(fields) = ErrorFields::decode(body) {
                for (tag, _) in fields {
                    assert!(fields.get(tag).is_some());
                }
                let _ = (fields.code(), fields.message(), fields.is_fatal());
            }
        }
        _ => {}
    }
}

fn authentication(body: &[u8]) {
    use protocol_postgres::backend::{tag, write};
    match Authentication::decode(body) {
        Ok(Authentication::Sasl(mechanisms)) => {
            let names: Vec<&[u8]> = mechanisms.collect();
            same(tag::AUTHENTICATION, body, |out| {
                write::authentication_sasl(out, &names)
            });
        }
        Ok(Authentication::SaslContinue(data)) => same(tag::AUTHENTICATION, body, |out| {
            write::authentication_sasl_continue(out, data)
        }),
        Ok(Authentication::SaslFinal(data)) => same(tag::AUTHENTICATION, body, |out| {
            write::authentication_sasl_final(out, data)
        }),
        Ok(Authentication::Ok) => same(tag::AUTHENTICATION, body, |out| {
            write::authentication_ok(out);
            Ok(())
        }),
        Ok(_) | Err(_) => {}
    }
}

/// Two messages in one input, parted by a zero byte, which neither may hold.
pub(crate) fn parted(data: &[u8]) -> (&[u8], &[u8]) {
    let end = data.iter().position(|byte| *byte == 0);
    let end = end.unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

/// A client's two SCRAM messages. Who does not know the password is never let in; who does was let in by the right one.
pub fn scram_server(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else {
        return;
    };
    let (first, last) = parted(data);
    let mechanism = if how & 1 == 0 {
        Mechanism::Plain
    } else {
        Mechanism::Plus
    };
    let binding = (how & 2 != 0).then_some(CERTIFICATE);
    let nonce = Nonce::new(SERVER_NONCE).expect("a nonce");
    let Ok((server, answer)) = Server::start(mechanism, binding, first, SALT, ROUNDS, &nonce)
    else {
        return;
    };
    assert!(answer.len() <= first.len() + 128 && first.len() <= MAX_MESSAGE);
    let wrong = [7; KEY_LEN];
    let refused = Candidate {
        stored_key: &wrong,
        server_key: &wrong,
    };
    assert!(server.clone().finish(last, [refused]).is_err());
    assert!(server.clone().finish(last, []).is_err());
    let secret = ScramSecret::derive(PASSWORD, SALT, ROUNDS);
    let candidate = Candidate {
        stored_key: &secret.stored_key,
        server_key: &secret.server_key,
    };
    if let Ok(accepted) = server.finish(last, [refused, candidate]) {
        assert_eq!(accepted.index, 1);
    }
}

/// A server's two SCRAM messages, for a client with a password or with keys.
pub fn scram_client(data: &[u8]) {
    let Some((&how, data)) = data.split_first() else {
        return;
    };
    let (first, last) = parted(data);
    let binding = match how & 3 {
        0 => ClientBinding::Unsupported,
        1 => ClientBinding::NotOffered,
        _ => ClientBinding::TlsServerEndPoint(CERTIFICATE),
    };
    let nonce = Nonce::new(CLIENT_NONCE).expect("a nonce");
    let secret = ScramSecret::derive(PASSWORD, SALT, ROUNDS);
    let (client, _) = Client::start("user", binding, nonce);
    // Keys only: a server may ask for a million rounds, which is slow by design and no news here.
    let credentials = Credentials::Keys {
        salt: SALT,
        iterations: ROUNDS,
        client_key: &secret.client_key,
        server_key: &secret.server_key,
    };
    if let Ok((last_step, answer)) = client.respond(first, credentials) {
        assert!(answer.len() <= first.len() + 256);
        let _ = last_step.verify(last);
    }
}
