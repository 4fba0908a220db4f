use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control_store::DatabaseId;
use control_store::logs::{LogFilter, QueryLogReader, Source};

use super::totals::micros;
use super::{ErrorCode, QueryLog, QueryLogConfig, StatementRecord, WorkerLog};

fn now_us() -> u64 {
    micros(SystemTime::now())
}

fn record_at(log: &mut WorkerLog, database: u64, text: &str, n: u64, ended_at_us: u64) {
    log.record(&StatementRecord {
        database: DatabaseId(database),
        text: text.as_bytes(),
        source: if n.is_multiple_of(3) {
            Source::Api
        } else {
            Source::Proxy
        },
        ended_at_us,
        duration: Duration::from_micros(n * 100),
        error_code: n.is_multiple_of(5).then(|| ErrorCode::new(b"42P01")),
        rows: n,
    });
}

/// Ends a minute ago, `n` µs later.
fn record(log: &mut WorkerLog, database: u64, text: &str, n: u64) {
    record_at(log, database, text, n, now_us() - 60_000_000 + n);
}

fn filter(database: u64) -> LogFilter {
    LogFilter {
        databases: vec![DatabaseId(database)],
        limit: 1000,
        ..LogFilter::default()
    }
}

fn queries(log: &QueryLog, filter: &LogFilter) -> Vec<String> {
    let page = log.find(filter).unwrap();
    page.entries.into_iter().map(|it| it.query).collect()
}

fn total(log: &QueryLog, database: u64) -> u64 {
    log.stats(&[DatabaseId(database)]).total
}

fn open(folder: &Path) -> Arc<QueryLog> {
    QueryLog::open(QueryLogConfig::new(folder)).unwrap()
}

/// The files as a crash at this moment would leave them.
fn crashed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// All bytes of all files.
fn bytes_on_disk(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        bytes.extend(fs::read(entry.unwrap().path()).unwrap());
    }
    bytes
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

/// The same questions, before the entries are in a block and after.
fn in_rings_and_in_blocks(fill: impl Fn(&mut WorkerLog), check: impl Fn(&QueryLog)) {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    fill(&mut log.worker());
    check(&log);
    log.close();
    check(&log);
    drop(log);
    check(&open(folder.path()));
}

#[test]
fn what_came_while_the_disk_lagged_behind_is_written_before_the_end() {
    // Much more than a block holds is gathered; what comes then stays in the ring.
    const GATHERED: u64 = 600_000;
    const COUNT: u64 = GATHERED + 1000;
    let folder = tempfile::tempdir().unwrap();
    let log = QueryLog::open(QueryLogConfig {
        ring_bytes: 64 << 20,
        ..QueryLogConfig::new(folder.path())
    })
    .unwrap();
    let mut worker = log.worker();
    // The writing thread has looked around once, and rests.
    std::thread::sleep(Duration::from_millis(50));
    log.close_after(|drain| {
        for n in 0..COUNT {
            if n == GATHERED {
                drain();
            }
            record(&mut worker, 1, "SELECT 1", n);
        }
        drain();
    });
    assert_eq!(log.dropped(), 0);
    let log = open(folder.path());
    assert_eq!(total(&log, 1), COUNT);
    let newest = &log.find(&filter(1)).unwrap().entries[0];
    assert_eq!(newest.rows, COUNT - 1);
}

#[test]
fn every_filter_finds_its_own() {
    let fill = |worker: &mut WorkerLog| {
        for n in 1..=30 {
            record(worker, 1, &format!("SELECT {n}"), n);
            record(worker, 2, "other", n);
        }
    };
    in_rings_and_in_blocks(fill, |log| {
        let all = queries(log, &filter(1));
        assert_eq!(all.len(), 30);
        assert_eq!(
            (all[0].as_str(), all[29].as_str()),
            ("SELECT 30", "SELECT 1")
        );
        let mut failed = filter(1);
        failed.errors_only = true;
        assert_eq!(queries(log, &failed).len(), 6);
        let mut slow = filter(1);
        slow.slower_than = Some(Duration::from_micros(2800));
        assert_eq!(queries(log, &slow), ["SELECT 30", "SELECT 29"]);
        let mut found = filter(1);
        found.search = Some("select 2".into());
        assert_eq!(queries(log, &found).len(), 11);
        let mut api = filter(1);
        api.source = Some(Source::Api);
        assert_eq!(queries(log, &api).len(), 10);
        let mut proxy = filter(1);
        proxy.source = Some(Source::Proxy);
        (proxy.errors_only, proxy.search) = (true, Some("5".into()));
        assert_eq!(queries(log, &proxy), ["SELECT 25", "SELECT 5"]);
        let both = LogFilter {
            databases: vec![DatabaseId(2), DatabaseId(1), DatabaseId(2)],
            ..filter(1)
        };
        assert_eq!(queries(log, &both).len(), 60);
        assert!(queries(log, &filter(3)).is_empty());
    });
}

