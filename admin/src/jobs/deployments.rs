//! Deployments.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use control_store::databases::DatabaseInfo;
use control_store::deployments::{
    DeploymentInfo, DeploymentPlan, DeploymentResult, Progress, Steer,
};
use control_store::ids::ProjectId;
use control_store::settings::WorkspaceSettings;
use control_store::snapshot::NativeRoles;
use control_store::states::Mode;
use control_store::{DatabaseId, ServerId, StoreError};
use engines::{ApplyOptions, ApplyStep, Change, SchemaPair, StepSink};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::databases::Found;
use super::{Jobs, failure, owned};
use crate::app::failure::{Failure, Outcome};
use crate::app::work::Deploy;

impl Jobs {
    /// Notes a deployment and begins it.
    pub(super) async fn begin_deployment(
        &self,
        project: &ProjectId,
        deploy: &Deploy,
    ) -> Outcome<String> {
        self.ready_to_deploy(project, &deploy.blueprint).await?;
        let (of, wanted) = (project.clone(), deploy.clone());
        let deployment = self
            .store(move |store| store.begin_deployment(&of, &wanted.new_deployment()))
            .await?;
        let id = deployment.id.clone();
        self.spawn_deployment(deployment);
        Ok(id)
    }

    /// What [`Jobs::begin_deployment`] would begin.
    pub(super) async fn plan_of_deployment(
        &self,
        project: &ProjectId,
        deploy: &Deploy,
    ) -> Outcome<DeploymentPlan> {
        self.ready_to_deploy(project, &deploy.blueprint).await?;
        let (of, wanted) = (project.clone(), deploy.clone());
        self.store(move |store| store.plan_deployment(&of, &wanted.new_deployment()))
            .await
    }

    /// Whether there is a blueprint, with all that its workspace has recorded.
    async fn ready_to_deploy(&self, project: &ProjectId, blueprint: &str) -> Outcome<()> {
        let (of, name) = owned(project, blueprint);
        let workspace = self.store(move |store| store.workspace(&of, &name)).await?;
        if workspace.mode == Mode::Control {
            return Err(Failure::bad(format!(
                "'{blueprint}' is a control mode workspace: it has no blueprint to deploy"
            )));
        }
        self.collect(project, blueprint).await
    }

    /// Pauses, resumes, cancels or retries a deployment.
    pub(super) async fn steer(&self, project: &ProjectId, id: &str, steer: Steer) -> Outcome<()> {
        let (of, name) = owned(project, id);
        let deployment = self
            .store(move |store| store.steer_deployment(&of, &name, steer))
            .await?;
        if deployment.status == Progress::InProgress {
            self.spawn_deployment(deployment);
        }
        Ok(())
    }

    /// Goes on with deployments that had not ended.
    pub(super) async fn resume_deployments(&self) -> Outcome<()> {
        for deployment in self.store(|store| store.take_up_deployments()).await? {
            tracing::info!(deployment = deployment.id, "going on with a deployment");
            self.spawn_deployment(deployment);
        }
        Ok(())
    }

    fn spawn_deployment(&self, deployment: DeploymentInfo) {
        let jobs = self.clone();
        tokio::spawn(async move {
            let id = deployment.id.clone();
            if let Err(error) = jobs.run_deployment(deployment).await {
                tracing::error!(
                    ?error,
                    deployment = id,
                    "a deployment stopped; the next start goes on with it"
                );
            }
        });
    }

    /// Carries out the parts that are left. Another run of the same deployment may be at its last parts: each part is claimed
    /// by one of them, and whichever ends last notes the deployment's end.
    async fn run_deployment(&self, deployment: DeploymentInfo) -> Outcome<()> {
        let deployment = Arc::new(deployment);
        let (of, blueprint) = owned(&deployment.project, &deployment.blueprint);
        let version = deployment.version;
        let settings = self
            .store(move |store| store.version_settings(&of, &blueprint, version))
            .await?;
        let mut workers = JoinSet::new();
        for _ in 0..self.concurrency(&deployment) {
            let (jobs, deployment) = (self.clone(), Arc::clone(&deployment));
            let settings = settings.clone();
            workers.spawn(async move { jobs.carry_out(&deployment, &settings).await });
        }
        let mut outcome = Ok(());
        while let Some(ended) = workers.join_next().await {
            let ended = ended.map_err(|error| Failure::Internal(error.to_string()));
            outcome = outcome.and(ended.and_then(|it| it));
        }
        outcome?;
        let id = deployment.id.clone();
        self.store(move |store| store.finish_deployment(&id)).await
    }

