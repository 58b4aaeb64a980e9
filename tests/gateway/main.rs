//! The gateway from outside: real sockets, real TLS, real processes; one behaviour a file.

#[path = "../support/mod.rs"]
mod support;

mod sessions;
mod sign_in;
