//! What all clients of a world have sent and seen: the truth that every answer is compared with.
//!
//! A message has a number, which its payload carries, and gets one place in one topic for good. What cannot be judged when it
//! is seen, because others have not been heard yet, is kept as a claim and judged at the end: a gap in what a device was
//! brought, a `recovered`, a list of messages. Where something was under way and both answers would be right, either passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringgate_core::id::{Position, Stamp};
use ringgate_core::limits::{Engine, Namespace, Settings};
use ringgate_sim::START;

/// The wall clock jumps by this many milliseconds, or a multiple: less than a world lives, so that a stamp says when it was made.
pub(crate) const JUMP_MS: u64 = 24 * 3600 * 1000;

/// What the monotonic clock showed, in milliseconds, when the wall clock showed this.
pub(crate) fn mono_of_unix(unix_ms: u64) -> u64 {
    let since_start_ms = unix_ms as i64 - START.unix_ms as i64;
    (since_start_ms + START.mono_ms() as i64).rem_euclid(JUMP_MS as i64) as u64
}

/// A message that a client has sent at least once.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) user: String,
    pub(crate) topic: String,
    /// The client's own id: counted for each user and topic, so that others use it, too. 0 for none.
    pub(crate) id: u64,
    pub(crate) ephemeral: bool,
    /// 0 for none of its own.
    pub(crate) ttl_seconds: u32,
    /// The connections on which it was sent.
    pub(crate) connections: Vec<u64>,
    /// The devices that have sent it.
    devices: BTreeSet<String>,
    stamp: Option<Stamp>,
    /// Of the copy in its sender's inbox.
    copy: Option<Stamp>,
    answered_as_new: bool,
}

/// A device was not brought the offsets from `from` to before `to`.
#[derive(Debug)]
pub(crate) struct Gap {
    pub(crate) topic: String,
    pub(crate) epoch: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) at_ms: u64,
    pub(crate) connection: u64,
    pub(crate) device: String,
}

/// `recovered` was said about everything after `since`.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) topic: String,
    pub(crate) since: Position,
    pub(crate) newest: Position,
    pub(crate) recovered: bool,
    pub(crate) at_ms: u64,
    /// What lies up to here may have been acknowledged by everybody.
    pub(crate) acked_max: u64,
}

/// An answer to History.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) topic: String,
    pub(crate) since: Option<Position>,
    pub(crate) before: Option<Position>,
    pub(crate) limit: u32,
    pub(crate) asked_ms: u64,
    pub(crate) answered_ms: u64,
    pub(crate) newest: Position,
    /// Offset and number.
    pub(crate) messages: Vec<(u64, u64)>,
    pub(crate) more: bool,
    pub(crate) recovered: bool,
    /// See [`Recovery::acked_max`].
    pub(crate) acked_max: u64,
}

#[derive(Default)]
struct InboxAcks {
    devices: BTreeMap<String, u64>,
    max: u64,
}

pub(crate) struct Ledger {
    pub(crate) settings: Arc<Settings>,
    /// Some messages have a ttl of their own.
    pub(crate) ttls: bool,
    /// Logs lose what is old.
    pub(crate) ages: bool,
    sent: Vec<Sent>,
    ids: BTreeMap<(String, String), u64>,
    places: BTreeMap<(String, u64), BTreeMap<u64, u64>>,
    message_ids: BTreeMap<u64, u64>,
    acks: BTreeMap<String, InboxAcks>,
    gaps: Vec<Gap>,
    recoveries: Vec<Recovery>,
    listings: Vec<Listing>,
    /// What History said last of each topic.
    newest: BTreeMap<String, Position>,
    /// Logs of the node's earlier lives.
    lost: BTreeSet<(String, u64)>,
    pub(crate) counts: Counts,
    /// What had happened when the node was last started.
    before: Counts,
    restarted: bool,
}

