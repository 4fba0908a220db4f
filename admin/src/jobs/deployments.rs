//! Deployments.

use std::sync::Arc;
use std::time::Instant;

use control_store::DatabaseId;
use control_store::deployments::{DeploymentInfo, DeploymentResult, Progress};
use control_store::ids::ProjectId;
use control_store::settings::WorkspaceSettings;
use control_store::states::Mode;
use control_store::{Entity, StoreError};
use engines::Change;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

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
        let (of, blueprint) = owned(project, &deploy.blueprint);
        let workspace = self
            .store(move |store| store.workspace(&of, &blueprint))
            .await?;
        if workspace.mode == Mode::Control {
            return Err(Failure::bad(format!(
                "'{}' is a control mode workspace: it has no blueprint to deploy",
                deploy.blueprint
            )));
        }
        self.collect(project, &deploy.blueprint).await?;
        let (of, blueprint) = owned(project, &deploy.blueprint);
        let wanted = deploy.version;
        let (version, databases) = self
            .store(move |store| {
                let newest = store.cut_version(&of, &blueprint)?;
                let version = wanted.unwrap_or(newest);
                if version > newest || (version == 0 && wanted.is_some()) {
                    return Err(StoreError::NotFound {
                        what: Entity::Version,
                        name: version.to_string(),
                    });
                }
                let mut live = Vec::new();
                for database in store.blueprint_databases(&of, &blueprint)? {
                    if let Some(tenant) = &database.tenant
                        && Self::is_live(store.tenant(&of, tenant)?.status)
                    {
                        live.push((tenant.clone(), database.id));
                    }
                }
                Ok((version, live))
            })
            .await?;
        let targets = chosen(deploy, databases)?;
        let (of, blueprint) = owned(project, &deploy.blueprint);
        let id = self
            .store(move |store| store.create_deployment(&of, &blueprint, version, &targets))
            .await?;
        let (of, noted) = owned(project, &id);
        let deployment = self
            .store(move |store| store.deployment(&of, &noted))
            .await?;
        self.spawn_deployment(deployment);
        Ok(id)
    }

    /// Goes on with deployments that had not ended.
    pub(super) async fn resume_deployments(&self) -> Outcome<()> {
        for deployment in self.store(|store| store.open_deployments()).await? {
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

    async fn run_deployment(&self, deployment: DeploymentInfo) -> Outcome<()> {
        let deployment = Arc::new(deployment);
        let settings = self.settings_of(&deployment).await?;
        let places = Arc::new(Semaphore::new(self.shared.options.parallel_tenants.max(1)));
        let mut parts = JoinSet::new();
        for result in &deployment.results {
            if matches!(result.status, Progress::Completed | Progress::Failed) {
                continue;
            }
            let (jobs, places) = (self.clone(), Arc::clone(&places));
            let (deployment, result) = (Arc::clone(&deployment), result.clone());
            let settings = settings.clone();
            parts.spawn(async move {
                // The semaphore is never closed.
                let _place = places.acquire_owned().await;
                jobs.deploy_to(&deployment, result, &settings).await
            });
        }
        while let Some(part) = parts.join_next().await {
            part.map_err(|error| Failure::Internal(error.to_string()))??;
        }
        let (of, id) = owned(&deployment.project, &deployment.id);
        let (version, blueprint) = (deployment.version, deployment.blueprint.clone());
        self.store(move |store| {
            let results = store.deployment(&of, &id)?.results;
            let failed = results.iter().any(|it| it.status == Progress::Failed);
            let status = if failed {
                Progress::Failed
            } else {
                Progress::Completed
            };
            store.mark_deployed(&of, &blueprint, version)?;
            store.finish_deployment(&id, status)
        })
        .await
    }

    /// The settings that go with the deployment's version.
    async fn settings_of(&self, deployment: &DeploymentInfo) -> Outcome<WorkspaceSettings> {
        let (of, blueprint) = owned(&deployment.project, &deployment.blueprint);
        let version = deployment.version;
        self.store(move |store| {
            let versions = store.versions(&of, &blueprint)?;
            match versions.into_iter().find(|it| it.number == version) {
                Some(found) => Ok(found.settings),
                None => Ok(store.workspace(&of, &blueprint)?.settings),
            }
        })
        .await
    }

    /// One tenant's part. Its failure is its own.
    async fn deploy_to(
        &self,
        deployment: &DeploymentInfo,
        mut result: DeploymentResult,
        settings: &WorkspaceSettings,
    ) -> Outcome<()> {
        let began = Instant::now();
        result.status = Progress::InProgress;
        self.note(deployment, &result).await?;
        let outcome = self
            .bring_to(
                &deployment.project,
                result.database,
                &deployment.blueprint,
                deployment.version,
                settings,
            )
            .await;
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
    ) -> Outcome<()> {
        let _turn = self.lock(id).await;
        let (info, roles, _) = self.row(id).await?;
        let (of, name) = owned(project, blueprint);
        let changes = self.store(move |store| store.changes(&of, &name)).await?;
        let changes: Vec<Change> = changes
            .into_iter()
            .filter(|change| change.version.is_some_and(|it| it <= version))
            .map(|change| Change {
                id: change.id,
                statement: change.statement,
                search_path: change.search_path,
            })
            .collect();
        let server = self.access(info.server)?;
        let applied = self
            .engine(info.engine)?
            .apply(
                &server,
                &info.name,
                &roles,
                &changes,
                &self.shared.options.apply,
            )
            .await;
        // What was made before a failure counts too.
        self.shared.traffic.schema_changed(id);
        let applied = applied.map_err(failure)?;
        let settings = settings.clone();
        self.store(move |store| {
            store.mark_applied(id, &applied)?;
            store.set_database_version(id, version, &settings)
        })
        .await?;
        self.refresh(id);
        Ok(())
    }
}

/// The databases that a deployment goes to.
fn chosen(
    deploy: &Deploy,
    databases: Vec<(String, DatabaseId)>,
) -> Outcome<Vec<(String, DatabaseId)>> {
    let Some(tenants) = &deploy.tenants else {
        return Ok(databases);
    };
    if let Some(missing) = tenants
        .iter()
        .find(|tenant| !databases.iter().any(|(it, _)| it == *tenant))
    {
        return Err(Failure::not_found(Entity::Tenant, missing));
    }
    Ok(databases
        .into_iter()
        .filter(|(tenant, _)| tenants.contains(tenant))
        .collect())
}

/// What the deployment's result says of a failure.
fn told(error: &Failure) -> String {
    match error {
        Failure::Conflict(message, _) | Failure::BadRequest(message) => message.clone(),
        Failure::Store(error) => error.to_string(),
        Failure::Internal(message) => message.clone(),
        other => format!("{other:?}"),
    }
}
