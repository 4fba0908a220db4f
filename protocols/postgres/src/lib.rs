//! PostgreSQL wire format: bytes in, borrowed messages out.
