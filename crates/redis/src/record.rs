//! What stands in Redis and in its channels, as bytes. All numbers are big-endian.
//!
//! A message (field `m` of a stream's entry), version 1:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 1 | bits: 1 it leaves by a ttl of its own, 2 it has an origin, 4 it has a dedup key |
//! | 8 | when it leaves, in Unix milliseconds |
//! | 16 | origin: run and session, if it has one |
//! | 26 | dedup key, if it has one |
//! | rest | the frame |
//!
//! News in a topic's channel begin with a letter and the run of the node that says it (8 bytes): `S`, then the id of the entry as text,
//! a blank, and the message: it was stored. `R`, session (8 bytes), frame: relayed. `C`: changed.
//! `D`, code of the reason (2 bytes), device: sessions of the user end, those of one device or, where it is empty, all.
//! News in a node's channel: `E`, then fence, shard and bytes of the user id as text, each with a blank behind it, user id and device: evict.
//! `P` and a number as text: the node's own probe.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ringgate_core::close::CloseReason;
use ringgate_core::id::{Durability, Position, ShardId, Stamp};
use ringgate_core::keyed::Keyed;
use ringgate_core::shard::{Fence, Origin, Record, StoredMessage};
use ringgate_core::topics::{Answered, DedupKey};

const VERSION: u8 = 1;
const OWN_TTL: u8 = 1;
const HAS_ORIGIN: u8 = 2;
const HAS_KEY: u8 = 4;

/// The message of a record.
pub(crate) fn message(record: &Record) -> Bytes {
    let mut out = BytesMut::with_capacity(10 + 16 + DedupKey::BYTES + record.frame.len());
    let bits = [(record.own_ttl, OWN_TTL), (record.origin.is_some(), HAS_ORIGIN), (record.key.is_some(), HAS_KEY)];
    out.put_u8(VERSION);
    out.put_u8(bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum());
    out.put_u64(record.expires_unix_ms);
    if let Some(Origin { run, session }) = record.origin {
        out.put_u64(run);
        out.put_u64(session);
    }
    if let Some(key) = record.key {
        out.put_slice(&key.to_bytes());
    }
    out.put_slice(&record.frame);
    out.freeze()
}

/// Takes fields off the front.
struct Fields(Bytes);

