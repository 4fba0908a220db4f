//! Libraries of functions on a shared server, where all names of libraries and functions are in one space: a database's own have
//! its namespace in front, which nobody else can guess.
//!
//! The names of a library's functions are made by its code when that is loaded. So a piece of Lua, `shim.lua`, stands in front of
//! the code's first line: what it puts in the place of `redis.register_function` registers them in the namespace, and runs the
//! code anew for each call, so that no call leaves anything behind. The numbers of the lines stay as they are.

use super::prefix::Rewriter;
use crate::command::Spec;
use crate::lua::{self, Shared};
use crate::reply::write::{self, Version};
use crate::reply::{ReplyError, Value};
use crate::request::Command;

const SHIM: &str = include_str!("shim.lua");
/// How the shim begins, and how it ends: also those of other versions of ours.
const BEGIN: &[u8] = b"local redis,server={";
const END: &[u8] = b"--[[tenantsdb]]";
/// In front of the code that a call runs: what it finds as `redis`, and after it has registered its functions.
const HEAD: &[u8] =
    b"local redis,server do local give=... redis,server=give(function(a,b) redis,server=a,b end) end\n";

/// Why a library's code is not loaded, as a server says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// No first line that says what it is.
    #[error("ERR Missing library metadata")]
    Missing,
    /// A first line that nobody can read, or nothing else.
    #[error("ERR Invalid library metadata")]
    Invalid,
    /// Something else than a name.
    #[error("ERR Invalid metadata value given: {0}")]
    Value(String),
    /// Two names.
    #[error("ERR Invalid metadata value, name argument was given multiple times")]
    Twice,
    /// No name.
    #[error("ERR Library name was not given")]
    Nameless,
    /// A name that cannot be one.
    #[error(
        "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long"
    )]
    Name,
    /// No Lua.
    #[error("ERR Engine '{0}' not found")]
    Engine(String),
    /// What it may not use.
    #[error("NOPERM {0}")]
    Shared(#[from] Shared),
}

/// A library that a client loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library<'a> {
    /// As the client calls it.
    pub name: &'a [u8],
    /// As the server is to have it.
    pub code: Vec<u8>,
}

/// A library that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// As the client calls it.
    pub name: Vec<u8>,
    /// The bytes of its code, if the list has it.
    pub size: usize,
    /// Its functions.
    pub functions: usize,
}

