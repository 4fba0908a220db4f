use super::*;
use proptest::prelude::*;

fn params() -> [(&'static [u8], &'static [u8]); 3] {
    [
        (b"user", b"alice"),
        (b"database", b"shop__acme"),
        (b"application_name", b"\xff"),
    ]
}

/// The packet is found whole, and at every cut the right number of bytes is asked for.
fn check(input: &[u8], expected: StartupPacket<'_>) {
    for cut in 0..input.len() {
        let more = if cut < 4 { 4 - cut } else { input.len() - cut };
        assert_eq!(split(&input[..cut]), Ok(Split::Need(more)), "cut {cut}");
    }
    let used = input.len();
    assert_eq!(
        split(input),
        Ok(Split::Packet {
            packet: expected,
            used
        })
    );
    let more = [input, b"next"].concat();
    assert_eq!(
        split(&more),
        Ok(Split::Packet {
            packet: expected,
            used
        })
    );
}

#[test]
fn golden_requests() {
    check(b"\0\0\0\x08\x04\xd2\x16\x2f", StartupPacket::Ssl);
    check(b"\0\0\0\x08\x04\xd2\x16\x30", StartupPacket::GssEnc);
    check(
        b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x01\0\xde\xad\xbe\xef",
        StartupPacket::Cancel {
            process_id: 256,
            key: &[0xde, 0xad, 0xbe, 0xef],
        },
    );
    check(
        b"\0\0\0\x10\0\x03\0\x02user\0a\0\0",
        StartupPacket::Startup {
            major: 3,
            minor: 2,
            params: Params(b"user\0a\0\0"),
        },
    );
}

#[test]
fn startup_round_trip() {
    let mut out = Vec::new();
    write::startup_message(&mut out, crate::PROTOCOL_3_2, params()).unwrap();
    let Ok(Split::Packet {
        packet:
            StartupPacket::Startup {
                major,
                minor,
                params: got,
            },
        used,
    }) = split(&out)
    else {
        panic!("no startup message");
    };
    assert_eq!((major, minor, used), (3, 2, out.len()));
    assert_eq!(got.collect::<Vec<_>>(), params());
    assert_eq!(got.get(b"database"), Some(&b"shop__acme"[..]));
    assert_eq!(got.get(b"data"), None);
}

#[test]
fn requests_round_trip() {
    let mut out = Vec::new();
    write::ssl_request(&mut out);
    check(&out, StartupPacket::Ssl);
    for key in [&[1; 4][..], &[2; 32], &[3; 256]] {
        out.clear();
        write::cancel_request(&mut out, 7, key).unwrap();
        check(&out, StartupPacket::Cancel { process_id: 7, key });
    }
}

#[test]
fn refuses_broken_packets() {
    for declared in [0, 3, 7, MAX_PACKET + 1, u32::MAX] {
        assert_eq!(
            split(&declared.to_be_bytes()),
            Err(StartupError::Length(declared))
        );
    }
    let unsupported = StartupError::Unsupported { major: 2, minor: 0 };
    assert_eq!(split(b"\0\0\0\x08\0\x02\0\0"), Err(unsupported));
    let cases: [(&[u8], DecodeError); 6] = [
        (b"\0\0\0\x09\x04\xd2\x16\x2fx", DecodeError::LeftOver(1)),
        (
            b"\0\0\0\x0f\x04\xd2\x16\x2e\0\0\0\x01abc",
            DecodeError::Invalid("cancel key length"),
        ),
        (b"\0\0\0\x08\0\x03\0\0", DecodeError::Unterminated),
        (b"\0\0\0\x0d\0\x03\0\0user\0", DecodeError::Unterminated),
        (b"\0\0\0\x0f\0\x03\0\0user\0a\0", DecodeError::Unterminated),
        (b"\0\0\0\x0a\0\x03\0\0\0x", DecodeError::LeftOver(1)),
    ];
    for (input, error) in cases {
        assert_eq!(split(input), Err(StartupError::Decode(error)), "{input:?}");
    }
}

#[test]
fn write_refuses_what_no_server_takes_and_leaves_the_buffer_alone() {
    use crate::EncodeError;
    let mut out = b"before".to_vec();
    let mut check = |name: &[u8], value: &[u8], error| {
        let written = write::startup_message(&mut out, crate::PROTOCOL_3_0, [(name, value)]);
        assert_eq!(written, Err(error));
    };
    check(b"user", b"a\0b", EncodeError::ZeroByte);
    check(b"us\0er", b"a", EncodeError::ZeroByte);
    check(b"", b"a", EncodeError::EmptyName);
    check(b"user", &[b'x'; 10_000], EncodeError::TooLong);
    for key in [&[0; 3][..], &[0; 257]] {
        assert_eq!(
            write::cancel_request(&mut out, 7, key),
            Err(EncodeError::TooLong)
        );
    }
    assert_eq!(out, b"before");
}

#[test]
fn parses_options() {
    let check = |input: &[u8], expected: &[(&str, &str)]| {
        let got: Vec<_> = settings(input)
            .map(Result::unwrap)
            .map(|s| (s.name, s.value))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
            .collect();
        assert_eq!(got, expected, "{input:?}");
    };
    check(b"", &[]);
    check(b" \t\n ", &[]);
    check(b"-c geqo=off", &[("geqo", "off")]);
    check(
        b"-cgeqo=off --work-mem=4MB",
        &[("geqo", "off"), ("work_mem", "4MB")],
    );
    check(br"-c search_path=a,\ b\\c", &[("search_path", r"a, b\c")]);
    check(b"-c a= --b==c", &[("a", ""), ("b", "=c")]);
    check(br"-c a=b\", &[("a", "b")]);
}

#[test]
fn refuses_other_options_and_then_ends() {
    let check = |input: &[u8], error| {
        let got: Vec<_> = settings(input).collect();
        assert_eq!(got, [Err(error)], "{input:?}");
    };
    check(b"-F -c a=b", OptionError::UnknownSwitch);
    check(b"word", OptionError::UnknownSwitch);
    check(b"-c", OptionError::NoValue);
    check(b"-c a -c b=c", OptionError::NoValue);
    check(b"--=x", OptionError::NoValue);
}

proptest! {
    #[test]
    fn never_panics(mut input in proptest::collection::vec(any::<u8>(), 0..200), valid: bool) {
        if valid && input.len() >= 8 {
            let len = u32::try_from(input.len()).unwrap();
            input[..4].copy_from_slice(&len.to_be_bytes());
            input[4..8].copy_from_slice(&[0, 3, 0, 0]);
        }
        if let Ok(Split::Packet { packet: StartupPacket::Startup { params, .. }, used }) = split(&input) {
            prop_assert!(params.count() * 2 <= used);
        }
        prop_assert!(settings(&input).count() <= input.len());
    }
}
