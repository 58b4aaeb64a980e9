//! The five messages, as serde sees them: borrowed where a format allows it. Every format carries all their fields.

use std::borrow::Cow;
use std::fmt::Debug;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringgate_core::wire::Kind;
use serde::de::{IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One of the messages.
pub(crate) trait Message {
    const NAME: &'static str;
    const KIND: Kind;
    type Whole<'a>: Serialize + Deserialize<'a> + Digest + Debug;
    /// Two fields; the rest is skipped, as cheaply as the format can.
    type Head<'a>: Deserialize<'a> + Digest;
    fn sample() -> Self::Whole<'static>;
}

/// Touches every field once; equal for equal messages.
pub(crate) trait Digest {
    fn digest(&self) -> u64;
}

/// Bytes: base64 in JSON, bytes elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Payload<'a>(pub(crate) Cow<'a, [u8]>);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Payload<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(PayloadVisitor)
        } else {
            deserializer.deserialize_bytes(PayloadVisitor)
        }
    }
}

struct PayloadVisitor;

impl<'de> Visitor<'de> for PayloadVisitor {
    type Value = Payload<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes, or base64")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        STANDARD.decode(text).map(|bytes| Payload(bytes.into())).map_err(E::custom)
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Payload(bytes.into()))
    }
}

pub(crate) struct PingMessage;
pub(crate) struct PublishMessage;
pub(crate) struct ChatMessage;
pub(crate) struct PresenceMessage;
pub(crate) struct HistoryMessage;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ping {}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Publish<'a> {
    pub(crate) request: u32,
    #[serde(borrow)]
    pub(crate) topic: Cow<'a, str>,
    pub(crate) id_high: u64,
    pub(crate) id_low: u64,
    #[serde(borrow)]
    pub(crate) payload: Payload<'a>,
    pub(crate) ephemeral: bool,
    pub(crate) ttl_seconds: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Chat<'a> {
    #[serde(borrow)]
    pub(crate) topic: Cow<'a, str>,
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    pub(crate) message_id: u64,
    pub(crate) timestamp_ms: u64,
    #[serde(borrow)]
    pub(crate) sender: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) payload: Payload<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member<'a> {
    #[serde(borrow)]
    pub(crate) user: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) device: Cow<'a, str>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Presence<'a> {
    pub(crate) request: u32,
    #[serde(borrow)]
    pub(crate) room: Cow<'a, str>,
    pub(crate) count: u32,
    #[serde(borrow)]
    pub(crate) members: Vec<Member<'a>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct History<'a> {
    pub(crate) request: u32,
    #[serde(borrow)]
    pub(crate) topic: Cow<'a, str>,
    pub(crate) epoch: u64,
    pub(crate) offset: u64,
    #[serde(borrow)]
    pub(crate) messages: Vec<Chat<'a>>,
    pub(crate) more: bool,
    pub(crate) recovered: bool,
}

/// Skipped by serde; named because MessagePack's arrays go by position.
type Skipped = IgnoredAny;

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is skipped is not read")]
pub(crate) struct PublishHead<'a> {
    request: u32,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    id_high: Skipped,
    id_low: Skipped,
    payload: Skipped,
    ephemeral: Skipped,
    ttl_seconds: Skipped,
    #[serde(default)]
    trace: Skipped,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is skipped is not read")]
pub(crate) struct ChatHead<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    epoch: Skipped,
    offset: u64,
    message_id: Skipped,
    timestamp_ms: Skipped,
    sender: Skipped,
    payload: Skipped,
    #[serde(default)]
    trace: Skipped,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is skipped is not read")]
pub(crate) struct PresenceHead {
    request: u32,
    room: Skipped,
    count: u32,
    members: Skipped,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "what is skipped is not read")]
pub(crate) struct HistoryHead {
    request: u32,
    topic: Skipped,
    epoch: Skipped,
    offset: u64,
    messages: Skipped,
    more: Skipped,
    recovered: Skipped,
}

/// Adds up what a message holds; used for every format.
#[derive(Default)]
pub(crate) struct Sum(pub(crate) u64);

impl Sum {
    pub(crate) fn number(self, number: impl Into<u64>) -> Self {
        Sum(self.0.wrapping_add(number.into()))
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let last = bytes.last().copied().map_or(0, u64::from);
        Sum(self.0.wrapping_add(bytes.len() as u64 + last))
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }
}

impl Digest for Ping {
    fn digest(&self) -> u64 {
        0
    }
}

impl Digest for Publish<'_> {
    fn digest(&self) -> u64 {
        let sum = Sum::default().number(self.request).text(&self.topic).number(self.id_high).number(self.id_low);
        let sum = sum.bytes(&self.payload.0).number(self.ephemeral).number(self.ttl_seconds);
        sum.text(self.trace.as_deref().unwrap_or_default()).0
    }
}

impl Digest for Chat<'_> {
    fn digest(&self) -> u64 {
        let sum = Sum::default().text(&self.topic).number(self.epoch).number(self.offset).number(self.message_id);
        let sum = sum.number(self.timestamp_ms).text(&self.sender).bytes(&self.payload.0);
        sum.text(self.trace.as_deref().unwrap_or_default()).0
    }
}

impl Digest for Presence<'_> {
    fn digest(&self) -> u64 {
        let sum = Sum::default().number(self.request).text(&self.room).number(self.count);
        self.members.iter().fold(sum, |sum, member| sum.text(&member.user).text(&member.device)).0
    }
}

impl Digest for History<'_> {
    fn digest(&self) -> u64 {
        let sum = Sum::default().number(self.request).text(&self.topic).number(self.epoch).number(self.offset);
        let sum = self.messages.iter().fold(sum, |sum, message| sum.number(message.digest()));
        sum.number(self.more).number(self.recovered).0
    }
}

impl Digest for PublishHead<'_> {
    fn digest(&self) -> u64 {
        Sum::default().number(self.request).text(&self.topic).0
    }
}

impl Digest for ChatHead<'_> {
    fn digest(&self) -> u64 {
        Sum::default().text(&self.topic).number(self.offset).0
    }
}

impl Digest for PresenceHead {
    fn digest(&self) -> u64 {
        Sum::default().number(self.request).number(self.count).0
    }
}

impl Digest for HistoryHead {
    fn digest(&self) -> u64 {
        Sum::default().number(self.request).number(self.offset).0
    }
}
