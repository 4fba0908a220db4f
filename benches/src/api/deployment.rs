//! A deployment to many tenants, some of them busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::instance::{Account, Instance, new_tenant};
use super::report::Section;
use super::{Amounts, millis};

/// Clients that make tenants at the same time.
const MAKERS: u32 = 4;
/// Tenants under load.
const BUSY: u32 = 4;
/// For how long the load runs before the deployment.
const CALM: Duration = Duration::from_secs(3);
/// Between a busy client's statements: a load, not a flood.
const PAUSE: Duration = Duration::from_millis(1);
/// What is deployed.
const CHANGES: [&str; 3] = [
    "ALTER TABLE products ADD COLUMN price NUMERIC(12,2) NOT NULL DEFAULT 0",
    "CREATE TABLE orders (id SERIAL PRIMARY KEY, product INTEGER NOT NULL REFERENCES products (id), at TIMESTAMPTZ NOT NULL DEFAULT now())",
    "CREATE INDEX products_by_name ON products (name)",
];

pub(super) fn run(instance: &Instance, account: &Account, amounts: &Amounts) -> Result<Section> {
    let tenants = amounts.deploy_tenants;
    let started = Instant::now();
    make(instance, account, tenants)?;
    let making = started.elapsed();
    let mut client = instance.client(Some(&account.key))?;
    for statement in CHANGES {
        let body = json!({ "query": statement });
        client.ok("POST", "/workspaces/shop/queries", Some(&body))?;
    }
    let load = Load::start(instance, account, tenants)?;
    sleep(CALM);
    let calm = load.longest();
    let mut client = instance.client(Some(&account.key))?;
    let (before, started) = (instance.usage()?, Instant::now());
    let body = json!({"blueprint_name": "shop", "deploy_all": true});
    let begun = client.ok("POST", "/deployments", Some(&body))?;
    let path = format!(
        "/deployments/{}?limit=1",
        begun["id"].as_str().context("no id")?
    );
    let ended = loop {
        let now = client.ok("GET", &path, None)?;
        if now["status"] != "in_progress" {
            break now;
        }
        sleep(Duration::from_millis(100));
    };
    let took = started.elapsed();
    let used = instance.usage()?.since(before);
    let (busy, statements) = (load.longest(), load.stop()?);
    ensure!(ended["status"] == "completed", "{ended}");
    let number = |name: &str| ended[name].as_u64().map(|it| it.to_string());
    let per_tenant = |ms: f64| format!("{:.1}", ms / f64::from(tenants));
    // Threads come and go meanwhile: the kernel's ticks, of 10 ms, count those that have ended too.
    #[expect(clippy::cast_precision_loss, reason = "tick counts are far below 2^52")]
    let cpu = (used.user_ticks + used.system_ticks) as f64 * 10.0;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    Ok(Section {
        title: "A deployment",
        method: format!(
            "A column, a table with a foreign key and an index to {tenants} tenants, all on this machine. {BUSY} of them are under load meanwhile: an \
             `UPDATE` and a `SELECT` every ms or so, through the proxy ({statements} statements). How long a deployment locks a tenant is what the \
             longest of these statements took."
        ),
        columns: vec!["", ""],
        rows: vec![
            row("tenants", number("tenants_completed").unwrap_or_default()),
            row("s to the end", format!("{:.1}", took.as_secs_f64())),
            row("ms per tenant", per_tenant(millis(took))),
            row("CPU s of our process", format!("{:.1}", cpu / 1000.0)),
            row("CPU ms of our process per tenant", per_tenant(cpu)),
            row(
                "longest statement on a tenant under load, in the 3 s before, ms",
                format!("{:.1}", millis(calm)),
            ),
            row(
                "the same, during the deployment",
                format!("{:.1}", millis(busy)),
            ),
            row(
                "making the tenants before, s",
                format!("{:.1}", making.as_secs_f64()),
            ),
        ],
        targets: Vec::new(),
    })
}

fn name(n: u32) -> String {
    format!("d{n:05}")
}

fn make(instance: &Instance, account: &Account, tenants: u32) -> Result<()> {
    let next = AtomicU32::new(0);
    let maker = || -> Result<()> {
        let mut client = instance.client(Some(&account.key))?;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= tenants {
                return Ok(());
            }
            client.ok("POST", "/tenants", Some(&new_tenant(&name(n))))?;
        }
    };
    thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(maker)).collect();
        let made = makers.into_iter().map(|it| match it.join() {
            Ok(made) => made,
            Err(_) => anyhow::bail!("a client panicked"),
        });
        made.collect()
    })
}

/// Clients of a few tenants.
struct Load {
    stop: Arc<AtomicBool>,
    longest_us: Arc<AtomicU64>,
    clients: thread::JoinHandle<Result<u64>>,
}

impl Load {
    fn start(instance: &Instance, account: &Account, tenants: u32) -> Result<Self> {
        let password = password(instance, account)?;
        let (host, port) = instance.postgres();
        let step = (tenants / BUSY).max(1);
        let logins = (0..BUSY.min(tenants)).map(|n| {
            format!(
                "host={host} port={port} user={} password={password} dbname=shop__{}",
                account.project,
                name(n * step)
            )
        });
        let logins: Vec<String> = logins.collect();
        let (stop, longest_us) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (ends, longest) = (Arc::clone(&stop), Arc::clone(&longest_us));
        let clients = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let all = logins.iter().map(|login| busy(login, &ends, &longest));
                let mut statements = 0;
                for count in futures_util::future::join_all(all).await {
                    statements += count?;
                }
                Ok(statements)
            })
        });
        Ok(Self {
            stop,
            longest_us,
            clients,
        })
    }

    /// The longest statement since the question before.
    fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.swap(0, Ordering::Relaxed))
    }

    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.clients.join() {
            Ok(statements) => statements,
            Err(_) => anyhow::bail!("the load panicked"),
        }
    }
}

async fn busy(login: &str, stop: &AtomicBool, longest_us: &AtomicU64) -> Result<u64> {
    let (client, connection) = tokio_postgres::connect(login, NoTls).await?;
    let connection = tokio::spawn(connection);
    client
        .execute(
            "INSERT INTO products (name) SELECT 'anvil' FROM generate_series(1, 1000)",
            &[],
        )
        .await?;
    let mut statements = 0;
    while !stop.load(Ordering::Relaxed) {
        for sql in [
            "UPDATE products SET name = name WHERE id = 7",
            "SELECT name FROM products WHERE id = 7",
        ] {
            let started = Instant::now();
            client.query(sql, &[]).await?;
            let took = u64::try_from(started.elapsed().as_micros())?;
            longest_us.fetch_max(took, Ordering::Relaxed);
            statements += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
    connection.abort();
    Ok(statements)
}

fn password(instance: &Instance, account: &Account) -> Result<String> {
    let made: Value = instance.client(Some(&account.key))?.ok(
        "POST",
        "/apikeys",
        Some(&json!({"name": "load"})),
    )?;
    let password = made["proxy_password"].as_str().context("no password")?;
    Ok(password.to_owned())
}
