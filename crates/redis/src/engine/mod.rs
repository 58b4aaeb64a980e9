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

mod answers;
mod interest;
mod link;
mod masters;
mod news;
mod partitions;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;
use ringgate_core::id::ShardId;
use ringgate_core::keyed::{Keyed, keyed};
use ringgate_core::limits::Settings;
use ringgate_core::shard::{Asked, Effect, EngineUnavailable, Event};
use ringgate_core::topics::TopicState;
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
use masters::Masters;
use news::Subscriptions;
use partitions::Partitions;

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
    /// Cursors that are told at the next tick, by topic.
    cursors: HashMap<Arc<str>, PendingCursor>,
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
    /// Releases and cursors that Redis had no room for.
    later: Vec<(ShardId, What)>,
    later_due: Instant,
    refusal_logged: Option<Instant>,
}

struct PendingCursor {
    shard: ShardId,
    epoch: u64,
    state: Box<TopicState>,
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
        cursors: HashMap::new(),
        owed: HashMap::new(),
        now,
        lease_due: now,
        leases_asked: 0,
        leases_answered: 0,
        held: Vec::new(),
        unknown_members: BTreeSet::new(),
        later: Vec::new(),
        later_due: now,
        refusal_logged: None,
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
            work.flush_cursors();
            let is_idle = work.cursors.is_empty() && work.partitions.is_idle() && work.masters.is_idle();
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

    fn on_asked(&mut self, shard: ShardId, effect: Effect) {
        let refuses = match &effect {
            Effect::Append { record, .. } => self.refuses(&record.topic),
            Effect::Read { messages, .. } => self.refuses(&messages.topic),
            Effect::Claim { user, .. } => self.refuses(&format!("@{user}")),
            Effect::Load { topic }
            | Effect::Presence { topic, .. }
            | Effect::Members { topic, .. }
            | Effect::Relay { topic, .. } => self.refuses(topic),
            _ => false,
        };
        match effect {
            Effect::Append { ticket, record, .. } => {
                if refuses && self.options.when_away == WhenAway::Refuse {
                    add(&self.status.refused_away, 1);
                    return self.out.tell(shard, Event::Stored { ticket, result: Err(EngineUnavailable) });
                }
                *self.owed.entry(record.topic.clone()).or_default() += 1;
                let message = record::message(&record);
                self.push(shard, What::Append { ticket, record, message });
            }
            Effect::Load { topic } if refuses => {
                self.out.tell(shard, Event::Loaded { topic, result: Err(EngineUnavailable) });
            }
            Effect::Load { topic } => {
                self.flush_cursor(&topic);
                self.want(shard, topic);
            }
            Effect::Read { read, .. } if refuses => {
                self.out.tell(shard, Event::Read { read, result: Err(EngineUnavailable) });
            }
            Effect::Read { read, messages } => {
                add(&self.status.reads, 1);
                self.push(shard, What::Read { read, messages });
            }
            Effect::Claim { claim, .. } if refuses => {
                self.out.tell(shard, Event::Claimed { claim, result: Err(EngineUnavailable) });
            }
            Effect::Claim { claim, user, device, session } => {
                self.push(shard, What::Claim { claim, user, device, session });
            }
            Effect::Cursor { topic, epoch, state } => self.keep_cursor(shard, topic, epoch, state),
            Effect::Unload { topic } => {
                self.flush_cursor(&topic);
                self.interests.linger(&topic, self.now);
            }
            Effect::Release { user, device, fence, left } => {
                self.flush_cursor(&format!("@{user}"));
                self.push(shard, What::Release { user, device, fence, left });
            }
            Effect::Presence { read, .. } if refuses => {
                self.out.tell(shard, Event::Present { read, result: Err(EngineUnavailable) });
            }
            Effect::Presence { read, topic, limit } => self.push(shard, What::Presence { read, topic, limit }),
            Effect::Members { topic, .. } if refuses => {
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
            Effect::Relay { .. } => add(&self.status.given_up, 1),
            Effect::Post(_)
            | Effect::Verify { .. }
            | Effect::Writable { .. }
            | Effect::Close { .. }
            | Effect::SignedIn { .. }
            | Effect::Abort { .. }
            | Effect::Hold { .. } => debug_assert!(false, "not for an engine"),
        }
    }

    /// Keeps what is told of a topic until the next tick: the newest of each device.
    fn keep_cursor(&mut self, shard: ShardId, topic: Arc<str>, epoch: u64, state: Box<TopicState>) {
        match self.cursors.get_mut(&topic) {
            Some(pending) if pending.epoch == epoch => merge(&mut pending.state, *state),
            _ => drop(self.cursors.insert(topic, PendingCursor { shard, epoch, state })),
        }
    }

    fn flush_cursor(&mut self, topic: &str) {
        if let Some((topic, PendingCursor { shard, epoch, state })) = self.cursors.remove_entry(topic) {
            self.push(shard, What::Cursor { topic, epoch, state });
        }
    }

    /// While a partition is away its cursors are merged here, and take no more room than there are topics in memory.
    fn flush_cursors(&mut self) {
        for (topic, pending) in std::mem::take(&mut self.cursors) {
            if self.partitions.is_open(self.partition_of(&topic)) {
                let PendingCursor { shard, epoch, state } = pending;
                self.push(shard, What::Cursor { topic, epoch, state });
            } else {
                self.cursors.insert(topic, pending);
            }
        }
    }

    fn on_tick(&mut self, was_stopped: bool) {
        self.flush_cursors();
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
        if self.now >= self.later_due {
            self.later_due = self.now + Duration::from_secs(1);
            self.ask_later();
        }
        self.send_probes();
        let nodes = self.keys.nodes_partition();
        if self.now >= self.lease_due && self.partitions.is_open(nodes) {
            self.ask_for_nodes();
        }
        if self.partitions.refuses(nodes, self.now) {
            // A newer list of nodes does not come soon.
            std::mem::take(&mut self.held).into_iter().for_each(|held| self.tell_loaded(held));
        }
        self.say_what_is_up();
        set(&self.status.buffered, self.partitions.waiting() as u64);
        set(&self.status.interest, self.interests.len() as u64);
        set(&self.status.dropped, self.out.dropped);
    }

    /// Homes whose rooms have changed tell their members anew.
    fn ask_for_members(&mut self) {
        const A_TICK: usize = 256;
        let is_open = |(topic, _): &&(Arc<str>, ShardId)| self.partitions.is_open(self.partition_of(topic));
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

/// What is told later is true, but for what it does not speak of.
fn merge(known: &mut TopicState, told: TopicState) {
    known.floor = known.floor.max(told.floor);
    known.lost = known.lost.max(told.lost);
    known.known |= told.known;
    known.forgotten_at = [known.forgotten_at, told.forgotten_at].into_iter().flatten().min();
    known.devices.retain(|device| !told.forgotten.contains(&device.name));
    known.forgotten.retain(|name| told.devices.iter().all(|device| device.name != *name));
    for device in told.devices {
        match known.devices.iter_mut().find(|known| known.name == device.name) {
            Some(known) => *known = device,
            None => known.devices.push(device),
        }
    }
    for name in told.forgotten {
        if !known.forgotten.contains(&name) {
            known.forgotten.push(name);
        }
    }
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
