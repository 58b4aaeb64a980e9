//! Publish, on the publisher's side: checked, drafted, posted to the topic's home, and answered when that has answered.

use std::hash::BuildHasher;

use crate::close::ErrorCode;
use crate::id::{ConnectionKey, Now};
use crate::session::Verb;
use crate::shard::Shard;
use crate::shard::letter::{Publish, Published};
use crate::topics::DedupKey;
use crate::wire::{self, Draft, Encoder};

impl Shard {
    /// A client publishes. Whether it may is found here; with an id the answer is the home's, which looks first whether an
    /// earlier attempt was stored.
    pub(super) fn on_publish(&mut self, key: ConnectionKey, publish: &wire::Publish<'_>, now: Now) {
        let request = publish.request;
        let home = self.home_of_topic(publish.topic);
        let Some(session) = self.connections.get(key).and_then(|connection| connection.session.as_ref()) else {
            return;
        };
        let id = publish.client_message_id;
        let sender = self.hash.hash_one(&*session.user);
        let sender_and_topic = || self.hash.hash_one((sender, publish.topic));
        let dedup_key = (!id.is_none()).then(|| DedupKey::new(&self.hash, sender, sender_and_topic(), id));
        if let Some(key) = dedup_key {
            // As early as possible: it lies anywhere in a lot of memory.
            self.expect_publish(home, key);
        }
        let (namespace, refused) = match self.may(session, Verb::Publish, publish.topic) {
            Ok(_) if publish.payload.len() > self.settings.client.message_bytes_max => {
                (0, Some(ErrorCode::LimitExceeded))
            }
            Ok(namespace) => (namespace, None),
            Err(code) => (0, Some(code)),
        };
        if let Some(code) = refused.filter(|_| dedup_key.is_none()).or_else(|| self.way_is_full(home)) {
            return self.refuse_publish(key, request, code, code.label(), now);
        }
        let payload = if refused.is_some() { &[] } else { publish.payload };
        let draft = Draft::new(publish.topic, &session.user, payload, publish.trace);
        if !self.count_request(key) {
            let code = ErrorCode::TooManyInFlight;
            return self.refuse_publish(key, request, code, code.label(), now);
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
            received_us: now.mono_us,
        };
        self.publish_or_post(home, letter, now);
    }

    /// The publisher's shard hears that nothing came of it.
    pub(in crate::shard) fn on_failed(
        &mut self,
        to: ConnectionKey,
        request: u32,
        code: ErrorCode,
        message: &str,
        now: Now,
    ) {
        self.asked -= 1;
        self.answered(to);
        self.refuse_publish(to, request, code, message, now);
    }

    /// Request 0 means that the client wants no answer, not even a refusal.
    fn refuse_publish(&mut self, key: ConnectionKey, request: u32, code: ErrorCode, message: &str, now: Now) {
        if request == 0 {
            return self.metrics.errors[code].increment();
        }
        self.refuse_with(key, request, code, message, None, now);
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
