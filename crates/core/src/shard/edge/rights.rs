//! What a session may do with a topic: judged here alone, from its token, the namespace, and the rooms that it is in.

use crate::close::ErrorCode;
use crate::id::ConnectionKey;
use crate::session::{Session, Verb};
use crate::shard::Shard;

impl Shard {
    /// The index of the topic's namespace (0 for an inbox), or why the session may not do this with the topic.
    pub(super) fn may(&self, session: &Session, verb: Verb, topic: &str) -> Result<usize, ErrorCode> {
        let is_granted = || session.grants.as_ref().is_some_and(|grants| grants.allows(verb, topic));
        let is_member = || self.rooms.is_member(session, topic);
        match (verb, topic.strip_prefix('@')) {
            (Verb::Publish, Some(_)) if self.settings.inbox.publish_all || is_granted() => return Ok(0),
            (Verb::History, Some(user)) if *session.user == *user => return Ok(0),
            (Verb::Publish | Verb::History, Some(_)) => return Err(ErrorCode::PermissionDenied),
            // An inbox is no room: no namespace will be found.
            (Verb::Subscribe | Verb::Presence, Some(_)) | (_, None) => {}
        }
        let (index, namespace) = self.settings.namespace_of(topic).ok_or(ErrorCode::UnknownRoom)?;
        let (is_open, is_offered) = match verb {
            Verb::Subscribe => (namespace.subscribe_all, true),
            Verb::Publish => (namespace.publish_all, true),
            // A session that may listen may also look around.
            Verb::Presence => (namespace.subscribe_all || is_member(), namespace.presence),
            Verb::History => (namespace.subscribe_all || is_member(), namespace.history_size > 0),
        };
        if !is_open && !is_granted() {
            return Err(ErrorCode::PermissionDenied);
        }
        if !is_offered {
            return Err(ErrorCode::NotAvailable);
        }
        if verb == Verb::Publish && !namespace.publish_without_subscribe && !is_member() {
            return Err(ErrorCode::NotSubscribed);
        }
        Ok(index)
    }

    /// [`Self::may`] of the session on a connection.
    pub(super) fn session_may(&self, key: ConnectionKey, verb: Verb, topic: &str) -> Result<usize, ErrorCode> {
        let session = self.connections.get(key).and_then(|connection| connection.session.as_ref());
        self.may(session.ok_or(ErrorCode::Internal)?, verb, topic)
    }
}
