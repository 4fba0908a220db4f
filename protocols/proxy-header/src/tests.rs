use super::*;

fn of_version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, rest].concat()
}

fn v4(extension: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0xd9, 0x03, 0x1f, 0x90];
    of_version_2(0x21, 0x11, &[&addresses, extension].concat())
}

fn v6() -> Vec<u8> {
    let mut addresses = [0; 36];
    addresses[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    addresses[15] = 9;
    addresses[32..].copy_from_slice(&[0, 80, 1, 187]);
    of_version_2(0x21, 0x21, &addresses)
}

fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    vec![
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.1 55555 8080\r\n".to_vec(),
            Some("192.0.2.7:55555"),
        ),
        (
            b"PROXY TCP6 2001:db8::9 ::1 80 443\r\n".to_vec(),
            Some("[2001:db8::9]:80"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (
            b"PROXY UNKNOWN ffff:f...f ffff:f...f 1 2\r\n".to_vec(),
            None,
        ),
        (v4(b""), Some("192.0.2.7:55555")),
        (v4(&[4, 0, 1, 0]), Some("192.0.2.7:55555")),
        (v6(), Some("[2001:db8::9]:80")),
        (of_version_2(0x20, 0x00, b""), None),
        (of_version_2(0x20, 0x11, b"nothing that is looked at"), None),
        (of_version_2(0x21, 0x31, &[0; 216]), None),
    ]
}

#[test]
fn headers_tell_whose_connection_it_is() {
    for (mut header, expected) in headers() {
        let used = header.len();
        header.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let source = expected.map(|it| it.parse().unwrap());
        assert_eq!(parse(&header), Ok(Parsed::Header { source, used }));
    }
}

/// Whoever reads exactly what is missing gets the header and nothing of what follows.
#[test]
fn what_is_missing_is_never_more_than_the_header() {
    for (header, _) in headers() {
        let mut have = 0;
        loop {
            match parse(&header[..have]).unwrap() {
                Parsed::Need(more) => have += more,
                Parsed::Header { used, .. } => break assert_eq!(used, header.len()),
            }
        }
        for cut in 0..header.len() {
            assert!(
                matches!(parse(&header[..cut]), Ok(Parsed::Need(_))),
                "{cut}"
            );
        }
    }
}

#[test]
fn what_is_no_header_is_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    let bad_v4 = of_version_2(0x21, 0x11, &[1, 2, 3]);
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], HeaderError::NoHeader),
        (b"\x00\x00\x00\x08", HeaderError::NoHeader),
        (b"\r\n\r\nGET", HeaderError::NoHeader),
        (b"PROXY\tTCP4", HeaderError::NoHeader),
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.1 55555\r\n",
            HeaderError::Malformed,
        ),
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
            HeaderError::Malformed,
        ),
        (b"PROXY TCP4 192.0.2.7 ::1 1 2\r\n", HeaderError::Malformed),
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
            HeaderError::Malformed,
        ),
        (
            b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 2\r\n",
            HeaderError::Malformed,
        ),
        (
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
            HeaderError::Malformed,
        ),
        (b"PROXY UNKNOWN\n", HeaderError::Malformed),
        (
            b"PROXY \xff\xff\xff\xff\xff\xff\xff\r\n",
            HeaderError::Malformed,
        ),
        (long.as_bytes(), HeaderError::TooLong),
        (&of_version_2(0x11, 0x11, &[0; 12]), HeaderError::Version),
        (&of_version_2(0x22, 0x11, &[0; 12]), HeaderError::Version),
        (&of_version_2(0x21, 0x51, &[0; 12]), HeaderError::Malformed),
        (&bad_v4, HeaderError::Malformed),
        (&of_version_2(0x21, 0x11, &[0; 4090]), HeaderError::TooLong),
    ] {
        assert_eq!(parse(bytes), Err(expected), "{bytes:?}");
    }
}
