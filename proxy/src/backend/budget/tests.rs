use std::time::{Duration, Instant};

use control_store::DatabaseId;

use super::{Answer, Budget, Grant, TURN, Ticket, Verdict, WorkerId};

const BUSY: DatabaseId = DatabaseId(1);
const QUIET: DatabaseId = DatabaseId(2);
const WORKER: WorkerId = WorkerId(0);

fn queued(budget: &Budget, now: Instant, database: DatabaseId) -> Ticket {
    match budget.request(now, WORKER, database) {
        Answer::Queued(ticket) => ticket,
        other => panic!("expected to wait, got {other:?}"),
    }
}

fn granted(budget: &Budget, now: Instant, database: DatabaseId) {
    assert_eq!(budget.request(now, WORKER, database), Answer::Granted);
}

#[test]
fn the_limit_holds_and_a_closed_connection_serves_who_waits() {
    let (budget, now) = (Budget::new(2, 10), Instant::now());
    granted(&budget, now, BUSY);
    granted(&budget, now, BUSY);
    let first = queued(&budget, now, BUSY);
    let second = queued(&budget, now, BUSY);
    assert_eq!(
        budget.closed(BUSY),
        Some(Grant {
            worker: WORKER,
            database: BUSY,
            ticket: first
        })
    );
    assert_eq!(
        budget.closed(BUSY),
        Some(Grant {
            worker: WORKER,
            database: BUSY,
            ticket: second
        })
    );
    assert_eq!(budget.closed(BUSY), None);
    assert_eq!((budget.open(), budget.waiting()), (1, 0));
}

#[test]
fn a_thousand_waiters_of_one_database_delay_another_by_one_turn() {
    let (budget, now) = (Budget::new(4, 10_000), Instant::now());
    for _ in 0..4 {
        granted(&budget, now, BUSY);
    }
    for _ in 0..1_000 {
        queued(&budget, now, BUSY);
    }
    let quiet = queued(&budget, now, QUIET);
    assert_eq!(
        budget.freed(now, BUSY),
        Verdict::Yield,
        "four of four is more than a share of two"
    );
    assert_eq!(
        budget.closed(BUSY).map(|grant| grant.ticket),
        Some(quiet),
        "served before the thousand"
    );
    assert_eq!(
        budget.freed(now, BUSY),
        Verdict::Keep,
        "nobody else waits now"
    );
}

#[test]
fn a_database_within_its_share_keeps_its_connections() {
    let (budget, now) = (Budget::new(4, 10), Instant::now());
    for _ in 0..2 {
        granted(&budget, now, BUSY);
        granted(&budget, now, QUIET);
    }
    queued(&budget, now, QUIET);
    assert_eq!(budget.freed(now + TURN * 10, BUSY), Verdict::Keep);
}

#[test]
fn with_more_databases_than_connections_each_gets_its_turn() {
    let (budget, start) = (Budget::new(1, 100), Instant::now());
    granted(&budget, start, BUSY);
    let quiet = queued(&budget, start, QUIET);
    assert_eq!(
        budget.freed(start, BUSY),
        Verdict::Keep,
        "not before its turn is over"
    );
    let later = start + TURN;
    assert_eq!(budget.freed(later, BUSY), Verdict::Yield);
    let again = queued(&budget, later, BUSY);
    assert_eq!(budget.closed(BUSY).map(|grant| grant.ticket), Some(quiet));
    assert_eq!(budget.freed(later + TURN, QUIET), Verdict::Yield);
    assert_eq!(budget.closed(QUIET).map(|grant| grant.ticket), Some(again));
}

#[test]
fn newcomers_do_not_overtake_those_who_wait() {
    let (budget, now) = (Budget::new(1, 10), Instant::now());
    granted(&budget, now, BUSY);
    let first = queued(&budget, now, QUIET);
    let raised = budget.set_limit(2);
    assert_eq!(
        raised,
        [Grant {
            worker: WORKER,
            database: QUIET,
            ticket: first
        }]
    );
    queued(&budget, now, DatabaseId(3));
}

#[test]
fn a_cancelled_request_is_never_granted() {
    let (budget, now) = (Budget::new(1, 10), Instant::now());
    granted(&budget, now, BUSY);
    let gone = queued(&budget, now, QUIET);
    let stays = queued(&budget, now, QUIET);
    assert!(budget.cancel(QUIET, gone));
    assert!(!budget.cancel(QUIET, gone), "only once");
    assert_eq!(budget.closed(BUSY).map(|grant| grant.ticket), Some(stays));
    assert!(!budget.cancel(QUIET, stays), "its grant is on its way");
    assert_eq!(budget.closed(QUIET), None);
    assert_eq!((budget.open(), budget.waiting()), (0, 0));
}

#[test]
fn the_number_of_waiters_is_bounded() {
    let (budget, now) = (Budget::new(1, 2), Instant::now());
    granted(&budget, now, BUSY);
    queued(&budget, now, BUSY);
    queued(&budget, now, QUIET);
    assert_eq!(budget.request(now, WORKER, QUIET), Answer::Full);
}

#[test]
fn a_lowered_limit_is_reached_as_connections_fall_free() {
    let (budget, now) = (Budget::new(3, 10), Instant::now());
    for _ in 0..3 {
        granted(&budget, now, BUSY);
    }
    assert!(budget.set_limit(2).is_empty());
    assert_eq!(budget.freed(now, BUSY), Verdict::Yield);
    assert_eq!(budget.closed(BUSY), None);
    assert_eq!(budget.freed(now, BUSY), Verdict::Keep);
}

/// Random use by many databases: the limit is never passed, no request is lost, none is served twice.
#[test]
fn random_use_keeps_the_books() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let start = Instant::now();
    let budget = Budget::new(5, 50);
    let (mut open, mut waiting) = (Vec::new(), Vec::new());
    for step in 0..20_000 {
        let now = start + Duration::from_millis(step);
        let database = DatabaseId(random(12));
        match random(4) {
            0 | 1 => match budget.request(now, WORKER, database) {
                Answer::Granted => open.push(database),
                Answer::Queued(ticket) => waiting.push((database, ticket)),
                Answer::Full => assert_eq!(waiting.len(), 50),
            },
            2 if !waiting.is_empty() => {
                let at = usize::try_from(random(waiting.len() as u64)).unwrap();
                let (database, ticket) = waiting.swap_remove(at);
                assert!(budget.cancel(database, ticket));
            }
            _ if !open.is_empty() => {
                let at = usize::try_from(random(open.len() as u64)).unwrap();
                if let Some(grant) = budget.closed(open.swap_remove(at)) {
                    let at = waiting
                        .iter()
                        .position(|(_, ticket)| *ticket == grant.ticket);
                    assert_eq!(
                        waiting.swap_remove(at.expect("it waited")).0,
                        grant.database
                    );
                    open.push(grant.database);
                }
            }
            _ => {}
        }
        assert!(open.len() <= 5);
        assert_eq!(
            (budget.open() as usize, budget.waiting()),
            (open.len(), waiting.len())
        );
    }
}
