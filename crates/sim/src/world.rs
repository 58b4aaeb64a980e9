//! The shards of one node in virtual time, without sockets and threads.
//!
//! Events go into a shard by [`World::handle`]. What it then wants of the outside waits in the queues of [`World`] until a test, a
//! bench or a schedule does it, in the order and at the time that it chooses: letters in `mail`, tokens in `unverified`,
//! messages for the engine in `appends`, sockets to close in `closing`. Some of it may be done at once instead, by
//! [`Tokens`], [`Reading`] and [`Storage`].

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;

use ringgate_core::close::{AuthError, CloseReason};
use ringgate_core::id::{ConnectionKey, Now, ShardId};
use ringgate_core::limits::Settings;
use ringgate_core::metrics::{Cell, ShardMetrics};
use ringgate_core::outbox::Chunk;
use ringgate_core::session::Grant;
use ringgate_core::shard::{
    ClaimId, DeviceLeft, Effect, Event, Fence, Letter, MemberChange, Origin, ReadId, ReadMessages, Record, Shard,
    ShardOptions,
};
use ringgate_core::slots::next_generation;
use ringgate_core::topics::TopicState;
use ringgate_core::transport::Transport;
use ringgate_core::wire::Encoder;

use crate::disk::Disk;

/// Milliseconds between two sweeps of a shard's topics.
const SWEEP_MS: u64 = 100;
/// When a node starts: 1 s of its monotonic clock, in January 2027.
pub const START: Now = Now { mono_us: 1_000_000, unix_ms: 1_800_000_000_000 };

/// See the module.
pub struct World {
    /// What the shards were made with.
    pub settings: Arc<Settings>,
    /// By number.
    pub shards: Vec<Shard>,
    /// One for each shard.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// What every shard is told that the time is.
    pub now: Now,
    /// When tokens are verified. At once by default, by [`user_of_token`].
    pub tokens: Tokens,
    /// When outboxes are read. When asked by default.
    pub reading: Reading,
    /// Letters under way, in the order in which they were posted.
    pub mail: VecDeque<Sent>,
    /// Tokens that wait, oldest first.
    pub unverified: VecDeque<Unverified>,
    /// When an engine answers. At once by default, but for appends.
    pub storage: Storage,
    /// What the engine has, if it answers at once.
    pub disk: Disk,
    /// Messages that the engine was given and that were not taken from here, oldest first.
    pub appends: VecDeque<Append>,
    /// What the engine was asked for, see [`Storage::WhenAsked`], oldest first.
    pub calls: VecDeque<Call>,
    /// Sockets that a shard wants closed and that are not freed yet, in the order in which it said so.
    pub closing: VecDeque<Closing>,
    /// Sockets from which nothing more is to be received.
    pub held: Vec<Client>,
    /// For frames of clients.
    pub encoder: Encoder,
    /// Of each shard: keys of freed sockets, whose slots are given out again.
    free: Vec<Vec<ConnectionKey>>,
    /// Of each shard: slots that were ever used.
    slots: Vec<u32>,
    seed: u64,
    /// How often the node was started.
    run: u64,
}

/// A connection of some shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The shard's number.
    pub shard: usize,
    /// What the shard calls it.
    pub connection: ConnectionKey,
}

/// When tokens are verified.
#[derive(Clone, Copy, Debug)]
pub enum Tokens {
    /// At once, by this function.
    AtOnce(fn(&str) -> Result<Grant, AuthError>),
    /// They wait in [`World::unverified`].
    WhenAsked,
}

/// When outboxes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As soon as a shard says that they can be; what is in them is dropped.
    AtOnce,
    /// By [`World::pull`].
    WhenAsked,
}

/// When an engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Topics are loaded and messages read at once, from [`World::disk`]; messages that are to be stored wait in
    /// [`World::appends`] for [`World::store`].
    AtOnce,
    /// Everything waits in [`World::calls`].
    WhenAsked,
}

/// What a shard has asked the engine for.
#[derive(Debug)]
pub struct Call {
    /// The shard's number.
    pub shard: usize,
    /// What is to be done.
    pub task: Task,
}

