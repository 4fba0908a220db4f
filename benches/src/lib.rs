//! Comparisons of TenantsDB with rival proxies, by the processor time that each proxy costs.
//!
//! `cargo run --release -p benches -- postgres` starts PostgreSQL, PgBouncer, HAProxy and TenantsDB's data plane on loopback, runs
//! every case against each of them in interleaved rounds and writes `BENCHMARKS.md`; `redis` does so with Redis, twemproxy and
//! HAProxy and writes `BENCHMARKS-REDIS.md`. `api` measures the REST API of the whole product and writes `BENCHMARKS-API.md`.

pub mod api;
pub mod cases;
pub mod comparison;
pub mod contender;
pub mod environment;
pub mod idle;
pub mod lookup;
pub mod ours;
pub mod pgbench;
pub mod process;
pub mod procfs;
pub mod redis_benchmark;
pub mod report;
pub mod results;
pub mod rivals;
pub mod runner;
pub mod stats;
pub mod verdict;
