//! A strict little parser of the text format, and what the page says through it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use control_store::{Engine, Fault};

use super::*;

type Labels = BTreeMap<String, String>;

/// A parsed page: kinds by family, samples in order.
#[derive(Default)]
struct Parsed {
    kinds: BTreeMap<String, String>,
    samples: Vec<(String, Labels, f64)>,
}

impl Parsed {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Labels = labels
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        let mut found = self
            .samples
            .iter()
            .filter(|(n, l, _)| n == name && *l == wanted);
        let value = found
            .next()
            .unwrap_or_else(|| panic!("no {name} {labels:?}"))
            .2;
        assert!(found.next().is_none(), "{name} {labels:?} twice");
        value
    }
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn parse(page: &str) -> Result<Parsed, String> {
    if !page.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let mut parsed = Parsed::default();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("HELP without text")?;
            if !is_name(name) || help.is_empty() || !helped.insert(name.to_owned()) {
                return Err(format!("HELP: {line}"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("TYPE without kind")?;
            if !helped.contains(name) || !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(format!("TYPE: {line}"));
            }
            if parsed.kinds.insert(name.into(), kind.into()).is_some() {
                return Err(format!("two TYPEs: {line}"));
            }
            current = name.into();
        } else {
            let (name, labels, value) =
                parse_sample(line).ok_or_else(|| format!("sample: {line}"))?;
            let family = family_of(&name, &parsed.kinds);
            if family != current || !seen.insert((name.clone(), labels.clone())) {
                return Err(format!("out of place or twice: {line}"));
            }
            parsed.samples.push((name, labels, value));
        }
    }
    check_names(&parsed)?;
    check_histograms(&parsed)?;
    Ok(parsed)
}

fn family_of(name: &str, kinds: &BTreeMap<String, String>) -> String {
    ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix))
        .find(|family| kinds.get(*family).is_some_and(|kind| kind == "histogram"))
        .unwrap_or(name)
        .to_owned()
}

fn parse_sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = unescape(after)?;
            if !is_name(label) || labels.insert(label.into(), value).is_some() {
                return None;
            }
            if let Some(end) = after.strip_prefix('}') {
                rest = end;
                break;
            }
            rest = after.strip_prefix(',')?;
        }
    }
    let value = rest.strip_prefix(' ')?;
    (is_name(name) && !value.contains(' ')).then_some(())?;
    Some((name.into(), labels, value.parse().ok()?))
}

fn unescape(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((value, text.get(at + 1..)?)),
            (_, '\\') => value.push(match chars.next()?.1 {
                '\\' => '\\',
                '"' => '"',
                'n' => '\n',
                _ => return None,
            }),
            (_, c) => value.push(c),
        }
    }
}

fn check_names(parsed: &Parsed) -> Result<(), String> {
    for (name, kind) in &parsed.kinds {
        let total = name.ends_with("_total");
        if !name.starts_with("tenantsdb_") || total != (kind == "counter") || name.contains("milli")
        {
            return Err(format!("name of a {kind}: {name}"));
        }
        if kind == "histogram" && !name.ends_with("_seconds") {
            return Err(format!("no base unit: {name}"));
        }
    }
    Ok(())
}

fn check_histograms(parsed: &Parsed) -> Result<(), String> {
    let mut series: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for (name, labels, value) in &parsed.samples {
        if let Some(family) = name.strip_suffix("_bucket") {
            let mut labels = labels.clone();
            let bound = labels.remove("le").ok_or("a bucket without le")?;
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().map_err(|_| "le")?
            };
            series
                .entry((family.into(), labels))
                .or_default()
                .push((bound, *value));
        }
    }
    for ((family, labels), buckets) in series {
        if buckets
            .windows(2)
            .any(|pair| pair[0].0 >= pair[1].0 || pair[0].1 > pair[1].1)
        {
            return Err(format!("{family} does not grow"));
        }
        let count = parsed
            .samples
            .iter()
            .find(|(n, l, _)| *n == format!("{family}_count") && *l == labels);
        let last = buckets.last().copied();
        if last.is_none_or(|(bound, _)| bound.is_finite())
            || count.map(|c| c.2) != last.map(|l| l.1)
        {
            return Err(format!("{family}: +Inf is not _count"));
        }
    }
    Ok(())
}

