//! Frames of a gateway as values that a test can keep and compare.

use ringgate_core::id::{Position, Stamp};
use ringgate_core::wire::{Published, ServerFrame, schema};

/// A frame of a gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Frame {
    Connected(Connected),
    Ping,
    Pong,
    Published(Published),
    Refused(Refusal),
    Message(Message),
    Subscribed(Subscribed),
    Unsubscribed { request: u32, room: String, code: u16 },
    Presence(Presence),
    History(History),
    Refreshed { request: u32, expires_at: u64 },
    Joined { room: String, user: String, device: String },
    Left { room: String, user: String, device: String },
    Goodbye(Goodbye),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Connected {
    pub(crate) request: u32,
    pub(crate) version: u16,
    pub(crate) session: u64,
    pub(crate) node: String,
    pub(crate) user: String,
    pub(crate) ping_interval_ms: u32,
    pub(crate) pong_timeout_ms: u32,
    pub(crate) message_bytes_max: u32,
    pub(crate) rooms_max: u16,
    pub(crate) requests_in_flight_max: u16,
    pub(crate) expires_at: u64,
    pub(crate) inbox_recovered: bool,
    pub(crate) inbox: Position,
}

/// Error on the wire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) request: u32,
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) temporary: bool,
    pub(crate) retry_after_ms: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) stamp: Stamp,
    pub(crate) sender: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) trace: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Subscribed {
    pub(crate) request: u32,
    pub(crate) room: String,
    pub(crate) recovered: bool,
    pub(crate) position: Position,
    pub(crate) start: Position,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Presence {
    pub(crate) request: u32,
    pub(crate) room: String,
    pub(crate) count: u32,
    /// User and device, sorted.
    pub(crate) members: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct History {
    pub(crate) request: u32,
    pub(crate) topic: String,
    pub(crate) position: Position,
    pub(crate) messages: Vec<Message>,
    pub(crate) more: bool,
    pub(crate) recovered: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goodbye {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) reconnect: bool,
    pub(crate) after_ms: u32,
}

impl Message {
    pub(crate) fn offset(&self) -> u64 {
        self.stamp.position.offset
    }

    /// The payload as text, for readable comparisons.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

impl Frame {
    /// The request that this frame answers, if it is an answer.
    pub(crate) fn answers(&self) -> Option<u32> {
        match self {
            Frame::Connected(connected) => Some(connected.request),
            Frame::Published(published) => Some(published.request),
            Frame::Refused(refusal) => Some(refusal.request),
            Frame::Subscribed(subscribed) => Some(subscribed.request),
            Frame::Unsubscribed { request, .. } | Frame::Refreshed { request, .. } => Some(*request),
            Frame::Presence(presence) => Some(presence.request),
            Frame::History(history) => Some(history.request),
            _ => None,
        }
    }
}

fn text(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

fn position(position: Option<&schema::Position>) -> Position {
    position.map(Position::from).unwrap_or_default()
}

impl From<schema::Message<'_>> for Message {
    fn from(message: schema::Message<'_>) -> Message {
        Message {
            topic: text(message.topic()),
            stamp: message.stamp().map(Stamp::from).unwrap_or_default(),
            sender: text(message.sender()),
            payload: message.payload().map(|payload| payload.bytes().to_vec()).unwrap_or_default(),
            trace: message.trace().map(str::to_owned),
        }
    }
}

impl From<ServerFrame<'_>> for Frame {
    fn from(frame: ServerFrame<'_>) -> Frame {
        match frame {
            ServerFrame::Connected(connected) => Frame::Connected(Connected {
                request: connected.request(),
                version: connected.version(),
                session: connected.session(),
                node: text(connected.node()),
                user: text(connected.user()),
                ping_interval_ms: connected.ping_interval_ms(),
                pong_timeout_ms: connected.pong_timeout_ms(),
                message_bytes_max: connected.message_bytes_max(),
                rooms_max: connected.rooms_max(),
                requests_in_flight_max: connected.requests_in_flight_max(),
                expires_at: connected.expires_at(),
                inbox_recovered: connected.inbox_recovered(),
                inbox: position(connected.inbox()),
            }),
            ServerFrame::Ping => Frame::Ping,
            ServerFrame::Pong => Frame::Pong,
            ServerFrame::Published(published) => Frame::Published(published),
            ServerFrame::Error(error) => Frame::Refused(Refusal {
                request: error.request(),
                code: error.code(),
                message: text(error.message()),
                temporary: error.temporary(),
                retry_after_ms: error.retry_after_ms(),
            }),
            ServerFrame::Message(message) => Frame::Message(message.into()),
            ServerFrame::Subscribed(subscribed) => Frame::Subscribed(Subscribed {
                request: subscribed.request(),
                room: text(subscribed.room()),
                recovered: subscribed.recovered(),
                position: position(subscribed.position()),
                start: position(subscribed.start()),
            }),
            ServerFrame::Unsubscribed(unsubscribed) => Frame::Unsubscribed {
                request: unsubscribed.request(),
                room: text(unsubscribed.room()),
                code: unsubscribed.code(),
            },
            ServerFrame::PresenceResult(presence) => {
                let members = presence.members().into_iter().flatten();
                let mut members: Vec<_> = members.map(|member| (text(member.user()), text(member.device()))).collect();
                members.sort();
                let (request, count) = (presence.request(), presence.count());
                Frame::Presence(Presence { request, room: text(presence.room()), count, members })
            }
            ServerFrame::HistoryResult(history) => Frame::History(History {
                request: history.request(),
                topic: text(history.topic()),
                position: position(history.position()),
                messages: history.messages().into_iter().flatten().map(Message::from).collect(),
                more: history.more(),
                recovered: history.recovered(),
            }),
            ServerFrame::Refreshed(refreshed) => {
                Frame::Refreshed { request: refreshed.request(), expires_at: refreshed.expires_at() }
            }
            ServerFrame::Joined(joined) => {
                Frame::Joined { room: text(joined.room()), user: text(joined.user()), device: text(joined.device()) }
            }
            ServerFrame::Left(left) => {
                Frame::Left { room: text(left.room()), user: text(left.user()), device: text(left.device()) }
            }
            ServerFrame::Goodbye(goodbye) => Frame::Goodbye(Goodbye {
                code: goodbye.code(),
                reason: text(goodbye.reason()),
                reconnect: goodbye.reconnect(),
                after_ms: goodbye.after_ms(),
            }),
        }
    }
}