#[test]
fn since_takes_what_ended_then_or_later() {
    let begin = now_us() - 60_000_000;
    let fill = |worker: &mut WorkerLog| {
        for n in 1..=30 {
            record_at(worker, 1, "SELECT 1", n, begin + n);
        }
    };
    in_rings_and_in_blocks(fill, |log| {
        for (since, expected) in [(0, 30), (1, 30), (25, 6), (30, 1), (31, 0)] {
            let filter = LogFilter {
                since: Some(UNIX_EPOCH + Duration::from_micros(begin + since)),
                ..filter(1)
            };
            assert_eq!(queries(log, &filter).len(), expected, "since {since}");
        }
    });
}

#[test]
fn pages_are_cut_exactly() {
    let fill = |worker: &mut WorkerLog| {
        for n in 1..=30 {
            record(worker, 1, &format!("SELECT {n}"), n);
        }
    };
    in_rings_and_in_blocks(fill, |log| {
        for (offset, limit, first, len, more) in [
            (0, 1000, Some("SELECT 30"), 30, false),
            (1, 2, Some("SELECT 29"), 2, true),
            (28, 2, Some("SELECT 2"), 2, false),
            (27, 2, Some("SELECT 3"), 2, true),
            (30, 5, None, 0, false),
            (99, 5, None, 0, false),
            (0, 0, None, 0, true),
            (30, 0, None, 0, false),
        ] {
            let filter = LogFilter {
                offset,
                limit,
                ..filter(1)
            };
            let page = log.find(&filter).unwrap();
            let found = page.entries.first().map(|it| it.query.as_str());
            assert_eq!(
                (found, page.entries.len(), page.has_more),
                (first, len, more),
                "{offset} {limit}"
            );
        }
    });
}

#[test]
fn an_entry_comes_back_as_it_was() {
    let at = now_us() - 5_000_000;
    let fill = |worker: &mut WorkerLog| {
        worker.record(&StatementRecord {
            database: DatabaseId(u64::MAX),
            text: b"SELECT '\xff'",
            source: Source::Api,
            ended_at_us: at,
            duration: Duration::from_nanos(123_456_789),
            error_code: Some(ErrorCode::new(b"23505")),
            rows: u64::MAX,
        });
        record_at(worker, 0, &"x".repeat(5000), 1, at);
    };
    in_rings_and_in_blocks(fill, |log| {
        let page = log.find(&filter(u64::MAX)).unwrap();
        let entry = &page.entries[0];
        assert_eq!(entry.query, "SELECT '\u{fffd}'");
        assert_eq!(entry.source, Source::Api);
        assert_eq!(micros(entry.at), at);
        assert_eq!(entry.duration, Duration::from_nanos(123_456_789));
        assert_eq!(entry.error_code.as_deref(), Some("23505"));
        assert_eq!(entry.rows, u64::MAX);
        let cut = &queries(log, &filter(0))[0];
        assert_eq!(cut.chars().count(), 4097);
        assert!(cut.ends_with("x…"));
    });
}

#[test]
fn entries_of_several_blocks_and_workers_come_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let begin = now_us() - 60_000_000;
    for life in 0..4 {
        let log = open(folder.path());
        let mut workers = [log.worker(), log.worker()];
        for n in 0..50 {
            // What two blocks hold overlaps in time.
            let at = begin + life * 70 + n * 3;
            record_at(&mut workers[(n % 2) as usize], 1, "SELECT 1", n, at);
        }
        log.close();
    }
    let log = open(folder.path());
    let all = log.find(&filter(1)).unwrap().entries;
    assert_eq!(all.len(), 200);
    assert!(all.is_sorted_by(|a, b| a.at >= b.at));
    for offset in 0..200 {
        let one = LogFilter {
            offset,
            limit: 1,
            ..filter(1)
        };
        let page = log.find(&one).unwrap();
        assert_eq!(page.entries[0].at, all[usize::try_from(offset).unwrap()].at);
        assert_eq!(page.has_more, offset < 199);
    }
}

