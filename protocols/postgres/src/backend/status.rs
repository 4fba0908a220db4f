//! What a server tells about itself, the session and the last command.

use crate::reader::{DecodeError, Reader};
use crate::startup::{MAX_CANCEL_KEY, MIN_CANCEL_KEY};

/// A setting's value, at login and whenever it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// For example `TimeZone`.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let name = reader.cstr()?;
        let value = reader.cstr()?;
        reader.finish()?;
        Ok(Self { name, value })
    }
}

/// What a CancelRequest must repeat. No `Debug`: the key is a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    /// Names the session.
    pub process_id: u32,
    /// 4 bytes in protocol 3.0, 4 to 256 in 3.2.
    pub key: &'a [u8],
}

impl<'a> BackendKeyData<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let process_id = reader.u32()?;
        let key = reader.rest();
        if !(MIN_CANCEL_KEY..=MAX_CANCEL_KEY).contains(&key.len()) {
            return Err(DecodeError::Invalid("cancel key length"));
        }
        Ok(Self { process_id, key })
    }
}

/// Whether the session is in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// It is not.
    Idle,
    /// It is.
    InTransaction,
    /// It is in one that failed and can only be rolled back.
    Failed,
}

impl TransactionStatus {
    /// The byte that stands for it.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// The server waits for the next query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyForQuery {
    /// Whether the session is in a transaction.
    pub status: TransactionStatus,
}

impl ReadyForQuery {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let status = match reader.u8()? {
            b'I' => TransactionStatus::Idle,
            b'T' => TransactionStatus::InTransaction,
            b'E' => TransactionStatus::Failed,
            _ => return Err(DecodeError::Invalid("transaction status")),
        };
        reader.finish()?;
        Ok(Self { status })
    }
}

/// A command's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandComplete<'a> {
    /// For example `INSERT 0 5` or `CREATE TABLE`.
    pub tag: &'a [u8],
}

impl<'a> CommandComplete<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let tag = reader.cstr()?;
        reader.finish()?;
        Ok(Self { tag })
    }

    /// The rows that the command returned or changed, if it tells: the number behind the last blank.
    #[must_use]
    pub fn rows(self) -> Option<u64> {
        let (blank, _) = self
            .tag
            .iter()
            .enumerate()
            .rev()
            .find(|(_, byte)| **byte == b' ')?;
        let digits = self
            .tag
            .get(blank + 1..)
            .filter(|digits| !digits.is_empty())?;
        digits.iter().try_fold(0_u64, |sum, &digit| {
            let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            sum.checked_mul(10)?.checked_add(value)
        })
    }
}

/// A NOTIFY of another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotificationResponse<'a> {
    /// The session that sent it.
    pub process_id: u32,
    /// The channel.
    pub channel: &'a [u8],
    /// May be empty.
    pub payload: &'a [u8],
}

impl<'a> NotificationResponse<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let process_id = reader.u32()?;
        let channel = reader.cstr()?;
        let payload = reader.cstr()?;
        reader.finish()?;
        Ok(Self {
            process_id,
            channel,
            payload,
        })
    }
}

/// The server speaks an older minor version, or does not know some `_pq_.` parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The version to go on with, such as [`crate::PROTOCOL_3_0`]. The manual says the minor version alone; servers
    /// send, and libpq takes, both halves.
    pub protocol: u32,
    /// Parameters that the server does not know.
    pub unknown_options: OptionNames<'a>,
}

/// Names of startup parameters. Checked when decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionNames<'a>(&'a [u8]);

impl<'a> Iterator for OptionNames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader::new(self.0);
        let name = reader.cstr().ok()?;
        self.0 = reader.rest();
        Some(name)
    }
}

impl<'a> NegotiateProtocolVersion<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let protocol = reader.u32()?;
        let count = reader.u32()?;
        let names = reader.rest();
        let mut reader = Reader::new(names);
        // Each turn takes at least one byte or fails, so a huge count cannot spin.
        for _ in 0..count {
            reader.cstr()?;
        }
        reader.finish()?;
        Ok(Self {
            protocol,
            unknown_options: OptionNames(names),
        })
    }
}