/// What an engine is to do, as the effects of the same names say.
#[derive(Debug)]
#[allow(missing_docs, reason = "fields of the effects")]
pub enum Task {
    Append(Append),
    Load { topic: Arc<str>, epoch: u64 },
    Read { read: ReadId, messages: Box<ReadMessages> },
    Cursor { topic: Arc<str>, epoch: u64, state: Box<TopicState> },
    Unload { topic: Arc<str> },
    Claim { claim: ClaimId, user: Arc<str>, device: Arc<str>, session: Origin },
    Release { user: Arc<str>, device: Arc<str>, fence: Fence, left: Option<Box<DeviceLeft>> },
    Relay { topic: Arc<str>, frame: Bytes, origin: Origin },
    Disconnect { user: Arc<str>, device: Option<Arc<str>>, reason: CloseReason },
    Members { topic: Arc<str>, count: u32, changes: Vec<MemberChange>, anew: bool },
    Presence { read: ReadId, topic: Arc<str>, limit: u32 },
}

/// A letter under way.
#[derive(Debug)]
pub struct Sent {
    /// The number of the shard that posted it.
    pub from: usize,
    /// The number of the shard that is to get it.
    pub to: usize,
    /// The letter.
    pub letter: Letter,
}

/// A token that waits.
#[derive(Debug)]
pub struct Unverified {
    /// The client that sent it.
    pub client: Client,
    /// The request, if it came with Refresh.
    pub refresh: Option<u32>,
    /// As the client sent it.
    pub token: Box<str>,
}

/// A message for the engine.
#[derive(Debug)]
pub struct Append {
    /// The number of the shard that is the home of its topic.
    pub shard: usize,
    /// Grows by one from message to message of the shard.
    pub ticket: u64,
    /// How often the engine of the shard had failed, as far as the shard knew.
    pub era: u32,
    /// The message.
    pub record: Record,
}

/// A socket that is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Whose.
    pub client: Client,
    /// Why.
    pub reason: CloseReason,
    /// Whether the outbox is read first.
    pub flush: bool,
}

/// A user of this name without any restriction.
pub fn user_of_token(token: &str) -> Result<Grant, AuthError> {
    Ok(Grant { user: token.to_owned(), expires_at: 0, rooms: None, device: None })
}

impl World {
    /// So many shards without connections, with 1 as their seed.
    pub fn new(shards: usize, settings: Settings) -> World {
        World::seeded(shards, settings, 1)
    }

    /// Shards with a seed, which decides on which of them topics have their homes.
    pub fn seeded(shards: usize, settings: Settings, seed: u64) -> World {
        let mut world = World {
            settings: Arc::new(settings),
            shards: Vec::new(),
            metrics: Vec::new(),
            now: START,
            tokens: Tokens::AtOnce(user_of_token),
            reading: Reading::WhenAsked,
            mail: VecDeque::new(),
            unverified: VecDeque::new(),
            storage: Storage::AtOnce,
            disk: Disk::default(),
            appends: VecDeque::new(),
            calls: VecDeque::new(),
            closing: VecDeque::new(),
            held: Vec::new(),
            encoder: Encoder::default(),
            free: Vec::new(),
            slots: Vec::new(),
            seed,
            run: 0,
        };
        world.boot(shards, seed);
        world
    }

    /// The node ends without a word and is started again: nothing is left of it but what the engine has stored. Sockets are gone, and
    /// what was under way between shards.
    pub fn restart(&mut self) {
        self.mail.clear();
        self.unverified.clear();
        self.appends.clear();
        self.calls.clear();
        self.closing.clear();
        self.held.clear();
        self.boot(self.shards.len(), self.seed);
        let window_ms = self.settings.dedup_window_ms;
        let remembered = self.disk.remembered(self.now.unix_ms.saturating_sub(window_ms));
        for shard in 0..self.shards.len() {
            self.handle(shard, Event::Remember(remembered.clone()));
        }
    }

    fn boot(&mut self, shards: usize, seed: u64) {
        self.run += 1;
        self.metrics = (0..shards).map(|_| Arc::default()).collect();
        let options = |index: usize, metrics: &Arc<ShardMetrics>| ShardOptions {
            id: ShardId(index as u16),
            shards: shards as u16,
            settings: self.settings.clone(),
            metrics: metrics.clone(),
            seed,
            run: u64::from(self.settings.node_number) << 32 | self.run,
        };
        let shards = self.metrics.iter().enumerate().map(|(index, metrics)| Shard::new(options(index, metrics)));
        self.shards = shards.collect();
        self.free = self.shards.iter().map(|_| Vec::new()).collect();
        self.slots = vec![0; self.shards.len()];
    }

    // Events and effects.

    /// Hands a shard an event, and takes what it wants done.
    pub fn handle(&mut self, shard: usize, event: Event<'_>) {
        self.shards[shard].handle(event, self.now);
        self.take_effects(shard);
    }

    /// Takes what a shard wants done; false if there was nothing.
    pub fn take_effects(&mut self, shard: usize) -> bool {
        let mut any = false;
        while let Some(effect) = self.shards[shard].poll_effect() {
            any = true;
            self.on_effect(shard, effect);
        }
        any
    }

