//! Values as JSON that loses nothing.
//!
//! | PostgreSQL | JSON |
//! |---|---|
//! | `boolean` | boolean |
//! | `smallint`, `integer`, `oid` | number |
//! | `bigint` | number up to 2^53 - 1 either way, a string beyond |
//! | `real`, `double precision` | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `numeric` | string |
//! | `date`, `time`, `timestamp` and those with a zone | string, ISO 8601 |
//! | `bytea` | string, base64 |
//! | `json`, `jsonb` | itself |
//! | arrays of the above and of texts | array |
//! | everything else | string, as PostgreSQL writes it |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

/// The largest whole number up to which every JSON reader is exact.
pub(super) const MAX_SAFE: u64 = (1 << 53) - 1;
/// Arrays may nest as deep as PostgreSQL lets them, and no deeper.
const MAX_DIMENSIONS: usize = 6;

/// A value.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// A whole number that every JSON reader takes exactly.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// Anything written out.
    Text(String),
    /// A document, with its numbers as they are.
    Json(Box<RawValue>),
    /// An array.
    Array(Vec<Cell>),
}

/// How a type's text becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Float,
    Bytes,
    DateTime,
    Json,
    Text,
}

/// The value of that type, from PostgreSQL's text for it.
pub(super) fn cell(type_oid: u32, text: &str) -> Cell {
    if let Some(kind) = scalar(type_oid) {
        return kind.read(text);
    }
    match array(type_oid).and_then(|kind| read_array(kind, text)) {
        Some(array) => array,
        None => Cell::Text(text.to_owned()),
    }
}

/// Types by their OIDs in `pg_type.dat`, which never change.
fn scalar(oid: u32) -> Option<Kind> {
    Some(match oid {
        16 => Kind::Bool,
        20 | 21 | 23 | 26 => Kind::Int,
        700 | 701 => Kind::Float,
        17 => Kind::Bytes,
        1082 | 1083 | 1266 | 1114 | 1184 => Kind::DateTime,
        114 | 3802 => Kind::Json,
        _ => return None,
    })
}

/// Array types, by the kind of their elements.
fn array(oid: u32) -> Option<Kind> {
    Some(match oid {
        1000 => Kind::Bool,
        1005 | 1007 | 1016 | 1028 => Kind::Int,
        1021 | 1022 => Kind::Float,
        1001 => Kind::Bytes,
        1182 | 1183 | 1270 | 1115 | 1185 => Kind::DateTime,
        199 | 3807 => Kind::Json,
        // char, name, text, bpchar, varchar, numeric, uuid, inet, cidr, interval, money, bit, varbit, xml, macaddr.
        1002 | 1003 | 1009 | 1014 | 1015 | 1231 | 2951 | 1041 | 651 | 1187 | 791 | 1561 | 1563
        | 143 | 1040 => Kind::Text,
        _ => return None,
    })
}

impl Kind {
    fn read(self, text: &str) -> Cell {
        let read = match self {
            Self::Bool => Some(Cell::Bool(text == "t")),
            Self::Int => text
                .parse::<i64>()
                .ok()
                .filter(|n| n.unsigned_abs() <= MAX_SAFE)
                .map(Cell::Int),
            Self::Float => text
                .parse::<f64>()
                .ok()
                .filter(|n| n.is_finite())
                .map(Cell::Float),
            Self::Bytes => bytes(text).map(|bytes| Cell::Text(STANDARD.encode(bytes))),
            Self::DateTime => iso(text).map(Cell::Text),
            Self::Json => RawValue::from_string(text.to_owned()).ok().map(Cell::Json),
            Self::Text => None,
        };
        read.unwrap_or_else(|| Cell::Text(text.to_owned()))
    }
}

/// `\x00ff`, or the older form with escapes if the session asked for it.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let Some(hex) = text.strip_prefix("\\x") else {
        return escaped_bytes(text.as_bytes());
    };
    let digit = |b: &u8| {
        char::from(*b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    hex.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

fn escaped_bytes(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    while let Some((byte, rest)) = text.split_first() {
        text = rest;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        if let Some(rest) = text.strip_prefix(b"\\") {
            out.push(b'\\');
            text = rest;
            continue;
        }
        let (octal, rest) = text.split_at_checked(3)?;
        out.push(u8::from_str_radix(std::str::from_utf8(octal).ok()?, 8).ok()?);
        text = rest;
    }
    Some(out)
}

/// PostgreSQL's ISO style puts a blank where ISO 8601 has a `T`, and leaves out the minutes of a zone.
fn iso(text: &str) -> Option<String> {
    let (date, time) = match text.split_once(' ') {
        None => (None, text),
        Some((_, "BC")) => return None,
        Some((date, time)) if !time.contains(' ') => (Some(date), time),
        Some(_) => return None,
    };
    if !text.as_bytes().first()?.is_ascii_digit() {
        return None; // infinity, or another style that the session asked for.
    }
    let Some(date) = date else {
        return Some(if text.contains(':') {
            zoned(time)
        } else {
            time.to_owned()
        });
    };
    Some(format!("{date}T{}", zoned(time)))
}

fn zoned(time: &str) -> String {
    match time.rfind(['+', '-']) {
        None => time.to_owned(),
        Some(at) => match &time[at..] {
            "+00" => format!("{}Z", &time[..at]),
            zone if zone.len() == 3 => format!("{time}:00"),
            _ => time.to_owned(),
        },
    }
}

fn read_array(kind: Kind, text: &str) -> Option<Cell> {
    // Bounds that do not begin at 1 come first, as in `[0:1]={a,b}`.
    let body = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]=").map_or(text, |(_, body)| body),
        None => text,
    };
    let mut rest = body;
    let array = elements(kind, &mut rest, 1)?;
    rest.is_empty().then_some(array)
}

