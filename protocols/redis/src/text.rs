//! Command lines, as people type them.

/// A quote is open at the end, or something touches a closing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unbalanced quotes")]
pub struct UnbalancedQuotes;

/// Splits a line into words by the rules of redis-cli and of the server's inline commands. Words are handed to `word` one by
/// one, unquoted.
///
/// In double quotes `\n`, `\r`, `\t`, `\a`, `\b` and `\xHH` are escapes, and any other byte after a backslash is itself; in
/// single quotes only `\'` is. Quotes may begin inside of a word and must end it.
///
/// # Errors
/// [`UnbalancedQuotes`]; words before it have been handed out.
pub fn split_with(line: &[u8], mut word: impl FnMut(&[u8])) -> Result<(), UnbalancedQuotes> {
    let mut rest = line;
    let mut collected = Vec::new();
    loop {
        rest = skip_space(rest);
        if rest.is_empty() {
            return Ok(());
        }
        let plain = rest
            .iter()
            .position(|byte| ends_word(*byte) || matches!(byte, b'"' | b'\''))
            .unwrap_or(rest.len());
        let (head, tail) = rest.split_at(plain);
        if tail.first().is_none_or(|byte| ends_word(*byte)) {
            word(head);
            rest = tail;
            continue;
        }
        collected.clear();
        rest = unquote(rest, &mut collected)?;
        word(&collected);
    }
}

/// Splits a line into words. See [`split_with`].
///
/// # Errors
/// [`UnbalancedQuotes`].
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
    let mut words = Vec::new();
    split_with(line, |word| words.push(word.to_vec()))?;
    Ok(words)
}

/// Appends `word` so that [`split`] reads it as one word again and a terminal shows it whatever its bytes: as it is where that is
/// safe, else in double quotes.
pub fn quote(word: &[u8], out: &mut String) {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !word.is_empty() && word.iter().all(plain) {
        out.extend(word.iter().map(|byte| char::from(*byte)));
        return;
    }
    out.push('"');
    for chunk in word.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                letter if letter.is_control() => {
                    let mut bytes = [0; 4];
                    hex(letter.encode_utf8(&mut bytes).as_bytes(), out);
                }
                letter => out.push(letter),
            }
        }
        hex(chunk.invalid(), out);
    }
    out.push('"');
}

fn hex(bytes: &[u8], out: &mut String) {
    use std::fmt::Write as _;
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// What ends a word that is not quoted. Vertical tab and form feed do not, though they are skipped between words.
const fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0)
}

/// Skips what C's `isspace` calls space. A zero byte is the end for the server, which reads a C string; here it is a space.
fn skip_space(line: &[u8]) -> &[u8] {
    let skip = line
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r' | 0))
        .count();
    line.get(skip..).unwrap_or_default()
}

/// One word that holds quotes; yields what is behind it.
fn unquote<'a>(word: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    let mut rest = word;
    loop {
        match rest {
            [] => return Ok(rest),
            [b'"', tail @ ..] => return closed(double_quoted(tail, out)?),
            [b'\'', tail @ ..] => return closed(single_quoted(tail, out)?),
            [byte, ..] if ends_word(*byte) => return Ok(rest),
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

/// A closing quote ends its word.
fn closed(rest: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    match rest {
        [] | [b' ' | b'\t'..=b'\r' | 0, ..] => Ok(rest),
        _ => Err(UnbalancedQuotes),
    }
}

fn double_quoted<'a>(quoted: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    let mut rest = quoted;
    loop {
        match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push((digit(*high) << 4) | digit(*low));
                rest = tail;
            }
            [b'\\', byte, tail @ ..] => {
                out.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

fn single_quoted<'a>(quoted: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    let mut rest = quoted;
    loop {
        match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\\', b'\'', tail @ ..] => {
                out.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return Ok(tail),
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

const fn digit(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        b'a'..=b'f' => hex - b'a' + 10,
        b'A'..=b'F' => hex - b'A' + 10,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(line: &[u8], words: &[&[u8]]) {
        assert_eq!(split(line).unwrap(), words, "{line:?}");
    }

    #[test]
    fn words() {
        check(b"", &[]);
        check(b" \t\r\n", &[]);
        check(b"SET a b", &[b"SET", b"a", b"b"]);
        check(b"  SET\ta   b ", &[b"SET", b"a", b"b"]);
        check(b"get \"\"", &[b"get", b""]);
        check(b"get ''", &[b"get", b""]);
        check(br#""a b" 'c d'"#, &[b"a b", b"c d"]);
        check(
            br#""\x00\xFf\n\r\t\a\b\\\"\q""#,
            &[b"\x00\xff\n\r\t\x07\x08\\\"q"],
        );
        check(br#""\xg0""#, &[b"xg0"]);
        check(br"'\n\' \\ '", &[br"\n' \\ "]);
        check(br#"pre"fix""#, &[b"prefix"]);
        check(br"a\b", &[br"a\b"]);
        check(
            "naïve ключ".as_bytes(),
            &["naïve".as_bytes(), "ключ".as_bytes()],
        );
    }

    #[test]
    fn quotes_that_do_not_match() {
        for line in [
            &br#""a"#[..],
            b"'a",
            br#""a"b"#,
            b"'a'b",
            br#""a\"#,
            br#"a""b"#,
            br#""a\""#,
        ] {
            assert_eq!(split(line), Err(UnbalancedQuotes), "{line:?}");
        }
    }

    #[test]
    fn quoting_is_readable() {
        let quoted = |word: &[u8]| {
            let mut out = String::new();
            quote(word, &mut out);
            out
        };
        assert_eq!(quoted(b"user:1"), "user:1");
        assert_eq!(quoted(b""), r#""""#);
        assert_eq!(quoted(b"a b"), r#""a b""#);
        assert_eq!(quoted("ключ".as_bytes()), "\"ключ\"");
        assert_eq!(quoted(b"a\"\\\n\xff\x00"), r#""a\"\\\n\xff\x00""#);
    }

    proptest! {
        #[test]
        fn quoting_and_splitting_are_inverse(words: Vec<Vec<u8>>) {
            let mut line = String::new();
            for word in &words {
                quote(word, &mut line);
                line.push(' ');
            }
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(split(line.as_bytes()).unwrap(), words);
        }

        #[test]
        fn any_line_is_split_or_refused(line: Vec<u8>) {
            let _ = split(&line);
        }
    }
}
