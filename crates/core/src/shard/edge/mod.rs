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
//! | `publish` | Publish: rights, draft, answer |
//! | `inbox` | a session's own inbox: live, acknowledged, repeated |
//! | `rooms`, `jobs` | a session's rooms, the members of rooms on this shard, and broadcasts that wait for their turn |
//! | `send` | replies, refusals, and what the shell takes out of an outbox |
//! | `timers` | heartbeats and every other deadline of a connection |
//! | `leave` | closing, draining |

mod carried;
mod inbox;
mod jobs;
mod leave;
mod open;
mod publish;
mod receive;
pub(super) mod requests;
mod rooms;
mod send;
mod signin;
mod timers;

pub(super) use rooms::{Broadcast, LocalRooms};
pub(super) use signin::DeviceNames;
