//! How much memory this machine has for us, and how much of it a process of a server's may have.

use std::fs;
use std::path::Path;

use tokio::process::Command;

/// The limit of our control group, and what the machine has.
const LIMIT: &str = "/sys/fs/cgroup/memory.max";
const MACHINE: &str = "/proc/meminfo";

/// Bytes: the machine's, or our control group's where that has fewer. `None` where neither can be read.
pub(super) fn available() -> Option<u64> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    smaller(&read(LIMIT), &read(MACHINE))
}

/// Of util-linux.
const PRLIMIT: &str = "/usr/bin/prlimit";

/// Starts a program each process of which may have so many quarters of the memory: what is beyond fails for whoever asks for it,
/// where otherwise the kernel would end some process or other. Another program sets the bound, since we may not set that of another
/// account's process everywhere, and our own would be ours too.
pub(super) fn bounded(program: &Path, quarters: u64) -> Command {
    match available() {
        Some(bytes) if Path::new(PRLIMIT).exists() => {
            let mut command = Command::new(PRLIMIT);
            command.arg(format!("--data={}", bytes / 4 * quarters));
            command.arg("--").arg(program);
            command
        }
        _ => Command::new(program),
    }
}

fn smaller(limit: &str, machine: &str) -> Option<u64> {
    let limit = limit.trim().parse().ok();
    let machine = machine.lines().find_map(|line| {
        let kibibytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    limit.into_iter().chain(machine).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_one_counts() {
        const MACHINE: &str = "MemTotal:       16 kB\nMemFree:  1 kB\n";
        for (limit, machine, expected) in [
            ("max\n", MACHINE, Some(16 * 1024)),
            ("4096\n", MACHINE, Some(4096)),
            ("", "", None),
            ("", MACHINE, Some(16 * 1024)),
        ] {
            assert_eq!(smaller(limit, machine), expected, "{limit} {machine}");
        }
    }
}
