//! What the control plane does to database servers, and the provisioner that runs them.

mod engine;
pub mod postgres;
pub mod provisioner;
pub mod redis;
mod tls;

pub use engine::{
    AdminLogin, ApplyOptions, ApplyStep, Change, Column, DatabaseEngine, DatabaseSpec, DatabaseUse,
    EngineError, SchemaPair, ServerAccess, ServerReport, ServerUse, StepSink, Table, TrackedChange,
};
