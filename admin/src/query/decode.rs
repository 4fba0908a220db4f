//! The two messages that only whoever reads rows needs. Formats: PostgreSQL's manual, "Message Formats".

use super::cell::{Cell, cell};

/// A column of a RowDescription.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_oid: u32,
}

/// Takes bytes off the front.
fn take<'a, const N: usize>(input: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (bytes, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(bytes)
}

/// RowDescription.
pub(super) fn columns(mut body: &[u8]) -> Option<Vec<Column>> {
    let body = &mut body;
    let count = u16::from_be_bytes(*take(body)?);
    let mut columns = Vec::new();
    for _ in 0..count {
        let end = body.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&body[..end]).into_owned();
        *body = &body[end + 1..];
        let _table_and_attribute = take::<6>(body)?;
        let type_oid = u32::from_be_bytes(*take(body)?);
        let _size_modifier_and_format = take::<8>(body)?;
        columns.push(Column { name, type_oid });
    }
    body.is_empty().then_some(columns)
}

/// DataRow in text format.
pub(super) fn row(mut body: &[u8], columns: &[Column]) -> Option<Vec<Cell>> {
    let body = &mut body;
    let count = usize::from(u16::from_be_bytes(*take(body)?));
    if count != columns.len() {
        return None;
    }
    let mut row = Vec::with_capacity(count);
    for column in columns {
        let Ok(len) = usize::try_from(i32::from_be_bytes(*take(body)?)) else {
            row.push(Cell::Null);
            continue;
        };
        let (value, rest) = body.split_at_checked(len)?;
        *body = rest;
        row.push(cell(column.type_oid, &String::from_utf8_lossy(value)));
    }
    body.is_empty().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_and_its_rows_and_every_cut_of_them() {
        let description = b"\0\x01id\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
        let found = columns(description).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].type_oid), ("id", 23));
        let data = b"\0\x01\0\0\0\x0242";
        assert_eq!(serde_json::to_string(&row(data, &found)).unwrap(), "[42]");
        assert_eq!(
            serde_json::to_string(&row(b"\0\x01\xff\xff\xff\xff", &found)).unwrap(),
            "[null]"
        );
        for cut in 0..description.len() {
            assert!(columns(&description[..cut]).is_none(), "cut {cut}");
        }
        for cut in 0..data.len() {
            assert!(row(&data[..cut], &found).is_none(), "cut {cut}");
        }
        assert!(row(b"\0\x02\0\0\0\0\0\0\0\0", &found).is_none());
    }
}
