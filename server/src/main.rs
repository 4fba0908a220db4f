//! The `tenantsdb` binary.
fn main() {}
