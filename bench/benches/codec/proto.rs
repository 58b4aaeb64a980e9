//! Protobuf by prost: derived structs, strings and bytes owned, as prost decodes them from a slice.
//!
//! Ids are `fixed64`, for they are random or large; counters and times are varints. The structs are made before the
//! clock starts: only encoding is measured. Two fields are read with a struct of only those; prost skips the others.

use prost::Message as _;

use super::messages::*;
use super::serialized::framed;
use super::{Codec, body};

#[derive(Default)]
pub(crate) struct Protobuf;

/// From and to what the other formats carry.
pub(crate) trait Proto: Message {
    type Whole: prost::Message + Default;
    type Head: prost::Message + Default;
    fn make(sample: <Self as Message>::Whole<'static>) -> <Self as Proto>::Whole;
    fn unmake(whole: <Self as Proto>::Whole) -> <Self as Message>::Whole<'static>;
    fn sum(whole: &<Self as Proto>::Whole) -> u64;
    fn sum_head(head: &<Self as Proto>::Head) -> u64;
}

impl<M: Proto> Codec<M> for Protobuf {
    const NAME: &'static str = "Protobuf (prost)";
    type Input = <M as Proto>::Whole;

    fn prepare(sample: <M as Message>::Whole<'static>) -> Self::Input {
        M::make(sample)
    }

    fn encode(&mut self, input: &Self::Input, out: &mut Vec<u8>) {
        framed::<M>(out, |out| input.encode(out).expect("a vector grows"));
    }

    fn head(&mut self, frame: &[u8]) -> u64 {
        M::sum_head(&<M as Proto>::Head::decode(body(frame)).expect("our own Protobuf"))
    }

    fn whole(&mut self, frame: &[u8]) -> u64 {
        M::sum(&<M as Proto>::Whole::decode(body(frame)).expect("our own Protobuf"))
    }

