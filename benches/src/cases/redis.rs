//! The Redis cases.

use super::{Case, Load, Rival, Target, Unit};
use crate::redis_benchmark::{self, Command};

/// As many as `redis-benchmark` takes by itself.
const CLIENTS: u16 = 50;

/// All cases, in the order of the report. Those with values of one size stand together: the server is filled anew for each size.
#[must_use]
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (pipeline, target) in [(1, 0.85), (16, 0.35)] {
        for command in Command::ALL {
            let mut case = plain(command, 3, pipeline);
            case.targets.insert(0, Target::CpuOfRival(target));
            cases.push(case);
        }
    }
    cases.extend(Command::ALL.map(with_tls));
    for pipeline in [1, 16] {
        cases.extend(Command::ALL.map(|command| plain(command, 512, pipeline)));
    }
    cases.extend(Command::ALL.map(|command| plain(command, 64 << 10, 1)));
    cases
}

fn plain(command: Command, value: u32, pipeline: u16) -> Case {
    let lower = command.name().to_lowercase();
    Case {
        id: format!("{lower}-{value}-p{pipeline}"),
        title: format!(
            "`{}`, values of {}, {CLIENTS} clients, {}",
            command.name(),
            if value < 1 << 10 {
                format!("{value} B")
            } else {
                format!("{} KB", value >> 10)
            },
            if pipeline == 1 {
                "one request at a time".into()
            } else {
                format!("{pipeline} requests at a time")
            },
        ),
        load: Load::RedisBenchmark(redis_benchmark::Load {
            command,
            value,
            pipeline,
        }),
        clients: CLIENTS,
        tls: false,
        unit: Unit::Request,
        rival: Rival::Twemproxy,
        targets: vec![Target::CpuOfEpoll(1.0)],
    }
}

fn with_tls(command: Command) -> Case {
    let plain = plain(command, 3, 1);
    Case {
        id: format!("{}-tls", plain.id),
        title: format!("{}, client TLS", plain.title),
        tls: true,
        rival: Rival::HaProxyTls,
        targets: vec![Target::CpuOfRival(0.75), Target::CpuOfEpoll(1.0)],
        ..plain
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
        assert_eq!(cases.len(), 12);
    }

    #[test]
    fn sizes_stand_together() {
        let mut sizes: Vec<u32> = all()
            .iter()
            .map(|case| match case.load {
                Load::RedisBenchmark(load) => load.value,
                Load::Pgbench(_) => panic!("{}", case.id),
            })
            .collect();
        sizes.dedup();
        assert_eq!(sizes, [3, 512, 64 << 10]);
    }
}
