//! What a request costs in this crate: reading it, finding its command, putting the prefix in front of its key, finding its
//! reply's end.
//!
//! `cargo bench -p protocol-redis`
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use protocol_redis::command::Table;
use protocol_redis::reply::{Scan, Scanner, write};
use protocol_redis::request::{Args, Next, Parser};
use protocol_redis::rewrite::Rewriter;

fn hot_path(c: &mut Criterion) {
    let table = Table::from_reply(include_bytes!("../testdata/command-7.0.resp3")).unwrap();
    let rewriter = Rewriter::new(b"2k9:", 7).unwrap();
    let mut parser = Parser::new();
    parser.set_authenticated(true);
    let mut args = Args::new();
    let mut out = Vec::new();

    let mut pipeline = Vec::new();
    for index in 0..8 {
        let key = format!("key:{index:012}");
        write::command(&mut pipeline, &[b"GET", key.as_bytes()]);
        write::command(&mut pipeline, &[b"SET", key.as_bytes(), b"xxx"]);
    }
    let mut requests = |what: &str, upto: u8| {
        c.bench_function(&format!("16 requests: {what}"), |b| {
            b.iter(|| {
                let mut rest = black_box(&pipeline[..]);
                out.clear();
                while let Ok(Next::Command { used }) = parser.next(rest, &mut args) {
                    let command = args.command(rest);
                    if upto > 0 {
                        let spec = table.find_command(command).unwrap();
                        if upto > 1 {
                            rewriter.command(spec, command, &mut out);
                        } else {
                            black_box(spec);
                        }
                    }
                    rest = &rest[used..];
                }
                black_box(out.len())
            });
        });
    };
    requests("read", 0);
    requests("and found", 1);
    requests("and rewritten", 2);

    let mut replies = Vec::new();
    for _ in 0..8 {
        write::bulk(&mut replies, b"xxx");
        write::ok(&mut replies);
    }
    let mut scanner = Scanner::new();
    c.bench_function("16 replies", |b| {
        b.iter(|| {
            let mut rest = black_box(&replies[..]);
            while !rest.is_empty() {
                let Ok(Scan::End(end)) = scanner.scan(rest) else {
                    break;
                };
                rest = &rest[end..];
            }
        });
    });
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
