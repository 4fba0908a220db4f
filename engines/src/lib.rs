//! What the control plane does to database servers, and the provisioner that runs them.

pub mod postgres;
pub mod provisioner;
