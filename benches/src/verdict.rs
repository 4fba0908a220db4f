//! Whether TenantsDB reached a target, and by how much it missed it.

use crate::cases::Target;
use crate::contender::Kind;
use crate::results::{CaseResult, Cell};
use crate::stats::Summary;

/// The answer to one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Both figures are there.
    Measured {
        /// What TenantsDB reached, in the target's unit.
        reached: f64,
        /// What it should have reached.
        wanted: f64,
        /// Whether it did.
        met: bool,
    },
    /// A column is missing, or all its runs failed.
    NotMeasured,
}

/// Judges `target` by the medians of `result`.
#[must_use]
pub fn judge(target: Target, result: &CaseResult) -> Verdict {
    let ours =
        |figure: fn(&Cell) -> Option<Summary>| median(result, |kind| kind == Kind::Ours, figure);
    let (reached, wanted, at_most) = match target {
        Target::CpuOfRival(wanted) => {
            let rival = median(result, |kind| result.case.rival.is(kind), Cell::cpu);
            (ratio(ours(Cell::cpu), rival), wanted, true)
        }
        Target::CpuOfEpoll(wanted) => {
            let epoll = median(result, |kind| kind == Kind::OursEpoll, Cell::cpu);
            (ratio(ours(Cell::cpu), epoll), wanted, true)
        }
        Target::UserMicros(wanted) => (ours(Cell::user), wanted, true),
        Target::ThroughputOfDirect(wanted) => {
            let direct = median(result, |kind| kind == Kind::Direct, Cell::rate);
            (ratio(ours(Cell::rate), direct), wanted, false)
        }
    };
    reached.map_or(Verdict::NotMeasured, |reached| {
        let met = if at_most {
            reached <= wanted
        } else {
            reached >= wanted
        };
        Verdict::Measured {
            reached,
            wanted,
            met,
        }
    })
}

/// How far a miss lies from its target, in percent of the target.
#[must_use]
pub fn missed_by_percent(reached: f64, wanted: f64) -> f64 {
    ((reached - wanted) / wanted * 100.0).abs()
}

fn median(
    result: &CaseResult,
    wanted: impl Fn(Kind) -> bool,
    figure: fn(&Cell) -> Option<Summary>,
) -> Option<f64> {
    result
        .find(wanted)
        .and_then(figure)
        .map(|summary| summary.median)
}

fn ratio(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    let (part, whole) = part.zip(whole)?;
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use crate::results::Sample;
    use crate::rivals::pgbouncer::Pooling;

    fn cell(kind: Kind, rate: f64, cpu: Option<f64>) -> Cell {
        let sample = Sample {
            operations: 1,
            rate,
            cpu_micros: cpu,
            user_share: Some(0.25),
        };
        Cell {
            kind,
            samples: vec![sample],
            failures: Vec::new(),
        }
    }

    fn result(ours: f64) -> CaseResult {
        let case = cases::postgres::all().remove(0);
        let cells = vec![
            cell(Kind::Direct, 200.0, None),
            cell(Kind::PgBouncer(Pooling::Transaction), 100.0, Some(10.0)),
            cell(Kind::Ours, 150.0, Some(ours)),
        ];
        CaseResult { case, cells }
    }

    fn check(target: Target, ours: f64, expected: (f64, bool)) {
        let Verdict::Measured { reached, met, .. } = judge(target, &result(ours)) else {
            panic!("{target:?}")
        };
        assert!((reached - expected.0).abs() < 1e-9, "{target:?}: {reached}");
        assert_eq!(met, expected.1, "{target:?}");
    }

    #[test]
    fn ratios_and_limits() {
        check(Target::CpuOfRival(1.0), 9.0, (0.9, true));
        check(Target::CpuOfRival(1.0), 11.0, (1.1, false));
        check(Target::UserMicros(2.5), 8.0, (2.0, true));
        check(Target::UserMicros(2.5), 12.0, (3.0, false));
        check(Target::ThroughputOfDirect(0.95), 9.0, (0.75, false));
        check(Target::ThroughputOfDirect(0.75), 9.0, (0.75, true));
    }

    #[test]
    fn a_missing_column_is_not_a_success() {
        assert_eq!(
            judge(Target::CpuOfEpoll(1.0), &result(9.0)),
            Verdict::NotMeasured
        );
        let mut empty = result(9.0);
        empty.cells.pop();
        assert_eq!(judge(Target::UserMicros(2.5), &empty), Verdict::NotMeasured);
    }

    #[test]
    fn misses_in_percent() {
        assert!((missed_by_percent(1.1, 1.0) - 10.0).abs() < 1e-9);
        assert!((missed_by_percent(0.76, 0.95) - 20.0).abs() < 1e-9);
    }
}
