//! Presence and History, answered from a topic's table of members and its log.

use std::sync::Arc;

use super::Topic;
use super::reads::Asker;
use crate::id::{Address, Now, Position, ShardId};
use crate::limits::{Engine, HISTORY_BYTES_MAX};
use crate::shard::letter::{History, HistoryResult, PresenceResult};
use crate::shard::{ReadMessages, ReadRange, Shard, ToEdge};
use crate::topics::Room;

impl Shard {
    pub(in crate::shard) fn on_presence_at_home(&mut self, name: Arc<str>, from: Address, request: u32, limit: u32) {
        if self.settings.engine == Engine::Shared {
            return self.ask_for_presence(name, from, request, limit);
        }
        let room = self.homes.rooms.find(&name).and_then(|key| self.homes.rooms.get(key));
        let result = PresenceResult {
            to: from.connection,
            request,
            count: room.map_or(0, Room::count),
            members: room.map_or_else(Vec::new, |room| room.names(limit as usize)),
            room: name,
        };
        self.post_to_edge(from.shard, ToEdge::PresenceResult(Box::new(result)));
    }

    pub(in crate::shard) fn on_history_at_home(&mut self, history: History, now: Now) {
        let History { topic, from, request, since, before, limit } = history;
        let found = self.homes.find(&topic);
        if let Some(found) = found {
            self.homes.trim(found, now);
        }
        let (position, log) = match found {
            Some(Topic::Inbox(key)) => self.homes.inboxes.get(key).map(|inbox| (inbox.position(), inbox.log())),
            Some(Topic::Room(key)) => self.homes.rooms.get(key).map(|room| (room.log.position(), Some(&room.log))),
            None => self.homes.head_of_topic(&topic).map(|head| (head.position, None)),
        }
        .map_or((None, None), |(position, log)| (Some(position), log));
        let reaches = |since: Position| log.map_or(Some(since) == position, |log| log.reaches(since));
        let is_of_epoch = |before: Position| position.is_some_and(|position| position.epoch == before.epoch);
        let limit = limit as usize;
        let mut result = HistoryResult {
            to: from.connection,
            request,
            position: position.unwrap_or_default(),
            frames: Vec::new(),
            more: false,
            recovered: since.is_none_or(reaches) && before.is_none_or(is_of_epoch),
            topic: topic.clone(),
        };
        match (log, since) {
            (None, _) => {}
            // Nothing to go on from: the position alone was asked for.
            _ if limit == 0 => {}
            (Some(_), None) if !result.recovered => {}
            (Some(log), None) => {
                let before = before.map_or(u64::MAX, |before| before.offset);
                (result.frames, result.more) = log.newest(before, limit, HISTORY_BYTES_MAX, now.mono_ms());
                if !result.more && log.has_more_in_engine() {
                    let before = before.min(log.position().offset + 1);
                    return self.read_history(found, from.shard, since, result, (ReadRange::Before(before), limit));
                }
            }
            (Some(log), Some(since)) => {
                let start = if log.reaches(since) { since.offset } else { log.lost() };
                if let Some(after) = log.read_after(start) {
                    return self.read_history(found, from.shard, Some(since), result, (ReadRange::After(after), limit));
                }
                let gap = log.after(start, limit, HISTORY_BYTES_MAX, None, now.mono_ms());
                result.frames = gap.frames.into_iter().map(|(_, frame)| frame).collect();
                result.more = gap.more;
            }
        }
        self.post_to_edge(from.shard, ToEdge::HistoryResult(Box::new(result)));
    }

    /// Memory does not have all that is asked for: the engine is read, and answers with the topic as it stands now.
    fn read_history(
        &mut self,
        topic: Option<Topic>,
        to: ShardId,
        since: Option<Position>,
        result: HistoryResult,
        (range, messages_max): (ReadRange, usize),
    ) {
        let Some(topic) = topic else { return };
        let (topic_name, epoch, bytes_max) = (result.topic.clone(), result.position.epoch, HISTORY_BYTES_MAX);
        let asker = Asker::History { to, since, result: Box::new(HistoryResult { frames: Vec::new(), ..result }) };
        self.read_for_history(topic, asker, ReadMessages { topic: topic_name, epoch, range, messages_max, bytes_max });
    }
}
