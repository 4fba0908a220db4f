//! Identifiers and small checked values that both planes use.

use std::fmt;
use std::sync::Arc;

/// A database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// MongoDB.
    Mongodb,
    /// Redis and Valkey.
    Redis,
}

impl Engine {
    /// Every engine, in the order in which documents list them.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Mysql, Self::Mongodb, Self::Redis];

    /// `PostgreSQL`, `MySQL`, `MongoDB`, `Redis`.
    pub const fn display_name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::Mongodb => "MongoDB",
            Self::Redis => "Redis",
        }
    }

    /// `postgresql`, `mysql`, `mongodb`, `redis`: in URLs, GETs, the store and metric labels.
    pub const fn lower_name(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Mysql => "mysql",
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
        }
    }

    /// The port that its servers use unless told otherwise.
    pub const fn usual_port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mysql => 3306,
            Self::Mongodb => 27017,
            Self::Redis => 6379,
        }
    }

    /// Reads a name in any letter case; `postgres`, `pg` and `mongo` are understood too.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "postgresql" | "postgres" | "pg" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::Mysql),
            "mongodb" | "mongo" => Some(Self::Mongodb),
            "redis" | "valkey" => Some(Self::Redis),
            _ => None,
        }
    }
}

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

numeric_id!(
    /// One database of a tenant or workspace, for as long as it exists; never reused.
    DatabaseId
);
numeric_id!(
    /// One database server, shared or dedicated; never reused.
    ServerId
);
numeric_id!(
    /// One API key, and the proxy password that belongs to it; never reused.
    KeyId
);

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text that was checked where it entered the system.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// `tdb_` and 8 hex digits. Also the user name with which clients log in.
    ProjectId
);
text_id!(
    /// A tenant's name, unique in its project.
    TenantId
);
text_id!(
    /// A blueprint's name, which is its workspace's name, unique in its project.
    BlueprintName
);

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Reads data and metadata.
    Read,
    /// Reads, and changes data by query.
    Write,
    /// Everything, within its scope.
    Admin,
}

impl Role {
    /// `read`, `write`, `admin`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// Reads a role's name in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}
