use super::*;
use crate::frame;
use crate::{DecodeError, EncodeError, PROTOCOL_3_0};
use proptest::prelude::*;

/// The one message that `write` appends, after checking that every cut of it asks for the missing bytes.
fn message(write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    for cut in 0..out.len() {
        let more = if cut < 5 { 5 - cut } else { out.len() - cut };
        assert_eq!(
            frame::split(&out[..cut], 1 << 20),
            Ok(frame::Split::Need(more)),
            "cut {cut}"
        );
    }
    match frame::split(&out, 1 << 20) {
        Ok(frame::Split::Message { tag, body, used }) if used == out.len() => (tag, body.to_vec()),
        other => panic!("{other:?}"),
    }
}

const ERROR: ErrorResponse<'_> = ErrorResponse {
    severity: Severity::Fatal,
    code: "28P01",
    message: "no",
    detail: None,
    hint: Some("try"),
};

#[test]
fn golden_bytes() {
    let mut out = Vec::new();
    write::authentication_ok(&mut out);
    write::ready_for_query(&mut out, TransactionStatus::Failed);
    write::parse_complete(&mut out);
    write::bind_complete(&mut out);
    write::close_complete(&mut out);
    write::no_data(&mut out);
    write::empty_query_response(&mut out);
    let expected: &[u8] =
        b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05E1\0\0\0\x042\0\0\0\x043\0\0\0\x04n\0\0\0\x04I\0\0\0\x04";
    assert_eq!(out, expected);

    out.clear();
    write::error_response(&mut out, &ERROR);
    assert_eq!(out, b"E\0\0\0\x23SFATAL\0VFATAL\0C28P01\0Mno\0Htry\0\0");
    out.clear();
    write::authentication_sasl(&mut out, &[b"A", b"B"]).unwrap();
    assert_eq!(out, b"R\0\0\0\x0d\0\0\0\x0aA\0B\0\0");
    out.clear();
    write::authentication_sasl_continue(&mut out, b"r=").unwrap();
    assert_eq!(out, b"R\0\0\0\x0a\0\0\0\x0br=");
    out.clear();
    write::authentication_sasl_final(&mut out, b"v=").unwrap();
    assert_eq!(out, b"R\0\0\0\x0a\0\0\0\x0cv=");
    out.clear();
    write::backend_key_data(&mut out, 1, b"key!").unwrap();
    assert_eq!(out, b"K\0\0\0\x0c\0\0\0\x01key!");
    out.clear();
    write::command_complete(&mut out, b"BEGIN").unwrap();
    assert_eq!(out, b"C\0\0\0\x0aBEGIN\0");
}

