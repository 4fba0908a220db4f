//! Durable state, the routing snapshot, the job log and secrets at rest.
//!
//! Everything that the data plane and the control plane share is defined here: identifiers, the routing
//! [`Snapshot`], the [`TrafficControl`] through which the control plane steers traffic, the [`Fault`] that every
//! face translates, and the traits of the query log.

pub mod accounts;
pub mod answers;
pub mod audit;
pub mod bans;
pub mod databases;
pub mod deployments;
pub mod directory;
pub mod error;
pub mod external;
pub mod fault;
pub mod guard;
pub mod ids;
mod job_log;
pub mod jobs;
pub mod keys;
pub mod logs;
mod migrate;
pub mod names;
pub mod network;
pub mod page;
pub mod projects;
mod publish;
pub mod redis;
mod removal;
pub mod roles;
pub mod scram;
pub mod seal;
pub mod secret;
pub mod servers;
pub mod settings;
pub mod snapshot;
pub mod states;
pub mod store;
pub mod tenants;
#[cfg(test)]
mod testing;
pub mod traffic;
pub mod trust;
pub mod workspaces;

pub use error::{Entity, StoreError};
pub use fault::Fault;
pub use ids::{BlueprintName, DatabaseId, Engine, KeyId, ProjectId, ServerId, TenantId};
pub use seal::Sealer;
pub use secret::Secret;
pub use snapshot::{Snapshot, SnapshotCell};
pub use store::{ChangeEvent, Store};
pub use traffic::TrafficControl;
