//! Durable state, the routing snapshot, the job log and secrets at rest.
//!
//! Everything that the data plane and the control plane share is defined here: identifiers, the routing
//! [`Snapshot`], the [`TrafficControl`] through which the control plane steers traffic, the [`Fault`] that every
//! face translates, and the traits of the query log.

pub mod error;
pub mod fault;
pub mod ids;
pub mod jobs;
pub mod logs;
pub mod scram;
pub mod seal;
pub mod secret;
pub mod snapshot;
pub mod traffic;

pub use error::{Entity, StoreError};
pub use fault::Fault;
pub use ids::{BlueprintName, DatabaseId, Engine, KeyId, ProjectId, ServerId, TenantId};
pub use seal::Sealer;
pub use secret::Secret;
pub use snapshot::{Snapshot, SnapshotCell};
pub use traffic::TrafficControl;
