//! A node without a gateway: an engine, and what its shards were told.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringgate_core::id::{ClientMessageId, Durability, Position, ShardId, Stamp};
use ringgate_core::keyed::keyed;
use ringgate_core::limits::{Engine as Kind, Namespace, Settings};
use ringgate_core::shard::{
    Asked, DeviceLeft, Effect, EngineUnavailable, Event, Fence, Origin, ReadMessages, ReadRange, ReadResult, Record,
    Stored, StoredMessage, Unclaimed, Unstored,
};
use ringgate_core::topics::{DedupKey, DeviceState, LoadedTopic, TopicState};
use ringgate_core::wire::Draft;
use ringgate_redis::{Engine, Homes, Identity, Options, Server, Servers, Status, connect, start};

use ringgate_test_servers::Server as Redis;

pub(crate) const SHARD: ShardId = ShardId(3);
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Told {
    events: Mutex<VecDeque<(ShardId, Event<'static>)>>,
    come: Condvar,
    /// The shards' mailboxes take nothing.
    is_full: AtomicBool,
}

struct Mailboxes(Arc<Told>);

impl Homes for Mailboxes {
    fn tell(&mut self, shard: ShardId, event: Event<'static>) -> Result<(), Event<'static>> {
        if self.0.is_full.load(Ordering::Relaxed) {
            return Err(event);
        }
        self.0.events.lock().expect("no panic").push_back((shard, event));
        Ok(())
    }

    fn wake(&mut self) {
        self.0.come.notify_all();
    }
}

pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) status: Arc<Status>,
    told: Arc<Told>,
    engine: Option<Engine>,
}

/// Without persistence.
pub(crate) fn redis() -> Redis {
    Redis::start(&ringgate_test_servers::Options::default())
}

/// How the server is reached.
pub(crate) fn options(redis: &Redis) -> Options {
    let server = Server { host: "127.0.0.1".to_owned(), port: redis.address().port() };
    Options { servers: Servers::Standalone(server), ..Options::default() }
}

pub(crate) fn settings() -> Settings {
    let vanishing = Namespace { vanish_when_empty: true, ..Namespace::named("brief") };
    let small = Namespace { history_size: 10, ..Namespace::named("small") };
    let long = Namespace { history_size: 1000, ..Namespace::named("long") };
    let namespaces = vec![Namespace::named("chat"), vanishing, small, long];
    Settings { engine: Kind::Shared, namespaces, ..Settings::default() }
}

impl Node {
    pub(crate) fn start(redis: &Redis, number: u16) -> Node {
        Node::with(options(redis), settings(), number)
    }

    pub(crate) fn with(options: Options, settings: Settings, number: u16) -> Node {
        let node = Node::begin(options, settings, number);
        node.wait_until_up();
        node
    }

    /// As [`Self::with`], without waiting until it is up.
    pub(crate) fn begin(options: Options, settings: Settings, number: u16) -> Node {
        let identity = connect(&options, number).expect("Redis takes the node");
        let (told, status) = (Arc::<Told>::default(), Arc::<Status>::default());
        let settings = Arc::new(Settings { node_number: number, ..settings });
        let homes = Mailboxes(told.clone());
        let engine = start(options, identity.clone(), settings, homes, status.clone()).expect("a thread");
        Node { identity, status, told, engine: Some(engine) }
    }

    pub(crate) fn wait_until_up(&self) {
        until("the node is up", || self.status.up.load(Ordering::Relaxed));
    }

    pub(crate) fn wait_until_away(&self) {
        until("the node is away", || !self.status.up.load(Ordering::Relaxed));
    }

    pub(crate) fn fill_mailboxes(&self, is_full: bool) {
        self.told.is_full.store(is_full, Ordering::Relaxed);
    }

    pub(crate) fn stop(mut self) {
        self.engine.take().expect("it runs").stop();
    }

