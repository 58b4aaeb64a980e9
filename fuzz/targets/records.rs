//! Arbitrary bytes as what a client of a compact TLS connection does.
#![no_main]

#[path = "../src/records.rs"]
mod records;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| records::records(bytes));
