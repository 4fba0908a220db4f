//! Replies and messages on their way to the client.

use memchr::memmem;

use super::prefix::{Edit, Rewriter};
use super::transform::Transform;
use crate::reply::{ReplyError, Token, Tokens, mark, write};

/// Why a reply cannot be handed to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// It is no reply, or not one of the form that its command has.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// It holds a key or channel that is not of this database. This cannot happen, and the reply must not reach the client.
    #[error("a reply holds a key or channel of another database")]
    Foreign,
}

type Result<T = ()> = std::result::Result<T, RewriteError>;

const FORM: RewriteError = RewriteError::Reply(ReplyError::Form);

/// The channel in which a RESP2 connection hears which keys it no longer may cache.
const INVALIDATE: &[u8] = b"__redis__:invalidate";

impl Rewriter {
    /// Appends a whole reply as the client is to see it.
    ///
    /// # Errors
    /// What must not reach the client; `out` may then hold part of it.
    pub fn reply(&self, transform: Transform, reply: &[u8], out: &mut Vec<u8>) -> Result {
        let mut copier = Copier::new(self, reply, out);
        copier.reply(transform)?;
        copier.finish()
    }

    /// Appends the reply to `EXEC`, given what the transaction's commands were.
    ///
    /// # Errors
    /// As [`Rewriter::reply`].
    pub fn exec(
        &self,
        transforms: impl IntoIterator<Item = Transform> + Clone,
        reply: &[u8],
        out: &mut Vec<u8>,
    ) -> Result {
        let mut copier = Copier::new(self, reply, out);
        if let Token::Aggregate(mark, count) = copier.token()? {
            let hidden = transforms.clone().into_iter();
            let hidden = hidden.filter(|it| *it == Transform::Hidden).count() as u64;
            if hidden > 0 {
                copier.counts(mark, count.checked_sub(hidden).ok_or(FORM)?);
            }
            let mut transforms = transforms.into_iter();
            for _ in 0..count {
                match transforms.next().ok_or(FORM)? {
                    Transform::Hidden => copier.leave_out()?,
                    transform => copier.reply(transform)?,
                }
            }
        }
        copier.finish()
    }

    /// Appends what a connection with subscriptions or tracking is sent: confirmations, messages, invalidations; arrays in RESP2
    /// and pushes in RESP3. What is none of these is copied if it holds no names.
    ///
    /// # Errors
    /// As [`Rewriter::reply`].
    pub fn message(&self, message: &[u8], out: &mut Vec<u8>) -> Result {
        let mut copier = Copier::new(self, message, out);
        match self.is_identity() {
            true => copier.pass()?,
            false => copier.message()?,
        }
        copier.finish()
    }
}

/// Copies a reply but for some strings, in pieces as large as can be.
struct Copier<'a, 'o> {
    rewriter: &'a Rewriter,
    reply: &'a [u8],
    tokens: Tokens<'a>,
    out: &'o mut Vec<u8>,
    /// What is in front of it has been copied.
    from: usize,
}

impl<'a, 'o> Copier<'a, 'o> {
    fn new(rewriter: &'a Rewriter, reply: &'a [u8], out: &'o mut Vec<u8>) -> Self {
        Self {
            rewriter,
            reply,
            tokens: Tokens::new(reply),
            out,
            from: 0,
        }
    }

    fn at(&self) -> usize {
        self.reply.len() - self.tokens.rest().len()
    }

    fn copy(&mut self, to: usize) {
        let piece = self.reply.get(self.from..to).unwrap_or_default();
        self.out.extend_from_slice(piece);
        self.from = to;
    }

    fn finish(mut self) -> Result {
        match self.tokens.rest() {
            [] => {
                self.copy(self.reply.len());
                Ok(())
            }
            _ => Err(ReplyError::LeftOver.into()),
        }
    }