impl Fields {
    fn take(&mut self, count: usize) -> Option<Bytes> {
        (self.0.len() >= count).then(|| self.0.split_to(count))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The text before the next blank, as a number.
    fn word(&mut self) -> Option<u64> {
        let length = self.0.iter().take(24).position(|byte| *byte == b' ')?;
        let word = self.take(length + 1)?;
        std::str::from_utf8(word.get(..length)?).ok()?.parse().ok()
    }
}

/// The message of an entry; none if it is of another version or damaged. `hash` is that of the nodes' seed.
pub(crate) fn stored(offset: u64, message: Bytes, hash: &Keyed) -> Option<StoredMessage> {
    let mut fields = Fields(message);
    let [version, bits] = fields.array()?;
    if version != VERSION {
        return None;
    }
    let expires_unix_ms = fields.number()?;
    let origin =
        if bits & HAS_ORIGIN == 0 { None } else { Some(Origin { run: fields.number()?, session: fields.number()? }) };
    let key = if bits & HAS_KEY == 0 { None } else { Some(DedupKey::from_bytes(hash, &fields.array()?)) };
    Some(StoredMessage { offset, frame: fields.0, expires_unix_ms, own_ttl: bits & OWN_TTL != 0, origin, key })
}

/// The place of a stream's id.
pub(crate) fn position(id: &[u8]) -> Option<Position> {
    let (epoch, sequence) = std::str::from_utf8(id).ok()?.split_once('-')?;
    let offset = sequence.parse::<u64>().ok()?.checked_add(1)?;
    Some(Position { epoch: epoch.parse().ok()?, offset })
}

/// An answer as the claim of its client message id has it, but for the place: message id, timestamp, durability.
pub(crate) fn answer_tail(stamp: Stamp, durability: Durability) -> String {
    format!("{} {} {}", stamp.message_id, stamp.timestamp_ms, durability as u8)
}

/// An answer with its place: `<id> <tail>`.
pub(crate) fn answered(text: &str) -> Option<Answered> {
    let mut words = text.split(' ');
    let position = position(words.next()?.as_bytes())?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let (message_id, timestamp_ms) = (number()?, number()?);
    let durability = match number()? {
        0 => Durability::Ephemeral,
        1 => Durability::Memory,
        _ => Durability::Durable,
    };
    Some(Answered { stamp: Stamp { position, message_id, timestamp_ms }, durability })
}

/// What begins news of this node in a topic's channel.
pub(crate) fn news_head(letter: u8, run: u64) -> [u8; 9] {
    let mut head = [letter; 9];
    if let Some(place) = head.last_chunk_mut() {
        *place = run.to_be_bytes();
    }
    head
}

/// A message in no log, for a topic's channel.
pub(crate) fn relay(origin: Origin, frame: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(17 + frame.len());
    out.put_slice(&news_head(b'R', origin.run));
    out.put_u64(origin.session);
    out.put_slice(frame);
    out.freeze()
}

/// A user's sessions are to end, for the inbox's channel.
pub(crate) fn disconnect(run: u64, device: Option<&str>, reason: CloseReason) -> Bytes {
    let device = device.unwrap_or_default();
    let mut out = BytesMut::with_capacity(11 + device.len());
    out.put_slice(&news_head(b'D', run));
    out.put_u16(reason.code());
    out.put_slice(device.as_bytes());
    out.freeze()
}

/// A member of a room, as Redis has it.
pub(crate) fn member(user: &str, device: &str) -> String {
    format!("{} {user}{device}", user.len())
}

/// User and device of a member; none if it is damaged.
pub(crate) fn member_of(text: &str) -> Option<(Arc<str>, Arc<str>)> {
    let (bytes, names) = text.split_once(' ')?;
    let (user, device) = names.split_at_checked(bytes.parse().ok()?)?;
    Some((user.into(), device.into()))
}

/// News of a topic.
#[derive(Debug)]
pub(crate) enum TopicNews {
    Stored { run: u64, epoch: u64, message: Box<StoredMessage> },
    Relayed { origin: Origin, frame: Bytes },
    Changed { run: u64 },
    Disconnect { run: u64, device: Option<Arc<str>>, reason: CloseReason },
}

/// None if it is of another version or damaged.
pub(crate) fn topic_news(payload: Bytes, hash: &Keyed) -> Option<TopicNews> {
    let mut fields = Fields(payload);
    let [letter] = fields.array()?;
    let run = fields.number()?;
    match letter {
        b'S' => {
            let length = fields.0.iter().take(48).position(|byte| *byte == b' ')?;
            let id = fields.take(length + 1)?;
            let Position { epoch, offset } = position(id.get(..length)?)?;
            Some(TopicNews::Stored { run, epoch, message: Box::new(stored(offset, fields.0, hash)?) })
        }
        b'R' => Some(TopicNews::Relayed { origin: Origin { run, session: fields.number()? }, frame: fields.0 }),
        b'C' => Some(TopicNews::Changed { run }),
        b'D' => {
            let reason = CloseReason::from_code(fields.array().map(u16::from_be_bytes)?)?;
            let device = std::str::from_utf8(&fields.0).ok()?;
            Some(TopicNews::Disconnect { run, device: (!device.is_empty()).then(|| device.into()), reason })
        }
        _ => None,
    }
}

/// News for one node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NodeNews {
    Evict { shard: ShardId, user: Arc<str>, device: Arc<str>, fence: Fence },
    Probe(u64),
}

