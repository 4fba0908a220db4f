//! Bytes in, bytes out, and when they may not flow.

use super::*;

on_both_reactors! {
    fn echoes_what_it_is_sent(kind) {
        let mut bench = Bench::new(kind);
        let (client, conn) = bench.pair();
        let sent = pattern(3 << 20, 7);
        let expected = sent.clone();
        let mut writer = client.try_clone().expect("clones");
        let writing = std::thread::spawn(move || writer.write_all(&sent).expect("writes"));
        let mut reader = client;
        let reading = std::thread::spawn(move || {
            let mut back = vec![0; 3 << 20];
            reader.read_exact(&mut back).expect("reads");
            back
        });
        while !reading.is_finished() {
            if let Some(Event::Received { conn: on, buf }) = bench.events.pop_front() {
                assert_eq!(on, conn);
                bench.reactor.send(conn, buf);
            } else {
                bench.turn(Duration::from_millis(5));
            }
        }
        writing.join().expect("writes");
        assert!(reading.join().expect("reads") == expected, "the echo differs");
    }

    fn relays_64_mib_to_a_slow_reader_in_bounded_memory(kind) {
        const TOTAL: usize = 64 << 20;
        let options = Options::default();
        let mut bench = Bench::with(kind, options);
        let backend = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = backend.local_addr().expect("bound");
        let reading = std::thread::spawn(move || slow_sum(backend.accept().expect("accepts").0));
        let (mut client, near) = bench.pair();
        let far = bench.reactor.connect(&ServerAddress::Tcp(address)).expect("begins");
        assert!(matches!(bench.next(), Event::Connected { conn } if conn == far));
        let writing = std::thread::spawn(move || {
            let chunk = pattern(1 << 20, 99);
            for _ in 0..TOTAL >> 20 {
                client.write_all(&chunk).expect("writes");
            }
        });
        let (most, pauses) = relay(&mut bench, near, far, options.high_water);
        writing.join().expect("writes");
        let mut expected = Sum::default();
        let chunk = pattern(1 << 20, 99);
        (0..TOTAL >> 20).for_each(|_| expected.add(&chunk));
        assert_eq!(bench.until_done(reading), expected);
        assert!(pauses > 0, "the reader was not slow enough to tell anything");
        // What may come after the mark is passed on io_uring, which the kernel has given all its large blocks: those
        // that one turn fills, and those that were filled before the pause was heard and told with the resume.
        let given = 8 * options.large.block;
        assert!(most <= options.high_water + 2 * given, "{most} bytes were queued");
    }

    fn two_hundred_connections_at_once(kind) {
        const MANY: usize = 200;
        let mut bench = Bench::new(kind);
        let address = bench.listen();
        let clients = std::thread::spawn(move || {
            let mut clients: Vec<_> =
                (0..MANY).map(|_| TcpStream::connect(address).expect("connects")).collect();
            for round in 0..5 {
                for (client, seed) in clients.iter_mut().zip(1..) {
                    client.write_all(&pattern(1000, seed * 10 + round)).expect("writes");
                }
                for (client, seed) in clients.iter_mut().zip(1..) {
                    let mut back = vec![0; 1000];
                    client.read_exact(&mut back).expect("reads");
                    assert!(back == pattern(1000, seed * 10 + round), "bytes of another");
                }
            }
        });
        let mut accepted = std::collections::HashSet::new();
        let mut ended = 0;
        while ended < MANY {
            match bench.next() {
                Event::Accepted { conn, .. } => assert!(accepted.insert(conn)),
                Event::Received { conn, buf } => {
                    assert!(accepted.contains(&conn), "bytes before the connection");
                    bench.reactor.send_copy(conn, &buf);
                }
                Event::Eof { conn } => {
                    ended += 1;
                    bench.reactor.close(conn, Close::AfterFlush);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(accepted.len(), MANY);
        clients.join().expect("clients are well");
    }

    fn pausing_loses_nothing(kind) {
        let mut bench = Bench::new(kind);
        let (mut client, conn) = bench.pair();
        let sent = pattern(2 << 20, 3);
        let expected = sent.clone();
        let writing = std::thread::spawn(move || client.write_all(&sent).expect("writes"));
        let mut got = bench.receive(conn, 1);
        let mut ended = false;
        while got.len() < expected.len() {
            bench.reactor.pause(conn);
            bench.events.drain(..).for_each(|event| match event {
                Event::Received { buf, .. } => got.extend_from_slice(&buf),
                Event::Eof { .. } if got.len() == expected.len() => ended = true,
                other => panic!("unexpected {other:?}"),
            });
            bench.turn(Duration::from_millis(1));
            bench.turn(Duration::ZERO);
            assert!(bench.events.is_empty(), "{:?} while paused", bench.events);
            if got.len() < expected.len() {
                bench.reactor.resume(conn);
                got.extend(bench.receive(conn, 1));
            }
        }
        writing.join().expect("writes");
        assert!(got == expected, "the bytes differ");
        bench.reactor.resume(conn);
        assert!(ended || matches!(bench.next(), Event::Eof { .. }));
    }

    fn an_end_waits_for_the_resume(kind) {
        let mut bench = Bench::new(kind);
        let (mut client, conn) = bench.pair();
        bench.reactor.pause(conn);
        bench.settle();
        client.write_all(b"words").expect("writes");
        drop(client);
        bench.settle();
        assert!(bench.events.is_empty(), "{:?} while paused", bench.events);
        bench.reactor.resume(conn);
        bench.reactor.pause(conn);
        bench.reactor.resume(conn);
        assert_eq!(bench.receive(conn, 5), b"words");
        assert!(matches!(bench.next(), Event::Eof { conn: on } if on == conn));
    }

    fn an_expected_message_comes_in_large_pieces(kind) {
        const LEN: usize = 4 << 20;
        let mut bench = Bench::new(kind);
        let (mut client, conn) = bench.pair();
        let writing = std::thread::spawn(move || {
            client.write_all(&pattern(LEN, 5)).expect("writes");
            client
        });
        let mut got = bench.receive(conn, 1);
        bench.reactor.expect(conn, (LEN - got.len()).try_into().expect("fits"));
        let mut largest = 0;
        while got.len() < LEN {
            match bench.next() {
                Event::Received { buf, .. } => {
                    largest = largest.max(buf.len());
                    got.extend_from_slice(&buf);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert!(got == pattern(LEN, 5), "the bytes differ");
        assert!(largest > 16 << 10, "no piece above {largest} bytes");
        writing.join().expect("writes");
    }

    fn without_blocks_nothing_comes_and_nothing_is_lost(kind) {
        let mut options = Options::default();
        options.small.blocks = 4;
        options.large.blocks = 0;
        let mut bench = Bench::with(kind, options);
        let (mut client, conn) = bench.pair();
        let sent = pattern(1 << 20, 11);
        let expected = sent.clone();
        let writing = std::thread::spawn(move || {
            client.write_all(&sent).expect("writes");
            client
        });
        let mut got = Vec::new();
        while got.len() < expected.len() {
            bench.settle();
            let held: Vec<_> = bench.events.drain(..).collect();
            let bytes: usize = held.iter().map(|event| match event {
                Event::Received { buf, .. } => buf.len(),
                other => panic!("unexpected {other:?}"),
            }).sum();
            assert!(bytes <= 4 * options.small.block, "{bytes} bytes in 4 blocks");
            for event in &held {
                match event {
                    Event::Received { conn: on, buf } if *on == conn => got.extend_from_slice(buf),
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        assert!(got == expected, "the bytes differ");
        writing.join().expect("writes");
    }

    fn small_copies_and_views_leave_in_order(kind) {
        let mut bench = Bench::new(kind);
        let (mut client, conn) = bench.pair();
        let mut expected = Vec::new();
        for at in 0..2000_usize {
            let piece = pattern(at % 97 + 1, u64::try_from(at).expect("fits"));
            expected.extend_from_slice(&piece);
            if at % 3 == 0 {
                bench.reactor.send(conn, Buf::from_vec(piece));
            } else {
                bench.reactor.send_copy(conn, &piece);
            }
            if at % 100 == 0 {
                bench.turn(Duration::ZERO);
            }
        }
        bench.reactor.close(conn, Close::AfterFlush);
        let reading = std::thread::spawn(move || {
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("reads");
            back
        });
        assert!(bench.until_done(reading) == expected, "the bytes differ");
    }
}

/// A checksum that knows the order of the bytes.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    hash: u64,
    len: usize,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        for byte in bytes {
            self.hash = self.hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte);
        }
    }
}

/// Reads to the end, with a rest after every MiB.
fn slow_sum(mut stream: TcpStream) -> Sum {
    let mut sum = Sum::default();
    let mut chunk = vec![0; 64 << 10];
    let mut rest_at = 0;
    loop {
        let count = stream.read(&mut chunk).expect("reads");
        if count == 0 {
            return sum;
        }
        sum.add(&chunk[..count]);
        if sum.len > rest_at {
            rest_at += 1 << 20;
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

/// Relays from `near` to `far` until `near` ends; answers the most that was queued and how often it had to pause.
fn relay(bench: &mut Bench, near: ConnId, far: ConnId, high_water: usize) -> (usize, usize) {
    let (mut most, mut pauses) = (0, 0);
    loop {
        match bench.next() {
            Event::Received { conn, buf } if conn == near => {
                bench.reactor.send(far, buf);
                let queued = bench.reactor.queued(far);
                most = most.max(queued);
                if queued > high_water {
                    pauses += 1;
                    bench.reactor.pause(near);
                }
            }
            Event::Drained { conn } if conn == far => bench.reactor.resume(near),
            Event::Eof { conn } if conn == near => {
                bench.reactor.close(far, Close::AfterFlush);
                return (most, pauses);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}
