use super::*;
use crate::reply::write;
use proptest::prelude::*;

fn parser() -> Parser {
    let mut parser = Parser::new();
    parser.set_authenticated(true);
    parser
}

/// What a parser finds in `bytes`, fed in pieces that end at `cuts`.
fn commands(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Vec<Vec<u8>>>, RequestError> {
    let mut parser = parser();
    let mut args = Args::new();
    let mut found = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        while start < end {
            let part = &bytes[start..end];
            match parser.next(part, &mut args)? {
                Next::Command { used } => {
                    let command = args.command(part);
                    check_spans(command);
                    found.push(command.args().map(<[u8]>::to_vec).collect());
                    start += used;
                }
                Next::Empty { used } => start += used,
                Next::Incomplete { need } => {
                    assert!(need > 0);
                    break;
                }
                Next::Large => panic!("small commands only"),
            }
        }
    }
    Ok(found)
}

/// What is said of where things lie is so.
fn check_spans(command: Command<'_>) {
    let args: Vec<_> = command.args().collect();
    let mut encoded = Vec::new();
    write::command(&mut encoded, &args);
    assert_eq!(encoded, command.raw());
    for (index, arg) in args.iter().enumerate() {
        assert_eq!(&command.raw()[command.range(index).unwrap()], *arg);
        let header = &command.raw()[command.header_at(index)..];
        assert!(header.starts_with(format!("${}\r\n", arg.len()).as_bytes()));
    }
    assert_eq!(command.header_at(command.argc()), command.raw().len());
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

const CAPTURE: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$12\r\nhello\r\nworld\r\n\r\n*0\r\nPING\r\n*-1\r\n  get  \"a\"\n*1\r\n$4\r\nQUIT\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n";

#[test]
fn every_cut_gives_the_same_commands() {
    let expected = vec![
        vec![b"SET".to_vec(), b"a".to_vec(), b"hello\r\nworld".to_vec()],
        words("PING"),
        words("get a"),
        words("QUIT"),
        words("GET "),
    ];
    assert_eq!(commands(CAPTURE, &[]).unwrap(), expected);
    for first in 0..CAPTURE.len() {
        assert_eq!(commands(CAPTURE, &[first]).unwrap(), expected, "{first}");
        for second in first..CAPTURE.len() {
            assert_eq!(commands(CAPTURE, &[first, second]).unwrap(), expected);
        }
    }
    let all: Vec<_> = (0..CAPTURE.len()).collect();
    assert_eq!(commands(CAPTURE, &all).unwrap(), expected);
}

fn refusal(bytes: &[u8]) -> String {
    let whole = commands(bytes, &[]).expect_err("refused");
    let all: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(commands(bytes, &all), Err(whole));
    whole.to_string()
}

#[test]
fn refusals_are_those_of_redis() {
    let invalid = "Protocol error: invalid multibulk length";
    for bytes in [
        "*3000000000\r\n",
        "*1048577\r\n",
        "*x\r\n",
        "*\r\n",
        "*1 \r\n",
        "*01\r\n",
        "*99999999999999999999999999",
    ] {
        assert_eq!(refusal(bytes.as_bytes()), invalid, "{bytes:?}");
    }
    let invalid = "Protocol error: invalid bulk length";
    for length in [
        "-10",
        "2000000000",
        "536870913",
        "x",
        "",
        "+1",
        "18446744073709551616",
    ] {
        let bytes = format!("*3\r\n$3\r\nSET\r\n$1\r\nx\r\n${length}\r\n");
        assert_eq!(refusal(bytes.as_bytes()), invalid, "{bytes:?}");
    }
    assert_eq!(
        refusal(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n"),
        "Protocol error: expected '$', got 'f'"
    );
    assert_eq!(
        refusal(b"*1\r\n\rX"),
        "Protocol error: expected '$', got ' '"
    );
    assert_eq!(
        refusal(b"set \"\"\"test\"\"\" test\r\n"),
        "Protocol error: unbalanced quotes in request"
    );
    assert_eq!(
        refusal(b"*1\r\n$4\r\nPINGs\r\n"),
        "Protocol error: expected a line end after the argument"
    );
    let line = vec![b'a'; MAX_INLINE + 1];
    assert_eq!(refusal(&line), "Protocol error: too big inline request");
}

#[test]
fn a_line_may_be_as_long_as_the_limit() {
    let mut line = vec![b'a'; MAX_INLINE];
    assert_eq!(
        parser().next(&line, &mut Args::new()),
        Ok(Next::Incomplete { need: 1 })
    );
    line.push(b'\n');
    assert_eq!(
        commands(&line, &[10, MAX_INLINE]).unwrap(),
        [[vec![b'a'; MAX_INLINE]]]
    );
    // What two bytes of a line become is longer than they are.
    let many = [b"a ".repeat(MAX_INLINE / 2), b"\n".to_vec()].concat();
    assert_eq!(commands(&many, &[]).unwrap()[0].len(), MAX_INLINE / 2);
}

#[test]
fn less_is_allowed_before_login() {
    let mut args = Args::new();
    let mut next = |bytes: &[u8]| Parser::new().next(bytes, &mut args);
    assert_eq!(next(b"*10\r\n"), Ok(Next::Incomplete { need: 1 }));
    assert_eq!(
        next(b"*11\r\n"),
        Err(RequestError::UnauthenticatedMultibulkLength)
    );
    assert_eq!(
        next(b"*1\r\n$16384\r\n"),
        Ok(Next::Incomplete { need: 16386 })
    );
    let error = next(b"*1\r\n$16385\r\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "Protocol error: unauthenticated bulk length"
    );
}

#[test]
fn large_commands_are_announced_as_soon_as_they_are_known() {
    let mut args = Args::new();
    let mut next = |bytes: &[u8]| parser().next(bytes, &mut args);
    assert_eq!(
        next(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\n"),
        Ok(Next::Large)
    );
    assert_eq!(next(b"*20000\r\n"), Ok(Next::Large));
    // Exactly at the limit: four bytes for the array, eight for the header, two for the end.
    assert_eq!(
        next(b"*1\r\n$65522\r\n"),
        Ok(Next::Incomplete { need: 65524 })
    );
    assert_eq!(next(b"*1\r\n$65523\r\n"), Ok(Next::Large));
}

/// A stream's events, one list of arguments for each command; arguments in pieces are put together.
fn streamed(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, RequestError> {
    let mut stream = parser().stream();
    let mut found = Vec::new();
    let mut expected = None;
    let mut large = None;
    let mut start = 0;
    while start < bytes.len() {
        let end = bytes.len().min(start + piece);
        let mut part = &bytes[start..end];
        loop {
            let Step { used, event } = stream.next(part)?;
            match event {
                Event::More => {
                    assert_eq!(used, part.len());
                    break;
                }
                Event::Header { argc } => expected = Some(argc as usize),
                Event::Arg(arg) => found.push(arg.to_vec()),
                Event::Large { len } => large = Some((len, Vec::new())),
                Event::Piece { range, last } => {
                    assert!(!range.is_empty());
                    let (len, collected) = large.as_mut().expect("begun");
                    collected.extend_from_slice(&part[range]);
                    if last {
                        assert_eq!(collected.len() as u64, *len);
                        found.push(large.take().expect("begun").1);
                    }
                }
                Event::End => {
                    assert_eq!(Some(found.len()), expected);
                    return Ok(found);
                }
            }
            part = &part[used..];
        }
        start = end;
    }
    panic!("the command did not end");
}

#[test]
fn streams_give_the_same_arguments_however_they_are_cut() {
    let large = vec![7; LARGE + 1];
    let args: [&[u8]; 5] = [b"SET", b"", &large, &large[1..], b"EX"];
    let mut bytes = Vec::new();
    write::command(&mut bytes, &args);
    assert_eq!(parser().next(&bytes, &mut Args::new()), Ok(Next::Large));
    bytes.extend_from_slice(b"PING\r\n");
    for piece in [1, 2, 3, 5, 7, 16, 1000, LARGE, LARGE + 3, bytes.len()] {
        assert_eq!(streamed(&bytes, piece).unwrap(), args, "{piece}");
    }
}

#[test]
fn streams_refuse_what_parsers_refuse() {
    for (bytes, error) in [
        (&b"*x\r\n"[..], RequestError::MultibulkLength),
        (b"+OK\r\n", RequestError::MultibulkLength),
        (b"*1\r\n:1\r\n", RequestError::ExpectedBulk { got: b':' }),
        (b"*1\r\n$536870913\r\n", RequestError::BulkLength),
        (b"*1\r\n$1\r\nab\r\n", RequestError::BulkEnd),
        (b"*1\r\n$1\r\na\rb", RequestError::BulkEnd),
    ] {
        for piece in 1..bytes.len() {
            assert_eq!(streamed(bytes, piece), Err(error), "{bytes:?}");
        }
    }
}

/// Half a gigabyte is announced, and nothing is kept of what comes.
#[test]
fn pieces_are_not_collected() {
    let mut stream = parser().stream();
    let header = b"*2\r\n$3\r\nGET\r\n$536870912\r\n";
    let mut part = &header[..];
    loop {
        let Step { used, event } = stream.next(part).unwrap();
        if event == Event::More {
            break;
        }
        part = &part[used..];
    }
    let block = vec![0; 1 << 20];
    for index in 1..=512 {
        let step = stream.next(&block).unwrap();
        assert_eq!(step.used, block.len());
        let range = 0..block.len();
        let last = index == 512;
        assert_eq!(step.event, Event::Piece { range, last });
    }
    assert_eq!(
        stream.next(b"\r\nX").unwrap(),
        Step {
            used: 2,
            event: Event::End
        }
    );
}

proptest! {
    #[test]
    fn any_commands_cut_anywhere(
        all in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..5), 0..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut bytes = Vec::new();
        for args in &all {
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            write::command(&mut bytes, &args);
        }
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(commands(&bytes, &cuts).unwrap(), all);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut: prop::sample::Index) {
        let cut = cut.index(bytes.len() + 1);
        prop_assert_eq!(commands(&bytes, &[cut]), commands(&bytes, &[]));
    }
}
