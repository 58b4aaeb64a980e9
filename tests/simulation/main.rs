//! The seeded simulation: several shards of the real core, fake sockets, fake mailboxes, virtual time.
//!
//! Each seed is one schedule of connects, takeovers, publishes, stalls, cuts, forgotten Acks and slow mailboxes. After
//! every step the shards' invariants hold (conservation among them); every frame is checked by the device that gets
//! it; at the end everything calms down and nothing that was accepted may be missing. Replay one seed with
//! `RINGGATE_SEED=<seed> cargo test --no-default-features --test simulation`.

mod device;
mod random;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use device::{Device, News, Pending};
use random::Random;
use ringgate::close::CloseReason;
use ringgate::id::{ClientMessageId, ConnectionKey, Now, Position, ShardId, Stamp};
use ringgate::limits::{CREDIT_DELIVERIES, ClientLimits, Namespace, Settings};
use ringgate::metrics::ShardMetrics;
use ringgate::session::{Grant, Transport};
use ringgate::shard::{Effect, Event, Letter, Shard, ShardOptions};
use ringgate::wheel;
use ringgate::wire::encode::{ConnectRequest, PublishRequest};
use ringgate::wire::{Encoder, Kind};

const ROOMS: [&str; 3] = ["chat:one", "chat:two", "quiet:three"];

struct World {
    random: Random,
    now: Now,
    settings: Arc<Settings>,
    shards: Vec<Shard>,
    metrics: Vec<Arc<ShardMetrics>>,
    /// Letters under way, by sender and receiver; order within a pair is kept.
    mail: BTreeMap<(usize, usize), VecDeque<Letter>>,
    unverified: Vec<VecDeque<(ConnectionKey, Option<u32>, String)>>,
    /// Sockets that the core has asked to close: shard, connection, flush.
    closing: Vec<(usize, ConnectionKey, bool)>,
    devices: Vec<Device>,
    encoder: Encoder,
    generations: u32,
    next_id: u64,
    /// Accepted inbox messages: user -> (epoch, offset) -> id.
    inboxes: BTreeMap<String, BTreeMap<(u64, u64), u64>>,
    answers: BTreeMap<(String, u64), Stamp>,
    refusals: BTreeMap<u16, u64>,
    trims: bool,
}

fn settings(random: &mut Random) -> Settings {
    let mut settings = Settings::default();
    settings.client.outbox_bytes_max = 1500 + random.below(8000);
    settings.client.outbox_frames_max = 4 + random.below(40);
    settings.client.message_bytes_max = 1200;
    settings.client.messages_rate = 0;
    settings.client.bytes_rate = 0;
    settings.client.write_timeout_ms = 20_000;
    settings.client.requests_in_flight_max = 4 + random.below(60);
    settings.inbox.in_flight_max = 1 + random.below(20) as u64;
    settings.inbox.ack_wait_ms = 2_000;
    settings.inbox.ack_wait_ms_max = 8_000;
    settings.namespaces = vec![
        Namespace { history_size: 10_000, join_leave: random.one_in(2), ..Namespace::named("chat") },
        Namespace { history_size: 10_000, vanish_when_empty: true, ..Namespace::named("quiet") },
    ];
    settings
}

impl World {
    fn new(seed: u64) -> World {
        World::with(seed, |_| {})
    }

    /// The same with settings that do not depend on the seed.
    fn with(seed: u64, change: impl FnOnce(&mut Settings)) -> World {
        let mut random = Random::new(seed);
        let mut settings = settings(&mut random);
        if seed % 3 == 1 {
            // Devices are forgotten for each other, and must be told what they lost.
            settings.inbox.devices_max = 1;
        }
        change(&mut settings);
        let trims = random.one_in(5);
        if trims {
            // Logs that lose: holes must be announced, not hidden. Inboxes stay whole, rooms do not.
            for namespace in &mut settings.namespaces {
                namespace.history_size = 1 + random.below(12);
            }
        }
        let settings = Arc::new(settings);
        let count = 1 + random.below(4);
        let metrics: Vec<Arc<ShardMetrics>> = (0..count).map(|_| Arc::default()).collect();
        let shards = (0..count)
            .map(|index| {
                Shard::new(ShardOptions {
                    id: ShardId(index as u16),
                    shards: count as u16,
                    settings: settings.clone(),
                    metrics: metrics[index].clone(),
                    seed,
                })
            })
            .collect();
        let mut devices = Vec::new();
        for user in 0..2 + random.below(6) {
            for device in 0..1 + random.below(2) {
                devices.push(Device::new(&format!("user{user}"), &format!("device{device}")));
            }
        }
        World {
            now: Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 },
            settings,
            shards,
            metrics,
            mail: BTreeMap::new(),
            unverified: (0..count).map(|_| VecDeque::new()).collect(),
            closing: Vec::new(),
            devices,
            encoder: Encoder::default(),
            generations: 0,
            next_id: 0,
            inboxes: BTreeMap::new(),
            answers: BTreeMap::new(),
            refusals: BTreeMap::new(),
            trims,
            random,
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_us += ms * 1000;
        self.now.unix_ms += ms;
    }

