//! What the control plane does to database servers, and the provisioner that runs them.

mod engine;
pub mod postgres;
pub mod provisioner;

pub use engine::{
    ApplyOptions, ApplyStep, Change, Column, DatabaseEngine, DatabaseSpec, DatabaseUse,
    EngineError, ServerAccess, StepSink, Table, TrackedChange,
};
