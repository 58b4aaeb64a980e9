//! A client as docs/protocol.md wants it: what it keeps across connections, and what it checks of every frame.

use std::collections::BTreeMap;

use ringgate::id::{ConnectionKey, Position, Stamp};
use ringgate::wire::Encoder;
use ringgate::wire::{Kind, ServerFrame, Split, split};

/// A device of a user. The user and the device outlive connections.
pub(crate) struct Device {
    pub(crate) user: String,
    pub(crate) name: String,
    /// Shard and connection, while connected.
    pub(crate) connection: Option<(usize, ConnectionKey)>,
    pub(crate) ready: bool,
    pub(crate) stalled: bool,
    /// Does not acknowledge for a while.
    pub(crate) forgetful: bool,
    incoming: Vec<u8>,
    pub(crate) outgoing: Vec<u8>,
    /// The inbox as far as it was received.
    pub(crate) inbox: Position,
    /// Nothing is known about where the inbox begins: the device is new, or was told that its position is lost.
    fresh: bool,
    /// Every logged inbox message ever received: (epoch, offset) -> payload.
    pub(crate) received: BTreeMap<(u64, u64), Vec<u8>>,
    /// Rooms of this connection: the next offset that must come.
    pub(crate) rooms: BTreeMap<String, Position>,
    /// Rooms as last left, for `since`.
    pub(crate) left_at: BTreeMap<String, Position>,
    /// Subscribes without an answer.
    pub(crate) joining: Vec<(u32, String)>,
    /// Unsubscribes without an answer.
    pub(crate) leaving: Vec<String>,
    /// Publishes without an answer.
    pub(crate) publishing: BTreeMap<u32, Pending>,
    /// Publishes whose answer was lost with a connection.
    pub(crate) unanswered: Vec<Pending>,
    pub(crate) next_request: u32,
    pub(crate) goodbye: Option<u16>,
}

/// A publish that waits for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) topic: String,
    pub(crate) id: u64,
}

/// What a device learned from one frame that the world must know, too.
pub(crate) enum News {
    Accepted { topic: String, id: u64, stamp: Stamp, duplicate: bool },
    Refused(u16),
}

impl Device {
    pub(crate) fn new(user: &str, name: &str) -> Self {
        Device {
            user: user.into(),
            name: name.into(),
            connection: None,
            ready: false,
            stalled: false,
            forgetful: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            inbox: Position::default(),
            fresh: true,
            received: BTreeMap::new(),
            rooms: BTreeMap::new(),
            left_at: BTreeMap::new(),
            joining: Vec::new(),
            leaving: Vec::new(),
            publishing: BTreeMap::new(),
            unanswered: Vec::new(),
            next_request: 1,
            goodbye: None,
        }
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self) {
        self.connection = None;
        self.ready = false;
        self.stalled = false;
        self.incoming.clear();
        self.outgoing.clear();
        for (room, position) in std::mem::take(&mut self.rooms) {
            self.left_at.insert(room, position);
        }
        self.joining.clear();
        self.leaving.clear();
        self.unanswered.extend(std::mem::take(&mut self.publishing).into_values());
    }

    /// Bytes have come; every frame is checked.
    pub(crate) fn receive(&mut self, bytes: &[u8], news: &mut Vec<News>) {
        self.incoming.extend_from_slice(bytes);
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = incoming.as_slice();
        while let Split::Frame(raw, later) = split(rest, 1 << 24).expect("a gateway's header is good") {
            let frame = ServerFrame::parse(raw).expect("a gateway's frame is good");
            self.on_frame(&frame, news);
            rest = later;
        }
        self.incoming = rest.to_vec();
    }