    fn handle(&mut self, shard: usize, event: Event<'_>) {
        self.shards[shard].handle(event, self.now);
        self.take_effects(shard);
    }

    fn take_effects(&mut self, shard: usize) {
        while let Some(effect) = self.shards[shard].poll_effect() {
            match effect {
                Effect::Post(posted) => {
                    self.mail.entry((shard, usize::from(posted.to.0))).or_default().push_back(posted.letter);
                }
                Effect::Verify { connection, refresh, token } => {
                    self.unverified[shard].push_back((connection, refresh, token.into()));
                }
                // Sockets are pulled when the schedule says so.
                Effect::Writable { .. } => {}
                Effect::Close { connection, flush, .. } => self.closing.push((shard, connection, flush)),
                Effect::Abort { connection } => self.free(shard, connection),
                // What was received meanwhile is handed out all the same.
                Effect::Hold { .. } => {}
            }
        }
    }

    /// The socket is gone: step three of its end.
    fn free(&mut self, shard: usize, connection: ConnectionKey) {
        self.closing.retain(|(at, key, _)| (*at, *key) != (shard, connection));
        if let Some(device) = self.devices.iter_mut().find(|d| d.connection == Some((shard, connection))) {
            device.lost();
        }
        self.handle(shard, Event::Freed { connection });
    }

    fn connect(&mut self, index: usize) {
        // A device that is connected already takes itself over; its old socket lives on until it is closed.
        let shard = self.random.below(self.shards.len());
        self.generations += 1;
        let connection = ConnectionKey { slot: self.generations % 50 + self.generations / 50 * 50, generation: 1 };
        let peer = IpAddr::from([127, 0, 0, 1]);
        self.handle(shard, Event::Opened { connection, peer, transport: Transport::Plain });
        let resume = self.random.below(3) > 0;
        let device = &mut self.devices[index];
        if let Some((old_shard, old)) = device.connection {
            device.lost();
            if self.random.one_in(2) {
                self.handle(old_shard, Event::Ended { connection: old, reason: CloseReason::ConnectionReset });
            }
        }
        let device = &mut self.devices[index];
        device.connection = Some((shard, connection));
        device.goodbye = None;
        let token = format!("{}|{}", device.user, device.name);
        let inbox = (resume && device.inbox.epoch != 0).then_some(device.inbox);
        let request = ConnectRequest { request: 1, token: &token, device: &device.name, inbox, ..Default::default() };
        let mut bytes = Vec::new();
        self.encoder.connect(&mut bytes, &request);
        self.send(index, &bytes);
    }