    /// To how many tenants at the same time: as asked for, or as many as their servers take.
    fn concurrency(&self, deployment: &DeploymentInfo) -> usize {
        let parts = deployment.results.len().max(1);
        if let Some(wanted) = deployment.concurrency {
            return parts.min(usize::try_from(wanted).unwrap_or(usize::MAX).max(1));
        }
        let snapshot = self.shared.store.snapshot().load();
        let servers: HashSet<_> = deployment
            .results
            .iter()
            .filter_map(|it| snapshot.databases.get(&it.database))
            .map(|it| it.server)
            .collect();
        parts.min(self.shared.options.parallel_tenants.max(1) * servers.len().max(1))
    }

    /// Carries out one part after the other until there is none.
    async fn carry_out(
        &self,
        deployment: &DeploymentInfo,
        settings: &WorkspaceSettings,
    ) -> Outcome<()> {
        loop {
            let id = deployment.id.clone();
            let Some(part) = self.store(move |store| store.claim_part(&id)).await? else {
                return Ok(());
            };
            let _place = self.place_of(part.database).await;
            self.deploy_to(deployment, part, settings).await?;
        }
    }

    /// Waits for a place on the database's server, so that deployments keep few connections busy on each.
    async fn place_of(&self, database: DatabaseId) -> Option<OwnedSemaphorePermit> {
        let server = {
            let snapshot = self.shared.store.snapshot().load();
            snapshot.databases.get(&database)?.server
        };
        let places = {
            let places = self.shared.places.lock();
            let mut places = places.unwrap_or_else(PoisonError::into_inner);
            let many = self.shared.options.parallel_tenants.max(1);
            let new = || Arc::new(Semaphore::new(many));
            Arc::clone(places.entry(server).or_insert_with(new))
        };
        // It is never closed.
        places.acquire_owned().await.ok()
    }

    /// One tenant's part. Its failure is its own.
    async fn deploy_to(
        &self,
        deployment: &DeploymentInfo,
        mut result: DeploymentResult,
        settings: &WorkspaceSettings,
    ) -> Outcome<()> {
        let began = Instant::now();
        let steps = Steps::begin(self, &deployment.id, &result.tenant);
        let outcome = self
            .bring_to(
                &deployment.project,
                result.database,
                &deployment.blueprint,
                deployment.version,
                settings,
                &steps.sink(),
            )
            .await;
        drop(steps);
        result.duration_us = u64::try_from(began.elapsed().as_micros()).ok();
        match outcome {
            Ok(()) => result.status = Progress::Completed,
            Err(error) => {
                result.status = Progress::Failed;
                result.error = Some(told(&error));
                tracing::warn!(
                    deployment = deployment.id,
                    tenant = result.tenant,
                    ?error,
                    "a deployment failed for one tenant"
                );
            }
        }
        self.note(deployment, &result).await
    }

    async fn note(&self, deployment: &DeploymentInfo, result: &DeploymentResult) -> Outcome<()> {
        let (id, result) = (deployment.id.clone(), result.clone());
        self.store(move |store| store.set_deployment_result(&id, &result))
            .await
    }

    /// Makes what a tenant's database lacks up to a version of its blueprint.
    pub(super) async fn bring_to(
        &self,
        project: &ProjectId,
        id: DatabaseId,
        blueprint: &str,
        version: u32,
        settings: &WorkspaceSettings,
        steps: &StepSink,
    ) -> Outcome<()> {
        let _turn = self.lock(id).await;
        let Found { info, routed } = self.row(id).await?;
        let roles = &routed.native_roles;
        let changes = self.changes_up_to(project, blueprint, version).await?;
        let server = self.access(info.server).await?;
        let options = ApplyOptions {
            steps: steps.clone(),
            ..self.shared.options.apply.clone()
        };
        let applied = self
            .engine(info.engine)?
            .apply(&server, &info.name, roles, &changes, &options)
            .await;
        // What was made before a failure counts too.
        self.shared.traffic.schema_changed(id);
        if let Err(error) = applied {
            self.note_partly(&info, roles).await;
            return Err(failure(error));
        }
        let settings = settings.clone();
        self.store(move |store| store.set_database_version(id, version, &settings))
            .await?;
        self.refresh(id);
        Ok(())
    }

