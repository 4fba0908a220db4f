//! How much memory this machine has for us.

use std::fs;

/// The limit of our control group, and what the machine has.
const LIMIT: &str = "/sys/fs/cgroup/memory.max";
const MACHINE: &str = "/proc/meminfo";

/// Bytes: the machine's, or our control group's where that has fewer. `None` where neither can be read.
pub(super) fn available() -> Option<u64> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    smaller(&read(LIMIT), &read(MACHINE))
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
