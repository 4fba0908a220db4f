//! The commands of one server.

use super::decode::{self, TableError};
use super::flags::{Categories, Flags};
use super::keys::Keys;
use super::walk::Walker;
use crate::request::Command;
use crate::rewrite::Transform;

/// A command, or a subcommand.
#[derive(Clone, Debug)]
pub struct Spec {
    pub(crate) name: Box<[u8]>,
    /// Where a subcommand's own name begins.
    pub(crate) own_name_at: usize,
    pub(crate) arity: i32,
    pub(crate) flags: Flags,
    pub(crate) categories: Categories,
    pub(crate) keys: Keys,
    pub(crate) transform: Transform,
    /// Which of the table's commands it is a subcommand of.
    pub(crate) container: Option<u32>,
    pub(crate) has_subcommands: bool,
    pub(crate) place: usize,
}

impl Spec {
    /// The name, in lower case; a subcommand's as in `config|get`.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Where it stands in [`Table::specs`].
    pub const fn place(&self) -> usize {
        self.place
    }

    /// How many arguments it has, its name included; below zero: at least so many.
    pub const fn arity(&self) -> i32 {
        self.arity
    }

    /// Whether a command of so many arguments can be one of these.
    pub fn takes(&self, argc: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        match self.arity {
            0.. => argc == arity,
            _ => argc >= arity,
        }
    }

    /// What the server says of it.
    pub const fn flags(&self) -> Flags {
        self.flags
    }

    /// The categories of access control that it is in.
    pub const fn categories(&self) -> Categories {
        self.categories
    }

    /// Whether it may have keys or channels.
    pub const fn has_keys(&self) -> bool {
        !matches!(self.keys, Keys::None)
    }

    /// Whether it is known where its keys are. If not, only the server can tell (`COMMAND GETKEYS`).
    pub const fn keys_known(&self) -> bool {
        !matches!(self.keys, Keys::Unknown)
    }

    /// Where its reply holds keys or channels.
    pub const fn transform(&self) -> Transform {
        self.transform
    }

    /// Goes through the arguments of a command that has `argc` of them.
    pub fn walk(&self, argc: usize) -> Walker {
        Walker::new(self, argc)
    }
}

/// A place of the hash table: which command, by part of its hash.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    spec: u32,
}

const FREE: u32 = u32::MAX;

/// The commands of one server.
///
/// The table is open, at most a quarter full, and holds what the server said: clients choose what is looked up but not what lies
/// in it, so that no look-up is long.
#[derive(Clone, Debug)]
pub struct Table {
    specs: Vec<Spec>,
    slots: Box<[Slot]>,
}

/// The longest name that is looked up.
const MAX_NAME: usize = 128;

impl Table {
    /// Reads a server's whole reply to `COMMAND`, in RESP2 or RESP3.
    ///
    /// # Errors
    /// What is no such reply.
    pub fn from_reply(reply: &[u8]) -> Result<Self, TableError> {
        Ok(Self::new(decode::table(reply)?))
    }

    fn new(mut specs: Vec<Spec>) -> Self {
        for (place, spec) in specs.iter_mut().enumerate() {
            spec.place = place;
        }
        let size = (specs.len() * 4).next_power_of_two().max(8);
        let free = Slot {
            hash: 0,
            spec: FREE,
        };
        let mut slots = vec![free; size].into_boxed_slice();
        for (index, spec) in (0_u32..).zip(&specs) {
            let hash = hash(own_name(spec), spec.container);
            let mut at = hash as usize & (size - 1);
            while let Some(slot) = slots.get_mut(at) {
                if slot.spec == FREE {
                    *slot = Slot { hash, spec: index };
                    break;
                }
                at = (at + 1) & (size - 1);
            }
        }
        Self { specs, slots }
    }

    /// All commands, and then their subcommands.
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// The command of that name, in any case, or its subcommand where it has such. A command with an unknown subcommand is
    /// itself: what it says then is the server's business.
    #[inline]
    pub fn find(&self, name: &[u8], subcommand: Option<&[u8]>) -> Option<&Spec> {
        let (index, spec) = self.look_up(name, None)?;
        if spec.has_subcommands
            && let Some(subcommand) = subcommand
            && let Some((_, spec)) = self.look_up(subcommand, Some(index))
        {
            return Some(spec);
        }
        Some(spec)
    }

    /// The command that `command` is.
    #[inline]
    pub fn find_command(&self, command: Command<'_>) -> Option<&Spec> {
        self.find(command.arg(0), command.get(1))
    }

    #[inline]
    fn look_up(&self, name: &[u8], container: Option<u32>) -> Option<(u32, &Spec)> {
        if name.len() > MAX_NAME {
            return None;
        }
        let hash = hash(name, container);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(at)?;
            let spec = self.specs.get(slot.spec as usize)?;
            if slot.hash == hash
                && spec.container == container
                && own_name(spec).eq_ignore_ascii_case(name)
            {
                return Some((slot.spec, spec));
            }
            at = (at + 1) & mask;
        }
    }
}

#[inline]
fn own_name(spec: &Spec) -> &[u8] {
    spec.name.get(spec.own_name_at..).unwrap_or_default()
}

/// A hash that does not tell upper from lower case. Of long names it takes both ends; there are few, and a look-up compares in
/// full.
#[inline]
fn hash(name: &[u8], container: Option<u32>) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let (front, back) = ends(name);
    let seed = container.map_or(0, |index| u64::from(index) + 1) ^ ((name.len() as u64) << 32);
    let mixed = ((front | LOWER) ^ seed).wrapping_mul(MULTIPLIER);
    let mixed = (mixed.rotate_left(29) ^ (back | LOWER)).wrapping_mul(MULTIPLIER);
    #[allow(clippy::cast_possible_truncation)]
    // The upper half, which the multiplication has mixed best.
    {
        (mixed >> 32) as u32
    }
}

/// The first and the last eight bytes, which overlap in shorter names.
#[inline]
fn ends(name: &[u8]) -> (u64, u64) {
    if let (Some(front), Some(back)) = (name.first_chunk(), name.last_chunk()) {
        return (u64::from_le_bytes(*front), u64::from_le_bytes(*back));
    }
    if let (Some(front), Some(back)) = (name.first_chunk(), name.last_chunk()) {
        let [front, back] = [*front, *back].map(u32::from_le_bytes);
        return (u64::from(front), u64::from(back));
    }
    let middle = name.get(name.len() / 2).copied().unwrap_or_default();
    let [front, back] = [name.first(), name.last()].map(|it| it.copied().unwrap_or_default());
    (u64::from(front) << 8 | u64::from(middle), u64::from(back))
}
