//! Where keys are, as servers describe it ("key specifications").

use std::sync::Arc;

use super::flags::KeyFlags;
use super::rules::Rule;

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Neither a key nor a channel.
    Other,
    /// A key.
    Key(KeyFlags),
    /// A channel.
    Channel,
    /// A pattern of channels.
    ChannelPattern,
    /// A shard channel.
    ShardChannel,
    /// A pattern of shard channels.
    ShardPattern,
    /// A pattern of keys.
    KeyPattern,
    /// What `SORT` sorts by: a key with a `*` in it, or nothing at all where there is none.
    SortBy,
    /// What `SORT` returns: a key with a `*` in it, or `#`.
    SortGet,
    /// The beginning of the keys that a client tracks.
    TrackingPrefix,
}

/// All that is known of where a command's keys and channels are.
#[derive(Clone, Debug)]
pub(crate) enum Keys {
    /// It has none.
    None,
    /// A run of arguments, each `step`-th of them.
    Range(Range),
    /// As the server describes it.
    Specs(Arc<[KeySpec]>),
    /// By its grammar, which no description covers.
    Rule(Rule),
    /// It has some, and nobody says where.
    Unknown,
}

/// Arguments of one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u32,
    /// Below zero: counted from the end, -1 being the last argument.
    pub(crate) last: i32,
    pub(crate) step: u32,
    pub(crate) role: Role,
}

/// A part of a description: where to begin, and how many from there.
#[derive(Clone, Debug)]
pub(crate) struct KeySpec {
    pub(crate) begin: Begin,
    pub(crate) find: Find,
    pub(crate) role: Role,
}

#[derive(Clone, Debug)]
pub(crate) enum Begin {
    /// At this argument.
    Index(u32),
    /// Behind the first such word at or behind argument `from`.
    Keyword { word: Box<[u8]>, from: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Find {
    /// Up to the argument `last` behind the first; below zero: counted from the end, and `limit` says which part of what is left.
    Range { last: i32, step: u32, limit: u32 },
    /// As many as the argument `index` behind the beginning says, from `first` behind it on.
    Count { index: u32, first: u32, step: u32 },
}

/// The indices of keys: from `next` to `last`, each `step`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) next: usize,
    pub(crate) last: usize,
    pub(crate) step: usize,
}

impl Run {
    pub(crate) const EMPTY: Self = Self {
        next: 1,
        last: 0,
        step: 1,
    };

    /// Whether the argument belongs to the run; to be asked of each in turn.
    #[inline]
    pub(crate) fn takes(&mut self, index: usize) -> bool {
        let takes = index == self.next && index <= self.last;
        if takes {
            self.next += self.step;
        }
        takes
    }
}

impl Range {
    /// Those of a command of `argc` arguments.
    #[inline]
    pub(crate) fn run(&self, argc: usize) -> Run {
        let end = argc.saturating_sub(1);
        let distance = self.last.unsigned_abs() as usize;
        let last = match self.last {
            0.. => Some(distance.min(end)),
            _ => argc.checked_sub(distance),
        };
        match last {
            Some(last) => Run {
                next: self.first as usize,
                last,
                step: self.step as usize,
            },
            None => Run::EMPTY,
        }
    }
}

impl Find {
    /// The keys from argument `begin` on, where nothing more need be known.
    pub(crate) fn run(self, begin: usize, argc: usize) -> Option<Run> {
        let Self::Range { last, step, limit } = self else {
            return None;
        };
        let distance = last.unsigned_abs() as usize;
        let last = match last {
            0.. => Some(begin.saturating_add(distance)),
            // "Limit" two: half of what is left.
            _ => match limit as usize {
                0 | 1 => argc.checked_sub(distance),
                limit => (begin + argc.saturating_sub(begin) / limit).checked_sub(distance),
            },
        };
        Some(match last {
            Some(last) => Run {
                next: begin,
                last: last.min(argc.saturating_sub(1)),
                step: step as usize,
            },
            None => Run::EMPTY,
        })
    }

    /// The keys from argument `begin` on, as many as `count` says.
    pub(crate) fn counted(self, begin: usize, count: i64, argc: usize) -> Run {
        let Self::Count { first, step, .. } = self else {
            return Run::EMPTY;
        };
        let Some(further) = usize::try_from(count).ok().and_then(|it| it.checked_sub(1)) else {
            return Run::EMPTY;
        };
        let next = begin.saturating_add(first as usize);
        let step = step as usize;
        let last = next.saturating_add(further.saturating_mul(step));
        Run {
            next,
            last: last.min(argc.saturating_sub(1)),
            step,
        }
    }
}

/// Reading and writing, for servers that describe no more than where keys are.
pub(crate) const fn flags_of(readonly: bool) -> KeyFlags {
    match readonly {
        true => KeyFlags::RO.with(KeyFlags::ACCESS),
        false => KeyFlags::RW.with(KeyFlags::ACCESS).with(KeyFlags::UPDATE),
    }
}
