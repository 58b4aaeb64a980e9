//! What a shard asks of the engine that keeps its messages: a bounded channel to the engine's thread, and what waits while it is full.
//! The engine answers through the shard's mailbox.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::{Sender, TrySendError};
use ringgate_core::id::ShardId;
use ringgate_core::mesh::Wake;
use ringgate_core::metrics::ShardMetrics;
use ringgate_core::shard::{Asked, Effect};

/// See the module.
pub struct EngineEnd {
    shard: ShardId,
    asks: Sender<Asked>,
    bell: Arc<dyn Wake>,
    /// In order.
    waiting: VecDeque<Effect>,
}

/// While so much waits, what is answered by nobody is left out: messages in no log, and states of topics, whose loss causes
/// repetitions alone. The core bounds what else it asks for.
const WAITING_MAX: usize = 16 * 1024;

impl EngineEnd {
    /// The end of one shard.
    pub fn new(shard: ShardId, asks: Sender<Asked>, bell: Arc<dyn Wake>) -> Self {
        EngineEnd { shard, asks, bell, waiting: VecDeque::new() }
    }

    /// Whether the engine has everything that it was asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.waiting.push_back(effect);
    }

    /// Hands over what has come together in a turn, as far as there is room, and wakes the engine once.
    pub(super) fn send(&mut self, metrics: &ShardMetrics) {
        if self.waiting.is_empty() {
            return;
        }
        while let Some(effect) = self.waiting.pop_front() {
            match self.asks.try_send(Asked { shard: self.shard, effect }) {
                Ok(()) => {}
                Err(TrySendError::Full(Asked { effect, .. })) => {
                    self.waiting.push_front(effect);
                    break;
                }
                // The process ends.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
        if self.waiting.len() > WAITING_MAX {
            let before = self.waiting.len();
            self.waiting.retain(|effect| !matches!(effect, Effect::Relay { .. } | Effect::Cursor { .. }));
            metrics.relayed_dropped.add((before - self.waiting.len()) as u64);
        }
        self.bell.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ringgate_core::shard::Origin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Rung(AtomicUsize);

    impl Wake for Rung {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unload(topic: &str) -> Effect {
        Effect::Unload { topic: topic.into() }
    }

    fn topic_of(asked: Asked) -> String {
        match asked.effect {
            Effect::Unload { topic } | Effect::Relay { topic, .. } => topic.to_string(),
            effect => panic!("{effect:?}"),
        }
    }

    #[test]
    fn engine_has_no_room_then_the_rest_waits_in_its_order_and_the_engine_is_woken_once_a_turn() {
        let (asks, asked) = crossbeam_channel::bounded(2);
        let (bell, metrics) = (Arc::new(Rung::default()), ShardMetrics::default());
        let mut end = EngineEnd::new(ShardId(3), asks, bell.clone());
        ["a", "b", "c"].map(unload).into_iter().for_each(|effect| end.push(effect));
        end.send(&metrics);
        assert_eq!((end.is_empty(), bell.0.load(Ordering::Relaxed)), (false, 1));
        let mut got: Vec<_> = asked.try_iter().map(topic_of).collect();
        end.send(&metrics);
        got.extend(asked.try_iter().map(topic_of));
        assert_eq!((got.as_slice(), end.is_empty()), (&["a", "b", "c"].map(String::from)[..], true));
    }

    #[test]
    fn engine_takes_nothing_for_long_then_what_nobody_answers_is_left_out_and_the_rest_stays() {
        let (asks, asked) = crossbeam_channel::bounded(1);
        let metrics = ShardMetrics::default();
        let mut end = EngineEnd::new(ShardId(0), asks, Arc::new(Rung::default()));
        end.push(unload("first"));
        end.push(unload("second"));
        for _ in 0..WAITING_MAX {
            let origin = Origin { run: 1, session: 0 };
            end.push(Effect::Relay { topic: "chat:a".into(), frame: Bytes::new(), origin });
        }
        end.send(&metrics);
        assert_eq!(metrics.relayed_dropped.read(), WAITING_MAX as u64);
        let mut got: Vec<_> = asked.try_iter().map(topic_of).collect();
        end.send(&metrics);
        got.extend(asked.try_iter().map(topic_of));
        assert_eq!(got, ["first", "second"]);
    }
}
