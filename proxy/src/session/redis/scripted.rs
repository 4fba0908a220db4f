//! Commands that the server does not do for a tenant, because it cannot confine them: scripts do them, as the tenant's role.

use protocol_redis::reply::write;
use protocol_redis::request::Command;
use protocol_redis::rewrite::Rewriter;

const SORT: &str = include_str!("scripts/sort.lua");
const COPY: &str = include_str!("scripts/copy.lua");

/// `FLUSHALL` is `FLUSHDB` here.
pub(super) fn flush(command: &Command<'_>, out: &mut Vec<u8>) {
    write::array_header(out, command.argc());
    write::bulk(out, b"FLUSHDB");
    command.args().skip(1).for_each(|arg| write::bulk(out, arg));
}

/// `COPY`, unless the server is the database's own. `false`: it is, or the command is not whole, and nothing is written.
pub(super) fn copy(rewriter: &Rewriter, command: &Command<'_>, out: &mut Vec<u8>) -> bool {
    if rewriter.prefix().is_empty() || command.argc() < 3 {
        return false;
    }
    let mut replace = false;
    let mut at = 3;
    while let Some(option) = command.get(at) {
        match option {
            it if it.eq_ignore_ascii_case(b"REPLACE") => replace = true,
            // That it is this one has been seen.
            it if it.eq_ignore_ascii_case(b"DB") => at += 1,
            _ => return false,
        }
        at += 1;
    }
    let key = |at| [rewriter.prefix(), command.arg(at)].concat();
    let words: [&[u8]; 6] = [
        b"EVAL",
        COPY.as_bytes(),
        b"2",
        &key(1),
        &key(2),
        if replace { b"1" } else { b"0" },
    ];
    write::command(out, &words);
    true
}

/// What `SORT` is asked for.
#[derive(Default)]
struct Sort<'a> {
    by: Option<&'a [u8]>,
    gets: Vec<&'a [u8]>,
    limit: Option<(&'a [u8], &'a [u8])>,
    descending: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Sort<'a> {
    fn parse(command: &Command<'a>) -> Option<Self> {
        let mut sort = Self::default();
        let mut at = 2;
        while let Some(option) = command.get(at) {
            let value = command.get(at + 1);
            match option.to_ascii_uppercase().as_slice() {
                b"ASC" => sort.descending = false,
                b"DESC" => sort.descending = true,
                b"ALPHA" => sort.alpha = true,
                b"LIMIT" => {
                    sort.limit = Some((value?, command.get(at + 2)?));
                    at += 2;
                }
                b"BY" => {
                    sort.by = Some(value?);
                    at += 1;
                }
                b"GET" => {
                    sort.gets.push(value?);
                    at += 1;
                }
                b"STORE" => {
                    sort.store = Some(value?);
                    at += 1;
                }
                _ => return None,
            }
            at += 1;
        }
        Some(sort)
    }

    /// Whether it looks at other keys than it names.
    fn looks_elsewhere(&self) -> bool {
        !self.gets.is_empty() || self.by.is_some_and(|by| by.contains(&b'*'))
    }
}

/// `SORT` by or of other keys, unless the server is the database's own. `false`: nothing is written, the server does it.
pub(super) fn sort(rewriter: &Rewriter, command: &Command<'_>, out: &mut Vec<u8>) -> bool {
    if rewriter.prefix().is_empty() {
        return false;
    }
    let Some(sort) = Sort::parse(command).filter(Sort::looks_elsewhere) else {
        return false;
    };
    let flag = |set: bool| if set { &b"1"[..] } else { b"0" };
    let key = |name: &[u8]| [rewriter.prefix(), name].concat();
    let (source, store) = (key(command.arg(1)), sort.store.map(key));
    // By a pattern without a star nothing is sorted.
    let by = match sort.by {
        Some(by) if !by.contains(&b'*') => &b"-"[..],
        by => by.unwrap_or_default(),
    };
    let (offset, count) = sort.limit.unwrap_or((b"0", b"-1"));
    let name: &[u8] = if store.is_some() { b"EVAL" } else { b"EVAL_RO" };
    let keys: &[u8] = if store.is_some() { b"2" } else { b"1" };
    let mut words = vec![name, SORT.as_bytes(), keys, &source];
    words.extend(store.as_deref());
    words.extend([
        rewriter.prefix(),
        by,
        flag(sort.descending),
        flag(sort.alpha),
        offset,
        count,
    ]);
    words.extend(&sort.gets);
    write::command(out, &words);
    true
}
