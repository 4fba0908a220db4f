use super::{Deliver, FaultSlot, Owed, Own, Replies, StatementId, Unexpected};

const ONE: StatementId = StatementId(1);
const TWO: StatementId = StatementId(2);
const PARSE_ONE: Owed = Owed::Parse {
    statement: Some(ONE),
    show: true,
    named: false,
};

fn owing(owed: &[Owed]) -> Replies {
    let mut replies = Replies::default();
    owed.iter().for_each(|owed| replies.push(*owed));
    replies
}

/// What a client sees of the backend's messages: our own replies as capitals, replaced errors as `!`.
#[track_caller]
fn check(owed: &[Owed], backend: &[u8], client: &str) -> Vec<StatementId> {
    let mut replies = owing(owed);
    let (mut seen, mut forgotten) = (String::new(), Vec::new());
    let give_own = |replies: &mut Replies, seen: &mut String| {
        while let Some(own) = replies.own() {
            seen.push(match own {
                Own::ParseComplete { .. } => 'P',
                Own::CloseComplete => 'C',
            });
        }
    };
    give_own(&mut replies, &mut seen);
    for tag in backend {
        let verdict = replies
            .judge(*tag, |owed| {
                if let Owed::Parse { statement, .. } = owed {
                    forgotten.extend(statement);
                }
            })
            .expect("the backend keeps to the protocol");
        match verdict.deliver {
            Deliver::Forward => seen.push(char::from(*tag)),
            Deliver::Swallow => {}
            Deliver::Replace(_) => seen.push('!'),
        }
        give_own(&mut replies, &mut seen);
    }
    assert_eq!(seen, client);
    assert!(replies.is_empty(), "still owed: {replies:?}");
    forgotten
}

#[test]
fn a_simple_query_ends_with_ready() {
    check(&[Owed::Query { show: true }], b"TDDCTDCZ", "TDDCTDCZ");
    check(&[Owed::Query { show: true }], b"TDEZ", "TDEZ");
    check(
        &[Owed::Query { show: false }, Owed::Query { show: true }],
        b"CCZTDCZ",
        "TDCZ",
    );
}

#[test]
fn a_parse_the_backend_has_already_is_answered_in_its_turn() {
    let batch = [
        Owed::Bind,
        Owed::Execute,
        Owed::ParseHere { named: false },
        Owed::Bind,
        Owed::Execute,
        Owed::CloseHere,
        Owed::Sync,
    ];
    check(&batch, b"2DC2DCZ", "2DCP2DCCZ");
    check(
        &[
            Owed::ParseHere { named: false },
            Owed::Bind,
            Owed::Describe,
            Owed::Execute,
            Owed::Sync,
        ],
        b"2TDCZ",
        "P2TDCZ",
    );
}

#[test]
fn what_we_prepared_ourselves_is_not_shown() {
    let ours = Owed::Parse {
        statement: Some(ONE),
        show: false,
        named: false,
    };
    check(
        &[
            ours,
            Owed::Close { show: false },
            Owed::Bind,
            Owed::Execute,
            Owed::Sync,
        ],
        b"132sZ",
        "2sZ",
    );
}

#[test]
fn an_error_drops_what_the_server_drops_and_nothing_of_the_next_batch() {
    let second = Owed::Parse {
        statement: Some(TWO),
        show: true,
        named: false,
    };
    let batches = [
        PARSE_ONE,
        Owed::Bind,
        second,
        Owed::ParseHere { named: false },
        Owed::Query { show: true },
        Owed::Sync,
        Owed::Bind,
        Owed::Sync,
    ];
    assert_eq!(check(&batches, b"1EZ2Z", "1EZ2Z"), [TWO]);
    assert_eq!(check(&batches, b"EZ2Z", "EZ2Z"), [ONE, TWO]);
}

#[test]
fn a_refusal_keeps_its_place_and_shows_our_error() {
    let slot = FaultSlot(0);
    check(
        &[
            Owed::Bind,
            Owed::Execute,
            Owed::Poison(slot),
            Owed::Bind,
            Owed::Sync,
        ],
        b"2CEZ",
        "2C!Z",
    );
    check(
        &[
            Owed::Query { show: true },
            Owed::PoisonQuery(slot),
            Owed::Query { show: true },
        ],
        b"CZEZCZ",
        "CZ!ZCZ",
    );
}

