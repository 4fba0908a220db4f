//! What a server says of its own commands.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Value, cmd};

use super::connect::ask;
use crate::EngineError;

/// A command, or a subcommand as `config|get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) name: String,
    /// `@read`, `@write` …
    pub(super) categories: Vec<String>,
    /// Whether the server can tell which keys a call names, which is what it checks the ACL's keys with.
    pub(super) has_keys: bool,
}

impl Command {
    pub(super) fn is_of(&self, category: &str) -> bool {
        self.categories.iter().any(|it| it == category)
    }
}

/// All commands of a server, those of its modules too.
pub(super) async fn commands(
    connection: &mut MultiplexedConnection,
) -> Result<Vec<Command>, EngineError> {
    let entries: Vec<Value> = ask(connection, &cmd("COMMAND")).await?;
    let mut all = Vec::new();
    for entry in &entries {
        read(entry, &mut all).ok_or(EngineError::Unsupported(
            "the server's table of commands is not that of Redis 7.0 or newer",
        ))?;
    }
    Ok(all)
}

/// Name, arity, flags, first key, last key, step, categories, tips, key specifications, subcommands.
fn read(entry: &Value, all: &mut Vec<Command>) -> Option<()> {
    let fields = items(entry)?;
    let [
        name,
        _,
        flags,
        first_key,
        _,
        _,
        categories,
        _,
        specifications,
        subcommands,
        ..,
    ] = fields
    else {
        return None;
    };
    let movable = items(flags)?
        .iter()
        .filter_map(text)
        .any(|it| it == "movablekeys");
    let has_keys = movable || !items(specifications)?.is_empty() || *first_key != Value::Int(0);
    all.push(Command {
        name: text(name)?.to_ascii_lowercase(),
        categories: items(categories)?.iter().filter_map(text).collect(),
        has_keys,
    });
    items(subcommands)?.iter().try_for_each(|it| read(it, all))
}

fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) | Value::Set(items) => Some(items),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Value {
        Value::SimpleString(text.into())
    }

    fn entry(name: &str, flags: &[&str], first_key: i64, subcommands: Vec<Value>) -> Value {
        let flags = flags.iter().map(|it| word(it)).collect();
        let none = || Value::Array(Vec::new());
        Value::Array(vec![
            Value::BulkString(name.into()),
            Value::Int(2),
            Value::Set(flags),
            Value::Int(first_key),
            Value::Int(0),
            Value::Int(0),
            Value::Array(vec![word("@read")]),
            none(),
            none(),
            Value::Array(subcommands),
        ])
    }

    #[test]
    fn commands_are_listed_with_their_subcommands() {
        let sub = entry("memory|usage", &[], 2, Vec::new());
        let mut all = Vec::new();
        read(&entry("memory", &[], 0, vec![sub]), &mut all).unwrap();
        read(&entry("EVAL", &["movablekeys"], 0, Vec::new()), &mut all).unwrap();
        let found: Vec<_> = all.iter().map(|it| (&*it.name, it.has_keys)).collect();
        assert_eq!(
            found,
            [("memory", false), ("memory|usage", true), ("eval", true)]
        );
        assert!(all[0].is_of("@read"));
        assert_eq!(read(&Value::Array(vec![word("get")]), &mut all), None);
    }
}
