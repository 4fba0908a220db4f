//! Starting programs for a comparison, and stopping exactly those.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The account that servers run under when this program is root: PostgreSQL and PgBouncer refuse to be root.
const SERVICE_USER: &str = "postgres";
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A list of processors as `taskset -c` takes it, such as `0` or `1-3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus(pub String);

/// Who a started program runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    /// The user of this program.
    Same,
    /// The unprivileged account for servers, where this program is root.
    Service,
}

/// A started program. Dropping it stops it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stop_signal: &'static str,
    log: PathBuf,
}

impl Process {
    /// Starts `command_line` on `cpus`, its output in `log`. It gets `stop_signal` when this program ends, however that ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        command_line: &[&str],
        cpus: &Cpus,
        run_as: RunAs,
        stop_signal: &'static str,
        log: &Path,
    ) -> Result<Self> {
        let name = command_line
            .first()
            .context("empty command line")?
            .to_string();
        let output = File::create(log).with_context(|| log.display().to_string())?;
        let child = wrapped(cpus, run_as, stop_signal)
            .args(command_line)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            child,
            stop_signal,
            log: log.to_owned(),
        })
    }

    /// The process id; the wrappers replace themselves by the program, so that this is the program's own.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Calls `ready` until it says yes.
    ///
    /// # Errors
    /// When the program ends before, or `timeout` passes.
    pub fn wait_until(&mut self, timeout: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}): {}", self.name, self.log_end());
            }
            ensure!(
                Instant::now() < deadline,
                "{} was not ready after {timeout:?}: {}",
                self.name,
                self.log_end()
            );
            sleep(POLL);
        }
        Ok(())
    }

    /// Waits until something listens on `port`.
    ///
    /// # Errors
    /// As [`Process::wait_until`].
    pub fn wait_for_port(&mut self, port: u16, timeout: Duration) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.wait_until(timeout, || {
            TcpStream::connect_timeout(&address, POLL * 10).is_ok()
        })
    }

    fn log_end(&self) -> String {
        last_lines(&fs::read_to_string(&self.log).unwrap_or_default(), 5)
    }

    fn stop(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = self.pid().to_string();
        run(Command::new("kill").args(["-s", self.stop_signal, &pid]))?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                bail!("{} had to be killed", self.name);
            }
            sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("stopping {}: {error:#}", self.name);
        }
    }
}

/// A command that still lacks its program and arguments, with user, processors and fate set by wrappers that replace themselves.
fn wrapped(cpus: &Cpus, run_as: RunAs, stop_signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", stop_signal]);
    if run_as == RunAs::Service && is_root() {
        command.args([
            "--reuid",
            SERVICE_USER,
            "--regid",
            SERVICE_USER,
            "--init-groups",
        ]);
    }
    command.args(["--", "taskset", "-c", &cpus.0]);
    command
}

/// Runs a helper program such as `initdb` to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run_to_end(command_line: &[&str], cpus: &Cpus, run_as: RunAs) -> Result<String> {
    run(wrapped(cpus, run_as, "TERM").args(command_line))
}

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name} failed ({}): {}",
        output.status,
        last_lines(&errors, 5)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Moves a running process with all its threads to `cpus`.
///
/// # Errors
/// When the process is gone.
pub fn pin(pid: u32, cpus: &Cpus) -> Result<()> {
    run(Command::new("taskset").args(["-a", "-c", "-p", &cpus.0, &pid.to_string()])).map(drop)
}

/// Gives `path` and all below it to the account that servers run under.
///
/// # Errors
/// When there is no such account.
pub fn give_to_service(path: &Path) -> Result<()> {
    if is_root() {
        run(Command::new("chown").args(["-R", SERVICE_USER]).arg(path))?;
    }
    Ok(())
}

/// A port on loopback that nobody listens on at this moment.
///
/// # Errors
/// When none is left.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The last `count` lines of a program's complaint, which hold the reason.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> Cpus {
        Cpus("0".into())
    }

    #[test]
    fn a_process_is_stopped_when_dropped() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let process =
            Process::start(&["sleep", "60"], &any(), RunAs::Same, "TERM", log.path()).unwrap();
        let proc_entry = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc_entry.exists());
        drop(process);
        assert!(!proc_entry.exists());
    }

    #[test]
    fn the_pid_is_the_programs_own() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut process =
            Process::start(&["sleep", "60"], &any(), RunAs::Same, "TERM", log.path()).unwrap();
        let name = PathBuf::from(format!("/proc/{}/comm", process.pid()));
        let is_sleep = || fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sleep");
        process
            .wait_until(Duration::from_secs(30), is_sleep)
            .unwrap();
    }

    #[test]
    fn an_early_end_is_reported_with_its_reason() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let line = ["sh", "-c", "echo no such luck >&2; exit 3"];
        let mut process = Process::start(&line, &any(), RunAs::Same, "TERM", log.path()).unwrap();
        let error = process
            .wait_until(Duration::from_secs(30), || false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such luck"), "{error}");
    }

    #[test]
    fn a_failed_helper_is_an_error() {
        assert!(run_to_end(&["false"], &any(), RunAs::Same).is_err());
        assert_eq!(
            run_to_end(&["echo", "yes"], &any(), RunAs::Same).unwrap(),
            "yes\n"
        );
    }

    #[test]
    fn only_the_end_of_a_long_complaint_is_kept() {
        assert_eq!(last_lines("a\nb\nc", 2), "b\nc");
        assert_eq!(last_lines("a", 5), "a");
    }
}