    /// The next element's own part. Attributes are passed over.
    fn token(&mut self) -> Result<Token<'a>> {
        loop {
            match self.tokens.token()? {
                Token::Aggregate(mark::ATTRIBUTE, count) => {
                    for _ in 0..count {
                        self.tokens.element()?;
                    }
                }
                token => return Ok(token),
            }
        }
    }

    /// The count of an aggregate, or `None` if it is null.
    fn aggregate(&mut self) -> Result<Option<u64>> {
        match self.token()? {
            Token::Aggregate(_, count) => Ok(Some(count)),
            Token::Null => Ok(None),
            _ => Err(FORM),
        }
    }

    /// The number of pairs of a map, or of an array in its place.
    fn pairs(&mut self) -> Result<u64> {
        let count = self.aggregate()?.unwrap_or(0);
        match count % 2 {
            0 => Ok(count / 2),
            _ => Err(FORM),
        }
    }

    /// Puts another count in the place of what has just been read.
    fn counts(&mut self, mark: u8, count: u64) {
        self.out.push(mark);
        self.out.extend_from_slice(count.to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.from = self.at();
    }

    fn leave_out(&mut self) -> Result {
        self.copy(self.at());
        self.tokens.element()?;
        self.from = self.at();
        Ok(())
    }

    /// An integer, or a line that is one.
    fn integer(&mut self) -> Result {
        let at = self.at();
        if self.tokens.rest().first() == Some(&mark::SIMPLE) {
            self.copy(at);
            self.out.push(mark::INTEGER);
            self.from = at + 1;
        }
        self.pass()
    }

    fn pass(&mut self) -> Result {
        self.tokens.element()?;
        Ok(())
    }

    /// One reply.
    fn reply(&mut self, transform: Transform) -> Result {
        let is_error = |first: &u8| matches!(*first, mark::ERROR | mark::BULK_ERROR);
        if self.tokens.rest().first().is_some_and(is_error) {
            return self.error();
        }
        let rewriter = self.rewriter;
        if transform == Transform::Integer {
            return self.integer();
        }
        if rewriter.is_identity() {
            return self.pass();
        }
        let key = |name: &[u8]| rewriter.key_back(name);
        let channel = |name: &[u8]| rewriter.edit_back(name);
        match transform {
            Transform::None | Transform::Integer | Transform::Hidden => self.pass(),
            Transform::Key => self.name(&key),
            Transform::Keys | Transform::ShardChannels => self.names(&key),
            Transform::Channels => self.names(&channel),
            Transform::ChannelCounts => self.every_second(&channel),
            Transform::ShardChannelCounts => self.every_second(&key),
            Transform::Scan => match self.aggregate()? {
                Some(2) => {
                    self.pass()?;
                    self.names(&key)
                }
                _ => Err(FORM),
            },
            Transform::KeyFirst => match self.aggregate()? {
                Some(0) => Err(FORM),
                Some(count) => {
                    self.name(&key)?;
                    (1..count).try_for_each(|_| self.pass())
                }
                None => Ok(()),
            },
            Transform::StreamKeys => self.stream_keys(&key),
            Transform::TrackingInfo => self.tracking_info(&key),
            Transform::Libraries => self.libraries(),
            Transform::LibraryName => self.name(&|name| rewriter.name_back(name)),
        }
    }

    fn stream_keys(&mut self, key: &impl Fn(&[u8]) -> Option<Edit<'static>>) -> Result {
        match self.token()? {
            Token::Null => Ok(()),
            Token::Aggregate(mark::MAP, count) => (0..count / 2).try_for_each(|_| {
                self.name(key)?;
                self.pass()
            }),
            Token::Aggregate(_, count) => {
                for _ in 0..count {
                    if self.aggregate()? != Some(2) {
                        return Err(FORM);
                    }
                    self.name(key)?;
                    self.pass()?;
                }
                Ok(())
            }
            _ => Err(FORM),
        }
    }

    fn tracking_info(&mut self, key: &impl Fn(&[u8]) -> Option<Edit<'static>>) -> Result {
        for _ in 0..self.pairs()? {
            match self.token()? {
                Token::Bulk(_, b"prefixes") | Token::Line(_, b"prefixes") => self.names(key)?,
                Token::Bulk(..) | Token::Line(..) => self.pass()?,
                _ => return Err(FORM),
            }
        }
        Ok(())
    }

    /// `FUNCTION LIST`.
    fn libraries(&mut self) -> Result {
        let rewriter = self.rewriter;
        let own = |name: &[u8]| rewriter.name_back(name);
        for _ in 0..self.aggregate()?.unwrap_or(0) {
            for _ in 0..self.pairs()? {
                match self.token()? {
                    Token::Bulk(_, b"library_name") => self.name(&own)?,
                    Token::Bulk(_, b"functions") => self.functions()?,
                    Token::Bulk(_, b"library_code") => self.library_code()?,
                    Token::Bulk(..) => self.pass()?,
                    _ => return Err(FORM),
                }
            }
        }
        Ok(())
    }

    /// Those of a library that is the client's own.
    fn functions(&mut self) -> Result {
        let rewriter = self.rewriter;
        let own = |name: &[u8]| rewriter.name_back(name);
        for _ in 0..self.aggregate()?.unwrap_or(0) {
            for _ in 0..self.pairs()? {
                match self.token()? {
                    Token::Bulk(_, b"name") => self.name(&own)?,
                    Token::Bulk(..) => self.pass()?,
                    _ => return Err(FORM),
                }
            }
        }
        Ok(())
    }

    fn library_code(&mut self) -> Result {
        let start = self.at();
        let code = match self.token()? {
            Token::Bulk(mark::BULK, code) => code,
            _ => return Err(FORM),
        };
        self.copy(start);
        write::bulk(self.out, &self.rewriter.client_code(code));
        self.from = self.at();
        Ok(())
    }

    /// An array or set of names, or null.
    fn names(&mut self, edit: &impl Fn(&[u8]) -> Option<Edit<'static>>) -> Result {
        let count = self.aggregate()?.unwrap_or(0);
        (0..count).try_for_each(|_| self.name(edit))
    }

    /// Names and something else by turns.
    fn every_second(&mut self, edit: &impl Fn(&[u8]) -> Option<Edit<'static>>) -> Result {
        (0..self.pairs()?).try_for_each(|_| {
            self.name(edit)?;
            self.pass()
        })
    }

    /// A name, or null; a line or a string with a length.
    fn name(&mut self, edit: &impl Fn(&[u8]) -> Option<Edit<'static>>) -> Result {
        // What is in front of it, attributes included, is copied as it is.
        let (name, is_line) = match self.token()? {
            Token::Bulk(mark::BULK, name) => (name, false),
            Token::Line(mark::SIMPLE, name) => (name, true),
            Token::Null => return Ok(()),
            _ => return Err(FORM),
        };
        let Edit { drop, head } = edit(name).ok_or(RewriteError::Foreign)?;
        let end = self.at();
        let kept = name.get(drop..).unwrap_or_default();
        let own = match is_line {
            true => 1 + name.len() + 2,
            false => digits(name.len()) + 1 + 2 + name.len() + 2,
        };
        self.copy(end - own);
        match is_line {
            true => self.out.push(mark::SIMPLE),
            false => write::header(self.out, mark::BULK, head.len() + kept.len()),
        }
        self.out.extend_from_slice(head);
        self.out.extend_from_slice(kept);
        self.out.extend_from_slice(b"\r\n");
        self.from = end;
        Ok(())
    }

    /// An error, which may name a key.
    fn error(&mut self) -> Result {
        let start = self.at();
        let (mark, text) = match self.token()? {
            Token::Line(mark, text) | Token::Bulk(mark, text) => (mark, text),
            _ => return Err(FORM),
        };
        let mut stripped = Vec::new();
        let namespace = self.rewriter.namespace();
        let mut found = strip_error(self.rewriter.prefix(), text, &mut stripped);
        if !namespace.is_empty() && memmem::find(text, namespace).is_some() {
            let text = if found { &*stripped } else { text };
            stripped = without(text, namespace);
            found = true;
        }
        if !found {
            return Ok(());
        }
        self.copy(start);
        match mark {
            mark::ERROR => write::error(self.out, &stripped),
            _ => write::bulk_error(self.out, write::Version::Resp3, &stripped),
        }
        self.from = self.at();
        Ok(())
    }

    fn message(&mut self) -> Result {
        let (mark, count) = match self.token()? {
            Token::Aggregate(mark, count) => (mark, count),
            _ => return Ok(()),
        };
        let kind = match (count, mark) {
            (0, _) => return Ok(()),
            (_, mark::ARRAY | mark::PUSH) => match self.token()? {
                Token::Bulk(_, kind) | Token::Line(_, kind) => kind,
                _ => return Err(FORM),
            },
            _ => return Err(FORM),
        };
        let rewriter = self.rewriter;
        let key = |name: &[u8]| rewriter.key_back(name);
        let channel = |name: &[u8]| match name {
            INVALIDATE => Some(Edit { drop: 0, head: &[] }),
            name => rewriter.edit_back(name),
        };
        let pattern = |name: &[u8]| rewriter.edit_pattern_back(name);
        match (kind, count) {
            (b"message", 3) => self.delivery(&channel),
            (b"pmessage", 4) => {
                self.name(&pattern)?;
                self.delivery(&channel)
            }
            (b"smessage", 3) => {
                self.name(&key)?;
                self.pass()
            }
            (b"subscribe" | b"unsubscribe", 3) => {
                self.name(&channel)?;
                self.pass()
            }
            (b"psubscribe" | b"punsubscribe", 3) => {
                self.name(&pattern)?;
                self.pass()
            }
            (b"ssubscribe" | b"sunsubscribe", 3) => {
                self.name(&key)?;
                self.pass()
            }
            (b"invalidate", 2) => self.names(&key),
            (b"pong", 2) | (b"tracking-redir-broken", _) => {
                (1..count).try_for_each(|_| self.pass())
            }
            _ => Err(FORM),
        }
    }

    /// A channel and what was sent in it: of notifications by event this is a key, and of invalidations it is keys.
    fn delivery(&mut self, edit: &impl Fn(&[u8]) -> Option<Edit<'static>>) -> Result {
        let rewriter = self.rewriter;
        let key = |name: &[u8]| rewriter.key_back(name);
        let name = match Tokens::new(self.tokens.rest()).token()? {
            Token::Bulk(_, name) | Token::Line(_, name) => name,
            _ => return Err(FORM),
        };
        self.name(edit)?;
        if name == INVALIDATE {
            self.names(&key)
        } else if rewriter.brings_keys(name) {
            self.name(&key)
        } else {
            self.pass()
        }
    }
}

