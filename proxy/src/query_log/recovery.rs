//! Opens the log: takes up what an earlier life of the process left, closed or killed.

use std::fs;
use std::io;
use std::time::SystemTime;

use control_store::logs::LogGap;

use super::forgotten::Forgotten;
use super::gathered::{Counted, Gathered};
use super::journal::{self, Journal};
use super::log::{QueryLogConfig, Shared, State};
use super::segment::Segment;
use super::totals::{Kept, micros, time};

/// The log as it was found.
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) forgotten: Forgotten,
    /// Bytes of a batch that was not written to its end.
    journal_torn: usize,
    crashed: bool,
}

/// Reads what is there.
pub(super) fn read(config: &QueryLogConfig) -> io::Result<Recovered> {
    let folder = &config.folder;
    fs::create_dir_all(folder)?;
    let forgotten = Forgotten::load(folder)?;
    let kept = Kept::load(folder)?;
    let segments = Segment::open_all(folder)?;
    let crashed = kept.as_ref().is_some_and(|it| !it.closed);
    let mut kept = kept.unwrap_or_default();
    let sealed = last_batch(&segments).max(kept.batch);
    let journal = journal::load(folder, sealed)?;
    count_blocks(&mut kept, &segments)?;
    let mut gathered = journal.gathered;
    let journaled_until_us = gathered.span.until_us;
    for (database, counts) in &gathered.counts {
        kept.totals.entry(*database).or_default().add(counts);
    }
    if gathered.is_empty() {
        gathered = Gathered::from(micros(SystemTime::now()), sealed);
    }
    kept.totals.retain(|id, _| !forgotten.contains(*id));
    gathered
        .entries
        .retain(|it| !forgotten.contains(it.database));
    gathered.counts.retain(|id, _| !forgotten.contains(*id));
    if crashed {
        let ends = [
            kept.saved_us,
            segments.last().map_or(0, Segment::until_us),
            journaled_until_us,
        ];
        kept.add_gap(LogGap {
            from: time(ends.into_iter().max().unwrap_or(0)),
            until: SystemTime::now(),
        });
    }
    Ok(Recovered {
        state: State {
            gathered,
            counted: Counted::before(kept.totals),
            segments,
            gaps: kept.gaps,
            sealed,
            spare: Vec::new(),
        },
        forgotten,
        journal_torn: journal.torn,
        crashed,
    })
}

fn last_batch(segments: &[Segment]) -> u64 {
    let blocks = segments.iter().flat_map(|it| &it.blocks);
    blocks.map(|it| it.span.last_batch).max().unwrap_or(0)
}

/// Adds what blocks counted after the totals were kept.
fn count_blocks(kept: &mut Kept, segments: &[Segment]) -> io::Result<()> {
    let counted = kept.batch;
    for segment in segments {
        for block in &segment.blocks {
            if block.span.last_batch > counted {
                for group in segment.reader(block)?.head.groups {
                    let totals = kept.totals.entry(group.database).or_default();
                    totals.add(&group.counts);
                }
            }
        }
    }
    Ok(())
}

impl Recovered {
    /// Says what happened.
    pub(super) fn report(&self) {
        if !self.crashed {
            return;
        }
        if let Some(gap) = self.state.gaps.last() {
            tracing::warn!(
                kept_until_us = micros(gap.from),
                journal_bytes_torn = self.journal_torn,
                "the query log was not closed: statements of the last second before the crash may be missing, in the log and in its counts"
            );
        }
    }
}

impl Shared {
    /// Puts what was in the journal into a block, keeps the counts and begins a new journal.
    pub(super) fn begin(&self, state: &mut State) -> io::Result<Journal> {
        if !state.gathered.is_empty() {
            self.seal(state)?.sync_data()?;
        }
        let now = micros(SystemTime::now());
        state.gathered = Gathered::from(now, state.sealed);
        self.kept(state, false).save(&self.config.folder)?;
        Journal::create(&self.config.folder)
    }
}
