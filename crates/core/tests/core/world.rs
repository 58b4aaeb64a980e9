//! Shards of one node in virtual time, their mail, and clients that say what a test makes them say.
//!
//! Letters between shards wait in [`World::mail`] until [`World::settle`] delivers them, in the order in which they were
//! posted. Topics are swept when work is done
//! ([`World::work`]) 100 ms after the last time.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ringgate_core::close::{AuthError, CloseReason};
use ringgate_core::id::{ConnectionKey, Now, Position, ShardId, Stamp};
use ringgate_core::limits::{Namespace, Settings};
use ringgate_core::metrics::{Cell, ShardMetrics};
use ringgate_core::session::Grant;
use ringgate_core::shard::{Effect, Event, Letter, Record, Shard, ShardOptions};
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_core::wire::{Encoder, ServerFrame, Split, split};

/// Milliseconds between two sweeps of a shard's topics.
const SWEEP_MS: u64 = 100;

/// See the module.
pub(crate) struct World {
    pub(crate) shards: Vec<Shard>,
    pub(crate) metrics: Vec<Arc<ShardMetrics>>,
    pub(crate) now: Now,
    /// What the engine was given: from which shard, ticket, era, message. It answers when a test says so.
    pub(crate) appends: Vec<(usize, u64, u32, Record)>,
    /// Letters under way: to which shard, and what.
    pub(crate) mail: VecDeque<(usize, Letter)>,
    /// What the core wanted closed, in order.
    pub(crate) closed: Vec<(Client, CloseReason)>,
    /// Sockets that were to be received from no more, or again.
    pub(crate) held: Vec<(Client, bool)>,
    /// What a token says; by default the token is the user id and never expires.
    pub(crate) tokens: fn(&str) -> Result<Grant, AuthError>,
    pub(crate) encoder: Encoder,
    next_slot: u32,
}

/// A connection of some shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) shard: usize,
    pub(crate) connection: ConnectionKey,
}

/// A frame that a client got, as far as tests look at it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Got {
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

/// A user of this name without any restriction.
fn user_of_token(token: &str) -> Result<Grant, AuthError> {
    Ok(Grant { user: token.to_owned(), expires_at: 0, rooms: None, device: None })
}

/// Defaults without rates: tests may say as much as they like at one moment.
pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.client.messages_rate = 0;
    settings.client.bytes_rate = 0;
    settings
}

/// The same with one namespace `chat`, the default one but for its changes.
pub(crate) fn settings_with_namespace(change: impl FnOnce(&mut Namespace)) -> Settings {
    let mut namespace = Namespace::named("chat");
    change(&mut namespace);
    Settings { namespaces: vec![namespace], ..settings() }
}