#[test]
fn entries_and_counts_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    for life in 1..=3_u64 {
        let log = open(folder.path());
        let mut worker = log.worker();
        for n in 1..=10 {
            record(&mut worker, 1, "SELECT 1", n);
        }
        assert_eq!(queries(&log, &filter(1)).len() as u64, life * 10);
        assert_eq!(total(&log, 1), life * 10);
        log.close();
        log.close();
        assert!(log.gaps().is_empty());
    }
    let stats = open(folder.path()).stats(&[DatabaseId(1)]);
    assert_eq!((stats.total, stats.failed, stats.rows), (30, 6, 165));
    assert_eq!((stats.from_api, stats.from_proxy), (9, 21));
    assert_eq!(stats.total_duration, Duration::from_micros(16_500));
}

/// Waits until what was recorded is in the files, and returns them as a crash would leave them.
fn crash_after_writing(folder: &Path, database: u64, wanted: u64) -> tempfile::TempDir {
    loop {
        let copy = crashed(folder);
        let log = open(copy.path());
        let found = total(&log, database);
        drop(log);
        if found == wanted {
            return crashed(folder);
        }
        assert!(found < wanted, "{found} of {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_crash_costs_nothing_that_was_written_and_is_told() {
    let mut folder = tempfile::tempdir().unwrap();
    for life in 1..=3_u64 {
        let log = open(folder.path());
        let mut worker = log.worker();
        for n in 1..=10 {
            record(&mut worker, life, "SELECT 1", n);
            record(&mut worker, 9, "SELECT 9", n);
        }
        let copy = crash_after_writing(folder.path(), 9, life * 10);
        drop(log);
        folder = copy;
    }
    let log = open(folder.path());
    assert_eq!(queries(&log, &filter(9)).len(), 30);
    for database in 1..=3 {
        assert_eq!(total(&log, database), 10);
        assert_eq!(queries(&log, &filter(database)).len(), 10);
    }
    let gaps = log.gaps();
    assert_eq!(gaps.len(), 3);
    assert!(gaps.iter().all(|gap| gap.from <= gap.until));
    assert!(
        gaps.iter()
            .all(|gap| now_us() - micros(gap.from) < 60_000_000)
    );
}

/// Opens copies of a folder with one file cut at each byte from `from` on; `check` gets the log and whether it is whole.
fn cut_everywhere(folder: &Path, name: &str, from: usize, check: impl Fn(&QueryLog, bool)) {
    let whole = fs::read(folder.join(name)).unwrap();
    for cut in from..=whole.len() {
        let torn = crashed(folder);
        fs::write(torn.path().join(name), &whole[..cut]).unwrap();
        check(&open(torn.path()), cut == whole.len());
        // And again, over what was repaired.
        check(&open(torn.path()), cut == whole.len());
    }
}

#[test]
fn a_torn_journal_is_cut_at_its_last_whole_batch() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut worker = log.worker();
    record(&mut worker, 1, "first", 1);
    let first = crash_after_writing(folder.path(), 1, 1);
    record(&mut worker, 1, "second", 2);
    let second = crash_after_writing(folder.path(), 1, 2);
    let from = fs::metadata(first.path().join("journal")).unwrap().len();
    let from = usize::try_from(from).unwrap();
    cut_everywhere(second.path(), "journal", from, |log, whole| {
        let expected: &[&str] = if whole {
            &["second", "first"]
        } else {
            &["first"]
        };
        assert_eq!(queries(log, &filter(1)), expected);
        assert_eq!(total(log, 1), expected.len() as u64);
    });
    cut_everywhere(first.path(), "journal", 0, |log, whole| {
        assert_eq!(total(log, 1), u64::from(whole));
    });
}

#[test]
fn a_torn_block_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut lens = Vec::new();
    for text in ["first", "second"] {
        let log = open(folder.path());
        record(&mut log.worker(), 1, text, 1);
        log.close();
        lens.push(
            fs::metadata(folder.path().join("00000001.log"))
                .unwrap()
                .len(),
        );
    }
    let from = usize::try_from(lens[0]).unwrap();
    cut_everywhere(folder.path(), "00000001.log", from, |log, whole| {
        let expected: &[&str] = if whole {
            &["second", "first"]
        } else {
            &["first"]
        };
        assert_eq!(queries(log, &filter(1)), expected);
        assert_eq!(total(log, 1), 2, "the counts were kept apart");
    });
}

