//! ringgate: a connection gateway for instant messaging and realtime push.
//!
//! The map of the crate. A module imports only from its own layer and those above it in this list;
//! ARCHITECTURE.md has the picture and the life of one message.
//!
//! Layers A to C are pure: no clock, no random numbers, no socket, no thread. They build and pass their tests with
//! `--no-default-features`, and the seeded simulation in `tests/simulation` drives exactly this code.

// A: vocabulary
pub mod close;
pub mod id;
pub mod keyed;
pub mod limits;
pub mod metrics;
pub mod prefetch;
pub mod slots;

// B: bytes <-> values
pub mod wire;

// C: deterministic core
pub mod outbox;
pub mod session;
pub mod shard;
pub mod topics;
pub mod wheel;

// D: between cores
pub mod mesh;

// E: shell
#[cfg(feature = "gateway")]
mod kernel;
#[cfg(feature = "gateway")]
pub mod net;
#[cfg(feature = "gateway")]
pub mod thread;
#[cfg(feature = "gateway")]
pub mod tls;
#[cfg(feature = "gateway")]
pub mod worker;

// F: control plane
#[cfg(feature = "gateway")]
pub mod abort;
#[cfg(feature = "gateway")]
pub mod admin;
#[cfg(feature = "gateway")]
pub mod auth;
#[cfg(feature = "gateway")]
pub mod client;
#[cfg(feature = "gateway")]
pub mod config;
#[cfg(feature = "gateway")]
pub mod cores;
#[cfg(feature = "gateway")]
pub mod doctor;
#[cfg(feature = "gateway")]
pub mod logs;
#[cfg(feature = "gateway")]
pub mod server;
#[cfg(feature = "gateway")]
pub mod version;
#[cfg(feature = "gateway")]
pub mod watch;
