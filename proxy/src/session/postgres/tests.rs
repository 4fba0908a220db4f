//! Sessions on a simulator: many clients share few backends, every byte stream is cut at random, and everything happens in a
//! random order that a seed repeats. The oracle is the same model of a server, spoken to directly: each client must see, byte
//! for byte, what it would have seen alone on a connection of its own.

#![allow(
    clippy::cast_possible_truncation,
    clippy::vec_box,
    reason = "a few clients, a few servers; the pool's own types"
)]

mod model;
mod sim;

use sim::{Outcome, Sim};

/// A client's messages, in words: see [`model::batch`].
type Script = Vec<(&'static str, &'static str)>;

#[track_caller]
fn check(seed: u64, scripts: &[Script], backends: usize) {
    let mut sim = Sim::new(seed, backends);
    for script in scripts {
        sim.connect(&model::batch(script));
    }
    sim.run();
    for (client, script) in scripts.iter().enumerate() {
        let expected = model::direct(&model::batch(script));
        match sim.outcome(client) {
            Outcome::Open(seen) => assert_eq!(
                model::told(&seen),
                model::told(&expected),
                "seed {seed}, client {client}: {script:?}"
            ),
            Outcome::Closed(seen) => panic!(
                "seed {seed}, client {client} was closed after {}",
                model::told(&seen)
            ),
        }
    }
    sim.check_nothing_is_held();
}

/// Seeds to try; `SIM_SEEDS` asks for more of them.
fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("SIM_SEEDS").ok();
    0..wanted.and_then(|it| it.parse().ok()).unwrap_or(150)
}

/// What clients do; each entry leaves its session at rest.
fn repertoire() -> Vec<Script> {
    let sync = ("sync", "");
    vec![
        vec![("query", "ok one")],
        vec![
            ("query", "ok one"),
            ("query", "fail two"),
            ("query", "ok three"),
        ],
        vec![
            ("query", "BEGIN"),
            ("query", "ok a"),
            ("query", "ok b"),
            ("query", "COMMIT"),
        ],
        vec![
            ("query", "BEGIN"),
            ("query", "fail a"),
            ("query", "ok b"),
            ("query", "ROLLBACK"),
        ],
        vec![
            ("query", "BEGIN"),
            ("query", "CREATE TABLE x ()"),
            ("query", "ok"),
            ("query", "ROLLBACK"),
        ],
        vec![("query", "CREATE TABLE x ()"), ("query", "ok")],
        vec![("parse", "=ok u"), ("bind", ""), ("execute", ""), sync],
        vec![
            ("parse", "=ok u"),
            ("describe", ""),
            ("bind", ""),
            ("execute", ""),
            sync,
            ("bind", ""),
            ("execute", ""),
            sync,
        ],
        vec![
            ("parse", "s=ok s"),
            sync,
            ("bind", "s"),
            ("execute", ""),
            sync,
            ("bind", "s"),
            ("execute", ""),
            ("close", "s"),
            sync,
        ],
        vec![
            ("parse", "s=ok s"),
            ("bind", "s"),
            ("execute", ""),
            ("bind", "s"),
            ("execute", ""),
            sync,
            ("close", "s"),
            sync,
        ],
        vec![
            ("parse", "s=ok s"),
            ("parse", "s=ok t"),
            ("bind", "s"),
            sync,
            ("close", "s"),
            sync,
        ],
        vec![
            ("parse", "s=ok s"),
            ("bind", "s"),
            ("execute", ""),
            ("parse", "=fail x"),
            ("bind", ""),
            ("execute", ""),
            sync,
            ("bind", "s"),
            ("execute", ""),
            sync,
            ("close", "s"),
            sync,
        ],
        vec![("bind", "nobody"), ("execute", ""), sync, ("query", "ok")],
        vec![
            ("parse", "=CREATE TABLE x ()"),
            ("bind", ""),
            ("execute", ""),
            sync,
            ("query", "ok"),
        ],
        vec![
            ("query", "ok"),
            ("parse", "=CREATE TABLE x ()"),
            ("bind", ""),
            ("execute", ""),
            sync,
            ("query", "ok"),
        ],
        vec![
            ("query", "BEGIN"),
            ("parse", "=ok u"),
            ("bind", ""),
            ("execute", ""),
            sync,
            ("query", "COMMIT"),
        ],
        vec![
            ("query", "BEGIN"),
            ("parse", "=fail u"),
            ("bind", ""),
            ("execute", ""),
            sync,
            ("query", "ROLLBACK"),
        ],
        vec![sync, sync, ("query", ""), sync],
        vec![
            ("parse", "=ok a"),
            ("bind", ""),
            ("execute", ""),
            sync,
            ("parse", "=ok b"),
            ("bind", ""),
            ("execute", ""),
            sync,
            ("parse", "=ok a"),
            ("bind", ""),
            ("execute", ""),
            sync,
        ],
        vec![("query", "many rows")],
        vec![
            ("query", "copy in"),
            ("data", "abc"),
            ("data", "def"),
            ("done", ""),
        ],
        vec![("query", "notice")],
    ]
}

#[test]
fn one_client_sees_what_a_server_would_show_at_every_cut() {
    for script in repertoire() {
        for seed in 0..12 {
            check(seed, std::slice::from_ref(&script), 1);
        }
    }
}

