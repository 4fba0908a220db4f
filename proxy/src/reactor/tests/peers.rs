//! Connecting, Unix sockets, listeners, wakers.

use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

on_both_reactors! {
    fn a_refused_connection_fails(kind) {
        let mut bench = Bench::new(kind);
        let address = {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
            socket.local_addr().expect("bound")
        };
        let conn = bench.reactor.connect(&ServerAddress::Tcp(address)).expect("begins");
        bench.reactor.send_copy(conn, b"queued");
        match bench.next() {
            Event::Failed { conn: on, error } => {
                assert_eq!(on, conn);
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            }
            other => panic!("unexpected {other:?}"),
        }
        bench.settle();
        assert!(bench.events.is_empty());
    }

    fn a_missing_unix_socket_fails(kind) {
        let mut bench = Bench::new(kind);
        let folder = tempfile::tempdir().expect("a folder");
        let to = ServerAddress::Unix(folder.path().join("none"));
        let conn = bench.reactor.connect(&to).expect("begins");
        match bench.next() {
            Event::Failed { conn: on, error } => {
                assert_eq!(on, conn);
                assert_eq!(error.kind(), io::ErrorKind::NotFound);
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn what_is_sent_before_the_connection_stands_is_delivered(kind) {
        let mut bench = Bench::new(kind);
        let backend = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = ServerAddress::Tcp(backend.local_addr().expect("bound"));
        let conn = bench.reactor.connect(&to).expect("begins");
        bench.reactor.send_copy(conn, b"cancel");
        bench.reactor.close(conn, Close::AfterFlush);
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            backend.accept().expect("accepts").0.read_to_end(&mut got).expect("reads");
            got
        });
        assert_eq!(bench.until_done(reading), b"cancel");
        assert!(bench.events.is_empty(), "{:?} after the close", bench.events);
    }

    fn unix_sockets_work_both_ways(kind) {
        let mut bench = Bench::new(kind);
        let folder = tempfile::tempdir().expect("a folder");
        let ours = folder.path().join("ours");
        let listener = UnixListener::bind(&ours).expect("binds");
        bench.reactor.listen(listener.into()).expect("listens");
        let mut client = UnixStream::connect(&ours).expect("connects");
        let near = match bench.next() {
            Event::Accepted { conn, peer, .. } => {
                assert_eq!(peer, Peer::Unix);
                conn
            }
            other => panic!("unexpected {other:?}"),
        };
        let theirs = folder.path().join("theirs");
        let backend = UnixListener::bind(&theirs).expect("binds");
        let far = bench.reactor.connect(&ServerAddress::Unix(theirs)).expect("begins");
        let (mut backend, _) = backend.accept().expect("accepts");
        assert!(matches!(bench.next(), Event::Connected { conn } if conn == far));
        client.write_all(b"there").expect("writes");
        let there = bench.receive(near, 5);
        bench.reactor.send_copy(far, &there);
        bench.turn(Duration::ZERO);
        let mut got = [0; 5];
        backend.read_exact(&mut got).expect("reads");
        assert_eq!(&got, b"there");
        backend.write_all(b"and back").expect("writes");
        drop(backend);
        assert_eq!(bench.receive(far, 8), b"and back");
        assert!(matches!(bench.next(), Event::Eof { conn } if conn == far));
    }

    fn a_full_unix_backlog_is_waited_for(kind) {
        let mut bench = Bench::new(kind);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("busy");
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&socket2::SockAddr::unix(&path).expect("a path")).expect("binds");
        socket.listen(0).expect("listens");
        let to = ServerAddress::Unix(path);
        let conns: Vec<_> =
            (0..3).map(|_| bench.reactor.connect(&to).expect("begins")).collect();
        bench.settle();
        assert!(bench.events.len() < conns.len(), "the backlog was never full");
        let accepting = std::thread::spawn(move || {
            (0..3).map(|_| socket.accept().expect("accepts").0).collect::<Vec<_>>()
        });
        let kept = bench.until_done(accepting);
        for _ in &conns {
            assert!(matches!(bench.next(), Event::Connected { .. }));
        }
        drop(kept);
    }

    fn a_waker_ends_a_turn_without_end(kind) {
        let mut bench = Bench::new(kind);
        let waker = bench.reactor.waker();
        for _ in 0..3 {
            let waker = waker.clone();
            let waking = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                waker.wake();
                waker.wake();
            });
            let mut events = Vec::new();
            while events.is_empty() {
                bench.reactor.turn(None, &mut events).expect("the turn works");
            }
            assert!(matches!(events.as_slice(), [Event::Woken]), "{events:?}");
            waking.join().expect("wakes");
            bench.settle();
            bench.events.clear(); // The second wake may count anew if the first was noticed before.
        }
        drop(bench);
        waker.wake();
    }

    fn a_stopped_listener_takes_no_more(kind) {
        let mut bench = Bench::new(kind);
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound");
        let listener = bench.reactor.listen(socket.into()).expect("listens");
        let mut before = TcpStream::connect(address).expect("connects");
        let conn = match bench.next() {
            Event::Accepted { conn, listener: on, peer } => {
                assert_eq!(on, listener);
                assert_eq!(peer, Peer::Tcp(before.local_addr().expect("connected")));
                conn
            }
            other => panic!("unexpected {other:?}"),
        };
        bench.reactor.stop_listening(listener);
        bench.settle();
        let refused = TcpStream::connect(address).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        before.write_all(b"still here").expect("writes");
        assert_eq!(bench.receive(conn, 10), b"still here");
    }
}
