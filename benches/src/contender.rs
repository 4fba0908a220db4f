//! The columns of a comparison.

use crate::cases::{Case, Load};
use crate::pgbench::Protocol;
use crate::process::Process;
use crate::rivals::pgbouncer::Pooling;

/// What kind of program a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No proxy.
    Direct,
    /// PgBouncer.
    PgBouncer(Pooling),
    /// twemproxy.
    Twemproxy,
    /// HAProxy.
    HaProxy,
    /// HAProxy that ends the client's TLS.
    HaProxyTls,
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
            Self::Twemproxy => "twemproxy",
            Self::HaProxy => "HAProxy",
            Self::HaProxyTls => "HAProxy (TLS)",
            Self::Ours => "TenantsDB",
            Self::OursEpoll => "TenantsDB (epoll)",
        }
    }

    /// Whether it takes part in `case`. Debian's PgBouncer cannot pool prepared statements by transaction; twemproxy has no TLS; a
    /// relay's column in a TLS case would show PostgreSQL's own TLS.
    #[must_use]
    pub fn takes_part(self, case: &Case) -> bool {
        match case.load {
            Load::Pgbench(load) => {
                let prepared = load.protocol == Protocol::Prepared;
                match self {
                    Self::Direct | Self::Ours | Self::OursEpoll => true,
                    Self::PgBouncer(Pooling::Transaction) => !prepared,
                    Self::PgBouncer(Pooling::Session) => prepared,
                    Self::HaProxy => !case.tls,
                    Self::HaProxyTls | Self::Twemproxy => false,
                }
            }
            Load::RedisBenchmark(_) => match self {
                Self::Ours | Self::OursEpoll => true,
                Self::Direct | Self::Twemproxy | Self::HaProxy => !case.tls,
                Self::HaProxyTls => case.tls,
                Self::PgBouncer(_) => false,
            },
        }
    }
}

/// Where a load connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The port on 127.0.0.1.
    pub port: u16,
    /// The login name; empty where nobody logs in.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database; empty for Redis, where the login tells it.
    pub database: String,
    /// Whether the client asks for TLS.
    pub tls: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn every_case_has_one_column_to_compare_with() {
        let kinds = [
            Kind::Direct,
            Kind::PgBouncer(Pooling::Transaction),
            Kind::PgBouncer(Pooling::Session),
            Kind::Twemproxy,
            Kind::HaProxy,
            Kind::HaProxyTls,
            Kind::Ours,
            Kind::OursEpoll,
        ];
        for case in cases::postgres::all()
            .into_iter()
            .chain(cases::redis::all())
        {
            let rivals = kinds
                .iter()
                .filter(|kind| kind.takes_part(&case) && case.rival.is(**kind));
            assert_eq!(rivals.count(), 1, "{}", case.id);
        }
    }
}