impl Rewriter {
    #[inline]
    fn key_back(&self, key: &[u8]) -> Option<Edit<'static>> {
        let drop = self.prefix().len();
        self.client_key(key).map(|_| Edit { drop, head: &[] })
    }
}

impl Rewriter {
    /// A function's or library's name as the client knows it.
    fn name_back(&self, name: &[u8]) -> Option<Edit<'static>> {
        let drop = self.namespace().len();
        name.starts_with(self.namespace())
            .then_some(Edit { drop, head: &[] })
    }
}

/// What is left of a text without a word wherever that stands in it.
fn without(text: &[u8], word: &[u8]) -> Vec<u8> {
    let mut left = Vec::with_capacity(text.len());
    let mut from = 0;
    for at in memmem::find_iter(text, word) {
        left.extend_from_slice(text.get(from..at).unwrap_or_default());
        from = at + word.len();
    }
    left.extend_from_slice(text.get(from..).unwrap_or_default());
    left
}

fn digits(len: usize) -> usize {
    len.checked_ilog10().unwrap_or(0) as usize + 1
}

/// What stands in front of keys in the errors that name any.
const BEFORE_KEYS: [&[u8]; 5] = [
    b"No such key '",
    b" for key name '",
    b" access the '",
    b"Prefix '",
    b"an existing prefix '",
];

/// Appends an error's text without the prefix in front of keys; `false`: it names none.
fn strip_error(prefix: &[u8], text: &[u8], out: &mut Vec<u8>) -> bool {
    if prefix.is_empty() {
        return false;
    }
    let mut rest = text;
    let mut found = false;
    while let Some(at) = memchr::memchr(b'\'', rest) {
        let (before, after) = rest.split_at(at + 1);
        out.extend_from_slice(before);
        rest = after;
        let names_key = BEFORE_KEYS.iter().any(|words| before.ends_with(words));
        if names_key && let Some(key) = after.strip_prefix(prefix) {
            rest = key;
            found = true;
        }
    }
    out.extend_from_slice(rest);
    found
}
