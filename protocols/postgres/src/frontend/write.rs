//! Messages as a client sends them. Each function appends one to `out`, which an error leaves as it was.

use super::{BindNames, Kind, tag};
use crate::writer::{self, EncodeError};

/// Query.
///
/// # Errors
/// A zero byte in the text, or a text that is too long.
pub fn query(out: &mut Vec<u8>, query: &[u8]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::QUERY), |out| writer::cstr(out, query))
}

/// Parse. `param_types` are OIDs of four bytes each, as [`super::Parse`] gives them.
///
/// # Errors
/// A zero byte in a string, a list that is too long, or OIDs that are not four bytes each.
pub fn parse(
    out: &mut Vec<u8>,
    name: &[u8],
    query: &[u8],
    param_types: &[u8],
) -> Result<(), EncodeError> {
    let count = u16::try_from(param_types.len() / 4).map_err(|_| EncodeError::TooLong)?;
    if !param_types.len().is_multiple_of(4) {
        return Err(EncodeError::BadLength);
    }
    writer::message(out, Some(tag::PARSE), |out| {
        writer::cstr(out, name)?;
        writer::cstr(out, query)?;
        out.extend(count.to_be_bytes());
        out.extend_from_slice(param_types);
        Ok(())
    })
}

/// A Bind's header and names, with another statement name. The rest of the old body must follow unchanged:
/// `body - old.encoded_len()` bytes, where `body` is the old body's length.
///
/// # Errors
/// A zero byte in the name, a message that is too long, or a `body` that is shorter than its names.
pub fn bind_header(
    out: &mut Vec<u8>,
    old: &BindNames<'_>,
    body: u32,
    statement: &[u8],
) -> Result<(), EncodeError> {
    if statement.contains(&0) {
        return Err(EncodeError::ZeroByte);
    }
    let rest = (body as usize)
        .checked_sub(old.encoded_len())
        .ok_or(EncodeError::BadLength)?;
    let new = BindNames {
        portal: old.portal,
        statement,
    };
    let len = i32::try_from(4 + new.encoded_len() + rest).map_err(|_| EncodeError::TooLong)?;
    out.push(tag::BIND);
    out.extend(len.to_be_bytes());
    for name in [new.portal, new.statement] {
        out.extend_from_slice(name);
        out.push(0);
    }
    Ok(())
}

/// Describe.
///
/// # Errors
/// A zero byte in the name.
pub fn describe(out: &mut Vec<u8>, kind: Kind, name: &[u8]) -> Result<(), EncodeError> {
    named(out, tag::DESCRIBE, kind, name)
}

/// Close.
///
/// # Errors
/// A zero byte in the name.
pub fn close(out: &mut Vec<u8>, kind: Kind, name: &[u8]) -> Result<(), EncodeError> {
    named(out, tag::CLOSE, kind, name)
}

fn named(out: &mut Vec<u8>, tag: u8, kind: Kind, name: &[u8]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag), |out| {
        out.push(kind.byte());
        writer::cstr(out, name)
    })
}

/// Execute; `max_rows` of 0 is no limit.
///
/// # Errors
/// A zero byte in the name.
pub fn execute(out: &mut Vec<u8>, portal: &[u8], max_rows: i32) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::EXECUTE), |out| {
        writer::cstr(out, portal)?;
        out.extend(max_rows.to_be_bytes());
        Ok(())
    })
}

/// Sync.
pub fn sync(out: &mut Vec<u8>) {
    writer::empty(out, tag::SYNC);
}

/// Flush.
pub fn flush(out: &mut Vec<u8>) {
    writer::empty(out, tag::FLUSH);
}

/// Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    writer::empty(out, tag::TERMINATE);
}

/// CopyFail, which ends a COPY FROM STDIN with an error of this text.
///
/// # Errors
/// A zero byte in the reason.
pub fn copy_fail(out: &mut Vec<u8>, reason: &[u8]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::COPY_FAIL), |out| writer::cstr(out, reason))
}

/// SASLInitialResponse.
///
/// # Errors
/// A zero byte in the mechanism, or a response that is too long.
pub fn sasl_initial_response(
    out: &mut Vec<u8>,
    mechanism: &[u8],
    response: &[u8],
) -> Result<(), EncodeError> {
    let len = i32::try_from(response.len()).map_err(|_| EncodeError::TooLong)?;
    writer::message(out, Some(tag::PASSWORD), |out| {
        writer::cstr(out, mechanism)?;
        out.extend(len.to_be_bytes());
        out.extend_from_slice(response);
        Ok(())
    })
}

/// SASLResponse.
///
/// # Errors
/// A response that is too long.
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::PASSWORD), |out| {
        out.extend_from_slice(data);
        Ok(())
    })
}

/// PasswordMessage.
///
/// # Errors
/// A zero byte in the password.
pub fn password(out: &mut Vec<u8>, password: &[u8]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::PASSWORD), |out| writer::cstr(out, password))
}
