//! Takes passwords out of statement texts.
//!
//! It would rather mask too much than too little: a log that shows less is a nuisance, one that shows a password is a
//! leak. It understands the places where SQL and MongoDB put passwords, not every text that may be one.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::search::Needle;

const MASK: &[u8] = b"***";

/// What comes before a password.
struct Words {
    /// `password`, `passwd`, `passwort` …
    passw: Needle,
    /// MongoDB's `pwd`, SQL Server's `pwd=`.
    pwd: Needle,
    /// MySQL's `IDENTIFIED [WITH plugin] BY`.
    identified: Needle,
    /// A URI, which may hold `user:password@`.
    uri: Needle,
}

static WORDS: LazyLock<Words> = LazyLock::new(|| Words {
    passw: Needle::new("passw"),
    pwd: Needle::new("pwd"),
    identified: Needle::new("identified"),
    uri: Needle::new("://"),
});

/// The text with `***` instead of each password; borrowed if there is none.
pub(super) fn masked(text: &[u8]) -> Cow<'_, [u8]> {
    let mut secrets: Vec<(usize, usize)> = Vec::new();
    for (needle, words_between) in [
        (&WORDS.passw, false),
        (&WORDS.pwd, false),
        (&WORDS.identified, true),
    ] {
        let mut from = 0;
        while let Some(at) = needle.find(text, from) {
            from = at + 1;
            secrets.extend(secret_after(text, at, words_between));
        }
    }
    let mut from = 0;
    while let Some(at) = WORDS.uri.find(text, from) {
        from = at + 3;
        secrets.extend(secret_of_uri(text, from));
    }
    if secrets.is_empty() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(without(text, secrets))
    }
}

