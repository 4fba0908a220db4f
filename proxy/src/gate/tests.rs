use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use control_store::DatabaseId;
use control_store::traffic::HoldBudget;

use super::{Change, Gate, Gates, Refused};

const SMALL: HoldBudget = HoldBudget {
    time: Duration::from_secs(1),
    bytes: 100,
};

#[test]
fn a_statement_enters_while_nothing_changed() {
    let gate = Gate::default();
    let seen = gate.word();
    assert_eq!(gate.enter(seen), Ok(()));
    assert_eq!(gate.enter(seen), Ok(()));
    assert_eq!(gate.in_flight(), 2);
    gate.leave();
    assert_eq!(gate.in_flight(), 1);
}

#[test]
fn a_refresh_sends_each_session_to_the_snapshot_once() {
    let gate = Gate::default();
    let seen = gate.word();
    gate.refresh();
    let newer = gate.word();
    assert_eq!(gate.enter(seen), Err(Refused::Changed(newer)));
    assert_eq!(gate.in_flight(), 0, "a refused statement is not counted");
    assert_eq!(gate.enter(newer), Ok(()));
}

#[test]
fn a_hold_stops_new_statements_and_a_release_makes_them_look_again() {
    let gate = Gate::default();
    let seen = gate.word();
    assert_eq!(gate.enter(seen), Ok(()));
    gate.hold(SMALL);
    assert_eq!(gate.enter(seen), Err(Refused::Held));
    assert_eq!(
        gate.enter(gate.word()),
        Err(Refused::Held),
        "the newest word does not open a held gate"
    );
    assert_eq!(gate.in_flight(), 1, "what runs goes on");
    gate.leave();
    assert!(gate.release());
    assert!(!gate.release(), "the second release finds nothing held");
    assert!(
        matches!(gate.enter(seen), Err(Refused::Changed(_))),
        "the route may be another one now"
    );
    assert_eq!(gate.enter(gate.word()), Ok(()));
}

#[test]
fn a_change_during_a_hold_keeps_it_held() {
    let gate = Gate::default();
    gate.hold(SMALL);
    gate.refresh();
    gate.hold(HoldBudget {
        time: Duration::from_secs(7),
        ..SMALL
    });
    assert!(gate.word().is_held());
    assert_eq!(gate.hold_time(), Duration::from_secs(7));
}

#[test]
fn held_bytes_keep_to_their_budget() {
    let gate = Gate::default();
    gate.hold(SMALL);
    assert!(gate.reserve_bytes(60));
    assert!(!gate.reserve_bytes(41));
    assert!(!gate.reserve_bytes(u64::MAX), "no overflow");
    assert!(gate.reserve_bytes(40));
    gate.free_bytes(60);
    assert!(gate.reserve_bytes(60));
}

/// Invariant 3: once the controller has seen a drained gate, no statement is inside until the release.
#[test]
fn nothing_is_inside_a_drained_gate() {
    let gate = Gate::default();
    let inside = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let entered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seen = gate.word();
                    if gate.enter(seen).is_ok() {
                        inside.fetch_add(1, Ordering::SeqCst);
                        entered.fetch_add(1, Ordering::Relaxed);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        gate.leave();
                    } else {
                        // A held session waits for the release; one that spun here would keep the count from zero.
                        std::thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..500 {
            gate.hold(SMALL);
            while gate.in_flight() > 0 {
                std::thread::yield_now();
            }
            // Late arrivals count themselves in for a moment, but none may get past the word.
            for _ in 0..20 {
                assert_eq!(inside.load(Ordering::SeqCst), 0);
            }
            gate.release();
            std::thread::yield_now();
        }
        // The test proves nothing unless statements did run between the holds.
        while entered.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn workers_hear_of_releases_and_refreshes() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let gates = {
        let heard = Arc::clone(&heard);
        Gates::new(move |change| heard.lock().unwrap().push(change))
    };
    let database = DatabaseId(7);
    gates.release(database);
    gates.refresh(database);
    assert!(
        heard.lock().unwrap().is_empty(),
        "a database without a gate has nobody to tell"
    );

    gates.hold(database, SMALL);
    assert!(
        gates.gate(database).word().is_held(),
        "a session that logs in during a hold finds it"
    );
    gates.release(database);
    gates.refresh(database);
    assert_eq!(
        *heard.lock().unwrap(),
        [Change::Released(database), Change::Refreshed(database)]
    );
}

#[test]
fn unused_gates_are_swept_and_used_or_held_ones_stay() {
    let gates = Gates::new(|_| {});
    let used = gates.gate(DatabaseId(1));
    gates.hold(DatabaseId(2), SMALL);
    for id in 3..10_000 {
        gates.gate(DatabaseId(id));
    }
    assert!(gates.len() < 3_000, "{} gates are left", gates.len());
    used.enter(used.word()).unwrap();
    assert_eq!(
        gates.in_flight(DatabaseId(1)),
        1,
        "the session's gate is still the registered one"
    );
    assert!(gates.gate(DatabaseId(2)).word().is_held());
}
