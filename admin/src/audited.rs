//! Carries the note of who asked along with the work that is done for them, from task to task and to the store's threads.

use control_store::audit::Note;

tokio::task_local! {
    static NOTE: Note;
}

/// Does work for that note.
pub(crate) async fn by<T>(note: Note, work: impl Future<Output = T>) -> T {
    NOTE.scope(note, work).await
}

/// Makes a task of work, which goes on for whoever asked for it.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    match NOTE.try_with(Note::clone) {
        Ok(note) => tokio::spawn(NOTE.scope(note, work)),
        Err(_) => tokio::spawn(work),
    }
}

/// Runs what blocks off the async threads, for whoever asked for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    match NOTE.try_with(Note::clone) {
        Ok(note) => tokio::task::spawn_blocking(move || note.around(work)).await,
        Err(_) => tokio::task::spawn_blocking(work).await,
    }
}
