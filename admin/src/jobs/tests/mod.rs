//! The work on servers made of memory: each effect fails in turn, and the process ends before and after each.

mod postgres;
mod world;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use control_store::deployments::{DeploymentInfo, OnFailure, Progress, Steer};
use control_store::ids::{Engine, ProjectId};
use control_store::page::Part;
use control_store::snapshot::Scope;
use control_store::states::{DatabaseState, Mode, TenantStatus};
use control_store::{Entity, Store, StoreError};

use self::world::{Legacy, Life, Mishap, Plan};
use crate::app::failure::{Failure, Outcome};
use crate::app::work::{Deploy, DeployTo, Work as _};
use crate::jobs::Jobs;

const PG: Engine = Engine::Postgres;

type Doing = Pin<Box<dyn Future<Output = Outcome<()>> + Send>>;

/// One thing that a caller asks for.
struct Case {
    name: &'static str,
    ask: fn(Jobs, ProjectId) -> Doing,
    /// What is there once it is done, as [`there`] tells it.
    expected: &'static [&'static str],
}

const BEFORE: &[&str] = &["acme: blog 1, shop 1", "blog", "shop", "solo"];

const CASES: &[Case] = &[
    Case {
        name: "create a workspace",
        ask: |jobs, project| {
            Box::pin(async move {
                jobs.create_workspace(&project, "news", PG, Mode::Tenant)
                    .await
            })
        },
        expected: &["acme: blog 1, shop 1", "blog", "news", "shop", "solo"],
    },
    Case {
        name: "delete a workspace",
        ask: |jobs, project| Box::pin(async move { jobs.delete_workspace(&project, "solo").await }),
        expected: &["acme: blog 1, shop 1", "blog", "shop"],
    },
    Case {
        name: "create a tenant with two databases",
        ask: |jobs, project| {
            Box::pin(async move {
                let of = ["shop".to_owned(), "blog".to_owned()];
                jobs.create_tenant(&project, "globex", &of).await
            })
        },
        expected: &[
            "acme: blog 1, shop 1",
            "blog",
            "globex: blog 1, shop 2",
            "shop",
            "solo",
        ],
    },
    Case {
        name: "add a database to a tenant",
        ask: |jobs, project| {
            Box::pin(async move {
                let of = ["solo".to_owned()];
                jobs.create_tenant(&project, "acme", &of).await
            })
        },
        expected: &["acme: blog 1, shop 1, solo 0", "blog", "shop", "solo"],
    },
    Case {
        name: "delete a tenant for good",
        ask: |jobs, project| {
            Box::pin(async move { jobs.delete_tenant(&project, "acme", true).await })
        },
        expected: &["blog", "shop", "solo"],
    },
    Case {
        name: "delete a project",
        ask: |jobs, project| Box::pin(async move { jobs.delete_project(&project).await }),
        expected: &[],
    },
    Case {
        name: "deploy",
        ask: |jobs, project| {
            Box::pin(async move {
                deploy(&jobs, &project, "shop").await?;
                settle(&jobs).await;
                Ok(())
            })
        },
        expected: &["acme: blog 1, shop 2", "blog", "shop", "solo"],
    },
];

async fn deploy(jobs: &Jobs, project: &ProjectId, blueprint: &str) -> Outcome<String> {
    let deploy = Deploy {
        blueprint: blueprint.into(),
        version: None,
        to: DeployTo::All,
        concurrency: None,
        on_failure: OnFailure::Continue,
    };
    jobs.deploy(project, &deploy).await
}

/// Waits for the deployments to end.
async fn settle(jobs: &Jobs) {
    let mut turns = 0;
    while !jobs
        .store(Store::open_deployments)
        .await
        .unwrap()
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
        turns += 1;
        assert!(turns < 30_000, "a deployment does not end");
    }
}

/// A project with three workspaces and a tenant that has databases of two; `shop` has a change that is not deployed.
fn beginning() -> (Legacy, ProjectId) {
    let life = Life::first();
    let project = life.project();
    for name in ["shop", "blog", "solo"] {
        life.done(life.jobs.create_workspace(&project, name, PG, Mode::Tenant));
    }
    life.world.track("shop", "CREATE TABLE a ()");
    life.world.track("shop", "CREATE TABLE b ()");
    life.world.track("blog", "CREATE TABLE c ()");
    let of = ["shop".to_owned(), "blog".to_owned()];
    life.done(life.jobs.create_tenant(&project, "acme", &of));
    life.world.track("shop", "CREATE TABLE d ()");
    (life.end(), project)
}

