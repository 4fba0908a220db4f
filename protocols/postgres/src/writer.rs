//! Appends messages to a buffer, with lengths filled in afterwards.

/// Why a message cannot be written. The buffer is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string holds a zero byte, which would end it early and smuggle the rest in as other fields.
    #[error("string holds a zero byte")]
    ZeroByte,
    /// The message or one of its lists is longer than its length field can say.
    #[error("message too long")]
    TooLong,
    /// A part's length does not fit the rest: names longer than their body, OIDs that are not four bytes each.
    #[error("length of a part does not fit")]
    BadLength,
    /// A name is empty where a server would take it for the list's end.
    #[error("empty name")]
    EmptyName,
}

/// A message without a body.
pub(crate) fn empty(out: &mut Vec<u8>, tag: u8) {
    out.extend([tag, 0, 0, 0, 4]);
}

/// Writes one message: tag, if any, then a length that `body`'s output decides.
pub(crate) fn message(
    out: &mut Vec<u8>,
    tag: Option<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let before = out.len();
    out.extend(tag);
    let start = out.len();
    out.extend([0; 4]);
    let written = body(out).and_then(|()| fill_length(out, start));
    if written.is_err() {
        out.truncate(before);
    }
    written
}

fn fill_length(out: &mut [u8], start: usize) -> Result<(), EncodeError> {
    let tail = out.get_mut(start..).unwrap_or_default();
    let len = i32::try_from(tail.len()).map_err(|_| EncodeError::TooLong)?;
    if let Some(slot) = tail.first_chunk_mut::<4>() {
        *slot = len.to_be_bytes();
    }
    Ok(())
}

/// A string and its zero byte.
pub(crate) fn cstr(out: &mut Vec<u8>, text: &[u8]) -> Result<(), EncodeError> {
    if text.contains(&0) {
        return Err(EncodeError::ZeroByte);
    }
    out.extend_from_slice(text);
    out.push(0);
    Ok(())
}