    /// Delivers bytes to the gateway in random pieces.
    fn send(&mut self, index: usize, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((shard, connection)) = self.devices[index].connection else { return };
            let take = if self.random.one_in(2) { rest.len() } else { 1 + self.random.below(rest.len()) };
            let (piece, later) = rest.split_at(take);
            self.handle(shard, Event::Received { connection, bytes: piece });
            rest = later;
        }
    }

    fn publish(&mut self, index: usize, topic: String, ephemeral: bool) {
        self.next_id += 1;
        self.publish_again(index, Pending { topic, id: self.next_id }, ephemeral);
    }

    fn publish_again(&mut self, index: usize, pending: Pending, ephemeral: bool) {
        let device = &mut self.devices[index];
        device.next_request += 1;
        let request = device.next_request;
        let mut payload = pending.id.to_le_bytes().to_vec();
        payload.resize(8 + (pending.id as usize * 37) % 900, b'x');
        let mut bytes = Vec::new();
        self.encoder.publish(
            &mut bytes,
            &PublishRequest {
                request,
                topic: &pending.topic,
                client_message_id: ClientMessageId { high: 7, low: pending.id },
                payload: &payload,
                ephemeral,
                ..Default::default()
            },
        );
        device.publishing.insert(request, pending);
        self.send(index, &bytes);
    }

    fn step(&mut self) {
        let index = self.random.below(self.devices.len());
        match self.random.below(20) {
            0 => self.connect(index),
            1 if self.devices[index].connection.is_none() => self.connect(index),
            1 if self.random.one_in(4) => self.cut(index),
            2 | 3 if self.devices[index].ready => {
                let room = ROOMS[self.random.below(ROOMS.len())].to_owned();
                self.join_or_leave(index, room);
            }
            4..=6 if self.devices[index].ready => {
                let to = self.random.below(self.devices.len());
                let topic = format!("@{}", self.devices[to].user);
                let ephemeral = self.random.one_in(8);
                self.publish(index, topic, ephemeral);
            }
            7..=8 if self.devices[index].ready => {
                let rooms: Vec<String> = self.devices[index].rooms.keys().cloned().collect();
                if let Some(room) = rooms.get(self.random.below(rooms.len())).cloned() {
                    self.publish(index, room, false);
                }
            }
            9 => {
                if let Some(pending) = self.devices[index].unanswered.pop()
                    && self.devices[index].ready
                {
                    self.publish_again(index, pending, false);
                }
            }
            10 if self.devices[index].connection.is_some() => {
                self.devices[index].stalled = self.random.one_in(2);
            }
            11 => self.devices[index].forgetful = self.random.one_in(3),
            12 => {
                let ms = if self.random.one_in(20) { 9_000 } else { self.random.below(400) as u64 };
                self.pass(ms);
            }
            _ => {}
        }
        self.shuffle(3);
    }

    fn cut(&mut self, index: usize) {
        if let Some((shard, connection)) = self.devices[index].connection {
            let reason = CloseReason::ConnectionReset;
            self.handle(shard, Event::Ended { connection, reason });
        }
    }

    fn join_or_leave(&mut self, index: usize, room: String) {
        let device = &mut self.devices[index];
        if device.joining.iter().any(|(_, name)| *name == room) || device.leaving.contains(&room) {
            return;
        }
        device.next_request += 1;
        let request = device.next_request;
        let mut bytes = Vec::new();
        if device.rooms.contains_key(&room) {
            device.leaving.push(room.clone());
            self.encoder.unsubscribe(&mut bytes, request, &room);
        } else {
            let since = device.left_at.get(&room).copied();
            device.joining.push((request, room.clone()));
            self.encoder.subscribe(&mut bytes, request, &room, since);
        }
        self.send(index, &bytes);
    }

    /// Lets the machinery run a little, in random order.
    fn shuffle(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let shard = self.random.below(self.shards.len());
            match self.random.below(5) {
                0 => self.advance(shard),
                1 => self.deliver_mail(),
                2 => self.verify(shard),
                3 => self.end_sockets(),
                _ => {
                    let index = self.random.below(self.devices.len());
                    self.pull(index);
                }
            }
        }
    }

    fn advance(&mut self, shard: usize) {
        self.shards[shard].advance(self.now);
        self.take_effects(shard);
    }

    fn deliver_mail(&mut self) {
        let pairs: Vec<_> = self.mail.keys().copied().collect();
        let Some(pair) = pairs.get(self.random.below(pairs.len())).copied() else { return };
        // A mailbox that is full for a while is a pair that is not chosen.
        for _ in 0..1 + self.random.below(8) {
            let Some(letter) = self.mail.get_mut(&pair).and_then(VecDeque::pop_front) else { break };
            self.shards[pair.0].delivered(ShardId(pair.1 as u16), letter.bytes());
            self.handle(pair.1, Event::Mail(letter));
        }
        self.mail.retain(|_, letters| !letters.is_empty());
    }

    fn verify(&mut self, shard: usize) {
        let Some((connection, refresh, token)) = self.unverified[shard].pop_front() else { return };
        let (user, device) = token.split_once('|').expect("tokens of this world");
        let result = Ok(Grant { user: user.into(), expires_at: 0, rooms: None, device: Some(device.into()) });
        self.handle(shard, Event::Verified { connection, refresh, result });
    }

    /// Carries bytes from an outbox to a device that reads.
    fn pull(&mut self, index: usize) {
        let Some((shard, connection)) = self.devices[index].connection else { return };
        if self.devices[index].stalled {
            return;
        }
        let mut news = Vec::new();
        for _ in 0..1 + self.random.below(12) {
            let Some(chunk) = self.shards[shard].pull(connection, self.now) else { break };
            self.devices[index].receive(chunk.bytes(), &mut news);
        }
        self.take_effects(shard);
        for item in news {
            self.learn(index, item);
        }
        let outgoing = std::mem::take(&mut self.devices[index].outgoing);
        self.send(index, &outgoing);
    }

    fn learn(&mut self, index: usize, news: News) {
        match news {
            News::Refused(code) => *self.refusals.entry(code).or_default() += 1,
            News::Accepted { topic, id, stamp, duplicate } => {
                let user = self.devices[index].user.clone();
                match self.answers.insert((format!("{user}>{topic}"), id), stamp) {
                    Some(before) => assert_eq!(before, stamp, "one client message id, two answers"),
                    None => assert!(!duplicate || stamp.message_id != 0),
                }
                if let Some(user) = topic.strip_prefix('@')
                    && stamp.position.offset != 0
                {
                    let place = (stamp.position.epoch, stamp.position.offset);
                    let before = self.inboxes.entry(user.to_owned()).or_default().insert(place, id);
                    assert!(before.is_none_or(|before| before == id), "two messages at {place:?}");
                }
            }
        }
    }

    /// Closes what the core wants closed: flushing ones give their bytes to the device first.
    fn end_sockets(&mut self) {
        let Some((shard, connection, flush)) = self.closing.pop() else { return };
        let index = self.devices.iter().position(|d| d.connection == Some((shard, connection)));
        if flush && let Some(index) = index {
            self.devices[index].stalled = false;
            for _ in 0..20 {
                self.pull(index);
            }
        }
        self.free(shard, connection);
    }

    fn sum(&self, cell: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.metrics.iter().map(|metrics| cell(metrics)).sum()
    }

    fn check(&self) {
        for shard in &self.shards {
            shard.invariants();
        }
    }

    /// All tokens are checked, all letters delivered, all closing sockets closed.
    fn settle(&mut self) {
        for shard in 0..self.shards.len() {
            while !self.unverified[shard].is_empty() {
                self.verify(shard);
            }
            self.advance(shard);
        }
        while !self.mail.is_empty() {
            self.deliver_mail();
        }
        while !self.closing.is_empty() {
            self.end_sockets();
        }
    }

    /// Everybody reads, acknowledges and reconnects; then nothing may be missing.
    fn calm_down(&mut self) {
        for device in &mut self.devices {
            device.forgetful = false;
        }
        for round in 0..400 {
            for index in 0..self.devices.len() {
                self.devices[index].stalled = false;
                if self.devices[index].connection.is_none() {
                    self.connect(index);
                }
                self.pull(index);
                let mut bytes = Vec::new();
                if self.devices[index].ready {
                    Encoder::empty(&mut bytes, Kind::Ping);
                    if self.devices[index].inbox.offset > 0 {
                        Encoder::ack(&mut bytes, self.devices[index].inbox);
                    }
                }
                self.send(index, &bytes);
            }
            self.settle();
            self.pass(100);
            if round % 50 == 0 {
                self.check();
            }
        }
        self.check();
        assert!(self.shards.iter().all(|shard| shard.pressure() == 0), "no broadcast waits any more");
        let most = (self.shards.len() as u64 - 1) * CREDIT_DELIVERIES;
        assert!(self.shards.iter().all(|shard| shard.under_way().0 <= most), "credit came back but for less than a portion");
        assert!(self.shards.iter().all(|shard| shard.under_way().1 == 0), "every request is answered");
        self.nothing_is_missing();
    }

    fn nothing_is_missing(&self) {
        for device in &self.devices {
            assert!(device.ready, "{} {} could not come back: {:?}", device.user, device.name, device.goodbye);
            for (place, id) in self.inboxes.get(&device.user).into_iter().flatten() {
                let payload = device.received.get(place);
                // A device that was never there before the message was acknowledged by all others has no claim.
                if let Some(payload) = payload {
                    assert_eq!(payload.get(..8), Some(&id.to_le_bytes()[..]), "{place:?} of {}", device.user);
                }
            }
        }
        for (user, messages) in &self.inboxes {
            for (place, id) in messages {
                let somebody =
                    self.devices.iter().any(|device| device.user == *user && device.received.contains_key(place));
                assert!(somebody, "message {id} to {user} at {place:?} was accepted and reached nobody");
            }
        }
        let pending = self.sum(|metrics| metrics.inbox_pending.read());
        assert_eq!(pending, 0, "everything was acknowledged");
        let queued = self.sum(|metrics| metrics.deliveries_queued.read());
        let deferred = self.sum(|metrics| metrics.deliveries_deferred.read());
        assert_eq!((queued, deferred), (0, 0), "everything was delivered");
        assert!(self.refusals.keys().all(|code| matches!(code, 105 | 401 | 403)), "{:?}", self.refusals);
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            self.check();
        }
        self.calm_down();
        if !self.trims {
            let lost = self.sum(|metrics| metrics.closes[0][CloseReason::InsufficientState.index()].read());
            assert_eq!(lost, 0, "a log of 10 000 always reaches back");
        }
        assert!(self.settings.inbox.in_flight_max > 0);
    }
}

