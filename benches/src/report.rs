//! Words and tables: the results as Markdown.

use std::fmt::Write as _;

use crate::cases::Target;
use crate::contender::Kind;
use crate::lookup::TENANTS;
use crate::results::{CaseResult, Cell, IdleResult, Results};
use crate::stats::Summary;
use crate::verdict::{Verdict, judge, missed_by_percent};

/// Memory that an idle client may cost TenantsDB, in bytes.
#[must_use]
pub fn idle_target(tls: bool) -> f64 {
    if tls { 14.0 * 1024.0 } else { 2.0 * 1024.0 }
}

/// The whole report.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let comparison = results.comparison;
    let mut text = format!(
        "# {}\n\nMade by `cargo run --release -p benches -- {}`; do not edit.\n\n",
        comparison.title(),
        comparison.name()
    );
    if results.quick {
        text.push_str("**This was a smoke test (`--quick`): one short round. The figures show that the cases run, not what is reached.**\n\n");
    }
    if let Some(reason) = &results.ours_missing {
        let _ = writeln!(
            text,
            "**TenantsDB itself was not measured: {reason}.** The rivals' figures stand for later comparison.\n"
        );
    }
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in &results.environment {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let _ = writeln!(text, "\n{}", comparison.method());
    for case in &results.cases {
        text.push_str(&case_section(case));
    }
    text.push_str(&idle_section(&results.idle));
    text.push_str(&results.lookup.map(lookup_section).unwrap_or_default());
    text
}

fn case_section(result: &CaseResult) -> String {
    let unit = result.case.unit.name();
    let mut text = format!(
        "## {title}\n\n| | CPU µs per {unit} | of it user | system | of {rival}'s | {units} per second |\n|---|---|---|---|---|---|\n",
        title = result.case.title,
        rival = result.case.rival.name(),
        units = result.case.unit.plural(),
    );
    let rival = result
        .find(|kind| result.case.rival.is(kind))
        .and_then(Cell::cpu);
    for cell in &result.cells {
        let _ = writeln!(text, "{}", row(cell, rival));
    }
    text.push('\n');
    for cell in result.cells.iter().filter(|cell| !cell.failures.is_empty()) {
        let reason = cell
            .failures
            .first()
            .map(|reason| reason.replace('\n', " "))
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "- {}: {} runs failed, the first with: {reason}",
            cell.kind.name(),
            cell.failures.len()
        );
    }
    for target in &result.case.targets {
        let _ = writeln!(text, "- {}", target_line(*target, result));
    }
    text.push('\n');
    text
}

fn row(cell: &Cell, rival: Option<Summary>) -> String {
    let cpu = cell.cpu();
    let ratio = cpu.zip(rival).map(|(own, rival)| own.median / rival.median);
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        cell.kind.name(),
        range(cpu, 1),
        middle(cell.user(), 1),
        middle(cell.system(), 1),
        ratio.map_or("–".into(), |ratio| format!("{ratio:.2}")),
        range(cell.rate(), 0),
    )
}

fn range(summary: Option<Summary>, digits: usize) -> String {
    summary.map_or("–".into(), |Summary { median, min, max }| {
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    })
}

fn middle(summary: Option<Summary>, digits: usize) -> String {
    summary.map_or("–".into(), |summary| {
        format!("{:.digits$}", summary.median)
    })
}

fn target_line(target: Target, result: &CaseResult) -> String {
    let what = match target {
        Target::CpuOfRival(wanted) => {
            format!("at most {wanted:.2} of {}'s CPU", result.case.rival.name())
        }
        Target::CpuOfEpoll(wanted) => {
            format!("io_uring at most {wanted:.2} of our epoll reactor's CPU")
        }
        Target::UserMicros(wanted) => format!("at most {wanted:.1} µs in user mode"),
        Target::ThroughputOfDirect(wanted) => {
            format!("at least {wanted:.2} of a direct connection's throughput")
        }
    };
    match judge(target, result) {
        Verdict::NotMeasured => format!("Target: {what}. Not measured."),
        Verdict::Measured {
            reached, met: true, ..
        } => format!("Target: {what}. **Met**: {reached:.2}."),
        Verdict::Measured {
            reached,
            wanted,
            met: false,
        } => {
            format!(
                "Target: {what}. **Missed by {:.0} %**: {reached:.2}.",
                missed_by_percent(reached, wanted)
            )
        }
    }
}

fn lookup_section([few, many]: [f64; 2]) -> String {
    let [few_tenants, many_tenants] = TENANTS;
    format!(
        "## Looking a database up\n\nBy its name, in the routing snapshot, as each login does; the same few names in turn, so that the map counts and \
         not the processor's cache. `cargo bench -p benches --bench lookup` asks criterion the same.\n\n\
         | tenants | ns per look-up |\n|---|---|\n| {few_tenants} | {few:.0} |\n| {many_tenants} | {many:.0} |\n"
    )
}

