//! Tables as JSON describes them, in the form of `GET /workspaces/{id}/schema` and a little more.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{Made, Statement};
use crate::app::failure::{Failure, Outcome};

/// A table to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonTable {
    /// Its name.
    #[schema(example = "users")]
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<JsonColumn>,
    /// Its indexes. A name alone stands for the primary key: `users_pkey` is that of `users`, on `id` or else the first column.
    #[serde(default)]
    pub indexes: Vec<JsonIndex>,
}

/// A column to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonColumn {
    /// Its name.
    #[schema(example = "email")]
    pub name: String,
    /// Its type as declared.
    #[serde(rename = "type")]
    #[schema(example = "TEXT")]
    pub type_name: String,
    /// Whether it may be null: yes if left out.
    pub nullable: Option<bool>,
    /// Whether it is the primary key, or a part of it.
    #[serde(default)]
    pub primary_key: bool,
    /// Whether its values are unique.
    #[serde(default)]
    pub unique: bool,
    /// Its default, as an expression of the engine.
    #[schema(example = "now()")]
    pub default: Option<String>,
    /// The table, or `table(column)`, that it refers to.
    #[schema(example = "teams(id)")]
    pub references: Option<String>,
}

/// An index to make.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum JsonIndex {
    /// A name alone.
    Name(String),
    /// An index in full.
    Full {
        /// Its name.
        name: String,
        /// Its columns in order.
        columns: Vec<String>,
        /// Whether their values are unique.
        #[serde(default)]
        unique: bool,
    },
}

/// The statements that make these tables.
///
/// # Errors
/// A name, type or expression cannot be used; the sentence names the field.
pub fn statements_of(tables: &[JsonTable]) -> Outcome<Vec<Statement>> {
    let mut statements = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let at = format!("tables[{at}]");
        check_name(&format!("{at}.name"), &table.name)?;
        if table.columns.is_empty() {
            return Err(Failure::BadRequest(format!(
                "Field '{at}.columns' must name at least one column"
            )));
        }
        statements.push(table_statement(&at, table)?);
        for (i, index) in table.indexes.iter().enumerate() {
            statements.extend(index_statement(
                &format!("{at}.indexes[{i}]"),
                table,
                index,
            )?);
        }
    }
    Ok(statements)
}

fn table_statement(at: &str, table: &JsonTable) -> Outcome<Statement> {
    let mut parts = Vec::new();
    for (i, column) in table.columns.iter().enumerate() {
        parts.push(column_part(&format!("{at}.columns[{i}]"), column)?);
    }
    let key = primary_key(table);
    if !key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    let name = quote(&table.name);
    Ok(Statement {
        made: Made::Table(table.name.clone()),
        sql: format!("CREATE TABLE {name} ({})", parts.join(", ")),
    })
}

fn column_part(at: &str, column: &JsonColumn) -> Outcome<String> {
    check_name(&format!("{at}.name"), &column.name)?;
    check_text(&format!("{at}.type"), &column.type_name)?;
    let mut part = format!("{} {}", quote(&column.name), column.type_name.trim());
    if column.nullable == Some(false) {
        part.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        check_text(&format!("{at}.default"), default)?;
        part.push_str(&format!(" DEFAULT {default}"));
    }
    if column.unique {
        part.push_str(" UNIQUE");
    }
    if let Some(target) = &column.references {
        let (table, of) = match target.strip_suffix(')').and_then(|it| it.split_once('(')) {
            Some((table, of)) => (table.trim(), Some(of.trim())),
            None => (target.trim(), None),
        };
        check_name(&format!("{at}.references"), table)?;
        part.push_str(&format!(" REFERENCES {}", quote(table)));
        if let Some(of) = of {
            check_name(&format!("{at}.references"), of)?;
            part.push_str(&format!(" ({})", quote(of)));
        }
    }
    Ok(part)
}

/// The columns of the primary key: those that say so; else what an index by the usual name stands for.
fn primary_key(table: &JsonTable) -> Vec<String> {
    let named = table.columns.iter().filter(|it| it.primary_key);
    let mut key: Vec<_> = named.map(|it| quote(&it.name)).collect();
    let by_index = table
        .indexes
        .iter()
        .any(|it| matches!(it, JsonIndex::Name(name) if is_key(table, name)));
    if key.is_empty() && by_index {
        let id = table.columns.iter().find(|it| it.name == "id");
        key.extend(id.or(table.columns.first()).map(|it| quote(&it.name)));
    }
    key
}

fn is_key(table: &JsonTable, index: &str) -> bool {
    index.strip_suffix("_pkey") == Some(&table.name)
}

