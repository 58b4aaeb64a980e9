//! A shard: the whole policy of the gateway for the connections of one core, and for the topics whose home it is.
//!
//! Events go in ([`Shard::handle`]), effects come out ([`Shard::poll_effect`]); bytes for sockets wait in outboxes
//! until the shell pulls them ([`Shard::pull`]). No clock, no random numbers, no socket, no thread: the same events
//! at the same times give the same effects. Split by concern:
//!
//! | file | what |
//! |---|---|
//! | `receive` | bytes -> frames -> requests; rates |
//! | `carried` | bytes of TLS records beyond what is in them |
//! | `signin` | Connect, tokens, Refresh |
//! | `publish` | Publish, on the publisher's side and at the topic's home |
//! | `inbox` | a session's own inbox: live, acknowledged, repeated |
//! | `rooms`, `jobs` | a session's rooms, the members of rooms on this shard, and broadcasts that wait for their turn |
//! | `home` | topics whose home is here |
//! | `ways` | what waits on the way to other shards, and when it is too much |
//! | `timers` | heartbeats and every other deadline of a connection |
//! | `leave` | closing, draining |

mod carried;
mod home;
mod inbox;
mod jobs;
mod leave;
mod letter;
mod publish;
mod receive;
mod rooms;
mod signin;
mod timers;
mod ways;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};
pub use letter::{Letter, Posted, Source};
pub use ways::{Credit, Work};

use crate::close::{CloseReason, ErrorCode};
use crate::id::{Address, ConnectionKey, Now, ShardId, TopicKey};
use crate::keyed::{Keyed, keyed};
use crate::limits::{ASKED_MAX, Settings};
use crate::metrics::{DropReason, ShardMetrics};
use crate::outbox::{Chunk, Delivery, OutboxLimits, REPLY, Spares};
use crate::session::{AuthError, Bucket, Connection, Grant, Lag, Session, Transport};
use crate::slots::Slots;
use crate::wheel::Wheel;
use crate::wire::{Encoder, encode};
use home::Homes;
use rooms::{Broadcast, LocalRooms};
use signin::DeviceNames;
use ways::{Credits, Ways};