fn elements(kind: Kind, rest: &mut &str, depth: usize) -> Option<Cell> {
    if depth > MAX_DIMENSIONS {
        return None;
    }
    *rest = rest.strip_prefix('{')?;
    let mut found = Vec::new();
    if let Some(after) = rest.strip_prefix('}') {
        *rest = after;
        return Some(Cell::Array(found));
    }
    loop {
        let element = if rest.starts_with('{') {
            elements(kind, rest, depth + 1)?
        } else if rest.starts_with('"') {
            kind.read(&quoted(rest)?)
        } else {
            let end = rest.find([',', '}'])?;
            let (word, after) = rest.split_at(end);
            *rest = after;
            if word == "NULL" {
                Cell::Null
            } else {
                kind.read(word)
            }
        };
        found.push(element);
        let next = rest.chars().next()?;
        *rest = &rest[1..];
        match next {
            ',' => {}
            '}' => return Some(Cell::Array(found)),
            _ => return None,
        }
    }
}

fn quoted(rest: &mut &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &rest[at + 1..];
                return Some(text);
            }
            '\\' => text.push(chars.next()?.1),
            c => text.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(oid: u32, text: &str, json: &str) {
        let cell = cell(oid, text);
        assert_eq!(serde_json::to_string(&cell).unwrap(), json, "{oid} {text}");
    }

    #[test]
    fn scalars() {
        check(16, "t", "true");
        check(16, "f", "false");
        check(23, "-5", "-5");
        check(20, "9007199254740991", "9007199254740991");
        check(20, "9007199254740992", "\"9007199254740992\"");
        check(20, "-9223372036854775808", "\"-9223372036854775808\"");
        check(701, "0.1", "0.1");
        check(701, "NaN", "\"NaN\"");
        check(701, "-Infinity", "\"-Infinity\"");
        check(
            1700,
            "1234567890.123456789012345678",
            "\"1234567890.123456789012345678\"",
        );
        check(17, "\\x00ff10", "\"AP8Q\"");
        check(17, "a\\\\b\\000", "\"YVxiAA==\"");
        check(
            2950,
            "6f9619ff-8b86-d011-b42d-00c04fc964ff",
            "\"6f9619ff-8b86-d011-b42d-00c04fc964ff\"",
        );
        check(25, "héllo", "\"héllo\"");
        check(
            3802,
            r#"{"n": 12345678901234567890123, "a": [1]}"#,
            r#"{"n": 12345678901234567890123, "a": [1]}"#,
        );
        check(600, "(1,2)", "\"(1,2)\"");
    }

    #[test]
    fn times() {
        check(
            1114,
            "2026-02-15 14:30:00.123456",
            "\"2026-02-15T14:30:00.123456\"",
        );
        check(1184, "2026-02-15 14:30:00+00", "\"2026-02-15T14:30:00Z\"");
        check(
            1184,
            "2026-02-15 14:30:00-05",
            "\"2026-02-15T14:30:00-05:00\"",
        );
        check(
            1184,
            "2026-02-15 14:30:00+05:30",
            "\"2026-02-15T14:30:00+05:30\"",
        );
        check(1082, "2026-02-15", "\"2026-02-15\"");
        check(1083, "14:30:00", "\"14:30:00\"");
        check(1266, "14:30:00+02", "\"14:30:00+02:00\"");
        check(1114, "infinity", "\"infinity\"");
        check(1114, "0044-03-15 00:00:00 BC", "\"0044-03-15 00:00:00 BC\"");
        check(1082, "0044-03-15 BC", "\"0044-03-15 BC\"");
    }

    #[test]
    fn arrays() {
        check(1007, "{1,NULL,3}", "[1,null,3]");
        check(1007, "{{1,2},{3,4}}", "[[1,2],[3,4]]");
        check(1007, "[0:1]={1,2}", "[1,2]");
        check(1009, "{}", "[]");
        check(
            1009,
            r#"{"a,b","say \"hi\"","NULL",x}"#,
            r#"["a,b","say \"hi\"","NULL","x"]"#,
        );
        check(1016, "{9007199254740993}", "[\"9007199254740993\"]");
        check(3807, r#"{"{\"a\": 1}"}"#, r#"[{"a": 1}]"#);
        check(
            1185,
            r#"{"2026-02-15 14:30:00+00"}"#,
            "[\"2026-02-15T14:30:00Z\"]",
        );
        check(1009, "{broken", "\"{broken\"");
        check(99_999, "{a,b}", "\"{a,b}\"");
    }
}
