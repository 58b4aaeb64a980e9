//! The golden vectors of `schemas/vectors/`, checked by the Rust implementation: every frame of a client and of a
//! gateway is read as the index says, what we encode reads the same, everything malformed is refused with its code;
//! and a client that bends a vector in any way harms nobody but itself.

mod bombs;
mod client;
mod gateway;
mod index;
mod malformed;
mod mutations;
