//! Clients that say what a test makes them say, and what they get.

use ringgate_core::close::CloseReason;
use ringgate_core::id::{Position, Stamp};
use ringgate_core::limits::{Namespace, Settings};
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_core::wire::{Encoder, ServerFrame, Split, split};

use crate::world::{Client, World};

/// A frame that a client got, as far as tests look at it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "kinds of frames and their fields, as docs/protocol.md calls them")]
pub enum Got {
    Connected { inbox: Position, recovered: bool },
    Message { topic: String, position: Position, payload: Vec<u8> },
    Published { request: u32, stamp: Stamp, durability: u8, duplicate: bool },
    Error { request: u32, code: u16 },
    Subscribed { request: u32, room: String, position: Position, recovered: bool },
    Unsubscribed { request: u32, room: String, code: u16 },
    History { request: u32, offsets: Vec<u64>, position: Position, more: bool, recovered: bool },
    Presence { request: u32, count: u32, members: Vec<(String, String)> },
    Refreshed { request: u32 },
    Joined { room: String, user: String, device: String },
    Left { room: String, user: String, device: String },
    Goodbye { code: u16 },
    Ping,
    Pong,
}

/// Defaults without rates: tests may say as much as they like at one moment.
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.client.messages_rate = 0;
    settings.client.bytes_rate = 0;
    settings
}

/// [`settings`] with one namespace `chat`, which has its defaults but for the changes.
pub fn settings_with_namespace(change: impl FnOnce(&mut Namespace)) -> Settings {
    let mut namespace = Namespace::named("chat");
    change(&mut namespace);
    Settings { namespaces: vec![namespace], ..settings() }
}

/// Offset, and whether it was a repetition; or the error.
pub type Answer = Result<(u64, bool), u16>;

/// What became of requests, by their numbers, in the order of the answers.
pub fn answers(got: &[Got]) -> Vec<(u32, Answer)> {
    let answer = |got: &Got| match got {
        Got::Published { request, stamp, duplicate, .. } => Some((*request, Ok((stamp.position.offset, *duplicate)))),
        Got::Error { request, code } => Some((*request, Err(*code))),
        _ => None,
    };
    got.iter().filter_map(answer).collect()
}

impl World {
    /// A room of this namespace whose home is that shard. Homes depend on the seed alone, so another node is asked.
    pub fn room_at(&self, home: usize, namespace: &str) -> String {
        let settings = Settings { namespaces: vec![Namespace::named(namespace)], ..settings() };
        let mut other = World::new(self.shards.len(), settings);
        let asker = other.sign_in((home + 1) % self.shards.len(), "asker");
        let mut rooms = (0..).map(|number| format!("{namespace}:{number}"));
        let mut is_there = |room: &String| {
            other.send(asker, |encoder, out| encoder.presence(out, 1, room, 0));
            let found = other.shards.len() == 1 || other.mail.iter().any(|sent| sent.to == home);
            other.read_all(asker);
            found
        };
        rooms.find(|room| is_there(room)).expect("there are as many rooms as numbers")
    }

    // One client.

    /// A client connects over TCP.
    pub fn open(&mut self, shard: usize) -> Client {
        self.accept(shard, Transport::Plain)
    }

    /// The client's socket is gone, and all that follows from it has happened.
    pub fn leave(&mut self, client: Client) {
        self.end(client, CloseReason::ConnectionReset);
        self.free(client);
        self.work();
    }

    /// Sends what `build` makes, as one segment.
    pub fn send(&mut self, client: Client, build: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        build(&mut self.encoder, &mut bytes);
        self.receive(client, &bytes);
    }

    /// Reads everything that waits for the client.
    pub fn read(&mut self, client: Client) -> Vec<Got> {
        let mut got = Vec::new();
        self.read_with(client, |frame| got.push(of(frame)));
        got
    }

