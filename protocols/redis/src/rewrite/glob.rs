//! Patterns as Redis matches them: `*`, `?`, `[a-z]`, `[^a]` and backslashes.

/// Appends `text` as a pattern that matches it alone.
pub fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if is_special(*byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

const fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^')
}

/// What everything that `pattern` matches begins with.
pub(super) fn literal_head(pattern: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    let mut rest = pattern;
    loop {
        match rest {
            [] | [b'*' | b'?' | b'[', ..] => return head,
            [b'\\', byte, tail @ ..] | [byte, tail @ ..] => {
                head.push(*byte);
                rest = tail;
            }
        }
    }
}

/// Whether `pattern` matches all of `text`, as the server's own `stringmatchlen` decides it.
///
/// It takes at most time proportional to the product of both lengths, however many stars there are: a star that has let its
/// successor find a place never needs to move again.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (pattern, text);
    // Where to go on when something does not match: behind the last star, and one byte further in the text than last time.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = p {
            p = after;
            retry = Some((p, t));
            continue;
        }
        let step = match (p, t.split_first()) {
            ([], None) => return true,
            (_, None) => return false,
            (p, Some((byte, rest))) => one(p, *byte).map(|p| (p, rest)),
        };
        match (step, &mut retry) {
            (Some(next), _) => (p, t) = next,
            (None, Some((after, from))) => {
                let Some((_, rest)) = from.split_first() else {
                    return false;
                };
                *from = rest;
                (p, t) = (after, rest);
            }
            (None, None) => return false,
        }
    }
}

/// What is left of a pattern, which does not begin with a star, once it has matched one byte.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => class(rest, byte),
        [b'\\', wanted, rest @ ..] | [wanted, rest @ ..] => (*wanted == byte).then_some(rest),
    }
}

/// A class of bytes, behind its opening bracket. One that is not closed ends with the pattern.
fn class(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut class) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    let rest = loop {
        class = match class {
            [] => break &[][..],
            [b']', rest @ ..] => break rest,
            [b'\\', wanted, rest @ ..] => {
                found |= *wanted == byte;
                rest
            }
            [from, b'-', to, rest @ ..] => {
                let range = *from.min(to)..=*from.max(to);
                found |= range.contains(&byte);
                rest
            }
            [wanted, rest @ ..] => {
                found |= *wanted == byte;
                rest
            }
        };
    };
    (found != negated).then_some(rest)
}
