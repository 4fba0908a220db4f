use super::*;
use proptest::prelude::*;

/// Where replies end, fed in pieces that end at `cuts`; an error, where it is met.
fn ends(bytes: &[u8], cuts: &[usize]) -> Result<Vec<usize>, ReplyError> {
    let mut scanner = Scanner::new();
    let mut found = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        while start < end {
            match scanner.scan(&bytes[start..end])? {
                Scan::End(used) => {
                    start += used;
                    found.push(start);
                    assert!(!scanner.is_midway());
                }
                Scan::More => start = end,
            }
        }
    }
    Ok(found)
}

/// At every cut, and byte by byte, the same is found.
fn check_ends(bytes: &[u8], expected: &Result<Vec<usize>, ReplyError>) {
    assert_eq!(&ends(bytes, &[]), expected, "{bytes:?}");
    for cut in 0..bytes.len() {
        assert_eq!(&ends(bytes, &[cut]), expected, "{bytes:?} cut at {cut}");
    }
    let all: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(&ends(bytes, &all), expected, "{bytes:?} byte by byte");
}

const REPLIES: [&str; 27] = [
    "+OK\r\n",
    "+\r\n",
    "-ERR unknown command 'x', with args beginning with: \r\n",
    ":-12\r\n",
    "$-1\r\n",
    "$0\r\n\r\n",
    "$5\r\nhello\r\n",
    "$12\r\n+a\r\n$3\r\nab\r\n\r\n",
    "*-1\r\n",
    "*0\r\n",
    "*2\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n",
    "_\r\n",
    "#t\r\n",
    ",3.25\r\n",
    ",inf\r\n",
    "(3492890328409238509324850943850943825024385\r\n",
    "!21\r\nSYNTAX invalid syntax\r\n",
    "=15\r\ntxt:Some string\r\n",
    "%0\r\n",
    "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n$1\r\nx\r\n",
    "~3\r\n+a\r\n#f\r\n_\r\n",
    ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
    "|1\r\n+key\r\n*2\r\n$1\r\na\r\n,0.1\r\n*2\r\n:1\r\n:2\r\n",
    "|0\r\n+OK\r\n",
    "*2\r\n|1\r\n+ttl\r\n:3600\r\n:1\r\n:2\r\n",
    "*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
    "*3\r\n*-1\r\n$-1\r\n$1\r\nx\r\n",
];

#[test]
fn every_reply_ends_where_it_ends() {
    for reply in REPLIES {
        check_ends(reply.as_bytes(), &Ok(vec![reply.len()]));
    }
    let all = REPLIES.concat();
    let expected: Vec<_> = REPLIES
        .iter()
        .scan(0, |end, reply| {
            *end += reply.len();
            Some(*end)
        })
        .collect();
    check_ends(all.as_bytes(), &Ok(expected));
}

#[test]
fn what_is_no_reply() {
    use ReplyError::{End, Length, Streamed, Type};
    for (bytes, error) in [
        (&b"x"[..], Type { mark: b'x' }),
        (b"*1\r\n\0", Type { mark: 0 }),
        (b"$-2\r\n", Length { mark: b'$' }),
        (b"%-1\r\n", Length { mark: b'%' }),
        (b"*1x", Length { mark: b'*' }),
        (b"$01\r\n", Length { mark: b'$' }),
        (b"%9223372036854775807\r\n", Length { mark: b'%' }),
        (b"$?\r\n", Streamed { mark: b'$' }),
        (b"*?\r\n", Streamed { mark: b'*' }),
        (b"$1\r\nab\r\n", End { mark: b'$' }),
        (b"$1\r\na\r\r", End { mark: b'$' }),
        (b"+OK\rx", End { mark: b'+' }),
    ] {
        let found = match error {
            // Doubled it no longer fits; a scanner that has seen all of it knows.
            Length { mark: b'%' } if bytes.len() > 10 => ends(bytes, &[]).map(|_| Vec::new()),
            _ => Err(error),
        };
        check_ends(bytes, &found);
    }
    // More elements than can be counted.
    let mut bytes = b"*9223372036854775807\r\n".repeat(3);
    assert_eq!(ends(&bytes, &[]), Err(Length { mark: b'*' }));
    bytes.truncate(44);
    assert_eq!(ends(&bytes, &[]), Ok(vec![]));
}

