//! Clients that keep to the protocol, and what they must have been told at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ringgate_core::close::CloseReason;
use ringgate_core::id::{ClientMessageId, Position, Recover};
use ringgate_core::wire::RoomCursor;
use ringgate_core::wire::encode::{ConnectRequest, PublishRequest};
use ringgate_sim::{Client, Got, Nodes, Random, settings_with_namespace};

const ROOM: &str = "chat:a";
const USERS: [&str; 3] = ["alice", "bob", "carol"];
const DEVICES: [&str; 2] = ["phone", "laptop"];
/// Messages of one client that are not answered yet.
const UNANSWERED_MAX: usize = 4;

/// See the module.
pub(crate) struct Clients {
    nodes: Nodes,
    devices: Vec<Device>,
    ledger: Ledger,
    /// The engine may lose what it has stored.
    loses: bool,
    /// Sessions whose clients have gone on without closing their sockets.
    left_behind: Vec<(usize, Client)>,
    /// What the engine had at some moment.
    replica: Option<ringgate_sim::Disk>,
}

/// One device of one user: what its client knows.
struct Device {
    user: &'static str,
    name: &'static str,
    session: Option<Session>,
    /// Everything up to here was received.
    inbox: Option<Position>,
    room: Option<Position>,
    /// Messages of its own inbox, by what is in them.
    got: BTreeSet<u64>,
    /// Where its inbox stood when it connected for the first time: messages up to there need not have come.
    first: Option<Position>,
    unanswered: Vec<Unanswered>,
    /// Requests that were given a number.
    requests: u32,
}

struct Session {
    node: usize,
    client: Client,
    /// Connected has come.
    is_signed_in: bool,
    /// The next offset of the room, once Subscribed has come.
    room_next: Option<Position>,
    /// The room could not be joined, for now.
    is_refused: bool,
}

#[derive(Clone, Copy)]
struct Unanswered {
    id: u64,
    topic: usize,
    request: u32,
}

/// What is true of all clients together.
#[derive(Default)]
struct Ledger {
    /// What stands at each place: one order for all.
    places: HashMap<(String, u64, u64), u64>,
    /// Where each message is.
    stored: BTreeMap<u64, (String, u64, u64)>,
    /// Messages that were answered with Published, in that order, with their offsets and topics.
    published: Vec<(u64, u64, usize)>,
    ids: u64,
}

impl Ledger {
    fn see(&mut self, topic: &str, position: Position, id: u64, loses: bool) {
        // Where nothing is lost, a new epoch goes on with the offsets of the one before.
        let place = (topic.to_owned(), if loses { position.epoch } else { 0 }, position.offset);
        let known = *self.places.entry(place.clone()).or_insert(id);
        assert_eq!(known, id, "two messages at {place:?}");
        let at = self.stored.entry(id).or_insert_with(|| place.clone());
        assert!(loses || *at == place, "message {id} is at {at:?} and at {place:?}");
    }
}

impl Clients {
    pub(crate) fn new(random: &mut Random, loses: bool) -> Clients {
        let mut settings = settings_with_namespace(|namespace| {
            namespace.vanish_when_empty = false;
            namespace.history_size = 10_000;
        });
        settings.inbox.messages_max = 10_000;
        let nodes = Nodes::new(2 + random.below(3), 1 + random.below(3), &settings);
        let device = |user, name| Device {
            user,
            name,
            session: None,
            inbox: None,
            room: None,
            got: BTreeSet::new(),
            first: None,
            unanswered: Vec::new(),
            requests: 1,
        };
        let devices = USERS.iter().flat_map(|user| DEVICES.map(|name| device(*user, name))).collect();
        Clients { nodes, devices, ledger: Ledger::default(), loses, left_behind: Vec::new(), replica: None }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self, random: &mut Random) {
        let (device, node) = (random.below(self.devices.len()), random.below(self.nodes.nodes.len()));
        match random.below(24) {
            0 if random.one_in(2) => self.connect(device, node, random),
            1 if self.devices[device].session.is_none() => self.connect(device, node, random),
            2 if random.one_in(3) => self.leave(device),
            3..=5 => self.publish(device, random),
            6 => self.publish_again(device),
            7..=9 => self.read(device),
            10 => self.acknowledge(device),
            11 => {
                self.nodes.pass(1 + random.below(150) as u64);
                self.nodes.nodes.iter_mut().for_each(ringgate_sim::World::work);
            }
            12 if random.one_in(20) => {
                self.nodes.pass(40_000);
                self.nodes.nodes.iter_mut().for_each(ringgate_sim::World::work);
            }
            13 => self.nodes.is_away = random.one_in(6),
            14 if random.one_in(10) => self.crash(node),
            14 if random.one_in(20) => self.restart_engine(),
            15 if self.loses && random.one_in(20) => self.lose(random),
            16 | 17 => self.tell(random),
            _ => {
                for _ in 0..1 + random.below(6) {
                    self.nodes.work(node);
                }
                self.nodes.nodes[node].work();
            }
        }
        self.nodes.check();
    }

