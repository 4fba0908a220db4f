//! The PostgreSQL session.

pub mod replies;
