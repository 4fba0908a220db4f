//! The REST API: types and handlers, use cases, long work as resumable jobs.