    /// News and other words of the engine come in any order, twice or not at all.
    fn tell(&mut self, random: &mut Random) {
        let nodes = &mut self.nodes;
        if !nodes.news.is_empty() {
            let at = random.below(nodes.news.len());
            let news = nodes.news.remove(at).expect("it is there");
            if random.one_in(5) {
                nodes.news.push_back(news.clone());
            }
            if !random.one_in(5) {
                nodes.tell(news);
            }
        }
        if !nodes.claimed.is_empty() {
            let answer = nodes.claimed.remove(random.below(nodes.claimed.len())).expect("it is there");
            nodes.answer_claim(answer);
        }
        if !nodes.evictions.is_empty() {
            let eviction = nodes.evictions.remove(random.below(nodes.evictions.len())).expect("it is there");
            nodes.evict(eviction);
        }
        if !nodes.changed.is_empty() {
            let changed = nodes.changed.remove(random.below(nodes.changed.len())).expect("it is there");
            nodes.change(changed);
        }
        nodes.nodes.iter_mut().for_each(ringgate_sim::World::work);
    }

    fn connect(&mut self, at: usize, node: usize, random: &mut Random) {
        let device = &mut self.devices[at];
        if let Some(session) = device.session.take() {
            if random.one_in(2) {
                self.left_behind.push((session.node, session.client));
            } else {
                self.nodes.nodes[session.node].leave(session.client);
            }
        }
        let world = &mut self.nodes.nodes[node];
        let client = world.open(random.below(world.shards.len()));
        let rooms = [RoomCursor { room: ROOM, since: device.room, recover: Recover::Exact }];
        let request = ConnectRequest {
            request: 1,
            token: device.user,
            device: device.name,
            // The gateway has the cursor, too.
            inbox: device.inbox.filter(|kept| random.one_in(2) && kept.offset > 0),
            rooms: &rooms,
            ..Default::default()
        };
        world.send(client, |encoder, out| encoder.connect(out, &request));
        world.work();
        device.session = Some(Session { node, client, is_signed_in: false, room_next: None, is_refused: false });
    }

    fn leave(&mut self, at: usize) {
        if let Some(session) = self.devices[at].session.take() {
            self.nodes.nodes[session.node].leave(session.client);
        }
    }

    fn publish(&mut self, at: usize, random: &mut Random) {
        let device = &mut self.devices[at];
        if device.session.as_ref().is_none_or(|s| s.room_next.is_none()) || device.unanswered.len() >= UNANSWERED_MAX {
            return;
        }
        self.ledger.ids += 1;
        device.requests += 1;
        let (id, request) = (self.ledger.ids, device.requests);
        device.unanswered.push(Unanswered { id, topic: random.below(USERS.len() + 1), request });
        self.send(at, device_last(&self.devices[at]));
    }

