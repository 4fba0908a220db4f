//! PostgreSQL.

pub mod scram;
