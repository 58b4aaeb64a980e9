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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::{InboxKey, ShardId};
    use crate::limits::{Namespace, Settings};
    use crate::session::{InboxFeed, Lag, Memberships, RoomGrants};
    use crate::shard::ShardOptions;

    fn shard() -> Shard {
        let closed = Namespace { subscribe_all: false, publish_all: false, ..Namespace::named("closed") };
        let bare = Namespace { presence: false, history_size: 0, ..Namespace::named("bare") };
        let news = Namespace { publish_without_subscribe: true, ..Namespace::named("news") };
        let mut settings =
            Settings { namespaces: vec![Namespace::named("chat"), closed, bare, news], ..Settings::default() };
        settings.inbox.publish_all = false;
        Shard::new(ShardOptions {
            id: ShardId(0),
            shards: 1,
            settings: Arc::new(settings),
            metrics: Arc::default(),
            seed: 7,
            run: 1,
        })
    }

    fn alice() -> Session {
        Session {
            user: "alice".into(),
            device: "phone".into(),
            expires_at: 0,
            grants: None,
            inbox: InboxFeed::new(ShardId(0), InboxKey { slot: 0, generation: 1 }, 1, 0, Lag::None),
            rooms: Memberships::default(),
            in_flight: 0,
            lagging: 0,
            ping_interval_ms: 30_000,
            receive_window: 10,
        }
    }

    #[test]
    fn session_wants_something_of_a_topic_then_it_may_as_the_table_says() {
        use ErrorCode::{NotAvailable, NotSubscribed, PermissionDenied, UnknownRoom};
        use Verb::{History, Presence, Publish, Subscribe};
        let everything = || vec!["closed:*".to_owned(), "@bob".to_owned()];
        let granted = RoomGrants {
            subscribe: everything(),
            publish: everything(),
            presence: everything(),
            history: everything(),
        };
        // A stranger, a member of the room, a stranger whose token grants `closed:*` and `@bob`.
        let table = [
            ("chat:a", Subscribe, Ok(0), Ok(0), Ok(0)),
            ("chat:a", Publish, Err(NotSubscribed), Ok(0), Err(NotSubscribed)),
            ("chat:a", Presence, Ok(0), Ok(0), Ok(0)),
            ("chat:a", History, Ok(0), Ok(0), Ok(0)),
            ("closed:a", Subscribe, Err(PermissionDenied), Err(PermissionDenied), Ok(1)),
            ("closed:a", Publish, Err(PermissionDenied), Err(PermissionDenied), Err(NotSubscribed)),
            ("closed:a", Presence, Err(PermissionDenied), Ok(1), Ok(1)),
            ("closed:a", History, Err(PermissionDenied), Ok(1), Ok(1)),
            ("bare:a", Presence, Err(NotAvailable), Err(NotAvailable), Err(NotAvailable)),
            ("bare:a", History, Err(NotAvailable), Err(NotAvailable), Err(NotAvailable)),
            ("news:a", Publish, Ok(3), Ok(3), Ok(3)),
            ("nowhere:a", Subscribe, Err(UnknownRoom), Err(UnknownRoom), Err(UnknownRoom)),
            ("nowhere:a", Publish, Err(UnknownRoom), Err(UnknownRoom), Err(UnknownRoom)),
            ("@alice", History, Ok(0), Ok(0), Ok(0)),
            ("@bob", History, Err(PermissionDenied), Err(PermissionDenied), Err(PermissionDenied)),
            ("@bob", Publish, Err(PermissionDenied), Err(PermissionDenied), Ok(0)),
            ("@alice", Subscribe, Err(UnknownRoom), Err(UnknownRoom), Err(UnknownRoom)),
            ("@alice", Presence, Err(UnknownRoom), Err(UnknownRoom), Err(UnknownRoom)),
        ];
        for (topic, verb, stranger, member, with_grant) in table {
            let mut shard = shard();
            let mut session = alice();
            assert_eq!(shard.may(&session, verb, topic), stranger, "a stranger: {verb:?} {topic}");
            session.grants = Some(Arc::new(granted.clone()));
            assert_eq!(shard.may(&session, verb, topic), with_grant, "with a grant: {verb:?} {topic}");
            session.grants = None;
            session.rooms.add(shard.rooms.find_or_make(topic, 0));
            assert_eq!(shard.may(&session, verb, topic), member, "a member: {verb:?} {topic}");
        }
    }
}
