//! Bytes cut, changed or invented.

use super::*;

/// A client's bytes up to and with its first words, as flights between which the server answers.
fn finish(wire: &mut Wire) -> bool {
    for _ in 0..8 {
        let flight = wire.flight();
        if flight.is_empty() {
            return !wire.server.is_handshaking();
        }
        let (result, out) = wire.feed(&flight);
        if result.is_err() || wire.answer(&out).is_err() {
            return false;
        }
    }
    false
}

/// Hands the server one flight in pieces, and the client the answer.
fn feed_pieces<'a>(wire: &mut Wire, pieces: impl IntoIterator<Item = &'a [u8]>) {
    let mut answer = Vec::new();
    for piece in pieces {
        let (result, out) = wire.feed(piece);
        result.expect("half a message is no error");
        answer.extend(out);
    }
    wire.answer(&answer).expect("the client is content");
}

#[test]
fn a_flight_may_be_cut_anywhere() {
    let site = Site::ecdsa();
    for version in [TLS12, TLS13] {
        let client = site.client(version);
        // The first connection is a full handshake, the others resume: their first flight is the larger one.
        let mut at = 0;
        loop {
            let mut wire = Wire::new(&site, client.clone());
            wire.shared = at % 2 == 1;
            let hello = wire.flight();
            if at > hello.len() {
                break;
            }
            let (head, tail) = hello.split_at(at);
            feed_pieces(&mut wire, [head, tail]);
            for _ in 0..3 {
                let flight = wire.flight();
                feed_pieces(&mut wire, flight.chunks(at.max(1)));
            }
            wire.client.writer().write_all(b"words").expect("takes it");
            wire.client.send_close_notify();
            let flight = wire.flight();
            feed_pieces(&mut wire, flight.chunks(at.max(1)));
            assert_eq!(wire.heard, b"words", "cut at {at}");
            assert!(wire.server.peer_closed());
            assert!(wire.server.pending.is_empty());
            at += 1;
        }
        assert!(at > 100, "a hello of {at} bytes");
    }
}

#[test]
fn a_changed_byte_ends_the_connection_or_changes_nothing() {
    let site = Site::ecdsa();
    for version in [TLS12, TLS13] {
        let mut client = site.client(version);
        client.resumption = rustls::client::Resumption::disabled();
        let hello = Wire::new(&site, client.clone()).flight();
        for at in 0..hello.len() {
            if at == 1 || at == 2 {
                continue; // The record's version, which RFC 8446 section 5.1 has us ignore.
            }
            let mut wire = Wire::new(&site, client.clone());
            let mut hello = wire.flight();
            let Some(byte) = hello.get_mut(at) else {
                continue;
            };
            *byte ^= 0x41;
            let (result, out) = wire.feed(&hello);
            if result.is_err() {
                assert_eq!(wire.server.handshake_outcome(), Some(Handshake::Failed));
                assert!(matches!(wire.feed(b"more").0, Err(TlsError::Closed)));
            } else if wire.answer(&out).is_ok() {
                assert!(
                    !finish(&mut wire),
                    "shook hands over a changed byte at {at}"
                );
            }
        }
    }
}

#[test]
fn a_changed_record_is_refused_with_an_alert() {
    let site = Site::ecdsa();
    for version in [TLS12, TLS13] {
        let mut wire = Wire::new(&site, site.client(version));
        wire.settle();
        wire.client.writer().write_all(b"before").expect("takes it");
        let mut flight = wire.flight();
        wire.client.writer().write_all(b"secret").expect("takes it");
        let mut changed = wire.flight();
        *changed.last_mut().expect("not empty") ^= 1;
        flight.extend(changed);
        let (result, out) = wire.feed(&flight);
        assert!(matches!(
            result,
            Err(TlsError::Protocol(rustls::Error::DecryptError))
        ));
        assert_eq!(wire.heard, b"before", "what came whole is heard");
        let told = wire.answer(&out).expect_err("an alert came");
        assert!(format!("{told:?}").contains("BadRecordMac"), "{told:?}");
        assert!(!matches!(
            wire.server.handshake_outcome(),
            Some(Handshake::Failed)
        ));
        assert!(matches!(
            wire.server.send(b"x", &mut Vec::new()),
            Err(TlsError::Closed)
        ));
    }
}

