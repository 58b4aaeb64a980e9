//! What the five messages hold: names, ids and times as long and as large as real ones.

use std::borrow::Cow;

use ringgate_core::wire::Kind;

use super::messages::*;
use crate::support::Random;

const ROOM: &str = "chat:general";
const NOW_MS: u64 = 1_800_000_000_000;

impl Message for PingMessage {
    const NAME: &'static str = "ping";
    const KIND: Kind = Kind::Ping;
    type Whole<'a> = Ping;
    type Head<'a> = Ping;

    fn sample() -> Ping {
        Ping {}
    }
}

impl Message for PublishMessage {
    const NAME: &'static str = "publish";
    const KIND: Kind = Kind::Publish;
    type Whole<'a> = Publish<'a>;
    type Head<'a> = PublishHead<'a>;

    fn sample() -> Publish<'static> {
        let mut random = Random::new(1);
        Publish {
            request: 4711,
            topic: "@user-123456".into(),
            id_high: random.next(),
            id_low: random.next(),
            payload: payload(&mut random, 24),
            ephemeral: true,
            ttl_seconds: 3600,
            trace: None,
        }
    }
}

impl Message for ChatMessage {
    const NAME: &'static str = "message";
    const KIND: Kind = Kind::Message;
    type Whole<'a> = Chat<'a>;
    type Head<'a> = ChatHead<'a>;

    fn sample() -> Chat<'static> {
        chat(&mut Random::new(2), 1)
    }
}

impl Message for PresenceMessage {
    const NAME: &'static str = "presence";
    const KIND: Kind = Kind::PresenceResult;
    type Whole<'a> = Presence<'a>;
    type Head<'a> = PresenceHead;

    fn sample() -> Presence<'static> {
        let mut random = Random::new(3);
        let members = (0..64).map(|number| Member {
            user: user(&mut random),
            device: Cow::Borrowed(["phone", "web", "desktop"][number % 3]),
        });
        Presence { request: 4712, room: ROOM.into(), count: 64, members: members.collect() }
    }
}

impl Message for HistoryMessage {
    const NAME: &'static str = "history";
    const KIND: Kind = Kind::HistoryResult;
    type Whole<'a> = History<'a>;
    type Head<'a> = HistoryHead;

    fn sample() -> History<'static> {
        let mut random = Random::new(4);
        let messages: Vec<_> = (1..=50).map(|number| chat(&mut random, number)).collect();
        History {
            request: 4713,
            topic: ROOM.into(),
            epoch: messages[0].epoch,
            offset: messages[49].offset,
            messages,
            more: true,
            recovered: true,
        }
    }
}

fn chat(random: &mut Random, number: u64) -> Chat<'static> {
    Chat {
        topic: ROOM.into(),
        epoch: NOW_MS / 1000,
        offset: 10_000 + number,
        message_id: NOW_MS << 22 | number,
        timestamp_ms: NOW_MS + number * 700,
        sender: user(random),
        payload: payload(random, 100),
        trace: None,
    }
}

fn user(random: &mut Random) -> Cow<'static, str> {
    format!("user-{:06}", random.below(1_000_000)).into()
}

fn payload(random: &mut Random, bytes: usize) -> Payload<'static> {
    Payload((0..bytes).map(|_| random.next() as u8).collect::<Vec<u8>>().into())
}
