//! What the kernel says a process used: processor time and memory.
//!
//! Totals come from `/proc/PID/task/*/schedstat`, which counts nanoseconds; `/proc/PID/stat` counts clock ticks and only serves to
//! split the total into user and system time. Formats: proc(5), Linux `Documentation/scheduler/sched-stats.rst`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Processor time of a process since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a processor, all living threads together.
    pub total: Duration,
    /// Clock ticks in user mode.
    pub user_ticks: u64,
    /// Clock ticks in the kernel.
    pub system_ticks: u64,
}

impl Usage {
    /// What was used between `earlier` and `self`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }

    /// The part of the time spent in user mode, 0 to 1; `None` when no tick was counted.
    #[must_use]
    pub fn user_share(self) -> Option<f64> {
        let ticks = self.user_ticks + self.system_ticks;
        #[expect(clippy::cast_precision_loss, reason = "tick counts are far below 2^52")]
        let share = |part: u64| part as f64 / ticks as f64;
        (ticks > 0).then(|| share(self.user_ticks))
    }
}

/// Reads the processor time of `pid`.
///
/// # Errors
/// When there is no such process, or the kernel lacks schedstat.
pub fn usage(pid: u32) -> Result<Usage> {
    let root = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(root.join("stat")).with_context(|| format!("process {pid}"))?;
    let (user_ticks, system_ticks) = parse_stat(&stat).context("unreadable /proc/PID/stat")?;
    let mut total = Duration::ZERO;
    for task in fs::read_dir(root.join("task"))? {
        // A thread may end between the listing and the reading: its time is then lost from the total, which is why a proxy whose
        // threads come and go must not be measured like this.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        total += parse_schedstat(&text).context("unreadable schedstat")?;
    }
    Ok(Usage {
        total,
        user_ticks,
        system_ticks,
    })
}

/// Resident memory of `pid` in bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid}"))?;
    parse_resident(&status).context("no VmRSS in /proc/PID/status")
}

/// The processes that `pid` started, and those that they started, without `pid` itself.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut queue = vec![pid];
    while let Some(parent) = queue.pop() {
        for child in children(parent) {
            found.push(child);
            queue.push(child);
        }
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|line| {
            line.split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// User and system ticks of a `stat` line. The process name stands in parentheses and may itself hold spaces and parentheses.
fn parse_stat(line: &str) -> Option<(u64, u64)> {
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn parse_schedstat(line: &str) -> Option<Duration> {
    line.split_whitespace()
        .next()?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

fn parse_resident(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_an_awkward_name() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 17 29 0 0 20 0 1 0 5 100 10";
        assert_eq!(parse_stat(line), Some((17, 29)));
        assert_eq!(parse_stat("42 (x) S 1 42"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn schedstat_and_memory() {
        assert_eq!(
            parse_schedstat("313507 72628 2\n"),
            Some(Duration::from_nanos(313_507))
        );
        assert_eq!(parse_schedstat("\n"), None);
        assert_eq!(
            parse_resident("Name:\tx\nVmRSS:\t    2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(parse_resident("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn shares_and_differences() {
        let early = Usage {
            total: Duration::from_micros(10),
            user_ticks: 1,
            system_ticks: 1,
        };
        let late = Usage {
            total: Duration::from_micros(50),
            user_ticks: 2,
            system_ticks: 4,
        };
        let used = late.since(early);
        assert_eq!(
            used,
            Usage {
                total: Duration::from_micros(40),
                user_ticks: 1,
                system_ticks: 3
            }
        );
        assert_eq!(used.user_share(), Some(0.25));
        assert_eq!(Usage::default().user_share(), None);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let pid = std::process::id();
        assert!(usage(pid).unwrap().total > Duration::ZERO);
        assert!(resident_bytes(pid).unwrap() > 0);
        assert!(usage(u32::MAX).is_err());
    }

    #[test]
    fn a_child_is_found_below_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = descendants(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()), "{found:?}");
    }
}
