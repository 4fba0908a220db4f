use super::*;
use crate::page::{Part, Place};
use crate::settings::{QuerySettings, WorkspaceSettings};
use crate::snapshot::Scope;
use crate::states::Mode;
use crate::testing::Fixture;

fn new<'a>(version: Option<u32>, tenants: Option<&'a [String]>) -> NewDeployment<'a> {
    NewDeployment {
        blueprint: "shop",
        version,
        targets: tenants.map_or(Targets::All, Targets::Named),
        concurrency: None,
        on_failure: OnFailure::Continue,
    }
}

fn begin(
    f: &Fixture,
    project: &ProjectId,
    change: impl FnOnce(&mut NewDeployment<'_>),
) -> DeploymentInfo {
    let mut wanted = new(None, None);
    change(&mut wanted);
    f.store.begin_deployment(project, &wanted).unwrap()
}

fn states(f: &Fixture, project: &ProjectId, id: &str) -> Vec<&'static str> {
    let found = f.store.deployment(project, id).unwrap();
    let parts = found.results.iter().map(|it| it.status.name());
    std::iter::once(found.status.name()).chain(parts).collect()
}

fn with_tenants() -> (Fixture, ProjectId) {
    let f = Fixture::new();
    let project = f.project();
    f.workspace(&project, "shop", Mode::Tenant);
    for tenant in ["acme", "globex", "trash"] {
        f.tenant(&project, tenant, &["shop"]);
    }
    let (from, to) = ([TenantStatus::Ready], TenantStatus::Deleted);
    f.store
        .set_tenant_status(&project, "trash", &from, to)
        .unwrap();
    f.new_tenant(&project, "young", &["shop"]).unwrap();
    f.record(&project, "shop", &[(1, "a")]);
    (f, project)
}

fn end(f: &Fixture, deployment: &DeploymentInfo, tenant: &str, status: Progress) {
    let mut result = deployment
        .results
        .iter()
        .find(|it| it.tenant == tenant)
        .unwrap()
        .clone();
    result.status = status;
    result.error = (status == Progress::Failed).then(|| "why".into());
    result.duration_us = Some(5);
    f.store
        .set_deployment_result(&deployment.id, &result)
        .unwrap();
}

#[test]
fn a_deployment_cuts_a_version_for_all_in_use_and_is_open_until_it_ends() {
    let (f, project) = with_tenants();
    let begun = f
        .store
        .begin_deployment(&project, &new(None, None))
        .unwrap();
    assert_eq!((begun.version, begun.status), (1, Progress::InProgress));
    let tenants: Vec<_> = begun.results.iter().map(|it| it.tenant.as_str()).collect();
    assert_eq!(tenants, ["acme", "globex"]);
    end(&f, &begun, "acme", Progress::Completed);
    let f = f.reopened();
    let [open] = &f.store.open_deployments().unwrap()[..] else {
        panic!("one is open")
    };
    assert_eq!(open.results[0].status, Progress::Completed);
    assert_eq!(open.results[1].status, Progress::Pending);
    end(&f, open, "globex", Progress::Failed);
    f.store.finish_deployment(&open.id).unwrap();
    let ended = f.store.deployment(&project, &open.id).unwrap();
    assert_eq!(ended.status, Progress::Failed);
    assert_eq!(ended.results[1].error.as_deref(), Some("why"));
    assert!(f.store.open_deployments().unwrap().is_empty());
    assert!(
        f.store.versions(&project, "shop", &Part::ALL).unwrap()[0]
            .deployed_at
            .is_some()
    );
    assert!(f.store.deployment(&f.another_project(), &open.id).is_err());
}

#[test]
fn nothing_is_deployed_when_all_failed() {
    let (f, project) = with_tenants();
    let begun = f
        .store
        .begin_deployment(&project, &new(None, None))
        .unwrap();
    for tenant in ["acme", "globex"] {
        end(&f, &begun, tenant, Progress::Failed);
    }
    f.store.finish_deployment(&begun.id).unwrap();
    assert_eq!(
        f.store.versions(&project, "shop", &Part::ALL).unwrap()[0].deployed_at,
        None
    );
    f.store.finish_deployment("dep_none").unwrap();
}

