//! The columns of a comparison.

use anyhow::Result;

use crate::cases::Case;
use crate::pgbench::{Endpoint, Protocol};
use crate::process::Process;
use crate::rivals::pgbouncer::Pooling;
use crate::rivals::postgres::Postgres;
use crate::rivals::{Lab, haproxy, pgbouncer};

/// What kind of program a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No proxy.
    Direct,
    /// PgBouncer.
    PgBouncer(Pooling),
    /// HAProxy.
    HaProxy,
    /// TenantsDB with the reactor it chooses by itself.
    Ours,
    /// TenantsDB, told to use its epoll reactor.
    OursEpoll,
}

impl Kind {
    /// The column's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::PgBouncer(Pooling::Transaction) => "PgBouncer",
            Self::PgBouncer(Pooling::Session) => "PgBouncer (session)",
            Self::HaProxy => "HAProxy",
            Self::Ours => "TenantsDB",
            Self::OursEpoll => "TenantsDB (epoll)",
        }
    }

    /// Whether it takes part in `case`. Debian's PgBouncer cannot pool prepared statements by transaction, and a relay has no TLS of
    /// its own: its column would show PostgreSQL's.
    #[must_use]
    pub fn takes_part(self, case: &Case) -> bool {
        let prepared = case.protocol == Protocol::Prepared;
        match self {
            Self::Direct | Self::Ours | Self::OursEpoll => true,
            Self::PgBouncer(Pooling::Transaction) => !prepared,
            Self::PgBouncer(Pooling::Session) => prepared,
            Self::HaProxy => !case.tls,
        }
    }
}

/// A running column.
#[derive(Debug)]
pub struct Contender {
    /// What it is.
    pub kind: Kind,
    /// Where loads connect; [`Endpoint::tls`] is set for each case.
    pub endpoint: Endpoint,
    /// The proxy; none for a direct connection.
    pub process: Option<Process>,
}

impl Contender {
    /// Where the load of a case with or without TLS connects.
    #[must_use]
    pub fn endpoint(&self, tls: bool) -> Endpoint {
        Endpoint {
            tls,
            ..self.endpoint.clone()
        }
    }
}

/// Starts a PgBouncer column in front of `postgres`.
///
/// # Errors
/// When it is not installed or does not start.
pub fn start_pgbouncer(lab: &Lab, postgres: &Postgres, pooling: Pooling) -> Result<Contender> {
    let (process, port) = pgbouncer::start(lab, postgres, pooling)?;
    let endpoint = postgres.endpoint(port, false);
    Ok(Contender {
        kind: Kind::PgBouncer(pooling),
        endpoint,
        process: Some(process),
    })
}

/// Starts the direct column and all rivals.
///
/// # Errors
/// When one is not installed or does not start.
pub fn start_rivals(lab: &Lab, postgres: &Postgres) -> Result<Vec<Contender>> {
    let direct = Contender {
        kind: Kind::Direct,
        endpoint: postgres.endpoint(postgres.port(), false),
        process: None,
    };
    let (relay, relay_port) = haproxy::start(lab, postgres.port())?;
    let relay = Contender {
        kind: Kind::HaProxy,
        endpoint: postgres.endpoint(relay_port, false),
        process: Some(relay),
    };
    Ok(vec![
        direct,
        start_pgbouncer(lab, postgres, Pooling::Transaction)?,
        start_pgbouncer(lab, postgres, Pooling::Session)?,
        relay,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn every_case_has_one_pgbouncer_to_compare_with() {
        for case in cases::all() {
            let kinds = [Pooling::Transaction, Pooling::Session].map(Kind::PgBouncer);
            assert_eq!(
                kinds.iter().filter(|kind| kind.takes_part(&case)).count(),
                1,
                "{}",
                case.id
            );
        }
    }
}