    fn on_effect(&mut self, shard: usize, effect: Effect) {
        match effect {
            Effect::Writable { connection } => match self.reading {
                Reading::AtOnce => while self.pull(Client { shard, connection }, |_| {}) {},
                Reading::WhenAsked => {}
            },
            Effect::Post(posted) => {
                self.mail.push_back(Sent { from: shard, to: usize::from(posted.to.0), letter: posted.letter });
            }
            Effect::Verify { connection, refresh, token } => match self.tokens {
                Tokens::AtOnce(verify) => {
                    let result = verify(&token);
                    self.shards[shard].handle(Event::Verified { connection, refresh, result }, self.now);
                }
                Tokens::WhenAsked => {
                    self.unverified.push_back(Unverified { client: Client { shard, connection }, refresh, token });
                }
            },
            Effect::Append { ticket, era, record } => {
                let append = Append { shard, ticket, era, record: *record };
                match self.storage {
                    Storage::AtOnce => self.appends.push_back(append),
                    Storage::WhenAsked => self.call(shard, Task::Append(append)),
                }
            }
            Effect::Load { topic, epoch } => match self.storage {
                Storage::AtOnce => {
                    let result = Ok(Box::new(self.disk.load(&topic, self.now.unix_ms)));
                    self.shards[shard].handle(Event::Loaded { topic, result }, self.now);
                }
                Storage::WhenAsked => self.call(shard, Task::Load { topic, epoch }),
            },
            Effect::Read { read, messages } => match self.storage {
                Storage::AtOnce => {
                    let result = Ok(Box::new(self.disk.read(&messages, self.now.unix_ms)));
                    self.shards[shard].handle(Event::Read { read, result }, self.now);
                }
                Storage::WhenAsked => self.call(shard, Task::Read { read, messages }),
            },
            Effect::Cursor { topic, epoch, state } => match self.storage {
                Storage::AtOnce => self.disk.set_state(&topic, &state),
                Storage::WhenAsked => self.call(shard, Task::Cursor { topic, epoch, state }),
            },
            Effect::Unload { topic } => match self.storage {
                Storage::AtOnce => {}
                Storage::WhenAsked => self.call(shard, Task::Unload { topic }),
            },
            // Only where nodes share the engine.
            Effect::Claim { claim, user, device, session } => {
                self.call(shard, Task::Claim { claim, user, device, session });
            }
            Effect::Release { user, device, fence, left } => {
                self.call(shard, Task::Release { user, device, fence, left });
            }
            Effect::Members { topic, count, changes, anew } => {
                self.call(shard, Task::Members { topic, count, changes, anew });
            }
            Effect::Presence { read, topic, limit } => self.call(shard, Task::Presence { read, topic, limit }),
            Effect::Disconnect { user, device, reason } => {
                self.call(shard, Task::Disconnect { user, device, reason });
            }
            Effect::Relay { topic, frame, origin } => self.call(shard, Task::Relay { topic, frame, origin }),
            Effect::Close { connection, reason, flush, .. } => {
                self.closing.push_back(Closing { client: Client { shard, connection }, reason, flush });
            }
            Effect::Abort { connection } => {
                let client = Client { shard, connection };
                self.closing.iter_mut().filter(|closing| closing.client == client).for_each(|c| c.flush = false);
            }
            Effect::Hold { connection, hold } => {
                let client = Client { shard, connection };
                self.held.retain(|held| *held != client);
                if hold {
                    self.held.push(client);
                }
            }
            Effect::SignedIn { .. } => {}
        }
    }

    fn call(&mut self, shard: usize, task: Task) {
        self.calls.push_back(Call { shard, task });
    }

    /// The engine stores so many of the messages in [`Self::appends`], oldest first, and says so.
    pub fn store(&mut self, count: usize) {
        for Append { shard, ticket, record, .. } in self.appends.drain(..count).collect::<Vec<_>>() {
            self.disk.append(&record, self.now.unix_ms);
            self.handle(shard, Event::Appended { through: ticket });
        }
        self.work();
    }

    /// Verifies the oldest token of a shard; false if none waits.
    pub fn verify(&mut self, shard: usize, verify: impl FnOnce(&str) -> Result<Grant, AuthError>) -> bool {
        let Some(at) = self.unverified.iter().position(|waiting| waiting.client.shard == shard) else { return false };
        let Some(Unverified { client, refresh, token }) = self.unverified.remove(at) else { return false };
        self.handle(shard, Event::Verified { connection: client.connection, refresh, result: verify(&token) });
        true
    }

