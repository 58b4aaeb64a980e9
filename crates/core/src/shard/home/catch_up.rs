//! What a session is missing of a topic: from memory, or from the engine (`reads`).

use super::Topic;
use super::reads::{Asker, CATCH_UP_BYTES, CATCH_UP_MESSAGES};
use crate::id::{Address, Now};
use crate::shard::{Shard, Source, ToEdge};
impl Shard {
    /// A session asks for what it is missing.
    pub(in crate::shard) fn on_catch_up(&mut self, topic: Source, from: Address, since: u64, now: Now) {
        let at_home = match topic {
            Source::Inbox(key) => Topic::Inbox(key),
            Source::Room { room, .. } => Topic::Room(room),
        };
        self.homes.trim(at_home, now);
        let log = self.homes.log(at_home);
        if let Some((after, lost)) = log.and_then(|log| Some((log.read_after(since)?, since < log.lost()))) {
            return self.read_after(at_home, Asker::CatchUp { source: topic, from, lost }, after);
        }
        let without = self.excluded(topic, from);
        let gap = log.map(|log| log.after(since, CATCH_UP_MESSAGES, CATCH_UP_BYTES, without, now.mono_ms()));
        let mut gap = Box::new(gap.unwrap_or_default());
        gap.lost = gap.lost && !self.homes.has_acknowledged_lost(at_home, from, 0);
        self.post_to_edge(from.shard, ToEdge::CaughtUp { to: from.connection, topic, gap });
    }

    /// Whose messages a session is not brought: what it has sent to others itself lies in its inbox as a copy, and a room without
    /// echo does not bring publishers their own messages.
    pub(super) fn excluded(&self, topic: Source, from: Address) -> Option<Address> {
        match topic {
            Source::Inbox(_) => Some(from),
            Source::Room { room, .. } => (!self.homes.echo(room)).then_some(from),
        }
    }
}