fn without(text: &[u8], mut secrets: Vec<(usize, usize)>) -> Vec<u8> {
    secrets.sort_unstable();
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for (begin, end) in secrets {
        if begin >= done {
            out.extend_from_slice(text.get(done..begin).unwrap_or_default());
            out.extend_from_slice(MASK);
        }
        done = done.max(end);
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

/// Where the password behind the word at `word` is, without its quotes.
fn secret_after(text: &[u8], word: usize, words_between: bool) -> Option<(usize, usize)> {
    let mut at = word + run(text, word, is_word);
    at += run(text, at, |b| matches!(b, b'"' | b'`' | b'\'')).min(1); // The key of `"pwd": "…"` was quoted.
    let mut assigned = false;
    loop {
        at += run(text, at, |b| b.is_ascii_whitespace());
        match *text.get(at)? {
            b'=' | b':' => {
                assigned = true;
                at += 1;
            }
            b'(' | b',' => at += 1,
            b'-' if text.get(at + 1) == Some(&b'-') => at += run(text, at, |b| b != b'\n'),
            b'/' if text.get(at + 1) == Some(&b'*') => {
                at = memchr::memmem::find(text.get(at..)?, b"*/")? + at + 2
            }
            quote @ (b'\'' | b'"') => return Some((at + 1, end_of_quoted(text, at + 1, quote))),
            b'$' => return dollar_quoted(text, at),
            byte if is_word(byte) => {
                let len = run(text, at, is_word);
                let passed = text.get(at..at + len)?;
                if assigned && in_literal(text, at) {
                    return Some((at, at + run(text, at, is_bare_value)));
                }
                if !words_between && !leads_to_a_password(passed) {
                    return None;
                }
                at += len;
            }
            b'&' | b'@' | b'`' | b'.' if words_between => at += 1,
            b'&' => at += 1, // U&'…'
            _ if assigned && in_literal(text, at) => {
                return Some((at, at + run(text, at, is_bare_value)));
            }
            _ => return None,
        }
    }
}

fn leads_to_a_password(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 8] = [b"by", b"as", b"for", b"to", b"e", b"u", b"n", b"values"];
    WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// `\'` ends the literal for some servers and not for others: everything behind it is taken for the password.
fn end_of_quoted(text: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from;
    loop {
        let Some(next) = text
            .get(at..)
            .and_then(|rest| memchr::memchr2(quote, b'\\', rest))
        else {
            return text.len();
        };
        at += next;
        match (text.get(at), text.get(at + 1)) {
            (Some(b'\\'), Some(&escaped)) if escaped == quote => return text.len(),
            (Some(b'\\'), _) => at += 1,
            (_, Some(&again)) if again == quote => at += 2,
            _ => return at,
        }
    }
}

/// `$tag$…$tag$`, but not the parameter `$1`.
fn dollar_quoted(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let tag_len = 2 + run(text, at + 1, is_word);
    let tag = text.get(at..at + tag_len)?;
    if tag.last() != Some(&b'$') || tag.get(1).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let begin = at + tag_len;
    let end = memchr::memmem::find(text.get(begin..)?, tag).map_or(text.len(), |len| begin + len);
    Some((begin, end))
}

/// The password of `scheme://user:password@host`, with `from` behind the slashes.
fn secret_of_uri(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let authority = text.get(
        from..from
            + run(text, from, |b| {
                !matches!(b, b'/' | b'\'' | b'"' | b' ' | b'\n')
            }),
    )?;
    let end = memchr::memrchr(b'@', authority)?;
    let colon = memchr::memchr(b':', authority.get(..end)?)?;
    Some((from + colon + 1, from + end))
}

/// Whether an odd number of quotes stands before: so that `password=x` in a connection string is told from a column.
fn in_literal(text: &[u8], at: usize) -> bool {
    memchr::memchr_iter(b'\'', text.get(..at).unwrap_or_default()).count() % 2 == 1
}

fn run(text: &[u8], from: usize, belongs: impl Fn(u8) -> bool) -> usize {
    text.get(from..).map_or(0, |rest| {
        rest.iter().take_while(|byte| belongs(**byte)).count()
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn is_bare_value(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !matches!(byte, b'\'' | b'"' | b';' | b'&')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: &str) {
        assert_eq!(
            String::from_utf8_lossy(&masked(text.as_bytes())),
            wanted,
            "of {text}"
        );
    }

    #[test]
    fn passwords_are_masked() {
        check(
            "ALTER ROLE a PASSWORD 's3cret'",
            "ALTER ROLE a PASSWORD '***'",
        );
        check(
            "create user a with encrypted password 'x' login",
            "create user a with encrypted password '***' login",
        );
        check(
            "ALTER ROLE a PASSWORD 'it''s' VALID UNTIL 'x'",
            "ALTER ROLE a PASSWORD '***' VALID UNTIL 'x'",
        );
        check(
            "ALTER ROLE a PASSWORD E'x\\'y' SUPERUSER",
            "ALTER ROLE a PASSWORD E'***",
        );
        check(
            "ALTER ROLE a PASSWORD U&'x'",
            "ALTER ROLE a PASSWORD U&'***'",
        );
        check(
            "ALTER ROLE a PASSWORD $$x$$;",
            "ALTER ROLE a PASSWORD $$***$$;",
        );
        check(
            "ALTER ROLE a PASSWORD $q$x$$y$q$",
            "ALTER ROLE a PASSWORD $q$***$q$",
        );
        check(
            "ALTER ROLE a PASSWORD /* hm */ -- 'n'\n 'x'",
            "ALTER ROLE a PASSWORD /* hm */ -- 'n'\n '***'",
        );
        check(
            "ALTER ROLE a PASSWORD 'cut in the mid",
            "ALTER ROLE a PASSWORD '***",
        );
        check(
            "ALTER ROLE a PASSWORD 'x'; ALTER ROLE b PASSWORD 'y'",
            "ALTER ROLE a PASSWORD '***'; ALTER ROLE b PASSWORD '***'",
        );
        check(
            "ALTER USER 'a'@'%' IDENTIFIED BY \"x\"",
            "ALTER USER 'a'@'%' IDENTIFIED BY \"***\"",
        );
        check(
            "ALTER USER a IDENTIFIED WITH sha2 BY 'x'",
            "ALTER USER a IDENTIFIED WITH sha2 BY '***'",
        );
        check(
            "SET PASSWORD = PASSWORD('x')",
            "SET PASSWORD = PASSWORD('***')",
        );
        check(
            "SELECT 1 FROM u WHERE password = 'x' AND a = 'b'",
            "SELECT 1 FROM u WHERE password = '***' AND a = 'b'",
        );
        check(
            r#"{"createUser": "a", "pwd": "x", "roles": []}"#,
            r#"{"createUser": "a", "pwd": "***", "roles": []}"#,
        );
        check(
            "SELECT dblink('host=h password=x!y dbname=d')",
            "SELECT dblink('host=h password=*** dbname=d')",
        );
        check(
            "CREATE SUBSCRIPTION s CONNECTION 'postgres://u:p@h/d'",
            "CREATE SUBSCRIPTION s CONNECTION 'postgres://u:***@h/d'",
        );
        check(
            "OPTIONS (user 'u', password 'x')",
            "OPTIONS (user 'u', password '***')",
        );
    }

    #[test]
    fn the_rest_stays() {
        for text in [
            "SELECT password FROM users WHERE name = 'a'",
            "UPDATE users SET password = $1 WHERE id = $2",
            "SELECT 'http://example.com/a:b@c'",
            "ALTER ROLE a PASSWORD NULL",
            "SELECT password",
            "SELECT identified",
            "SELECT pwd, password, 1",
            "",
        ] {
            check(text, text);
            assert!(
                matches!(masked(text.as_bytes()), Cow::Borrowed(_)),
                "copied: {text}"
            );
        }
    }

    #[test]
    fn no_text_at_no_cut_breaks_it() {
        let text = b"ALTER ROLE a PASSWORD U&'it''s\\'' $q$x$q$ pwd: \"y\" /* IDENTIFIED BY 'x' password=1 ://u:p@h \xff";
        for begin in 0..text.len() {
            for end in begin..=text.len() {
                let _ = masked(&text[begin..end]);
            }
        }
    }
}
