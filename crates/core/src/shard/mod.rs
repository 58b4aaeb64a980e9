//! A shard: the whole policy of the gateway for the connections of one core, and for the topics whose home it is.
//!
//! Events go in ([`Shard::handle`]), effects come out ([`Shard::poll_effect`]); bytes for sockets wait in outboxes
//! until the shell pulls them ([`Shard::pull`]). No clock, no random numbers, no socket, no thread: the same events
//! at the same times give the same effects. A shard has two sides, which know each other by letters only, also where both
//! are the same shard; `tests/sources.rs` looks:
//!
//! | file | what |
//! |---|---|
//! | `event`, `effect` | what happens to a shard, and what it wants done |
//! | `edge` | a session's side: connections, sign-in, requests, delivery, deadlines |
//! | `home` | a topic's side: order, logs, devices and members, catch-up |
//! | `letter`, `mail` | what the sides tell each other, and how it gets there |
//! | `ways` | what waits on the way to other shards, and when it is too much |
//! | `invariants` | what holds between any two events |

mod edge;
mod effect;
mod event;
mod home;
mod invariants;
mod letter;
mod mail;
#[cfg(test)]
mod tests;
mod ways;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

pub use effect::{
    Asked, ClaimId, CloseRecord, DeviceLeft, Effect, Fence, MemberChange, Origin, ReadId, ReadMessages, ReadRange,
    Record, SignInRecord,
};
pub use event::{
    EngineUnavailable, Event, Present, ReadResult, Remembered, Stored, StoredMessage, Unclaimed, Unstored,
};
use hashbrown::{HashMap, HashSet};
pub use letter::{Letter, Posted, Source, ToEdge, ToHome};
pub use ways::{Credit, Work};

use crate::id::{Address, ConnectionKey, Now, ShardId};
use crate::keyed::{Keyed, keyed};
use crate::limits::Settings;
use crate::metrics::ShardMetrics;
use crate::outbox::{OutboxLimits, Spares};
use crate::session::Connection;
use crate::slots::Slots;
use crate::wheel::Wheel;
use crate::wire::Encoder;
use edge::{DeviceNames, LocalRooms, StartOver};
use home::Homes;
use ways::{Credits, Ways};

/// See the module.
pub struct Shard {
    id: ShardId,
    shards: u16,
    settings: Arc<Settings>,
    metrics: Arc<ShardMetrics>,
    outbox_limits: OutboxLimits,
    hash: Keyed,
    connections: Slots<Connection>,
    wheel: Wheel,
    expired: Vec<u32>,
    stalls: Stalls,
    spares: Spares,
    encoder: Encoder,
    rooms: LocalRooms,
    homes: Homes,
    /// Letters to this shard itself, handled before `handle` returns.
    own_mail: VecDeque<Letter>,
    effects: VecDeque<Effect>,
    devices: DeviceNames,
    ways: Ways,
    credits: Credits,
    /// Requests to homes that are not answered yet.
    asked: usize,
    /// Requests in flight that others may have to wait for, of connections that have any: what they weigh.
    heavy_in_flight: HashMap<ConnectionKey, u8, Keyed>,
    /// Connections that may still turn out to be WebSockets. They are not counted as accepted yet.
    unrecognised: HashSet<ConnectionKey, Keyed>,
    /// When connections were pinged that have not answered with a Pong, in monotonic us.
    pinged: HashMap<ConnectionKey, u64, Keyed>,
    /// Connections whose parked bytes may be read now.
    unparked: Vec<ConnectionKey>,
    start_over: StartOver,
    draining: Option<u32>,
    swept_ms: u64,
}

/// Outboxes that may need a write deadline. Nearly every one is empty again when the shell has sent what was in it; only one that
/// is not needs the deadline. (Moving its entry in the wheel at once cost an idle client's Pong four cache misses.)
#[derive(Debug, Default)]
struct Stalls {
    /// Filled in this turn, empty before it.
    filled: Vec<ConnectionKey>,
    /// Filled in the turn before, and already offered to the socket.
    sent: Vec<ConnectionKey>,
}

/// What a shard needs to be made.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Which one it is.
    pub id: ShardId,
    /// How many there are.
    pub shards: u16,
    /// Shared by all.
    pub settings: Arc<Settings>,
    /// Its own.
    pub metrics: Arc<ShardMetrics>,
    /// Keys every hash; the same for all shards of a node, for they must agree on homes. Where an engine survives a restart, the
    /// same again: it remembers client message ids by hashes.
    pub seed: u64,
    /// The number of this life of the node, never to be given again: what an engine kept of sessions of an earlier one is of
    /// nobody who is here.
    pub run: u64,
}