/// What happens to a shard.
#[derive(Debug)]
pub enum Event<'a> {
    /// A socket was accepted and admitted.
    Opened {
        /// Chosen by the shell.
        connection: ConnectionKey,
        /// Who is at the other end.
        peer: IpAddr,
        /// TCP or TLS.
        transport: Transport,
    },
    /// The TLS handshake is over.
    Secured {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Bytes came, after TLS.
    Received {
        /// The connection.
        connection: ConnectionKey,
        /// Where the kernel put them.
        bytes: &'a [u8],
    },
    /// The answer to [`Effect::Verify`].
    Verified {
        /// The connection.
        connection: ConnectionKey,
        /// Set when the token came with Refresh.
        refresh: Option<u32>,
        /// What the token says.
        result: Result<Grant, AuthError>,
    },
    /// The peer closed, or the socket failed.
    Ended {
        /// The connection.
        connection: ConnectionKey,
        /// What it was.
        reason: CloseReason,
    },
    /// The socket is closed, nothing of it is in the kernel any more.
    Freed {
        /// The connection.
        connection: ConnectionKey,
    },
    /// A letter from another shard.
    Mail(Letter),
    /// The node shuts down: every client is told to go.
    Drain,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Effect {
    /// Put a letter into another shard's mailbox.
    Post(Posted),
    /// Verify a token and come back with [`Event::Verified`].
    Verify {
        /// The connection.
        connection: ConnectionKey,
        /// Set when the token came with Refresh.
        refresh: Option<u32>,
        /// As the client sent it.
        token: Box<str>,
    },
    /// The outbox is no longer empty; pull it.
    Writable {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Close the socket: after the outbox is sent if `flush`, else at once. Ends in [`Event::Freed`].
    Close {
        /// The connection.
        connection: ConnectionKey,
        /// Why.
        reason: CloseReason,
        /// Send what is in the outbox first.
        flush: bool,
        /// For the log line.
        record: Box<CloseRecord>,
    },
    /// A session has begun.
    SignedIn {
        /// The connection.
        connection: ConnectionKey,
        /// For the log line.
        record: Box<SignInRecord>,
    },
    /// A flushing close took too long: close at once.
    Abort {
        /// The connection.
        connection: ConnectionKey,
    },
    /// Receive nothing more from this socket, or go on.
    Hold {
        /// The connection.
        connection: ConnectionKey,
        /// False to go on.
        hold: bool,
    },
}

/// What a log line about a new session says.
#[derive(Debug)]
pub struct SignInRecord {
    /// User id.
    pub user: Arc<str>,
    /// Device.
    pub device: Arc<str>,
    /// What the client calls itself; empty if it does not say.
    pub client: Box<str>,
    /// The other end.
    pub peer: IpAddr,
    /// TCP or TLS.
    pub transport: Transport,
}

/// What a log line about a closed connection says.
#[derive(Debug)]
pub struct CloseRecord {
    /// User id, if it was signed in.
    pub user: Option<Arc<str>>,
    /// Device, likewise.
    pub device: Option<Arc<str>>,
    /// The other end.
    pub peer: IpAddr,
    /// TCP or TLS.
    pub transport: Transport,
    /// More than the reason's label, where there is more to say.
    pub detail: &'static str,
}

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
    /// Rooms in which a device was taken over and has not joined again.
    expecting: HashSet<TopicKey, Keyed>,
    /// Requests to homes that are not answered yet.
    asked: usize,
    /// Requests in flight that others may have to wait for, of connections that have any: what they weigh.
    heavy_in_flight: HashMap<ConnectionKey, u8, Keyed>,
    /// When connections were pinged that have not answered with a Pong, in monotonic us.
    pinged: HashMap<ConnectionKey, u64, Keyed>,
    /// Connections whose parked bytes may be read on.
    unparked: Vec<ConnectionKey>,
    draining: Option<u32>,
    swept_ms: u64,
}

/// Outboxes to be looked at: nearly every one is empty again when the shell has sent what there was, and only one that is
/// not needs a deadline. (Moving its entry in the wheel at once cost an idle client's Pong four cache misses.)
#[derive(Debug, Default)]
struct Stalls {
    /// They were empty before this turn.
    filled: Vec<ConnectionKey>,
    /// Filled in the turn before: the shell has had its chance to empty them.
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
    /// Keys every hash; the same for all shards of a node, for they must agree on homes.
    pub seed: u64,
}

/// What the requests in flight that others may have to wait for weigh, when the next request has to: two with large answers,
/// or a Refresh, whose rights the next request is judged by.
const WEIGHT_MAX: u8 = 2;
const WEIGHT_OF_LARGE: u8 = 1;
/// More than everything else that may be in flight with it, so that it can be told.
const WEIGHT_OF_REFRESH: u8 = 2 * WEIGHT_MAX;

/// Wheel entries, connections that broadcasts make writable, deliveries of broadcasts, and drained connections that one
/// [`Shard::advance`] handles; broadcasts may go over by a room's portion.
const EXPIRED_PER_TURN: usize = 1024;
const FANOUT_SENDS_PER_TURN: usize = 4096;
const FANOUT_DELIVERIES_PER_TURN: usize = 64 * 1024;
const DRAINED_PER_TURN: u32 = 256;

impl Shard {
    /// A shard without connections.
    pub fn new(options: ShardOptions) -> Self {
        let ShardOptions { id, shards, settings, metrics, seed } = options;
        metrics.log_bytes_limit.set(settings.log_bytes_per_shard_max as u64);
        Shard {
            id,
            shards,
            outbox_limits: OutboxLimits {
                bytes_max: settings.client.outbox_bytes_max,
                frames_max: settings.client.outbox_frames_max,
            },
            hash: keyed(seed),
            connections: Slots::default(),
            wheel: Wheel::default(),
            expired: Vec::new(),
            stalls: Stalls::default(),
            spares: Spares::default(),
            encoder: Encoder::default(),
            rooms: LocalRooms::new(seed),
            homes: Homes::new(id, shards, &settings, seed),
            own_mail: VecDeque::new(),
            effects: VecDeque::new(),
            devices: DeviceNames::default(),
            ways: Ways::new(shards),
            credits: Credits::default(),
            expecting: HashSet::with_hasher(keyed(seed)),
            asked: 0,
            heavy_in_flight: HashMap::with_hasher(keyed(seed)),
            pinged: HashMap::with_hasher(keyed(seed)),
            unparked: Vec::new(),
            draining: None,
            swept_ms: 0,
            settings,
            metrics,
        }
    }

    /// An event of this connection is about to come: has its memory brought.
    pub fn expect(&self, connection: ConnectionKey) {
        self.connections.prefetch(connection.slot);
    }

    /// Takes one event in. Everything that follows from it on this shard has happened when this returns.
    pub fn handle(&mut self, event: Event<'_>, now: Now) {
        match event {
            Event::Opened { connection, peer, transport } => self.on_opened(connection, peer, transport, now),
            Event::Secured { connection } => self.on_secured(connection, now),
            Event::Received { connection, bytes } => self.on_received(connection, bytes, now),
            Event::Verified { connection, refresh, result } => self.on_verified(connection, refresh, result, now),
            Event::Ended { connection, reason } => self.on_ended(connection, reason, now),
            Event::Freed { connection } => self.on_freed(connection),
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

    /// The same without the deadlines of clients, who may have been in time for one that has passed.
    pub fn work_off(&mut self, now: Now) -> bool {
        self.watch_stalled();
        self.read_parked(now);
        let mut more = self.fan_out(now);
        more |= self.drain_some(now);
        if now.mono_ms() >= self.swept_ms + 100 {
            self.swept_ms = now.mono_ms();
            self.homes.sweep(&self.settings, &self.metrics, now);
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

    /// The next bytes for this socket, control frames first; none when its outbox is empty.
    pub fn pull(&mut self, key: ConnectionKey, now: Now) -> Option<Chunk> {
        let connection = self.connections.get_mut(key)?;
        let Some(chunk) = connection.outbox.pull(&mut self.spares, now.mono_ms()) else {
            connection.writable = false;
            return None;
        };
        if let Chunk::Data(delivery) = &chunk
            && delivery.received_us != REPLY
        {
            self.metrics.frames_sent.increment();
            self.metrics.deliveries_sent.increment();
            self.metrics.deliveries_queued.subtract(1);
            if delivery.received_us != 0 {
                self.metrics.delivery_duration.record_us(now.mono_us.saturating_sub(delivery.received_us));
            }
        }
        let bytes = chunk.bytes().len();
        self.metrics.bytes_sent.add(bytes as u64);
        self.metrics.outbox_bytes.subtract(bytes as u64);
        if connection.is_parked() {
            self.unparked.push(key);
        }
        let lags =
            connection.session.as_ref().is_some_and(|session| session.lagging > 0 || session.inbox.lag != Lag::None);
        if lags && connection.outbox.is_drained(self.outbox_limits) {
            self.catch_up(key);
            self.read_own_mail(now);
        }
        Some(chunk)
    }

    /// The peer has taken a part of what was pulled: it reads, however slowly.
    pub fn progressed(&mut self, key: ConnectionKey, now: Now) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.outbox.progressed(now.mono_ms());
        }
    }

    /// Gives the memory of a sent control chunk back.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.spares.recycle(buffer);
    }

    /// Whether [`Self::work_off`] or [`Self::poll_effect`] has something to do at once. Outboxes that may have stalled can wait
    /// for a tick.
    pub fn has_work(&self) -> bool {
        !self.own_mail.is_empty()
            || !self.effects.is_empty()
            || !self.unparked.is_empty()
            || self.rooms.has_jobs()
            || self.has_to_drain()
    }

    /// How much of the broadcasts that one home may owe waits here, in percent.
    pub fn pressure(&self) -> usize {
        self.rooms.pressure()
    }

    /// True once when the logs take more than [`crate::limits::LOG_WARNING_PERCENT`] of what they may: an operator should
    /// know. Again only after they took less than [`crate::limits::LOG_CALM_PERCENT`].
    pub fn passes_log_mark(&mut self) -> bool {
        self.homes.passes_mark(&self.settings, &self.metrics)
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
        self.pinged.shrink_to_fit();
        self.rooms.release_spares();
    }

    /// Connections that are not freed yet.
    pub fn connections(&self) -> usize {
        self.connections.len()
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

    // Inlined, a letter is written where it will lie, and not copied while its parts are still on their way to memory.
    #[inline(always)]
    fn post(&mut self, to: ShardId, letter: Letter) {
        if to == self.id {
            self.own_mail.push_back(letter);
        } else {
            self.metrics.mesh_sent.increment();
            self.effects.push_back(Effect::Post(Posted { to, letter }));
        }
    }

    /// Posts a request that the home will answer.
    fn ask(&mut self, home: ShardId, letter: Letter) {
        self.asked += 1;
        self.post(home, letter);
    }

    /// Why a request to that home is refused at once, if it is: too much is on its way there, or too many answers are
    /// expected.
    fn way_is_full(&self, home: ShardId) -> Option<ErrorCode> {
        let full = home != self.id && (self.ways.is_full(home) || self.asked >= ASKED_MAX);
        full.then_some(ErrorCode::Overloaded)
    }

    /// Whether a letter to that shard would be the next one that is read here: then it need not be written down. Asked for
    /// letters of the most frequent kinds.
    fn reads_at_once(&self, to: ShardId) -> bool {
        to == self.id && self.own_mail.is_empty()
    }

    fn read_own_mail(&mut self, now: Now) {
        while let Some(letter) = self.own_mail.pop_front() {
            self.on_letter(letter, now);
        }
    }

    fn on_letter(&mut self, letter: Letter, now: Now) {
        match letter {
            Letter::Attach(attach) => self.on_attach(*attach, now),
            Letter::Detach { home, from } => self.homes.detach(home, from, now),
            Letter::Publish(publish) => {
                if let Some(key) = publish.dedup_key {
                    self.homes.dedup.prefetch(key);
                }
                self.on_publish_at_home(*publish, now);
            }
            Letter::Copy(copy) => self.on_copy(*copy, now),
            Letter::Ack { home, from, offset } => self.homes.acknowledge(home, from, offset, &self.metrics, now),
            Letter::CatchUp { topic, from, since } => self.on_catch_up(topic, from, since, now),
            Letter::Subscribe(subscribe) => self.on_subscribe_at_home(*subscribe, now),
            Letter::Unsubscribe { home, from, taken_over } => {
                self.on_unsubscribe_at_home(home, from, taken_over, now);
            }
            Letter::Presence { room, from, request, limit } => self.on_presence_at_home(room, from, request, limit),
            Letter::History(history) => self.on_history_at_home(*history, now),
            Letter::Attached { to, at, home, attachment } => self.on_attached(to, at, home, &attachment, now),
            Letter::Refused { to, reason } => self.close(to, reason, "", now),
            Letter::Published(published) => self.on_published(&published, now),
            Letter::Failed { to, request, code } => self.on_failed(to, request, code, now),
            Letter::Deliver { to, offset, delivery } => self.on_deliver(to, offset, delivery, now),
            Letter::CaughtUp { to, topic: Source::Inbox(_), gap } => self.on_inbox_caught_up(to, *gap, now),
            Letter::CaughtUp { to, topic: Source::Room { local, .. }, gap } => {
                self.on_room_caught_up(to, local, *gap, now);
            }
            Letter::Subscribed(subscribed) => {
                self.asked -= 1;
                self.on_subscribed(&subscribed, now);
            }
            Letter::PresenceResult(result) => {
                self.asked -= 1;
                self.answered_heavy(result.to, WEIGHT_OF_LARGE);
                self.reply(result.to, now, |encoder, out| {
                    let members = result.members.iter().map(|(user, device)| (&**user, &**device));
                    encoder.presence_result(out, result.request, &result.room, result.count, members);
                });
            }
            Letter::HistoryResult(result) => {
                self.asked -= 1;
                self.answered_heavy(result.to, WEIGHT_OF_LARGE);
                self.reply(result.to, now, |encoder, out| {
                    let letter::HistoryResult { request, position, more, recovered, .. } = *result;
                    let (topic, frames) = (&*result.topic, &*result.frames);
                    let fields = encode::HistoryResult { request, topic, position, frames, more, recovered };
                    encoder.history_result(out, &fields);
                });
            }
            Letter::Fanout { local, offset, logged, delivery, without, home, room, work } => {
                let broadcast = Broadcast { offset, logged, delivery, without, home, room, work };
                if !self.rooms.enqueue(local, broadcast) {
                    self.credits.add(home, room, work);
                }
            }
            Letter::Credit { from, credit } => self.on_credit(from, &credit),
        }
    }

    /// A request of this session has its answer.
    fn answered(&mut self, key: ConnectionKey) {
        if let Some(session) = self.session_mut(key) {
            session.in_flight = session.in_flight.saturating_sub(1);
        }
    }

    /// A request that others of its connection may have to wait for is under way; see `receive`.
    fn begin_heavy(&mut self, key: ConnectionKey, weight: u8) {
        *self.heavy_in_flight.entry(key).or_default() += weight;
    }

    /// Whether the session waits for the answer to a Refresh.
    fn is_refreshing(&self, key: ConnectionKey) -> bool {
        self.heavy_in_flight.get(&key).is_some_and(|weight| *weight >= WEIGHT_OF_REFRESH)
    }

    /// Such a request has its answer.
    fn answered_heavy(&mut self, key: ConnectionKey, weight: u8) {
        self.answered(key);
        if let Entry::Occupied(mut in_flight) = self.heavy_in_flight.entry(key) {
            *in_flight.get_mut() -= weight;
            if *in_flight.get() == 0 {
                in_flight.remove();
            }
        }
        self.wake_parked(key);
    }

    fn session_mut(&mut self, key: ConnectionKey) -> Option<&mut Session> {
        self.connections.get_mut(key)?.session.as_mut()
    }

    /// Appends one control frame to a connection that is not being torn down. The lane of control frames has no bound of
    /// its own: a connection with many of them is read no further, see `receive`.
    fn reply(&mut self, key: ConnectionKey, now: Now, build: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| !connection.is_closing()) else {
            return;
        };
        let was_empty = connection.outbox.is_empty();
        let out = connection.outbox.control(&mut self.spares, now.mono_ms());
        let before = out.len();
        build(&mut self.encoder, out);
        self.metrics.outbox_bytes.add((out.len() - before) as u64);
        self.metrics.frames_sent.increment();
        self.mark_writable(key, was_empty);
    }

    /// Appends a reply that must not overtake messages.
    fn reply_in_order(&mut self, key: ConnectionKey, now: Now, build: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(key).filter(|connection| !connection.is_closing()) else {
            return;
        };
        let was_empty = connection.outbox.is_empty();
        let mut frame = Vec::new();
        build(&mut self.encoder, &mut frame);
        self.metrics.outbox_bytes.add(frame.len() as u64);
        let delivery = Delivery { frame: frame.into(), received_us: REPLY };
        connection.outbox.push(delivery, &mut self.spares, now.mono_ms());
        self.metrics.frames_sent.increment();
        self.mark_writable(key, was_empty);
    }

    /// Tells the shell, once, that an outbox is not empty any more.
    fn mark_writable(&mut self, key: ConnectionKey, was_empty: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if was_empty {
            self.stalls.filled.push(key);
        }
        if !connection.writable {
            connection.writable = true;
            self.effects.push_back(Effect::Writable { connection: key });
        }
    }

    fn refuse(&mut self, key: ConnectionKey, request: u32, code: ErrorCode, now: Now) {
        self.refuse_with(key, request, code, code.label(), None, now);
    }

    /// Refuses a Subscribe, or a room of Connect.
    fn refuse_room(&mut self, key: ConnectionKey, request: u32, code: ErrorCode, room: &str, now: Now) {
        self.refuse_with(key, request, code, code.label(), Some(room), now);
    }

    fn refuse_with(
        &mut self,
        key: ConnectionKey,
        request: u32,
        code: ErrorCode,
        message: &str,
        room: Option<&str>,
        now: Now,
    ) {
        self.metrics.errors[code.index()].increment();
        let retry_after_ms = match code {
            // Clocks differ by seconds; each attempt costs a verification.
            ErrorCode::TokenNotYetValid => 10_000,
            _ if code.is_temporary() => 1000,
            _ => 0,
        };
        let fields = encode::Error { request, code, message, retry_after_ms, room };
        self.reply(key, now, |encoder, out| encoder.error(out, &fields));
    }

    fn on_opened(&mut self, key: ConnectionKey, peer: IpAddr, transport: Transport, now: Now) {
        let client = &self.settings.client;
        let messages = Bucket::full(client.messages_burst, now.mono_ms());
        let bytes = Bucket::full(client.bytes_burst, now.mono_ms());
        let connection = Connection::new(peer, transport, messages, bytes, now.mono_ms());
        self.connections.insert_at(key, connection);
        self.metrics.connections_accepted[transport as usize].increment();
        self.metrics.connections_active[transport as usize].add(1);
        self.rearm(key, now);
        if self.draining.is_some() {
            self.close(key, CloseReason::Shutdown, "", now);
        }
    }

    fn on_secured(&mut self, key: ConnectionKey, now: Now) {
        if let Some(connection) = self.connections.get_mut(key)
            && matches!(connection.phase, crate::session::Phase::Handshaking)
        {
            connection.phase = crate::session::Phase::AwaitConnect;
            self.rearm(key, now);
        }
    }

    /// Left minus right of the two equations of [`ShardMetrics`]; both are 0 between events.
    pub fn conservation(&self) -> (i64, i64) {
        let metrics = &self.metrics;
        let sum = |cells: &[crate::metrics::Cell]| cells.iter().map(crate::metrics::Cell::read).sum::<u64>();
        let deliveries = metrics.deliveries_owed.read() as i64
            - (metrics.deliveries_sent.read()
                + sum(&metrics.deliveries_dropped)
                + metrics.deliveries_queued.read()
                + metrics.deliveries_deferred.read()) as i64;
        let inbox = metrics.inbox_stored.read() as i64
            - (metrics.inbox_acked.read() + sum(&metrics.inbox_expired) + metrics.inbox_pending.read()) as i64;
        (deliveries, inbox)
    }

    /// Broadcasts posted and not worked off, and requests posted and not answered: both 0 when nothing is under way. For
    /// tests.
    pub fn under_way(&self) -> (u64, usize) {
        let owed = (0..self.shards).map(|shard| self.ways.owed(ShardId(shard)).deliveries).sum();
        (owed, self.asked)
    }

    /// Panics when any structure of the shard is broken; for tests.
    pub fn invariants(&self) {
        assert_eq!(self.conservation(), (0, 0), "conservation on shard {}", self.id.0);
        self.wheel.invariants();
        self.homes.invariants(&self.settings, &self.metrics);
        let (mut queued, mut bytes, mut deferred) = (0, 0, 0);
        for (key, connection) in self.connections.iter() {
            connection.outbox.invariants();
            assert!(
                connection.writable || connection.outbox.is_empty(),
                "the shell does not know of the outbox of {key:?}"
            );
            queued += connection.outbox.frames() as u64;
            bytes += connection.outbox.bytes() as u64;
            if let Some(since_ms) = connection.outbox.stalled_since_ms().filter(|_| !connection.is_closing()) {
                let deadline_ms = since_ms + self.settings.client.write_timeout_ms;
                let watched = self.stalls.filled.contains(&key) || self.stalls.sent.contains(&key);
                assert!(watched || self.wheel.expires_by(key.slot, deadline_ms), "{key:?} has no write deadline");
            }
            assert!(
                connection.outbox.data_bytes() <= self.outbox_limits.bytes_max + self.settings.body_bytes_max(),
                "outbox of {key:?} over its bound"
            );
            deferred += connection.session.as_ref().map_or(0, |session| u64::from(session.inbox.behind));
        }
        deferred += self.rooms.invariants(&self.connections);
        assert_eq!(queued, self.metrics.deliveries_queued.read(), "queued deliveries");
        assert_eq!(bytes, self.metrics.outbox_bytes.read(), "outbox bytes");
        assert_eq!(deferred, self.metrics.deliveries_deferred.read(), "deferred deliveries");
    }

    fn count_dropped(metrics: &ShardMetrics, reason: DropReason, count: u64) {
        metrics.deliveries_dropped[reason as usize].add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with as many places as one home has names must not see them in a part of its places only.
    #[test]
    fn names_of_one_home_lie_everywhere_in_a_table() {
        const PLACES: u64 = 1024;
        for shards in [1, 64, 256] {
            let shard = Shard::new(ShardOptions {
                id: ShardId(0),
                shards,
                settings: Arc::default(),
                metrics: Arc::default(),
                seed: 7,
            });
            let names = (0..).map(|number| format!("chat:{number}"));
            let of_home = names.filter(|name| shard.home_of_room(name) == ShardId(0)).take(PLACES as usize);
            let mut taken = vec![false; PLACES as usize];
            of_home.for_each(|name| taken[(shard.hash.hash_one(&*name) % PLACES) as usize] = true);
            // Thrown at random, 1 - 1/e of the places are taken: 647.
            let taken = taken.iter().filter(|taken| **taken).count();
            assert!((580..720).contains(&taken), "{taken} of {PLACES} places with {shards} shards");
        }
    }
}