/// What there is, in words: workspaces by name, tenants with the versions of their databases.
fn there(store: &Store, project: &ProjectId) -> Vec<String> {
    let scope = Scope::Project;
    let mut all: Vec<String> = store
        .list_workspaces(project, None, &scope, &Part::ALL)
        .unwrap()
        .into_iter()
        .map(|it| it.name)
        .collect();
    let tenants = store.list_tenants(project, None, &scope, &Part::ALL);
    for tenant in tenants.unwrap() {
        assert_eq!(tenant.info.status, TenantStatus::Ready);
        let mut of: Vec<_> = tenant
            .databases
            .iter()
            .map(|it| format!("{} {}", it.blueprint, it.version))
            .collect();
        of.sort();
        all.push(format!("{}: {}", tenant.info.id, of.join(", ")));
    }
    all.sort();
    all
}

/// Rows and physical databases are the same set, all in use.
fn check_rows(life: &Life, project: &ProjectId, what: &str) {
    assert!(
        life.store.unfinished_databases().unwrap().is_empty(),
        "{what}"
    );
    let rows = life.store.project_databases(project).unwrap();
    let state = life.world.state();
    let physical: BTreeSet<_> = state.databases.keys().cloned().collect();
    let known: BTreeSet<_> = rows.iter().map(|it| (it.server, it.name.clone())).collect();
    assert_eq!(physical, known, "{what}");
    for row in rows {
        assert_eq!(row.state, DatabaseState::Ready, "{what}: {}", row.name);
    }
}

/// And each has the changes that its version says.
fn check_whole(life: &Life, project: &ProjectId, what: &str) {
    check_rows(life, project, what);
    for row in life.store.project_databases(project).unwrap() {
        let changes = life.store.changes(project, &row.workspace).unwrap();
        let expected = changes.iter().filter(|change| {
            row.tenant.is_some() && change.version.is_some_and(|it| it <= row.version)
        });
        let expected: Vec<_> = expected.map(|it| it.id).collect();
        let found = life.world.named(&row.name).ledger;
        assert_eq!(found, expected, "{what}: {}", row.name);
    }
}

fn plans(mishap: Mishap) -> impl Iterator<Item = Plan> {
    (1..).flat_map(move |at| [false, true].map(|after| Plan { mishap, at, after }))
}

#[test]
fn a_process_that_ends_anywhere_leaves_a_whole() {
    let (legacy, project) = beginning();
    for case in CASES {
        for plan in plans(Mishap::Crash) {
            let what = format!("{} {plan:?}", case.name);
            let first = Life::begin(legacy.copied());
            first.world.state().plan = Some(plan);
            let ended = first.run((case.ask)(first.jobs.clone(), project.clone()));
            let second = Life::begin(first.end());
            second.done(second.jobs.resume());
            second.done(async {
                settle(&second.jobs).await;
                Ok(())
            });
            check_whole(&second, &project, &what);
            let found = there(&second.store, &project);
            if ended.is_some() {
                assert_eq!(found, case.expected, "{what}");
                break;
            }
            assert!(
                found == BEFORE || found == case.expected,
                "{what}: {found:?}"
            );
            // What was undone can be asked for again.
            if found == BEFORE {
                second.done((case.ask)(second.jobs.clone(), project.clone()));
                check_whole(&second, &project, &what);
            }
            assert_eq!(there(&second.store, &project), case.expected, "{what}");
        }
    }
}

#[test]
fn a_server_that_fails_anywhere_leaves_a_whole() {
    let (legacy, project) = beginning();
    for case in CASES {
        for plan in plans(Mishap::Fail) {
            let what = format!("{} {plan:?}", case.name);
            let life = Life::begin(legacy.copied());
            life.world.state().plan = Some(plan);
            let outcome = life
                .run((case.ask)(life.jobs.clone(), project.clone()))
                .unwrap();
            let struck = life.world.state().effects >= plan.at;
            life.world.state().plan = None;
            if !struck {
                assert!(outcome.is_ok(), "{what}");
                break;
            }
            // A removal that failed is ended by the next start.
            let life = Life::begin(life.end());
            life.done(life.jobs.resume());
            // A deployment that failed may have come some way.
            check_rows(&life, &project, &what);
            let found = there(&life.store, &project);
            assert!(
                found == BEFORE || found == case.expected,
                "{what}: {found:?}"
            );
            if found == BEFORE {
                life.done((case.ask)(life.jobs.clone(), project.clone()));
            }
            check_whole(&life, &project, &what);
            assert_eq!(there(&life.store, &project), case.expected, "{what}");
        }
    }
}

