//! What a comparison found, before anyone words it.

use serde_json::{Value, json};

use crate::cases::Case;
use crate::comparison::Comparison;
use crate::contender::Kind;
use crate::stats::{Summary, summarize};

/// One run of one contender.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Operations done.
    pub operations: u64,
    /// Operations a second.
    pub rate: f64,
    /// The proxy's processor time per operation in µs; none without a proxy.
    pub cpu_micros: Option<f64>,
    /// Its part in user mode, 0 to 1; none when the run was too short for a clock tick.
    pub user_share: Option<f64>,
}

/// All rounds of one contender in one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// The contender.
    pub kind: Kind,
    /// Its runs that succeeded.
    pub samples: Vec<Sample>,
    /// Why runs failed, one entry each.
    pub failures: Vec<String>,
}

impl Cell {
    /// Processor time per operation in µs.
    #[must_use]
    pub fn cpu(&self) -> Option<Summary> {
        summarize(self.samples.iter().filter_map(|sample| sample.cpu_micros))
    }

    /// Processor time in user mode per operation in µs.
    #[must_use]
    pub fn user(&self) -> Option<Summary> {
        summarize(
            self.samples
                .iter()
                .filter_map(|sample| Some(sample.cpu_micros? * sample.user_share?)),
        )
    }

    /// Processor time in the kernel per operation in µs.
    #[must_use]
    pub fn system(&self) -> Option<Summary> {
        summarize(
            self.samples
                .iter()
                .filter_map(|sample| Some(sample.cpu_micros? * (1.0 - sample.user_share?))),
        )
    }

    /// Operations a second.
    #[must_use]
    pub fn rate(&self) -> Option<Summary> {
        summarize(self.samples.iter().map(|sample| sample.rate))
    }
}

/// One case with all contenders that took part.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseResult {
    /// The case.
    pub case: Case,
    /// Its contenders, in the order of the columns.
    pub cells: Vec<Cell>,
}

impl CaseResult {
    /// The first cell that `wanted` picks.
    pub fn find(&self, wanted: impl Fn(Kind) -> bool) -> Option<&Cell> {
        self.cells.iter().find(|cell| wanted(cell.kind))
    }
}

/// Memory that idle clients of one contender took.
#[derive(Debug, Clone, PartialEq)]
pub struct IdleResult {
    /// The contender.
    pub kind: Kind,
    /// Whether the clients used TLS.
    pub tls: bool,
    /// How many were connected at once.
    pub clients: u32,
    /// Growth of resident memory per client in bytes, or why there is no figure.
    pub bytes_per_client: Result<f64, String>,
}

/// A whole comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// Which one it is.
    pub comparison: Comparison,
    /// Facts on machine, versions and method: a name and a value each.
    pub environment: Vec<(String, String)>,
    /// Whether this was only a smoke test.
    pub quick: bool,
    /// Why TenantsDB has no column; none when it has one.
    pub ours_missing: Option<String>,
    /// The cases.
    pub cases: Vec<CaseResult>,
    /// Memory of idle clients.
    pub idle: Vec<IdleResult>,
    /// Nanoseconds of a look-up among each of [`TENANTS`](crate::lookup::TENANTS), where that was asked.
    pub lookup: Option<[f64; 2]>,
}

impl Results {
    /// Everything, with each single sample, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let environment: serde_json::Map<String, Value> = self
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        json!({
            "format": 1,
            "quick": self.quick,
            "environment": environment,
            "tenantsdb_missing": self.ours_missing,
            "cases": self.cases.iter().map(case_json).collect::<Vec<_>>(),
            "lookup_ns": self.lookup,
            "idle_clients": self.idle.iter().map(idle_json).collect::<Vec<_>>(),
        })
    }
}

fn case_json(result: &CaseResult) -> Value {
    let cells: Vec<Value> = result.cells.iter().map(cell_json).collect();
    json!({"id": result.case.id, "unit": result.case.unit.name(), "contenders": cells})
}

fn cell_json(cell: &Cell) -> Value {
    let sample = |sample: &Sample| {
        json!({
            "operations": sample.operations,
            "operations_per_second": sample.rate,
            "cpu_us_per_operation": sample.cpu_micros,
            "user_share": sample.user_share,
        })
    };
    let samples: Vec<Value> = cell.samples.iter().map(sample).collect();
    json!({"name": cell.kind.name(), "samples": samples, "failures": cell.failures})
}

fn idle_json(idle: &IdleResult) -> Value {
    json!({
        "name": idle.kind.name(),
        "tls": idle.tls,
        "clients": idle.clients,
        "bytes_per_client": idle.bytes_per_client.as_ref().ok(),
        "failure": idle.bytes_per_client.as_ref().err(),
    })
}
