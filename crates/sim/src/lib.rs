//! Shards of ringgate without sockets, threads and clocks: for the simulation, the fuzz targets, the bench of the core and the
//! tests that look at the core from outside.
//!
//! | file | what |
//! |---|---|
//! | `world` | [`World`]: the shards of a node, its time, and what the shards want of the outside until somebody does it |
//! | `client` | clients that say what a test makes them say, and the frames that they get |
//! | `byte_clients` | clients that may send any bytes |
//! | `bodies` | what the fuzz targets of the core do with their input |
//! | `nodes` | several nodes that share an engine |
//! | `mailboxes` | mailboxes that can be full |
//! | `engine` | a model of an engine that does what it is asked for late, and fails |
//! | `disk` | what an engine has stored |
//! | `random` | numbers that depend on a seed alone |

pub mod bodies;
mod byte_clients;
mod client;
mod disk;
mod engine;
mod mailboxes;
mod nodes;
mod random;
mod world;

pub use byte_clients::{ByteClient, ByteClients};
pub use client::{Answer, Got, answers, offsets, settings, settings_with_namespace};
pub use disk::Disk;
pub use engine::Engine;
pub use mailboxes::Mailboxes;
pub use nodes::{ClaimAnswer, Eviction, News, Nodes};
pub use random::Random;
pub use world::{
    Append, Call, Client, Closing, Reading, START, Sent, Storage, Task, Tokens, Unverified, World, user_of_token,
};
