//! Whether io_uring works here, found out by using it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::UringReactor;
use crate::reactor::{Close, Event, Options, Reactor};

/// How long the probe may take. It takes microseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than one small message, so that a second receive is seen too.
const WORDS: [&[u8]; 2] = [b"does it", b" work?"];

/// Whether [`UringReactor`] works on this machine.
///
/// # Errors
/// One sentence on what is missing: the kernel is too old, a sandbox forbids it, or it does not do what it should.
pub fn available() -> Result<(), String> {
    let options = Options::default();
    let mut reactor = UringReactor::new(options).map_err(|error| refusal(&error))?;
    echoes(&mut reactor).map_err(|error| format!("io_uring does not work here: {error}"))
}

fn refusal(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring".into(),
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here (by a sandbox or kernel.io_uring_disabled)".into()
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old: Linux 6.1 is needed".into(),
        Some(libc::ENOMEM) => "there is not enough lockable memory for io_uring".into(),
        _ => format!("io_uring cannot be set up: {error}"),
    }
}

/// Sends a few words to and fro.
fn echoes(reactor: &mut UringReactor) -> std::io::Result<()> {
    let (mut near, far) = UnixStream::pair()?;
    near.set_read_timeout(Some(PATIENCE))?;
    let conn = reactor.adopt(far.into())?;
    let until = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    for words in WORDS {
        near.write_all(words)?;
        let mut echoed = 0;
        while echoed < words.len() {
            if Instant::now() > until {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            reactor.turn(Some(PATIENCE), &mut events)?;
            for event in events.drain(..) {
                match event {
                    Event::Received { buf, .. } => {
                        echoed += buf.len();
                        reactor.send(conn, buf);
                    }
                    Event::Failed { error, .. } => return Err(error),
                    _ => {}
                }
            }
        }
        reactor.turn(Some(Duration::ZERO), &mut events)?;
        let mut back = vec![0; words.len()];
        near.read_exact(&mut back)?;
        if back != words {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    }
    reactor.close(conn, Close::Now);
    reactor.turn(Some(Duration::ZERO), &mut events)
}
