//! What a request costs that only reads.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::instance::{Account, Instance, new_tenant};
use super::report::{Section, Target};
use super::{Amounts, micros};
use crate::stats::summarize;

const ROUNDS: usize = 5;
const WARM_UP: u32 = 200;
/// CPU µs of a request that memory answers.
const WANTED: f64 = 100.0;

/// Where an answer comes from.
#[derive(Clone, Copy, PartialEq)]
enum From {
    Memory,
    Store,
    Log,
}

impl From {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Store => "the store",
            Self::Log => "the query log",
        }
    }
}

const PATHS: [(&str, From); 11] = [
    ("/tenants/acme", From::Memory),
    ("/tenants/acme/logs/stats", From::Memory),
    ("/tenants/acme/backups", From::Memory),
    ("/workspaces/shop/settings", From::Memory),
    ("/blueprints/shop", From::Store),
    ("/blueprints/shop/versions", From::Store),
    ("/tenants/acme/deployments?limit=10", From::Store),
    ("/projects", From::Store),
    ("/apikeys", From::Store),
    ("/tenants/acme/logs", From::Log),
    ("/tenants/acme/metrics", From::Log),
];

pub(super) fn run(instance: &Instance, account: &Account, amounts: &Amounts) -> Result<Section> {
    let mut client = instance.client(Some(&account.key))?;
    client.ok("POST", "/tenants", Some(&new_tenant("acme")))?;
    let mut section = Section {
        title: "Reads",
        method: format!(
            "{} requests one after the other on a kept connection, {ROUNDS} times: the median, and the ends. The client is another process.",
            amounts.requests
        ),
        columns: vec![
            "`GET`",
            "answered from",
            "CPU µs per request",
            "µs until the answer",
        ],
        rows: Vec::new(),
        targets: Vec::new(),
    };
    for (path, from) in PATHS {
        let mut measure = |requests: u32| -> Result<(f64, f64)> {
            let (before, started) = (instance.usage()?, Instant::now());
            for _ in 0..requests {
                let answer = client.send("GET", path, "")?;
                ensure!(answer.status == 200, "{path}: {}", answer.status);
            }
            let took = started.elapsed();
            let used = instance.usage()?.since(before).total;
            let each = |it| micros(it) / f64::from(requests);
            Ok((each(used), each(took)))
        };
        measure(WARM_UP)?;
        let rounds = (0..ROUNDS).map(|_| measure(amounts.requests));
        let rounds = rounds.collect::<Result<Vec<_>>>()?;
        let cpu = summarize(rounds.iter().map(|it| it.0));
        let took = summarize(rounds.iter().map(|it| it.1));
        let (Some(cpu), Some(took)) = (cpu, took) else {
            continue;
        };
        section.rows.push(vec![
            format!("`{path}`"),
            from.name().into(),
            format!("{:.1} ({:.1}–{:.1})", cpu.median, cpu.min, cpu.max),
            format!("{:.0}", took.median),
        ]);
        if from == From::Memory {
            section.targets.push(Target {
                what: format!("CPU µs of `GET {path}`"),
                reached: cpu.median,
                wanted: WANTED,
            });
        }
    }
    Ok(section)
}
