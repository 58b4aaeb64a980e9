//! Clients that break the rules, or break off: a real gateway over real sockets, one kind of mischief a file. What
//! they do costs them their own connection, and nobody else anything.

#[path = "../support/mod.rs"]
mod support;

mod bystanders;
mod churn;
mod completions;
#[path = "../support/counting.rs"]
mod counting;
mod descriptors;
mod drain;
mod ends;
mod garbage;
mod mailboxes;
mod malformed;
mod receive_buffers;
mod refreshes;
mod sealing;
mod secured;
mod slowloris;
mod suite;
mod unfinished;