    fn on_frame(&mut self, frame: &ServerFrame<'_>, news: &mut Vec<News>) {
        assert!(self.goodbye.is_none(), "a frame after Goodbye");
        match frame {
            ServerFrame::Connected(connected) => {
                assert!(!self.ready);
                assert_eq!(connected.user(), Some(self.user.as_str()));
                self.ready = true;
                let newest = Position::from(connected.inbox().expect("Connected says where the inbox is"));
                if !connected.inbox_recovered() || newest.epoch != self.inbox.epoch {
                    self.inbox = Position { epoch: newest.epoch, offset: 0 };
                }
                self.fresh = self.inbox.offset == 0;
            }
            ServerFrame::Message(message) => {
                let stamp = Stamp::from(message.stamp().expect("a Message has a stamp"));
                let payload = message.payload().expect("a payload").bytes().to_vec();
                let topic = message.topic().expect("a topic");
                if stamp.position.offset == 0 {
                    return;
                }
                if let Some(user) = topic.strip_prefix('@') {
                    assert_eq!(user, self.user, "somebody else's inbox");
                    self.on_inbox(stamp.position, payload);
                } else {
                    self.on_room(topic, stamp.position);
                }
            }
            ServerFrame::Published(published) => {
                let pending = self.publishing.remove(&published.request).expect("an answer to a question");
                assert_eq!(pending.id, published.client_message_id.low);
                let (stamp, duplicate) = (published.stamp, published.duplicate);
                news.push(News::Accepted { topic: pending.topic, id: pending.id, stamp, duplicate });
            }
            ServerFrame::Subscribed(subscribed) => {
                let room = subscribed.room().expect("a room").to_owned();
                let at =
                    self.joining.iter().position(|(request, name)| *request == subscribed.request() && *name == room);
                self.joining.remove(at.expect("an answer to a question"));
                let mut position = Position::from(subscribed.position().expect("a position"));
                if subscribed.recovered() {
                    let since = self.left_at.get(&room).expect("recovered only when a position was given");
                    assert_eq!(since.epoch, position.epoch);
                    position = *since;
                }
                self.rooms.insert(room, position);
            }
            ServerFrame::Unsubscribed(unsubscribed) => {
                let room = unsubscribed.room().expect("a room");
                self.leaving.retain(|name| name != room);
                if let Some(position) = self.rooms.remove(room) {
                    self.left_at.insert(room.to_owned(), position);
                }
            }
            ServerFrame::Ping => Encoder::empty(&mut self.outgoing, Kind::ClientPong),
            ServerFrame::Error(error) => {
                self.publishing.remove(&error.request());
                self.joining.retain(|(request, _)| *request != error.request());
                news.push(News::Refused(error.code()));
            }
            ServerFrame::Goodbye(goodbye) => self.goodbye = Some(goodbye.code()),
            _ => {}
        }
    }

    /// No hole, and the same message again only when it was not acknowledged.
    fn on_inbox(&mut self, position: Position, payload: Vec<u8>) {
        assert_eq!(position.epoch, self.inbox.epoch, "an epoch that was not announced");
        if let Some(before) = self.received.get(&(position.epoch, position.offset)) {
            assert_eq!(*before, payload, "offset {} has two contents", position.offset);
        }
        assert!(
            std::mem::take(&mut self.fresh) || position.offset <= self.inbox.offset + 1,
            "{} {}: a hole before {}, {} was the last",
            self.user,
            self.name,
            position.offset,
            self.inbox.offset
        );
        self.inbox.offset = self.inbox.offset.max(position.offset);
        self.received.insert((position.epoch, position.offset), payload);
        if !self.forgetful {
            Encoder::ack(&mut self.outgoing, self.inbox);
        }
    }

    /// No hole and no repetition.
    fn on_room(&mut self, room: &str, position: Position) {
        let Some(last) = self.rooms.get_mut(room) else { panic!("a message of {room}, which was not joined") };
        assert_eq!(position.epoch, last.epoch);
        assert_eq!(position.offset, last.offset + 1, "{room} of {} {}", self.user, self.name);
        *last = position;
    }
}