/// Wheel entries, connections that broadcasts make writable, deliveries of broadcasts, and drained connections that one
/// [`Shard::advance`] handles; broadcasts may go over by a room's portion.
const EXPIRED_PER_TURN: usize = 1024;
const FANOUT_SENDS_PER_TURN: usize = 4096;
const FANOUT_DELIVERIES_PER_TURN: usize = 64 * 1024;
const DRAINED_PER_TURN: u32 = 256;

impl Shard {
    /// A shard without connections.
    pub fn new(options: ShardOptions) -> Self {
        let homes = Homes::new(options.clone());
        let ShardOptions { id, shards, settings, metrics, seed, .. } = options;
        metrics.log_bytes_limit.set(settings.log_bytes_per_shard_max as u64);
        Shard {
            id,
            shards,
            outbox_limits: OutboxLimits {
                bytes_max: settings.client.outbox_bytes_max,
                frames_max: settings.client.outbox_messages_max,
            },
            hash: keyed(seed),
            connections: Slots::default(),
            wheel: Wheel::default(),
            expired: Vec::new(),
            stalls: Stalls::default(),
            spares: Spares::default(),
            encoder: Encoder::default(),
            rooms: LocalRooms::new(seed),
            homes,
            own_mail: VecDeque::new(),
            effects: VecDeque::new(),
            devices: DeviceNames::default(),
            ways: Ways::new(shards),
            credits: Credits::default(),
            asked: 0,
            heavy_in_flight: HashMap::with_hasher(keyed(seed)),
            unrecognised: HashSet::with_hasher(keyed(seed)),
            pinged: HashMap::with_hasher(keyed(seed)),
            unparked: Vec::new(),
            start_over: StartOver::default(),
            draining: None,
            swept_ms: 0,
            settings,
            metrics,
        }
    }

    /// Address of the other end of a connection, as far as is known.
    pub fn peer(&self, connection: ConnectionKey) -> Option<IpAddr> {
        self.connections.get(connection).map(|connection| connection.peer)
    }

    /// An event of this connection is about to come: prefetches its memory.
    pub fn expect(&self, connection: ConnectionKey) {
        self.connections.prefetch(connection.slot);
    }

    /// Takes one event in. Everything that follows from it on this shard has happened when this returns.
    pub fn handle(&mut self, event: Event<'_>, now: Now) {
        match event {
            Event::Opened { connection, peer, transport, is_open_to_websocket } => {
                self.on_opened(connection, peer, transport, is_open_to_websocket, now);
            }
            Event::Forwarded { connection, peer, is_admitted } => self.on_forwarded(connection, peer, is_admitted, now),
            Event::Recognised { connection, transport } => self.on_recognised(connection, transport),
            Event::Secured { connection } => self.on_secured(connection, now),
            Event::Received { connection, bytes } => self.on_received(connection, bytes, now),
            Event::Verified { connection, refresh, result } => self.on_verified(connection, refresh, result, now),
            Event::Ended { connection, reason } => self.on_ended(connection, reason, now),
            Event::Freed { connection } => self.on_freed(connection),
            Event::Appended { through } => self.on_appended(through, now),
            Event::AppendFailed { from } => self.on_append_failed(from, now),
            Event::Loaded { topic, result } => self.on_loaded(&topic, result, now),
            Event::Read { read, result } => self.on_read(read, result, now),
            Event::Claimed { claim, result } => self.on_claimed(claim, result, now),
            Event::Evict { user, device, fence } => self.on_evict(user, device, fence),
            Event::Stored { ticket, result } => self.on_stored(ticket, result, now),
            Event::Arrived { topic, epoch, message } => self.on_arrived(&topic, epoch, *message, now),
            Event::Relayed { topic, frame, origin } => self.on_relayed(&topic, frame, origin, now),
            Event::Changed { topic } => self.on_changed(topic),
            Event::Disconnect { user, device, reason, everywhere } => {
                self.on_disconnect(&user, device, reason, everywhere);
            }
            Event::Present { read, result } => self.on_present(read, result),
            Event::Remember(remembered) => self.on_remember(remembered, now),
            Event::Mail(letter) => self.on_letter(letter, now),
            Event::Drain => self.draining = self.draining.or(Some(0)),
        }
        self.read_own_mail(now);
        self.give_credit_back();
    }

