//! A long list of tenants, page by page.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use control_store::databases::NewDatabase;
use control_store::ids::{Engine, ProjectId};
use control_store::settings::WorkspaceSettings;
use control_store::snapshot::{NativeRole, NativeRoles, ScramKeys};
use control_store::states::TenantStatus;
use control_store::{Sealer, Store};
use serde_json::{Value, json};

use super::instance::{Account, Instance};
use super::report::{Section, Target};
use super::{Amounts, micros};
use crate::stats::summarize;

/// Tenants of a page.
const PAGE: u32 = 100;
/// One tenant in so many is suspended.
const SUSPENDED: u32 = 10;
/// One tenant in so many has a database of the second workspace.
const RARE: u32 = 500;
/// The last pages may cost so many times what the first cost.
const WANTED: f64 = 1.2;

pub(super) fn run(
    instance: &mut Instance,
    account: &Account,
    amounts: &Amounts,
) -> Result<Section> {
    let mut client = instance.client(Some(&account.key))?;
    let body = json!({"name": "rare", "database": "PostgreSQL", "mode": "tenant"});
    client.ok("POST", "/workspaces", Some(&body))?;
    let body = json!({"name": "rare", "scope_type": "workspace", "scope_values": ["rare"]});
    let made = client.ok("POST", "/apikeys", Some(&body))?;
    let narrow = made["key"].as_str().context("no key")?.to_owned();
    drop(client);
    instance.stop();
    fill(&instance.data(), account, amounts.list_tenants)?;
    instance.start_again()?;

    let mut section = Section {
        title: "A long list",
        method: format!(
            "{} tenants, listed to the end with `limit={PAGE}`. Each tenant comes with its databases. First and last: the median of a tenth of \
             the pages at either end.",
            amounts.list_tenants
        ),
        columns: vec![
            "`GET /tenants`",
            "tenants",
            "first pages, CPU µs",
            "last pages, CPU µs",
            "first pages, µs until the answer",
            "last",
        ],
        rows: Vec::new(),
        targets: Vec::new(),
    };
    for (name, path, key) in [
        ("all", "/tenants?", &account.key),
        (
            "`status=suspended`",
            "/tenants?status=suspended&",
            &account.key,
        ),
        (
            "with a key for a workspace that few have",
            "/tenants?",
            &narrow,
        ),
    ] {
        let walk = walk(instance, path, key)?;
        let [cpu, took] = [walk.ends(|it| it.cpu), walk.ends(|it| it.took)];
        let mut row = vec![name.to_owned(), walk.tenants.to_string()];
        row.extend([cpu.0, cpu.1, took.0, took.1].map(|it| format!("{it:.0}")));
        section.rows.push(row);
        section.targets.push(Target {
            what: format!("CPU of the last pages to that of the first, {name}"),
            reached: cpu.1 / cpu.0,
            wanted: WANTED,
        });
    }
    Ok(section)
}

struct Page {
    cpu: Duration,
    took: Duration,
}

struct Walk {
    tenants: usize,
    pages: Vec<Page>,
}

impl Walk {
    /// Medians of the first and of the last tenth, in µs. The very last page is seldom full.
    fn ends(&self, of: fn(&Page) -> Duration) -> (f64, f64) {
        let full = &self.pages[..self.pages.len().saturating_sub(1).max(1)];
        let tenth = (full.len() / 10).max(1);
        let median = |pages: &[Page]| {
            let all = summarize(pages.iter().map(|it| micros(of(it))));
            all.map_or(f64::NAN, |it| it.median)
        };
        (median(&full[..tenth]), median(&full[full.len() - tenth..]))
    }
}

fn walk(instance: &Instance, path: &str, key: &str) -> Result<Walk> {
    let mut client = instance.client(Some(key))?;
    let first = format!("{path}limit={PAGE}");
    // A first request opens what the others find open.
    client.ok("GET", &first, None)?;
    let mut walk = Walk {
        tenants: 0,
        pages: Vec::new(),
    };
    let mut next = Some(first.clone());
    while let Some(path) = next {
        let (before, started) = (instance.usage()?, Instant::now());
        let answer = client.send("GET", &path, "")?;
        let took = started.elapsed();
        let cpu = instance.usage()?.since(before).total;
        walk.pages.push(Page { cpu, took });
        let page: Value = serde_json::from_slice(&answer.body)?;
        walk.tenants += page["tenants"].as_array().context("no tenants")?.len();
        let cursor = page["next_cursor"].as_str();
        next = cursor.map(|it| format!("{first}&cursor={it}"));
    }
    Ok(walk)
}

/// Writes tenants into the store of an instance that does not run; their databases are on no server. In memory, since each
/// tenant is a few transactions that would wait for the disk.
fn fill(data: &Path, account: &Account, tenants: u32) -> Result<()> {
    let file = data.join("store.db");
    let memory = Path::new("/dev/shm");
    let folder = match memory.exists() {
        true => tempfile::tempdir_in(memory)?,
        false => tempfile::tempdir()?,
    };
    let copy = folder.path().join("store.db");
    let sealer = Sealer::from_file(&data.join("sealing.key"))?;
    Store::open(&file, sealer)?.copy_to(&copy)?;
    let store = Store::open(&copy, Sealer::from_file(&data.join("sealing.key"))?)?;
    let project = ProjectId::new(&*account.project);
    let server = store.list_servers()?.first().context("no server")?.id;
    let settings = WorkspaceSettings::default_of(Engine::Postgres);
    for n in 0..tenants {
        let id = format!("t{n:06}");
        let roles = roles(n);
        let names = [
            ("shop", format!("shop__{id}")),
            ("rare", format!("rare__{id}")),
        ];
        let of = if n % RARE == 0 { 2 } else { 1 };
        let databases = names[..of].iter().map(|(workspace, name)| NewDatabase {
            workspace,
            tenant: Some(&id),
            engine: Engine::Postgres,
            name,
            server,
            roles: &roles,
            settings: &settings,
        });
        let made = store.create_tenant(&project, &id, &databases.collect::<Vec<_>>())?;
        for database in &made {
            let newest = store.workspace(&project, &store.database(*database)?.workspace)?;
            store.set_database_version(*database, newest.version, &settings)?;
        }
        store.finish_tenant(&project, &id, &made)?;
        if n % SUSPENDED == 1 {
            let (from, to) = ([TenantStatus::Ready], TenantStatus::Suspended);
            store.set_tenant_status(&project, &id, &from, to)?;
        }
    }
    fs::remove_file(&file)?;
    store.copy_to(&file)?;
    for rest in ["store.db-wal", "store.db-shm"] {
        // They belong to the file that is gone.
        let _ = fs::remove_file(data.join(rest));
    }
    Ok(())
}

fn roles(n: u32) -> NativeRoles {
    let role = |kind: char| {
        Arc::new(NativeRole {
            name: format!("tdb_{kind}{n:015x}").into(),
            password: format!("{n:043}").into(),
            scram: ScramKeys::default(),
        })
    };
    NativeRoles {
        admin: role('a'),
        write: role('w'),
        read: role('r'),
    }
}