/// How often things happened, so that a test can see that it tested something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) repetitions: u64,
    pub(crate) denied: u64,
    pub(crate) temporary: u64,
    pub(crate) listings: u64,
    pub(crate) more: u64,
    pub(crate) recovered: u64,
    pub(crate) not_recovered: u64,
    pub(crate) with_ttl: u64,
    /// Messages that a member did not get in a room without a log.
    pub(crate) dropped: u64,
    /// How often a node was killed and started again.
    pub(crate) restarts: u64,
    /// How often a node stood still for a while.
    pub(crate) stops: u64,
    /// How often the wall clock jumped.
    pub(crate) jumps: u64,
    /// Messages that another device of their sender was brought.
    pub(crate) copies: u64,
    /// Topics that were read page by page.
    pub(crate) paged: u64,
    /// Rooms that a token took away.
    pub(crate) taken_away: u64,
}

impl Ledger {
    pub(crate) fn new(settings: Arc<Settings>, ttls: bool, ages: bool) -> Ledger {
        Ledger {
            settings,
            ttls,
            ages,
            sent: Vec::new(),
            ids: BTreeMap::new(),
            places: BTreeMap::new(),
            message_ids: BTreeMap::new(),
            acks: BTreeMap::new(),
            gaps: Vec::new(),
            recoveries: Vec::new(),
            listings: Vec::new(),
            newest: BTreeMap::new(),
            lost: BTreeSet::new(),
            counts: Counts::default(),
            before: Counts::default(),
            restarted: false,
        }
    }

    pub(crate) fn namespace(&self, room: &str) -> Option<&Namespace> {
        self.settings.namespace_of(room).map(|(_, namespace)| namespace)
    }

    /// Messages that the topic's log holds.
    fn kept_max(&self, topic: &str) -> u64 {
        match self.namespace(topic) {
            Some(namespace) => namespace.history_size as u64,
            None => self.settings.inbox.messages_max as u64,
        }
    }

    // ------------------------------------------------------------ messages

    /// A message is about to be sent for the first time.
    pub(crate) fn write(&mut self, user: &str, topic: &str, with_id: bool, ephemeral: bool, ttl_seconds: u32) -> u64 {
        let id = if with_id {
            let last = self.ids.entry((user.to_owned(), topic.to_owned())).or_default();
            *last += 1;
            *last
        } else {
            0
        };
        self.sent.push(Sent {
            user: user.into(),
            topic: topic.into(),
            id,
            ephemeral,
            ttl_seconds,
            connections: Vec::new(),
            devices: BTreeSet::new(),
            stamp: None,
            copy: None,
            answered_as_new: false,
        });
        self.sent.len() as u64 - 1
    }

    /// The message goes out on this connection.
    pub(crate) fn send(&mut self, number: u64, device: &str, connection: u64) {
        let sent = &mut self.sent[number as usize];
        sent.connections.push(connection);
        sent.devices.insert(device.to_owned());
    }

    pub(crate) fn message(&self, number: u64) -> &Sent {
        &self.sent[number as usize]
    }

    /// Whether the message goes out again, with an id by which it can be known again.
    pub(crate) fn was_sent(&self, number: u64) -> bool {
        let sent = self.message(number);
        sent.id != 0 && !sent.connections.is_empty()
    }

    /// Whether somebody has seen that the message is stored, or was answered so.
    pub(crate) fn is_stored(&self, number: u64) -> bool {
        self.message(number).stamp.is_some()
    }

    /// A message of this user that is stored and has an id.
    pub(crate) fn stored_of(&self, user: &str, pick: usize) -> Option<u64> {
        let mine = |sent: &Sent| sent.user == user && sent.id != 0 && sent.stamp.is_some();
        let count = self.sent.iter().filter(|sent| mine(sent)).count();
        let found = self.sent.iter().enumerate().filter(|(_, sent)| mine(sent)).nth(pick % count.max(1));
        found.map(|(number, _)| number as u64)
    }

    pub(crate) fn payload(number: u64) -> Vec<u8> {
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(8 + (number as usize * 37) % 900, b'x');
        payload
    }

    pub(crate) fn trace(number: u64) -> Option<String> {
        number.is_multiple_of(3).then(|| format!("trace-{number}"))
    }

