//! Shards that stall, and shards without room: a thread of its own looks at what they count.
//!
//! A shard makes two turns a second at least, however idle it is, and counts them. The thread counts its own looks
//! instead of asking the clock: while the whole process is stopped it does not look either, so a stopped and continued process
//! does not report its shards.
//!
//! What is full is said to be so until a tenth of it is free again: a node that is always nearly full must not be ready and not
//! ready several times a second.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::readiness::{Readiness, State, refusal};
use ringgate_core::metrics::{Cell, ShardMetrics};
use ringgate_redis::Status;

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in a row that see no turn, after which a shard stands still: five seconds.
const LOOKS_MAX: u32 = 20;
/// Logs are full at so many hundredths of what they may take. One user who publishes much is refused at 80 already, several at
/// more: only many of them together reach this.
const LOGS_FULL: u64 = 95;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections of each shard.
    pub(crate) slots: u64,
    /// Connections of the node; 0 for no limit.
    pub(crate) connections: u64,
}

/// The thread; ends when dropped.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches shards that make turns already. The error is that of the thread.
    pub(crate) fn start(
        metrics: Arc<[Arc<ShardMetrics>]>,
        limits: Limits,
        engine: Option<Arc<Status>>,
        readiness: Arc<Readiness>,
    ) -> std::io::Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut node = Node::new(metrics.len(), limits);
            while !stopped.load(Ordering::Acquire) {
                std::thread::park_timeout(LOOK_EVERY);
                node.look(&metrics, &readiness);
                if let Some(engine) = &engine {
                    node.look_at_engine(engine, &readiness);
                }
            }
        })?;
        Ok(Watch { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// What was seen so far.
struct Node {
    limits: Limits,
    shards: Vec<Shard>,
    connections: Level,
    /// The engine was away at the last look.
    engine_away: bool,
    /// It has answered once.
    engine_seen: bool,
}

#[derive(Clone, Default)]
struct Shard {
    turns: Turns,
    slots: Level,
    logs: Level,
}

impl Node {
    fn new(shards: usize, limits: Limits) -> Node {
        Node {
            limits,
            shards: vec![Shard::default(); shards],
            connections: Level::default(),
            engine_away: false,
            engine_seen: false,
        }
    }

    /// Says whether the engine that nodes share answers, if that has changed.
    fn look_at_engine(&mut self, engine: &Status, readiness: &Readiness) {
        // At its end a node leaves the engine by itself.
        if readiness.state() == State::Draining {
            return;
        }
        let text: Cow<'static, str> = if engine.number_lost.load(Ordering::Acquire) {
            "another node has this node's number".into()
        } else if engine.up.load(Ordering::Acquire) {
            "".into()
        } else {
            Some(engine.away()).filter(|text| !text.is_empty()).map_or("Redis does not answer".into(), Cow::Owned)
        };
        // In a Cluster other masters may serve.
        let serves = engine.serves.load(Ordering::Acquire) && !engine.number_lost.load(Ordering::Acquire);
        let is_away = !text.is_empty();
        // Not said of the first looks: the engine has to hear its first probe before.
        let was_seen = self.engine_seen;
        self.engine_seen |= !is_away;
        if is_away != self.engine_away && was_seen {
            match is_away {
                true if serves => tracing::error!(reason = &*text, "a part of Redis is away"),
                true => tracing::error!(reason = &*text, "the node is not ready"),
                false => tracing::info!("Redis answers again"),
            }
        }
        self.engine_away = is_away;
        readiness.set_engine(text, serves);
        // The engine's thread has said so in the log.
        readiness.engine_refuses.store(refusal(engine.refuses()), Ordering::Release);
    }

    /// Says in `readiness` and in the log what has changed since the last look.
    fn look(&mut self, metrics: &[Arc<ShardMetrics>], readiness: &Readiness) {
        let Limits { slots, connections } = self.limits;
        for (index, (metrics, shard)) in metrics.iter().zip(&mut self.shards).enumerate() {
            let turns = metrics.turns.read();
            if let Some(stalled) = shard.turns.look(turns) {
                match stalled {
                    true => tracing::error!(shard = index, turns, "a shard stands still; the node is not ready"),
                    false => tracing::warn!(shard = index, turns, "a shard that stood still moves again"),
                }
                readiness.stalled.set(index, stalled);
            }
            let used = metrics.ring_slots_used.read();
            if let Some(full) = shard.slots.look(used, slots, slots) {
                match full {
                    true => tracing::warn!(shard = index, used, "a shard is full and refuses clients"),
                    false => tracing::info!(shard = index, used, "a shard has room for clients again"),
                }
                readiness.full.set(index, full);
            }
            let (used, limit) = (metrics.log_bytes.read(), metrics.log_bytes_limit.read());
            if let Some(full) = shard.logs.look(used, limit.div_ceil(100).saturating_mul(LOGS_FULL), limit) {
                match full {
                    true => tracing::warn!(shard = index, used, limit, "the logs of a shard are full"),
                    false => tracing::info!(shard = index, used, limit, "the logs of a shard have room again"),
                }
                readiness.logs.set(index, full);
            }
        }
        let used = metrics.iter().flat_map(|metrics| &metrics.connections_active).map(Cell::read).sum();
        if let Some(full) = self.connections.look(used, connections, connections) {
            match full {
                true => tracing::warn!(used, "the node has client.connections_max connections and refuses clients"),
                false => tracing::info!(used, "the node has room for clients again"),
            }
            readiness.connections.store(full, Ordering::Release);
        }
    }
}

/// The turns of a shard, and in how many looks they did not grow.
#[derive(Clone, Default)]
struct Turns {
    seen: u64,
    looks: u32,
}

impl Turns {
    /// Whether a shard that made so many turns stands still, if that has changed with this look.
    fn look(&mut self, turns: u64) -> Option<bool> {
        let was_still = self.looks >= LOOKS_MAX;
        self.looks = if self.seen == turns { self.looks.saturating_add(1) } else { 0 };
        self.seen = turns;
        let is_still = self.looks >= LOOKS_MAX;
        (is_still != was_still).then_some(is_still)
    }
}

/// Whether something is full, with a distance between becoming so and ceasing to be.
#[derive(Clone, Default)]
struct Level {
    is_full: bool,
}

impl Level {
    /// Whether it is full, if that has changed with this look: from `full` on, until a tenth of `limit`, or one where that is
    /// less, is free. A `limit` of 0 is none.
    fn look(&mut self, used: u64, full: u64, limit: u64) -> Option<bool> {
        let is_full = match self.is_full {
            false => used >= full,
            true => used > limit - (limit / 10).max(1).min(limit),
        };
        let is_full = is_full && limit != 0;
        (std::mem::replace(&mut self.is_full, is_full) != is_full).then_some(is_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringgate_core::transport::Transport;

    #[test]
    fn turns_do_not_grow_for_five_seconds_then_the_shard_stands_still_until_they_do() {
        let (mut still, mut moving) = (Turns::default(), Turns::default());
        for turn in 1..=LOOKS_MAX {
            assert_eq!((still.look(7), moving.look(turn.into())), (None, None), "look {turn}");
        }
        assert_eq!(still.look(7), Some(true));
        assert_eq!((still.look(7), moving.look(99)), (None, None));
        assert_eq!((still.look(8), still.look(9)), (Some(false), None));
        assert_eq!(LOOK_EVERY * LOOKS_MAX, Duration::from_secs(5));
    }

    #[test]
    fn limit_is_reached_then_full_until_a_tenth_is_free() {
        let mut level = Level::default();
        let looks = [99, 100, 99, 91, 90, 99, 100, 0].map(|used| level.look(used, 100, 100));
        assert_eq!(looks, [None, Some(true), None, None, Some(false), None, Some(true), Some(false)]);
        // A tenth is less than one.
        let looks = [2, 3, 3, 2, 3].map(|used| level.look(used, 3, 3));
        assert_eq!(looks, [None, Some(true), None, Some(false), Some(true)]);
        // None.
        let mut level = Level::default();
        assert_eq!([0, u64::MAX].map(|used| level.look(used, 0, 0)), [None, None]);
    }

    #[test]
    fn shard_logs_or_node_are_full_then_readiness_says_which_until_there_is_room() {
        let metrics: Vec<Arc<ShardMetrics>> = (0..2).map(|_| Arc::default()).collect();
        let readiness = Readiness::default();
        readiness.set(State::Ready);
        let mut node = Node::new(2, Limits { slots: 10, connections: 30 });
        let mut look = |turn: u64| {
            metrics.iter().for_each(|metrics| metrics.turns.set(turn));
            node.look(&metrics, &readiness);
            readiness.obstacles().into_iter().map(|reason| (reason.reason, reason.shards)).collect::<Vec<_>>()
        };
        metrics[0].log_bytes_limit.set(1000);
        assert_eq!(look(1), []);
        metrics[1].ring_slots_used.set(10);
        metrics[0].log_bytes.set(949);
        assert_eq!(look(2), [("full", vec![1])]);
        metrics[0].log_bytes.set(950);
        (0..2).for_each(|shard| metrics[shard].connections_active[Transport::Tls].set(15));
        assert_eq!(look(3), [("full", vec![]), ("full", vec![1]), ("logs", vec![0])]);
        (0..2).for_each(|shard| metrics[shard].connections_active[Transport::Tls].set(13));
        metrics[1].ring_slots_used.set(9);
        metrics[0].log_bytes.set(901);
        assert_eq!(look(4), [("logs", vec![0])]);
        metrics[0].log_bytes.set(900);
        assert_eq!(look(5), []);
    }

    #[test]
    fn engine_is_away_then_the_node_is_not_ready_for_that_reason_unless_it_drains() {
        let (status, readiness) = (Status::default(), Readiness::default());
        let mut node = Node::new(1, Limits { slots: 10, connections: 0 });
        let mut look = |state, is_up| {
            readiness.set(state);
            status.up.store(is_up, Ordering::Release);
            node.look_at_engine(&status, &readiness);
            readiness.obstacles().into_iter().map(|reason| reason.reason).collect::<Vec<_>>()
        };
        assert_eq!(look(State::Ready, true), [""; 0]);
        assert_eq!(look(State::Ready, false), ["redis"]);
        assert_eq!(look(State::Ready, true), [""; 0]);
        assert_eq!(look(State::Draining, false), ["draining"]);
        status.serves.store(true, Ordering::Release);
        assert_eq!(look(State::Ready, false), [""; 0]);
        assert_eq!(readiness.lacks()[0].reason, "redis");
    }
}
