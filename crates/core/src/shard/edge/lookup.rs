//! Presence and History: what a session asks of a topic.

use super::requests::WEIGHT_OF_LARGE;
use crate::close::ErrorCode;
use crate::id::{ConnectionKey, Now, Position};
use crate::limits::{HISTORY_MESSAGES_MAX, PRESENCE_MEMBERS_MAX};
use crate::session::Verb;
use crate::shard::letter::History;
use crate::shard::{Letter, Shard};

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
                    let letter = Letter::Presence { room: room.into(), from: self.address(key), request, limit };
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
            self.ask(home, Letter::History(Box::new(history)));
        }
    }
}
