//! Commands as lines.

use super::args::{Args, Encoder};
use super::{MAX_INLINE, RequestError};
use crate::text;

/// Reads a line at the front of `input`, of which `seen` bytes are known to hold no end. `Some`: so many bytes it took, its end
/// included, and `args` holds its words, if any.
pub(super) fn parse(
    input: &[u8],
    seen: usize,
    args: &mut Args,
) -> Result<Option<usize>, RequestError> {
    let new = input.get(seen..).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', new).map(|at| seen + at) else {
        return match input.len() > MAX_INLINE {
            true => Err(RequestError::InlineTooBig),
            false => Ok(None),
        };
    };
    if end > MAX_INLINE {
        return Err(RequestError::InlineTooBig);
    }
    let line = input.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut encoder = Encoder::new(args);
    text::split_with(line, |word| encoder.word(word))
        .map_err(|_| RequestError::UnbalancedQuotes)?;
    encoder.finish();
    Ok(Some(end + 1))
}
