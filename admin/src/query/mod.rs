//! Runs queries for the API, through the proxy: whatever holds for drivers there holds here too.

mod cell;
mod decode;
mod redis;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use cell::Cell;

use crate::app::failure::{EngineError, Failure, Outcome};
use control_store::Fault;
use control_store::ids::Engine;

/// Where a query runs, and as whom.
pub struct Target<'a> {
    /// Which engine.
    pub engine: Engine,
    /// The proxy's Unix socket for the API and that engine.
    pub socket: &'a Path,
    /// The project's id.
    pub user: &'a str,
    /// The proxy password of the caller's key.
    pub password: &'a str,
    /// The database, as clients name it.
    pub database: &'a str,
    /// When the proxy must have answered, its own time limits included.
    pub deadline: Duration,
    /// What all rows may still cost.
    pub budget: &'a Budget,
}

/// Bytes that the rows of a request may take, as the engine sends them.
#[derive(Clone, Debug)]
pub struct Budget {
    left: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    /// So many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(limit)),
            limit,
        }
    }

    fn take(&self, bytes: usize) -> Outcome<()> {
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .map(drop)
            .map_err(|_| {
                Failure::BadRequest(format!(
                    "The result is larger than {} bytes: ask for fewer rows, or use a driver",
                    self.limit
                ))
            })
    }
}

/// What one statement gave.
#[derive(Clone, Debug, Default)]
pub struct StatementResult {
    /// Names of the columns; none if the statement returns no rows.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
    /// The engine's word for what it did, such as `INSERT`.
    pub command: String,
    /// Rows that it changed, where it returned none.
    pub affected: Option<u64>,
}

/// Runs texts of one or several statements each, in one session, up to the first that fails; gives what each statement did.
/// As with any driver, several statements of one text without a transaction of their own are one transaction; on Redis a text
/// is lines with a command each, and `MULTI` and `EXEC` make a transaction.
///
/// # Errors
/// The database refused one of them, or could not be reached.
///
/// # Cancel safety
/// Dropping it closes the connection, which makes the proxy cancel what runs.
pub async fn run(target: &Target<'_>, texts: &[&str]) -> Outcome<Vec<StatementResult>> {
    for text in texts {
        check(text)?;
    }
    if target.engine == Engine::Redis {
        return redis::run(target, texts).await;
    }
    let work = async {
        let mut connection = wire::Connection::log_in(target).await?;
        let mut results = Vec::new();
        for text in texts {
            results.extend(connection.query(text, target.budget).await?);
        }
        connection.log_out().await;
        Ok(results)
    };
    within(target.deadline, work).await
}

/// A session whose texts are run one by one, each with the target's time limit; one that the database refuses does not end it.
pub struct Session<'a> {
    target: &'a Target<'a>,
    connection: wire::Connection,
}

impl<'a> Session<'a> {
    /// Logs in.
    ///
    /// # Errors
    /// The database could not be reached, or lets the caller not in.
    pub async fn open(target: &'a Target<'a>) -> Outcome<Self> {
        let connection = within(target.deadline, wire::Connection::log_in(target)).await?;
        Ok(Self { target, connection })
    }

    /// Runs one text.
    ///
    /// # Errors
    /// As [`run`].
    ///
    /// # Cancel safety
    /// None: drop the session with it.
    pub async fn run(&mut self, text: &str) -> Outcome<Vec<StatementResult>> {
        check(text)?;
        let work = self.connection.query(text, self.target.budget);
        within(self.target.deadline, work).await
    }

    /// Says that this was all.
    pub async fn close(self) {
        self.connection.log_out().await;
    }
}

fn check(text: &str) -> Outcome<()> {
    if text.contains('\0') {
        return Err(Failure::bad("Field 'query' must not hold a zero character"));
    }
    Ok(())
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::BackendUnavailable.into()),
    }
}

/// What an error means to who sent the query.
fn refusal(error: EngineError) -> Failure {
    match error.code.as_str() {
        "42501" if error.message != control_store::fault::DDL_REFUSED => {
            Failure::PermissionDenied(error)
        }
        "3D000" => Fault::UnknownDatabase.into(),
        "57P03" => match [Fault::Suspended, Fault::NotReady]
            .into_iter()
            .find(|fault| fault.to_string() == error.message)
        {
            Some(fault) => fault.into(),
            None => Fault::BackendUnavailable.into(),
        },
        "28P01" | "28000" => Failure::BadKey,
        "57P01" | "57P02" | "08006" | "08P01" => Fault::BackendLost.into(),
        _ => Failure::Engine(error),
    }
}
