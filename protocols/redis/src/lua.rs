//! What a script may not name on a server that others use as well.
//!
//! All scripts of a server run in one Lua state. Its tables cannot be written, but a few of its functions change what is
//! everybody's: the settings of `cjson`, by which the numbers that others encode would lose digits, and those of the collector. They
//! can only be reached by a name that stands in the text, since there is no other way to a global variable than its name, `_G`, and
//! code that is made at run time. So the text is read as Lua 5.1 reads it, comments and strings left out.

/// A name that a script may not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shared {
    /// What the state has once.
    #[error("`{0}` is not for scripts on a shared server, where it reaches what is everybody's")]
    Name(&'static str),
    /// `cjson`, for more than encoding and decoding.
    #[error(
        "on a shared server a script may use `cjson` only as `cjson.encode`, `cjson.decode` and `cjson.null`: its settings are everybody's"
    )]
    Cjson,
}

/// Names by which a script reaches what the state has once, or runs code whose names do not stand in its text.
const NAMES: [&str; 6] = [
    "_G",
    "load",
    "loadstring",
    "collectgarbage",
    "getfenv",
    "setfenv",
];
const CJSON: &[u8] = b"cjson";
const CJSON_FIELDS: [&[u8]; 3] = [b"encode", b"decode", b"null"];

/// Whether a script, or a library's code, leaves what is everybody's alone.
///
/// # Errors
/// The first name that does not.
pub fn leaves_shared_alone(text: &[u8]) -> Result<(), Shared> {
    let finds = |word: &str| memchr::memmem::find(text, word.as_bytes()).is_some();
    // `load` is in `loadstring`, `fenv` in the last two. Most scripts have none of them, not even in a comment.
    if !["_G", "load", "collectgarbage", "fenv", "cjson"]
        .into_iter()
        .any(finds)
    {
        return Ok(());
    }
    let mut tokens = Tokens { rest: text };
    let mut before = Token::Other;
    while let Some(token) = tokens.next() {
        if let Token::Name(name) = token
            && before != Token::Access
        {
            if let Some(found) = NAMES.iter().find(|it| it.as_bytes() == name) {
                return Err(Shared::Name(found));
            }
            if name == CJSON && !tokens.is_harmless_field() {
                return Err(Shared::Cjson);
            }
        }
        before = token;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a [u8]),
    /// `.` or `:`: a name behind it is a field's.
    Access,
    Other,
}

