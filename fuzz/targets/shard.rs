//! Arbitrary bytes as a schedule of what clients of a node do, and when.
#![no_main]

#[path = "../src/bodies.rs"]
#[allow(dead_code, reason = "shared between the targets")]
mod bodies;
#[path = "../src/world.rs"]
#[allow(dead_code, reason = "shared between the targets")]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::shard(bytes));