#[test]
fn a_crash_between_block_and_journal_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    record(&mut log.worker(), 1, "SELECT 1", 1);
    let before = crash_after_writing(folder.path(), 1, 1);
    log.close();
    // The block is written, the journal not begun anew, the counts not kept.
    let block = fs::read(folder.path().join("00000001.log")).unwrap();
    fs::write(before.path().join("00000001.log"), block).unwrap();
    for _ in 0..2 {
        let log = open(before.path());
        assert_eq!(queries(&log, &filter(1)).len(), 1);
        assert_eq!(total(&log, 1), 1);
    }
}

#[test]
fn a_damaged_block_costs_its_own_entries_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut ends = Vec::new();
    for text in ["first", "second", "third"] {
        let log = open(folder.path());
        record_at(&mut log.worker(), 1, text, 1, now_us());
        log.close();
        let len = fs::metadata(folder.path().join("00000001.log"))
            .unwrap()
            .len();
        ends.push(usize::try_from(len).unwrap());
    }
    let path = folder.path().join("00000001.log");
    let whole = fs::read(&path).unwrap();
    // All bytes of the second block but its prefix and head, which say where the third begins.
    let data = ends[1] - block_data_len(&whole[ends[0]..]);
    for at in data..ends[1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let log = open(folder.path());
        assert_eq!(queries(&log, &filter(1)), ["third", "first"], "byte {at}");
        assert_eq!(total(&log, 1), 3);
        let window = log.window(&[DatabaseId(1)], UNIX_EPOCH).unwrap();
        // A damaged text does no harm to counts.
        assert!([1, 3].contains(&window.stats.total), "byte {at}");
    }
}

fn block_data_len(block: &[u8]) -> usize {
    let (_, data) = super::block::lengths(block.first_chunk().unwrap()).unwrap();
    data as usize
}

#[test]
fn what_is_forgotten_is_not_shown_and_leaves_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut worker = log.worker();
    for n in 1..=5 {
        record(&mut worker, 1, "SELECT 'ephemeral'", n);
        record(&mut worker, 2, "SELECT 'durable'", n);
    }
    log.close();
    drop(log);
    assert!(contains(&bytes_on_disk(folder.path()), b"ephemeral"));

    let log = open(folder.path());
    let mut worker = log.worker();
    record(&mut worker, 1, "SELECT 'ephemeral'", 6);
    assert_eq!(queries(&log, &filter(1)).len(), 6);
    record(&mut worker, 1, "SELECT 'ephemeral'", 7);
    log.forget(DatabaseId(1));
    record(&mut worker, 1, "SELECT 'ephemeral'", 8);
    let check = |log: &QueryLog| {
        assert!(queries(log, &filter(1)).is_empty());
        assert_eq!(total(log, 1), 0);
        let window = log.window(&[DatabaseId(1)], UNIX_EPOCH).unwrap();
        assert_eq!(window.stats.total, 0);
        assert_eq!(queries(log, &filter(2)).len(), 5);
        assert_eq!(total(log, 2), 5);
    };
    check(&log);
    check(&open(crashed(folder.path()).path()));
    log.close();
    drop(log);
    let log = open(folder.path());
    check(&log);
    log.clean().unwrap();
    check(&log);
    drop(log);
    assert!(!contains(&bytes_on_disk(folder.path()), b"ephemeral"));
    assert!(contains(&bytes_on_disk(folder.path()), b"durable"));
    let list = |folder: &Path| fs::metadata(folder.join("forgotten")).unwrap().len();
    let before = list(folder.path());
    check(&open(folder.path()));
    assert!(list(folder.path()) < before, "ids are never used again");
    check(&open(folder.path()));
}

