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
use super::home::Home;

/// For a server to write out what it holds in memory.
const FAST_STOP: Duration = Duration::from_secs(60);
/// Between two looks at a process that is to end.
const END_PAUSE: Duration = Duration::from_millis(5);
/// For a server that no longer tries to.
const HARD_STOP: Duration = Duration::from_secs(10);

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

    /// Asks a postmaster to disconnect everybody and write all it holds; insists step by step.
    pub(super) async fn stop_postmaster(&self) -> bool {
        self.signal(Signal::INT);
        if self.wait_end(FAST_STOP).await {
            return true;
        }
        self.signal(Signal::QUIT);
        if self.wait_end(HARD_STOP).await {
            return true;
        }
        self.signal(Signal::KILL);
        self.wait_end(HARD_STOP).await
    }
}

/// How often the processes of a server are looked for again: one that was being forked while we looked is not seen.
const SWEEPS: u32 = 5;

/// Ends what still runs on this data folder from an earlier life of ours, and waits until it is gone. Returns whether
/// nothing is left.
pub(super) async fn end_leftovers(home: &Home, account: &Account) -> bool {
    for (id, process) in find(home, account, is_postmaster) {
        tracing::info!(server = %home.label, pid = id, "ending a server left over from an earlier run");
        process.stop_postmaster().await;
    }
    for _ in 0..SWEEPS {
        let orphans = find(home, account, is_of);
        if orphans.is_empty() {
            return true;
        }
        // The children of a postmaster that was killed notice within moments, unless they are in a long computation.
        for (_, process) in &orphans {
            process.signal(Signal::KILL);
        }
        for (_, process) in orphans {
            process.wait_end(HARD_STOP).await;
        }
    }
    find(home, account, is_of).is_empty()
}

/// Waits for what a stopped postmaster leaves: its log collector, which ends once nobody can write to it any more. What
/// does not end by itself is ended. Returns whether nothing is left.
pub(super) async fn await_leftovers(home: &Home, account: &Account) -> bool {
    for (_, process) in find(home, account, is_of) {
        process.wait_end(HARD_STOP).await;
    }
    end_leftovers(home, account).await
}

/// What is known of a process.
struct Seen {
    arguments: Vec<u8>,
    folder: Option<PathBuf>,
}

type Matcher = fn(&Seen, &Home) -> bool;

/// The account's processes that match, checked once more after their handles were opened.
fn find(home: &Home, account: &Account, matches: Matcher) -> Vec<(u32, Process)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_match = |id: u32| see(id, account).is_some_and(|seen| matches(&seen, home));
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

fn is_postmaster(seen: &Seen, home: &Home) -> bool {
    let data = home.data.as_os_str().as_encoded_bytes();
    let arguments: Vec<_> = seen.arguments.split(|byte| *byte == 0).collect();
    matches!(&*arguments, [program, b"-D", folder, ..] if program.ends_with(b"/postgres") && *folder == data)
}

/// Whether a process is one of the server's. Children show the cluster's name, which is our label, at the front of their
/// titles. One that is about to end has lost its title already, but works in the server's folder to the last; where we may
/// not see that folder, the title has to do.
fn is_of(seen: &Seen, home: &Home) -> bool {
    let title = format!("postgres: {}: ", home.label);
    seen.arguments.starts_with(title.as_bytes())
        || is_postmaster(seen, home)
        || (seen.arguments.is_empty() && seen.folder.as_ref() == Some(&home.data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        let root = Path::new("/d/servers/pg-1").to_owned();
        Home {
            data: root.join("data"),
            log: root.join("log"),
            run: root.join("run"),
            root,
            label: "pg-1-ab".into(),
        }
    }

    #[test]
    fn only_this_folders_postmaster_is_known() {
        let check = |line: &str, expected| {
            let seen = Seen {
                arguments: line.replace(' ', "\0").into_bytes(),
                folder: None,
            };
            assert_eq!(is_postmaster(&seen, &home()), expected, "{line}");
        };
        check(
            "/usr/lib/postgresql/15/bin/postgres -D /d/servers/pg-1/data",
            true,
        );
        check(
            "/usr/lib/postgresql/15/bin/postgres -D /d/servers/pg-12/data",
            false,
        );
        check("/usr/bin/vi -D /d/servers/pg-1/data", false);
        check("/usr/lib/postgresql/15/bin/postgres", false);
    }

    #[test]
    fn only_this_servers_children_are_known() {
        let check = |title: &str, folder: &str, expected| {
            let seen = Seen {
                arguments: title.into(),
                folder: (!folder.is_empty()).then(|| folder.into()),
            };
            assert_eq!(is_of(&seen, &home()), expected, "{title} in {folder}");
        };
        check(
            "postgres: pg-1-ab: tdb_r1_a shop__acme [local] idle",
            "",
            true,
        );
        check("postgres: pg-1-abc: checkpointer", "", false);
        check("postgres: checkpointer", "", false);
        check("", "/d/servers/pg-1/data", true);
        check("bash", "/d/servers/pg-1/data", false);
        check("", "/d/servers/pg-12/data", false);
    }

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
