//! What is measured, and what TenantsDB must reach in each case.

use crate::pgbench::{Protocol, Script};

/// What one operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A statement with its answer.
    Query,
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
            Self::Mebibyte => "MB",
            Self::Connection => "connection",
        }
    }
}

/// A bound on one figure of TenantsDB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Processor time per operation, as a part of PgBouncer's.
    CpuOfPgBouncer(f64),
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
    /// How statements are sent.
    pub protocol: Protocol,
    /// What each transaction does.
    pub script: Script,
    /// Connections at a time.
    pub clients: u16,
    /// Whether each transaction opens a connection of its own.
    pub reconnect: bool,
    /// Whether the client side is encrypted.
    pub tls: bool,
    /// What one operation is.
    pub unit: Unit,
    /// What must be reached; empty for a case that is only reported.
    pub targets: Vec<Target>,
}

/// All cases, in the order of the report.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Prepared] {
        for clients in [8, 32, 128] {
            cases.push(select(protocol, clients));
        }
    }
    cases.extend([
        select_with_tls(),
        large_rows(),
        connections(false),
        connections(true),
    ]);
    cases
}

fn select(protocol: Protocol, clients: u16) -> Case {
    let mut targets = Vec::new();
    if clients == 32 {
        targets.extend([
            Target::CpuOfPgBouncer(1.0),
            Target::UserMicros(2.5),
            Target::CpuOfEpoll(0.95),
        ]);
        if protocol == Protocol::Extended {
            targets.push(Target::ThroughputOfDirect(0.95));
        }
    } else {
        targets.push(Target::CpuOfEpoll(1.0));
    }
    let name = protocol.name();
    Case {
        id: format!("select-{name}-{clients}"),
        title: format!("`pgbench -S -M {name}`, {clients} clients"),
        protocol,
        script: Script::SelectOnly,
        clients,
        reconnect: false,
        tls: false,
        unit: Unit::Query,
        targets,
    }
}

fn select_with_tls() -> Case {
    Case {
        id: "select-tls-simple-32".into(),
        title: "`pgbench -S -M simple`, 32 clients, client TLS".into(),
        tls: true,
        targets: vec![Target::CpuOfPgBouncer(0.95), Target::CpuOfEpoll(1.0)],
        ..select(Protocol::Simple, 32)
    }
}

fn large_rows() -> Case {
    Case {
        id: "rows-1mb".into(),
        title: "rows of 1 MB, 4 clients".into(),
        script: Script::LargeRow,
        clients: 4,
        unit: Unit::Mebibyte,
        targets: vec![Target::CpuOfPgBouncer(0.55), Target::CpuOfEpoll(1.0)],
        ..select(Protocol::Simple, 32)
    }
}

fn connections(tls: bool) -> Case {
    Case {
        id: if tls { "connect-tls" } else { "connect" }.into(),
        title: format!(
            "new connection and one query (`pgbench -C -S`), 8 clients{}",
            if tls { ", client TLS" } else { "" }
        ),
        clients: 8,
        reconnect: true,
        tls,
        unit: Unit::Connection,
        targets: vec![
            Target::CpuOfPgBouncer(if tls { 0.8 } else { 1.2 }),
            Target::CpuOfEpoll(1.0),
        ],
        ..select(Protocol::Simple, 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique() {
        let mut ids: Vec<String> = all().into_iter().map(|case| case.id).collect();
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert_eq!(count, 13);
    }

    #[test]
    fn thirty_two_clients_decide() {
        for case in all()
            .iter()
            .filter(|case| case.id.starts_with("select-") && !case.tls)
        {
            let compared = case.targets.contains(&Target::CpuOfPgBouncer(1.0));
            assert_eq!(compared, case.clients == 32, "{}", case.id);
        }
    }
}
