//! ErrorResponse and NoticeResponse: fields of one tag byte and a string each.

use crate::reader::{DecodeError, Reader};

/// Tags of the fields.
pub mod field {
    /// Severity, translated.
    pub const SEVERITY: u8 = b'S';
    /// Severity, never translated.
    pub const SEVERITY_FIXED: u8 = b'V';
    /// SQLSTATE.
    pub const CODE: u8 = b'C';
    /// The message itself.
    pub const MESSAGE: u8 = b'M';
    /// More about the problem.
    pub const DETAIL: u8 = b'D';
    /// What to do.
    pub const HINT: u8 = b'H';
    /// Character of the query text, from 1.
    pub const POSITION: u8 = b'P';
    /// The server's function that reported it, which tells "cached plan must not change result type" from its kin.
    pub const ROUTINE: u8 = b'R';
}

/// The fields of an ErrorResponse or NoticeResponse, in order. Checked when decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a>(&'a [u8]);

impl<'a> ErrorFields<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        while reader.u8()? != 0 {
            reader.cstr()?;
        }
        reader.finish()?;
        Ok(Self(body))
    }

    /// The first field with this tag, of those in [`field`] or any other.
    #[must_use]
    pub fn get(mut self, tag: u8) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == tag)
            .map(|(_, value)| value)
    }

    /// SQLSTATE.
    #[must_use]
    pub fn code(self) -> Option<&'a [u8]> {
        self.get(field::CODE)
    }

    /// The message itself, in the client's encoding.
    #[must_use]
    pub fn message(self) -> Option<&'a [u8]> {
        self.get(field::MESSAGE)
    }

    /// Whether the server ends the connection with this message.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        let severity = self
            .get(field::SEVERITY_FIXED)
            .or_else(|| self.get(field::SEVERITY));
        matches!(severity, Some(b"FATAL" | b"PANIC"))
    }
}

impl<'a> Iterator for ErrorFields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::new(self.0);
        let tag = reader.u8().ok().filter(|&tag| tag != 0)?;
        let value = reader.cstr().ok()?;
        self.0 = reader.rest();
        Some((tag, value))
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session ends.
    Fatal,
    /// A notice: something may be wrong.
    Warning,
    /// A notice.
    Notice,
}

impl Severity {
    /// As the wire has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// An error or notice of our own, for [`super::write::error_response`] and [`super::write::notice_response`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorResponse<'a> {
    /// How bad it is.
    pub severity: Severity,
    /// SQLSTATE, five characters.
    pub code: &'a str,
    /// The message itself.
    pub message: &'a str,
    /// More about the problem.
    pub detail: Option<&'a str>,
    /// What to do.
    pub hint: Option<&'a str>,
}
