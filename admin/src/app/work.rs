//! What the API has others do: everything that touches a database server or takes long.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use control_store::Secret;
use control_store::deployments::{DeploymentPlan, NewDeployment, OnFailure, Steer, Targets};
use control_store::ids::{DatabaseId, Engine, ProjectId};
use control_store::states::Mode;
use engines::{ApplyStep, SchemaPair};

use super::failure::Outcome;

/// The work behind the API. Each method returns when the work is done and durable, unless it says otherwise; one that is
/// interrupted by a crash is finished or undone at the next start.
#[async_trait]
pub trait Work: Send + Sync {
    /// Deletes a project and all it owns: databases, roles, logs, keys.
    async fn delete_project(&self, project: &ProjectId) -> Outcome<()>;

    /// Makes a workspace with its database.
    async fn create_workspace(
        &self,
        project: &ProjectId,
        name: &str,
        engine: Engine,
        mode: Mode,
    ) -> Outcome<()>;

    /// Deletes a workspace with its database and versions. That no tenant has a database of it was checked.
    async fn delete_workspace(&self, project: &ProjectId, name: &str) -> Outcome<()>;

    /// Takes the changes that a workspace's database has recorded over into the store.
    async fn collect_changes(&self, project: &ProjectId, workspace: &str) -> Outcome<()>;

    /// The tables that a workspace's database has now.
    async fn schema(&self, project: &ProjectId, workspace: &str) -> Outcome<Vec<Table>>;

    /// The statements that make the schema of a database elsewhere, in an order in which they can run with an empty search
    /// path. The address was checked.
    async fn read_schema(&self, from: &Elsewhere) -> Outcome<Vec<String>>;

    /// Makes a tenant with a database of each blueprint, or adds those databases to a tenant that is there.
    async fn create_tenant(
        &self,
        project: &ProjectId,
        tenant: &str,
        blueprints: &[String],
    ) -> Outcome<()>;

    /// Moves a tenant to the trash, or deletes it for good.
    async fn delete_tenant(&self, project: &ProjectId, tenant: &str, hard: bool) -> Outcome<()>;

    /// Takes a tenant out of the trash, with its rows.
    async fn restore_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()>;

    /// Refuses all queries of a tenant from now on.
    async fn suspend_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()>;

    /// Admits a suspended tenant's queries again.
    async fn resume_tenant(&self, project: &ProjectId, tenant: &str) -> Outcome<()>;

    /// Begins a deployment and returns its id; it goes on by itself.
    async fn deploy(&self, project: &ProjectId, deploy: &Deploy) -> Outcome<String>;

    /// What such a deployment would do.
    async fn plan_deployment(
        &self,
        project: &ProjectId,
        deploy: &Deploy,
    ) -> Outcome<DeploymentPlan>;

    /// Pauses, resumes, cancels or retries a deployment.
    async fn steer_deployment(&self, project: &ProjectId, id: &str, steer: Steer) -> Outcome<()>;

    /// The schema that a tenant's database has, and the one that its blueprint's version has.
    async fn compare_schemas(&self, database: DatabaseId) -> Outcome<SchemaPair>;

    /// What a deployment is doing just now, by tenant.
    fn deployment_steps(&self, id: &str) -> BTreeMap<String, ApplyStep>;

    /// Whether every database server is there and fit.
    fn all_servers_run(&self) -> bool {
        true
    }
}

/// A database that is none of ours.
#[derive(Clone)]
pub struct Elsewhere {
    /// Its engine.
    pub engine: Engine,
    /// Where its server is.
    pub address: SocketAddr,
    /// Whom to log in as.
    pub user: String,
    /// With which password.
    pub password: Option<Secret>,
    /// Which database.
    pub database: String,
    /// Whether an unencrypted connection is refused.
    pub require_tls: bool,
}

/// A deployment to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deploy {
    /// Of which blueprint.
    pub blueprint: String,
    /// Which version; `None` is the newest, with what is pending.
    pub version: Option<u32>,
    /// To which tenants.
    pub to: DeployTo,
    /// To how many at the same time; `None`: as many as their servers take.
    pub concurrency: Option<u32>,
    /// What a failure means to those after it.
    pub on_failure: OnFailure,
}

impl Deploy {
    /// The same for the store.
    pub fn new_deployment(&self) -> NewDeployment<'_> {
        NewDeployment {
            blueprint: &self.blueprint,
            version: self.version,
            targets: match &self.to {
                DeployTo::All => Targets::All,
                DeployTo::Named(names) => Targets::Named(names),
                DeployTo::Canary(many) => Targets::Canary(*many),
            },
            concurrency: self.concurrency,
            on_failure: self.on_failure,
        }
    }
}

/// Which tenants a deployment goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployTo {
    /// All that are in use.
    All,
    /// These.
    Named(Vec<String>),
    /// So many of those that lack something.
    Canary(u32),
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name, with its schema unless that is the default one.
    pub name: String,
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Names of its indexes.
    pub indexes: Vec<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as declared, in upper case: `SERIAL` stays `SERIAL`.
    pub type_name: String,
    /// Whether it may be null.
    pub nullable: bool,
}
