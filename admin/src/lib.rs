//! The REST API: types and handlers, use cases, long work as resumable jobs.

pub mod api;
pub mod app;

pub use api::{Api, ApiConfig, serve};
