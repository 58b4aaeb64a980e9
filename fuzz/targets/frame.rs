//! Arbitrary bytes as a stream of frames, read by a gateway and by a client.
#![no_main]

#[path = "../src/bodies.rs"]
#[allow(dead_code, reason = "shared between the targets")]
mod bodies;
#[path = "../src/world.rs"]
#[allow(dead_code, reason = "shared between the targets")]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::frame(bytes));
