//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};
use std::sync::Arc;

use control_store::Engine;

use super::histogram::{BOUNDED, Totals, upper_bound_ns};
use super::{Counter, Gauge, Handshake, Histogram, Label, ProtocolMetrics, WorkerMetrics};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process runs.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A metric that others keep: `render` writes it behind its own.
#[derive(Clone, Debug)]
pub struct ExtraMetric {
    /// The whole name, with `tenantsdb_` and the unit.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Labels and value of each series.
    pub samples: Vec<(Vec<(&'static str, String)>, u64)>,
}

/// What the workers do not count themselves.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// The reactor in use: `io_uring` or `epoll`.
    pub reactor: &'static str,
    /// Entries that the query log dropped.
    pub query_log_dropped: u64,
    /// Metrics of others.
    pub metrics: Vec<ExtraMetric>,
}

/// All metrics of these workers together, as one scrape's body.
pub fn render(workers: &[Arc<WorkerMetrics>], extra: &Extra) -> String {
    let mut page = Page {
        out: String::with_capacity(64 * 1024),
        workers,
    };
    page.connections();
    page.statements();
    page.pools();
    page.gates_and_logins();
    page.process(extra);
    page.out
}

struct Page<'a> {
    out: String,
    workers: &'a [Arc<WorkerMetrics>],
}

