//! The engine's thread: what shards ask for goes to Redis in order, and what Redis says goes to the shards.
//!
//! One task owns all state and never waits for Redis: connections are tasks of their own that hand it whatever they read. It takes
//! turns: what has come, what shards have asked for, what is due by the clock; then commands are sent and shards are woken.
//!
//! Invariants: commands of a topic are sent, and after a lost connection or a refusal sent again, in the order in which they were asked for. A topic
//! is loaded only after it was subscribed to.
//!
//! | module | what |
//! |---|---|
//! | `partitions` | what is asked: a queue for each partition, so that a topic keeps its order whatever becomes of its master |
//! | `masters` | which master has which partition, and what of them is up |
//! | `link` | the connection to a master for commands: what is under way |
//! | `news` | the connection to a master for news: subscriptions |
//! | `interest` | topics that homes here have in memory |
//! | `answers` | what Redis has answered, told to shards |
//! | `later` | states and releases that wait |
//! | `refusals` | a Redis that answers and stores nothing |

mod answers;
mod interest;
mod later;
mod link;
mod masters;
mod news;
mod partitions;
mod refusals;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use ringgate_core::id::ShardId;
use ringgate_core::keyed::{Keyed, keyed};
use ringgate_core::limits::Settings;
use ringgate_core::shard::{Asked, Effect, EngineUnavailable, Event, Unclaimed, Unstored};
use ringgate_core::topics::DeviceState;
use tokio::sync::{Notify, mpsc};

use crate::command::{MEMBERS_AT_ONCE, What};
use crate::epochs::Epochs;
use crate::identity::{Identity, LEASE_EVERY};
use crate::keys::Keys;
use crate::nodes::Nodes;
use crate::options::{Options, WhenAway};
use crate::outbound::{Homes, Outbound};
use crate::record;
use crate::resp::Value;
use crate::setup::Ready;
use crate::slots::Slots;
use crate::status::{Status, add, set};
use crate::wire::Wire;
use interest::Interests;
use later::Later;
use masters::Masters;
use news::Subscriptions;
use partitions::Partitions;
use refusals::Refusals;

/// What is due by the clock is looked at so often.
const TICK: Duration = Duration::from_millis(50);
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Without a probe over pub/sub for this long its connection is made anew, and the node is not ready.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// What shards have asked for that is looked at in one turn, so that answers are not kept waiting.
const ASKED_A_TURN: usize = 1024;
/// Commands that wait to be sent, beyond which messages in no log are given up: their publishers are not held back by an answer.
const WAITING_MAX_FOR_RELAY: usize = 16 * 1024;
/// What connections have read that waits for a turn: beyond it, Redis waits.
const READ_WAITING: usize = 64;
/// Clocks that differ by no more than this are taken to be the same.
const CLOCK_TOLERANCE_MS: u64 = 100;
/// Time to store what was taken when the engine is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Names a master, and is not given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MasterId(u32);

/// What the tasks of connections hand over: each with its master and the number of the connection.
enum FromWire {
    Ready(MasterId, u64, Box<std::io::Result<Ready>>),
    Answers(MasterId, u64, std::io::Result<Vec<Value>>),
    NewsReady(MasterId, u64, std::io::Result<Wire>),
    News(MasterId, u64, std::io::Result<Vec<Value>>),
    Slots(std::io::Result<Slots>),
}

/// What the thread is woken by.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    pub(crate) asked: Notify,
    pub(crate) stop: Notify,
}

pub(crate) struct Work<H> {
    options: Options,
    settings: Arc<Settings>,
    identity: Identity,
    keys: Keys,
    hash: Keyed,
    status: Arc<Status>,
    out: Outbound<H>,
    wires: mpsc::Sender<FromWire>,
    masters: Masters,
    partitions: Partitions,
    subscriptions: Subscriptions,
    nodes: Nodes,
    interests: Interests,
    epochs: Epochs,
    /// What is told at the next tick, or when there is room.
    later: Later,
    refusals: Refusals,
    /// Appends of a topic that are not answered yet.
    owed: HashMap<Arc<str>, u32>,
    now: Instant,
    lease_due: Instant,
    leases_asked: u64,
    /// The newest that was answered, or lost with its connection.
    leases_answered: u64,
    /// Topics that wait for a newer list of nodes before they are told.
    held: Vec<answers::Held>,
    /// Rooms whose members Redis was not told: their homes tell them anew when it is back.
    unknown_members: BTreeSet<(Arc<str>, ShardId)>,
    refusal_logged: Option<Instant>,
    /// The clock of Redis less that of this node, in milliseconds.
    clock_ahead_ms: i64,
}

