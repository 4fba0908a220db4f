//! Runs the cases: all contenders in turn, round after round, so that a change of the machine's mood meets all of them.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::cases::Case;
use crate::contender::Contender;
use crate::procfs::{self, Usage};
use crate::results::{CaseResult, Cell, Sample};

/// How long and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Rounds; their median counts.
    pub rounds: usize,
    /// Length of one run.
    pub duration: Duration,
}

/// What a run achieved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Operations done.
    pub operations: u64,
    /// Operations a second.
    pub rate: f64,
}

/// The program that asks.
pub trait Driver {
    /// What has to be done before a run and does not count.
    ///
    /// # Errors
    /// When the contender cannot serve this case.
    fn prepare(&mut self, _: &Contender, _: &Case, _: Duration) -> Result<()> {
        Ok(())
    }

    /// Runs `case` against `contender` for about that long.
    ///
    /// # Errors
    /// When an operation fails, or the program cannot be started.
    fn run(&mut self, contender: &Contender, case: &Case, duration: Duration) -> Result<Outcome>;
}

/// Runs every case in every round. A failed run is recorded, not fatal: the other columns keep their worth.
#[must_use]
pub fn run_all(
    cases: &[Case],
    contenders: &[Contender],
    pace: Pace,
    driver: &mut dyn Driver,
) -> Vec<CaseResult> {
    let mut results: Vec<CaseResult> = cases.iter().map(|case| empty(case, contenders)).collect();
    for round in 0..pace.rounds {
        for result in &mut results {
            eprintln!("round {}/{}: {}", round + 1, pace.rounds, result.case.id);
            run_round(result, contenders, round, pace, driver);
        }
    }
    results
}

fn empty(case: &Case, contenders: &[Contender]) -> CaseResult {
    let kinds = contenders
        .iter()
        .map(|contender| contender.kind)
        .filter(|kind| kind.takes_part(case));
    let cells = kinds
        .map(|kind| Cell {
            kind,
            samples: Vec::new(),
            failures: Vec::new(),
        })
        .collect();
    CaseResult {
        case: case.clone(),
        cells,
    }
}

fn run_round(
    result: &mut CaseResult,
    contenders: &[Contender],
    round: usize,
    pace: Pace,
    driver: &mut dyn Driver,
) {
    let count = result.cells.len();
    for place in 0..count {
        // Each round begins with another contender, so that none always follows the same one.
        let cell = &mut result.cells[(place + round) % count];
        let Some(contender) = contenders
            .iter()
            .find(|contender| contender.kind == cell.kind)
        else {
            continue;
        };
        match measure(contender, &result.case, pace.duration, driver) {
            Ok(sample) => cell.samples.push(sample),
            Err(error) => {
                eprintln!("  {}: {error:#}", cell.kind.name());
                cell.failures.push(format!("{error:#}"));
            }
        }
    }
}

fn measure(
    contender: &Contender,
    case: &Case,
    duration: Duration,
    driver: &mut dyn Driver,
) -> Result<Sample> {
    driver.prepare(contender, case, duration)?;
    let read = || {
        contender
            .process
            .as_ref()
            .map(|process| procfs::usage(process.pid()))
            .transpose()
    };
    let before = read()?;
    let outcome = driver.run(contender, case, duration)?;
    let used = before
        .zip(read()?)
        .map(|(before, after)| after.since(before));
    sample(outcome, used).context("the run did no operation")
}

fn sample(outcome: Outcome, used: Option<Usage>) -> Option<Sample> {
    let operations = outcome.operations;
    #[expect(
        clippy::cast_precision_loss,
        reason = "runs are far below 2^52 operations"
    )]
    let per_operation = |micros: f64| micros / operations as f64;
    (operations > 0).then(|| Sample {
        operations,
        rate: outcome.rate,
        cpu_micros: used.map(|used| per_operation(used.total.as_secs_f64() * 1e6)),
        user_share: used.and_then(Usage::user_share),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    const OUTCOME: Outcome = Outcome {
        operations: 1_000,
        rate: 500.0,
    };

    #[test]
    fn processor_time_is_divided_by_operations() {
        let used = Usage {
            total: Duration::from_millis(10),
            user_ticks: 1,
            system_ticks: 3,
        };
        let sample = sample(OUTCOME, Some(used)).unwrap();
        assert_eq!((sample.operations, sample.rate), (1_000, 500.0));
        assert!((sample.cpu_micros.unwrap() - 10.0).abs() < 1e-9);
        assert_eq!(sample.user_share, Some(0.25));
    }

    #[test]
    fn a_direct_run_has_no_processor_time_and_no_operation_no_sample() {
        assert_eq!(sample(OUTCOME, None).unwrap().cpu_micros, None);
        assert_eq!(
            sample(
                Outcome {
                    operations: 0,
                    ..OUTCOME
                },
                None
            ),
            None
        );
    }
}
