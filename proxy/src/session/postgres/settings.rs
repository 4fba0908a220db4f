//! What a session has set, and how a backend comes to have the same.
//!
//! Session and backend each point at an interned set of settings: equal pointers, the usual case, cost one comparison.
//! What a session has set is asked of the server once its transaction is over, so that rollbacks, savepoints and functions are
//! right without our following them.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use ahash::AHashMap;

/// Names of custom settings that one session may have, and settings that one inspection asks for.
pub(crate) const MAX_NAMES: usize = 128;
/// Dead entries are swept when the table has grown to this size.
const FIRST_SWEEP: usize = 256;

/// Names, as [`canonical`] writes them, and values, in the client's encoding.
pub(crate) type Settings = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What a session or a backend has set.
pub(crate) struct SettingSet {
    pub(crate) values: Settings,
    pub(crate) reading: Reading,
}

/// How the server reads a text: the settings that may change what a literal or a name in it means. It reads those when it
/// prepares a statement, so that only sessions with the same reading may share one.
#[derive(Clone)]
pub(crate) struct Reading(Rc<Settings>);

impl Reading {
    /// A number that no other reading has while this one exists.
    pub(crate) fn number(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }
}

impl PartialEq for Reading {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// The sets of one worker: equal content, equal pointer.
pub(crate) struct SettingSets {
    sets: Interned<SettingSet>,
    readings: Interned<Settings>,
    none: Rc<SettingSet>,
}

impl SettingSets {
    pub(crate) fn new() -> Self {
        Self {
            sets: Interned::new(),
            readings: Interned::new(),
            none: Rc::new(SettingSet {
                values: Settings::new(),
                reading: Reading(Rc::default()),
            }),
        }
    }

    /// The set of a session that has set nothing.
    pub(crate) fn none(&self) -> Rc<SettingSet> {
        Rc::clone(&self.none)
    }

    /// The one set with this content.
    pub(crate) fn intern(&mut self, values: Settings) -> Rc<SettingSet> {
        if values.is_empty() {
            return self.none();
        }
        if let Some(known) = self.sets.find(&values) {
            return known;
        }
        let set = SettingSet {
            reading: self.reading(&values),
            values: values.clone(),
        };
        self.sets.add(values, set)
    }

    fn reading(&mut self, values: &Settings) -> Reading {
        let values: Settings = values
            .iter()
            .filter(|(name, _)| changes_reading(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if values.is_empty() {
            return self.none.reading.clone();
        }
        Reading(match self.readings.find(&values) {
            Some(known) => known,
            None => self.readings.add(values.clone(), values),
        })
    }
}

/// What is made of settings, as long as somebody has it.
struct Interned<T> {
    known: AHashMap<Settings, Weak<T>>,
    sweep_at: usize,
}

impl<T> Interned<T> {
    fn new() -> Self {
        Self {
            known: AHashMap::new(),
            sweep_at: FIRST_SWEEP,
        }
    }

    fn find(&self, values: &Settings) -> Option<Rc<T>> {
        self.known.get(values).and_then(Weak::upgrade)
    }

    fn add(&mut self, values: Settings, made: T) -> Rc<T> {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, entry| entry.strong_count() > 0);
            self.sweep_at = (self.known.len() * 2).max(FIRST_SWEEP);
        }
        let made = Rc::new(made);
        self.known.insert(values, Rc::downgrade(&made));
        made
    }
}

/// A setting's name as the server compares it.
pub(crate) fn canonical(name: &[u8]) -> Box<[u8]> {
    name.to_ascii_lowercase().into()
}

/// Whether a setting may change what the server reads in a text: all but those that certainly do not.
fn changes_reading(name: &[u8]) -> bool {
    const HARMLESS: [&[u8]; 9] = [
        b"application_name",
        b"client_min_messages",
        b"default_transaction_deferrable",
        b"default_transaction_isolation",
        b"default_transaction_read_only",
        b"jit",
        b"maintenance_work_mem",
        b"synchronous_commit",
        b"work_mem",
    ];
    // Custom settings have a dot; only functions ask for them, when they run.
    !(HARMLESS.contains(&name) || name.ends_with(b"_timeout") || name.contains(&b'.'))
}

/// The statements that bring a backend from one set to another.
pub(crate) fn transition(from: &Settings, to: &Settings) -> Vec<u8> {
    let mut text = Vec::with_capacity(128);
    for name in from.keys().filter(|name| !to.contains_key(*name)) {
        text.extend_from_slice(b"RESET ");
        put_identifier(&mut text, name);
        text.push(b';');
    }
    let changed = to
        .iter()
        .filter(|(name, value)| from.get(*name) != Some(*value));
    put_set_config(&mut text, changed.map(|(name, value)| (&**name, &**value)));
    text
}

/// `SELECT set_config(…), …`, which takes lists such as `search_path` in the form in which the server shows them.
pub(crate) fn put_set_config<'a>(
    text: &mut Vec<u8>,
    settings: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) {
    let mut first = true;
    for (name, value) in settings {
        text.extend_from_slice(if first { b"SELECT " } else { b"," });
        first = false;
        text.extend_from_slice(b"pg_catalog.set_config(");
        put_literal(text, name);
        text.push(b',');
        put_literal(text, value);
        text.extend_from_slice(b",false)");
    }
}

