//! The few system calls of the reactors, with safe signatures.
#![allow(unsafe_code)] // Each call is one libc function; its SAFETY comment says why its arguments are right.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The result of a call that answers -1 and `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The result of a call that answers a byte count, or -1 and `errno`.
fn check_count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A descriptor that a call has just made.
fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A non-blocking event counter.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// Adds one to an event counter.
pub(super) fn write_counter(fd: &OwnedFd) -> io::Result<()> {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the pointer and length are those of `one`, which lives through the call.
    check_count(unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) }).map(drop)
}

/// Sets an event counter to zero and answers what it was.
pub(super) fn read_counter(fd: &OwnedFd) -> io::Result<u64> {
    let mut count = [0; 8];
    // SAFETY: the pointer and length are those of `count`, which lives through the call.
    check_count(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) })?;
    Ok(u64::from_ne_bytes(count))
}
