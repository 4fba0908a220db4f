//! Every way a connection can end.

use super::*;

on_both_reactors! {
    fn half_closed_peers_get_their_answer(kind) {
        let mut bench = Bench::new(kind);
        let (mut client, conn) = bench.pair();
        client.write_all(b"question").expect("writes");
        client.shutdown(std::net::Shutdown::Write).expect("shuts down");
        assert_eq!(bench.receive(conn, 8), b"question");
        assert!(matches!(bench.next(), Event::Eof { conn: on } if on == conn));
        bench.settle();
        assert!(bench.events.is_empty(), "an end is told once");
        bench.reactor.send_copy(conn, b"answer");
        bench.reactor.close(conn, Close::AfterFlush);
        let reading = std::thread::spawn(move || {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).expect("reads");
            answer
        });
        assert_eq!(bench.until_done(reading), b"answer");
    }

    fn a_reset_is_a_failure(kind) {
        let mut bench = Bench::new(kind);
        let (client, conn) = bench.pair();
        reset(client);
        match bench.next() {
            Event::Failed { conn: on, error } => {
                assert_eq!(on, conn);
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn a_reset_after_a_half_close_is_a_failure(kind) {
        let mut bench = Bench::new(kind);
        let (client, conn) = bench.pair();
        client.shutdown(std::net::Shutdown::Write).expect("shuts down");
        assert!(matches!(bench.next(), Event::Eof { .. }));
        reset(client);
        // io_uring tells at the next write, epoll at once.
        bench.reactor.send_copy(conn, b"answer");
        bench.turn(Duration::from_millis(5));
        bench.reactor.send_copy(conn, b"answer");
        assert!(matches!(bench.next(), Event::Failed { conn: on, .. } if on == conn));
    }

    fn closing_now_drops_what_is_in_flight(kind) {
        let mut bench = Bench::new(kind);
        let (mut client, conn) = bench.pair();
        let len = 32 << 20;
        bench.reactor.send(conn, Buf::from_vec(pattern(len, 1)));
        bench.settle();
        assert!(bench.reactor.queued(conn) > 0, "more than the kernel takes");
        bench.reactor.close(conn, Close::Now);
        assert_eq!(bench.reactor.queued(conn), 0);
        bench.reactor.send_copy(conn, b"to nobody");
        bench.reactor.pause(conn);
        bench.reactor.resume(conn);
        bench.reactor.close(conn, Close::AfterFlush);
        let reading = std::thread::spawn(move || {
            let mut back = Vec::new();
            let _ = client.read_to_end(&mut back);
            back
        });
        let back = bench.until_done(reading);
        assert!(back.len() < len, "all of it came");
        assert!(back == pattern(len, 1)[..back.len()], "what came differs");
        assert!(bench.events.is_empty(), "{:?} after the close", bench.events);
        still_serves(&mut bench, conn);
    }

    fn closing_after_flush_delivers_everything(kind) {
        let mut bench = Bench::new(kind);
        let (mut client, conn) = bench.pair();
        // Bytes that nobody reads would reset the connection if it were closed at once.
        client.write_all(b"unread").expect("writes");
        let len = 16 << 20;
        bench.reactor.send(conn, Buf::from_vec(pattern(len, 2)));
        bench.reactor.close(conn, Close::AfterFlush);
        client.write_all(b"more unread").expect("writes");
        let reading = std::thread::spawn(move || {
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("the end comes in order");
            back
        });
        assert!(bench.until_done(reading) == pattern(len, 2), "the bytes differ");
        assert!(bench.events.is_empty(), "{:?} after the close", bench.events);
    }

    fn a_peer_that_does_not_read_is_cut_off(kind) {
        let within = Duration::from_millis(50);
        let options = Options { close_within: within, ..Options::default() };
        let mut bench = Bench::with(kind, options);
        let (mut client, conn) = bench.pair();
        let len = 32 << 20;
        bench.reactor.send(conn, Buf::from_vec(pattern(len, 2)));
        let from = Instant::now();
        bench.reactor.close(conn, Close::AfterFlush);
        while from.elapsed() < within * 2 {
            bench.turn(within);
        }
        bench.turn(Duration::ZERO);
        let reading = std::thread::spawn(move || {
            let mut back = Vec::new();
            let _ = client.read_to_end(&mut back);
            back.len()
        });
        assert!(bench.until_done(reading) < len, "it was not cut off");
    }

    fn a_connection_in_the_making_can_be_closed(kind) {
        let mut bench = Bench::new(kind);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        socket.bind(&any.into()).expect("binds");
        socket.listen(0).expect("listens");
        let address = socket.local_addr().expect("bound").as_socket().expect("TCP");
        let conns: Vec<_> = (0..8)
            .map(|_| bench.reactor.connect(&ServerAddress::Tcp(address)).expect("begins"))
            .collect();
        bench.settle();
        assert!(bench.events.len() < conns.len(), "nobody waits");
        bench.events.clear();
        for (conn, now) in conns.into_iter().zip([true, false].into_iter().cycle()) {
            bench.reactor.send_copy(conn, b"queued");
            bench.reactor.close(conn, if now { Close::Now } else { Close::AfterFlush });
        }
        bench.settle();
        assert!(bench.events.is_empty(), "{:?} after the close", bench.events);
    }

    fn last_words_come_before_the_failure(kind) {
        let mut bench = Bench::new(kind);
        let (mut client, conn) = bench.pair();
        bench.reactor.send_copy(conn, b"unread by the peer");
        bench.turn(Duration::ZERO);
        client.peek(&mut [0; 1]).expect("our bytes came");
        client.write_all(b"FATAL").expect("writes");
        drop(client); // With bytes unread: a reset follows the words.
        std::thread::sleep(Duration::from_millis(5));
        bench.reactor.send_copy(conn, b"to a peer that is gone");
        let mut words = Vec::new();
        loop {
            match bench.next() {
                Event::Received { buf, .. } => words.extend_from_slice(&buf),
                Event::Failed { .. } | Event::Eof { .. } => break,
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(words, b"FATAL");
    }
}

/// Ends a connection with a reset.
fn reset(client: TcpStream) {
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("lingers");
    drop(client);
}

/// A new connection works and has an id of its own.
fn still_serves(bench: &mut Bench, old: ConnId) {
    let (mut client, conn) = bench.pair();
    assert_ne!(conn, old);
    client.write_all(b"again").expect("writes");
    bench.reactor.send_copy(old, b"stale");
    assert_eq!(bench.receive(conn, 5), b"again");
    bench.reactor.send_copy(conn, b"fresh");
    bench.turn(Duration::ZERO);
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("reads");
    assert_eq!(&back, b"fresh");
}
