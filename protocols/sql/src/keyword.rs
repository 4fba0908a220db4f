//! The words that decide, found without a copy.

/// The length of the longest word below.
const LONGEST: usize = 27;

macro_rules! keywords {
    ($($name:ident = $text:literal,)*) => {
        /// A word that the classifier looks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Keyword {
            /// Any other word.
            Other,
            $($name,)*
        }

        const WORDS: &[(&[u8], Keyword)] = &[$(($text, Keyword::$name)),*];
    };
}

keywords! {
    As = b"as", Do = b"do", If = b"if", Is = b"is", On = b"on", Or = b"or", To = b"to",
    All = b"all", End = b"end", For = b"for", Not = b"not", Set = b"set", Xml = b"xml",
    Call = b"call", Copy = b"copy", Drop = b"drop", From = b"from", Hold = b"hold", Into = b"into",
    Load = b"load", Lock = b"lock", Move = b"move", Role = b"role", Show = b"show", Temp = b"temp",
    Time = b"time", View = b"view", With = b"with", Work = b"work", Zone = b"zone",
    Abort = b"abort", Alter = b"alter", Begin = b"begin", Close = b"close", Fetch = b"fetch",
    Grant = b"grant", Index = b"index", Local = b"local", Merge = b"merge", Names = b"names",
    Plans = b"plans", Reset = b"reset", Start = b"start", Table = b"table",
    Atomic = b"atomic", Commit = b"commit", Create = b"create", Cursor = b"cursor",
    Delete = b"delete", Exists = b"exists", Global = b"global", Import = b"import",
    Insert = b"insert", Listen = b"listen", Notify = b"notify", Option = b"option",
    Repack = b"repack", Revoke = b"revoke", Schema = b"schema", Select = b"select",
    Unique = b"unique", Update = b"update", Vacuum = b"vacuum", Values = b"values",
    Analyse = b"analyse", Analyze = b"analyze", Catalog = b"catalog", Cluster = b"cluster",
    Comment = b"comment", Current = b"current", Declare = b"declare", Discard = b"discard",
    Execute = b"execute", Explain = b"explain", PgTemp = b"pg_temp", Prepare = b"prepare",
    Refresh = b"refresh", Reindex = b"reindex", Release = b"release", Replace = b"replace",
    Verbose = b"verbose",
    Function = b"function", Prepared = b"prepared", Reassign = b"reassign",
    Rollback = b"rollback", Security = b"security", Sequence = b"sequence",
    Truncate = b"truncate", Uescape = b"uescape", Unlisten = b"unlisten", Unlogged = b"unlogged",
    Procedure = b"procedure", Recursive = b"recursive", Savepoint = b"savepoint",
    Sequences = b"sequences", Temporary = b"temporary",
    Checkpoint = b"checkpoint", Deallocate = b"deallocate", SetConfig = b"set_config",
    Constraints = b"constraints", Transaction = b"transaction",
    Concurrently = b"concurrently",
    Authorization = b"authorization",
    Characteristics = b"characteristics", SessionAuthorization = b"session_authorization",
    Session = b"session",
    PgAdvisoryLock = b"pg_advisory_lock", PgAdvisoryUnlock = b"pg_advisory_unlock",
    PgTryAdvisoryLock = b"pg_try_advisory_lock",
    PgAdvisoryUnlockAll = b"pg_advisory_unlock_all",
    PgAdvisoryLockShared = b"pg_advisory_lock_shared",
    PgAdvisoryUnlockShared = b"pg_advisory_unlock_shared",
    PgTryAdvisoryLockShared = b"pg_try_advisory_lock_shared",
}

/// Slots of the hash table: a power of two, thinly filled, so that most probes end at once.
const SLOTS: usize = 512;

/// Row number plus one of the word in each slot; zero is empty.
const TABLE: [u8; SLOTS] = table();

/// Two bytes and the length tell nearly all of the words apart. Case does not matter to it.
const fn slot(first: u8, third: u8, len: usize) -> usize {
    let first = (first | 0x20) as usize;
    let third = (third | 0x20) as usize;
    (first * 37 + third * 5 + len * 67) % SLOTS
}

const fn third(word: &[u8]) -> u8 {
    if word.len() > 2 { word[2] } else { word[1] }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "a const assertion bounds the rows"
)]
const fn table() -> [u8; SLOTS] {
    assert!(WORDS.len() < 255);
    let mut table = [0u8; SLOTS];
    let mut row = 0;
    while row < WORDS.len() {
        let word = WORDS[row].0;
        let mut at = slot(word[0], third(word), word.len());
        while table[at] != 0 {
            at = (at + 1) % SLOTS;
        }
        table[at] = row as u8 + 1;
        row += 1;
    }
    table
}

impl Keyword {
    /// The keyword that `word` spells in any case.
    pub(crate) fn lookup(word: &[u8]) -> Self {
        let (Some(&first), Some(&second)) = (word.first(), word.get(1)) else {
            return Self::Other;
        };
        if word.len() > LONGEST {
            return Self::Other;
        }
        let third = word.get(2).copied().unwrap_or(second);
        let mut at = slot(first, third, word.len());
        while let Some(row) = TABLE
            .get(at)
            .and_then(|&row| usize::from(row).checked_sub(1))
        {
            match WORDS.get(row) {
                Some((text, keyword)) if text.eq_ignore_ascii_case(word) => return *keyword,
                _ => at = (at + 1) % SLOTS,
            }
        }
        Self::Other
    }

    /// The keyword that the quoted `name` is equal to. Only names of functions, schemas and
    /// variables count: quotes make a plain name of any other word. The server compares names
    /// of variables without regard to case even then.
    pub(crate) fn lookup_quoted(name: &[u8]) -> Self {
        let found = Self::lookup(name);
        match found {
            Self::Role | Self::SessionAuthorization => found,
            Self::PgTemp | Self::SetConfig if !has_upper(name) => found,
            Self::PgAdvisoryLock
            | Self::PgAdvisoryLockShared
            | Self::PgTryAdvisoryLock
            | Self::PgTryAdvisoryLockShared
            | Self::PgAdvisoryUnlock
            | Self::PgAdvisoryUnlockShared
            | Self::PgAdvisoryUnlockAll
                if !has_upper(name) =>
            {
                found
            }
            _ => Self::Other,
        }
    }
}

fn has_upper(name: &[u8]) -> bool {
    name.iter().any(u8::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_in_any_case() {
        for (word, keyword) in WORDS {
            assert!(word.len() <= LONGEST);
            assert_eq!(Keyword::lookup(word), *keyword);
            assert_eq!(Keyword::lookup(&word.to_ascii_uppercase()), *keyword);
            assert_eq!(Keyword::lookup(&[*word, b"x"].concat()), Keyword::Other);
        }
    }
}
