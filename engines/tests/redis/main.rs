//! The Redis engine and the provisioner of its servers, on a real server.

mod databases;
mod external;
mod lab;
mod provisioner;
mod wall;
