//! A session's side of a shard: connections, their sessions, and the members of rooms here.
//!
//! Topics are reached by letters only, also those whose home is this very shard (`shard::mail`).
//!
//! | file | what |
//! |---|---|
//! | `open`, `signin` | accept, TLS handshake, Connect, tokens, Refresh |
//! | `receive` | bytes -> frames -> requests; rates |
//! | `carried` | bytes of TLS records beyond what is in them |
//! | `requests` | requests that are not answered yet |
//! | `rights` | what a session may do with a topic |
//! | `publish`, `lookup` | requests: Publish; Presence and History |
//! | `inbox` | a session's own inbox: live, acknowledged, repeated |
//! | `rooms`, `members` | a session's rooms, and the members of rooms on this shard |
//! | `broadcasts`, `jobs` | one frame for all members here, and broadcasts that wait for their turn |
//! | `catch_up` | what a lagging session is missing |
//! | `send` | replies, refusals, and what the shell takes out of an outbox |
//! | `timers` | heartbeats and every other deadline of a connection |
//! | `leave` | closing, draining |

mod broadcasts;
mod carried;
mod catch_up;
mod inbox;
mod jobs;
mod leave;
mod lookup;
mod members;
mod open;
mod publish;
mod receive;
pub(in crate::shard) mod requests;
mod rights;
mod rooms;
mod send;
mod signin;
mod timers;

pub(in crate::shard) use broadcasts::Broadcast;
pub(in crate::shard) use members::LocalRooms;
pub(in crate::shard) use signin::DeviceNames;