/// `E'…'`, which reads the same whatever `standard_conforming_strings` says.
pub(crate) fn put_literal(text: &mut Vec<u8>, value: &[u8]) {
    text.extend_from_slice(b"E'");
    for byte in value {
        if matches!(byte, b'\'' | b'\\') {
            text.push(*byte);
        }
        text.push(*byte);
    }
    text.push(b'\'');
}

/// The parts of a setting's name, each quoted.
fn put_identifier(text: &mut Vec<u8>, name: &[u8]) {
    for (at, part) in name.split(|byte| *byte == b'.').enumerate() {
        if at > 0 {
            text.push(b'.');
        }
        text.push(b'"');
        for byte in part {
            if *byte == b'"' {
                text.push(b'"');
            }
            text.push(*byte);
        }
        text.push(b'"');
    }
}

/// Which settings statements may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Touched {
    /// None.
    #[default]
    Nothing,
    /// These.
    Names(Vec<Box<[u8]>>),
    /// Any that the server lists, and the custom ones (which it does not list) of these names.
    All(Vec<Box<[u8]>>),
}

impl Touched {
    /// Whether one of them changes how the server reads texts.
    pub(crate) fn may_change_reading(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Names(names) => names.iter().any(|name| changes_reading(name)),
            Self::All(_) => true,
        }
    }

    /// Adds a name.
    pub(crate) fn name(&mut self, name: Box<[u8]>) {
        match self {
            Self::Nothing => *self = Self::Names(vec![name]),
            Self::Names(names) | Self::All(names) => {
                if !names.contains(&name) && names.len() < MAX_NAMES {
                    names.push(name);
                }
            }
        }
    }

    fn all(&mut self) {
        *self = Self::All(match std::mem::take(self) {
            Self::Nothing => Vec::new(),
            Self::Names(names) | Self::All(names) => names,
        });
    }

    /// Notes what a text that sets, resets or discards may change. It may name too much.
    pub(crate) fn note(&mut self, text: &[u8]) {
        let mut words = Words(text);
        let mut known = true;
        let mut at_start = true;
        while let Some(word) = words.next() {
            let begins = std::mem::replace(&mut at_start, word == b";");
            if word.eq_ignore_ascii_case(b"set_config") {
                known &= self.note_function(&mut words);
            } else if begins && word.eq_ignore_ascii_case(b"set") {
                known &= self.note_set(&mut words);
            } else if begins && word.eq_ignore_ascii_case(b"reset") {
                known &= self.note_reset(&mut words);
            } else if begins && !is_plain(word) {
                known = false; // DISCARD, DO, CALL …: whatever they hold.
            }
        }
        if !known {
            self.all();
        }
    }

    fn note_set(&mut self, words: &mut Words<'_>) -> bool {
        let Some(mut word) = words.next() else {
            return false;
        };
        if word.eq_ignore_ascii_case(b"session") || word.eq_ignore_ascii_case(b"local") {
            match words.next() {
                Some(next) if next == b"." => return false,
                Some(next) => word = next,
                None => return false,
            }
        }
        // SET TIME ZONE, NAMES, ROLE, SESSION CHARACTERISTICS …: none takes `=` or `TO` behind the first word.
        self.note_name(word, words)
    }

    fn note_reset(&mut self, words: &mut Words<'_>) -> bool {
        match words.next() {
            Some(word) if !word.eq_ignore_ascii_case(b"all") => self.note_name(word, words),
            _ => false,
        }
    }

    fn note_name(&mut self, first: &[u8], words: &mut Words<'_>) -> bool {
        let Some(mut name) = plain_name(first) else {
            return false;
        };
        loop {
            match words.peek() {
                Some(b".") => {
                    words.next();
                    let Some(part) = words.next().and_then(plain_name) else {
                        return false;
                    };
                    name.push(b'.');
                    name.extend_from_slice(&part);
                }
                Some(next) if next == b"=" || next == b";" || next.eq_ignore_ascii_case(b"to") => {
                    break;
                }
                None => break,
                Some(_) => return false,
            }
        }
        self.name(name.into());
        true
    }

    /// The first argument of `set_config(`, if it is a plain literal.
    fn note_function(&mut self, words: &mut Words<'_>) -> bool {
        if words.next() != Some(b"(") {
            return false;
        }
        let Some([b'\'', name @ .., b'\'']) = words.next() else {
            return false;
        };
        if name.contains(&b'\'') || name.contains(&b'\\') {
            return false;
        }
        self.name(canonical(name));
        true
    }
}

