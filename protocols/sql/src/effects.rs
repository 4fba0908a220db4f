//! What a statement does beyond its rows, as a set of bits.

use std::ops::{BitOr, BitOrAssign};

/// A set of effects. It may name too much where only the server could know better (a column
/// called `set_config`), never too little.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Effects(u32);

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Effects {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name))),*];
        }
    };
}

effects! {
    /// Changes what tenants may not change: schema, privileges, statistics, storage.
    DDL = 0;
    /// Makes an object that lives as long as the session.
    TEMP = 1;
    /// Sets a variable of the session.
    SET_SESSION = 2;
    /// Sets a variable until the transaction ends.
    SET_LOCAL = 3;
    /// Sets a variable, or all, back.
    RESET = 4;
    /// Throws away plans, temporary objects, sequence caches or all.
    DISCARD = 5;
    /// Names the function that sets a variable.
    SET_CONFIG = 6;
    /// Begins or ends a transaction.
    TRANSACTION = 7;
    /// Sets, releases or returns to a savepoint.
    SAVEPOINT = 8;
    /// Prepares a statement under a name.
    PREPARE = 9;
    /// Runs a prepared statement.
    EXECUTE = 10;
    /// Forgets prepared statements.
    DEALLOCATE = 11;
    /// Listens on a channel.
    LISTEN = 12;
    /// Stops listening.
    UNLISTEN = 13;
    /// Notifies a channel.
    NOTIFY = 14;
    /// Names a function that takes an advisory lock of the session.
    ADVISORY_LOCK = 15;
    /// Names a function that gives such locks back.
    ADVISORY_UNLOCK = 16;
    /// Declares a cursor that outlives its transaction.
    HOLD_CURSOR = 17;
    /// Closes a cursor, or all.
    CLOSE_CURSOR = 18;
    /// Loads a library into the server process.
    LOAD = 19;
    /// Copies rows in or out.
    COPY = 20;
    /// Changes the role or user of the session.
    SET_ROLE = 21;
}

impl Effects {
    /// No effect.
    pub const NONE: Self = Self(0);

    /// Whether all of `others` are among these.
    #[must_use]
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether any of `others` is among these.
    #[must_use]
    pub const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These and `others`.
    #[must_use]
    pub const fn union(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// The bits, for counters and tables.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for Effects {
    type Output = Self;

    fn bitor(self, others: Self) -> Self {
        self.union(others)
    }
}

impl BitOrAssign for Effects {
    fn bitor_assign(&mut self, others: Self) {
        *self = self.union(others);
    }
}

impl std::fmt::Debug for Effects {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = Self::NAMES
            .iter()
            .filter(|(effect, _)| self.contains(*effect));
        out.debug_set()
            .entries(names.map(|(_, name)| format_args!("{name}").to_string()))
            .finish()
    }
}
