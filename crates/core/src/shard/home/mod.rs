//! A topic's side of a shard: the topics whose home it is. Sessions are reached by letters only (`shard::mail`).
//!
//! | file | what |
//! |---|---|
//! | `topics`, `books` | the tables of inboxes and rooms, what happens to one of them, and what the metrics count of it |
//! | `publish` | Publish: sequenced, committed, delivered |
//! | `inbox` | devices that connect to an inbox |
//! | `room` | members that join and leave, and broadcasts to the shards where they are |
//! | `catch_up`, `lookup` | what a session is missing; Presence and History |

mod books;
mod catch_up;
mod inbox;
mod lookup;
mod publish;
mod room;
mod topics;

pub(in crate::shard) use topics::Homes;
