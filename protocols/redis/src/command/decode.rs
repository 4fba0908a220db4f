//! Reading a server's reply to `COMMAND`.
//!
//! Redis 7 and Valkey send ten items for a command: name, arity, flags, first key, last key, step, categories, tips, key
//! specifications, subcommands. Before 7.0 there were six, or seven with the categories. What comes behind the tenth is passed over.

use super::flags::{Categories, Flags, KeyFlags};
use super::keys::{Begin, Find, KeySpec, Keys, Range, Role, flags_of};
use super::rules;
use super::table::Spec;
use super::walk::MAX_SPECS;
use crate::reply::{Items, ReplyError, Value};
use crate::rewrite::Transform;

/// Why a reply is no table of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It is no reply at all.
    #[error("not a reply: {0}")]
    Reply(#[from] ReplyError),
    /// The server answered with an error.
    #[error("the server refuses to list its commands")]
    Refused,
    /// It has not the form of such a table.
    #[error("not a table of commands")]
    Form,
    /// There are too many commands, or one has a name that is too long.
    #[error("a table of commands beyond all measure")]
    TooLarge,
}

/// Redis has some 400 with subcommands, and Redis Stack 600.
const MAX_COMMANDS: usize = 10_000;
const MAX_NAME: usize = 128;

/// Reads the whole reply. Subcommands stand behind all commands.
pub(super) fn table(reply: &[u8]) -> Result<Vec<Spec>, TableError> {
    let value = Value::parse(reply)?;
    if let Value::Error(_) = value {
        return Err(TableError::Refused);
    }
    let mut specs: Vec<Spec> = Vec::new();
    let mut inside = Vec::new();
    for entry in items(value)? {
        let entry = entry?;
        // What `COMMAND INFO` answers of a command that there is not.
        if matches!(entry, Value::Null) {
            continue;
        }
        let (mut spec, subcommands) = command(entry)?;
        let index = u32::try_from(specs.len()).map_err(|_| TableError::TooLarge)?;
        let before = inside.len();
        for entry in subcommands.into_iter().flatten() {
            let (mut inner, _) = command(entry?)?;
            inner.container = Some(index);
            inner.own_name_at = own_name_at(&inner.name, &spec.name);
            inside.push(inner);
        }
        if subcommands.is_none() {
            inside.extend(subcommands_before_7(&spec, index));
        }
        spec.has_subcommands = inside.len() > before;
        specs.push(spec);
        if specs.len() + inside.len() > MAX_COMMANDS {
            return Err(TableError::TooLarge);
        }
    }
    specs.extend(inside);
    Ok(specs)
}

/// Where the part of `container|own` behind the bar begins.
fn own_name_at(name: &[u8], container: &[u8]) -> usize {
    match name.strip_prefix(container) {
        Some([b'|', ..]) => container.len() + 1,
        _ => 0,
    }
}

fn items(value: Value<'_>) -> Result<Items<'_>, TableError> {
    value.items().ok_or(TableError::Form)
}

fn string(value: Value<'_>) -> Result<&[u8], TableError> {
    value.string().ok_or(TableError::Form)
}

fn integer(value: Value<'_>) -> Result<i32, TableError> {
    let value = value.integer().ok_or(TableError::Form)?;
    i32::try_from(value).map_err(|_| TableError::Form)
}

fn index(value: Value<'_>) -> Result<u32, TableError> {
    u32::try_from(integer(value)?).map_err(|_| TableError::Form)
}

/// An item that must be there.
fn next<'a>(items: &mut Items<'a>) -> Result<Value<'a>, TableError> {
    Ok(items.next().ok_or(TableError::Form)??)
}

