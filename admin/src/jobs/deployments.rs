//! Deployments.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use control_store::databases::DatabaseInfo;
use control_store::deployments::{DeploymentInfo, DeploymentResult, NewDeployment, Progress};
use control_store::ids::ProjectId;
use control_store::settings::WorkspaceSettings;
use control_store::snapshot::NativeRoles;
use control_store::states::Mode;
use control_store::{DatabaseId, StoreError};
use engines::Change;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
        let (of, wanted) = (project.clone(), deploy.clone());
        let deployment = self
            .store(move |store| {
                let new = NewDeployment {
                    blueprint: &wanted.blueprint,
                    version: wanted.version,
                    tenants: wanted.tenants.as_deref(),
                };
                store.begin_deployment(&of, &new)
            })
            .await?;
        let id = deployment.id.clone();
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
        let (of, blueprint) = owned(&deployment.project, &deployment.blueprint);
        let version = deployment.version;
        let settings = self
            .store(move |store| store.version_settings(&of, &blueprint, version))
            .await?;
        let mut parts = JoinSet::new();
        for result in &deployment.results {
            if matches!(result.status, Progress::Completed | Progress::Failed) {
                continue;
            }
            let (jobs, deployment) = (self.clone(), Arc::clone(&deployment));
            let (result, settings) = (result.clone(), settings.clone());
            parts.spawn(async move {
                let _place = jobs.place_of(result.database).await;
                jobs.deploy_to(&deployment, result, &settings).await
            });
        }
        while let Some(part) = parts.join_next().await {
            part.map_err(|error| Failure::Internal(error.to_string()))??;
        }
        let id = deployment.id.clone();
        self.store(move |store| store.finish_deployment(&id)).await
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
        if let Err(error) = applied {
            self.note_partly(&info, &roles).await;
            return Err(failure(error));
        }
        let settings = settings.clone();
        self.store(move |store| store.set_database_version(id, version, &settings))
            .await?;
        self.refresh(id);
        Ok(())
    }

    /// Notes what a database has got although something failed.
    async fn note_partly(&self, info: &DatabaseInfo, roles: &NativeRoles) {
        let noted = async {
            let server = self.access(info.server)?;
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