/// Whether a statement that begins with this word changes settings only where its text says so.
fn is_plain(word: &[u8]) -> bool {
    const PLAIN: [&[u8]; 14] = [
        b"select",
        b"begin",
        b"start",
        b"commit",
        b"end",
        b"rollback",
        b"insert",
        b"update",
        b"delete",
        b"with",
        b"show",
        b"values",
        b"savepoint",
        b"release",
    ];
    word == b";" || PLAIN.iter().any(|plain| word.eq_ignore_ascii_case(plain))
}

/// A setting's name as the server compares it: in lower case, whether quoted or not.
fn plain_name(word: &[u8]) -> Option<Vec<u8>> {
    let name = match word {
        [b'"', name @ .., b'"'] if !name.contains(&b'"') => name,
        [first, ..] if first.is_ascii_alphabetic() || *first == b'_' => word,
        _ => return None,
    };
    Some(name.to_ascii_lowercase())
}

/// Words, literals and marks of a text; comments and space are passed over.
#[derive(Clone, Copy)]
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        ahead.next()
    }

    fn skip_blank(&mut self) {
        loop {
            match self.0 {
                [byte, rest @ ..] if byte.is_ascii_whitespace() || *byte == 0x0b => self.0 = rest,
                [b'-', b'-', rest @ ..] => {
                    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                    self.0 = rest.get(end..).unwrap_or_default();
                }
                [b'/', b'*', rest @ ..] => {
                    let end = memchr::memmem::find(rest, b"*/").map_or(rest.len(), |at| at + 2);
                    self.0 = rest.get(end..).unwrap_or_default();
                }
                _ => return,
            }
        }
    }

    fn quoted_len(&self, quote: u8) -> usize {
        let inner = self.0.get(1..).unwrap_or_default();
        memchr::memchr(quote, inner).map_or(self.0.len(), |at| at + 2)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.skip_blank();
        let first = *self.0.first()?;
        let len = match first {
            b'\'' | b'"' => self.quoted_len(first),
            _ if in_word(first) => self.0.iter().take_while(|byte| in_word(**byte)).count(),
            _ => 1,
        };
        let (word, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(word)
    }
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Settings {
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()))
            .collect()
    }

    #[test]
    fn equal_sets_are_one() {
        let mut sets = SettingSets::new();
        let one = sets.intern(set(&[("a", "1")]));
        assert!(Rc::ptr_eq(&one, &sets.intern(set(&[("a", "1")]))));
        assert!(!Rc::ptr_eq(&one, &sets.intern(set(&[("a", "2")]))));
        assert!(Rc::ptr_eq(&sets.none(), &sets.intern(Settings::new())));
    }

    #[test]
    fn a_reading_is_shared_by_sets_that_read_alike() {
        let mut sets = SettingSets::new();
        let tokyo = sets.intern(set(&[("timezone", "Asia/Tokyo"), ("app.user", "1")]));
        let same = sets.intern(set(&[("timezone", "Asia/Tokyo"), ("lock_timeout", "1s")]));
        let other = sets.intern(set(&[("timezone", "UTC")]));
        let harmless = sets.intern(set(&[("application_name", "x")]));
        assert!(!Rc::ptr_eq(&tokyo, &same));
        assert!(tokyo.reading == same.reading);
        assert!(tokyo.reading != other.reading);
        assert!(harmless.reading == sets.none().reading);
    }

    #[test]
    fn what_may_change_a_reading() {
        for (text, changes) in [
            ("SET LOCAL app.tenant = '5'", false),
            (
                "SET statement_timeout = 5; SET LOCAL work_mem = '5MB'",
                false,
            ),
            ("SET search_path = a", true),
            ("SET TimeZone = 'UTC'", true),
            ("SET LOCAL TIME ZONE 'UTC'", true),
            ("SELECT set_config($1, $2, true)", true),
            ("SELECT set_config('app.tenant', $1, true)", false),
            ("DISCARD ALL", true),
        ] {
            let mut touched = Touched::Nothing;
            touched.note(text.as_bytes());
            assert_eq!(touched.may_change_reading(), changes, "{text}");
        }
    }

    #[test]
    fn a_transition_names_only_what_differs() {
        let from = set(&[("app.user", "1"), ("same", "x"), ("changed", "1")]);
        let to = set(&[
            ("same", "x"),
            ("changed", "it's \\"),
            ("search_path", "\"$user\", public"),
        ]);
        let text = String::from_utf8(transition(&from, &to)).unwrap();
        assert_eq!(
            text,
            "RESET \"app\".\"user\";SELECT pg_catalog.set_config(E'changed',E'it''s \\\\',false),\
             pg_catalog.set_config(E'search_path',E'\"$user\", public',false)"
        );
        assert!(transition(&to, &to).is_empty());
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str], all: bool) {
        let mut touched = Touched::default();
        touched.note(text.as_bytes());
        let names: Vec<Box<[u8]>> = expected.iter().map(|name| name.as_bytes().into()).collect();
        let wanted = match (all, names.is_empty()) {
            (true, _) => Touched::All(names),
            (false, true) => Touched::Nothing,
            (false, false) => Touched::Names(names),
        };
        assert_eq!(touched, wanted, "{text}");
    }

    #[test]
    fn names_are_read_from_plain_statements() {
        check("SET search_path TO a, b", &["search_path"], false);
        check("set Session \"App\".tenant = '5' ;", &["app.tenant"], false);
        check(
            "/* x */ SET LOCAL a.b.c = 1; SET d=2",
            &["a.b.c", "d"],
            false,
        );
        check("RESET Work_Mem", &["work_mem"], false);
        check(
            "SELECT set_config('app.user', $1, false)",
            &["app.user"],
            false,
        );
        check("BEGIN; SET a = 'set_config('; COMMIT", &["a"], false);
    }

    #[test]
    fn what_is_not_plain_may_change_anything() {
        check("RESET ALL", &[], true);
        check("DISCARD ALL", &[], true);
        check("SET TIME ZONE 'UTC'", &[], true);
        check("SET NAMES 'latin1'", &[], true);
        check(
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            &[],
            true,
        );
        check("SELECT set_config($1, $2, false)", &[], true);
        check("SELECT set_config(E'a\\x', '', false)", &[], true);
        check("SET a = 1; RESET ALL", &["a"], true);
        check("DO $$ BEGIN SET x = 1; END $$", &[], true);
        check("SET", &[], true);
    }
}