/// One command, and its subcommands where the server is one that lists them.
fn command(entry: Value<'_>) -> Result<(Spec, Option<Items<'_>>), TableError> {
    let mut entry = items(entry)?;
    let name = string(next(&mut entry)?)?.to_ascii_lowercase();
    if name.len() > MAX_NAME {
        return Err(TableError::TooLarge);
    }
    let arity = integer(next(&mut entry)?)?;
    let mut flags = Flags::NONE;
    for flag in items(next(&mut entry)?)? {
        flags = flags.with(Flags::named(string(flag?)?));
    }
    let first = integer(next(&mut entry)?)?;
    let last = integer(next(&mut entry)?)?;
    let step = integer(next(&mut entry)?)?;
    let mut categories = Categories::NONE;
    if let Some(list) = entry.next() {
        for category in items(list?)? {
            categories = categories.with(Categories::named(string(category?)?));
        }
    }
    let described = match entry.next() {
        // The tips say nothing that we need.
        Some(_) => Some(next(&mut entry)?),
        None => None,
    };
    let subcommands = match described {
        Some(_) => Some(items(next(&mut entry)?)?),
        None => None,
    };
    let keys = match (rules::by_name(&name), described) {
        (Some(keys), _) => keys,
        (None, Some(specs)) => match described_keys(items(specs)?, flags)? {
            // A module may give positions and no description.
            Keys::None => listed_keys(flags, [first, last, step]),
            keys => keys,
        },
        (None, None) => keys_before_7(&name, flags, [first, last, step]),
    };
    let transform = Transform::of(&name);
    let spec = Spec {
        name: name.into(),
        own_name_at: 0,
        arity,
        flags,
        categories,
        keys,
        transform,
        container: None,
        has_subcommands: false,
        place: 0,
    };
    Ok((spec, subcommands))
}

/// Keys as Redis 7 describes them.
fn described_keys(list: Items<'_>, flags: Flags) -> Result<Keys, TableError> {
    let mut specs = Vec::new();
    for spec in list {
        match key_spec(spec?)? {
            Some(spec) => specs.push(spec),
            None => return Ok(Keys::Unknown),
        }
    }
    Ok(match specs.as_slice() {
        [] if flags.has(Flags::MOVABLEKEYS) => Keys::Unknown,
        [] => Keys::None,
        [
            KeySpec {
                begin: Begin::Index(first),
                find:
                    Find::Range {
                        last,
                        step,
                        limit: 0 | 1,
                    },
                role,
            },
        ] => Keys::Range(Range {
            first: *first,
            last: match last {
                // Counted from the first key here, from the command's name there.
                0.. => last.saturating_add_unsigned(*first),
                last => *last,
            },
            step: *step,
            role: *role,
        }),
        specs if specs.len() > MAX_SPECS => Keys::Unknown,
        _ => Keys::Specs(specs.into()),
    })
}

/// `None`: it does not describe all keys, or not in a way that works while a command streams.
fn key_spec(spec: Value<'_>) -> Result<Option<KeySpec>, TableError> {
    let mut flags = KeyFlags::NONE;
    let mut begin = None;
    let mut find = None;
    let mut fields = items(spec)?;
    while let Some(name) = fields.next() {
        let value = next(&mut fields)?;
        match string(name?)? {
            b"flags" => {
                for flag in items(value)? {
                    flags = flags.with(KeyFlags::named(string(flag?)?));
                }
            }
            b"begin_search" => begin = search(value, begin_search)?,
            b"find_keys" => find = search(value, find_keys)?,
            _ => {}
        }
    }
    if flags.has(KeyFlags::INCOMPLETE) {
        return Ok(None);
    }
    let role = match flags.has(KeyFlags::NOT_KEY) {
        true => Role::ShardChannel,
        false => Role::Key(flags),
    };
    Ok(begin
        .zip(find)
        .map(|(begin, find)| KeySpec { begin, find, role }))
}

