//! The REST API: types and handlers, use cases, long work as resumable jobs.

pub mod api;
pub mod app;
mod audited;
pub mod egress;
pub mod fetch;
pub mod jobs;
pub mod query;

pub use api::{Api, ApiConfig, Endpoint, Network, Region, ServeOptions, Tier, serve};
