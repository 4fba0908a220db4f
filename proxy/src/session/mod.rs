//! Sessions: one state machine per protocol, without sockets and without a clock.

pub mod postgres;
