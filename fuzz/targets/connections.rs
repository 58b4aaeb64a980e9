//! Arbitrary bytes as what a client of TLS does from its hello on, in both modes and versions.
#![no_main]

#[path = "../src/connections.rs"]
mod connections;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| connections::connections(bytes));
