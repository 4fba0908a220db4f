//! Going through a command's arguments.

use super::keys::{Begin, Find, KeySpec, Keys, Role, Run};
use super::table::Spec;
use crate::number;

/// The most parts of a description. Redis's own commands have at most three.
pub(crate) const MAX_SPECS: usize = 4;

/// Says of each argument what it is. It is told all of them in order, the command's name first.
#[derive(Clone, Debug)]
pub struct Walker {
    keys: Keys,
    walk: Walk,
}

impl Walker {
    /// One for a command of `argc` arguments, its name included.
    pub fn new(spec: &Spec, argc: usize) -> Self {
        Self {
            walk: Walk::new(&spec.keys, argc),
            keys: spec.keys.clone(),
        }
    }

    /// Whether the arguments that have come tell how many keys there are, and where.
    pub fn is_settled(&self) -> bool {
        match (&self.walk.state, &self.keys) {
            (State::Rule { ended, values, .. }, _) => *ended && *values == 0,
            (State::Specs(progress), Keys::Specs(specs)) => {
                let mut progress = progress.iter().take(specs.len());
                progress.all(|it| matches!(it, Progress::Found(_)))
            }
            _ => true,
        }
    }

    /// What the next argument is. `None` where it is too long to be shown: it is then neither a keyword nor a number.
    #[inline]
    pub fn next(&mut self, arg: Option<&[u8]>) -> Role {
        self.walk.next(&self.keys, arg)
    }
}

/// A [`Walker`] that is handed what it walks by.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    argc: usize,
    index: usize,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Run(Run),
    Rule {
        /// Arguments that belong to the option before them, and what these are.
        values: usize,
        value_role: Role,
        ended: bool,
    },
    Specs([Progress; MAX_SPECS]),
}

/// How far a part of a description has been found.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Its keyword has not come.
    Searching,
    /// It begins at this argument; how many there are is not known.
    Begun(usize),
    /// All is known.
    Found(Run),
}

impl Walk {
    pub(crate) fn new(keys: &Keys, argc: usize) -> Self {
        let state = match keys {
            Keys::None | Keys::Unknown => State::Run(Run::EMPTY),
            Keys::Range(range) => State::Run(range.run(argc)),
            Keys::Rule(_) => State::Rule {
                values: 0,
                value_role: Role::Other,
                ended: false,
            },
            Keys::Specs(specs) => {
                let mut progress = [Progress::Searching; MAX_SPECS];
                for (progress, spec) in progress.iter_mut().zip(specs.iter()) {
                    if let Begin::Index(begin) = spec.begin {
                        *progress = begun(spec.find, begin as usize, argc);
                    }
                }
                State::Specs(progress)
            }
        };
        Self {
            argc,
            index: 0,
            state,
        }
    }

    #[inline]
    pub(crate) fn next(&mut self, keys: &Keys, arg: Option<&[u8]>) -> Role {
        let index = self.index;
        self.index += 1;
        match (&mut self.state, keys) {
            (State::Run(run), Keys::Range(range)) => match run.takes(index) {
                true => range.role,
                false => Role::Other,
            },
            (
                State::Rule {
                    values, value_role, ..
                },
                _,
            ) if *values > 0 => {
                *values -= 1;
                *value_role
            }
            (
                State::Rule {
                    values,
                    value_role,
                    ended: ended @ false,
                },
                Keys::Rule(rule),
            ) => {
                let arg = arg.unwrap_or(WITHHELD);
                let read = rule.read(index, self.argc, arg);
                *ended = index > 0 && rule.ends_with(arg);
                *values = read.values;
                *value_role = read.value_role;
                read.role
            }
            (State::Specs(progress), Keys::Specs(specs)) => {
                let mut role = Role::Other;
                for (progress, spec) in progress.iter_mut().zip(specs.iter()) {
                    if progress.takes(spec, index, self.argc, arg) && role == Role::Other {
                        role = spec.role;
                    }
                }
                role
            }
            _ => Role::Other,
        }
    }
}

/// Stands for an argument that is not shown. No option has this name.
const WITHHELD: &[u8] = b"\0";

fn begun(find: Find, begin: usize, argc: usize) -> Progress {
    match find.run(begin, argc) {
        Some(run) => Progress::Found(run),
        None => Progress::Begun(begin),
    }
}

impl Progress {
    /// Whether the part of the description that this is about says that the argument is a key.
    fn takes(&mut self, spec: &KeySpec, index: usize, argc: usize, arg: Option<&[u8]>) -> bool {
        match (&mut *self, &spec.begin, spec.find) {
            (Self::Searching, Begin::Keyword { word, from }, find) => {
                if index >= *from as usize && arg.is_some_and(|arg| arg.eq_ignore_ascii_case(word))
                {
                    *self = begun(find, index + 1, argc);
                }
                false
            }
            (Self::Begun(begin), _, find @ Find::Count { index: count, .. }) => {
                if index == *begin + count as usize {
                    let count = arg.and_then(number::parse).unwrap_or(0);
                    *self = Self::Found(find.counted(*begin, count, argc));
                }
                false
            }
            (Self::Found(run), ..) => run.takes(index),
            _ => false,
        }
    }
}