    /// The client does not know whether its oldest message was stored.
    fn publish_again(&mut self, at: usize) {
        let device = &mut self.devices[at];
        if device.session.as_ref().is_none_or(|session| session.room_next.is_none()) {
            return;
        }
        let Some(oldest) = device.unanswered.first_mut() else { return };
        device.requests += 1;
        oldest.request = device.requests;
        let oldest = *oldest;
        self.send(at, oldest);
    }

    fn send(&mut self, at: usize, message: Unanswered) {
        let Some(session) = &self.devices[at].session else { return };
        let topic = topic(message.topic);
        let client_message_id = ClientMessageId { high: at as u64 + 1, low: message.id };
        let payload = message.id.to_le_bytes();
        let fields = PublishRequest {
            request: message.request,
            topic: &topic,
            client_message_id,
            payload: &payload,
            ..Default::default()
        };
        let world = &mut self.nodes.nodes[session.node];
        world.send(session.client, |encoder, out| encoder.publish(out, &fields));
        world.work();
    }

    fn acknowledge(&mut self, at: usize) {
        let device = &self.devices[at];
        if let (Some(session), Some(position)) = (&device.session, device.inbox)
            && session.is_signed_in
        {
            self.nodes.nodes[session.node].ack(session.client, position);
        }
    }

    fn read(&mut self, at: usize) {
        let Some(Session { node, client, .. }) = self.devices[at].session else { return };
        for got in self.nodes.nodes[node].read_all(client) {
            self.see(at, got);
        }
        let device = &mut self.devices[at];
        if device.session.as_mut().is_some_and(|session| core::mem::take(&mut session.is_refused)) {
            let room = RoomCursor { room: ROOM, since: device.room, recover: Recover::Exact };
            self.nodes.nodes[node].send(client, |encoder, out| encoder.subscribe(out, 1, room));
            self.nodes.nodes[node].work();
        }
        let closed = self.nodes.nodes[node].closed().iter().any(|(closed, _)| *closed == client);
        if closed {
            self.nodes.nodes[node].free(client);
            self.nodes.nodes[node].work();
            self.devices[at].session = None;
        }
    }

    fn see(&mut self, at: usize, got: Got) {
        let loses = self.loses;
        let device = &mut self.devices[at];
        let Some(session) = &mut device.session else { return };
        match got {
            Got::Connected { inbox, recovered } => {
                session.is_signed_in = true;
                let is_first = device.first.is_none();
                assert!(recovered || is_first || loses, "{} {} was told of a loss", device.user, device.name);
                device.first.get_or_insert(inbox);
                if device.inbox.is_none_or(|known| known.epoch != inbox.epoch) {
                    let carried = device.inbox.filter(|_| recovered).map_or(0, |known| known.offset);
                    device.inbox = Some(Position { epoch: inbox.epoch, offset: carried });
                }
            }
            Got::Subscribed { position, recovered, .. } => {
                let since =
                    device.room.filter(|_| recovered).map(|since| Position { offset: since.offset, ..position });
                assert!(
                    recovered || device.room.is_none() || loses,
                    "{} {} stood at {:?} in the room, which is at {position:?}",
                    device.user,
                    device.name,
                    device.room
                );
                let from = since.unwrap_or(position);
                session.room_next = Some(Position { offset: from.offset + 1, ..from });
                device.room = Some(from);
            }
            Got::Message { topic, position, payload } => {
                let id = u64::from_le_bytes(payload.try_into().expect("eight bytes"));
                self.ledger.see(&topic, position, id, loses);
                if topic == ROOM {
                    let next = session.room_next.as_mut().expect("Subscribed comes first");
                    assert_eq!(position, *next, "{} {}: a hole or a repetition in the room", device.user, device.name);
                    next.offset += 1;
                    device.room = Some(position);
                } else {
                    assert!(loses || position.offset > 0);
                    device.got.insert(id);
                    let known = device.inbox.get_or_insert(Position { offset: 0, ..position });
                    if known.epoch == position.epoch {
                        known.offset = known.offset.max(position.offset);
                    }
                }
            }
            Got::Published { request, stamp, .. } => {
                let Some(place) = device.unanswered.iter().position(|sent| sent.request == request) else { return };
                let sent = device.unanswered.remove(place);
                self.ledger.see(&topic(sent.topic), stamp.position, sent.id, loses);
                self.ledger.published.push((sent.id, stamp.position.offset, sent.topic));
            }
            Got::Error { request: 1, .. } => session.is_refused = true,
            // It is to be said once more.
            Got::Error { .. } | Got::Goodbye { .. } | Got::Ping | Got::Pong => {}
            other => panic!("{other:?}"),
        }
    }

