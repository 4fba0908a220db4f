//! Server processes: by handle, so that a reused process id can never be hit, and found again after we were killed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{sleep, timeout};

use super::account::Account;
use super::server::{LocalServer, Stopping};

/// Between two looks at a process that is to end.
const END_PAUSE: Duration = Duration::from_millis(5);
/// For a process that is told to end at once.
pub(super) const HARD_STOP: Duration = Duration::from_secs(10);

/// A handle on one process, ours or not. It stays with that process when the id is used again.
#[derive(Debug)]
pub(super) struct Process {
    handle: OwnedFd,
}

impl Process {
    /// Opens a handle. The process may have ended, and its id may be another's: check after opening.
    pub(super) fn open(id: u32) -> io::Result<Self> {
        let pid = i32::try_from(id)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            handle: pidfd_open(pid, PidfdFlags::empty())?,
        })
    }

    /// Sends a signal. A process that has ended is no error.
    pub(super) fn signal(&self, signal: Signal) {
        // The only other reason to fail is a process of another user, which `wait_end` then reports by its timeout.
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Whether the process ended in time.
    ///
    /// # Cancel safety
    /// Safe to drop and to call again.
    pub(super) async fn wait_end(&self, limit: Duration) -> bool {
        let ended = async {
            while !self.has_ended() {
                sleep(END_PAUSE).await;
            }
        };
        timeout(limit, ended).await.is_ok()
    }

    /// The handle becomes readable when the process ends.
    fn has_ended(&self) -> bool {
        let mut handles = [PollFd::new(&self.handle, PollFlags::IN)];
        matches!(
            poll(
                &mut handles,
                Some(&Timespec {
                    tv_sec: 0,
                    tv_nsec: 0
                })
            ),
            Ok(1..)
        )
    }

    /// Asks a server to disconnect everybody and write all it holds; insists step by step.
    pub(super) async fn stop_server(&self, stopping: &Stopping) -> bool {
        for (signal, limit) in stopping.steps {
            self.signal(*signal);
            if self.wait_end(*limit).await {
                return true;
            }
        }
        self.signal(Signal::KILL);
        self.wait_end(HARD_STOP).await
    }
}

/// How often the processes of a server are looked for again: one that was being forked while we looked is not seen.
const SWEEPS: u32 = 5;

/// Ends what still runs on this data folder from an earlier life of ours, and waits until it is gone. Returns whether
/// nothing is left.
pub(super) async fn end_leftovers(server: &dyn LocalServer) -> bool {
    for (id, process) in find(server, |it| server.is_main(it)) {
        tracing::info!(server = %server.home().label, pid = id, "ending a server left over from an earlier run");
        process.stop_server(server.stopping()).await;
    }
    for _ in 0..SWEEPS {
        let orphans = find(server, |it| server.is_of(it));
        if orphans.is_empty() {
            return true;
        }
        // The children of a server that was killed notice within moments, unless they are in a long computation.
        for (_, process) in &orphans {
            process.signal(Signal::KILL);
        }
        for (_, process) in orphans {
            process.wait_end(HARD_STOP).await;
        }
    }
    find(server, |it| server.is_of(it)).is_empty()
}

/// Waits for what a stopped server leaves, such as a log collector, which ends once nobody can write to it any more. What
/// does not end by itself is ended. Returns whether nothing is left.
pub(super) async fn await_leftovers(server: &dyn LocalServer) -> bool {
    for (_, process) in find(server, |it| server.is_of(it)) {
        process.wait_end(HARD_STOP).await;
    }
    end_leftovers(server).await
}

/// What is known of a process.
pub(super) struct Seen {
    /// Its arguments, each ended by a zero; or the title that it has given itself.
    pub(super) arguments: Vec<u8>,
    /// The folder that it works in, where we may see it.
    pub(super) folder: Option<PathBuf>,
}

/// The account's processes that match, checked once more after their handles were opened.
fn find(server: &dyn LocalServer, matches: impl Fn(&Seen) -> bool) -> Vec<(u32, Process)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_match = |id: u32| see(id, server.account()).is_some_and(|seen| matches(&seen));
    ids.filter(|id| is_match(*id))
        .filter_map(|id| Some((id, Process::open(id).ok()?)))
        .filter(|(id, _)| is_match(*id))
        .collect()
}

/// Looks at a process of the account that runs servers.
fn see(id: u32, account: &Account) -> Option<Seen> {
    let folder = Path::new("/proc").join(id.to_string());
    (fs::metadata(&folder).ok()?.uid() == account.uid).then(|| Seen {
        arguments: fs::read(folder.join("cmdline")).unwrap_or_default(),
        folder: fs::read_link(folder.join("cwd")).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_reports_the_end() {
        let mut child = tokio::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let process = Process::open(child.id().unwrap()).unwrap();
        assert!(!process.wait_end(Duration::from_millis(20)).await);
        process.signal(Signal::KILL);
        assert!(process.wait_end(Duration::from_secs(20)).await);
        child.wait().await.unwrap();
    }
}
