//! The two queues shared with the kernel.
//!
//! Requests that use memory of ours are of one kind, sends, and those never outlive the [`Ring::enter`] that submits
//! them: they are sent without waiting (`MSG_DONTWAIT`), so the kernel has finished with them when it has taken them
//! from the queue. It tells only of those that did not go out whole (`MSG_WAITALL` makes a short one a failure, and
//! successes are not told). Everything else that stays with the kernel names a socket and, for receives, a group of
//! provided blocks; see `blocks.rs`.
#![allow(unsafe_code)] // Pushing requests and entering the kernel; each block says why its arguments are right.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};

use super::coalesce::Company;
use super::message::Message;
use crate::reactor::token::Token;

/// How long the queues are.
#[derive(Clone, Copy)]
pub(super) struct Lengths {
    /// Requests that fit before they must be submitted.
    pub(super) submissions: u32,
    /// Completions that fit before the kernel has to keep them elsewhere.
    pub(super) completions: u32,
}

impl Lengths {
    /// From what suits thousands of connections down to what fits where little memory may be locked. Full queues cost
    /// time, not completions.
    pub(super) const USUAL: [Self; 3] = [
        Self::new(512, 4096),
        Self::new(128, 1024),
        Self::new(32, 128),
    ];

    pub(super) const fn new(submissions: u32, completions: u32) -> Self {
        Self {
            submissions,
            completions,
        }
    }
}

/// Attempts at having the kernel take all requests, in spite of a full completion queue or a shortage of memory.
const ATTEMPTS: usize = 1000;
/// Of `io_uring_enter(2)`.
const GETEVENTS: u32 = 1;
/// Of `io_uring_enter(2)`.
const EXT_ARG: u32 = 8;

/// What the kernel tells of a request.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub(super) token: Token,
    /// A count or descriptor, or a negated `errno`.
    pub(super) result: i32,
    pub(super) flags: u32,
}