    // Sockets.

    /// A socket is accepted, in a slot that is free.
    pub fn accept(&mut self, shard: usize, transport: Transport) -> Client {
        let connection = match self.free[shard].pop() {
            Some(used) => ConnectionKey { generation: next_generation(used.generation), ..used },
            None => {
                let slot = self.slots[shard];
                self.slots[shard] += 1;
                ConnectionKey { slot, generation: 1 }
            }
        };
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.handle(shard, Event::Opened { connection, peer, transport, is_open_to_websocket: false });
        Client { shard, connection }
    }

    /// Bytes of a client have come, as one segment.
    pub fn receive(&mut self, client: Client, bytes: &[u8]) {
        self.handle(client.shard, Event::Received { connection: client.connection, bytes });
    }

    /// Takes the next chunk out of the client's outbox and shows it; false if it is empty. What the shard wants done because of that
    /// is not taken yet.
    pub fn pull(&mut self, client: Client, see: impl FnOnce(&[u8])) -> bool {
        let shard = &mut self.shards[client.shard];
        let Some(chunk) = shard.pull(client.connection, self.now) else { return false };
        see(chunk.bytes());
        if let Chunk::Control(buffer) = chunk {
            shard.recycle(buffer);
        }
        true
    }

    /// The client's stream ends, or its socket fails.
    pub fn end(&mut self, client: Client, reason: CloseReason) {
        self.handle(client.shard, Event::Ended { connection: client.connection, reason });
    }

    /// The socket is closed: its slot is given out again.
    pub fn free(&mut self, client: Client) {
        self.closing.retain(|closing| closing.client != client);
        self.held.retain(|held| *held != client);
        self.handle(client.shard, Event::Freed { connection: client.connection });
        self.free[client.shard].push(client.connection);
    }

    /// Sockets that are to be closed, and why, in order.
    pub fn closed(&self) -> Vec<(Client, CloseReason)> {
        self.closing.iter().map(|closing| (closing.client, closing.reason)).collect()
    }

    // Time and mail.

    /// Both clocks go on; no shard has looked at them yet.
    pub fn pass(&mut self, ms: u64) {
        self.pass_us(ms * 1000);
    }

    /// Both clocks go on, by microseconds: the wall clock shows only whole milliseconds.
    pub fn pass_us(&mut self, us: u64) {
        let before_ms = self.now.mono_ms();
        self.now.mono_us += us;
        self.now.unix_ms += self.now.mono_ms() - before_ms;
    }

    /// What a shard does at the end of a turn, deadlines included; true when it has more to do at once.
    pub fn turn(&mut self, shard: usize) -> bool {
        let more = self.shards[shard].advance(self.now);
        self.take_effects(shard);
        more
    }

    /// What a shard does at the end of a turn while deadlines may not be looked at; true when it has more to do at once.
    pub fn work_off(&mut self, shard: usize) -> bool {
        let more = self.shards[shard].work_off(self.now);
        self.take_effects(shard);
        more
    }

    /// Delivers the oldest letter; false if there is none.
    pub fn deliver(&mut self) -> bool {
        let Some(Sent { to, letter, .. }) = self.mail.pop_front() else { return false };
        self.handle(to, Event::Mail(letter));
        true
    }

    /// Delivers every letter, and those that follow from them.
    pub fn settle(&mut self) {
        while self.deliver() {}
    }

    /// Letters and broadcasts, until nothing is left to do at this moment. Sweeps only if [`Self::pass`] went far enough.
    pub fn work(&mut self) {
        self.settle();
        loop {
            let mut more = false;
            for shard in 0..self.shards.len() {
                more |= self.work_off(shard);
            }
            more |= !self.mail.is_empty();
            self.settle();
            if !more {
                return;
            }
        }
    }

    /// Lets age work on the topics, so many times; time goes on.
    pub fn sweep(&mut self, times: usize) {
        for _ in 0..times {
            self.pass(SWEEP_MS);
            self.work();
        }
    }

    /// Every deadline of connections that has passed.
    pub fn advance(&mut self) {
        for shard in 0..self.shards.len() {
            while self.turn(shard) {}
        }
        self.work();
    }

    // What tests look at.

    /// Panics when a shard is broken.
    pub fn check(&self) {
        for shard in &self.shards {
            shard.invariants();
        }
    }

    /// A figure, summed over the shards.
    pub fn sum(&self, cell: impl Fn(&ShardMetrics) -> &Cell) -> u64 {
        self.metrics.iter().fold(0, |sum, metrics| sum.wrapping_add(cell(metrics).read()))
    }
}