impl Rewriter {
    /// A library's code as the server is to have it.
    ///
    /// # Errors
    /// A first line that a server would not take either, or that has quotes in it; code that reaches what is everybody's.
    pub fn library<'a>(&self, code: &'a [u8]) -> Result<Library<'a>, LibraryError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Some(line) = code.strip_prefix(b"#!") else {
            return Err(LibraryError::Missing);
        };
        let end = memchr::memchr(b'\n', line).ok_or(LibraryError::Invalid)?;
        let (line, rest) = line.split_at(end);
        // A server takes quotes for what holds a word together: nobody writes such a line.
        if line.iter().any(|byte| matches!(byte, b'"' | b'\'' | 0)) {
            return Err(LibraryError::Invalid);
        }
        let nameless_engine = line.first().is_none_or(u8::is_ascii_whitespace);
        let mut words = line
            .split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b)
            .filter(|it| !it.is_empty());
        let engine = match nameless_engine {
            true => &b""[..],
            false => words.next().unwrap_or_default(),
        };
        let mut name = None;
        for word in words {
            match word.split_at_checked(b"name=".len()) {
                Some((head, value)) if head.eq_ignore_ascii_case(b"name=") => {
                    if name.replace(value).is_some() {
                        return Err(LibraryError::Twice);
                    }
                }
                _ => return Err(LibraryError::Value(text(word))),
            }
        }
        let name = name.ok_or(LibraryError::Nameless)?;
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if name.is_empty() || !name.iter().all(is_name) {
            return Err(LibraryError::Name);
        }
        if !engine.eq_ignore_ascii_case(b"lua") {
            return Err(LibraryError::Engine(text(engine)));
        }
        lua::leaves_shared_alone(rest)?;
        let at = name.as_ptr().addr() - line.as_ptr().addr();
        let (before, behind) = line.split_at(at);
        // Without the end of its first line.
        let rest = rest.get(1..).unwrap_or_default();
        let shim = self.shim(rest);
        let code = [b"#!", before, self.namespace(), behind, b"\n", &shim, rest];
        Ok(Library {
            name,
            code: code.concat(),
        })
    }

    /// What stands in front of a library's code: one line.
    fn shim(&self, code: &[u8]) -> Vec<u8> {
        let is_comment = |line: &&str| line.starts_with("--") && !line.starts_with("--[[");
        let lines: Vec<&str> = SHIM.lines().filter(|line| !is_comment(line)).collect();
        let namespace = String::from_utf8_lossy(self.namespace());
        let shim = lines.join(" ").replace("NAMESPACE", &namespace);
        let (before, behind) = shim.split_once("CODE").unwrap_or((&shim, ""));
        let mut out = Vec::with_capacity(shim.len() + HEAD.len() + code.len() * 17 / 16);
        out.extend_from_slice(before.as_bytes());
        string_literal(&[HEAD, code], &mut out);
        out.extend_from_slice(behind.as_bytes());
        out
    }

    /// A library's code as the client has sent it.
    pub(super) fn client_code(&self, code: &[u8]) -> Vec<u8> {
        let Some(end) = memchr::memchr(b'\n', code) else {
            return code.to_vec();
        };
        let (line, rest) = code.split_at(end + 1);
        let mut own = Vec::with_capacity(code.len());
        let namespace = self.namespace();
        match memchr::memmem::find(line, namespace) {
            Some(at) if !namespace.is_empty() => {
                own.extend_from_slice(line.get(..at).unwrap_or_default());
                own.extend_from_slice(line.get(at + namespace.len()..).unwrap_or_default());
            }
            _ => own.extend_from_slice(line),
        }
        let end = memchr::memmem::find(rest, END).filter(|_| rest.starts_with(BEGIN));
        let from = end.map_or(0, |at| at + END.len());
        own.extend_from_slice(rest.get(from..).unwrap_or_default());
        own
    }

    /// Appends `FCALL` or `FCALL_RO`, with the function's name in the namespace.
    pub fn call(&self, spec: &Spec, command: &Command<'_>, out: &mut Vec<u8>) {
        let mut words = self.stream(spec, command.argc(), out);
        for (index, arg) in command.args().enumerate() {
            match index {
                1 => words.arg(self, &self.own_name(arg), out),
                _ => words.arg(self, arg, out),
            };
        }
    }

    /// A function's or library's name as the server knows it.
    pub fn own_name(&self, name: &[u8]) -> Vec<u8> {
        [self.namespace(), name].concat()
    }

    /// Appends `FUNCTION LIST` for the database's own libraries, as the client has sent it.
    pub fn list(&self, command: &Command<'_>, out: &mut Vec<u8>) {
        let is_option = |arg: &&[u8]| arg.eq_ignore_ascii_case(b"LIBRARYNAME");
        let named = command.args().skip(2).any(|arg| is_option(&arg));
        write::array_header(out, command.argc() + if named { 0 } else { 2 });
        let mut name_next = false;
        for (index, arg) in command.args().enumerate() {
            if std::mem::take(&mut name_next) {
                write::bulk(out, &self.own_name(arg));
            } else {
                name_next = index >= 2 && is_option(&arg);
                write::bulk(out, arg);
            }
        }
        if !named {
            write::bulk(out, b"LIBRARYNAME");
            write::bulk(out, &self.own_name(b"*"));
        }
    }

    /// Appends `FUNCTION LIST` for all of the database's own libraries.
    pub fn list_all(&self, with_code: bool, out: &mut Vec<u8>) {
        let pattern = self.own_name(b"*");
        let words: [&[u8]; 5] = [b"FUNCTION", b"LIST", b"LIBRARYNAME", &pattern, b"WITHCODE"];
        write::command(
            out,
            words.get(..if with_code { 5 } else { 4 }).unwrap_or(&words),
        );
    }

    /// Reads the reply to such a command.
    ///
    /// # Errors
    /// What is no such reply, the server's errors included.
    pub fn loaded(&self, reply: &[u8]) -> Result<Vec<Loaded>, ReplyError> {
        let libraries = Value::parse(reply)?.items().ok_or(ReplyError::Form)?;
        libraries
            .map(|library| {
                let mut loaded = Loaded {
                    name: Vec::new(),
                    size: 0,
                    functions: 0,
                };
                let mut fields = library?.items().ok_or(ReplyError::Form)?;
                while let Some(name) = fields.next() {
                    let value = fields.next().ok_or(ReplyError::Form)??;
                    match name?.string() {
                        Some(b"library_name") => {
                            let name = value.string().ok_or(ReplyError::Form)?;
                            let own = name.strip_prefix(self.namespace());
                            loaded.name = own.ok_or(ReplyError::Form)?.to_vec();
                        }
                        Some(b"functions") => {
                            loaded.functions = value.items().map_or(0, Iterator::count);
                        }
                        Some(b"library_code") => {
                            loaded.size = value.string().unwrap_or_default().len();
                        }
                        _ => {}
                    }
                }
                Ok(loaded)
            })
            .collect()
    }
}