/// Reads what Lua 5.1 takes for one token, or a little less of it where that makes no difference.
struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// What is in front and consists of such bytes.
    fn take(&mut self, is_part: impl Fn(&u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !is_part(byte));
        let (taken, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let first = *self.rest.first()?;
            match (first, self.rest.get(1)) {
                (b'-', Some(b'-')) => {
                    self.skip(2);
                    if self.bracket().is_none() {
                        self.take(|byte| !matches!(byte, b'\n' | b'\r'));
                    }
                }
                (b' ' | b'\t'..=b'\r', _) => self.skip(1),
                (b'[', _) if self.bracket().is_some() => return Some(Token::Other),
                (b'"' | b'\'', _) => {
                    self.string(first);
                    return Some(Token::Other);
                }
                (b'0'..=b'9', _) | (b'.', Some(b'0'..=b'9')) => {
                    self.number();
                    return Some(Token::Other);
                }
                (b'.', Some(b'.')) => {
                    let more = self.rest.get(2) == Some(&b'.');
                    self.skip(if more { 3 } else { 2 });
                    return Some(Token::Other);
                }
                (b'.' | b':', _) => {
                    self.skip(1);
                    return Some(Token::Access);
                }
                (b'a'..=b'z' | b'A'..=b'Z' | b'_', _) => return Some(Token::Name(self.word())),
                _ => {
                    self.skip(1);
                    return Some(Token::Other);
                }
            }
        }
    }

    fn word(&mut self) -> &'a [u8] {
        self.take(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    }

    fn number(&mut self) {
        self.take(|byte| byte.is_ascii_digit() || *byte == b'.');
        if let Some(b'e' | b'E') = self.rest.first() {
            let signed = matches!(self.rest.get(1), Some(b'+' | b'-'));
            self.skip(if signed { 2 } else { 1 });
        }
        self.word();
    }

    /// Passes over a string in quotes.
    fn string(&mut self, quote: u8) {
        self.skip(1);
        while let Some(byte) = self.rest.first() {
            match *byte {
                b'\\' => self.skip(2),
                byte => {
                    self.skip(1);
                    if byte == quote {
                        return;
                    }
                }
            }
        }
    }

    /// Passes over `[==[ … ]==]`, with so many signs as there are. `None`: there is none here.
    fn bracket(&mut self) -> Option<()> {
        let inner = self.rest.strip_prefix(b"[")?;
        let level = inner.iter().take_while(|byte| **byte == b'=').count();
        let inner = inner.get(level..)?.strip_prefix(b"[")?;
        let mut end = vec![b'='; level + 2];
        if let [first, .., last] = &mut *end {
            (*first, *last) = (b']', b']');
        }
        let at = memchr::memmem::find(inner, &end).unwrap_or(inner.len());
        self.rest = inner.get(at + end.len()..).unwrap_or_default();
        Some(())
    }

    /// Whether `.encode` or the like stands in front.
    fn is_harmless_field(&mut self) -> bool {
        if !matches!(self.next(), Some(Token::Access)) {
            return false;
        }
        matches!(self.next(), Some(Token::Name(name)) if CJSON_FIELDS.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_scripts_pass() {
        for text in [
            "return redis.call('GET', KEYS[1])",
            "return cjson.encode(cjson . --[[x]] decode(ARGV[1])) -- cjson.decode_max_depth, load, _G",
            "local ok, v = pcall(cjson.decode, ARGV[1]) if v == cjson.null then return 1 end",
            "local t = {} t.load = 1 t:load() t . _G = 2 return 'load' .. \"\\\"_G\" .. [[cjson]] .. [==[ ]] load ]==]",
            "local payload, download, reload, my_G = 1, 2, 3, 4 return payload",
            "return 1 .. 2 -- collectgarbage",
            "",
            "x = [[ load",
            "x = 'load",
            "\\",
        ] {
            assert_eq!(leaves_shared_alone(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_reaches_everybodys_does_not() {
        for (text, found) in [
            ("_G.x = 1", Shared::Name("_G")),
            ("return load", Shared::Name("load")),
            ("loadstring('return 1')()", Shared::Name("loadstring")),
            ("(loadstring)('return 1')", Shared::Name("loadstring")),
            ("x=1--\nload()", Shared::Name("load")),
            ("--[[ ]] load()", Shared::Name("load")),
            ("--[=[ ]] ]=] load()", Shared::Name("load")),
            ("--[=x\rload()", Shared::Name("load")),
            ("x = 'a\\'' load()", Shared::Name("load")),
            ("x = 'a\\\\' load()", Shared::Name("load")),
            ("x = \"'\" load() y = \"'\"", Shared::Name("load")),
            ("x = [[\\]] load()", Shared::Name("load")),
            ("x = [=[ ]==]=] load()", Shared::Name("load")),
            ("x = t[t[1]] load()", Shared::Name("load")),
            ("return 'a'..load", Shared::Name("load")),
            ("return ...,load", Shared::Name("load")),
            ("local x = 5. load()", Shared::Name("load")),
            ("local x = .5 load()", Shared::Name("load")),
            ("local x = 5e+1 load()", Shared::Name("load")),
            ("collectgarbage('stop')", Shared::Name("collectgarbage")),
            ("setfenv(1, {})", Shared::Name("setfenv")),
            ("getfenv(1)", Shared::Name("getfenv")),
            ("cjson.encode_number_precision(1)", Shared::Cjson),
            ("cjson['decode_max_depth'](1)", Shared::Cjson),
            ("local j = cjson", Shared::Cjson),
            ("local x = 5. cjson.decode_max_depth(1)", Shared::Cjson),
            ("cjson.encode(1) cjson.new()", Shared::Cjson),
            ("cjson", Shared::Cjson),
            ("cjson.", Shared::Cjson),
        ] {
            assert_eq!(leaves_shared_alone(text.as_bytes()), Err(found), "{text}");
        }
    }
}