    /// Published came.
    pub(crate) fn on_published(&mut self, number: u64, stamp: Stamp, duplicate: bool) {
        self.place(number, stamp);
        let sent = &mut self.sent[number as usize];
        if duplicate {
            assert!(
                sent.connections.len() > 1,
                "message {number} was sent once and answered as a repetition: {sent:?}"
            );
            self.counts.repetitions += 1;
        } else {
            assert!(!sent.answered_as_new, "message {number} was answered as new twice: {sent:?}");
            sent.answered_as_new = true;
            self.counts.published += 1;
        }
    }

    /// A message was brought, or listed by History. Returns its number.
    pub(crate) fn on_message(
        &mut self,
        topic: &str,
        stamp: Stamp,
        sender: &str,
        payload: &[u8],
        trace: Option<&str>,
    ) -> u64 {
        let number = u64::from_le_bytes(payload[..8].try_into().unwrap());
        let sent = self.message(number);
        assert_eq!((sent.topic.as_str(), sent.user.as_str()), (topic, sender), "message {number}");
        assert_eq!(payload, Self::payload(number), "the payload of message {number}");
        assert_eq!(trace.map(str::to_owned), Self::trace(number), "the trace of message {number}");
        self.place(number, stamp);
        number
    }

    /// A copy of a message to somebody else was brought to a device of its sender, or listed by History. Returns its number.
    pub(crate) fn on_copy(&mut self, inbox: &str, sent_to: &str, stamp: Stamp, payload: &[u8]) -> u64 {
        let number = u64::from_le_bytes(payload[..8].try_into().unwrap());
        let sent = &mut self.sent[number as usize];
        assert!(self.settings.inbox.copy_to_own_devices, "message {number} was copied");
        assert_eq!((sent.topic.as_str(), format!("@{}", sent.user).as_str()), (sent_to, inbox), "a copy of {number}");
        assert!(sent_to.starts_with('@') && sent_to != inbox && !sent.ephemeral, "a copy of {number}");
        assert_eq!(payload, Self::payload(number), "the payload of a copy of {number}");
        let known = *sent.copy.get_or_insert(stamp);
        assert_eq!(known, stamp, "message {number} was copied twice: {sent:?}");
        Self::copy_is_true(sent);
        self.put(inbox.to_owned(), number, stamp.position);
        number
    }

    /// A copy has the id and the time of its original.
    fn copy_is_true(sent: &Sent) {
        if let (Some(stamp), Some(copy)) = (sent.stamp, sent.copy) {
            assert_eq!((stamp.message_id, stamp.timestamp_ms), (copy.message_id, copy.timestamp_ms), "{sent:?}");
        }
    }

    /// Whether the message stands in this topic as a copy.
    fn is_copy(&self, topic: &str, number: u64) -> bool {
        self.message(number).topic != topic
    }

    /// Messages of this user to others that were stored behind that time, and that only other devices have sent: the device must
    /// have had a copy of each.
    pub(crate) fn to_be_copied(&self, user: &str, device: &str, since_ms: u64) -> impl Iterator<Item = u64> {
        let inbox = format!("@{user}");
        let is_due = move |sent: &Sent| {
            let is_to_another = sent.user == user && sent.topic.starts_with('@') && sent.topic != inbox;
            let is_behind = |stamp: Stamp| mono_of_unix(stamp.timestamp_ms) > since_ms;
            is_to_another && !sent.ephemeral && !sent.devices.contains(device) && sent.stamp.is_some_and(is_behind)
        };
        self.sent.iter().zip(0..).filter(move |(sent, _)| is_due(sent)).map(|(_, number)| number)
    }

    /// The node was started again: what is in no log is not known any more, and a repetition is a new message.
    pub(crate) fn on_restart(&mut self) {
        self.restarted = true;
        for sent in self.sent.iter_mut().filter(|sent| sent.ephemeral) {
            sent.stamp = None;
            sent.answered_as_new = false;
        }
    }

