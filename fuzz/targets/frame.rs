//! Arbitrary bytes as a stream of frames, read by a gateway and by a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ringgate_sim::bodies::frame(bytes));