#[test]
fn tenants_and_versions_are_chosen_by_name() {
    let (f, project) = with_tenants();
    let refuse = |version, tenants: &[&str]| {
        let tenants: Vec<String> = tenants.iter().map(|it| (*it).to_owned()).collect();
        let new = new(version, Some(&tenants));
        f.store
            .begin_deployment(&project, &new)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refuse(Some(2), &[]), "Version not found: 2");
    assert_eq!(refuse(Some(0), &[]), "Version not found: 0");
    assert_eq!(refuse(None, &["acme", "none"]), "Tenant not found: none");
    assert_eq!(refuse(None, &["trash"]), "Tenant 'trash' is deleted");
    assert_eq!(
        f.store.workspace(&project, "shop").unwrap().version,
        0,
        "nothing was cut"
    );
    let twice = ["globex".to_owned(), "globex".to_owned()];
    let begun = f
        .store
        .begin_deployment(&project, &new(None, Some(&twice)))
        .unwrap();
    assert_eq!(begun.results.len(), 1);
    let second = f
        .store
        .begin_deployment(&project, &new(Some(1), None))
        .unwrap();
    let (all, part) = (Scope::Project, Part::ALL);
    let listed = f.store.list_deployments(&project, &all, &part).unwrap();
    assert_eq!(listed.len(), 2);
    let of_acme = f.store.tenant_deployments(&project, "acme", &all, &part);
    let of_acme = of_acme.unwrap();
    assert_eq!(
        of_acme.iter().map(|it| &it.id).collect::<Vec<_>>(),
        [&second.id]
    );
}

#[test]
fn parts_are_claimed_one_by_one_while_the_deployment_goes_on() {
    let (f, project) = with_tenants();
    let id = begin(&f, &project, |_| {}).id;
    let first = f.store.claim_part(&id).unwrap().unwrap();
    assert_eq!(
        (first.tenant.as_str(), first.status),
        ("acme", Progress::InProgress)
    );
    assert!(first.started_at.is_some());
    let steer = |steer| f.store.steer_deployment(&project, &id, steer);
    steer(Steer::Pause).unwrap();
    assert_eq!(f.store.claim_part(&id).unwrap(), None);
    f.store.finish_deployment(&id).unwrap();
    assert_eq!(
        states(&f, &project, &id),
        ["paused", "in_progress", "pending"]
    );
    for wrong in [Steer::Pause, Steer::Retry] {
        let refused = steer(wrong).unwrap_err().to_string();
        assert_eq!(refused, format!("Deployment '{id}' is paused"));
    }
    steer(Steer::Resume).unwrap();
    assert_eq!(f.store.claim_part(&id).unwrap().unwrap().tenant, "globex");
    assert_eq!(f.store.claim_part(&id).unwrap(), None);
    let info = f.store.deployment(&project, &id).unwrap();
    for tenant in ["acme", "globex"] {
        end(&f, &info, tenant, Progress::Completed);
    }
    f.store.finish_deployment(&id).unwrap();
    assert_eq!(states(&f, &project, &id), ["completed"; 3]);
    assert!(steer(Steer::Cancel).is_err());
    assert_eq!(f.store.claim_part("dep_none").unwrap(), None);
}

#[test]
fn a_failure_stops_a_deployment_that_is_to_stop_and_a_retry_goes_on() {
    let (f, project) = with_tenants();
    f.tenant(&project, "zoo", &["shop"]);
    f.record(&project, "shop", &[(2, "b")]);
    let begun = begin(&f, &project, |it| it.on_failure = OnFailure::Stop);
    let id = &begun.id;
    f.store.claim_part(id).unwrap();
    end(&f, &begun, "acme", Progress::Failed);
    assert_eq!(f.store.claim_part(id).unwrap(), None);
    f.store.finish_deployment(id).unwrap();
    assert_eq!(
        states(&f, &project, id),
        ["failed", "failed", "cancelled", "cancelled"]
    );
    let retried = f
        .store
        .steer_deployment(&project, id, Steer::Retry)
        .unwrap();
    assert_eq!(retried.finished_at, None);
    assert_eq!(
        states(&f, &project, id),
        ["in_progress", "pending", "pending", "pending"]
    );
    assert_eq!(f.store.claim_part(id).unwrap().unwrap().error, None);
}

