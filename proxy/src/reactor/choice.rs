//! Which reactor runs.

use std::io;

use super::{EpollReactor, Options, ReactorKind, UringReactor, available};

/// A reactor of either kind. The worker matches on it once and is compiled for both.
pub enum AnyReactor {
    /// On io_uring.
    Uring(Box<UringReactor>),
    /// On epoll.
    Epoll(Box<EpollReactor>),
}

/// Decides, once at start, on the kind of all workers: the one wanted, or else io_uring where it works.
///
/// # Errors
/// When io_uring is wanted and does not work here; the error says why.
pub fn choose(wanted: Option<ReactorKind>) -> io::Result<ReactorKind> {
    match (wanted, available()) {
        (Some(ReactorKind::Epoll), _) => Ok(ReactorKind::Epoll),
        (_, Ok(())) => Ok(ReactorKind::Uring),
        (Some(ReactorKind::Uring), Err(why)) => Err(io::Error::other(why)),
        (None, Err(why)) => {
            tracing::info!(%why, "using epoll instead of io_uring");
            Ok(ReactorKind::Epoll)
        }
    }
}

/// Makes a reactor of the kind chosen, on the thread that will run it. Where io_uring works but there is not enough
/// lockable memory for this many workers, the others run on epoll.
///
/// # Errors
/// When the process is out of descriptors.
pub fn open(kind: ReactorKind, options: Options) -> io::Result<AnyReactor> {
    if kind == ReactorKind::Uring {
        match UringReactor::new(options) {
            Ok(reactor) => return Ok(AnyReactor::Uring(Box::new(reactor))),
            Err(error) => tracing::warn!(%error, "this worker uses epoll instead of io_uring"),
        }
    }
    Ok(AnyReactor::Epoll(Box::new(EpollReactor::new(options)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::Reactor;

    #[test]
    fn what_is_wanted_is_what_runs() {
        for wanted in [None, Some(ReactorKind::Epoll), Some(ReactorKind::Uring)] {
            match choose(wanted) {
                Ok(kind) => {
                    assert!(wanted.is_none_or(|wanted| wanted == kind));
                    let runs = match open(kind, Options::default()).expect("opens") {
                        AnyReactor::Uring(reactor) => reactor.kind(),
                        AnyReactor::Epoll(reactor) => reactor.kind(),
                    };
                    assert_eq!(runs, kind);
                }
                Err(_) => assert_eq!(wanted, Some(ReactorKind::Uring), "epoll always works"),
            }
        }
    }
}
