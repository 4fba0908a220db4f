use super::*;
use crate::frame;
use crate::{DecodeError, EncodeError};
use proptest::prelude::*;

/// The one message in `out`, after checking that every cut of it asks for the missing bytes.
fn only_message(out: &[u8]) -> (u8, &[u8]) {
    for cut in 0..out.len() {
        let more = if cut < 5 { 5 - cut } else { out.len() - cut };
        assert_eq!(
            frame::split(&out[..cut], 1000),
            Ok(frame::Split::Need(more)),
            "cut {cut}"
        );
    }
    match frame::split(out, 1000) {
        Ok(frame::Split::Message { tag, body, used }) if used == out.len() => (tag, body),
        other => panic!("{other:?}"),
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    out
}

#[test]
fn golden_bytes() {
    let check = |write: &dyn Fn(&mut Vec<u8>) -> Result<(), EncodeError>, expected: &[u8]| {
        assert_eq!(written(write), expected);
    };
    check(
        &|out| write::query(out, b"SELECT 1"),
        b"Q\0\0\0\x0dSELECT 1\0",
    );
    check(
        &|out| write::parse(out, b"s", b"q", &[0, 0, 0, 23]),
        b"P\0\0\0\x0es\0q\0\0\x01\0\0\0\x17",
    );
    check(
        &|out| write::describe(out, Kind::Statement, b"s"),
        b"D\0\0\0\x07Ss\0",
    );
    check(
        &|out| write::close(out, Kind::Portal, b""),
        b"C\0\0\0\x06P\0",
    );
    check(
        &|out| write::execute(out, b"p", 500),
        b"E\0\0\0\x0ap\0\0\0\x01\xf4",
    );
    check(&|out| write::copy_fail(out, b"no"), b"f\0\0\0\x07no\0");
    check(&|out| write::password(out, b"pw"), b"p\0\0\0\x07pw\0");
    check(
        &|out| write::sasl_initial_response(out, b"M", b"ab"),
        b"p\0\0\0\x0cM\0\0\0\0\x02ab",
    );
    check(&|out| write::sasl_response(out, b"ab"), b"p\0\0\0\x06ab");
    let mut out = Vec::new();
    write::sync(&mut out);
    write::flush(&mut out);
    write::terminate(&mut out);
    assert_eq!(out, b"S\0\0\0\x04H\0\0\0\x04X\0\0\0\x04");
}

#[test]
fn bind_header_renames_the_statement_and_keeps_the_length_right() {
    let body = b"portal\0old\0\0\0\0\x01\0\0\0\x01x\0\0";
    let body_len = u32::try_from(body.len()).unwrap();
    let Ok(BindPrefix::Names(names)) = BindNames::decode_prefix(body, body_len, 64) else {
        panic!("names")
    };
    let mut out = written(|out| write::bind_header(out, &names, body_len, b"renamed"));
    out.extend_from_slice(&body[names.encoded_len()..]);
    let (tag, new) = only_message(&out);
    let old = Bind::decode(body).unwrap();
    assert_eq!(tag, tag::BIND);
    assert_eq!(
        Bind::decode(new),
        Ok(Bind {
            statement: b"renamed",
            ..old
        })
    );
}

#[test]
fn bind_header_refuses_impossible_input() {
    let names = BindNames {
        portal: b"",
        statement: b"old",
    };
    let mut out = b"before".to_vec();
    assert_eq!(
        write::bind_header(&mut out, &names, 4, b"x"),
        Err(EncodeError::BadLength)
    );
    assert_eq!(
        write::bind_header(&mut out, &names, 5, b"\0"),
        Err(EncodeError::ZeroByte)
    );
    assert_eq!(
        write::bind_header(&mut out, &names, u32::MAX, b"x"),
        Err(EncodeError::TooLong)
    );
    assert_eq!(out, b"before");
}

#[test]
fn bind_names_at_every_cut() {
    let body = b"portal\0old\0rest";
    let names = BindNames {
        portal: b"portal",
        statement: b"old",
    };
    for cut in 0..=body.len() {
        let expected = if cut < 11 {
            BindPrefix::Need(1)
        } else {
            BindPrefix::Names(names)
        };
        assert_eq!(
            BindNames::decode_prefix(&body[..cut], 15, 11),
            Ok(expected),
            "cut {cut}"
        );
    }
    let too_long = Err(DecodeError::Invalid("length of names"));
    assert_eq!(BindNames::decode_prefix(body, 15, 10), too_long);
    // The next message's bytes are no part of this body.
    assert_eq!(
        BindNames::decode_prefix(body, 10, 64),
        Err(DecodeError::Unterminated)
    );
    assert_eq!(
        BindNames::decode_prefix(b"", 0, 64),
        Err(DecodeError::Unterminated)
    );
}

#[test]
fn decodes_refuse_broken_bodies() {
    let left_over = DecodeError::LeftOver(1);
    assert_eq!(Query::decode(b"a"), Err(DecodeError::Unterminated));
    assert_eq!(Query::decode(b"a\0b"), Err(left_over));
    assert_eq!(
        Parse::decode(b"s\0q\0\xff\xff\0\0\0\x01"),
        Err(DecodeError::Truncated)
    );
    assert_eq!(Parse::decode(b"s\0q\0\0\0x"), Err(left_over));
    assert_eq!(Bind::decode(b"p\0s"), Err(DecodeError::Unterminated));
    assert_eq!(
        Describe::decode(b"Xs\0"),
        Err(DecodeError::Invalid("kind of object"))
    );
    assert_eq!(Describe::decode(b""), Err(DecodeError::Truncated));
    assert_eq!(Close::decode(b"Ss\0s"), Err(left_over));
    assert_eq!(Execute::decode(b"p\0\0\0\x01"), Err(DecodeError::Truncated));
    assert_eq!(
        SaslInitialResponse::decode(b"M\0\x7f\xff\xff\xffab"),
        Err(DecodeError::Truncated)
    );
    let negative = Err(DecodeError::Invalid("response length"));
    assert_eq!(
        SaslInitialResponse::decode(b"M\0\xff\xff\xff\xfe"),
        negative
    );
    assert_eq!(PasswordMessage::decode(b"a\0b").err(), Some(left_over));
}

#[test]
fn a_sasl_response_may_be_missing() {
    let none = SaslInitialResponse {
        mechanism: b"M",
        response: None,
    };
    assert_eq!(
        SaslInitialResponse::decode(b"M\0\xff\xff\xff\xff"),
        Ok(none)
    );
    let empty = SaslInitialResponse {
        mechanism: b"M",
        response: Some(b""),
    };
    assert_eq!(SaslInitialResponse::decode(b"M\0\0\0\0\0"), Ok(empty));
}

#[test]
fn writes_refuse_zero_bytes_and_wrong_lists() {
    let mut out = b"before".to_vec();
    assert_eq!(write::query(&mut out, b"a\0b"), Err(EncodeError::ZeroByte));
    assert_eq!(
        write::parse(&mut out, b"a", b"b\0", b""),
        Err(EncodeError::ZeroByte)
    );
    assert_eq!(
        write::parse(&mut out, b"a", b"b", b"123"),
        Err(EncodeError::BadLength)
    );
    assert_eq!(
        write::parse(&mut out, b"a", b"b", &[0; 4 << 16]),
        Err(EncodeError::TooLong)
    );
    assert_eq!(
        write::close(&mut out, Kind::Portal, b"\0"),
        Err(EncodeError::ZeroByte)
    );
    assert_eq!(out, b"before");
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(1..=u8::MAX, 0..20)
}

proptest! {
    #[test]
    fn round_trips(a in text(), b in text(), types: [u8; 12], max_rows: i32, data: Vec<u8>) {
        let out = written(|out| write::query(out, &a));
        prop_assert_eq!(Query::decode(only_message(&out).1), Ok(Query { query: &a }));
        let out = written(|out| write::parse(out, &a, &b, &types));
        let parse = Parse { name: &a, query: &b, param_types: &types };
        prop_assert_eq!(Parse::decode(only_message(&out).1), Ok(parse));
        for kind in [Kind::Statement, Kind::Portal] {
            let out = written(|out| write::describe(out, kind, &a));
            prop_assert_eq!(Describe::decode(only_message(&out).1), Ok(Describe { kind, name: &a }));
            let out = written(|out| write::close(out, kind, &a));
            prop_assert_eq!(Close::decode(only_message(&out).1), Ok(Close { kind, name: &a }));
        }
        let out = written(|out| write::execute(out, &a, max_rows));
        prop_assert_eq!(Execute::decode(only_message(&out).1), Ok(Execute { portal: &a, max_rows }));
        let out = written(|out| write::sasl_initial_response(out, &a, &data));
        let sasl = SaslInitialResponse { mechanism: &a, response: Some(&data) };
        prop_assert_eq!(SaslInitialResponse::decode(only_message(&out).1), Ok(sasl));
        let out = written(|out| write::sasl_response(out, &data));
        prop_assert_eq!(SaslResponse::decode(only_message(&out).1), SaslResponse { data: &data });
        let out = written(|out| write::password(out, &b));
        let decoded = PasswordMessage::decode(only_message(&out).1).map(|message| message.password);
        prop_assert_eq!(decoded, Ok(&b[..]));
    }

    #[test]
    fn decodes_never_panic(body: Vec<u8>, len: u32, max: usize) {
        let _ = Query::decode(&body);
        let _ = Parse::decode(&body);
        let _ = Bind::decode(&body);
        let _ = BindNames::decode_prefix(&body, len, max);
        let _ = Describe::decode(&body);
        let _ = Close::decode(&body);
        let _ = Execute::decode(&body);
        let _ = SaslInitialResponse::decode(&body);
        let _ = PasswordMessage::decode(&body);
    }
}
