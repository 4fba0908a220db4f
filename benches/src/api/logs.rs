//! Questions to a large query log, what it costs on disk, and what a crash leaves of it.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use control_store::ids::{DatabaseId, ProjectId};
use control_store::logs::{LogFilter, QueryLogReader as _, Source};
use control_store::{Sealer, Store};
use proxy::query_log::{ErrorCode, QueryLog, QueryLogConfig, StatementRecord};
use serde_json::{Value, json};

use super::instance::{Account, Instance, bytes_in, new_tenant};
use super::report::{Section, Target};
use super::{Amounts, millis};

/// The tenant whose log is large.
const TENANT: &str = "busy";
/// Over how long its entries are spread.
const SPREAD: Duration = Duration::from_secs(20 * 24 * 3600);
/// Milliseconds that an answer may take: well under a second.
const WANTED_MS: f64 = 500.0;
/// Milliseconds of entries that a crash may cost.
const WANTED_LOST_MS: f64 = 1000.0;
const ROUNDS: usize = 3;

pub(super) fn run(
    instance: &mut Instance,
    account: &Account,
    amounts: &Amounts,
) -> Result<Vec<Section>> {
    let mut client = instance.client(Some(&account.key))?;
    client.ok("POST", "/tenants", Some(&new_tenant(TENANT)))?;
    let crash = crash(instance, account, amounts)?;
    instance.stop();
    let folder = instance.data().join("query-log");
    let before = bytes_in(&folder)?;
    write(
        &folder,
        database(&instance.data(), account)?,
        amounts.log_entries,
    )?;
    let bytes = bytes_in(&folder)?.saturating_sub(before);
    instance.start_again()?;
    Ok(vec![questions(instance, account, amounts, bytes)?, crash])
}

fn database(data: &Path, account: &Account) -> Result<DatabaseId> {
    let sealer = Sealer::from_file(&data.join("sealing.key"))?;
    let store = Store::open(&data.join("store.db"), sealer)?;
    let found = store.tenant_databases(&ProjectId::new(&*account.project), TENANT)?;
    Ok(found.first().context("no database")?.id)
}

/// A few hundred texts, as an application has them; one entry in a thousand failed, one in ten thousand was slow or by the API.
fn write(folder: &Path, database: DatabaseId, entries: u64) -> Result<()> {
    let log = QueryLog::open(QueryLogConfig {
        ring_bytes: 64 << 20,
        ..QueryLogConfig::new(folder)
    })?;
    let mut worker = log.worker();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let start = u64::try_from(now.saturating_sub(SPREAD).as_micros())?;
    let step = u64::try_from(SPREAD.as_micros())? / entries.max(1);
    let texts: Vec<String> = (0..300)
        .map(|n| {
            format!(
                "SELECT id, name, price FROM products_{n} WHERE category = $1 ORDER BY id LIMIT {n}"
            )
        })
        .collect();
    let empties_the_ring = LogFilter {
        databases: vec![database],
        limit: 1,
        ..LogFilter::default()
    };
    for n in 0..entries {
        let of = |rate: u64| n % rate == rate - 1;
        worker.record(&StatementRecord {
            database,
            text: texts[(n % 300) as usize].as_bytes(),
            source: if of(10_000) {
                Source::Api
            } else {
                Source::Proxy
            },
            ended_at_us: start + n * step,
            duration: if of(10_000) {
                Duration::from_millis(1500)
            } else {
                Duration::from_micros(300 + n % 1000)
            },
            error_code: of(1000).then(|| ErrorCode::new(b"23505")),
            rows: n % 20,
        });
        if n % 50_000 == 0 {
            log.find(&empties_the_ring)?;
        }
    }
    ensure!(log.dropped() == 0, "{} entries were dropped", log.dropped());
    log.close();
    Ok(())
}

