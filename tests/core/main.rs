//! The core from outside: events go into shards, frames come out of outboxes; time and mail move when a test says so.
//!
//! One file for each subject. Nothing here needs the feature `gateway`.

mod kept;
mod world;
