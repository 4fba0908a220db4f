//! Lines, patterns and refusals, held against the server's.

use protocol_redis::request::{Args, Next, Parser};
use protocol_redis::rewrite::glob;
use protocol_redis::text;

use crate::server::{Dice, Server, show};

#[test]
fn refusals_are_the_servers() {
    let server = Server::start();
    for bytes in [
        &b"*3000000000\r\n"[..],
        b"*x\r\n",
        b"*01\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$-10\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$2000000000\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n",
        b"set \"\"\"test\"\"\" test\r\n",
        b"'\r\n",
        &[b'a'; 70_000],
    ] {
        let mut client = server.connect();
        client.send(bytes);
        let reply = show(&client.reply());
        let mut parser = Parser::new();
        parser.set_authenticated(true);
        let error = parser.next(bytes, &mut Args::new()).expect_err("refused");
        assert_eq!(reply, format!("-ERR {error}\r\n"));
    }
}

#[test]
fn before_login_less_is_allowed() {
    let server = Server::start();
    server.connect().must("CONFIG SET requirepass pw");
    for bytes in [&b"*11\r\n"[..], b"*1\r\n$16385\r\n"] {
        let mut client = server.connect();
        client.send(bytes);
        let reply = show(&client.reply());
        let error = Parser::new()
            .next(bytes, &mut Args::new())
            .expect_err("refused");
        assert_eq!(reply, format!("-ERR {error}\r\n"));
    }
}

/// Each line is an `ECHO`: the server says how it read it.
#[test]
fn lines_are_read_as_the_server_reads_them() {
    const PIECES: &[&str] = &[
        "a", "b", "\"", "'", "\\", "\\x", "41", "\\n", " ", "\t", "\x0b", "\\'", "\\\"", "\u{e9}",
    ];
    let server = Server::start();
    let mut client = server.connect();
    let mut dice = Dice(0x1357_9bdf_0246_8ace);
    for _ in 0..3_000 {
        let mut line = String::from("ECHO ");
        for _ in 0..dice.below(8) {
            line.push_str(dice.pick(PIECES));
        }
        line.push('\n');
        client.send(line.as_bytes());
        let reply = client.reply();
        let mut args = Args::new();
        let mut parser = Parser::new();
        parser.set_authenticated(true);
        match parser.next(line.as_bytes(), &mut args) {
            Ok(Next::Command { used }) => {
                assert_eq!(used, line.len());
                let command = args.command(line.as_bytes());
                let words: Vec<_> = command.args().map(<[u8]>::to_vec).collect();
                assert_eq!(text::split(line.as_bytes()).unwrap(), words);
                let expected = match words.as_slice() {
                    [_, word] => {
                        [format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"].concat()
                    }
                    _ => b"-ERR wrong number of arguments for 'echo' command\r\n".to_vec(),
                };
                assert_eq!(show(&reply), show(&expected), "{line:?}");
            }
            Err(error) => {
                assert_eq!(show(&reply), format!("-ERR {error}\r\n"), "{line:?}");
                client = server.connect();
            }
            other => panic!("{line:?}: {other:?}"),
        }
    }
}

#[test]
fn patterns_match_as_the_servers_do() {
    const PIECES: &[u8] = b"aabbc*?[]^-\\";
    let server = Server::start();
    let mut client = server.connect();
    let mut dice = Dice(0x2468_ace0_1357_9bdf);
    for _ in 0..3_000 {
        let mut word = |letters: &[u8], most: usize| -> Vec<u8> {
            (0..dice.below(most)).map(|_| dice.pick(letters)).collect()
        };
        let text = word(b"abc-]", 6);
        let pattern = word(PIECES, 9);
        client.call(&[b"SET", &text, b"v"]);
        let reply = client.call(&[b"KEYS", &pattern]);
        client.call(&[b"DEL", &text]);
        assert_eq!(
            glob::matches(&pattern, &text),
            reply != b"*0\r\n",
            "{} {}",
            show(&pattern),
            show(&text)
        );
    }
}