#[test]
fn depth_costs_nothing() {
    let depth = 100_000;
    let mut bytes = b"*1\r\n".repeat(depth);
    assert_eq!(ends(&bytes, &[17]), Ok(vec![]));
    bytes.extend_from_slice(b":1\r\n");
    assert_eq!(ends(&bytes, &[17]), Ok(vec![bytes.len()]));
    let mut value = Value::parse(&bytes).unwrap();
    for _ in 0..10 {
        value = value.items().unwrap().next().unwrap().unwrap();
    }
    let mut tokens = Tokens::new(&bytes);
    let mut read = 0;
    while !tokens.rest().is_empty() {
        tokens.token().unwrap();
        read += 1;
    }
    assert_eq!(read, depth + 1);
}

/// Half a gigabyte and more is counted, not kept.
#[test]
fn long_strings_are_skipped() {
    let mut scanner = Scanner::new();
    assert_eq!(scanner.scan(b"*2\r\n:1\r\n$536870912\r\n"), Ok(Scan::More));
    let block = vec![b'x'; 1 << 20];
    for _ in 0..512 {
        assert_eq!(scanner.scan(&block), Ok(Scan::More));
    }
    assert_eq!(scanner.scan(b"\r\n+OK\r\n"), Ok(Scan::End(2)));
}

#[test]
fn values() {
    let parse = |bytes: &'static str| Value::parse(bytes.as_bytes());
    assert!(matches!(parse("+OK\r\n"), Ok(Value::Simple(b"OK"))));
    assert!(matches!(parse("-ERR x\r\n"), Ok(Value::Error(b"ERR x"))));
    assert!(matches!(
        parse("!5\r\nERR x\r\n"),
        Ok(Value::Error(b"ERR x"))
    ));
    assert!(matches!(parse(":-7\r\n"), Ok(Value::Integer(-7))));
    assert!(matches!(parse("$-1\r\n"), Ok(Value::Null)));
    assert!(matches!(parse("*-1\r\n"), Ok(Value::Null)));
    assert!(matches!(parse("_\r\n"), Ok(Value::Null)));
    assert!(matches!(parse("#t\r\n"), Ok(Value::Boolean(true))));
    assert!(matches!(parse(",-inf\r\n"), Ok(Value::Double(b"-inf"))));
    assert!(matches!(parse("(12\r\n"), Ok(Value::BigNumber(b"12"))));
    assert!(matches!(
        parse("=6\r\nmkd:hi\r\n"),
        Ok(Value::Verbatim(b"mkd", b"hi"))
    ));
    assert!(matches!(
        parse("|1\r\n+a\r\n*1\r\n:1\r\n+OK\r\n"),
        Ok(Value::Simple(b"OK"))
    ));
    let map = parse("%1\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n").unwrap();
    let Value::Items(Kind::Map, items) = map else {
        panic!("a map")
    };
    let items: Vec<_> = items.map(Result::unwrap).collect();
    assert_eq!(items[0].string(), Some(&b"a"[..]));
    let inner: Vec<_> = items[1]
        .items()
        .unwrap()
        .map(|it| it.unwrap().integer())
        .collect();
    assert_eq!(inner, [Some(1), Some(2)]);
}

#[test]
fn values_that_are_none() {
    for (bytes, error) in [
        ("", ReplyError::CutOff),
        ("+OK", ReplyError::CutOff),
        ("$5\r\nhell", ReplyError::CutOff),
        ("$5\r\nhello\r", ReplyError::CutOff),
        ("+OK\r\n+OK\r\n", ReplyError::LeftOver),
        ("$1\r\nab\r\n", ReplyError::End { mark: b'$' }),
        (":x\r\n", ReplyError::Form),
        ("#x\r\n", ReplyError::Form),
        ("=3\r\nabc\r\n", ReplyError::Form),
        ("*4294967296\r\n", ReplyError::CutOff),
        ("*?\r\n", ReplyError::Streamed { mark: b'*' }),
    ] {
        assert_eq!(
            Value::parse(bytes.as_bytes()).err(),
            Some(error),
            "{bytes:?}"
        );
    }
    // An aggregate's errors show where they are.
    let mut items = Value::parse(b"*3\r\n:1\r\nx\r\n:2\r\n")
        .unwrap()
        .items()
        .unwrap();
    assert!(items.next().unwrap().is_ok());
    assert!(items.next().unwrap().is_err());
    assert!(items.next().is_none());
}