impl World {
    pub(crate) fn new(shards: usize, settings: Settings) -> World {
        let settings = Arc::new(settings);
        let metrics: Vec<Arc<ShardMetrics>> = (0..shards).map(|_| Arc::default()).collect();
        let shards = metrics
            .iter()
            .enumerate()
            .map(|(index, metrics)| {
                Shard::new(ShardOptions {
                    id: ShardId(index as u16),
                    shards: shards as u16,
                    settings: settings.clone(),
                    metrics: metrics.clone(),
                    seed: 1,
                })
            })
            .collect();
        World {
            shards,
            metrics,
            now: Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 },
            appends: Vec::new(),
            mail: VecDeque::new(),
            closed: Vec::new(),
            held: Vec::new(),
            tokens: user_of_token,
            encoder: Encoder::default(),
            next_slot: 0,
        }
    }

    // Time and machinery.

    /// Both clocks go on.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.mono_us += ms * 1000;
        self.now.unix_ms += ms;
    }

    pub(crate) fn handle(&mut self, shard: usize, event: Event<'_>) {
        self.shards[shard].handle(event, self.now);
        self.take_effects(shard);
    }

    pub(crate) fn take_effects(&mut self, shard: usize) {
        while let Some(effect) = self.shards[shard].poll_effect() {
            match effect {
                // Mailboxes have room for everything here; `overload` has full ones.
                Effect::Post(posted) => self.mail.push_back((usize::from(posted.to.0), posted.letter)),
                Effect::Verify { connection, refresh, token } => {
                    let result = (self.tokens)(&token);
                    self.shards[shard].handle(Event::Verified { connection, refresh, result }, self.now);
                }
                Effect::Close { connection, reason, .. } => self.closed.push((Client { shard, connection }, reason)),
                Effect::Append { ticket, era, record } => self.appends.push((shard, ticket, era, *record)),
                Effect::Hold { connection, hold } => self.held.push((Client { shard, connection }, hold)),
                Effect::Writable { .. } | Effect::Abort { .. } | Effect::SignedIn { .. } => {}
            }
        }
    }

    /// Delivers every letter, and those that follow from them.
    pub(crate) fn settle(&mut self) {
        while let Some((to, letter)) = self.mail.pop_front() {
            self.handle(to, Event::Mail(letter));
        }
    }

    /// Letters and broadcasts, until nothing is left to do at this moment. Sweeps only if [`Self::pass`] went far enough.
    pub(crate) fn work(&mut self) {
        self.settle();
        loop {
            let mut more = false;
            for shard in 0..self.shards.len() {
                more |= self.shards[shard].work_off(self.now);
                self.take_effects(shard);
            }
            more |= !self.mail.is_empty();
            self.settle();
            if !more {
                return;
            }
        }
    }

    /// Lets age work on the topics, so many times; time goes on.
    pub(crate) fn sweep(&mut self, times: usize) {
        for _ in 0..times {
            self.pass(SWEEP_MS);
            self.work();
        }
    }

    /// Every deadline of connections that has passed.
    pub(crate) fn advance(&mut self) {
        for shard in 0..self.shards.len() {
            while self.shards[shard].advance(self.now) {}
            self.take_effects(shard);
        }
        self.work();
    }

    pub(crate) fn check(&self) {
        for shard in &self.shards {
            shard.invariants();
        }
    }

    /// A figure, summed over the shards.
    pub(crate) fn sum(&self, cell: impl Fn(&ShardMetrics) -> &Cell) -> u64 {
        self.metrics.iter().fold(0, |sum, metrics| sum.wrapping_add(cell(metrics).read()))
    }

    /// A room of this namespace whose home is that shard. Homes depend on the seed alone, so another node is asked.
    pub(crate) fn room_at(&self, home: usize, namespace: &str) -> String {
        let settings = Settings { namespaces: vec![Namespace::named(namespace)], ..settings() };
        let mut other = World::new(self.shards.len(), settings);
        let asker = other.sign_in((home + 1) % self.shards.len(), "asker");
        let mut rooms = (0..).map(|number| format!("{namespace}:{number}"));
        let mut is_there = |room: &String| {
            other.send(asker, |encoder, out| encoder.presence(out, 1, room, 0));
            let found = other.shards.len() == 1 || other.mail.iter().any(|(to, _)| *to == home);
            other.read_all(asker);
            found
        };
        rooms.find(|room| is_there(room)).expect("there are as many rooms as numbers")
    }

    // Clients.

    /// A socket is accepted.
    pub(crate) fn open(&mut self, shard: usize) -> Client {
        self.next_slot += 1;
        let client = Client { shard, connection: ConnectionKey { slot: self.next_slot, generation: 1 } };
        let (connection, peer) = (client.connection, IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.handle(shard, Event::Opened { connection, peer, transport: Transport::Plain });
        client
    }

    /// The client's socket is gone, and all that follows from it has happened.
    pub(crate) fn end(&mut self, client: Client) {
        let Client { shard, connection } = client;
        self.handle(shard, Event::Ended { connection, reason: CloseReason::ConnectionReset });
        self.handle(shard, Event::Freed { connection });
        self.work();
    }

    /// Sends what `build` makes, as one segment.
    pub(crate) fn send(&mut self, client: Client, build: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let mut bytes = Vec::new();
        build(&mut self.encoder, &mut bytes);
        self.handle(client.shard, Event::Received { connection: client.connection, bytes: &bytes });
    }

    /// Reads everything that waits for the client.
    pub(crate) fn read(&mut self, client: Client) -> Vec<Got> {
        let mut got = Vec::new();
        self.read_with(client, |frame| got.push(of(frame)));
        got
    }

    /// Shows everything that waits for the client, frame by frame.
    pub(crate) fn read_with(&mut self, client: Client, mut see: impl FnMut(&ServerFrame<'_>)) {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.shards[client.shard].pull(client.connection, self.now) {
            bytes.extend_from_slice(chunk.bytes());
        }
        self.take_effects(client.shard);
        let mut rest = &*bytes;
        while let Split::Frame(raw, later) = split(rest, 1 << 24).expect("a gateway's header is good") {
            see(&ServerFrame::parse(raw).expect("a gateway's frame is good"));
            rest = later;
        }
        assert!(rest.is_empty(), "half a frame");
    }

    /// Works everything off while the client reads.
    pub(crate) fn read_all(&mut self, client: Client) -> Vec<Got> {
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
    pub(crate) fn connect(
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
    pub(crate) fn sign_in(&mut self, shard: usize, user: &str) -> Client {
        self.connect(shard, user, "default", None).0
    }

    /// Publishes, and returns the one answer.
    pub(crate) fn try_publish(&mut self, client: Client, fields: PublishRequest<'_>) -> Got {
        self.send(client, |encoder, out| encoder.publish(out, &fields));
        let is_answer = |got: &Got| matches!(got, Got::Published { request, .. } | Got::Error { request, .. } if *request == fields.request);
        let mut answers: Vec<_> = self.read_all(client).into_iter().filter(is_answer).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0)
    }

    /// Publishes what must be accepted.
    pub(crate) fn publish(&mut self, client: Client, topic: &str, payload: &[u8]) -> Position {
        self.publish_for(client, topic, payload, 0)
    }

    /// The same with a ttl in seconds.
    pub(crate) fn publish_for(&mut self, client: Client, topic: &str, payload: &[u8], ttl_seconds: u32) -> Position {
        match self.try_publish(client, PublishRequest { request: 7, topic, payload, ttl_seconds, ..Default::default() })
        {
            Got::Published { stamp, .. } => stamp.position,
            refused => panic!("{refused:?}"),
        }
    }

    /// Joins a room: its position, whether it was recovered, and what followed.
    pub(crate) fn subscribe(
        &mut self,
        client: Client,
        room: &str,
        since: Option<Position>,
    ) -> (Position, bool, Vec<Got>) {
        self.send(client, |encoder, out| encoder.subscribe(out, 2, (room, since).into()));
        let mut got = self.read_all(client);
        let at = got.iter().position(|got| matches!(got, Got::Subscribed { request: 2, .. }));
        let followed = got.split_off(at.expect("Subscribed") + 1);
        match got.pop() {
            Some(Got::Subscribed { position, recovered, .. }) => (position, recovered, followed),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn unsubscribe(&mut self, client: Client, room: &str) {
        self.send(client, |encoder, out| encoder.unsubscribe(out, 3, room));
        let got = self.read_all(client);
        assert!(got.iter().any(|got| matches!(got, Got::Unsubscribed { request: 3, code: 0, .. })), "{got:?}");
    }

    /// What History says: offsets, `more`, `recovered`.
    pub(crate) fn history(
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
    pub(crate) fn ack(&mut self, client: Client, position: Position) {
        self.send(client, |_, out| Encoder::ack(out, position));
        self.work();
    }
}

/// The offsets of the messages among these frames.
pub(crate) fn offsets(got: &[Got]) -> Vec<u64> {
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
