//! The few system calls of the reactors, with safe signatures.
#![allow(unsafe_code)] // Each call is one libc function; its SAFETY comment says why its arguments are right.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use control_store::snapshot::ServerAddress;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::Peer;

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

/// The descriptor that a completion of the kernel's tells of: ours from now on.
pub(super) fn made_by_kernel(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    own(result)
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

/// Processor time that this thread has used.
pub(super) fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to `time`, which lives through the call. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sets an event counter to zero and answers what it was.
pub(super) fn read_counter(fd: &OwnedFd) -> io::Result<u64> {
    let mut count = [0; 8];
    // SAFETY: the pointer and length are those of `count`, which lives through the call.
    check_count(unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) })?;
    Ok(u64::from_ne_bytes(count))
}

/// Takes one connection from a listening socket; the connection does not block.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Peer)> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `accept4` writes at most `len` bytes of address into the storage that socket2 provides, and the length.
    let (fd, address) = unsafe {
        SockAddr::try_init(|storage, len| {
            own(libc::accept4(
                listener.as_raw_fd(),
                storage.cast(),
                len,
                flags,
            ))
        })
    }?;
    Ok((fd, peer(&address)))
}

/// Who is at the other end; an error if nobody is any more.
pub(super) fn peer_of(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    SockRef::from(&socket)
        .peer_addr()
        .map(|address| peer(&address))
}

/// The error that a socket holds, if any.
pub(super) fn take_error(socket: BorrowedFd<'_>) -> Option<io::Error> {
    SockRef::from(&socket).take_error().unwrap_or_else(Some)
}

/// Tells the peer that we send no more.
pub(super) fn shut_down(socket: BorrowedFd<'_>) {
    // It fails only on a connection that is gone already, which the next receive tells.
    let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Write);
}

fn peer(address: &SockAddr) -> Peer {
    address.as_socket().map_or(Peer::Unix, Peer::Tcp)
}

/// Makes a listening socket not block, and its TCP connections send at once: those inherit the option.
pub(super) fn prepare_listener(socket: BorrowedFd<'_>) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    socket.set_nonblocking(true)?;
    if socket.local_addr()?.is_unix() {
        return Ok(());
    }
    socket.set_tcp_nodelay(true)
}

/// A non-blocking socket for a connection to `to`, and the address to connect it to.
pub(super) fn socket_for(to: &ServerAddress) -> io::Result<(OwnedFd, SockAddr)> {
    let address = match to {
        ServerAddress::Tcp(address) => SockAddr::from(*address),
        ServerAddress::Unix(path) => SockAddr::unix(path)?,
        // Sent as it is, it would be plain.
        ServerAddress::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking().cloexec(), None)?;
    if address.domain() != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    Ok((socket.into(), address))
}

/// What [`start_connect`] came to.
pub(super) enum Connecting {
    /// Begun, or done: the socket becomes writable.
    Begun,
    /// The backlog of a Unix socket is full, and nothing will tell when it no longer is.
    Full,
}

/// Begins to connect a socket.
pub(super) fn start_connect(socket: BorrowedFd<'_>, to: &SockAddr) -> io::Result<Connecting> {
    match SockRef::from(&socket).connect(to) {
        Ok(()) => Ok(Connecting::Begun),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINPROGRESS | libc::EINTR) => Ok(Connecting::Begun),
            Some(libc::EAGAIN) => Ok(Connecting::Full),
            _ => Err(error),
        },
    }
}

/// The kernel's list of sockets that have something to do.
pub(super) struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self { fd })
    }

    /// Watches a descriptor until it is closed.
    pub(super) fn add(&self, fd: impl AsFd, interest: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), interest, token)
    }

    /// Changes what a descriptor is watched for.
    pub(super) fn modify(&self, fd: impl AsFd, interest: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), interest, token)
    }

    fn control(
        &self,
        op: libc::c_int,
        fd: BorrowedFd<'_>,
        interest: u32,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: token,
        };
        // SAFETY: `event` lives through the call, which only reads it.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), op, fd.as_raw_fd(), &raw mut event) })
            .map(drop)
    }

    /// Fills `ready` with what there is, and answers how much; waits for it at most `timeout` (`None`: for ever).
    pub(super) fn wait(
        &self,
        ready: &mut [libc::epoll_event],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let room = libc::c_int::try_from(ready.len()).unwrap_or(libc::c_int::MAX);
        let millis = timeout.map_or(-1, whole_millis);
        // SAFETY: the pointer is that of `ready`, which has room for `room` events.
        let count = check(unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), ready.as_mut_ptr(), room, millis)
        })?;
        Ok(usize::try_from(count).unwrap_or_default())
    }
}

/// Milliseconds, rounded up: a timer must not be asked for again and again in its last millisecond.
fn whole_millis(timeout: Duration) -> libc::c_int {
    libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}
