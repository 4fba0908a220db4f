//! Schemas to import into a workspace: as statements, each naming what it makes.

mod dump;
mod json;

pub use dump::{drop_of_dump, made_by_dump, statement_of_dump};
pub use json::{JsonColumn, JsonIndex, JsonTable, statements_of};

/// The templates by name.
pub const TEMPLATES: [(&str, &str); 4] = [
    ("ecommerce", include_str!("templates/ecommerce.sql")),
    ("saas", include_str!("templates/saas.sql")),
    ("blog", include_str!("templates/blog.sql")),
    ("fintech", include_str!("templates/fintech.sql")),
];

/// What a statement makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Made {
    /// This table.
    Table(String),
    /// Something else with a name of its own: a view, a type, a function.
    Object(String),
    /// An index, which may have parts of its own, such as a comment.
    Index {
        /// Its name, with its schema unless that is the usual one.
        index: String,
        /// Its table.
        of: String,
    },
    /// Something else that a table or object has and that cannot be without it: a constraint, a trigger, a comment.
    Part {
        /// Its name.
        name: String,
        /// What it is a part of.
        of: String,
    },
}

impl Made {
    /// Its own name.
    pub fn name(&self) -> &str {
        match self {
            Self::Table(name)
            | Self::Object(name)
            | Self::Index { index: name, .. }
            | Self::Part { name, .. } => name,
        }
    }
}

/// A statement of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What it makes.
    pub made: Made,
    /// Its text.
    pub sql: String,
}

/// A template's statements; `None` if there is no such template.
pub fn template(name: &str) -> Option<Vec<Statement>> {
    let (_, sql) = TEMPLATES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(sql.split(";\n").filter_map(read).collect())
}

/// Templates make tables and named indexes only, and have a semicolon at the ends of lines only behind a statement.
fn read(sql: &str) -> Option<Statement> {
    let sql = sql.trim();
    let mut words = sql.split_whitespace().skip(1);
    let mut word = words.next()?;
    if word == "UNIQUE" {
        word = words.next()?;
    }
    let name = words.next()?.to_owned();
    let made = if word == "TABLE" {
        Made::Table(name)
    } else {
        Made::Index {
            index: name,
            of: words.nth(1)?.to_owned(),
        }
    };
    Some(Statement {
        made,
        sql: sql.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_of_each_template_names_what_it_makes() {
        for (name, sql) in TEMPLATES {
            let statements = template(name).unwrap();
            assert_eq!(statements.len(), sql.matches("CREATE ").count(), "{name}");
            for statement in &statements {
                let begins = match &statement.made {
                    Made::Table(table) => format!("CREATE TABLE {table} ("),
                    Made::Index { index, of } => format!("INDEX {index} ON {of} "),
                    other => panic!("{other:?} is neither a table nor an index"),
                };
                assert!(statement.sql.contains(&begins), "{begins}");
            }
        }
        let fintech = template("Fintech").unwrap();
        let tables: Vec<_> = fintech
            .iter()
            .filter(|it| matches!(it.made, Made::Table(_)))
            .map(|it| it.made.name())
            .collect();
        assert!(tables.starts_with(&["users", "accounts", "transactions"]));
        assert_eq!(template("none"), None);
    }
}
