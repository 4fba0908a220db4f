//! One statement as a worker hands it to the log.

use std::fmt;
use std::time::Duration;

use control_store::DatabaseId;
use control_store::logs::Source;

/// An engine's error code: a SQLSTATE, a number, a Redis prefix. At most 15 bytes; what is longer is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode {
    len: u8,
    bytes: [u8; ErrorCode::MAX],
}

impl ErrorCode {
    /// Bytes that a code may have.
    pub const MAX: usize = 15;

    /// Takes a code as the engine writes it. Bytes that are not printable ASCII become `?`; it may be a peer's text.
    pub fn new(code: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut len = 0;
        for (to, from) in bytes.iter_mut().zip(code) {
            *to = if from.is_ascii_graphic() { *from } else { b'?' };
            len += 1;
        }
        Self { len, bytes }
    }

    /// The code.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..usize::from(self.len))
            .unwrap_or(&self.bytes)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One statement that ended.
#[derive(Clone, Copy, Debug)]
pub struct StatementRecord<'a> {
    /// On which database.
    pub database: DatabaseId,
    /// Its text without parameter values. Kept as sent, up to the log's limit; need not be UTF-8.
    pub text: &'a [u8],
    /// Who sent it.
    pub source: Source,
    /// When it ended: microseconds since 1970.
    pub ended_at_us: u64,
    /// From its first byte here to its last reply byte here.
    pub duration: Duration,
    /// Set if it failed.
    pub error_code: Option<ErrorCode>,
    /// Rows returned or changed.
    pub rows: u64,
}

impl StatementRecord<'_> {
    pub(super) fn duration_ns(&self) -> u64 {
        u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX)
    }
}
