//! Arbitrary bytes as the beginning of a connection from a proxy.
#![no_main]

#[path = "../src/proxy.rs"]
mod proxy;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::proxy(bytes));