#[test]
fn authentication_round_trips() {
    let (tag, body) =
        message(|out| write::authentication_sasl(out, &[b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"]));
    assert_eq!(tag, tag::AUTHENTICATION);
    let Ok(Authentication::Sasl(names)) = Authentication::decode(&body) else {
        panic!("SASL")
    };
    assert_eq!(
        names.collect::<Vec<_>>(),
        [&b"SCRAM-SHA-256-PLUS"[..], b"SCRAM-SHA-256"]
    );
    let (_, body) = message(|out| write::authentication_sasl_continue(out, b"data"));
    assert_eq!(
        Authentication::decode(&body),
        Ok(Authentication::SaslContinue(b"data"))
    );
    let (_, body) = message(|out| write::authentication_sasl_final(out, b"data"));
    assert_eq!(
        Authentication::decode(&body),
        Ok(Authentication::SaslFinal(b"data"))
    );
    let md5 = Authentication::Md5Password { salt: *b"salt" };
    assert_eq!(Authentication::decode(b"\0\0\0\x05salt"), Ok(md5));
    assert_eq!(
        Authentication::decode(b"\0\0\0\x03"),
        Ok(Authentication::CleartextPassword)
    );
    assert_eq!(Authentication::decode(b"\0\0\0\0"), Ok(Authentication::Ok));
    assert_eq!(
        Authentication::decode(b"\0\0\0\x07more"),
        Ok(Authentication::Other(7))
    );
}

#[test]
fn error_fields_are_found_and_texts_cut() {
    let long = "é".repeat(write::MAX_ERROR_TEXT);
    let error = ErrorResponse {
        detail: Some(&long),
        message: "a\0b",
        ..ERROR
    };
    let (tag, body) = message(|out| {
        write::error_response(out, &error);
        Ok(())
    });
    assert_eq!(tag, tag::ERROR_RESPONSE);
    let fields = ErrorFields::decode(&body).unwrap();
    assert_eq!(fields.code(), Some(&b"28P01"[..]));
    assert_eq!(fields.message(), Some(&b"a"[..]));
    assert_eq!(
        fields.get(field::DETAIL).map(<[u8]>::len),
        Some(write::MAX_ERROR_TEXT)
    );
    assert_eq!(fields.get(field::POSITION), None);
    assert!(fields.is_fatal());
    assert_eq!(fields.map(|(tag, _)| tag).collect::<Vec<_>>(), b"SVCMDH");
    let (tag, body) = message(|out| {
        write::notice_response(
            out,
            &ErrorResponse {
                severity: Severity::Notice,
                ..ERROR
            },
        );
        Ok(())
    });
    assert_eq!(tag, tag::NOTICE_RESPONSE);
    assert!(!ErrorFields::decode(&body).unwrap().is_fatal());
}

#[test]
fn command_tags_tell_rows() {
    let check = |tag: &[u8], rows| assert_eq!(CommandComplete { tag }.rows(), rows, "{tag:?}");
    check(b"SELECT 12", Some(12));
    check(b"INSERT 0 5", Some(5));
    check(b"COPY 0", Some(0));
    check(b"UPDATE 18446744073709551615", Some(u64::MAX));
    check(b"UPDATE 18446744073709551616", None);
    check(b"CREATE TABLE", None);
    check(b"BEGIN", None);
    check(b"5", None);
    check(b"SELECT ", None);
    check(b"", None);
}

#[test]
fn status_messages_round_trip() {
    for status in [
        TransactionStatus::Idle,
        TransactionStatus::InTransaction,
        TransactionStatus::Failed,
    ] {
        let (_, body) = message(|out| {
            write::ready_for_query(out, status);
            Ok(())
        });
        assert_eq!(ReadyForQuery::decode(&body), Ok(ReadyForQuery { status }));
    }
    for key in [&[1; 4][..], &[2; 256]] {
        let (_, body) = message(|out| write::backend_key_data(out, 9, key));
        assert!(
            BackendKeyData::decode(&body).is_ok_and(|data| data.process_id == 9 && data.key == key)
        );
    }
    let (_, body) = message(|out| {
        write::negotiate_protocol_version(out, PROTOCOL_3_0, &[b"_pq_.a", b"_pq_.b"])
    });
    let negotiate = NegotiateProtocolVersion::decode(&body).unwrap();
    assert_eq!(negotiate.protocol, PROTOCOL_3_0);
    assert_eq!(
        negotiate.unknown_options.collect::<Vec<_>>(),
        [b"_pq_.a", b"_pq_.b"]
    );
    let notification = NotificationResponse {
        process_id: 3,
        channel: b"c",
        payload: b"",
    };
    assert_eq!(
        NotificationResponse::decode(b"\0\0\0\x03c\0\0"),
        Ok(notification)
    );
}

#[test]
fn decodes_refuse_broken_bodies() {
    assert_eq!(
        Authentication::decode(b"\0\0\0"),
        Err(DecodeError::Truncated)
    );
    assert_eq!(
        Authentication::decode(b"\0\0\0\0x"),
        Err(DecodeError::LeftOver(1))
    );
    assert_eq!(
        Authentication::decode(b"\0\0\0\x0aA\0"),
        Err(DecodeError::Unterminated)
    );
    assert_eq!(
        Authentication::decode(b"\0\0\0\x0aA\0\0x"),
        Err(DecodeError::LeftOver(1))
    );
    assert_eq!(ErrorFields::decode(b""), Err(DecodeError::Truncated));
    assert_eq!(ErrorFields::decode(b"Ma\0"), Err(DecodeError::Truncated));
    assert_eq!(ErrorFields::decode(b"Ma"), Err(DecodeError::Unterminated));
    assert_eq!(
        ErrorFields::decode(b"Ma\0\0x"),
        Err(DecodeError::LeftOver(1))
    );
    assert_eq!(
        ReadyForQuery::decode(b"X"),
        Err(DecodeError::Invalid("transaction status"))
    );
    assert_eq!(ReadyForQuery::decode(b"II"), Err(DecodeError::LeftOver(1)));
    assert_eq!(
        ParameterStatus::decode(b"a\0b"),
        Err(DecodeError::Unterminated)
    );
    assert_eq!(
        CommandComplete::decode(b"a\0b"),
        Err(DecodeError::LeftOver(1))
    );
    let key = Some(DecodeError::Invalid("cancel key length"));
    assert_eq!(BackendKeyData::decode(b"\0\0\0\x01abc").err(), key);
    assert_eq!(BackendKeyData::decode(&[0; 4 + 257]).err(), key);
    let hostile = NegotiateProtocolVersion::decode(b"\0\x03\0\0\xff\xff\xff\xffa\0");
    assert_eq!(hostile, Err(DecodeError::Unterminated));
}

#[test]
fn writes_refuse_what_a_client_would_misread() {
    let mut out = b"before".to_vec();
    assert_eq!(
        write::authentication_sasl(&mut out, &[b""]),
        Err(EncodeError::EmptyName)
    );
    assert_eq!(
        write::parameter_status(&mut out, b"a", b"\0"),
        Err(EncodeError::ZeroByte)
    );
    assert_eq!(
        write::command_complete(&mut out, b"\0"),
        Err(EncodeError::ZeroByte)
    );
    assert_eq!(
        write::backend_key_data(&mut out, 1, b"abc"),
        Err(EncodeError::BadLength)
    );
    assert_eq!(
        write::negotiate_protocol_version(&mut out, 0, &[b"\0"]),
        Err(EncodeError::ZeroByte)
    );
    assert_eq!(out, b"before");
}

proptest! {
    #[test]
    fn parameter_status_round_trips(name in "[^\0]{0,20}", value in "[^\0]{0,20}") {
        let (tag, body) = message(|out| write::parameter_status(out, name.as_bytes(), value.as_bytes()));
        prop_assert_eq!(tag, tag::PARAMETER_STATUS);
        let expected = ParameterStatus { name: name.as_bytes(), value: value.as_bytes() };
        prop_assert_eq!(ParameterStatus::decode(&body), Ok(expected));
    }

    #[test]
    fn decodes_never_panic(body: Vec<u8>, kind in 0..16_u8) {
        let _ = Authentication::decode(&[&[0, 0, 0, kind], &body[..]].concat());
        let _ = ErrorFields::decode(&body).map(Iterator::count);
        let _ = ParameterStatus::decode(&body);
        let _ = BackendKeyData::decode(&body);
        let _ = ReadyForQuery::decode(&body);
        let _ = CommandComplete::decode(&body).map(CommandComplete::rows);
        let _ = CommandComplete { tag: &body }.rows();
        let _ = NotificationResponse::decode(&body);
        let _ = NegotiateProtocolVersion::decode(&body).map(|found| found.unknown_options.count());
    }
}
