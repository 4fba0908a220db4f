//! How each wire tells its client of a [`Fault`](control_store::Fault): one file per face.

pub mod postgres;
pub mod redis;
