//! Counts and latencies of a window of time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use control_store::DatabaseId;
use control_store::logs::LogLatency;

use super::block::{InFile, Reader, Span};
use super::counters::Totals;
use super::entry::Entry;
use super::gathered::Gathered;
use super::segment::Segment;

/// Steps in each power of two.
const STEPS_BITS: u32 = 6;
const STEPS: usize = 1 << STEPS_BITS;

/// Adds up a window.
pub(super) struct Sum {
    databases: Vec<DatabaseId>,
    since_us: u64,
    slow_over_ns: u64,
    /// Where the counts really begin.
    pub(super) begins_us: u64,
    pub(super) totals: Totals,
    latency: Latency,
}

/// A part of the log: a block, or what has gathered for the next.
struct Part {
    span: Span,
    /// What it counted for a database.
    counts: Totals,
    earliest_us: u64,
    entries: Vec<Entry>,
}

impl Sum {
    pub(super) fn new(databases: Vec<DatabaseId>, since_us: u64, slow_over_ns: u64) -> Self {
        Self {
            databases,
            since_us,
            slow_over_ns,
            begins_us: since_us,
            totals: Totals::default(),
            latency: Latency::default(),
        }
    }

    /// Blocks that count for the window, the latest first, with the time up to which each counts.
    pub(super) fn candidates(&self, segments: &[Segment]) -> Vec<(InFile, u64)> {
        let mut sorted = self.databases.clone();
        sorted.sort_unstable();
        let mut found = Vec::new();
        for segment in segments.iter().rev() {
            let blocks = segment.blocks.iter().rev().filter(|it| {
                it.span.until_us.max(it.latest_us) >= self.since_us && it.has_any(&sorted)
            });
            found.extend(blocks.map(|block| {
                let bytes = InFile {
                    file: Arc::clone(&segment.file),
                    offset: block.offset,
                };
                (bytes, block.span.until_us)
            }));
        }
        found
    }

    /// Adds blocks, the latest first. The window begins behind one that is damaged.
    pub(super) fn add_blocks(&mut self, blocks: &[(InFile, u64)]) -> io::Result<()> {
        for (bytes, until_us) in blocks {
            match self.add_block(bytes.clone()) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(%error, offset = bytes.offset, "a window of the query log begins behind a block");
                    self.begins_us = self.begins_us.max(*until_us);
                    return Ok(());
                }
                other => other?,
            }
        }
        Ok(())
    }

    pub(super) fn add_gathered(&mut self, gathered: &Gathered) {
        for database in self.databases.clone() {
            let of_it = gathered.entries.iter().filter(|it| it.database == database);
            let entries: Vec<Entry> = of_it.copied().collect();
            self.add(&Part {
                span: gathered.span,
                counts: gathered.counts.get(&database).copied().unwrap_or_default(),
                earliest_us: entries.iter().map(|it| it.ended_at_us).min().unwrap_or(0),
                entries,
            });
        }
    }

    fn add_block(&mut self, bytes: InFile) -> io::Result<()> {
        let reader = Reader::open(bytes)?;
        let mut parts = Vec::new();
        for database in &self.databases {
            let Some(group) = reader.head.group(*database) else {
                continue;
            };
            let mut entries = Vec::new();
            reader.entries(group, |entry| entries.push(entry))?;
            parts.push(Part {
                span: reader.head.span,
                counts: group.counts,
                earliest_us: group.earliest_us,
                entries,
            });
        }
        parts.iter().for_each(|part| self.add(part)); // All or nothing.
        Ok(())
    }

    fn add(&mut self, part: &Part) {
        let inside = part
            .entries
            .iter()
            .filter(|it| it.ended_at_us >= self.since_us);
        let whole = part.span.from_us >= self.since_us
            && (part.entries.is_empty() || part.earliest_us >= self.since_us);
        let complete = part.entries.len() as u64 == part.counts.total;
        if whole || !complete {
            // Where entries were dropped nobody knows on which side of `since`: the window begins with that block.
            self.totals.add(&part.counts);
            self.begins_us = self.begins_us.min(part.span.from_us);
        } else {
            for entry in inside.clone() {
                self.totals.add(&entry.counts(self.slow_over_ns));
            }
        }
        for entry in inside {
            self.latency.add(entry.duration_ns);
        }
    }

    pub(super) fn latency(&self) -> LogLatency {
        LogLatency {
            p50: self.latency.percentile(50),
            p95: self.latency.percentile(95),
            p99: self.latency.percentile(99),
            max: Duration::from_nanos(self.latency.longest_ns),
        }
    }
}

/// Durations by size: 64 steps to each power of two.
struct Latency {
    steps: Vec<u64>,
    count: u64,
    longest_ns: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            steps: vec![0; STEPS * (65 - STEPS_BITS as usize)],
            count: 0,
            longest_ns: 0,
        }
    }
}

impl Latency {
    fn add(&mut self, ns: u64) {
        if let Some(step) = self.steps.get_mut(step_of(ns)) {
            *step += 1;
        }
        self.count += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }

    fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.count * percent).div_ceil(100);
        let mut below = 0;
        for (step, count) in self.steps.iter().enumerate() {
            below += count;
            if below >= rank && rank > 0 {
                return Duration::from_nanos(last_of(step).min(self.longest_ns));
            }
        }
        Duration::ZERO
    }
}

fn step_of(ns: u64) -> usize {
    let exponent = ns.checked_ilog2().unwrap_or(0).max(STEPS_BITS);
    let shift = exponent - STEPS_BITS;
    let step = usize::try_from(ns >> shift).unwrap_or(0);
    shift as usize * STEPS + step
}

/// The longest duration of a step.
fn last_of(step: usize) -> u64 {
    let shift = (step / STEPS).saturating_sub(1);
    let step = (step - shift * STEPS) as u128;
    u64::try_from(((step + 1) << shift) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_at_most_a_64th_above_its_values() {
        for ns in (0..5000)
            .chain((12..64).flat_map(|e| [(1_u64 << e) - 1, 1 << e, 3 << (e - 1)]))
            .chain([u64::MAX])
        {
            let last = last_of(step_of(ns));
            assert!(last >= ns && last - ns <= ns / 64, "{ns}: {last}");
            if last < u64::MAX {
                assert_eq!(step_of(last + 1), step_of(ns) + 1, "{ns}");
            }
        }
        assert!(step_of(u64::MAX) < Latency::default().steps.len());
    }

    #[test]
    fn percentiles_are_of_ranks() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentile(99), Duration::ZERO);
        for ns in 1..=100 {
            latency.add(ns * 10);
        }
        let about = |percent| latency.percentile(percent).as_nanos();
        assert!((500..=508).contains(&about(50)), "{}", about(50));
        assert!((950..=965).contains(&about(95)), "{}", about(95));
        assert_eq!(about(100), 1000);
    }
}
