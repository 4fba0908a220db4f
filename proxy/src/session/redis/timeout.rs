//! The time that a waiting command is willing to wait.

use std::time::Duration;

use protocol_redis::reply::write;
use protocol_redis::request::{Args, Next, Parser};

/// The command with as much less time as has passed. One that waits for ever still does; one whose time is over asks for a
/// moment, which is the shortest time that is not for ever.
pub(super) fn shorten(raw: &[u8], elapsed: Duration) -> Vec<u8> {
    let mut parser = Parser::new();
    parser.set_authenticated(true);
    let mut args = Args::new();
    if !matches!(parser.next(raw, &mut args), Ok(Next::Command { .. })) {
        return raw.to_vec();
    }
    let command = args.command(raw);
    let name = command.arg(0).to_ascii_lowercase();
    let (at, millis) = match &*name {
        b"blpop" | b"brpop" | b"brpoplpush" | b"blmove" | b"bzpopmin" | b"bzpopmax" => {
            (command.argc() - 1, false)
        }
        b"blmpop" | b"bzmpop" => (1, false),
        b"wait" => (2, true),
        b"waitaof" => (3, true),
        b"xread" | b"xreadgroup" => {
            let block = command
                .args()
                .position(|arg| arg.eq_ignore_ascii_case(b"BLOCK"));
            (block.map_or(usize::MAX, |at| at + 1), true)
        }
        _ => return raw.to_vec(),
    };
    let mut out = Vec::with_capacity(raw.len());
    write::array_header(&mut out, command.argc());
    for (index, arg) in command.args().enumerate() {
        if index == at {
            write::bulk(&mut out, &less(arg, elapsed, millis));
        } else {
            write::bulk(&mut out, arg);
        }
    }
    out
}

fn less(arg: &[u8], elapsed: Duration, millis: bool) -> Vec<u8> {
    let asked = std::str::from_utf8(arg).ok().and_then(|it| it.parse().ok());
    let Some(asked) = asked.filter(|asked: &f64| *asked > 0.0) else {
        return arg.to_vec();
    };
    if millis {
        let left = asked - elapsed.as_secs_f64() * 1000.0;
        format!("{:.0}", left.max(1.0)).into_bytes()
    } else {
        let left = asked - elapsed.as_secs_f64();
        format!("{:.3}", left.max(0.001)).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &[&str], elapsed_ms: u64, expected: &[&str]) {
        let encode = |words: &[&str]| {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let mut out = Vec::new();
            write::command(&mut out, &words);
            out
        };
        let shortened = shorten(&encode(words), Duration::from_millis(elapsed_ms));
        assert_eq!(
            String::from_utf8_lossy(&shortened),
            String::from_utf8_lossy(&encode(expected))
        );
    }

    #[test]
    fn a_command_that_goes_on_elsewhere_waits_for_the_time_that_is_left() {
        check(&["BLPOP", "k", "5"], 2000, &["BLPOP", "k", "3.000"]);
        check(&["blpop", "k", "0"], 2000, &["blpop", "k", "0"]);
        check(&["BLPOP", "k", "1"], 2000, &["BLPOP", "k", "0.001"]);
        let (before, after) = (
            ["BLMPOP", "2.5", "1", "k", "LEFT"],
            ["BLMPOP", "0.500", "1", "k", "LEFT"],
        );
        check(&before, 2000, &after);
        let before = ["XREAD", "BLOCK", "2500", "STREAMS", "s", "$"];
        check(
            &before,
            500,
            &["XREAD", "BLOCK", "2000", "STREAMS", "s", "$"],
        );
    }
}
