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
//! | `start_over` | members of rooms who have missed what cannot be brought any more |
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
mod requests;
mod rights;
mod rooms;
mod send;
mod signin;
mod start_over;
mod timers;

use super::{Shard, Source, ToEdge};
use crate::id::Now;
use broadcasts::Broadcast;
pub(super) use members::LocalRooms;
pub(super) use signin::DeviceNames;
pub(super) use start_over::StartOver;

impl Shard {
    pub(super) fn on_letter_to_edge(&mut self, letter: ToEdge, now: Now) {
        match letter {
            ToEdge::Attached { to, home, inbox, attachment } => self.on_attached(to, home, inbox, &attachment, now),
            ToEdge::Refused { to, reason } => self.close(to, reason, "", now),
            ToEdge::Unavailable { to } => self.close_for_a_moment(to, now),
            ToEdge::Published(published) => self.on_published(&published, now),
            ToEdge::Failed { to, request, code, message } => self.on_failed(to, request, code, message, now),
            ToEdge::NotSubscribed { to, request, local, counted } => {
                self.on_not_subscribed(to, request, local, counted, now);
            }
            ToEdge::LookupFailed { to, request } => self.on_lookup_failed(to, request, now),
            ToEdge::Deliver { to, offset, delivery } => self.on_deliver(to, offset, delivery, now),
            ToEdge::CaughtUp { to, topic: Source::Inbox(_), gap } => self.on_inbox_caught_up(to, *gap, now),
            ToEdge::CaughtUp { to, topic: Source::Room { local, .. }, gap } => {
                self.on_room_caught_up(to, local, *gap, now);
            }
            ToEdge::Subscribed(subscribed) => self.on_subscribed(&subscribed, now),
            ToEdge::PresenceResult(result) => self.on_presence_result(&result, now),
            ToEdge::HistoryResult(result) => self.on_history_result(&result, now),
            ToEdge::StartOver { local } => self.on_start_over(local),
            ToEdge::Fanout { local, offset, logged, delivery, without, home, room, work } => {
                self.on_fanout(local, Broadcast { offset, logged, delivery, without, home, room, work });
            }
        }
    }
}
