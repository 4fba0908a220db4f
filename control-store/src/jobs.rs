//! Long work as a resumable job: the state of a step, and the events that change it.
//!
//! An event is durable before the effect it announces, and the state of a job is what its log says when it is replayed.

use thiserror::Error;

pub use crate::job_log::{JobId, JobInfo, JobStatus, StepInfo};

/// The state of one step of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// Not begun.
    #[default]
    Pending,
    /// Begun. After a crash nobody knows how far it came: it is run again.
    Running,
    /// Done.
    Done,
    /// It failed for good; what it did is still to be undone.
    Failed,
    /// Its undoing began.
    Undoing,
    /// Undone.
    Undone,
    /// Its undoing failed: a human must look.
    Parked,
}

/// What happened to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is about to run.
    Started,
    /// It did what it should.
    Succeeded,
    /// It failed, and will not be tried again.
    Failed,
    /// It is about to be undone.
    UndoStarted,
    /// It was undone.
    UndoFinished,
    /// It could not be undone.
    UndoFailed,
}

impl Event {
    const ALL: [Self; 6] = [
        Self::Started,
        Self::Succeeded,
        Self::Failed,
        Self::UndoStarted,
        Self::UndoFinished,
        Self::UndoFailed,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::UndoStarted => "undo_started",
            Self::UndoFinished => "undo_finished",
            Self::UndoFailed => "undo_failed",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == word)
    }
}

/// An event that does not follow from the state it met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a step that is {step:?} cannot take the event {event:?}")]
pub struct IllegalEvent {
    /// The state.
    pub step: Step,
    /// The event.
    pub event: Event,
}

/// The state after an event. `Started` and `UndoStarted` may come again: that is a resumption after a crash.
///
/// # Errors
/// The event does not follow from the state.
pub fn apply(step: Step, event: Event) -> Result<Step, IllegalEvent> {
    Ok(match (step, event) {
        (Step::Pending | Step::Running, Event::Started) => Step::Running,
        (Step::Running, Event::Succeeded) => Step::Done,
        (Step::Running, Event::Failed) => Step::Failed,
        (
            Step::Running | Step::Done | Step::Failed | Step::Undoing | Step::Parked,
            Event::UndoStarted,
        ) => Step::Undoing,
        (Step::Undoing, Event::UndoFinished) => Step::Undone,
        (Step::Undoing, Event::UndoFailed) => Step::Parked,
        (step, event) => return Err(IllegalEvent { step, event }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(events: &[Event], expected: Option<Step>) {
        let end = events
            .iter()
            .try_fold(Step::default(), |step, event| apply(step, *event));
        assert_eq!(end.ok(), expected, "{events:?}");
    }

    #[test]
    fn replay_gives_the_state() {
        use Event::{Failed, Started, Succeeded, UndoFailed, UndoFinished, UndoStarted};
        check(&[], Some(Step::Pending));
        check(&[Started], Some(Step::Running));
        check(&[Started, Started, Succeeded], Some(Step::Done));
        check(&[Started, Failed], Some(Step::Failed));
        check(
            &[Started, Failed, UndoStarted, UndoFinished],
            Some(Step::Undone),
        );
        check(
            &[Started, Succeeded, UndoStarted, UndoStarted, UndoFailed],
            Some(Step::Parked),
        );
        check(
            &[Started, UndoStarted, UndoFailed, UndoStarted, UndoFinished],
            Some(Step::Undone),
        );
        check(&[Succeeded], None);
        check(&[UndoStarted], None);
        check(&[Started, Succeeded, Started], None);
        check(&[Started, UndoFinished], None);
        check(&[Started, Failed, UndoStarted, UndoFinished, Started], None);
    }
}