/// Runs until it is told to stop, and for as long as what was taken before is under way, 2 s at most.
pub(crate) async fn run<H: Homes>(
    options: Options,
    identity: Identity,
    settings: Arc<Settings>,
    homes: H,
    status: Arc<Status>,
    asked: Receiver<Asked>,
    bell: Arc<Bell>,
) {
    let now = Instant::now();
    let (wires, mut read) = mpsc::channel(READ_WAITING);
    let keys = Keys::new(&options.prefix, options.database, options.partitions);
    let mut work = Work {
        hash: keyed(identity.seed),
        out: Outbound::new(homes),
        wires,
        masters: Masters::new(now, identity.run, &options.servers),
        partitions: Partitions::new(now, keys.nodes_partition() + 1),
        subscriptions: Subscriptions::default(),
        nodes: Nodes::new(identity.run),
        interests: Interests::new(keys.partitions()),
        epochs: Epochs::default(),
        later: Later::new(now),
        refusals: Refusals::default(),
        owed: HashMap::new(),
        now,
        lease_due: now,
        leases_asked: 0,
        leases_answered: 0,
        held: Vec::new(),
        unknown_members: BTreeSet::new(),
        refusal_logged: None,
        clock_ahead_ms: 0,
        keys,
        options,
        settings,
        identity,
        status,
    };
    if !work.masters.is_cluster {
        let id = work.masters.add(now, None, now + work.options.subscriptions_checked_every);
        (0..work.partitions.count()).for_each(|partition| work.partitions.set_master(partition, Some(id)));
    }
    let (told, redis_ms) = work.identity.clock;
    work.nodes.set_clock(told, redis_ms);
    let mut tick = now + TICK;
    let mut stop_at: Option<Instant> = None;
    loop {
        let waits = work.out.flush();
        set(&work.status.events_waiting, waits as u64);
        let wake = if waits == 0 { tick } else { tick.min(Instant::now() + Duration::from_millis(1)) };
        tokio::select! {
            biased;
            some = read.recv() => {
                work.now = Instant::now();
                work.compare_clocks();
                if let Some(some) = some {
                    work.on_read(some);
                }
                for _ in 0..READ_WAITING {
                    let Ok(some) = read.try_recv() else { break };
                    work.on_read(some);
                }
            }
            () = bell.asked.notified() => {}
            () = bell.stop.notified() => stop_at = Some(stop_at.unwrap_or(Instant::now() + STOP_TIMEOUT)),
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        work.now = Instant::now();
        work.compare_clocks();
        if work.ask(&asked) {
            bell.asked.notify_one();
        }
        if work.now >= tick {
            // After a stop of the process everything would be late: first is heard what has come meanwhile.
            let was_stopped = work.now.duration_since(tick) > Duration::from_secs(1);
            tick = work.now + TICK;
            work.on_tick(was_stopped);
        }
        if let Some(until) = stop_at {
            work.tell_later();
            let is_idle = work.later.is_empty() && work.partitions.is_idle() && work.masters.is_idle();
            if is_idle && asked.is_empty() || work.now >= until {
                break;
            }
        }
        work.send_subscriptions();
        work.pump();
    }
    work.end_lease().await;
    work.out.flush();
}

impl<H: Homes> Work<H> {
    /// Takes what shards ask for; true if there is more.
    fn ask(&mut self, asked: &Receiver<Asked>) -> bool {
        for _ in 0..ASKED_A_TURN {
            let Ok(Asked { shard, effect }) = asked.try_recv() else { return false };
            self.on_asked(shard, effect);
        }
        true
    }

    fn on_read(&mut self, read: FromWire) {
        match read {
            FromWire::Ready(id, life, ready) => self.on_ready(id, life, *ready),
            FromWire::Answers(id, life, answers) => self.on_answers(id, life, answers),
            FromWire::NewsReady(id, life, wire) => self.on_news_ready(id, life, wire),
            FromWire::News(id, life, news) => self.on_news(id, life, news),
            FromWire::Slots(slots) => self.on_slots(slots),
        }
    }

    /// Clocks may be set at any time. What is less than the tolerance is taken for the time that answers are under way.
    fn compare_clocks(&mut self) {
        let Some(redis_ms) = self.nodes.redis_ms(self.now) else { return };
        let ahead_ms = redis_ms.wrapping_sub((self.options.wall_clock)()) as i64;
        if ahead_ms.abs_diff(self.clock_ahead_ms) > CLOCK_TOLERANCE_MS {
            self.clock_ahead_ms = ahead_ms;
        }
    }

    /// A time of this node's clock, as Redis is told of it.
    fn to_redis_ms(&self, own_ms: u64) -> u64 {
        own_ms.saturating_add_signed(self.clock_ahead_ms)
    }

    /// A time of the clock of Redis, as shards are told of it.
    fn to_own_ms(&self, redis_ms: u64) -> u64 {
        redis_ms.saturating_sub_signed(self.clock_ahead_ms)
    }

    fn to_redis_times(&self, devices: &mut [DeviceState]) {
        for device in devices {
            device.away_since_ms = device.away_since_ms.map(|since_ms| self.to_redis_ms(since_ms));
        }
    }

    fn on_asked(&mut self, shard: ShardId, effect: Effect) {
        let refuses = match &effect {
            Effect::Append { record, .. } => self.refuses(&record.topic),
            Effect::Read { messages, .. } => self.refuses(&messages.topic),
            Effect::Claim { user, .. } | Effect::Disconnect { user, .. } => self.refuses(&format!("@{user}")),
            Effect::Load { topic, .. }
            | Effect::Presence { topic, .. }
            | Effect::Members { topic, .. }
            | Effect::Relay { topic, .. } => self.refuses(topic),
            _ => false,
        };
        match effect {
            Effect::Append { ticket, mut record, .. } => {
                if refuses && self.options.when_away == WhenAway::Refuse {
                    add(&self.status.refused_away, 1);
                    return self.out.tell(shard, Event::Stored { ticket, result: Err(Unstored::Away) });
                }
                record.expires_unix_ms = self.to_redis_ms(record.expires_unix_ms);
                *self.owed.entry(record.topic.clone()).or_default() += 1;
                let message = record::message(&record);
                self.push(shard, What::Append { ticket, record, message });
            }
            Effect::Load { topic, .. } if refuses => {
                self.out.tell(shard, Event::Loaded { topic, result: Err(EngineUnavailable) });
            }
            Effect::Load { topic, epoch } => {
                self.flush_cursor(&topic);
                self.want(shard, topic, epoch);
            }
            Effect::Read { read, .. } if refuses => {
                self.out.tell(shard, Event::Read { read, result: Err(EngineUnavailable) });
            }
            Effect::Read { read, messages } => {
                add(&self.status.reads, 1);
                self.push(shard, What::Read { read, messages });
            }
            Effect::Claim { claim, .. } if refuses => {
                self.out.tell(shard, Event::Claimed { claim, result: Err(Unclaimed::Unavailable) });
            }
            Effect::Claim { claim, user, device, session } => {
                self.flush_release(&user, &device);
                self.push(shard, What::Claim { claim, user, device, session });
            }
            Effect::Cursor { topic, epoch, mut state } => {
                self.to_redis_times(&mut state.devices);
                self.keep_cursor(shard, topic, epoch, state);
            }
            Effect::Unload { topic } => {
                if self.is_open(&topic) {
                    self.flush_cursor(&topic);
                }
                self.interests.linger(&topic, self.now);
            }
            Effect::Release { user, device, fence, mut left } => {
                if let Some(left) = &mut left {
                    self.to_redis_times(std::slice::from_mut(&mut left.state));
                }
                let inbox = format!("@{user}");
                if self.is_open(&inbox) {
                    self.flush_cursor(&inbox);
                }
                self.release(shard, (user, device), fence, left);
            }
            Effect::Presence { read, .. } if refuses => {
                self.out.tell(shard, Event::Present { read, result: Err(EngineUnavailable) });
            }
            Effect::Presence { read, topic, limit } => self.push(shard, What::Presence { read, topic, limit }),
            Effect::Members { topic, .. } if refuses || self.partitions.waiting() >= WAITING_MAX_FOR_RELAY => {
                self.unknown_members.insert((topic, shard));
            }
            Effect::Members { topic, count, mut changes, mut anew } => loop {
                let rest = changes.split_off(changes.len().min(MEMBERS_AT_ONCE));
                let what = What::Members { topic: topic.clone(), count, changes, anew };
                self.push(shard, what);
                if rest.is_empty() {
                    break;
                }
                (changes, anew) = (rest, false);
            },
            Effect::Relay { topic, frame, origin } if !refuses && self.partitions.waiting() < WAITING_MAX_FOR_RELAY => {
                let payload = record::relay(origin, &frame);
                self.push(shard, What::Relay { topic, payload });
            }
            Effect::Disconnect { user, device, reason } if !refuses => {
                let payload = record::disconnect(self.identity.run, device.as_deref(), reason);
                self.push(shard, What::Relay { topic: format!("@{user}").into(), payload });
            }
            Effect::Relay { .. } | Effect::Disconnect { .. } => add(&self.status.given_up, 1),
            Effect::Post(_)
            | Effect::Verify { .. }
            | Effect::Writable { .. }
            | Effect::Close { .. }
            | Effect::SignedIn { .. }
            | Effect::Abort { .. }
            | Effect::Hold { .. } => debug_assert!(false, "not for an engine"),
        }
    }

    fn on_tick(&mut self, was_stopped: bool) {
        // While a partition is away it is merged, and bounded.
        self.tell_later();
        self.partitions.count_waiting();
        if !was_stopped {
            self.give_up_silent_links();
            self.give_up_late();
            self.look_at_news();
        }
        self.ask_for_slots();
        self.connect_links();
        self.unsubscribe_lingering();
        self.look_at_subscriptions();
        self.touch_topics();
        self.ask_for_members();
        self.give_up_held();
        self.send_probes();
        let nodes = self.keys.nodes_partition();
        if self.now >= self.lease_due && self.partitions.is_open(nodes) {
            self.ask_for_nodes();
        }
        if self.partitions.refuses(nodes, self.now) && !self.held.is_empty() {
            // A newer list of nodes does not come soon.
            self.lease_failed(u64::MAX);
        }
        self.say_what_is_up();
        set(&self.status.buffered, self.partitions.waiting() as u64);
        set(&self.status.interest, self.interests.len() as u64);
        set(&self.status.dropped, self.out.dropped);
    }

    /// Homes whose rooms have changed tell their members anew.
    fn ask_for_members(&mut self) {
        const A_TICK: usize = 256;
        if self.refusals.are_there() {
            return;
        }
        let is_open = |(topic, _): &&(Arc<str>, ShardId)| self.is_open(topic);
        let open: Vec<_> = self.unknown_members.iter().filter(is_open).take(A_TICK).cloned().collect();
        for room in open {
            self.unknown_members.remove(&room);
            let (topic, shard) = room;
            self.out.tell(shard, Event::Changed { topic });
        }
    }

    fn ask_for_nodes(&mut self) {
        self.lease_due = self.now + LEASE_EVERY;
        self.leases_asked += 1;
        let number = self.leases_asked;
        self.push(ShardId(0), What::Lease { number });
    }

    /// The node's number is free at once for the next run.
    async fn end_lease(&mut self) {
        if self.partitions.refuses(self.keys.nodes_partition(), self.now) {
            return;
        }
        let end = async {
            let server = crate::setup::nodes_master(&self.options, &self.keys).await?;
            let ready = crate::setup::ready(&self.options, &server, None).await?;
            crate::identity::end_lease(ready, &self.options, &self.keys, &self.identity).await
        };
        if let Err(error) = tokio::time::timeout(STOP_TIMEOUT, end).await.unwrap_or_else(|late| Err(late.into())) {
            tracing::warn!(%error, "the lease of this node was not ended: it lasts for up to 15 s");
        }
    }
}