#[test]
fn two_hundred_seeds() {
    let one = std::env::var("RINGGATE_SEED").ok().map(|seed| seed.parse::<u64>().expect("RINGGATE_SEED is a number"));
    let count = std::env::var("RINGGATE_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(200);
    let seeds = one.map_or(0..count, |seed| seed..seed + 1);
    let mut delivered = 0;
    for seed in seeds {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run(600);
            world.sum(|metrics| metrics.deliveries_sent.read())
        });
        match result {
            Ok(count) => delivered += count,
            Err(panic) => {
                eprintln!("replay with: RINGGATE_SEED={seed} cargo test --no-default-features --test simulation");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(delivered > 0, "the simulation delivered something");
}

/// A world with two devices of two users, where the Acks of the first come too late: `messages` were brought to it, the
/// letter that asks for their repetition is under way, and now it acknowledges up to `acked`. None where its inbox lives
/// on its own shard: the two cannot cross there.
fn ack_that_crosses(seed: u64, messages: usize, acked: u64) -> Option<World> {
    let mut world = World::with(seed, |settings| {
        settings.inbox.in_flight_max = 1000;
        (settings.client.outbox_frames_max, settings.client.outbox_bytes_max) = (1000, 1 << 20);
    });
    let last = world.devices.len() - 1;
    world.devices = vec![world.devices.swap_remove(last), world.devices.swap_remove(0)];
    for index in 0..2 {
        world.connect(index);
        world.settle();
        world.pull(index);
    }
    world.devices[0].forgetful = true;
    let topic = format!("@{}", world.devices[0].user);
    for _ in 0..messages {
        world.publish(1, topic.clone(), false);
        world.settle();
        world.pull(0);
        world.pull(1);
    }
    while world.devices[0].inbox.offset < messages as u64 {
        world.pull(0);
    }
    world.pass(world.settings.inbox.ack_wait_ms + 100);
    let (shard, _) = world.devices[0].connection.unwrap();
    world.advance(shard);
    assert_eq!(world.sum(|m| m.retries.read()), 1);
    if !world.mail.values().flatten().any(|letter| matches!(letter, Letter::CatchUp { .. })) {
        return None;
    }
    let mut ack = Vec::new();
    Encoder::ack(&mut ack, Position { offset: acked, ..world.devices[0].inbox });
    world.send(0, &ack);
    world.settle();
    world.check();
    Some(world)
}

/// What was acknowledged in such worlds does not come again, and everything else does. So many of them must have been found.
fn only_the_rest_comes_again(worlds: impl Iterator<Item = World>, least: usize, rest: u64) {
    let mut count = 0;
    for world in worlds {
        count += 1;
        assert_eq!(world.sum(|m| m.inbox_pending.read()), rest);
        assert_eq!(world.sum(|m| m.messages_replayed.read()), rest);
    }
    assert!(count >= least, "in {count} worlds the two have crossed");
}

#[test]
fn an_ack_that_comes_just_after_its_time_counts() {
    only_the_rest_comes_again((0..40).filter_map(|seed| ack_that_crosses(seed, 1, 1)), 5, 0);
}

/// What comes again comes in parts, and all of the first part has been acknowledged meanwhile.
#[test]
fn a_repetition_goes_on_behind_what_was_acknowledged_meanwhile() {
    only_the_rest_comes_again((0..12).filter_map(|seed| ack_that_crosses(seed, 300, 290)), 2, 10);
}

/// One client that is signed in, and says nothing of itself.
struct Silent {
    world: World,
    shard: usize,
    connection: ConnectionKey,
}

impl Silent {
    fn new(change: impl FnOnce(&mut ClientLimits)) -> Silent {
        let mut world = World::with(1, |settings| {
            settings.client.ping_interval_ms = 10_000;
            change(&mut settings.client);
        });
        world.connect(0);
        world.settle();
        let (shard, connection) = world.devices[0].connection.unwrap();
        while world.shards[shard].pull(connection, world.now).is_some() {}
        Silent { world, shard, connection }
    }

    /// Time goes on, this much from turn to turn, until the client is asked or closed: after how many milliseconds.
    fn wait(&mut self, turn_ms: u64) -> (u64, bool) {
        let began_ms = self.world.now.mono_ms();
        loop {
            self.world.pass(turn_ms);
            self.world.advance(self.shard);
            let waited_ms = self.world.now.mono_ms() - began_ms;
            assert!(waited_ms < 2_000_000, "neither asked nor closed");
            if !self.world.closing.is_empty() {
                return (waited_ms, true);
            }
            if let Some(chunk) = self.world.shards[self.shard].pull(self.connection, self.world.now) {
                assert_eq!(chunk.bytes(), [0, 0, 0, 0, Kind::Ping as u8, 0, 0, 0]);
                return (waited_ms, false);
            }
        }
    }

    fn answer(&mut self) {
        let mut pong = Vec::new();
        Encoder::empty(&mut pong, Kind::ClientPong);
        self.world.handle(self.shard, Event::Received { connection: self.connection, bytes: &pong });
    }
}

/// Late enough to spare those that send their own Pings, early enough for an answer.
#[test]
fn a_silent_client_is_asked_and_then_closed() {
    for (missed_pings_max, asked_ms, closed_ms) in [(2, 15_000, 5_000), (3, 25_000, 5_000), (100, 25_000, 975_000)] {
        let mut client = Silent::new(|limits| limits.missed_pings_max = missed_pings_max);
        for _ in 0..4 {
            assert_eq!(client.wait(wheel::TICK_MS), (asked_ms, false), "of {missed_pings_max}");
            client.answer();
        }
        assert_eq!(client.wait(wheel::TICK_MS), (asked_ms, false), "of {missed_pings_max}");
        assert_eq!(client.wait(wheel::TICK_MS), (closed_ms, true), "of {missed_pings_max}");
    }
}

#[test]
fn whoever_is_asked_has_the_time_that_it_was_promised() {
    let mut client = Silent::new(|limits| limits.pong_timeout_ms = 8_000);
    assert_eq!(client.wait(wheel::TICK_MS), (22_000, false));
    // A gateway that was held up: its next look comes when the client should have been closed long ago.
    let mut client = Silent::new(|limits| limits.pong_timeout_ms = 3_000);
    assert_eq!(client.wait(40_000), (40_000, false));
    assert_eq!(client.wait(wheel::TICK_MS), (5_000, true));
    // Half an interval is no longer than the steps in which time is measured.
    let mut client = Silent::new(|limits| (limits.ping_interval_ms, limits.pong_timeout_ms) = (100, 50));
    assert_eq!(client.wait(wheel::TICK_MS), (250, false));
    client.answer();
    assert!(!client.wait(wheel::TICK_MS + 1).1);
}
