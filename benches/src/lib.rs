//! Comparisons of TenantsDB with rival proxies, by the processor time that each proxy costs.
//!
//! `cargo run --release -p benches -- postgres` starts PostgreSQL, PgBouncer, HAProxy and (where it is built) `tenantsdb` on
//! loopback, runs every case against each of them in interleaved rounds and writes `BENCHMARKS.md`.

pub mod cases;
pub mod contender;
pub mod environment;
pub mod idle;
pub mod ours;
pub mod pgbench;
pub mod process;
pub mod procfs;
pub mod report;
pub mod results;
pub mod rivals;
pub mod runner;
pub mod stats;
pub mod verdict;
