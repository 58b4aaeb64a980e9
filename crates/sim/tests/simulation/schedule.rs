//! A schedule: shards, mailboxes and engines that go on at random, and the clients.

use std::collections::BTreeMap;

use ringgate_core::close::{CloseReason, ErrorCode};
use ringgate_core::id::{ClientMessageId, Position, Recover, ShardId};
use ringgate_core::limits::{self, CREDIT_DELIVERIES, Namespace, Settings};
use ringgate_core::metrics::DropReason;
use ringgate_core::shard::Event;
use ringgate_core::transport::Transport;
use ringgate_core::wire::encode::{ConnectRequest, HistoryRequest, PublishRequest};
use ringgate_core::wire::{Encoder, Kind, RoomCursor};
use ringgate_sim::{Client, Closing, Engine, Mailboxes, Random, Tokens as Verifying, World};

use crate::device::Device;
use crate::ledger::Ledger;
use crate::promises;
use crate::tokens::Tokens;

const ROOMS: [&str; 7] =
    ["chat:one", "chat:two", "quiet:three", "guarded:four", "guarded:five", "loose:six", "nowhere:seven"];

pub(crate) struct Schedule {
    pub(crate) world: World,
    pub(crate) random: Random,
    pub(crate) mailboxes: Mailboxes,
    engines: Vec<Engine>,
    /// Until when a shard does not read its mail, in unix milliseconds.
    jammed: Vec<u64>,
    connections: u64,
    pub(crate) devices: Vec<Device>,
    pub(crate) ledger: Ledger,
    tokens: Tokens,
    /// Logs are so short that they lose messages.
    trims: bool,
    /// Tokens that are given out do not end any more.
    calm: bool,
}

