//! The pure core of ringgate: no clock, no random numbers, no socket, no thread. Time and seeds are arguments.
//!
//! The map of the crate. A module imports only from its own layer and those above it in this list; ARCHITECTURE.md has the
//! picture and the life of one message. The seeded simulation in `crates/sim` drives exactly this code.

// Vocabulary
pub mod close;
pub mod id;
pub mod keyed;
pub mod limits;
pub mod metrics;
pub mod named;
pub mod prefetch;
pub mod slots;
pub mod transport;
pub mod units;

// Bytes <-> values
pub mod wire;

// What is decided
pub mod outbox;
pub mod session;
pub mod shard;
pub mod topics;
pub mod wheel;

// Between cores
pub mod mesh;