    /// Shows everything that waits for the client, frame by frame.
    pub fn read_with(&mut self, client: Client, mut see: impl FnMut(&ServerFrame<'_>)) {
        let mut bytes = Vec::new();
        while self.pull(client, |chunk| bytes.extend_from_slice(chunk)) {}
        self.take_effects(client.shard);
        let mut rest = &*bytes;
        while let Split::Frame(raw, later) = split(rest, 1 << 24).expect("a gateway's header is good") {
            see(&ServerFrame::parse(raw).expect("a gateway's frame is good"));
            rest = later;
        }
        assert!(rest.is_empty(), "half a frame");
    }

    /// Works everything off while the client reads.
    pub fn read_all(&mut self, client: Client) -> Vec<Got> {
        let mut all = Vec::new();
        loop {
            self.work();
            let got = self.read(client);
            if got.is_empty() {
                return all;
            }
            all.extend(got);
        }
    }

    /// Connects a device and returns the client, what `Connected` said of the inbox, and what followed.
    pub fn connect(
        &mut self,
        shard: usize,
        user: &str,
        device: &str,
        inbox: Option<Position>,
    ) -> (Client, Position, bool, Vec<Got>) {
        let client = self.open(shard);
        let request = ConnectRequest { request: 1, token: user, device, inbox, ..Default::default() };
        self.send(client, |encoder, out| encoder.connect(out, &request));
        let mut got = self.read_all(client);
        let Got::Connected { inbox, recovered } = got.remove(0) else { panic!("{got:?} instead of Connected") };
        (client, inbox, recovered, got)
    }

    /// A user on the default device; what waited in the inbox is read and dropped.
    pub fn sign_in(&mut self, shard: usize, user: &str) -> Client {
        self.connect(shard, user, "default", None).0
    }

    /// Publishes, and returns the one answer.
    pub fn try_publish(&mut self, client: Client, fields: PublishRequest<'_>) -> Got {
        self.send(client, |encoder, out| encoder.publish(out, &fields));
        let is_answer = |got: &Got| matches!(got, Got::Published { request, .. } | Got::Error { request, .. } if *request == fields.request);
        let mut answers: Vec<_> = self.read_all(client).into_iter().filter(is_answer).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// Publishes what must be accepted.
    pub fn publish(&mut self, client: Client, topic: &str, payload: &[u8]) -> Position {
        self.publish_for(client, topic, payload, 0)
    }

    /// Publishes with a ttl in seconds what must be accepted.
    pub fn publish_for(&mut self, client: Client, topic: &str, payload: &[u8], ttl_seconds: u32) -> Position {
        match self.try_publish(client, PublishRequest { request: 7, topic, payload, ttl_seconds, ..Default::default() })
        {
            Got::Published { stamp, .. } => stamp.position,
            refused => panic!("{refused:?}"),
        }
    }

    /// Joins a room: its position, whether it was recovered, and what followed.
    pub fn subscribe(&mut self, client: Client, room: &str, since: Option<Position>) -> (Position, bool, Vec<Got>) {
        self.send(client, |encoder, out| encoder.subscribe(out, 2, (room, since).into()));
        let mut got = self.read_all(client);
        let at = got.iter().position(|got| matches!(got, Got::Subscribed { request: 2, .. }));
        let followed = got.split_off(at.expect("Subscribed") + 1);
        match got.pop() {
            Some(Got::Subscribed { position, recovered, .. }) => (position, recovered, followed),
            other => panic!("{other:?}"),
        }
    }

    /// Leaves a room.
    pub fn unsubscribe(&mut self, client: Client, room: &str) {
        self.send(client, |encoder, out| encoder.unsubscribe(out, 3, room));
        let got = self.read_all(client);
        assert!(got.iter().any(|got| matches!(got, Got::Unsubscribed { request: 3, code: 0, .. })), "{got:?}");
    }

    /// What History says: offsets, `more`, `recovered`.
    pub fn history(
        &mut self,
        client: Client,
        topic: &str,
        since: Option<Position>,
        limit: u32,
    ) -> (Vec<u64>, bool, bool) {
        self.send(client, |encoder, out| {
            encoder.history(out, &HistoryRequest { request: 4, topic, since, limit, ..HistoryRequest::default() })
        });
        let answer = self.read_all(client).into_iter().find_map(|got| match got {
            Got::History { request: 4, offsets, more, recovered, .. } => Some((offsets, more, recovered)),
            _ => None,
        });
        answer.expect("HistoryResult")
    }

    /// Acknowledges, and lets the home hear of it.
    pub fn ack(&mut self, client: Client, position: Position) {
        self.send(client, |_, out| Encoder::ack(out, position));
        self.work();
    }
}

/// The offsets of the messages among these frames.
pub fn offsets(got: &[Got]) -> Vec<u64> {
    let offset = |got: &Got| match got {
        Got::Message { position, .. } => Some(position.offset),
        _ => None,
    };
    got.iter().filter_map(offset).collect()
}

fn of(frame: &ServerFrame<'_>) -> Got {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    match frame {
        ServerFrame::Connected(f) => {
            Got::Connected { inbox: f.inbox().map(Position::from).unwrap_or_default(), recovered: f.inbox_recovered() }
        }
        ServerFrame::Message(f) => Got::Message {
            topic: text(f.topic()),
            position: f.stamp().map(Stamp::from).unwrap_or_default().position,
            payload: f.payload().map(|payload| payload.bytes().to_vec()).unwrap_or_default(),
        },
        ServerFrame::Published(f) => {
            Got::Published { request: f.request, stamp: f.stamp, durability: f.durability, duplicate: f.duplicate }
        }
        ServerFrame::Error(f) => Got::Error { request: f.request(), code: f.code() },
        ServerFrame::Subscribed(f) => Got::Subscribed {
            request: f.request(),
            room: text(f.room()),
            position: f.position().map(Position::from).unwrap_or_default(),
            recovered: f.recovered(),
        },
        ServerFrame::Unsubscribed(f) => {
            Got::Unsubscribed { request: f.request(), room: text(f.room()), code: f.code() }
        }
        ServerFrame::HistoryResult(f) => Got::History {
            request: f.request(),
            offsets: f
                .messages()
                .into_iter()
                .flatten()
                .map(|m| m.stamp().map(Stamp::from).unwrap_or_default().position.offset)
                .collect(),
            position: f.position().map(Position::from).unwrap_or_default(),
            more: f.more(),
            recovered: f.recovered(),
        },
        ServerFrame::PresenceResult(f) => Got::Presence {
            request: f.request(),
            count: f.count(),
            members: f.members().into_iter().flatten().map(|m| (text(m.user()), text(m.device()))).collect(),
        },
        ServerFrame::Refreshed(f) => Got::Refreshed { request: f.request() },
        ServerFrame::Joined(f) => Got::Joined { room: text(f.room()), user: text(f.user()), device: text(f.device()) },
        ServerFrame::Left(f) => Got::Left { room: text(f.room()), user: text(f.user()), device: text(f.device()) },
        ServerFrame::Goodbye(f) => Got::Goodbye { code: f.code() },
        ServerFrame::Ping => Got::Ping,
        ServerFrame::Pong => Got::Pong,
    }
}