/// A removal that failed is not forgotten until the next start.
#[test]
fn a_removal_that_fails_is_tried_again() {
    let (legacy, project) = beginning();
    let life = Life::begin(legacy);
    life.world.state().plan = Some(Plan {
        mishap: Mishap::Fail,
        at: 1,
        after: false,
    });
    let refused = life.run(life.jobs.delete_tenant(&project, "acme", true));
    assert!(matches!(refused, Some(Err(Failure::Internal(_)))));
    life.done(async {
        let mut turns = 0;
        while !life.store.unfinished_databases().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            turns += 1;
            assert!(turns < 3_000, "it is not tried again");
        }
        Ok(())
    });
    check_whole(&life, &project, "after the second try");
    assert!(life.store.tenant(&project, "acme").is_err());
}

/// A tenant whose making fails is gone at once, not only at the next start.
#[test]
fn a_tenant_that_cannot_get_its_schema_is_not_made() {
    let (legacy, project) = beginning();
    let life = Life::begin(legacy);
    life.world.state().broken.insert("blog__globex".into(), 1);
    let of = ["shop".to_owned(), "blog".to_owned()];
    let refused = life.run(life.jobs.create_tenant(&project, "globex", &of));
    let Some(Err(Failure::Conflict(message, _))) = refused else {
        panic!("a conflict")
    };
    assert_eq!(message, "change 1 failed: relation exists (42P07)");
    assert_eq!(there(&life.store, &project), BEFORE);
    check_whole(&life, &project, "after the failure");
}

fn ended(life: &Life, project: &ProjectId, id: &str) -> DeploymentInfo {
    life.done(async {
        settle(&life.jobs).await;
        Ok(())
    });
    life.store.deployment(project, id).unwrap()
}

#[test]
fn one_tenants_failure_is_named_and_its_own() {
    let life = Life::first();
    let project = life.project();
    life.done(
        life.jobs
            .create_workspace(&project, "shop", PG, Mode::Tenant),
    );
    let tenants = ["a", "b", "c", "d", "e"];
    for tenant in tenants {
        life.done(
            life.jobs
                .create_tenant(&project, tenant, &["shop".to_owned()]),
        );
    }
    life.world.track("shop", "CREATE TABLE x ()");
    life.world.track("shop", "CREATE TABLE y ()");
    life.world.state().broken.insert("shop__b".into(), 2);
    let id = life.done(deploy(&life.jobs, &project, "shop"));
    let first = ended(&life, &project, &id);
    assert_eq!(first.status, Progress::Failed);
    for result in &first.results {
        let failed = result.tenant == "b";
        assert_eq!(
            result.status == Progress::Failed,
            failed,
            "{}",
            result.tenant
        );
        assert_eq!(result.error.is_some(), failed, "{}", result.tenant);
        assert!(result.duration_us.is_some());
    }
    let error = first.results[1].error.as_deref();
    assert_eq!(error, Some("change 2 failed: relation exists (42P07)"));
    assert_eq!(life.store.undeployed_changes(&project, "shop").unwrap(), 1);
    assert!(life.world.state().most_applying <= world::options().parallel_tenants);
    assert_eq!(life.world.named("shop__a").ledger, [1, 2]);

    life.world.state().broken.clear();
    let id = life.done(deploy(&life.jobs, &project, "shop"));
    let second = ended(&life, &project, &id);
    assert_eq!((second.version, second.status), (1, Progress::Completed));
    assert_eq!(life.store.undeployed_changes(&project, "shop").unwrap(), 0);
    check_whole(&life, &project, "after the second");
}

/// A workspace with a change, and tenants `a` to `d` that lack it.
fn fleet() -> (Life, ProjectId) {
    let life = Life::first();
    let project = life.project();
    life.done(
        life.jobs
            .create_workspace(&project, "shop", PG, Mode::Tenant),
    );
    for tenant in ["a", "b", "c", "d"] {
        let of = ["shop".to_owned()];
        life.done(life.jobs.create_tenant(&project, tenant, &of));
    }
    life.world.track("shop", "CREATE TABLE x ()");
    (life, project)
}

fn one_by_one(on_failure: OnFailure) -> Deploy {
    Deploy {
        blueprint: "shop".into(),
        version: None,
        to: DeployTo::All,
        concurrency: Some(1),
        on_failure,
    }
}

