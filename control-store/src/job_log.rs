//! Jobs on disk: a row for each, and its append-only log.

use jiff::Timestamp;
use rusqlite::{Connection, Params, Row, Transaction};

use crate::error::{Entity, StoreError};
use crate::ids::ProjectId;
use crate::jobs::{Event, Step, apply};
use crate::page::list;
use crate::store::{Store, next_id, now_us, time};

/// One piece of long work; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// Begun and not ended: the next start goes on with it.
    Running,
    /// All its steps are done.
    Done,
    /// It failed, and what it did is undone.
    Undone,
    /// It failed, and could not be undone: a human must look.
    Parked,
}

impl JobStatus {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Parked => "parked",
        }
    }

    fn from_stored(word: &str) -> Result<Self, StoreError> {
        match word {
            "running" => Ok(Self::Running),
            "done" => Ok(Self::Done),
            "undone" => Ok(Self::Undone),
            "parked" => Ok(Self::Parked),
            _ => Err(StoreError::Corrupt { what: "job status" }),
        }
    }
}

/// A job with what its log says.
#[derive(Clone, Debug, PartialEq)]
pub struct JobInfo {
    /// Its id.
    pub id: JobId,
    /// What kind of work it is, which tells who can go on with it.
    pub kind: String,
    /// In which project; also when that is gone.
    pub project: Option<ProjectId>,
    /// What it was asked to do, as JSON.
    pub params: String,
    /// How it stands.
    pub status: JobStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// Its steps in the order in which they began.
    pub steps: Vec<StepInfo>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A step of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct StepInfo {
    /// Its name, unique in its job.
    pub name: String,
    /// How it stands, which is what its log says when it is replayed.
    pub state: Step,
    /// What its newest event told, as JSON: what a later step or the undoing needs.
    pub data: String,
    /// When that was.
    pub at: Timestamp,
}

const JOBS: &str =
    "SELECT id, kind, project, params, status, error, created_at, finished_at FROM jobs";

impl Store {
    /// Notes a job before it begins.
    ///
    /// # Errors
    /// The store failed.
    pub fn begin_job(
        &self,
        kind: &str,
        project: Option<&ProjectId>,
        params: &str,
    ) -> Result<JobId, StoreError> {
        self.write(|tx, _| {
            let id = next_id(tx, "job")?;
            tx.execute(
                "INSERT INTO jobs (id, kind, project, params, status, created_at)
                 VALUES (?1, ?2, ?3, ?4, 'running', ?5)",
                (id, kind, project.map(ProjectId::as_str), params, now_us()),
            )?;
            Ok(JobId(id))
        })
    }

    /// Notes an event of a step, before the effect that it announces; gives the step's state.
    ///
    /// # Errors
    /// There is no such job, it has ended, or the event does not follow from the step's state.
    pub fn log_job(
        &self,
        id: JobId,
        step: &str,
        event: Event,
        data: &str,
    ) -> Result<Step, StoreError> {
        self.write(|tx, _| {
            let job = running(tx, id)?;
            let known = job.steps.iter().find(|it| it.name == step);
            let state = apply(known.map(|it| it.state).unwrap_or_default(), event)?;
            tx.prepare_cached(
                "INSERT INTO job_log (job, seq, step, event, data, at)
                 SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4, ?5 FROM job_log WHERE job = ?1",
            )?
            .execute((id.0, step, event.name(), data, now_us()))?;
            Ok(state)
        })
    }

    /// Notes a job's end.
    ///
    /// # Errors
    /// There is no such job, or it has ended.
    pub fn finish_job(
        &self,
        id: JobId,
        status: JobStatus,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        self.write(|tx, _| {
            running(tx, id)?;
            tx.execute(
                "UPDATE jobs SET status = ?2, error = ?3, finished_at = ?4 WHERE id = ?1",
                (id.0, status.name(), error, now_us()),
            )?;
            Ok(())
        })
    }

    /// A job.
    ///
    /// # Errors
    /// There is none by that id.
    pub fn job(&self, id: JobId) -> Result<JobInfo, StoreError> {
        self.read(|conn| find(conn, id))
    }

