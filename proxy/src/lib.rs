//! The data plane: reactors, sessions, pools, gates.

pub mod backend;
pub mod faces;
pub mod gate;
pub mod metrics;
mod protocol;
mod proxy;
pub mod query_log;
pub mod reactor;
pub mod route;
pub mod session;
mod worker;

pub use proxy::{Config, Proxy};
