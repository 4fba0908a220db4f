//! What is measured, and what TenantsDB must reach in each case.

pub mod postgres;
pub mod redis;

use crate::contender::Kind;
use crate::{pgbench, redis_benchmark};

/// What one operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A statement with its answer.
    Query,
    /// A command with its reply.
    Request,
    /// 1 MiB of answer.
    Mebibyte,
    /// A connection with its login and one statement.
    Connection,
}

impl Unit {
    /// Its name in a report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Request => "request",
            Self::Mebibyte => "MB",
            Self::Connection => "connection",
        }
    }

    /// Its name for more than one.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Query => "queries",
            Self::Request => "requests",
            Self::Mebibyte => "MB",
            Self::Connection => "connections",
        }
    }
}

/// The proxy whose processor time is the measure in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// PgBouncer, however it pools.
    PgBouncer,
    /// twemproxy.
    Twemproxy,
    /// HAProxy that ends the client's TLS.
    HaProxyTls,
}

impl Rival {
    /// Its name in a report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PgBouncer => "PgBouncer",
            Self::Twemproxy => "twemproxy",
            Self::HaProxyTls => "HAProxy",
        }
    }

    /// Whether a column is its.
    #[must_use]
    pub fn is(self, kind: Kind) -> bool {
        match self {
            Self::PgBouncer => matches!(kind, Kind::PgBouncer(_)),
            Self::Twemproxy => kind == Kind::Twemproxy,
            Self::HaProxyTls => kind == Kind::HaProxyTls,
        }
    }
}

/// What is asked of a contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Statements from `pgbench`.
    Pgbench(pgbench::Load),
    /// Commands from `redis-benchmark`.
    RedisBenchmark(redis_benchmark::Load),
}

/// A bound on one figure of TenantsDB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Processor time per operation, as a part of the rival's in [`Case::rival`].
    CpuOfRival(f64),
    /// Processor time in user mode per operation, in µs.
    UserMicros(f64),
    /// Throughput, at least this part of a direct connection's.
    ThroughputOfDirect(f64),
    /// Processor time per operation with io_uring, as a part of what our epoll reactor takes.
    CpuOfEpoll(f64),
}

/// One load that every contender gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// A name that stays the same over versions, for the machine-readable results.
    pub id: String,
    /// What it is, in words.
    pub title: String,
    /// What is asked.
    pub load: Load,
    /// Connections at a time.
    pub clients: u16,
    /// Whether the client side is encrypted.
    pub tls: bool,
    /// What one operation is.
    pub unit: Unit,
    /// Whose processor time is the measure.
    pub rival: Rival,
    /// What must be reached; empty for a case that is only reported.
    pub targets: Vec<Target>,
}

#[cfg(test)]
pub(crate) fn assert_unique(cases: &[Case]) {
    let mut ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), cases.len(), "{ids:?}");
}