impl Completion {
    /// Whether the request goes on.
    pub(super) fn more(&self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// Whether the block that was received into is to be used further.
    pub(super) fn has_room(&self) -> bool {
        io_uring::cqueue::buffer_more(self.flags)
    }

    /// Whether the socket had more than was received.
    pub(super) fn more_there(&self) -> bool {
        io_uring::cqueue::sock_nonempty(self.flags)
    }

    /// The result, as system calls tell it.
    pub(super) fn outcome(&self) -> Result<usize, i32> {
        usize::try_from(self.result).map_err(|_| -self.result)
    }
}

/// The queues.
pub(super) struct Ring {
    ring: IoUring,
    done: Vec<Completion>,
    /// The kernel would not take the requests: nothing works any more.
    broken: bool,
    /// The kernel can wait for several completions for a while, and then for one (Linux 6.12).
    can_wait_for_company: bool,
}

/// What [`Ring::enter`] waits for.
#[derive(Clone, Copy)]
struct Wait {
    timeout: Option<Duration>,
    company: Option<Company>,
}

impl Ring {
    /// # Errors
    /// Where io_uring is refused, or older than this reactor needs, or more memory than may be locked.
    pub(super) fn new(lengths: Lengths) -> io::Result<Self> {
        let build = |no_array: bool| {
            let mut builder = IoUring::builder();
            builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_submit_all()
                .setup_clamp()
                .setup_cqsize(lengths.completions);
            if no_array {
                builder.setup_no_sqarray();
            }
            builder.build(lengths.submissions)
        };
        let ring = match build(true) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(false)?,
            other => other?,
        };
        let features = ring.params();
        if !(features.is_feature_ext_arg() && features.is_feature_nodrop()) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self {
            can_wait_for_company: features.is_feature_min_timeout(),
            ring,
            done: Vec::new(),
            broken: false,
        })
    }

    /// The queues themselves, for registering blocks with.
    pub(super) const fn queues(&self) -> &IoUring {
        &self.ring
    }

    /// # Safety
    /// The memory that the request uses must stay as it is until the kernel has finished with it.
    unsafe fn push(&mut self, entry: &Entry) {
        if self.broken {
            return;
        }
        // SAFETY: the caller's promise.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return;
        }
        if self.submit(None).is_ok() {
            // SAFETY: the caller's promise. There is room now.
            let _ = unsafe { self.ring.submission().push(entry) };
        }
    }

    /// Takes connections until told otherwise.
    pub(super) fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(token.pack());
        // SAFETY: uses no memory of ours.
        unsafe { self.push(&entry) };
    }

    /// Receives into blocks of a group until told otherwise.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, group: u16, token: Token) {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), group)
            .build()
            .user_data(token.pack());
        // SAFETY: uses no memory but the group's, which outlives this ring (see `Blocks`).
        unsafe { self.push(&entry) };
    }

    /// Tells once, or each time, that a descriptor is ready.
    pub(super) fn poll(
        &mut self,
        fd: BorrowedFd<'_>,
        what: libc::c_short,
        each: bool,
        token: Token,
    ) {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), u32::from(what.cast_unsigned()))
            .multi(each)
            .build()
            .user_data(token.pack());
        // SAFETY: uses no memory of ours.
        unsafe { self.push(&entry) };
    }

    /// Ends a request that was made with that token. What it has told before stays told, and it tells of its end.
    pub(super) fn cancel(&mut self, request: Token, token: Token) {
        let entry = opcode::AsyncCancel::new(request.pack())
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(token.pack());
        // SAFETY: uses no memory of ours.
        unsafe { self.push(&entry) };
    }

    /// Closes a descriptor, after the requests made before.
    pub(super) fn close(&mut self, fd: OwnedFd, token: Token) {
        if self.broken {
            return;
        }
        let entry = opcode::Close::new(Fd(fd.into_raw_fd()))
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(token.pack());
        // SAFETY: uses no memory of ours.
        unsafe { self.push(&entry) };
    }

    /// Sends what the socket takes at once; tells only if that is not all.
    ///
    /// # Safety
    /// `bytes` must stay where they are until the next [`Ring::enter`] has returned.
    pub(super) unsafe fn send(&mut self, socket: BorrowedFd<'_>, bytes: &[u8], token: Token) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(token.pack());
        // SAFETY: the caller's promise; the kernel has finished with a send when `enter` returns (see above).
        unsafe { self.push(&entry) };
    }

    /// As [`Ring::send`], for several pieces.
    ///
    /// # Safety
    /// `message` and the bytes it points to must stay where they are until the next [`Ring::enter`] has returned.
    pub(super) unsafe fn send_message(
        &mut self,
        socket: BorrowedFd<'_>,
        message: &Message,
        token: Token,
    ) {
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = opcode::SendMsg::new(Fd(socket.as_raw_fd()), message.header())
            .flags(flags.cast_unsigned())
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(token.pack());
        // SAFETY: as in `send`.
        unsafe { self.push(&entry) };
    }

    /// Submits everything, waits for a completion for at most `timeout` (`None`: without limit), and answers what has
    /// been completed. The kernel has then taken every request, and told of every send that did not go out whole.
    /// With `company` it waits for that many completions first, for as long as that says.
    ///
    /// # Errors
    /// When the kernel does not take the requests. The ring is of no use afterwards.
    pub(super) fn enter(
        &mut self,
        timeout: Option<Duration>,
        company: Option<Company>,
    ) -> io::Result<Vec<Completion>> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // A queue that was full has been submitted, and completions taken, since the last time.
        let wait = self.done.is_empty() && timeout != Some(Duration::ZERO);
        self.submit(wait.then_some(Wait { timeout, company }))?;
        Ok(std::mem::take(&mut self.done))
    }

    /// Gives the memory of a list of completions back for the next one.
    pub(super) fn recycle(&mut self, mut done: Vec<Completion>) {
        if self.done.is_empty() {
            done.clear();
            self.done = done;
        }
    }

    fn submit(&mut self, mut wait: Option<Wait>) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let entered = self.enter_once(wait);
            self.drain();
            match entered.map_err(|error| error.raw_os_error()) {
                Ok(()) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
                Err(error) => {
                    self.broken = true;
                    return Err(io::Error::from_raw_os_error(error.unwrap_or(libc::EIO)));
                }
            }
            let queue = self.ring.submission();
            if queue.is_empty() && !queue.cq_overflow() {
                return Ok(());
            }
            wait = None;
        }
        self.broken = true;
        Err(io::ErrorKind::OutOfMemory.into())
    }

    fn enter_once(&mut self, wait: Option<Wait>) -> io::Result<()> {
        let pending = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        let company = wait
            .and_then(|wait| wait.company)
            .filter(|_| self.can_wait_for_company);
        let limit = wait.and_then(|wait| wait.timeout).map(Timespec::from);
        let mut args = SubmitArgs::new();
        if let Some(company) = company {
            args = args.min_wait_usec(u32::try_from(company.within.as_micros()).unwrap_or(0));
        }
        let args = match &limit {
            Some(limit) => args.timespec(limit),
            None => args,
        };
        let wait = match company {
            Some(company) => u32::try_from(company.count).unwrap_or(1),
            None => u32::from(wait.is_some()),
        };
        // SAFETY: `EXT_ARG` has the kernel expect a `struct io_uring_getevents_arg`, which `SubmitArgs` is, and that
        // and the time it points to live through the call. `GETEVENTS` runs deferred completions. What the pushed
        // requests point to is as the callers of `push` promised.
        unsafe {
            self.ring
                .submitter()
                .enter(pending, wait, GETEVENTS | EXT_ARG, Some(&args))
        }
        .map(drop)
    }

    fn drain(&mut self) {
        let told = self.ring.completion().map(|entry| Completion {
            token: Token::unpack(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        });
        self.done.extend(told);
    }
}

impl Drop for Ring {
    /// Ends all requests, so that sockets close now and not when the kernel gets round to it.
    fn drop(&mut self) {
        if self.broken {
            return;
        }
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: uses no memory of ours.
        unsafe { self.push(&entry) };
        let _ = self.submit(None);
    }
}
