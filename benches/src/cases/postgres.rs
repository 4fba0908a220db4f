//! The PostgreSQL cases.

use super::{Case, Load, Rival, Target, Unit};
use crate::pgbench::{self, Protocol, Script};

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
            Target::CpuOfRival(1.0),
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
        load: Load::Pgbench(pgbench::Load {
            protocol,
            script: Script::SelectOnly,
            reconnect: false,
        }),
        clients,
        tls: false,
        unit: Unit::Query,
        rival: Rival::PgBouncer,
        targets,
    }
}

fn select_with_tls() -> Case {
    Case {
        id: "select-tls-simple-32".into(),
        title: "`pgbench -S -M simple`, 32 clients, client TLS".into(),
        tls: true,
        targets: vec![Target::CpuOfRival(0.95), Target::CpuOfEpoll(1.0)],
        ..select(Protocol::Simple, 32)
    }
}

fn large_rows() -> Case {
    Case {
        id: "rows-1mb".into(),
        title: "rows of 1 MB, 4 clients".into(),
        load: Load::Pgbench(pgbench::Load {
            protocol: Protocol::Simple,
            script: Script::LargeRow,
            reconnect: false,
        }),
        clients: 4,
        unit: Unit::Mebibyte,
        targets: vec![Target::CpuOfRival(0.55), Target::CpuOfEpoll(1.0)],
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
        load: Load::Pgbench(pgbench::Load {
            protocol: Protocol::Simple,
            script: Script::SelectOnly,
            reconnect: true,
        }),
        clients: 8,
        tls,
        unit: Unit::Connection,
        targets: vec![
            Target::CpuOfRival(if tls { 0.8 } else { 1.2 }),
            Target::CpuOfEpoll(1.0),
        ],
        ..select(Protocol::Simple, 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::assert_unique;

    #[test]
    fn identifiers_are_unique() {
        let cases = all();
        assert_unique(&cases);
        assert_eq!(cases.len(), 13);
    }

    #[test]
    fn thirty_two_clients_decide() {
        for case in all()
            .iter()
            .filter(|case| case.id.starts_with("select-") && !case.tls)
        {
            let compared = case.targets.contains(&Target::CpuOfRival(1.0));
            assert_eq!(compared, case.clients == 32, "{}", case.id);
        }
    }
}