#[test]
fn entries_are_kept_as_long_as_their_database_wants() {
    let folder = tempfile::tempdir().unwrap();
    let hours = |n: u64| now_us() - n * 3_600_000_000;
    // A span that ended long ago cannot be had from a clock: the blocks of the past are entries of the past here.
    let log = open(folder.path());
    let mut worker = log.worker();
    for n in [1, 5, 30] {
        record_at(&mut worker, 1, "short", n, hours(n));
        record_at(&mut worker, 2, "long", n, hours(n));
    }
    let retention = |id: DatabaseId| Duration::from_secs(3600 * if id.0 == 1 { 3 } else { 24 });
    log.set_retention(retention);
    assert_eq!(queries(&log, &filter(1)).len(), 1);
    assert_eq!(queries(&log, &filter(2)).len(), 2);
    log.close();
    assert_eq!(queries(&log, &filter(1)).len(), 1);
    assert_eq!(queries(&log, &filter(2)).len(), 2);
    assert_eq!(total(&log, 1), 3, "counts are since the database was made");
    log.set_retention(|id| {
        if id.0 == 1 {
            Duration::ZERO
        } else {
            Duration::MAX
        }
    });
    assert!(queries(&log, &filter(1)).is_empty());
    std::thread::sleep(Duration::from_millis(2));
    log.clean().unwrap();
    assert_eq!(queries(&log, &filter(2)).len(), 3);
    assert!(!contains(&bytes_on_disk(folder.path()), b"short"));
    log.set_retention(|_| Duration::ZERO);
    log.clean().unwrap();
    assert!(!folder.path().join("00000001.log").exists());
    assert_eq!(total(&log, 2), 3);
    drop(log);
    assert_eq!(total(&open(folder.path()), 2), 3);
}

#[test]
fn the_oldest_segments_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let config = QueryLogConfig {
        segment_bytes: 1,
        max_bytes: 700,
        ..QueryLogConfig::new(folder.path())
    };
    for life in 0..10 {
        let log = QueryLog::open(config.clone()).unwrap();
        record(&mut log.worker(), 1, &format!("SELECT {life}"), 1);
        log.close();
        log.clean().unwrap();
    }
    let log = QueryLog::open(config).unwrap();
    let left = queries(&log, &filter(1));
    assert!((2..8).contains(&left.len()), "{left:?}");
    assert_eq!(left[0], "SELECT 9");
    assert_eq!(total(&log, 1), 10);
    let window = log.window(&[DatabaseId(1)], UNIX_EPOCH).unwrap();
    assert_eq!(window.stats.total, left.len() as u64);
}

#[test]
fn what_is_dropped_is_counted_over_restarts_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = QueryLogConfig {
        ring_bytes: 8 << 10,
        ..QueryLogConfig::new(folder.path())
    };
    let log = QueryLog::open(config.clone()).unwrap();
    let mut worker = log.worker();
    for n in 0..20_000_u64 {
        record(&mut worker, n % 7, &format!("SELECT {n}"), n);
    }
    let dropped = log.dropped();
    assert!(dropped > 0);
    let all = LogFilter {
        databases: (0..7).map(DatabaseId).collect(),
        limit: usize::MAX,
        ..LogFilter::default()
    };
    let check = |log: &QueryLog| {
        let found = log.find(&all).unwrap().entries.len() as u64;
        assert_eq!(found + dropped, 20_000);
        let stats = log.stats(&all.databases);
        assert_eq!((stats.total, stats.failed), (20_000, 4_000));
        assert_eq!(stats.rows, (0..20_000).sum::<u64>());
    };
    check(&log);
    log.close();
    check(&log);
    drop(log);
    check(&QueryLog::open(config).unwrap());
}

#[test]
fn a_window_counts_exactly_what_ended_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut worker = log.worker();
    let begin = now_us();
    for n in 1..=100 {
        record_at(&mut worker, 1, "SELECT 1", n, begin + n);
        record_at(&mut worker, 2, "SELECT 1", n, begin + n);
    }
    while now_us() < begin + 200 {}
    for _ in 0..2 {
        for (since, expected) in [(0, 100), (1, 100), (51, 50), (100, 1), (101, 0)] {
            let since = UNIX_EPOCH + Duration::from_micros(begin + since);
            let window = log.window(&[DatabaseId(1)], since).unwrap();
            assert_eq!(window.stats.total, expected);
            assert_eq!(window.since, since);
            assert!(window.since < window.until);
        }
        let since = UNIX_EPOCH + Duration::from_micros(begin + 51);
        let window = log.window(&[DatabaseId(1), DatabaseId(2)], since).unwrap();
        assert_eq!(window.stats.rows, 2 * (51..=100).sum::<u64>());
        assert_eq!(window.latency.max, Duration::from_millis(10));
        let p50 = window.latency.p50.as_micros();
        assert!((7500..7650).contains(&p50), "{p50}");
        log.close();
    }
}

