//! The gateway: shards on threads, configuration, listeners, the command line. What it decides is in `ringgate_core`, its
//! sockets are in `ringgate_net`, tokens and certificates in `ringgate_auth`.
//!
//! The map of the crate. A module imports only from its own layer and those above it in this list; ARCHITECTURE.md has the
//! picture and the life of one message.

// Threads
pub mod thread;
pub mod worker;

// Control plane
pub mod abort;
pub mod admin;
pub mod client;
pub mod config;
pub mod cores;
pub mod demo;
pub mod doctor;
mod host;
pub mod logs;
pub mod notify;
pub mod readiness;
pub mod redis_facts;
pub mod server;
pub mod version;
pub mod watch;
