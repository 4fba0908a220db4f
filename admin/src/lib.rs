//! The REST API: types, use cases, jobs.
