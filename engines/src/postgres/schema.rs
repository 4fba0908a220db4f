//! What tables a database has.

use super::connect::{error, superuser};
use crate::{Column, EngineError, ServerAccess, Table};

const COLUMNS: &str = "
SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
    pg_catalog.pg_get_expr(d.adbin, d.adrelid),
    EXISTS (SELECT FROM pg_catalog.pg_depend s WHERE s.refobjid = c.oid AND s.refobjsubid = a.attnum AND s.deptype = 'a'
        AND s.classid = 'pg_class'::regclass AND s.refclassid = 'pg_class'::regclass) AND d.adbin IS NOT NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', '_tenantsdb')
    AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%'
ORDER BY n.nspname <> 'public', n.nspname, c.relname, a.attnum";

const INDEXES: &str = "
SELECT n.nspname, t.relname, i.relname
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = x.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', '_tenantsdb') AND n.nspname NOT LIKE 'pg\\_t%'
ORDER BY NOT x.indisprimary, i.relname";

/// The tables of a database.
pub(super) async fn tables(
    server: &ServerAccess,
    database: &str,
) -> Result<Vec<Table>, EngineError> {
    let client = superuser(server, database).await?;
    let mut tables: Vec<Table> = Vec::new();
    for row in client.query(COLUMNS, &[]).await.map_err(|it| error(&it))? {
        let name = shown(row.get(0), row.get(1));
        if tables.last().is_none_or(|table| table.name != name) {
            tables.push(Table {
                name,
                columns: Vec::new(),
                indexes: Vec::new(),
            });
        }
        let column: Option<String> = row.get(2);
        if let (Some(column), Some(table)) = (column, tables.last_mut()) {
            let data_type: String = row.get(3);
            let default: Option<String> = row.get(5);
            let serial = serial(&data_type).filter(|_| row.get(6));
            table.columns.push(Column {
                name: column,
                default: default.filter(|_| serial.is_none()),
                data_type: serial.map_or_else(|| declared(&data_type), str::to_owned),
                nullable: row.get(4),
            });
        }
    }
    for row in client.query(INDEXES, &[]).await.map_err(|it| error(&it))? {
        let name = shown(row.get(0), row.get(1));
        if let Some(table) = tables.iter_mut().find(|table| table.name == name) {
            table.indexes.push(row.get(2));
        }
    }
    Ok(tables)
}

fn shown(schema: &str, table: &str) -> String {
    if schema == "public" {
        table.to_owned()
    } else {
        format!("{schema}.{table}")
    }
}

fn serial(data_type: &str) -> Option<&'static str> {
    match data_type {
        "smallint" => Some("SMALLSERIAL"),
        "integer" => Some("SERIAL"),
        "bigint" => Some("BIGSERIAL"),
        _ => None,
    }
}

/// A type as people declare it. Names that are not built in stay as they are.
fn declared(data_type: &str) -> String {
    const NAMES: [(&str, &str); 25] = [
        ("timestamp with time zone", "TIMESTAMPTZ"),
        ("timestamp without time zone", "TIMESTAMP"),
        ("time with time zone", "TIMETZ"),
        ("time without time zone", "TIME"),
        ("character varying", "VARCHAR"),
        ("character", "CHAR"),
        ("double precision", "DOUBLE PRECISION"),
        ("integer", "INTEGER"),
        ("bigint", "BIGINT"),
        ("smallint", "SMALLINT"),
        ("numeric", "NUMERIC"),
        ("boolean", "BOOLEAN"),
        ("text", "TEXT"),
        ("uuid", "UUID"),
        ("jsonb", "JSONB"),
        ("json", "JSON"),
        ("bytea", "BYTEA"),
        ("date", "DATE"),
        ("interval", "INTERVAL"),
        ("real", "REAL"),
        ("inet", "INET"),
        ("cidr", "CIDR"),
        ("xml", "XML"),
        ("money", "MONEY"),
        ("tsvector", "TSVECTOR"),
    ];
    // `timestamp(3) with time zone`: the precision stands inside the name.
    let (before, inside, after) = match data_type.split_once('(') {
        Some((before, rest)) => match rest.split_once(')') {
            Some((inside, after)) => (before, format!("({inside})"), after),
            None => (data_type, String::new(), ""),
        },
        None => (data_type, String::new(), ""),
    };
    let base = format!("{before}{after}");
    let (base, array) = match base.strip_suffix("[]") {
        Some(element) => (element, "[]"),
        None => (base.as_str(), ""),
    };
    NAMES.iter().find(|(name, _)| *name == base).map_or_else(
        || data_type.to_owned(),
        |(_, shown)| format!("{shown}{inside}{array}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_people_declare_them() {
        for (found, expected) in [
            ("character varying(255)", "VARCHAR(255)"),
            ("timestamp(3) with time zone", "TIMESTAMPTZ(3)"),
            ("timestamp with time zone", "TIMESTAMPTZ"),
            ("numeric(12,2)", "NUMERIC(12,2)"),
            ("integer[]", "INTEGER[]"),
            ("character varying(5)[]", "VARCHAR(5)[]"),
            ("mood", "mood"),
            ("public.\"Mood\"", "public.\"Mood\""),
        ] {
            assert_eq!(declared(found), expected);
        }
    }
}