    /// Jobs that have not ended, the oldest first: what a start goes on with.
    ///
    /// # Errors
    /// The store failed.
    pub fn open_jobs(&self) -> Result<Vec<JobInfo>, StoreError> {
        self.read(|conn| select(conn, "status = 'running'", []))
    }
}

fn find(conn: &Connection, id: JobId) -> Result<JobInfo, StoreError> {
    select(conn, "id = ?1", [id.0])?
        .pop()
        .ok_or_else(|| StoreError::not_found(Entity::Job, id.0))
}

fn running(tx: &Transaction<'_>, id: JobId) -> Result<JobInfo, StoreError> {
    let job = find(tx, id)?;
    if job.status == JobStatus::Running {
        return Ok(job);
    }
    Err(StoreError::WrongState {
        what: Entity::Job,
        name: id.0.to_string(),
        state: job.status.name(),
    })
}

fn select(
    conn: &Connection,
    filter: &str,
    params: impl Params,
) -> Result<Vec<JobInfo>, StoreError> {
    let sql = format!("{JOBS} WHERE {filter} ORDER BY id");
    list(conn, &sql, params, |row| read(conn, row))
}

fn read(conn: &Connection, row: &Row<'_>) -> Result<JobInfo, StoreError> {
    let id = JobId(row.get(0)?);
    let finished: Option<i64> = row.get(7)?;
    Ok(JobInfo {
        id,
        kind: row.get(1)?,
        project: row.get::<_, Option<String>>(2)?.map(ProjectId::new),
        params: row.get(3)?,
        status: JobStatus::from_stored(&row.get::<_, String>(4)?)?,
        error: row.get(5)?,
        steps: replay(conn, id)?,
        created_at: time(row.get(6)?)?,
        finished_at: finished.map(time).transpose()?,
    })
}

/// What the log says, event by event.
fn replay(conn: &Connection, id: JobId) -> Result<Vec<StepInfo>, StoreError> {
    let mut statement = conn
        .prepare_cached("SELECT step, event, data, at FROM job_log WHERE job = ?1 ORDER BY seq")?;
    let mut rows = statement.query([id.0])?;
    let mut steps: Vec<StepInfo> = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let event: Option<Event> = Event::parse(&row.get::<_, String>(1)?);
        let event = event.ok_or(StoreError::Corrupt { what: "job event" })?;
        let known = steps.iter_mut().find(|it| it.name == name);
        let state = apply(known.as_ref().map(|it| it.state).unwrap_or_default(), event)?;
        let step = StepInfo {
            name,
            state,
            data: row.get(2)?,
            at: time(row.get(3)?)?,
        };
        match known {
            Some(known) => *known = step,
            None => steps.push(step),
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    fn steps(f: &Fixture, id: JobId) -> Vec<(String, Step, String)> {
        let job = f.store.job(id).unwrap();
        let steps = job.steps.into_iter();
        steps.map(|it| (it.name, it.state, it.data)).collect()
    }

    #[test]
    fn a_job_is_what_its_log_says_also_after_a_crash() {
        let f = Fixture::new();
        let project = f.project();
        let id = f.store.begin_job("move", Some(&project), "{}").unwrap();
        let log = |f: &Fixture, step, event, data| f.store.log_job(id, step, event, data);
        log(&f, "copy", Event::Started, "1").unwrap();
        log(&f, "copy", Event::Succeeded, "2").unwrap();
        assert_eq!(
            log(&f, "switch", Event::Started, "3").unwrap(),
            Step::Running
        );
        let f = f.reopened();
        let [open] = &f.store.open_jobs().unwrap()[..] else {
            panic!("one is open")
        };
        assert_eq!((open.id, open.kind.as_str()), (id, "move"));
        let expected = [
            ("copy".into(), Step::Done, "2".into()),
            ("switch".into(), Step::Running, "3".into()),
        ];
        assert_eq!(steps(&f, id), expected);
        assert_eq!(
            log(&f, "switch", Event::Started, "4").unwrap(),
            Step::Running
        );
        let refused = log(&f, "copy", Event::Started, "5");
        assert!(matches!(refused, Err(StoreError::IllegalEvent(_))));
        assert_eq!(steps(&f, id)[0].2, "2", "what is illegal is not noted");
        log(&f, "switch", Event::Failed, "6").unwrap();
        f.store
            .finish_job(id, JobStatus::Parked, Some("why"))
            .unwrap();
        let f = f.reopened();
        let ended = f.store.job(id).unwrap();
        assert_eq!(
            (ended.status, ended.error.as_deref()),
            (JobStatus::Parked, Some("why"))
        );
        assert!(ended.finished_at.is_some() && f.store.open_jobs().unwrap().is_empty());
        let late = log(&f, "switch", Event::UndoStarted, "7");
        assert!(matches!(
            late,
            Err(StoreError::WrongState {
                state: "parked",
                ..
            })
        ));
        assert!(f.store.finish_job(id, JobStatus::Done, None).is_err());
        assert!(matches!(
            f.store.job(JobId(99)),
            Err(StoreError::NotFound {
                what: Entity::Job,
                ..
            })
        ));
    }

    #[test]
    fn the_log_is_only_appended_to() {
        let f = Fixture::new();
        let id = f.store.begin_job("move", None, "{}").unwrap();
        f.store.log_job(id, "copy", Event::Started, "1").unwrap();
        let changed = f
            .store
            .write(|tx, _| Ok(tx.execute("UPDATE job_log SET data = '2'", [])?));
        assert!(changed.is_err());
        let removed = f
            .store
            .write(|tx, _| Ok(tx.execute("DELETE FROM job_log", [])?));
        assert!(removed.is_err());
        assert_eq!(steps(&f, id), [("copy".into(), Step::Running, "1".into())]);
    }
}
