//! Numbers as RESP writes them.

/// What a line that holds a number turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Its end has not come.
    Incomplete,
    /// No number.
    Bad,
    /// A number; the line took so many bytes, its end included.
    Number(i64, usize),
}

/// A sign and 19 digits.
const LONGEST: usize = 20;

/// Reads `<number>\r\n` at the front of `input`: decimal, without plus sign or leading zeros, as the server does.
#[inline]
pub(crate) fn line(input: &[u8]) -> Line {
    // Nearly all lengths have one to three digits.
    if let [digit @ b'0'..=b'9', b'\r', b'\n', ..] = input {
        return Line::Number(i64::from(*digit - b'0'), 3);
    }
    if let [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] = input {
        return Line::Number(i64::from(*a - b'0') * 10 + i64::from(*b - b'0'), 4);
    }
    long_line(input)
}

fn long_line(input: &[u8]) -> Line {
    let digits = input
        .iter()
        .take(LONGEST + 1)
        .take_while(|byte| matches!(**byte, b'0'..=b'9' | b'-'))
        .count();
    match input.get(digits..) {
        Some([b'\r', b'\n', ..]) => match input.get(..digits).and_then(parse) {
            Some(number) => Line::Number(number, digits + 2),
            None => Line::Bad,
        },
        Some([] | [b'\r']) if digits <= LONGEST => Line::Incomplete,
        _ => Line::Bad,
    }
}

/// Reads all of `text` as a number, as strictly as the server does.
pub(crate) fn parse(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value = 0_i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(*byte - b'0');
        // Counted downwards: the smallest number has no positive twin.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

/// Appends `mark`, the number and a line's end.
#[inline]
pub(crate) fn write_line(out: &mut Vec<u8>, mark: u8, value: u64) {
    #[allow(clippy::cast_possible_truncation)] // Below a hundred.
    match value {
        0..10 => out.extend_from_slice(&[mark, b'0' + value as u8, b'\r', b'\n']),
        10..100 => {
            let (tens, ones) = (value as u8 / 10, value as u8 % 10);
            out.extend_from_slice(&[mark, b'0' + tens, b'0' + ones, b'\r', b'\n']);
        }
        _ => write_long_line(out, mark, value),
    }
}

fn write_long_line(out: &mut Vec<u8>, mark: u8, value: u64) {
    let mut text = [0_u8; 24];
    let mut at = text.len();
    let mut put = |byte: u8| {
        at -= 1;
        if let Some(place) = text.get_mut(at) {
            *place = byte;
        }
    };
    put(b'\n');
    put(b'\r');
    let mut rest = value;
    loop {
        #[allow(clippy::cast_possible_truncation)] // Below ten.
        put(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    put(mark);
    out.extend_from_slice(text.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines() {
        assert_eq!(line(b"0\r\n"), Line::Number(0, 3));
        assert_eq!(line(b"7\r\nrest"), Line::Number(7, 3));
        assert_eq!(line(b"42\r\n"), Line::Number(42, 4));
        assert_eq!(line(b"-1\r\n"), Line::Number(-1, 4));
        assert_eq!(line(b"536870912\r\n"), Line::Number(536_870_912, 11));
        assert_eq!(
            line(b"-9223372036854775808\r\n"),
            Line::Number(i64::MIN, 22)
        );
        for bad in [
            "\r\n",
            "-\r\n",
            "-0\r\n",
            "00\r\n",
            "01\r\n",
            "+1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\rx",
            "1-1\r\n",
            "9223372036854775808\r\n",
            "x",
            "111111111111111111111",
            "111111111111111111111\r\n",
        ] {
            assert_eq!(line(bad.as_bytes()), Line::Bad, "{bad:?}");
        }
        for part in ["", "1", "12", "12\r", "-", "9223372036854775807"] {
            assert_eq!(line(part.as_bytes()), Line::Incomplete, "{part:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0..=i64::MAX.cast_unsigned()) {
            let mut out = Vec::new();
            write_line(&mut out, b'$', value);
            let expected = format!("${value}\r\n");
            prop_assert_eq!(&out, expected.as_bytes());
            prop_assert_eq!(line(&out[1..]), Line::Number(value.cast_signed(), out.len() - 1));
        }

        #[test]
        fn parses_as_the_standard_library_does(value: i64) {
            prop_assert_eq!(parse(value.to_string().as_bytes()), Some(value));
        }
    }
}
