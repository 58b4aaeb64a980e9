//! A frame of the gateway becomes a text. The structs have the fields of the schema, in its order; what is absent in a frame is left out.

use ringgate_core::wire::{self, RawFrame, ServerFrame, schema};
use serde::Serialize;

use super::number::{Digits, Id, Place};
use super::payload::Base64;

/// A gateway's frame as an object of JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Push<'a> {
    Connected {
        request: u32,
        version: u16,
        session: Digits,
        node: &'a str,
        user: &'a str,
        ping_interval_ms: u32,
        pong_timeout_ms: u32,
        message_bytes_max: u32,
        rooms_max: u16,
        requests_in_flight_max: u16,
        expires_at: Digits,
        inbox_recovered: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        inbox: Option<Place>,
        server_time_ms: Digits,
        expires_in_ms: Digits,
        dedup_window_ms: u32,
        frames_rate: u32,
        frames_burst: u32,
        bytes_rate: u32,
        bytes_burst: u32,
        receive_window: u32,
    },
    Ping {},
    Pong {},
    Published {
        request: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_message_id: Option<Id>,
        stamp: Stamp,
        durability: Durability,
        duplicate: bool,
    },
    Error {
        request: u32,
        code: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        temporary: bool,
        retry_after_ms: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
    },
    Message(Message<'a>),
    Subscribed {
        request: u32,
        room: &'a str,
        recovered: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<Place>,
        #[serde(skip_serializing_if = "Option::is_none")]
        start: Option<Place>,
    },
    Unsubscribed {
        request: u32,
        room: &'a str,
        code: u16,
    },
    PresenceResult {
        request: u32,
        room: &'a str,
        count: u32,
        members: Vec<Member<'a>>,
    },
    HistoryResult {
        request: u32,
        topic: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<Place>,
        messages: Vec<Message<'a>>,
        more: bool,
        recovered: bool,
    },
    Refreshed {
        request: u32,
        expires_at: Digits,
        expires_in_ms: Digits,
    },
    Joined(MemberEvent<'a>),
    Left(MemberEvent<'a>),
    Goodbye {
        code: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        reconnect: bool,
        after_ms: u32,
    },
}

#[derive(Serialize)]
struct Stamp {
    position: Place,
    message_id: Digits,
    timestamp_ms: Digits,
}

impl From<ringgate_core::id::Stamp> for Stamp {
    fn from(stamp: ringgate_core::id::Stamp) -> Stamp {
        Stamp {
            position: stamp.position.into(),
            message_id: Digits(stamp.message_id),
            timestamp_ms: Digits(stamp.timestamp_ms),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Durability {
    Ephemeral,
    Memory,
    Durable,
}

impl Durability {
    fn of(number: u8) -> Durability {
        match schema::Durability(number) {
            schema::Durability::Durable => Durability::Durable,
            schema::Durability::Memory => Durability::Memory,
            _ => Durability::Ephemeral,
        }
    }
}

/// The payload is `payload` where its bytes are UTF-8, and `payload_base64` where they are not.
#[derive(Serialize)]
struct Message<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stamp: Option<Stamp>,
    sender: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<Base64<&'a [u8]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_to: Option<&'a str>,
}

impl<'a> From<schema::Message<'a>> for Message<'a> {
    fn from(message: schema::Message<'a>) -> Message<'a> {
        let bytes = message.payload().map(|payload| payload.bytes()).unwrap_or_default();
        let (payload, payload_base64) = match simdutf8::basic::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(_) => (None, Some(Base64(bytes))),
        };
        Message {
            topic: message.topic().unwrap_or_default(),
            stamp: message.stamp().map(|stamp| ringgate_core::id::Stamp::from(stamp).into()),
            sender: message.sender().unwrap_or_default(),
            payload,
            payload_base64,
            trace: message.trace(),
            sent_to: message.sent_to(),
        }
    }
}

#[derive(Serialize)]
struct Member<'a> {
    user: &'a str,
    device: &'a str,
}

#[derive(Serialize)]
struct MemberEvent<'a> {
    room: &'a str,
    user: &'a str,
    device: &'a str,
}

fn place(position: Option<&schema::Position>) -> Option<Place> {
    position.map(|position| ringgate_core::id::Position::from(position).into())
}

impl<'a> From<ServerFrame<'a>> for Push<'a> {
    fn from(frame: ServerFrame<'a>) -> Push<'a> {
        match frame {
            ServerFrame::Connected(connected) => Push::Connected {
                request: connected.request(),
                version: connected.version(),
                session: Digits(connected.session()),
                node: connected.node().unwrap_or_default(),
                user: connected.user().unwrap_or_default(),
                ping_interval_ms: connected.ping_interval_ms(),
                pong_timeout_ms: connected.pong_timeout_ms(),
                message_bytes_max: connected.message_bytes_max(),
                rooms_max: connected.rooms_max(),
                requests_in_flight_max: connected.requests_in_flight_max(),
                expires_at: Digits(connected.expires_at()),
                inbox_recovered: connected.inbox_recovered(),
                inbox: place(connected.inbox()),
                server_time_ms: Digits(connected.server_time_ms()),
                expires_in_ms: Digits(connected.expires_in_ms()),
                dedup_window_ms: connected.dedup_window_ms(),
                frames_rate: connected.frames_rate(),
                frames_burst: connected.frames_burst(),
                bytes_rate: connected.bytes_rate(),
                bytes_burst: connected.bytes_burst(),
                receive_window: connected.receive_window(),
            },
            ServerFrame::Ping => Push::Ping {},
            ServerFrame::Pong => Push::Pong {},
            ServerFrame::Published(published) => Push::of_published(published),
            ServerFrame::Error(error) => Push::Error {
                request: error.request(),
                code: error.code(),
                message: error.message(),
                temporary: error.temporary(),
                retry_after_ms: error.retry_after_ms(),
                room: error.room(),
            },
            ServerFrame::Message(message) => Push::Message(message.into()),
            ServerFrame::Subscribed(subscribed) => Push::Subscribed {
                request: subscribed.request(),
                room: subscribed.room().unwrap_or_default(),
                recovered: subscribed.recovered(),
                position: place(subscribed.position()),
                start: place(subscribed.start()),
            },
            ServerFrame::Unsubscribed(unsubscribed) => Push::Unsubscribed {
                request: unsubscribed.request(),
                room: unsubscribed.room().unwrap_or_default(),
                code: unsubscribed.code(),
            },
            ServerFrame::PresenceResult(result) => Push::PresenceResult {
                request: result.request(),
                room: result.room().unwrap_or_default(),
                count: result.count(),
                members: result
                    .members()
                    .into_iter()
                    .flatten()
                    .map(|member| Member {
                        user: member.user().unwrap_or_default(),
                        device: member.device().unwrap_or_default(),
                    })
                    .collect(),
            },
            ServerFrame::HistoryResult(result) => Push::HistoryResult {
                request: result.request(),
                topic: result.topic().unwrap_or_default(),
                position: place(result.position()),
                messages: result.messages().into_iter().flatten().map(Message::from).collect(),
                more: result.more(),
                recovered: result.recovered(),
            },
            ServerFrame::Refreshed(refreshed) => Push::Refreshed {
                request: refreshed.request(),
                expires_at: Digits(refreshed.expires_at()),
                expires_in_ms: Digits(refreshed.expires_in_ms()),
            },
            ServerFrame::Joined(event) => Push::Joined(MemberEvent {
                room: event.room().unwrap_or_default(),
                user: event.user().unwrap_or_default(),
                device: event.device().unwrap_or_default(),
            }),
            ServerFrame::Left(event) => Push::Left(MemberEvent {
                room: event.room().unwrap_or_default(),
                user: event.user().unwrap_or_default(),
                device: event.device().unwrap_or_default(),
            }),
            ServerFrame::Goodbye(goodbye) => Push::Goodbye {
                code: goodbye.code(),
                reason: goodbye.reason(),
                reconnect: goodbye.reconnect(),
                after_ms: goodbye.after_ms(),
            },
        }
    }
}

impl Push<'_> {
    fn of_published(published: wire::Published) -> Self {
        Push::Published {
            request: published.request,
            client_message_id: (!published.client_message_id.is_none()).then_some(Id(published.client_message_id)),
            stamp: published.stamp.into(),
            durability: Durability::of(published.durability),
            duplicate: published.duplicate,
        }
    }
}

/// Appends the text of a frame of the gateway; nothing if it is none.
pub fn append_text(frame: RawFrame<'_>, out: &mut Vec<u8>) {
    let Ok(frame) = ServerFrame::parse(frame) else {
        debug_assert!(false, "the gateway has made a frame that cannot be read");
        return;
    };
    // Writing into memory does not fail, and no map here has keys other than strings.
    let written = serde_json::to_writer(&mut *out, &Push::from(frame));
    debug_assert!(written.is_ok(), "{written:?}");
}