#[test]
fn copy_in_both_directions_belongs_to_its_statement() {
    check(&[Owed::Query { show: true }], b"HdddcCZ", "HdddcCZ");
    check(&[Owed::Bind, Owed::Execute, Owed::Sync], b"2GCZ", "2GCZ");
}

/// libpq sends a `Sync` behind the `Execute` of a COPY and another one behind its `CopyDone`: the server answers one.
#[test]
fn a_sync_that_the_server_reads_as_copy_data_is_not_owed() {
    let mut replies = owing(&[Owed::Execute, Owed::Sync]);
    replies.judge(b'G', |_| ()).unwrap();
    replies.copy_in_started();
    replies.push(Owed::Sync);
    replies.judge(b'C', |_| ()).unwrap();
    assert_eq!(replies.judge(b'Z', |_| ()).unwrap().head, Owed::Sync);
    assert!(replies.is_empty());
}

/// A client that does not wait for the server's word has ended its data already when that comes.
#[test]
fn a_sync_behind_the_end_of_copy_data_is_owed() {
    let mut replies = owing(&[
        Owed::Execute,
        Owed::Sync,
        Owed::CopyEnd,
        Owed::Sync,
        Owed::Bind,
    ]);
    replies.judge(b'G', |_| ()).unwrap();
    assert!(replies.copy_in_started(), "the data has ended");
    replies.judge(b'C', |_| ()).unwrap();
    assert_eq!(replies.judge(b'Z', |_| ()).unwrap().head, Owed::Sync);
    assert_eq!(replies.judge(b'2', |_| ()).unwrap().head, Owed::Bind);
    // Where the COPY fails at once, the mark means nothing.
    let mut replies = owing(&[Owed::Query { show: true }, Owed::CopyEnd, Owed::Sync]);
    replies.judge(b'E', |_| ()).unwrap();
    replies.judge(b'Z', |_| ()).unwrap();
    assert_eq!(replies.judge(b'Z', |_| ()).unwrap().head, Owed::Sync);
    assert!(owing(&[Owed::CopyEnd]).is_empty());
}

#[test]
fn several_syncs_in_flight_stay_apart() {
    let batch = [Owed::Bind, Owed::Execute, Owed::Sync];
    check(&[batch, batch, batch].concat(), b"2CZ2EZ2CZ", "2CZ2EZ2CZ");
}

#[test]
fn a_statement_being_parsed_in_an_earlier_batch_is_known() {
    let mut replies = owing(&[PARSE_ONE, Owed::Bind]);
    assert!(
        !replies.parsing_in_earlier_batch(ONE),
        "the same batch fails with it"
    );
    replies.push(Owed::Sync);
    assert!(replies.parsing_in_earlier_batch(ONE));
    assert!(!replies.parsing_in_earlier_batch(TWO));
    replies.judge(b'1', |_| ()).unwrap();
    assert!(!replies.parsing_in_earlier_batch(ONE), "answered");
}

#[test]
fn what_was_prepared_is_reported_once_it_is() {
    let mut replies = owing(&[PARSE_ONE, Owed::Sync]);
    let verdict = replies.judge(b'1', |_| ()).unwrap();
    assert_eq!((verdict.head, verdict.done), (PARSE_ONE, true));
    assert_eq!(replies.judge(b'Z', |_| ()).unwrap().head, Owed::Sync);
}

/// Invariant 6: a backend that lies is found out at the first message, in every state.
#[test]
fn a_message_that_answers_nothing_is_refused() {
    for (owed, tags) in [
        (&[][..], &b"1CZE"[..]),
        (&[PARSE_ONE], b"2DZC"),
        (&[Owed::Bind], b"1DTZ"),
        (&[Owed::Execute], b"Z12T"),
        (&[Owed::Sync], b"CD1"),
        (&[Owed::Query { show: true }], b"12s"),
        (&[Owed::Poison(FaultSlot(0))], b"1Z"),
        (&[Owed::PoisonQuery(FaultSlot(0))], b"CD"),
    ] {
        for tag in tags {
            let judged = owing(owed).judge(*tag, |_| ());
            assert_eq!(
                judged,
                Err(Unexpected { tag: *tag }),
                "{owed:?} {}",
                char::from(*tag)
            );
        }
    }
}