fn words(info: &DeploymentInfo) -> Vec<&'static str> {
    info.results.iter().map(|it| it.status.name()).collect()
}

#[test]
fn a_failure_stops_a_deployment_if_asked_and_a_retry_goes_on() {
    let (life, project) = fleet();
    life.world.state().broken.insert("shop__b".into(), 1);
    let stop = one_by_one(OnFailure::Stop);
    let id = life.done(life.jobs.deploy(&project, &stop));
    let first = ended(&life, &project, &id);
    assert_eq!(first.status, Progress::Failed);
    assert_eq!(
        words(&first),
        ["completed", "failed", "cancelled", "cancelled"]
    );
    assert_eq!(life.world.state().most_applying, 1);
    life.world.state().broken.clear();
    life.done(life.jobs.steer_deployment(&project, &id, Steer::Retry));
    let second = ended(&life, &project, &id);
    assert_eq!(words(&second), ["completed"; 4]);
    assert_eq!(second.status, Progress::Completed);
    check_whole(&life, &project, "after the retry");
}

#[test]
fn a_paused_deployment_waits_and_its_steps_are_seen() {
    let (life, project) = fleet();
    let (store, of, jobs) = (
        std::sync::Arc::clone(&life.store),
        project.clone(),
        life.jobs.clone(),
    );
    let (seen, steps) = std::sync::mpsc::channel();
    // In the middle of the first tenant's part.
    *life.world.at_step.lock().unwrap() = Some(Box::new(move |_| {
        let id = store.open_deployments().unwrap()[0].id.clone();
        store.steer_deployment(&of, &id, Steer::Pause).unwrap();
        seen.send(jobs.deployment_steps(&id)).unwrap();
    }));
    let id = life.done(life.jobs.deploy(&project, &one_by_one(OnFailure::Continue)));
    let steps = steps.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!((steps["a"].change, steps["a"].number), (1, 1));
    let paused = life.until(|| {
        let info = life.store.deployment(&project, &id).unwrap();
        (words(&info)[0] == "completed").then_some(info)
    });
    assert_eq!(
        words(&paused),
        ["completed", "pending", "pending", "pending"]
    );
    assert_eq!(paused.status, Progress::Paused);
    life.done(life.jobs.steer_deployment(&project, &id, Steer::Resume));
    let resumed = ended(&life, &project, &id);
    assert_eq!(resumed.status, Progress::Completed);
    assert!(life.jobs.deployment_steps(&id).is_empty());
}

#[test]
fn whoever_is_suspended_is_cut_off() {
    let (life, project) = fleet();
    life.done(life.jobs.suspend_tenant(&project, "a"));
    let a = life.store.tenant_databases(&project, "a").unwrap()[0].id;
    assert_eq!(life.world.state().killed, [a]);
}

#[test]
fn deployments_have_their_rules() {
    let (legacy, project) = beginning();
    let life = Life::begin(legacy);
    let done = life
        .jobs
        .create_workspace(&project, "control", PG, Mode::Control);
    life.done(done);
    let refused = life.run(deploy(&life.jobs, &project, "control"));
    assert!(matches!(refused, Some(Err(Failure::BadRequest(_)))));
    let refused = life.run(deploy(&life.jobs, &project, "none"));
    assert!(matches!(
        refused,
        Some(Err(Failure::Store(StoreError::NotFound { .. })))
    ));
    let chosen = Deploy {
        blueprint: "shop".into(),
        version: Some(1),
        to: DeployTo::Named(vec!["acme".into()]),
        concurrency: Some(1),
        on_failure: OnFailure::Continue,
    };
    let id = life.done(life.jobs.deploy(&project, &chosen));
    assert_eq!(ended(&life, &project, &id).status, Progress::Completed);
    assert_eq!(
        life.world.named("shop__acme").ledger,
        [1, 2],
        "version 2 was not asked for"
    );
    check_whole(&life, &project, "an older version");
}

#[test]
fn a_tenant_gets_a_version_that_is_cut_while_it_is_made() {
    let (legacy, project) = beginning();
    let life = Life::begin(legacy);
    let (store, of) = (life.store.clone(), project.clone());
    *life.world.interference.lock().unwrap() = Some(Box::new(move |_| {
        let late = control_store::workspaces::NewChange {
            position: 1_000,
            statement: "CREATE TABLE late ()".into(),
            search_path: "public".into(),
            at_us: 0,
        };
        store.record_changes(&of, "shop", &[late]).unwrap();
        assert_eq!(store.cut_version(&of, "shop").unwrap(), 3);
    }));
    let of = ["shop".to_owned()];
    life.done(life.jobs.create_tenant(&project, "globex", &of));
    assert_eq!(life.world.named("shop__globex").ledger, [1, 2, 3, 4]);
    check_whole(&life, &project, "a tenant made during a deployment");
}