fn index_statement(at: &str, table: &JsonTable, index: &JsonIndex) -> Outcome<Option<Statement>> {
    let (name, columns, unique) = match index {
        JsonIndex::Name(name) if is_key(table, name) => return Ok(None),
        // A unique column has an index of that name.
        JsonIndex::Name(name)
            if table
                .columns
                .iter()
                .any(|it| it.unique && *name == format!("{}_{}_key", table.name, it.name)) =>
        {
            return Ok(None);
        }
        JsonIndex::Name(name) => {
            return Err(Failure::BadRequest(format!(
                "Field '{at}': the index '{name}' needs its columns: {{\"name\": \"{name}\", \"columns\": [\"…\"]}}"
            )));
        }
        JsonIndex::Full {
            name,
            columns,
            unique,
        } => (name, columns, *unique),
    };
    check_name(&format!("{at}.name"), name)?;
    if columns.is_empty() {
        return Err(Failure::BadRequest(format!(
            "Field '{at}.columns' must name at least one column"
        )));
    }
    let mut quoted = Vec::new();
    for column in columns {
        check_name(&format!("{at}.columns"), column)?;
        quoted.push(quote(column));
    }
    let unique = if unique { "UNIQUE " } else { "" };
    Ok(Some(Statement {
        made: Made::Index {
            index: name.clone(),
            of: table.name.clone(),
        },
        sql: format!(
            "CREATE {unique}INDEX {} ON {} ({})",
            quote(name),
            quote(&table.name),
            quoted.join(", ")
        ),
    }))
}

fn check_name(field: &str, name: &str) -> Outcome<()> {
    if (1..=63).contains(&name.len()) && !name.contains(char::is_control) {
        return Ok(());
    }
    Err(Failure::BadRequest(format!(
        "Field '{field}' must be 1 to 63 bytes without control characters"
    )))
}

/// Types and expressions are the caller's own; only that they stay one statement is ensured.
fn check_text(field: &str, text: &str) -> Outcome<()> {
    let ends = [";", "--", "/*", "\0"].iter().any(|it| text.contains(it));
    if !text.trim().is_empty() && !ends {
        return Ok(());
    }
    Err(Failure::BadRequest(format!(
        "Field '{field}' must not be empty, nor hold a semicolon or a comment"
    )))
}

/// As people write it where that is possible: lower case words stay as they are.
fn quote(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars
        .next()
        .is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name);
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// PostgreSQL's reserved words, from its manual's appendix C.
const RESERVED: [&str; 77] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "system_user",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(tables: serde_json::Value, expected: Result<&[&str], &str>) {
        let tables: Vec<JsonTable> = serde_json::from_value(tables).unwrap();
        match (statements_of(&tables), expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<_> = found.iter().map(|it| it.sql.as_str()).collect();
                assert_eq!(found, expected);
            }
            (Err(Failure::BadRequest(why)), Err(expected)) => {
                assert!(why.contains(expected), "{why}");
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn tables_become_statements() {
        // The form of GET /workspaces/{id}/schema.
        check(
            json!([{
                "name": "users",
                "columns": [
                    { "name": "id", "type": "SERIAL", "nullable": false },
                    { "name": "name", "type": "TEXT", "nullable": false }
                ],
                "indexes": ["users_pkey"]
            }]),
            Ok(&["CREATE TABLE users (id SERIAL NOT NULL, name TEXT NOT NULL, PRIMARY KEY (id))"]),
        );
        check(
            json!([{
                "name": "Order",
                "columns": [
                    { "name": "user", "type": "bigint", "references": "users(id)", "primary_key": true },
                    { "name": "at", "type": "timestamptz", "default": "now()", "unique": true }
                ],
                "indexes": [{ "name": "by_at", "columns": ["at", "user"], "unique": true }]
            }]),
            Ok(&[
                "CREATE TABLE \"Order\" (\"user\" bigint REFERENCES users (id), at timestamptz DEFAULT now() UNIQUE, PRIMARY KEY (\"user\"))",
                "CREATE UNIQUE INDEX by_at ON \"Order\" (at, \"user\")",
            ]),
        );
        let column = |type_name: &str| json!([{ "name": "t", "columns": [{ "name": "a", "type": type_name }] }]);
        check(
            column("int); DROP TABLE x; --"),
            Err("tables[0].columns[0].type"),
        );
        check(column(""), Err("tables[0].columns[0].type"));
        check(
            json!([{ "name": "", "columns": [] }]),
            Err("tables[0].name"),
        );
        check(
            json!([{ "name": "t", "columns": [] }]),
            Err("tables[0].columns"),
        );
        check(
            json!([{ "name": "t", "columns": [{ "name": "a", "type": "int" }], "indexes": ["t_a_idx"] }]),
            Err("tables[0].indexes[0]"),
        );
    }
}
