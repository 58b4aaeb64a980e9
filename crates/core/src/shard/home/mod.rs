//! A topic's side of a shard: the topics whose home it is. Sessions are reached by letters only (`shard::mail`).
//!
//! | file | what |
//! |---|---|
//! | `topics` | the tables of inboxes and rooms, and what happens to one of them |
//! | `publish` | Publish: sequenced, committed, delivered |

mod publish;
mod topics;

pub(super) use topics::Homes;