    pub(crate) fn ask(&self, effect: Effect) {
        let engine = self.engine.as_ref().expect("it runs");
        let sender = engine.sender();
        sender.ask(Asked { shard: SHARD, effect }).expect("the engine takes it");
        sender.wake();
    }

    /// As [`Self::ask`], of more than the engine takes at once.
    pub(crate) fn ask_when_there_is_room(&self, effect: Effect) {
        let sender = self.engine.as_ref().expect("it runs").sender();
        let mut asked = Asked { shard: SHARD, effect };
        while let Err(back) = sender.ask(asked) {
            asked = back;
            sender.wake();
            std::thread::yield_now();
        }
        sender.wake();
    }

    /// The first event told, from now or before, of which `wanted` makes something. It is taken out; others stay.
    pub(crate) fn wait_for<T>(&self, what: &str, mut wanted: impl FnMut(&Event<'static>) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.told.events.lock().expect("no panic");
        loop {
            let found = events.iter().enumerate().find_map(|(at, (_, event))| wanted(event).map(|found| (at, found)));
            if let Some((at, found)) = found {
                let (shard, _) = events.remove(at).expect("it is there");
                assert_eq!(shard, SHARD, "{what}");
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: it does not come; there is {events:?}");
            events = self.told.come.wait_timeout(events, left).expect("no panic").0;
        }
    }

    /// What was told so far and not taken.
    pub(crate) fn count(&self, wanted: impl Fn(&Event<'static>) -> bool) -> usize {
        self.told.events.lock().expect("no panic").iter().filter(|(_, event)| wanted(event)).count()
    }

    pub(crate) fn append(&self, record: Record) -> u64 {
        let ticket = next();
        self.ask(Effect::Append { ticket, era: 0, record: Box::new(record) });
        ticket
    }

    pub(crate) fn stored(&self, ticket: u64) -> Result<Stored, Unstored> {
        self.wait_for("an answer to an append", |event| match event {
            Event::Stored { ticket: answered, result } if *answered == ticket => Some(*result),
            _ => None,
        })
    }

    /// Appends, and waits for its place.
    pub(crate) fn store(&self, record: Record) -> Position {
        match self.stored(self.append(record)) {
            Ok(Stored::Now(position)) => position,
            other => panic!("not stored now: {other:?}"),
        }
    }

    pub(crate) fn store_some(&self, topic: &str, count: u64) {
        for number in 0..count {
            self.store(self.record(topic, &number.to_string()));
        }
    }

    pub(crate) fn load(&self, topic: &str) -> Result<LoadedTopic, EngineUnavailable> {
        self.load_above(topic, 0)
    }

    /// Of a topic of which an epoch is known.
    pub(crate) fn load_above(&self, topic: &str, epoch: u64) -> Result<LoadedTopic, EngineUnavailable> {
        self.ask(Effect::Load { topic: topic.into(), epoch });
        self.wait_for("a topic that is loaded", |event| match event {
            Event::Loaded { topic: loaded, result } if **loaded == *topic => {
                Some(result.as_ref().map(|loaded| (**loaded).clone()).map_err(|error| *error))
            }
            _ => None,
        })
    }

    pub(crate) fn loaded(&self, topic: &str) -> LoadedTopic {
        self.load(topic).expect("it is loaded")
    }

    pub(crate) fn read(&self, topic: &str, range: ReadRange, messages_max: usize) -> ReadResult {
        self.read_bytes(topic, range, messages_max, usize::MAX)
    }

    pub(crate) fn read_bytes(
        &self,
        topic: &str,
        range: ReadRange,
        messages_max: usize,
        bytes_max: usize,
    ) -> ReadResult {
        let epoch = self.loaded(topic).position.epoch;
        let messages = ReadMessages { topic: topic.into(), epoch, range, messages_max, bytes_max };
        self.try_read(messages).expect("it is read")
    }

    pub(crate) fn try_read(&self, messages: ReadMessages) -> Result<ReadResult, EngineUnavailable> {
        let read = next();
        self.ask(Effect::Read { read, messages: Box::new(messages) });
        self.wait_for("messages that are read", |event| match event {
            Event::Read { read: answered, result } if *answered == read => {
                Some(result.as_ref().map(|result| (**result).clone()).map_err(|error| *error))
            }
            _ => None,
        })
    }

    pub(crate) fn claim(&self, user: &str, device: &str) -> Fence {
        self.try_claim(user, device).expect("it is claimed")
    }

    pub(crate) fn try_claim(&self, user: &str, device: &str) -> Result<Fence, Unclaimed> {
        let claim = next();
        let session = Origin { run: self.identity.run, session: claim };
        self.ask(Effect::Claim { claim, user: user.into(), device: device.into(), session });
        self.wait_for("a claim", |event| match event {
            Event::Claimed { claim: answered, result } if *answered == claim => Some(*result),
            _ => None,
        })
    }

    pub(crate) fn cursor(&self, topic: &str, epoch: u64, state: TopicState) {
        self.ask(Effect::Cursor { topic: topic.into(), epoch, state: Box::new(state) });
    }

    pub(crate) fn release(&self, user: &str, device: &str, fence: Fence, left: Option<DeviceLeft>) {
        let left = left.map(Box::new);
        self.ask(Effect::Release { user: user.into(), device: device.into(), fence, left });
    }

    pub(crate) fn arrived(&self, topic: &str) -> (u64, StoredMessage) {
        self.wait_for("a message that arrives", |event| match event {
            Event::Arrived { topic: arrived, epoch, message } if **arrived == *topic => {
                Some((*epoch, (**message).clone()))
            }
            _ => None,
        })
    }

    /// A message with a client message id.
    pub(crate) fn record(&self, topic: &str, text: &str) -> Record {
        let id = ClientMessageId { high: 7, low: next() };
        Record { key: Some(self.key(topic, id)), ..self.plain(topic, text) }
    }

    pub(crate) fn key(&self, topic: &str, id: ClientMessageId) -> DedupKey {
        let hash = keyed(self.identity.seed);
        DedupKey::new(&hash, hash.hash_one("alice"), hash.hash_one(("alice", topic)), id)
    }

    /// A message without one.
    pub(crate) fn plain(&self, topic: &str, text: &str) -> Record {
        let stamp = Stamp { position: Position::default(), message_id: next(), timestamp_ms: unix_ms() };
        Record {
            topic: topic.into(),
            position: Position::default(),
            frame: Draft::new(topic, "alice", text.as_bytes(), None).stamp(stamp),
            expires_unix_ms: unix_ms() + 3_600_000,
            own_ttl: false,
            origin: Some(Origin { run: self.identity.run, session: 5 }),
            key: None,
        }
    }
}

/// Sessions in a room, and the names of some, sorted.
pub(crate) fn presence(node: &Node, topic: &str, limit: u32) -> (u32, Vec<String>) {
    let read = next();
    node.ask(Effect::Presence { read, topic: topic.into(), limit });
    node.wait_for("who is in the room", |event| match event {
        Event::Present { read: answered, result } if *answered == read => {
            let present = result.as_ref().expect("it is answered");
            let mut named: Vec<String> =
                present.members.iter().map(|(user, device)| format!("{user}/{device}")).collect();
            named.sort_unstable();
            Some((present.count, named))
        }
        _ => None,
    })
}

pub(crate) fn members_of(node: &Node, topic: &str) -> u32 {
    presence(node, topic, 0).0
}

pub(crate) fn device(name: &str, cursor: u64, fence: Fence) -> DeviceState {
    DeviceState { name: name.into(), cursor, away_since_ms: None, skipped_from: None, fence }
}

pub(crate) fn state_of(devices: Vec<DeviceState>) -> TopicState {
    TopicState { known: true, devices, ..TopicState::default() }
}

/// Never given before in this process, nor in another one.
pub(crate) fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = (u64::from(std::process::id()) << 32) + 1;
    let _ = NEXT.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: it does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) const MEMORY: Durability = Durability::Memory;