#[test]
fn writers() {
    use write::Version::{Resp2, Resp3};
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        check_ends(&out, &Ok(vec![out.len()]));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        written(&|out| write::error(out, b"ERR a\r\nb")),
        "-ERR a  b\r\n"
    );
    assert_eq!(
        written(&|out| write::integer(out, i64::MIN)),
        format!(":{}\r\n", i64::MIN)
    );
    assert_eq!(
        written(&|out| write::bulk(out, b"a\r\nb")),
        "$4\r\na\r\nb\r\n"
    );
    assert_eq!(written(&|out| write::null(out, Resp2)), "$-1\r\n");
    assert_eq!(written(&|out| write::null(out, Resp3)), "_\r\n");
    assert_eq!(written(&|out| write::null_array(out, Resp2)), "*-1\r\n");
    assert_eq!(written(&|out| write::boolean(out, Resp2, true)), ":1\r\n");
    assert_eq!(written(&|out| write::boolean(out, Resp3, false)), "#f\r\n");
    assert_eq!(written(&|out| write::double(out, Resp3, 1.5)), ",1.5\r\n");
    assert_eq!(
        written(&|out| write::double(out, Resp3, f64::NEG_INFINITY)),
        ",-inf\r\n"
    );
    assert_eq!(
        written(&|out| write::double(out, Resp2, 10.0)),
        "$2\r\n10\r\n"
    );
    assert_eq!(
        written(&|out| write::big_number(out, Resp3, b"12")),
        "(12\r\n"
    );
    assert_eq!(
        written(&|out| write::verbatim(out, Resp2, b"hi")),
        "$2\r\nhi\r\n"
    );
    assert_eq!(
        written(&|out| write::verbatim(out, Resp3, b"hi")),
        "=6\r\ntxt:hi\r\n"
    );
    assert_eq!(
        written(&|out| write::bulk_error(out, Resp3, b"E x")),
        "!3\r\nE x\r\n"
    );
    assert_eq!(written(&|out| write::map_header(out, Resp2, 0)), "*0\r\n");
    assert_eq!(written(&|out| write::map_header(out, Resp3, 0)), "%0\r\n");
    assert_eq!(written(&|out| write::push_header(out, Resp3, 0)), ">0\r\n");
    assert_eq!(written(&|out| write::set_header(out, Resp3, 0)), "~0\r\n");
    let mut out = Vec::new();
    write::map_header(&mut out, Resp2, 3);
    assert_eq!(out, b"*6\r\n");
}

fn leaf() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[ -~]{0,20}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
        any::<i64>().prop_map(|value| format!(":{value}\r\n").into_bytes()),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| {
            let mut out = Vec::new();
            write::bulk(&mut out, &bytes);
            out
        }),
        prop::sample::select(vec!["$-1\r\n", "*-1\r\n", "_\r\n", "#t\r\n", ",1e10\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

/// Any reply.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    leaf().prop_recursive(4, 32, 6, |inner| {
        let mark = prop::sample::select(vec![b'*', b'~', b'>', b'%', b'|']);
        (mark, prop::collection::vec(inner, 0..6)).prop_map(|(mark, mut items)| {
            let mut out = Vec::new();
            let pairs = items.len() / 2;
            let count = match mark {
                b'%' => {
                    items.truncate(pairs * 2);
                    pairs
                }
                b'|' => {
                    items.truncate(pairs * 2);
                    items.push(b"+behind\r\n".to_vec());
                    pairs
                }
                _ => items.len(),
            };
            write::header(&mut out, mark, count);
            out.extend(items.concat());
            out
        })
    })
}

/// Reads everything inside of a value.
fn visit(value: Value<'_>) -> Result<usize, ReplyError> {
    let mut count = 1;
    for item in value.items().into_iter().flatten() {
        count += visit(item?)?;
    }
    Ok(count)
}

proptest! {
    #[test]
    fn any_replies_cut_anywhere(
        replies in prop::collection::vec(reply(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let bytes = replies.concat();
        let mut end = 0;
        let expected: Vec<_> = replies.iter().map(|reply| { end += reply.len(); end }).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(ends(&bytes, &cuts), Ok(expected));
        for reply in &replies {
            prop_assert!(visit(Value::parse(reply).unwrap()).is_ok());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut: prop::sample::Index) {
        let cut = cut.index(bytes.len() + 1);
        match (ends(&bytes, &[]), ends(&bytes, &[cut])) {
            (Err(_), Err(_)) => {}
            (whole, parts) => prop_assert_eq!(whole, parts),
        }
        let _ = Value::parse(&bytes).map(visit);
    }
}
