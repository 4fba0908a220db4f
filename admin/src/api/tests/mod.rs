//! The API as a client sees it, on a store in a folder of its own.

mod basics;
mod harness;
mod peer;
mod samples;
mod story;
