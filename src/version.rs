//! What this build is.

/// Version of the crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit it was built from, `unknown` outside a checkout.
pub const COMMIT: &str = env!("RINGGATE_COMMIT");

/// Compiled-in parts.
pub const FEATURES: &str = "io_uring tls (aws-lc-rs) mimalloc";
