//! The ringgate load tester.

fn main() {}
