//! Redis wire format, RESP2 and RESP3: bytes in, borrowed messages out; and what a proxy must know of commands.
//!
//! No sockets, no clock, no allocation sized by a peer, no recursion. "Not enough bytes yet" is a value and never an error.
//! The formats are those of the RESP specification on redis.io; limits and sentences are those of Redis 7.0's
//! `networking.c`.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod command;
pub mod lua;
mod number;
pub mod reply;
pub mod request;
pub mod rewrite;
pub mod text;

/// Redis's own limit of a string (`proto-max-bulk-len`), in bytes.
pub const MAX_BULK: u64 = 512 << 20;
