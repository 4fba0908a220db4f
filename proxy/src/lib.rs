//! The data plane: reactors, sessions, pools, gates.

pub mod backend;
pub mod faces;
pub mod gate;
pub mod metrics;
pub mod reactor;
pub mod route;