#[test]
fn a_name_that_is_taken_everywhere_gets_another_server_and_a_duplicate_does_not() {
    let life = Life::first();
    let (ours, theirs) = (life.project(), life.project());
    let servers = || life.world.state().servers.len();
    life.done(life.jobs.create_workspace(&ours, "shop", PG, Mode::Tenant));
    let of = ["shop".to_owned()];
    life.done(life.jobs.create_tenant(&ours, "acme", &of));
    let again = life.run(life.jobs.create_workspace(&ours, "shop", PG, Mode::Tenant));
    let Some(Err(Failure::Store(StoreError::Taken { what, .. }))) = again else {
        panic!("it is taken")
    };
    assert_eq!(what, Entity::Workspace);
    let again = life.run(life.jobs.create_tenant(&ours, "acme", &of));
    let Some(Err(Failure::Store(StoreError::Taken { what, .. }))) = again else {
        panic!("it is taken")
    };
    assert_eq!((what, servers()), (Entity::Tenant, 1));
    life.done(
        life.jobs
            .create_workspace(&theirs, "shop", PG, Mode::Tenant),
    );
    life.done(life.jobs.create_tenant(&theirs, "acme", &of));
    assert_eq!(servers(), 2);
    let refused = life.run(
        life.jobs
            .create_workspace(&ours, "x", Engine::Mysql, Mode::Tenant),
    );
    assert!(matches!(refused, Some(Err(Failure::BadRequest(_)))));
}

#[test]
fn a_deleted_tenant_is_closed_and_comes_back_as_it_was() {
    let (legacy, project) = beginning();
    let life = Life::begin(legacy);
    let ids: Vec<_> = life.store.tenant_databases(&project, "acme").unwrap();
    let ids: Vec<_> = ids.iter().map(|it| it.id).collect();
    life.done(life.jobs.delete_tenant(&project, "acme", false));
    assert!(life.world.named("shop__acme").closed);
    assert_eq!(life.world.state().killed, ids);
    assert!(life.world.state().forgotten.is_empty(), "its log stays");
    let of = ["shop".to_owned()];
    let refused = life.run(life.jobs.create_tenant(&project, "acme", &of));
    assert!(matches!(refused, Some(Err(Failure::Conflict(..)))));
    let id = life.done(deploy(&life.jobs, &project, "shop"));
    assert!(ended(&life, &project, &id).results.is_empty());
    life.done(life.jobs.restore_tenant(&project, "acme"));
    assert!(!life.world.named("shop__acme").closed);
    assert_eq!(there(&life.store, &project), BEFORE);
    let refused = life.run(life.jobs.restore_tenant(&project, "acme"));
    assert!(matches!(
        refused,
        Some(Err(Failure::Store(StoreError::WrongState { .. })))
    ));
    life.done(life.jobs.suspend_tenant(&project, "acme"));
    let id = life.done(deploy(&life.jobs, &project, "shop"));
    assert_eq!(
        ended(&life, &project, &id).results.len(),
        1,
        "it is suspended, not gone"
    );
    let before = life.world.state().effects;
    life.done(life.jobs.resume_tenant(&project, "acme"));
    assert!(
        life.world.state().effects > before,
        "its databases are looked after"
    );
    life.done(life.jobs.delete_tenant(&project, "acme", true));
    assert_eq!(life.world.state().forgotten, ids);
    check_whole(&life, &project, "after its end");
}

#[test]
fn work_goes_on_when_the_caller_leaves() {
    let life = Life::first();
    let project = life.project();
    life.done(async {
        let work = life
            .jobs
            .create_workspace(&project, "shop", PG, Mode::Tenant);
        // Polled once, the caller is gone; on a busy machine the work may even be done by then.
        let _ = tokio::time::timeout(Duration::ZERO, work).await;
        let mut turns = 0;
        while life
            .store
            .snapshot()
            .load()
            .databases
            .values()
            .all(|it| it.status != control_store::snapshot::DatabaseStatus::Ready)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
            turns += 1;
            assert!(turns < 30_000, "the work stopped");
        }
        Ok(())
    });
    check_whole(&life, &project, "after the caller left");
}
