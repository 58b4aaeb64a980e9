//! How the node is: set by the server and by the watch, said by the admin listeners and to the service manager.

use std::borrow::Cow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use ringgate_core::limits::SHARDS_MAX;
use ringgate_redis::Refuses;
use serde::Serialize;

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not listening yet.
    Starting = 0,
    /// Accepting clients.
    Ready = 1,
    /// Sending clients away.
    Draining = 2,
}

/// The state of the node, shared between the server, the watch and the admin listeners.
#[derive(Debug, Default)]
pub struct Readiness {
    state: AtomicU8,
    /// Shards that make no turns.
    pub(crate) stalled: Shards,
    /// Shards that have no slot for another connection.
    pub(crate) full: Shards,
    /// Shards whose logs take nearly all they may.
    pub(crate) logs: Shards,
    /// The node has `client.connections_max` connections.
    pub(crate) connections: AtomicBool,
    /// What of the engine that nodes share does not answer, for people; empty while all of it does.
    engine: Mutex<Cow<'static, str>>,
    /// Some of the engine answers.
    engine_serves: AtomicBool,
    /// Why it answers and stores nothing, see [`refusal`]; 0 where it stores.
    pub(crate) engine_refuses: AtomicU8,
}

/// As it stands in [`Readiness::engine_refuses`].
pub(crate) fn refusal(why: Option<Refuses>) -> u8 {
    why.map_or(0, |why| why as u8)
}

/// Why the node is not healthy, or not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// `starting`, `draining`, `stalled`, `full`, `logs` or `redis`.
    pub reason: &'static str,
    /// The shards that it is about, in ascending order; none for the whole node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<usize>,
    /// For people.
    pub text: Cow<'static, str>,
}

impl Reason {
    /// Says no more of Redis than that it does not answer.
    pub(crate) fn hide_addresses(&mut self) {
        if self.reason == "redis" {
            self.text = "Redis, or a part of it, does not answer".into();
        }
    }
}

impl Readiness {
    /// Changes the state.
    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// What the server does now.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Draining,
        }
    }

    /// What of the engine that nodes share does not answer, for people; empty while all of it does. And whether some of it does.
    pub(crate) fn set_engine(&self, away: Cow<'static, str>, serves: bool) {
        self.engine_serves.store(serves, Ordering::Release);
        *self.engine.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = away;
    }

    /// Why the process should be started again; empty while it is healthy.
    pub fn illnesses(&self) -> Vec<Reason> {
        let stalled = Reason { reason: "stalled", shards: self.stalled.list(), text: "no turn for 5 s".into() };
        [stalled].into_iter().filter(|reason| !reason.shards.is_empty()).collect()
    }

    /// What does not work for some clients, although others may be sent to this node: all nodes that share an engine miss the same part
    /// of it, and none would be ready.
    pub fn lacks(&self) -> Vec<Reason> {
        self.engine_away().filter(|_| self.engine_serves.load(Ordering::Acquire)).into_iter().collect()
    }

    fn engine_away(&self) -> Option<Reason> {
        let text = self.engine.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        (!text.is_empty()).then(|| Reason { reason: "redis", shards: Vec::new(), text })
    }

    /// Why no clients should be sent to this node; empty while it is ready.
    pub fn obstacles(&self) -> Vec<Reason> {
        let node = |reason, text: Cow<'static, str>| Reason { reason, shards: Vec::new(), text };
        let state = match self.state() {
            State::Starting => Some(node("starting", "not listening yet".into())),
            State::Ready => None,
            State::Draining => Some(node("draining", "clients are sent away".into())),
        };
        let connections = self.connections.load(Ordering::Acquire);
        let connections =
            connections.then(|| node("full", "as many connections as client.connections_max allows".into()));
        let refuses = self.engine_refuses.load(Ordering::Acquire);
        let refuses = Refuses::ALL.into_iter().find(|why| refusal(Some(*why)) == refuses);
        let refuses = refuses.map(|why| match why {
            Refuses::Memory => node("redis", "Redis has no memory left: messages are refused".into()),
            Refuses::Disk => node("redis", "Redis cannot write to its disk: messages are refused".into()),
            Refuses::Replicas => node("redis", "Redis has too few replicas: messages are refused".into()),
        });
        let away = self.engine_away().filter(|_| !self.engine_serves.load(Ordering::Acquire));
        let engine = away.or(refuses);
        let of_shards = [
            ("full", &self.full, "as many connections as runtime.connections_per_shard_max allows"),
            ("logs", &self.logs, "logs take nearly all that log.size_per_shard_max allows"),
        ];
        let of_shards =
            of_shards.map(|(reason, shards, text)| Reason { reason, shards: shards.list(), text: text.into() });
        let of_shards = of_shards.into_iter().filter(|reason| !reason.shards.is_empty());
        state.into_iter().chain(self.illnesses()).chain(connections).chain(engine).chain(of_shards).collect()
    }
}

/// A set of shards; written by the thread that watches, read by any.
#[derive(Debug, Default)]
pub(crate) struct Shards([AtomicU64; SHARDS_MAX / 64]);

impl Shards {
    /// Puts a shard in, or takes it out.
    pub(crate) fn set(&self, shard: usize, is_in: bool) {
        let Some(word) = self.0.get(shard / 64) else { return };
        match is_in {
            true => word.fetch_or(1 << (shard % 64), Ordering::Release),
            false => word.fetch_and(!(1 << (shard % 64)), Ordering::Release),
        };
    }

    /// In ascending order.
    fn list(&self) -> Vec<usize> {
        let words = self.0.iter().enumerate().map(|(index, word)| (index * 64, word.load(Ordering::Acquire)));
        words
            .flat_map(|(first, word)| (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| first + bit))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_put_in_and_taken_out_then_the_list_has_those_that_are_in() {
        let shards = Shards::default();
        for shard in [3, 255, 64, SHARDS_MAX] {
            shards.set(shard, true);
        }
        assert_eq!(shards.list(), [3, 64, 255]);
        shards.set(64, false);
        assert_eq!(shards.list(), [3, 255]);
    }

    #[test]
    fn shard_stalls_then_the_node_is_neither_healthy_nor_ready_and_it_is_named() {
        let readiness = Readiness::default();
        readiness.set(State::Ready);
        assert_eq!((readiness.illnesses(), readiness.obstacles()), (vec![], vec![]));
        readiness.stalled.set(1, true);
        let stalled = Reason { reason: "stalled", shards: vec![1], text: "no turn for 5 s".into() };
        assert_eq!((readiness.illnesses(), readiness.obstacles()), (vec![stalled.clone()], vec![stalled]));
    }

    #[test]
    fn node_has_no_room_then_it_is_healthy_and_not_ready_for_each_reason() {
        let readiness = Readiness::default();
        readiness.full.set(0, true);
        readiness.logs.set(2, true);
        readiness.connections.store(true, Ordering::Release);
        let names = |reasons: Vec<Reason>| -> Vec<_> { reasons.into_iter().map(|r| (r.reason, r.shards)).collect() };
        assert_eq!(readiness.illnesses(), []);
        assert_eq!(
            names(readiness.obstacles()),
            [("starting", vec![]), ("full", vec![]), ("full", vec![0]), ("logs", vec![2])]
        );
        readiness.set(State::Draining);
        assert_eq!(names(readiness.obstacles())[0], ("draining", vec![]));
    }
}
