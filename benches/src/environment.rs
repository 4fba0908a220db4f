//! The facts without which figures mean nothing: machine, versions, date, load.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};

use crate::process::{Cpus, run};
use crate::rivals::Lab;
use crate::runner::Pace;

/// Splits the machine: its first processor for the measured proxy, the rest for everything else.
///
/// # Errors
/// On a machine with one processor, where a proxy's cost cannot be told apart from its load's effects.
pub fn split_processors() -> Result<(Cpus, Cpus)> {
    let count = available_parallelism()?.get();
    ensure!(count >= 2, "a comparison needs at least two processors");
    let rest = if count == 2 {
        "1".to_owned()
    } else {
        format!("1-{}", count - 1)
    };
    Ok((Cpus("0".into()), Cpus(rest)))
}

/// The average load of the last minute, as the kernel words it.
#[must_use]
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

/// Collects the facts of a comparison; `programs` are those that take part, with version and configuration.
///
/// # Errors
/// When /proc is not to be read.
pub fn describe(
    lab: &Lab,
    programs: Vec<(&str, String)>,
    pace: Pace,
    load_before: &str,
) -> Result<Vec<(String, String)>> {
    let mut facts = vec![
        ("date", date()?),
        ("machine", machine()?),
        ("kernel", kernel()?),
        (
            "processors",
            format!(
                "proxy on {}, all else on {}",
                lab.proxy_cpus.0, lab.load_cpus.0
            ),
        ),
    ];
    facts.extend(programs);
    facts.extend([
        (
            "method",
            format!(
                "{} rounds of {} s for each case and contender",
                pace.rounds,
                pace.duration.as_secs()
            ),
        ),
        (
            "load average",
            format!("{load_before} before, {} after", load_average()),
        ),
    ]);
    Ok(facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

/// Now, to the minute.
///
/// # Errors
/// There is no `date`.
pub fn date() -> Result<String> {
    let date = run(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?;
    Ok(date.trim().to_owned())
}

/// The kernel's version.
///
/// # Errors
/// When /proc is not to be read.
pub fn kernel() -> Result<String> {
    let version = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(version.trim().to_owned())
}

/// Processors and memory.
///
/// # Errors
/// When /proc is not to be read.
pub fn machine() -> Result<String> {
    let model = first_value(&fs::read_to_string("/proc/cpuinfo")?, "model name")
        .unwrap_or("unknown processor".into());
    let memory =
        first_value(&fs::read_to_string("/proc/meminfo")?, "MemTotal").context("no MemTotal")?;
    // Not `available_parallelism`: this program has given the proxies' processors away.
    let processors = fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    Ok(format!("{processors} × {model}, {memory} memory"))
}

/// The value behind the first `name :` of a file in /proc.
fn first_value(text: &str, name: &str) -> Option<String> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.trim_start().strip_prefix(':')?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_proc_files() {
        assert_eq!(
            first_value("a\t: 1\nmodel name\t: Fast (R)\n", "model name").as_deref(),
            Some("Fast (R)")
        );
        assert_eq!(
            first_value("MemTotal:   24 kB\n", "MemTotal").as_deref(),
            Some("24 kB")
        );
        assert_eq!(first_value("a: 1\n", "b"), None);
    }
}