#[test]
fn what_is_no_tls_is_refused_at_once() {
    let site = Site::ecdsa();
    let mut startup = vec![0, 0, 0, 41, 0, 3, 0, 0];
    startup.extend(b"user\0x\0database\0x\0\0");
    let oversized = [22, 3, 1, 0xff, 0xff, 1, 0];
    let mut empty = [22, 3, 3, 0, 0].repeat(100);
    empty.extend([0; 10]);
    for (what, bytes) in [
        ("HTTP", &b"GET / HTTP/1.1\r\n\r\n"[..]),
        ("a startup message", &startup),
        ("a huge record", &oversized),
        ("empty records", &empty),
        ("zeroes", &[0; 5000]),
        ("data before the handshake", &[23, 3, 3, 0, 4, 1, 2, 3, 4]),
    ] {
        let mut wire = Wire::new(&site, site.client(TLS13));
        let (result, out) = wire.feed(bytes);
        assert!(result.is_err(), "{what} was taken");
        assert!(out.len() < 100, "{} bytes for {what}", out.len());
    }
}

#[test]
fn noise_never_panics_and_is_never_kept_for_long() {
    let site = Site::ecdsa();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..300 {
        let mut wire = Wire::new(
            &site,
            site.client(if round % 2 == 0 { TLS12 } else { TLS13 }),
        );
        if round % 3 > 0 {
            wire.settle();
        }
        for _ in 0..20 {
            let mut noise: Vec<u8> = (0..round * 3 + 1)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[0]
                })
                .collect();
            if let [kind, major, minor, high, ..] = noise.as_mut_slice() {
                (*kind, *major, *minor, *high) = (20 + *kind % 4, 3, 3, *high % 2);
            }
            if wire.feed(&noise).0.is_err() {
                break;
            }
            assert!(wire.server.pending.len() < 1024 + noise.len());
            let _ = wire.server.send(b"in between", &mut Vec::new());
        }
    }
}

#[test]
fn an_endless_handshake_message_is_cut_off() {
    let site = Site::ecdsa();
    let mut wire = Wire::new(&site, site.client(TLS13));
    // A ClientHello that claims 65,535 bytes, in records of one byte each.
    let mut kept = 0;
    let mut fed = 0;
    let hello = [1, 0, 0xff, 0xff];
    for at in 0..200_000 {
        let byte = hello.get(at).copied().unwrap_or(7);
        fed += 1;
        if wire.feed(&[22, 3, 1, 0, 1, byte]).0.is_err() {
            break;
        }
        kept = kept.max(wire.server.pending.len());
    }
    assert!(fed < 70_000, "taken for {fed} records");
    assert!(kept <= 100 << 10, "{kept} bytes were kept");
}

#[test]
fn a_half_handshake_message_does_not_disturb_sending() {
    // The library remembers where in the pending bytes it was.
    let site = Site::ecdsa();
    let mut wire = Wire::new(&site, site.client(TLS13));
    wire.feed(&[22, 3, 1, 0, 1, 1]).0.expect("a first byte");
    assert!(!wire.server.pending.is_empty());
    let sent = wire.server.send(b"hasty", &mut Vec::new());
    assert!(matches!(sent, Err(TlsError::HandshakeNotComplete)));
    wire.server.close_notify(&mut Vec::new());
}

#[test]
fn half_a_record_does_not_disturb_sending() {
    let site = Site::ecdsa();
    for version in [TLS12, TLS13] {
        let mut wire = Wire::new(&site, site.client(version));
        wire.settle();
        wire.client.writer().write_all(b"whole").expect("takes it");
        let mut flight = wire.flight();
        wire.client.writer().write_all(b"cut").expect("takes it");
        let second = wire.flight();
        let (head, tail) = second.split_at(second.len() - 2);
        flight.extend_from_slice(head);
        wire.feed(&flight).0.expect("content");
        assert!(!wire.server.pending.is_empty());
        assert_eq!(wire.reply(&[b"meanwhile"]).1, b"meanwhile");
        wire.feed(tail).0.expect("content");
        assert_eq!(wire.heard, b"wholecut");
        assert!(wire.server.pending.is_empty());
        assert_eq!(wire.reply(&[b"after"]).1, b"after");
    }
}