    /// So many letters to another shard, posted with [`Effect::Post`], were not taken by its mailbox; `bytes` is the sum of
    /// [`Letter::bytes`]. While there are too many, requests that need that shard are refused.
    pub fn set_waiting(&mut self, to: ShardId, letters: usize, bytes: usize) {
        self.ways.set_waiting(to, letters, bytes);
    }

    /// Does what time and earlier events have left to do: deadlines, fan-out, draining, forgetting. Bounded; returns
    /// true when there is more to do at once.
    pub fn advance(&mut self, now: Now) -> bool {
        let more = self.expire(now);
        self.work_off(now) | more
    }

    /// Like [`Self::advance`], but without deadlines: bytes that were in time for one may not have been read yet.
    pub fn work_off(&mut self, now: Now) -> bool {
        self.watch_stalled();
        self.read_parked(now);
        let mut more = self.fan_out(now);
        more |= self.start_some_over(now);
        more |= self.drain_some(now);
        if now.mono_ms() >= self.swept_ms + 100 {
            self.swept_ms = now.mono_ms();
            self.sweep_topics(now);
            self.announce_not_come_back(now);
        }
        self.read_own_mail(now);
        self.give_credit_back();
        more
    }

    /// The next thing to do outside.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether [`Self::work_off`] or [`Self::poll_effect`] has something to do at once. Outboxes that may have stalled can wait
    /// for a tick.
    pub fn has_work(&self) -> bool {
        !self.own_mail.is_empty()
            || !self.effects.is_empty()
            || !self.unparked.is_empty()
            || self.rooms.has_jobs()
            || !self.start_over.is_empty()
            || self.has_to_drain()
    }

    /// How much of the broadcasts that one home may owe waits here, in percent.
    pub fn pressure(&self) -> usize {
        self.rooms.pressure()
    }

    /// True once when the logs take more than [`crate::limits::LOG_WARNING_PERCENT`] of what they may: an operator should
    /// know. Again only after they took less than [`crate::limits::LOG_CALM_PERCENT`].
    pub fn passes_log_mark(&mut self) -> bool {
        self.homes.passes_mark()
    }

    /// Lets go of memory that is only kept for the next busy moment.
    pub fn release_spares(&mut self) {
        self.spares = Spares::default();
        self.encoder = Encoder::default();
        self.expired = Vec::new();
        self.stalls.filled.shrink_to_fit();
        self.stalls.sent.shrink_to_fit();
        self.effects.shrink_to_fit();
        self.own_mail.shrink_to_fit();
        self.unparked.shrink_to_fit();
        self.unrecognised.shrink_to_fit();
        self.pinged.shrink_to_fit();
        self.rooms.release_spares();
    }

    /// Connections that are not freed yet.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Answers that the engine owes: the shard is not done while there are any.
    pub fn awaits_engine(&self) -> usize {
        let homes = &self.homes;
        homes.appends.len() + homes.loads.len() + homes.reads.len() + homes.claims.len() + homes.told.len()
    }

    /// Whether [`Self::advance`] will have something to do when time passes: a shard without timers may sleep longer.
    pub fn has_timers(&self) -> bool {
        !self.wheel.is_empty()
    }

    /// Which shard is a user's home.
    fn home_of_user(&self, user: &str) -> ShardId {
        self.home_of_hash(self.hash.hash_one(user))
    }

    /// Which shard is a room's home.
    fn home_of_room(&self, room: &str) -> ShardId {
        self.home_of_hash(self.hash.hash_one(room))
    }

    /// Bits that tables of names do not use: they take the lowest ones for the place and the seven highest ones for tags.
    /// With bits in common, the names of one home would share a part of its table.
    fn home_of_hash(&self, hash: u64) -> ShardId {
        ShardId((((hash >> 32) as u32 & 0xff_ffff) % u32::from(self.shards)) as u16)
    }

    fn home_of_topic(&self, topic: &str) -> ShardId {
        match topic.strip_prefix('@') {
            Some(user) => self.home_of_user(user),
            None => self.home_of_room(topic),
        }
    }

    fn address(&self, connection: ConnectionKey) -> Address {
        Address { shard: self.id, connection }
    }
}