    fn crash(&mut self, node: usize) {
        self.nodes.crash(node);
        self.left_behind.retain(|(other, _)| *other != node);
        for device in &mut self.devices {
            device.session = device.session.take().filter(|session| session.node != node);
        }
    }

    /// The engine begins new epochs, and has lost nothing.
    fn restart_engine(&mut self) {
        let before = self.nodes.disk.clone();
        self.nodes.disk.begin_epochs_after(&before);
        self.nodes.news.clear();
        self.nodes.change_all();
    }

    /// The engine goes on from what it had a while ago, as after a failover to a replica that lagged.
    fn lose(&mut self, random: &mut Random) {
        match self.replica.take() {
            Some(mut replica) if random.one_in(2) => {
                replica.begin_epochs_after(&self.nodes.disk);
                self.nodes.disk = replica;
                self.nodes.news.clear();
                self.nodes.change_all();
            }
            _ => self.replica = Some(self.nodes.disk.clone()),
        }
    }

    /// Everything works from now on: every device comes back, and every message is published that was not answered.
    pub(crate) fn heal(&mut self) {
        self.nodes.is_away = false;
        let mut random = Random::new(1);
        self.nodes.change_all();
        for round in 0..200 {
            for at in 0..self.devices.len() {
                if self.devices[at].session.is_none() {
                    self.connect(at, at % self.nodes.nodes.len(), &mut random);
                }
                self.nodes.settle();
                self.read(at);
                if round % 10 == 5 {
                    self.publish_again(at);
                }
                self.acknowledge(at);
            }
            self.nodes.pass(200);
            self.nodes.settle();
            self.nodes.check();
        }
    }

    /// What must be true at the end.
    /// Returns how many messages were published.
    pub(crate) fn judge(&self) -> usize {
        for device in &self.devices {
            let name = format!("{} {}", device.user, device.name);
            assert!(device.unanswered.is_empty(), "{name}: {} messages have no answer", device.unanswered.len());
            let session = device.session.as_ref();
            assert!(session.is_some_and(|s| s.is_signed_in && s.room_next.is_some()), "{name} cannot come back");
            let first = device.first.expect("it has connected").offset;
            let is_owed = |offset: u64, topic: usize| USERS.get(topic) == Some(&device.user) && offset > first;
            let published = self.ledger.published.iter();
            let missing: Vec<_> =
                published.filter(|(id, offset, topic)| is_owed(*offset, *topic) && !device.got.contains(id)).collect();
            assert!(self.loses || missing.is_empty(), "{name} misses {missing:?}");
        }
        for (node, client) in &self.left_behind {
            let closed = self.nodes.nodes[*node].closed();
            let reason = closed.iter().find(|(closed, _)| closed == client).map(|(_, reason)| *reason);
            let expected = [CloseReason::TakenOver, CloseReason::InsufficientState, CloseReason::Busy];
            assert!(
                reason.is_some_and(|reason| expected.contains(&reason)),
                "a session that was taken over: {reason:?}"
            );
        }
        let room_ends: BTreeSet<_> =
            self.devices.iter().filter_map(|d| d.room.map(|at| (at.epoch, at.offset))).collect();
        assert_eq!(room_ends.len(), 1, "members of the room stand at {room_ends:?}");
        self.ledger.published.len()
    }
}

fn device_last(device: &Device) -> Unanswered {
    *device.unanswered.last().expect("one was added")
}

fn topic(number: usize) -> String {
    USERS.get(number).map_or_else(|| ROOM.to_owned(), |user| format!("@{user}"))
}
