//! Tests on the running binary with real servers and real drivers.