    /// One message has one place, one place has one message.
    fn place(&mut self, number: u64, stamp: Stamp) {
        let sent = &mut self.sent[number as usize];
        let known = *sent.stamp.get_or_insert(stamp);
        assert_eq!(known, stamp, "message {number} is stored twice: {sent:?}");
        assert_eq!(stamp.position.offset == 0, sent.ephemeral, "message {number}: {sent:?}");
        Self::copy_is_true(sent);
        let (topic, message_id) = (sent.topic.clone(), stamp.message_id);
        let same_id = *self.message_ids.entry(message_id).or_insert(number);
        assert_eq!(
            same_id, number,
            "one message id for two messages: {:?}, {:?}",
            self.sent[same_id as usize], self.sent[number as usize]
        );
        if stamp.position.offset != 0 {
            self.put(topic, number, stamp.position);
        }
    }

    /// One place has one message.
    fn put(&mut self, topic: String, number: u64, place: Position) {
        let log = (topic, place.epoch);
        assert!(!self.lost.contains(&log), "{log:?} was lost, and is there again");
        let there = *self.places.entry(log).or_default().entry(place.offset).or_insert(number);
        assert_eq!(there, number, "one place for two messages: {place:?}, {:?}", self.sent[number as usize]);
    }

    /// Topic, epoch and newest offset of all messages that somebody has seen or been answered for, and that are kept.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        let newest = |places: &BTreeMap<u64, u64>| places.keys().next_back().copied().unwrap_or(0);
        self.places.iter().map(move |((topic, epoch), places)| (topic.as_str(), *epoch, newest(places)))
    }

    fn at(&self, topic: &str, epoch: u64, offset: u64) -> Option<u64> {
        self.places.get(&(topic.to_owned(), epoch))?.get(&offset).copied()
    }

    /// The newest offset that anybody has seen.
    pub(crate) fn newest(&self, topic: &str, epoch: u64) -> u64 {
        let places = self.places.get(&(topic.to_owned(), epoch));
        places.and_then(|places| places.keys().next_back()).copied().unwrap_or(0)
    }

    /// Whether the message's own ttl had passed by then.
    pub(crate) fn is_dead(&self, number: u64, at_ms: u64) -> bool {
        let sent = self.message(number);
        let Some(stamp) = sent.stamp else { return false };
        sent.ttl_seconds > 0 && mono_of_unix(stamp.timestamp_ms) + u64::from(sent.ttl_seconds) * 1000 <= at_ms
    }

    /// Whether the message was too old for its topic by then.
    fn is_old(&self, topic: &str, number: u64, at_ms: u64) -> bool {
        let sent = self.message(number);
        let Some(stamp) = sent.stamp.or(sent.copy) else { return false };
        let ttl_ms = self.namespace(topic).map_or(self.settings.inbox.ttl_ms, |namespace| namespace.history_ttl_ms);
        mono_of_unix(stamp.timestamp_ms) + ttl_ms <= at_ms
    }

    /// Whether the place surely held a message that was alive then.
    fn is_alive(&self, topic: &str, epoch: u64, offset: u64, at_ms: u64) -> bool {
        match self.at(topic, epoch, offset) {
            Some(number) => !self.is_dead(number, at_ms) && !self.is_old(topic, number, at_ms),
            None => !self.ttls && !self.ages,
        }
    }

    // ------------------------------------------------------------ acknowledgements

    /// The device may have acknowledged up to here, or is new.
    pub(crate) fn acked(&mut self, user: &str, device: &str, offset: u64) {
        let forgets = self.forgets_devices();
        let inbox = self.acks.entry(user.to_owned()).or_default();
        let acked = inbox.devices.entry(device.to_owned()).or_default();
        *acked = offset.max(*acked);
        let acked = || inbox.devices.values().copied();
        // A device that was forgotten is not waited for.
        let everybody = match forgets || inbox.devices.len() > self.settings.inbox.devices_max {
            true => acked().max(),
            false => acked().min(),
        };
        let everybody = everybody.unwrap_or(0);
        inbox.max = inbox.max.max(everybody);
    }

    /// The device says that it has everything up to here; one that is new may never get so far as to be known.
    pub(crate) fn resumes(&mut self, user: &str, device: &str, offset: u64) {
        if self.acks.get(user).is_some_and(|inbox| inbox.devices.contains_key(device)) {
            self.acked(user, device, offset);
        }
    }

    /// Whether a device that is away is forgotten for its age, and an inbox that no device knows with it.
    pub(crate) fn forgets_devices(&self) -> bool {
        self.settings.inbox.device_ttl_ms < JUMP_MS
    }

    /// What lies up to here may have been acknowledged by everybody.
    pub(crate) fn acked_max(&self, topic: &str) -> u64 {
        // A device passes the copies of its own messages without an Ack.
        if self.settings.inbox.copy_to_own_devices && topic.starts_with('@') {
            return u64::MAX / 2;
        }
        topic.strip_prefix('@').and_then(|user| self.acks.get(user)).map_or(0, |inbox| inbox.max)
    }

    // ------------------------------------------------------------ lives of the node

    /// The node was killed, and everything that it kept is lost. What it has said is judged by what is known; from now on every
    /// message may be stored again, in logs of other epochs.
    pub(crate) fn restart(&mut self) {
        self.judge();
        self.gaps.clear();
        self.recoveries.clear();
        self.listings.clear();
        self.lost.extend(std::mem::take(&mut self.places).into_keys());
        self.newest.clear();
        self.acks.clear();
        for sent in &mut self.sent {
            sent.stamp = None;
            sent.copy = None;
            sent.devices.clear();
            sent.answered_as_new = false;
            sent.connections.clear();
        }
        self.before = self.counts;
        self.counts.restarts += 1;
    }

    /// What has happened since the node was started: published, repetitions, denied, dropped.
    pub(crate) fn since_start(&self) -> Counts {
        let (now, before) = (&self.counts, &self.before);
        Counts {
            published: now.published - before.published,
            repetitions: now.repetitions - before.repetitions,
            denied: now.denied - before.denied,
            dropped: now.dropped - before.dropped,
            ..*now
        }
    }

    // ------------------------------------------------------------ claims

    pub(crate) fn gap(&mut self, gap: Gap) {
        match self.namespace(&gap.topic) {
            Some(namespace) if namespace.history_size == 0 => self.counts.dropped += gap.to - gap.from,
            _ => self.gaps.push(gap),
        }
    }

    pub(crate) fn recovery(&mut self, recovery: Recovery) {
        match recovery.recovered {
            true => self.counts.recovered += 1,
            false => self.counts.not_recovered += 1,
        }
        self.recoveries.push(recovery);
    }

    pub(crate) fn listing(&mut self, listing: Listing) {
        self.counts.listings += 1;
        self.counts.more += u64::from(listing.more);
        if let Some(since) = listing.since {
            let Listing { newest, recovered, answered_ms: at_ms, acked_max, .. } = listing;
            let topic = listing.topic.clone();
            self.recovery(Recovery { topic, since, newest, recovered, at_ms, acked_max });
        }
        self.newest.insert(listing.topic.clone(), listing.newest);
        self.listings.push(listing);
    }

    /// Messages that inboxes have stored: by what History said last, and by what was seen of logs before that.
    pub(crate) fn stored_in_inboxes(&self) -> u64 {
        let now = self.newest.iter().filter(|(topic, _)| topic.starts_with('@'));
        let before = self.places.iter().filter(|((topic, epoch), _)| {
            topic.starts_with('@') && self.newest.get(topic).is_none_or(|newest| newest.epoch != *epoch)
        });
        let now: u64 = now.map(|(_, newest)| newest.offset).sum();
        now + before.filter_map(|(_, places)| places.keys().next_back()).sum::<u64>()
    }

    /// Messages to inboxes that were sent, and of which nobody knows whether they were stored.
    pub(crate) fn unseen_in_inboxes(&self) -> u64 {
        let is_unseen = |sent: &&Sent| {
            sent.topic.starts_with('@') && sent.stamp.is_none() && !sent.ephemeral && !sent.connections.is_empty()
        };
        let is_copy_unseen =
            |sent: &&Sent| sent.topic.starts_with('@') && sent.copy.is_none() && !sent.connections.is_empty();
        let copies =
            if self.settings.inbox.copy_to_own_devices { self.sent.iter().filter(is_copy_unseen).count() } else { 0 };
        (self.sent.iter().filter(is_unseen).count() + copies) as u64
    }

    /// Messages that were sent at least once.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Everybody has been heard.
    pub(crate) fn judge(&mut self) {
        for gap in &self.gaps {
            for offset in gap.from..gap.to {
                self.may_be_missing(gap, offset);
            }
        }
        for recovery in &self.recoveries {
            self.judge_recovery(recovery);
        }
        for listing in &self.listings {
            self.judge_listing(listing);
        }
        self.counts.with_ttl +=
            (0..self.sent.len() as u64).filter(|number| self.is_dead(*number, u64::MAX)).count() as u64;
    }

    fn may_be_missing(&self, gap: &Gap, offset: u64) {
        let echo = self.namespace(&gap.topic).is_none_or(|namespace| namespace.echo);
        let is_inbox = gap.topic.starts_with('@');
        if is_inbox && offset + self.kept_max(&gap.topic) <= self.newest(&gap.topic, gap.epoch) {
            return;
        }
        let copies = is_inbox && self.settings.inbox.copy_to_own_devices;
        let excused = match self.at(&gap.topic, gap.epoch, offset) {
            Some(number) if is_inbox && self.is_old(&gap.topic, number, gap.at_ms) => true,
            Some(number) if self.is_copy(&gap.topic, number) => self.message(number).devices.contains(&gap.device),
            Some(number) => {
                self.is_dead(number, gap.at_ms) || (!echo && self.message(number).connections.contains(&gap.connection))
            }
            None => self.ttls || !echo || copies || (is_inbox && self.ages),
        };
        let missing = self.at(&gap.topic, gap.epoch, offset).map(|number| self.message(number));
        assert!(excused, "{} was not brought offset {offset}: {gap:?}, {missing:?}", gap.device);
    }

    fn judge_recovery(&self, recovery: &Recovery) {
        let Recovery { topic, since, newest, recovered, at_ms, acked_max } = recovery;
        let follows = since.epoch == newest.epoch && since.offset <= newest.offset;
        let kept_max = self.kept_max(topic);
        if *recovered {
            assert!(follows, "another log cannot be reached: {recovery:?}");
            let alive = (since.offset + 1..=newest.offset).filter(|o| self.is_alive(topic, since.epoch, *o, *at_ms));
            // Copies of what the device has sent itself need not be held for it.
            let copies = self.settings.inbox.copy_to_own_devices && topic.starts_with('@');
            let is_needed = |offset: &u64| {
                !copies || self.at(topic, since.epoch, *offset).is_some_and(|number| !self.is_copy(topic, number))
            };
            let alive = alive.filter(is_needed).count() as u64;
            assert!(alive <= kept_max, "a log of {kept_max} does not hold {alive}: {recovery:?}");
        } else if follows && newest.offset - since.offset <= kept_max && since.offset >= *acked_max {
            let whole = (since.offset + 1..=newest.offset)
                .map(|offset| self.at(topic, since.epoch, offset))
                .all(|number| number.is_some_and(|number| self.is_kept(topic, number, *at_ms)));
            // A device that was new when the node ended may not be known: its messages were acknowledged without it.
            let is_unknown = self.restarted && topic.starts_with('@');
            assert!(!whole || is_unknown || self.vanishes_in_its_epoch(topic), "nothing was lost: {recovery:?}");
        }
    }

    /// Whether nothing but an Ack can have taken the message out of its log by then.
    fn is_kept(&self, topic: &str, number: u64, at_ms: u64) -> bool {
        self.message(number).ttl_seconds == 0 && !self.is_old(topic, number, at_ms)
    }

    /// Whether what such a room held is gone when everybody has left, and its offsets go on.
    fn vanishes_in_its_epoch(&self, topic: &str) -> bool {
        self.settings.engine != Engine::Memory && self.namespace(topic).is_some_and(|n| n.vanish_when_empty)
    }

    fn judge_listing(&self, listing: &Listing) {
        let Listing { topic, since, before, limit, newest, messages, more, recovered, .. } = listing;
        for (_, number) in messages {
            assert!(!self.is_dead(*number, listing.asked_ms), "message {number} had expired: {listing:?}");
        }
        if *limit == 0 {
            assert!(messages.is_empty(), "{listing:?}");
            assert!(!more, "{listing:?}");
            return;
        }
        let listed = |offset: u64| messages.iter().any(|(known, _)| *known == offset);
        let alive = |offset: &u64| self.is_alive(topic, newest.epoch, *offset, listing.answered_ms);
        let kept_from = listing.acked_max.max(newest.offset.saturating_sub(self.kept_max(topic)));
        let first = messages.first().map_or(newest.offset, |(offset, _)| offset - 1);
        let kept_from = if self.vanishes_in_its_epoch(topic) { kept_from.max(first) } else { kept_from };
        let Some(since) = since else {
            let is_reached = before.is_none_or(|before| before.epoch == newest.epoch);
            assert_eq!(*recovered, is_reached, "{listing:?}");
            if !is_reached {
                return assert!(messages.is_empty() && !more, "{listing:?}");
            }
            let end = before.map_or(newest.offset, |before| newest.offset.min(before.offset.saturating_sub(1)));
            assert!(messages.iter().all(|(offset, _)| *offset <= end), "{listing:?}");
            assert!(!more || messages.len() == *limit as usize, "the list could be longer: {listing:?}");
            let mut newer = 0;
            for offset in (kept_from + 1..=end).rev() {
                if newer == *limit {
                    break;
                }
                assert!(!alive(&offset) || listed(offset), "offset {offset} is not listed: {listing:?}");
                let place = self.at(topic, newest.epoch, offset);
                // What had expired does not count against the limit.
                let counts = place.is_none_or(|number| !self.is_dead(number, listing.asked_ms));
                newer += u32::from(counts);
            }
            return;
        };
        let start = if *recovered { since.offset } else { 0 };
        assert!(messages.iter().all(|(offset, _)| *offset > start), "{listing:?}");
        assert!(!more || messages.len() == *limit as usize, "the list could be longer: {listing:?}");
        let end = if *more { messages.last().map_or(0, |(offset, _)| *offset) } else { newest.offset };
        for offset in (start.max(kept_from) + 1..=end).filter(alive) {
            assert!(listed(offset), "offset {offset} is not listed: {listing:?}");
        }
    }

    /// Panics unless a device that was first told of its inbox at `first` has had everything since.
    pub(crate) fn completeness(&self, user: &str, device: &str, first: Position, received: &BTreeMap<(u64, u64), u64>) {
        let topic = format!("@{user}");
        let newest = self.newest(&topic, first.epoch);
        let evicted_to = newest.saturating_sub(self.kept_max(&topic));
        for offset in first.offset.max(evicted_to) + 1..=newest {
            let Some(number) = self.at(&topic, first.epoch, offset) else { continue };
            let sent = self.message(number);
            let excused = self.ages || sent.ttl_seconds > 0 || (sent.topic != topic && sent.devices.contains(device));
            assert!(
                excused || received.contains_key(&(first.epoch, offset)),
                "{device} of {user} never got message {number} at offset {offset} of {newest}, known since {first:?}"
            );
        }
        let times = |epoch: u64| {
            let places = self.places.get(&(topic.clone(), epoch)).into_iter().flatten();
            places.filter_map(|(_, number)| self.message(*number).stamp).map(|stamp| mono_of_unix(stamp.timestamp_ms))
        };
        if self.forgets_devices() {
            return;
        }
        let began_ms = times(first.epoch).min().unwrap_or(u64::MAX);
        for (_, epoch) in self.places.keys().filter(|(known, epoch)| *known == topic && *epoch != first.epoch) {
            assert!(times(*epoch).all(|ms| ms <= began_ms), "the inbox of {user}, who was there, was made anew");
        }
    }
}