#[test]
fn a_cancelled_deployment_ends_what_has_not_begun() {
    let (f, project) = with_tenants();
    let begun = begin(&f, &project, |_| {});
    let id = begun.id.as_str();
    f.store.claim_part(id).unwrap();
    let cancelled = f
        .store
        .steer_deployment(&project, id, Steer::Cancel)
        .unwrap();
    assert!(cancelled.finished_at.is_some());
    end(&f, &begun, "acme", Progress::Completed);
    f.store.finish_deployment(id).unwrap();
    assert_eq!(
        states(&f, &project, id),
        ["cancelled", "completed", "cancelled"]
    );
}

#[test]
fn a_crash_gives_parts_back_unless_nobody_goes_on_with_them() {
    let (f, project) = with_tenants();
    let [open, paused, cancelled] = [(); 3].map(|()| begin(&f, &project, |_| {}).id);
    for id in [&open, &paused, &cancelled] {
        f.store.claim_part(id).unwrap();
    }
    f.store
        .steer_deployment(&project, &paused, Steer::Pause)
        .unwrap();
    f.store
        .steer_deployment(&project, &cancelled, Steer::Cancel)
        .unwrap();
    let f = f.reopened();
    let taken_up = f.store.take_up_deployments().unwrap();
    let ids: Vec<_> = taken_up.iter().map(|it| &it.id).collect();
    assert_eq!(ids, [&open]);
    assert_eq!(
        states(&f, &project, &open),
        ["in_progress", "pending", "pending"]
    );
    assert_eq!(
        states(&f, &project, &paused),
        ["paused", "pending", "pending"]
    );
    assert_eq!(
        states(&f, &project, &cancelled),
        ["cancelled", "failed", "cancelled"]
    );
}

#[test]
fn a_canary_is_of_tenants_that_lack_something() {
    let (f, project) = with_tenants();
    let first = begin(&f, &project, |it| it.targets = Targets::Canary(1));
    assert_eq!(first.results.len(), 1);
    assert_eq!(first.results[0].tenant, "acme");
    f.bring(&project, first.results[0].database, "shop");
    let second = begin(&f, &project, |it| it.targets = Targets::Canary(5));
    let tenants: Vec<_> = second.results.iter().map(|it| &it.tenant).collect();
    assert_eq!(tenants, ["globex"]);
}

#[test]
fn a_plan_says_what_each_tenant_lacks_and_leaves_no_trace() {
    let (f, project) = with_tenants();
    let acme = f.store.tenant_databases(&project, "acme").unwrap()[0].id;
    f.store.cut_version(&project, "shop").unwrap();
    f.bring(&project, acme, "shop");
    f.record(&project, "shop", &[(2, "b"), (3, "c")]);
    let ids: Vec<_> = f.store.changes(&project, "shop").unwrap();
    let ids: Vec<_> = ids.iter().map(|it| it.id).collect();
    f.store.mark_applied(acme, &ids[..2]).unwrap();
    let plan = f.store.plan_deployment(&project, &new(None, None)).unwrap();
    assert_eq!(plan.version, 2);
    let missing: Vec<_> = plan
        .tenants
        .iter()
        .map(|it| (it.tenant.as_str(), it.version, it.missing.as_slice()))
        .collect();
    assert_eq!(missing, [("acme", 1, &ids[2..]), ("globex", 0, &ids[..])]);
    assert_eq!(plan.changes.len(), 3);
    assert_eq!(f.store.workspace(&project, "shop").unwrap().version, 1);
    let of_one = f
        .store
        .plan_deployment(&project, &new(Some(1), None))
        .unwrap();
    assert_eq!(of_one.changes.len(), 1);
    assert!(
        f.store
            .plan_deployment(&project, &new(Some(3), None))
            .is_err()
    );
}

