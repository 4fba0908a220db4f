//! Messages that a server sends at login and by itself. Each function appends one to `out`, which an error leaves as
//! it was.

use super::authentication::{OK, SASL, SASL_CONTINUE, SASL_FINAL};
use super::{ErrorResponse, TransactionStatus, field, tag};
use crate::startup::{MAX_CANCEL_KEY, MIN_CANCEL_KEY};
use crate::writer::{self, EncodeError};

/// The longest text of one field of an error of ours; the rest is cut off.
pub const MAX_ERROR_TEXT: usize = 64 * 1024;

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    out.extend([tag::AUTHENTICATION, 0, 0, 0, 8]);
    out.extend(OK.to_be_bytes());
}

/// AuthenticationSASL.
///
/// # Errors
/// A name that is empty or holds a zero byte.
pub fn authentication_sasl(out: &mut Vec<u8>, mechanisms: &[&[u8]]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::AUTHENTICATION), |out| {
        out.extend(SASL.to_be_bytes());
        for name in mechanisms {
            if name.is_empty() {
                return Err(EncodeError::EmptyName);
            }
            writer::cstr(out, name)?;
        }
        out.push(0);
        Ok(())
    })
}

/// AuthenticationSASLContinue.
///
/// # Errors
/// Data that is too long.
pub fn authentication_sasl_continue(out: &mut Vec<u8>, data: &[u8]) -> Result<(), EncodeError> {
    sasl_data(out, SASL_CONTINUE, data)
}

/// AuthenticationSASLFinal.
///
/// # Errors
/// Data that is too long.
pub fn authentication_sasl_final(out: &mut Vec<u8>, data: &[u8]) -> Result<(), EncodeError> {
    sasl_data(out, SASL_FINAL, data)
}

fn sasl_data(out: &mut Vec<u8>, kind: u32, data: &[u8]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::AUTHENTICATION), |out| {
        out.extend(kind.to_be_bytes());
        out.extend_from_slice(data);
        Ok(())
    })
}

/// ParameterStatus.
///
/// # Errors
/// A zero byte in the name or value.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::PARAMETER_STATUS), |out| {
        writer::cstr(out, name)?;
        writer::cstr(out, value)
    })
}

/// BackendKeyData. A client of protocol 3.0 takes keys of 4 bytes only.
///
/// # Errors
/// A key that is not 4 to 256 bytes long.
pub fn backend_key_data(out: &mut Vec<u8>, process_id: u32, key: &[u8]) -> Result<(), EncodeError> {
    if !(MIN_CANCEL_KEY..=MAX_CANCEL_KEY).contains(&key.len()) {
        return Err(EncodeError::BadLength);
    }
    writer::message(out, Some(tag::BACKEND_KEY_DATA), |out| {
        out.extend(process_id.to_be_bytes());
        out.extend_from_slice(key);
        Ok(())
    })
}

/// NegotiateProtocolVersion; `protocol` as in [`super::NegotiateProtocolVersion`].
///
/// # Errors
/// A zero byte in a name.
pub fn negotiate_protocol_version(
    out: &mut Vec<u8>,
    protocol: u32,
    unknown: &[&[u8]],
) -> Result<(), EncodeError> {
    let count = u32::try_from(unknown.len()).map_err(|_| EncodeError::TooLong)?;
    writer::message(out, Some(tag::NEGOTIATE_PROTOCOL_VERSION), |out| {
        out.extend(protocol.to_be_bytes());
        out.extend(count.to_be_bytes());
        unknown.iter().try_for_each(|name| writer::cstr(out, name))
    })
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: TransactionStatus) {
    out.extend([tag::READY_FOR_QUERY, 0, 0, 0, 5, status.byte()]);
}

/// CommandComplete; `command` is a command tag such as `SELECT 1`.
///
/// # Errors
/// A zero byte in the tag.
pub fn command_complete(out: &mut Vec<u8>, command: &[u8]) -> Result<(), EncodeError> {
    writer::message(out, Some(tag::COMMAND_COMPLETE), |out| {
        writer::cstr(out, command)
    })
}

/// ErrorResponse. Cannot fail, so that an error is never lost to another: a text ends at its first zero byte or
/// after [`MAX_ERROR_TEXT`] bytes.
pub fn error_response(out: &mut Vec<u8>, error: &ErrorResponse<'_>) {
    fields(out, tag::ERROR_RESPONSE, error);
}

/// NoticeResponse; texts are cut as in [`error_response`].
pub fn notice_response(out: &mut Vec<u8>, notice: &ErrorResponse<'_>) {
    fields(out, tag::NOTICE_RESPONSE, notice);
}

fn fields(out: &mut Vec<u8>, tag: u8, error: &ErrorResponse<'_>) {
    let severity = error.severity.as_str();
    let all = [
        (field::SEVERITY, Some(severity)),
        (field::SEVERITY_FIXED, Some(severity)),
        (field::CODE, Some(error.code)),
        (field::MESSAGE, Some(error.message)),
        (field::DETAIL, error.detail),
        (field::HINT, error.hint),
    ];
    let written = writer::message(out, Some(tag), |out| {
        for (tag, text) in all.into_iter().filter_map(|(tag, text)| Some((tag, text?))) {
            out.push(tag);
            writer::cstr(out, cut(text).as_bytes())?;
        }
        out.push(0);
        Ok(())
    });
    debug_assert_eq!(written, Ok(()), "cut texts are short and hold no zero byte");
}

fn cut(text: &str) -> &str {
    let text = text.split('\0').next().unwrap_or_default();
    text.get(..text.floor_char_boundary(MAX_ERROR_TEXT))
        .unwrap_or_default()
}

/// ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    writer::empty(out, tag::PARSE_COMPLETE);
}

/// BindComplete.
pub fn bind_complete(out: &mut Vec<u8>) {
    writer::empty(out, tag::BIND_COMPLETE);
}

/// CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    writer::empty(out, tag::CLOSE_COMPLETE);
}

/// NoData.
pub fn no_data(out: &mut Vec<u8>) {
    writer::empty(out, tag::NO_DATA);
}

/// EmptyQueryResponse.
pub fn empty_query_response(out: &mut Vec<u8>) {
    writer::empty(out, tag::EMPTY_QUERY_RESPONSE);
}
