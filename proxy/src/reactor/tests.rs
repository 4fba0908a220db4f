//! One set of tests for both reactors. The peers are plain blocking sockets in threads of their own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;

mod closing;
mod flow;
mod load;
mod peers;
mod uplinks;

/// Makes a test of each function, once per reactor.
macro_rules! on_both_reactors {
    ($($(#[$meta:meta])* fn $name:ident($kind:ident) $body:block)*) => {
        $($(#[$meta])* fn $name($kind: ReactorKind) $body)*
        mod on_epoll {
            $(#[test] fn $name() { super::$name(super::ReactorKind::Epoll) })*
        }
        /// Containers may forbid io_uring. Then there is nothing to test.
        mod on_uring {
            $(#[test] fn $name() {
                match crate::reactor::available() {
                    Ok(()) => super::$name(super::ReactorKind::Uring),
                    Err(why) => eprintln!("not tested: {why}"),
                }
            })*
        }
    };
}
use on_both_reactors;

/// A test that has not come to its end by then has failed. Far above what any of them takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn reactor(kind: ReactorKind, options: Options) -> Box<dyn Reactor> {
    let made: Box<dyn Reactor> = match kind {
        ReactorKind::Epoll => Box::new(EpollReactor::new(options).expect("epoll works")),
        ReactorKind::Uring => Box::new(UringReactor::new(options).expect("io_uring works")),
    };
    assert_eq!(made.kind(), kind);
    made
}

/// A reactor and what it has told.
struct Bench {
    reactor: Box<dyn Reactor>,
    events: std::collections::VecDeque<Event>,
    deadline: Instant,
}

impl Bench {
    fn new(kind: ReactorKind) -> Self {
        Self::with(kind, Options::default())
    }

    fn with(kind: ReactorKind, options: Options) -> Self {
        Self::on(reactor(kind, options))
    }

    fn on(reactor: Box<dyn Reactor>) -> Self {
        Self {
            reactor,
            events: std::collections::VecDeque::new(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Listens on a free port.
    fn listen(&mut self) -> SocketAddr {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound");
        self.reactor.listen(socket.into()).expect("listens");
        address
    }

    /// One turn; its events are kept for [`Bench::next`].
    fn turn(&mut self, timeout: Duration) {
        assert!(Instant::now() < self.deadline, "the test is stuck");
        let mut events = Vec::new();
        self.reactor
            .turn(Some(timeout), &mut events)
            .expect("the turn works");
        self.events.extend(events);
    }

    /// The next event.
    fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.turn(Duration::from_millis(20));
        }
    }

    /// A few turns, for things that must not happen.
    fn settle(&mut self) {
        for _ in 0..5 {
            self.turn(Duration::from_millis(5));
        }
    }

    fn accepted(&mut self) -> ConnId {
        match self.next() {
            Event::Accepted { conn, .. } => conn,
            other => panic!("expected a connection, got {other:?}"),
        }
    }

    /// A client and our side of its connection.
    fn pair(&mut self) -> (TcpStream, ConnId) {
        let address = self.listen();
        let client = TcpStream::connect(address).expect("connects");
        client
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let conn = self.accepted();
        (client, conn)
    }

    /// Collects what comes on `conn` until `len` bytes are there.
    fn receive(&mut self, conn: ConnId, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match self.next() {
                Event::Received { conn: on, buf } if on == conn => bytes.extend_from_slice(&buf),
                other => panic!("expected bytes, got {other:?}"),
            }
        }
        bytes
    }

    /// Turns until a thread is done.
    fn until_done<T>(&mut self, thread: std::thread::JoinHandle<T>) -> T {
        while !thread.is_finished() {
            self.turn(Duration::from_millis(5));
        }
        thread.join().expect("the thread is well")
    }
}

/// Bytes that differ from their neighbours and repeat late.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