/// A type and what belongs to it.
fn search<'a, T>(
    value: Value<'a>,
    read: impl Fn(&[u8], Items<'a>) -> Result<Option<T>, TableError>,
) -> Result<Option<T>, TableError> {
    let mut kind = None;
    let mut spec = None;
    let mut fields = items(value)?;
    while let Some(name) = fields.next() {
        let value = next(&mut fields)?;
        match string(name?)? {
            b"type" => kind = Some(string(value)?),
            b"spec" => spec = Some(items(value)?),
            _ => {}
        }
    }
    match (kind, spec) {
        (Some(kind), Some(spec)) => read(kind, spec),
        _ => Err(TableError::Form),
    }
}

/// A field of a map.
fn field<'a>(fields: Items<'a>, wanted: &[u8]) -> Result<Value<'a>, TableError> {
    let mut fields = fields;
    while let Some(name) = fields.next() {
        let value = next(&mut fields)?;
        if string(name?)? == wanted {
            return Ok(value);
        }
    }
    Err(TableError::Form)
}

fn begin_search(kind: &[u8], spec: Items<'_>) -> Result<Option<Begin>, TableError> {
    Ok(match kind {
        b"index" => Some(Begin::Index(index(field(spec, b"index")?)?)),
        b"keyword" => {
            let word = string(field(spec, b"keyword")?)?.into();
            // Below zero the search goes backwards from the end, which has not come while a command streams.
            let from = u32::try_from(integer(field(spec, b"startfrom")?)?).ok();
            from.map(|from| Begin::Keyword { word, from })
        }
        _ => None,
    })
}

fn find_keys(kind: &[u8], spec: Items<'_>) -> Result<Option<Find>, TableError> {
    // A step of nothing would stand still.
    let step = |name| Ok::<_, TableError>(index(field(spec, name)?)?.max(1));
    Ok(match kind {
        b"range" => Some(Find::Range {
            last: integer(field(spec, b"lastkey")?)?,
            step: step(b"keystep")?,
            limit: index(field(spec, b"limit")?)?,
        }),
        b"keynum" => {
            let count = index(field(spec, b"keynumidx")?)?;
            let first = index(field(spec, b"firstkey")?)?;
            // The keys must not come before their number.
            (first > count).then_some(Find::Count {
                index: count,
                first,
                step: step(b"keystep")?,
            })
        }
        _ => None,
    })
}

/// Keys as servers before 7.0 describe them.
fn keys_before_7(name: &[u8], flags: Flags, [first, last, step]: [i32; 3]) -> Keys {
    let role = Role::Key(flags_of(flags.has(Flags::READONLY)));
    if let Some(keys) = rules::before_7(name, role) {
        return keys;
    }
    if flags.has(Flags::MOVABLEKEYS) {
        return Keys::Unknown;
    }
    listed_keys(flags, [first, last, step])
}

/// Keys by the positions of the first and the last.
fn listed_keys(flags: Flags, [first, last, step]: [i32; 3]) -> Keys {
    match (u32::try_from(first), u32::try_from(step)) {
        (Ok(first @ 1..), Ok(step @ 1..)) => Keys::Range(Range {
            first,
            last,
            step,
            role: Role::Key(flags_of(flags.has(Flags::READONLY))),
        }),
        _ => Keys::None,
    }
}

/// The subcommands of a command that has some though its server does not list them.
fn subcommands_before_7(container: &Spec, index: u32) -> Vec<Spec> {
    let names = rules::subcommands_before_7(&container.name);
    let spec = |own: &&str| {
        let name = [&container.name, &b"|"[..], own.as_bytes()].concat();
        let transform = Transform::of(&name);
        let keys = rules::by_name(&name)
            .or_else(|| rules::before_7(&name, Role::Other))
            .unwrap_or_else(|| match &*container.name {
                b"memory" => Keys::None,
                _ => container.keys.clone(),
            });
        Spec {
            own_name_at: container.name.len() + 1,
            keys,
            transform,
            container: Some(index),
            name: name.into(),
            ..container.clone()
        }
    };
    names.iter().map(spec).collect()
}