/// Appends Lua's literal for a string: on one line, and without what begins a comment.
fn string_literal(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in parts.iter().copied().flatten() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0 => out.extend_from_slice(b"\\000"),
            b'-' if out.last() == Some(&b'-') => out.extend_from_slice(b"\\045"),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

/// Appends the reply to `FUNCTION STATS` of a database that has these libraries.
pub fn stats(libraries: &[Loaded], version: Version, out: &mut Vec<u8>) {
    let functions: usize = libraries.iter().map(|it| it.functions).sum();
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    write::map_header(out, version, 2);
    write::bulk(out, b"running_script");
    write::null(out, version);
    write::bulk(out, b"engines");
    write::map_header(out, version, 1);
    write::bulk(out, b"LUA");
    write::map_header(out, version, 2);
    write::bulk(out, b"libraries_count");
    write::integer(out, count(libraries.len()));
    write::bulk(out, b"functions_count");
    write::integer(out, count(functions));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::Transform;

    fn rewriter() -> Rewriter {
        let rewriter = Rewriter::new(b"1z:", 3).expect("a prefix");
        rewriter.with_namespace("tcafe_")
    }

    #[test]
    fn a_library_gets_the_namespace_and_keeps_its_lines() {
        let rewriter = rewriter();
        for (code, line) in [
            ("#!lua name=lib\nreturn 1\n\n", "#!lua name=tcafe_lib"),
            ("#!LUA \t NAME=l_1 \r\n", "#!LUA \t NAME=tcafe_l_1 \r"),
            // Its own shim, as the client's code.
            (
                "#!lua name=x\nlocal redis,server={ --[[tenantsdb]] 1",
                "#!lua name=tcafe_x",
            ),
        ] {
            let library = rewriter.library(code.as_bytes()).expect("a library");
            let text = String::from_utf8(library.code.clone()).unwrap();
            assert_eq!(text.lines().count(), code.lines().count().max(2));
            assert!(text.starts_with(&format!("{line}\nlocal redis,server={{redis,")));
            let own = rewriter.client_code(&library.code);
            assert_eq!(String::from_utf8_lossy(&own), code);
        }
    }

    #[test]
    fn a_first_line_that_no_server_takes_is_refused_before() {
        for (code, text) in [
            ("return 1", "ERR Missing library metadata"),
            ("", "ERR Missing library metadata"),
            ("#!lua name=x", "ERR Invalid library metadata"),
            ("#!\n", "ERR Library name was not given"),
            ("#! name=x\n", "ERR Engine '' not found"),
            ("#!lua \"name=x\"\n", "ERR Invalid library metadata"),
            ("#!lua na'me=x'\n", "ERR Invalid library metadata"),
            ("#!lua\0 name=x\n", "ERR Invalid library metadata"),
            ("#!lua\n", "ERR Library name was not given"),
            ("#!js name=x\n", "ERR Engine 'js' not found"),
            (
                "#!lua foo=bar\n",
                "ERR Invalid metadata value given: foo=bar",
            ),
            ("#!lua name\n", "ERR Invalid metadata value given: name"),
        ] {
            let refused = rewriter().library(code.as_bytes()).expect_err(code);
            assert_eq!(refused.to_string(), text, "{code:?}");
        }
        for code in ["#!lua name=\n", "#!lua name=a-b\n", "#!lua name=\u{e4}\n"] {
            let refused = rewriter().library(code.as_bytes());
            assert_eq!(refused, Err(LibraryError::Name), "{code:?}");
        }
        let twice = rewriter().library(b"#!lua name=a name=b\n");
        assert_eq!(twice, Err(LibraryError::Twice));
    }

    /// A list as RESP2 or RESP3 has it.
    fn list(version: Version, name: &[u8], code: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write::array_header(&mut out, 1);
        write::map_header(&mut out, version, 4);
        write::bulk(&mut out, b"library_name");
        write::bulk(&mut out, name);
        write::bulk(&mut out, b"engine");
        write::bulk(&mut out, b"LUA");
        write::bulk(&mut out, b"functions");
        write::array_header(&mut out, 1);
        write::map_header(&mut out, version, 3);
        write::bulk(&mut out, b"name");
        write::bulk(&mut out, [name, b"f"].concat().as_slice());
        write::bulk(&mut out, b"description");
        write::null(&mut out, version);
        write::bulk(&mut out, b"flags");
        write::set_header(&mut out, version, 1);
        write::bulk(&mut out, b"no-writes");
        write::bulk(&mut out, b"library_code");
        write::bulk(&mut out, code);
        out
    }

    #[test]
    fn a_list_shows_the_clients_names_and_code() {
        let rewriter = rewriter();
        let library = rewriter.library(b"#!lua name=lib\nx()").unwrap();
        for version in [Version::Resp2, Version::Resp3] {
            let reply = list(version, b"tcafe_lib", &library.code);
            let mut out = Vec::new();
            rewriter
                .reply(Transform::Libraries, &reply, &mut out)
                .unwrap();
            let expected = list(version, b"lib", b"#!lua name=lib\nx()");
            assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&expected)
            );
            let loaded = rewriter.loaded(&reply).unwrap();
            let expected = Loaded {
                name: b"lib".to_vec(),
                size: library.code.len(),
                functions: 1,
            };
            assert_eq!(loaded, [expected]);
            // Another's never comes through.
            let reply = list(version, b"tbeef_lib", b"#!lua name=tbeef_lib\n");
            let foreign = rewriter.reply(Transform::Libraries, &reply, &mut Vec::new());
            assert!(foreign.is_err());
            assert!(rewriter.loaded(&reply).is_err());
        }
    }

    #[test]
    fn errors_do_not_tell_the_namespace() {
        for (text, shown) in [
            (
                "-ERR Library 'tcafe_l' already exists\r\n",
                "-ERR Library 'l' already exists\r\n",
            ),
            (
                "-ERR x script: tcafe_f, on @user_function:3.\r\n",
                "-ERR x script: f, on @user_function:3.\r\n",
            ),
            ("-ERR tcafe_tcafe_\r\n", "-ERR \r\n"),
            ("-ERR tcafe\r\n", "-ERR tcafe\r\n"),
        ] {
            let mut out = Vec::new();
            let rewriter = rewriter();
            rewriter
                .reply(Transform::None, text.as_bytes(), &mut out)
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&out), shown);
        }
    }
}