#[test]
fn many_clients_on_few_backends_see_what_each_would_see_alone() {
    let all = repertoire();
    for seed in seeds() {
        let mut random = sim::Random::new(seed);
        let clients = 2 + random.below(6);
        let scripts: Vec<Script> = (0..clients)
            .map(|_| {
                let parts = 1 + random.below(5);
                (0..parts)
                    .flat_map(|_| all[random.below(all.len())].clone())
                    .collect()
            })
            .collect();
        check(seed, &scripts, 1 + random.below(3));
    }
}

/// A script's batches: what a client can send before it has to wait.
fn batches(script: &[(&'static str, &'static str)]) -> Vec<Vec<u8>> {
    let ends = |part: &(&str, &str)| match *part {
        ("query", text) => text != "copy in",
        (what, _) => matches!(what, "sync" | "done"),
    };
    script.split_inclusive(ends).map(model::batch).collect()
}

/// Whether nothing in the script keeps the proxy from sending a batch again: no transaction, and no Parse behind a Bind.
fn can_be_repeated(script: &Script) -> bool {
    let mut bound = false;
    script.iter().all(|(what, argument)| {
        match *what {
            "bind" | "describe" => bound = true,
            "sync" => bound = false,
            _ => {}
        }
        *argument != "BEGIN" && !(bound && matches!(*what, "parse" | "close"))
    })
}

#[test]
fn clients_that_wait_never_meet_a_plan_that_has_changed() {
    let all: Vec<Script> = repertoire().into_iter().filter(can_be_repeated).collect();
    assert!(all.len() > 10);
    for seed in seeds() {
        let mut random = sim::Random::new(seed);
        let mut sim = Sim::new(seed, 1 + random.below(3));
        sim.alters = true;
        let scripts: Vec<Script> = (0..2 + random.below(4))
            .map(|_| {
                (0..1 + random.below(6))
                    .flat_map(|_| all[random.below(all.len())].clone())
                    .collect()
            })
            .collect();
        for script in &scripts {
            sim.connect_patient(batches(script));
        }
        sim.run();
        for (client, script) in scripts.iter().enumerate() {
            let Outcome::Open(seen) = sim.outcome(client) else {
                panic!("seed {seed}: client {client} was closed");
            };
            assert_eq!(
                model::told(&seen),
                model::told(&model::direct(&model::batch(script))),
                "seed {seed}, client {client}: {script:?}"
            );
        }
        sim.check_nothing_is_held();
    }
}

#[test]
fn clients_that_do_not_wait_get_an_answer_to_all_they_send() {
    let all = repertoire();
    for seed in seeds() {
        let mut random = sim::Random::new(seed);
        let mut sim = Sim::new(seed, 1 + random.below(3));
        sim.alters = true;
        let scripts: Vec<Script> = (0..3)
            .map(|_| {
                (0..3)
                    .flat_map(|_| all[random.below(all.len())].clone())
                    .collect()
            })
            .collect();
        for script in &scripts {
            sim.connect(&model::batch(script));
        }
        sim.run();
        for (client, script) in scripts.iter().enumerate() {
            let Outcome::Open(seen) = sim.outcome(client) else {
                panic!("seed {seed}: client {client} was closed");
            };
            let expected = model::ready_count(&model::direct(&model::batch(script)));
            assert_eq!(
                model::ready_count(&seen),
                expected,
                "seed {seed}, client {client}: {script:?}"
            );
        }
        sim.check_nothing_is_held();
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let all = repertoire();
    for seed in seeds() {
        let mut random = sim::Random::new(seed);
        let mut sim = Sim::new(seed, 1 + random.below(2));
        sim.alters = seed % 2 == 1;
        for _ in 0..4 {
            let script: Script = (0..3)
                .flat_map(|_| all[random.below(all.len())].clone())
                .collect();
            sim.connect(&model::batch(&script));
        }
        let stays = vec![
            ("query", "ok still here"),
            ("query", "BEGIN"),
            ("query", "ok"),
            ("query", "COMMIT"),
        ];
        let last = sim.connect(&model::batch(&stays));
        sim.run_for(random.below(300));
        for client in 0..4 {
            if random.below(3) > 0 {
                sim.vanish(client);
            }
        }
        sim.run();
        let Outcome::Open(seen) = sim.outcome(last) else {
            panic!("seed {seed}: another client's end closed this one");
        };
        assert_eq!(
            model::told(&seen),
            model::told(&model::direct(&model::batch(&stays))),
            "seed {seed}"
        );
        sim.check_nothing_is_held();
    }
}

#[test]
fn a_backend_that_dies_or_lies_costs_only_its_client() {
    let script = vec![
        ("query", "BEGIN"),
        ("query", "ok"),
        ("parse", "s=ok"),
        ("bind", "s"),
        ("execute", ""),
        ("sync", ""),
        ("query", "COMMIT"),
    ];
    for seed in seeds() {
        let mut random = sim::Random::new(seed);
        let mut sim = Sim::new(seed, 2);
        sim.alters = seed % 2 == 1;
        for _ in 0..4 {
            sim.connect(&model::batch(&script));
        }
        sim.run_for(random.below(200));
        if random.below(2) == 0 {
            sim.break_a_backend();
        } else {
            sim.make_a_backend_lie(&[b'1', 0, 0, 0, 4, b'Z', 0, 0, 0, 5, b'?']);
        }
        sim.run();
        let closed = (0..4)
            .filter(|client| matches!(sim.outcome(*client), Outcome::Closed(_)))
            .count();
        assert!(closed <= 1, "seed {seed}: {closed} clients were closed");
        sim.check_nothing_is_held();
    }
}
