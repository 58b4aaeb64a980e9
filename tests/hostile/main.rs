//! Clients that break the rules, or break off: a real gateway over real sockets, one kind of mischief a file. What
//! they do costs them their own connection, and nobody else anything.

#[path = "../support/mod.rs"]
mod support;

mod bystanders;
mod churn;
mod completions;
mod descriptors;
mod drain;
mod ends;
mod garbage;
mod mailboxes;
mod malformed;
#[path = "../simulation/random.rs"]
#[allow(dead_code, reason = "shared with the simulation")]
mod random;
mod receive_buffers;
mod refreshes;
mod secured;
mod slowloris;
mod unfinished;
