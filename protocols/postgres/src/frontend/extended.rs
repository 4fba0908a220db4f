//! Query, and the extended protocol's messages as far as a proxy must look into them.

use crate::reader::{DecodeError, Reader};

/// One or more statements to run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// In the client's encoding, which need not be UTF-8.
    pub query: &'a [u8],
}

impl<'a> Query<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let query = reader.cstr()?;
        reader.finish()?;
        Ok(Self { query })
    }
}

/// Makes a prepared statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// One statement, in the client's encoding.
    pub query: &'a [u8],
    /// Type OIDs as they were sent: four bytes each.
    pub param_types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let name = reader.cstr()?;
        let query = reader.cstr()?;
        let count = usize::from(reader.u16()?);
        let param_types = reader.take(count * 4)?;
        reader.finish()?;
        Ok(Self {
            name,
            query,
            param_types,
        })
    }
}

/// Makes a portal of a prepared statement and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement's name.
    pub statement: &'a [u8],
    /// Formats and values, which a proxy passes on without a look.
    pub rest: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let statement = reader.cstr()?;
        Ok(Self {
            portal,
            statement,
            rest: reader.rest(),
        })
    }
}

/// The two names at the front of a Bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindNames<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement's name.
    pub statement: &'a [u8],
}

/// What [`BindNames::decode_prefix`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindPrefix<'a> {
    /// At least this many more bytes are needed.
    Need(usize),
    /// Both names are there.
    Names(BindNames<'a>),
}

impl<'a> BindNames<'a> {
    /// Reads the names from the front of a body of which more may come: a Bind's values may be a gigabyte.
    ///
    /// `body` is the body's declared length, `max_names` the most bytes both names may take, their zero bytes included.
    ///
    /// # Errors
    /// The names are over `max_names`, or the body ends before they do.
    pub fn decode_prefix(
        prefix: &'a [u8],
        body: u32,
        max_names: usize,
    ) -> Result<BindPrefix<'a>, DecodeError> {
        let limit = max_names.min(body as usize);
        let prefix = prefix.get(..limit).unwrap_or(prefix);
        let mut reader = Reader::new(prefix);
        if let (Ok(portal), Ok(statement)) = (reader.cstr(), reader.cstr()) {
            return Ok(BindPrefix::Names(Self { portal, statement }));
        }
        if prefix.len() < limit {
            return Ok(BindPrefix::Need(1));
        }
        Err(if limit < body as usize {
            DecodeError::Invalid("length of names")
        } else {
            DecodeError::Unterminated
        })
    }

    /// Bytes that the names take at the front of the body.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.portal.len() + self.statement.len() + 2
    }
}

/// What Describe and Close mean by their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

impl Kind {
    /// The byte that stands for it.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            b'S' => Ok(Self::Statement),
            b'P' => Ok(Self::Portal),
            _ => Err(DecodeError::Invalid("kind of object")),
        }
    }
}

fn decode_named(body: &[u8]) -> Result<(Kind, &[u8]), DecodeError> {
    let mut reader = Reader::new(body);
    let kind = Kind::decode(&mut reader)?;
    let name = reader.cstr()?;
    reader.finish()?;
    Ok((kind, name))
}

/// Asks for the description of a statement or portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Describe<'a> {
    /// What the name means.
    pub kind: Kind,
    /// Empty for the unnamed one.
    pub name: &'a [u8],
}

impl<'a> Describe<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        decode_named(body).map(|(kind, name)| Self { kind, name })
    }
}

/// Drops a statement or portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// What the name means.
    pub kind: Kind,
    /// Empty for the unnamed one.
    pub name: &'a [u8],
}

impl<'a> Close<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        decode_named(body).map(|(kind, name)| Self { kind, name })
    }
}

/// Runs a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Empty for the unnamed one.
    pub portal: &'a [u8],
    /// Rows after which the portal is suspended; zero or less for no limit.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The body is not this message.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let portal = reader.cstr()?;
        let max_rows = reader.i32()?;
        reader.finish()?;
        Ok(Self { portal, max_rows })
    }
}