fn idle_section(idle: &[IdleResult]) -> String {
    let mut text = String::from(
        "## Memory of idle clients\n\nGrowth of the proxy's resident memory while that many clients log in and then stay silent, from a fresh \
         start.\n\n| | clients | TLS | KiB per client | target for TenantsDB |\n|---|---|---|---|---|\n",
    );
    for result in idle {
        let figure = match &result.bytes_per_client {
            Ok(bytes) => format!("{:.2}", bytes / 1024.0),
            Err(reason) => format!("failed: {}", reason.replace('\n', " ")),
        };
        let target = idle_target(result.tls);
        let verdict = match (result.kind, &result.bytes_per_client) {
            (Kind::Ours | Kind::OursEpoll, Ok(bytes)) if *bytes <= target => "**met**".into(),
            (Kind::Ours | Kind::OursEpoll, Ok(bytes)) => {
                format!("**missed by {:.0} %**", missed_by_percent(*bytes, target))
            }
            _ => "".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {figure} | at most {:.0} {verdict} |",
            result.kind.name(),
            result.clients,
            if result.tls { "yes" } else { "no" },
            target / 1024.0,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use crate::comparison::Comparison;
    use crate::results::Sample;
    use crate::rivals::pgbouncer::Pooling;

    fn sample(cpu: f64) -> Sample {
        Sample {
            operations: 10,
            rate: 1234.4,
            cpu_micros: Some(cpu),
            user_share: Some(0.5),
        }
    }

    fn results(ours: Option<f64>) -> Results {
        let case = cases::postgres::all()
            .into_iter()
            .find(|case| case.id == "select-simple-32")
            .unwrap();
        let cell = |kind, samples| Cell {
            kind,
            samples,
            failures: Vec::new(),
        };
        let mut cells = vec![cell(
            Kind::PgBouncer(Pooling::Transaction),
            vec![sample(9.0), sample(10.0), sample(12.0)],
        )];
        cells.extend(ours.map(|cpu| cell(Kind::Ours, vec![sample(cpu)])));
        Results {
            comparison: Comparison::Postgres,
            environment: vec![("kernel".into(), "6.18".into())],
            quick: false,
            ours_missing: None,
            cases: vec![CaseResult { case, cells }],
            lookup: Some([70.0, 71.0]),
            idle: vec![
                IdleResult {
                    kind: Kind::Ours,
                    tls: false,
                    clients: 100,
                    bytes_per_client: Ok(4096.0),
                },
                IdleResult {
                    kind: Kind::HaProxy,
                    tls: false,
                    clients: 100,
                    bytes_per_client: Err("no luck".into()),
                },
            ],
        }
    }

    fn check(text: &str, expected: &[&str]) {
        for expected in expected {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }

    #[test]
    fn figures_ratios_and_misses() {
        let text = markdown(&results(Some(12.0)));
        check(
            &text,
            &[
                "| kernel | 6.18 |",
                "| PgBouncer | 10.0 (9.0–12.0) | 5.0 | 5.0 | 1.00 | 1234 (1234–1234) |",
                "| TenantsDB | 12.0 (12.0–12.0) | 6.0 | 6.0 | 1.20 |",
                "at most 1.00 of PgBouncer's CPU. **Missed by 20 %**: 1.20.",
                "at most 2.5 µs in user mode. **Missed by 140 %**: 6.00.",
                "our epoll reactor's CPU. Not measured.",
                "| TenantsDB | 100 | no | 4.00 | at most 2 **missed by 100 %** |",
                "| HAProxy | 100 | no | failed: no luck |",
                "| 100 | 70 |\n| 100000 | 71 |\n",
            ],
        );
        assert!(!text.contains("smoke test"));
    }

    #[test]
    fn targets_that_are_met() {
        check(
            &markdown(&results(Some(4.0))),
            &[
                "PgBouncer's CPU. **Met**: 0.40.",
                "user mode. **Met**: 2.00.",
            ],
        );
    }

    #[test]
    fn each_case_has_its_own_rival() {
        let mut results = results(Some(12.0));
        results.comparison = Comparison::Redis;
        results.cases[0].case = cases::redis::all().remove(0);
        results.cases[0].cells[0].kind = Kind::Twemproxy;
        let plain = results.cases[0].clone();
        results.cases.push(CaseResult {
            case: cases::redis::all()
                .into_iter()
                .find(|case| case.tls)
                .unwrap(),
            ..plain
        });
        results.cases[1].cells[0].kind = Kind::HaProxyTls;
        check(
            &markdown(&results),
            &[
                "# Benchmarks: Redis\n\nMade by `cargo run --release -p benches -- redis`",
                "Redis, the proxies and `redis-benchmark` run on one machine.",
                "| | CPU µs per request | of it user | system | of twemproxy's | requests per second |",
                "Target: at most 0.85 of twemproxy's CPU. **Missed by 41 %**: 1.20.",
                "| of HAProxy's |",
                "| HAProxy (TLS) | 10.0 (9.0–12.0) | 5.0 | 5.0 | 1.00 |",
                "Target: at most 0.75 of HAProxy's CPU. **Missed by 60 %**: 1.20.",
            ],
        );
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let mut results = results(None);
        results.quick = true;
        results.ours_missing = Some("it was not built".into());
        results.cases[0].cells[0]
            .failures
            .push("connection\nrefused".into());
        let text = markdown(&results);
        check(
            &text,
            &[
                "smoke test",
                "TenantsDB itself was not measured: it was not built.",
                "- PgBouncer: 1 runs failed, the first with: connection refused",
                "PgBouncer's CPU. Not measured.",
            ],
        );
    }

    #[test]
    fn json_keeps_every_sample() {
        let json = results(None).to_json();
        let cell = &json["cases"][0]["contenders"][0];
        assert_eq!(cell["samples"].as_array().unwrap().len(), 3);
        assert_eq!(cell["samples"][2]["cpu_us_per_operation"], 12.0);
        assert_eq!(json["environment"]["kernel"], "6.18");
        assert_eq!(json["idle_clients"][1]["failure"], "no luck");
    }
}