fn questions(
    instance: &Instance,
    account: &Account,
    amounts: &Amounts,
    bytes: u64,
) -> Result<Section> {
    let deep = amounts.log_entries.saturating_sub(1000);
    let all =
        format!("?limit=1000&offset={deep}&type=error&source=proxy&since=30d&search=products_299");
    let mut section = Section {
        title: "A large query log",
        method: format!(
            "{} entries of one tenant over 20 days, of 300 texts; one in 1,000 failed, one in 10,000 was slow and came by the API. Median of \
             {ROUNDS}, right after a start.",
            amounts.log_entries
        ),
        columns: vec![
            "`GET /tenants/{id}/logs…`",
            "entries",
            "ms until the answer",
        ],
        rows: Vec::new(),
        targets: Vec::new(),
    };
    let deep_page = format!("?limit=1000&offset={deep}");
    let mut slowest = 0.0_f64;
    for query in [
        "",
        "?limit=1000",
        &deep_page,
        "?type=error",
        "?type=slow",
        "?source=api&limit=1000",
        "?search=products_17",
        "?search=nowhere",
        "?since=1h",
        "?since=7d&type=error&limit=1000",
        &all,
        "/stats",
        "/stats?since=7d",
    ] {
        let path = format!("/tenants/{TENANT}/logs{query}");
        let mut client = instance.client(Some(&account.key))?;
        let mut times = Vec::new();
        let mut entries = String::new();
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let answer = client.ok("GET", &path, None)?;
            times.push(millis(started.elapsed()));
            let count = answer.get("count").or(answer.get("total_queries"));
            entries = count.map(Value::to_string).unwrap_or_default();
        }
        times.sort_by(f64::total_cmp);
        let took = times[ROUNDS / 2];
        slowest = slowest.max(took);
        section
            .rows
            .push(vec![format!("`{query}`"), entries, format!("{took:.1}")]);
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio to three digits")]
    let each = bytes as f64 / amounts.log_entries as f64;
    section.rows.push(vec![
        "bytes on disk per entry".into(),
        amounts.log_entries.to_string(),
        format!("{each:.1}"),
    ]);
    section.targets.push(Target {
        what: "ms of the slowest answer".into(),
        reached: slowest,
        wanted: WANTED_MS,
    });
    Ok(section)
}

/// Queries one after the other until the process is killed; afterwards the log tells which of them it kept.
fn crash(instance: &mut Instance, account: &Account, amounts: &Amounts) -> Result<Section> {
    let mut client = instance.client(Some(&account.key))?;
    let body = json!({"blueprint": "shop", "tenant_id": TENANT, "query": "SELECT 1"}).to_string();
    let end = Instant::now() + amounts.crash_load;
    let mut answered = Vec::new();
    while Instant::now() < end {
        ensure!(client.send("POST", "/admin/query", &body)?.status == 200);
        answered.push(Instant::now());
    }
    let killed = Instant::now();
    instance.kill()?;
    // The database servers end by themselves when their parent is gone; a start waits for that.
    sleep(Duration::from_millis(100));
    instance.start_again()?;
    let mut client = instance.client(Some(&account.key))?;
    let stats = client.ok("GET", &format!("/tenants/{TENANT}/logs/stats"), None)?;
    let kept = stats["total_queries"].as_u64().context("no count")?;
    let kept = usize::try_from(kept)?.min(answered.len());
    let lost = answered.get(kept).map_or(Duration::ZERO, |it| killed - *it);
    Ok(Section {
        title: "A crash",
        method: format!(
            "Queries by the API for {} s, then SIGKILL. What was answered and is not in the log after the next start is lost.",
            amounts.crash_load.as_secs()
        ),
        columns: vec!["queries answered", "kept", "lost: the last ms"],
        rows: vec![vec![
            answered.len().to_string(),
            kept.to_string(),
            format!("{:.0}", millis(lost)),
        ]],
        targets: vec![Target {
            what: "ms of entries that a crash costs".into(),
            reached: millis(lost),
            wanted: WANTED_LOST_MS,
        }],
    })
}
