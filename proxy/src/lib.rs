//! The data plane: reactors, sessions, pools, gates.
#![allow(dead_code)]
