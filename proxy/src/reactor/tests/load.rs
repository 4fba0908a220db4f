//! Much at once: what is lost, doubled, mixed up or used after it was freed shows here.

use std::collections::{HashMap, HashSet};

use super::*;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// A size as messages have it: mostly small, sometimes more than several blocks.
    fn size(&mut self) -> usize {
        let most = 1 << (1 + self.below(18));
        usize::try_from(1 + self.below(most)).expect("fits")
    }
}

/// A client of an echo server: sends messages of random sizes and checks what comes back; some clients read slowly,
/// some leave without reading. Answers whether it stayed to the end.
fn chat(address: SocketAddr, seed: u64) -> bool {
    let mut dice = Dice(seed * 7919 + 1);
    let mut stream = TcpStream::connect(address).expect("connects");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    let rounds = 5 + dice.below(10);
    for round in 0..rounds {
        let message = pattern(dice.size(), seed * 1000 + round);
        let mut writer = stream.try_clone().expect("clones");
        let expected = message.clone();
        let writing = std::thread::spawn(move || writer.write_all(&message).is_ok());
        if seed.is_multiple_of(9) && round == 3 {
            let mut some = vec![0; expected.len() / 2];
            stream.read_exact(&mut some).expect("reads");
            drop(stream); // The writer goes on and breaks off.
            let _ = writing.join();
            return false;
        }
        let mut back = vec![0; expected.len()];
        for piece in back.chunks_mut(if seed.is_multiple_of(5) {
            10_000
        } else {
            1 << 20
        }) {
            stream.read_exact(piece).expect("reads");
            if seed.is_multiple_of(5) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(back == expected, "client {seed} got other bytes back");
        assert!(writing.join().expect("writes"));
    }
    true
}

/// Echoes on all connections until `clients` have come and gone.
fn echo(bench: &mut Bench, clients: usize, high_water: usize) {
    let mut open: HashSet<ConnId> = HashSet::new();
    let (mut seen, mut turns) = (0, 0_u64);
    while seen < clients || !open.is_empty() {
        turns += 1;
        match bench.next() {
            Event::Accepted { conn, .. } => {
                assert!(open.insert(conn), "an id in use");
                seen += 1;
            }
            Event::Received { conn, buf } => {
                if !open.contains(&conn) {
                    continue; // It was closed while this event waited.
                }
                assert!(!buf.is_empty());
                if turns.is_multiple_of(3) {
                    bench.reactor.expect(conn, 200_000);
                }
                if buf.len() < 500 {
                    bench.reactor.send_copy(conn, &buf);
                } else {
                    let mut rest = buf;
                    let head = rest.split_to(rest.len() / 3);
                    bench.reactor.send(conn, head);
                    bench.reactor.send(conn, rest);
                }
                if bench.reactor.queued(conn) > high_water {
                    bench.reactor.pause(conn);
                }
            }
            Event::Drained { conn } => bench.reactor.resume(conn),
            Event::Eof { conn } => {
                if open.remove(&conn) {
                    bench.reactor.close(
                        conn,
                        if turns.is_multiple_of(2) {
                            Close::Now
                        } else {
                            Close::AfterFlush
                        },
                    );
                }
            }
            Event::Failed { conn, .. } => {
                open.remove(&conn);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

fn many_chats(mut bench: Bench, high_water: usize, send_buffer: Option<usize>) {
    const CLIENTS: usize = 60;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    if let Some(bytes) = send_buffer {
        // Connections inherit it.
        socket2::SockRef::from(&socket)
            .set_send_buffer_size(bytes)
            .expect("a size");
    }
    let address = socket.local_addr().expect("bound");
    bench.reactor.listen(socket.into()).expect("listens");
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|seed| std::thread::spawn(move || chat(address, seed.try_into().expect("fits"))))
        .collect();
    echo(&mut bench, CLIENTS, high_water);
    let stayed = clients
        .into_iter()
        .map(|client| client.join().expect("content"));
    assert!(stayed.filter(|stayed| *stayed).count() > CLIENTS / 2);
}

on_both_reactors! {
    fn every_client_gets_its_own_bytes_back(kind) {
        many_chats(Bench::new(kind), Options::default().high_water, None);
    }

    fn also_when_blocks_are_few(kind) {
        let mut options = Options { high_water: 40_000, low_water: 10_000, ..Options::default() };
        options.small.blocks = 24;
        options.small.keep = 4;
        options.large.blocks = 2;
        options.large.keep = 1;
        many_chats(Bench::with(kind, options), options.high_water, None);
    }

    fn also_when_sockets_take_little_at_a_time(kind) {
        many_chats(Bench::new(kind), Options::default().high_water, Some(4096));
    }

    fn unix_sockets_take_large_sends_in_parts(kind) {
        let mut bench = Bench::new(kind);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ours");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        bench.reactor.listen(listener.into()).expect("listens");
        let client = std::os::unix::net::UnixStream::connect(&path).expect("connects");
        let sent = pattern(8 << 20, 21);
        let expected = sent.clone();
        let mut writer = client.try_clone().expect("clones");
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).expect("writes");
            writer.shutdown(std::net::Shutdown::Write).expect("shuts down");
        });
        let mut reader = client;
        let reading = std::thread::spawn(move || {
            let mut back = Vec::new();
            reader.read_to_end(&mut back).expect("reads");
            back
        });
        while !reading.is_finished() {
            match bench.events.pop_front() {
                None => bench.turn(Duration::from_millis(5)),
                Some(Event::Received { conn, buf }) => bench.reactor.send(conn, buf),
                Some(Event::Eof { conn }) => bench.reactor.close(conn, Close::AfterFlush),
                Some(_) => {}
            }
        }
        writing.join().expect("writes");
        assert!(reading.join().expect("reads") == expected, "the echo differs");
    }

    fn connections_that_come_and_go_do_not_meet(kind) {
        let mut bench = Bench::new(kind);
        let address = bench.listen();
        let clients = std::thread::spawn(move || {
            for round in 0..400_u64 {
                let mut stream = TcpStream::connect(address).expect("connects");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
                let words = pattern(64 + usize::try_from(round % 50).expect("fits") * 700, round);
                stream.write_all(&words).expect("writes");
                if round % 3 == 0 {
                    continue; // Leaves at once.
                }
                let mut back = vec![0; words.len()];
                stream.read_exact(&mut back).expect("reads");
                assert!(back == words, "bytes of another in round {round}");
            }
        });
        let mut sent: HashMap<ConnId, usize> = HashMap::new();
        while !clients.is_finished() {
            match bench.events.pop_front() {
                None => bench.turn(Duration::from_millis(5)),
                Some(Event::Received { conn, buf }) => {
                    *sent.entry(conn).or_default() += buf.len();
                    bench.reactor.send(conn, buf);
                }
                Some(Event::Eof { conn }) => {
                    // A large block that nobody will take is on its way when the connection is closed.
                    bench.reactor.send(conn, Buf::from_vec(pattern(1 << 20, 1)));
                    bench.turn(Duration::ZERO);
                    bench.reactor.close(conn, Close::Now);
                }
                Some(_) => {}
            }
        }
        clients.join().expect("clients are content");
        assert!(sent.len() > 200);
    }

    fn a_reactor_with_much_under_way_can_be_dropped(kind) {
        let mut bench = Bench::new(kind);
        let address = bench.listen();
        let mut clients = Vec::new();
        let mut kept = Vec::new();
        for seed in 0..20 {
            let mut client = TcpStream::connect(address).expect("connects");
            client.write_all(&pattern(10_000, seed)).expect("writes");
            clients.push(client);
        }
        for _ in 0..20 {
            bench.turn(Duration::from_millis(5));
        }
        for event in bench.events.drain(..).collect::<Vec<_>>() {
            if let Event::Received { conn, buf } = event {
                bench.reactor.send(conn, Buf::from_vec(pattern(8 << 20, 1)));
                kept.push(buf);
            }
        }
        bench.turn(Duration::ZERO);
        let before: Vec<Vec<u8>> = kept.iter().map(|buf| buf.to_vec()).collect();
        drop(bench);
        for client in &mut clients {
            let _ = client.write_all(&[0xff; 10_000]);
            client.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
            let mut sink = vec![0; 1 << 20];
            while client.read(&mut sink).is_ok_and(|count| count > 0) {}
        }
        assert!(!kept.is_empty());
        assert!(kept.iter().zip(&before).all(|(buf, before)| **buf == **before), "bytes changed");
    }
}

#[test]
fn also_when_the_queues_overflow_and_blocks_are_not_shared() {
    if let Err(why) = available() {
        eprintln!("not tested: {why}");
        return;
    }
    let options = Options::default();
    let reactor = UringReactor::cramped(options).expect("io_uring works");
    many_chats(Bench::on(Box::new(reactor)), options.high_water, None);
}
