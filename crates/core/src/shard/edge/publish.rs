//! Publish, on the publisher's side: checked, drafted, posted to the topic's home, and answered when that has answered.

use std::hash::BuildHasher;

use crate::close::ErrorCode;
use crate::id::{ConnectionKey, Now};
use crate::session::{Session, Verb};
use crate::shard::letter::{Publish, Published};
use crate::shard::{Letter, Shard};
use crate::wire::{Draft, Encoder, client_frame};

impl Shard {
    /// A client publishes. Whether it may is found here; with an id the answer is the home's, which looks first whether an
    /// earlier attempt was stored.
    pub(in crate::shard) fn on_publish(&mut self, key: ConnectionKey, publish: &client_frame::Publish<'_>, now: Now) {
        let request = publish.request;
        let home = self.home_of_topic(publish.topic);
        let Some(session) = self.connections.get(key).and_then(|connection| connection.session.as_ref()) else {
            return;
        };
        let (id, dedup) = (publish.client_message_id, &self.homes.dedup);
        let sender = self.hash.hash_one(&*session.user);
        let dedup_key = (!id.is_none()).then(|| dedup.key(sender, self.hash.hash_one((sender, publish.topic)), id));
        if let Some(key) = dedup_key.filter(|_| home == self.id) {
            // As early as possible: it lies anywhere in a lot of memory.
            dedup.prefetch(key);
        }
        let (namespace, refused) = match self.may_publish(session, publish.topic) {
            Ok(_) if publish.payload.len() > self.settings.client.message_bytes_max => {
                (0, Some(ErrorCode::LimitExceeded))
            }
            Ok(namespace) => (namespace, None),
            Err(code) => (0, Some(code)),
        };
        if let Some(code) = refused.filter(|_| dedup_key.is_none()).or_else(|| self.way_is_full(home)) {
            return self.refuse_publish(key, request, code, now);
        }
        let payload = if refused.is_some() { &[] } else { publish.payload };
        let draft = Draft::new(publish.topic, &session.user, payload, publish.trace);
        if !self.count_request(key) {
            return self.refuse_publish(key, request, ErrorCode::TooManyInFlight, now);
        }
        let letter = Publish {
            from: self.address(key),
            request,
            namespace,
            client_message_id: id,
            dedup_key,
            refused,
            draft,
            ephemeral: publish.ephemeral,
            ttl_ms: u64::from(publish.ttl_seconds) * 1000,
            received_us: now.mono_us.max(1),
        };
        if home == self.id {
            self.asked += 1;
            // After what was posted before, as if it were posted, too.
            self.read_own_mail(now);
            self.on_publish_at_home(letter, now);
        } else {
            self.ask(home, Letter::Publish(Box::new(letter)));
        }
    }

    /// The index of the topic's namespace (0 for an inbox), or why the session may not publish to it.
    fn may_publish(&self, session: &Session, topic: &str) -> Result<usize, ErrorCode> {
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

    /// The publisher's shard hears that nothing came of it.
    pub(in crate::shard) fn on_failed(&mut self, to: ConnectionKey, request: u32, code: ErrorCode, now: Now) {
        self.asked -= 1;
        self.answered(to);
        self.refuse_publish(to, request, code, now);
    }

    /// Request 0 means that the client wants no answer, whatever it would be.
    fn refuse_publish(&mut self, key: ConnectionKey, request: u32, code: ErrorCode, now: Now) {
        if request == 0 {
            return self.metrics.errors[code.index()].increment();
        }
        self.refuse(key, request, code, now);
    }

    /// The publisher's shard hears what became of it.
    pub(in crate::shard) fn on_published(&mut self, published: &Published, now: Now) {
        self.asked -= 1;
        self.answered(published.to);
        if published.request == 0 {
            return;
        }
        self.reply(published.to, now, |_, out| {
            Encoder::published(
                out,
                published.request,
                published.client_message_id,
                published.stamp,
                published.durability,
                published.duplicate,
            );
        });
    }
}
