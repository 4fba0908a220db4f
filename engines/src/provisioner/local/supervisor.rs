//! Keeps one server running: starts it, watches it, starts it again after a crash, stops it.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::process::{Process, await_leftovers, end_leftovers};
use super::server::{LocalServer, Probe, Stopping};
use crate::provisioner::Health;

/// Between two looks at a server that is starting.
const STARTING_PAUSE: Duration = Duration::from_millis(40);
/// Between two health checks of one that runs.
const RUNNING_PAUSE: Duration = Duration::from_secs(5);
/// The pause after the first crash; doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A server that ran this long has recovered: the pauses start from the shortest again.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// A task that keeps one server running until it is told to stop.
pub(super) struct Supervisor {
    health: watch::Receiver<Health>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Starts the task, and by that the server.
    pub(super) fn spawn(server: Arc<dyn LocalServer>) -> Self {
        let (health_sender, health) = watch::channel(Health::Starting);
        let (stop, stop_receiver) = watch::channel(false);
        let keeper = Keeper {
            server,
            health: health_sender,
            stop: stop_receiver,
        };
        Self {
            health,
            stop,
            task: tokio::spawn(keeper.run()),
        }
    }

    /// The newest state.
    pub(super) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// For waiting until the state changes.
    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Stops the server and waits until it is gone.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        // The task cannot be cancelled from elsewhere; should it have panicked, its guard has ended the server.
        let _ = self.task.await;
    }
}

struct Keeper {
    server: Arc<dyn LocalServer>,
    health: watch::Sender<Health>,
    stop: watch::Receiver<bool>,
}

/// Why one life of the server is over.
enum Ended {
    AsTold,
    ByItself(String),
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            self.health.send_replace(Health::Starting);
            let started = Instant::now();
            let Ended::ByItself(reason) = self.live_once().await else {
                break;
            };
            if started.elapsed() >= STABLE_AFTER {
                backoff = FIRST_BACKOFF;
            }
            tracing::error!(server = %self.server.home().label, reason, ?backoff, "server ended by itself; starting it again");
            self.health.send_replace(Health::Restarting { reason });
            tokio::select! {
                () = sleep(backoff) => {}
                () = told(&mut self.stop) => break,
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
        if !await_leftovers(&*self.server).await {
            tracing::error!(server = %self.server.home().label, "processes of the server do not end");
        }
        self.health.send_replace(Health::Stopped);
    }

    async fn live_once(&mut self) -> Ended {
        if !end_leftovers(&*self.server).await {
            return Ended::ByItself("processes of an earlier run do not end".into());
        }
        let mut child = match self.server.spawn() {
            Ok(child) => child,
            Err(error) => return Ended::ByItself(error.to_string()),
        };
        let guard = match child.id().map(Process::open) {
            Some(Ok(process)) => Guard(process, self.server.stopping()),
            // Without a handle it could not be stopped: it ends with `child`, which nothing else has seen yet.
            _ => return self.abandon(child).await,
        };
        let ended = tokio::select! {
            status = child.wait() => Ended::ByItself(self.describe(status)),
            reason = watch_over(&*self.server, &self.health) => {
                guard.0.signal(Signal::KILL);
                Ended::ByItself(reason.into())
            }
            () = told(&mut self.stop) => Ended::AsTold,
        };
        if matches!(ended, Ended::AsTold) {
            self.health.send_replace(Health::Stopped);
            guard.0.stop_server(guard.1).await;
        }
        // Collects the exit status, so that no zombie stays.
        let _ = child.wait().await;
        ended
    }

    async fn abandon(&self, mut child: Child) -> Ended {
        let _ = child.kill().await;
        Ended::ByItself("its process ended at once or cannot be watched".into())
    }

    fn describe(&self, status: std::io::Result<std::process::ExitStatus>) -> String {
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let words = self.server.last_words();
        if words.is_empty() {
            status
        } else {
            format!("{status}: {words}")
        }
    }
}

/// Sees whether the server answers, for as long as it lives. Returns why it has to be started again, if it has to.
async fn watch_over(server: &dyn LocalServer, health: &watch::Sender<Health>) -> &'static str {
    let mut up = false;
    loop {
        match server.probe().await {
            Probe::Answers => {
                up = true;
                health.send_replace(Health::Running);
                sleep(RUNNING_PAUSE).await;
            }
            Probe::Silent if up => {
                if health.send_replace(Health::Unresponsive) != Health::Unresponsive {
                    tracing::warn!(server = %server.home().label, "server does not answer");
                }
                sleep(STARTING_PAUSE).await;
            }
            Probe::Silent => sleep(STARTING_PAUSE).await,
            Probe::Stuck(reason) => return reason,
        }
    }
}

/// Waits until the stop was asked for, or until nobody is left who could ask.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Ends the server when the task is dropped in the middle, as at the end of a runtime.
struct Guard(Process, &'static Stopping);

impl Drop for Guard {
    fn drop(&mut self) {
        // A server that has ended takes no notice.
        self.0.signal(self.1.at_once);
    }
}