    async fn changes_up_to(
        &self,
        project: &ProjectId,
        blueprint: &str,
        version: u32,
    ) -> Outcome<Vec<Change>> {
        let (of, name) = owned(project, blueprint);
        let changes = self.store(move |store| store.changes(&of, &name)).await?;
        let changes = changes
            .into_iter()
            .filter(|change| change.version.is_some_and(|it| it <= version))
            .map(|change| Change {
                id: change.id,
                statement: change.statement,
                search_path: change.search_path,
            });
        Ok(changes.collect())
    }

    /// The schema of a tenant's database, and that of the blueprint's version that it has.
    pub(super) async fn compare(&self, id: DatabaseId) -> Outcome<SchemaPair> {
        let _place = self.place_of(id).await;
        let _turn = self.lock(id).await;
        let Found { info, routed } = self.row(id).await?;
        let changes = self
            .changes_up_to(&info.project, &info.workspace, info.version)
            .await?;
        let server = self.access(info.server).await?;
        let options = &self.shared.options.apply;
        self.engine(info.engine)?
            .schemas(&server, &info.name, &routed.native_roles, &changes, options)
            .await
            .map_err(failure)
    }

    /// Removes what a crash in the middle of a comparison has left, on the servers that we run: others are looked after when they
    /// are seen. What cannot be removed now is in nobody's way.
    pub(super) async fn clear_scratch(&self) {
        let snapshot = self.shared.store.snapshot().load();
        let ours = snapshot.servers.keys().filter(|id| !self.is_external(**id));
        for id in ours {
            if let Err(error) = self.clear_scratch_on(*id).await {
                tracing::warn!(?error, server = %id, "left-over databases could not be looked for");
            }
        }
    }

    /// The same on one server.
    pub(super) async fn clear_scratch_on(&self, id: ServerId) -> Outcome<()> {
        let snapshot = self.shared.store.snapshot().load();
        let Some(server) = snapshot.servers.get(&id) else {
            return Ok(());
        };
        let engine = self.engine(server.engine)?;
        let access = self.access(id).await?;
        engine.clear_scratch(&access).await.map_err(failure)
    }

    /// Notes what a database has got although something failed.
    async fn note_partly(&self, info: &DatabaseInfo, roles: &NativeRoles) {
        let noted = async {
            let server = self.access(info.server).await?;
            let options = &self.shared.options.apply;
            let ledger = self
                .engine(info.engine)?
                .apply(&server, &info.name, roles, &[], options)
                .await
                .map_err(failure)?;
            let id = info.id;
            self.store(move |store| store.mark_applied(id, &ledger))
                .await
        };
        if let Err(error) = noted.await {
            tracing::warn!(?error, database = info.name, "its ledger could not be read");
        }
    }
}

/// What a deployment is doing for one tenant, shown for as long as it does it.
struct Steps {
    jobs: Jobs,
    deployment: String,
    tenant: String,
}

impl Steps {
    fn begin(jobs: &Jobs, deployment: &str, tenant: &str) -> Self {
        Self {
            jobs: jobs.clone(),
            deployment: deployment.to_owned(),
            tenant: tenant.to_owned(),
        }
    }

    fn sink(&self) -> StepSink {
        let (jobs, deployment, tenant) = (
            self.jobs.clone(),
            self.deployment.clone(),
            self.tenant.clone(),
        );
        StepSink::new(move |step| {
            let mut all = jobs.steps();
            all.entry(deployment.clone())
                .or_default()
                .insert(tenant.clone(), step);
        })
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        let mut all = self.jobs.steps();
        if let Some(of) = all.get_mut(&self.deployment) {
            of.remove(&self.tenant);
            if of.is_empty() {
                all.remove(&self.deployment);
            }
        }
    }
}

impl Jobs {
    fn steps(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, ApplyStep>>> {
        // Steps are for people to look at: usable after a panic elsewhere.
        let steps = self.shared.steps.lock();
        steps.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn steps_of(&self, deployment: &str) -> BTreeMap<String, ApplyStep> {
        self.steps().get(deployment).cloned().unwrap_or_default()
    }
}

/// What the deployment's result says of a failure.
fn told(error: &Failure) -> String {
    match error {
        Failure::Conflict(message, _) | Failure::BadRequest(message) => message.clone(),
        Failure::Store(StoreError::NotFound { .. }) => "the tenant was deleted".into(),
        Failure::Store(error) => error.to_string(),
        Failure::Internal(message) => message.clone(),
        other => format!("{other:?}"),
    }
}
