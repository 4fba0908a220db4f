//! The states that the store keeps as words.

use crate::error::StoreError;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$item_doc:meta])* $item:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$item_doc])* $item,)+ }

        impl $name {
            /// The word for it, in the store and in the API.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$item => $word,)+ }
            }

            /// Reads the word in any letter case.
            pub fn parse(word: &str) -> Option<Self> {
                match word.to_ascii_lowercase().as_str() { $($word => Some(Self::$item),)+ _ => None }
            }

            pub(crate) fn from_stored(word: &str) -> Result<Self, StoreError> {
                Self::parse(word).ok_or(StoreError::Corrupt { what: $what })
            }
        }
    };
}

words!(
    /// What a workspace is for.
    Mode, "workspace mode", {
        /// Its schema becomes a blueprint.
        Tenant = "tenant",
        /// A database of its own.
        Control = "control",
    }
);

words!(
    /// Where a tenant is in its life.
    TenantStatus, "tenant status", {
        /// Its databases are being created.
        Provisioning = "provisioning",
        /// In use.
        Ready = "ready",
        /// All its queries are refused.
        Suspended = "suspended",
        /// Being copied to another server, while in use.
        Syncing = "syncing",
        /// Being cut over to another server.
        Migrating = "migrating",
        /// A backup is being restored.
        Restoring = "restoring",
        /// A point in time is being recovered.
        Recovering = "recovering",
        /// In the trash.
        Deleted = "deleted",
        /// Something failed that the jobs' log tells of.
        Failed = "failed",
    }
);

words!(
    /// Where a database is in its life, apart from its tenant's status.
    DatabaseState, "database state", {
        /// Being created.
        Provisioning = "provisioning",
        /// In use.
        Ready = "ready",
        /// Being removed. The row goes last, so a crash leaves what says that the removal is to go on.
        Removing = "removing",
        /// Being replaced by a backup's contents.
        Restoring = "restoring",
        /// It could not be created or restored.
        Failed = "failed",
    }
);
