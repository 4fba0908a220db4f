//! What the REST API costs: reads, long lists, the query log, a deployment.

mod creation;
mod deployment;
mod http;
mod instance;
mod logs;
mod pages;
mod reads;
pub mod report;

use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::environment::{date, kernel, load_average, machine};
use crate::process::Cpus;
use instance::Instance;
pub use instance::build;
use report::Section;

/// How much is done of everything.
#[derive(Debug, Clone)]
pub struct Amounts {
    /// Requests of a round of reads.
    pub requests: u32,
    /// Tenants that are created one after the other.
    pub creations: u32,
    /// Tenants of the long list.
    pub list_tenants: u32,
    /// Entries of the large query log.
    pub log_entries: u64,
    /// For how long queries run before the crash.
    pub crash_load: Duration,
    /// Tenants of the deployment.
    pub deploy_tenants: u32,
}

impl Amounts {
    /// What the report is made with.
    #[must_use]
    pub fn full() -> Self {
        Self {
            requests: 3000,
            creations: 50,
            list_tenants: 50_000,
            log_entries: 10_000_000,
            crash_load: Duration::from_secs(5),
            deploy_tenants: 1000,
        }
    }

    /// Shows that everything runs.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            requests: 50,
            creations: 3,
            list_tenants: 1000,
            log_entries: 100_000,
            crash_load: Duration::from_secs(1),
            deploy_tenants: 4,
        }
    }
}

/// All figures.
pub struct Figures {
    environment: Vec<(String, String)>,
    quick: bool,
    sections: Vec<Section>,
}

/// A schema as a small shop has it.
const SCHEMA: [&str; 2] = [
    "CREATE TABLE products (id SERIAL PRIMARY KEY, name TEXT NOT NULL)",
    "CREATE INDEX products_by_id ON products (id, name)",
];

/// Measures everything. The product stands beside this program.
///
/// # Errors
/// It does not start, or refuses something.
pub fn run(amounts: &Amounts, quick: bool) -> Result<Figures> {
    let load_before = load_average();
    let last = available_parallelism()?.get() - 1;
    let cpus = Cpus(format!("0-{last}"));
    let fresh = |schema: &[&str]| -> Result<_> {
        let instance = Instance::start(&cpus)?;
        let account = instance.shop(schema)?;
        Ok((instance, account))
    };
    let mut sections = Vec::new();
    let progress = |what: &str| eprintln!("measuring {what}");

    progress("reads");
    let (mut instance, account) = fresh(&SCHEMA)?;
    sections.push(reads::run(&instance, &account, amounts).context("reads")?);
    progress("creating a tenant");
    sections.push(creation::run(&instance, &account, amounts).context("creating a tenant")?);
    progress("a large query log, and a crash");
    sections.extend(logs::run(&mut instance, &account, amounts).context("logs")?);
    progress("a long list");
    sections.push(pages::run(&mut instance, &account, amounts).context("pages")?);
    drop(instance);
    progress("a deployment");
    let (instance, account) = fresh(&SCHEMA)?;
    let deployed = deployment::run(&instance, &account, amounts);
    sections.push(deployed.context("a deployment")?);

    let fact = |name: &str, value: String| (name.to_owned(), value);
    let environment = vec![
        fact("date", date()?),
        fact("machine", machine()?),
        fact("kernel", kernel()?),
        fact(
            "load average",
            format!("{load_before} before, {} after", load_average()),
        ),
    ];
    Ok(Figures {
        environment,
        quick,
        sections,
    })
}

impl Figures {
    /// The report.
    #[must_use]
    pub fn markdown(&self) -> String {
        report::markdown(&self.environment, self.quick, &self.sections)
    }

    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let sections = self.sections.iter().map(|it| {
            let targets = it.targets.iter().map(|it| {
                json!({"what": it.what, "reached": it.reached, "wanted": it.wanted, "met": it.met()})
            });
            json!({
                "title": it.title,
                "columns": it.columns,
                "rows": it.rows,
                "targets": targets.collect::<Vec<_>>(),
            })
        });
        let environment: serde_json::Map<String, Value> = self
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        json!({
            "format": 1,
            "quick": self.quick,
            "environment": environment,
            "sections": sections.collect::<Vec<_>>(),
        })
    }
}

fn micros(it: Duration) -> f64 {
    it.as_secs_f64() * 1e6
}

fn millis(it: Duration) -> f64 {
    it.as_secs_f64() * 1e3
}
