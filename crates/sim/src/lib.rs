//! Shards of ringgate without sockets, threads and clocks: for the simulation, the fuzz targets, the bench of the core and the
//! tests that look at the core from outside.
//!
//! | file | what |
//! |---|---|
//! | `world` | [`World`]: the shards of a node, its time, and what the shards want of the outside until somebody does it |
//! | `client` | clients that say what a test makes them say, and the frames that they get |
//! | `byte_clients` | clients that may send any bytes |
//! | `bodies` | what the fuzz targets of the core do with their input |
//! | `mailboxes` | mailboxes that can be full |
//! | `engine` | a model of an engine that stores messages, answers late and fails |
//! | `random` | numbers that depend on a seed alone |

pub mod bodies;
mod byte_clients;
mod client;
mod engine;
mod mailboxes;
mod random;
mod world;

pub use byte_clients::{ByteClient, ByteClients};
pub use client::{Got, offsets, settings, settings_with_namespace};
pub use engine::Engine;
pub use mailboxes::Mailboxes;
pub use random::Random;
pub use world::{Append, Client, Closing, Reading, START, Sent, Tokens, Unverified, World, user_of_token};
