//! Presence and History: what a session asks of a topic.

use super::requests::WEIGHT_OF_LARGE;
use crate::close::ErrorCode;
use crate::id::{ConnectionKey, Now, Position, ShardId};
use crate::limits::{HISTORY_MESSAGES_MAX, PRESENCE_MEMBERS_MAX};
use crate::session::Verb;
use crate::shard::letter::{History, HistoryResult, PresenceResult};
use crate::shard::{Shard, ToHome};
use crate::wire::encode;

/// Which messages a History asks for.
#[derive(Clone, Copy)]
pub(in crate::shard) struct Asked {
    pub(super) since: Option<Position>,
    pub(super) before: Option<Position>,
    pub(super) limit: u32,
}

impl Shard {
    /// A client asks who is in a room.
    pub(super) fn on_presence(&mut self, key: ConnectionKey, request: u32, room: &str, limit: u32, now: Now) {
        let home = self.home_of_room(room);
        if self.begin_lookup(key, request, Verb::Presence, room, home, now) {
            let limit = limit.min(PRESENCE_MEMBERS_MAX);
            self.ask(home, ToHome::Presence { room: room.into(), from: self.address(key), request, limit });
        }
    }

    /// A client asks what was said.
    pub(super) fn on_history(&mut self, key: ConnectionKey, request: u32, topic: &str, asked: Asked, now: Now) {
        let home = self.home_of_topic(topic);
        if self.begin_lookup(key, request, Verb::History, topic, home, now) {
            let Asked { since, before, limit } = asked;
            let limit = limit.min(HISTORY_MESSAGES_MAX);
            let history = History { topic: topic.into(), from: self.address(key), request, since, before, limit };
            self.ask(home, ToHome::History(Box::new(history)));
        }
    }

    /// Whether the session may ask this now; if not, it is told why. The answer is large: others wait for it.
    fn begin_lookup(
        &mut self,
        key: ConnectionKey,
        request: u32,
        verb: Verb,
        topic: &str,
        home: ShardId,
        now: Now,
    ) -> bool {
        let refused = self.session_may(key, verb, topic).err().or_else(|| self.way_is_full(home));
        if let Some(code) = refused {
            self.refuse(key, request, code, now);
            return false;
        }
        let begins = self.begin_request(key, request, now);
        if begins {
            self.begin_heavy(key, WEIGHT_OF_LARGE);
        }
        begins
    }

    pub(super) fn on_presence_result(&mut self, result: &PresenceResult, now: Now) {
        self.asked -= 1;
        self.answered_heavy(result.to, WEIGHT_OF_LARGE);
        self.reply(result.to, now, |encoder, out| {
            let members = result.members.iter().map(|(user, device)| (&**user, &**device));
            encoder.presence_result(out, result.request, &result.room, result.count, members);
        });
    }

    pub(super) fn on_lookup_failed(&mut self, to: ConnectionKey, request: u32, now: Now) {
        self.asked -= 1;
        self.answered_heavy(to, WEIGHT_OF_LARGE);
        self.refuse(to, request, ErrorCode::Internal, now);
    }

    pub(super) fn on_history_result(&mut self, result: &HistoryResult, now: Now) {
        self.asked -= 1;
        self.answered_heavy(result.to, WEIGHT_OF_LARGE);
        self.reply(result.to, now, |encoder, out| {
            let HistoryResult { request, position, more, recovered, .. } = *result;
            let (topic, frames) = (&*result.topic, &*result.frames);
            let fields = encode::HistoryResult { request, topic, position, frames, more, recovered };
            encoder.history_result(out, &fields);
        });
    }
}
