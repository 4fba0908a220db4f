//! PostgreSQL wire format, protocols 3.0 and 3.2: bytes in, borrowed messages out.
//!
//! No sockets, no clock, no allocation sized by a peer. "Not enough bytes yet" is a value and never an error. The
//! layouts are those of the PostgreSQL 18 manual, chapter "Frontend/Backend Protocol".
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

pub mod backend;
pub mod frame;
pub mod frontend;
mod reader;
pub mod scram;
pub mod startup;
mod writer;

pub use reader::DecodeError;
pub use writer::EncodeError;

/// Protocol 3.0, as the four bytes of a StartupMessage.
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// Protocol 3.2 (PostgreSQL 18): cancel keys of up to 256 bytes.
pub const PROTOCOL_3_2: u32 = (3 << 16) | 2;
