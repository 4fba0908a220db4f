//! Backend connections: budgets now; handshakes, pools and leases stand on them.

pub mod budget;