/// None if it is of another version or damaged.
pub(crate) fn node_news(payload: Bytes) -> Option<NodeNews> {
    let mut fields = Fields(payload);
    let [letter] = fields.array()?;
    match letter {
        b'E' => {
            let fence = fields.word()?;
            let shard = ShardId(u16::try_from(fields.word()?).ok()?);
            let user_bytes = usize::try_from(fields.word()?).ok()?;
            let user = fields.take(user_bytes)?;
            let (user, device) = (std::str::from_utf8(&user).ok()?, std::str::from_utf8(&fields.0).ok()?);
            Some(NodeNews::Evict { shard, user: user.into(), device: device.into(), fence })
        }
        b'P' => std::str::from_utf8(&fields.0).ok()?.parse().ok().map(NodeNews::Probe),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ringgate_core::id::ClientMessageId;
    use ringgate_core::keyed::keyed;

    use super::*;

    fn record() -> Record {
        let hash = keyed(7);
        Record {
            topic: "@bob".into(),
            position: Position::default(),
            frame: Bytes::from_static(b"frame"),
            expires_unix_ms: 1_800_000_000_000,
            own_ttl: true,
            origin: Some(Origin { run: u64::MAX, session: 1 << 60 }),
            key: Some(DedupKey::new(&hash, 9, 10, ClientMessageId { high: 11, low: 12 })),
        }
    }

    #[test]
    fn message_is_written_then_it_is_read_back_as_it_was() {
        let record = record();
        let read = stored(5, message(&record), &keyed(7)).expect("a message");
        assert_eq!((read.offset, &read.frame[..], read.expires_unix_ms), (5, &b"frame"[..], 1_800_000_000_000));
        assert_eq!((read.own_ttl, read.origin), (true, record.origin));
        assert_eq!(read.key.map(|key| key.to_bytes()), record.key.map(|key| key.to_bytes()));
        let plain = Record { own_ttl: false, origin: None, key: None, ..record };
        let read = stored(6, message(&plain), &keyed(7)).expect("a message");
        assert_eq!(
            (read.own_ttl, read.origin, read.key.is_none(), &read.frame[..]),
            (false, None, true, &b"frame"[..])
        );
    }

    #[test]
    fn message_is_cut_off_or_of_another_version_then_it_is_none() {
        let whole = message(&record());
        let head = whole.len() - b"frame".len();
        assert!((0..head).all(|length| stored(1, whole.slice(..length), &keyed(7)).is_none()));
        let other = [&[2], &whole[1..]].concat();
        assert!(stored(1, other.into(), &keyed(7)).is_none());
    }

    #[test]
    fn news_are_written_then_they_are_read_back() {
        let hash = keyed(7);
        let payload = [&news_head(b'S', 3)[..], b"1764000000123-41 ", &message(&record())].concat();
        match topic_news(payload.into(), &hash) {
            Some(TopicNews::Stored { run: 3, epoch: 1_764_000_000_123, message }) => assert_eq!(message.offset, 42),
            other => panic!("{other:?}"),
        }
        let origin = Origin { run: 3, session: 4 };
        match topic_news(relay(origin, b"frame"), &hash) {
            Some(TopicNews::Relayed { origin: read, frame }) => assert_eq!((read, &frame[..]), (origin, &b"frame"[..])),
            other => panic!("{other:?}"),
        }
        for wanted in [None, Some("phone")] {
            match topic_news(disconnect(3, wanted, CloseReason::Expired), &hash) {
                Some(TopicNews::Disconnect { run: 3, device, reason: CloseReason::Expired }) => {
                    assert_eq!(device.as_deref(), wanted);
                }
                other => panic!("{other:?}"),
            }
        }
        let evict = node_news(Bytes::from_static(b"E1764000000123456 3 5 a b:cphone"));
        let (user, device) = ("a b:c".into(), "phone".into());
        assert_eq!(evict, Some(NodeNews::Evict { shard: ShardId(3), user, device, fence: 1_764_000_000_123_456 }));
        assert_eq!(node_news(Bytes::from_static(b"P77")), Some(NodeNews::Probe(77)));
        for damaged in [&b""[..], b"E1 2", b"E1 2 9 ab", b"E1 99999 1 ab", b"P", b"X"] {
            assert_eq!(node_news(Bytes::copy_from_slice(damaged)), None, "{damaged:?}");
        }
    }

    #[test]
    fn member_is_written_then_it_is_read_back() {
        let member = member_of(&member("a 1:b", "c d"));
        assert_eq!(member, Some(("a 1:b".into(), "c d".into())));
        assert_eq!((member_of("9 ab"), member_of("x ab"), member_of("")), (None, None, None));
    }

    #[test]
    fn answer_is_written_then_it_is_read_back() {
        let stamp = Stamp { position: Position { epoch: 8, offset: 3 }, message_id: u64::MAX, timestamp_ms: 17 };
        let text = format!("8-2 {}", answer_tail(stamp, Durability::Durable));
        assert_eq!(answered(&text), Some(Answered { stamp, durability: Durability::Durable }));
        assert_eq!(answered("8-2 1 2"), None);
    }
}
