//! A command's arguments, where they lie.

use std::ops::Range;

use crate::number;

/// Where an argument lies in its command's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn of(self, raw: &[u8]) -> &[u8] {
        raw.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// The arguments of a command that a [`super::Parser`] has found. To be reused: it allocates once.
#[derive(Clone, Debug, Default)]
pub struct Args {
    pub(crate) spans: Vec<Span>,
    /// A line, encoded as an array. Empty: the command came as an array.
    pub(crate) encoded: Vec<u8>,
}

impl Args {
    /// None, and nothing allocated.
    pub const fn new() -> Self {
        Self {
            spans: Vec::new(),
            encoded: Vec::new(),
        }
    }

    /// The command; `bytes` are those in which the parser found it.
    #[inline]
    pub fn command<'a>(&'a self, bytes: &'a [u8]) -> Command<'a> {
        let raw = match self.encoded.is_empty() {
            true => bytes,
            false => &self.encoded,
        };
        let end = self.spans.last().map_or(0, |last| last.end as usize + 2);
        Command {
            raw: raw.get(..end).unwrap_or_default(),
            spans: &self.spans,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.spans.clear();
        self.encoded.clear();
    }
}

/// A whole command: its encoding as an array of bulk strings and where in it the arguments lie.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    raw: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Command<'a> {
    /// The encoding: `*N\r\n$len\r\n…`, and nothing behind it. A command that came as a line has been encoded so.
    #[inline]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// How many arguments, the command's name included. At least one.
    #[inline]
    pub const fn argc(&self) -> usize {
        self.spans.len()
    }

    /// Argument `index`; empty where there is none.
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// Argument `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        Some(self.spans.get(index)?.of(self.raw))
    }

    /// Where argument `index` lies in [`Command::raw`].
    #[inline]
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        let span = self.spans.get(index)?;
        Some(span.start as usize..span.end as usize)
    }

    /// All arguments, the command's name first.
    #[inline]
    pub fn args(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let raw = self.raw;
        self.spans.iter().map(move |span| span.of(raw))
    }

    /// Where the argument's own header (`$len\r\n`) begins in [`Command::raw`]. For `argc`: the end.
    #[inline]
    pub fn header_at(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            Some(before) => self
                .spans
                .get(before)
                .map_or(self.raw.len(), |span| span.end as usize + 2),
            None => self.spans.first().map_or(0, |first| {
                let len = (first.end - first.start).checked_ilog10().unwrap_or(0) as usize;
                // `$`, the digits of the length, and a line's end.
                (first.start as usize).saturating_sub(1 + len + 1 + 2)
            }),
        }
    }
}

/// Encodes words as a command while they come; their count is written in front at the end.
pub(crate) struct Encoder<'a> {
    args: &'a mut Args,
}

/// Room for the longest header of the array.
const HEADER: usize = 16;

impl<'a> Encoder<'a> {
    pub(crate) fn new(args: &'a mut Args) -> Self {
        args.clear();
        Self { args }
    }

    pub(crate) fn word(&mut self, word: &[u8]) {
        let out = &mut self.args.encoded;
        if out.is_empty() {
            out.resize(HEADER, 0);
        }
        number::write_line(out, b'$', word.len() as u64);
        let start = out.len();
        out.extend_from_slice(word);
        let end = out.len();
        out.extend_from_slice(b"\r\n");
        // A line is at most 64 KiB, and what is written of a word at most 8 bytes longer than the word.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.args.spans.push(Span {
            start: place(start),
            end: place(end),
        });
    }

    /// Writes the count.
    pub(crate) fn finish(self) {
        let Args { spans, encoded } = self.args;
        if spans.is_empty() {
            return;
        }
        let mut header = Vec::with_capacity(HEADER);
        number::write_line(&mut header, b'*', spans.len() as u64);
        let unused = HEADER - header.len();
        encoded.splice(..HEADER, header);
        let unused = u32::try_from(unused).unwrap_or(0);
        for span in spans {
            span.start -= unused;
            span.end -= unused;
        }
    }
}
