#![no_main]
#![allow(missing_docs, reason = "a target's name says it all")]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::redis_reply(data));