fn settings(random: &mut Random) -> Settings {
    let mut settings = Settings::default();
    settings.client.outbox_bytes_max = 1500 + random.below(8000);
    settings.client.outbox_messages_max = 4 + random.below(40);
    settings.client.message_bytes_max = 1200;
    settings.client.messages_rate = 0;
    settings.client.bytes_rate = 0;
    settings.client.write_timeout_ms = 20_000;
    settings.client.requests_in_flight_max = 4 + random.below(60);
    settings.inbox.in_flight_max = 1 + random.below(20) as u64;
    settings.inbox.ack_wait_ms = 2_000;
    settings.inbox.ack_wait_ms_max = 8_000;
    settings.inbox.publish_all = !random.one_in(4);
    settings.namespaces = vec![
        Namespace {
            history_size: 10_000,
            join_leave: random.one_in(2),
            echo: !random.one_in(3),
            ..Namespace::named("chat")
        },
        Namespace { history_size: 10_000, vanish_when_empty: true, ..Namespace::named("quiet") },
        Namespace { history_size: 10_000, subscribe_all: false, publish_all: false, ..Namespace::named("guarded") },
        Namespace { history_size: 0, presence: false, publish_without_subscribe: true, ..Namespace::named("loose") },
    ];
    settings
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Schedule {
        Schedule::with(seed, |_| {})
    }

    /// A schedule with settings that do not depend on the seed.
    pub(crate) fn with(seed: u64, change: impl FnOnce(&mut Settings)) -> Schedule {
        let mut random = Random::new(seed);
        let mut settings = settings(&mut random);
        let trims = random.one_in(5);
        if trims {
            // Logs that lose: what is gone must be announced, not hidden.
            for namespace in settings.namespaces.iter_mut().filter(|namespace| namespace.history_size > 0) {
                namespace.history_size = 1 + random.below(12);
            }
            if random.one_in(2) {
                settings.inbox.messages_max = 1 + random.below(30);
            }
        }
        if promises::LOSSES_ARE_TOLD_UNTIL_HEARD && seed % 3 == 1 {
            // Devices are forgotten for each other, and must be told what they lost.
            settings.inbox.devices_max = 1;
        }
        if seed % 3 == 2 {
            settings.engine = limits::Engine::Store;
        }
        change(&mut settings);
        let count = 1 + random.below(4);
        let mut world = World::seeded(count, settings, seed);
        world.tokens = Verifying::WhenAsked;
        let mut devices = Vec::new();
        let users = 2 + random.below(6);
        for user in 0..users {
            for device in 0..1 + random.below(2) {
                devices.push(Device::new(&format!("user{user}"), &format!("device{device}")));
            }
        }
        Schedule {
            ledger: Ledger::new(world.settings.clone(), random.one_in(2)),
            world,
            mailboxes: Mailboxes::new(count, 1 + random.below(24)),
            engines: (0..count).map(|_| Engine::default()).collect(),
            jammed: vec![0; count],
            connections: 0,
            devices,
            tokens: Tokens::new(users),
            trims,
            calm: false,
            random,
        }
    }

    pub(crate) fn step(&mut self) {
        let index = self.random.below(self.devices.len());
        let room = ROOMS[self.random.below(ROOMS.len())];
        let may_ask = self.may_ask(index);
        match self.random.below(24) {
            0 => self.connect(index),
            1 if self.devices[index].connection.is_none() => self.connect(index),
            1 if self.random.one_in(4) => self.cut(index),
            2..=4 if may_ask => self.join_or_leave(index, room),
            5..=7 if may_ask => {
                let to = self.random.below(self.devices.len());
                let topic = format!("@{}", self.devices[to].user);
                let ephemeral = self.random.one_in(8);
                self.publish(index, &topic, ephemeral);
            }
            8..=9 if may_ask => {
                let joined: Vec<String> = self.devices[index].rooms.keys().cloned().collect();
                let joined = joined.get(self.random.below(joined.len())).filter(|_| !self.random.one_in(4));
                let room = joined.map_or(room, |joined| joined);
                let ephemeral = self.random.one_in(8);
                self.publish(index, room, ephemeral);
            }
            10 => self.repeat(index),
            11 if may_ask => self.repeat_needlessly(index),
            12 if self.devices[index].connection.is_some() => {
                self.devices[index].stalled = self.random.one_in(2);
            }
            13 => self.devices[index].forgetful = self.random.one_in(3),
            14 => {
                let ms = if self.random.one_in(20) { 9_000 } else { self.random.below(400) as u64 };
                self.world.pass(ms);
            }
            15 | 16 if may_ask => self.history(index),
            17 if may_ask => {
                let limit = self.random.below(5) as u32;
                self.ask_presence(index, room, limit);
            }
            18 if may_ask => self.refresh(index),
            19 => {
                let shard = self.random.below(self.world.shards.len());
                self.jammed[shard] = self.world.now.unix_ms + self.random.below(1500) as u64;
            }
            _ => {}
        }
        self.shuffle(4);
    }

    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            self.world.check();
        }
        self.calm_down();
    }

    pub(crate) fn connect(&mut self, index: usize) {
        // A device that is connected already takes itself over; its old socket lives on until it is closed.
        let shard = self.random.below(self.world.shards.len());
        self.connections += 1;
        let client = self.world.open(shard);
        self.distribute();
        if let Some(old) = self.devices[index].connection {
            self.devices[index].lost(&self.ledger);
            if self.random.one_in(2) {
                self.end(old);
            }
        }
        let unix_ms = self.world.now.unix_ms;
        let device = &mut self.devices[index];
        let resumes = self.random.below(3) > 0;
        let inbox = (resumes && device.inbox.epoch != 0).then_some(device.inbox);
        let mut rooms = Vec::new();
        if self.random.one_in(3) {
            for room in ROOMS {
                if self.random.one_in(2) {
                    continue;
                }
                let since = device.left_at.get(room).copied().filter(|_| self.random.below(3) > 0);
                rooms.push((room.to_owned(), since, recover(&mut self.random)));
            }
        }
        let token = self.tokens.good(&mut self.random, &device.user, &device.name, unix_ms, self.calm);
        device.connection = Some(client);
        let request = device.connecting(self.connections, &token, inbox, rooms.clone(), &mut self.ledger, unix_ms);
        // Where a test gives the gateway a large window, it wants it whole.
        let window_max = self.ledger.settings.inbox.in_flight_max as usize;
        let receive_window = if window_max < 100 { self.random.below(12) as u32 } else { 0 };
        let rooms: Vec<_> =
            rooms.iter().map(|(room, since, recover)| RoomCursor { room, since: *since, recover: *recover }).collect();
        let connect = ConnectRequest {
            request,
            token: &token.text,
            device: &device.name,
            inbox,
            rooms: &rooms,
            receive_window,
            ..Default::default()
        };
        let mut bytes = Vec::new();
        self.world.encoder.connect(&mut bytes, &connect);
        self.send(index, &bytes);
    }

    /// Whether a device may send a request now: right behind Connect, too.
    fn may_ask(&self, index: usize) -> bool {
        self.devices[index].connection.is_some()
    }

    pub(crate) fn send(&mut self, index: usize, bytes: &[u8]) {
        self.devices[index].outgoing.extend_from_slice(bytes);
        self.flush(index);
    }

    /// Delivers to the gateway what a device has sent, in random pieces, unless nothing is to be received from it.
    fn flush(&mut self, index: usize) {
        let Some(client) = self.devices[index].connection else { return };
        // What the socket had received already comes all the same.
        if self.world.held.contains(&client) && !self.random.one_in(4) {
            return;
        }
        let bytes = std::mem::take(&mut self.devices[index].outgoing);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && self.devices[index].connection == Some(client) {
            let take = if self.random.one_in(2) { rest.len() } else { 1 + self.random.below(rest.len()) };
            let (piece, later) = rest.split_at(take);
            self.receive(client, piece);
            rest = later;
        }
    }

    pub(crate) fn publish(&mut self, index: usize, topic: &str, ephemeral: bool) {
        let user = self.devices[index].user.clone();
        let with_id = !self.random.one_in(8);
        let ttl_seconds = if self.ledger.ttls && self.random.one_in(4) { 1 + self.random.below(3) as u32 } else { 0 };
        let number = self.ledger.write(&user, topic, with_id, ephemeral, ttl_seconds);
        self.publish_number(index, number);
    }

    fn publish_number(&mut self, index: usize, number: u64) {
        let request = self.devices[index].ask_publish(number, &mut self.ledger);
        let sent = self.ledger.message(number);
        let id = ClientMessageId { high: if sent.id == 0 { 0 } else { 7 }, low: sent.id };
        let trace = Ledger::trace(number);
        let mut bytes = Vec::new();
        self.world.encoder.publish(
            &mut bytes,
            &PublishRequest {
                request,
                topic: &sent.topic,
                client_message_id: id,
                payload: &Ledger::payload(number),
                ephemeral: sent.ephemeral,
                ttl_seconds: sent.ttl_seconds,
                trace: trace.as_deref(),
            },
        );
        self.send(index, &bytes);
    }

    fn join_or_leave(&mut self, index: usize, room: &str) {
        let device = &mut self.devices[index];
        let mut bytes = Vec::new();
        let leaves = device.rooms.contains_key(room) != self.random.one_in(12);
        if leaves {
            let request = device.ask_to_leave(room, &self.ledger);
            self.world.encoder.unsubscribe(&mut bytes, request, room);
        } else {
            let since = device.left_at.get(room).copied().filter(|_| self.random.below(5) > 0);
            let cursor = RoomCursor { room, since, recover: recover(&mut self.random) };
            let request = device.ask_to_join(cursor, &self.ledger, self.world.now.unix_ms);
            self.world.encoder.subscribe(&mut bytes, request, cursor);
        }
        self.send(index, &bytes);
    }

    fn history(&mut self, index: usize) {
        let device = &self.devices[index];
        let (topic, known) = match self.random.below(10) {
            0 => (format!("@{}", self.devices[self.random.below(self.devices.len())].user), None),
            1..=3 => (format!("@{}", device.user), Some(device.inbox).filter(|inbox| inbox.epoch != 0)),
            _ => {
                let room = ROOMS[self.random.below(ROOMS.len())];
                let joined = device.rooms.get(room).map(|room| room.position);
                (room.to_owned(), joined.or(device.left_at.get(room).copied()))
            }
        };
        let back = self.random.below(30) as u64;
        let place = known
            .filter(|_| self.random.below(4) > 0)
            .map(|known| Position { offset: known.offset.saturating_sub(back), ..known });
        let limit = self.random.below(12) as u32;
        let (since, before) = if self.random.one_in(3) { (None, place) } else { (place, None) };
        self.ask_history(index, &topic, since, before, limit);
    }

    fn ask_history(
        &mut self,
        index: usize,
        topic: &str,
        since: Option<Position>,
        before: Option<Position>,
        limit: u32,
    ) {
        let request =
            self.devices[index].ask_history(topic, since, before, limit, &self.ledger, self.world.now.unix_ms);
        let mut bytes = Vec::new();
        self.world.encoder.history(&mut bytes, &HistoryRequest { request, topic, since, before, limit });
        self.send(index, &bytes);
    }

    fn ask_presence(&mut self, index: usize, room: &str, limit: u32) {
        let request = self.devices[index].ask_presence(room, limit, &self.ledger);
        let mut bytes = Vec::new();
        self.world.encoder.presence(&mut bytes, request, room, limit);
        self.send(index, &bytes);
    }

    fn refresh(&mut self, index: usize) {
        let device = &mut self.devices[index];
        if device.is_refreshing() {
            return;
        }
        let token = self.tokens.for_refresh(&mut self.random, &device.user, &device.name, self.world.now.unix_ms);
        let request = device.ask_refresh(&token, &self.ledger);
        let mut bytes = Vec::new();
        self.world.encoder.refresh(&mut bytes, request, &token.text);
        self.send(index, &bytes);
    }

    /// The next publish whose answer was lost is sent again.
    fn repeat(&mut self, index: usize) {
        if self.may_ask(index)
            && let Some(number) = self.devices[index].unanswered.pop()
        {
            self.publish_number(index, number);
        }
    }

    /// A device that has forgotten that it was answered.
    fn repeat_needlessly(&mut self, index: usize) {
        let pick = self.random.below(1000);
        if let Some(number) = self.ledger.stored_of(&self.devices[index].user, pick) {
            self.publish_number(index, number);
        }
    }

    fn cut(&mut self, index: usize) {
        let Some(client) = self.devices[index].connection else { return };
        if self.random.one_in(4) && self.devices[index].ready {
            let mut bytes = Vec::new();
            Encoder::empty(&mut bytes, Kind::Disconnect);
            self.send(index, &bytes);
        } else {
            self.end(client);
        }
    }
    /// Hands a shard an event; letters go on their way, messages to the engine.
    pub(crate) fn handle(&mut self, shard: usize, event: Event<'_>) {
        self.world.handle(shard, event);
        self.distribute();
    }

    /// Moves what shards want into mailboxes and engines. The rest waits in the world until the schedule says so.
    fn distribute(&mut self) {
        self.world.mail.drain(..).for_each(|sent| self.mailboxes.post(sent));
        for append in self.world.appends.drain(..) {
            self.engines[append.shard].give(append);
        }
    }

    fn receive(&mut self, client: Client, bytes: &[u8]) {
        self.world.receive(client, bytes);
        self.distribute();
    }

    /// The client's socket is reset.
    fn end(&mut self, client: Client) {
        self.world.end(client, CloseReason::ConnectionReset);
        self.distribute();
    }

    /// The socket is gone: step three of its end.
    fn free(&mut self, client: Client) {
        if let Some(device) = self.devices.iter_mut().find(|device| device.connection == Some(client)) {
            device.lost(&self.ledger);
        }
        self.world.free(client);
        self.distribute();
    }

    /// Lets the machinery run a little, in random order.
    fn shuffle(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let shard = self.random.below(self.world.shards.len());
            match self.random.below(9) {
                7 => self.work_of_engine(shard),
                8 => self.hear_engine(shard),
                0 => self.advance(shard),
                1 => self.send_mail(shard),
                2 if self.world.now.unix_ms < self.jammed[shard] => {}
                2 => self.read_mail(shard),
                3 => drop(self.verify(shard)),
                4 => self.end_sockets(),
                _ => {
                    let index = self.random.below(self.devices.len());
                    self.pull(index);
                }
            }
        }
    }

    pub(crate) fn advance(&mut self, shard: usize) {
        self.world.turn(shard);
        self.distribute();
    }

    fn send_mail(&mut self, shard: usize) {
        for (to, (letters, bytes)) in self.mailboxes.send(shard).into_iter().enumerate() {
            self.world.shards[shard].set_waiting(ShardId(to as u16), letters, bytes);
        }
    }

    fn read_mail(&mut self, shard: usize) {
        for _ in 0..1 + self.random.below(16) {
            let Some(letter) = self.mailboxes.take(shard) else { break };
            self.handle(shard, Event::Mail(letter));
        }
    }

    /// The engine stores some of what it was given, or fails.
    fn work_of_engine(&mut self, shard: usize) {
        if self.random.one_in(30) {
            self.engines[shard].fail(&mut self.random);
        } else {
            let count = self.random.below(12);
            self.engines[shard].store(count);
        }
    }

    fn hear_engine(&mut self, shard: usize) {
        if let Some(event) = self.engines[shard].answer() {
            self.handle(shard, event);
            assert!(self.engines[shard].is_idle() || self.world.settings.engine == limits::Engine::Store);
        }
    }

    /// Messages that engines stored, and their failures.
    pub(crate) fn engines_did(&self) -> (u64, u64) {
        self.engines
            .iter()
            .fold((0, 0), |(stored, failures), engine| (stored + engine.stored, failures + engine.failures))
    }

    fn verify(&mut self, shard: usize) -> bool {
        let any = self.world.verify(shard, |token| self.tokens.verify(token));
        self.distribute();
        any
    }

    /// Carries bytes from an outbox to a device that reads, and what it answers back.
    pub(crate) fn pull(&mut self, index: usize) {
        let Some(client) = self.devices[index].connection else { return };
        if self.devices[index].stalled {
            return self.flush(index);
        }
        for _ in 0..1 + self.random.below(12) {
            let (device, unix_ms) = (&mut self.devices[index], self.world.now.unix_ms);
            if !self.world.pull(client, |bytes| device.receive(bytes, &mut self.ledger, unix_ms)) {
                break;
            }
        }
        self.devices[index].read_ms = self.world.now.unix_ms;
        self.world.take_effects(client.shard);
        self.distribute();
        self.flush(index);
    }

    /// Closes what the core wants closed: flushing ones give their bytes to the device first.
    fn end_sockets(&mut self) {
        let Some(Closing { client, flush, .. }) = self.world.closing.pop_back() else { return };
        let index = self.devices.iter().position(|device| device.connection == Some(client));
        if flush && let Some(index) = index {
            self.devices[index].stalled = false;
            for _ in 0..20 {
                self.pull(index);
            }
        }
        self.free(client);
    }

    /// All tokens are checked, all letters delivered, all closing sockets closed.
    pub(crate) fn settle(&mut self) {
        for shard in 0..self.world.shards.len() {
            while self.verify(shard) {}
            self.advance(shard);
        }
        while self.mailboxes.letters().next().is_some() || !self.engines.iter().all(Engine::is_idle) {
            let shard = self.random.below(self.world.shards.len());
            self.send_mail(shard);
            self.read_mail(shard);
            self.engines[shard].store(usize::MAX);
            self.hear_engine(shard);
        }
        while !self.world.closing.is_empty() {
            self.end_sockets();
        }
    }
    /// Everybody reads, acknowledges, reconnects and repeats; then nothing may be missing.
    fn calm_down(&mut self) {
        self.calm = true;
        for device in &mut self.devices {
            device.forgetful = false;
        }
        self.rounds(400);
        self.world.check();
        assert!(self.world.shards.iter().all(|shard| shard.pressure() == 0), "no broadcast waits any more");
        let most = (self.world.shards.len() as u64 - 1) * CREDIT_DELIVERIES;
        let owed = self.world.shards.iter().all(|shard| shard.under_way().0 <= most);
        assert!(owed, "credit came back but for less than a portion");
        assert!(self.world.shards.iter().all(|shard| shard.under_way().1 == 0), "every request is answered");
        assert!(self.world.shards.iter().all(|shard| shard.appends() == 0), "the engine owes nothing");
        for index in 0..self.devices.len() {
            self.devices[index].presence.clear();
            for room in ROOMS {
                self.ask_presence(index, room, 1000);
                self.rounds(1);
                self.ask_history(index, room, None, None, 20);
                self.rounds(1);
            }
            let inbox = format!("@{}", self.devices[index].user);
            self.ask_history(index, &inbox, None, None, 20);
        }
        self.rounds(10);
        self.nothing_is_missing();
    }

    fn rounds(&mut self, count: usize) {
        for round in 0..count {
            for index in 0..self.devices.len() {
                self.devices[index].stalled = false;
                if self.devices[index].connection.is_none() {
                    self.connect(index);
                }
                self.pull(index);
                if self.devices[index].ready {
                    self.repeat(index);
                    Encoder::empty(&mut self.devices[index].outgoing, Kind::Ping);
                    self.devices[index].acknowledge(&mut self.ledger);
                    self.flush(index);
                }
            }
            self.settle();
            self.world.pass(100);
            if round % 50 == 0 {
                self.world.check();
            }
        }
    }

    fn nothing_is_missing(&mut self) {
        for device in &self.devices {
            device.finish(&mut self.ledger, self.world.now.unix_ms);
        }
        self.ledger.judge();
        if self.world.settings.engine == limits::Engine::Store {
            for (topic, epoch, offset) in self.ledger.kept() {
                let is_stored = self.engines.iter().any(|engine| engine.has(topic, epoch, offset));
                assert!(is_stored, "{topic} {epoch}/{offset} was seen, and the engine does not have it");
            }
        }
        self.everybody_knows_who_is_there();
        let pending = self.world.sum(|metrics| &metrics.inbox_pending);
        assert_eq!(pending, 0, "everything was acknowledged");
        let queued = self.world.sum(|metrics| &metrics.deliveries_queued);
        let deferred = self.world.sum(|metrics| &metrics.deliveries_deferred);
        assert_eq!((queued, deferred), (0, 0), "everything was delivered");
        let dropped = self.world.sum(|metrics| &metrics.deliveries_dropped[DropReason::Slow]);
        assert!(self.ledger.counts.dropped <= dropped, "rooms without a log miss more than was dropped");
        self.metrics_agree();
        if !self.trims && !self.ledger.ttls {
            let lost = self.world.sum(|metrics| &metrics.closes[Transport::Plain][CloseReason::InsufficientState]);
            assert_eq!(lost, 0, "a log of 10 000 always reaches back");
        }
    }

    /// What the shards have counted is what the clients have seen; more only where an answer was lost with its connection.
    fn metrics_agree(&self) {
        let counts = &self.ledger.counts;
        let stored = self.world.sum(|metrics| &metrics.inbox_stored);
        match self.world.settings.engine {
            limits::Engine::Memory => {
                // Of an inbox that was forgotten since, nobody may know the last messages.
                let (known, unknown) = (self.ledger.stored_in_inboxes(), self.ledger.unseen_in_inboxes());
                assert!((known..=known + unknown).contains(&stored), "{stored} stored: {known}, {unknown} unseen");
            }
            limits::Engine::Store => {
                assert_eq!(stored, self.engines.iter().map(Engine::stored_in_inboxes).sum::<u64>());
            }
        }
        let published = self.world.sum(|metrics| &metrics.messages_published);
        assert!((counts.published..=self.ledger.sent()).contains(&published), "{published} published: {counts:?}");
        let hits = self.world.sum(|metrics| &metrics.dedup_hits);
        assert!(hits >= counts.repetitions, "{hits} repetitions: {counts:?}");
        let denied = self.world.sum(|metrics| &metrics.errors[ErrorCode::PermissionDenied]);
        assert!(denied >= counts.denied, "{denied} denied: {counts:?}");
    }

    fn everybody_knows_who_is_there(&self) {
        let dropped = self.world.sum(|metrics| &metrics.deliveries_dropped[DropReason::Slow]);
        for room in ROOMS {
            let there = |device: &&Device| device.rooms.contains_key(room);
            let name = |device: &Device| (device.user.clone(), device.name.clone());
            let members: BTreeMap<_, _> = self.devices.iter().map(|d| (name(d), there(&d))).collect();
            for device in &self.devices {
                if let Some(answer) = device.presence.get(room) {
                    let mut answer = answer.clone();
                    answer.sort();
                    let right: Vec<_> =
                        members.iter().filter(|(_, there)| **there).map(|(name, _)| name.clone()).collect();
                    assert_eq!(answer, right, "who is in {room}");
                }
                let events = device.rooms.get(room).map(|room| &room.events).into_iter().flatten();
                for (other, joined) in events.filter(|_| dropped == 0) {
                    let right = *other == name(device) || members.get(other) == Some(joined);
                    assert!(right, "the last that {} heard of {other:?} in {room}: {joined}", device.user);
                }
            }
        }
    }
}

/// What a subscriber wishes to be brought when the log does not reach back.
fn recover(random: &mut Random) -> Recover {
    if random.one_in(3) { Recover::Best } else { Recover::Exact }
}
