use std::fs;
use std::path::{Path, PathBuf};

use super::{CHECKS, Check, seeds};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// All committed inputs: what the writers wrote, and what once failed.
fn committed(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpus().join(target);
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

fn each(mut visit: impl FnMut(&str, Check, &Path, &[u8])) {
    for (target, check) in CHECKS {
        let inputs = committed(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for (path, input) in inputs {
            visit(target, check, &path, &input);
        }
    }
}

/// With `UPDATE_CORPUS` in the environment, writes what is missing or out of date.
#[test]
fn the_corpus_holds_what_our_writers_write() {
    for (target, name, bytes) in seeds::all() {
        let path = corpus().join(target).join(name);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let committed = fs::read(&path).unwrap_or_default();
        assert!(
            committed == bytes,
            "{}: run with UPDATE_CORPUS=1",
            path.display()
        );
    }
}

#[test]
fn the_corpus_passes() {
    each(|_, check, _, input| check(input));
}

/// Bytes at which formats branch or overflow.
const HOSTILE: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, b'\'', b'\\', b'$', b'*', b','];

#[test]
fn every_cut_and_every_hostile_byte_passes() {
    each(|_, check, _, input| {
        for at in 0..=input.len().min(1024) {
            check(&input[..at]);
            check(&input[at..]);
        }
        for at in 0..input.len().min(1024) {
            for byte in HOSTILE {
                let mut changed = input.to_vec();
                changed[at] = byte;
                check(&changed);
            }
            let mut longer = input.to_vec();
            longer.insert(at, input[at]);
            check(&longer);
            longer.drain(at..=at);
            longer.remove(at);
            check(&longer);
        }
    });
}

#[test]
fn hostile_lengths_and_halves_of_two_inputs_pass() {
    for (target, check) in CHECKS {
        let inputs = committed(target);
        for (_, first) in &inputs {
            for at in 0..first.len().saturating_sub(4).min(256) {
                for length in [0_u32, 3, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
                    let mut changed = first.clone();
                    changed[at..at + 4].copy_from_slice(&length.to_be_bytes());
                    check(&changed);
                    changed[at..at + 4].copy_from_slice(&length.to_le_bytes());
                    check(&changed);
                }
            }
            for (_, second) in &inputs {
                for part in 1..4 {
                    let head = &first[..first.len() * part / 4];
                    check(&[head, &second[second.len() * part / 4..]].concat());
                }
            }
        }
    }
}