    fn debug(&mut self, frame: &[u8]) -> String {
        format!("{:?}", M::unmake(<M as Proto>::Whole::decode(body(frame)).expect("our own Protobuf")))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoPing {}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoPublish {
    #[prost(uint32, tag = "1")]
    request: u32,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(fixed64, tag = "3")]
    id_high: u64,
    #[prost(fixed64, tag = "4")]
    id_low: u64,
    #[prost(bytes = "vec", tag = "5")]
    payload: Vec<u8>,
    #[prost(bool, tag = "6")]
    ephemeral: bool,
    #[prost(uint32, tag = "7")]
    ttl_seconds: u32,
    #[prost(string, optional, tag = "8")]
    trace: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoPublishHead {
    #[prost(uint32, tag = "1")]
    request: u32,
    #[prost(string, tag = "2")]
    topic: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoChat {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(fixed64, tag = "4")]
    message_id: u64,
    #[prost(uint64, tag = "5")]
    timestamp_ms: u64,
    #[prost(string, tag = "6")]
    sender: String,
    #[prost(bytes = "vec", tag = "7")]
    payload: Vec<u8>,
    #[prost(string, optional, tag = "8")]
    trace: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoChatHead {
    #[prost(string, tag = "1")]
    topic: String,
    #[prost(uint64, tag = "3")]
    offset: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoMember {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    device: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoPresence {
    #[prost(uint32, tag = "1")]
    request: u32,
    #[prost(string, tag = "2")]
    room: String,
    #[prost(uint32, tag = "3")]
    count: u32,
    #[prost(message, repeated, tag = "4")]
    members: Vec<ProtoMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoPresenceHead {
    #[prost(uint32, tag = "1")]
    request: u32,
    #[prost(uint32, tag = "3")]
    count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoHistory {
    #[prost(uint32, tag = "1")]
    request: u32,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(uint64, tag = "4")]
    offset: u64,
    #[prost(message, repeated, tag = "5")]
    messages: Vec<ProtoChat>,
    #[prost(bool, tag = "6")]
    more: bool,
    #[prost(bool, tag = "7")]
    recovered: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ProtoHistoryHead {
    #[prost(uint32, tag = "1")]
    request: u32,
    #[prost(uint64, tag = "4")]
    offset: u64,
}

impl Proto for PingMessage {
    type Whole = ProtoPing;
    type Head = ProtoPing;

    fn make(_: Ping) -> ProtoPing {
        ProtoPing {}
    }

    fn unmake(_: ProtoPing) -> Ping {
        Ping {}
    }

    fn sum(_: &ProtoPing) -> u64 {
        0
    }

    fn sum_head(_: &ProtoPing) -> u64 {
        0
    }
}

impl Proto for PublishMessage {
    type Whole = ProtoPublish;
    type Head = ProtoPublishHead;

    fn make(sample: Publish<'static>) -> ProtoPublish {
        let Publish { request, topic, id_high, id_low, payload, ephemeral, ttl_seconds, trace } = sample;
        let (topic, payload, trace) = (topic.into(), payload.0.into(), trace.map(Into::into));
        ProtoPublish { request, topic, id_high, id_low, payload, ephemeral, ttl_seconds, trace }
    }

    fn unmake(whole: ProtoPublish) -> Publish<'static> {
        let ProtoPublish { request, topic, id_high, id_low, payload, ephemeral, ttl_seconds, trace } = whole;
        let (topic, payload, trace) = (topic.into(), Payload(payload.into()), trace.map(Into::into));
        Publish { request, topic, id_high, id_low, payload, ephemeral, ttl_seconds, trace }
    }

    fn sum(whole: &ProtoPublish) -> u64 {
        let sum = Sum::default().number(whole.request).text(&whole.topic).number(whole.id_high).number(whole.id_low);
        let sum = sum.bytes(&whole.payload).number(whole.ephemeral).number(whole.ttl_seconds);
        sum.text(whole.trace.as_deref().unwrap_or_default()).0
    }

    fn sum_head(head: &ProtoPublishHead) -> u64 {
        Sum::default().number(head.request).text(&head.topic).0
    }
}

impl Proto for ChatMessage {
    type Whole = ProtoChat;
    type Head = ProtoChatHead;

    fn make(sample: Chat<'static>) -> ProtoChat {
        let Chat { topic, epoch, offset, message_id, timestamp_ms, sender, payload, trace } = sample;
        let (topic, sender, payload, trace) = (topic.into(), sender.into(), payload.0.into(), trace.map(Into::into));
        ProtoChat { topic, epoch, offset, message_id, timestamp_ms, sender, payload, trace }
    }

    fn unmake(whole: ProtoChat) -> Chat<'static> {
        let ProtoChat { topic, epoch, offset, message_id, timestamp_ms, sender, payload, trace } = whole;
        let (topic, sender) = (topic.into(), sender.into());
        let (payload, trace) = (Payload(payload.into()), trace.map(Into::into));
        Chat { topic, epoch, offset, message_id, timestamp_ms, sender, payload, trace }
    }

    fn sum(whole: &ProtoChat) -> u64 {
        let sum = Sum::default().text(&whole.topic).number(whole.epoch).number(whole.offset).number(whole.message_id);
        let sum = sum.number(whole.timestamp_ms).text(&whole.sender).bytes(&whole.payload);
        sum.text(whole.trace.as_deref().unwrap_or_default()).0
    }

    fn sum_head(head: &ProtoChatHead) -> u64 {
        Sum::default().text(&head.topic).number(head.offset).0
    }
}

impl Proto for PresenceMessage {
    type Whole = ProtoPresence;
    type Head = ProtoPresenceHead;

    fn make(Presence { request, room, count, members }: Presence<'static>) -> ProtoPresence {
        let member = |Member { user, device }| ProtoMember { user: Into::into(user), device: Into::into(device) };
        ProtoPresence { request, room: room.into(), count, members: members.into_iter().map(member).collect() }
    }

    fn unmake(ProtoPresence { request, room, count, members }: ProtoPresence) -> Presence<'static> {
        let member = |ProtoMember { user, device }| Member { user: user.into(), device: device.into() };
        Presence { request, room: room.into(), count, members: members.into_iter().map(member).collect() }
    }

    fn sum(whole: &ProtoPresence) -> u64 {
        let sum = Sum::default().number(whole.request).text(&whole.room).number(whole.count);
        whole.members.iter().fold(sum, |sum, member| sum.text(&member.user).text(&member.device)).0
    }

    fn sum_head(head: &ProtoPresenceHead) -> u64 {
        Sum::default().number(head.request).number(head.count).0
    }
}

impl Proto for HistoryMessage {
    type Whole = ProtoHistory;
    type Head = ProtoHistoryHead;

    fn make(sample: History<'static>) -> ProtoHistory {
        let History { request, topic, epoch, offset, messages, more, recovered } = sample;
        let messages = messages.into_iter().map(ChatMessage::make).collect();
        ProtoHistory { request, topic: topic.into(), epoch, offset, messages, more, recovered }
    }

    fn unmake(whole: ProtoHistory) -> History<'static> {
        let ProtoHistory { request, topic, epoch, offset, messages, more, recovered } = whole;
        let messages = messages.into_iter().map(ChatMessage::unmake).collect();
        History { request, topic: topic.into(), epoch, offset, messages, more, recovered }
    }

    fn sum(whole: &ProtoHistory) -> u64 {
        let sum = Sum::default().number(whole.request).text(&whole.topic).number(whole.epoch).number(whole.offset);
        let sum = whole.messages.iter().fold(sum, |sum, message| sum.number(ChatMessage::sum(message)));
        sum.number(whole.more).number(whole.recovered).0
    }

    fn sum_head(head: &ProtoHistoryHead) -> u64 {
        Sum::default().number(head.request).number(head.offset).0
    }
}
