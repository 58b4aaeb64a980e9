//! Arbitrary bytes as a schedule of what clients of a node do, and when.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringgate_sim::bodies::shard(bytes));
