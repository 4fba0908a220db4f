//! The client's bytes, cut into commands. A command that lies in one received buffer is a view on it; one that straddles
//! buffers is put together; what is large is taken apart as it comes.

use std::collections::VecDeque;

use protocol_redis::request::{Args, Next, Parser, RequestError, Stream};

use crate::reactor::Buf;

/// Bytes that may wait here while the session waits.
const ROOM: usize = 64 << 10;

/// What comes next.
pub(super) enum Found {
    /// A whole command: so many bytes of [`Input::front`].
    Command(usize),
    /// A command that is taken apart as it comes.
    Large(Box<Stream>),
    /// More bytes are needed.
    Nothing,
}

/// The client's bytes that are not handled yet.
pub(super) struct Input {
    parser: Parser,
    front: Buf,
    more: VecDeque<Buf>,
    gathering: Option<Box<Gathering>>,
    authenticated: bool,
}

/// A command that straddles buffers, as far as it has come.
struct Gathering {
    bytes: Vec<u8>,
    parser: Parser,
    args: Args,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            parser: Parser::new(),
            front: Buf::empty(),
            more: VecDeque::new(),
            gathering: None,
            authenticated: false,
        }
    }
}

impl Input {
    pub(super) fn push(&mut self, buf: Buf) {
        if self.front.is_empty() {
            self.front = buf;
        } else if !buf.is_empty() {
            self.more.push_back(buf);
        }
    }

    /// Puts bytes before all others.
    pub(super) fn unread(&mut self, buf: Buf) {
        let front = std::mem::replace(&mut self.front, buf);
        if !front.is_empty() {
            self.more.push_front(front);
        }
        self.parser = self.new_parser();
    }

    /// Bytes that wait here.
    pub(super) fn len(&self) -> usize {
        let more: usize = self.more.iter().map(|buf| buf.len()).sum();
        let gathering = self.gathering.as_ref().map_or(0, |it| it.bytes.len());
        self.front.len() + more + gathering
    }

    /// Whether more may be read while the session waits.
    pub(super) fn has_room(&self) -> bool {
        self.more.len() < 16 && self.len() < ROOM
    }

    /// The limits before login hold, or not.
    pub(super) fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
        self.parser = self.new_parser();
    }

    fn new_parser(&self) -> Parser {
        let mut parser = Parser::new();
        parser.set_authenticated(self.authenticated);
        parser
    }

    /// The bytes that begin with the command in hand.
    pub(super) const fn front(&self) -> &Buf {
        &self.front
    }

    /// What comes next. `args` may have served others in between.
    ///
    /// # Errors
    /// The bytes are no command: the connection cannot go on.
    #[inline]
    pub(super) fn next(&mut self, args: &mut Args) -> Result<Found, RequestError> {
        loop {
            if self.gathering.is_some() && !self.gather()? {
                return Ok(Found::Nothing);
            }
            if self.front.is_empty() {
                match self.more.pop_front() {
                    Some(next) => self.front = next,
                    None => return Ok(Found::Nothing),
                }
            }
            match self.parser.next(&self.front, args)? {
                Next::Command { used } => return Ok(Found::Command(used)),
                Next::Empty { used } => self.advance(used),
                Next::Large => return Ok(Found::Large(Box::new(self.parser.stream()))),
                Next::Incomplete { .. } => {
                    // What the parser remembers lies in `args`, which others use: it begins anew, with its own.
                    self.gathering = Some(Box::new(Gathering {
                        bytes: self.front.to_vec(),
                        parser: self.new_parser(),
                        args: Args::new(),
                    }));
                    self.front = Buf::empty();
                    self.parser = self.new_parser();
                }
            }
        }
    }

    /// Puts a command together that straddles buffers. Whether it is whole, and now at the front.
    fn gather(&mut self) -> Result<bool, RequestError> {
        while let Some(gathering) = self.gathering.as_mut() {
            let Gathering {
                bytes,
                parser,
                args,
            } = &mut **gathering;
            if let Next::Incomplete { .. } = parser.next(bytes, args)? {
                if self.front.is_empty() {
                    self.front = self.more.pop_front().unwrap_or_default();
                }
                if self.front.is_empty() {
                    return Ok(false);
                }
                bytes.extend_from_slice(&self.front);
                self.front = Buf::empty();
            } else {
                let whole = Buf::from_vec(std::mem::take(bytes));
                self.gathering = None;
                self.unread(whole);
            }
        }
        Ok(true)
    }

    /// The bytes of a command are dealt with.
    #[inline]
    pub(super) fn advance(&mut self, count: usize) {
        self.front.advance(count);
        if self.front.is_empty() {
            self.front = self.more.pop_front().unwrap_or_default();
        }
    }

    /// All bytes of the front buffer, for a stream.
    pub(super) fn take_front(&mut self) -> Option<Buf> {
        let next = self.more.pop_front().unwrap_or_default();
        let front = std::mem::replace(&mut self.front, next);
        (!front.is_empty()).then_some(front)
    }
}
