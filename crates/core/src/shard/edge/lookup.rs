//! Presence and History: what a session asks of a topic.

use super::requests::WEIGHT_OF_LARGE;
use crate::close::ErrorCode;
use crate::id::{ConnectionKey, Now, Position};
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
        match self.may_use_room(key, room, Verb::Presence) {
            Err(code) => self.refuse(key, request, code, now),
            Ok(namespace) if !self.settings.namespaces.get(namespace).is_some_and(|n| n.presence) => {
                self.refuse(key, request, ErrorCode::NotAvailable, now);
            }
            Ok(_) => {
                let home = self.home_of_room(room);
                if let Some(code) = self.way_is_full(home) {
                    return self.refuse(key, request, code, now);
                }
                if self.begin_request(key, request, now) {
                    let limit = limit.min(PRESENCE_MEMBERS_MAX);
                    let letter = ToHome::Presence { room: room.into(), from: self.address(key), request, limit };
                    self.begin_heavy(key, WEIGHT_OF_LARGE);
                    self.ask(home, letter);
                }
            }
        }
    }

    /// A client asks what was said.
    pub(super) fn on_history(&mut self, key: ConnectionKey, request: u32, topic: &str, asked: Asked, now: Now) {
        let allowed = match topic.strip_prefix('@') {
            Some(user) => {
                let own = self.session_mut(key).is_some_and(|session| *session.user == *user);
                if own { Ok(()) } else { Err(ErrorCode::PermissionDenied) }
            }
            None => self.may_use_room(key, topic, Verb::History).and_then(|namespace| {
                let kept = self.settings.namespaces.get(namespace).is_some_and(|n| n.history_size > 0);
                if kept { Ok(()) } else { Err(ErrorCode::NotAvailable) }
            }),
        };
        let home = self.home_of_topic(topic);
        if let Some(code) = allowed.err().or_else(|| self.way_is_full(home)) {
            return self.refuse(key, request, code, now);
        }
        if self.begin_request(key, request, now) {
            let Asked { since, before, limit } = asked;
            let limit = limit.min(HISTORY_MESSAGES_MAX);
            let history = History { topic: topic.into(), from: self.address(key), request, since, before, limit };
            self.begin_heavy(key, WEIGHT_OF_LARGE);
            self.ask(home, ToHome::History(Box::new(history)));
        }
    }

    pub(super) fn on_presence_result(&mut self, result: &PresenceResult, now: Now) {
        self.asked -= 1;
        self.answered_heavy(result.to, WEIGHT_OF_LARGE);
        self.reply(result.to, now, |encoder, out| {
            let members = result.members.iter().map(|(user, device)| (&**user, &**device));
            encoder.presence_result(out, result.request, &result.room, result.count, members);
        });
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
