//! What a session may do with a topic.

use crate::close::ErrorCode;
use crate::id::ConnectionKey;
use crate::session::{Session, Verb};
use crate::shard::Shard;

impl Shard {
    /// The index of the topic's namespace (0 for an inbox), or why the session may not publish to it.
    pub(super) fn may_publish(&self, session: &Session, topic: &str) -> Result<usize, ErrorCode> {
        let granted = session.grants.as_ref().is_some_and(|grants| grants.allows(Verb::Publish, topic));
        if topic.starts_with('@') {
            return if self.settings.inbox.publish_all || granted { Ok(0) } else { Err(ErrorCode::PermissionDenied) };
        }
        let (index, namespace) = self.settings.namespace_of(topic).ok_or(ErrorCode::UnknownRoom)?;
        if !namespace.publish_all && !granted {
            return Err(ErrorCode::PermissionDenied);
        }
        if !namespace.publish_without_subscribe && !self.rooms.is_member(session, topic) {
            return Err(ErrorCode::NotSubscribed);
        }
        Ok(index)
    }

    /// The index of the room's namespace, or why the session may not do this with the room.
    pub(super) fn may_use_room(&self, key: ConnectionKey, room: &str, verb: Verb) -> Result<usize, ErrorCode> {
        let (index, namespace) = self.settings.namespace_of(room).ok_or(ErrorCode::UnknownRoom)?;
        let session =
            self.connections.get(key).and_then(|connection| connection.session.as_ref()).ok_or(ErrorCode::Internal)?;
        let granted = session.grants.as_ref().is_some_and(|grants| grants.allows(verb, room));
        let allowed = match verb {
            Verb::Subscribe => namespace.subscribe_all,
            Verb::Publish => namespace.publish_all,
            // A session that may listen may also look around.
            Verb::Presence | Verb::History => namespace.subscribe_all || self.rooms.is_member(session, room),
        };
        if allowed || granted { Ok(index) } else { Err(ErrorCode::PermissionDenied) }
    }
}