#[test]
fn lists_come_page_by_page_and_show_what_a_scope_reaches() {
    let (f, project) = with_tenants();
    f.workspace(&project, "blog", Mode::Tenant);
    let mut ids: Vec<_> = (0..5).map(|_| begin(&f, &project, |_| {}).id).collect();
    let of_blog = begin(&f, &project, |it| it.blueprint = "blog").id;
    ids.insert(0, of_blog.clone());
    ids.sort();
    let list = |scope: &Scope, part: &Part<Place>| {
        f.store.list_deployments(&project, scope, part).unwrap()
    };
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let part = Part {
            after,
            limit: Some(2),
        };
        let page = list(&Scope::Project, &part);
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = Some(Place {
            at: last.created_at,
            id: last.id.clone(),
        });
        assert!(
            page.iter()
                .all(|it| it.id == of_blog || it.counts.total == 2)
        );
        seen.extend(page.into_iter().map(|it| it.id));
    }
    let mut sorted = seen.clone();
    sorted.sort();
    assert_eq!(sorted, ids);
    let whole = list(&Scope::Project, &Part::ALL);
    assert_eq!(
        whole.iter().map(|it| it.id.clone()).collect::<Vec<_>>(),
        seen
    );
    let blog = list(
        &Scope::Workspaces(vec![crate::BlueprintName::new("blog")]),
        &Part::ALL,
    );
    assert_eq!(blog.len(), 1);
    let acme = list(
        &Scope::Tenants(vec![crate::TenantId::new("acme")]),
        &Part::ALL,
    );
    assert_eq!(acme.len(), 5);
    assert!(acme.iter().all(|it| it.counts.total == 1));
    let part = Part {
        after: None,
        limit: Some(3),
    };
    let of_acme = f
        .store
        .tenant_deployments(&project, "acme", &Scope::Project, &part);
    assert_eq!(of_acme.unwrap().len(), 3);
}

#[test]
fn settings_alone_make_a_version_also_in_a_plan() {
    let (f, project) = with_tenants();
    f.store.cut_version(&project, "shop").unwrap();
    let settings = WorkspaceSettings::Queries(QuerySettings {
        query_timeout_ms: 5,
        ..QuerySettings::default()
    });
    f.store.save_settings(&project, "shop", &settings).unwrap();
    let plan = f.store.plan_deployment(&project, &new(None, None)).unwrap();
    assert_eq!(plan.version, 2);
    assert_eq!(begin(&f, &project, |_| {}).version, 2);
}

#[test]
fn a_deployments_parts_come_page_by_page_with_counts_of_them_all() {
    let (f, project) = with_tenants();
    let begun = begin(&f, &project, |_| {});
    end(&f, &begun, "acme", Progress::Completed);
    let parts = |scope: &Scope, after: Option<&str>, limit| {
        let part = Part {
            after: after.map(str::to_owned),
            limit,
        };
        let found = f.store.deployment_parts(&project, &begun.id, scope, &part);
        let (summary, parts) = found.unwrap();
        let tenants: Vec<_> = parts.into_iter().map(|it| it.tenant).collect();
        (summary.counts.total, summary.counts.completed, tenants)
    };
    let all = Scope::Project;
    assert_eq!(
        parts(&all, None, None),
        (2, 1, vec!["acme".into(), "globex".into()])
    );
    assert_eq!(parts(&all, None, Some(1)), (2, 1, vec!["acme".into()]));
    assert_eq!(
        parts(&all, Some("acme"), Some(1)),
        (2, 1, vec!["globex".into()])
    );
    let globex = Scope::Tenants(vec![crate::TenantId::new("globex")]);
    assert_eq!(parts(&globex, None, None), (1, 0, vec!["globex".into()]));
    let stranger = f.another_project();
    let part = &Part::ALL;
    assert!(
        f.store
            .deployment_parts(&stranger, &begun.id, &all, part)
            .is_err()
    );
}
