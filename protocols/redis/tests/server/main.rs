//! What this crate knows, held against a real redis-server: where keys are, what a prefix does, how lines are read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod corpus;
mod getkeys;
mod pubsub;
mod server;
mod shared;
mod wording;