impl Page<'_> {
    fn connections(&mut self) {
        self.gauge(
            "tenantsdb_client_connections",
            "Client connections open now.",
            |p| &p.connections,
        );
        self.counter(
            "tenantsdb_client_connections_accepted_total",
            "Client connections taken.",
            |p| &p.accepted,
        );
        let name = "tenantsdb_network_bytes_total";
        self.family(name, "Bytes through the sockets of one side.", "counter");
        for &engine in Engine::ALL.iter() {
            for &side in super::Side::ALL {
                let received = self.sum(engine, |p| p.traffic.of(side).received.get());
                let sent = self.sum(engine, |p| p.traffic.of(side).sent.get());
                for (direction, bytes) in [("in", received), ("out", sent)] {
                    let labels = [
                        ("protocol", engine.name()),
                        ("side", side.name()),
                        ("direction", direction),
                    ];
                    self.sample(name, &labels, bytes);
                }
            }
        }
    }

    fn statements(&mut self) {
        self.counter(
            "tenantsdb_queries_total",
            "Statements and commands ended, well or badly.",
            |p| &p.queries,
        );
        self.table(
            "tenantsdb_errors_total",
            "Failures told to clients.",
            "class",
            |p, class| p.errors.of(class),
        );
        let help = "From a statement's first byte here to its last reply byte here.";
        self.histogram("tenantsdb_query_duration_seconds", help, |p| &p.latency);
    }

    fn pools(&mut self) {
        self.gauge(
            "tenantsdb_pool_connections",
            "Backend connections open now.",
            |p| &p.pool_connections,
        );
        self.gauge(
            "tenantsdb_pool_idle_connections",
            "Backend connections leased to nobody.",
            |p| &p.pool_idle,
        );
        let help = "Clients that wait for a backend connection.";
        self.gauge("tenantsdb_pool_waiting_clients", help, |p| &p.pool_waiting);
        let help = "How long clients waited for a backend connection, if they had to.";
        self.histogram("tenantsdb_pool_wait_seconds", help, |p| &p.pool_wait);
        let help = "Sessions that kept their backend connection between transactions.";
        self.table("tenantsdb_pins_total", help, "reason", |p, reason| {
            p.pins.of(reason)
        });
    }

    fn gates_and_logins(&mut self) {
        self.counter(
            "tenantsdb_gate_holds_total",
            "Statements that waited behind a gate.",
            |p| &p.gate_holds,
        );
        let help = "How long statements waited behind a gate.";
        self.histogram("tenantsdb_gate_hold_seconds", help, |p| &p.gate_hold);
        self.handshakes();
        self.counter("tenantsdb_login_failures_total", "Logins refused.", |p| {
            &p.login_failures
        });
    }

    fn handshakes(&mut self) {
        let name = "tenantsdb_tls_handshakes_total";
        self.family(
            name,
            "TLS handshakes with clients that succeeded.",
            "counter",
        );
        let kinds = [
            (Handshake::Tls12Full, "1.2", "false"),
            (Handshake::Tls12Resumed, "1.2", "true"),
            (Handshake::Tls13Full, "1.3", "false"),
            (Handshake::Tls13Resumed, "1.3", "true"),
        ];
        for &engine in Engine::ALL.iter() {
            for (kind, version, resumed) in kinds {
                let count = self.sum(engine, |p| p.handshakes.of(kind).get());
                let labels = [
                    ("protocol", engine.name()),
                    ("version", version),
                    ("resumed", resumed),
                ];
                self.sample(name, &labels, count);
            }
        }
        let help = "TLS handshakes with clients that failed.";
        self.counter("tenantsdb_tls_handshake_failures_total", help, |p| {
            p.handshakes.of(Handshake::Failed)
        });
    }

    fn process(&mut self, extra: &Extra) {
        self.family("tenantsdb_reactor_info", "The reactor in use.", "gauge");
        self.sample("tenantsdb_reactor_info", &[("reactor", extra.reactor)], 1);
        self.family("tenantsdb_workers", "Worker threads.", "gauge");
        self.sample("tenantsdb_workers", &[], self.workers.len());
        let name = "tenantsdb_query_log_dropped_entries_total";
        self.family(
            name,
            "Entries that the query log had no room for.",
            "counter",
        );
        self.sample(name, &[], extra.query_log_dropped);
        for metric in &extra.metrics {
            let kind = if metric.kind == Kind::Counter {
                "counter"
            } else {
                "gauge"
            };
            self.family(metric.name, metric.help, kind);
            for (labels, value) in &metric.samples {
                let labels: Vec<_> = labels
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                self.sample(metric.name, &labels, value);
            }
        }
    }

    fn counter(&mut self, name: &str, help: &str, pick: impl Fn(&ProtocolMetrics) -> &Counter) {
        self.family(name, help, "counter");
        self.per_protocol(name, |p| pick(p).get());
    }

    fn gauge(&mut self, name: &str, help: &str, pick: impl Fn(&ProtocolMetrics) -> &Gauge) {
        self.family(name, help, "gauge");
        self.per_protocol(name, |p| pick(p).get());
    }

    fn per_protocol(&mut self, name: &str, pick: impl Fn(&ProtocolMetrics) -> u64) {
        for &engine in Engine::ALL.iter() {
            let value = self.sum(engine, &pick);
            self.sample(name, &[("protocol", engine.name())], value);
        }
    }

    fn table<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        pick: impl Fn(&ProtocolMetrics, L) -> &Counter,
    ) {
        self.family(name, help, "counter");
        for &engine in Engine::ALL.iter() {
            for &value in L::ALL {
                let count = self.sum(engine, |p| pick(p, value).get());
                self.sample(
                    name,
                    &[("protocol", engine.name()), (label, value.name())],
                    count,
                );
            }
        }
    }

    fn histogram(&mut self, name: &str, help: &str, pick: impl Fn(&ProtocolMetrics) -> &Histogram) {
        self.family(name, help, "histogram");
        for &engine in Engine::ALL.iter() {
            let mut totals = Totals::default();
            for worker in self.workers {
                pick(worker.protocol(engine)).add_to(&mut totals);
            }
            self.buckets(name, engine, &totals);
        }
    }

    fn buckets(&mut self, name: &str, engine: Engine, totals: &Totals) {
        let bucket_name = format!("{name}_bucket");
        let mut count = 0_u64;
        for (index, here) in totals.buckets.iter().enumerate() {
            count += here;
            let bound = if index < BOUNDED {
                seconds(upper_bound_ns(index)).to_string()
            } else {
                "+Inf".into()
            };
            self.sample(
                &bucket_name,
                &[("protocol", engine.name()), ("le", &bound)],
                count,
            );
        }
        let labels = [("protocol", engine.name())];
        self.sample(&format!("{name}_sum"), &labels, seconds(totals.sum_ns));
        self.sample(&format!("{name}_count"), &labels, count);
    }

    fn sum(&self, engine: Engine, pick: impl Fn(&ProtocolMetrics) -> u64) -> u64 {
        self.workers
            .iter()
            .map(|worker| pick(worker.protocol(engine)))
            .sum()
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}"); // A String never fails.
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.out, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            self.escaped(text);
            self.out.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{close} {value}");
    }

    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str(r"\\"),
                '"' => self.out.push_str("\\\""),
                '\n' => self.out.push_str(r"\n"),
                other => self.out.push(other),
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' values are doubles")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
