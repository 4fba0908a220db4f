//! Sets of flags, by the names that servers give them.

/// A set of named bits.
macro_rules! bits {
    ($(#[$meta:meta])* $set:ident($repr:ty) { $($(#[$doc:meta])* $name:ident = $bit:literal: $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $set($repr);

        impl $set {
            /// None.
            pub const NONE: Self = Self(0);
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// Both sets in one.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether all of `other` are in the set.
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any of `other` is in the set.
            pub const fn has_any(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The one that servers call so. Names that nobody knew when this was written are [`Self::NONE`].
            pub fn named(name: &[u8]) -> Self {
                match name {
                    $($text => Self::$name,)*
                    _ => Self::NONE,
                }
            }
        }
    };
}

bits! {
    /// What a server says of a command.
    Flags(u32) {
        /// It may change data.
        WRITE = 0: b"write",
        /// It only reads.
        READONLY = 1: b"readonly",
        /// It is refused while memory is short.
        DENYOOM = 2: b"denyoom",
        /// It is for administrators.
        ADMIN = 3: b"admin",
        /// It is of publishing and subscribing.
        PUBSUB = 4: b"pubsub",
        /// Scripts may not call it.
        NOSCRIPT = 5: b"noscript",
        /// It may wait.
        BLOCKING = 6: b"blocking",
        /// It is allowed while a server loads its data.
        LOADING = 7: b"loading",
        /// It is allowed on a replica that has lost its primary.
        STALE = 8: b"stale",
        /// `MONITOR` does not show it.
        SKIP_MONITOR = 9: b"skip_monitor",
        /// The slow log does not hold it.
        SKIP_SLOWLOG = 10: b"skip_slowlog",
        /// A cluster's node takes it while a slot is on its way.
        ASKING = 11: b"asking",
        /// It takes constant or logarithmic time.
        FAST = 12: b"fast",
        /// It is allowed before login.
        NO_AUTH = 13: b"no_auth",
        /// It may change data, though it is not said to write.
        MAY_REPLICATE = 14: b"may_replicate",
        /// Its keys are not where the first, last and step say.
        MOVABLEKEYS = 15: b"movablekeys",
        /// It is allowed while a script runs that has used up its time.
        ALLOW_BUSY = 16: b"allow_busy",
        /// It is refused while a replica loads data.
        NO_ASYNC_LOADING = 17: b"no_async_loading",
        /// It is refused in a transaction.
        NO_MULTI = 18: b"no_multi",
        /// It may have no keys at all.
        NO_MANDATORY_KEYS = 19: b"no_mandatory_keys",
        /// A module brought it.
        MODULE = 20: b"module",
    }
}

bits! {
    /// The categories of access control.
    Categories(u32) {
        /// `@keyspace`.
        KEYSPACE = 0: b"@keyspace",
        /// `@read`.
        READ = 1: b"@read",
        /// `@write`.
        WRITE = 2: b"@write",
        /// `@set`.
        SET = 3: b"@set",
        /// `@sortedset`.
        SORTEDSET = 4: b"@sortedset",
        /// `@list`.
        LIST = 5: b"@list",
        /// `@hash`.
        HASH = 6: b"@hash",
        /// `@string`.
        STRING = 7: b"@string",
        /// `@bitmap`.
        BITMAP = 8: b"@bitmap",
        /// `@hyperloglog`.
        HYPERLOGLOG = 9: b"@hyperloglog",
        /// `@geo`.
        GEO = 10: b"@geo",
        /// `@stream`.
        STREAM = 11: b"@stream",
        /// `@pubsub`.
        PUBSUB = 12: b"@pubsub",
        /// `@admin`.
        ADMIN = 13: b"@admin",
        /// `@fast`.
        FAST = 14: b"@fast",
        /// `@slow`.
        SLOW = 15: b"@slow",
        /// `@blocking`.
        BLOCKING = 16: b"@blocking",
        /// `@dangerous`.
        DANGEROUS = 17: b"@dangerous",
        /// `@connection`.
        CONNECTION = 18: b"@connection",
        /// `@transaction`.
        TRANSACTION = 19: b"@transaction",
        /// `@scripting`.
        SCRIPTING = 20: b"@scripting",
    }
}

bits! {
    /// What a command does with a key.
    KeyFlags(u16) {
        /// It only reads it.
        RO = 0: b"RO",
        /// It reads and writes it.
        RW = 1: b"RW",
        /// It overwrites it.
        OW = 2: b"OW",
        /// It removes it.
        RM = 3: b"RM",
        /// It returns or uses what the key holds.
        ACCESS = 4: b"access",
        /// It changes what the key holds.
        UPDATE = 5: b"update",
        /// It adds to what the key holds.
        INSERT = 6: b"insert",
        /// It removes from what the key holds.
        DELETE = 7: b"delete",
        /// It is no key: a shard channel.
        NOT_KEY = 8: b"not_key",
        /// There may be keys besides those described.
        INCOMPLETE = 9: b"incomplete",
        /// The arguments decide what is done; the flags say the worst.
        VARIABLE_FLAGS = 10: b"variable_flags",
    }
}