#[test]
fn a_window_names_no_more_than_the_log_holds() {
    let folder = tempfile::tempdir().unwrap();
    let before = now_us();
    let log = open(folder.path());
    record_at(&mut log.worker(), 1, "SELECT 1", 1, now_us());
    let window = log.window(&[DatabaseId(1)], UNIX_EPOCH).unwrap();
    assert_eq!(window.stats.total, 1);
    assert!(micros(window.since) >= before);
    log.set_retention(|_| Duration::from_secs(1));
    let window = log.window(&[DatabaseId(1)], UNIX_EPOCH).unwrap();
    assert!(window.until.duration_since(window.since).unwrap() <= Duration::from_secs(1));
}

#[test]
fn where_entries_were_dropped_a_window_begins_with_their_block() {
    let folder = tempfile::tempdir().unwrap();
    let log = QueryLog::open(QueryLogConfig {
        ring_bytes: 8 << 10,
        ..QueryLogConfig::new(folder.path())
    })
    .unwrap();
    let mut worker = log.worker();
    let begin = now_us();
    for n in 1..=5000 {
        record_at(&mut worker, 1, &format!("SELECT {n}"), n, begin + n);
    }
    assert!(log.dropped() > 0);
    while now_us() <= begin + 5000 {}
    let since = UNIX_EPOCH + Duration::from_micros(begin + 4000);
    for _ in 0..2 {
        let window = log.window(&[DatabaseId(1)], since).unwrap();
        assert_eq!(window.stats.total, 5000);
        assert!(micros(window.since) <= begin + 1);
        log.close();
    }
}

#[test]
fn passwords_do_not_reach_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut worker = log.worker();
    record(&mut worker, 1, "ALTER ROLE a PASSWORD 'sesame'", 1);
    assert_eq!(queries(&log, &filter(1)), ["ALTER ROLE a PASSWORD '***'"]);
    let copy = crash_after_writing(folder.path(), 1, 1);
    assert!(!contains(&bytes_on_disk(copy.path()), b"sesame"));
    log.close();
    assert!(!contains(&bytes_on_disk(folder.path()), b"sesame"));
}

#[test]
fn a_file_of_another_kind_is_refused() {
    for name in ["00000001.log", "forgotten"] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), b"something else").unwrap();
        assert!(QueryLog::open(QueryLogConfig::new(folder.path())).is_err());
    }
}

#[test]
fn a_million_entries_of_many_databases() {
    const ENTRIES: u64 = 1_000_000;
    const DATABASES: u64 = 97;
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut worker = log.worker();
    let begin = now_us();
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for n in 0..ENTRIES {
        let text = format!("SELECT * FROM t{} WHERE id = {}", n % 13, n % 5000);
        record_at(&mut worker, n % DATABASES, &text, n % 100, begin + n);
        if n % 10_000 == 0 {
            let _ = log
                .find(&LogFilter {
                    limit: 1,
                    ..filter(0)
                })
                .unwrap(); // Empties the ring.
        }
        *found.entry(n % DATABASES).or_default() += 1;
    }
    assert_eq!(log.dropped(), 0);
    log.close();
    drop(log);
    let log = open(folder.path());
    for (database, count) in found {
        assert_eq!(total(&log, database), count);
    }
    let rare = LogFilter {
        search: Some("ID = 4321".into()),
        limit: usize::MAX,
        ..filter(0)
    };
    let expected = (0..ENTRIES)
        .filter(|n| n % DATABASES == 0 && n % 5000 == 4321)
        .count();
    assert_eq!(queries(&log, &rare).len(), expected);
    let deep = LogFilter {
        offset: 10_000,
        limit: 3,
        ..filter(5)
    };
    let page = log.find(&deep).unwrap();
    assert_eq!((page.entries.len(), page.has_more), (3, true));
    let all = LogFilter {
        limit: usize::MAX,
        ..filter(96)
    };
    let entries = log.find(&all).unwrap().entries;
    assert_eq!(entries.len() as u64, ENTRIES / DATABASES);
    assert!(entries.is_sorted_by(|a, b| a.at >= b.at));
    let bytes = bytes_on_disk(folder.path()).len() as u64;
    assert!(bytes < 25 * ENTRIES, "{bytes} bytes");
}