#[test]
fn the_parser_refuses_what_prometheus_would() {
    let good = "# HELP tenantsdb_a_total A.\n# TYPE tenantsdb_a_total counter\ntenantsdb_a_total{x=\"1\"} 2\n";
    assert!(parse(good).is_ok());
    for bad in [
        good.trim_end().to_owned(),
        good.replace("# HELP tenantsdb_a_total A.\n", ""),
        good.replace("_a_total", "_a"),
        good.replace("} 2", "} two"),
        good.replace("x=", "x-y="),
        good.replace("\"1\"", "\"\\x\""),
        format!("{good}tenantsdb_a_total{{x=\"1\"}} 3\n"),
        format!("{good}tenantsdb_b_total 3\n"),
    ] {
        assert!(parse(&bad).is_err(), "accepted: {bad}");
    }
    let histogram = "# HELP tenantsdb_h_seconds H.\n# TYPE tenantsdb_h_seconds histogram\n\
        tenantsdb_h_seconds_bucket{le=\"1\"} 1\ntenantsdb_h_seconds_bucket{le=\"+Inf\"} 2\n\
        tenantsdb_h_seconds_sum 3\ntenantsdb_h_seconds_count 2\n";
    assert!(parse(histogram).is_ok());
    assert!(parse(&histogram.replace("count 2", "count 1")).is_err());
    assert!(parse(&histogram.replace("\"1\"} 1", "\"1\"} 3")).is_err());
    assert!(parse(&histogram.replace("+Inf", "2")).is_err());
}

#[test]
fn the_page_sums_workers_and_parses() {
    let workers: Vec<_> = (0..3).map(|_| Arc::new(WorkerMetrics::default())).collect();
    for (index, worker) in workers.iter().enumerate() {
        let p = worker.protocol(Engine::Postgres);
        p.connections.increment();
        p.connections.increment();
        p.connections.decrement();
        p.queries.add(index as u64);
        p.errors
            .of(ErrorClass::from(&Fault::DdlRefused))
            .increment();
        p.latency.record(Duration::from_micros(100));
        p.traffic.of(Side::Client).received.add(10);
        p.pins.of(PinReason::Listen).increment();
        p.handshakes.of(Handshake::Tls13Resumed).increment();
        p.pool_waiting.set(4);
    }
    let page = parse(&render(
        &workers,
        &Extra {
            reactor: "io_uring",
            query_log_dropped: 7,
            metrics: vec![],
        },
    ))
    .unwrap();
    let pg = ("protocol", "postgresql");
    assert_eq!(page.value("tenantsdb_client_connections", &[pg]), 3.0);
    assert_eq!(page.value("tenantsdb_queries_total", &[pg]), 3.0);
    assert_eq!(
        page.value("tenantsdb_queries_total", &[("protocol", "redis")]),
        0.0
    );
    assert_eq!(
        page.value("tenantsdb_errors_total", &[pg, ("class", "denied")]),
        3.0
    );
    assert_eq!(
        page.value("tenantsdb_query_duration_seconds_count", &[pg]),
        3.0
    );
    assert_eq!(
        page.value(
            "tenantsdb_query_duration_seconds_bucket",
            &[pg, ("le", "0.000098304")]
        ),
        0.0
    );
    assert_eq!(
        page.value(
            "tenantsdb_query_duration_seconds_bucket",
            &[pg, ("le", "0.000131072")]
        ),
        3.0
    );
    let bytes = [pg, ("side", "client"), ("direction", "in")];
    assert_eq!(page.value("tenantsdb_network_bytes_total", &bytes), 30.0);
    assert_eq!(
        page.value("tenantsdb_pins_total", &[pg, ("reason", "listen")]),
        3.0
    );
    let resumed = [pg, ("version", "1.3"), ("resumed", "true")];
    assert_eq!(page.value("tenantsdb_tls_handshakes_total", &resumed), 3.0);
    assert_eq!(page.value("tenantsdb_pool_waiting_clients", &[pg]), 12.0);
    assert_eq!(
        page.value("tenantsdb_reactor_info", &[("reactor", "io_uring")]),
        1.0
    );
    assert_eq!(
        page.value("tenantsdb_query_log_dropped_entries_total", &[]),
        7.0
    );
}

#[test]
fn labels_of_others_are_escaped() {
    let text = "a\\b\"c\nd";
    let metric = ExtraMetric {
        name: "tenantsdb_jobs",
        help: "Jobs.\nNow.",
        kind: Kind::Gauge,
        samples: vec![(vec![("what", text.into())], 5)],
    };
    let page = parse(&render(
        &[],
        &Extra {
            metrics: vec![metric],
            ..Extra::default()
        },
    ))
    .unwrap();
    assert_eq!(page.value("tenantsdb_jobs", &[("what", text)]), 5.0);
}

#[test]
fn nothing_is_lost_while_others_read() {
    let workers: Vec<_> = (0..4).map(|_| Arc::new(WorkerMetrics::default())).collect();
    thread::scope(|scope| {
        for worker in &workers {
            scope.spawn(|| {
                let p = worker.protocol(Engine::Postgres);
                for us in 0..20_000 {
                    p.queries.increment();
                    p.latency.record(Duration::from_micros(us));
                }
            });
        }
        for _ in 0..20 {
            parse(&render(&workers, &Extra::default())).unwrap();
        }
    });
    let page = parse(&render(&workers, &Extra::default())).unwrap();
    assert_eq!(
        page.value("tenantsdb_queries_total", &[("protocol", "postgresql")]),
        80_000.0
    );
    assert_eq!(
        page.value(
            "tenantsdb_query_duration_seconds_count",
            &[("protocol", "postgresql")]
        ),
        80_000.0
    );
}
