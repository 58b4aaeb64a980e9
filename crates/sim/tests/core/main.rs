//! The core from outside: events go into shards, frames come out of outboxes; time and mail move when a test says so.
//!
//! One file for each subject.

mod answers;
mod drain;
mod engine;
mod kept;
mod late;
mod loading;
mod members;
mod order;
mod overload;
mod rates;
mod shared;
mod wishes;
