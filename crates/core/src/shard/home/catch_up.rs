//! What a session is missing of a topic, from the topic's log.

use super::Topic;
use crate::id::{Address, Now};
use crate::shard::{Shard, Source, ToEdge};
use crate::topics::Inbox;

/// Messages and bytes that one answer to CatchUp carries.
const CATCH_UP_MESSAGES: usize = 128;
const CATCH_UP_BYTES: usize = 256 * 1024;

impl Shard {
    /// A session asks for what it is missing.
    pub(in crate::shard) fn on_catch_up(&mut self, topic: Source, from: Address, since: u64, now: Now) {
        let at_home = match topic {
            Source::Inbox(key) => Topic::Inbox(key),
            Source::Room { room, .. } => Topic::Room(room),
        };
        self.homes.trim(at_home, now);
        let gap = match topic {
            // What the session itself has sent to others lies there as a copy.
            Source::Inbox(key) => self.homes.inboxes.get(key).and_then(Inbox::log).map(|log| (log, Some(from))),
            Source::Room { room: key, .. } => self.homes.rooms.get(key).map(|room| {
                let echo = self.homes.echo(key);
                (&room.log, (!echo).then_some(from))
            }),
        }
        .map(|(log, without)| log.after(since, CATCH_UP_MESSAGES, CATCH_UP_BYTES, without, now.mono_ms()))
        .unwrap_or_default();
        self.post_to_edge(from.shard, ToEdge::CaughtUp { to: from.connection, topic, gap: Box::new(gap) });
    }
}
